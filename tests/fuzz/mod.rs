//! Every decoder of bytes from outside or from disk, on its seeds and on thousands of spoiled copies of them.
//!
//! `seeds/TARGET/*` are real encodings, and every input that ever broke a target. `scripts/fuzz.sh` searches on from them with coverage.
//! `REWRITE=1` writes the encodings again.

mod targets;

use std::path::{Path, PathBuf};

use quorate::storage::backup::{Header, Writer};
use quorate::testing::inline::SeededRandom;
use quorate::types::{Change, ClusterId, Counters, Expiry, NodeId, Write};
use quorate::wire;

use crate::machine::lab;
use crate::state::rig;

/// Spoiled copies of each seed.
const COPIES: u64 = 300;

fn dir(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target)
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(dir(target)).unwrap_or_else(|error| panic!("{target} has no seeds: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| (path.display().to_string(), std::fs::read(path).expect("a seed"))).collect()
}

/// Runs a target; a panic says on what.
fn trial(target: targets::Target, name: &str, data: &[u8]) {
    if std::panic::catch_unwind(|| target(data)).is_err() {
        let kept = std::env::temp_dir().join("quorate-fuzz-failure");
        let _ = std::fs::write(&kept, data);
        panic!("{name}: {} bytes, kept as {}", data.len(), kept.display());
    }
}

/// A copy with one to four small changes.
fn spoiled(seed: &[u8], other: &[u8], random: &SeededRandom) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() as u64 + 1) as usize;
        let byte = random.below(256) as u8;
        match random.below(8) {
            0 => data.truncate(at),
            1 => data.insert(at, byte),
            2 if at < data.len() => drop(data.remove(at)),
            3 if at < data.len() => data[at] ^= 1 << (byte % 8),
            4 => {
                // A large number where one may stand.
                let end = data.len().min(at + [1, 2, 4, 8][usize::from(byte % 4)]);
                data[at..end].fill(if byte < 128 { 0xff } else { 0x7f });
            }
            5 if !other.is_empty() => {
                let from = random.below(other.len() as u64) as usize;
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            6 => {
                let piece = data[at..data.len().min(at + usize::from(byte % 32))].to_vec();
                data.splice(at..at, piece);
            }
            _ if at < data.len() => data[at] = byte,
            _ => data.push(byte),
        }
    }
    data
}

fn replay(name: &str) {
    let (_, target) = targets::TARGETS.into_iter().find(|(of, _)| *of == name).expect("a target");
    let seeds = seeds(name);
    let random = SeededRandom::new(name.len() as u64);
    for (path, seed) in &seeds {
        trial(target, path, seed);
        for copy in 0..COPIES {
            let other = &seeds[random.below(seeds.len() as u64) as usize].1;
            trial(target, &format!("{path}, copy {copy}"), &spoiled(seed, other, &random));
        }
    }
    for length in [0, 1, 7, 64, 5000] {
        trial(target, "zeros", &vec![0; length]);
        trial(target, "ones", &vec![0xff; length]);
    }
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed_and_has_its_cargo_fuzz_file() {
            let replayed = [$(stringify!($name)),*];
            assert_eq!(targets::TARGETS.map(|(name, _)| name), replayed);
            for name in replayed {
                let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fuzz/cargo-fuzz/fuzz_targets/{name}.rs"));
                assert!(file.exists(), "{}", file.display());
            }
        }
    };
}

replayed!(log snapshot current command row rows client_message peer_message config identity history backup events raft content bob_json tokens pem);

/// Encodings as a node makes them.
fn encodings() -> Vec<(&'static str, String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let golden = |name: &str| read(&format!("tests/compat/golden/{name}"));
    let behind = |first: u8, bytes: Vec<u8>| [vec![first], bytes].concat();
    let mut all = vec![
        ("log", "first".to_owned(), golden("log_00000000000000000001.seg")),
        ("log", "second".to_owned(), golden("log_00000000000000000002.seg")),
        ("snapshot", "as_it_is".to_owned(), behind(0, golden("snapshot"))),
        ("snapshot", "fixed".to_owned(), behind(1, golden("snapshot"))),
        ("current", "creating".to_owned(), golden("current_creating")),
        ("current", "open".to_owned(), golden("current_open")),
        ("identity", "drawn".to_owned(), behind(0, golden("identity_drawn"))),
        ("identity", "initialized".to_owned(), behind(1, golden("identity_initialized"))),
        ("config", "shipped".to_owned(), read("cluster.toml")),
        ("history", "unknown".to_owned(), read("tests/history/corpus/good/unknown_and_conflict.jsonl")),
        ("history", "expiry".to_owned(), read("tests/history/corpus/good/expiry.jsonl")),
        ("history", "log".to_owned(), read("tests/history/corpus/good/unknown_known_from_log.jsonl")),
    ];
    for entry in std::fs::read_dir(root.join("tests/machine/golden")).expect("golden files") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned();
        let target = if name.starts_with("row") { "row" } else { "command" };
        all.push((target, name, std::fs::read(&path).expect("a golden file")));
    }
    let mut lab = lab::Lab::new();
    let client = lab.open(1000, 1);
    let change = || Change::Full { chunks: vec![lab::chunk(2, "items")], head: lab::blob("head"), counters: Counters::default() };
    let save = |sequence, id: &str| Write::Save {
        request: lab::request(client, 1, sequence, sequence),
        id: lab::id(id),
        change: change(),
        attributes: Expiry::After(std::time::Duration::from_secs(9)).into(),
        fence: None,
    };
    for (sequence, id) in [(1, "a"), (2, "b")] {
        let outcome = lab.write(1000, save(sequence, id));
        all.push(("client_message", format!("outcome_{id}"), wire::to_bytes(&wire::outcome_to(&outcome)).to_vec()));
    }
    let delete = Write::Delete { request: lab::request(client, 1, 3, 3), id: lab::id("a"), expected: None, fence: None };
    lab.write(1000, delete.clone());
    for (name, write) in [("save", save(4, "c")), ("delete", delete)] {
        let request = wire::v1::SubmitRequest {
            tag: 7,
            operation: Some(wire::v1::submit_request::Operation::Write(wire::write_to(&write))),
            ..Default::default()
        };
        all.push(("client_message", name.to_owned(), wire::to_bytes(&request).to_vec()));
    }
    let mut rows = Vec::new();
    for ((table, key), value) in &lab.rows {
        rows.extend([*table, key.len() as u8]);
        rows.extend_from_slice(key);
        rows.extend((value.len() as u16).to_le_bytes());
        rows.extend_from_slice(value);
    }
    all.push(("rows", "machine".to_owned(), rows));
    all.push(("backup", "as_it_is".to_owned(), behind(0, backup_of(&lab))));
    all.push(("backup", "fixed".to_owned(), behind(1, backup_of(&lab))));
    all.extend(outside_of_the_machine());
    let id = Some(wire::peer::v1::LogId { term: 3, node: 2, index: 9 });
    let vote = wire::peer::v1::VoteRequest { last_log: id, ..Default::default() };
    all.push(("peer_message", "vote".to_owned(), wire::to_bytes(&vote).to_vec()));
    all
}

