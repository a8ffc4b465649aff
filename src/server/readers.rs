//! Stalled readers. A response stream whose client grants no flow-control credit is never polled, so it can't notice by itself: a watchdog
//! drops the content it holds, which would count against all others for ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::admission::RETRY_AFTER;
use super::call::Response;
use super::reader::Reader;
use crate::limits::{
    LOADED_BYTES_MAX, LOADED_SHARE_BYTES_MAX, READER_STALL_MIN, READER_STALL_TIMEOUT, SESSION_STORED_BYTES_MAX, SMALL_ANSWER_BYTES,
};
use crate::raft::ReadBudget;
use crate::types::{Refusal, RefusalKind};

/// While no more than this waits for readers in all, small answers are within every share.
const SMALL_FREELY_BYTES: u64 = LOADED_BYTES_MAX / 2;

/// The streams of answers of one node.
#[derive(Default)]
pub struct Readers {
    watched: Mutex<Vec<Watched>>,
}

struct Watched {
    reader: Weak<Reader>,
    /// Frames taken at the last check, and since when that number has stood still while more waited.
    stalled: Option<(u64, Duration)>,
}

impl Readers {
    /// Watches a reader for as long as its stream lives.
    pub fn watch(&self, reader: &Arc<Reader>) {
        self.watched().push(Watched { reader: Arc::downgrade(reader), stalled: None });
    }

    /// Cuts off the readers that have taken nothing of what waits for [`READER_STALL_TIMEOUT`]. To be called every second or so. Gives their
    /// number.
    pub fn cut_off_stalled(&self, now: Duration) -> usize {
        let mut cut_off = 0;
        self.watched().retain_mut(|watched| {
            let Some(reader) = watched.reader.upgrade() else { return false };
            watched.stalled = stalled(watched.stalled, reader.waiting_since(), now);
            let is_stalled = watched.stalled.is_some_and(|(_, since)| now.saturating_sub(since) >= READER_STALL_TIMEOUT);
            if is_stalled {
                reader.cut_off("for 30 s");
                cut_off += 1;
                watched.stalled = None;
            }
            true
        });
        cut_off
    }

    /// Cuts off the client's reader that is stalled longest, if one is for [`READER_STALL_MIN`]: others need room. Whether it did.
    pub fn make_room(&self, now: Duration) -> bool {
        let mut watched = self.watched();
        let mut longest: Option<(Duration, Arc<Reader>)> = None;
        for watched in watched.iter_mut() {
            let Some(reader) = watched.reader.upgrade() else { continue };
            watched.stalled = stalled(watched.stalled, reader.waiting_since(), now);
            let Some((_, since)) = watched.stalled else { continue };
            let is_stalled = now.saturating_sub(since) >= READER_STALL_MIN && reader.is_in_the_way();
            if is_stalled && longest.as_ref().is_none_or(|(first, _)| since < *first) {
                longest = Some((since, reader));
            }
        }
        longest.inspect(|(_, reader)| reader.cut_off("while others needed the room")).is_some()
    }

    fn watched(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shares that an answer counts in: the readers of one connection have one together, and so have those of one token.
pub struct Whose<'a> {
    /// Bytes that wait for the readers of its connection; `None` for a peer, which reads for all its clients.
    pub connection: Option<&'a Arc<AtomicU64>>,
    /// The token's name, and bytes that wait for its readers; `None`: no tokens file.
    pub token: Option<(&'a str, &'a Arc<AtomicU64>)>,
}

impl Whose<'_> {
    /// Whether more may be read. `expected_bytes`: of the answer, as far as is known; asked for only where it decides.
    ///
    /// Errors: the readers of the connection or the token hold more than their share, and much is held in all; or a large answer would
    /// exceed it, which then is not read in vain. Nothing changed.
    pub fn admit(&self, budget: &ReadBudget, expected_bytes: impl Fn() -> u64) -> Result<(), Refusal> {
        let much_is_held = budget.bytes() > SMALL_FREELY_BYTES;
        let is_over = |held: &Arc<AtomicU64>| {
            let held = held.load(Ordering::Relaxed);
            if held > LOADED_SHARE_BYTES_MAX && much_is_held {
                return true;
            }
            // Below, any answer fits.
            held > LOADED_SHARE_BYTES_MAX - SESSION_STORED_BYTES_MAX && {
                let bytes = expected_bytes();
                bytes > SMALL_ANSWER_BYTES && held.saturating_add(bytes) > LOADED_SHARE_BYTES_MAX
            }
        };
        match self.token {
            _ if self.connection.is_some_and(is_over) => Err(no_share("connection", None)),
            Some((name, held)) if is_over(held) => Err(no_share("token", Some(name))),
            _ => Ok(()),
        }
    }

    /// Counts an answer in both shares. Small ones may go beyond while half of the room is free, so that a lone reader is not held back for
    /// nobody. Errors: readers of the connection or the token hold too much.
    pub fn share(&self, budget: &ReadBudget, done: &mut Response) -> Result<(), Refusal> {
        let Some(permit) = done.permit().filter(|permit| permit.bytes() > 0) else { return Ok(()) };
        let freely = permit.bytes() <= SMALL_ANSWER_BYTES && budget.bytes() <= SMALL_FREELY_BYTES;
        let limit = if freely { u64::MAX } else { LOADED_SHARE_BYTES_MAX };
        if let Some(held) = self.connection
            && !permit.share(held.clone(), limit)
        {
            return Err(no_share("connection", None));
        }
        match self.token {
            Some((name, held)) if !permit.share(held.clone(), limit) => Err(no_share("token", Some(name))),
            _ => Ok(()),
        }
    }
}

