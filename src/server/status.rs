//! The status of all nodes, gathered by any one of them, without a quorum.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::answers::cluster_bytes;
use super::context::ServerContext;
use super::health::{Check, Facts};
use super::history::{self, Counted, History};
use crate::machine::newest_version;
use crate::raft::{CLUSTER_VERSION_MIN, Member, Node, Role, reason};
use crate::types::NodeId;
use crate::wire::peer::v1::{StatusRequest, peer_client::PeerClient};
use crate::wire::v1;

/// How long another node may take to answer, beyond what it was asked to wait for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a digest is waited for, where the caller does not say.
const DIGEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait a caller may ask for.
const DIGEST_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Reports on one node, and through it on all. Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    node: Node,
    context: ServerContext,
    name: Arc<str>,
    history: Arc<History>,
}

impl Reporter {
    pub fn new(context: ServerContext, name: &str) -> Self {
        Self { node: context.node().clone(), context, name: name.into(), history: Arc::default() }
    }

    /// Counts what happens in each interval, until `stop`; the one who spawns it joins it.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let counted = || {
            let status = self.node.status();
            Counted {
                at: self.context.now(),
                answered: self.context.metrics().answered(),
                spread: self.context.metrics().spread(),
                syncs: status.syncs.count,
                sync_us: micros(status.syncs.total),
                leads: status.role == Role::Leader && status.leader == Some(self.node.id()),
                behind: status.behind,
            }
        };
        history::run(&self.history, counted, stop).await;
    }

    /// The status of this node. `digest_at` 0: at `applied`; another index is waited for within `timeout`. With at most `samples` of the newest
    /// samples.
    pub async fn local(&self, digest_at: u64, timeout: Duration, samples: u32) -> v1::NodeStatus {
        let waited = match digest_at {
            0 => None,
            index => Some((index, self.node.digest_at(index, timeout).await)),
        };
        let status = self.node.status();
        let [writes, reads] = self.context.metrics().answered();
        let (digest_index, digest) = match waited {
            Some((index, Some(digest))) => (Some(index), Some(digest)),
            Some((_, None)) => (None, None),
            None => (status.digest_index, status.digest_index.map(|_| status.digest)),
        };
        let id = self.node.id();
        let member = self.node.members().into_iter().find(|member| member.id == id);
        let voter = member.as_ref().map(|member| member.voter);
        let (client_address, peer_address) = member.map(|member| (member.client_address, member.peer_address)).unwrap_or_default();
        v1::NodeStatus {
            id: id.0,
            client_address,
            peer_address,
            reachable: true,
            error: String::new(),
            role: role(status.role).into(),
            term: status.term,
            leader: status.leader.map(|leader| leader.0),
            last_log: status.last_log,
            committed: status.committed,
            applied: status.applied,
            flushed: status.flushed,
            purged: status.purged,
            digest,
            digest_index,
            sessions: status.sessions,
            clients: status.clients,
            log_bytes: status.log_bytes,
            state_bytes: status.state_bytes,
            machine_time_ms: status.machine_time_ms,
            wall_ms: self.context.wall_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_version: status.cluster_version.into(),
            uptime_ms: self.context.uptime().as_millis() as u64,
            pid: std::process::id().into(),
            checks: self.checks(),
            clock_offset_ms: status.clock_offset_ms,
            disk_free_bytes: status.disk.0,
            disk_total_bytes: status.disk.1,
            configuration_hash: status.configuration_hash,
            cluster_version_min: CLUSTER_VERSION_MIN.into(),
            cluster_version_max: newest_version().into(),
            syncs: status.syncs.count,
            sync_us_total: micros(status.syncs.total),
            sync_us_max: micros(status.syncs.slowest),
            writes,
            reads,
            scrub_passes: status.scrubbed.passes,
            scrub_bytes: status.scrubbed.bytes,
            scrubbed_ms: status.scrubbed.ended_ms,
            voter,
            samples: self.history.newest(samples as usize, self.context.now()),
        }
    }

    fn checks(&self) -> Vec<v1::Check> {
        let checks = Facts::of(&self.context).checks().into_iter();
        let check =
            |check: Check| v1::Check { name: check.name.into(), ok: check.ok, required: check.required, detail: check.detail };
        checks.map(check).collect()
    }

    /// The status of all members, in order of ids; for those that do not answer in time, the reason. Cancel safe.
    pub async fn cluster(&self, request: &v1::StatusRequest) -> v1::StatusResponse {
        self.cluster_with_samples(request, 0).await
    }

    /// The status of all members, with so many of the newest samples of each. Cancel safe.
    pub async fn cluster_with_samples(&self, request: &v1::StatusRequest, samples: u32) -> v1::StatusResponse {
        let timeout = match request.timeout_ms {
            0 => DIGEST_TIMEOUT,
            ms => Duration::from_millis(ms.into()).min(DIGEST_TIMEOUT_MAX),
        };
        let me = self.node.id();
        let mut members = self.node.members();
        members.sort_by_key(|member| member.id);
        let asked = members.iter().filter(|member| !request.local || member.id == me);
        let nodes = join_all(asked.map(|member| self.one(member, request.digest_at, timeout, samples))).await;
        v1::StatusResponse { cluster_id: cluster_bytes(self.node.cluster_id()), cluster_name: self.name.to_string(), nodes }
    }

    async fn one(&self, member: &Member, digest_at: u64, timeout: Duration, samples: u32) -> v1::NodeStatus {
        if member.id == self.node.id() {
            return self.local(digest_at, timeout, samples).await;
        }
        let limit = if digest_at == 0 { ANSWER_TIMEOUT } else { timeout + ANSWER_TIMEOUT };
        let asked = tokio::time::timeout(limit, self.ask(member.id, digest_at, timeout, samples)).await;
        let error = match asked {
            Ok(Ok(status)) => return v1::NodeStatus { reachable: true, id: member.id.0, voter: Some(member.voter), ..status },
            Ok(Err(error)) => error,
            Err(_) => format!("no answer within {limit:?}"),
        };
        v1::NodeStatus {
            id: member.id.0,
            client_address: member.client_address.clone(),
            peer_address: member.peer_address.clone(),
            voter: Some(member.voter),
            error,
            ..v1::NodeStatus::default()
        }
    }

    async fn ask(&self, node: NodeId, digest_at: u64, timeout: Duration, samples: u32) -> Result<v1::NodeStatus, String> {
        let peer = self.node.peer(node).ok_or("no way to it is known before the cluster is formed")?;
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let request = StatusRequest { route: Some(peer.route), digest_at, timeout_ms, samples };
        let answered = PeerClient::new(peer.channel).status(request).await;
        answered.map(tonic::Response::into_inner).map_err(|status| reason(&status))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn role(role: Role) -> v1::Role {
    match role {
        Role::Leader => v1::Role::Leader,
        Role::Follower => v1::Role::Follower,
        Role::Learner => v1::Role::Learner,
        Role::Candidate => v1::Role::Candidate,
    }
}