/// A backup of this machine, as a node writes it.
fn backup_of(lab: &lab::Lab) -> Vec<u8> {
    let disk = quorate::testing::disk::SimDisk::new();
    let env = quorate::env::Env { disk: std::sync::Arc::new(disk), ..quorate::env::Env::real() };
    let rig = rig::Rig::open_on(env, Path::new("/data/3/state"), rig::options()).expect("an empty disk");
    rig.state.update(|model, batch| {
        for ((table, key), value) in &lab.rows {
            model.insert((*table, key.clone()), value.clone());
            batch.put(*table, key.clone(), value.clone());
        }
        batch.set_applied(lab.machine.applied().expect("it has applied entries"));
    });
    assert!(matches!(rig.flush(), Some(Ok(()))));
    let header =
        Header { cluster: ClusterId([7; 16]), name: "fuzz".to_owned(), node: NodeId(3), taken_ms: 1, release: "0.1.0".to_owned() };
    let mut writer = Writer::new(rig.state.snapshot().expect("a state"), header);
    let mut file = Vec::new();
    while let Some(piece) = writer.next_piece().expect("nothing fails") {
        file.extend_from_slice(&piece);
    }
    file
}

const TOKENS: &str = r#"[[token]]
name = "writer"
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
scopes = ["read", "write"]
prefixes = ["a/"]
expires = "2030-01-01T00:00:00Z"

[[token]]
name = "admin"
sha256 = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
scopes = ["admin"]
"#;

/// Encodings that the machine has no part in.
fn outside_of_the_machine() -> Vec<(&'static str, String, Vec<u8>)> {
    let seed = |target, name: &str, bytes: &[u8]| (target, name.to_owned(), bytes.to_vec());
    let state = r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"ho"}],"total_usage":{"prompt_tokens":3,"completion_tokens":4},"version":1}"#;
    let member = wire::peer::v1::membership::Member {
        id: 1,
        peer_address: "a:1".to_owned(),
        client_address: "a:2".to_owned(),
        admin_address: String::new(),
        instance: vec![5; 16].into(),
    };
    let membership =
        wire::peer::v1::Membership { configs: vec![wire::peer::v1::membership::Config { voters: vec![1] }], members: vec![member] };
    let start = wire::peer::v1::SnapshotStart {
        membership_log: Some(wire::peer::v1::LogId { term: 3, node: 2, index: 9 }),
        membership: Some(membership.clone()),
        ..Default::default()
    };
    let vote = wire::peer::v1::Vote { term: 3, node: 2, committed: true };
    // A head, its length before it; neither is packed; a chunk of one item.
    let plain = b"\x03\x00\x01{}\x04\x06\x00\x02\x00\x00\x00{}";
    vec![
        seed("events", "two", b"7\tleader\tterm=1\n9\trefused\tkind=overloaded count=1\n"),
        seed("raft", "blank", &[0]),
        seed("raft", "membership", &[&[0xff][..], &wire::to_bytes(&membership)].concat()),
        seed("raft", "snapshot_start", &wire::to_bytes(&start)),
        seed("raft", "vote", &wire::to_bytes(&vote)),
        seed("content", "plain", plain),
        seed("content", "packed", &[&b"\x02\x00\x01x\x05\x40\x06"[..], &packed()].concat()),
        seed("bob_json", "state", state.as_bytes()),
        seed("bob_json", "value", b"[1, 2.5e3]"),
        seed("tokens", "two", TOKENS.as_bytes()),
    ]
}

/// One item of 1596 bytes behind its length, as a client packs it.
fn packed() -> Vec<u8> {
    let item = b"all work and no play ".repeat(76);
    zstd::bulk::compress(&[&1596u32.to_le_bytes()[..], &item].concat(), 3).expect("memory")
}

#[test]
fn seeds_are_in_git() {
    for (target, name, bytes) in encodings() {
        let path = dir(target).join(&name);
        if std::env::var_os("REWRITE").is_some() {
            std::fs::create_dir_all(dir(target)).expect("a writable checkout");
            std::fs::write(&path, &bytes).expect("a writable checkout");
        }
        assert!(path.exists(), "{} is missing: REWRITE=1 writes it", path.display());
    }
}
