//! One function for each decoder of bytes from outside or from disk. It must neither panic nor hang on any input, and what it takes
//! must be what it gives back.
//!
//! Where a checksum would end every trial at once, the first byte chooses whether it is made to fit: 0 leaves the bytes as they are.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorate::client::{Content, is_readable};
use quorate::codec;
use quorate::env::{Disk as _, Env};
use quorate::machine::{Machine, VERSION_MAX, rows};
use quorate::server::auth::Tokens;
use quorate::server::config::Config;
use quorate::storage::backup::Reader;
use quorate::storage::identity::Identity as DataIdentity;
use quorate::storage::log::{Log, Options};
use quorate::testing::disk::SimDisk;
use quorate::testing::history;
use quorate::testing::inline::SimEnv;
use quorate::tls::{Identity, Roots, Validity};
use quorate::types::{Blob, Chunk, Codec, LogId, NodeId};
use quorate::wire::{self, peer::v1 as peer, v1};
use quorate::{events::Events, offline, raft};

use super::rig;

/// What is run on an input.
pub type Target = fn(&[u8]);

/// By name.
pub const TARGETS: [(&str, Target); 18] = [
    ("log", log),
    ("snapshot", snapshot),
    ("current", current),
    ("command", command),
    ("row", row),
    ("rows", all_rows),
    ("client_message", client_message),
    ("peer_message", peer_message),
    ("config", config),
    ("identity", identity),
    ("history", read_history),
    ("backup", backup),
    ("events", events),
    ("raft", raft_records),
    ("content", content),
    ("bob_json", bob_json),
    ("tokens", tokens),
    ("pem", pem),
];

fn disk_with(path: &Path, bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    let put = || {
        disk.create_dir_all(path.parent().expect("a file lies in a directory"))?;
        let file = disk.create(path)?;
        file.write_at(&[IoSlice::new(bytes)], 0)?;
        file.sync()?;
        disk.sync_dir(path.parent().expect("a file lies in a directory"))
    };
    put().expect("no fault is set");
    disk
}

/// A whole segment is recovered, and every entry that is found can be read.
pub fn log(data: &[u8]) {
    let disk = disk_with(Path::new("/data/3/log/00000000000000000001.seg"), &data[..data.len().min(1 << 16)]);
    let sim = SimEnv::new(&disk, 1);
    let options = Options { segment_bytes: 4096, tail_bytes: 0, spare_segments: 0, ..Options::default() };
    let Ok(log) = Log::open(&sim.env, Path::new("/data/3/log"), options) else { return };
    let Some(last) = log.position().last else { return };
    let mut next = log.first_index();
    while next <= last.index {
        // Corruption of an entry is an error, never a hole.
        let Ok(records) = log.read(next..last.index + 1, 4096) else { return };
        assert!(!records.is_empty(), "a stored range reads as something next={next}");
        for record in records {
            assert_eq!(record.log_id.index, next);
            next += 1;
        }
    }
}

/// Frames behind their lengths, of four bytes each, as in the golden stream.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (frame, rest) = rest.split_at(rest.len().min(u32::from_le_bytes(*length) as usize));
        frames.push(frame.to_vec());
        bytes = rest;
    }
    frames
}

/// A snapshot stream is received into a file; checksums of frames are made to fit as the first byte says.
pub fn snapshot(data: &[u8]) {
    let Some((fix, stream)) = data.split_first() else { return };
    let env = Env { disk: Arc::new(SimDisk::new()), ..Env::real() };
    let rig = rig::Rig::open_on(env, Path::new("/data/3/state"), rig::options()).expect("an empty disk");
    let mut receiver = rig.state.receive().expect("an empty disk");
    for mut frame in split(stream) {
        if *fix != 0 && frame.len() > 4 {
            let crc = crc32c::crc32c(&frame[4..]);
            frame[..4].copy_from_slice(&crc.to_le_bytes());
        }
        if receiver.frame(&frame).is_err() {
            return;
        }
    }
    let applied = LogId { term: 1, node: NodeId(1), index: 7 };
    let Ok(received) = receiver.finish(applied, rig::build) else { return };
    rig.state.install(received).expect("a whole stream is installed");
    assert_eq!(rig.state.applied(), Some(applied));
    rig.check();
}

