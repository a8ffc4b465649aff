//! A whole cluster in this process, for tests: real servers, real sockets on loopback, and by default disks in memory.
//!
//! Each node has its own runtime and thread, so that it can be ended whole: stopped as an operator does, killed as the kernel
//! does, or cut off from power, with what was not synced lost. It comes back on what its disk then holds.
//!
//! ```
//! use quorate::client::Content;
//! use quorate::testing::Cluster;
//! use quorate::testing::disk::Crash;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut cluster = Cluster::start(3).await?;
//! let client = cluster.client();
//! client.save("greeting", Content::Value("hello".into()), Default::default()).await?;
//!
//! let leader = cluster.leader().await?;
//! cluster.power_loss(leader, Crash::Lost, 0).await?;
//! cluster.restart(leader).await?;
//! let session = client.load("greeting").await?.expect("what was acknowledged stays");
//! assert_eq!(session.content, Content::Value("hello".into()));
//! cluster.converged().await?;
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().expect("a runtime").block_on(example()).expect("the example holds");
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::disk::{Crash, SimDisk};
use super::proxies::Proxies;
use crate::client::{Client, ClusterStatus, Member, NodeStatus, Revision, Role, StatusOptions};
use crate::env::{Clock, Env, SystemClock};
use crate::limits::{NODES_MAX, PEER_MESSAGE_BYTES_MAX};
use crate::server::config::{Config, MemberConfig};
use crate::server::{Node, Options, Server, Tuning};
use crate::types::NodeId;

/// How long anything here waits before it is an error.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often an awaited condition is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long each node may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);
/// Segments as small as the largest entry allows: those of a [`SimDisk`] are memory.
const SEGMENT_BYTES: u64 = PEER_MESSAGE_BYTES_MAX + (1 << 20);

/// The failure, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

fn failed(error: impl fmt::Display) -> Error {
    Error(error.to_string())
}

/// Builds a cluster.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    nodes: u64,
    data_dir: Option<PathBuf>,
    heartbeat_interval: Duration,
    election_timeout: (Duration, Duration),
    segment_bytes: u64,
    early_elections: bool,
    log_bytes_kept: Option<u64>,
    log_kept_for: Option<Duration>,
    scrub_interval: Option<Duration>,
    cuttable: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            nodes: 3,
            data_dir: None,
            heartbeat_interval: Duration::from_millis(250),
            election_timeout: (Duration::from_millis(1000), Duration::from_millis(2000)),
            segment_bytes: SEGMENT_BYTES,
            early_elections: true,
            log_bytes_kept: None,
            log_kept_for: None,
            scrub_interval: None,
            cuttable: false,
        }
    }
}

impl Builder {
    /// How many nodes, with ids from 1; 3.
    pub fn nodes(mut self, nodes: u64) -> Self {
        self.nodes = nodes;
        self
    }

    /// Keeps the data in a real directory, node N in `N` below it. It stays when the cluster is dropped. By default each node has a
    /// [`SimDisk`].
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Time between two heartbeats, 250 ms, and how long a follower waits for one, 1 s to 2 s, as by default.
    pub fn timing(mut self, heartbeat_interval: Duration, election_timeout_min: Duration, election_timeout_max: Duration) -> Self {
        self.heartbeat_interval = heartbeat_interval;
        self.election_timeout = (election_timeout_min, election_timeout_max);
        self
    }

    /// Size of a log segment, in bytes, 4 KiB to 1 GiB; 21 MiB. A write must fit in one.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Whether a leader that is gone is replaced at once, as in production; else only when an election timeout is over. Yes.
    pub fn early_elections(mut self, early: bool) -> Self {
        self.early_elections = early;
        self
    }

    /// Bytes of log that a node keeps for followers that lag; 256 MiB. With few, the log is soon purged and such a follower needs a
    /// snapshot.
    pub fn log_bytes_kept(mut self, bytes: u64) -> Self {
        self.log_bytes_kept = Some(bytes);
        self
    }

    /// No entry stays in the log for longer; 7 days.
    pub fn log_kept_for(mut self, age: Duration) -> Self {
        self.log_kept_for = Some(age);
        self
    }

