//! A stopped node's files, for the command line. See [`Offline`].

pub use crate::raft::offline::{Error, Offline};
