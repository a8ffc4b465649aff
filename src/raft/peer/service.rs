//! The peer port: what other nodes ask of this one.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::peer_table::PeerTable;
use super::streams::{self, Streams};
use super::takeover::Takeover;
use crate::env::Spawner;
use crate::limits::intervals;
use crate::mutant::{self, Mutant};
use crate::net::{Connection, Proof};
use crate::raft::adapter::types::{log_id_from, log_id_from_wire, log_id_to, log_id_to_wire, vote_from_wire, vote_to_wire};
use crate::raft::adapter::{append_stream, snapshot_in};
use crate::raft::context::NodeContext;
use crate::raft::members::outside::{IN_NO_CLUSTER, Outside};
use crate::raft::members::standing::{Standing, standing};
use crate::raft::members::{self, MemberChanges, bootstrap};
use crate::raft::upkeep::room::{self, Room};
use crate::raft::{Forwarder, PeerRequests, confirm, rebuild};
use crate::tls::host_of;
use crate::types::{ClusterId, InstanceId, NodeId, bounded};
use crate::wire::peer::v1::{self as peer, peer_server::Peer};
use crate::wire::v1;

/// Longest wait for a digest that is still to come.
const DIGEST_WAIT_MAX: Duration = Duration::from_secs(60);
/// Peers whose refusals are remembered; garbage from more of them is logged less often, never more.
const REFUSED_PEERS_MAX: usize = 64;

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves [`Peer`].
#[derive(Clone)]
pub struct PeerService {
    pub context: Arc<NodeContext>,
    pub table: Arc<PeerTable>,
    pub streams: Arc<Streams>,
    pub takeover: Arc<Takeover>,
    pub members: Arc<MemberChanges>,
    pub room: Arc<Room>,
    pub outside: Arc<Outside>,
    pub peer_requests: Arc<dyn PeerRequests>,
    /// One snapshot for a member that is rebuilt at a time.
    pub rebuilds: Arc<Semaphore>,
    pub spawner: Spawner,
    /// When a peer's refused call was last logged.
    pub refused: Arc<Mutex<BTreeMap<u64, Duration>>>,
}

impl PeerService {
    /// Whether a call is meant for this very node of this very cluster, by one who may call itself so (L32); who calls.
    fn check(&self, proof: &Proof, route: Option<&peer::Route>) -> Result<NodeId, Status> {
        let route = route.ok_or_else(|| Status::invalid_argument("route is missing"))?;
        let context = &self.context;
        let instance = context.identity.lock().unwrap_or_else(PoisonError::into_inner).instance();
        let mine = context.peers.cluster_id();
        let problem = if mine.is_none() {
            self.meant_for_another_disk(proof, route, instance);
            Some(IN_NO_CLUSTER)
        } else if ClusterId::from_slice(&route.cluster_id) != mine {
            Some("the call is for another cluster")
        } else if route.to != context.me().0 {
            Some("the call is for another node")
        } else if InstanceId::from_slice(&route.to_instance) != Some(instance) {
            Some("the call is for another data directory of this node")
        } else if route.from == context.me().0 {
            Some("the call comes from this node")
        } else {
            None
        };
        if let Some(problem) = problem {
            self.log_refusal(route.from, problem);
            return Err(Status::failed_precondition(problem));
        }
        self.check_name(proof, NodeId(route.from))
    }

    /// A member calls this node, which is in no cluster, as one that had another data directory.
    fn meant_for_another_disk(&self, proof: &Proof, route: &peer::Route, instance: InstanceId) {
        let others = InstanceId::from_slice(&route.to_instance).is_some_and(|meant| meant != instance);
        let Some(cluster) = ClusterId::from_slice(&route.cluster_id) else { return };
        if others && route.to == self.context.me().0 && self.check_name(proof, NodeId(route.from)).is_ok() {
            self.outside.lost_its_disk(cluster);
        }
    }

