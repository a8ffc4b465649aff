//! Connections that have not shown yet what they are. Everyone who can reach a port can open them, so they are few, take no place of a
//! connection that serves a client, and the oldest goes first.
//!
//! ```text
//! accepted ──> TLS, where the port has it ──> the first bytes of HTTP ──> a place ──> served
//!     └── at most GREETINGS_MAX at once, each for GREETING_PATIENCE ──┘      └── none left: closed
//! ```

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::{AbortHandle, Abortable, Aborted, BoxFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::ports::{Accepted, Incoming, Traffic};
use crate::limits::GREETINGS_MAX;

/// The first bytes of an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Its first line, which is no request of HTTP/1.
const PREFACE_LINE: &[u8] = b"PRI * HTTP/2.0\r\n";
/// Empty settings, then a farewell: this port speaks HTTP/1.1 (RFC 9113 §6.5, §6.8, error code HTTP_1_1_REQUIRED).
const SPEAKS_HTTP1: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d";
/// Reads of what a connection still sends that was said farewell to: some 64 KiB.
const LINGER_READS_MAX: usize = 16;
/// Where the headers of an HTTP/1 request end.
const END_OF_HEADERS: &[u8] = b"\r\n\r\n";
/// Longest headers of a request to the operators' port.
const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// The paths that probes ask for.
const PROBES: [&[u8]; 2] = [b"/livez", b"/readyz"];
/// Connections taken at one go before others get their turn.
const ACCEPTED_AT_ONCE: usize = 64;

/// The protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/2, once its preface has come.
    Http2,
    /// HTTP/1, once the headers of a request have come.
    Http1,
}

