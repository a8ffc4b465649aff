//! `CURRENT`, and a snapshot stream.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorate::env::Env;
use quorate::storage::state::Error;
use quorate::testing::disk::SimDisk;

use crate::compat::{assert_same, golden, put};
use crate::state::rig::{Model, Rig, frames, id, options};

const DIR: &str = "/data/3/state";
const CURRENT: &str = "/data/3/state/CURRENT";
/// Small, so that a row is cut.
const FRAME_BYTES: usize = 200;

fn open(disk: &SimDisk) -> Result<Rig, Error> {
    Rig::open_on(Env { disk: Arc::new(disk.clone()), ..Env::real() }, Path::new(DIR), options())
}

fn current(disk: &SimDisk) -> Option<Vec<u8>> {
    disk.contents(Path::new(CURRENT))
}

/// Rows in the first, a middle and the last table, empty ones and one that no frame holds whole.
fn filled(disk: &SimDisk) -> Rig {
    let rig = open(disk).expect("an empty disk");
    rig.apply(6, &[(0, "", Some(b"")), (1, "a", Some(b"one")), (1, "ab", Some(&[7; 300])), (1, "gone", Some(b"x"))]);
    rig.apply(7, &[(1, "gone", None), (255, "last", Some(b"\0\xff"))]);
    assert!(matches!(rig.flush(), Some(Ok(()))));
    rig
}

/// As in a file: each frame behind its length.
fn joined(frames: &[Bytes]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [&(frame.len() as u32).to_le_bytes()[..], frame].concat()).collect()
}

fn split(mut bytes: &[u8]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let (frame, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        frames.push(Bytes::copy_from_slice(frame));
        bytes = rest;
    }
    frames
}

#[test]
fn a_golden_snapshot_is_received_and_streamed_the_same() {
    let source = filled(&SimDisk::new());
    let now = frames(source.state.snapshot().unwrap(), FRAME_BYTES);
    let golden = golden("snapshot", &joined(&now));
    assert_same("a snapshot stream", &joined(&now), &golden);
    assert!(now.len() > 4, "begin, a row that is cut, the rest, end");

    let target = open(&SimDisk::new()).expect("an empty disk");
    let received = target.receive(&split(&golden), id(7)).expect("a good stream");
    target.state.install(received).expect("it is newer");
    let rows: [(u8, &[u8], &[u8]); 4] = [(0, b"", b""), (1, b"a", b"one"), (1, b"ab", &[7; 300]), (255, b"last", b"\0\xff")];
    let owned = rows.map(|(table, key, value)| ((table, Bytes::copy_from_slice(key)), Bytes::copy_from_slice(value)));
    assert_eq!((target.check(), target.state.applied()), (Model::from(owned), Some(id(7))));
    let again = frames(target.state.snapshot().unwrap(), FRAME_BYTES);
    assert_same("a golden snapshot that was installed", &joined(&again), &golden);
}

#[test]
fn golden_pointers_are_read_and_written_the_same() {
    let disk = SimDisk::new();
    let want = filled(&disk).check();
    let opened = golden("current_open", &current(&disk).expect("it is open"));
    assert_same("CURRENT of an open state", &current(&disk).expect("it is open"), &opened);

    // Whatever the crash left, the pointer of a state that was being made is written in one way only.
    let mut creating = None;
    for operations in 0..100 {
        let halted = SimDisk::new();
        halted.halt_after(operations);
        if open(&halted).is_ok() {
            break;
        }
        creating = creating.or_else(|| current(&halted));
    }
    let now = creating.expect("a crash in the middle leaves a pointer");
    let creating = golden("current_creating", &now);
    assert_same("CURRENT of a state that was being made", &now, &creating);

    let fresh = SimDisk::new();
    put(&fresh, Path::new(CURRENT), &creating);
    assert_eq!(open(&fresh).expect("it is made again").check(), Model::new());
    assert_same("CURRENT once it was made", &current(&fresh).expect("it is open"), &opened);

    let after = disk.kill();
    put(&after, Path::new("/data/3/state/CURRENT.golden"), &opened);
    quorate::env::Disk::rename(&after, Path::new("/data/3/state/CURRENT.golden"), Path::new(CURRENT)).expect("no fault is set");
    assert_eq!(open(&after).expect("it names the file that is there").check(), want);
}
