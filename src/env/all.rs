//! The outside world of a node, in one value.

use std::sync::Arc;

use super::{Clock, Disk, Random, RealDisk, SystemClock, SystemRandom, ThreadWorkers, Workers};

/// Everything a node needs of the outside world, cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Entropy.
    pub random: Arc<dyn Random>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Background work.
    pub workers: Arc<dyn Workers>,
}

impl Env {
    /// The operating system's.
    pub fn real() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
            disk: Arc::new(RealDisk),
            workers: Arc::new(ThreadWorkers),
        }
    }
}
