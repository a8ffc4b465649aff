//! Connections: one stream per endpoint for small operations, and calls of their own on a second connection for large ones.
//!
//! The driver starts these tasks and owns what they report; they decide nothing. A refusal that says `applied: no` is only ever made
//! here before the first byte of a request could have left.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use super::credentials::{Credentials, Link, refusal_from};
use crate::limits::{BATCH_OPERATIONS_MAX, LARGE_OPERATION_BYTES, MESSAGE_BYTES_MAX, MIB, NODES_MAX, WRITE_MESSAGE_BYTES_MAX};
use crate::tls;
use crate::types::{Applied, Refusal, RefusalKind};
use crate::wire::v1;
use crate::wire::v1::operations_client::OperationsClient;
use crate::wire::v1::sessions_client::SessionsClient;

/// A dead peer is noticed after the interval and the timeout together.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node may take to say who the members are.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes one stream, and one connection, may have on the way to us.
const STREAM_WINDOW_BYTES: u32 = 4 * MIB as u32;
const CONNECTION_WINDOW_BYTES: u32 = 8 * MIB as u32;

/// How a connection is opened: the seam a simulation replaces.
#[doc(hidden)]
pub trait Connector: Send + Sync + 'static {
    /// Connects, or fails; it does not wait for a first call. Dropping the future abandons the attempt.
    fn connect(&self, endpoint: Endpoint) -> Pin<Box<dyn Future<Output = Result<Channel, tonic::transport::Error>> + Send>>;
}

/// The operating system's TCP.
pub(super) struct Tcp;

impl Connector for Tcp {
    fn connect(&self, endpoint: Endpoint) -> Pin<Box<dyn Future<Output = Result<Channel, tonic::transport::Error>> + Send>> {
        Box::pin(async move { endpoint.connect().await })
    }
}

/// Which stream to which endpoint: a later one to the same endpoint has a greater generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The endpoint, as the router counts them.
    pub target: usize,
    /// Counts the streams of this client.
    pub generation: u64,
}

/// What the tasks report to the driver.
pub(super) enum Event {
    /// The connection is up: requests may be sent. `channel` is the same connection, for calls.
    Up { line: Line, requests: mpsc::Sender<v1::SubmitRequest>, channel: Link },
    /// Where the members of the cluster are, as one of them said.
    Members { addresses: Vec<String> },
    /// What arrived together.
    Answers { line: Line, answers: Vec<v1::SubmitResponse> },
    /// The stream ended, or never came to be. Whatever was sent on it and not answered is refused so.
    Down { line: Line, refusal: Refusal },
    /// A large write is answered; `channel` is worth keeping, if there.
    Alone { target: usize, tag: u64, answer: Box<Result<v1::SubmitResponse, Refusal>>, channel: Option<Link> },
    /// The whole content of an operation is made.
    Remade { key: super::operation::Key, change: Result<crate::types::Change, super::Error> },
}

/// What it takes to connect.
#[derive(Clone)]
pub(super) struct Dial {
    pub connector: std::sync::Arc<dyn Connector>,
    pub credentials: Credentials,
    pub address: String,
    pub timeout: Duration,
}

/// The endpoint of `host:port`. Errors: what is wrong with the address.
pub(super) fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// A client with our bounds on a channel.
pub(super) fn sessions(channel: Link) -> SessionsClient<Link> {
    SessionsClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX as usize)
        .max_encoding_message_size(WRITE_MESSAGE_BYTES_MAX as usize)
}

impl Dial {
    /// Connects within the timeout. Errors: `Unavailable`, nothing was sent.
    pub async fn connect(&self) -> Result<Link, Refusal> {
        let unavailable = |why: String| Refusal::not_applied(RefusalKind::Unavailable, why);
        let endpoint = endpoint(&self.address).map_err(|error| unavailable(format!("address is not valid: {error}")))?;
        let bearer = self.credentials.bearer().await;
        match tokio::time::timeout(self.timeout, self.connector.connect(endpoint)).await {
            Ok(Ok(channel)) => Ok(Link::new(channel, bearer)),
            Ok(Err(error)) if tls::refused_by_peer(&error) => {
                let why = format!("the node does not take this client's certificate: {} address={}", cause(&error), self.address);
                Err(Refusal::not_applied(RefusalKind::Unauthenticated, why))
            }
            Ok(Err(error)) => Err(unavailable(format!("connection failed: {} address={}", cause(&error), self.address))),
            Err(_) => Err(unavailable(format!("connection timed out address={}", self.address))),
        }
    }
}

