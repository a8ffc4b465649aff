//! Connecting over TCP, with TLS above where there is some, and why that failed in words for people.
//!
//! ```text
//! name ── resolve ──> addresses ── each begun when the one before has failed or had its share ──> the first that answers
//!                                                                                                     │
//!                        [`Heard`]: what the other end says first <── HTTP/2 above <── a connection <─┘
//! ```
//!
//! It promises that one address which swallows everything costs its share of the time and no more, and that a later start begins at
//! another one. It knows nothing of retries.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as RustlsError, InvalidMessage};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

use super::connect::TlsConnector;
use super::validity;
use crate::env::Locked as _;

/// The next address is begun after this at the latest (RFC 8305 §8), while the one before continues.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Hosts remembered.
const HOSTS_MAX: usize = 256;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// Bytes of the first frame's header (RFC 9113 §4.1), of which the fourth is its type.
const FRAME_HEADER_BYTES: usize = 9;
/// The first frame is of this type (RFC 9113 §3.4).
const SETTINGS: u8 = 4;
/// A connection that is about to end says so by this type, with an error code (RFC 9113 §6.8, §7).
const GOAWAY: u8 = 7;
const HTTP_1_1_REQUIRED: [u8; 4] = [0, 0, 0, 0x0d];
/// Empty settings and such a farewell.
const FAREWELL_BYTES: usize = 2 * FRAME_HEADER_BYTES + 8;

/// An obstacle between two ends that can't connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Nobody is there, nobody answers, or the connection broke: another time it may do.
    Unreachable,
    /// The other end speaks TLS and this one does not. As the rest: trying again does not help.
    SpeaksTls,
    /// This end speaks TLS and the other one does not.
    SpeaksNoTls,
    /// The other end's certificate is not signed by a CA that is believed here.
    NotSigned,
    /// The other end wants a certificate, and none was shown.
    WantsCertificate,
    /// The other end does not take the certificate that was shown.
    NotTaken,
    /// Anything else that was set up wrongly.
    Settings,
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub struct DialError {
    /// The kind of reason.
    pub obstacle: Obstacle,
    /// For people, without an address.
    pub text: String,
}

impl DialError {
    fn new(obstacle: Obstacle, text: impl Into<String>) -> Self {
        Self { obstacle, text: text.into() }
    }

    /// Another time it may do.
    pub fn unreachable(text: impl Into<String>) -> Self {
        Self::new(Obstacle::Unreachable, text)
    }

    /// Nothing came for so long.
    pub fn silent(within: Duration) -> Self {
        Self::unreachable(format!("no answer for {within:?}"))
    }

    fn settings(text: impl Into<String>) -> Self {
        Self::new(Obstacle::Settings, text)
    }

