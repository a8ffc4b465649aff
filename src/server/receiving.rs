//! Requests while they arrive: the part of an incomplete one is counted, bounded and dropped when the rest takes too long.
//!
//! ```text
//! body ── whole in what came ───────────────────────────> the service
//!   └──── a part ── held here, counted for node, connection and token ── whole ──> the service
//!                     │ above a bound: refused        │ not whole in time: ended by end_late()
//! ```
//!
//! The transport reserves the announced size of a message at once, and holds a part of it for as long as the rest takes. So a part stays
//! here until the rest has come, and nothing is reserved for an announcement. A request that arrives whole, as most do, is passed on
//! untouched and counts nothing here. A refused request changed nothing.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;

use super::admission::RETRY_AFTER;
use crate::env::{Clock, Locked as _};
use crate::limits::{KIB, LARGE_OPERATION_BYTES, RECEIVING_BYTES_MAX, RECEIVING_SHARE_BYTES_MAX, REQUEST_PATIENCE};
use crate::types::{Refusal, RefusalKind};
use crate::wire;

/// The prefix of every message: a flag and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const HEADER_BYTES: usize = 5;
/// A piece below this is copied beside those before it: each piece that is kept as it came keeps what it was read into.
const PIECE_BYTES_MIN: usize = 4 * KIB as usize;
/// How often requests that are not complete are checked.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// All requests of one node that are arriving. Cheap to clone.
#[derive(Clone)]
pub struct Receiving(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    bytes: Arc<AtomicU64>,
    /// Of each token, by its name, while it has any.
    tokens: Mutex<BTreeMap<Arc<str>, Arc<AtomicU64>>>,
    waiting: Mutex<Waiting>,
    /// Requests ended because they took too long, and because there was no room.
    ended: [AtomicU64; 2],
}

/// Requests that wait for more of themselves.
#[derive(Default)]
struct Waiting {
    next: u64,
    requests: BTreeMap<u64, Weak<Mutex<Part>>>,
}

impl Receiving {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (tokens, waiting) = Default::default();
        Self(Arc::new(Inner { clock, bytes: Arc::default(), tokens, waiting, ended: Default::default() }))
    }

    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Requests ended so far because they took too long, and because there was no room.
    pub fn ended(&self) -> [u64; 2] {
        self.0.ended.each_ref().map(|ended| ended.load(Ordering::Relaxed))
    }

    /// A body whose bytes are counted for this connection and this token.
    pub fn of(&self, body: Body, takes: Takes, from: From) -> Received {
        let since = takes.one.then(|| self.0.clock.now());
        let part = Arc::new(Mutex::new(Part { since, ..Part::default() }));
        let (framing, ready) = Default::default();
        Received { receiving: self.clone(), body, takes, from, part, framing, ready, watched: None, begun: false, ended: false }
    }

    /// Ends requests that are not whole [`REQUEST_PATIENCE`] after they began. Gives their number.
    pub fn end_late(&self, now: Duration) -> usize {
        let waiting: Vec<_> = self.0.waiting.locked().requests.values().filter_map(Weak::upgrade).collect();
        let late = waiting.iter().filter(|part| locked(part).end_if_late(now)).count();
        self.0.ended[0].fetch_add(late as u64, Ordering::Relaxed);
        late
    }

    /// Looks again and again, until `stop`; its spawner joins it.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::select! {
                _ = stop.changed() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {
                    let late = self.end_late(self.0.clock.now());
                    if late > 0 {
                        tracing::warn!(requests = late, limit = ?REQUEST_PATIENCE, "requests did not arrive whole in time and were ended");
                    }
                }
            }
        }
    }

    fn watch(&self, part: &Arc<Mutex<Part>>) -> Watched {
        let mut waiting = self.0.waiting.locked();
        let key = waiting.next;
        waiting.next += 1;
        waiting.requests.insert(key, Arc::downgrade(part));
        Watched { receiving: self.clone(), key }
    }

    /// The counter of a token. Those of tokens that have nothing here are dropped.
    fn token(&self, name: &Arc<str>) -> Arc<AtomicU64> {
        let mut tokens = self.0.tokens.locked();
        tokens.retain(|_, counter| Arc::strong_count(counter) > 1);
        tokens.entry(name.clone()).or_default().clone()
    }

    fn refused(&self, of: &str, limit: u64) -> Status {
        self.0.ended[1].fetch_add(1, Ordering::Relaxed);
        let message = format!("too many bytes of {of} are arriving in requests that are not whole yet limit={limit}");
        let kind = RefusalKind::Overloaded { retry_after: RETRY_AFTER };
        wire::status_from_refusal(&Refusal::not_applied(kind, message))
    }
}

