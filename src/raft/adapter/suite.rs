//! openraft's own conformance suite, on the real log and the real state on a real disk.

use std::sync::{Arc, Mutex};

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::log_store::LogStore;
use super::state_machine::{AppliedState, StateMachine};
use super::types::Types;
use crate::env::{Blocking, Env};
use crate::storage::identity::Identity;
use crate::storage::log::{self, Log};
use crate::storage::state::{self, Cover, State};
use crate::types::{ClusterId, NodeId};

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
        let state =
            State::open(&env, &dir.path().join("state"), state::Options::default(), Arc::new(Uncovered), AppliedState::from_rows)
                .expect("a state");
        state.complete_flushes(AppliedState::completion());
        let machine = StateMachine::new(state, Blocking::new(env.workers.clone()), None);
        Ok((dir, LogStore::new(log, Arc::new(Mutex::new(identity))), machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes_on_the_real_stores() {
    Suite::test_all(RealStores).await.expect("every case");
}
