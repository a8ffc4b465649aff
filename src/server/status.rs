//! The status of all nodes, gathered by any one of them, without a quorum.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::context::ServerContext;
use super::health::Facts;
use super::history::{self, Counted, History};
use crate::raft::{Node, reason};
use crate::types::{Member, NodeId, NodeStatus, Role};
use crate::wire::peer::v1::{StatusRequest, peer_client::PeerClient};
use crate::wire::{self, v1};

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
                syncs: status.syncs,
                sync_us: status.sync_total.as_micros() as u64,
                leads: status.role == Role::Leader && status.leader == Some(self.node.id()),
                behind: self.node.behind(),
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
            None => (status.digest_index, status.digest),
        };
        let member = self.node.members().into_iter().find(|member| member.id == status.id);
        let voter = member.as_ref().map(|member| member.voter);
        let (client_address, peer_address) = member.map(|member| (member.client_address, member.peer_address)).unwrap_or_default();
        let said = NodeStatus {
            client_address,
            peer_address,
            digest,
            digest_index,
            wall_ms: self.context.wall_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: self.context.uptime(),
            pid: std::process::id().into(),
            checks: Facts::of(&self.context).checks(),
            writes,
            reads,
            voter,
            ..status
        };
        v1::NodeStatus { samples: self.history.newest(samples as usize, self.context.now()), ..wire::node_status_to(said) }
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
        v1::StatusResponse { cluster_id: wire::cluster_id_to(self.node.cluster_id()), cluster_name: self.name.to_string(), nodes }
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
