//! A stream of operations and their answers, driven as one: it reads requests when no answer waits, so it needs no task.
//! It shares the content it holds with [`super::readers`], which takes it away from a stalled reader.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use super::call::{Answer, Answerer, IncomingRequest, Origin};
use super::dispatch::Dispatcher;
use super::edge;
use super::frames::Frames;
use super::reader::{Next, Reader, Waiting};
use crate::limits::STREAM_OPEN_MAX;
use crate::types::{Refusal, RefusalKind};
use crate::wire::{self, v1};

/// Requests taken at one go before others get their turn.
const REQUESTS_AT_ONCE: usize = 256;

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
        Self::with(dispatcher, origin, requests, sender, Waiting::new(answers, VecDeque::new()), stop)
    }

    /// One answer that is there already, in perhaps many frames, and nothing more.
    pub fn of_one(dispatcher: Dispatcher, tag: u64, frames: Frames, stop: watch::Receiver<bool>) -> Self {
        let (_, none) = mpsc::channel(1);
        Self::with(dispatcher, Origin::Client, None, None, Waiting::new(none, VecDeque::from([(tag, frames)])), stop)
    }

    fn with(
        dispatcher: Dispatcher,
        origin: Origin,
        requests: Option<S>,
        sender: Option<mpsc::Sender<Answer>>,
        held: Waiting,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let reader = Arc::new(Reader::new(held, origin == Origin::Client));
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

/// The reader took nothing.
fn cut_off(why: &str) -> Status {
    let message = format!("the stream was cut off: its reader took no answer {why}");
    wire::status_from_refusal(&Refusal::unknown(RefusalKind::Unavailable, message))
}

impl<S> Answers<S>
where
    S: Stream<Item = Result<IncomingRequest, Status>> + Unpin,
{
    /// Takes requests while there are any and room for their answers. Whether it took some.
    fn take_requests(&mut self, cx: &mut Context<'_>) -> bool {
        for taken in 0..REQUESTS_AT_ONCE {
            let (Some(requests), Some(sender)) = (&mut self.requests, &self.sender) else { return true };
            let Ok(room) = sender.clone().try_reserve_owned() else { return taken > 0 };
            match requests.poll_next_unpin(cx) {
                Poll::Pending => return taken > 0,
                Poll::Ready(Some(Ok(incoming))) => {
                    let answerer = Answerer::new(incoming.request.tag, room);
                    self.dispatcher.submit(incoming, self.origin, answerer);
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
    S: Stream<Item = Result<IncomingRequest, Status>> + Unpin,
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
                    *this.reader.held() = Waiting::new(none, VecDeque::new());
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
    v1::SubmitResponse {
        tag,
        cluster_id: dispatcher.cluster_id(),
        leader: dispatcher.leader_hint(),
        cluster_version: dispatcher.in_force().into(),
        answer: Some(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_too_large_becomes_a_named_refusal() {
        let status = named(Status::out_of_range("decoded message length too large"));
        assert_eq!(wire::refusal_from_status(&status).kind, RefusalKind::Invalid);
        assert_eq!(named(Status::cancelled("gone")).code(), tonic::Code::Cancelled);
    }
}
