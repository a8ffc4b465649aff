//! The context of a node's tasks: facts that never change, and handles.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use openraft::async_runtime::WatchReceiver as _;

use super::adapter::state_machine::{self, AppliedState, Raft};
use super::adapter::types::{PeerNode, StoredMembership, Vote};
use super::failure::Failure;
use super::leadership::LeadershipState;
use super::peer::clocks::Clocks;
use super::peer::peers::Peers;
use crate::env::{Blocking, Env};
use crate::events::Events;
use crate::storage::identity::Identity;
use crate::storage::log::Log;
use crate::storage::state::State;
use crate::types::{LogId, Member, NodeId};

/// The facts that a node was started with.
pub struct Facts {
    /// This node.
    pub me: NodeId,
    /// The cluster's name.
    pub name: String,
    /// A hash of name, members and addresses as configured.
    pub configuration_hash: u64,
    /// The members of the configuration file; the replicated membership rules once there is one.
    pub configured: Vec<Member>,
    /// Random per process start.
    pub boot_id: u64,
    /// The cluster version above which its operator does not let the cluster rise; `None`: there is none.
    pub cluster_version_held: Option<u16>,
    /// Where its data lies.
    pub data_dir: PathBuf,
}

/// One node, as its tasks see it. Nothing in it is ever replaced. Handles that only one task needs belong to that task.
pub struct NodeContext {
    /// The outside world.
    pub env: Env,
    /// The facts that the node was started with.
    pub facts: Facts,
    /// openraft.
    pub raft: Raft,
    /// The applied state.
    pub state: Arc<State<AppliedState>>,
    /// The log.
    pub log: Log,
    /// Which node of which cluster the data directory is.
    pub identity: Arc<Mutex<Identity>>,
    /// Connections to peers.
    pub peers: Peers,
    /// The voters' clocks.
    pub clocks: Arc<Clocks>,
    /// Work that may wait for a disk.
    pub blocking: Blocking,
    /// The node's memory of its past.
    pub events: Arc<Events>,
    /// The leadership, as far as this node knows.
    pub leadership: LeadershipState,
    /// Whether this node is to stop.
    pub failure: Failure,
}

impl NodeContext {
    /// This node.
    pub fn me(&self) -> NodeId {
        self.facts.me
    }

    /// The current vote.
    pub fn vote(&self) -> Vote {
        self.raft.metrics().borrow_watched().vote
    }

    /// The last log id, as appended.
    pub fn last_log(&self) -> Option<LogId> {
        self.log.position().last
    }

    /// The last log id applied.
    pub fn applied(&self) -> Option<LogId> {
        self.state.applied()
    }

    /// The membership in force (perhaps not committed yet).
    pub fn membership(&self) -> Arc<StoredMembership> {
        self.raft.metrics().borrow_watched().membership_config.clone()
    }

    /// Whether there is a voter: not before bootstrap. Asked for every few operations: nothing is copied for it.
    pub fn has_voters(&self) -> bool {
        self.raft
            .metrics()
            .borrow_watched()
            .membership_config
            .membership()
            .get_joint_config()
            .iter()
            .any(|config| !config.is_empty())
    }

    /// The voters, in order of ids; empty before bootstrap.
    pub fn voters(&self) -> Vec<NodeId> {
        self.membership().voter_ids().collect()
    }

    /// A member by its id.
    pub fn member(&self, id: NodeId) -> Option<PeerNode> {
        self.membership().get_node(&id).cloned()
    }

    /// Whether that node was a member once and is none any more, by what this node has applied. Ids are never used twice, so one at or
    /// below the largest that was ever used is known for good.
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.state.view(|state, _, _| state.is_removed(id))
    }

    /// Whether a write to the log would only wait: the log has no room. A refusal then looks to other nodes as if this node were down, and
    /// nothing piles up in front of its Raft.
    pub fn would_wait_for_room(&self, vote: &Vote) -> bool {
        self.log.waits_for_room() && self.vote() != *vote
    }

    /// Flushes everything applied so far, durably. Cancel safe: the flush continues.
    pub async fn flush(&self) -> io::Result<()> {
        state_machine::flush(&self.state).await
    }
}
