//! Appends to one follower as a stream: what openraft has to send next does not wait for the answer to what it sent before, and costs
//! a message instead of a call.
//!
//! ```text
//! leader    openraft's requests ── fold ──> on their way, bounded ── HTTP/2 ──┐
//!           openraft <── answers, in the order of the requests ── HTTP/2 ──┐  │
//! follower                                  Raft, in the order they came ──┘<─┘
//! ```
//!
//! A request without entries tells how far the leader has committed. openraft makes one after every round; here it waits a little for
//! the next entries, which tell that too. Their answer acknowledges both: no answer is ever made up, since a leader counts them for
//! its lease and its reads.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, FuturesOrdered, Stream, StreamExt as _, empty, unfold};
use openraft::errors::Timeout;
use openraft::network::RPCTypes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::types::{
    Entry, RaftLogId, RpcError, Types, log_id_from_wire, log_id_to_wire, network_error, payload_from_bytes, payload_to_bytes,
    rpc_error, vote_from_wire, vote_to_wire,
};
use crate::limits::FRAME_BYTES_MAX;
use crate::mutant::{self, Mutant};
use crate::raft::context::NodeContext;
use crate::raft::peer::clocks::Clocks;
use crate::raft::upkeep::room::{self, Room};
use crate::types::NodeId;
use crate::wire::peer::v1::{self as peer, append_response::Result as Appended, peer_client::PeerClient};
use crate::wire::v1;

/// An append may take so long, and a second more per MiB.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long news of a commit waits for entries to travel with.
const COMMIT_WAIT: Duration = Duration::from_millis(5);
/// Requests on their way on one stream, and their bytes: what comes meanwhile goes together.
const OPEN_MAX: usize = 8;
const OPEN_BYTES_MAX: usize = 4 << 20;

/// An answer as openraft wants it.
pub type Answer = Result<StreamAppendResult<Types>, RpcError>;

/// The time an append of so many bytes may take.
pub fn timeout(bytes: usize) -> Duration {
    TIMEOUT + Duration::from_secs_f64(bytes as f64 / FRAME_BYTES_MAX as f64)
}

/// A request as it travels, and the bytes of its payloads.
pub fn to_wire(rpc: &AppendEntriesRequest<Types>, route: Option<peer::Route>) -> (peer::AppendRequest, usize) {
    let entry =
        |entry: &Entry| peer::Entry { log_id: Some(log_id_to_wire(&entry.log_id)), payload: payload_to_bytes(&entry.payload) };
    let entries: Vec<peer::Entry> = rpc.entries.iter().map(entry).collect();
    let bytes = entries.iter().map(|entry| entry.payload.len()).sum();
    let message = peer::AppendRequest {
        route,
        vote: Some(vote_to_wire(&rpc.vote)),
        previous: rpc.prev_log_id.as_ref().map(log_id_to_wire),
        entries,
        leader_commit: rpc.leader_commit.as_ref().map(log_id_to_wire),
    };
    (message, bytes)
}

