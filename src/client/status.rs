//! The cluster's status: any endpoint gives it, without a quorum or a driver.

use std::time::Duration;

use super::Error;
use super::ask::{Worth, best_answer};
use super::config::Config;
use super::driver::connection::sessions;
use crate::limits::{MESSAGE_BYTES_MAX, NODES_MAX};
use crate::types::{ClusterId, NodeId, Revision};
use crate::wire::v1;

const _: () = assert!(NODES_MAX as u64 * 4096 < MESSAGE_BYTES_MAX);

/// The options of a status call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusOptions {
    /// Ask each node for the digest of its state at this entry.
    pub digest_at: Option<Revision>,
    /// How long each endpoint may take; 2 s by default.
    pub timeout: Duration,
}

impl Default for StatusOptions {
    fn default() -> Self {
        Self { digest_at: None, timeout: Duration::from_secs(2) }
    }
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// A node's role in its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// Wants to lead.
    Candidate,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// One thing that must hold on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

pub(super) async fn ask(config: &Config, options: StatusOptions) -> Result<ClusterStatus, Error> {
    let timeout_ms = u32::try_from(options.timeout.as_millis() * 9 / 10).unwrap_or(u32::MAX);
    let digest_at = options.digest_at.map_or(0, |revision| revision.0);
    let request = v1::StatusRequest { digest_at, timeout_ms, local: false };
    let (response, endpoint) =
        best_answer(config, options.timeout, |link| async move { sessions(link).status(request).await }, worth).await?;
    Ok(ClusterStatus {
        cluster_id: ClusterId::from_slice(&response.cluster_id),
        cluster_name: response.cluster_name,
        endpoint,
        nodes: response.nodes.into_iter().map(node_from).collect(),
    })
}

/// An answer is worth the most if its node reaches a majority of the voters, then by the term it knows.
fn worth(answer: &v1::StatusResponse) -> Worth {
    // A release that does not say who votes names its learners where they answer.
    let voters = answer.nodes.iter().filter(|node| node.voter.unwrap_or(node.role() != v1::Role::Learner));
    let (all, there) = voters.fold((0, 0), |(all, there), node| (all + 1, there + usize::from(node.reachable)));
    let term = answer.nodes.iter().map(|node| node.term).max().unwrap_or(0);
    Worth::of(!answer.cluster_id.is_empty(), 2 * there > all, term)
}

fn node_from(node: v1::NodeStatus) -> NodeStatus {
    NodeStatus {
        id: NodeId(node.id),
        role: match node.role() {
            v1::Role::Unspecified => Role::Unknown,
            v1::Role::Leader => Role::Leader,
            v1::Role::Follower => Role::Follower,
            v1::Role::Learner => Role::Learner,
            v1::Role::Candidate => Role::Candidate,
        },
        client_address: node.client_address,
        peer_address: node.peer_address,
        reachable: node.reachable,
        error: node.error,
        term: node.term,
        leader: node.leader.map(NodeId),
        last_log: node.last_log,
        committed: node.committed,
        applied: node.applied,
        flushed: node.flushed,
        purged: node.purged,
        digest: node.digest,
        digest_index: node.digest_index,
        sessions: node.sessions,
        clients: node.clients,
        log_bytes: node.log_bytes,
        state_bytes: node.state_bytes,
        machine_time_ms: node.machine_time_ms,
        wall_ms: node.wall_ms,
        version: node.version,
        cluster_version: node.cluster_version,
        uptime: Duration::from_millis(node.uptime_ms),
        pid: node.pid,
        checks: node.checks.into_iter().map(check_from).collect(),
        clock_offset_ms: node.clock_offset_ms,
        disk_free_bytes: node.disk_free_bytes,
        disk_total_bytes: node.disk_total_bytes,
        configuration_hash: node.configuration_hash,
        cluster_version_min: node.cluster_version_min,
        cluster_version_max: node.cluster_version_max,
        syncs: node.syncs,
        sync_total: Duration::from_micros(node.sync_us_total),
        sync_slowest: Duration::from_micros(node.sync_us_max),
        writes: node.writes,
        reads: node.reads,
        scrub_passes: node.scrub_passes,
        scrub_bytes: node.scrub_bytes,
        scrubbed_ms: node.scrubbed_ms,
        voter: node.voter,
    }
}

fn check_from(check: v1::Check) -> NodeCheck {
    NodeCheck { name: check.name, ok: check.ok, required: check.required, detail: check.detail }
}
