//! The replies of one batch. Each settles its operation exactly once: if Raft drops one uncalled, the operation is unknown.

use std::sync::Arc;

use super::call::Done;
use super::dispatch::Dispatcher;
use super::shares::Hold;
use crate::mutant::{self, Mutant};
use crate::raft::{self, ReplyList, ReplyLoad};
use crate::types::{Refusal, RefusalKind};

/// A batch in flight. When its last reply is gone, the next batch may go.
pub struct Batch {
    dispatcher: Dispatcher,
    /// One clone is alive for each batch in flight.
    slot: Option<Arc<()>>,
}

impl Batch {
    pub fn new(dispatcher: Dispatcher, slot: Arc<()>) -> Self {
        Self { dispatcher, slot: Some(slot) }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Freed before the wake, or the woken task would find the slot taken and sleep on.
        self.slot = None;
        self.dispatcher.wake();
    }
}

/// Settles one open operation, by its key.
pub struct Reply {
    batch: Arc<Batch>,
    key: Option<u64>,
    /// What a write counts for in its token's shares until it is answered.
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
        Box::new(move |result| self.settle(result.map(Done::Outcome)))
    }

    pub fn of_load(mut self) -> ReplyLoad {
        Box::new(move |result| {
            self.settle(result.map(|(revision, loaded, age_ms, charge)| Done::Loaded { revision, loaded, age_ms, charge }));
        })
    }

    pub fn of_list(mut self) -> ReplyList {
        Box::new(move |result| self.settle(result.map(|(page, charge)| Done::Listed { page, charge })))
    }

    fn settle(&mut self, result: Result<Done, Refusal>) {
        if let Some(key) = self.key.take() {
            // Before the answer: what it asked for is applied and counted, and the caller may come again at once.
            self.hold = None;
            self.batch.dispatcher.settle(key, result);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let why = "the node stopped before the operation was settled";
        self.settle(Err(Refusal::unknown_unless(mutant::is(Mutant::StoppedRefused), RefusalKind::Unavailable, why)));
    }
}
