//! Readers that stand still. A stream whose reader grants no room is not even asked for its next answer, so it can't find out by itself;
//! what it holds would count against all others for ever.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::answers::Reader;
use crate::limits::READER_PATIENCE;

/// All streams of one node that answer somebody.
#[derive(Default)]
pub struct Readers(Mutex<Vec<Watched>>);

struct Watched {
    reader: Weak<Reader>,
    /// Frames taken when it was looked at last, and since when they have not become more while others waited.
    still: Option<(u64, Duration)>,
}

impl Readers {
    /// Watches a reader for as long as its stream lives.
    pub fn watch(&self, reader: &Arc<Reader>) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.push(Watched { reader: Arc::downgrade(reader), still: None });
    }

    /// Cuts off who has taken nothing of what waits for [`READER_PATIENCE`]. To be called every second or so. How many it cut off.
    pub fn look(&self, now: Duration) -> usize {
        let mut cut_off = 0;
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain_mut(|watched| {
            let Some(reader) = watched.reader.upgrade() else { return false };
            watched.still = still(watched.still, reader.waiting_since(), now);
            let stands = watched.still.is_some_and(|(_, since)| now.saturating_sub(since) >= READER_PATIENCE);
            if stands {
                reader.cut_off();
                cut_off += 1;
                watched.still = None;
            }
            true
        });
        cut_off
    }
}

/// Since when a reader stands still, after another look: from the first look that found something waiting and as many frames taken.
fn still(before: Option<(u64, Duration)>, waiting: Option<u64>, now: Duration) -> Option<(u64, Duration)> {
    let taken = waiting?;
    before.filter(|(then, _)| *then == taken).or(Some((taken, now)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::LoadedRoom;

    #[test]
    fn a_reader_stands_still_from_the_first_look_on_that_found_it_so() {
        let at = Duration::from_secs;
        assert_eq!(still(None, None, at(1)), None, "nothing waits");
        let first = still(None, Some(7), at(2));
        assert_eq!(first, Some((7, at(2))));
        assert_eq!(still(first, Some(7), at(9)), first, "it took nothing");
        assert_eq!(still(first, Some(8), at(9)), Some((8, at(9))), "it took one");
        assert_eq!(still(first, None, at(9)), None, "it took all");
    }

    #[test]
    fn what_a_reader_does_not_take_is_dropped_after_its_patience_and_not_before() {
        let room = LoadedRoom::default();
        let (reader, readers) = (Arc::new(Reader::holding(&room, 1000)), Readers::default());
        readers.watch(&reader);
        let start = Duration::from_secs(100);
        assert_eq!(readers.look(start), 0);
        assert_eq!((readers.look(start + READER_PATIENCE / 2), room.bytes()), (0, 1000));
        assert_eq!((readers.look(start + READER_PATIENCE), room.bytes()), (1, 0));
        assert_eq!(readers.look(start + READER_PATIENCE * 9), 0, "nothing is left to drop");
        drop(reader);
        assert_eq!(readers.look(start + READER_PATIENCE * 9), 0);
    }
}
