//! The rules of a data directory: what may lie in it together, and what of it must never be served or voted with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::adapter::state_machine::AppliedState;
use super::rebuild::{self, Mark};
use crate::env::Env;
use crate::events::Events;
use crate::machine::rows;
use crate::storage::identity::Identity;
use crate::storage::lock::Lock;
use crate::storage::log::{self, Log};
use crate::storage::state::{self, Cover, State};
use crate::types::{NodeId, set_log_hash_key};

/// The directory is missing, foreign, locked or damaged: a person must look. The text says how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

fn named(error: impl fmt::Display) -> Error {
    Error(error.to_string())
}

/// The log as the state's flusher sees it.
struct LogCover(Log);

impl Cover for LogCover {
    fn when_covered(&self, index: u64, done: Box<dyn FnOnce(Result<(), std::io::Error>) + Send>) {
        self.0.when_covered(index, Box::new(move |result| done(result.map_err(std::io::Error::other))));
    }

    fn sync(&self, done: Box<dyn FnOnce(Result<(), std::io::Error>) + Send>) {
        self.0.sync(Box::new(move |result| done(result.map_err(std::io::Error::other))));
    }
}

/// All that is opened under a data directory.
pub struct Storage {
    pub identity: Identity,
    pub lock: Lock,
    pub log: Log,
    pub events: Arc<Events>,
    /// `Err`: it is to be rebuilt.
    pub state: Result<Arc<State<AppliedState>>, Mark>,
}

/// Opens everything under the data directory; a state that is damaged, or marked as such, is left for a rebuild. Blocks on the disk.
///
/// Errors: [`Error`].
pub fn open_dir(env: &Env, options: &OpenOptions) -> Result<Storage, Error> {
    let dir = &options.data_dir;
    env.disk
        .create_dir_all(dir)
        .map_err(|error| Error(format!("cannot make the data directory path={} error={error}", dir.display())))?;
    let lock = Lock::acquire(&*env.disk, dir).map_err(named)?;
    let mut identity = Identity::load_or_create(env, dir, options.node).map_err(named)?;
    set_log_hash_key(identity.log_hash_key());
    let log = Log::open(env, &dir.join("log"), options.log.clone()).map_err(named)?;
    let position = log.position();
    let is_empty = position.vote.is_none() && position.last.is_none();
    if !is_empty && identity.cluster().is_none() {
        return Err(Error(format!(
            "the log holds records and the identity names no cluster: they are not of one data directory path={} fix=put both back from \
             one copy, or replace the node under a new id",
            dir.display()
        )));
    }
    if !is_empty {
        // It may have lost power between the first record and the mark, without which a node whose log is gone passes for a new one (L31).
        identity.mark_initialized().map_err(named)?;
    } else if identity.was_initialized() {
        return Err(Error(format!(
            "the log is gone but the node took part in a cluster: it must not vote again path={} fix=restore the log, or replace the node \
             under a new id",
            dir.display()
        )));
    }
    let events = Arc::new(Events::open(env, dir));
    let mark =
        rebuild::read_mark(&*env.disk, dir).map_err(|error| Error(format!("the mark for a rebuild can't be read: {error}")))?;
    let state = match mark {
        Some(mark) => Err(mark),
        None => match open_state(env, options, &log) {
            Err(error) if rebuild::is_damage(&error) => {
                Err(Mark { reason: error.to_string(), members: rebuild::members_in(env, &dir.join("state")) })
            }
            opened => Ok(opened.map_err(named)?),
        },
    };
    Ok(Storage { identity, lock, log, events, state })
}

/// Opens the state. Blocks on the disk. Errors: the disk's, or of a damaged state.
pub fn open_state(env: &Env, options: &OpenOptions, log: &Log) -> Result<Arc<State<AppliedState>>, state::Error> {
    let cover = Arc::new(LogCover(log.clone()));
    let tuned = state::Options { hashed_tables: &rows::POINT_LOOKUP_TABLES, ..options.state };
    let state = State::open(env, &options.data_dir.join("state"), tuned, cover, AppliedState::from_rows)?;
    state.complete_flushes(AppliedState::completion());
    Ok(state)
}

/// Where a node's data lies, and how it is kept.
#[derive(Clone)]
pub struct OpenOptions {
    pub node: NodeId,
    pub data_dir: PathBuf,
    pub log: log::Options,
    pub state: state::Options,
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::Poll;
    use std::time::Duration;

    use openraft::storage::{IOFlushed, RaftLogStorage as _};
    use openraft::type_config::TypeConfigExt as _;

    use super::super::adapter::log_store::LogStore;
    use super::super::adapter::types::{Entry, RaftPayload, Types, Vote, log_id_to};
    use super::*;
    use crate::env::Disk as _;
    use crate::testing::disk::{Crash, Fault, Operation, SimDisk};
    use crate::testing::inline::SimEnv;
    use crate::types::{ClusterId, LogId};

