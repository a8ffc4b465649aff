//! Not part of the interface: any release may change it.
//!
//! The only place that touches clocks, entropy, files and threads.
//!
//! Everything else takes these as traits, so that a simulation can own them: time that stands still, randomness from a seed, a disk
//! that loses what was not synced, background work that runs inline. The usage of
//! processes is read here too, for measurements.

#[cfg(feature = "server")]
mod all;
#[cfg(feature = "server")]
mod blocking;
mod clock;
#[cfg(feature = "server")]
mod disk;
#[cfg(feature = "client")]
mod entropy;
#[cfg(feature = "client")]
mod files;
#[cfg(feature = "server")]
mod frozen;
mod locked;
#[cfg(feature = "server")]
mod new_file;
mod random;
#[cfg(feature = "server")]
mod signal;
#[cfg(feature = "server")]
mod tasks;
#[cfg(feature = "server")]
mod usage;
#[cfg(feature = "server")]
mod worker;

/// The locks of what threads wait on: `tests/threads` has others there.
#[cfg(feature = "server")]
mod sync {
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
}

#[cfg(feature = "server")]
pub use all::Env;
#[cfg(feature = "server")]
pub use blocking::Blocking;
pub use clock::{Clock, SystemClock, unix_ms};
#[cfg(feature = "server")]
pub use disk::{Disk, DiskFile, LockGuard, RealDisk, Space, is_full, replace_file};
#[cfg(feature = "client")]
pub use entropy::SystemRandom;
#[cfg(feature = "client")]
pub use files::{open_to_all, read_file};
#[cfg(feature = "server")]
pub use frozen::FrozenDisk;
pub use locked::Locked;
#[cfg(feature = "server")]
pub use new_file::{NewFile, Prepared, Replacing, new_directory_beside, remove_left_overs};
pub use random::{Random, u64_from};
#[cfg(feature = "server")]
pub use tasks::{Spawner, Stop, Tasks};
#[cfg(feature = "server")]
pub use usage::{OwnUsage, ProcessUsage, directory_bytes, loopback_bytes, raise_open_files};
#[cfg(feature = "server")]
pub use worker::{Manual, Step, ThreadWorkers, Waker, Worker, Workers, yield_thread};