/// Takes a request out of those that are looked at.
struct Watched {
    receiving: Receiving,
    key: u64,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.receiving.0.waiting.locked().requests.remove(&self.key);
    }
}

/// The limits of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takes {
    /// The largest message.
    pub message_bytes: u64,
    /// Whether it takes one message and then the end, not a stream.
    pub one: bool,
}

/// The origin of a body.
pub struct From {
    /// Counts for its connection.
    pub connection: Arc<AtomicU64>,
    /// The name of its token; `None` where nobody asks for one.
    pub token: Option<Arc<str>>,
    /// Whether a message of so many bytes is worth receiving; asked once, of large single ones.
    pub admits: Option<Admits>,
}

/// Judges a large message by its announced bytes. Errors: the refusal; nothing changed.
pub type Admits = Box<dyn Fn(u64) -> Result<(), Refusal> + Send>;

/// The part of a request that has arrived.
#[derive(Default)]
struct Part {
    pieces: Vec<Bytes>,
    /// Small pieces after those, copied.
    small: BytesMut,
    counted: Option<Counted>,
    /// When it began, by the node's monotonic clock; `None` while nothing is awaited.
    since: Option<Duration>,
    waker: Option<Waker>,
    late: bool,
}

impl Part {
    fn end_if_late(&mut self, now: Duration) -> bool {
        let late = !self.late && self.since.is_some_and(|since| now.saturating_sub(since) >= REQUEST_PATIENCE);
        if late {
            self.drop_all();
            self.late = true;
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
        late
    }

    fn drop_all(&mut self) {
        *self = Self { waker: self.waker.take(), late: self.late, ..Self::default() };
    }

    fn put(&mut self, data: Bytes) {
        if data.len() < PIECE_BYTES_MIN {
            return self.small.extend_from_slice(&data);
        }
        self.end_small();
        self.pieces.push(data);
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(std::mem::take(&mut self.small).freeze());
        }
    }
}

fn locked(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.locked()
}

