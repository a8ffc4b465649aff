//! Whether content rows are what the metadata says: for backups, stopped nodes and the scrubber. The machine itself never reads them. Rows of
//! sessions that one entry created are distinguished (L48).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::places::Places;
use super::rows::Birth;
use super::session::{HeadMark, Session};
use super::{Machine, digest, rows};
use crate::types::{Revision, SessionId, chunk_hash};

/// Content rows as they were found, by session. Some 100 bytes for each; no content is kept.
#[derive(Default)]
pub struct Audit {
    contents: BTreeMap<Birth, Content>,
}

#[derive(Default, PartialEq, Eq)]
struct Content {
    head: HeadMark,
    chunks: u64,
    first: u64,
    next: u64,
    items: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    /// The number of the first item, where the rows say it.
    first_item: u64,
    /// Both kinds of hash: a session's metadata say which it has.
    fold: u64,
    sum: u64,
}

/// The content of all sessions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Chunks.
    pub chunks: u64,
    /// Bytes after unpacking.
    pub raw_bytes: u64,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// Contents that belong to no session: they take room and nothing else.
    pub orphans: u64,
}

/// A content row that is not what was written, or is missing. It names rows by the session's create_revision: ids are credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(String);

impl Audit {
    /// Takes a row of [`rows::HEADS`] or [`rows::CHUNKS`], in order of keys; others are ignored.
    ///
    /// Errors: it does not decode, its checksum does not match, or it is out of order.
    pub fn row(&mut self, table: u8, key: &[u8], value: &Bytes) -> Result<(), Damage> {
        match table {
            rows::HEADS => self.head(key, value),
            rows::CHUNKS => self.chunk(key, value),
            _ => Ok(()),
        }
    }

    fn head(&mut self, key: &[u8], value: &Bytes) -> Result<(), Damage> {
        let birth = rows::birth_of(rows::HEADS, key).ok_or_else(|| Damage("a head's key is malformed".into()))?;
        let damage = |what: &str| Damage(format!("a session's head is damaged: {what} {birth}"));
        let head = rows::decode_head(value).map_err(|error| damage(&error.to_string()))?;
        if !head.is_intact() {
            return Err(damage("the checksum does not match"));
        }
        self.contents.entry(birth).or_default().head = HeadMark::of(&head);
        Ok(())
    }

    fn chunk(&mut self, key: &[u8], value: &Bytes) -> Result<(), Damage> {
        let both = key.try_into().map(u128::from_be_bytes).map_err(|_| Damage("a chunk's key is malformed".into()))?;
        let (created, number) = ((both >> 64) as u64, both as u64);
        let damage = |what: &str| Damage(format!("a chunk is damaged: {what} create_revision={created} chunk={number}"));
        let rows::ChunkRow { chunk, first_item } = rows::decode_chunk(value).map_err(|error| damage(&error.to_string()))?;
        if !chunk.blob.is_intact() {
            return Err(damage("the checksum does not match"));
        }
        let content = self.contents.entry(Birth::of(Revision(created), number)).or_default();
        if content.chunks == 0 {
            content.first = number;
            content.first_item = first_item.unwrap_or_default();
        } else if content.next != number {
            return Err(damage("the one before it is missing"));
        }
        content.chunks += 1;
        content.next = number.saturating_add(1);
        content.items = content.items.saturating_add(chunk.item_count);
        content.raw_bytes = content.raw_bytes.saturating_add(chunk.blob.raw_bytes);
        content.stored_bytes = content.stored_bytes.saturating_add(chunk.blob.stored_bytes());
        let parts = [chunk.item_count, chunk.blob.raw_bytes, u64::from(chunk.blob.crc32c)];
        content.fold = parts.into_iter().fold(content.fold, digest::mix);
        // One that says no first item is none of a content whose hash is a sum.
        content.sum = content.sum.wrapping_add(chunk_hash(first_item.unwrap_or(u64::MAX), &chunk));
        Ok(())
    }

    /// Compares what was found of one session with `row`, its row of [`rows::SESSIONS`], and forgets it. For readers that go session by
    /// session. Errors: the row does not decode, or its content is missing or another one.
    pub fn finish_one(&mut self, row: &Bytes) -> Result<(), Damage> {
        let session: Session = rows::decode(rows::SESSIONS, row).map_err(|error| Damage(error.to_string()))?;
        self.take(&session).map(drop)
    }

    /// Takes what was found of one session, with what its last repack made; gives its chunks. Errors: it is missing, or another one.
    fn take(&mut self, session: &Session) -> Result<u64, Damage> {
        let own = self.contents.remove(&session.birth()).unwrap_or_default();
        let packed = session.packed_birth().and_then(|birth| self.contents.remove(&birth)).unwrap_or_default();
        match own.differs(&packed, session) {
            Some(what) => Err(Damage(format!("a session is damaged: {what} {}", session.birth()))),
            None => Ok(own.chunks + packed.chunks),
        }
    }

