//! A stopped node's files, read and never written: what is there, whether it is whole, and the sessions in it.

use std::path::Path;

use bytes::Bytes;

use super::backup::{RowVerifier, Summary};
use super::stopped_files::{Error, StoppedFiles, named};
use crate::limits::SESSION_STORED_BYTES_MAX;
use crate::machine::{Plan, rows};
use crate::raft::adapter::state_machine::RAFT_TABLE;
use crate::storage::identity::Identity;
use crate::storage::log;
use crate::types::{Consistency, Listed, Load, LoadedContent};

/// Most of one session's rows that is held, in bytes: what a session may have, and as much again for what each row adds.
const STORED_BYTES_MAX: u64 = 2 * SESSION_STORED_BYTES_MAX;

/// A stopped node's data directory. Holds its lock: no node can start from it meanwhile.
pub struct StoppedNode {
    files: StoppedFiles,
    log: log::Inspection,
}

impl StoppedNode {
    /// Takes the lock and reads identity, log and metadata. Blocking; it holds the metadata, no content.
    ///
    /// Errors: a node runs on it, it is no data directory, or one of the three is damaged.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let (files, log) = StoppedFiles::open(dir, |env, log| log::inspect(&*env.disk, log))?;
        Ok(Self { files, log })
    }

    /// The identity of its directory.
    pub fn identity(&self) -> &Identity {
        &self.files.identity
    }

    /// The content of its log.
    pub fn log(&self) -> &log::Inspection {
        &self.log
    }

    /// Length of the state's file, in bytes.
    pub fn state_bytes(&self) -> u64 {
        self.files.state.file_bytes()
    }

    /// Rows in the state.
    pub fn rows(&self) -> u64 {
        self.files.state.total()
    }

    /// The last entry in the state.
    pub fn applied(&self) -> Option<u64> {
        self.files.state.rows().applied().map(|applied| applied.index)
    }

    /// Sessions and tombstones by the metadata.
    pub fn counts(&self) -> crate::machine::Counts {
        self.files.machine.counts()
    }

    /// Reads every row and compares every session's content with its metadata. `progress` gets the rows. Blocking.
    ///
    /// Errors: the first damage.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<Summary, Error> {
        let mut verifier = RowVerifier::default();
        let tables: Vec<u8> = (0..=RAFT_TABLE).collect();
        for (done, row) in self.files.state.rows().table_range(&tables).enumerate() {
            let (table, key, value) = row.map_err(|error| named("state", error))?;
            verifier.take(table, &key, &value).map_err(|what| named("state", what))?;
            progress(done as u64);
        }
        let applied = self.files.state.rows().applied().unwrap_or_default();
        verifier.finish(&self.files.machine, applied).map_err(|what| named("state", what))
    }

    /// Sessions after the id `after`, at most `limit`, and whether more follow.
    pub fn list(&self, prefix: &str, after: Option<&str>, limit: u32) -> (Vec<Listed>, bool) {
        self.files.machine.list(prefix, after, limit)
    }

    /// One session's content; `None` if there is none. Blocking. Errors: it is damaged.
    pub fn load(&self, load: Load) -> Result<Option<LoadedContent>, Error> {
        let load = Load { consistency: Consistency::Stale, ..Load::whole(load.id) };
        let Plan::Read { info, places, chunks, .. } = self.files.machine.plan(&load) else { return Ok(None) };
        let created = info.create_revision;
        let read = |table, from: Bytes, until: Bytes| {
            self.files.state.range(table, &from, &until).map(|row| row.map_err(|error| named("state", error)))
        };
        let birth = rows::Birth::of(created, info.next_chunk);
        let mut stored = 0;
        let mut content = LoadedContent { info, chunks: Vec::new(), head: None };
        for row in places.keys(&chunks).into_iter().flat_map(|keys| read(rows::CHUNKS, keys.start, keys.end)) {
            let value = row?.2;
            stored += value.len() as u64;
            if stored > STORED_BYTES_MAX {
                return Err(named("state", format!("a session's content is too long create_revision={created}")));
            }
            content.chunks.push(rows::decode_chunk(&value).map_err(|error| named("state", error))?.chunk);
        }
        let head = rows::head_key(birth);
        let after = Bytes::from([&head[..], &[0]].concat());
        for row in read(rows::HEADS, head, after) {
            content.head = Some(rows::decode_head(&row?.2).map_err(|error| named("state", error))?);
        }
        let missing = content.head.is_none() || content.chunks.len() as u64 != chunks.end - chunks.start;
        if missing {
            return Err(named("state", format!("a session's content is missing create_revision={created}")));
        }
        Ok(Some(content))
    }
}
