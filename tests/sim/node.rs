//! One simulated host: a disk that outlives its processes, and a production node that runs on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::env::{Clock, Env};
use quorate::limits::intervals;
use quorate::raft::{Applied, Leadership, LogKept, Node, Observer, Read, ScrubOptions};
use quorate::server::config::Config;
use quorate::server::{Options, Server, Tuning};
use quorate::storage::{log, state};
use quorate::testing::disk::SimDisk;
use quorate::testing::inline::SeededRandom;
use quorate::testing::tasks::TaskWorkers;
use quorate::types::{Consistency, List, NodeStatus, Order, Role};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::audit::Audit;
use super::coverage::sometimes;
use super::invariants;
use super::lying::LyingDisk;
use super::net::SimNet;
use super::params::Params;
use super::truth::Seen;

/// The wall clock of a host without skew, at the start of the simulation.
pub const EPOCH_MS: u64 = 1_800_000_000_000;
/// Work in the background, e.g. a sync, begins up to so late.
const DISK_DELAY_MAX: Duration = Duration::from_millis(4);
/// How often a node is asked what it knows of itself.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Every so many looks, what it shows without a quorum is read.
const STALE_EVERY: u64 = 10;

/// Virtual time: tokio's of this host, counted from the start of the simulation.
pub struct HostClock {
    began: Instant,
    sim_began: Duration,
    skew_ms: Arc<AtomicU64>,
}

impl HostClock {
    /// Of the host this runs on. Its wall clock is ahead by `skew_ms`, whatever that is now.
    pub fn new(skew_ms: Arc<AtomicU64>) -> Self {
        let sim_began = turmoil::sim_elapsed().expect("a clock belongs to a host");
        Self { began: Instant::now(), sim_began, skew_ms }
    }
}

impl Default for HostClock {
    /// A right one.
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Clock for HostClock {
    fn now(&self) -> Duration {
        self.sim_began + self.began.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        EPOCH_MS + self.skew_ms.load(Ordering::Relaxed) + self.now().as_millis() as u64
    }
}

/// What the driver and a host share.
#[derive(Default)]
pub struct Slot {
    pub disk: SimDisk,
    /// Processes so far.
    pub starts: u64,
    /// Why the process ended, if it did by itself.
    pub ended: Option<String>,
    /// Whether it may end by itself: its disk was made to fail.
    pub may_fail: bool,
    pub leads: bool,
    /// The voters of each configuration in force, as it knows them.
    pub voters: Arc<Vec<BTreeSet<u64>>>,
    /// Who leads, as its health says.
    pub believes: Option<u64>,
    /// The voters it knows; none while they change.
    pub settled: Vec<u64>,
    /// What it showed without a quorum.
    pub shown: Vec<Seen>,
    /// Its disk was taken out, and an empty one put in.
    pub wiped: bool,
    /// Bits of its state were flipped, and it has not read everything as whole since.
    pub corrupt: bool,
    /// That was so once.
    pub was_corrupted: bool,
    /// The background work of its process.
    pub workers: Option<TaskWorkers>,
    /// Asks the process to stop in an orderly way.
    pub stop: Arc<Notify>,
    /// The entry whose digest it said last.
    pub digest_index: u64,
    /// Times its process has read its disk whole.
    pub scrubs: u64,
    /// Snapshots it was seen to have installed.
    pub installs: u64,
    pub applied: u64,
    /// Digests seen on any host, by index.
    pub digests: Arc<Mutex<BTreeMap<u64, u64>>>,
    pub audit: Arc<Mutex<Audit>>,
    pub violations: Vec<String>,
}

impl Slot {
    pub fn new(digests: Arc<Mutex<BTreeMap<u64, u64>>>, audit: Arc<Mutex<Audit>>) -> Self {
        Self { disk: SimDisk::new(), digests, audit, ..Self::default() }
    }

    /// Takes note of who leads, as a node says.
    fn look_at_leader(&mut self, node: &Node, leadership: &Leadership) {
        self.believes = leadership.leader.as_ref().map(|leader| leader.node.0);
        let applied = node.applied_members();
        self.settled.clear();
        if applied.leaving.is_empty() {
            self.settled.extend(applied.members.iter().filter(|member| member.voter).map(|member| member.id.0));
        }
    }

