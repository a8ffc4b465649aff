//! Watches the room on this node's disk, and what follows from everyone's (see [`super::room`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::room::{Disk, Room, Verdict, decide};
use crate::env::Stop;
use crate::raft::context::NodeContext;
use crate::raft::peer::peer_table::PeerTable;
use crate::raft::peer::transfer::begin;

/// How often the disk is looked at, and the verdict made again if nothing is heard.
const INTERVAL: Duration = Duration::from_millis(500);
/// After this a full leader asks another voter again to take over.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Watches the disk, which was looked at before, makes the verdict whenever something is heard, and hands the leadership over where this
/// node should not have it.
pub async fn run(context: Arc<NodeContext>, table: Arc<PeerTable>, room: Arc<Room>, stop: Stop) {
    stop.or(async {
        let mut asked: Option<Instant> = None;
        let mut looked = Instant::now();
        loop {
            if looked.elapsed() >= INTERVAL {
                looked = Instant::now();
                look(&context, &room).await;
            }
            let verdict = judge(&context, &table, &room);
            let leads = context.leadership.live_leader() == Some(context.me());
            note(&context, &room, leads, verdict);
            let hands_over = leads && room.verdict().hands_over;
            if hands_over && asked.is_none_or(|at| at.elapsed() >= AGAIN_AFTER) {
                asked = Some(Instant::now());
                match begin(&context, &table, &room, None).await {
                    Ok(to) => {
                        context.events.note("disk", format!("low on the leader: asked to take over node={to}"));
                        tracing::info!(%to, "the leader's disk is full: a voter with room takes over");
                    }
                    Err(why) => tracing::warn!(why, "the leader's disk is full, and no voter can take over"),
                }
            }
            let heard = async {
                table.changed().await;
                // Many are heard at once; one look is enough for them.
                tokio::time::sleep(INTERVAL / 10).await;
            };
            let _ = tokio::time::timeout(INTERVAL, heard).await;
        }
    })
    .await;
}

/// Looks at this node's disk; before it serves for the first time. Cancel safe.
pub async fn look(context: &Arc<NodeContext>, room: &Room) {
    let own = context.clone();
    let low = match context.blocking.call(move || own.env.disk.space(&own.facts.data_dir)).await {
        Ok(space) => room.note_space(space),
        Err(error) => return tracing::warn!(%error, "cannot tell how much room the disk has"),
    };
    if let Some(low) = low {
        let what = if low { "low: no content is taken while others have room" } else { "healed: content is taken again" };
        context.events.note("disk", what);
        tracing::warn!(low, "the room on this node's disk crossed the bound below which it takes no content");
    }
}

fn judge(context: &NodeContext, table: &PeerTable, room: &Room) -> Verdict {
    let membership = context.membership();
    let mut disks = table.disks();
    let own = if room.is_low() { Disk::Full } else { Disk::Roomy };
    disks.insert(context.me(), own);
    disks.retain(|id, _| membership.get_node(id).is_some());
    decide(context.me(), membership.membership().get_joint_config(), &disks)
}

/// Publishes a verdict, and says what changed for callers.
fn note(context: &NodeContext, room: &Room, leads: bool, verdict: Verdict) {
    let Some(old) = room.publish(&verdict) else { return };
    if !leads || (old.saves_wait, old.spares) == (verdict.saves_wait, verdict.spares) {
        return;
    }
    match verdict.waits_for() {
        Some(whose) => {
            context.events.note("saves", format!("refused: too few voters have room on their disks {whose}"));
            tracing::warn!(whose, "too few voters have room on their disks: saves are refused");
        }
        None if old.saves_wait => {
            context.events.note("saves", "taken again: a majority has room");
            tracing::warn!("a majority of the voters has room on its disks: saves are taken again");
        }
        None if verdict.spares => {
            tracing::info!(full = ?verdict.full, "members with a full disk are spared; the others are enough")
        }
        None => {}
    }
}
