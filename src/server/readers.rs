//! Readers that stand still. A stream whose reader grants no room is not even asked for its next answer, so it can't find out by itself;
//! what it holds would count against all others for ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::admission::RETRY_AFTER;
use super::call::Done;
use super::reader::Reader;
use crate::limits::{LOADED_BYTES_MAX, LOADED_SHARE_BYTES_MAX, READER_PATIENCE, READER_STANDS_STILL, SMALL_ANSWER_BYTES};
use crate::raft::LoadedRoom;
use crate::types::{Refusal, RefusalKind};

/// While no more than this waits for readers in all, small answers are within every share.
const SMALL_FREELY_BYTES: u64 = LOADED_BYTES_MAX / 2;

/// All streams of one node that answer somebody.
#[derive(Default)]
pub struct Readers {
    watched: Mutex<Vec<Watched>>,
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

    fn watched(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose readers an answer waits for: those who are one of a connection, and those of a token, have a share together.
pub struct Whose<'a> {
    /// What waits for the readers of its connection; `None` for a peer, which reads for all its clients.
    pub connection: Option<&'a Arc<AtomicU64>>,
    /// A token's name, and what waits for its readers; `None` where nobody asks for one.
    pub token: Option<(&'a str, &'a Arc<AtomicU64>)>,
}

impl Whose<'_> {
    /// Whether more may be read. Errors: the readers of the connection or the token hold more than their share, and much is held in all.
    pub fn admit(&self, room: &LoadedRoom) -> Result<(), Refusal> {
        let is_over = |held: &Arc<AtomicU64>| held.load(Ordering::Relaxed) > LOADED_SHARE_BYTES_MAX;
        if room.bytes() <= SMALL_FREELY_BYTES {
            return Ok(());
        }
        match self.token {
            _ if self.connection.is_some_and(is_over) => Err(no_share("connection", None)),
            Some((name, held)) if is_over(held) => Err(no_share("token", Some(name))),
            _ => Ok(()),
        }
    }

    /// Counts an answer in both shares. Small ones may go beyond while half of the room is free, so that who is alone is not held back for
    /// nobody. Errors: readers of the connection or the token hold too much.
    pub fn share(self, room: &LoadedRoom, mut done: Done) -> Result<Done, Refusal> {
        let Some(charge) = done.charge().filter(|charge| charge.bytes() > 0) else { return Ok(done) };
        let freely = charge.bytes() <= SMALL_ANSWER_BYTES && room.bytes() <= SMALL_FREELY_BYTES;
        let limit = if freely { u64::MAX } else { LOADED_SHARE_BYTES_MAX };
        if let Some(held) = self.connection
            && !charge.share(held.clone(), limit)
        {
            return Err(no_share("connection", None));
        }
        match self.token {
            Some((name, held)) if !charge.share(held.clone(), limit) => Err(no_share("token", Some(name))),
            _ => Ok(done),
        }
    }
}

fn no_share(of: &str, token: Option<&str>) -> Refusal {
    let token = token.map_or_else(String::new, |name| format!(" token={name:?}"));
    let message = format!("too many loaded bytes wait for the readers of one {of}{token} limit={LOADED_SHARE_BYTES_MAX}");
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

    /// What two connections and two tokens hold, of one room.
    #[derive(Default)]
    struct Held {
        room: LoadedRoom,
        connections: [Arc<AtomicU64>; 2],
        tokens: [Arc<AtomicU64>; 2],
    }

    impl Held {
        fn whose(&self, connection: Option<usize>, token: Option<usize>) -> Whose<'_> {
            let connection = connection.map(|at| &self.connections[at]);
            Whose { connection, token: token.map(|at| (["one", "other"][at], &self.tokens[at])) }
        }

        fn share(&self, (connection, token): (Option<usize>, Option<usize>), bytes: u64) -> Result<Done, Refusal> {
            let done = Done::Relayed { answers: Vec::new(), charge: self.room.charge(bytes) };
            self.whose(connection, token).share(&self.room, done)
        }

        fn bytes(&self) -> Vec<u64> {
            let counters = self.connections.iter().chain(&self.tokens).map(|held| held.load(Ordering::Relaxed));
            std::iter::once(self.room.bytes()).chain(counters).collect()
        }
    }

    const HALF: u64 = LOADED_SHARE_BYTES_MAX / 2;

    #[test]
    fn the_readers_of_a_token_or_of_a_connection_hold_its_share_and_no_more() {
        let all = Held::default();
        for (greedy, elsewhere, name) in [
            // A token over two connections; a connection of two tokens, and of callers whom nobody asks for one.
            ([(Some(0), Some(0)), (Some(1), Some(0))], (Some(1), Some(1)), "\"one\""),
            ([(Some(0), Some(0)), (Some(0), Some(1))], (Some(1), Some(1)), "one connection"),
            ([(Some(0), None), (Some(0), None)], (Some(1), None), "one connection"),
        ] {
            let mut held: Vec<_> = greedy.map(|whose| all.share(whose, HALF)).into();
            let refusal = all.share(greedy[0], HALF).expect_err("above the share");
            assert!(matches!(refusal.kind, RefusalKind::Overloaded { .. }) && refusal.message.contains(name), "{refusal:?}");
            held.extend([all.share(elsewhere, HALF), all.share(greedy[0], SMALL_ANSWER_BYTES)]);
            assert!(held.iter().all(Result::is_ok), "others go on, and so do small answers while there is much room");
            assert!(all.whose(greedy[0].0, greedy[0].1).admit(&all.room).is_ok());
            drop(held);
            assert_eq!(all.bytes(), [0; 5], "what is refused counts nowhere");
            assert!(all.share(greedy[0], 4 * HALF).is_ok(), "a single answer always fits");
        }
    }

    /// Many small answers are as much as a few large ones, and their reader may take one just often enough not to stand still.
    #[test]
    fn small_answers_are_within_every_share_only_while_half_of_the_room_is_free() {
        let all = Held::default();
        let mut held = Vec::new();
        let refusal = loop {
            match all.share((Some(0), Some(0)), SMALL_ANSWER_BYTES) {
                Ok(done) => held.push(done),
                Err(refusal) => break refusal,
            }
        };
        assert!(matches!(refusal.kind, RefusalKind::Overloaded { .. }), "{refusal:?}");
        assert_eq!(all.room.bytes(), SMALL_FREELY_BYTES);
        let other = all.share((Some(1), Some(1)), 2 * HALF);
        assert!(other.is_ok() && all.whose(Some(1), Some(1)).admit(&all.room).is_ok(), "the rest is free for others");
        for whose in [(Some(0), Some(1)), (Some(1), Some(0)), (None, Some(0))] {
            assert!(all.whose(whose.0, whose.1).admit(&all.room).is_err(), "nothing more is read for {whose:?}");
        }
        held.truncate(held.len() / 2);
        assert!(all.whose(Some(0), Some(0)).admit(&all.room).is_ok());
        drop((held, other));
        assert_eq!(all.bytes(), [0; 5]);
    }
}
