//! openraft's calls to one peer, over the peer port.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use openraft::storage::Snapshot;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::append_stream;
use super::state_machine::SnapshotData;
use super::types::{
    Leader, PeerNode, RpcError, Types, Vote, log_id_from_wire, log_id_to_wire, membership_to_wire, network_error, rpc_error,
    vote_from_wire, vote_to_wire,
};
use crate::env::Blocking;
use crate::limits::FRAME_BYTES_MAX;
use crate::raft::peer::clocks::Clocks;
use crate::raft::peer::peers::{Peers, Purpose};
use crate::raft::upkeep::room::{self, Room};
use crate::types::NodeId;
use crate::wire::peer::v1::{self as peer, append_response::Result as Appended, peer_client::PeerClient, snapshot_frame::Frame};

/// A snapshot frame that is not taken for so long ends the transfer; openraft begins another.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a receiver may take to build its machine from the rows and to install them.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes [`Network`]s.
#[derive(Clone)]
pub struct NetworkFactory {
    pub peers: Peers,
    pub clocks: Arc<Clocks>,
    pub room: Arc<Room>,
    pub blocking: Blocking,
}

/// The way to one peer.
pub struct Network {
    factory: NetworkFactory,
    target: NodeId,
    node: PeerNode,
    purpose: Purpose,
}

impl RaftNetworkFactory<Types> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: NodeId, node: &PeerNode) -> Network {
        self.network(target, node, Purpose::Append)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &PeerNode) -> Network {
        self.network(target, node, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &PeerNode) -> Network {
        self.network(target, node, Purpose::Snapshot)
    }
}

impl NetworkFactory {
    fn network(&self, target: NodeId, node: &PeerNode, purpose: Purpose) -> Network {
        Network { factory: self.clone(), target, node: node.clone(), purpose }
    }
}

impl Network {
    /// The address of today: a member that has moved is reached there without a new stream.
    fn client(&self) -> Result<PeerClient<Channel>, RpcError> {
        let now = self.factory.peers.member(self.target).filter(|now| now.instance == self.node.instance);
        self.factory
            .peers
            .client(now.as_ref().unwrap_or(&self.node), self.purpose)
            .map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))
    }

    fn route(&self) -> Option<peer::Route> {
        Some(self.factory.peers.route(self.target, self.node.instance))
    }

    /// A call with a deadline, and its failure as openraft wants it: what cannot be reached backs off, the rest is tried again.
    async fn call<T>(
        &self,
        action: RPCTypes,
        timeout: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RpcError> {
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(rpc_error(&status)),
            Err(_) => Err(RPCError::Timeout(Timeout { action, id: self.factory.peers.me(), target: self.target, timeout })),
        }
    }

    async fn ask_vote(
        &self,
        request: VoteRequest<Types>,
        pre_vote: bool,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let message = peer::VoteRequest {
            route: self.route(),
            vote: Some(vote_to_wire(&request.vote)),
            last_log: request.last_log_id.as_ref().map(log_id_to_wire),
            leadership_transfer: request.leadership_transfer,
            pre_vote,
        };
        let mut client = self.client()?;
        let answer = self.call(RPCTypes::Vote, option.hard_ttl(), client.vote(message)).await?;
        self.factory.clocks.heard(self.target, answer.wall_ms);
        let vote = vote_from_wire(answer.vote.as_ref()).map_err(|error| network_error(&error))?;
        let last_log_id = answer.last_log.as_ref().map(log_id_from_wire).transpose().map_err(|error| network_error(&error))?;
        Ok(VoteResponse { vote, vote_granted: answer.granted, last_log_id })
    }
}

