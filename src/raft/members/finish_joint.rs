//! Ends a change of the members whose leader went away between its two steps.

use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::raft::Precondition;

use super::MemberChanges;
use crate::env::Stop;
use crate::raft::adapter::types::RaftLogId;

/// How often the leader looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs on every node; acts on the leader, where two configurations have been in force together for a while.
pub async fn run(members: Arc<MemberChanges>, stop: Stop) {
    stop.or(async {
        let context = &members.context;
        let mut seen: Option<RaftLogId> = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let membership = context.membership();
            let is_joint = membership.membership().get_joint_config().len() > 1;
            let before = std::mem::replace(&mut seen, membership.log_id().filter(|_| is_joint));
            if !context.leadership.is_self() || seen.is_none() || before != seen {
                continue;
            }
            // A task that makes a change here ends it itself.
            let Ok(_only) = members.one_at_a_time.try_lock() else { continue };
            tracing::info!("ending a change of the members that was left half made");
            let nothing_more = ChangeMembers::AddVoterIds(Default::default());
            let last = Precondition::LastMembershipLogId { last_membership_log_id: seen };
            match tokio::time::timeout(TIMEOUT, context.raft.change_membership_if(nothing_more, false, [last])).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::info!(%error, "the change was not ended; it will be tried again"),
                Err(_) => tracing::info!("the change was not ended in time; it will be tried again"),
            }
        }
    })
    .await;
}
