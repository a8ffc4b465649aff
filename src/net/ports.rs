//! How connections are made: the one seam between a node and a network. Production and simulation differ here only.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::Future as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

use crate::tls::{PeerCertificate, Starts, TcpDial, TlsConnector};

/// A byte stream between two nodes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// The traffic of one port: its connections, and the bytes that came in and went out by them, counted as they do.
#[derive(Debug, Default)]
pub struct Traffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    open: Mutex<Open>,
    refused: AtomicU64,
    greeting: AtomicU64,
    greetings_dropped: AtomicU64,
}

/// Connections that have a place.
#[derive(Debug, Default)]
struct Open {
    served: u64,
    probes: u64,
    /// Of those served, by where they come from.
    sources: BTreeMap<IpAddr, u64>,
}

impl Traffic {
    /// Bytes so far, in and out.
    pub fn bytes(&self) -> [u64; 2] {
        [&self.bytes_in, &self.bytes_out].map(|bytes| bytes.load(Ordering::Relaxed))
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        let open = self.open();
        open.served + open.probes
    }

    /// Connections closed at once because too many were open.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections that have not shown yet what they are, and how many were dropped as such so far.
    pub fn greetings(&self) -> [u64; 2] {
        [&self.greeting, &self.greetings_dropped].map(|count| count.load(Ordering::Relaxed))
    }

    /// So many connections have not shown yet what they are, and so many more were dropped as such.
    pub fn greet(&self, under_way: u64, dropped: u64) {
        self.greeting.store(under_way, Ordering::Relaxed);
        self.greetings_dropped.fetch_add(dropped, Ordering::Relaxed);
    }

    /// A place for one more beside those that are open, of which no address has more than half; probes have separate places. `None`:
    /// there is none, and it is counted as refused.
    pub fn place(self: &Arc<Self>, accepted: &Accepted, connections_max: u64) -> Option<Place> {
        let Accepted { source, probe, .. } = *accepted;
        let mut open = self.open();
        let of_source = source.and_then(|source| open.sources.get(&source)).copied().unwrap_or(0);
        let has_room = match probe {
            true => open.probes < connections_max,
            false => open.served < connections_max && of_source < connections_max / 2,
        };
        if !has_room {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if probe {
            open.probes += 1;
        } else {
            open.served += 1;
            if let Some(source) = source {
                open.sources.insert(source, of_source + 1);
            }
        }
        Some(Place { traffic: self.clone(), source, probe })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An accepted connection.
pub struct Accepted {
    io: Box<dyn Io>,
    traffic: Arc<Traffic>,
    quiet: Option<Quiet>,
    connection: Connection,
    /// Where it comes from.
    source: Option<IpAddr>,
    /// Bytes that were read already.
    read: Bytes,
    probe: bool,
    _place: Option<Place>,
}

/// The place of one open connection of a port, for as long as it is.
#[derive(Debug)]
pub struct Place {
    traffic: Arc<Traffic>,
    source: Option<IpAddr>,
    probe: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.traffic.open();
        if self.probe {
            open.probes -= 1;
            return;
        }
        open.served -= 1;
        if let Some(source) = self.source
            && let Entry::Occupied(mut of_source) = open.sources.entry(source)
        {
            *of_source.get_mut() -= 1;
            if *of_source.get() == 0 {
                of_source.remove();
            }
        }
    }
}

/// Finds out that nothing comes in, without looking at a clock for each byte: a whole period without any.
struct Quiet {
    period: Duration,
    timer: Pin<Box<tokio::time::Sleep>>,
    heard: bool,
}

impl Quiet {
    /// Whether a whole period has passed without a byte. Registers the task for the period's end.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut self.heard) {
                return true;
            }
            let end = tokio::time::Instant::now() + self.period;
            self.timer.as_mut().reset(end);
        }
        false
    }
}

/// The proof of a connection's other end: the certificate whose key it holds; on a peer port, a member's.
#[derive(Clone, Debug, Default)]
pub struct Proof(pub Option<Arc<PeerCertificate>>);

/// A connection, as its calls see it.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// The proof of its other end.
    pub proof: Proof,
    /// Bytes of requests that have arrived on it and are no whole request yet.
    pub receiving: Arc<AtomicU64>,
    /// Bytes of loaded content that wait for its readers.
    pub loaded: Arc<AtomicU64>,
}

impl Accepted {
    /// Wraps any byte stream.
    pub fn new(io: impl Io) -> Self {
        Self {
            io: Box::new(io),
            traffic: Arc::default(),
            quiet: None,
            connection: Connection::default(),
            source: None,
            read: Bytes::new(),
            probe: false,
            _place: None,
        }
    }

    /// The source address of the connection.
    pub fn from(self, source: IpAddr) -> Self {
        Self { source: Some(source.to_canonical()), ..self }
    }

    /// Where it comes from, where that is known.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// These bytes of it were read already; they are read again first.
    pub fn after(self, read: Bytes) -> Self {
        Self { read, ..self }
    }

    /// The connection only asks whether the node lives or is ready.
    pub fn probing(self) -> Self {
        Self { probe: true, ..self }
    }

    /// Whether the connection only asks whether the node lives or is ready.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// The connection keeps this place until it is gone.
    pub fn placed(self, place: Place) -> Self {
        Self { _place: Some(place), ..self }
    }

    /// The other end has proved this.
    pub fn proved(self, proof: Proof) -> Self {
        Self { connection: Connection { proof, ..self.connection }, ..self }
    }

    /// From now on its bytes are counted there.
    pub fn counted(self, traffic: Arc<Traffic>) -> Self {
        Self { traffic, ..self }
    }