/// The pointer of the state, with no file beside it.
pub fn current(data: &[u8]) {
    let disk = disk_with(Path::new("/data/3/state/CURRENT"), data);
    let env = Env { disk: Arc::new(disk), ..Env::real() };
    if let Ok(rig) = rig::Rig::open_on(env, Path::new("/data/3/state"), rig::options()) {
        assert_eq!(rig.state.applied(), None, "nothing is there");
    }
}

/// An entry's payload.
pub fn command(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    for version in 1..=VERSION_MAX + 1 {
        let Ok(entry) = codec::decode(&payload, version) else { continue };
        assert!(codec::is_proposable(&entry.command, data[0].into()), "what is decoded can be proposed");
        let again = codec::encode(&entry, data[0]);
        assert_eq!(codec::decode(&again, version).as_ref(), Ok(&entry), "it comes back the same");
    }
}

/// The value of one row of content, or of the global one.
pub fn row(data: &[u8]) {
    let value = Bytes::copy_from_slice(data);
    let _ = rows::decode_chunk(&value);
    let _ = rows::decode_head(&value);
    if let Ok(global) = rows::decode_global(&value) {
        assert_eq!(rows::decode_global(&rows::encode_global(&global)), Ok(global));
    }
}

/// All rows of a machine: table, length of the key in one byte, key, length of the value in two, value.
pub fn all_rows(mut data: &[u8]) {
    let mut found = std::collections::BTreeMap::new();
    while let Some(([table, key], rest)) = data.split_first_chunk() {
        let (key, rest) = rest.split_at(rest.len().min(usize::from(*key)));
        let Some((value, rest)) = rest.split_first_chunk() else { break };
        let (value, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*value))));
        found.insert((*table, Bytes::copy_from_slice(key)), Bytes::copy_from_slice(value));
        data = rest;
    }
    let rows = found.into_iter().map(|((table, key), value)| Ok((table, key, value)));
    let machine: Result<Machine, rows::Error> = Machine::from_rows(rows);
    if let Ok(machine) = machine {
        machine.check().expect("what is taken keeps every invariant");
        let _ = (machine.digest(), machine.list("", None, 100));
    }
}

/// Every message of the client protocol, and what is made of it.
pub fn client_message(data: &[u8]) {
    if let Ok(request) = wire::from_bytes::<v1::SubmitRequest>(data) {
        let _ = wire::cluster_id_from(&request.cluster_id);
        if let Some(v1::submit_request::Operation::Write(write)) = request.operation
            && let Ok(write) = wire::write_from(write)
        {
            let _ = wire::verify_blobs(&write);
            assert_eq!(wire::write_from(wire::write_to(&write)).as_ref(), Ok(&write));
        }
    }
    if let Ok(load) = wire::from_bytes::<v1::LoadOperation>(data)
        && let Ok(load) = wire::load_from(load)
    {
        assert_eq!(wire::load_from(wire::load_to(&load)).as_ref(), Ok(&load));
    }
    if let Ok(many) = wire::from_bytes::<v1::LoadManyOperation>(data)
        && let Ok(many) = wire::load_many_from(many)
    {
        assert_eq!(wire::load_many_from(wire::load_many_to(&many)).as_ref(), Ok(&many));
    }
    if let Ok(list) = wire::from_bytes::<v1::ListOperation>(data) {
        let _ = wire::list_from(list);
    }
    if let Ok(page) = wire::from_bytes::<v1::ListPage>(data) {
        let _ = wire::list_page_from(page);
    }
    if let Ok(outcome) = wire::from_bytes::<v1::Outcome>(data)
        && let Ok(outcome) = wire::outcome_from(outcome)
    {
        assert_eq!(wire::outcome_from(wire::outcome_to(&outcome)).as_ref(), Ok(&outcome));
    }
    if let Ok(refusal) = wire::from_bytes::<v1::Refusal>(data) {
        let refusal = wire::refusal_from(refusal);
        let _ = wire::status_from_refusal(&refusal);
    }
    let mut assembler = wire::LoadAssembler::default();
    for frame in split(data) {
        let Ok(frame) = wire::from_bytes::<v1::LoadFrame>(&frame) else { break };
        if !matches!(assembler.push(frame), Ok(None)) {
            break;
        }
    }
    let mut assembler = wire::ManyAssembler::default();
    for frame in split(data) {
        let Ok(frame) = wire::from_bytes::<v1::LoadManyFrame>(&frame) else { break };
        if !matches!(assembler.push(frame), Ok(None)) {
            break;
        }
    }
    let _ = wire::from_bytes::<v1::SubmitResponse>(data);
    let _ = wire::from_bytes::<v1::StatusResponse>(data);
}

