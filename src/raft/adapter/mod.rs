//! openraft's traits on our log, our state and our peer port. Nothing else names its storage and network traits.
//!
//! ```text
//!           append, vote ──> log_store ──> storage::log
//! openraft  apply ─────────> state_machine ──> round ──> machine, storage::state
//!           calls to peers ─> raft_network, append_stream ──> peer port
//!           a snapshot that arrives <── snapshot_in
//! ```

pub mod append_stream;
#[doc(hidden)]
pub mod fuzz_codecs;
pub mod log_store;
pub mod raft_network;
mod round;
pub mod snapshot_in;
pub mod state_machine;
#[cfg(test)]
mod suite;
pub mod types;
