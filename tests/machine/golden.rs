//! Golden files: every command and row kind of format 1 as bytes. They decode and encode to the same bytes for ever.
//!
//! `REWRITE_GOLDEN=1` writes those that are missing, and never changes one that is there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use quorate::codec;
use quorate::machine::{Command, Entry, rows};
use quorate::types::{
    Attributes, Base, Blob, Change, Chunk, ChunkSum, ClientId, Codec, Counters, Expected, Expiry, Fence, Holder, LeaseTtl,
    OnConflict, Renewals, Repack, Revision, Sequence, Version, Write,
};

use crate::machine::lab::{Lab, Rows, blob, chunk, from_rows, id, nonce, request};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machine/golden")
}

/// The file's bytes; written from `now` if it is missing and that is asked for.
fn golden(name: &str, now: &[u8]) -> Bytes {
    let path = directory().join(format!("{name}.bin"));
    if !path.exists() && std::env::var_os("REWRITE_GOLDEN").is_some() {
        std::fs::write(&path, now).expect("golden file");
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("golden file path={} error={error}", path.display())).into()
}

fn commands() -> Vec<(&'static str, Command)> {
    let id = id("session/ä?..");
    let request = request(ClientId(70_000), 7, 3, 2);
    let zstd = Blob { codec: Codec::Zstd, raw_bytes: 1 << 33, crc32c: 0xdead_beef, data: Bytes::from_static(b"packed") };
    let chunks = vec![chunk(2, "two items"), Chunk { item_count: 300, blob: zstd }];
    let counters = Counters::new(vec![1, 0, u64::MAX]).expect("few");
    let full = Change::Full { chunks: chunks.clone(), head: blob("head"), counters: counters.clone() };
    let base = Base::At { create_revision: Revision(9), version: Version(4), items: 251 };
    let delta = |base, head| Change::Delta { base, chunks: chunks.clone(), head, counters: counters.clone() };
    let client = |write| Command::Client(write);
    let expected = Expected::At { version: Version(4), create_revision: Some(Revision(9)) };
    let save =
        |change, expiry: Expiry| client(Write::Save { request, id: id.clone(), change, attributes: expiry.into(), fence: None });
    let conditional = |expected, change, on_conflict| {
        client(Write::SaveIfVersion {
            request,
            id: id.clone(),
            expected,
            change,
            on_conflict,
            attributes: Expiry::Keep.into(),
            fence: None,
        })
    };
    vec![
        ("save_full", save(full.clone(), Expiry::After(Duration::from_millis(1500)))),
        ("save_delta", save(delta(base, None), Expiry::Never)),
        ("save_delta_absent", save(delta(Base::Absent, Some(blob("head"))), Expiry::Keep)),
        ("save_if_version", conditional(expected, full, OnConflict::Reject)),
        ("save_if_absent_rebase", conditional(Expected::Absent, delta(Base::Absent, Some(blob(""))), OnConflict::Rebase)),
        ("delete", client(Write::Delete { request, id: id.clone(), expected: None, fence: None })),
        ("delete_if_version", client(Write::Delete { request, id: id.clone(), expected: Some(expected), fence: None })),
        ("open_client", client(Write::OpenClient { nonce: nonce(7) })),
        (
            "keep_alive",
            client(Write::KeepAlive { client: ClientId(70_000), nonce: nonce(7), acknowledged_below: Sequence(5_000_000_000) }),
        ),
        ("close_client", client(Write::CloseClient { client: ClientId(70_000), nonce: nonce(7) })),
        ("sweep", Command::Sweep { limit: 1024 }),
        ("set_cluster_version", Command::SetClusterVersion { version: 2 }),
    ]
}

#[test]
fn golden_entries_decode_and_encode_to_the_same_bytes() {
    for (name, command) in commands() {
        let entry = Entry { stamp_ms: 1_700_000_000_123, command };
        let stored = golden(&format!("entry_{name}"), &codec::encode(&entry, 1));
        let decoded = codec::decode(&stored, 1).unwrap_or_else(|error| panic!("golden={name} {error}"));
        assert_eq!(decoded, entry, "golden={name}");
        assert_eq!(codec::encode(&decoded, 1), stored, "golden={name}");
    }
}

/// A released version's constants never change: replicas that differed in one would disagree about the same entry.
#[test]
fn golden_rules_of_released_versions_are_those_that_were_released() {
    let rules = format!("{:#?}\n", quorate::machine::rules(1).expect("version 1 is released"));
    let stored = golden("rules_1", rules.as_bytes());
    assert_eq!(String::from_utf8_lossy(&stored), rules);
}