/// The innermost reason: tonic's own text is always "transport error".
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Opens the stream and reports everything that arrives on it, until it ends or the driver is gone.
pub(super) async fn stream(dial: Dial, line: Line, capacity: usize, events: mpsc::Sender<Event>) {
    let refusal = match dial.connect().await {
        Ok(channel) => talk(channel, line, capacity, &events).await,
        Err(refusal) => refusal,
    };
    // The driver is gone: nobody to tell.
    let _ = events.send(Event::Down { line, refusal }).await;
}

async fn talk(channel: Link, line: Line, capacity: usize, events: &mpsc::Sender<Event>) -> Refusal {
    let gone = || Refusal::unknown(RefusalKind::Unavailable, "the connection ended");
    let (requests, outgoing) = mpsc::channel(capacity);
    if events.send(Event::Up { line, requests, channel: channel.clone() }).await.is_err() {
        return gone();
    }
    let mut stream = match sessions(channel).submit(ReceiverStream::new(outgoing)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return refusal_from(&status),
    };
    let mut answered = false;
    loop {
        let (answers, end) = Arrived { stream: &mut stream, answers: Vec::new(), bytes: 0 }.await;
        answered |= !answers.is_empty();
        if !answers.is_empty() && events.send(Event::Answers { line, answers }).await.is_err() {
            return gone();
        }
        match end {
            None => {}
            Some(None) => return gone(),
            // It speaks of the stream. What was sent on it may have been applied, whatever it says.
            Some(Some(status)) => {
                let refusal = refusal_from(&status);
                // A node that never took the connection looked at nothing that was sent on it.
                if refusal.kind == RefusalKind::Unauthenticated && refusal.applied == Applied::No && !answered {
                    return refusal;
                }
                return Refusal::unknown(RefusalKind::Unavailable, refusal.message);
            }
        }
    }
}

/// Asks who the members are and reports it; a node that does not say is not asked again on this connection.
pub(super) async fn learn(channel: Link, events: mpsc::Sender<Event>) {
    let mut client = OperationsClient::new(channel);
    let asked = tokio::time::timeout(MEMBERS_TIMEOUT, client.members(v1::MembersRequest {})).await;
    let Ok(Ok(response)) = asked else { return };
    let members = response.into_inner().members.into_iter();
    let addresses = members.map(|member| member.client).filter(|address| endpoint(address).is_ok()).take(NODES_MAX).collect();
    // The driver is gone: nobody to tell.
    let _ = events.send(Event::Members { addresses }).await;
}

/// Waits for one answer and takes with it what else is there, so that the driver wakes once for all of them.
struct Arrived<'a> {
    stream: &'a mut Streaming<v1::SubmitResponse>,
    answers: Vec<v1::SubmitResponse>,
    bytes: u64,
}

impl Future for Arrived<'_> {
    /// The answers, and how the stream ended if it did.
    type Output = (Vec<v1::SubmitResponse>, Option<Option<tonic::Status>>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let end = loop {
            if self.answers.len() >= BATCH_OPERATIONS_MAX || self.bytes > LARGE_OPERATION_BYTES {
                break None;
            }
            match Pin::new(&mut *self.stream).poll_next(cx) {
                Poll::Ready(Some(Ok(answer))) => {
                    self.bytes += frame_bytes(&answer);
                    self.answers.push(answer);
                }
                Poll::Ready(Some(Err(status))) => break Some(Some(status)),
                Poll::Ready(None) => break Some(None),
                Poll::Pending if self.answers.is_empty() => return Poll::Pending,
                Poll::Pending => break None,
            }
        };
        Poll::Ready((std::mem::take(&mut self.answers), end))
    }
}

fn frame_bytes(answer: &v1::SubmitResponse) -> u64 {
    match &answer.answer {
        Some(v1::submit_response::Answer::Load(frame)) => frame.pieces.iter().map(|piece| piece.data.len() as u64).sum(),
        _ => 0,
    }
}

/// Sends one large write on `channel`, or on a new one, and reports its answer.
pub(super) async fn alone(
    dial: Dial,
    target: usize,
    channel: Option<Link>,
    request: v1::SubmitRequest,
    remaining: Duration,
    events: mpsc::Sender<Event>,
) {
    let tag = request.tag;
    let connected = match channel {
        Some(channel) => Ok(channel),
        None => dial.connect().await,
    };
    let (answer, channel) = match connected {
        Err(refusal) => (Err(refusal), None),
        Ok(channel) => match tokio::time::timeout(remaining, sessions(channel.clone()).write(request)).await {
            Ok(Ok(response)) => (Ok(response.into_inner()), Some(channel)),
            Ok(Err(status)) => (Err(refusal_from(&status)), None),
            Err(_) => (Err(Refusal::unknown(RefusalKind::DeadlineExceeded, "no answer within the deadline")), Some(channel)),
        },
    };
    // The driver is gone: nobody to tell.
    let _ = events.send(Event::Alone { target, tag, answer: Box::new(answer), channel }).await;
}
