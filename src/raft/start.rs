//! Starting a node: the data directory, then Raft on it, then the peer port and the tasks.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use tokio::sync::Semaphore;

use super::PeerRequests;
use super::adapter::log_store::LogStore;
use super::adapter::raft_network::NetworkFactory;
use super::adapter::state_machine::{AppliedState, Observer, StateMachine};
use super::adapter::types::Runtime;
use super::byte_permit::ReadBudget;
use super::confirm::Confirmer;
use super::context::{Facts, NodeContext};
use super::data_dir::{OpenOptions, Storage, open_dir, open_state};
use super::failure::{Failure, REMOVED};
use super::leadership::{self, LeadershipState};
use super::members::bootstrap;
use super::members::outside::Outside;
use super::members::{self, MemberChanges};
use super::node::{Node, Parts};
use super::peer::clocks::Clocks;
use super::peer::peer_table::PeerTable;
use super::peer::peers::Peers;
use super::peer::service::PeerService;
use super::peer::streams::Streams;
use super::peer::takeover::Takeover;
use super::read::Reads;
use super::rebuild::{self, Mark, Rebuild};
use super::upkeep::purge::{self, Eraser};
use super::upkeep::room::Room;
use super::upkeep::{ahead, disk_space, hung_disk, scrub, upgrade};
use crate::env::{Blocking, Env, Stop, Tasks, u64_from};
use crate::events::{self, Events};
use crate::limits::{APPEND_ENTRIES_MAX, PEER_MESSAGE_BYTES_MAX};
use crate::mutant::{self, Mutant};
use crate::net::{Incoming, Net, peer_server};
use crate::storage::identity::Identity;
use crate::storage::lock::Lock;
use crate::storage::log::{self, Log};
use crate::storage::state::{self, State};
use crate::tls::TlsConnector;
use crate::types::{Member, NodeId};
use crate::wire::peer::v1::peer_server::PeerServer;

/// Bounds of openraft's queues. A slot of the first holds a whole write; bytes are bounded before, at admission.
const API_QUEUE: u64 = 8192;
const PURGE_BATCH: u64 = 256;

/// The options a node is started with.
pub struct Options {
    /// The outside world.
    pub env: Env,
    /// The network.
    pub net: Arc<dyn Net>,
    /// The CAs and the certificate of connections to peers; `None`: they are open.
    pub tls: Option<TlsConnector>,
    /// This node.
    pub node: NodeId,
    /// Its data directory, made if it is missing.
    pub data_dir: PathBuf,
    /// The cluster's name.
    pub name: String,
    /// A hash of name, members and addresses: nodes that differ in it do not form a cluster.
    pub configuration_hash: u64,
    /// The cluster version above which this node does not let the cluster rise; `None`: there is none.
    pub cluster_version_max: Option<u16>,
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
    /// How much of the log is kept.
    pub log_kept: purge::LogKept,
    /// How the log is kept.
    pub log: log::Options,
    /// How the state is kept.
    pub state: state::Options,
    /// Called for every entry that is applied, for tests that audit them.
    pub observer: Option<Observer>,
    /// How everything on disk is read over time.
    pub scrub: scrub::Options,
    /// The server behind the peer port.
    pub peer_requests: Arc<dyn PeerRequests>,
}

/// Why a node did not start. Nothing was changed, except that a missing data directory may have been made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub enum StartError {
    /// The data directory is missing, foreign, locked or damaged: a person must look. The text says how to fix it.
    Data(String),
    /// The options contradict each other.
    Options(String),
    /// Raft refused what it found in storage.
    Raft(String),
}

fn data(error: impl fmt::Display) -> StartError {
    StartError::Data(error.to_string())
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
    state: Arc<State<AppliedState>>,
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
    let Storage { identity, lock, log, events, state } = blocking.call(move || open_dir(&env, &own)).await.map_err(data)?;
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
        // A leader may have acknowledged entries its own disk never got; it must not resume its term after a restart (L30).
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
    let raft = openraft::Raft::new(options.node, config, network, log_store, machine);
    // Election timeouts and the phase of ticks follow from this node's entropy, in a simulation from its seed.
    let raft = Runtime::scope(u64_from(&*options.env.random), raft);
    let raft = raft.await.map_err(|error| StartError::Raft(error.to_string()))?;
    let (clock, patience) = (options.env.clock.clone(), options.election_timeout_max);
    let leadership = LeadershipState::new(options.node, raft.clone(), state.clone(), clock, patience);
    let facts = Facts {
        me: options.node,
        name: options.name.clone(),
        configuration_hash: options.configuration_hash,
        configured: options.members.clone(),
        cluster_version_held: options.cluster_version_max,
        boot_id: u64_from(&*options.env.random).max(1),
        data_dir: options.data_dir.clone(),
    };
    let failure = Failure::new(events.clone());
    let env = options.env.clone();
    let context = NodeContext { env, facts, raft, state, log, identity, peers, clocks, blocking, events, leadership, failure };
    let context = Arc::new(context);
    watch_failures(&context);
    // A peer that asks it, or is answered by it, must not take a disk that was not looked at for one without room, or with it.
    disk_space::look(&context, &room).await;
    Ok(begin(context, room, options, incoming, lock))
}

