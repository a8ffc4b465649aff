//! Records whose rows are not made yet.
//!
//! An outcome, the header of a client, or a session that changes again soon is marked; its row is made later, once for all changes until
//! then: of outcomes, most of which are closed by then, nearly none. Rows are made after every
//! [`digest_entries`](crate::limits::Intervals::digest_entries)th index, at [`MARKS_MAX`] marks, and when rows are frozen. When they are made
//! changes nothing but memory: no outcome, and not the digest (law L39).

use std::num::NonZeroU32;

use crate::limits::ROW_OVERHEAD_BYTES;
use crate::mutant::{self, Mutant};
use crate::types::{ClientId, Sequence, SessionId};

/// Rows are made once so many records are marked: making them all is one hold of the view lock.
pub(super) const MARKS_MAX: usize = 4096;

/// A marked record.
#[derive(Clone, Debug)]
pub(super) enum Marked {
    Session(SessionId),
    Client(ClientId),
    Outcome(ClientId, Sequence),
}

/// The state of one record's row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowState {
    /// The record's share in the digest of made rows; 0 while it is marked.
    pub hash: u64,
    /// Where among the marks it stands, counted from 1.
    mark: Option<NonZeroU32>,
    /// Whether a row of it was ever made: then its end is a deletion.
    pub is_made: bool,
}

impl RowState {
    /// Of a row that is there already.
    pub fn made(hash: u64) -> Self {
        Self { hash, mark: None, is_made: true }
    }

    /// Whether its row is to be made.
    pub fn is_marked(&self) -> bool {
        self.mark.is_some()
    }

    /// Whether its mark is the one at this place.
    pub fn is_at(&self, place: usize) -> bool {
        self.mark.is_some_and(|at| at.get() as usize == place + 1)
    }
}

/// The marked records, in the order they were marked.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    marks: Vec<Marked>,
    /// Bytes that their rows take at most, overhead included.
    bytes: u64,
}

impl Marks {
    /// Marks a record whose row may take so many bytes, key included; one that is marked already stays where it is. Answers the share it
    /// had in the digest of made rows, and has no more.
    pub fn mark(&mut self, row: &mut RowState, row_bytes: u64, marked: impl FnOnce() -> Marked) -> u64 {
        if !(row.is_marked() || row.is_made && mutant::is(Mutant::RowWithoutLastChange)) {
            self.marks.push(marked());
            self.bytes += if mutant::is(Mutant::MarksUncounted) { 0 } else { row_bytes + ROW_OVERHEAD_BYTES };
            row.mark = u32::try_from(self.marks.len()).ok().and_then(NonZeroU32::new);
        }
        std::mem::take(&mut row.hash)
    }

    /// The row of a record that is marked may take so many bytes more.
    pub fn grow(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    pub fn len(&self) -> usize {
        self.marks.len()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The marks, each with its place. Of a record that was removed, and perhaps marked again, the earlier mark means nothing.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Marked)> {
        self.marks.iter().enumerate()
    }
}
