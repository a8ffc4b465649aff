//! What tests stand on, users' and ours: the conformance suite for any session store, a disk that loses and fails, background work that
//! runs inline.

#[cfg(feature = "bob")]
pub mod conformance;
pub mod disk;
pub mod inline;
pub mod tasks;
