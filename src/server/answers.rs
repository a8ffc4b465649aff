//! A stream of operations and their answers, driven as one: it reads requests when no answer waits, so it needs no task of its own.
//! What it holds for its reader is shared with [`super::readers`], which takes it away from a reader that stands still.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use super::call::{Answer, Answerer, Asked, Done, Origin};
use super::dispatch::Dispatcher;
use super::edge;
use crate::limits::STREAM_OPEN_MAX;
use crate::raft::Charge;
use crate::types::{Refusal, RefusalKind};
use crate::wire::{self, LoadFrames, v1};

/// Requests taken at one go before others get their turn.
const REQUESTS_AT_ONCE: usize = 256;
/// Answers of several frames under way at once; while fewer are, small answers overtake them.
const MANY_FRAMES_MAX: usize = 4;

/// The answers to `requests`, in whatever order they come. Ends when the requests have ended, or the node stops, and all is answered.
pub struct Answers<S> {
    dispatcher: Dispatcher,
    origin: Origin,
    requests: Option<S>,
    /// Gone with the requests, so that the last answer ends the stream.
    sender: Option<mpsc::Sender<Answer>>,
    reader: Arc<Reader>,
    stop: WatchStream<bool>,
    error: Option<Status>,
}

impl<S> Answers<S> {
    pub fn new(dispatcher: Dispatcher, origin: Origin, requests: S, stop: watch::Receiver<bool>) -> Self {
        let (sender, answers) = mpsc::channel(STREAM_OPEN_MAX);
        let (requests, sender) = (Some(requests), Some(sender));
        Self::with(dispatcher, origin, requests, sender, Held::new(answers, VecDeque::new()), stop)
    }

    /// One answer that is there already, in perhaps many frames, and nothing more.
    pub fn of_one(dispatcher: Dispatcher, tag: u64, frames: Frames, stop: watch::Receiver<bool>) -> Self {
        let (_, none) = mpsc::channel(1);
        Self::with(dispatcher, Origin::Client, None, None, Held::new(none, VecDeque::from([(tag, frames)])), stop)
    }

    fn with(
        dispatcher: Dispatcher,
        origin: Origin,
        requests: Option<S>,
        sender: Option<mpsc::Sender<Answer>>,
        held: Held,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let reader = Arc::new(Reader { held: Mutex::new(held), is_client: origin == Origin::Client });
        dispatcher.readers().watch(&reader);
        Self { dispatcher, origin, requests, sender, reader, stop: WatchStream::new(stop), error: None }
    }

    fn respond(&self, tag: u64, answer: v1::submit_response::Answer) -> v1::SubmitResponse {
        response(&self.dispatcher, tag, answer)
    }

    fn end_requests(&mut self, error: Option<Status>) {
        self.requests = None;
        self.sender = None;
        self.error = error.map(named);
    }
}

/// What a stream holds for its reader.
pub struct Reader {
    held: Mutex<Held>,
    /// Not a peer, which reads for all its clients.
    is_client: bool,
}

impl Reader {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that holds a loaded answer of so many bytes.
    #[cfg(test)]
    pub fn holding(room: &crate::raft::LoadedRoom, bytes: u64) -> Self {
        let done = Done::Relayed { answers: Vec::new(), charge: room.charge(bytes) };
        let (_, none) = mpsc::channel(1);
        Self { held: Mutex::new(Held::new(none, VecDeque::from([(1, Frames::new(Ok(done)))]))), is_client: true }
    }

    /// How many frames were taken so far; `None` while nothing waits to be taken.
    pub fn waiting_since(&self) -> Option<u64> {
        let held = self.held();
        (!held.frames.is_empty() || !held.answers.is_empty()).then_some(held.taken)
    }

    /// Whether it is a client's and holds loaded content that others may need the room of.
    pub fn is_in_the_way(&self) -> bool {
        let held = self.held();
        self.is_client && (!held.answers.is_empty() || held.frames.iter().any(|(_, frames)| frames.charge.bytes() > 0))
    }