    /// Everything on a node's disk is read so often, from its start on; once a day, and not in the first minutes.
    pub fn scrub_interval(mut self, interval: Duration) -> Self {
        self.scrub_interval = Some(interval);
        self
    }

    /// The nodes reach each other through proxies, so that [`Cluster::cut_off`] works.
    pub fn cuttable(mut self) -> Self {
        self.cuttable = true;
        self
    }

    /// The cluster, of which no node is started yet: [`Cluster::restart`] does. Errors: no port is free, or the values contradict
    /// each other.
    pub fn build(self) -> Result<Cluster, Error> {
        let mut ports = BTreeMap::new();
        let mut members = String::new();
        for id in 1..=self.nodes {
            let reserved = [reserve()?, reserve()?, reserve()?];
            let [client, peer, admin] = reserved.each_ref().map(|(address, _)| address);
            members += &format!("[[node]]\nid = {id}\nclient = \"{client}\"\npeer = \"{peer}\"\nadmin = \"{admin}\"\n");
            ports.insert(NodeId(id), reserved.map(|(_, held)| held));
        }
        let (beat, (min, max)) = (self.heartbeat_interval.as_millis(), self.election_timeout);
        let raft = format!(
            "[raft]\nheartbeat_interval = \"{beat}ms\"\nelection_timeout_min = \"{}ms\"\nelection_timeout_max = \"{}ms\"\n",
            min.as_millis(),
            max.as_millis()
        );
        let mut config = Config::parse(&format!("name = \"test\"\n{members}{raft}")).map_err(failed)?;
        if let Some(bytes) = self.log_bytes_kept {
            // Below what an operator may choose, so after the check.
            config.storage.log_kept.0 = bytes;
        }
        if let Some(age) = self.log_kept_for {
            config.storage.log_kept_for = age;
        }
        let is_real = self.data_dir.is_some();
        config.data_dir = self.data_dir.unwrap_or_else(|| PathBuf::from("/"));
        let disk = || if is_real { None } else { Some(SimDisk::new()) };
        let disks = config.members.iter().map(|member| (member.id, disk())).collect();
        let mut tuning = Tuning { early_elections: self.early_elections, ..Tuning::of(&config).with_segments(self.segment_bytes) };
        if let Some(interval) = self.scrub_interval {
            tuning.scrub.interval = interval;
            tuning.scrub.delay = interval;
        }
        let proxies = self.cuttable.then(Proxies::default);
        Ok(Cluster { config, tuning, ports, disks, running: BTreeMap::new(), ahead_ms: Arc::default(), proxies })
    }

    /// The cluster, with all nodes started and a leader elected. Errors: as [`Builder::build`], a node does not start, or none leads
    /// in time. Dropping the future kills what was started.
    pub async fn start(self) -> Result<Cluster, Error> {
        let mut cluster = self.build()?;
        for node in cluster.nodes() {
            cluster.restart(node).await?;
        }
        cluster.leader().await?;
        Ok(cluster)
    }
}

/// A free port, held as long as the socket lives, whether its node runs or not: no other socket gets it, also none that calls out. The
/// node's listener, which may share the address as this one may, can be bound beside it; while there is none, calls are refused.
fn reserve() -> Result<(String, TcpSocket), Error> {
    let socket = TcpSocket::new_v4().map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(([127, 0, 0, 1], 0).into()).map_err(failed)?;
    Ok((socket.local_addr().map_err(failed)?.to_string(), socket))
}

/// A node that was started and not ended. Dropping it kills it, without waiting.
struct Running {
    runtime: Owned,
    node: Node,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<(), String>>,
}

impl Running {
    /// Drops all its tasks, whatever they were doing, and waits for its threads. `disk` is the one it leaves, if that is simulated: no
    /// sync of it returns any more.
    async fn end(self, disk: Option<SimDisk>) -> Result<(), Error> {
        let Self { runtime, node, stop, ended } = self;
        let off = disk.map(Off);
        let ending = tokio::task::spawn_blocking(move || runtime.end());
        // Its threads wait for their syncs, and must get an answer to end; but a server that hears of a failed disk would hand its
        // leadership over, which the dead don't do. So it goes first.
        let _ = tokio::time::timeout(STATUS_TIMEOUT, ended).await;
        drop(off);
        ending.await.map_err(failed)?;
        drop(stop);
        // Its last owner waits for the threads below it.
        tokio::task::spawn_blocking(move || drop(node)).await.map_err(failed)
    }
}