    const CLUSTER: ClusterId = ClusterId([7; 16]);
    const CRASHES: [Crash; 4] = [Crash::Lost, Crash::Kept, Crash::Prefix, Crash::Torn { sector: 512 }];

    fn open(env: &Env) -> Result<Storage, Error> {
        let log = log::Options { segment_bytes: 1 << 16, spare_segments: 0, ..log::Options::default() };
        let state = state::Options { reserve_bytes: 0, ..state::Options::default() };
        let options = OpenOptions { node: NodeId(1), data_dir: PathBuf::from("/data/1"), log, state };
        open_dir(env, &options)
    }

    /// Runs a future that waits for nothing but the workers and some seconds. `None`: they came to nothing, the disk is dead.
    async fn driven<T>(sim: &SimEnv, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        for _ in 0..4 {
            if let Poll::Ready(done) = futures_util::poll!(future.as_mut()) {
                return Some(done);
            }
            sim.workers.run();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        None
    }

    /// A new node takes part, by a vote or by an entry, until the disk halts: `halt` operations after it adopted the cluster. Gives
    /// whether it answered for it.
    async fn takes_part(disk: &SimDisk, by_vote: bool, halt: Option<u64>) -> bool {
        let sim = SimEnv::new(disk, 1);
        let Storage { mut identity, log, .. } = open(&sim.env).expect("an empty disk");
        identity.adopt(CLUSTER).expect("nothing fails");
        if let Some(halt) = halt {
            disk.halt_after(disk.operations() + halt);
        }
        let mut store = LogStore::new(log, Arc::new(Mutex::new(identity)));
        if by_vote {
            return driven(&sim, store.save_vote(&Vote::new(1, NodeId(1)))).await.is_some_and(|saved| saved.is_ok());
        }
        let (answer, answered) = Types::oneshot();
        let entry = Entry { log_id: log_id_to(LogId { term: 1, node: NodeId(1), index: 0 }), payload: RaftPayload::Blank };
        let appended = driven(&sim, store.append([entry], IOFlushed::signal(answer))).await;
        appended.is_some_and(|appended| appended.is_ok())
            && driven(&sim, answered).await.is_some_and(|answer| matches!(answer, Ok(Ok(()))))
    }

    /// The log waits for room; so does what the identity has to say of it (seed 100314064272).
    #[tokio::test(start_paused = true)]
    async fn a_disk_that_is_full_when_a_node_first_takes_part_is_waited_for() {
        for (by_vote, operation) in
            [true, false].into_iter().flat_map(|by| [Operation::Create, Operation::Write].map(|op| (by, op)))
        {
            let disk = SimDisk::new();
            let path_contains = "identity".to_owned();
            // An identity is drawn and adopts a cluster before.
            let full = Fault { operation, path_contains, skip: 2, times: 2, kind: std::io::ErrorKind::StorageFull };
            disk.inject(full);
            assert!(takes_part(&disk, by_vote, None).await, "by_vote={by_vote} {operation:?}");
            let again = open(&SimEnv::new(&disk.crash(Crash::Lost, 1), 2).env).expect("it has its log");
            assert!(again.identity.was_initialized(), "by_vote={by_vote} {operation:?}");
        }
    }

    /// A node that lost its power anywhere around its first record starts again, with the record if anyone heard of it (seed
    /// 158113343514); one whose log is gone after that never does.
    #[tokio::test(start_paused = true)]
    async fn a_node_that_loses_power_around_its_first_record_starts_again_and_remembers_what_it_answered() {
        for by_vote in [true, false] {
            let mut answered = false;
            for halt in 0.. {
                assert!(halt < 100, "a first record takes few operations");
                let disk = SimDisk::new();
                let did = takes_part(&disk, by_vote, Some(halt)).await;
                if std::mem::replace(&mut answered, did) {
                    break;
                }
                for (crash, seed) in CRASHES.iter().flat_map(|crash| (0..3).map(move |seed| (*crash, seed))) {
                    let what = format!("by_vote={by_vote} halt={halt} crash={crash:?} seed={seed}");
                    let sim = SimEnv::new(&disk.crash(crash, seed), 2);
                    let Storage { identity, log, .. } = open(&sim.env).unwrap_or_else(|error| panic!("{what}: {error}"));
                    let position = log.position();
                    let holds = if by_vote { position.vote.is_some() } else { position.last.is_some() };
                    assert!(holds || !did, "{what}");
                    assert_eq!(identity.was_initialized(), position.vote.is_some() || position.last.is_some(), "{what}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_whose_log_is_gone_does_not_start_again() {
        let disk = SimDisk::new();
        assert!(takes_part(&disk, true, None).await, "nothing fails");
        let log = PathBuf::from("/data/1/log");
        for name in disk.list(&log).expect("it is there") {
            disk.remove(&log.join(name)).expect("no fault is set");
        }
        let error = open(&SimEnv::new(&disk, 2).env).err().expect("it has promised a vote").to_string();
        assert!(error.contains("the log is gone"), "{error}");
    }
}
