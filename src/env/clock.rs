//! Time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Two clocks: one that only goes forward, and the wall's, which may jump.
pub trait Clock: Send + Sync + 'static {
    /// Time since an arbitrary start of this process; never goes back.
    fn now(&self) -> Duration;

    /// Milliseconds since the Unix epoch; may jump either way. Only ever a proposal: machine time is decided by the cluster.
    fn wall_ms(&self) -> u64;
}

/// The operating system's clocks.
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts counting now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        unix_ms(SystemTime::now())
    }
}

/// Milliseconds since the Unix epoch; 0 for what was before it.
pub fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
