//! For users' tests and ours.

#[cfg(feature = "bob")]
pub mod conformance;