impl RaftNetworkV2<Types> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RpcError> {
        let (message, bytes) = append_stream::to_wire(&rpc, self.route());
        // openraft's own bound is the heartbeat interval: too short for a follower whose disk stalls, or for a large entry.
        let timeout = if rpc.entries.is_empty() { option.hard_ttl() } else { append_stream::timeout(bytes) };
        let mut client = self.client()?;
        let answer = self.call(RPCTypes::AppendEntries, timeout, client.append(message)).await?;
        self.factory.clocks.heard(self.target, answer.wall_ms);
        match answer.result {
            Some(Appended::Success(_)) => Ok(AppendEntriesResponse::Success),
            Some(Appended::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
            Some(Appended::PartialSuccess(log_id)) => {
                let log_id = log_id_from_wire(&log_id).map_err(|error| network_error(&error))?;
                Ok(AppendEntriesResponse::PartialSuccess(Some(log_id)))
            }
            Some(Appended::HigherVote(vote)) => {
                Ok(AppendEntriesResponse::HigherVote(vote_from_wire(Some(&vote)).map_err(|error| network_error(&error))?))
            }
            None => Err(network_error(&Status::internal("append answer has no result"))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, append_stream::Answer>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        // A heartbeat is a stream of one request: a call is cheaper.
        if self.purpose != Purpose::Append {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let (clocks, room) = (self.factory.clocks.clone(), self.factory.room.clone());
            let target = append_stream::Target {
                client: self.client()?,
                route: self.route(),
                me: self.factory.peers.me(),
                node: self.target,
                clocks,
                room,
            };
            append_stream::send(target, input).await
        })
    }

    async fn vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, RpcError> {
        self.ask_vote(rpc, false, option).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, RpcError> {
        self.ask_vote(rpc, true, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Leader, NodeId, PeerNode, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        if self.factory.room.is_spared(self.target) {
            return Err(streaming(rpc_error(&room::refused())));
        }
        let (frames, queue) = mpsc::channel(2);
        let mut client = self.client().map_err(streaming)?;
        let start = peer::SnapshotStart {
            route: self.route(),
            vote: Some(vote_to_wire(&vote)),
            last_log: snapshot.meta.last_log_id.as_ref().map(log_id_to_wire),
            membership_log: snapshot.meta.last_membership.log_id().as_ref().map(log_id_to_wire),
            membership: Some(membership_to_wire(snapshot.meta.last_membership.membership())),
        };
        let sending = send_frames(self.factory.blocking.clone(), start, snapshot.snapshot, frames);
        let answering = client.snapshot(ReceiverStream::new(queue));
        let transfer = async {
            tokio::pin!(answering);
            tokio::select! {
                biased;
                // A receiver that refuses ends the stream early; its reason says more than ours.
                answer = &mut answering => return answer.map_err(|status| rpc_error(&status)),
                sent = sending => sent?,
            }
            self.call(RPCTypes::InstallSnapshot, INSTALL_TIMEOUT, answering).await.map(tonic::Response::new)
        };
        let answer = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = transfer => answer.map_err(streaming)?.into_inner(),
        };
        let vote = vote_from_wire(answer.vote.as_ref()).map_err(|error| streaming(network_error(&error)))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        let message = peer::TransferLeaderRequest {
            route: self.route(),
            from_leader: Some(vote_to_wire(request.from_leader())),
            to: request.to_node_id().0,
            last_log: request.last_log_id().map(log_id_to_wire),
        };
        let mut client = self.client()?;
        let answer = self.call(RPCTypes::TransferLeader, option.hard_ttl(), client.transfer_leader(message)).await?;
        if answer.accepted { Ok(Ok(())) } else { Err(network_error(&Status::failed_precondition(answer.reason))) }
    }
}

fn streaming(error: RpcError) -> StreamingError<Types> {
    StreamingError::from(error)
}

/// Sends a snapshot frame by frame; never holds more than three frames in memory.
pub async fn send_frames(
    blocking: Blocking,
    start: peer::SnapshotStart,
    data: SnapshotData,
    frames: mpsc::Sender<peer::SnapshotFrame>,
) -> Result<(), RpcError> {
    let SnapshotData::Send(mut snapshot) = data else {
        return Err(network_error(&Status::internal("a received snapshot cannot be sent on")));
    };
    let rows = snapshot.total();
    let send = async |frame| {
        let message = peer::SnapshotFrame { frame: Some(frame) };
        match frames.send_timeout(message, FRAME_TIMEOUT).await {
            Ok(()) => Ok(()),
            Err(_) => Err(network_error(&Status::deadline_exceeded("a snapshot frame was not taken"))),
        }
    };
    send(Frame::Start(start)).await?;
    loop {
        let (returned, frame) = blocking
            .call(move || {
                let frame = snapshot.next_frame(FRAME_BYTES_MAX);
                (snapshot, frame)
            })
            .await;
        snapshot = returned;
        match frame.map_err(|error| network_error(&error))? {
            Some(bytes) => send(Frame::Rows(bytes)).await?,
            None => break,
        }
    }
    send(Frame::End(peer::SnapshotEnd { rows })).await?;
    drop(frames);
    Ok(())
}
