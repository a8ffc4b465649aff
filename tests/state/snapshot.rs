//! Snapshot streams, receiving and installing.

use quorate::env::Step;
use quorate::storage::state::Error;

use crate::state::rig::{Model, Rig, bytes, collect, frames, id, names};

/// A state at entry 40 with rows in several tables, one of them larger than a frame.
fn filled(dir: &std::path::Path) -> Rig {
    let rig = Rig::open(dir).unwrap();
    for index in 1..40 {
        let key = format!("key{index}");
        rig.apply(index, &[(index as u8 % 3, &key, Some(key.repeat(index as usize * 10).as_bytes()))]);
    }
    rig.apply(40, &[(200, "", Some(b"")), (255, "large", Some(&[7; 100_000])), (0, "key3", None)]);
    assert!(matches!(rig.flush(), Some(Ok(()))));
    rig
}

#[test]
fn a_streamed_and_installed_snapshot_gives_an_equal_state_that_survives_reopening() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = filled(from.path());
    let want = source.check();
    for frame_bytes in [128, 1000, 1 << 20] {
        let target = Rig::open(to.path()).unwrap();
        let snapshot = source.state.snapshot().unwrap();
        assert_eq!((snapshot.applied(), snapshot.total()), (Some(id(40)), want.len() as u64));
        let received = target.receive(&frames(snapshot, frame_bytes), id(40)).unwrap();
        target.state.install(received).unwrap();
        assert_eq!((target.state.applied(), target.state.flushed()), (Some(id(40)), Some(id(40))));
        assert_eq!(target.check(), want);
        drop(target);
        assert_eq!(names(to.path()).len(), 2, "only CURRENT and one file remain");
        assert_eq!(Rig::open(to.path()).unwrap().check(), want);
    }
}

#[test]
fn a_snapshot_is_of_the_last_flush_whatever_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let rig = filled(dir.path());
    let want = rig.check();
    let snapshot = rig.state.snapshot().unwrap();
    rig.apply(41, &[(1, "later", Some(b"1")), (255, "large", None)]);
    assert!(matches!(rig.flush(), Some(Ok(()))));
    rig.apply(42, &[(1, "unflushed", Some(b"1"))]);
    let other = tempfile::tempdir().unwrap();
    let target = Rig::open(other.path()).unwrap();
    let received = target.receive(&frames(snapshot, 4096), id(40)).unwrap();
    target.state.install(received).unwrap();
    assert_eq!(target.check(), want);
    assert_eq!(rig.state.snapshot().unwrap().applied(), Some(id(41)));
}

#[test]
fn an_install_replaces_unflushed_and_frozen_rows_and_older_views_still_read_theirs() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, target) = (filled(from.path()), Rig::open(to.path()).unwrap());
    target.apply(1, &[(1, "flushed", Some(b"old"))]);
    assert!(matches!(target.flush(), Some(Ok(()))));
    target.apply(2, &[(1, "frozen", Some(b"old"))]);
    let (sender, answers) = std::sync::mpsc::channel();
    target.state.flush(Box::new(move |result| sender.send(result).unwrap()));
    assert_eq!(target.flusher.run(), Step::Idle, "frozen, and waiting for the log");
    target.apply(3, &[(1, "unflushed", Some(b"old"))]);
    let (old, applied, pinned) = target.pin_all();
    let received = target.receive(&frames(source.state.snapshot().unwrap(), 1 << 20), id(40)).unwrap();
    assert_eq!((target.check(), applied), (old.clone(), Some(id(3))), "nothing is seen before the install");
    target.state.install(received).unwrap();
    assert_eq!(target.check(), source.check());
    assert!(matches!(answers.try_recv(), Ok(Ok(()))), "who waited for entry 2 has it: 40 is durable");
    assert_eq!(collect(&pinned).unwrap(), old, "a view is of its own instant");

    // The answer of the log for the old file's flush comes late, and must not touch the new one.
    target.log.cover(2);
    assert_eq!(target.flusher.run(), Step::Idle);
    assert_eq!(target.state.flushed(), Some(id(40)));
    target.apply(41, &[(1, "new", Some(b"new"))]);
    assert!(matches!(target.flush(), Some(Ok(()))));
    let want = target.check();
    drop((target, pinned));
    let target = Rig::open(to.path()).unwrap();
    assert_eq!((target.check(), target.state.applied()), (want, Some(id(41))));
}

