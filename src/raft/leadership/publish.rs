//! The task that publishes who leads, and notices what changes with it: the members, a removal, a Raft that has stopped.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;

use crate::env::Stop;
use crate::raft::Leadership;
use crate::raft::adapter::types::StoredMembership;
use crate::raft::confirm::Confirmer;
use crate::raft::context::NodeContext;
use crate::types::NodeId;

/// Pause between two rounds that no majority confirmed.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How often the leader and the health of Raft are checked, besides every change.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

fn membership_text(membership: &StoredMembership) -> String {
    let (voters, members) = (membership.voter_ids(), membership.nodes().map(|(id, _)| *id));
    format!("voters={} members={}", NodeId::listed(voters), NodeId::listed(members))
}

/// Publishes who leads, whenever something that tells it changes, and notices when Raft itself has stopped.
pub async fn run(context: Arc<NodeContext>, confirmer: Arc<Confirmer>, stop: Stop) {
    stop.or(async {
        let mut metrics = context.raft.server_metrics();
        let mut acknowledged = context.raft.data_metrics();
        let mut inputs = context.leadership.inputs();
        let mut members = None;
        loop {
            let membership = context.membership();
            if *membership.log_id() != members {
                members = *membership.log_id();
                context.peers.set_members(membership.nodes().map(|(id, node)| (*id, node.clone())).collect());
                context.events.note("membership", membership_text(&membership));
            }
            if context.is_removed(context.me()) {
                context.failure.fail_removed();
            }
            drop(acknowledged.borrow_and_update());
            let look = publish(&context, *inputs.hung.borrow_and_update());
            let lacks_quorum = context.leadership.published().lacks_quorum;
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { return },
                () = inputs.changed() => {}
                () = context.leadership.quorum().changed() => {}
                // Any of them may be the answer that makes a majority again.
                changed = acknowledged.changed(), if lacks_quorum => if changed.is_err() { return },
                () = ask_majority(&context, &confirmer) => {}
                () = tokio::time::sleep(look) => {
                    if let Err(error) = &context.raft.metrics().borrow_watched().running_state {
                        context.failure.fail(format!("raft stopped: {error}"));
                    }
                }
            }
        }
    })
    .await;
}

/// Asks the voters who leads, while this node does by its term and its appends were not answered for a while: answers to those wait for
/// the disks of the others. Returns once a majority has confirmed it. Cancel safe.
async fn ask_majority(context: &NodeContext, confirmer: &Confirmer) {
    loop {
        let Some(age) = context.leadership.quorum_age() else { return std::future::pending().await };
        let wait = (context.leadership.quorum().patience() / 2).saturating_sub(age);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        } else if confirmer.confirm(1).await {
            return;
        } else {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

/// Publishes who leads now; gives how long that holds at most.
fn publish(context: &NodeContext, hung: bool) -> Duration {
    let leader = context.leadership.leader_for_now();
    let is_self = leader.is_some_and(|(leader, _)| leader == context.me());
    let known = Leadership {
        term: context.raft.metrics().borrow_watched().current_term,
        leader: leader.and_then(|(leader, _)| context.leadership.hint(leader)),
        is_self,
        lacks_quorum: !is_self && context.leadership.leader_by_term() == Some(context.me()),
        hung,
    };
    let before = context.leadership.published();
    if before.leader != known.leader {
        let leader = known.leader.as_ref().map(|hint| hint.node.0);
        let name = leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        tracing::info!(term = known.term, leader = name, "the leader changed");
        context.events.note("leader", format!("term={} leader={name}", known.term));
    }
    match (before.lacks_quorum, known.lacks_quorum) {
        (false, true) => {
            tracing::warn!(term = known.term, "no majority of the voters answers this leader: it is none until one does");
            context.events.note("quorum", format!("lost: no majority answers this leader term={}", known.term));
        }
        (true, false) if is_self => {
            tracing::info!(term = known.term, "a majority of the voters answers this leader again");
            context.events.note("quorum", format!("regained: a majority answers this leader again term={}", known.term));
        }
        _ => {}
    }
    context.leadership.publish(known);
    leader.map_or(POLL_INTERVAL, |(_, left)| left.min(POLL_INTERVAL))
}
