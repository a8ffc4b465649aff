//! The program, and clusters of it: real processes on real files and sockets.

mod cli;
mod noisy;
mod process;
mod security;

/// What more than one test program stands on.
mod support {
    pub mod bytes;
    pub mod raw;
}