fn bad(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Errors: what no leader of ours would send.
pub fn from_wire(request: peer::AppendRequest) -> Result<AppendEntriesRequest<Types>, Status> {
    let vote = vote_from_wire(request.vote.as_ref()).map_err(bad)?;
    let mut entries = Vec::with_capacity(request.entries.len());
    for entry in request.entries {
        let log_id = entry.log_id.ok_or_else(|| bad("entry has no log id"))?;
        entries.push(Entry {
            log_id: log_id_from_wire(&log_id).map_err(bad)?,
            payload: payload_from_bytes(entry.payload).map_err(bad)?,
        });
    }
    let prev_log_id = request.previous.as_ref().map(log_id_from_wire).transpose().map_err(bad)?;
    let leader_commit = request.leader_commit.as_ref().map(log_id_from_wire).transpose().map_err(bad)?;
    let consecutive = entries.windows(2).all(|pair| pair[1].log_id.index == pair[0].log_id.index + 1);
    let follows = match (&request.previous, entries.first()) {
        (Some(previous), Some(first)) => first.log_id.index == previous.index + 1,
        (None, Some(first)) => first.log_id.index == 0,
        (_, None) => true,
    };
    if !consecutive || !follows {
        return Err(bad("entries are not consecutive"));
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

/// Where a stream of appends goes.
pub struct Target {
    pub client: PeerClient<tonic::transport::Channel>,
    pub route: Option<peer::Route>,
    pub me: NodeId,
    pub node: NodeId,
    pub clocks: Arc<Clocks>,
    pub room: Arc<Room>,
}

/// Opens a stream to `target` and sends `input` on it; gives the answers, until the first that is an error. Dropping it drops `input`
/// at once, so that nothing of it is taken any more.
///
/// Errors: the peer cannot be reached, or does not answer in time.
pub async fn send<'s, S>(mut target: Target, mut input: S) -> Result<BoxStream<'s, Answer>, RpcError>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    // Before anything is tried: it is here that openraft waits after a failure, or a peer that is down would be called without pause.
    let Some(first) = input.next().await else { return Ok(Box::pin(empty())) };
    target.check_room(&first)?;
    let (requests, queue) = mpsc::channel(OPEN_MAX + 1);
    let opening = target.client.append_stream(ReceiverStream::new(queue));
    let answers = match tokio::time::timeout(TIMEOUT, opening).await {
        Ok(opened) => opened.map_err(|status| rpc_error(&status))?.into_inner(),
        Err(_) => return Err(target.late(TIMEOUT)),
    };
    let timer_at = Instant::now();
    let mut sender = Sender {
        target,
        input: Some(input),
        requests,
        answers,
        open: VecDeque::new(),
        open_bytes: 0,
        last_sent: None,
        held: None,
        timer: Box::pin(tokio::time::sleep_until(timer_at)),
        timer_at,
    };
    sender.send(&first)?;
    let answers = unfold(Some(sender), async |sender| {
        let mut sender = sender?;
        let answer = sender.next().await?;
        // Nothing after an error: openraft begins again.
        let goes_on = matches!(answer, Ok(Ok(_)));
        Some((answer, goes_on.then_some(sender)))
    });
    Ok(Box::pin(answers))
}

impl Target {
    /// Errors: it is spared what has content, and would refuse it.
    fn check_room(&self, request: &AppendEntriesRequest<Types>) -> Result<(), RpcError> {
        match self.room.is_spared(self.node) && room::have_content(&request.entries) {
            true => Err(rpc_error(&room::refused())),
            false => Ok(()),
        }
    }

    fn late(&self, timeout: Duration) -> RpcError {
        RpcError::Timeout(Timeout { action: RPCTypes::AppendEntries, id: self.me, target: self.node, timeout })
    }
}

/// A request that was sent.
struct Open {
    previous: Option<RaftLogId>,
    last: Option<RaftLogId>,
    bytes: usize,
    timeout: Duration,
    until: Instant,
}

struct Sender<S> {
    target: Target,
    /// `None` once it has ended.
    input: Option<S>,
    requests: mpsc::Sender<peer::AppendRequest>,
    answers: Streaming<peer::AppendResponse>,
    /// Entries that wait for an answer, in order.
    open: VecDeque<Open>,
    open_bytes: usize,
    /// The last entry sent on this stream.
    last_sent: Option<RaftLogId>,
    /// News of a commit, and until when it may wait.
    held: Option<(AppendEntriesRequest<Types>, Instant)>,
    /// Armed for the earliest of all that may become due, or earlier: setting it again for every request would cost more.
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
}

impl<S> Sender<S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    /// The next answer. `None`: the input has ended and all is answered, or the peer ended the stream.
    async fn next(&mut self) -> Option<Answer> {
        loop {
            if self.input.is_none() && self.open.is_empty() {
                return None;
            }
            let may_take = self.open.len() < OPEN_MAX && self.open_bytes < OPEN_BYTES_MAX;
            let input = async {
                match &mut self.input {
                    Some(input) if may_take => input.next().await,
                    _ => std::future::pending().await,
                }
            };
            let held_until = self.held.as_ref().filter(|_| may_take).map(|held| held.1);
            let due = self.open.front().map(|open| open.until).into_iter().chain(held_until).min();
            if let Some(due) = due
                && (due < self.timer_at || self.timer.is_elapsed())
            {
                self.timer_at = due;
                self.timer.as_mut().reset(due);
            }
            let sent = tokio::select! {
                biased;
                answer = self.answers.message() => return match answer {
                    Ok(Some(answer)) => Some(self.on_answer(answer)),
                    Ok(None) => None,
                    Err(status) => Some(Err(rpc_error(&status))),
                },
                request = input => match request {
                    Some(request) => self.take(request),
                    None => {
                        self.input = None;
                        self.send_held()
                    }
                },
                () = &mut self.timer, if due.is_some() => self.due(),
            };
            if let Err(error) = sent {
                return Some(Err(error));
            }
        }
    }

    fn take(&mut self, request: AppendEntriesRequest<Types>) -> Result<(), RpcError> {
        // Only behind entries of this stream: otherwise it asks what the follower has, and the leader waits for the answer.
        let only_commit = request.entries.is_empty() && request.prev_log_id.is_some() && request.prev_log_id == self.last_sent;
        // This one says what was held: it follows the same entry, and the leader's commit only grows.
        let held = self.held.take();
        if only_commit {
            let until = held.map_or_else(|| Instant::now() + COMMIT_WAIT, |held| held.1);
            self.held = Some((request, until));
            return Ok(());
        }
        self.send(&request)
    }

    fn send_held(&mut self) -> Result<(), RpcError> {
        self.held.take().map_or(Ok(()), |(request, _)| self.send(&request))
    }

    fn send(&mut self, request: &AppendEntriesRequest<Types>) -> Result<(), RpcError> {
        self.target.check_room(request)?;
        // The first carries the route.
        let (message, bytes) = to_wire(request, self.target.route.take());
        let last = request.entries.last().map(|entry| entry.log_id);
        self.last_sent = last.or(self.last_sent);
        let timeout = timeout(bytes);
        let last = last.or(request.prev_log_id);
        self.open.push_back(Open { previous: request.prev_log_id, last, bytes, timeout, until: Instant::now() + timeout });
        self.open_bytes += bytes;
        let gone = |_| network_error(&Status::cancelled("the stream of appends is gone"));
        self.requests.try_send(message).map_err(gone)
    }

    /// The timer has fired: something may be due.
    fn due(&mut self) -> Result<(), RpcError> {
        let now = Instant::now();
        if let Some(late) = self.open.front().filter(|open| open.until <= now) {
            return Err(self.target.late(late.timeout));
        }
        if self.held.as_ref().is_some_and(|held| held.1 <= now) && self.open.len() < OPEN_MAX {
            return self.send_held();
        }
        Ok(())
    }

    fn on_answer(&mut self, answer: peer::AppendResponse) -> Answer {
        let open = self.open.pop_front().ok_or_else(|| network_error(&Status::internal("an append was answered twice")))?;
        self.open_bytes -= open.bytes;
        self.target.clocks.heard(self.target.node, answer.wall_ms);
        match answer.result {
            Some(Appended::Success(_)) => Ok(Ok(open.last)),
            Some(Appended::PartialSuccess(log_id)) => {
                let log_id = log_id_from_wire(&log_id).map_err(|error| network_error(&error))?;
                Ok(Ok(Some(log_id)))
            }
            Some(Appended::Conflict(_)) => match open.previous {
                Some(previous) => Ok(Err(StreamAppendError::Conflict(previous))),
                None => Err(network_error(&Status::internal("a conflict with nothing"))),
            },
            Some(Appended::HigherVote(vote)) => {
                let vote = vote_from_wire(Some(&vote)).map_err(|error| network_error(&error))?;
                Ok(Err(StreamAppendError::HigherVote(vote)))
            }
            None => Err(network_error(&Status::internal("append answer has no result"))),
        }
    }
}

/// Hands a request to Raft. Errors: Raft has stopped.
pub async fn receive(
    context: Arc<NodeContext>,
    room: Arc<Room>,
    rpc: AppendEntriesRequest<Types>,
) -> Result<peer::AppendResponse, Status> {
    let vote = rpc.vote;
    if room.holds_off(&vote, context.env.clock.now()) && room::have_content(&rpc.entries) {
        tracing::debug!("content is refused: the disk of this node is full");
        if mutant::is(Mutant::FullMemberAcknowledges) {
            return Ok(peer::AppendResponse { result: Some(Appended::Success(v1::Empty {})), wall_ms: context.clocks.wall_ms() });
        }
        return Err(room::refused());
    }
    if context.would_wait_for_room(&vote) || (context.log.waits_for_room() && !rpc.entries.is_empty()) {
        return Err(room::refused());
    }
    // A node whose Raft has stopped looks like one that is down.
    let stopped = |error| Status::unavailable(format!("this node's raft has stopped: {error}"));
    let answer = context.raft.append_entries(rpc).await.map_err(stopped)?;
    let result = match answer {
        AppendEntriesResponse::Success => Appended::Success(v1::Empty {}),
        AppendEntriesResponse::PartialSuccess(Some(log_id)) => Appended::PartialSuccess(log_id_to_wire(&log_id)),
        AppendEntriesResponse::PartialSuccess(None) | AppendEntriesResponse::Conflict => Appended::Conflict(v1::Empty {}),
        AppendEntriesResponse::HigherVote(vote) => Appended::HigherVote(vote_to_wire(&vote)),
    };
    if !matches!(result, Appended::HigherVote(_)) {
        context.leadership.heard_append(vote);
    }
    Ok(peer::AppendResponse { result: Some(result), wall_ms: context.clocks.wall_ms() })
}

/// Answers a stream of requests in their order, each handed to Raft before the next is read. `check` is asked about
/// each: who the members are changes while the stream is open. Ends with the first error.
pub fn receive_all(
    context: Arc<NodeContext>,
    room: Arc<Room>,
    requests: Streaming<peer::AppendRequest>,
    check: impl FnMut(&peer::AppendRequest) -> Result<(), Status> + Send + 'static,
) -> BoxStream<'static, Result<peer::AppendResponse, Status>> {
    let receiver = Receiver { context, room, requests: Some(requests), check, open: FuturesOrdered::new() };
    Box::pin(unfold(Some(receiver), async |receiver| {
        let mut receiver = receiver?;
        let answer = receiver.next().await?;
        let goes_on = answer.is_ok();
        Some((answer, goes_on.then_some(receiver)))
    }))
}