    /// Of an error that may hold one, or one of TLS, somewhere below. `own`: since when what we show has expired, in words.
    pub fn of(error: &(dyn StdError + 'static), own: Option<&str>) -> Self {
        let (mut next, mut innermost) = (Some(error), error);
        while let Some(error) = next {
            if let Some(known) = error.downcast_ref::<Self>() {
                return known.clone();
            }
            if let Some(tls) = error.downcast_ref::<RustlsError>() {
                return Self::of_tls(tls, own);
            }
            // An `io::Error` does not give what it holds as its source.
            let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if let Some(tls) = held.and_then(|held| held.downcast_ref::<RustlsError>()) {
                return Self::of_tls(tls, own);
            }
            innermost = error;
            next = error.source();
        }
        Self::unreachable(plain(innermost))
    }

    fn of_tls(error: &RustlsError, own: Option<&str>) -> Self {
        match error {
            RustlsError::InvalidMessage(InvalidMessage::InvalidContentType) => Self::new(Obstacle::SpeaksNoTls, "it speaks no TLS"),
            RustlsError::InvalidCertificate(error) => Self::of_certificate(error),
            RustlsError::NoApplicationProtocol | RustlsError::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                Self::settings("that is an admin port: use the node's client port")
            }
            RustlsError::AlertReceived(alert) => Self::of_alert(*alert, own),
            error => Self::settings(format!("TLS: {error}")),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::new(Obstacle::NotSigned, "its certificate is not signed by a CA that is believed here")
            }
            CertificateError::ExpiredContext { time, not_after } => {
                Self::settings(format!("its certificate {}", validity::expired(not_after.as_secs(), time.as_secs())))
            }
            CertificateError::NotValidYetContext { time, not_before } => Self::settings(format!(
                "its certificate is good from {} on; it is {} here",
                validity::day(not_before.as_secs()),
                validity::day(time.as_secs())
            )),
            CertificateError::NotValidForNameContext { expected, presented } => {
                Self::settings(format!("its certificate is not good for {}, only for {}", expected.to_str(), presented.join(", ")))
            }
            error => Self::settings(format!("its certificate can't be believed: {error:?}")),
        }
    }

    fn of_alert(alert: AlertDescription, own: Option<&str>) -> Self {
        let text = match alert {
            AlertDescription::CertificateRequired => {
                return Self::new(Obstacle::WantsCertificate, "it wants a client's certificate");
            }
            AlertDescription::CertificateExpired => {
                format!("the certificate shown to it {}", own.unwrap_or("has expired by its clock"))
            }
            AlertDescription::UnknownCA => "it does not know the CA that signed the certificate shown to it".to_owned(),
            AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::DecryptError => format!("it does not take the certificate shown to it: {alert:?}"),
            alert => return Self::settings(format!("it refused the TLS connection: {alert:?}")),
        };
        Self::new(Obstacle::NotTaken, text)
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for DialError {}

/// An error's text, without the number that an operating system's has.
fn plain(error: &dyn StdError) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// Which address of a host to begin with: one that answered last, else each time the next. Cheap to clone; clones share.
#[derive(Clone, Debug, Default)]
pub struct Starts(Arc<Mutex<BTreeMap<String, Start>>>);

#[derive(Debug, Default)]
struct Start {
    good: Option<SocketAddr>,
    begun: usize,
}

impl Starts {
    /// Puts the addresses first that answered last; each must prove itself again.
    fn order(&self, host: &str, addresses: &mut [SocketAddr]) {
        if addresses.len() < 2 {
            return;
        }
        let mut hosts = self.0.locked();
        if hosts.len() >= HOSTS_MAX && !hosts.contains_key(host) {
            hosts.clear();
        }
        let start = hosts.entry(host.to_owned()).or_default();
        let good = start.good.take().and_then(|good| addresses.iter().position(|address| *address == good));
        addresses.rotate_left(good.unwrap_or(start.begun % addresses.len()));
        start.begun = start.begun.wrapping_add(1);
    }

    fn good(&self, host: &str, address: SocketAddr) {
        if let Some(start) = self.0.locked().get_mut(host) {
            start.good = Some(address);
        }
    }
}

/// Connects channels: to each address of a name, and by TLS where there is some.
#[derive(Clone, Debug)]
pub struct TcpDial {
    tls: Option<TlsConnector>,
    within: Duration,
    starts: Starts,
    heard: Option<Heard>,
}

impl TcpDial {
    /// Each address gets a share of `within`.
    pub fn new(tls: Option<TlsConnector>, within: Duration, starts: Starts) -> Self {
        Self { tls, within, starts, heard: None }
    }

    /// Takes note of what the other end says first.
    pub fn noting(mut self, heard: Heard) -> Self {
        self.heard = Some(heard);
        self
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Connection>, DialError> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let resolved = lookup_host((host.as_str(), port)).await;
        let resolved =
            resolved.map_err(|error| DialError::unreachable(format!("the name {host} is not known: {}", plain(&error))))?;
        let mut addresses: Vec<SocketAddr> = resolved.take(ADDRESSES_MAX).collect();
        self.starts.order(&host, &mut addresses);
        let own = self.tls.as_ref().and_then(TlsConnector::expired);
        let (tls, name) = (self.tls, host.clone());
        let connect = move |address| one(address, tls.clone(), name.clone());
        let (address, io) = first(addresses, self.within, connect).await?;
        match &self.heard {
            // Counts as good once something was heard of it.
            Some(heard) => *heard.0.source.locked() = Some((self.starts, host, address)),
            None => self.starts.good(&host, address),
        }
        Ok(TokioIo::new(Connection { io, heard: self.heard.map(|heard| Listening::new(heard, own)) }))
    }
}

impl Service<Uri> for TcpDial {
    type Response = TokioIo<Connection>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

async fn one(address: SocketAddr, tls: Option<TlsConnector>, host: String) -> Result<Box<dyn Io>, DialError> {
    let failed = |error: io::Error| DialError::of(&error, None);
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(match tls {
        None => Box::new(stream),
        Some(tls) => Box::new(tls.connect(&host, stream).await.map_err(|error| DialError::of(&error, tls.expired().as_deref()))?),
    })
}

/// The first of these that connects. Each is begun when the one before has failed, or has had its share of `within`; none is given up
/// before another one has connected. Errors: why each failed. Dropping the future ends all attempts.
async fn first<T, F>(
    addresses: Vec<SocketAddr>,
    within: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), DialError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, DialError>> + Send + 'static,
{
    let count = addresses.len();
    let share = within.checked_div(count as u32).unwrap_or(within).min(NEXT_ADDRESS_AFTER);
    let mut attempts = JoinSet::new();
    let mut failed: Vec<(SocketAddr, DialError)> = Vec::new();
    let mut addresses = addresses.into_iter();
    loop {
        if let Some(address) = addresses.next() {
            let attempt = connect(address);
            attempts.spawn(async move { (address, attempt.await) });
        }
        let ended = tokio::select! {
            ended = attempts.join_next() => ended,
            () = tokio::time::sleep(share), if addresses.len() > 0 => continue,
        };
        match ended {
            Some(Ok((address, Ok(connected)))) => return Ok((address, connected)),
            Some(Ok((address, Err(error)))) => failed.push((address, error)),
            // The runtime ends.
            Some(Err(_)) => {}
            None => return Err(all_of(count, failed)),
        }
    }
}

fn all_of(count: usize, mut failed: Vec<(SocketAddr, DialError)>) -> DialError {
    if count < 2
        && let Some((_, error)) = failed.pop()
    {
        return error;
    }
    let Some((_, last)) = failed.last() else { return DialError::unreachable("the name has no address") };
    let obstacle = last.obstacle;
    let texts: Vec<String> = failed.iter().map(|(address, error)| format!("{}: {error}", address.ip())).collect();
    DialError { obstacle, text: texts.join(", ") }
}

/// The first bytes from the other end of one connection. Cheap to clone; clones share.
#[derive(Clone, Debug)]
pub struct Heard(Arc<Note>);

#[derive(Debug)]
struct Note {
    said: watch::Sender<Option<Result<(), DialError>>>,
    /// Which address of which host it is.
    source: Mutex<Option<(Starts, String, SocketAddr)>>,
}

impl Default for Heard {
    fn default() -> Self {
        Self(Arc::new(Note { said: watch::Sender::new(None), source: Mutex::default() }))
    }
}

impl Heard {
    /// Waits until it has said what an HTTP/2 server says first. Errors: it said something else, or the connection ended. It may take as
    /// long as the other end likes: bound it.
    pub async fn first(&self) -> Result<(), DialError> {
        let mut said = self.0.said.subscribe();
        let said = said.wait_for(Option::is_some).await;
        let said = said.map_or_else(|_| Err(ended()), |said| said.clone().unwrap_or_else(|| Err(ended())));
        if let (Ok(()), Some((starts, host, address))) = (&said, self.0.source.locked().take()) {
            starts.good(&host, address);
        }
        said
    }

    fn say(&self, said: Result<(), DialError>) {
        self.0.said.send_replace(Some(said));
    }
}

fn ended() -> DialError {
    DialError::unreachable("it closed the connection at once")
}

/// Judges the first bytes of a connection.
#[derive(Debug)]
struct Listening {
    heard: Heard,
    own: Option<String>,
    first: Vec<u8>,
}

impl Listening {
    fn new(heard: Heard, own: Option<String>) -> Self {
        Self { heard, own, first: Vec::with_capacity(FAREWELL_BYTES) }
    }

    /// Whether that was enough.
    fn take(&mut self, read: &io::Result<()>, bytes: &[u8]) -> bool {
        if let Err(error) = read {
            self.heard.say(Err(DialError::of(error, self.own.as_deref())));
            return true;
        }
        let room = FAREWELL_BYTES - self.first.len();
        self.first.extend_from_slice(&bytes[..bytes.len().min(room)]);
        match judge(&self.first) {
            Some(judged) => self.heard.say(judged),
            // Nothing more comes.
            None if bytes.is_empty() => self.heard.say(Err(ended())),
            None => return false,
        }
        true
    }
}

/// The verdict on the first bytes of a connection; `None`: more are needed.
fn judge(first: &[u8]) -> Option<Result<(), DialError>> {
    match first {
        [0x15, 0x03, ..] => Some(Err(DialError::new(Obstacle::SpeaksTls, "it speaks TLS"))),
        [b'H', b'T', b'T', b'P', ..] => {
            Some(Err(DialError::settings("it answers as a web server does: use the node's client port")))
        }
        // Empty settings: a port that speaks HTTP/1.1 only says so next, and a call that comes later would learn no more than that the
        // connection is closed. Any other server acknowledges our settings.
        [0, 0, 0, SETTINGS, rest @ ..] => match rest.get(FRAME_HEADER_BYTES - 4..)? {
            [_, _, _, GOAWAY, farewell @ ..] => {
                let code = farewell.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + 4)?;
                let is_http1 = code == HTTP_1_1_REQUIRED;
                Some(if is_http1 { Err(DialError::settings("that is an admin port: use the node's client port")) } else { Ok(()) })
            }
            [_, _, _, _, ..] => Some(Ok(())),
            _ => None,
        },
        [_, _, _, SETTINGS, ..] => Some(Ok(())),
        [_, _, _, _, ..] => Some(Err(DialError::settings("the program that answers there is no node: it speaks another protocol"))),
        _ => None,
    }
}

impl Drop for Listening {
    /// The caller is not kept waiting when the connection goes without a word.
    fn drop(&mut self) {
        self.heard.0.said.send_if_modified(|said| {
            let unsaid = said.is_none();
            if unsaid {
                *said = Some(Err(ended()));
            }
            unsaid
        });
    }
}

/// TCP, or TLS above it.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// A connection as the network gave it.
pub struct Connection {
    io: Box<dyn Io>,
    /// Until the first bytes were judged.
    heard: Option<Listening>,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if let (Some(listening), Poll::Ready(read)) = (&mut self.heard, &read)
            && listening.take(read, &buf.filled()[before..])
        {
            self.heard = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// An address that swallows what wants to connect: its backlog is full, and stays so while this lives.
    struct Swallows {
        address: SocketAddr,
        _held: (TcpListener, Vec<TcpStream>),
    }

    impl Swallows {
        async fn new() -> Self {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
            let listener = socket.listen(1).expect("it listens");
            let address = listener.local_addr().expect("an address");
            let mut held = Vec::new();
            // One more than the backlog is taken; what comes then is not answered.
            while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
                held.push(stream.expect("taken into the backlog"));
            }
            Self { address, _held: (listener, held) }
        }
    }

    /// Says at once what an HTTP/2 server says first, to each connection, and keeps it open.
    async fn server(first: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(first).await.expect("written");
                held.push(stream);
            }
        });
        address
    }

    #[tokio::test]
    async fn an_address_that_swallows_everything_does_not_keep_the_next_from_being_tried() {
        let (swallows, answers) = (Swallows::new().await, server(b"").await);
        let connect = |address| one(address, None, String::new());
        let (taken, _) = first(vec![swallows.address, answers], Duration::from_secs(60), connect).await.expect("the second");
        assert_eq!(taken, answers);
        let unused = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        let error = first(vec![unused], Duration::from_secs(60), connect).await.err().expect("nobody is there");
        assert_eq!(error.text, "Connection refused");
    }

    #[tokio::test]
    async fn a_tls_handshake_that_never_ends_does_not_either() {
        let silent = server(b"").await;
        let other = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addresses = vec![silent, other.local_addr().expect("an address")];
        let ca = rcgen::CertificateParams::default().self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("signed");
        let roots = super::super::Roots::from_pem(ca.pem().as_bytes()).expect("a certificate");
        let tls = TlsConnector::new(&roots, None, Arc::new(crate::env::SystemClock::new())).expect("nothing to show");
        let connect = |address| one(address, Some(tls.clone()), "localhost".to_owned());
        tokio::select! {
            ended = first(addresses, Duration::from_secs(60), connect) => panic!("{:?}", ended.map(|(address, _)| address)),
            taken = other.accept() => drop(taken.expect("the second was tried")),
        }
    }

    #[test]
    fn a_later_start_begins_at_another_address_or_at_one_that_was_good() {
        let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 1));
        let starts = Starts::default();
        let begin = |of: &[u8]| {
            let mut addresses: Vec<SocketAddr> = of.iter().map(|last| address(*last)).collect();
            starts.order("host", &mut addresses);
            addresses[0]
        };
        assert_eq!([begin(&[1, 2, 3]), begin(&[1, 2, 3]), begin(&[1, 2, 3])], [address(1), address(2), address(3)]);
        starts.good("host", address(2));
        assert_eq!(begin(&[1, 2, 3]), address(2));
        assert_eq!(begin(&[1, 2, 3]), address(2), "the next in turn: what was good has not proved so again");
        starts.good("host", address(9));
        assert_eq!(begin(&[1, 2, 3]), address(3), "one that is gone is not begun with");
    }

    #[tokio::test]
    async fn what_answers_there_is_recognised_by_its_first_bytes() {
        let settings: &[u8] = &[0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];
        let no_settings: &[u8] = &[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
        let acknowledged: &[u8] = &[0, 0, 0, SETTINGS, 1, 0, 0, 0, 0];
        let farewell: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d";
        for (said, expected) in [
            (settings.to_vec(), None),
            ([no_settings, acknowledged].concat(), None),
            ([no_settings, farewell].concat(), Some("an admin port")),
            ([no_settings, &farewell[..FRAME_HEADER_BYTES + 4], &[0; 4]].concat(), None),
            (no_settings.to_vec(), Some("closed the connection")),
            (b"\x15\x03\x03\x00\x02".to_vec(), Some("it speaks TLS")),
            (b"HTTP/1.1 400".to_vec(), Some("a web server")),
            (b"+OK redis here".to_vec(), Some("another protocol")),
            (Vec::new(), Some("closed the connection")),
        ] {
            // In two parts, wherever they are cut.
            for cut in 0..=said.len() {
                let heard = Heard::default();
                let mut listening = Listening::new(heard.clone(), None);
                let parts = [&said[..cut], &said[cut..]];
                let enough = parts.iter().filter(|part| !part.is_empty()).any(|part| listening.take(&Ok(()), part));
                assert!(enough || listening.take(&Ok(()), &[]), "an end is always enough");
                let text = heard.first().await.err().map(|error| error.text);
                assert!(expected.map_or(text.is_none(), |part| text.as_ref().is_some_and(|text| text.contains(part))), "{text:?}");
            }
        }
        let heard = Heard::default();
        drop(Listening::new(heard.clone(), None));
        assert!(heard.first().await.is_err(), "a connection that goes without a word keeps nobody waiting");
    }
}
