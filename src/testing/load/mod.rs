//! Workloads of agents, to measure any store with.
//!
//! A store takes part by a [`Target`]: save, save if a version is still the current one, load. Agents' turns come in through [`Turns`];
//! [`Whole`] makes them of any `Target`, as an application without deltas would: the whole document is loaded, grown, and stored again.
//! [`drive`] puts load on it: callers that each wait for their answer (closed loop), or arrivals that wait for nobody (open loop), where
//! latency counts from the moment the call was due.
//!
//! ```
//! use std::sync::Arc;
//! use quorate::testing::load::{Corpus, Memory, Plan, Progress, Saves, drive};
//!
//! # async fn example() {
//! let targets = vec![Arc::new(Memory::default())];
//! let work = Saves { targets, keys: 100, value_bytes: 1024, corpus: Corpus::text(1, 1 << 16) };
//! let plan = Plan { window: std::time::Duration::from_millis(50), ..Plan::closed(4) };
//! let driven = drive(Arc::new(work), &plan, &Progress::default(), async || ()).await;
//! assert!(driven.run.operations > 0);
//! # }
//! # tokio::runtime::Runtime::new().expect("a runtime").block_on(example());
//! ```

mod corpus;
mod drive;
mod gap;
mod memory;
mod micro;
mod ours;
pub mod population;
mod rng;
mod run;
mod sessions;
mod turns;

#[cfg(feature = "bob")]
mod bob;

use std::fmt;
use std::future::Future;

use bytes::Bytes;

#[cfg(feature = "bob")]
pub use bob::{Agents, Saving};
pub use corpus::Corpus;
pub use drive::{Driven, Pace, Plan, Progress, Step, Work, drive};
pub use gap::{Gap, gap};
pub use memory::Memory;
pub use micro::{Cases, Loads, PREFIX, Saves, TurnLoop, Updates, fill, key, message};
pub use ours::{Transcripts, Values};
pub use rng::Rng;
pub use run::{Run, Spread};
pub use sessions::{Audit, Sessions};
pub use turns::{Finished, Transcript, Turn, Turns, Whole};

/// A store under load: one connection, or some that share it; cheap to share. Keys are at most 100 bytes of ASCII.
///
/// Dropping a future may leave its call half known; [`drive`] drops none.
pub trait Target: Send + Sync + 'static {
    /// Stores `value`, whatever is there; the new version, above every earlier one of this key. Errors: as [`Failure`] says.
    fn save(&self, key: &str, value: Bytes) -> impl Future<Output = Result<u64, Failure>> + Send;

    /// Stores `value` if the key's version is `expected`, 0 meaning that there is none. Errors: as [`Failure`] says; a conflict is none.
    fn save_if(&self, key: &str, value: Bytes, expected: u64) -> impl Future<Output = Result<Cas, Failure>> + Send;

    /// The value and its version, as of now (linearizable); `None` if there is none. Errors: as [`Failure`] says.
    fn load(&self, key: &str) -> impl Future<Output = Result<Option<(u64, Bytes)>, Failure>> + Send;
}

/// How a conditional save ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cas {
    /// The value is stored, as this version.
    Saved(u64),
    /// The value is not stored: another version is current, this one where the store says which, 0 where there is none.
    Conflict(u64),
}

/// A call that failed, other than by a conflict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// In one line, for people.
    pub message: String,
    /// Whether a write may nevertheless have happened.
    pub may_have_happened: bool,
}

impl Failure {
    /// A call that changed nothing.
    pub fn unchanged(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), may_have_happened: false }
    }

    /// A call that may have changed something.
    pub fn unknown(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), may_have_happened: true }
    }
}