type Answering = Pin<Box<dyn Future<Output = Result<peer::AppendResponse, Status>> + Send>>;

struct Receiver<C> {
    context: Arc<NodeContext>,
    room: Arc<Room>,
    requests: Option<Streaming<peer::AppendRequest>>,
    check: C,
    open: FuturesOrdered<Answering>,
}

impl<C: FnMut(&peer::AppendRequest) -> Result<(), Status>> Receiver<C> {
    async fn next(&mut self) -> Option<Result<peer::AppendResponse, Status>> {
        loop {
            let may_take = self.open.len() < OPEN_MAX;
            let requests = async {
                match &mut self.requests {
                    Some(requests) if may_take => requests.message().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // First: it is what hands the newest request to Raft.
                Some(answer) = self.open.next() => return Some(answer),
                request = requests => match request {
                    Ok(Some(request)) => {
                        if let Err(status) = self.take(request) {
                            return Some(Err(status));
                        }
                    }
                    Ok(None) if self.open.is_empty() => return None,
                    Ok(None) => self.requests = None,
                    Err(status) => return Some(Err(status)),
                },
                else => return None,
            }
            if self.requests.is_none() && self.open.is_empty() {
                return None;
            }
        }
    }

    fn take(&mut self, request: peer::AppendRequest) -> Result<(), Status> {
        (self.check)(&request)?;
        let rpc = from_wire(request)?;
        self.open.push_back(Box::pin(receive(self.context.clone(), self.room.clone(), rpc)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn id(index: u64) -> peer::LogId {
        peer::LogId { term: 3, node: 1, index }
    }

    /// Blank entries at these indexes, behind that one.
    fn request(previous: Option<u64>, indexes: &[u64]) -> peer::AppendRequest {
        let blank = payload_to_bytes(&openraft::EntryPayload::Blank);
        let entry = |index: &u64| peer::Entry { log_id: Some(id(*index)), payload: blank.clone() };
        peer::AppendRequest {
            vote: Some(peer::Vote { term: 3, node: 1, committed: true }),
            previous: previous.map(id),
            entries: indexes.iter().map(entry).collect(),
            leader_commit: previous.map(id),
            ..peer::AppendRequest::default()
        }
    }

    #[test]
    fn entries_that_follow_each_other_and_the_one_before_are_taken() {
        for (previous, indexes, is_taken) in [
            (None, &[][..], true),
            (None, &[0], true),
            (None, &[1], false),
            (Some(6), &[], true),
            (Some(6), &[7, 8, 9], true),
            (Some(6), &[6], false),
            (Some(6), &[8], false),
            (Some(6), &[7, 7], false),
            (Some(6), &[7, 9], false),
            (Some(6), &[8, 7], false),
        ] {
            let read = from_wire(request(previous, indexes));
            assert_eq!(read.is_ok(), is_taken, "{previous:?} {indexes:?}: {read:?}");
            let Ok(read) = read else { continue };
            assert_eq!(read.entries.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), indexes);
            assert_eq!(read.prev_log_id.map(|id| id.index), previous);
            assert_eq!(to_wire(&read, None).0, request(previous, indexes), "its own bytes");
        }
    }

    #[test]
    fn a_request_that_lacks_something_or_has_a_number_out_of_range_is_refused() {
        let spoil: [fn(&mut peer::AppendRequest); 6] = [
            |request| request.vote = None,
            |request| request.vote = Some(peer::Vote { term: u64::MAX, node: 1, committed: true }),
            |request| request.entries[1].log_id = None,
            |request| request.entries[1].payload = Bytes::new(),
            |request| request.previous = Some(id(u64::MAX)),
            |request| request.leader_commit = Some(id(u64::MAX)),
        ];
        for (at, spoil) in spoil.iter().enumerate() {
            let mut request = request(Some(6), &[7, 8]);
            spoil(&mut request);
            assert!(from_wire(request).is_err(), "{at}");
        }
    }
}
