//! Readers in threads of their own beside flushes and installs: each sees one instant, whole.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::state::rig::{Rig, bytes, collect, everything, frames, id};

const READERS: usize = 3;
/// Rounds of entries, flushes and one install.
const ROUNDS: u64 = 60;
/// Entries between two installs.
const ENTRIES: u64 = 8;

/// One entry: a row that says which it is, and another that comes and goes.
fn apply(rig: &Rig, index: u64) {
    let (at, key) = (index.to_be_bytes(), format!("key{}", index % 5));
    let value = [index as u8; 12];
    rig.apply(index, &[(1, "at", Some(&at)), (2, &key, (!index.is_multiple_of(3)).then_some(&value))]);
}

/// Snapshots at the end of each round, of a state with other rows than the one they are installed over.
fn snapshots() -> Vec<(u64, Vec<Bytes>)> {
    let dir = tempfile::tempdir().unwrap();
    let source = Rig::threaded(dir.path()).unwrap();
    let round = |round: u64| {
        let last = round * 2 * ENTRIES;
        apply(&source, last);
        source.apply(last + 1, &[(3, "installed", Some(&last.to_be_bytes())), (1, "at", Some(&(last + 1).to_be_bytes()))]);
        source.flush_and_wait();
        (last + 1, frames(source.state.snapshot().unwrap(), 1 << 20))
    };
    (1..=ROUNDS).map(round).collect()
}

#[test]
fn readers_see_one_instant_whatever_is_flushed_and_installed_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let (snapshots, rig) = (snapshots(), Rig::threaded(dir.path()).unwrap());
    let (has_ended, has_begun) = (AtomicBool::new(false), Barrier::new(READERS + 1));
    let read = || {
        let (at, mut last, mut reads) = ((1, bytes("at")), None, 0_u64);
        loop {
            let is_last = has_ended.load(Ordering::Acquire);
            let (machine, applied, pinned) = rig.state.view(|machine, applied, pinner| {
                let spans = everything().into_iter().filter(|(table, ..)| (1..=3).contains(table)).collect::<Vec<_>>();
                (machine.clone(), applied, pinner.pin(&spans))
            });
            assert_eq!(collect(&pinned).unwrap(), machine, "rows and machine are of one instant: {applied:?}");
            let index = applied.map(|id| bytes(id.index.to_be_bytes()));
            assert_eq!(machine.get(&at), index.as_ref(), "the machine is of the entry that is said to be applied");
            assert!(last <= applied, "a reader went back: {last:?}, {applied:?}");
            last = applied;
            reads += 1;
            if reads == 1 {
                // However busy the machine is, each reads before, perhaps meanwhile, and after.
                has_begun.wait();
            }
            if is_last {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        has_begun.wait();
        let mut next = 1;
        for (applied, frames) in &snapshots {
            for index in next..next + ENTRIES {
                apply(&rig, index);
                rig.state.flush(Box::new(|_| ()));
            }
            let received = rig.receive(frames, id(*applied)).unwrap();
            rig.state.install(received).unwrap();
            next = applied + 1;
        }
        has_ended.store(true, Ordering::Release);
        readers.into_iter().for_each(|reader| reader.join().expect("it saw one instant each time"));
    });
}
