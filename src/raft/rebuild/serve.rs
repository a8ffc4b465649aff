//! The leader's side: its state, behind everything the caller's log holds.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::leader;
use crate::env::Spawner;
use crate::machine::Command;
use crate::raft::adapter::raft_network::send_frames;
use crate::raft::adapter::state_machine::{SnapshotData, snapshot};
use crate::raft::adapter::types::{log_id_to_wire, membership_to_wire};
use crate::raft::context::NodeContext;
use crate::raft::propose::propose;
use crate::types::{InstanceId, NodeId, Refusal};
use crate::wire::peer::v1 as peer;

/// How long the empty entries of one step may take to be applied.
const APPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Empty entries proposed at once.
const STEP_ENTRIES_MAX: u64 = 4096;
/// Empty entries at most, in all: a log that is longer by more holds what no leader of this cluster ever let be in flight.
const ENTRIES_MAX: u64 = 1 << 24;

type Frames = Pin<Box<dyn Stream<Item = Result<peer::SnapshotFrame, Status>> + Send>>;

/// Streams this node's state to the member `from`. Errors: it does not lead, the caller is no member, or another is being served.
pub async fn serve(
    context: &Arc<NodeContext>,
    one_at_a_time: &Arc<Semaphore>,
    spawner: &Spawner,
    from: NodeId,
    request: &peer::RebuildRequest,
) -> Result<Frames, Status> {
    let known = context.member(from).map(|member| member.instance);
    if known.is_none() || known != InstanceId::from_slice(&request.from_instance) {
        return Err(Status::failed_precondition("the caller is no member, or another data directory of one"));
    }
    let only = one_at_a_time.clone().try_acquire_owned();
    let only = only.map_err(|_| Status::resource_exhausted("another member is being rebuilt"))?;
    go_beyond(context, request.last_index).await?;
    context.flush().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let snapshot = snapshot(&context.state, &context.blocking).await.map_err(|error| Status::unavailable(error.to_string()))?;
    let last = snapshot.meta.last_log_id;
    if last.as_ref().is_none_or(|last| last.index <= request.last_index) {
        return Err(Status::unavailable("the state does not reach behind the caller's log yet"));
    }
    let start = peer::SnapshotStart {
        route: None,
        vote: None,
        last_log: last.as_ref().map(log_id_to_wire),
        membership_log: snapshot.meta.last_membership.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(snapshot.meta.last_membership.membership())),
    };
    let SnapshotData::Send(rows) = snapshot.snapshot else {
        return Err(Status::internal("a received snapshot cannot be sent on"));
    };
    context.events.note("rebuild", format!("sends its state node={from}"));
    let (frames, queue) = mpsc::channel(2);
    let blocking = context.blocking.clone();
    let send = async move {
        let _only = only;
        if let Err(error) = send_frames(blocking, start, SnapshotData::Send(rows), frames).await {
            tracing::warn!(%error, to = %from, "a member that is rebuilt did not take the whole state");
        }
    };
    spawner.spawn(|stop| stop.or(send));
    Ok(Box::pin(ReceiverStream::new(queue).map(Ok)))
}

/// Commits empty entries until this log is longer than the caller's: what that holds beyond is then settled, one way or the other. One at
/// least. Step by step, and what is done stays: a caller that gave up and asks again continues from there.
async fn go_beyond(context: &Arc<NodeContext>, last_index: u64) -> Result<(), Status> {
    loop {
        if !context.leadership.is_self() {
            return Err(leader::not_leading(context));
        }
        let here = context.last_log().map_or(0, |last| last.index);
        let missing = last_index.saturating_sub(here).saturating_add(1);
        if missing > ENTRIES_MAX {
            return Err(Status::failed_precondition(format!(
                "its log is longer than the leader's by more than a leader lets be in flight: replace the node under a new id \
                 last={last_index} leader_last={here}"
            )));
        }
        append_empty(context, missing.min(STEP_ENTRIES_MAX)).await?;
        if missing <= STEP_ENTRIES_MAX {
            return Ok(());
        }
    }
}

/// Proposes so many empty entries, and waits until the last is applied.
async fn append_empty(context: &Arc<NodeContext>, count: u64) -> Result<(), Status> {
    let (sender, applied) = oneshot::channel::<Result<(), Refusal>>();
    let mut sender = Some(sender);
    let mut batch: Vec<(Command, crate::raft::Reply)> = Vec::new();
    for left in (0..count).rev() {
        let sender = if left == 0 { sender.take() } else { None };
        let reply = move |result: Result<_, Refusal>| {
            if let Some(sender) = sender {
                let _ = sender.send(result.map(drop));
            }
        };
        batch.push((Command::Sweep { limit: 0 }, Box::new(reply)));
    }
    propose(context, batch).await;
    let late = |_| Status::unavailable("the empty entry was not applied in time");
    match tokio::time::timeout(APPLY_TIMEOUT, applied).await.map_err(late)? {
        Ok(Ok(())) => Ok(()),
        Ok(Err(refusal)) => Err(Status::unavailable(refusal.to_string())),
        Err(_) => Err(Status::unavailable("the empty entry was let go of")),
    }
}
