//! The status of a cluster and its nodes.
//!
//! To build one, as tests of tools do: take the default and fill in the fields that count.

use std::time::Duration;

use super::{ClusterId, NodeId};

/// The cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// `None` before the cluster is bootstrapped.
    pub cluster_id: Option<ClusterId>,
    /// Its configured name.
    pub cluster_name: String,
    /// The endpoint that answered.
    pub endpoint: String,
    /// Every configured member; of one that did not answer only its id, addresses and error are known.
    pub nodes: Vec<NodeStatus>,
}

impl ClusterStatus {
    /// The status of a cluster of these nodes, of which nothing else is known.
    pub fn new(nodes: Vec<NodeStatus>) -> Self {
        Self { nodes, ..Self::default() }
    }
}

/// A node's role in its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// A role that was not sent, or that this client does not know.
    #[default]
    Unknown,
    /// Proposes.
    Leader,
    /// Votes.
    Follower,
    /// Follows without a vote.
    Learner,
    /// Wants to lead, or leads by its term without an answer of a majority.
    Candidate,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its configured id.
    pub id: NodeId,
    /// Where clients reach it.
    pub client_address: String,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Whether it answered.
    pub reachable: bool,
    /// Why it did not.
    pub error: String,
    /// Its role.
    pub role: Role,
    /// Its Raft term.
    pub term: u64,
    /// The leader, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The last entry of its log.
    pub last_log: Option<u64>,
    /// The last entry it knows to be committed.
    pub committed: Option<u64>,
    /// The last entry it applied.
    pub applied: Option<u64>,
    /// The last entry in its durable state.
    pub flushed: Option<u64>,
    /// The last entry gone from its log.
    pub purged: Option<u64>,
    /// The digest of its state ...
    pub digest: Option<u64>,
    /// ... after this entry.
    pub digest_index: Option<u64>,
    /// Sessions it holds.
    pub sessions: u64,
    /// Clients it knows.
    pub clients: u64,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Bytes of its state file.
    pub state_bytes: u64,
    /// Machine time, in milliseconds since the Unix epoch.
    pub machine_time_ms: u64,
    /// Its own clock, in milliseconds.
    pub wall_ms: u64,
    /// Its build.
    pub version: String,
    /// The cluster version in force.
    pub cluster_version: u32,
    /// How long it has been running.
    pub uptime: Duration,
    /// Its process id.
    pub pid: u64,
    /// Its checks, with their results.
    pub checks: Vec<NodeCheck>,
    /// Its clock minus the median of the voters', in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// Free bytes of the file system its data lies on ...
    pub disk_free_bytes: u64,
    /// ... and all of them.
    pub disk_total_bytes: u64,
    /// A hash of the cluster's name, members and addresses as it was configured.
    pub configuration_hash: u64,
    /// The oldest cluster version it can read ...
    pub cluster_version_min: u32,
    /// ... and the newest.
    pub cluster_version_max: u32,
    /// The cluster version above which its cluster.toml does not let the cluster rise; 0: it says none.
    pub cluster_version_held: u32,
    /// Syncs of its log since it was started ...
    pub syncs: u64,
    /// ... how long they took together ...
    pub sync_total: Duration,
    /// ... and the slowest of the last minute or two.
    pub sync_slowest: Duration,
    /// Writes it answered since it was started.
    pub writes: u64,
    /// Reads it answered since it was started.
    pub reads: u64,
    /// Times everything on its disk was read and found whole since it was started ...
    pub scrub_passes: u64,
    /// ... bytes read for that ...
    pub scrub_bytes: u64,
    /// ... and when that last ended, by its clock, in milliseconds since the Unix epoch; 0: not yet.
    pub scrubbed_ms: u64,
    /// Whether it has a vote; `None` from a release that does not say.
    pub voter: Option<bool>,
}

impl NodeStatus {
    /// The status of a node of which nothing else is known.
    pub fn new(id: impl Into<NodeId>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }
}

/// One thing that must hold on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeCheck {
    /// Its name, one word.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// Whether the node takes no traffic while it does not.
    pub required: bool,
    /// For people.
    pub detail: String,
}

impl NodeCheck {
    /// A check that is not required, without a detail.
    pub fn new(name: &str, ok: bool) -> Self {
        Self { name: name.to_owned(), ok, ..Self::default() }
    }
}
