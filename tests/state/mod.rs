//! `storage::state` on real files and on a disk that crashes.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise, in its helpers too")]

mod crash;
mod flush;
mod restore;
pub mod rig;
mod rounds;
mod snapshot;
mod threads;
