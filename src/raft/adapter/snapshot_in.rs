//! Receiving a snapshot: rows into a new file, checked frame by frame, then installed by openraft's state machine worker.

use std::sync::Arc;
use std::time::Duration;

use openraft::storage::{Snapshot, SnapshotMeta};
use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use super::state_machine::{AppliedState, SnapshotData, membership_from_start};
use super::types::{RaftLogId, Vote, log_id_from, log_id_from_wire, vote_from_wire, vote_to_wire};
use crate::env::Blocking;
use crate::raft::context::NodeContext;
use crate::raft::upkeep::room::{self, Room};
use crate::storage::state;
use crate::wire::peer::v1::{self as peer, snapshot_frame::Frame};

/// A sender that is silent for so long is given up.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

async fn next(frames: &mut Streaming<peer::SnapshotFrame>) -> Result<Frame, Status> {
    let frame = tokio::time::timeout(FRAME_TIMEOUT, frames.message());
    let frame = frame.await.map_err(|_| Status::deadline_exceeded("no snapshot frame came"))??;
    frame.and_then(|frame| frame.frame).ok_or_else(|| Status::invalid_argument("snapshot ends before its end"))
}

/// The first frame.
pub async fn start(frames: &mut Streaming<peer::SnapshotFrame>) -> Result<peer::SnapshotStart, Status> {
    match next(frames).await? {
        Frame::Start(start) => Ok(start),
        _ => Err(Status::invalid_argument("snapshot does not begin with its start")),
    }
}

/// The rest. Errors: nothing was changed, and the file is removed.
pub async fn install(
    context: &Arc<NodeContext>,
    room: &Room,
    start: peer::SnapshotStart,
    mut frames: Streaming<peer::SnapshotFrame>,
) -> Result<peer::SnapshotResponse, Status> {
    let vote = vote_from_wire(start.vote.as_ref()).map_err(|error| Status::invalid_argument(error.to_string()))?;
    if room.holds_off(&vote, context.env.clock.now()) || context.log.waits_for_room() {
        return Err(room::refused());
    }
    let bad = |error: std::io::Error| Status::invalid_argument(error.to_string());
    let last_log = start.last_log.as_ref().ok_or_else(|| Status::invalid_argument("snapshot has no last log id"))?;
    let last_log = log_id_from_wire(last_log).map_err(bad)?;
    let membership = membership_from_start(&start).map_err(bad)?;
    // Before any row is taken, and again when all are here: appends come meanwhile.
    if holds_already(context, vote, last_log).await? {
        return Ok(already_held(vote, last_log));
    }
    let state = context.state.clone();
    let receiver = context.blocking.call(move || state.receive()).await.map_err(refused)?;
    let receiver = rows(&context.blocking, receiver, &mut frames).await?;
    tracing::info!(last_log = %log_id_from(&last_log), "received a snapshot");
    let applied = log_id_from(&last_log);
    let received = context.blocking.call(move || receiver.finish(applied, AppliedState::from_rows)).await.map_err(refused)?;
    if received.machine().membership != membership {
        return Err(Status::invalid_argument("the snapshot's membership is not that of its rows"));
    }
    if holds_already(context, vote, last_log).await? {
        return Ok(already_held(vote, last_log));
    }
    let meta = SnapshotMeta { last_log_id: Some(last_log), last_membership: membership };
    let snapshot = Snapshot { meta, snapshot: SnapshotData::Received(received) };
    let answer =
        context.raft.install_full_snapshot(vote, snapshot).await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(peer::SnapshotResponse { vote: Some(vote_to_wire(&answer.vote)) })
}

fn already_held(vote: Vote, last: RaftLogId) -> peer::SnapshotResponse {
    tracing::info!(last_log = %log_id_from(&last), "the log holds what the snapshot brings");
    peer::SnapshotResponse { vote: Some(vote_to_wire(&vote)) }
}

/// Whether this node follows the sender and has all that its snapshot brings in its synced log: then there is nothing to install, and
/// what is committed will be applied. A snapshot that was long under way comes so, behind appends of the same leader. openraft
/// alpha.37 would move the progress of its log back.
///
/// Errors: Raft or the log has stopped. Nothing was changed.
async fn holds_already(context: &Arc<NodeContext>, vote: Vote, last: RaftLogId) -> Result<bool, Status> {
    let stopped = |error: &dyn std::fmt::Display| Status::unavailable(format!("this node has stopped: {error}"));
    let holds = context.raft.with_raft_state(move |state| *state.vote_ref() == vote && state.log_ids.get(last.index) == Some(last));
    if !holds.await.map_err(|error| stopped(&error))? {
        return Ok(false);
    }
    let (synced, when_synced) = oneshot::channel();
    context.log.when_covered(last.index, Box::new(move |result| drop(synced.send(result))));
    let result = when_synced.await.map_err(|error| stopped(&error))?;
    result.map(|()| true).map_err(|error| stopped(&error))
}

/// All rows up to the end of the stream, into the new file. Errors: nothing was changed, and the file is removed.
pub async fn rows(
    blocking: &Blocking,
    mut receiver: state::Receiver<AppliedState>,
    frames: &mut Streaming<peer::SnapshotFrame>,
) -> Result<state::Receiver<AppliedState>, Status> {
    loop {
        match next(frames).await? {
            Frame::Rows(bytes) => {
                let take = move || {
                    let taken = receiver.frame(&bytes);
                    (receiver, taken)
                };
                let (returned, taken) = blocking.call(take).await;
                taken.map_err(refused)?;
                receiver = returned;
            }
            Frame::End(_) => return Ok(receiver),
            Frame::Start(_) => return Err(Status::invalid_argument("snapshot starts twice")),
        }
    }
}

/// The answer to the sender of a snapshot that failed.
pub fn refused(error: state::Error) -> Status {
    Status::invalid_argument(format!("snapshot refused: {error}"))
}
