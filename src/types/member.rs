//! The members of a cluster, and the changes of them.

use super::{ClusterId, NodeId, Revision};

/// A member of the cluster, configured or replicated.
///
/// For a change of the members: [`Member::new`], then the three addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Where clients reach it, `host:port`.
    pub client_address: String,
    /// Where its peers reach it, `host:port`.
    pub peer_address: String,
    /// Where it answers over HTTP, `host:port`; empty where it is unknown.
    pub admin_address: String,
    /// Whether it votes.
    pub voter: bool,
}

impl Member {
    /// A member without a vote, whose addresses are still to be filled in.
    pub fn new(id: impl Into<NodeId>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }
}

/// The members of the cluster, as the node that answered has applied them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Members {
    /// `None` before the cluster is formed.
    pub cluster_id: Option<ClusterId>,
    /// In order of ids.
    pub members: Vec<Member>,
    /// The entry that says so; 0 before there is one.
    pub revision: Revision,
    /// The largest id any node of this cluster ever had: a new node's must be above.
    pub largest_id: NodeId,
    /// Voters of the configuration that is being left, while a change is under way.
    pub leaving: Vec<NodeId>,
}

/// A change of the members. Each may be asked for again: one that has happened is done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberChange {
    /// A node that runs at these addresses and has no data becomes a member without a vote. Its id must be a new one.
    Add(Member),
    /// A member that has caught up gets a vote.
    Promote(NodeId),
    /// A member leaves; a leader transfers the leadership first.
    Remove(NodeId),
    /// A member that has caught up takes another one's place, in one step.
    Replace {
        /// Leaves.
        old: NodeId,
        /// Gets the vote.
        new: NodeId,
    },
    /// A member that runs with its data at these addresses is reached there from now on.
    Update(Member),
}
