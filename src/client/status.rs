//! The cluster's status: any endpoint gives it, without a quorum or a driver.

use std::time::Duration;

use super::Error;
use super::ask::{Worth, best_answer};
use super::config::Config;
use super::driver::connection::sessions;
use crate::limits::{MESSAGE_BYTES_MAX, NODES_MAX};
use crate::types::{ClusterId, ClusterStatus, Revision};
use crate::wire::{self, v1};

const _: () = assert!(NODES_MAX as u64 * 4096 < MESSAGE_BYTES_MAX);

/// The options of a status call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusOptions {
    /// Ask each node for the digest of its state at this entry.
    pub digest_at: Option<Revision>,
    /// How long each endpoint may take; 2 s by default.
    pub timeout: Duration,
}

impl Default for StatusOptions {
    fn default() -> Self {
        Self { digest_at: None, timeout: Duration::from_secs(2) }
    }
}

pub(super) async fn ask(config: &Config, options: StatusOptions) -> Result<ClusterStatus, Error> {
    let timeout_ms = u32::try_from(options.timeout.as_millis() * 9 / 10).unwrap_or(u32::MAX);
    let digest_at = options.digest_at.map_or(0, |revision| revision.0);
    let request = v1::StatusRequest { digest_at, timeout_ms, local: false };
    let (response, endpoint) =
        best_answer(config, options.timeout, |link| async move { sessions(link).status(request).await }, worth).await?;
    Ok(ClusterStatus {
        cluster_id: ClusterId::from_slice(&response.cluster_id),
        cluster_name: response.cluster_name,
        endpoint,
        nodes: response.nodes.into_iter().map(wire::node_status_from).collect(),
    })
}

/// An answer is worth the most if its node reaches a majority of the voters, then by the term it knows.
fn worth(answer: &v1::StatusResponse) -> Worth {
    // A release that does not say who votes names its learners where they answer.
    let voters = answer.nodes.iter().filter(|node| node.voter.unwrap_or(node.role() != v1::Role::Learner));
    let (all, there) = voters.fold((0, 0), |(all, there), node| (all + 1, there + usize::from(node.reachable)));
    let term = answer.nodes.iter().map(|node| node.term).max().unwrap_or(0);
    Worth::of(!answer.cluster_id.is_empty(), 2 * there > all, term)
}