    /// Fails with `TimedOut` once no byte has come for `period`, at latest for twice as long.
    pub fn closed_when_quiet(self, period: Duration) -> Self {
        Self { quiet: Some(Quiet { period, timer: Box::pin(tokio::time::sleep(period)), heard: false }), ..self }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.traffic.bytes_out.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        written
    }
}

impl Connected for Accepted {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let now = self.read.len().min(buf.remaining());
            buf.put_slice(&self.read.split_to(now));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        self.traffic.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(quiet) = &mut self.quiet {
            quiet.heard |= bytes > 0;
            if read.is_pending() && quiet.is_over(cx) {
                let message = format!("no byte came in for {:?}", quiet.period);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)));
            }
        }
        read
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Connections as they come in.
pub type Incoming = BoxStream<'static, io::Result<Accepted>>;

/// A network.
#[tonic::async_trait]
pub trait Net: Send + Sync + 'static {
    /// Listens at `address`, `host:port`. Gives the address it got, for port 0. Errors: the operating system's.
    async fn listen(&self, address: &str) -> io::Result<(SocketAddr, Incoming)>;

    /// A channel that connects when first used and again when broken.
    fn channel(&self, endpoint: Endpoint) -> Channel;

    /// A channel by TLS, over TCP: other networks are tests', which configure no certificates.
    fn secured(&self, endpoint: Endpoint, tls: TlsConnector) -> Channel {
        let within = endpoint.get_connect_timeout().unwrap_or(Duration::MAX);
        endpoint.connect_with_connector_lazy(TcpDial::new(Some(tls), within, Starts::default()))
    }

    /// Where a connection to the peer at `address` goes: there, unless something stands between.
    fn route(&self, address: &str) -> String {
        address.to_owned()
    }
}

/// TCP.
#[derive(Default)]
pub struct TcpNet {
    /// Peers, by configured address, that are reached at another one: through a proxy.
    pub via: BTreeMap<String, String>,
}

#[tonic::async_trait]
impl Net for TcpNet {
    async fn listen(&self, address: &str) -> io::Result<(SocketAddr, Incoming)> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((bound, Box::pin(Accepting(listener))))
    }

    fn channel(&self, endpoint: Endpoint) -> Channel {
        endpoint.connect_lazy()
    }

    fn route(&self, address: &str) -> String {
        self.via.get(address).map_or(address, String::as_str).to_owned()
    }
}

struct Accepting(tokio::net::TcpListener);

impl Stream for Accepting {
    type Item = io::Result<Accepted>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_accept(cx).map(|accepted| {
            Some(accepted.and_then(|(stream, address)| {
                stream.set_nodelay(true)?;
                Ok(Accepted::new(stream).from(address.ip()))
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn bytes_of_a_connection_are_counted_both_ways() {
        let (mut other, ours) = tokio::io::duplex(64);
        let traffic = Arc::new(Traffic::default());
        let mut accepted = Accepted::new(ours).counted(traffic.clone());
        other.write_all(b"12345").await.expect("room");
        let mut buffer = [0; 5];
        accepted.read_exact(&mut buffer).await.expect("five bytes");
        accepted.write_all(b"123").await.expect("room");
        let written = accepted.write_vectored(&[io::IoSlice::new(b"12")]).await.expect("room");
        assert_eq!(traffic.bytes(), [5, 3 + written as u64]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_brings_nothing_is_closed_and_one_that_does_is_not() {
        let period = Duration::from_secs(60);
        let (mut other, ours) = tokio::io::duplex(64);
        let mut accepted = Accepted::new(ours).closed_when_quiet(period);
        let mut buffer = [0; 1];
        for _ in 0..5 {
            let write = async {
                tokio::time::advance(period / 2).await;
                other.write_all(b"1").await.expect("room");
            };
            let (read, ()) = tokio::join!(accepted.read_exact(&mut buffer), write);
            read.expect("it is not quiet");
        }
        let error = accepted.read_exact(&mut buffer).await.expect_err("nothing comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn open_connections_are_counted_until_they_are_gone_and_one_too_many_is_refused() {
        let traffic = Arc::new(Traffic::default());
        let open = |address: Option<u8>| {
            let accepted = Accepted::new(tokio::io::duplex(1).1);
            let accepted = address.map_or(Accepted::new(tokio::io::duplex(1).1), |last| accepted.from([127, 0, 0, last].into()));
            traffic.place(&accepted, 4).map(|place| accepted.placed(place))
        };
        let first = [open(Some(1)), open(Some(1))];
        assert!(first.iter().all(Option::is_some));
        assert!(open(Some(1)).is_none(), "one address has half of all places");
        let others = [open(Some(2)), open(None)];
        assert!(others.iter().all(Option::is_some) && open(Some(3)).is_none());
        assert_eq!((traffic.connections(), traffic.refused()), (4, 2));
        let probe = Accepted::new(tokio::io::duplex(1).1).from([127, 0, 0, 1].into()).probing();
        assert!(traffic.place(&probe, 4).is_some(), "probes have separate places");
        drop(first);
        assert!(open(Some(1)).is_some());
        drop(others);
        assert_eq!(traffic.connections(), 0);
    }

    #[tokio::test]
    async fn what_was_read_of_a_connection_is_read_again_first() {
        let (mut other, ours) = tokio::io::duplex(64);
        other.write_all(b" and on").await.expect("room");
        let mut accepted = Accepted::new(ours).after(Bytes::from_static(b"first"));
        let mut buffer = [0; 12];
        accepted.read_exact(&mut buffer).await.expect("all of it");
        assert_eq!(&buffer, b"first and on");
    }
}
