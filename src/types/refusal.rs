//! Refusals: what a node answers instead of an outcome. `quorate::docs::protocol`, "Refusals", has the table.

use std::fmt;
use std::time::Duration;

use super::NodeId;

/// Whether the refused attempt may have changed anything. It speaks of that attempt only, and [`Applied::No`] is said only of one that
/// was never proposed or certainly not appended (L8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Definitely not.
    No,
    /// The attempt may have been applied, or may be yet.
    Unknown,
}

/// Where the leader is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader.
    pub node: NodeId,
    /// Its client address, `host:port`.
    pub address: String,
}

/// Why, by what the client does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The call is wrong as written. Fix it.
    Invalid,
    /// The call names another cluster. Clients, bases and caches of the other one mean nothing here.
    WrongCluster,
    /// This node does not lead. Go there at once.
    NotLeader(LeaderHint),
    /// No leader is known, or it has no quorum. Back off, retry.
    NoLeader,
    /// Too much in flight. Back off.
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The voters with room on their disks are no majority. Back off; reads and deletes go on.
    DiskLow {
        /// When to try again.
        retry_after: Duration,
    },
    /// The call's deadline passed.
    DeadlineExceeded,
    /// The node is stopping or lost the leadership: go to another.
    Unavailable,
    /// The bytes to be read fail their checksum; that node stops serving. Another one may have them.
    Corrupt,
    /// No or bad credentials.
    Unauthenticated,
    /// These credentials do not allow it.
    Denied,
    /// The operation belongs to a later cluster version than the one in force.
    Unsupported,
}

/// A refusal of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub kind: RefusalKind,
    /// Whether this attempt may have changed anything.
    pub applied: Applied,
    /// For people: lower case, values last as `key=value`. Not API.
    pub message: String,
}

impl Refusal {
    /// A refusal before anything was proposed.
    pub fn not_applied(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, applied: Applied::No, message: message.into() }
    }

    /// A refusal after which the write may have happened.
    pub fn unknown(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, applied: Applied::Unknown, message: message.into() }
    }

    /// A call of a later cluster version than the one in force.
    pub fn unsupported(needs: u16, in_force: u16) -> Self {
        let message = format!(
            "the cluster version in force does not have this operation, see cluster_version_max of each node in `quorate status -o json` \
             needs={needs} in_force={in_force}"
        );
        Self::not_applied(RefusalKind::Unsupported, message)
    }

    /// A call that is wrong as written.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::not_applied(RefusalKind::Invalid, message)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
