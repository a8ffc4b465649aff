//! The `Operations` service on the client port: what operators ask of this one node. Every call needs the scope `admin`.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::auth::{Guard, Need};
use crate::raft::{Backup, Node};
use crate::wire::v1::operations_server::Operations;
use crate::wire::{self, v1};

/// How long an entry is waited for, where the caller does not say, and at most.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(60);
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
}

#[tonic::async_trait]
impl Operations for OperationsService {
    type BackupStream = ReceiverStream<Result<v1::BackupPiece, Status>>;

    async fn backup(&self, request: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        self.guard.require(request.metadata(), Need::Admin)?;
        let v1::BackupRequest { at_least, timeout_ms } = request.into_inner();
        let timeout = if timeout_ms == 0 { WAIT_DEFAULT } else { Duration::from_millis(timeout_ms.into()).min(WAIT_MAX) };
        let backup = self.node.backup(at_least, timeout).await.map_err(|refusal| wire::status_from_refusal(&refusal))?;
        let (pieces, stream) = mpsc::channel(PIECES_AHEAD);
        tokio::spawn(send(backup, pieces));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Result<Response<v1::EventsResponse>, Status> {
        self.guard.require(request.metadata(), Need::Admin)?;
        let events = self.node.events().all();
        let events = events.into_iter().map(|event| v1::Event { at_ms: event.at_ms, kind: event.kind, detail: event.detail });
        Ok(Response::new(v1::EventsResponse { node: self.node.id().0, events: events.collect() }))
    }
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
