//! Readers that stand still. A stream whose reader grants no room is not even asked for its next answer, so it can't find out by itself;
//! what it holds would count against all others for ever.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::admission::RETRY_AFTER;
use super::answers::Reader;
use super::auth::Caller;
use super::call::Done;
use crate::limits::{LOADED_SHARE_BYTES_MAX, READER_PATIENCE, READER_STANDS_STILL, SMALL_ANSWER_BYTES};
use crate::types::{Refusal, RefusalKind};

/// All streams of one node that answer somebody.
#[derive(Default)]
pub struct Readers {
    watched: Mutex<Vec<Watched>>,
    /// What waits for the readers of each token, by its name, while anything large does.
    tokens: Mutex<BTreeMap<Arc<str>, Arc<AtomicU64>>>,
}

struct Watched {
    reader: Weak<Reader>,
    /// Frames taken when it was looked at last, and since when they have not become more while others waited.
    still: Option<(u64, Duration)>,
}

impl Readers {
    /// Watches a reader for as long as its stream lives.
    pub fn watch(&self, reader: &Arc<Reader>) {
        self.watched().push(Watched { reader: Arc::downgrade(reader), still: None });
    }

    /// Cuts off who has taken nothing of what waits for [`READER_PATIENCE`]. To be called every second or so. How many it cut off.
    pub fn look(&self, now: Duration) -> usize {
        let mut cut_off = 0;
        self.watched().retain_mut(|watched| {
            let Some(reader) = watched.reader.upgrade() else { return false };
            watched.still = still(watched.still, reader.waiting_since(), now);
            let stands = watched.still.is_some_and(|(_, since)| now.saturating_sub(since) >= READER_PATIENCE);
            if stands {
                reader.cut_off("for 30 s");
                cut_off += 1;
                watched.still = None;
            }
            true
        });
        cut_off
    }

    /// Others need room: cuts off the client's reader that has stood still longest, if one has for [`READER_STANDS_STILL`]. Whether it did.
    pub fn make_room(&self, now: Duration) -> bool {
        let mut watched = self.watched();
        let mut longest: Option<(Duration, Arc<Reader>)> = None;
        for watched in watched.iter_mut() {
            let Some(reader) = watched.reader.upgrade() else { continue };
            watched.still = still(watched.still, reader.waiting_since(), now);
            let Some((_, since)) = watched.still else { continue };
            let stands = now.saturating_sub(since) >= READER_STANDS_STILL && reader.is_in_the_way();
            if stands && longest.as_ref().is_none_or(|(first, _)| since < *first) {
                longest = Some((since, reader));
            }
        }
        longest.inspect(|(_, reader)| reader.cut_off("while others needed the room")).is_some()
    }

    /// Whether more may be read for a caller. Errors: readers of its token hold its share already.
    pub fn admit(&self, caller: &Caller) -> Result<(), Refusal> {
        let Some(name) = caller.token() else { return Ok(()) };
        let held = self.tokens().get(&name).map_or(0, |held| held.load(Ordering::Relaxed));
        if held > LOADED_SHARE_BYTES_MAX { Err(no_share(&name)) } else { Ok(()) }
    }

    /// Counts an answer for its caller's token. Small ones are not: they come and go. Errors: readers of the token hold too much.
    pub fn share(&self, caller: &Caller, mut done: Done) -> Result<Done, Refusal> {
        let Some(charge) = done.charge().filter(|charge| charge.bytes() > SMALL_ANSWER_BYTES) else { return Ok(done) };
        let Some(name) = caller.token() else { return Ok(done) };
        let held = {
            let mut tokens = self.tokens();
            tokens.retain(|_, held| Arc::strong_count(held) > 1);
            tokens.entry(name.clone()).or_default().clone()
        };
        if charge.share(&held, LOADED_SHARE_BYTES_MAX) { Ok(done) } else { Err(no_share(&name)) }
    }

    fn watched(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<AtomicU64>>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_share(name: &str) -> Refusal {
    let message = format!("too many loaded bytes wait for the readers of one token token={name:?} limit={LOADED_SHARE_BYTES_MAX}");
    Refusal::not_applied(RefusalKind::Overloaded { retry_after: RETRY_AFTER }, message)
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

    /// The first look finds nobody who stands still: a reader that is busy is not cut off because it was slow for a moment.
    #[test]
    fn where_others_need_room_the_reader_goes_first_that_stands_still_longest() {
        let room = LoadedRoom::default();
        let readers = Readers::default();
        let [first, second] = [1000, 2000].map(|bytes| Arc::new(Reader::holding(&room, bytes)));
        let start = Duration::from_secs(100);
        readers.watch(&second);
        assert!(!readers.make_room(start), "it may be reading");
        readers.watch(&first);
        assert!(!readers.make_room(start + READER_STANDS_STILL / 2));
        assert!(readers.make_room(start + READER_STANDS_STILL));
        assert_eq!(room.bytes(), 1000, "the one that was seen standing first");
        assert!(readers.make_room(start + READER_STANDS_STILL * 2));
        assert_eq!((room.bytes(), readers.make_room(start + READER_STANDS_STILL * 9)), (0, false));
        drop((first, second));
    }

    #[test]
    fn the_readers_of_a_token_hold_its_share_and_no_more_and_small_answers_pass() {
        let (room, readers) = (LoadedRoom::default(), Readers::default());
        let caller = |name: &str| Caller::of_token(name);
        let loaded = |bytes| Done::Relayed { answers: Vec::new(), charge: room.charge(bytes) };
        let half = LOADED_SHARE_BYTES_MAX / 2;
        let held = [readers.share(&caller("greedy"), loaded(half)), readers.share(&caller("greedy"), loaded(half))];
        assert!(held.iter().all(Result::is_ok));
        let refusal = readers.share(&caller("greedy"), loaded(half)).expect_err("above its share");
        assert!(matches!(refusal.kind, RefusalKind::Overloaded { .. }) && refusal.message.contains("\"greedy\""), "{refusal:?}");
        let small = readers.share(&caller("greedy"), loaded(SMALL_ANSWER_BYTES));
        let other = readers.share(&caller("other"), loaded(half));
        assert!(small.is_ok() && other.is_ok() && readers.admit(&caller("greedy")).is_ok());
        drop((held, small, other));
        assert_eq!(room.bytes(), 0);
        assert!(readers.share(&caller("greedy"), loaded(2 * half)).is_ok());
    }
}
