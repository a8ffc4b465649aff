//! The state that callers and the writer share, under one lock that nobody holds across IO or a callback.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::live::Live;
use super::recover::Segment;
use super::syncs::Measured;
use super::{Done, Error};
use crate::types::LogId;

/// One thing for the writer to put on disk, in order.
pub(super) enum Op {
    /// An entry, and the number of its append.
    Entry(u64, LogId, Bytes),
    Vote(Bytes),
    Truncate(Option<LogId>),
    Purge(LogId),
    /// Nothing to write: what comes after the batch goes to another segment.
    Roll,
    /// A marker, behind which no file is left that was a segment and is none any more.
    Forget,
    /// Nothing to write: call back once everything before is synced.
    Done(Done),
}

/// The shared state; see [`Locked::locked`].
#[derive(Default)]
pub(super) struct State {
    /// The log as appended.
    pub live: Live,
    /// Operations that the writer has not taken yet.
    pub queue: VecDeque<Op>,
    /// Numbers the appends.
    pub sequence: u64,
    /// The last entry that is synced and was not replaced since. A truncation lowers it at once: state made from an entry that
    /// takes the index again must wait for that entry.
    pub covered_last: Option<u64>,
    /// The synced purge.
    pub covered_purged: Option<u64>,
    /// Callbacks that wait for an index to be covered.
    pub waiters: Vec<(u64, Done)>,
    /// Open files of the log.
    pub segments: BTreeMap<u64, Segment>,
    /// Bytes written and synced since it was opened.
    pub written_bytes: u64,
    /// How long syncs take.
    pub syncs: Measured,
    /// Whether the disk had no room when it was last written to.
    pub full: bool,
    /// Why the log takes nothing any more.
    pub failed: Option<Error>,
    /// Called once, with the first error.
    pub on_failure: Vec<Box<dyn FnOnce(Error) + Send>>,
}

impl State {
    pub fn covers(&self, index: u64) -> bool {
        self.covered_last.max(self.covered_purged).is_some_and(|covered| covered >= index)
    }

    /// Takes out the callbacks of those whose index is covered now.
    pub fn take_covered(&mut self) -> Vec<Done> {
        let (ready, rest) = std::mem::take(&mut self.waiters).into_iter().partition(|(index, _)| self.covers(*index));
        self.waiters = rest;
        Vec::into_iter(ready).map(|(_, done): (u64, Done)| done).collect()
    }
}

/// The lock on [`State`], and the writer's waker.
#[derive(Default)]
pub(super) struct Locked {
    state: Mutex<State>,
}

impl Locked {
    pub fn new(state: State) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(state) })
    }

    pub fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the log: everything queued, and everything that comes, is answered with this error.
    pub fn fail(&self, error: &Error, taken: Vec<Op>) {
        let (queue, waiters, listeners) = {
            let mut state = self.locked();
            if state.failed.is_some() {
                return;
            }
            state.failed = Some(error.clone());
            (std::mem::take(&mut state.queue), std::mem::take(&mut state.waiters), std::mem::take(&mut state.on_failure))
        };
        // First the listeners, of which one ends the process: the callbacks below may start work that must not go on.
        for listener in listeners {
            listener(error.clone());
        }
        for op in taken.into_iter().chain(queue) {
            if let Op::Done(done) = op {
                done(Err(error.clone()));
            }
        }
        for (_, done) in waiters {
            done(Err(error.clone()));
        }
    }
}
