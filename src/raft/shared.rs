//! What the tasks of one node share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use tokio::sync::watch;

use super::blocking::Blocking;
use super::charge::LoadedRoom;
use super::clocks::Clocks;
use super::confirm::Confirmer;
use super::events::Events;
use super::peers::Peers;
use super::quorum::Quorum;
use super::room::Room;
use super::scrub;
use super::state_machine::{Core, StateMachine};
use super::types::{PeerNode, StoredMembership, Types, Vote};
use super::{Leadership, Member, Upper};
use crate::env::Env;
use crate::mutant::{self, Mutant};
use crate::storage::identity::Identity;
use crate::storage::log::Log;
use crate::storage::state::State;
use crate::types::{ClusterId, LeaderHint, LogId, NodeId, Refusal, RefusalKind};

/// Why a node ends or does not start that is no member any more.
pub const REMOVED: &str = "this node was removed from the cluster: it takes no part any more; to bring the machine back, empty the data directory and \
     add it under a new id";

/// What a node says that belongs to no cluster.
pub const IN_NO_CLUSTER: &str = "this node is in no cluster: it waits to be part of one, or its disk is empty; put the right disk back, or replace the \
                                 node under a new id";

/// One node's parts. Everything in it is cheap to reach from any task.
pub struct Shared {
    pub env: Env,
    pub me: NodeId,
    pub name: String,
    pub configuration_hash: u64,
    /// The members of the configuration file; the replicated membership rules once there is one.
    pub configured: Vec<Member>,
    /// Random per process start.
    pub boot_id: u64,
    pub raft: openraft::Raft<Types, StateMachine>,
    pub machine: StateMachine,
    pub state: Arc<State<Core>>,
    pub log: Log,
    pub identity: Arc<Mutex<Identity>>,
    pub peers: Peers,
    pub clocks: Arc<Clocks>,
    pub confirmer: Confirmer,
    pub blocking: Blocking,
    pub upper: Arc<dyn Upper>,
    /// The last leader's vote this process heard an append of. A vote merely read from disk is no sign of life.
    pub heard: watch::Sender<Option<Vote>>,
    /// What is known of the majority behind the leader.
    pub quorum: Quorum,
    /// The vote of the leader this node has lost its connections to.
    pub lost: watch::Sender<Option<Vote>>,
    /// Whether this node's disk hangs and another leads.
    pub hung: watch::Sender<bool>,
    pub leadership: watch::Sender<Leadership>,
    /// Held while this node changes who belongs to the cluster: one change at a time.
    pub changing: tokio::sync::Mutex<()>,
    /// Whether it stops because it is no member any more.
    pub was_removed: AtomicBool,
    /// The cluster that has this node as a member with another data directory.
    pub estranged: OnceLock<ClusterId>,
    pub failed: watch::Sender<Option<String>>,
    /// Whether this process ends for its state to be rebuilt.
    pub rebuilding: AtomicBool,
    /// Whether an operator has this node erase what is stored no more.
    pub erasing: AtomicBool,
    /// How far the scrubber is.
    pub scrub: scrub::Progress,
    /// One snapshot for a member that is rebuilt at a time.
    pub rebuilds: Arc<tokio::sync::Semaphore>,
    /// Who has room on its disk, and what follows.
    pub room: Arc<Room>,
    /// Whether this node's file system is nearly full.
    pub disk_low: AtomicBool,
    /// Free and total bytes of it, as last looked at.
    pub disk_free: AtomicU64,
    pub disk_total: AtomicU64,
    pub data_dir: PathBuf,
    /// Content that was read and waits for its readers.
    pub loaded: LoadedRoom,
    /// What this node remembers of its past.
    pub events: Arc<Events>,
    /// One backup at a time: each pins a state of its own.
    pub backups: Arc<tokio::sync::Semaphore>,
}

impl Shared {
    /// The current vote.
    pub fn vote(&self) -> Vote {
        self.raft.metrics().borrow_watched().vote
    }

    /// The last log id, as appended.
    pub fn last_log(&self) -> Option<LogId> {
        self.log.position().last
    }

    /// The membership in force (perhaps not committed yet).
    pub fn membership(&self) -> Arc<StoredMembership> {
        self.raft.metrics().borrow_watched().membership_config.clone()
    }

    /// The voters, in order of ids; empty before bootstrap.
    pub fn voters(&self) -> Vec<NodeId> {
        self.membership().voter_ids().collect()
    }

    /// A member by its id.
    pub fn member(&self, id: NodeId) -> Option<PeerNode> {
        self.membership().get_node(&id).cloned()
    }

