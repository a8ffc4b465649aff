//! Handing the leadership over in good order (Raft dissertation §3.10).

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;

use super::presence::Presence;
use super::shared::Shared;
use crate::types::NodeId;

/// How long another may take to lead.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long until this node has heard of it.
const HEARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Hands over to `to`, or to the voter whose log is the longest of those that answer; gives who leads then. Does nothing on a node that
/// does not lead.
///
/// Errors, for people: nobody can take over, or nobody did in time. Dropping the future does not stop it.
pub async fn hand_over(shared: &Shared, presence: &Presence, to: Option<NodeId>) -> Result<NodeId, String> {
    let target = begin(shared, presence, to).await?;
    let me = shared.me;
    let wait = shared.raft.wait(Some(TIMEOUT));
    tokio::select! {
        led = wait.metrics(|metrics| metrics.current_leader.is_some_and(|leader| leader != me), "another leads") => {
            let leader = led.ok().and_then(|metrics| metrics.current_leader);
            let leader = leader.ok_or("nobody took the leadership over in time")?;
            let mut known = shared.leadership.subscribe();
            let heard = known.wait_for(|known| known.leader.as_ref().is_some_and(|leader| leader.node != me));
            // Whether or not: it leads.
            let _ = tokio::time::timeout(HEARD_TIMEOUT, heard).await;
            Ok(leader)
        }
        // It stops too: the whole cluster does.
        () = presence.disconnected(target) => Err("the one that was to take over went away".to_owned()),
    }
}

/// Asks a voter to take over, and everyone to let it; gives who that is. It may not come to it.
pub async fn begin(shared: &Shared, presence: &Presence, to: Option<NodeId>) -> Result<NodeId, String> {
    let target = {
        let metrics = shared.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref().filter(|_| metrics.state == ServerState::Leader);
        let Some(replication) = replication else { return Err("this node does not lead".into()) };
        let others = metrics.membership_config.voter_ids();
        let others = others.filter(|id| *id != shared.me && presence.is_connected(*id) && to.is_none_or(|to| to == *id));
        others.max_by_key(|id| (replication.get(id).cloned().flatten(), *id))
    };
    let Some(target) = target else {
        return Err(match to {
            Some(to) => format!("node {to} is no other voter that answers"),
            None => "no other voter answers".to_owned(),
        });
    };
    tracing::info!(to = %target, "handing leadership over");
    shared.raft.trigger().transfer_leader(target).await.map_err(|error| error.to_string())?;
    Ok(target)
}
