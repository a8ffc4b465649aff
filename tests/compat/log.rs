//! A log of two segments that holds a frame of every kind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use quorate::env::Disk as _;
use quorate::storage::log::{Log, Options, Position, Record};
use quorate::testing::disk::SimDisk;
use quorate::testing::inline::SimEnv;
use quorate::types::{LogId, NodeId};

use crate::compat::{assert_same, golden, put, stored};

const DIR: &str = "/data/3/log";
const SEGMENTS: [&str; 2] = ["00000000000000000001.seg", "00000000000000000002.seg"];
const VOTES: [&[u8]; 2] = [b"an older vote", b"a vote"];

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

fn id(term: u64, index: u64) -> LogId {
    LogId { term, node: NodeId(3), index }
}

/// An entry whose payload is of any length, also 0, and of every remainder by the alignment of frames.
fn record(term: u64, index: u64, payload_bytes: usize) -> Record {
    Record { log_id: id(term, index), payload: vec![b'a' + (index % 26) as u8; payload_bytes].into() }
}

fn open(disk: &SimDisk) -> (SimEnv, Log) {
    let sim = SimEnv::new(disk, 1);
    let options = Options { segment_bytes: 4096, tail_bytes: 0, spare_segments: 0, ..Options::default() };
    let log = Log::open(&sim.env, Path::new(DIR), options).expect("a good log");
    (sim, log)
}

fn append(sim: &SimEnv, log: &Log, records: Vec<Record>) {
    log.append(records, Box::new(|result| result.expect("no fault is set")));
    sim.workers.run_named("log");
}

fn vote(sim: &SimEnv, log: &Log, vote: &'static [u8]) {
    log.save_vote(Bytes::from_static(vote), Box::new(|result| result.expect("no fault is set")));
    sim.workers.run_named("log");
}

/// Writes every kind of frame: start, entry, vote, both kinds of truncation, purge, idle.
fn write(sim: &SimEnv, log: &Log) {
    append(sim, log, vec![record(1, 0, 9)]);
    log.truncate_after(None);
    vote(sim, log, VOTES[0]);
    append(sim, log, (0..8).map(|index| record(2, index, index as usize)).collect());
    sim.advance(Duration::from_secs(1));
    log.truncate_after(Some(id(2, 6)));
    vote(sim, log, VOTES[1]);
    append(sim, log, vec![record(3, 7, 1000), record(3, 8, 1001)]);
    // Does not fit into the first segment any more.
    append(sim, log, vec![record(3, 9, 2002)]);
    log.purge(id(2, 4));
    append(sim, log, vec![record(3, 10, 3)]);
    sim.advance(Duration::from_secs(1));
}

fn live() -> Vec<Record> {
    let sizes = [(2, 5, 5), (2, 6, 6), (3, 7, 1000), (3, 8, 1001), (3, 9, 2002), (3, 10, 3)];
    sizes.map(|(term, index, payload_bytes)| record(term, index, payload_bytes)).into()
}

fn files(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let mut names = disk.list(Path::new(DIR)).expect("no fault is set");
    names.sort();
    let contents = |name: String| {
        let bytes = disk.contents(&path(&name)).expect("it is listed");
        (name, bytes)
    };
    names.into_iter().map(contents).collect()
}

/// Kinds of the frames of a segment, read without our own decoder: byte 8 of a header of 56, the payload's length at 12.
fn kinds(segment: &[u8]) -> BTreeSet<u8> {
    let mut kinds = BTreeSet::new();
    let mut rest = segment;
    while rest.starts_with(b"QLG1") {
        let payload_bytes = u32::from_le_bytes(rest[12..16].try_into().expect("four bytes")) as usize;
        kinds.insert(rest[8]);
        rest = &rest[(56 + payload_bytes).next_multiple_of(8)..];
    }
    kinds
}

#[test]
fn a_golden_log_is_read_and_written_the_same() {
    let disk = SimDisk::new();
    let (sim, log) = open(&disk);
    write(&sim, &log);
    let written = files(&disk);
    assert_eq!(written.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), SEGMENTS);

    let golden_disk = SimDisk::new();
    let mut all_kinds = BTreeSet::new();
    for (name, bytes) in &written {
        let golden = golden(&format!("log_{name}"), bytes);
        assert_same(name, bytes, &golden);
        put(&golden_disk, &path(name), &golden);
        all_kinds.append(&mut kinds(&golden));
    }
    assert_eq!(all_kinds, (1..=7).collect(), "every kind of frame is in it");
    let (sim, log) = open(&golden_disk);
    let position = Position { vote: Some(Bytes::from_static(VOTES[1])), purged: Some(id(2, 4)), last: Some(id(3, 10)) };
    assert_eq!(log.position(), position);
    let mut found = Vec::new();
    while found.len() < live().len() {
        let records = log.read(5 + found.len() as u64..11, 1).expect("no entry is damaged");
        assert!(!records.is_empty(), "a live range reads as something found={}", found.len());
        found.extend(records);
    }
    assert_eq!(found, live());

    // It goes on behind what an older version wrote, and reads all of it again.
    append(&sim, &log, vec![record(3, 11, 11)]);
    drop(log);
    let (_sim, log) = open(&golden_disk.kill());
    assert_eq!(log.position(), Position { last: Some(id(3, 11)), ..position });
    assert_eq!(log.read(11..12, 1).expect("it was synced"), [record(3, 11, 11)]);
}

/// The golden log is one that recovery must judge, not only read: where a synced frame was corrupted, it is refused.
#[test]
fn a_golden_log_with_a_corrupt_frame_is_refused() {
    let disk = SimDisk::new();
    SEGMENTS.iter().for_each(|name| put(&disk, &path(name), &stored(&format!("log_{name}"))));
    disk.damage(&path(SEGMENTS[0]), 200, 1);
    let refused = Log::open(&SimEnv::new(&disk, 1).env, Path::new(DIR), Options::default());
    assert!(matches!(refused, Err(quorate::storage::log::Error::Corrupt { .. })), "{:?}", refused.err());
}
