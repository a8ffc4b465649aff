//! Backups of a running node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::context::NodeContext;
use crate::storage::backup::{Header, Writer};
use crate::types::{LogId, Refusal, RefusalKind};

/// When a second backup may be asked for again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A backup on its way out of this node. It pins the state as of one entry while it lives; a node makes one at a time.
pub struct Backup {
    context: Arc<NodeContext>,
    writer: Option<Writer>,
    applied: LogId,
    _only: OwnedSemaphorePermit,
}

impl Backup {
    /// Begins a backup that contains everything up to the entry `at_least`, waited for at most `timeout`. Cancel safe.
    ///
    /// Errors: another one is being made, the entry did not come in time, nothing was ever applied, or the disk failed.
    pub(super) async fn begin(
        context: Arc<NodeContext>,
        one_at_a_time: &Arc<Semaphore>,
        at_least: u64,
        timeout: Duration,
    ) -> Result<Self, Refusal> {
        let busy =
            || Refusal::not_applied(RefusalKind::Overloaded { retry_after: RETRY_AFTER }, "this node is making a backup already");
        let only = one_at_a_time.clone().try_acquire_owned().map_err(|_| busy())?;
        let unavailable = |why: String| Refusal::not_applied(RefusalKind::Unavailable, why);
        let wait = context.raft.wait(Some(timeout));
        let reached = wait.applied_index_at_least(Some(at_least), "backup").await;
        reached.map_err(|_| unavailable(format!("this node has not applied the entry in time revision={at_least}")))?;
        context.flush().await.map_err(|error| unavailable(error.to_string()))?;
        let state = context.state.clone();
        let snapshot = context.blocking.call(move || state.snapshot()).await.map_err(|error| unavailable(error.to_string()))?;
        let (Some(applied), Some(cluster)) = (snapshot.applied(), context.peers.cluster_id()) else {
            return Err(unavailable("there is nothing to back up before the cluster is formed".into()));
        };
        let header = Header {
            cluster,
            name: context.facts.name.clone(),
            node: context.me(),
            taken_ms: context.env.clock.wall_ms(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let writer = Some(Writer::new(snapshot, header));
        Ok(Self { context, writer, applied, _only: only })
    }

    /// The entry it ends at.
    pub fn applied(&self) -> LogId {
        self.applied
    }

    /// Rows read so far, and rows in all.
    pub fn progress(&self) -> (u64, u64) {
        self.writer.as_ref().map_or((0, 0), Writer::progress)
    }

    /// The file's next bytes, at most 1 MiB; `None` after the last. Dropping the future ends the backup.
    ///
    /// Errors: a row can't be read; what was written so far is no backup.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, Refusal> {
        let Some(mut writer) = self.writer.take() else { return Ok(None) };
        let (writer, piece) = self
            .context
            .blocking
            .call(move || {
                let piece = writer.next_piece();
                (writer, piece)
            })
            .await;
        let refused = |error: crate::storage::state::Error| {
            let kind = if error.is_final() { RefusalKind::Corrupt } else { RefusalKind::Unavailable };
            Refusal::not_applied(kind, error.to_string())
        };
        let piece = piece.map_err(refused)?;
        self.writer = piece.is_some().then_some(writer);
        Ok(piece)
    }
}
