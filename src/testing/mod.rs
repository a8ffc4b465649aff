//! Support for tests, users' and ours: a cluster in this process, the conformance suite for any session store, a disk that loses and
//! fails, background work that runs inline, nodes as processes, and load to measure any store with.

pub mod cluster;
#[cfg(feature = "bob")]
pub mod conformance;
pub mod disk;
pub mod history;
pub mod inline;
pub mod load;
pub mod processes;
mod proxies;
pub mod tasks;

pub use cluster::Cluster;