/// A small machine with a row of every kind, and an outcome of every kind that is recorded.
fn rows_of_every_kind() -> Rows {
    let mut lab = Lab::new();
    let client = lab.open(1000, 7);
    let full = |items: u64, head: &str| Change::Full {
        chunks: vec![chunk(items, "items")],
        head: blob(head),
        counters: Counters::new(vec![1, 2]).expect("few"),
    };
    let expiry = Expiry::After(Duration::from_secs(60));
    let save = |sequence, name: &str, change| Write::Save {
        request: request(client, 7, sequence, 0),
        id: id(name),
        change,
        attributes: expiry.into(),
        fence: None,
    };
    lab.write(2000, save(1, "kept", full(2, "head")));
    lab.write(2000, save(2, "deleted", full(1, "head")));
    let delete = |sequence, name: &str| Write::Delete {
        request: request(client, 7, sequence, 0),
        id: id(name),
        expected: None,
        fence: None,
    };
    lab.write(3000, delete(3, "deleted"));
    lab.write(3000, delete(4, "nothing"));
    lab.write(3000, save(5, "kept", full(1 << 20, "head")));
    lab.write(
        3000,
        Write::SaveIfVersion {
            request: request(client, 7, 6, 0),
            id: id("kept"),
            expected: Expected::Absent,
            change: full(1, "head"),
            on_conflict: OnConflict::Reject,
            attributes: Expiry::Keep.into(),
            fence: None,
        },
    );
    lab.rows
}

#[test]
fn golden_rows_are_read_and_written_as_the_same_bytes() {
    let names = ["global", "session", "client", "outcome", "tombstone", "head", "chunk"];
    let now = rows_of_every_kind();
    let mut stored = Rows::new();
    let mut count = [0; 7];
    for ((table, key), value) in &now {
        let nth = &mut count[usize::from(*table)];
        let file = golden(&format!("row_{}_{nth}", names[usize::from(*table)]), value);
        *nth += 1;
        stored.insert((*table, key.clone()), file);
    }
    assert!(count.iter().all(|kind| *kind > 0), "a kind of row is missing {count:?}");
    let machine = from_rows(&stored).expect("golden rows");
    machine.check().expect("invariants");
    assert_eq!(stored, now, "rows are written as other bytes than they were");
    let (head, chunk) = (Revision(2), rows::chunk_key(Revision(2), 0));
    assert_eq!(rows::decode_head(&stored[&(rows::HEADS, rows::head_key(rows::Birth::of(head, 0)))]).expect("head"), blob("head"));
    assert_eq!(rows::decode_chunk(&stored[&(rows::CHUNKS, chunk)]).expect("chunk").chunk.item_count, 2);
}

/// Rows that version 1 does not have: of leases, and of the answers about them. No release puts version 2 in force, so they may change yet.
#[test]
fn golden_rows_of_leases_are_read_and_written_as_the_same_bytes() {
    let mut lab = Lab::new();
    let client = lab.open(1000, 7);
    lab.apply(1000, Command::SetClusterVersion { version: 2 });
    let ttl = LeaseTtl::new(Duration::from_secs(30)).expect("within");
    let mut sequence = 0;
    let mut next = || {
        sequence += 1;
        request(client, 7, sequence, 0)
    };
    let holder = || Holder::new("worker-1").expect("short");
    let take = |request, name: &str| Write::AcquireLease { request, id: id(name), holder: holder(), ttl, steal: false };
    let delete = |request, fence| Write::Delete { request, id: id("a"), expected: None, fence };
    for write in [
        take(next(), "a"),
        take(next(), "a"),
        take(next(), "b"),
        delete(next(), None),
        delete(next(), Some(Fence(9))),
        Write::RenewLeases {
            request: next(),
            leases: Renewals::new(vec![(id("a"), Fence(3)), (id("b"), Fence(3))]).expect("two"),
            ttl,
        },
        Write::ReleaseLease { request: next(), id: id("b"), fence: Fence(3) },
        Write::ReleaseLease { request: next(), id: id("b"), fence: Fence(5) },
    ] {
        lab.write(2000, write);
    }
    let kept = [rows::LEASES, rows::OUTCOMES];
    let mut count = 0;
    for ((table, _), value) in lab.rows.iter().filter(|((table, _), _)| kept.contains(table)) {
        let stored = golden(&format!("row_of_leases_{count}"), value);
        assert_eq!(&stored, value, "table={table} nth={count}");
        assert_eq!(value[0], 2, "format");
        count += 1;
    }
    assert_eq!(count, 9);
    lab.rebuild();
}