fn no_share(of: &str, token: Option<&str>) -> Refusal {
    let token = token.map_or_else(String::new, |name| format!(" token={name:?}"));
    let message = format!("too many loaded bytes wait for the readers of one {of}{token} limit={LOADED_SHARE_BYTES_MAX}");
    Refusal::not_applied(RefusalKind::Overloaded { retry_after: RETRY_AFTER }, message)
}

/// Since when a reader is stalled, after another check: since the first one that found frames waiting and as many taken.
fn stalled(before: Option<(u64, Duration)>, waiting: Option<u64>, now: Duration) -> Option<(u64, Duration)> {
    let taken = waiting?;
    before.filter(|(then, _)| *then == taken).or(Some((taken, now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_stalled_from_the_first_check_on_that_found_it_so() {
        let at = Duration::from_secs;
        assert_eq!(stalled(None, None, at(1)), None, "nothing waits");
        let first = stalled(None, Some(7), at(2));
        assert_eq!(first, Some((7, at(2))));
        assert_eq!(stalled(first, Some(7), at(9)), first, "it took nothing");
        assert_eq!(stalled(first, Some(8), at(9)), Some((8, at(9))), "it took one");
        assert_eq!(stalled(first, None, at(9)), None, "it took all");
    }

    #[test]
    fn what_a_reader_does_not_take_is_dropped_after_its_patience_and_not_before() {
        let budget = ReadBudget::default();
        let (reader, readers) = (Arc::new(Reader::holding(&budget, 1000)), Readers::default());
        readers.watch(&reader);
        let start = Duration::from_secs(100);
        assert_eq!(readers.cut_off_stalled(start), 0);
        assert_eq!((readers.cut_off_stalled(start + READER_STALL_TIMEOUT / 2), budget.bytes()), (0, 1000));
        assert_eq!((readers.cut_off_stalled(start + READER_STALL_TIMEOUT), budget.bytes()), (1, 0));
        assert_eq!(readers.cut_off_stalled(start + READER_STALL_TIMEOUT * 9), 0, "nothing is left to drop");
        drop(reader);
        assert_eq!(readers.cut_off_stalled(start + READER_STALL_TIMEOUT * 9), 0);
    }

    /// The first look finds nobody who stands still: a reader that is busy is not cut off because it was slow for a moment.
    #[test]
    fn where_others_need_room_the_reader_goes_first_that_stands_still_longest() {
        let budget = ReadBudget::default();
        let readers = Readers::default();
        let [first, second] = [1000, 2000].map(|bytes| Arc::new(Reader::holding(&budget, bytes)));
        let start = Duration::from_secs(100);
        readers.watch(&second);
        assert!(!readers.make_room(start), "it may be reading");
        readers.watch(&first);
        assert!(!readers.make_room(start + READER_STALL_MIN / 2));
        assert!(readers.make_room(start + READER_STALL_MIN));
        assert_eq!(budget.bytes(), 1000, "the one that was seen standing first");
        assert!(readers.make_room(start + READER_STALL_MIN * 2));
        assert_eq!((budget.bytes(), readers.make_room(start + READER_STALL_MIN * 9)), (0, false));
        drop((first, second));
    }

    /// The bytes of two connections and two tokens, in one budget.
    #[derive(Default)]
    struct Held {
        budget: ReadBudget,
        connections: [Arc<AtomicU64>; 2],
        tokens: [Arc<AtomicU64>; 2],
    }

    impl Held {
        fn whose(&self, connection: Option<usize>, token: Option<usize>) -> Whose<'_> {
            let connection = connection.map(|at| &self.connections[at]);
            Whose { connection, token: token.map(|at| (["one", "other"][at], &self.tokens[at])) }
        }

        fn share(&self, (connection, token): (Option<usize>, Option<usize>), bytes: u64) -> Result<Response, Refusal> {
            let mut done = Response::Relayed { answers: Vec::new(), permit: self.budget.charge(bytes) };
            self.whose(connection, token).share(&self.budget, &mut done).map(|()| done)
        }

        fn bytes(&self) -> Vec<u64> {
            let counters = self.connections.iter().chain(&self.tokens).map(|held| held.load(Ordering::Relaxed));
            std::iter::once(self.budget.bytes()).chain(counters).collect()
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
            let admit = |(connection, token), bytes| all.whose(connection, token).admit(&all.budget, || bytes);
            assert!(admit(elsewhere, SESSION_STORED_BYTES_MAX).is_ok(), "another's share is its own");
            held.extend([all.share(elsewhere, HALF), all.share(greedy[0], SMALL_ANSWER_BYTES)]);
            assert!(held.iter().all(Result::is_ok), "others go on, and so do small answers while there is much room");
            assert!(admit(greedy[0], 0).is_ok() && admit(greedy[0], SMALL_ANSWER_BYTES).is_ok());
            let refusal = admit(greedy[0], SMALL_ANSWER_BYTES + 1).expect_err("it is not even read");
            assert!(refusal.message.contains(name), "{refusal:?}");
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
        assert_eq!(all.budget.bytes(), SMALL_FREELY_BYTES);
        let other = all.share((Some(1), Some(1)), 2 * HALF);
        assert!(other.is_ok() && all.whose(Some(1), Some(1)).admit(&all.budget, || 0).is_ok(), "the rest is free for others");
        for whose in [(Some(0), Some(1)), (Some(1), Some(0)), (None, Some(0))] {
            assert!(all.whose(whose.0, whose.1).admit(&all.budget, || 0).is_err(), "nothing more is read for {whose:?}");
        }
        held.truncate(held.len() / 2);
        assert!(all.whose(Some(0), Some(0)).admit(&all.budget, || 0).is_ok());
        drop((held, other));
        assert_eq!(all.bytes(), [0; 5]);
    }
}
