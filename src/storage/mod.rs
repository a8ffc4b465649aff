//! Not part of the interface: any release may change it.
//!
//! A node's disk: meaning-free keys and bytes, every record with a checksum.
//!
//! Nothing here knows what an entry or a row says. Every file operation goes through [`crate::env::Disk`]; [`lock`] is the one
//! exception.

pub mod backup;
pub mod directory;
pub mod identity;
pub mod lock;
pub mod log;
pub mod state;
