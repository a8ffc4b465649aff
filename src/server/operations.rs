//! The `Operations` service on the client port: what operators ask of this one node, and the changes that only a leader makes. Every call
//! but one needs the scope `admin`: every caller may ask for the members, since clients need it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::auth::{Guard, Need};
use super::clients::{self, Filter};
use super::edge;
use crate::raft::{Backup, Node};
use crate::types::{Members, NodeId, Refusal, RefusalKind};
use crate::wire::v1::operations_server::Operations;
use crate::wire::{self, v1};

/// How long an entry is waited for, where the caller does not say, and at most.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a change of the members may take, where the caller does not say, and at most.
const CHANGE_DEFAULT: Duration = Duration::from_secs(10);
const CHANGE_MAX: Duration = Duration::from_secs(60);
/// How long a node that has just started may take to apply the membership; below what a client waits.
const MEMBERS_WAIT: Duration = Duration::from_secs(1);
/// Pieces read ahead of a reader that is slower than the disk.
const PIECES_AHEAD: usize = 2;
/// A reader that takes nothing for so long is given up: a backup pins old rows.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The service of one node.
pub struct OperationsService {
    node: Node,
    guard: Guard,
}

impl OperationsService {
    pub fn new(node: Node, guard: Guard) -> Self {
        Self { node, guard }
    }

    /// Errors: this node is in no cluster, and speaks for none.
    fn require_cluster(&self) -> Result<(), Status> {
        self.node.outside().map_or(Ok(()), |refusal| Err(wire::status_from_refusal(&refusal)))
    }

    fn members_now(&self, applied: Members) -> v1::MembersResponse {
        let is_led = self.node.leadership().borrow().leader.is_some();
        v1::MembersResponse { is_led, ..wire::members_to(applied) }
    }
}

#[tonic::async_trait]
impl Operations for OperationsService {
    type BackupStream = ReceiverStream<Result<v1::BackupPiece, Status>>;