/// Every message between peers.
pub fn peer_message(data: &[u8]) {
    fn one<M: prost::Message + Default + PartialEq>(data: &[u8]) {
        if let Ok(message) = wire::from_bytes::<M>(data) {
            let again: M = wire::from_bytes(&wire::to_bytes(&message)).expect("its own bytes");
            assert!(again == message, "it comes back the same");
        }
    }
    one::<peer::HelloRequest>(data);
    one::<peer::HelloResponse>(data);
    one::<peer::AdoptRequest>(data);
    one::<peer::AppendRequest>(data);
    one::<peer::AppendResponse>(data);
    one::<peer::VoteRequest>(data);
    one::<peer::VoteResponse>(data);
    one::<peer::TransferLeaderRequest>(data);
    one::<peer::SnapshotFrame>(data);
    one::<peer::SnapshotResponse>(data);
    one::<peer::PresenceMessage>(data);
    one::<peer::LostLeaderRequest>(data);
    one::<peer::LostLeaderResponse>(data);
    one::<peer::ForwardRequest>(data);
    one::<peer::StatusRequest>(data);
}

/// The configuration file.
pub fn config(data: &[u8]) {
    let Ok(config) = std::str::from_utf8(data).map(Config::parse) else { return };
    let Ok(config) = config else { return };
    let _ = config.configuration_hash();
    if config.validate().is_ok() {
        let text = config.to_toml().expect("a valid configuration can be shown");
        let again = Config::parse(&text).unwrap_or_else(|error| panic!("its own text: {error}\n{text}"));
        assert_eq!(again.configuration_hash(), config.configuration_hash());
    }
}

/// The identity of a data directory; its checksum is made to fit as the first byte says.
pub fn identity(data: &[u8]) {
    let Some((fix, text)) = data.split_first() else { return };
    let mut text = text.to_vec();
    if *fix != 0 {
        let body = text.windows(7).position(|window| window == b"crc32c=").unwrap_or(text.len());
        text.truncate(body);
        let crc = crc32c::crc32c(&text);
        text.extend(format!("crc32c={crc:08x}\n").into_bytes());
    }
    let disk = disk_with(Path::new("/data/3/identity"), &text);
    let load = || DataIdentity::load_or_create(&SimEnv::new(&disk, 1).env, Path::new("/data/3"), NodeId(3));
    if let Ok(first) = load() {
        let again = load().expect("it was good");
        assert_eq!((first.instance(), first.cluster()), (again.instance(), again.cluster()));
    }
}

/// A recorded history: what is read is judged, and written the same.
pub fn read_history(data: &[u8]) {
    let Ok(ops) = history::read(data) else { return };
    let _ = history::verdict(&ops);
    let mut again = Vec::new();
    history::write(&ops, &mut again).expect("memory");
    let again = history::read(again.as_slice()).unwrap_or_else(|broken| panic!("its own file: {broken}"));
    assert_eq!(again.len(), ops.len());
    let mut out = Vec::new();
    history::edn(&ops, &mut out).expect("memory");
    history::porcupine(&ops, &mut out).expect("memory");
}

