//! The rows the machine is rebuilt from: tables, keys, values.
//!
//! ```text
//! table       key                                   value
//! GLOBAL      "global"                              applied, machine time, cluster version
//! SESSIONS    session id                            metadata
//! CLIENTS     client: u64                           nonce, acknowledged_below, deadline
//! OUTCOMES    client: u64, sequence: u64            outcome
//! TOMBSTONES  session id                            version, deadline
//! HEADS       create_revision: u64, and k: u64 > 0  head
//! CHUNKS      create_revision: u64, n: u64          chunk, and its first item in sessions begun under version 2
//!             repack revision: u64, 0..m            chunk that a repack made: the session's first ones, before those with its numbers
//! LEASES      session id                            fence, holder, deadline
//! ```
//!
//! Sessions that one entry creates share their create_revision: the k-th of them, from 0, numbers its chunks from k · 2^40, and has k in the
//! key of its head where it is not 0 (law L48).
//!
//!
//! Numbers in keys are big-endian: the order of keys is the order of what they mean. Values start with a format byte.

use std::fmt;

use bytes::Bytes;

pub use super::birth::Birth;
use super::invariants::Broken;
pub(crate) use crate::codec::encode_row as encode;
use crate::codec::{self, BorrowDecode, FORMAT, FORMAT_2, RowValue, Source, fields};
use crate::types::{Blob, Chunk, ClientId, Lease, LogId, Nonce, OutOfRange, Revision, Sequence, SessionId};

/// Machine time, cluster version, the last entry applied.
pub const GLOBAL: u8 = 0;
/// Metadata of sessions.
pub const SESSIONS: u8 = 1;
/// Headers of the client table.
pub const CLIENTS: u8 = 2;
/// Recorded outcomes of open sequences.
pub const OUTCOMES: u8 = 3;
/// Tombstones.
pub const TOMBSTONES: u8 = 4;
/// Heads.
pub const HEADS: u8 = 5;
/// Chunks.
pub const CHUNKS: u8 = 6;
/// Leases. Since cluster version 2.
pub const LEASES: u8 = 7;
/// The tables the machine holds in memory, in the order it is rebuilt from them.
pub const METADATA_TABLES: [u8; 6] = [GLOBAL, SESSIONS, CLIENTS, OUTCOMES, TOMBSTONES, LEASES];

/// Tables whose rows are put, deleted and read by key, many of them between two flushes.
pub const POINT_LOOKUP_TABLES: [u8; 2] = [SESSIONS, HEADS];

/// A table's name in reports; a number this release does not know is `other`.
pub fn table_name(table: u8) -> &'static str {
    const NAMES: [&str; 8] = ["global", "sessions", "clients", "outcomes", "tombstones", "heads", "chunks", "leases"];
    NAMES.get(usize::from(table)).unwrap_or(&"other")
}

/// Whether a key of this table is put at most once, ever: a sequence is answered once, and chunk numbers never restart.
pub fn is_put_once(table: u8) -> bool {
    matches!(table, OUTCOMES | CHUNKS)
}

/// A change of one row. Within one [`Effects`] no row is changed twice.
#[derive(Clone, PartialEq, Eq)]
pub struct RowChange {
    /// The table.
    pub table: u8,
    /// The row's key.
    pub key: Bytes,
    /// The row's new value; `None` deletes it.
    pub value: Option<Bytes>,
}

/// A row holds ids and content: only sizes are printed.
impl fmt::Debug for RowChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_ref().map(Bytes::len);
        write!(f, "RowChange(table {}, key of {} bytes, value of {value:?} bytes)", self.table, self.key.len())
    }
}

/// The rows one entry changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// In no particular order.
    pub rows: Vec<RowChange>,
}

impl Effects {
    pub(crate) fn put(&mut self, table: u8, key: Bytes, value: Bytes) {
        self.rows.push(RowChange { table, key, value: Some(value) });
    }

    pub(crate) fn delete(&mut self, table: u8, key: Bytes) {
        self.rows.push(RowChange { table, key, value: None });
    }
}

/// Why a row can't be read: damage, or a later release's format. Nothing changed; the node that has it must not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The row's table.
    pub table: u8,
    /// The problem.
    pub problem: Problem,
}

/// A problem with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The key has the wrong length or is no UTF-8.
    Key,
    /// The value can't be decoded.
    Value(codec::Error),
    /// No such table.
    Table,
    /// A number in it is none that a machine counts to.
    OutOfRange(OutOfRange),
    /// The row contradicts another: an outcome without its client, two rows for one nonce, a tombstone of a live session.
    Contradiction,
    /// The row, alone or with others, breaks an invariant of every machine; it says which, and both sides.
    Invariant(Broken),
    /// The value is not written as this release writes it: it would count for another digest than on other nodes.
    NotCanonical {
        /// Its bytes.
        found: usize,
        /// Those of the same value as this release writes it.
        canonical: usize,
    },
    /// The row was written under a cluster version this release does not know.
    ClusterVersion {
        /// That version.
        version: u16,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table;
        match &self.problem {
            Problem::Key => write!(f, "row has a malformed key table={table}"),
            Problem::Value(error) => write!(f, "row can't be decoded table={table} error={error}"),
            Problem::Table => write!(f, "row of an unknown table table={table}"),
            Problem::OutOfRange(error) => write!(f, "row can't be of any machine table={table} {error}"),
            Problem::Contradiction => write!(f, "row contradicts another table={table}"),
            Problem::Invariant(broken) => write!(f, "row can't be of any machine table={table} {broken}"),
            Problem::NotCanonical { found, canonical } => {
                write!(f, "row is written unlike this release writes it table={table} bytes={found} canonical={canonical}")
            }
            Problem::ClusterVersion { version } => write!(f, "row of an unknown cluster version table={table} version={version}"),
        }
    }
}

