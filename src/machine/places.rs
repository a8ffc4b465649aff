//! Where the chunks of a session lie.

use std::ops::Range;

use bytes::Bytes;

use super::rows::{self, Birth};
use super::session::{Packed, Session};
use crate::types::Revision;

/// The rows of a session's chunks by their *positions*, from 0: first those that its last repack made, then those with its numbers.
///
/// ```text
/// position   0 ........ m-1            m .................... m + next_chunk - first_chunk
/// row        (repack revision, 0..m)   (create_revision, first_chunk..next_chunk)
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The index of the repack's entry, and its chunks; none if their number is 0.
    packed: (Revision, u64),
    create_revision: Revision,
    numbers: Range<u64>,
}

impl Places {
    pub(super) fn of(session: &Session) -> Self {
        let packed = session.packed.as_ref().map_or((Revision(0), 0), |packed| (packed.revision, packed.chunks));
        Self { packed, create_revision: session.create_revision, numbers: session.first_chunk..session.next_chunk }
    }

    /// All positions, half-open.
    pub fn all(&self) -> Range<u64> {
        0..self.packed.1 + self.numbers.end.saturating_sub(self.numbers.start)
    }

    /// Whether the chunks of another are these, perhaps with more behind them.
    pub(super) fn begin_as(&self, other: &Self) -> bool {
        (self.packed, self.create_revision, self.numbers.start) == (other.packed, other.create_revision, other.numbers.start)
    }

    /// The position of a chunk of the session's own numbers; that of the first of them, for one before it.
    pub(super) fn of_number(&self, number: u64) -> u64 {
        self.packed.1 + number.saturating_sub(self.numbers.start)
    }

    /// The key of the chunk at a position.
    pub fn key(&self, position: u64) -> Bytes {
        let (revision, packed) = self.packed;
        match position.checked_sub(packed) {
            None => rows::chunk_key(revision, position),
            Some(own) => rows::chunk_key(self.create_revision, self.numbers.start.saturating_add(own)),
        }
    }

    /// The keys of the chunks at these positions: one or two half-open ranges.
    pub fn keys(&self, positions: &Range<u64>) -> Vec<Range<Bytes>> {
        let (revision, packed) = self.packed;
        let mut ranges = Vec::with_capacity(2);
        if positions.start < packed {
            let end = positions.end.min(packed);
            ranges.push(rows::chunk_key(revision, positions.start)..rows::chunk_key(revision, end));
        }
        if positions.end > packed || ranges.is_empty() {
            ranges.push(self.key(positions.start.max(packed))..self.key(positions.end.max(packed)));
        }
        ranges
    }

    /// Whether the chunk of this key is one that a repack made: it comes before all others, whatever the order of keys.
    pub fn is_packed(&self, key: &[u8]) -> bool {
        let (revision, packed) = self.packed;
        packed > 0 && key.starts_with(&revision.0.to_be_bytes())
    }
}

impl Session {
    /// Where its chunks lie.
    pub(crate) fn places(&self) -> Places {
        Places::of(self)
    }

    /// Names the rows of the chunks that its last repack made.
    pub(crate) fn packed_birth(&self) -> Option<Birth> {
        self.packed.as_deref().map(|packed| Birth { create_revision: packed.revision, creation: 0 })
    }

    /// Chunks that its last repack made.
    pub(crate) fn packed_chunks(&self) -> u64 {
        self.packed.as_deref().map_or(0, |Packed { chunks, .. }| *chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_chunks_come_first_and_are_found_by_their_own_revision() {
        let packed = Some(Box::new(Packed { revision: Revision(9), chunks: 2, items: 7 }));
        let session = Session { create_revision: Revision(3), first_chunk: 40, next_chunk: 43, packed, ..Session::default() };
        let places = session.places();
        let key = |revision, n| rows::chunk_key(Revision(revision), n);
        assert_eq!(places.all(), 0..5);
        assert_eq!((0..5).map(|at| places.key(at)).collect::<Vec<_>>(), [key(9, 0), key(9, 1), key(3, 40), key(3, 41), key(3, 42)]);
        assert_eq!(places.keys(&(0..5)), [key(9, 0)..key(9, 2), key(3, 40)..key(3, 43)]);
        assert_eq!(places.keys(&(1..2)), [key(9, 1)..key(9, 2)]);
        assert_eq!(places.keys(&(2..4)), [key(3, 40)..key(3, 42)]);
        assert_eq!(places.of_number(41), 3);
        assert!(places.is_packed(&key(9, 1)) && !places.is_packed(&key(3, 40)));
        let plain = Session { packed: None, ..session }.places();
        assert_eq!((plain.all(), plain.key(0), plain.keys(&(0..0))), (0..3, key(3, 40), vec![key(3, 40)..key(3, 40)]));
        assert!(!plain.is_packed(&key(0, 1)), "without a repack no revision is its");
    }
}