    /// Takes note of what a node says of itself; gives the end of its log.
    fn look(&mut self, id: u64, upgrades: bool, status: &NodeStatus, last_log: Option<u64>) -> Option<u64> {
        if !self.wiped {
            self.violations.extend(invariants::judge(id, self.starts, status));
        }
        self.leads = status.role == Role::Leader;
        self.applied = status.applied.unwrap_or(0);
        if let (Some(index), Some(digest)) = (status.digest_index, status.digest) {
            let seen = *self.digests.lock().expect("no host panics with it").entry(index).or_insert(digest);
            if index != self.digest_index {
                sometimes("digest reported");
            }
            self.digest_index = index;
            if seen != digest {
                self.violations.push(format!("replicas differ index={index} {seen:x} {digest:x}"));
            }
        }
        if status.scrub_passes > self.scrubs {
            sometimes("disk read whole");
        }
        self.scrubs = status.scrub_passes;
        if status.scrub_passes > 0 && !self.wiped {
            self.corrupt = false;
        }
        if last_log.is_some() && status.purged > last_log {
            self.installs += 1;
        }
        if status.cluster_version > 1 && !upgrades {
            self.violations.push(format!("cluster version {} is in force, which nobody knows", status.cluster_version));
        } else if status.cluster_version > 1 {
            sometimes("node at the next cluster version");
        }
        status.last_log
    }
}

/// What stays the same for all processes of a host.
#[derive(Clone)]
pub struct Host {
    pub id: u64,
    pub params: Arc<Params>,
    pub dir: PathBuf,
    pub skew_ms: Arc<AtomicU64>,
    /// Whether its disk only says that it syncs the log.
    pub lies: bool,
    pub slot: Arc<Mutex<Slot>>,
}

impl Host {
    /// The host's name in the network.
    pub fn name(id: u64) -> String {
        format!("n{id}")
    }

    /// Where its state lies on its disk.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join(self.id.to_string()).join("state")
    }

    /// From now on its work in the background begins up to so late; zero: as at its start.
    pub fn slow_disk(&self, delay_max: Duration) {
        if let Some(workers) = &self.slot.lock().expect("no host panics with it").workers {
            workers.set_delay_max(delay_max.max(DISK_DELAY_MAX));
        }
    }

    /// Moves its wall clock on.
    pub fn jump_ms(&self, by: u64) {
        self.skew_ms.fetch_add(by, Ordering::Relaxed);
    }

    /// Runs one process until it ends. Dropping the future is a crash.
    pub async fn run(self) {
        let (disk, starts, stop) = {
            let mut slot = self.slot.lock().expect("no host panics with it");
            slot.starts += 1;
            slot.ended = None;
            (slot.leads, slot.believes) = (false, None);
            slot.stop = Arc::new(Notify::new());
            (slot.disk.clone(), slot.starts, slot.stop.clone())
        };
        let seed = self.params.seed.wrapping_mul(31).wrapping_add(self.id * 1_000_003 + starts);
        let workers = TaskWorkers::new(seed ^ 1, DISK_DELAY_MAX);
        self.slot.lock().expect("no host panics with it").workers = Some(workers.clone());
        let env = Env {
            clock: Arc::new(HostClock::new(self.skew_ms.clone())),
            random: Arc::new(SeededRandom::new(seed)),
            disk: if self.lies { Arc::new(LyingDisk(disk)) } else { Arc::new(disk) },
            workers: Arc::new(workers),
        };
        let options = Options {
            config: self.config(&SeededRandom::new(seed ^ 2)),
            node: self.id.into(),
            data_dir: self.dir.join(self.id.to_string()),
            bootstrap: true,
            env,
        };
        let ended = match Server::start_tuned(options, Arc::new(SimNet), self.tuning()).await {
            Err(error) => format!("it did not start: {error}"),
            Ok(server) => self.serve(server, &stop).await,
        };
        self.slot.lock().expect("no host panics with it").ended = Some(ended);
    }

