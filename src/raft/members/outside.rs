//! A node that is in no cluster, and one that a cluster has as a member with another data directory.

use std::sync::{Arc, OnceLock};

use crate::raft::context::NodeContext;
use crate::types::ClusterId;

/// The message of a node that belongs to no cluster.
pub const IN_NO_CLUSTER: &str = "this node is in no cluster: it waits to be part of one, or its disk is empty; put the right disk back, or replace the \
                                 node under a new id";

/// Whether this node is outside every cluster.
pub struct Outside {
    context: Arc<NodeContext>,
    /// The cluster that has this node as a member with another data directory.
    estranged: OnceLock<ClusterId>,
}

impl Outside {
    pub fn new(context: Arc<NodeContext>) -> Self {
        Self { context, estranged: OnceLock::new() }
    }

    /// Why this node may not answer for a cluster, if it is in none; and whether a cluster has it as a member all the same.
    pub fn why(&self) -> Option<(String, bool)> {
        if self.context.peers.cluster_id().is_some() && self.context.has_voters() {
            return None;
        }
        Some(match self.estranged.get().filter(|_| self.context.peers.cluster_id().is_none()) {
            Some(cluster) => (estranged(*cluster), true),
            None => (IN_NO_CLUSTER.to_owned(), false),
        })
    }

    /// A cluster has this node as a member with another data directory, and this one holds nothing. Said once.
    pub fn lost_its_disk(&self, cluster: ClusterId) {
        if self.estranged.set(cluster).is_ok() {
            let what = estranged(cluster);
            tracing::error!("{what}");
            self.context.events.note("no_cluster", what);
        }
    }
}

fn estranged(cluster: ClusterId) -> String {
    format!(
        "this node is in no cluster: its disk is empty or another one, and the cluster {cluster} has it as a member; put the right disk \
         back, or replace the node under a new id"
    )
}