/// Rows of a content that version 2 begins, and of one that is repacked; as those of leases.
#[test]
fn golden_rows_of_a_repack_are_read_and_written_as_the_same_bytes() {
    let mut lab = Lab::new();
    let client = lab.open(1000, 7);
    lab.apply(1000, Command::SetClusterVersion { version: 2 });
    let chunks = vec![chunk(1, "one "), chunk(2, "two "), chunk(3, "three")];
    let change = Change::Full { chunks: chunks.clone(), head: blob("head"), counters: Counters::default() };
    let (attributes, old) = (Attributes::default(), ChunkSum::of(&chunks[..2]));
    lab.write(2000, Write::Save { request: request(client, 7, 1, 0), id: id("a"), change, attributes, fence: None });
    let repack =
        |until_chunk, chunks| Repack { id: id("a"), create_revision: Revision(3), first_chunk: 0, until_chunk, old, chunks };
    let packed = repack(2, vec![chunk(3, "one two ")]);
    let entry = Entry {
        stamp_ms: 3000,
        command: Command::Client(Write::Repack { request: request(client, 7, 2, 0), repack: packed.clone() }),
    };
    let bytes = codec::encode(&entry, codec::FORMAT_2);
    let stored = golden("entry_of_a_repack", &bytes);
    assert_eq!((stored.clone(), codec::decode(&stored, 2)), (bytes, Ok(entry.clone())));
    lab.apply(3000, entry.command);
    lab.write(3000, Write::Repack { request: request(client, 7, 3, 0), repack: packed });
    let kept = [rows::SESSIONS, rows::OUTCOMES, rows::CHUNKS];
    let mut formats = Vec::new();
    for (n, ((table, _), value)) in lab.rows.iter().filter(|((table, _), _)| kept.contains(table)).enumerate() {
        assert_eq!(&golden(&format!("row_of_a_repack_{n}"), value), value, "table={table} nth={n}");
        formats.push((*table, value[0]));
    }
    let [session, outcome, chunk] = kept;
    // The save's outcome is one of version 1.
    assert_eq!(formats, [(session, 2), (outcome, 1), (outcome, 2), (outcome, 2), (chunk, 2), (chunk, 2)]);
    lab.rebuild();
}

#[test]
fn damaged_rows_are_errors_and_never_a_different_machine_that_looks_whole() {
    let rows = rows_of_every_kind();
    for ((table, key), value) in &rows {
        if !rows::METADATA_TABLES.contains(table) {
            continue;
        }
        for end in 0..value.len() {
            let mut damaged = rows.clone();
            damaged.insert((*table, key.clone()), value.slice(..end));
            let error = from_rows(&damaged).expect_err("truncated");
            assert_eq!(error.table, *table);
        }
    }
    // Rows that contradict each other.
    let key = |table: u8| rows.keys().find(|(of, _)| *of == table).expect("every kind").clone();
    let mut orphan = rows.clone();
    orphan.remove(&key(rows::CLIENTS));
    assert_eq!(from_rows(&orphan).expect_err("outcomes of no client").problem, rows::Problem::Contradiction);
    let mut both = rows.clone();
    both.insert((rows::TOMBSTONES, key(rows::SESSIONS).1), rows[&key(rows::TOMBSTONES)].clone());
    assert_eq!(from_rows(&both).expect_err("session and tombstone").problem, rows::Problem::Contradiction);
    let mut newer = rows.clone();
    let global = rows::Global { applied: None, now_ms: 0, cluster_version: 9 };
    newer.insert(key(rows::GLOBAL), rows::encode_global(&global));
    assert_eq!(from_rows(&newer).expect_err("later version").problem, rows::Problem::ClusterVersion { version: 9 });
}

/// Outcomes outside their client's window were taken once, and a retry then got an answer that belonged to nobody.
#[test]
fn rows_that_break_an_invariant_are_refused_and_the_error_names_both_sides() {
    let rows = rows_of_every_kind();
    let find =
        |table: u8| rows.iter().find(|((of, _), _)| *of == table).map(|(key, value)| (key.clone(), value.clone())).expect("one");
    let ((_, key), outcome) = find(rows::OUTCOMES);
    let client = u64::from_be_bytes(key[..8].try_into().expect("eight bytes"));
    let at = |sequence: u64| Bytes::from([client.to_be_bytes(), sequence.to_be_bytes()].concat());
    let refused = |rows: &Rows| from_rows(rows).expect_err("no machine has these").to_string();
    for sequence in [0, 1 << 40] {
        let mut outside = rows.clone();
        outside.insert((rows::OUTCOMES, at(sequence)), outcome.clone());
        let why = refused(&outside);
        let named =
            why.contains("table=3 ") && why.contains("invariant=I6") && why.contains(&format!("sequence={sequence} window="));
        assert!(named, "{why}");
    }
    // A session created twice, and one written after the last entry applied.
    let ((_, id), session) = find(rows::SESSIONS);
    let mut twice = rows.clone();
    twice.insert((rows::SESSIONS, Bytes::from([&id[..], b"-too"].concat())), session);
    assert!(refused(&twice).contains("invariant=I3 create_revision="), "{}", refused(&twice));
    let mut early = rows.clone();
    let global = rows::Global { applied: None, now_ms: 0, cluster_version: 1 };
    early.insert(find(rows::GLOBAL).0, rows::encode_global(&global));
    assert!(refused(&early).contains("invariant=I2"), "{}", refused(&early));
    // The same numbers, one written longer than need be: 0 as 251, then two bytes.
    let ((_, id), tombstone) = find(rows::TOMBSTONES);
    let mut longer = rows.clone();
    let version = tombstone[1];
    assert!(version < 251, "the first field is a small number: {tombstone:?}");
    longer.insert((rows::TOMBSTONES, id), Bytes::from([&tombstone[..1], &[251, version, 0], &tombstone[2..]].concat()));
    assert!(refused(&longer).contains("canonical="), "{}", refused(&longer));
}
