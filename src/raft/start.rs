//! Starting a node: the data directory, then Raft on it, then the peer port and the tasks.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{Config, SnapshotPolicy};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::blocking::Blocking;
use super::charge::LoadedRoom;
use super::clocks::Clocks;
use super::confirm::Confirmer;
use super::events::{self, Events};
use super::log_store::LogStore;
use super::net::{Incoming, Net};
use super::network::NetworkFactory;
use super::node::Node;
use super::peer_service::PeerService;
use super::peers::Peers;
use super::presence::Presence;
use super::quorum::Quorum;
use super::rebuild::{self, Mark, Rebuild};
use super::room::{self, Room};
use super::shared::{REMOVED, Shared};
use super::state_machine::{Core, Observer, StateMachine};
use super::types::{Runtime, StoredMembership};
use super::{Leadership, Member, Upper, ahead, bootstrap, disk_watch, members, purge, scrub, upgrade};
use crate::env::{Env, u64_from};
use crate::limits::{APPEND_ENTRIES_MAX, PEER_MESSAGE_BYTES_MAX};
use crate::machine::rows;
use crate::mutant::{self, Mutant};
use crate::storage::identity::Identity;
use crate::storage::lock::Lock;
use crate::storage::log::{self, Log};
use crate::storage::state::{self, Cover, State};
use crate::tls::Connecting;
use crate::types::{NodeId, set_log_hash_key};
use crate::wire::peer::v1::peer_server::PeerServer;

/// Bounds of openraft's queues. A slot of the first holds a whole write; bytes are bounded before, at admission.
const API_QUEUE: u64 = 8192;
const PURGE_BATCH: u64 = 256;
/// HTTP/2 keep-alive of the peer port.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a node is started with.
pub struct Options {
    /// The outside world.
    pub env: Env,
    /// The network.
    pub net: Arc<dyn Net>,
    /// What connections to peers believe and show; without, they are open.
    pub tls: Option<Connecting>,
    /// This node.
    pub node: NodeId,
    /// Its data directory, made if it is missing.
    pub data_dir: PathBuf,
    /// The cluster's name.
    pub name: String,
    /// A hash of name, members and addresses: nodes that differ in it do not form a cluster.
    pub configuration_hash: u64,
    /// The configured members, this node among them.
    pub members: Vec<Member>,
    /// Whether to form a new cluster with them, if every one of them is there and empty.
    pub bootstrap: bool,
    /// Between two heartbeats; must be far above the slowest sync.
    pub heartbeat: Duration,
    /// A follower waits at least so long for a leader ...
    pub election_timeout_min: Duration,
    /// ... and at most so long.
    pub election_timeout_max: Duration,
    /// Whether a leader that is gone is replaced at once (see [`super::failover`]). Without, elections wait out their timeouts: safety
    /// must not need it, and tests show that.
    pub early_elections: bool,
    /// What is kept of the log.
    pub log_kept: purge::Kept,
    /// How the log is kept.
    pub log: log::Options,
    /// How the state is kept.
    pub state: state::Options,
    /// Called for every entry that is applied, for tests that audit them.
    pub observer: Option<Observer>,
    /// How everything on disk is read over time.
    pub scrub: scrub::Options,
    /// The server above the peer port.
    pub upper: Arc<dyn Upper>,
}

