//! The rest of a cluster whose majority is lost, in one node's files, and a new cluster made of it (law L38).
//!
//! Read from the stopped node's files, which are never written: the rows of its state, and on top of them every entry of its log. An
//! acknowledged write that this node had is in one of the two. The log's last entries may never have been acknowledged: no node is left
//! to tell, so they are kept. Writes that only the lost nodes had are lost.
//!
//! The new cluster has a new id, and its log begins far above everything this node has: revisions that the others may have used are
//! skipped, so that none is given twice.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use super::restore::{self, Error as RestoreError, Row, Target, require_empty};
use super::stopped_files::{Error, StoppedFiles, named};
use crate::codec;
use crate::env::Env;
use crate::limits::APPEND_BYTES_SOFT;
use crate::machine::{Counts, Effects, RowChange};
use crate::raft::adapter::state_machine::{RAFT_TABLE, RaftRow, raft_row};
use crate::raft::adapter::types::{RaftPayload, StoredMembership, log_id_to, members_of, payload_from_bytes, vote_from_bytes};
use crate::storage::backup;
use crate::storage::identity::Identity;
use crate::storage::log::{self, Log};
use crate::types::{LogId, Member};

/// Nothing is written to the old log, not even what closes it.
const NEVER: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// A stopped node's data, with its log applied. Holds the directory's lock: no node can start from it meanwhile.
pub struct Survivor {
    files: StoppedFiles,
    /// The rows of the state that the log changes; `None`: the row is gone.
    changed: BTreeMap<(u8, Bytes), Option<Bytes>>,
    membership: StoredMembership,
    flushed: LogId,
    last: LogId,
    term: u64,
    /// Of all sessions, once the log was applied.
    digest: u64,
}

/// The content of the survivor.
#[derive(Clone, Debug)]
pub struct Report {
    /// The last entry that the node's state held: known to be committed.
    pub flushed: LogId,
    /// The last entry of its log: those behind `flushed` may never have been acknowledged.
    pub last: LogId,
    /// The members it knew.
    pub members: Vec<Member>,
    /// The counts of kept rows.
    pub counts: Counts,
}

impl Survivor {
    /// Takes the lock, reads everything and applies the log. Blocking; it holds the metadata and what the log changes, some 100 MiB at
    /// most.
    ///
    /// Errors: a node runs on it, it never was part of a cluster, or something in it is damaged.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let options = log::Options { spare_segments: 0, idle_after: NEVER, ..log::Options::default() };
        let (files, log) = StoppedFiles::open(dir, |env, log| Log::open(env, log, options))?;
        let state = &files.state;
        let mut membership = StoredMembership::default();
        for row in state.rows().table_range(&[RAFT_TABLE]) {
            let (_, key, value) = row.map_err(|error| named("state", error))?;
            if let RaftRow::Membership(stored) = raft_row(&key, &value).map_err(|error| named("state", error))? {
                membership = stored;
            }
        }
        let position = log.position();
        // A snapshot may have come whose log was not cut or purged yet: what is behind it in an older term was never acknowledged.
        let Some(last) = position.last.max(state.rows().applied()) else {
            return Err(Error("this node never was part of a cluster: it has nothing".into()));
        };
        let vote = position.vote.map(|vote| vote_from_bytes(&vote)).transpose().map_err(|error| named("log", error))?;
        let term = vote.map_or(0, |vote| vote.leader_id.term).max(last.term);
        let flushed = state.rows().applied().unwrap_or_default();
        let changed = BTreeMap::new();
        let mut survivor = Self { files, changed, membership, flushed, last, term, digest: 0 };
        survivor.replay(&log)?;
        survivor.digest = survivor.files.machine.digest();
        Ok(survivor)
    }

    /// The identity of the node.
    pub fn identity(&self) -> &Identity {
        &self.files.identity
    }

    /// The content of the survivor.
    pub fn report(&self) -> Report {
        Report {
            flushed: self.flushed,
            last: self.last,
            members: members_of(&self.membership),
            counts: self.files.machine.counts(),
        }
    }

    /// A checksum over what a new cluster is made of here: of another node, or after another start, it is another one.
    pub fn checksum(&self) -> u32 {
        let identity = self.identity();
        let mut text = format!("{:?} {:?} {:?}", identity.cluster(), identity.instance(), self.last);
        text += &format!(" {} {:016x}", self.term, self.digest);
        backup::checksum(text.as_bytes())
    }

    /// Applies every entry of the log that the state does not hold.
    fn replay(&mut self, log: &Log) -> Result<(), Error> {
        let end = self.last.index + 1;
        let mut next = match self.files.state.rows().applied() {
            Some(applied) => applied.index + 1,
            None => log.first_index(),
        };
        while next < end {
            let records = log.read(next..end, APPEND_BYTES_SOFT).map_err(|error| named("log", error))?;
            if records.is_empty() {
                return Err(named("log", format!("an entry is missing index={next}")));
            }
            for record in records {
                next = record.log_id.index + 1;
                self.apply(record.log_id, record.payload).map_err(|what| named("log", format!("{what} index={}", next - 1)))?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, log_id: LogId, payload: Bytes) -> Result<(), String> {
        let (machine, mut effects) = (&mut self.files.machine, Effects::default());
        match payload_from_bytes(payload).map_err(|error| error.to_string())? {
            RaftPayload::Normal(payload) => {
                let entry = codec::decode(&payload.0, machine.cluster_version()).map_err(|error| error.to_string())?;
                machine.apply(log_id, &entry, &mut effects);
            }
            RaftPayload::Blank => machine.skip(log_id, &mut effects),
            RaftPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id_to(log_id)), membership);
                machine.skip(log_id, &mut effects);
            }
        }
        self.take(effects);
        Ok(())
    }

    fn take(&mut self, effects: Effects) {
        for RowChange { table, key, value } in effects.rows {
            self.changed.insert((table, key), value);
        }
    }

    /// All rows, as of the last entry.
    fn rows(&self) -> impl Iterator<Item = Result<Row, RestoreError>> + '_ {
        let tables: Vec<u8> = (0..=RAFT_TABLE).collect();
        let base = self.files.state.rows().table_range(&tables).map(|row| row.map_err(RestoreError::from));
        let unchanged =
            base.filter(|row| row.as_ref().map_or(true, |(table, key, _)| !self.changed.contains_key(&(*table, key.clone()))));
        let changed = self
            .changed
            .iter()
            .filter_map(|((table, key), value)| value.as_ref().map(|value| Ok((*table, key.clone(), value.clone()))));
        unchanged.chain(changed)
    }

    /// Writes the directory of one node of a new cluster. Blocking. To be called once for each node, in any order.
    ///
    /// Errors: see [`RestoreError`].
    pub fn write(&mut self, env: &Env, target: &Target) -> Result<(), RestoreError> {
        require_empty(env, &target.data_dir)?;
        let mut effects = Effects::default();
        self.files.machine.complete(&mut effects);
        self.take(effects);
        let last = LogId { term: self.term + 1, node: self.files.identity.node(), index: self.last.index };
        restore::write(env, target, last, self.rows())
    }
}
