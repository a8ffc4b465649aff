//! Real threads and real files: what is deterministic elsewhere, once as it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use bytes::Bytes;
use quorate::env::Env;
use quorate::storage::log::{Log, Options, Record};
use quorate::types::{LogId, NodeId};

fn record(index: u64) -> Record {
    let payload = Bytes::from(vec![(index % 251) as u8; (index * 37 % 1500) as usize]);
    Record { log_id: LogId { term: 1, node: NodeId(1), index }, payload }
}

fn options() -> Options {
    Options { segment_bytes: 64 * 1024, tail_bytes: 8 * 1024, ..Options::default() }
}

/// A reader far behind races with purges that recycle the segments under it: it gets what was appended, or nothing, never garbage.
#[test]
fn readers_race_with_appends_and_purges_and_everything_acknowledged_is_there_after_a_restart() {
    const COUNT: u64 = 3000;
    let dir = tempfile::tempdir().expect("a directory");
    let log = Log::open(&Env::real(), dir.path(), options()).expect("an empty directory");
    let (stop, read) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let first = log.first_index();
                for found in log.read(first..first + 50, 20_000).expect("nothing is damaged") {
                    assert_eq!(found, record(found.log_id.index));
                    read.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let (sender, synced) = mpsc::channel();
        for index in 0..COUNT {
            let sender = sender.clone();
            log.append(vec![record(index)], Box::new(move |result| sender.send((index, result)).expect("it is awaited")));
            if index % 16 == 15 {
                assert_eq!(synced.iter().take(16).last(), Some((index, Ok(()))), "callbacks come in order");
                assert!(log.covers(index));
            }
            if index % 100 == 99 {
                log.purge(record(index - 80).log_id);
            }
        }
        stop.store(true, Ordering::SeqCst);
        drop(sender);
        assert_eq!(synced.iter().count() as u64, COUNT % 16);
    });
    assert!(read.load(Ordering::SeqCst) > 0, "the reader saw something");
    let (sender, synced) = mpsc::channel();
    log.sync(Box::new(move |result| sender.send(result).expect("it is awaited")));
    assert_eq!(synced.recv(), Ok(Ok(())), "the last purge too");
    let before = (log.position(), log.first_index());
    drop(log);
    let log = Log::open(&Env::real(), dir.path(), options()).expect("nothing is damaged");
    assert_eq!((log.position(), log.first_index()), before);
    let all = log.read(before.1..COUNT, u64::MAX).expect("nothing is damaged");
    assert_eq!(all.first(), Some(&record(before.1)));
    let files = std::fs::read_dir(dir.path()).expect("the directory is there").count();
    assert!(files < 10, "segments are recycled files={files}");
}
