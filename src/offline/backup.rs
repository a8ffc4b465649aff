//! The content of a backup file, and whether the file is whole.

use std::io::Read;

use bytes::Bytes;

use crate::machine::audit::{Audit, Totals};
use crate::machine::{BuildError, Machine, rows};
use crate::raft::adapter::state_machine::{RAFT_TABLE, RaftRow, raft_row};
use crate::raft::adapter::types::{StoredMembership, members_of};
use crate::storage::backup::{Error, Reader};
use crate::types::{LogId, Member};

/// The content of a whole, verified backup or state.
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
    /// The content of the sessions.
    pub totals: Totals,
    /// The members.
    pub members: Vec<Member>,
}

/// Verifies rows as they come: metadata is for the machine, content for the audit, the membership for itself.
#[derive(Default)]
pub(super) struct RowVerifier {
    audit: Audit,
    membership: StoredMembership,
    rows: u64,
}

impl RowVerifier {
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

/// Reads a whole backup, verifies every record, and every session's content against its metadata. Blocking; it holds the metadata.
///
/// `progress` gets the bytes read. Errors: the first damage, with record and offset.
pub fn verify<R: Read>(reader: &mut Reader<R>, mut progress: impl FnMut(u64)) -> Result<Summary, Error> {
    let applied = reader.applied()?;
    let mut verifier = RowVerifier::default();
    let machine = Machine::from_rows(std::iter::from_fn(|| {
        loop {
            let (table, key, value) = match reader.next()? {
                Ok(row) => row,
                Err(error) => return Some(Err(BuildError::Source(error))),
            };
            progress(reader.offset());
            match verifier.take(table, &key, &value) {
                Ok(true) => return Some(Ok((table, key, value))),
                Ok(false) => {}
                Err(what) => return Some(Err(BuildError::Source(reader.damaged(what)))),
            }
        }
    }));
    let machine = machine.map_err(|error| match error {
        BuildError::Source(error) => error,
        BuildError::Row(error) => reader.damaged(error),
    })?;
    if machine.applied() != Some(applied) {
        return Err(reader.damaged(format!("its rows end at another entry found={:?} announced={applied}", machine.applied())));
    }
    verifier.finish(&machine, applied).map_err(|what| reader.damaged(what))
}
