//! Backups of a running node, and what a backup file holds.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Member;
use super::adapter::state_machine::{RAFT_TABLE, RaftRow, raft_row};
use super::adapter::types::{StoredMembership, members_of};
use super::context::NodeContext;
use crate::machine::audit::{Audit, Totals};
use crate::machine::{Machine, rows};
use crate::storage::backup::{Error, Header, Reader, Writer};
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

/// What a whole, verified backup or state holds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The last entry in it.
    pub applied: LogId,
    /// Cluster version in force.
    pub cluster_version: u16,
    /// Machine time, in milliseconds since the Unix epoch.
    pub machine_time_ms: u64,
    /// Sessions, expired ones that are not swept included.
    pub sessions: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Clients.
    pub clients: u64,
    /// Rows.
    pub rows: u64,
    /// What the sessions hold.
    pub totals: Totals,
    /// The members.
    pub members: Vec<Member>,
}

/// Sorts rows as they come: metadata is for the machine, content for the audit, the membership for itself.
#[derive(Default)]
pub(super) struct Sorter {
    audit: Audit,
    membership: StoredMembership,
    rows: u64,
}

impl Sorter {
    /// Whether the row is one of the machine's. Errors: what is wrong with it.
    pub fn take(&mut self, table: u8, key: &Bytes, value: &Bytes) -> Result<bool, String> {
        self.rows += 1;
        if table == RAFT_TABLE {
            if let RaftRow::Membership(membership) = raft_row(key, value).map_err(|error| error.to_string())? {
                self.membership = membership;
            }
            return Ok(false);
        }
        self.audit.row(table, key, value).map_err(|damage| damage.to_string())?;
        Ok(rows::METADATA_TABLES.contains(&table))
    }

    /// All rows were taken. Errors: a session without its content.
    pub fn finish(self, machine: &Machine, applied: LogId) -> Result<Summary, String> {
        let totals = self.audit.finish(machine).map_err(|damage| damage.to_string())?;
        machine.check().map_err(|broken| broken.to_string())?;
        let counts = machine.counts();
        Ok(Summary {
            applied,
            cluster_version: machine.cluster_version(),
            machine_time_ms: machine.now_ms(),
            sessions: counts.sessions,
            tombstones: counts.tombstones,
            clients: counts.clients,
            rows: self.rows,
            totals,
            members: members_of(&self.membership),
        })
    }
}

enum BuildError {
    Backup(Error),
    Row(rows::Error),
}

impl From<rows::Error> for BuildError {
    fn from(error: rows::Error) -> Self {
        Self::Row(error)
    }
}

/// Reads a whole backup, verifies every record, and every session's content against its metadata. Blocking; it holds the metadata.
///
/// `progress` gets the bytes read. Errors: the first damage, with record and offset.
pub fn verify<R: Read>(reader: &mut Reader<R>, mut progress: impl FnMut(u64)) -> Result<Summary, Error> {
    let applied = reader.applied()?;
    let mut sorter = Sorter::default();
    let machine = Machine::from_rows(std::iter::from_fn(|| {
        loop {
            let (table, key, value) = match reader.next()? {
                Ok(row) => row,
                Err(error) => return Some(Err(BuildError::Backup(error))),
            };
            progress(reader.offset());
            match sorter.take(table, &key, &value) {
                Ok(true) => return Some(Ok((table, key, value))),
                Ok(false) => {}
                Err(what) => return Some(Err(BuildError::Backup(reader.damaged(what)))),
            }
        }
    }));
    let machine = machine.map_err(|error| match error {
        BuildError::Backup(error) => error,
        BuildError::Row(error) => reader.damaged(error),
    })?;
    if machine.applied() != Some(applied) {
        return Err(reader.damaged(format!("its rows end at another entry found={:?} announced={applied}", machine.applied())));
    }
    sorter.finish(&machine, applied).map_err(|what| reader.damaged(what))
}
