//! How a worker's thread is woken and stopped.
//!
//! One thread waits, any number wakes. The step that follows a wake sees everything the waking thread did before it. The locks are those
//! that `super::sync` names: `tests/threads` puts loom's there, and tries every order of steps that threads can see.

use std::time::Duration;

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use crate::mutant::{self, Mutant};

/// Wakes are kept until they are waited for; a stop is for good.
pub struct Signal {
    state: Mutex<State>,
    changed: Condvar,
    /// Called at every change too, where no thread waits for it.
    on_change: Option<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct State {
    woken: bool,
    stopped: bool,
}

impl Signal {
    pub fn new(on_change: Option<Box<dyn Fn() + Send + Sync>>) -> Self {
        Self { state: Mutex::new(State::default()), changed: Condvar::new(), on_change }
    }

    /// One more step is wanted.
    pub fn wake(&self) {
        self.set(|state| state.woken = true);
    }

    /// No more steps, ever.
    pub fn stop(&self) {
        self.set(|state| state.stopped = true);
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_one();
        if let Some(on_change) = &self.on_change {
            on_change();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was woken since it was asked last, or has waited.
    pub fn take_wake(&self) -> bool {
        std::mem::take(&mut self.state().woken)
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Waits for a wake, at most `timeout`. False: stop.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let mut state = self.state();
        while !state.woken && !state.stopped {
            if mutant::is(Mutant::WakeBetweenTwoSteps) {
                drop(state);
                state = self.state();
            }
            match timeout {
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(timeout) => {
                    state = self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0;
                    break;
                }
            }
        }
        state.woken = false;
        !state.stopped
    }
}
