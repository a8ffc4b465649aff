//! Clusters under faults of every kind, simulated and real, and the audits of what they answered.

mod chaos;
mod sim;

/// What more than one test program stands on.
mod support {
    pub mod bytes;
    pub mod reference;
}