    /// Whether a caller is who it says it is, as far as certificates tell. A member is where the membership has it, or where it was found with
    /// its data; what is configured counts for nodes that this one has not heard of.
    fn check_name(&self, proof: &Proof, from: NodeId) -> Result<NodeId, Status> {
        let Some(shown) = proof.0.as_ref().filter(|_| !mutant::is(Mutant::PeerNameUnchecked)) else { return Ok(from) };
        let addresses: Vec<String> = match self.context.member(from) {
            Some(member) => self.context.peers.addresses(&member),
            None => self
                .context
                .facts
                .configured
                .iter()
                .filter(|member| member.id == from)
                .map(|member| member.peer_address.clone())
                .collect(),
        };
        if let Err(why) = shown.speaks_for(from.0, addresses.iter().map(|address| host_of(address))) {
            let problem = format!("the certificate is not one of node {from}: {why}");
            self.log_refusal(from.0, &problem);
            return Err(Status::permission_denied(problem));
        }
        Ok(from)
    }

    /// Checks a call that only members may make: a removed member is answered so, and a node that never was a member is refused.
    fn check_member(&self, proof: &Proof, route: Option<&peer::Route>) -> Result<NodeId, Status> {
        let from = self.check(proof, route)?;
        self.check_standing(from)?;
        Ok(from)
    }

    /// Asked again for every message of a stream: who the members are changes meanwhile.
    fn check_standing(&self, from: NodeId) -> Result<(), Status> {
        let refused = self.table.standing_of(from);
        if let Err(problem) = &refused {
            self.log_refusal(from.0, problem.message());
        }
        refused
    }

    /// Whether a caller may do as the leader of this vote: it is its own, and it is a member. One that was removed may finish what this
    /// node's own vote says, as a leader that takes itself out must, and never brings another vote.
    fn check_leader(&self, from: NodeId, vote: Option<&peer::Vote>) -> Result<(), Status> {
        let leader = vote_from_wire(vote).map_err(bad)?.leader_id;
        if leader.node_id != from {
            let problem = format!("the vote is not the caller's from={from} vote={}", leader.node_id);
            self.log_refusal(from.0, &problem);
            return Err(Status::invalid_argument(problem));
        }
        if standing(&self.context, from) == Standing::Removed && self.context.vote().leader_id == leader {
            return Ok(());
        }
        self.check_standing(from)
    }

    fn log_refusal(&self, from: u64, problem: &str) {
        let now = self.context.env.clock.now();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = refused.get(&from).is_some_and(|last| now.saturating_sub(*last) < intervals().refusals);
        if !quiet {
            if refused.len() >= REFUSED_PEERS_MAX {
                refused.pop_first();
            }
            refused.insert(from, now);
            tracing::warn!(peer = from, problem, "refused a peer's call");
        }
    }
}

/// The proof given by the connection of a call.
fn proof<T>(request: &Request<T>) -> Proof {
    request.extensions().get::<Connection>().map(|connection| connection.proof.clone()).unwrap_or_default()
}

