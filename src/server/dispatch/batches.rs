//! Batches of calls: when one begins, what goes into it, and its replies. Each reply ends one attempt: if Raft drops a
//! reply uncalled, the outcome is unknown.

use std::sync::Arc;

use super::calls::Calls;
use super::fair::Ready;
use crate::limits::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX};
use crate::mutant::{self, Mutant};
use crate::raft::{self, ReplyList, ReplyLoad, ReplyMany};
use crate::server::call::Response;
use crate::server::shares::Hold;
use crate::types::{Refusal, RefusalKind};

/// A batch in flight. When its last reply is gone, the next batch may go.
pub struct Batch {
    calls: Calls,
    /// One clone is alive for each batch in flight.
    slot: Option<Arc<()>>,
}

impl Batch {
    pub fn new(calls: Calls, slot: Arc<()>) -> Self {
        Self { calls, slot: Some(slot) }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Freed before the wake, or the woken task would find the slot taken and sleep on.
        self.slot = None;
        self.calls.wake();
    }
}

/// Ends the attempt of one operation in flight, by its key.
pub struct Reply {
    batch: Arc<Batch>,
    key: Option<u64>,
    /// Counts a write in its token's share until the answer.
    hold: Option<Hold>,
}

impl Reply {
    pub fn new(batch: &Arc<Batch>, key: u64) -> Self {
        Self { batch: batch.clone(), key: Some(key), hold: None }
    }

    /// Of a write that counts for so much.
    pub fn holding(mut self, hold: Option<Hold>) -> Self {
        self.hold = hold;
        self
    }

    pub fn of_write(mut self) -> raft::Reply {
        Box::new(move |result| self.end(result.map(Response::Outcome)))
    }

    pub fn of_load(mut self) -> ReplyLoad {
        Box::new(move |result| {
            self.end(result.map(|(revision, loaded, age_ms, permit)| Response::Loaded { revision, loaded, age_ms, permit }));
        })
    }

    pub fn of_many(mut self) -> ReplyMany {
        Box::new(move |result| {
            self.end(result.map(|(revision, loaded, age_ms, permit)| Response::LoadedMany { revision, loaded, age_ms, permit }));
        })
    }

    pub fn of_list(mut self) -> ReplyList {
        Box::new(move |result| self.end(result.map(|(page, permit)| Response::Listed { page, permit })))
    }

    fn end(&mut self, result: Result<Response, Refusal>) {
        if let Some(key) = self.key.take() {
            // Before the answer: what it asked for is applied and counted, and the caller may come again at once.
            self.hold = None;
            self.batch.calls.end_attempt(key, result);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let why = "the node stopped before the operation was answered";
        self.end(Err(Refusal::unknown_unless(mutant::is(Mutant::StoppedRefused), RefusalKind::Unavailable, why)));
    }
}

/// Whether another round may begin for `waiting` operations: at once if none is under way; up to `soft` of them if it is no smaller than
/// the `last` one; up to `full` of them anyway.
pub fn may_begin(under_way: &Arc<()>, soft: usize, full: usize, waiting: usize, last: usize) -> bool {
    let under_way = Arc::strong_count(under_way) - 1;
    waiting > 0 && (under_way == 0 || under_way < full || (under_way < soft && waiting >= last))
}

/// Whether what waits fills a batch.
pub fn is_full(waiting: Ready) -> bool {
    waiting.len >= BATCH_OPERATIONS_MAX || waiting.bytes >= BATCH_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_full_by_operations_or_by_bytes() {
        for (len, bytes, full) in [
            (0, 0, false),
            (BATCH_OPERATIONS_MAX - 1, BATCH_BYTES_MAX - 1, false),
            (BATCH_OPERATIONS_MAX, 1, true),
            (1, BATCH_BYTES_MAX, true),
        ] {
            assert_eq!(is_full(Ready { len, bytes }), full, "len={len} bytes={bytes}");
        }
    }

    #[test]
    fn a_round_begins_where_it_gains_something() {
        for (under_way, waiting, last, is_batch_full, begins) in [
            // Nothing waits.
            (0, 0, 0, false, false),
            // None is under way: whatever waits goes at once.
            (0, 1, 100, false, true),
            // A second one, if it is no smaller than the one before.
            (1, 99, 100, false, false),
            (1, 100, 100, false, true),
            (2, 500, 100, false, false),
            // A full batch gains nothing by waiting, up to the most that may be under way.
            (1, 1, 100, true, true),
            (7, 1, 100, true, true),
            (8, 1, 100, true, false),
        ] {
            let slot = Arc::new(());
            let clones = vec![slot.clone(); under_way];
            let full = if is_batch_full { 8 } else { 0 };
            let begun = may_begin(&slot, 2, full, waiting, last);
            assert_eq!(begun, begins, "under_way={} waiting={waiting} last={last} full={is_batch_full}", clones.len());
        }
    }
}