impl std::error::Error for Error {}

/// The one row of [`GLOBAL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Global {
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// Machine time, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The cluster version in force.
    pub cluster_version: u16,
}

fields!(Global { applied, now_ms, cluster_version });

impl RowValue for Global {}

/// The header of one client's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientHeader {
    pub nonce: Nonce,
    pub acknowledged_below: Sequence,
    pub deadline_ms: u64,
}

fields!(ClientHeader { nonce, acknowledged_below, deadline_ms });

impl RowValue for ClientHeader {}

fields!(Lease { fence, holder, deadline_ms });

impl RowValue for Lease {
    fn format(&self) -> u8 {
        FORMAT_2
    }
}

/// The key of chunk `n` of the session created at `create_revision`.
pub fn chunk_key(create_revision: Revision, n: u64) -> Bytes {
    pair_key(create_revision.0, n)
}

/// The key of a session's head.
pub fn head_key(birth: Birth) -> Bytes {
    match birth.creation {
        0 => Bytes::copy_from_slice(&birth.create_revision.0.to_be_bytes()),
        creation => pair_key(birth.create_revision.0, creation),
    }
}

/// The session whose content a row of [`HEADS`] or [`CHUNKS`] is, by the row's key; `None`: the key is malformed.
pub fn birth_of(table: u8, key: &[u8]) -> Option<Birth> {
    let create_revision = Revision(u64::from_be_bytes(*key.first_chunk()?));
    let second = || Some(u64::from_be_bytes(key.get(8..)?.try_into().ok()?));
    match (table, key.len()) {
        (HEADS, 8) => Some(Birth { create_revision, creation: 0 }),
        (HEADS, _) => Some(Birth { create_revision, creation: second().filter(|creation| *creation > 0)? }),
        _ => Some(Birth::of(create_revision, second()?)),
    }
}

/// The key of the one row of [`GLOBAL`].
pub fn global_key() -> Bytes {
    Bytes::from_static(b"global")
}

/// A row of [`CHUNKS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// The chunk.
    pub chunk: Chunk,
    /// The number of its first item in its session; `None` in sessions that were begun under version 1.
    pub first_item: Option<u64>,
}

fields!(ChunkRow { chunk; format 2: first_item });

impl RowValue for ChunkRow {
    fn format(&self) -> u8 {
        if self.first_item.is_none() { FORMAT } else { FORMAT_2 }
    }
}

pub(crate) fn encode_chunk(first_item: Option<u64>, chunk: &Chunk) -> Bytes {
    encode(&ChunkRow { chunk: chunk.clone(), first_item })
}

/// Decodes a chunk row's value, a slice of `value`. The checksum is the caller's to verify. Errors: [`Error`], the row is damaged.
pub fn decode_chunk(value: &Bytes) -> Result<ChunkRow, Error> {
    decode(CHUNKS, value)
}

/// Decodes a head row's value, a slice of `value`. The checksum is the caller's to verify. Errors: [`Error`], the row is damaged.
pub fn decode_head(value: &Bytes) -> Result<Blob, Error> {
    decode(HEADS, value)
}

/// Decodes the value of the one row of [`GLOBAL`]. Errors: [`Error`], the row is damaged.
pub fn decode_global(value: &Bytes) -> Result<Global, Error> {
    decode(GLOBAL, value)
}

/// Encodes the value of the one row of [`GLOBAL`]; a restore writes its own.
pub fn encode_global(global: &Global) -> Bytes {
    encode(global)
}

pub(crate) fn decode<T: RowValue + for<'de, 'c> BorrowDecode<'de, Source<'c>>>(table: u8, value: &Bytes) -> Result<T, Error> {
    codec::decode_row(value).map_err(|error| Error { table, problem: Problem::Value(error) })
}

pub(crate) fn session_key(id: &SessionId) -> Bytes {
    Bytes::copy_from_slice(id.as_str().as_bytes())
}

pub(crate) fn client_key(client: ClientId) -> Bytes {
    Bytes::copy_from_slice(&client.0.to_be_bytes())
}

pub(crate) fn outcome_key(client: ClientId, sequence: Sequence) -> Bytes {
    pair_key(client.0, sequence.0)
}

pub(crate) fn decode_session_key(table: u8, key: &[u8]) -> Result<SessionId, Error> {
    let id = std::str::from_utf8(key).ok().and_then(|id| SessionId::new(id).ok());
    id.ok_or(Error { table, problem: Problem::Key })
}

pub(crate) fn decode_client_key(key: &[u8]) -> Result<ClientId, Error> {
    let number = key.try_into().map_err(|_| Error { table: CLIENTS, problem: Problem::Key })?;
    Ok(ClientId(u64::from_be_bytes(number)))
}

pub(crate) fn decode_outcome_key(key: &[u8]) -> Result<(ClientId, Sequence), Error> {
    let both: [u8; 16] = key.try_into().map_err(|_| Error { table: OUTCOMES, problem: Problem::Key })?;
    let both = u128::from_be_bytes(both);
    Ok((ClientId((both >> 64) as u64), Sequence(both as u64)))
}

fn pair_key(first: u64, second: u64) -> Bytes {
    let both = (u128::from(first) << 64) | u128::from(second);
    Bytes::copy_from_slice(&both.to_be_bytes())
}
