//! A distributed, replicated, versioned session store for AI agents, on Raft.
//!
//! Three or five nodes keep every session on a majority of their disks before a save is acknowledged. Calls are linearizable, retries
//! are applied once, versions count 1, 2, 3 … per session. An application uses [`client`] (features `client`, and `bob` for the
//! adapter to `bob_core::ports::SessionStore`); the binary `quorate` runs the nodes.
//!
//! The interface is [`client`], the [`types`] and [`limits`] that it names, and [`testing`] for tests of what is built on it. Structs and
//! enums that may grow are `#[non_exhaustive]`. The other modules are what the binary and our own tests are made of: they are hidden, and
//! any release may change them.
//!
//! [`docs`] says how it works and why: [`docs::architecture`] first, [`docs::not_promised`] before you rely on it.

pub mod docs;
#[doc(hidden)]
pub mod env;
pub mod limits;
pub mod types;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "machine")]
#[doc(hidden)]
pub mod codec;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod events;
#[cfg(feature = "machine")]
#[doc(hidden)]
pub mod machine;
#[cfg(any(feature = "client", feature = "machine"))]
mod mutant;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod net;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod offline;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod raft;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod server;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod storage;
#[cfg(feature = "server")]
pub mod testing;
#[cfg(feature = "client")]
#[doc(hidden)]
pub mod tls;
#[cfg(feature = "wire")]
#[doc(hidden)]
pub mod wire;