    async fn backup(&self, request: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        self.guard.require(request.metadata(), Need::Admin)?;
        let given = edge::given(request.metadata());
        let v1::BackupRequest { at_least, timeout_ms } = request.into_inner();
        let timeout_ms = edge::timeout_ms(timeout_ms, given);
        let timeout = if timeout_ms == 0 { WAIT_DEFAULT } else { Duration::from_millis(timeout_ms.into()).min(WAIT_MAX) };
        self.require_cluster()?;
        let backup = self.node.backup(at_least, timeout).await.map_err(|refusal| wire::status_from_refusal(&refusal))?;
        let (pieces, stream) = mpsc::channel(PIECES_AHEAD);
        tokio::spawn(send(backup, pieces));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type PurgeStream = ReceiverStream<Result<v1::PurgeProgress, Status>>;

    async fn purge(&self, request: Request<v1::PurgeRequest>) -> Result<Response<Self::PurgeStream>, Status> {
        self.guard.require(request.metadata(), Need::Admin)?;
        self.require_cluster()?;
        let (sender, stream) = mpsc::channel(PIECES_AHEAD);
        // Not the caller's: it continues to its end, heard or not.
        tokio::spawn(purge(self.node.clone(), sender));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Result<Response<v1::EventsResponse>, Status> {
        self.guard.require(request.metadata(), Need::Admin)?;
        let events = self.node.events().all();
        let events = events.into_iter().map(|event| v1::Event { at_ms: event.at_ms, kind: event.kind, detail: event.detail });
        Ok(Response::new(v1::EventsResponse { node: self.node.id().0, events: events.collect() }))
    }

    async fn members(&self, request: Request<v1::MembersRequest>) -> Result<Response<v1::MembersResponse>, Status> {
        self.guard.caller(request.metadata())?;
        self.require_cluster()?;
        // Nobody would be no answer: some are, and this node does not know them yet.
        let late = || Refusal::not_applied(RefusalKind::Unavailable, "this node has not applied the membership yet");
        let applied = self.node.applied_members_within(MEMBERS_WAIT).await.ok_or_else(|| wire::status_from_refusal(&late()))?;
        Ok(Response::new(self.members_now(applied)))
    }

    async fn change_members(&self, request: Request<v1::ChangeMembersRequest>) -> Result<Response<v1::MembersResponse>, Status> {
        self.guard.require(request.metadata(), Need::Admin)?;
        let given = edge::given(request.metadata());
        let v1::ChangeMembersRequest { timeout_ms, force, change } = request.into_inner();
        let timeout_ms = edge::timeout_ms(timeout_ms, given);
        let refused = |refusal: Refusal| wire::status_from_refusal(&refusal);
        let change = wire::member_change_from(change).map_err(refused)?;
        self.require_cluster()?;
        let applied = self.node.change_members(&change, force, within(timeout_ms)).await.map_err(refused)?;
        Ok(Response::new(self.members_now(applied)))
    }

    async fn hand_over(&self, request: Request<v1::HandOverRequest>) -> Result<Response<v1::HandOverResponse>, Status> {
        self.guard.require(request.metadata(), Need::Admin)?;
        let given = edge::given(request.metadata());
        let v1::HandOverRequest { to, timeout_ms } = request.into_inner();
        let timeout_ms = edge::timeout_ms(timeout_ms, given);
        let to = (to != 0).then_some(NodeId(to));
        self.require_cluster()?;
        let refused = |refusal: Refusal| wire::status_from_refusal(&refusal);
        let late = |_| refused(Refusal::unknown(RefusalKind::DeadlineExceeded, "no voter took over in time"));
        let handed = tokio::time::timeout(within(timeout_ms), self.node.transfer_leadership(to)).await.map_err(late)?;
        Ok(Response::new(v1::HandOverResponse { leader: handed.map_err(refused)?.0 }))
    }

    async fn finish_upgrade(
        &self,
        request: Request<v1::FinishUpgradeRequest>,
    ) -> Result<Response<v1::FinishUpgradeResponse>, Status> {
        self.guard.require(request.metadata(), Need::Admin)?;
        let given = edge::given(request.metadata());
        let timeout_ms = edge::timeout_ms(request.into_inner().timeout_ms, given);
        self.require_cluster()?;
        let refused = |refusal: Refusal| wire::status_from_refusal(&refusal);
        let late = |_| refused(Refusal::unknown(RefusalKind::DeadlineExceeded, "the cluster version did not rise in time"));
        let raised = tokio::time::timeout(within(timeout_ms), self.node.finish_upgrade()).await.map_err(late)?;
        Ok(Response::new(v1::FinishUpgradeResponse { cluster_version: raised.map_err(refused)?.into() }))
    }

    async fn clients(&self, request: Request<v1::ClientsRequest>) -> Result<Response<v1::ClientsResponse>, Status> {
        self.guard.require(request.metadata(), Need::Admin)?;
        let v1::ClientsRequest { filter, limit } = request.into_inner();
        self.require_cluster()?;
        let refused = |refusal: Refusal| wire::status_from_refusal(&refusal);
        let filter = Filter::from_message(filter).map_err(refused)?;
        let listed = clients::list(&self.node, &self.guard, &filter, limit as usize).await;
        Ok(Response::new(listed.map_err(refused)?))
    }

    async fn drop_clients(&self, request: Request<v1::DropClientsRequest>) -> Result<Response<v1::DropClientsResponse>, Status> {
        self.guard.require(request.metadata(), Need::Admin)?;
        let v1::DropClientsRequest { filter } = request.into_inner();
        self.require_cluster()?;
        let refused = |refusal: Refusal| wire::status_from_refusal(&refusal);
        let filter = Filter::from_message(filter).map_err(refused)?;
        let dropped = clients::drop_clients(&self.node, &self.guard, &filter).await;
        Ok(Response::new(dropped.map_err(refused)?))
    }
}

/// The caller's timeout, within bounds.
fn within(timeout_ms: u32) -> Duration {
    if timeout_ms == 0 { CHANGE_DEFAULT } else { Duration::from_millis(timeout_ms.into()).min(CHANGE_MAX) }
}

/// Erases, and reports its progress to its caller for as long as that listens.
async fn purge(node: Node, listener: mpsc::Sender<Result<v1::PurgeProgress, Status>>) {
    let hears = listener.clone();
    let progress = move |rows_done, rows_total| {
        // A listener that is behind hears of a later row.
        let _ = hears.try_send(Ok(v1::PurgeProgress { rows_done, rows_total, done: None }));
    };
    let last = match node.erase(progress).await {
        Ok(revision) => {
            tracing::info!(revision, "deleted data was erased from this node's disk");
            let done = Some(v1::purge_progress::Done { revision });
            Ok(v1::PurgeProgress { rows_done: 0, rows_total: 0, done })
        }
        Err(refusal) => Err(wire::status_from_refusal(&refusal)),
    };
    // It went away.
    let _ = tokio::time::timeout(STALL_TIMEOUT, listener.send(last)).await;
}

/// Ends with the backup, with its reader, or when the reader takes nothing.
async fn send(mut backup: Backup, pieces: mpsc::Sender<Result<v1::BackupPiece, Status>>) {
    let revision = backup.applied().index;
    loop {
        let piece = match backup.next_piece().await {
            Ok(None) => return,
            Ok(Some(data)) => {
                let (rows_done, rows_total) = backup.progress();
                Ok(v1::BackupPiece { data, rows_done, rows_total, revision })
            }
            Err(refusal) => Err(wire::status_from_refusal(&refusal)),
        };
        let failed = piece.is_err();
        match tokio::time::timeout(STALL_TIMEOUT, pieces.send(piece)).await {
            Ok(Ok(())) if !failed => {}
            Err(_) => return tracing::warn!(%revision, "a backup was given up: its reader takes nothing"),
            _ => return,
        }
    }
}
