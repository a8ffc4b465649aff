//! Connections: one stream per endpoint for small operations, and separate calls on a second connection for large ones.
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
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use crate::client::credentials::{Credentials, Link};
use crate::client::failures::EndpointFailure;
use crate::limits::{BATCH_OPERATIONS_MAX, LARGE_OPERATION_BYTES, MESSAGE_BYTES_MAX, NODES_MAX, WRITE_MESSAGE_BYTES_MAX};
use crate::mutant::{self, Mutant};
#[doc(hidden)]
pub use crate::tls::DialError;
use crate::tls::{self, Heard, Obstacle, Starts, TcpDial};
use crate::types::{Applied, Refusal, RefusalKind};
use crate::wire::v1;
use crate::wire::v1::operations_client::OperationsClient;
use crate::wire::v1::sessions_client::SessionsClient;

/// How long a node may take to name the members.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection on its way.
#[doc(hidden)]
pub type Connecting = Pin<Box<dyn Future<Output = Result<Channel, DialError>> + Send>>;

/// How a connection is opened: the seam a simulation replaces.
#[doc(hidden)]
pub trait Connector: Send + Sync + 'static {
    /// Connects, or fails; it does not wait for a first call. It has `within` for all that it tries, and is dropped then, which abandons
    /// the attempt.
    fn connect(&self, endpoint: Endpoint, within: Duration) -> Connecting;
}

/// The operating system's TCP: what clients have without another connector.
#[doc(hidden)]
#[derive(Default)]
pub struct Tcp(Starts);

impl Connector for Tcp {
    fn connect(&self, endpoint: Endpoint, within: Duration) -> Connecting {
        Box::pin(connect(endpoint, TcpDial::new(None, within, self.0.clone())))
    }
}

/// Connects and waits until a server has said what it says first: what accepts a connection and then stays silent does not count.
pub(crate) async fn connect(endpoint: Endpoint, dial: TcpDial) -> Result<Channel, DialError> {
    let heard = Heard::default();
    let channel = endpoint.connect_with_connector(dial.noting(heard.clone())).await;
    let channel = channel.map_err(|error| DialError::of(&error, None))?;
    heard.first().await?;
    Ok(channel)
}

/// Which stream to which endpoint: a later one to the same endpoint has a greater generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamId {
    /// The endpoint, as the router counts them.
    pub target: usize,
    /// Counts the streams of this client.
    pub generation: u64,
}

/// A report of a connection's task to the driver.
pub(crate) enum Event {
    /// The connection is up: requests may be sent. `channel` is the same connection, for calls.
    Up { line: StreamId, requests: mpsc::Sender<v1::SubmitRequest>, channel: Link },
    /// Where the members of the cluster are, as one of them said.
    Members { addresses: Vec<String> },
    /// Answers that arrived together.
    Answers { line: StreamId, answers: Vec<v1::SubmitResponse> },
    /// The stream ended, or never came to be. Whatever was sent on it and not answered is refused so.
    Down { line: StreamId, broken: Box<Broken> },
    /// A large write is answered; `channel` is worth keeping, if there.
    Alone { target: usize, tag: u64, answer: Box<Result<v1::SubmitResponse, Broken>>, channel: Option<Link> },
}

/// The parts of a dial.
#[derive(Clone)]
pub(crate) struct Dial {
    pub connector: std::sync::Arc<dyn Connector>,
    pub credentials: Credentials,
    pub address: String,
    pub timeout: Duration,
}

/// Why an attempt at an endpoint came to nothing: for who decides what to do next, and for people.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub refusal: Refusal,
    pub failure: EndpointFailure,
}

impl Broken {
    fn new(kind: RefusalKind, applied: Applied, address: &str, reason: &str) -> Self {
        let failure = EndpointFailure::new(address, reason);
        let message = format!("{} address={address}", failure.reason);
        Self { refusal: Refusal { kind, applied, message }, failure }
    }

    /// Nothing was sent.
    pub fn unavailable(address: &str, reason: &str) -> Self {
        Self::new(RefusalKind::Unavailable, Applied::No, address, reason)
    }

    /// A call had no answer for so long.
    pub fn late(address: &str, after: Duration) -> Self {
        Self::new(RefusalKind::DeadlineExceeded, Applied::Unknown, address, &format!("no answer for {after:.1?}"))
    }

    /// There is no connection; nothing was sent.
    fn unconnected(address: &str, error: &DialError) -> Self {
        let kind = match error.obstacle {
            Obstacle::WantsCertificate | Obstacle::NotTaken => RefusalKind::Unauthenticated,
            _ => RefusalKind::Unavailable,
        };
        let advice = match error.obstacle {
            Obstacle::SpeaksTls => ": pass --ca (QUORATE_CA)",
            Obstacle::SpeaksNoTls => ": leave out --ca (QUORATE_CA)",
            Obstacle::WantsCertificate => ": pass --cert and --key (QUORATE_CERT, QUORATE_KEY); a peer port wants a member's",
            Obstacle::NotTaken => {
                ": pass another by --cert and --key (QUORATE_CERT, QUORATE_KEY); a peer port takes members' alone"
            }
            Obstacle::Unreachable | Obstacle::NotSigned | Obstacle::Settings => "",
        };
        let mut broken = Self::new(kind, Applied::No, address, &format!("{error}{advice}"));
        broken.failure.settings = error.obstacle != Obstacle::Unreachable;
        broken
    }

