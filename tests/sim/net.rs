//! turmoil's network behind the two seams through which production reaches its own, with links that can be made slow.
//!
//! What is written goes into a buffer of the connection, as a kernel's, and from there over the link to the other host, chunk by chunk.
//! The connections of a slow link take turns; who writes more than the buffer holds waits.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use quorate::client::{Connecting, Connector, DialError};
use quorate::net::{Accepted, Incoming, Net};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, Join};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use turmoil::net::{TcpListener, TcpStream};

/// One direction between two hosts.
pub type Link = (IpAddr, IpAddr);
/// What an application reads and writes.
type Stream = Join<OwnedReadHalf, DuplexStream>;

/// Bytes a connection sends over a slow link before another one's turn comes.
const CHUNK_BYTES: usize = 4096;
/// The same where the link is no bound.
const FAST_CHUNK_BYTES: usize = 64 << 10;
/// Bytes that a connection holds back from a link, as the kernel of a sender does.
pub static BUFFER_BYTES: AtomicUsize = AtomicUsize::new(FAST_CHUNK_BYTES);

/// One process runs one seed, so the links are the process's.
static LINKS: Mutex<Links> = Mutex::new(Links { slow: BTreeMap::new(), slowed_bytes: 0 });

struct Links {
    slow: BTreeMap<Link, Slow>,
    /// Bytes that went over slow links.
    slowed_bytes: u64,
}

struct Slow {
    bytes_per_second: u64,
    /// Until then it carries what was given to it.
    busy_until: Duration,
}

fn links() -> MutexGuard<'static, Links> {
    LINKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on these links carry so many bytes a second.
pub fn slow(these: &[Link], bytes_per_second: u64) {
    for link in these {
        links().slow.insert(*link, Slow { bytes_per_second, busy_until: Duration::ZERO });
    }
}

/// From now on they carry everything at once.
pub fn fast(these: &[Link]) {
    links().slow.retain(|link, _| !these.contains(link));
}

/// Whether some link is slow: what goes over it may come very late.
pub fn is_any_slow() -> bool {
    !links().slow.is_empty()
}

/// Bytes that went over slow links so far.
pub fn slowed_bytes() -> u64 {
    links().slowed_bytes
}

/// How long these bytes take, with what was given to the link before them.
fn take_turn(link: Link, bytes: usize) -> Duration {
    let now = turmoil::sim_elapsed().unwrap_or_default();
    let mut links = links();
    let Some(slow) = links.slow.get_mut(&link) else { return Duration::ZERO };
    slow.busy_until = slow.busy_until.max(now) + Duration::from_secs_f64(bytes as f64 / slow.bytes_per_second as f64);
    let wait = slow.busy_until - now;
    links.slowed_bytes += bytes as u64;
    wait
}

/// Carries what is written to `from` over the link, until there is no more or the connection is gone.
async fn carry(mut from: DuplexStream, mut to: OwnedWriteHalf, link: Link) {
    let mut chunk = vec![0; FAST_CHUNK_BYTES];
    loop {
        let most = if links().slow.contains_key(&link) { CHUNK_BYTES } else { FAST_CHUNK_BYTES };
        let Ok(bytes @ 1..) = from.read(&mut chunk[..most]).await else { break };
        let wait = take_turn(link, bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if to.write_all(&chunk[..bytes]).await.is_err() {
            return;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
}

/// Puts the buffer and the link before what is written. Errors: the stream has no addresses.
fn linked(stream: TcpStream) -> io::Result<Stream> {
    let link = (stream.local_addr()?.ip(), stream.peer_addr()?.ip());
    let (read, write) = stream.into_split();
    let (application, buffered) = tokio::io::duplex(BUFFER_BYTES.load(Ordering::Relaxed));
    tokio::spawn(carry(buffered, write, link));
    Ok(tokio::io::join(read, application))
}

/// The simulated network, for nodes and clients.
#[derive(Clone, Copy)]
pub struct SimNet;

#[tonic::async_trait]
impl Net for SimNet {
    async fn listen(&self, address: &str) -> io::Result<(SocketAddr, Incoming)> {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let port = port.ok_or_else(|| io::Error::other(format!("no port address={address}")))?;
        let listener = Arc::new(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?);
        let bound = listener.local_addr()?;
        let incoming = futures_util::stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.and_then(|(stream, _)| linked(stream)).map(Accepted::new);
            Some((accepted, listener))
        });
        Ok((bound, Box::pin(incoming)))
    }

    fn channel(&self, endpoint: Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(Dial)
    }
}

impl Connector for SimNet {
    fn connect(&self, endpoint: Endpoint, _: Duration) -> Connecting {
        Box::pin(async move { endpoint.connect_with_connector(Dial).await.map_err(|error| DialError::of(&error, None)) })
    }
}

/// The same for a client that may reach one host only, if any is named.
pub struct Reach {
    pub only: Option<String>,
}

impl Connector for Reach {
    fn connect(&self, endpoint: Endpoint, within: Duration) -> Connecting {
        let is_reached = self.only.as_deref().is_none_or(|only| endpoint.uri().host() == Some(only));
        if is_reached { SimNet.connect(endpoint, within) } else { Box::pin(async { Err(DialError::silent(Duration::ZERO)) }) }
    }
}

#[derive(Clone, Copy)]
struct Dial;

impl Service<Uri> for Dial {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or_default())).await?;
            Ok(TokioIo::new(linked(stream)?))
        })
    }
}
