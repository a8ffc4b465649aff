//! The only place that touches clocks, entropy, files and threads.
//!
//! Everything else takes these as traits, so that a simulation can own them: time that stands still, randomness from a seed, a disk
//! that loses what was not synced, background work that runs inline.

mod clock;
#[cfg(feature = "server")]
mod disk;
#[cfg(feature = "client")]
mod entropy;
mod random;
#[cfg(feature = "server")]
mod worker;

pub use clock::{Clock, SystemClock};
#[cfg(feature = "server")]
pub use disk::{Disk, DiskFile, RealDisk, Space};
#[cfg(feature = "client")]
pub use entropy::SystemRandom;
pub use random::{Random, u64_from};
#[cfg(feature = "server")]
pub use worker::{Manual, Step, ThreadWorkers, Waker, Worker, Workers};

/// Everything a node needs of the outside world, cheap to clone.
#[cfg(feature = "server")]
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: std::sync::Arc<dyn Clock>,
    /// Entropy.
    pub random: std::sync::Arc<dyn Random>,
    /// Files.
    pub disk: std::sync::Arc<dyn Disk>,
    /// Background work.
    pub workers: std::sync::Arc<dyn Workers>,
}

#[cfg(feature = "server")]
impl Env {
    /// The operating system's.
    pub fn real() -> Self {
        use std::sync::Arc;
        Self {
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
            disk: Arc::new(RealDisk),
            workers: Arc::new(ThreadWorkers),
        }
    }
}