    /// A call ended in this status: a node's word, or what became of the connection.
    pub fn of_status(address: &str, status: &tonic::Status) -> Self {
        if tls::refused_by_peer(status) {
            let reason = format!("it does not take this client's certificate (--cert): {}", cause(status));
            let broken = Self::new(RefusalKind::Unauthenticated, Applied::No, address, &reason);
            return Self { failure: EndpointFailure { settings: true, ..broken.failure }, ..broken };
        }
        let refusal = crate::wire::refusal_from_status(status);
        if crate::wire::is_ours(status) {
            let failure = EndpointFailure { answered: true, ..EndpointFailure::new(address, &refusal.message) };
            return Self { refusal, failure };
        }
        let (reason, settings) = match (status.code(), std::error::Error::source(status)) {
            (Code::Unimplemented, _) if status.message().contains("HTTP status code") => {
                ("that is an admin port: use the node's client port".to_owned(), true)
            }
            // What a port says that speaks HTTP/1.1 only.
            (_, Some(_)) if cause(status).contains("HTTP/1.1") => {
                ("that is an admin port: use the node's client port".to_owned(), true)
            }
            (Code::Unimplemented, None) => ("that is a peer port, or a node that does not know this call".to_owned(), true),
            (_, Some(_)) => (format!("the connection broke: {}", cause(status)), false),
            (code, None) => (format!("{} ({code:?})", status.message()), false),
        };
        let broken = Self::new(refusal.kind, refusal.applied, address, &reason);
        Self { failure: EndpointFailure { settings, ..broken.failure }, ..broken }
    }
}

/// A client with our bounds on a channel.
pub(crate) fn sessions(channel: Link) -> SessionsClient<Link> {
    SessionsClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX as usize)
        .max_encoding_message_size(WRITE_MESSAGE_BYTES_MAX as usize)
}

impl Dial {
    /// At most so long.
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout: self.timeout.min(timeout), ..self }
    }

    /// Connects within the timeout. Errors: `Unavailable` or `Unauthenticated`, nothing was sent.
    pub async fn connect(&self) -> Result<Link, Broken> {
        let invalid = |error| Broken::unavailable(&self.address, &format!("address is not valid: {error}"));
        let endpoint = tls::endpoint(&self.address).map_err(invalid)?;
        let bearer = self.credentials.bearer().await;
        let connected = tokio::time::timeout(self.timeout, self.connector.connect(endpoint, self.timeout)).await;
        match connected.unwrap_or_else(|_| Err(DialError::silent(self.timeout))) {
            Ok(channel) => Ok(Link::new(channel, bearer)),
            Err(error) => Err(Broken::unconnected(&self.address, &error)),
        }
    }
}

/// The innermost reason: tonic's own text is always "transport error".
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Opens the stream and reports everything that arrives on it, until it ends or the driver is gone.
pub(crate) async fn stream(dial: Dial, line: StreamId, capacity: usize, events: mpsc::Sender<Event>) {
    let broken = match dial.connect().await {
        Ok(channel) => talk(&dial.address, channel, line, capacity, &events).await,
        Err(broken) => broken,
    };
    // The driver is gone: nobody to tell.
    let _ = events.send(Event::Down { line, broken: Box::new(broken) }).await;
}

async fn talk(address: &str, channel: Link, line: StreamId, capacity: usize, events: &mpsc::Sender<Event>) -> Broken {
    let applied = if mutant::is(Mutant::EndedStreamRefused) { Applied::No } else { Applied::Unknown };
    let gone = || Broken::new(RefusalKind::Unavailable, applied, address, "the connection ended");
    let (requests, outgoing) = mpsc::channel(capacity);
    if events.send(Event::Up { line, requests, channel: channel.clone() }).await.is_err() {
        return gone();
    }
    let mut stream = match sessions(channel).submit(ReceiverStream::new(outgoing)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Broken::of_status(address, &status),
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
                let Broken { refusal, failure } = Broken::of_status(address, &status);
                // A node that never took the connection looked at nothing that was sent on it.
                if refusal.kind == RefusalKind::Unauthenticated && refusal.applied == Applied::No && !answered {
                    return Broken { refusal, failure };
                }
                return Broken { refusal: Refusal::unknown(RefusalKind::Unavailable, refusal.message), failure };
            }
        }
    }
}

/// Asks for the members and reports them; a node that names none is not asked again on this connection.
pub(crate) async fn learn(channel: Link, events: mpsc::Sender<Event>) {
    let mut client = OperationsClient::new(channel);
    let asked = tokio::time::timeout(MEMBERS_TIMEOUT, client.members(v1::MembersRequest {})).await;
    let Ok(Ok(response)) = asked else { return };
    let members = response.into_inner().members.into_iter();
    let addresses = members.map(|member| member.client).filter(|address| tls::endpoint(address).is_ok()).take(NODES_MAX).collect();
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
pub(crate) async fn alone(
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
        Err(broken) => (Err(broken), None),
        Ok(channel) => match tokio::time::timeout(remaining, sessions(channel.clone()).write(request)).await {
            Ok(Ok(response)) => (Ok(response.into_inner()), Some(channel)),
            Ok(Err(status)) => (Err(Broken::of_status(&dial.address, &status)), None),
            Err(_) => (Err(Broken::late(&dial.address, remaining)), Some(channel)),
        },
    };
    // The driver is gone: nobody to tell.
    let _ = events.send(Event::Alone { target, tag, answer: Box::new(answer), channel }).await;
}