/// Reads the first bytes of a connection, and puts them back. Errors: it ended first, or speaks HTTP/2 where it may not, and got that for an
/// answer.
pub async fn begun(mut accepted: Accepted, speaks: Speaks) -> io::Result<Accepted> {
    let mut read = BytesMut::new();
    loop {
        if speaks == Speaks::Http1 && read.starts_with(PREFACE_LINE) {
            farewell(accepted).await?;
            return Err(io::ErrorKind::InvalidData.into());
        }
        if has_begun(&read, speaks) {
            let accepted = if speaks == Speaks::Http1 && is_probe(&read) { accepted.probing() } else { accepted };
            return Ok(accepted.after(read.freeze()));
        }
        if accepted.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Says why, and lets the other end read it: a connection closed while bytes of it are unread is reset, and a reset overtakes what was said.
async fn farewell(mut accepted: Accepted) -> io::Result<()> {
    accepted.write_all(SPEAKS_HTTP1).await?;
    accepted.shutdown().await?;
    let mut unread = [0; 4096];
    for _ in 0..LINGER_READS_MAX {
        if accepted.read(&mut unread).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Whether enough has come to be served, or to be refused by who serves.
fn has_begun(read: &[u8], speaks: Speaks) -> bool {
    match speaks {
        Speaks::Http2 => read.len() >= PREFACE.len() || !PREFACE.starts_with(read),
        Speaks::Http1 => read.len() >= HEADERS_BYTES_MAX || read.windows(END_OF_HEADERS.len()).any(|end| end == END_OF_HEADERS),
    }
}

fn is_probe(headers: &[u8]) -> bool {
    let mut words = headers.split(|byte| *byte == b' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    matches!(method, Some(b"GET" | b"HEAD")) && PROBES.contains(&path)
}

type Greeting = Abortable<BoxFuture<'static, (u64, io::Result<Accepted>)>>;

/// Connections as they come in, once they have shown what they are.
pub struct Greetings {
    incoming: Incoming,
    greet: Box<dyn Fn(Accepted) -> BoxFuture<'static, io::Result<Accepted>> + Send>,
    patience: Duration,
    traffic: Arc<Traffic>,
    under_way: FuturesUnordered<Greeting>,
    /// By age.
    handles: BTreeMap<u64, AbortHandle>,
    next: u64,
    ended: bool,
}

impl Greetings {
    /// `greet` is given `patience` for each.
    pub fn new(
        incoming: Incoming,
        patience: Duration,
        traffic: Arc<Traffic>,
        greet: impl Fn(Accepted) -> BoxFuture<'static, io::Result<Accepted>> + Send + 'static,
    ) -> Self {
        let (under_way, handles) = Default::default();
        Self { incoming, greet: Box::new(greet), patience, traffic, under_way, handles, next: 0, ended: false }
    }

    fn begin(&mut self, accepted: Accepted) {
        let mut dropped = 0;
        if self.handles.len() >= GREETINGS_MAX
            && let Some((_, oldest)) = self.handles.pop_first()
        {
            oldest.abort();
            dropped = 1;
        }
        let key = self.next;
        self.next += 1;
        let (handle, registration) = AbortHandle::new_pair();
        let greeting = tokio::time::timeout(self.patience, (self.greet)(accepted));
        let greeting = greeting.map(move |greeted| (key, greeted.unwrap_or_else(|late| Err(late.into()))));
        self.under_way.push(Abortable::new(greeting.boxed(), registration));
        self.handles.insert(key, handle);
        self.traffic.greet(self.handles.len() as u64, dropped);
    }

    /// Takes in what has come. Whether there may be more at once.
    fn accept(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..ACCEPTED_AT_ONCE {
            match self.incoming.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(accepted))) => self.begin(accepted),
                Poll::Ready(Some(Err(_))) => {}
                Poll::Ready(None) => {
                    self.ended = true;
                    return false;
                }
                Poll::Pending => return false,
            }
        }
        true
    }
}

impl Stream for Greetings {
    type Item = io::Result<Accepted>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Accepted>>> {
        let this = self.get_mut();
        let more = !this.ended && this.accept(cx);
        loop {
            match this.under_way.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok((key, greeted)))) => {
                    this.handles.remove(&key);
                    let late = greeted.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
                    this.traffic.greet(this.handles.len() as u64, late.into());
                    return Poll::Ready(Some(greeted));
                }
                Poll::Ready(Some(Err(Aborted))) => {}
                Poll::Ready(None) if this.ended => return Poll::Ready(None),
                Poll::Ready(None) | Poll::Pending => {
                    if more {
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio::sync::mpsc;

    use super::*;
    use crate::limits::GREETING_PATIENCE;

    #[test]
    fn the_first_bytes_say_when_a_connection_has_begun_and_what_is_a_probe() {
        assert!(!has_begun(b"", Speaks::Http2) && !has_begun(&PREFACE[..23], Speaks::Http2));
        assert!(has_begun(PREFACE, Speaks::Http2));
        assert!(has_begun(b"GET", Speaks::Http2), "its server refuses it");
        assert!(!has_begun(b"GET /livez HTTP/1.1\r\nhost: a\r\n", Speaks::Http1));
        assert!(has_begun(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n", Speaks::Http1));
        assert!(has_begun(&[b'a'; HEADERS_BYTES_MAX], Speaks::Http1));
        for probe in ["GET /livez HTTP/1.1\r\n", "HEAD /readyz?verbose HTTP/1.0\r\n"] {
            assert!(is_probe(probe.as_bytes()), "{probe}");
        }
        for other in ["GET /metrics HTTP/1.1\r\n", "POST /livez HTTP/1.1\r\n", "GET /livezz HTTP/1.1\r\n", "GET", ""] {
            assert!(!is_probe(other.as_bytes()), "{other}");
        }
    }

    struct Bench {
        connect: mpsc::UnboundedSender<io::Result<Accepted>>,
        greetings: Greetings,
        traffic: Arc<Traffic>,
    }

    impl Bench {
        fn new(speaks: Speaks) -> Self {
            let (connect, incoming) = mpsc::unbounded_channel();
            let incoming = tokio_stream::wrappers::UnboundedReceiverStream::new(incoming).boxed();
            let traffic = Arc::new(Traffic::default());
            let greet = move |accepted| begun(accepted, speaks).boxed();
            let greetings = Greetings::new(incoming, GREETING_PATIENCE, traffic.clone(), greet);
            Self { connect, greetings, traffic }
        }

        fn connect(&self) -> DuplexStream {
            let (other, ours) = duplex(1024);
            self.connect.send(Ok(Accepted::new(ours))).expect("it listens");
            other
        }

        fn greeted(&mut self) -> Option<io::Result<Accepted>> {
            self.greetings.next().now_or_never().flatten()
        }
    }

    /// More of them than there may be, and one that speaks: it gets through, whether it came before them or after.
    #[tokio::test]
    async fn silent_connections_give_way_the_oldest_first_and_one_that_speaks_gets_through() {
        let mut bench = Bench::new(Speaks::Http2);
        let mut silent: Vec<_> = (0..GREETINGS_MAX + 14).map(|_| bench.connect()).collect();
        // Some at a time, so that others get their turn.
        while bench.traffic.greetings() != [GREETINGS_MAX as u64, 14] {
            assert!(bench.greeted().is_none(), "none of them spoke");
            tokio::task::yield_now().await;
        }
        for (index, connection) in silent.iter_mut().enumerate().take(28) {
            let closed = connection.read(&mut [0]).now_or_never();
            assert_eq!(closed.is_some(), index < 14, "{index}");
        }
        let mut speaking = bench.connect();
        speaking.write_all(PREFACE).await.expect("room");
        let mut accepted = bench.greeted().expect("it spoke").expect("HTTP/2");
        let mut read = vec![0; PREFACE.len()];
        accepted.read_exact(&mut read).await.expect("what was read of it");
        assert_eq!((&read[..], bench.traffic.greetings()), (PREFACE, [GREETINGS_MAX as u64 - 1, 15]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_drips_its_first_bytes_is_dropped_in_time() {
        let mut bench = Bench::new(Speaks::Http1);
        let mut dripping = bench.connect();
        for _ in 0..9 {
            dripping.write_all(b"G").await.expect("room");
            assert!(bench.greeted().is_none());
            tokio::time::advance(GREETING_PATIENCE / 9).await;
        }
        let greeted = bench.greetings.next().await.expect("its time is over");
        assert!(greeted.is_err());
        assert_eq!(bench.traffic.greetings(), [0, 1]);
    }

    #[tokio::test]
    async fn http2_is_refused_by_its_own_words_where_only_http1_is_meant() {
        let mut bench = Bench::new(Speaks::Http1);
        let mut other = bench.connect();
        other.write_all(PREFACE).await.expect("room");
        assert!(bench.greeted().is_none(), "it is given time to read");
        let mut said = vec![0; SPEAKS_HTTP1.len()];
        other.read_exact(&mut said).await.expect("a farewell");
        assert_eq!(said, SPEAKS_HTTP1);
        drop(other);
        assert!(bench.greeted().expect("it ended").is_err());
    }
}
