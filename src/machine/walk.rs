//! The walk over a session's chunks to those that hold certain items. A chunk's row says how many items it holds, not which: they are
//! counted from the end of the session that is nearer.

use std::ops::Range;

use super::session::Session;
use crate::mutant::{self, Mutant};
use crate::types::Part;

/// A walk over the chunks of one session. The caller reads the row of [`Walk::next_chunk`], says by [`Walk::step`] how many items it
/// holds, and keeps it if that is answered so.
///
/// ```text
/// items   0 ........ wanted.start ···· wanted.end ........ items
/// chunks  [--][-----][-------][--][------][--][-----][-------]
///          forwards: counts from 0  ->
///                                            <-  backwards: counts from `items`
/// ```
///
/// Every chunk holds an item at least, so it takes no more steps than there are items from its start to the far end of the wanted ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Items wanted, half-open.
    wanted: Range<u64>,
    /// Chunks that were not stepped over, half-open. Others are not needed.
    chunks: Range<u64>,
    /// Items before the next chunk, or, backwards, up to its end.
    position: u64,
    is_backwards: bool,
    /// The first item of the chunks kept.
    first_item: Option<u64>,
}

impl Walk {
    pub(super) fn new(session: &Session, part: Part) -> Self {
        let wanted = part.items(session.items);
        let Range { start, end } = wanted;
        let to_end = session.items - start;
        let is_backwards = to_end <= end;
        let (first, next) = (session.first_chunk, session.next_chunk);
        let (chunks, position) = match is_backwards {
            true => (next.saturating_sub(to_end).max(first)..next, session.items),
            false => (first..first.saturating_add(end).min(next), 0),
        };
        Self { wanted, chunks, position, is_backwards, first_item: None }
    }

    /// The chunks that may be needed, half-open.
    pub fn chunks(&self) -> Range<u64> {
        self.chunks.clone()
    }

    /// Whether later chunks come first.
    pub fn is_backwards(&self) -> bool {
        self.is_backwards
    }

    /// The chunk to read next. `None`: nothing more is needed, or nothing is left; see [`Walk::is_done`].
    pub fn next_chunk(&self) -> Option<u64> {
        match self.is_backwards {
            _ if self.is_done() || self.chunks.is_empty() => None,
            true => Some(self.chunks.end - 1),
            false => Some(self.chunks.start),
        }
    }

    /// Steps over that chunk; gives whether it holds a wanted item. `None`: it can't hold so many, it is damaged.
    pub fn step(&mut self, item_count: u64) -> Option<bool> {
        let items = if self.is_backwards {
            self.chunks.end -= 1;
            self.position.checked_sub(item_count)?..self.position
        } else {
            self.chunks.start += 1;
            self.position..self.position.checked_add(item_count)?
        };
        self.position = if self.is_backwards { items.start } else { items.end };
        let is_wanted = items.start < self.wanted.end && self.wanted.start < items.end;
        if is_wanted && (self.is_backwards || self.first_item.is_none()) {
            self.first_item = Some(items.start);
        }
        Some(is_wanted)
    }

    /// Whether all wanted items were stepped over.
    pub fn is_done(&self) -> bool {
        let late = u64::from(mutant::is(Mutant::SuffixBeginsLate));
        match self.is_backwards {
            _ if self.wanted.is_empty() => true,
            true => self.position <= self.wanted.start + late,
            false => self.position >= self.wanted.end,
        }
    }

    /// The number of the first item of the chunks kept; without any, of the first wanted.
    pub fn first_item(&self) -> u64 {
        self.first_item.unwrap_or(self.wanted.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chunks of 3, 1, 4 and 2 items, numbered from 10.
    const COUNTS: [u64; 4] = [3, 1, 4, 2];

    fn session() -> Session {
        Session { items: 10, first_chunk: 10, next_chunk: 14, ..Session::default() }
    }

    /// The chunks kept, those read, the first item.
    fn walked(part: Part) -> (Vec<u64>, Vec<u64>, u64) {
        let mut walk = Walk::new(&session(), part);
        let (mut kept, mut read) = (Vec::new(), Vec::new());
        let pinned = walk.chunks();
        while let Some(chunk) = walk.next_chunk() {
            assert!(pinned.contains(&chunk), "{part:?} reads {chunk}, outside of {pinned:?}");
            read.push(chunk);
            if walk.step(COUNTS[chunk as usize - 10]).expect("as many as there are") {
                kept.push(chunk);
            }
        }
        assert!(walk.is_done(), "{part:?}");
        kept.sort_unstable();
        (kept, read, walk.first_item())
    }

    #[test]
    fn a_walk_reads_from_the_nearer_end_and_keeps_the_chunks_of_the_part() {
        let from = |item, limit| Part::From { item, limit };
        let cases: [(Part, &[u64], &[u64], u64); 13] = [
            (Part::Info, &[], &[], 10),
            (Part::Head, &[], &[], 10),
            (Part::Last(1), &[13], &[13], 8),
            (Part::Last(2), &[13], &[13], 8),
            (Part::Last(3), &[12, 13], &[13, 12], 4),
            (Part::Last(7), &[11, 12, 13], &[13, 12, 11], 3),
            (Part::Last(99), &[10, 11, 12, 13], &[13, 12, 11, 10], 0),
            (from(0, 1), &[10], &[10], 0),
            (from(2, 2), &[10, 11], &[10, 11], 0),
            (from(3, 1), &[11], &[10, 11], 3),
            // In the middle, the later chunks are nearer.
            (from(5, 1), &[12], &[13, 12], 4),
            (from(9, 5), &[13], &[13], 8),
            (from(10, 5), &[], &[], 10),
        ];
        for (part, kept, read, first_item) in cases {
            assert_eq!(walked(part), (kept.to_vec(), read.to_vec(), first_item), "{part:?}");
        }
    }

    #[test]
    fn a_session_without_items_needs_no_chunk() {
        let session = Session::default();
        for part in [Part::Whole, Part::Last(20), Part::From { item: 0, limit: 20 }] {
            let walk = Walk::new(&session, part);
            assert_eq!((walk.next_chunk(), walk.is_done(), walk.first_item()), (None, true, 0), "{part:?}");
        }
    }

    /// Rows that say other numbers than the session does: a walk ends all the same, and says so.
    #[test]
    fn chunks_that_hold_more_or_fewer_items_than_the_session_are_noticed() {
        let mut walk = Walk::new(&session(), Part::Last(10));
        assert_eq!(walk.step(11), None);
        let mut walk = Walk::new(&session(), Part::Last(10));
        while walk.next_chunk().is_some() {
            walk.step(1).expect("few");
        }
        assert!(!walk.is_done());
        let mut walk = Walk::new(&session(), Part::From { item: 1, limit: 1 });
        walk.step(1).expect("few");
        assert_eq!(walk.step(u64::MAX), None);
    }
}