#[test]
fn no_truncated_reordered_or_altered_stream_is_received_and_nothing_changes() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = Rig::open(from.path()).unwrap();
    source.apply(1, &[(1, "a", Some(b"one")), (1, "b", Some(&[2; 300])), (2, "c", Some(b""))]);
    assert!(matches!(source.flush(), Some(Ok(()))));
    let good = frames(source.state.snapshot().unwrap(), 200);
    assert!(good.len() > 3);
    let target = Rig::open(to.path()).unwrap();
    let mut tried = 0;
    let mut refuse = |what: &str, frames: &[bytes::Bytes]| {
        assert!(matches!(target.receive(frames, id(1)), Err(Error::Invalid { .. })), "{what}");
        tried += 1;
    };
    for cut in 0..good.len() {
        refuse("cut short", &good[..cut]);
        refuse("one missing", &[&good[..cut], &good[cut + 1..]].concat());
        refuse("one twice", &[&good[..=cut], &good[cut..]].concat());
        let mut altered = good.clone();
        altered[cut] = good[cut].slice(..good[cut].len() - 1);
        refuse("a frame cut short", &altered);
        altered[cut] = bytes([&good[cut][..], &[0]].concat());
        refuse("a frame too long", &altered);
    }
    for frame in 0..good.len() {
        for bit in [0, 40, 100, good[frame].len() * 8 - 1] {
            let mut flipped = good.clone();
            let mut altered = good[frame].to_vec();
            altered[bit / 8] ^= 1 << (bit % 8);
            flipped[frame] = altered.into();
            refuse("a flipped bit", &flipped);
        }
    }
    assert!(matches!(target.receive(&good, id(2)), Err(Error::Invalid { .. })), "it ends at another entry");
    assert!(tried >= 20);
    assert_eq!(names(to.path()), ["00000001.redb", "CURRENT"], "no file is left");
    assert_eq!((target.check(), target.state.applied(), target.state.failed().is_none()), (Model::new(), None, true));
    let received = target.receive(&good, id(1)).unwrap();
    target.state.install(received).unwrap();
    assert_eq!(target.check(), source.check());
}

#[test]
fn an_older_snapshot_is_not_installed() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, target) = (filled(from.path()), Rig::open(to.path()).unwrap());
    target.apply(41, &[(1, "newer", Some(b"1"))]);
    let received = target.receive(&frames(source.state.snapshot().unwrap(), 1 << 20), id(40)).unwrap();
    assert!(matches!(target.state.install(received), Err(Error::Invalid { .. })));
    assert_eq!(target.check().len(), 1);
    assert!(target.state.failed().is_none());
    assert_eq!(names(to.path()), ["00000001.redb", "CURRENT"]);
}

#[test]
fn a_machine_that_cannot_be_built_is_not_installed() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, target) = (filled(from.path()), Rig::open(to.path()).unwrap());
    let mut receiver = target.state.receive().unwrap();
    frames(source.state.snapshot().unwrap(), 1 << 20).iter().for_each(|frame| receiver.frame(frame).unwrap());
    let refused = receiver.finish(id(40), |_| Err(Error::corrupt_row(1, bytes("a"), "it does not decode")));
    assert!(matches!(refused, Err(Error::Corrupt { .. })));
    assert_eq!((target.check(), names(to.path()).len()), (Model::new(), 2));
}

/// What the log has queued may be the vote and entries that the snapshot was sent under: after a power cut a state without them would be
/// ahead of everything its node remembers.
#[test]
fn a_snapshot_is_installed_only_once_the_log_is_synced_and_a_failed_sync_is_final() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, target) = (filled(from.path()), Rig::open(to.path()).unwrap());
    let stream = frames(source.state.snapshot().unwrap(), 1 << 20);
    let synced = |target: &Rig| {
        let (sender, synced) = std::sync::mpsc::channel();
        target.log.hold_syncs();
        target.state.sync_log(move |result| sender.send(result).unwrap());
        assert!(synced.try_recv().is_err(), "the log is not synced yet");
        synced
    };
    let waiting = synced(&target);
    target.log.end_syncs(|| Ok(()));
    let proof = waiting.recv().unwrap().unwrap();
    target.state.install_synced(target.receive(&stream, id(40)).unwrap(), proof).unwrap();
    assert_eq!(target.check(), source.check());

    let waiting = synced(&target);
    target.log.end_syncs(|| Err(std::io::Error::other("the log's sync failed")));
    assert!(waiting.recv().unwrap().is_err());
    assert!(target.state.failed().is_some());
}
