//! The record of one session, and the effect of a change on it. Pure functions over one record.

use super::birth::Birth;
use super::digest;
use super::rules::Rules;
use crate::codec::{FORMAT, FORMAT_2, RowValue, fields};
use crate::limits::CREATION_CHUNKS;
use crate::mutant::{self, Mutant};
use crate::types::{
    Appended, Blob, Chunk, ChunkSum, Codec, ContentVersion, Counters, Form, Label, Repack, Revision, Saved, SessionInfo, TooLarge,
    Version, chunk_hash,
};

/// Tells heads apart without holding them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeadMark {
    /// Length after unpacking.
    pub raw_bytes: u64,
    /// Length as stored.
    pub stored_bytes: u64,
    /// Checksum of the stored bytes.
    pub crc32c: u32,
    /// Hash of codec and stored bytes, so that equality does not rest on 32 bits.
    pub hash: u64,
}

impl HeadMark {
    pub(crate) fn of(head: &Blob) -> Self {
        let codec = match head.codec {
            Codec::None => 0,
            Codec::Zstd => 1,
        };
        let hash = digest::bytes(codec, &head.data);
        Self { raw_bytes: head.raw_bytes, stored_bytes: head.stored_bytes(), crc32c: head.crc32c, hash }
    }
}

/// The metadata of one session. Its content is rows the machine never reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Session {
    /// The log index that created it; used by another session only if the same entry created both.
    pub create_revision: Revision,
    /// Counts writes, from the tombstone it replaced or 0.
    pub version: Version,
    /// The log index of the last write.
    pub mod_revision: Revision,
    /// Items in all chunks.
    pub items: u64,
    /// Bytes after unpacking, of chunks and head.
    pub raw_bytes: u64,
    /// Bytes as stored, of chunks and head.
    pub stored_bytes: u64,
    /// The smallest version whose items are a prefix of today's.
    pub append_only_since: Version,
    /// The last version that changed the head.
    pub head_since: Version,
    /// The head's identity.
    pub head: HeadMark,
    /// Additive counters.
    pub counters: Counters,
    /// The number of its first chunk that no repack made; those that one made come before it.
    pub first_chunk: u64,
    /// The next chunk's number; numbers never restart within a create_revision.
    pub next_chunk: u64,
    /// Of its chunks: the sum of their hashes ([`ChunkSum`]) if it is `summed`, else a fold over (item_count, raw_bytes, crc32c) of each.
    pub content_hash: u64,
    /// Machine time of the creation.
    pub created_ms: u64,
    /// Machine time of the last write.
    pub updated_ms: u64,
    /// Machine time it expires at.
    pub deadline_ms: Option<u64>,
    /// The form that the writer of the head declared; [`Session::form`] says what it is.
    pub declared: Form,
    /// Milliseconds that each write which stored something gives it to live, if it has an idle deadline.
    pub idle_ms: Option<u64>,
    /// Milliseconds that its tombstone stands; `None`: as long as the rules say.
    pub tombstone_ms: Option<u64>,
    /// The label that a writer set.
    pub label: Label,
    /// Whether its content hash is a sum, and each of its chunks' rows says its first item: the content was begun under version 2.
    pub summed: bool,
    /// The chunks that its last repack made.
    pub packed: Option<Box<Packed>>,
}

/// Chunks that a repack made: rows under its own revision, numbered from 0. They hold a session's first items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packed {
    /// The index of the repack's entry.
    pub revision: Revision,
    /// Chunks.
    pub chunks: u64,
    /// Their items.
    pub items: u64,
}

fields!(HeadMark { raw_bytes, stored_bytes, crc32c, hash });
fields!(Packed { revision, chunks, items });
fields!(Session {
    create_revision,
    version,
    mod_revision,
    items,
    raw_bytes,
    stored_bytes,
    append_only_since,
    head_since,
    head,
    counters,
    first_chunk,
    next_chunk,
    content_hash,
    created_ms,
    updated_ms,
    deadline_ms;
    format 2: declared, idle_ms, tombstone_ms, label, summed, packed
});

impl RowValue for Session {
    fn format(&self) -> u8 {
        let has_times = self.idle_ms.is_some() || self.tombstone_ms.is_some();
        // What is packed is summed.
        let is_plain = self.declared == Form::Unknown && self.label.is_empty() && !self.summed;
        if is_plain && !has_times { FORMAT } else { FORMAT_2 }
    }
}

/// The rest of a deleted or expired session: the next save continues its versions until its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// The version the delete or the expiry took.
    pub version: Version,
    /// Machine time it is forgotten at.
    pub deadline_ms: u64,
}

fields!(Tombstone { version, deadline_ms });

impl RowValue for Tombstone {}

/// Where and when a write happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Index of the entry.
    pub revision: Revision,
    /// Machine time.
    pub now_ms: u64,
    /// Which of the sessions that its entry creates a new one is, from 0.
    pub creation: u64,
    /// Whether a content that begins is hashed as a sum.
    pub sums: bool,
}