/// The disk of a node that is dead; with this its calls fail, held ones too.
struct Off(SimDisk);

impl Drop for Off {
    fn drop(&mut self) {
        self.0.halt_after(0);
    }
}

/// A cluster. Dropping it kills all its nodes. See the module.
pub struct Cluster {
    config: Config,
    tuning: Tuning,
    /// Held, see [`reserve`].
    ports: BTreeMap<NodeId, [TcpSocket; 3]>,
    /// `None`: the real one.
    disks: BTreeMap<NodeId, Option<SimDisk>>,
    running: BTreeMap<NodeId, Running>,
    ahead_ms: Arc<AtomicU64>,
    /// The proxies between the nodes, if they can be cut off.
    proxies: Option<Proxies>,
}

/// The system's clock, with a wall that may be ahead.
struct Ahead {
    clock: SystemClock,
    ahead_ms: Arc<AtomicU64>,
}

impl Clock for Ahead {
    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn wall_ms(&self) -> u64 {
        self.clock.wall_ms() + self.ahead_ms.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running: Vec<_> = self.running.keys().collect();
        f.debug_struct("Cluster").field("members", &self.config.members.len()).field("running", &running).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Puts the wall clocks of all nodes ahead by so much, or right again; for our tests.
    #[doc(hidden)]
    pub fn set_clocks_ahead(&self, by: Duration) {
        self.ahead_ms.store(by.as_millis() as u64, Ordering::Relaxed);
    }

    /// Starts a cluster of so many nodes, with ids from 1, and waits until one leads. See [`Builder::start`].
    pub async fn start(nodes: u64) -> Result<Self, Error> {
        Self::builder().nodes(nodes).start().await
    }

    /// Starts building a cluster.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All members, running or not.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.config.members.iter().map(|member| member.id).collect()
    }

    /// The client address of every member.
    pub fn endpoints(&self) -> Vec<String> {
        self.config.members.iter().map(|member| member.client.clone()).collect()
    }

    /// A new client, of all members.
    pub fn client(&self) -> Client {
        Client::builder().endpoints(self.endpoints()).build().expect("the addresses were checked with the configuration")
    }

    /// Prepares a further node, that does not run and is no member yet: [`Cluster::restart`] starts it, and
    /// [`Client::change_members`] makes it one. Errors: no port is free, or there are as many as there may be.
    pub fn prepare_node(&mut self) -> Result<NodeId, Error> {
        let id = NodeId(self.config.members.iter().map(|member| member.id.0).max().unwrap_or(0) + 1);
        let reserved = [reserve()?, reserve()?, reserve()?];
        let [client, peer, admin] = reserved.each_ref().map(|(address, _)| address.clone());
        let disk = self.disks.values().any(Option::is_some).then(SimDisk::new);
        if self.config.members.len() >= NODES_MAX {
            return Err(Error(format!("there are as many nodes as there may be nodes={NODES_MAX}")));
        }
        self.config.members.push(MemberConfig::new(id, client, peer, admin));
        self.ports.insert(id, reserved.map(|(_, held)| held));
        self.disks.insert(id, disk);
        Ok(id)
    }

    /// Gives a node that does not run other addresses: it has them from its next start on. Errors: it runs, or no port is free.
    pub fn move_node(&mut self, node: impl Into<NodeId>) -> Result<(), Error> {
        let id = node.into();
        if self.running.contains_key(&id) {
            return Err(Error(format!("the node runs node={id}")));
        }
        let reserved = [reserve()?, reserve()?, reserve()?];
        let [client, peer, admin] = reserved.each_ref().map(|(address, _)| address.clone());
        let member = self.config.members.iter_mut().find(|member| member.id == id);
        *member.ok_or_else(|| Error(format!("there is no such node node={id}")))? = MemberConfig::new(id, client, peer, admin);
        self.ports.insert(id, reserved.map(|(_, held)| held));
        Ok(())
    }

