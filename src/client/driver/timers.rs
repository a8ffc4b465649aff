//! When to look at which operation: its deadline, and at most one moment before it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::operation::{Key, Operation};

/// The deadlines and retries of operations, in order.
#[derive(Default)]
pub(crate) struct Timers(BTreeSet<(Duration, Key)>);

impl Timers {
    /// The next moment.
    pub fn first(&self) -> Option<(Duration, Key)> {
        self.0.first().copied()
    }

    /// Sets the deadline of a new operation.
    pub fn start(&mut self, key: Key, operation: &Operation) {
        self.0.insert((operation.deadline, key));
    }

    /// Sets the moment before the deadline, instead of an earlier one.
    pub fn arm(&mut self, key: Key, operation: &mut Operation, at: Duration) {
        self.disarm(key, operation);
        operation.timer = Some(at);
        self.0.insert((at, key));
    }

    /// Only the deadline is left.
    pub fn disarm(&mut self, key: Key, operation: &mut Operation) {
        if let Some(at) = operation.timer.take()
            && at != operation.deadline
        {
            self.0.remove(&(at, key));
        }
    }

    /// The operation ended.
    pub fn end(&mut self, key: Key, operation: &mut Operation) {
        self.disarm(key, operation);
        self.0.remove(&(operation.deadline, key));
    }

    /// This moment has passed.
    pub fn forget(&mut self, at: Duration, key: Key) {
        self.0.remove(&(at, key));
    }
}
