//! Raising the cluster version: the leader proposes the next one once every member has said, in the leader's own term, that it reads
//! it (L17). So a rolling upgrade neither stops a node nor makes replicas diverge.

use std::sync::Arc;
use std::time::Duration;

use crate::env::Stop;
use crate::machine::{Command, newest_version};
use crate::raft::context::NodeContext;
use crate::raft::peer::peer_table::PeerTable;
use crate::raft::propose::propose;

/// How often the leader looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// The version to propose, given the newest one each member reads: `None` in it is a member that has not said. Pure.
fn next(in_force: u16, newest: impl IntoIterator<Item = Option<u16>>) -> Option<u16> {
    let next = in_force.checked_add(1)?;
    newest.into_iter().all(|newest| newest.is_some_and(|newest| newest >= next)).then_some(next)
}

/// Runs on every node; acts on the leader.
pub async fn run(context: Arc<NodeContext>, table: Arc<PeerTable>, stop: Stop) {
    stop.or(async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let in_force = context.state.view(|state, _, _| state.machine.cluster_version());
            let leadership = context.leadership.published();
            if !leadership.is_self || newest_version() <= in_force {
                continue;
            }
            let members: Vec<_> = context.membership().nodes().map(|(id, _)| *id).collect();
            let newest = members
                .into_iter()
                .map(|id| if id == context.me() { Some(newest_version()) } else { table.newest_version_of(id, leadership.term) });
            let Some(version) = next(in_force, newest) else { continue };
            tracing::info!(version, "every member reads the next cluster version: proposing it");
            let reply = Box::new(|result| match result {
                Ok(_) => {}
                Err(refusal) => tracing::info!(%refusal, "the cluster version was not raised; it will be tried again"),
            });
            propose(&context, vec![(Command::SetClusterVersion { version }, reply)]).await;
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_version_needs_every_member() {
        assert_eq!(next(1, [Some(2), Some(2), Some(3)]), Some(2));
        assert_eq!(next(1, [Some(2), Some(1), Some(2)]), None);
        assert_eq!(next(1, [Some(2), None, Some(2)]), None, "one that has not said counts as one that does not");
        assert_eq!(next(2, [Some(2), Some(2), Some(2)]), None);
    }
}