impl Session {
    /// A session with nothing in it, at the version before its first. Its chunks are numbered apart from those of the others that the entry
    /// creates, with which it shares its create_revision (L48).
    pub(crate) fn unborn(moment: Moment, tombstone: Version) -> Self {
        let first = if mutant::is(Mutant::CreationsShareARow) { 0 } else { moment.creation * CREATION_CHUNKS };
        Self {
            create_revision: moment.revision,
            version: tombstone,
            first_chunk: first,
            next_chunk: first,
            created_ms: moment.now_ms,
            summed: moment.sums,
            ..Self::default()
        }
    }

    /// Names its rows of content.
    pub(crate) fn birth(&self) -> Birth {
        Birth::of(self.create_revision, self.next_chunk)
    }

    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        self.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms)
    }

    /// The tombstone an expired session counts as, swept or not.
    pub(crate) fn tombstone_of_expired(&self, rules: &Rules) -> Tombstone {
        let expired_ms = self.deadline_ms.unwrap_or(u64::MAX);
        let mut tombstone = self.tombstone(expired_ms, rules);
        if mutant::is(Mutant::TombstoneTtlIgnored) {
            tombstone.deadline_ms = expired_ms.saturating_add(rules.tombstone_ttl_ms);
        }
        tombstone
    }

    /// The tombstone of a session that ended at a moment: it stands as long as the session says (L13).
    pub(crate) fn tombstone(&self, ended_ms: u64, rules: &Rules) -> Tombstone {
        let ttl_ms = self.tombstone_ms.unwrap_or(rules.tombstone_ttl_ms);
        Tombstone { version: self.version.next(), deadline_ms: ended_ms.saturating_add(ttl_ms) }
    }

    /// After appending: a delta on its base or on a newer state, or the first content of a new session.
    pub(crate) fn appended(&self, chunks: &[Chunk], head: Option<&Blob>, counters: &Counters, moment: Moment) -> Self {
        let mut next = self.stepped(moment);
        next.add_chunks(chunks);
        if let Some(head) = head {
            next.replace_head(head);
        }
        next.counters.add(counters);
        next
    }

    /// After a full change of an existing session: the old chunks' numbers are not used again.
    pub(crate) fn replaced(&self, chunks: &[Chunk], head: &Blob, counters: &Counters, moment: Moment) -> Self {
        let mut next = self.stepped(moment);
        next.first_chunk = self.next_chunk;
        (next.packed, next.summed) = (None, moment.sums);
        (next.items, next.raw_bytes, next.stored_bytes, next.content_hash) = (0, 0, 0, 0);
        next.head = HeadMark::default();
        next.append_only_since = next.version;
        next.counters = counters.clone();
        next.add_chunks(chunks);
        next.replace_head(head);
        next
    }

    /// After some of its chunks were packed again: the same content. `None`: the session is another, or what is brought is not as large as
    /// what goes, or the new chunks are no fewer (L49). Whether the rows to be replaced are what `old` says, the leader has looked.
    ///
    /// A content without a sum has no shares: it is replaced whole.
    pub(crate) fn repacked(&self, repack: &Repack, revision: Revision) -> Option<Self> {
        let Repack { first_chunk, until_chunk, old, chunks, .. } = repack;
        let new = ChunkSum::of(chunks);
        if !self.is_meant_by(repack) || first_chunk == until_chunk {
            return None;
        }
        let holds_the_same = (new.items, new.raw_bytes) == (old.items, old.raw_bytes) || mutant::is(Mutant::RepackWithOtherItems);
        let packed = chunks.len() as u64;
        let is_less =
            (1..self.packed_chunks() + (until_chunk - first_chunk)).contains(&packed) && new.stored_bytes <= old.stored_bytes;
        if !(holds_the_same && is_less && self.has_share(*old, self.next_chunk - until_chunk)) {
            return None;
        }
        let mut next = self.clone();
        next.items = self.items - old.items + new.items;
        next.raw_bytes = self.raw_bytes - old.raw_bytes + new.raw_bytes;
        next.stored_bytes = self.stored_bytes - old.stored_bytes + new.stored_bytes;
        let others = if self.summed { self.content_hash.wrapping_sub(old.hash) } else { 0 };
        next.content_hash = others.wrapping_add(new.hash);
        next.first_chunk = *until_chunk;
        (next.summed, next.packed) = (true, Some(Box::new(Packed { revision, chunks: packed, items: new.items })));
        Some(next)
    }

    /// Whether a repack is of this session, and of chunks that it has.
    pub(crate) fn is_meant_by(&self, repack: &Repack) -> bool {
        repack.create_revision == self.create_revision
            && repack.first_chunk == self.first_chunk
            && (self.first_chunk..=self.next_chunk).contains(&repack.until_chunk)
    }

    /// Whether it can hold this, with so many chunks behind it: all of it, if there are none.
    fn has_share(&self, old: ChunkSum, chunks_behind: u64) -> bool {
        let raw_bytes = self.raw_bytes - self.head.raw_bytes;
        let stored_bytes = self.stored_bytes - self.head.stored_bytes;
        if chunks_behind == 0 || !self.summed {
            let hash = if self.summed { self.content_hash } else { old.hash };
            return chunks_behind == 0 && old == ChunkSum { items: self.items, raw_bytes, stored_bytes, hash };
        }
        let items = self.items.checked_sub(old.items).is_some_and(|behind| behind >= chunks_behind);
        items && old.raw_bytes <= raw_bytes && old.stored_bytes <= stored_bytes
    }

    fn stepped(&self, moment: Moment) -> Self {
        Self { version: self.version.next(), mod_revision: moment.revision, updated_ms: moment.now_ms, ..self.clone() }
    }

    fn add_chunks(&mut self, chunks: &[Chunk]) {
        for chunk in chunks {
            self.content_hash = match self.summed {
                true => self.content_hash.wrapping_add(chunk_hash(self.items, chunk)),
                false => {
                    let parts = [chunk.item_count, chunk.blob.raw_bytes, u64::from(chunk.blob.crc32c)];
                    parts.into_iter().fold(self.content_hash, digest::mix)
                }
            };
            self.items = self.items.saturating_add(chunk.item_count);
            self.raw_bytes = self.raw_bytes.saturating_add(chunk.blob.raw_bytes);
            self.stored_bytes = self.stored_bytes.saturating_add(chunk.blob.stored_bytes());
        }
        self.next_chunk = self.next_chunk.saturating_add(chunks.len() as u64);
    }

    fn replace_head(&mut self, head: &Blob) {
        let mark = HeadMark::of(head);
        self.raw_bytes = self.raw_bytes.saturating_sub(self.head.raw_bytes).saturating_add(mark.raw_bytes);
        self.stored_bytes = self.stored_bytes.saturating_sub(self.head.stored_bytes).saturating_add(mark.stored_bytes);
        self.head = mark;
        self.head_since = self.version;
    }

    /// The form of its content: what has items is a transcript, whatever was declared.
    pub(crate) fn form(&self) -> Form {
        if self.items > 0 { Form::Transcript } else { self.declared }
    }

    /// Bytes of its label.
    pub(crate) fn label_bytes(&self) -> u64 {
        self.label.as_str().len() as u64
    }

    /// Chunks it holds.
    pub(crate) fn chunk_count(&self) -> u64 {
        self.packed_chunks() + (self.next_chunk - self.first_chunk)
    }

    /// The first bound it exceeds. Numbers that reach those of another creation are one too; nobody writes so many chunks.
    pub(crate) fn too_large(&self, rules: &Rules) -> Option<TooLarge> {
        if self.first_chunk / CREATION_CHUNKS != self.next_chunk / CREATION_CHUNKS {
            return Some(TooLarge::Chunks { now: CREATION_CHUNKS, limit: CREATION_CHUNKS - 1 });
        }
        let checks = [
            (TooLarge::StoredBytes { now: self.stored_bytes, limit: rules.session_stored_bytes_max }),
            (TooLarge::RawBytes { now: self.raw_bytes, limit: rules.session_raw_bytes_max }),
            (TooLarge::Items { now: self.items, limit: rules.session_items_max }),
            (TooLarge::Chunks { now: self.chunk_count(), limit: rules.session_chunks_max }),
        ];
        checks.into_iter().find(|check| {
            let (_, now, limit) = check.parts();
            now > limit
        })
    }

    fn content_version(&self) -> ContentVersion {
        let Self { version, create_revision, items, next_chunk, .. } = *self;
        ContentVersion { version, create_revision, items, next_chunk }
    }

    pub(crate) fn answer_saved(&self, rebased: bool) -> Saved {
        Saved { content: self.content_version(), rebased }
    }

    pub(crate) fn answer_appended(&self) -> Appended {
        Appended { content: self.content_version(), chunks: self.chunk_count(), counters: self.counters.clone() }
    }

    pub(crate) fn info(&self) -> SessionInfo {
        SessionInfo {
            create_revision: self.create_revision,
            version: self.version,
            mod_revision: self.mod_revision,
            items: self.items,
            first_chunk: self.first_chunk,
            next_chunk: self.next_chunk,
            chunks: self.chunk_count(),
            raw_bytes: self.raw_bytes,
            stored_bytes: self.stored_bytes,
            counters: self.counters.clone(),
            created_ms: self.created_ms,
            updated_ms: self.updated_ms,
            deadline_ms: self.deadline_ms,
            idle_ttl_ms: self.idle_ms,
            tombstone_ttl_ms: self.tombstone_ms,
            label: self.label.clone(),
            // The machine's other table has it.
            lease: None,
            // The machine knows its own time only; who answers knows today's.
            remaining_ms: None,
        }
    }
}