fn bad(error: std::io::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A node whose Raft has stopped looks like one that is down.
fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this node's raft has stopped: {error}"))
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn hello(&self, request: Request<peer::HelloRequest>) -> Result<Response<peer::HelloResponse>, Status> {
        let request = request.into_inner();
        if request.name.len() > crate::limits::ADDRESS_BYTES_MAX {
            return Err(Status::invalid_argument(format!("name is too long bytes={}", request.name.len())));
        }
        Ok(Response::new(bootstrap::hello(&self.context)))
    }

    async fn adopt(&self, request: Request<peer::AdoptRequest>) -> Result<Response<peer::AdoptResponse>, Status> {
        let context = self.context.clone();
        let request = request.into_inner();
        self.context.blocking.call(move || bootstrap::adopt(&context, &request)).await?;
        Ok(Response::new(peer::AdoptResponse {}))
    }

    async fn append(&self, request: Request<peer::AppendRequest>) -> Result<Response<peer::AppendResponse>, Status> {
        let (proof, request) = (proof(&request), request.into_inner());
        let from = self.check(&proof, request.route.as_ref())?;
        self.check_leader(from, request.vote.as_ref())?;
        append_stream::receive(self.context.clone(), self.room.clone(), append_stream::from_wire(request)?).await.map(Response::new)
    }

    type AppendStreamStream = BoxStream<peer::AppendResponse>;

    async fn append_stream(
        &self,
        request: Request<Streaming<peer::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let (service, proof) = (self.clone(), proof(&request));
        let mut from = None;
        let check = move |request: &peer::AppendRequest| {
            let from = match from {
                Some(from) => from,
                None => *from.insert(service.check(&proof, request.route.as_ref())?),
            };
            service.check_leader(from, request.vote.as_ref())
        };
        Ok(Response::new(append_stream::receive_all(self.context.clone(), self.room.clone(), request.into_inner(), check)))
    }

    async fn vote(&self, request: Request<peer::VoteRequest>) -> Result<Response<peer::VoteResponse>, Status> {
        let (proof, request) = (proof(&request), request.into_inner());
        let from = self.check_member(&proof, request.route.as_ref())?;
        self.check_leader(from, request.vote.as_ref())?;
        let vote = vote_from_wire(request.vote.as_ref()).map_err(bad)?;
        let rpc = VoteRequest {
            vote,
            last_log_id: request.last_log.as_ref().map(log_id_from_wire).transpose().map_err(bad)?,
            leadership_transfer: request.leadership_transfer,
        };
        if !request.pre_vote && self.context.would_wait_for_room(&vote) {
            return Err(room::refused());
        }
        let raft = &self.context.raft;
        let answer = if request.pre_vote { raft.pre_vote(rpc).await } else { raft.vote(rpc).await }.map_err(stopped)?;
        if answer.vote_granted && !request.pre_vote {
            let (node, candidate) = (self.context.me().0, vote.leader_id.node_id.0);
            tracing::debug!(node, term = vote.leader_id.term, candidate, "granted a vote");
        }
        Ok(Response::new(peer::VoteResponse {
            vote: Some(vote_to_wire(&answer.vote)),
            last_log: answer.last_log_id.as_ref().map(log_id_to_wire),
            granted: answer.vote_granted,
            wall_ms: self.context.clocks.wall_ms(),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<peer::TransferLeaderRequest>,
    ) -> Result<Response<peer::TransferLeaderResponse>, Status> {
        let (proof, request) = (proof(&request), request.into_inner());
        let caller = self.check(&proof, request.route.as_ref())?;
        self.check_leader(caller, request.from_leader.as_ref())?;
        let from = vote_from_wire(request.from_leader.as_ref()).map_err(bad)?;
        if self.context.log.waits_for_room() {
            return Err(room::refused());
        }
        let last_log = request.last_log.as_ref().map(log_id_from_wire).transpose().map_err(bad)?;
        let rpc = TransferLeaderRequest::new(from, NodeId(request.to), last_log);
        let answer = self.context.raft.handle_transfer_leader(rpc).await.map_err(stopped)?;
        let reason = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
        Ok(Response::new(peer::TransferLeaderResponse { accepted: answer.is_ok(), reason }))
    }

    async fn snapshot(&self, request: Request<Streaming<peer::SnapshotFrame>>) -> Result<Response<peer::SnapshotResponse>, Status> {
        let (proof, mut frames) = (proof(&request), request.into_inner());
        let start = snapshot_in::start(&mut frames).await?;
        let from = self.check(&proof, start.route.as_ref())?;
        self.check_leader(from, start.vote.as_ref())?;
        snapshot_in::install(&self.context, &self.room, start, frames).await.map(Response::new)
    }

    type PresenceStream = BoxStream<peer::PresenceMessage>;

    async fn presence(&self, request: Request<Streaming<peer::PresenceMessage>>) -> Result<Response<Self::PresenceStream>, Status> {
        let (proof, mut messages) = (proof(&request), request.into_inner());
        let first = messages.message().await?.ok_or_else(|| Status::invalid_argument("presence stream is empty"))?;
        let from = self.check_member(&proof, first.route.as_ref())?;
        streams::in_range(&first).map_err(|error| bad(error.into()))?;
        if let Err(problem) = self.streams.check_versions(&first) {
            self.log_refusal(from.0, &problem);
            return Err(Status::failed_precondition(problem));
        }
        Ok(Response::new(self.streams.clone().serve(from, first, messages)))
    }

    async fn lost_leader(&self, request: Request<peer::LostLeaderRequest>) -> Result<Response<peer::LostLeaderResponse>, Status> {
        let (proof, request) = (proof(&request), request.into_inner());
        let from = self.check_member(&proof, request.route.as_ref())?;
        let vote = vote_from_wire(request.vote.as_ref()).map_err(bad)?;
        let last_log = request.last_log.as_ref().map(log_id_from_wire).transpose().map_err(bad)?;
        let lost = self.takeover.is_lost(from, vote, last_log.as_ref().map(log_id_from)).await;
        let last_log = self.context.last_log().map(log_id_to).as_ref().map(log_id_to_wire);
        Ok(Response::new(peer::LostLeaderResponse { lost, last_log }))
    }

    type ForwardStream = BoxStream<v1::SubmitResponse>;

    async fn forward(&self, request: Request<Streaming<peer::ForwardRequest>>) -> Result<Response<Self::ForwardStream>, Status> {
        let (proof, mut requests) = (proof(&request), request.into_inner());
        let first = requests.message().await?.ok_or_else(|| Status::invalid_argument("forward stream is empty"))?;
        let node = self.check_member(&proof, first.route.as_ref())?;
        let from = Forwarder { node, authenticated: proof.0.is_some(), sends_hashes: self.table.sends_hashes(node) };
        let service = self.clone();
        let requests = requests.map(move |request| request.and_then(|request| service.check_standing(node).map(|()| request)));
        Ok(Response::new(self.peer_requests.forward(from, Box::pin(requests), first)))
    }

    type ConfirmStream = BoxStream<peer::ConfirmResponse>;

    async fn confirm(&self, request: Request<Streaming<peer::ConfirmRequest>>) -> Result<Response<Self::ConfirmStream>, Status> {
        let (proof, mut rounds) = (proof(&request), request.into_inner());
        let first = rounds.message().await?.ok_or_else(|| Status::invalid_argument("confirm stream is empty"))?;
        let from = self.check_member(&proof, first.route.as_ref())?;
        let service = self.clone();
        let answer = move |round: Result<peer::ConfirmRequest, Status>| {
            let round = round?;
            service.check_leader(from, round.vote.as_ref())?;
            Ok(confirm::answer(&service.context, &round))
        };
        Ok(Response::new(Box::pin(rounds.map(answer))))
    }

    type RebuildStream = BoxStream<peer::SnapshotFrame>;

    async fn rebuild(&self, request: Request<peer::RebuildRequest>) -> Result<Response<Self::RebuildStream>, Status> {
        let (proof, request) = (proof(&request), request.into_inner());
        let from = self.check_member(&proof, request.route.as_ref())?;
        bounded("last_index", request.last_index).map_err(|error| bad(error.into()))?;
        rebuild::serve(&self.context, &self.rebuilds, &self.spawner, from, &request).await.map(Response::new)
    }

    async fn status(&self, request: Request<peer::StatusRequest>) -> Result<Response<v1::NodeStatus>, Status> {
        let (proof, request) = (proof(&request), request.into_inner());
        self.check_member(&proof, request.route.as_ref())?;
        bounded("digest_at", request.digest_at).map_err(|error| bad(error.into()))?;
        let timeout = Duration::from_millis(request.timeout_ms.into()).min(DIGEST_WAIT_MAX);
        Ok(Response::new(self.peer_requests.status(request.digest_at, timeout, request.samples).await))
    }

    async fn moved(&self, request: Request<peer::MovedRequest>) -> Result<Response<peer::MovedResponse>, Status> {
        let (proof, request) = (proof(&request), request.into_inner());
        let from = self.check_member(&proof, request.route.as_ref())?;
        members::receive_moved(&self.members, from, request).await.map(Response::new)
    }
}
