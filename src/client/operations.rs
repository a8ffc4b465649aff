//! Operators' questions to one node: answered without a quorum, by the first endpoint that can be reached.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tonic::Streaming;

use super::Error;
use super::ask::first_answer;
use super::config::Config;
use super::driver::connection::Broken;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::types::{NodeId, Revision};
use crate::wire::v1;
use crate::wire::v1::operations_client::OperationsClient;

/// A server that sends nothing for so long is given up.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a node may take to tell its events.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(5);

/// A backup on its way from a node.
pub struct Backup {
    pieces: Streaming<v1::BackupPiece>,
    endpoint: String,
}

/// Consecutive bytes of a backup file.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupPiece {
    /// The bytes, at most 1 MiB.
    pub data: Bytes,
    /// Rows read so far.
    pub rows_done: u64,
    /// Rows in all.
    pub rows_total: u64,
    /// The last entry the backup contains.
    pub revision: Revision,
}

/// Content is what users entrusted to us: only its size is printed.
impl fmt::Debug for BackupPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupPiece({} bytes, rows {} of {})", self.data.len(), self.rows_done, self.rows_total)
    }
}

impl Backup {
    /// The node it comes from.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The next bytes; `None` after the last, and only then is the file whole. Dropping the future loses nothing.
    ///
    /// Errors: the connection broke or the node can't read its state: what came so far is no backup.
    pub async fn next(&mut self) -> Result<Option<BackupPiece>, Error> {
        let silent = || Error::refused(format!("the node sends nothing any more address={}", self.endpoint));
        let piece = tokio::time::timeout(PIECE_TIMEOUT, self.pieces.message()).await.map_err(|_| silent())?;
        let piece = piece.map_err(|status| Error::from_refusal(Broken::of_status(&self.endpoint, &status).refusal))?;
        Ok(piece.map(|piece| {
            let v1::BackupPiece { data, rows_done, rows_total, revision } = piece;
            BackupPiece { data, rows_done, rows_total, revision: Revision(revision) }
        }))
    }
}

/// A purge on its way on one node.
pub struct Purge {
    messages: Streaming<v1::PurgeProgress>,
    endpoint: String,
}

/// How far a purge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PurgeProgress {
    /// So many rows of the state are in a new file.
    Rows {
        /// So many.
        done: u64,
        /// All of them.
        total: u64,
    },
    /// Everything that was deleted before this revision is gone from that node's disk.
    Done(Revision),
}

impl Purge {
    /// The next progress; none after [`PurgeProgress::Done`]. Dropping the future loses nothing.
    ///
    /// Errors: the node could not end it, or the connection broke: ask again, it begins from the start. Nothing stored is lost.
    pub async fn next(&mut self) -> Result<PurgeProgress, Error> {
        let broken = |status| Error::from_refusal(Broken::of_status(&self.endpoint, &status).refusal);
        let ended = || Error::refused(format!("the node ended before the purge did; ask again address={}", self.endpoint));
        let message = self.messages.message().await.map_err(broken)?.ok_or_else(ended)?;
        Ok(match message.done {
            Some(v1::purge_progress::Done { revision }) => PurgeProgress::Done(Revision(revision)),
            None => PurgeProgress::Rows { done: message.rows_done, total: message.rows_total },
        })
    }
}

/// One node's memory of its past.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeEvents {
    /// The node.
    pub node: NodeId,
    /// Its last 1 000 events, oldest first.
    pub events: Vec<NodeEvent>,
}

/// Something that happened on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeEvent {
    /// The node's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// One word, e.g. `leader`. New ones may come.
    pub kind: String,
    /// For people.
    pub detail: String,
}

impl NodeEvent {
    /// An event, as tests of code that reads them need it.
    pub fn new(at_ms: u64, kind: &str, detail: &str) -> Self {
        Self { at_ms, kind: kind.to_owned(), detail: detail.to_owned() }
    }
}

pub(super) async fn events(config: &Config) -> Result<NodeEvents, Error> {
    let ask = |link| async { OperationsClient::new(link).events(v1::EventsRequest {}).await };
    let (v1::EventsResponse { node, events }, _) = first_answer(config, EVENTS_TIMEOUT, ask).await?;
    let event = |v1::Event { at_ms, kind, detail }| NodeEvent { at_ms, kind, detail };
    Ok(NodeEvents { node: NodeId(node), events: events.into_iter().map(event).collect() })
}

pub(super) async fn purge(config: &Config) -> Result<Purge, Error> {
    let begin = |link| async { OperationsClient::new(link).purge(v1::PurgeRequest {}).await };
    let (messages, endpoint) = first_answer(config, EVENTS_TIMEOUT, begin).await?;
    Ok(Purge { messages, endpoint })
}

pub(super) async fn backup(config: &Config, at_least: Revision, timeout: Duration) -> Result<Backup, Error> {
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    let begin = |link| async move {
        let mut client = OperationsClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX as usize);
        client.backup(v1::BackupRequest { at_least: at_least.0, timeout_ms }).await
    };
    // The node itself keeps to the timeout; this is for one that answers nothing.
    let (pieces, endpoint) = first_answer(config, timeout + PIECE_TIMEOUT, begin).await?;
    Ok(Backup { pieces, endpoint })
}