    /// Gives two nodes that do not run each other's addresses, from their next start on. Errors: one runs, or is none.
    pub fn swap_nodes(&mut self, one: impl Into<NodeId>, other: impl Into<NodeId>) -> Result<(), Error> {
        let ids = [one.into(), other.into()];
        if let Some(id) = ids.iter().find(|id| self.running.contains_key(id)) {
            return Err(Error(format!("the node runs node={id}")));
        }
        let [a, b] = ids.map(|id| self.config.members.iter().position(|member| member.id == id));
        let (Some(a), Some(b)) = (a, b) else { return Err(Error("there is no such node".to_owned())) };
        self.config.members.swap(a, b);
        (self.config.members[a].id, self.config.members[b].id) = (ids[0], ids[1]);
        let [one, other] = ids.map(|id| self.ports.remove(&id));
        self.ports.extend(one.map(|ports| (ids[1], ports)).into_iter().chain(other.map(|ports| (ids[0], ports))));
        Ok(())
    }

    /// A node, as a change of the members names it. Errors: there is none.
    pub fn member(&self, node: impl Into<NodeId>) -> Result<Member, Error> {
        Ok(self.config.member(node.into()).map_err(failed)?.member())
    }

    /// Takes the disk out of a node that does not run and puts an empty one in. Errors: it runs, or its disk is real.
    pub fn wipe(&mut self, node: impl Into<NodeId>) -> Result<(), Error> {
        let id = node.into();
        if self.running.contains_key(&id) || self.disk(id).is_none() {
            return Err(Error(format!("only the simulated disk of a node that does not run is taken out node={id}")));
        }
        self.disks.insert(id, Some(SimDisk::new()));
        Ok(())
    }

    /// Waits until a node that runs has ended by itself; gives why. Errors: it does not, in time. Cancel safe.
    pub async fn ended(&mut self, node: impl Into<NodeId>) -> Result<String, Error> {
        let id = node.into();
        let running = self.running.get_mut(&id).ok_or_else(|| Error(format!("the node does not run node={id}")))?;
        let ended = tokio::time::timeout(PATIENCE, &mut running.ended).await;
        let ended = ended.map_err(|_| Error(format!("the node did not end in time node={id}")))?.map_err(failed)?;
        let running = self.take(id)?;
        let (_, nothing) = oneshot::channel();
        Running { ended: nothing, ..running }.end(None).await?;
        ended.err().ok_or_else(|| Error(format!("the node was stopped node={id}")))
    }

    /// The disk of a node as it is now; `None`: it is real, or there is no such node. A kill and a power loss put another in its place.
    pub fn disk(&self, node: impl Into<NodeId>) -> Option<SimDisk> {
        self.disks.get(&node.into()).cloned().flatten()
    }

    /// The consensus of a running node, for our tests. It keeps the node's files open: drop it before the node is ended.
    #[doc(hidden)]
    pub fn node(&self, node: impl Into<NodeId>) -> Option<&Node> {
        self.running.get(&node.into()).map(|running| &running.node)
    }

    /// The status of all members, gathered by the first running one that answers. Errors: none does. Cancel safe.
    pub async fn status(&self) -> Result<ClusterStatus, Error> {
        self.ask(None).await
    }

    /// The status of one node. Errors: as [`Cluster::status`], or the node does not answer. Cancel safe.
    pub async fn status_of(&self, node: impl Into<NodeId>) -> Result<NodeStatus, Error> {
        let id = node.into();
        let found = self.status().await?.nodes.into_iter().find(|node| node.id == id && node.reachable);
        found.ok_or_else(|| Error(format!("the node does not answer node={id}")))
    }

    async fn ask(&self, digest_at: Option<Revision>) -> Result<ClusterStatus, Error> {
        let running = self.config.members.iter().filter(|member| self.running.contains_key(&member.id));
        let client = Client::builder().endpoints(running.map(|member| member.client.clone())).build().map_err(failed)?;
        client.status(StatusOptions { digest_at, timeout: STATUS_TIMEOUT }).await.map_err(failed)
    }

