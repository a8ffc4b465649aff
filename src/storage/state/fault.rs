//! Flush waiters, failure hooks, and the first fatal error of a state.

use std::sync::{Condvar, Mutex, MutexGuard};

use super::error::Error;
use crate::types::LogId;

/// Called once a flush is durable, or never will be.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

type Hook = Box<dyn FnOnce(Error) + Send>;

const HEALTHY: &str = "no thread panics while it holds this lock";

#[derive(Default)]
struct Inner {
    failed: Option<Error>,
    hooks: Vec<Hook>,
    /// Each with the index it waits for.
    waiting: Vec<(Option<u64>, Done)>,
    /// Bytes held in memory until they are flushed.
    pending_bytes: u64,
    /// Threads in [`Fault::wait_for_room`].
    crowded: u32,
}

/// The part of a state that does not depend on its machine. Its lock is taken after the view's, and never held while calling out.
#[derive(Default)]
pub(super) struct Fault {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Fault {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect(HEALTHY)
    }

    pub fn failed(&self) -> Option<Error> {
        self.lock().failed.clone()
    }

    /// Ends the state with its first final error. Every waiter gets it.
    pub fn fail(&self, error: Error) {
        let (hooks, waiting) = {
            let mut inner = self.lock();
            if inner.failed.is_some() {
                return;
            }
            inner.failed = Some(error.clone());
            (std::mem::take(&mut inner.hooks), std::mem::take(&mut inner.waiting))
        };
        self.changed.notify_all();
        for hook in hooks {
            hook(error.clone());
        }
        for (_, done) in waiting {
            done(Err(error.clone()));
        }
    }

    pub fn on_failure(&self, hook: Hook) {
        let failed = {
            let mut inner = self.lock();
            match &inner.failed {
                Some(error) => error.clone(),
                None => return inner.hooks.push(hook),
            }
        };
        hook(failed);
    }

    /// Enters a waiter for a flush up to `target`.
    pub fn wait_flushed(&self, target: Option<LogId>, done: Done) {
        let failed = {
            let mut inner = self.lock();
            match &inner.failed {
                Some(error) => error.clone(),
                None => return inner.waiting.push((target.map(|id| id.index), done)),
            }
        };
        done(Err(failed));
    }

    pub fn has_waiting(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// Tells everybody who waited for no more than this.
    pub fn notify_flushed(&self, flushed: Option<LogId>) {
        let flushed = flushed.map(|id| id.index);
        let ready: Vec<_> = self.lock().waiting.extract_if(.., |(target, _)| *target <= flushed).collect();
        for (_, done) in ready {
            done(Ok(()));
        }
    }

    pub fn pending_bytes(&self) -> u64 {
        self.lock().pending_bytes
    }

    pub fn set_pending_bytes(&self, bytes: u64) {
        let mut inner = self.lock();
        inner.pending_bytes = bytes;
        // With every entry applied: telling nobody would be a system call too.
        if inner.crowded > 0 {
            self.changed.notify_all();
        }
    }

    /// Waits until no more than `limit` bytes are pending, or the state has ended.
    pub fn wait_for_room(&self, limit: u64) {
        let mut inner = self.lock();
        inner.crowded += 1;
        let waits = |inner: &mut Inner| inner.pending_bytes > limit && inner.failed.is_none();
        self.changed.wait_while(inner, waits).expect(HEALTHY).crowded -= 1;
    }
}
