//! What runs without a network and without other processes: the machine, the log, the state, their formats, the checkers of histories.

mod compat;
mod fuzz;
mod history;
mod machine;
mod state;
mod storage_log;

/// What more than one test program stands on.
mod support {
    pub mod bytes;
    pub mod reference;
}
