//! What the tasks of one node share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;

use super::blocking::Blocking;
use super::charge::LoadedRoom;
use super::clocks::Clocks;
use super::confirm::Confirmer;
use super::events::Events;
use super::leadership::LeadershipState;
use super::peers::Peers;
use super::room::Room;
use super::scrub;
use super::state_machine::{Core, Raft, StateMachine};
use super::types::{PeerNode, StoredMembership, Vote};
use super::{Member, Upper};
use crate::env::Env;
use crate::storage::identity::Identity;
use crate::storage::log::Log;
use crate::storage::state::State;
use crate::types::{ClusterId, LogId, NodeId};

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
    pub raft: Raft,
    pub machine: StateMachine,
    pub state: Arc<State<Core>>,
    pub log: Log,
    pub identity: Arc<Mutex<Identity>>,
    pub peers: Peers,
    pub clocks: Arc<Clocks>,
    pub confirmer: Confirmer,
    pub blocking: Blocking,
    pub upper: Arc<dyn Upper>,
    /// Who leads.
    pub leadership: LeadershipState,
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
