//! Calls that wait for a leader: bounded in number, bytes and time.

use std::time::Duration;

use crate::limits::{PARKED_BYTES_MAX, PARKED_CALLS_MAX};
use crate::server::call::Call;

/// A call, as the park sees it.
pub trait Parked {
    /// Its share of the bound on bytes.
    fn bytes(&self) -> u64;
    /// When it must be refused.
    fn until(&self) -> Duration;
}

impl Parked for Box<Call> {
    fn bytes(&self) -> u64 {
        self.permit.bytes()
    }

    fn until(&self) -> Duration {
        self.parked_until.unwrap_or(self.deadline)
    }
}

/// The parked calls, in the order they came.
pub struct Park<T> {
    calls: Vec<T>,
    bytes: u64,
}

impl<T: Parked> Park<T> {
    pub fn new() -> Self {
        Self { calls: Vec::new(), bytes: 0 }
    }

    pub fn len(&self) -> usize {
        self.calls.len()
    }

    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Keeps a call. Errors: no room; the call comes back.
    pub fn push(&mut self, call: T) -> Result<(), T> {
        let bytes = self.bytes.saturating_add(call.bytes());
        if self.calls.len() >= PARKED_CALLS_MAX || bytes > PARKED_BYTES_MAX {
            return Err(call);
        }
        self.bytes = bytes;
        self.calls.push(call);
        Ok(())
    }

    /// Lets all go, in order, those first that have waited too long.
    pub fn release(&mut self, now: Duration) -> Released<T> {
        self.bytes = 0;
        let (expired, waiting) = std::mem::take(&mut self.calls).into_iter().partition(|call| call.until() <= now);
        Released { expired, waiting }
    }
}

/// Calls that were parked.
pub struct Released<T> {
    /// To be refused.
    pub expired: Vec<T>,
    /// To be tried again.
    pub waiting: Vec<T>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Fake(u64, Duration);

    impl Parked for Fake {
        fn bytes(&self) -> u64 {
            self.0
        }

        fn until(&self) -> Duration {
            self.1
        }
    }

    #[test]
    fn the_park_is_bounded_in_number() {
        let mut park = Park::new();
        for _ in 0..PARKED_CALLS_MAX {
            park.push(Fake(1, Duration::MAX)).expect("room");
        }
        assert_eq!(park.push(Fake(1, Duration::ZERO)), Err(Fake(1, Duration::ZERO)));
    }

    #[test]
    fn the_park_is_bounded_in_bytes_and_has_room_again_after_a_release() {
        let mut park = Park::new();
        park.push(Fake(PARKED_BYTES_MAX, Duration::MAX)).expect("room");
        assert!(park.push(Fake(1, Duration::MAX)).is_err());
        assert_eq!(park.release(Duration::ZERO).waiting.len(), 1);
        assert!(park.push(Fake(1, Duration::MAX)).is_ok());
    }

    #[test]
    fn a_release_tells_those_that_waited_too_long_from_the_others() {
        let mut park = Park::new();
        park.push(Fake(1, Duration::from_millis(500))).expect("room");
        park.push(Fake(2, Duration::from_millis(501))).expect("room");
        let released = park.release(Duration::from_millis(500));
        assert_eq!(released.expired, [Fake(1, Duration::from_millis(500))]);
        assert_eq!(released.waiting, [Fake(2, Duration::from_millis(501))]);
        assert!(park.is_empty());
    }
}
