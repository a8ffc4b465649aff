//! A distributed, replicated session store for AI agents, on Raft.

pub mod env;
pub mod limits;
pub mod types;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "machine")]
pub mod codec;
#[cfg(feature = "machine")]
pub mod machine;
#[cfg(feature = "server")]
pub mod raft;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod storage;
#[cfg(feature = "server")]
pub mod testing;
#[cfg(feature = "wire")]
pub mod wire;