/// Bytes counted for a node, a connection and a token, for as long as this lives.
struct Counted {
    counters: [(Arc<AtomicU64>, u64, &'static str); 3],
    bytes: u64,
}

impl Counted {
    fn new(receiving: &Receiving, from: &From) -> Self {
        let (token, token_max) = match &from.token {
            Some(name) => (receiving.token(name), RECEIVING_SHARE_BYTES_MAX),
            None => (Arc::default(), RECEIVING_BYTES_MAX),
        };
        let counters = [
            (from.connection.clone(), RECEIVING_SHARE_BYTES_MAX, "this connection"),
            (token, token_max, "this token"),
            (receiving.0.bytes.clone(), RECEIVING_BYTES_MAX, "all callers"),
        ];
        Self { counters, bytes: 0 }
    }

    /// Counts so many more. Errors: whose bound that exceeds, and the bound; they are counted none the less.
    fn add(&mut self, bytes: u64) -> Result<(), (&'static str, u64)> {
        self.bytes += bytes;
        let added = self.counters.each_ref().map(|(counter, ..)| counter.fetch_add(bytes, Ordering::Relaxed) + bytes);
        match self.counters.iter().zip(added).find(|((_, limit, _), now)| now > limit) {
            Some(((_, limit, of), _)) => Err((of, *limit)),
            None => Ok(()),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        for (counter, ..) in &self.counters {
            counter.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// Where messages begin and end in what arrives.
#[derive(Default)]
struct Framing {
    header: [u8; HEADER_BYTES],
    /// Bytes of the present message so far, its header with them.
    got: u64,
}

impl Framing {
    /// The bytes of the message that has begun, once its header is there.
    fn announced(&self) -> Option<u64> {
        (self.got >= HEADER_BYTES as u64).then(|| self.length())
    }

    fn length(&self) -> u64 {
        let [_, length @ ..] = self.header;
        u64::from(u32::from_be_bytes(length))
    }

    /// Continues by `data`: where in it the present message ends; `None`: not in it. Errors: how large the message says to be, above
    /// `message_bytes`.
    fn next(&mut self, data: &[u8], message_bytes: u64) -> Result<Option<usize>, u64> {
        let begun = usize::try_from(self.got).unwrap_or(HEADER_BYTES).min(HEADER_BYTES);
        let more = data.len().min(HEADER_BYTES - begun);
        self.header[begun..begun + more].copy_from_slice(&data[..more]);
        if begun + more < HEADER_BYTES {
            self.got += data.len() as u64;
            return Ok(None);
        }
        let length = self.length();
        if length > message_bytes {
            return Err(length);
        }
        let left = HEADER_BYTES as u64 + length - self.got;
        if data.len() as u64 >= left {
            self.got = 0;
            return Ok(Some(left as usize));
        }
        self.got += data.len() as u64;
        Ok(None)
    }
}

/// A request's body, of which only whole messages are passed on.
pub struct Received {
    receiving: Receiving,
    body: Body,
    takes: Takes,
    from: From,
    part: Arc<Mutex<Part>>,
    framing: Framing,
    /// Whole.
    ready: VecDeque<Bytes>,
    watched: Option<Watched>,
    /// Whether its message began; only looked at where there may be one.
    begun: bool,
    ended: bool,
}

impl Received {
    /// Takes what has come, the last of it if `ends`. Errors: the refusal.
    fn take(&mut self, data: Bytes, ends: bool) -> Result<(), Status> {
        if self.takes.one { self.take_one(data, ends) } else { self.take_some(data) }
    }

    /// The body is one message: all of it is passed on once it has ended.
    fn take_one(&mut self, data: Bytes, ends: bool) -> Result<(), Status> {
        let mut rest = &data[..];
        while !rest.is_empty() {
            if self.framing.got == 0 && std::mem::replace(&mut self.begun, true) {
                return Err(wire::unread(&Status::invalid_argument("more than one message where one is expected")));
            }
            rest = &rest[self.message_end(rest)?.unwrap_or(rest.len())..];
        }
        if !ends {
            self.admit()?;
            return self.hold(data);
        }
        self.release();
        self.ready.push_back(data);
        Ok(())
    }

    /// Refuses a large message for which there is no room, before the rest of it has come.
    fn admit(&mut self) -> Result<(), Status> {
        let Some(announced) = self.framing.announced().filter(|bytes| *bytes > LARGE_OPERATION_BYTES) else { return Ok(()) };
        self.from.admits.take().map_or(Ok(()), |admits| admits(announced)).map_err(|refusal| wire::status_from_refusal(&refusal))
    }

    /// The body is a stream of messages: each is passed on once it is whole.
    fn take_some(&mut self, mut data: Bytes) -> Result<(), Status> {
        if self.framing.got > 0 {
            let Some(end) = self.message_end(&data)? else { return self.hold(data) };
            self.hold(data.split_to(end))?;
            self.release();
        }
        let mut whole = 0;
        while whole < data.len()
            && let Some(end) = self.message_end(&data[whole..])?
        {
            whole += end;
        }
        let rest = data.split_off(whole);
        if !data.is_empty() {
            self.ready.push_back(data);
        }
        if rest.is_empty() { Ok(()) } else { self.hold(rest) }
    }

    fn message_end(&mut self, data: &[u8]) -> Result<Option<usize>, Status> {
        let limit = self.takes.message_bytes;
        self.framing.next(data, limit).map_err(|length| too_large(length, limit))
    }

    fn hold(&mut self, piece: Bytes) -> Result<(), Status> {
        let mut part = locked(&self.part);
        if part.late {
            return Err(late());
        }
        part.since.get_or_insert_with(|| self.receiving.0.clock.now());
        let counted = part.counted.get_or_insert_with(|| Counted::new(&self.receiving, &self.from));
        counted.add(piece.len() as u64).map_err(|(of, limit)| self.receiving.refused(of, limit))?;
        part.put(piece);
        Ok(())
    }

    /// Releases the held part: the request is complete, or ends.
    fn release(&mut self) {
        let mut part = locked(&self.part);
        part.end_small();
        self.ready.extend(part.pieces.drain(..));
        part.drop_all();
    }

    /// Nothing more comes. Errors: it was too late before.
    fn end(&mut self) -> Result<(), Status> {
        self.ended = true;
        self.release();
        self.watched = None;
        if locked(&self.part).late { Err(late()) } else { Ok(()) }
    }

    /// Nothing more came so far. Whether more is to be waited for; otherwise it is too late.
    fn waits(&mut self, cx: &Context<'_>) -> bool {
        let mut part = locked(&self.part);
        if part.late {
            return false;
        }
        if part.since.is_some() {
            match &mut part.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            self.watched.get_or_insert_with(|| self.receiving.watch(&self.part));
        }
        true
    }

    fn fail(&mut self, status: Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.ended = true;
        self.watched = None;
        self.ready.clear();
        locked(&self.part).drop_all();
        Poll::Ready(Some(Err(status)))
    }
}

fn too_large(length: u64, limit: u64) -> Status {
    wire::unread(&Status::out_of_range(format!("the message is too large message_bytes={length} limit={limit}")))
}

fn late() -> Status {
    let message = format!("the request did not arrive whole in time limit={REQUEST_PATIENCE:?}");
    wire::status_from_refusal(&Refusal::not_applied(RefusalKind::DeadlineExceeded, message))
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            if let Some(data) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let taken = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending if this.waits(cx) => return Poll::Pending,
                Poll::Pending => Err(late()),
                Poll::Ready(Some(Err(status))) => Err(status),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        let ends = this.body.is_end_stream();
                        this.take(data, ends).and_then(|()| if ends { this.end() } else { Ok(()) })
                    }
                    // Trailers: a request has none that say anything.
                    Err(_) => this.end(),
                },
                Poll::Ready(None) => this.end(),
            };
            if let Err(status) = taken {
                return this.fail(status);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use tokio::sync::mpsc;

    use super::*;
    use crate::env::SystemClock;
    use crate::limits::WRITE_MESSAGE_BYTES_MAX;

    /// A body of pieces as they are sent.
    struct Pieces(mpsc::UnboundedReceiver<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
        }
    }

    fn receiving() -> Receiving {
        Receiving::new(Arc::new(SystemClock::new()))
    }

    fn begin(receiving: &Receiving, one: bool, token: &str) -> (mpsc::UnboundedSender<Bytes>, Received) {
        let (sender, pieces) = mpsc::unbounded_channel();
        let takes = Takes { message_bytes: WRITE_MESSAGE_BYTES_MAX, one };
        let from = From { connection: Arc::default(), token: Some(token.into()), admits: None };
        (sender, receiving.of(Body::new(Pieces(pieces)), takes, from))
    }

    /// The bytes that the body gives now, and its end, if it ended.
    fn taken(received: &mut Received) -> (Vec<u8>, Option<Result<(), Status>>) {
        let mut bytes = Vec::new();
        loop {
            match Pin::new(&mut *received).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(Ok(frame))) => bytes.extend(frame.into_data().expect("data")),
                Poll::Ready(Some(Err(status))) => return (bytes, Some(Err(status))),
                Poll::Ready(None) => return (bytes, Some(Ok(()))),
                Poll::Pending => return (bytes, None),
            }
        }
    }

    fn message(bytes: usize) -> Vec<u8> {
        [&[0][..], &u32::try_from(bytes).expect("short").to_be_bytes(), &vec![7; bytes][..]].concat()
    }

    fn refusal(ended: Option<Result<(), Status>>) -> Refusal {
        let refusal = wire::refusal_from_status(&ended.expect("it ended").expect_err("refused"));
        assert_eq!(refusal.applied, crate::types::Applied::No, "{refusal:?}");
        refusal
    }

    /// A token whose writes wait, and that sends more of them, costs the node no more than their first pieces.
    #[test]
    fn a_large_message_for_which_there_is_no_room_is_refused_with_its_first_piece() {
        let receiving = receiving();
        for (bytes, refused) in [(LARGE_OPERATION_BYTES as usize, false), (LARGE_OPERATION_BYTES as usize + 1, true)] {
            let (sender, mut received) = begin(&receiving, true, "a");
            received.from.admits = Some(Box::new(|bytes| Err(Refusal::not_applied(RefusalKind::NoLeader, format!("{bytes}")))));
            let message = message(bytes);
            sender.send(Bytes::copy_from_slice(&message[..3])).expect("it is there");
            assert!(taken(&mut received).1.is_none(), "its length is not known yet");
            sender.send(Bytes::copy_from_slice(&message[3..100])).expect("it is there");
            let ended = taken(&mut received).1;
            assert_eq!(ended.is_some(), refused);
            if refused {
                assert_eq!(refusal(ended).message, bytes.to_string());
            }
            drop(received);
            assert_eq!(receiving.bytes(), 0);
        }
    }

    /// However a stream is cut into pieces, whole messages come out at once and in order, and nothing stays counted.
    #[test]
    fn messages_of_a_stream_are_passed_on_as_they_become_whole() {
        let messages = [message(0), message(3), message(5000), message(40_000), message(1)];
        let all = messages.concat();
        for cut in [1, 2, 4, 5, 7, 4096, 16_384, 100_000] {
            let receiving = receiving();
            let (sender, mut received) = begin(&receiving, false, "t");
            let (mut sent, mut got) = (0, Vec::new());
            for piece in all.chunks(cut) {
                sender.send(Bytes::copy_from_slice(piece)).expect("it is read");
                sent += piece.len();
                let (bytes, ended) = taken(&mut received);
                assert!(ended.is_none(), "{ended:?}");
                got.extend(bytes);
                let mut whole = 0;
                for message in &messages {
                    whole = if whole + message.len() <= sent { whole + message.len() } else { break };
                }
                assert_eq!((got.len(), receiving.bytes()), (whole, (sent - whole) as u64), "{cut}");
            }
            assert_eq!(got, all);
            drop(sender);
            assert!(matches!(taken(&mut received), (rest, Some(Ok(()))) if rest.is_empty()));
        }
    }

    #[test]
    fn a_body_of_one_message_is_passed_on_once_it_has_ended_and_takes_no_second_one() {
        let receiving = receiving();
        let (sender, mut received) = begin(&receiving, true, "t");
        sender.send(message(9).into()).expect("it is read");
        assert!(matches!(taken(&mut received), (none, None) if none.is_empty()));
        assert_eq!(receiving.bytes(), 14);
        drop(sender);
        assert!(matches!(taken(&mut received), (all, Some(Ok(()))) if all == message(9)));
        assert_eq!(receiving.bytes(), 0);

        let (sender, mut received) = begin(&receiving, true, "t");
        sender.send([message(9), message(0)].concat().into()).expect("it is read");
        assert_eq!(refusal(taken(&mut received).1).kind, RefusalKind::Invalid);
    }

    #[test]
    fn what_a_message_says_to_have_counts_nothing_until_it_is_there_and_above_its_limit_it_is_refused() {
        let receiving = receiving();
        let (sender, mut received) = begin(&receiving, false, "t");
        sender.send(message(WRITE_MESSAGE_BYTES_MAX as usize)[..105].to_vec().into()).expect("it is read");
        assert!(taken(&mut received).1.is_none());
        assert_eq!(receiving.bytes(), 105);
        drop(received);
        assert_eq!(receiving.bytes(), 0);
        let (sender, mut received) = begin(&receiving, false, "t");
        sender.send(message(WRITE_MESSAGE_BYTES_MAX as usize + 1)[..6].to_vec().into()).expect("it is read");
        let refusal = refusal(taken(&mut received).1);
        assert!(refusal.message.contains("limit=20971520"), "{refusal:?}");
    }

    /// Over all its connections; another token finds room.
    #[test]
    fn a_token_takes_its_share_and_no_more() {
        let receiving = receiving();
        let part = Bytes::from(message(WRITE_MESSAGE_BYTES_MAX as usize)).slice(..16 << 20);
        let mut held = Vec::new();
        let mut begin_one = |token: &str| {
            let (sender, mut received) = begin(&receiving, true, token);
            sender.send(part.clone()).expect("it is read");
            let ended = taken(&mut received).1;
            held.push((sender, received));
            ended
        };
        for _ in 0..RECEIVING_SHARE_BYTES_MAX / (16 << 20) {
            assert!(begin_one("greedy").is_none());
        }
        let refusal = refusal(begin_one("greedy"));
        assert!(matches!(refusal.kind, RefusalKind::Overloaded { .. }) && refusal.message.contains("this token"), "{refusal:?}");
        assert!(begin_one("other").is_none());
        assert_eq!((receiving.bytes(), receiving.ended()), (RECEIVING_SHARE_BYTES_MAX + (16 << 20), [0, 1]));
        held.clear();
        assert_eq!(receiving.bytes(), 0);
    }

    #[test]
    fn a_request_that_is_not_whole_in_time_is_ended_and_what_was_there_of_it_is_dropped_at_once() {
        let receiving = receiving();
        for one in [false, true] {
            let (sender, mut received) = begin(&receiving, one, "t");
            sender.send(message(1000)[..500].to_vec().into()).expect("it is read");
            assert!(taken(&mut received).1.is_none());
            let now = receiving.0.clock.now();
            assert_eq!((receiving.end_late(now), receiving.bytes()), (0, 500));
            // It drips on, and is as late.
            sender.send(message(1000)[500..501].to_vec().into()).expect("it is read");
            assert!(taken(&mut received).1.is_none());
            let late = now + REQUEST_PATIENCE;
            assert_eq!((receiving.end_late(late), receiving.bytes(), receiving.end_late(late)), (1, 0, 0));
            assert_eq!(refusal(taken(&mut received).1).kind, RefusalKind::DeadlineExceeded);
        }
        assert_eq!(receiving.ended(), [2, 0]);
        // A call that brings nothing at all is waited for no longer; a stream may stay silent between its messages.
        let (_none, mut nothing) = begin(&receiving, true, "t");
        let (sender, mut idle) = begin(&receiving, false, "t");
        sender.send(message(10).into()).expect("it is read");
        assert!(taken(&mut nothing).1.is_none() && taken(&mut idle).1.is_none());
        assert_eq!(receiving.end_late(receiving.0.clock.now() + REQUEST_PATIENCE), 1);
        assert_eq!(refusal(taken(&mut nothing).1).kind, RefusalKind::DeadlineExceeded);
        assert!(taken(&mut idle).1.is_none());
    }
}