    /// The leader, once there is one. Errors: there is none in time. Cancel safe.
    pub async fn leader(&self) -> Result<NodeId, Error> {
        let leads = |node: &&NodeStatus| node.reachable && node.role == Role::Leader;
        // One that was deposed and does not know yet has a smaller term.
        let leader = |status: &ClusterStatus| status.nodes.iter().filter(leads).max_by_key(|node| node.term).map(|node| node.id);
        let status = self.wait_for("a leader", |status| leader(status).is_some()).await?;
        leader(&status).ok_or_else(|| Error("no leader".to_owned()))
    }

    /// Waits until the cluster is as `wanted`; gives that status. Errors: not in time; says what was waited for and what was seen
    /// last. Cancel safe.
    pub async fn wait_for(&self, what: &str, mut wanted: impl FnMut(&ClusterStatus) -> bool) -> Result<ClusterStatus, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            match status {
                Ok(status) if wanted(&status) => return Ok(status),
                seen if Instant::now() >= deadline => return Err(Error(format!("waited in vain for {what} seen={seen:?}"))),
                _ => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// Waits until all members have applied the same entry and are in the same state there; gives its index. Clients must be quiet.
    ///
    /// Errors: two replicas differ, or a member does not come up in time. Cancel safe.
    pub async fn converged(&self) -> Result<u64, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await?;
            let index = status.nodes.iter().filter_map(|node| node.applied).max().unwrap_or(0);
            let status = self.ask(Some(Revision(index))).await?;
            let digests: Vec<_> = status.nodes.iter().map(|node| (node.id, node.digest_index, node.digest)).collect();
            if digests.iter().all(|(_, at, digest)| *at == Some(index) && digest.is_some()) {
                let agree = digests.windows(2).all(|pair| pair[0].2 == pair[1].2);
                return if agree { Ok(index) } else { Err(Error(format!("replicas differ index={index} digests={digests:?}"))) };
            }
            if Instant::now() >= deadline {
                return Err(Error(format!("the members did not come to one index index={index} seen={status:?}")));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Starts a node that does not run, for the first time or again, on what its disk holds.
    ///
    /// Errors: it runs, there is none, or it does not start. Dropping the future kills it.
    pub async fn restart(&mut self, node: impl Into<NodeId>) -> Result<(), Error> {
        let id = node.into();
        self.config.member(id).map_err(failed)?;
        if self.running.contains_key(&id) {
            return Err(Error(format!("the node runs already node={id}")));
        }
        let mut env = Env::real();
        env.clock = Arc::new(Ahead { clock: SystemClock::new(), ahead_ms: self.ahead_ms.clone() });
        if let Some(disk) = self.disk(id) {
            env.disk = Arc::new(disk);
        }
        let data_dir = self.config.node_dir(id);
        let options = Options { config: self.config.clone(), node: id, data_dir, bootstrap: true, env };
        let others = self.config.members.iter().filter(|member| member.id != id);
        let via = match &self.proxies {
            Some(proxies) => {
                let others = others.map(|member| (member.id, member.peer.clone())).collect();
                proxies.before(id, others).await.map_err(failed)?
            }
            None => BTreeMap::new(),
        };
        let running = launch(options, self.tuning.clone(), via).await?;
        self.running.insert(id, running);
        Ok(())
    }

    /// Cuts a node off from its peers, and not from its clients: what it and they send each other waits until [`Cluster::reconnect`].
    ///
    /// Errors: the cluster is not [`Builder::cuttable`].
    pub fn cut_off(&self, node: impl Into<NodeId>) -> Result<(), Error> {
        self.set_cut_off(node.into(), true)
    }

    /// Ends what [`Cluster::cut_off`] began. Errors: as [`Cluster::cut_off`].
    pub fn reconnect(&self, node: impl Into<NodeId>) -> Result<(), Error> {
        self.set_cut_off(node.into(), false)
    }

    fn set_cut_off(&self, node: NodeId, is_cut_off: bool) -> Result<(), Error> {
        let proxies = self.proxies.as_ref().ok_or_else(|| Error("the cluster is not cuttable".to_owned()))?;
        proxies.set(node, is_cut_off);
        Ok(())
    }

    /// Stops a node as an operator does: it hands leadership over, flushes and ends.
    ///
    /// Errors: it does not run, or did not end in time or in order. Dropping the future kills it.
    pub async fn stop(&mut self, node: impl Into<NodeId>) -> Result<(), Error> {
        let Running { runtime, node, stop, mut ended } = self.take(node.into())?;
        let _ = stop.send(());
        let result = tokio::time::timeout(PATIENCE, &mut ended).await;
        let ((stop, _), (_, ended)) = (oneshot::channel(), oneshot::channel());
        Running { runtime, node, stop, ended }.end(None).await?;
        match result {
            Ok(Ok(result)) => result.map_err(Error),
            Ok(Err(_)) => Err(Error("the node ended without a word".to_owned())),
            Err(_) => Err(Error("the node did not stop in time".to_owned())),
        }
    }

    /// Kills a node as `kill -9` does: everything it wrote is there, synced or not.
    ///
    /// Errors: it does not run. Dropping the future changes nothing: it is dead already.
    pub async fn kill(&mut self, node: impl Into<NodeId>) -> Result<(), Error> {
        self.end(node.into(), SimDisk::kill).await
    }

    /// Cuts a node's power: of what it did not sync only that is left which `crash` and `seed` leave.
    ///
    /// Errors: it does not run, or its disk is real. Dropping the future changes nothing: it is dead already.
    pub async fn power_loss(&mut self, node: impl Into<NodeId>, crash: Crash, seed: u64) -> Result<(), Error> {
        let id = node.into();
        if self.disk(id).is_none() {
            return Err(Error(format!("only a simulated disk can lose what was not synced node={id}")));
        }
        self.end(id, |disk| disk.crash(crash, seed)).await
    }

    /// Ends a node whatever it is doing, also half way through a start that failed; what it wrote is there, and its disk works again.
    #[doc(hidden)]
    pub async fn kill_in_any_state(&mut self, node: impl Into<NodeId>) {
        let id = node.into();
        if self.running.contains_key(&id) {
            let _ = self.kill(id).await;
        } else if let Some(disk) = self.disk(id) {
            disk.hold_syncs();
            self.disks.insert(id, Some(disk.kill()));
            drop(Off(disk));
        }
    }

    /// Ends a node, with `after` making of its disk the one it will come back on.
    async fn end(&mut self, id: NodeId, after: impl FnOnce(&SimDisk) -> SimDisk) -> Result<(), Error> {
        let running = self.take(id)?;
        let disk = self.disk(id);
        if let Some(disk) = &disk {
            // First held, then looked at: nothing may become durable, and be acknowledged, behind the image.
            disk.hold_syncs();
            self.disks.insert(id, Some(after(disk)));
        }
        running.end(disk).await
    }

    fn take(&mut self, id: NodeId) -> Result<Running, Error> {
        self.running.remove(&id).ok_or_else(|| Error(format!("the node does not run node={id}")))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (id, running) in std::mem::take(&mut self.running) {
            if let Some(disk) = self.disk(id) {
                // Nothing of it may wait for a sync that is held.
                disk.halt_after(0);
            }
            drop(running);
        }
    }
}

/// Starts a server on its own runtime.
async fn launch(options: Options, tuning: Tuning, via: BTreeMap<String, String>) -> Result<Running, Error> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).thread_name(format!("node-{}", options.node)).enable_all().build().map_err(failed)?;
    let (stop, stopped) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let (started, ready) = oneshot::channel();
    let task = async move {
        let server = match Server::start_for_test(options, tuning, via).await {
            Ok(server) => server,
            Err(error) => return drop(started.send(Err(failed(error)))),
        };
        if started.send(Ok(server.node().clone())).is_err() {
            return;
        }
        let result = server.run(async { drop(stopped.await) }).await;
        let _ = end.send(result.map_err(|error| error.to_string()));
    };
    runtime.spawn(task);
    let runtime = Owned(Some(runtime));
    let node = ready.await.map_err(failed)??;
    Ok(Running { runtime, node, stop, ended })
}

/// A runtime that may be dropped anywhere: an async thread must not wait for another runtime.
struct Owned(Option<Runtime>);

impl Owned {
    /// Waits for its threads. Blocks.
    fn end(mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
