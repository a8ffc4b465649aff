//! openraft's own conformance suite, on the real log and the real state on a real disk.

use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use openraft::StorageError;
use openraft::storage::RaftLogReader as _;
use openraft::testing::log::{StoreBuilder, Suite};

use super::blocking::Blocking;
use super::log_store::LogStore;
use super::state_machine::{Core, StateMachine};
use super::types::{RaftPayload, Types, payload_to_bytes};
use crate::env::Env;
use crate::storage::identity::Identity;
use crate::storage::log::{self, Log, Record};
use crate::storage::state::{self, Cover, State};
use crate::testing::disk::{Fault, Operation, SimDisk};
use crate::testing::inline::SimEnv;
use crate::types::{ClusterId, LogId, NodeId};

struct RealStores;

/// The suite applies entries that it never appended; a flush that waited for the log to cover them would wait for ever.
struct Uncovered;

impl Cover for Uncovered {
    fn when_covered(&self, _: u64, done: Box<dyn FnOnce(Result<(), std::io::Error>) + Send>) {
        done(Ok(()));
    }

    fn sync(&self, done: Box<dyn FnOnce(Result<(), std::io::Error>) + Send>) {
        done(Ok(()));
    }
}

impl StoreBuilder<Types, LogStore, StateMachine, tempfile::TempDir> for RealStores {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<Types>> {
        let dir = tempfile::tempdir().expect("a directory");
        let env = Env::real();
        let mut identity = Identity::load_or_create(&env, dir.path(), NodeId(0)).expect("an identity");
        identity.adopt(ClusterId([1; 16])).expect("a fresh identity");
        // Small segments: the suite opens many stores.
        let options = log::Options { segment_bytes: 1 << 20, ..log::Options::default() };
        env.disk.create_dir_all(&dir.path().join("log")).expect("a directory");
        let log = Log::open(&env, &dir.path().join("log"), options).expect("a log");
        let state = State::open(&env, &dir.path().join("state"), state::Options::default(), Arc::new(Uncovered), Core::from_rows)
            .expect("a state");
        let machine = StateMachine::new(state, Blocking::new(env.workers.clone()), None);
        Ok((dir, LogStore::new(log, Arc::new(Mutex::new(identity))), machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes_on_the_real_stores() {
    Suite::test_all(RealStores).await.expect("every case");
}

/// A log that failed appends nothing, while openraft goes on for a moment and applies what others committed: what is missing must not pass
/// for applied.
#[tokio::test]
async fn entries_that_a_failed_log_did_not_take_are_an_error_and_no_early_end() {
    let disk = SimDisk::new();
    let sim = SimEnv::new(&disk, 1);
    let mut identity = Identity::load_or_create(&sim.env, Path::new("/"), NodeId(0)).expect("an identity");
    identity.adopt(ClusterId([1; 16])).expect("a fresh identity");
    let options = log::Options { segment_bytes: 1 << 20, ..log::Options::default() };
    let log = Log::open(&sim.env, Path::new("/log"), options).expect("a log");
    let mut store = LogStore::new(log.clone(), Arc::new(Mutex::new(identity)));
    let append = |indexes: std::ops::Range<u64>| {
        let log_id = |index| LogId { term: 1, node: NodeId(1), index };
        let record = |index| Record { log_id: log_id(index), payload: payload_to_bytes(&RaftPayload::Blank) };
        log.append(indexes.map(record).collect(), Box::new(|_| {}));
        sim.workers.run_named("log");
    };
    append(0..3);
    let fault =
        Fault { operation: Operation::Sync, path_contains: ".seg".to_owned(), skip: 0, times: 1, kind: std::io::ErrorKind::Other };
    disk.inject(fault);
    append(3..4);
    assert!(log.failed().is_some());
    append(4..6);
    let entries: Vec<_> = store.entries_stream(1..6).await.map(|entry| entry.ok().map(|entry| entry.log_id.index)).collect().await;
    assert_eq!(entries, [Some(1), Some(2), Some(3), None], "4 and 5 are not there");
    let there: Vec<_> = store.entries_stream(1..4).await.map(|entry| entry.is_ok()).collect().await;
    assert_eq!(there, [true; 3]);
}
