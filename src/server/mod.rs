//! Not part of the interface: any release may change it.
//!
//! The running node: clients' calls in, answers out, with everything bounded between.
//!
//! This module owns the client port and the admin port, decides what is admitted, batches it for [`crate::raft`], sends it to the
//! leader where that is another node, and answers. It knows nothing of how a log or a state is kept.
//!
//! ```text
//! client port ─ service ─────┐                               ┌─ raft (propose, read)
//!                            ├─> dispatch ─ admit ─ route ───┼─ forward ──> the leader's peer port
//! peer port ─ peer_requests ─┘                               └─ park (no leader known)
//! admin port ─ livez, readyz, metrics          sweeper ───> raft
//! ```

mod admin;
mod admission;
mod answers;
mod applied;
pub mod auth;
pub mod backup;
mod call;
mod clients;
pub mod config;
mod context;
pub mod data_dir;
mod dispatch;
mod edge;
mod exposed;
mod frames;
mod gate;
mod health;
mod history;
mod http;
mod in_flight;
mod logging;
mod metrics;
mod operations;
mod peer_requests;
mod reader;
mod readers;
mod receiving;
mod security;
mod service;
mod shares;
mod slow;
mod start;
mod status;
mod sweeper;
mod watch;

#[doc(hidden)]
pub use crate::machine::allow_test_version;
pub use crate::raft::{Node, is_marked, mark_for_rebuild};
pub use crate::tls::node_uri;
#[doc(hidden)]
pub use applied::AppliedWrite;
pub use exposed::exposed;
pub use logging::{LogControl, set_log_control};
pub use security::{Reload, check as check_credentials};
pub use start::{Options, Server};
#[doc(hidden)]
pub use start::{SMALL_BYTES, Tuning};

/// Why a node did not start. Nothing was changed. One line that says what to fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

/// Why a node stopped by itself. Acknowledged writes are on disk; the text says what to look at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    removed: bool,
}

impl Error {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), removed: false }
    }

    /// Whether the node is no member of its cluster any more: starting it again is of no use.
    pub fn was_removed(&self) -> bool {
        self.removed
    }
}
