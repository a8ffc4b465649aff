//! A distributed, replicated, versioned session store for AI agents, on Raft.
//!
//! Three or five nodes keep every session on a majority of their disks before a save is acknowledged. Calls are linearizable, retries
//! are applied once, versions count 1, 2, 3 … per session. An application uses [`client`] (features `client`, and `bob` for the
//! adapter to `bob_core::ports::SessionStore`); the binary `quorate` runs the nodes, which are [`server`].
//!
//! [`docs`] says how it works and why: [`docs::architecture`] first, [`docs::not_promised`] before you rely on it.

pub mod docs;
pub mod env;
pub mod limits;
pub mod types;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "machine")]
pub mod codec;
#[cfg(feature = "server")]
pub mod events;
#[cfg(feature = "machine")]
pub mod machine;
#[cfg(any(feature = "client", feature = "machine"))]
mod mutant;
#[cfg(feature = "server")]
pub mod net;
#[cfg(feature = "server")]
pub mod offline;
#[cfg(feature = "server")]
pub mod raft;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod storage;
#[cfg(feature = "server")]
pub mod testing;
#[cfg(feature = "client")]
pub mod tls;
#[cfg(feature = "wire")]
pub mod wire;
