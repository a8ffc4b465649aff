//! Whole nodes in one process.

mod cluster;

/// What more than one test program stands on.
mod support {
    pub mod bytes;
    pub mod raw;
}