/// Why a node did not start. Nothing was changed, except that a missing data directory may have been made.
#[derive(Debug)]
pub enum StartError {
    /// The data directory is missing, foreign, locked or damaged: a person must look. The text says how to fix it.
    Data(String),
    /// The options contradict each other.
    Options(String),
    /// Raft refused what it found in storage.
    Raft(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Data(text) | StartError::Options(text) | StartError::Raft(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StartError {}

fn data(error: impl fmt::Display) -> StartError {
    StartError::Data(error.to_string())
}

/// The log as the state's flusher sees it.
pub(super) struct LogCover(pub(super) Log);

impl Cover for LogCover {
    fn when_covered(&self, index: u64, done: Box<dyn FnOnce(Result<(), std::io::Error>) + Send>) {
        self.0.when_covered(index, Box::new(move |result| done(result.map_err(std::io::Error::other))));
    }

    fn sync(&self, done: Box<dyn FnOnce(Result<(), std::io::Error>) + Send>) {
        self.0.sync(Box::new(move |result| done(result.map_err(std::io::Error::other))));
    }
}

struct Storage {
    identity: Identity,
    lock: Lock,
    log: Log,
    events: Arc<Events>,
    state: Result<Arc<State<Core>>, Mark>,
}

/// Opens everything under the data directory; a state that is damaged, or marked as such, is left for a rebuild. Blocks on the disk.
fn open_dir(env: &Env, options: &OpenOptions) -> Result<Storage, StartError> {
    let dir = &options.data_dir;
    env.disk
        .create_dir_all(dir)
        .map_err(|error| data(format!("cannot make the data directory path={} error={error}", dir.display())))?;
    let lock = Lock::acquire(&*env.disk, dir).map_err(data)?;
    let mut identity = Identity::load_or_create(env, dir, options.node).map_err(data)?;
    set_log_hash_key(identity.log_hash_key());
    let log = Log::open(env, &dir.join("log"), options.log.clone()).map_err(data)?;
    let position = log.position();
    let is_empty = position.vote.is_none() && position.last.is_none();
    if !is_empty && identity.cluster().is_none() {
        return Err(data(format!(
            "the log holds records and the identity names no cluster: they are not of one data directory path={} fix=put both back from \
             one copy, or replace the node under a new id",
            dir.display()
        )));
    }
    if !is_empty {
        // It may have lost power between the first record and the mark.
        identity.mark_initialized().map_err(data)?;
    } else if identity.was_initialized() {
        return Err(data(format!(
            "the log is gone but the node took part in a cluster: it must not vote again path={} fix=restore the log, or replace the node \
             under a new id",
            dir.display()
        )));
    }
    let events = Arc::new(Events::open(env, dir));
    let mark =
        rebuild::read_mark(&*env.disk, dir).map_err(|error| data(format!("the mark for a rebuild can't be read: {error}")))?;
    let state = match mark {
        Some(mark) => Err(mark),
        None => match open_state(env, options, &log) {
            Err(error) if rebuild::is_damage(&error) => {
                Err(Mark { reason: error.to_string(), members: rebuild::members_in(env, &dir.join("state")) })
            }
            opened => Ok(opened.map_err(data)?),
        },
    };
    Ok(Storage { identity, lock, log, events, state })
}

fn open_state(env: &Env, options: &OpenOptions, log: &Log) -> Result<Arc<State<Core>>, state::Error> {
    let cover = Arc::new(LogCover(log.clone()));
    let tuned = state::Options { sought_singly: &rows::SOUGHT_SINGLY, ..options.state };
    let state = State::open(env, &options.data_dir.join("state"), tuned, cover, Core::from_rows)?;
    state.mark_flushes(|core| core.machine.digest());
    Ok(state)
}

#[derive(Clone)]
struct OpenOptions {
    node: NodeId,
    data_dir: PathBuf,
    log: log::Options,
    state: state::Options,
}

/// Everything on the disk is open, and whole; nothing runs yet.
pub struct Opened {
    options: Options,
    config: Arc<Config>,
    blocking: Blocking,
    identity: Identity,
    lock: Lock,
    log: Log,
    events: Arc<Events>,
    state: Arc<State<Core>>,
    peers: Peers,
}

/// Opens a node's data directory. A state that is damaged, or that is not what a majority has, is rebuilt from the leader first, however
/// long that takes: open the ports only afterwards.
///
/// Errors: [`StartError`]. Cancel safe.
pub async fn open(options: Options) -> Result<Opened, StartError> {
    let config = raft_config(&options)?;
    let blocking = Blocking::new(options.env.workers.clone());
    let open_options =
        OpenOptions { node: options.node, data_dir: options.data_dir.clone(), log: options.log.clone(), state: options.state };
    let (env, own) = (options.env.clone(), open_options.clone());
    let Storage { identity, lock, log, events, state } = blocking.call(move || open_dir(&env, &own)).await?;
    let peers = Peers::new(options.node, identity.cluster(), options.net.clone(), options.tls.clone());
    let state = match state {
        Ok(state) => state,
        Err(mark) => {
            if mutant::is(Mutant::MarkClearedEarly) {
                rebuild::clear(&*options.env.disk, &options.data_dir).map_err(data)?;
            }
            rebuild_state(&options, &identity, &log, &peers, &blocking, &events, mark).await?;
            let (env, log) = (options.env.clone(), log.clone());
            let open_again = move || {
                let state = open_state(&env, &open_options, &log)?;
                let cleared = rebuild::clear(&*env.disk, &open_options.data_dir);
                cleared.map(|()| state).map_err(|error| state::Error::invalid(format!("the mark can't be removed: {error}")))
            };
            blocking.call(open_again).await.map_err(data)?
        }
    };
    let applied = state.applied().map_or_else(|| "none".to_owned(), |id| id.index.to_string());
    events.note("started", format!("release={} applied={applied}", env!("CARGO_PKG_VERSION")));
    Ok(Opened { options, config, blocking, identity, lock, log, events, state, peers })
}

async fn rebuild_state(
    options: &Options,
    identity: &Identity,
    log: &Log,
    peers: &Peers,
    blocking: &Blocking,
    events: &Arc<Events>,
    mark: Mark,
) -> Result<(), StartError> {
    let members = rebuild::members_to_ask(options.node, &mark.members, &options.members);
    let reason = &mark.reason;
    let Some(cluster) = identity.cluster().filter(|_| !members.is_empty()) else {
        return Err(data(format!(
            "the state of this node must not be served, and no other member has it: {reason} path={} fix=restore a backup; \
             `quorate offline export` writes the sessions that are whole",
            options.data_dir.display()
        )));
    };
    tracing::error!(%reason, "the state of this node is rebuilt from the leader; it serves nothing until then");
    events.note("rebuild", format!("begins: {reason}"));
    let saved = events.clone();
    blocking.call(move || saved.save()).await;
    let rebuild = Rebuild {
        env: options.env.clone(),
        blocking: blocking.clone(),
        peers: peers.clone(),
        me: options.node,
        instance: identity.instance(),
        cluster,
        name: options.name.clone(),
        configuration_hash: options.configuration_hash,
        state_dir: options.data_dir.join("state"),
        options: options.state,
        last_index: log.position().last.map_or(0, |last| last.index),
        members,
    };
    let Some(applied) = rebuild.run().await else { return Err(data(REMOVED)) };
    events.note("rebuild", format!("done applied={}", applied.index));
    tracing::warn!(%applied, "the state of this node is rebuilt");
    Ok(())
}

fn raft_config(options: &Options) -> Result<Arc<Config>, StartError> {
    let config = Config {
        cluster_name: options.name.clone(),
        heartbeat_interval: options.heartbeat.as_millis() as u64,
        election_timeout_min: options.election_timeout_min.as_millis() as u64,
        election_timeout_max: options.election_timeout_max.as_millis() as u64,
        max_payload_entries: APPEND_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::Never,
        // The log is purged by bytes, by ourselves.
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: PURGE_BATCH,
        api_channel_size: Some(API_QUEUE),
        install_snapshot_timeout: 60_000,
        enable_pre_vote: Some(true),
        // A leader may have acknowledged entries its own disk never got; it must not resume its term after a restart.
        enable_leader_restore: Some(mutant::is(Mutant::LeaderRestore)),
        ..Config::default()
    };
    let config = config.validate().map_err(|error| StartError::Options(error.to_string()))?;
    Ok(Arc::new(config))
}

impl Opened {
    /// Starts the node and its tasks, with connections to its peer port. Errors: [`StartError`]. Dropping the future stops whatever was
    /// started.
    pub async fn start(self, incoming: Incoming) -> Result<Node, StartError> {
        start(self, incoming).await
    }
}

async fn start(opened: Opened, incoming: Incoming) -> Result<Node, StartError> {
    let Opened { options, config, blocking, identity, lock, log, events, state, peers } = opened;
    let clocks = Arc::new(Clocks::new(options.env.clock.clone(), options.node, 2 * options.election_timeout_max));
    let identity = Arc::new(Mutex::new(identity));
    let machine = StateMachine::new(state.clone(), blocking.clone(), options.observer.clone());
    let room = Arc::new(Room::default());
    let network = NetworkFactory { peers: peers.clone(), clocks: clocks.clone(), room: room.clone(), blocking: blocking.clone() };
    let log_store = LogStore::new(log.clone(), identity.clone());
    let raft = openraft::Raft::new(options.node, config, network, log_store, machine.clone());
    // Election timeouts and the phase of ticks follow from this node's entropy, in a simulation from its seed.
    let raft = Runtime::scope(u64_from(&*options.env.random), raft);
    let raft = raft.await.map_err(|error| StartError::Raft(error.to_string()))?;
    let quorum = Quorum::new(options.env.clock.clone(), options.election_timeout_max);
    let shared = Arc::new(Shared {
        boot_id: u64_from(&*options.env.random).max(1),
        env: options.env,
        me: options.node,
        name: options.name,
        configuration_hash: options.configuration_hash,
        configured: options.members,
        raft,
        machine,
        state,
        log,
        identity,
        peers,
        clocks,
        confirmer: Confirmer::default(),
        blocking,
        upper: options.upper,
        heard: watch::Sender::new(None),
        quorum,
        lost: watch::Sender::new(None),
        hung: watch::Sender::new(false),
        leadership: watch::Sender::new(Leadership::default()),
        loaded: LoadedRoom::default(),
        changing: tokio::sync::Mutex::new(()),
        was_removed: AtomicBool::new(false),
        estranged: OnceLock::new(),
        failed: watch::Sender::new(None),
        room,
        disk_low: AtomicBool::new(false),
        disk_free: AtomicU64::new(0),
        disk_total: AtomicU64::new(0),
        data_dir: options.data_dir,
        events,
        rebuilding: AtomicBool::new(false),
        erasing: AtomicBool::new(false),
        scrub: scrub::Progress::default(),
        rebuilds: Arc::new(tokio::sync::Semaphore::new(1)),
        backups: Arc::new(tokio::sync::Semaphore::new(1)),
    });
    watch_failures(&shared);
    // A peer that asks it, or is answered by it, must not take a disk that was not looked at for one without room, or with it.
    room::look(&shared).await;
    let presence = Presence::new(shared.clone(), options.election_timeout_max, options.early_elections);
    let mut tasks = begin(&shared, &presence, incoming, options.log_kept, options.scrub);
    tasks.spawn(keep(lock));
    if options.bootstrap {
        tasks.spawn(bootstrap::run(shared.clone()));
    }
    Ok(Node::new(shared, presence, tasks))
}

/// The tasks that every node has from its start on; the holder of the set joins them.
fn begin(
    shared: &Arc<Shared>,
    presence: &Arc<Presence>,
    incoming: Incoming,
    log_kept: purge::Kept,
    scrub: scrub::Options,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(PeerService::new(shared.clone(), presence.clone()), incoming));
    tasks.spawn(presence.clone().run());
    tasks.spawn(presence.clone().started());
    tasks.spawn(presence.clone().watch_silence());
    tasks.spawn(Confirmer::run(shared.clone()));
    tasks.spawn(leadership(shared.clone()));
    tasks.spawn(purge::run(shared.clone(), log_kept));
    tasks.spawn(upgrade::run(shared.clone(), presence.clone()));
    tasks.spawn(events::run(shared.events.clone(), shared.blocking.clone()));
    tasks.spawn(disk_watch::run(shared.clone(), presence.clone()));
    tasks.spawn(ahead::run(shared.clone()));
    tasks.spawn(room::run(shared.clone(), presence.clone()));
    tasks.spawn(members::settle(shared.clone()));
    tasks.spawn(members::announce_moved(shared.clone(), presence.clone()));
    tasks.spawn(members::find_moved(shared.clone(), presence.clone()));
    tasks.spawn(scrub::run(shared.clone(), scrub));
    tasks
}

/// Holds the directory's lock as long as the tasks live.
async fn keep(lock: Lock) {
    let _lock = lock;
    std::future::pending().await
}

fn watch_failures(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    shared.log.on_failure(Box::new(move |error| {
        if let Some(shared) = weak.upgrade() {
            shared.fail(format!("the log failed: {error}"));
        }
    }));
    let weak = Arc::downgrade(shared);
    shared.state.on_failure(Box::new(move |error| {
        if let Some(shared) = weak.upgrade() {
            rebuild::state_failed(&shared, &error);
        }
    }));
}

async fn serve(service: PeerService, incoming: Incoming) {
    let limit = PEER_MESSAGE_BYTES_MAX as usize;
    let service = PeerServer::new(service).max_decoding_message_size(limit).max_encoding_message_size(limit);
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .add_service(service);
    if let Err(error) = server.serve_with_incoming(incoming).await {
        tracing::error!(%error, "the peer port failed");
    }
}

fn membership_text(membership: &StoredMembership) -> String {
    let (voters, members) = (membership.voter_ids(), membership.nodes().map(|(id, _)| *id));
    format!("voters={} members={}", NodeId::listed(voters), NodeId::listed(members))
}

/// Pause between two rounds that no majority confirmed.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How often it is looked at who leads, besides every change, and whether Raft goes on.
const LOOK: Duration = Duration::from_secs(1);

/// Publishes who leads, whenever something that tells it changes, and notices when Raft itself has stopped.
async fn leadership(shared: Arc<Shared>) {
    let mut metrics = shared.raft.server_metrics();
    let mut acknowledged = shared.raft.data_metrics();
    let mut heard = shared.heard.subscribe();
    let mut lost = shared.lost.subscribe();
    let mut hung = shared.hung.subscribe();
    let mut members = None;
    loop {
        let membership = shared.membership();
        if *membership.log_id() != members {
            members = *membership.log_id();
            shared.peers.set_members(membership.nodes().map(|(id, node)| (*id, node.clone())).collect());
            shared.events.note("membership", membership_text(&membership));
        }
        if shared.is_removed(shared.me) {
            shared.fail_removed();
        }
        drop(acknowledged.borrow_and_update());
        let look = publish(&shared, *hung.borrow_and_update());
        let lacks_quorum = shared.leadership.borrow().lacks_quorum;
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            _ = heard.changed() => {}
            _ = lost.changed() => {}
            _ = hung.changed() => {}
            () = shared.quorum.changed() => {}
            // Any of them may be the answer that makes a majority again.
            changed = acknowledged.changed(), if lacks_quorum => if changed.is_err() { return },
            () = ask_majority(&shared) => {}
            () = tokio::time::sleep(look) => {
                if let Err(error) = &shared.raft.metrics().borrow_watched().running_state {
                    shared.fail(format!("raft stopped: {error}"));
                }
            }
        }
    }
}

/// Asks the voters who leads, while this node does by its term and its appends were not answered for a while: answers to those wait for
/// the disks of the others. Returns once a majority has confirmed it. Cancel safe.
async fn ask_majority(shared: &Shared) {
    loop {
        let Some(age) = shared.quorum_age() else { return std::future::pending().await };
        let wait = (shared.quorum.patience() / 2).saturating_sub(age);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        } else if shared.confirmer.confirm(shared).await {
            return;
        } else {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

/// Publishes who leads now; gives how long that holds at most.
fn publish(shared: &Shared, hung: bool) -> Duration {
    let leader = shared.leader_for_now();
    let is_self = leader.is_some_and(|(leader, _)| leader == shared.me);
    let known = Leadership {
        term: shared.raft.metrics().borrow_watched().current_term,
        leader: leader.and_then(|(leader, _)| shared.hint(leader)),
        is_self,
        lacks_quorum: !is_self && shared.leader_by_term() == Some(shared.me),
        hung,
    };
    let before = shared.leadership.borrow().clone();
    if before.leader != known.leader {
        let leader = known.leader.as_ref().map(|hint| hint.node.0);
        let name = leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        tracing::info!(term = known.term, leader = name, "the leader changed");
        shared.events.note("leader", format!("term={} leader={name}", known.term));
    }
    match (before.lacks_quorum, known.lacks_quorum) {
        (false, true) => {
            tracing::warn!(term = known.term, "no majority of the voters answers this leader: it is none until one does");
            shared.events.note("quorum", format!("lost: no majority answers this leader term={}", known.term));
        }
        (true, false) if is_self => {
            tracing::info!(term = known.term, "a majority of the voters answers this leader again");
            shared.events.note("quorum", format!("regained: a majority answers this leader again term={}", known.term));
        }
        _ => {}
    }
    shared.leadership.send_if_modified(|old| {
        let changed = *old != known;
        *old = known;
        changed
    });
    leader.map_or(LOOK, |(_, left)| left.min(LOOK))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use openraft::storage::{IOFlushed, RaftLogStorage as _};
    use openraft::type_config::TypeConfigExt as _;

    use super::super::types::{Entry, RaftPayload, Types, Vote, log_id_to};
    use super::*;
    use crate::env::Disk as _;
    use crate::testing::disk::{Crash, Fault, Operation, SimDisk};
    use crate::testing::inline::SimEnv;
    use crate::types::{ClusterId, LogId};

    const CLUSTER: ClusterId = ClusterId([7; 16]);
    const CRASHES: [Crash; 4] = [Crash::Lost, Crash::Kept, Crash::Prefix, Crash::Torn { sector: 512 }];

    fn open(env: &Env) -> Result<Storage, StartError> {
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