/// Spawns the tasks that every node has from its start on.
fn begin(context: Arc<NodeContext>, room: Arc<Room>, options: Options, incoming: Incoming, lock: Lock) -> Node {
    let table = Arc::new(PeerTable::new(context.clone()));
    let (timeout, early) = (options.election_timeout_max, options.early_elections);
    let tasks = Tasks::new();
    let takeover = Takeover::new(context.clone(), room.clone(), table.clone(), timeout, early, tasks.spawner());
    let takeover = Arc::new(takeover);
    let streams = Streams::new(context.clone(), room.clone(), table.clone(), takeover.clone(), tasks.spawner());
    let streams = Arc::new(streams);
    let members = Arc::new(MemberChanges::new(context.clone(), table.clone(), room.clone()));
    let outside = Arc::new(Outside::new(context.clone()));
    let confirmer = Arc::new(Confirmer::new(context.clone()));
    let scrub = Arc::new(scrub::Progress::default());
    let service = PeerService {
        context: context.clone(),
        table: table.clone(),
        streams: streams.clone(),
        takeover: takeover.clone(),
        members: members.clone(),
        room: room.clone(),
        outside: outside.clone(),
        peer_requests: options.peer_requests,
        rebuilds: Arc::new(Semaphore::new(1)),
        spawner: tasks.spawner(),
        refused: Arc::default(),
    };
    tasks.spawn(|stop| serve(service, incoming, stop));
    tasks.spawn(|stop| streams.run(stop));
    tasks.spawn(|stop| takeover.clone().elect_after_start(stop));
    tasks.spawn(|stop| takeover.watch_silence(stop));
    tasks.spawn(|stop| confirmer.clone().run(stop));
    tasks.spawn(|stop| leadership::publish::run(context.clone(), confirmer.clone(), stop));
    tasks.spawn(|stop| purge::run(context.clone(), options.log_kept, stop));
    tasks.spawn(|stop| upgrade::run(context.clone(), table.clone(), stop));
    tasks.spawn(|stop| events::run(context.events.clone(), context.blocking.clone(), stop));
    tasks.spawn(|stop| hung_disk::run(context.clone(), table.clone(), room.clone(), stop));
    tasks.spawn(|stop| ahead::run(context.clone(), stop));
    tasks.spawn(|stop| disk_space::run(context.clone(), table.clone(), room.clone(), stop));
    tasks.spawn(|stop| members::finish_joint(members.clone(), stop));
    tasks.spawn(|stop| members::announce_moved(members.clone(), stop));
    tasks.spawn(|stop| members::find_moved(context.clone(), table.clone(), stop));
    tasks.spawn(|stop| scrub::run(context.clone(), scrub.clone(), options.scrub, stop));
    tasks.spawn(|stop| keep(lock, stop));
    if options.bootstrap {
        tasks.spawn(|stop| bootstrap::run(context.clone(), stop));
    }
    let reads = Arc::new(Reads { context: context.clone(), confirmer, loaded: ReadBudget::default(), repacks: Semaphore::new(1) });
    let eraser = Eraser::new(context.clone());
    let backups = Arc::new(Semaphore::new(1));
    Node::new(Parts { context, table, members, room, outside, reads, scrub, eraser, backups, tasks })
}

/// Holds the directory's lock as long as the tasks live.
async fn keep(lock: Lock, stop: Stop) {
    stop.or(std::future::pending()).await;
    drop(lock);
}

fn watch_failures(context: &Arc<NodeContext>) {
    let weak = Arc::downgrade(context);
    context.log.on_failure(Box::new(move |error| {
        if let Some(context) = weak.upgrade() {
            context.failure.fail(format!("the log failed: {error}"));
        }
    }));
    let weak = Arc::downgrade(context);
    context.state.on_failure(Box::new(move |error| {
        if let Some(context) = weak.upgrade() {
            rebuild::state_failed(&context, &error);
        }
    }));
}

async fn serve(service: PeerService, incoming: Incoming, stop: Stop) {
    let limit = PEER_MESSAGE_BYTES_MAX as usize;
    let service = PeerServer::new(service).max_decoding_message_size(limit).max_encoding_message_size(limit);
    let serve = async {
        if let Err(error) = peer_server().add_service(service).serve_with_incoming(incoming).await {
            tracing::error!(%error, "the peer port failed");
        }
    };
    stop.or(serve).await;
}
