//! A disk that hangs: a sync that neither ends nor fails.
//!
//! A leader whose own disk hangs still commits, by the disks of the others, until it must wait for its own: it would then hold up
//! everyone, for as long as it is heard. So it hands over after [`HUNG_AFTER`], and says that what it still has open will not be settled
//! here. The vote of the next leader is not synced by it until the disk is back; nothing is promised meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::room::Room;
use crate::env::Stop;
use crate::raft::context::NodeContext;
use crate::raft::peer::peer_table::PeerTable;
use crate::raft::peer::transfer::begin;

/// A sync that takes so long hangs. Far above what a busy disk takes, and below what callers wait for.
const HUNG_AFTER: Duration = Duration::from_secs(3);
/// How often a sync is asked for; it costs the disk nothing where nothing was written.
const INTERVAL: Duration = Duration::from_millis(250);
/// After this another voter is asked to take over, if none has.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Runs until the log has failed.
pub async fn run(context: Arc<NodeContext>, table: Arc<PeerTable>, room: Arc<Room>, stop: Stop) {
    stop.or(async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let (done, mut synced) = oneshot::channel();
            context.log.sync(Box::new(move |result| drop(done.send(result))));
            let result = match tokio::time::timeout(HUNG_AFTER, &mut synced).await {
                Ok(result) => result,
                Err(_) => hung(&context, &table, &room, synced).await,
            };
            if !matches!(result, Ok(Ok(()))) {
                return;
            }
        }
    })
    .await;
}

type Synced = oneshot::Receiver<Result<(), crate::storage::log::Error>>;

/// Until the sync ends, sees to it that another leads.
async fn hung(
    context: &NodeContext,
    table: &PeerTable,
    room: &Room,
    mut synced: Synced,
) -> Result<Result<(), crate::storage::log::Error>, oneshot::error::RecvError> {
    tracing::warn!("the disk of this node hangs");
    context.events.note("disk_hung", format!("seconds={}", HUNG_AFTER.as_secs()));
    let mut asked: Option<Instant> = None;
    let result = loop {
        // Its own Raft may wait for the disk, to sync the vote for the next leader, and say nothing any more: so the others are asked.
        let leads = context.leadership.leader_by_term() == Some(context.me()) && !table.leader_elsewhere();
        if leads && asked.is_none_or(|at| at.elapsed() >= AGAIN_AFTER) {
            asked = Some(Instant::now());
            if let Err(why) = begin(context, table, room, None).await {
                tracing::warn!(why, "the leader's disk hangs, and no voter can take over");
            }
        }
        if table.leader_elsewhere() {
            context.leadership.set_hung(true);
        }
        let wait = async {
            tokio::select! {
                () = table.changed() => {}
                () = tokio::time::sleep(AGAIN_AFTER) => {}
            }
        };
        tokio::select! {
            biased;
            result = &mut synced => break result,
            () = wait => {}
        }
    };
    tracing::info!("the disk of this node answers again");
    context.events.note("disk_answers", "");
    context.leadership.set_hung(false);
    result
}