    async fn serve(&self, server: Server, stop: &Notify) -> String {
        let node = server.node().clone();
        let (id, upgrades, slot) = (self.id, self.params.upgrades.is_some(), self.slot.clone());
        let clock = HostClock::new(Arc::default());
        let watch = async move {
            let mut last_log = None;
            for looks in 1_u64.. {
                let voters = node.voter_sets().iter().map(|voters| voters.iter().map(|id| id.0).collect()).collect();
                {
                    let mut slot = slot.lock().expect("no host panics with it");
                    last_log = slot.look(id, upgrades, &node.status(), last_log);
                    if !node.differing().is_empty() {
                        slot.violations.push("a node says that replicas differ".to_owned());
                    }
                    slot.voters = Arc::new(voters);
                    let leadership = node.leadership().borrow().clone();
                    slot.look_at_leader(&node, &leadership);
                }
                if looks % STALE_EVERY == 0 {
                    read_stale(&node, &clock, &slot);
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        tokio::select! {
            result = server.run(stop.notified()) => match result {
                Ok(()) => "stopped".to_owned(),
                Err(error) => format!("it ended by itself: {error}"),
            },
            () = watch => "nobody looks any more".to_owned(),
        }
    }

    /// openraft draws election timeouts from a range with its own entropy: a range of one value leaves it nothing to draw.
    fn config(&self, random: &SeededRandom) -> Config {
        let election = 1000 + random.below(1000);
        let mut text = format!(
            "name = \"sim\"\n[raft]\nheartbeat_interval = \"250ms\"\nelection_timeout_min = \"{election}ms\"\n\
             election_timeout_max = \"{}ms\"\n",
            election + 1
        );
        // A node that is to join knows of those that are there, and of itself.
        let own = (self.id > self.params.nodes).then_some(self.id);
        for id in (1..=self.params.nodes).chain(own) {
            let name = Self::name(id);
            text += &format!("[[node]]\nid = {id}\nclient = \"{name}:7460\"\npeer = \"{name}:7461\"\nadmin = \"{name}:7462\"\n");
        }
        Config::parse(&text).expect("a valid configuration")
    }

    /// Small files, so that a simulation sees segments change, logs purged and snapshots sent.
    fn tuning(&self) -> Tuning {
        let log = log::Options {
            segment_bytes: self.params.segment_bytes,
            tail_bytes: self.params.segment_bytes,
            spare_segments: 1,
            ..log::Options::default()
        };
        // Several flushes and portions of one within a simulation's time.
        let state = state::Options {
            cache_bytes: 256 << 10,
            unflushed_bytes_soft: 64 << 10,
            flush_after: Duration::from_secs(2),
            reserve_bytes: 64 << 10,
            ..Default::default()
        };
        let (id, audit) = (self.id, self.slot.lock().expect("no host panics with it").audit.clone());
        let observe = move |applied: Applied<'_>| audit.lock().expect("no host panics with it").take(id, &applied);
        let observer: Observer = Arc::new(observe);
        // Often enough that every run reads everything several times, beside whatever else goes on.
        let bytes_per_second = if self.params.is_large() { 64 << 20 } else { 1 << 20 };
        let scrub = match self.params.short_intervals {
            true => ScrubOptions { interval: intervals().scrub_at_least, delay: intervals().scrub_delay, bytes_per_second },
            false => ScrubOptions { interval: Duration::from_secs(5), delay: Duration::from_secs(3), bytes_per_second },
        };
        let log_kept = LogKept { bytes: self.params.log_bytes_kept, age: Duration::MAX };
        Tuning { log_kept, early_elections: true, log, state, scrub, observer: Some(observer) }
    }
}

/// Notes what a node shows without a quorum, and how old it says that is.
fn read_stale(node: &Node, clock: &HostClock, slot: &Arc<Mutex<Slot>>) {
    let (at, slot) = (clock.now(), slot.clone());
    let list = List { prefix: String::new(), after: None, limit: 1, consistency: Consistency::Stale, order: Order::Ids };
    let reply = move |answer: Result<(quorate::types::ListPage, _), _>| {
        let Ok((page, _charge)) = answer else { return };
        let Some(age_ms) = page.age_ms else { return };
        let seen = Seen { at, age: Duration::from_millis(age_ms), revision: page.revision.0 };
        slot.lock().expect("no host panics with it").shown.push(seen);
    };
    node.read(vec![Read::List(list, Box::new(reply))]);
}
