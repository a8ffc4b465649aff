//! What lies on disk, free of meaning: keys and bytes.
//!
//! Nothing here knows what an entry or a row says. Every file operation goes through [`crate::env::Disk`]; [`lock`] is the one
//! exception.

pub mod identity;
pub mod lock;
pub mod log;