    /// Drops what waits, for this reason. The stream ends with an error when its reader comes back; nothing that was asked is undone by it.
    pub fn cut_off(&self, why: &'static str) {
        let mut held = self.held();
        held.cut_off = Some(why);
        held.frames.clear();
        held.answers.close();
        while held.answers.try_recv().is_ok() {}
    }
}

struct Held {
    answers: mpsc::Receiver<Answer>,
    /// Answers of which more frames follow.
    frames: VecDeque<(u64, Frames)>,
    taken: u64,
    cut_off: Option<&'static str>,
}

/// What there is for a reader.
enum Next {
    Frame(u64, v1::submit_response::Answer),
    /// Nothing, at the moment.
    Nothing,
    /// All is answered.
    Ended,
    CutOff(&'static str),
}

impl Held {
    fn new(answers: mpsc::Receiver<Answer>, frames: VecDeque<(u64, Frames)>) -> Self {
        Self { answers, frames, taken: 0, cut_off: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Next {
        if let Some(why) = self.cut_off {
            return Next::CutOff(why);
        }
        if self.frames.len() < MANY_FRAMES_MAX {
            match self.answers.poll_recv(cx) {
                // The new one goes first: most are one frame.
                Poll::Ready(Some(answer)) => self.frames.push_front((answer.tag, Frames::new(answer.result))),
                Poll::Ready(None) if self.frames.is_empty() => return Next::Ended,
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        self.next_frame().map_or(Next::Nothing, |(tag, answer)| Next::Frame(tag, answer))
    }

    /// The next frame of the answers under way, taken in turn.
    fn next_frame(&mut self) -> Option<(u64, v1::submit_response::Answer)> {
        let (tag, mut frames) = self.frames.pop_front()?;
        let answer = frames.next()?;
        if !frames.is_finished() {
            self.frames.push_back((tag, frames));
        }
        self.taken += 1;
        Some((tag, answer))
    }
}

/// The reader took nothing.
fn cut_off(why: &str) -> Status {
    let message = format!("the stream was cut off: its reader took no answer {why}");
    wire::status_from_refusal(&Refusal::unknown(RefusalKind::Unavailable, message))
}

impl<S> Answers<S>
where
    S: Stream<Item = Result<Asked, Status>> + Unpin,
{
    /// Takes requests while there are any and room for their answers. Whether it took some.
    fn take_requests(&mut self, cx: &mut Context<'_>) -> bool {
        for taken in 0..REQUESTS_AT_ONCE {
            let (Some(requests), Some(sender)) = (&mut self.requests, &self.sender) else { return true };
            let Ok(room) = sender.clone().try_reserve_owned() else { return taken > 0 };
            match requests.poll_next_unpin(cx) {
                Poll::Pending => return taken > 0,
                Poll::Ready(Some(Ok(asked))) => {
                    let answerer = Answerer::new(asked.request.tag, room);
                    self.dispatcher.submit(asked, self.origin, answerer);
                }
                Poll::Ready(None) => {
                    drop(room);
                    self.end_requests(None);
                }
                Poll::Ready(Some(Err(status))) => {
                    drop(room);
                    self.end_requests(Some(status));
                }
            }
        }
        // More may be there already: come back after the others.
        cx.waker().wake_by_ref();
        true
    }
}

impl<S> Stream for Answers<S>
where
    S: Stream<Item = Result<Asked, Status>> + Unpin,
{
    type Item = Result<v1::SubmitResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut turns = 0;
        loop {
            let next = this.reader.held().poll(cx);
            match next {
                Next::Frame(tag, answer) => return Poll::Ready(Some(Ok(this.respond(tag, answer)))),
                Next::Ended => return Poll::Ready(this.error.take().map(Err)),
                Next::CutOff(why) => {
                    this.end_requests(None);
                    // Said once; then the stream has ended.
                    let (_, none) = mpsc::channel(1);
                    *this.reader.held() = Held::new(none, VecDeque::new());
                    return Poll::Ready(Some(Err(cut_off(why))));
                }
                Next::Nothing => {}
            }
            let stopped = match this.stop.poll_next_unpin(cx) {
                Poll::Ready(Some(stop)) => stop,
                Poll::Ready(None) => true,
                Poll::Pending => false,
            };
            if stopped && this.requests.is_some() {
                this.end_requests(None);
                continue;
            }
            turns += 1;
            if this.requests.is_none() && turns > 1 || !this.take_requests(cx) || turns > 4 {
                return Poll::Pending;
            }
        }
    }
}

/// A request that was none, as a named refusal; how a connection ended, as it is.
fn named(status: Status) -> Status {
    if edge::is_unread(status.code()) && !wire::is_ours(&status) { wire::unread(&status) } else { status }
}

/// One response, as every one of them says who answers and who leads.
pub fn response(dispatcher: &Dispatcher, tag: u64, answer: v1::submit_response::Answer) -> v1::SubmitResponse {
    v1::SubmitResponse { tag, cluster_id: dispatcher.cluster_id(), leader: dispatcher.leader_hint(), answer: Some(answer) }
}

/// The messages of one answer.
pub struct Frames {
    source: Source,
    finished: bool,
    /// Loaded content counts for as long as it is here: what a reader took is given back with each frame.
    charge: Charge,
}

enum Source {
    One(Option<v1::submit_response::Answer>),
    Own(LoadFrames),
    Relayed(std::vec::IntoIter<v1::submit_response::Answer>),
}

impl Source {
    /// Bytes that are here for the messages to come; `None` where that is not counted.
    fn held_bytes(&self) -> Option<u64> {
        match self {
            Source::One(_) => None,
            Source::Own(frames) => Some(frames.held_bytes()),
            Source::Relayed(answers) => Some(answers.as_slice().iter().map(relayed_bytes).sum()),
        }
    }
}

fn relayed_bytes(answer: &v1::submit_response::Answer) -> u64 {
    match answer {
        v1::submit_response::Answer::Load(frame) => frame.pieces.iter().map(|piece| piece.data.len() as u64).sum(),
        _ => 0,
    }
}

impl Frames {
    pub fn new(result: Result<Done, Refusal>) -> Self {
        use v1::submit_response::Answer as Message;
        let (source, charge) = match result {
            Err(refusal) => (Source::One(Some(Message::Refusal(wire::refusal_to(&refusal)))), Charge::default()),
            Ok(Done::Outcome(outcome)) => (Source::One(Some(Message::Outcome(wire::outcome_to(&outcome)))), Charge::default()),
            Ok(Done::Listed { page, charge }) => (Source::One(Some(Message::List(wire::list_page_to(&page)))), charge),
            Ok(Done::Loaded { revision, loaded, age_ms, charge }) => {
                (Source::Own(LoadFrames::new(revision, loaded, age_ms)), charge)
            }
            Ok(Done::Relayed { answers, charge }) => (Source::Relayed(answers.into_iter()), charge),
        };
        Self { source, finished: false, charge }
    }

    /// Whether the last message was given.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The only message of an answer that is no load.
    pub fn only(mut self) -> Option<v1::submit_response::Answer> {
        self.next()
    }
}

impl Iterator for Frames {
    type Item = v1::submit_response::Answer;

    fn next(&mut self) -> Option<Self::Item> {
        let answer = match &mut self.source {
            Source::One(answer) => answer.take(),
            Source::Own(frames) => frames.next().map(v1::submit_response::Answer::Load),
            Source::Relayed(answers) => answers.next(),
        };
        self.finished = match &answer {
            Some(v1::submit_response::Answer::Load(frame)) => frame.last,
            _ => true,
        };
        if !self.finished
            && let Some(held) = self.source.held_bytes()
        {
            self.charge.shrink_to(held);
        }
        answer
    }
}

/// 16 bytes, or none.
pub fn cluster_bytes(id: Option<crate::types::ClusterId>) -> Bytes {
    id.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FRAME_BYTES_MAX;
    use crate::raft::LoadedRoom;
    use crate::types::{Blob, Chunk, Counters, Loaded, LoadedContent, Revision, SessionInfo, Version};

    #[test]
    fn a_large_load_is_finished_only_with_its_last_frame() {
        let info = SessionInfo { version: Version(1), counters: Counters::default(), ..SessionInfo::default() };
        let head = Some(Blob::plain(Bytes::from(vec![7; 3 << 20])));
        let loaded = Loaded::Full(LoadedContent { info, chunks: vec![], head });
        let done = Done::Loaded { revision: Revision(1), loaded, age_ms: None, charge: Charge::default() };
        let mut frames = Frames::new(Ok(done));
        let mut count = 0;
        while !frames.is_finished() {
            assert!(frames.next().is_some(), "an unfinished answer has another frame");
            count += 1;
        }
        assert!(count > 3, "3 MiB do not fit into {count} frames of 1 MiB");
        assert!(frames.next().is_none());
    }

    /// Twelve chunks of 1 MiB, the head first: 13 MiB, of which a reader that has taken *n* frames keeps the rest only.
    #[test]
    fn what_a_reader_took_of_a_large_load_counts_no_more() {
        let blob = || Blob::plain(Bytes::from(vec![7; 1 << 20]));
        let info = SessionInfo { version: Version(1), counters: Counters::default(), ..SessionInfo::default() };
        let chunks = (0..12).map(|_| Chunk { item_count: 1, blob: blob() }).collect();
        let loaded = Loaded::Full(LoadedContent { info, chunks, head: Some(blob()) });
        let (room, frame_bytes) = (LoadedRoom::default(), FRAME_BYTES_MAX as u64);
        let done = Done::Loaded { revision: Revision(1), loaded, age_ms: None, charge: room.charge(13 << 20) };
        let mut frames = Frames::new(Ok(done));
        let mut taken = Vec::new();
        while !frames.is_finished() {
            let before = room.bytes();
            taken.push(frames.next().expect("another frame"));
            // A chunk that was begun is there until its end; the last frame's goes with the answer.
            assert!(room.bytes() <= (13 << 20) - (taken.len() as u64 - 1) * (frame_bytes - 1024) || frames.is_finished());
            assert!(room.bytes() < before || taken.len() == 1 || frames.is_finished(), "frame {}", taken.len());
        }
        assert!(taken.len() > 12);
        drop(frames);
        assert_eq!(room.bytes(), 0);

        let bytes = taken.iter().map(relayed_bytes).sum();
        assert_eq!(bytes, 13 << 20);
        let count = taken.len();
        let mut relayed = Frames::new(Ok(Done::Relayed { answers: taken, charge: room.charge(bytes) }));
        let mut left = Vec::new();
        while !relayed.is_finished() {
            assert!(relayed.next().is_some());
            left.push(room.bytes());
        }
        assert!(left.len() == count && left.is_sorted_by(|one, next| next <= one) && left[count / 2] < 7 << 20, "{left:?}");
    }

    #[test]
    fn a_refusal_is_one_message() {
        let mut frames = Frames::new(Err(Refusal::invalid("no")));
        assert!(matches!(frames.next(), Some(v1::submit_response::Answer::Refusal(_))));
        assert!(frames.is_finished());
    }

    #[test]
    fn a_message_that_is_too_large_becomes_a_named_refusal() {
        let status = named(Status::out_of_range("decoded message length too large"));
        assert_eq!(wire::refusal_from_status(&status).kind, RefusalKind::Invalid);
        assert_eq!(named(Status::cancelled("gone")).code(), tonic::Code::Cancelled);
    }
}
