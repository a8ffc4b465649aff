//! The walk over a session's chunks to those that hold certain items. The rows of a session that was begun under version 2 say which items they
//! hold, so the first of those is found by halving; else they are counted from the end of the session that is nearer.

use std::ops::Range;

use super::places::Places;
use super::session::Session;
use crate::mutant::{self, Mutant};
use crate::types::Part;

/// Chunks from which on it is cheaper to halve than to walk.
const HALVED_CHUNKS_MIN: u64 = 16;

/// A walk over the chunks of one session. The caller reads the row of [`Walk::next_chunk`], says by [`Walk::step`] how many items it
/// holds, and keeps it if that is answered so.
///
/// ```text
/// items   0 ........ wanted.start ···· wanted.end ........ items
/// chunks  [--][-----][-------][--][------][--][-----][-------]
///          forwards: counts from 0  ->
///                                            <-  backwards: counts from `items`
///          halving: between chunks that end before it and chunks that begin behind it, until one holds wanted.start; then forwards
/// ```
///
/// Every chunk holds an item at least, so it takes no more steps than there are items from its start to the far end of the wanted ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Items wanted, half-open.
    wanted: Range<u64>,
    places: Places,
    /// Positions of the chunks that were not stepped over, half-open. Others are not needed.
    chunks: Range<u64>,
    /// Items before the next chunk, or, backwards, up to its end.
    position: u64,
    way: Way,
    /// The first item of the chunks kept.
    first_item: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Forwards,
    Backwards,
    /// The chunk with the first wanted item lies before this position, if it is not at it.
    Halving {
        until: u64,
    },
}

impl Walk {
    pub(super) fn new(session: &Session, part: Part) -> Self {
        let wanted = part.items(session.items);
        let Range { start, end } = wanted;
        let to_end = session.items - start;
        let places = session.places();
        let Range { end: next, .. } = places.all();
        let (backwards, forwards) = (next.saturating_sub(to_end)..next, 0..end.min(next));
        let (chunks, position, way) = match to_end <= end {
            true => (backwards, session.items, Way::Backwards),
            false => (forwards, 0, Way::Forwards),
        };
        let mut walk = Self { wanted, places, chunks, position, way, first_item: None };
        if session.summed && end < session.items && walk.chunks.end - walk.chunks.start >= HALVED_CHUNKS_MIN {
            // Each chunk before it and each behind it holds an item at least.
            walk.chunks = next.saturating_sub(to_end)..end.min(next);
            walk.way = Way::Halving { until: start.saturating_add(1).min(next) };
        }
        walk
    }

    /// Where the chunks lie.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The positions of the chunks that may be needed, half-open.
    pub fn chunks(&self) -> Range<u64> {
        self.chunks.clone()
    }

    /// Whether later chunks come first.
    pub fn is_backwards(&self) -> bool {
        self.way == Way::Backwards
    }

    /// The position of the chunk to read next. `None`: nothing more is needed, or nothing is left; see [`Walk::is_done`].
    pub fn next_chunk(&self) -> Option<u64> {
        let Range { start, end } = self.chunks;
        match self.way {
            _ if self.is_done() || start >= end => None,
            Way::Backwards => Some(end - 1),
            Way::Forwards => Some(start),
            Way::Halving { until } => (start < until).then(|| start + (until - start) / 2),
        }
    }

    /// Steps over that chunk; gives whether it holds a wanted item. `None`: it can't hold so many, or others than its row says; it is damaged.
    pub fn step(&mut self, item_count: u64, first_item: Option<u64>) -> Option<bool> {
        if let Way::Halving { until } = self.way {
            let first_item = first_item?;
            let at = self.next_chunk()?;
            if first_item.checked_add(item_count)? <= self.wanted.start {
                self.chunks.start = at + 1;
                return Some(false);
            }
            if first_item > self.wanted.start {
                self.way = Way::Halving { until: at.min(until) };
                return Some(false);
            }
            self.chunks.start = at;
            (self.way, self.position) = (Way::Forwards, first_item);
        }
        let items = if self.is_backwards() {
            self.chunks.end -= 1;
            self.position.checked_sub(item_count)?..self.position
        } else {
            self.chunks.start += 1;
            self.position..self.position.checked_add(item_count)?
        };
        if first_item.is_some_and(|first_item| first_item != items.start) {
            return None;
        }
        self.position = if self.is_backwards() { items.start } else { items.end };
        let is_wanted = items.start < self.wanted.end && self.wanted.start < items.end;
        if is_wanted && (self.is_backwards() || self.first_item.is_none()) {
            self.first_item = Some(items.start);
        }
        Some(is_wanted)
    }

