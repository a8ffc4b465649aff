//! Handing the leadership over in good order (Raft dissertation §3.10).

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;

use super::peer_table::PeerTable;
use crate::raft::context::NodeContext;
use crate::raft::upkeep::room::Room;
use crate::types::{NodeId, Refusal, RefusalKind};

/// How long another may take to lead. Longer than an election timeout: if nobody takes over at once, an election settles it.
const TIMEOUT: Duration = Duration::from_secs(4);
/// How long until this node has heard of it.
const HEARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the leadership was not handed over.
#[derive(Debug)]
pub struct Failed {
    /// For people.
    pub why: String,
    /// Whether a voter was asked to take over, and still may.
    pub began: bool,
}

impl Failed {
    /// The failure as a refusal for the caller.
    pub fn refusal(self) -> Refusal {
        match self.began {
            true => Refusal::unknown(RefusalKind::Unavailable, self.why),
            false => Refusal::not_applied(RefusalKind::Invalid, format!("{}; nothing was changed", self.why)),
        }
    }
}

/// Hands over to `to`, or to the voter whose log is the longest of those that answer; gives who leads then. Does nothing on a node that
/// does not lead.
///
/// Errors: nobody can take over, or nobody did in time. Dropping the future does not stop it.
pub async fn transfer_leadership(
    context: &NodeContext,
    table: &PeerTable,
    room: &Room,
    to: Option<NodeId>,
) -> Result<NodeId, Failed> {
    let target = begin(context, table, room, to).await.map_err(|why| Failed { why, began: false })?;
    let began = |why: &str| Failed { why: why.to_owned(), began: true };
    let me = context.me();
    let wait = context.raft.wait(Some(TIMEOUT));
    tokio::select! {
        led = wait.metrics(|metrics| metrics.current_leader.is_some_and(|leader| leader != me), "another leads") => {
            let leader = led.ok().and_then(|metrics| metrics.current_leader);
            let leader = leader.ok_or_else(|| began("no voter took the leadership over in time"))?;
            let mut known = context.leadership.subscribe();
            let heard = known.wait_for(|known| known.leader.as_ref().is_some_and(|leader| leader.node != me));
            // Whether or not: it leads.
            let _ = tokio::time::timeout(HEARD_TIMEOUT, heard).await;
            Ok(leader)
        }
        // It stops too: the whole cluster does.
        () = table.disconnected(target) => Err(began("the one that was to take over went away")),
    }
}

/// Asks a voter to take over, and everyone to let it; gives who that is. It may not come to it.
pub async fn begin(context: &NodeContext, table: &PeerTable, room: &Room, to: Option<NodeId>) -> Result<NodeId, String> {
    let target = {
        let metrics = context.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref().filter(|_| metrics.state == ServerState::Leader);
        let Some(replication) = replication else { return Err("this node does not lead".into()) };
        let others = metrics.membership_config.voter_ids();
        let others = others.filter(|id| *id != context.me() && table.is_connected(*id) && to.is_none_or(|to| to == *id));
        let full = &room.verdict().full;
        others.max_by_key(|id| (!full.contains(id), replication.get(id).cloned().flatten(), *id))
    };
    let Some(target) = target else {
        return Err(match to {
            Some(to) => format!("node {to} is no other voter that answers"),
            None => "no other voter answers".to_owned(),
        });
    };
    // It would only hand over in turn.
    if to.is_some() && room.verdict().spares && room.verdict().full.contains(&target) {
        return Err(format!("the disk of node {target} is full; others have room"));
    }
    tracing::info!(to = %target, "handing leadership over");
    context.raft.trigger().transfer_leader(target).await.map_err(|error| error.to_string())?;
    Ok(target)
}
