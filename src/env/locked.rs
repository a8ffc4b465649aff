//! Locks whose holder panicked. The program ends at a panic, and what a test looks at afterwards is whole: no change under a lock is left
//! half made.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock that is taken whether a holder has panicked or not.
pub trait Locked<T> {
    /// Waits for the lock.
    fn locked(&self) -> MutexGuard<'_, T>;
}

impl<T> Locked<T> for Mutex<T> {
    fn locked(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