    /// Compares what was found with what the machine says. Errors: a session whose content is missing or another one.
    pub fn finish(mut self, machine: &Machine) -> Result<Totals, Damage> {
        let mut totals = Totals::default();
        for kept in machine.tables.sessions.values() {
            let session = &kept.value;
            totals.chunks += self.take(session)?;
            totals.raw_bytes = totals.raw_bytes.saturating_add(session.raw_bytes);
            totals.stored_bytes = totals.stored_bytes.saturating_add(session.stored_bytes);
        }
        totals.orphans = self.contents.len() as u64;
        Ok(totals)
    }
}

/// Where the content of a session lies: the name of its rows and the places of its chunks, by its row of [`rows::SESSIONS`].
///
/// Errors: the row does not decode.
pub fn content_of(row: &Bytes) -> Result<(Birth, Places), rows::Error> {
    let session: Session = rows::decode(rows::SESSIONS, row)?;
    if session.first_chunk > session.next_chunk {
        return Err(rows::Error { table: rows::SESSIONS, problem: rows::Problem::Contradiction });
    }
    Ok((session.birth(), session.places()))
}

/// The digest of a machine, from its rows alone.
pub struct RowsDigest {
    sum: u64,
    start: u64,
}

/// Of no rows: a new machine has none.
impl Default for RowsDigest {
    fn default() -> Self {
        Self { sum: 0, start: Machine::new().digest() }
    }
}

impl RowsDigest {
    /// Takes a row of [`rows::METADATA_TABLES`], in any order; others are ignored. Errors: the one row of [`rows::GLOBAL`] is damaged.
    pub fn row(&mut self, table: u8, key: &[u8], value: &Bytes) -> Result<(), rows::Error> {
        match table {
            rows::GLOBAL => {
                let global = rows::decode_global(value)?;
                self.start = digest::mix(u64::from(global.cluster_version), global.now_ms);
            }
            rows::HEADS | rows::CHUNKS => {}
            table if rows::METADATA_TABLES.contains(&table) => {
                self.sum = self.sum.wrapping_add(digest::row(table, key, value));
            }
            _ => {}
        }
        Ok(())
    }

    /// The digest: that of [`Machine::digest`] for a machine with these rows.
    pub fn finish(self) -> u64 {
        self.sum.wrapping_add(self.start)
    }
}

impl Machine {
    /// The session of this birth, if it still exists. Looks at all of them.
    pub fn born_as(&self, birth: Birth) -> Option<&SessionId> {
        let mut sessions = self.tables.sessions.iter();
        let is_its = |session: &Session| session.birth() == birth || session.packed_birth() == Some(birth);
        sessions.find(|(_, kept)| is_its(&kept.value)).map(|(id, _)| id)
    }
}

impl Content {
    /// The difference between a session and its content: the chunks of its numbers, behind those that its last repack made.
    fn differs(&self, packed: &Self, session: &Session) -> Option<&'static str> {
        if self.head != session.head {
            return Some("its head is missing or another one");
        }
        let own = session.chunk_count() - session.packed_chunks();
        let bounds = (self.chunks, self.next) == (own, session.next_chunk) && self.first == session.first_chunk;
        if (!bounds && (self.chunks, own) != (0, 0)) || (packed.chunks, packed.first) != (session.packed_chunks(), 0) {
            return Some("chunks are missing or left over");
        }
        let hash = if session.summed { packed.sum.wrapping_add(self.sum) } else { self.fold };
        let is_behind = !session.summed || self.chunks == 0 || self.first_item == packed.items;
        if (packed.items.saturating_add(self.items), hash) != (session.items, session.content_hash) || !is_behind {
            return Some("its chunks are others");
        }
        let sum = |parts: [u64; 3]| parts.into_iter().fold(0, u64::saturating_add);
        let raw_bytes = sum([packed.raw_bytes, self.raw_bytes, self.head.raw_bytes]);
        let stored_bytes = sum([packed.stored_bytes, self.stored_bytes, self.head.stored_bytes]);
        ((raw_bytes, stored_bytes) != (session.raw_bytes, session.stored_bytes)).then_some("its size is another one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Command, Effects, Entry, RowChange};
    use crate::types::{LogId, Nonce, Write};

    /// The scrubber must never take a whole state for a damaged one: also not one without rows.
    #[test]
    fn the_digest_of_rows_is_the_machines_from_the_first_entry_on() {
        let mut machine = Machine::new();
        assert_eq!(RowsDigest::default().finish(), machine.digest());
        let mut rows: BTreeMap<(u8, Bytes), Bytes> = BTreeMap::new();
        for index in 1..=3u64 {
            let log_id = LogId { term: 1, index, ..LogId::default() };
            let mut effects = Effects::default();
            if index == 2 {
                machine.skip(log_id, &mut effects);
            } else {
                let command = Command::Client(Write::OpenClient { nonce: Nonce([index as u8; 16]) });
                machine.apply(log_id, &Entry { stamp_ms: 1000 * index, command }, &mut effects);
            }
            machine.complete(&mut effects);
            for RowChange { table, key, value } in effects.rows {
                match value {
                    Some(value) => drop(rows.insert((table, key), value)),
                    None => drop(rows.remove(&(table, key))),
                }
            }
            let mut digest = RowsDigest::default();
            rows.iter().for_each(|((table, key), value)| digest.row(*table, key, value).unwrap());
            assert_eq!(digest.finish(), machine.digest(), "after {index}");
        }
    }
}