    /// The leader by its term, if this process knows it to be alive: it is this node, or was heard under the current vote and not lost
    /// since. Whether a majority stands behind it is not asked: for elections and hand-overs only.
    pub fn leader_by_term(&self) -> Option<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state == ServerState::Leader {
            // With a disk that hangs it may not have been able to note that another leads.
            return (!*self.hung.borrow()).then_some(self.me);
        }
        let vote = metrics.vote;
        let heard = *self.heard.borrow() == Some(vote);
        let lost = *self.lost.borrow() == Some(vote);
        (vote.is_committed() && heard && !lost).then(|| vote.leader_id().node_id)
    }

    /// The leader to everyone who asks: the one by its term, if it has a majority behind it as far as this node can know.
    pub fn live_leader(&self) -> Option<NodeId> {
        self.leader_for_now().map(|(leader, _)| leader)
    }

    /// The same, and for how long that holds if nothing more is heard.
    pub fn leader_for_now(&self) -> Option<(NodeId, Duration)> {
        let leader = self.leader_by_term()?;
        let left = if leader == self.me {
            let left = self.quorum.patience().saturating_sub(self.quorum_age()?);
            (!left.is_zero()).then_some(left)
        } else {
            self.quorum.believed_for(self.vote().leader_id)
        };
        left.map(|left| (leader, left))
    }

    /// How long ago a majority of the voters last confirmed that this node leads; `None`: it does not, by its term.
    pub fn quorum_age(&self) -> Option<Duration> {
        let (vote, acknowledged) = self.led()?;
        // The election was a majority's word too.
        let elected = self.quorum.led_for(vote.leader_id);
        Some(acknowledged.map_or(elected, |age| age.min(elected)))
    }

    /// This node's vote while it leads, and how long ago what a majority has answered since was sent: an append, or a round of
    /// [`super::confirm`], which waits for nobody's disk.
    fn led(&self) -> Option<(Vote, Option<Duration>)> {
        let (vote, appended) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.state != ServerState::Leader {
                return None;
            }
            let configs = metrics.membership_config.membership().get_joint_config();
            let is_all = configs.iter().all(|config| config.iter().eq([&self.me]));
            if is_all || mutant::is(Mutant::LeaderWithoutQuorum) {
                return Some((metrics.vote, Some(Duration::ZERO)));
            }
            (metrics.vote, metrics.last_quorum_acked.map(|at| at.into_inner().elapsed()))
        };
        let age = appended.into_iter().chain(self.quorum.round_age(vote.leader_id)).min();
        Some((vote, age))
    }

    /// While this node leads: how long ago a majority last confirmed it since it had everything that earlier leaders acknowledged, and
    /// the last entry it has applied; everything acknowledged by then lies at or below that.
    pub fn complete(&self) -> Option<(Duration, u64)> {
        let (vote, acknowledged) = self.led()?;
        let applied = self.applied()?;
        let has_begun = applied.term == vote.leader_id.term && applied.node == vote.leader_id.node_id;
        Some((acknowledged?, applied.index)).filter(|_| has_begun)
    }

    /// Notes that a leader was heard just now.
    pub fn note_heard(&self) {
        self.quorum.heard();
    }

    /// How old this node's state may be, in milliseconds: everything acknowledged before is in it. `None`: that is unknown.
    pub fn stale_ms(&self) -> Option<u64> {
        if let Some((age, _)) = self.complete() {
            self.quorum.confirmed(age);
        }
        let age = self.quorum.age(self.applied().map_or(0, |applied| applied.index))?;
        // Rounded up: never reported younger than it is.
        Some(
            u64::try_from(age.as_millis())
                .unwrap_or(u64::MAX)
                .saturating_add(u64::from(!age.subsec_nanos().is_multiple_of(1_000_000))),
        )
    }

    /// Where a node's clients go, as a hint.
    pub fn hint(&self, node: NodeId) -> Option<LeaderHint> {
        Some(LeaderHint { node, address: self.member(node)?.client_address })
    }

    /// The refusal of a call this node cannot serve because it does not lead. Nothing was appended.
    pub fn not_leader(&self) -> Refusal {
        match self.live_leader().filter(|leader| *leader != self.me).and_then(|leader| self.hint(leader)) {
            Some(hint) => {
                Refusal::not_applied(RefusalKind::NotLeader(hint.clone()), format!("this node does not lead leader={}", hint.node))
            }
            None => Refusal::not_applied(RefusalKind::NoLeader, "no leader is known"),
        }
    }

    /// Why this node may not answer for a cluster, if it is in none; and whether a cluster has it as a member all the same.
    pub fn outside(&self) -> Option<(String, bool)> {
        if self.peers.cluster_id().is_some() && self.membership().voter_ids().next().is_some() {
            return None;
        }
        Some(match self.estranged.get().filter(|_| self.peers.cluster_id().is_none()) {
            Some(cluster) => (estranged(*cluster), true),
            None => (IN_NO_CLUSTER.to_owned(), false),
        })
    }

    /// A cluster has this node as a member with another data directory, and this one holds nothing. Said once.
    pub fn lost_its_disk(&self, cluster: ClusterId) {
        if self.estranged.set(cluster).is_ok() {
            let what = estranged(cluster);
            tracing::error!("{what}");
            self.events.note("no_cluster", what);
        }
    }

    /// The last log id applied.
    pub fn applied(&self) -> Option<LogId> {
        self.state.applied()
    }

    /// Whether log and vote are empty: nothing was ever promised to anyone.
    pub fn is_pristine(&self) -> bool {
        let position = self.log.position();
        let ever = self.identity.lock().unwrap_or_else(PoisonError::into_inner).was_initialized();
        position.vote.is_none() && position.last.is_none() && !ever
    }

    /// Whether that node was a member once and is none any more, by what this node has applied. Ids are never used twice, so one at or
    /// below the largest that was ever used is known for good.
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.state.view(|core, _, _| core.is_removed(id))
    }

    /// This node is no member any more: it says so and stops.
    pub fn fail_removed(&self) {
        self.was_removed.store(true, Ordering::Relaxed);
        self.fail(REMOVED.to_owned());
    }

    /// Something is broken for good: the process is to end.
    pub fn fail(&self, reason: String) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                tracing::error!(%reason, "the node stops");
                self.events.note("failed", reason.clone());
                *failed = Some(reason);
            }
            first
        });
    }
}

fn estranged(cluster: ClusterId) -> String {
    format!(
        "this node is in no cluster: its disk is empty or another one, and the cluster {cluster} has it as a member; put the right disk \
         back, or replace the node under a new id"
    )
}