/// A backup file; the header's checksum is made to fit as the first byte says.
pub fn backup(data: &[u8]) {
    let Some((fix, file)) = data.split_first() else { return };
    let mut file = file.to_vec();
    if *fix != 0 && file.len() > 16 {
        let length = u32::from_le_bytes([file[8], file[9], file[10], file[11]]) as usize;
        let header = &file[16..file.len().min(16 + length)];
        let crc = crc32c::crc32c(header);
        file[12..16].copy_from_slice(&crc.to_le_bytes());
    }
    let Ok(mut reader) = Reader::open(file.as_slice()) else { return };
    if offline::verify(&mut reader, |_| {}).is_ok() {
        assert_eq!(reader.offset(), file.len() as u64, "a whole file is read to its end");
    }
}

/// The file of a node's events: whatever it holds is events, or nothing.
pub fn events(data: &[u8]) {
    let disk = disk_with(Path::new("/data/3/events"), data);
    let open = || Events::open(&SimEnv::new(&disk, 1).env, Path::new("/data/3"));
    let found = open();
    let all = found.all();
    assert!(all.iter().all(|event| !event.detail.chars().any(char::is_control)), "a log shows one line for each");
    found.note("kind", "detail");
    found.save();
    let again = open().all();
    assert_eq!(again.last().map(|event| event.kind.as_str()), Some("kind"));
    assert!(all.ends_with(&again[..again.len() - 1]), "the last ones are kept");
}

/// What openraft's entries, votes and memberships are in the log: what is taken means the same when it is written again.
pub fn raft_records(data: &[u8]) {
    for recode in [raft::fuzz_codecs::payload, raft::fuzz_codecs::vote, raft::fuzz_codecs::membership] {
        if let Some(again) = recode(data) {
            assert_eq!(recode(&again), Some(again));
        }
    }
}

/// What a client is to unpack: a head's length in two bytes, head, codecs in one byte, declared size in two, a chunk.
pub fn content(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let (head, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*length))));
    let Some(([codecs, low, high], chunk)) = rest.split_first_chunk() else { return };
    let raw_bytes = u64::from(u16::from_le_bytes([*low, *high]));
    let blob = |bytes: &[u8], is_packed: bool| Blob {
        codec: if is_packed { Codec::Zstd } else { Codec::None },
        raw_bytes,
        ..Blob::plain(Bytes::copy_from_slice(bytes))
    };
    let chunks = vec![Chunk { item_count: u64::from(codecs >> 2), blob: blob(chunk, codecs & 1 != 0) }];
    let _ = is_readable(chunks, Some(blob(head, codecs & 2 != 0)));
}

/// JSON as it is imported: what is taken for a transcript comes back as the same text but for white space around its messages and
/// members, anything else as the same bytes.
pub fn bob_json(data: &[u8]) {
    let content = Content::from_json(data);
    let again = content.to_json().expect("it was JSON");
    match content {
        Content::Value(_) => assert_eq!(again, data),
        Content::Transcript { .. } => {
            assert_eq!(Content::from_json(&again), content, "what came back is stored as the same");
            assert!(again.len() <= data.len() + USAGE_BYTES, "nothing is added but numbers written out");
            let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes);
            // Half a surrogate pair, a number no double holds, or a great depth is text that no value holds.
            if let Ok(before) = value(data) {
                assert_eq!(value(&again).expect("the same text"), before);
            }
        }
    }
}

/// What an order of the two counts, or an escape in their names, can make of difference.
const USAGE_BYTES: usize = 64;

/// The file of tokens.
pub fn tokens(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Tokens::parse(text) {
        // Each token is more than a byte of the file.
        Ok(tokens) => assert!(tokens.len() <= data.len(), "{} tokens", tokens.len()),
        Err(error) => assert!(!error.to_string().contains('\n'), "one line: {error}"),
    }
}

/// Certificates and keys, in one file.
pub fn pem(data: &[u8]) {
    let _ = Roots::from_pem(data);
    if let Ok(identity) = Identity::from_pem(data, data) {
        let _ = Validity::of(&identity);
    }
}