    /// Whether all wanted items were stepped over.
    pub fn is_done(&self) -> bool {
        let late = u64::from(mutant::is(Mutant::SuffixBeginsLate));
        match self.way {
            _ if self.wanted.is_empty() => true,
            Way::Backwards => self.position <= self.wanted.start + late,
            Way::Forwards => self.position >= self.wanted.end,
            Way::Halving { .. } => false,
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

    /// Chunks of 3, 1, 4 and 2 items.
    const COUNTS: [u64; 4] = [3, 1, 4, 2];

    fn session() -> Session {
        Session { items: 10, first_chunk: 10, next_chunk: 14, ..Session::default() }
    }

    /// The chunks kept, those read, the first item.
    fn walked(session: &Session, counts: &[u64], part: Part) -> (Vec<u64>, Vec<u64>, u64) {
        let mut walk = Walk::new(session, part);
        let (mut kept, mut read) = (Vec::new(), Vec::new());
        let pinned = walk.chunks();
        while let Some(chunk) = walk.next_chunk() {
            assert!(pinned.contains(&chunk), "{part:?} reads {chunk}, outside of {pinned:?}");
            read.push(chunk);
            let first_item = session.summed.then(|| counts[..chunk as usize].iter().sum());
            if walk.step(counts[chunk as usize], first_item).expect("as many as there are") {
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
            (Part::Last(1), &[3], &[3], 8),
            (Part::Last(2), &[3], &[3], 8),
            (Part::Last(3), &[2, 3], &[3, 2], 4),
            (Part::Last(7), &[1, 2, 3], &[3, 2, 1], 3),
            (Part::Last(99), &[0, 1, 2, 3], &[3, 2, 1, 0], 0),
            (from(0, 1), &[0], &[0], 0),
            (from(2, 2), &[0, 1], &[0, 1], 0),
            (from(3, 1), &[1], &[0, 1], 3),
            // In the middle, the later chunks are nearer.
            (from(5, 1), &[2], &[3, 2], 4),
            (from(9, 5), &[3], &[3], 8),
            (from(10, 5), &[], &[], 10),
        ];
        for (part, kept, read, first_item) in cases {
            assert_eq!(walked(&session(), &COUNTS, part), (kept.to_vec(), read.to_vec(), first_item), "{part:?}");
        }
    }

    #[test]
    fn the_first_chunk_of_a_part_is_found_by_halving_where_rows_say_their_items() {
        let counts: Vec<u64> = (0..1000).map(|n| 1 + n % 3).collect();
        let items = counts.iter().sum();
        let session = Session { items, next_chunk: 1000, summed: true, ..Session::default() };
        let unsummed = Session { summed: false, ..session.clone() };
        for item in 0..items {
            let part = Part::From { item, limit: 5 };
            let (kept, read, first_item) = walked(&session, &counts, part);
            let (expected, steps, expected_first) = walked(&unsummed, &counts, part);
            assert_eq!((&kept, first_item), (&expected, expected_first), "{part:?}");
            let few = kept.len() + 10;
            assert!(read.len() <= few.min(steps.len().max(HALVED_CHUNKS_MIN as usize)), "{part:?} reads {read:?}");
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
        assert_eq!(walk.step(11, None), None);
        let mut walk = Walk::new(&session(), Part::Last(10));
        while walk.next_chunk().is_some() {
            walk.step(1, None).expect("few");
        }
        assert!(!walk.is_done());
        let mut walk = Walk::new(&session(), Part::From { item: 1, limit: 1 });
        walk.step(1, None).expect("few");
        assert_eq!(walk.step(u64::MAX, None), None);
        let mut walk = Walk::new(&session(), Part::Last(2));
        assert_eq!(walk.step(2, Some(7)), None, "its row says another first item");
        let long = Session { items: 100, next_chunk: 100, summed: true, ..Session::default() };
        let mut walk = Walk::new(&long, Part::From { item: 50, limit: 1 });
        assert_eq!(walk.step(1, None), None, "its row says no item");
        let mut walk = Walk::new(&long, Part::From { item: 50, limit: 1 });
        while walk.next_chunk().is_some() {
            walk.step(1, Some(0)).expect("few");
        }
        assert!(!walk.is_done(), "no chunk says that it holds the item");
    }
}
