//! A stopped node's files, for the command line. See [`StoppedNode`].

pub use crate::offline::{Error, StoppedNode};
