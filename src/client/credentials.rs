//! A client's credentials: the CAs it trusts, the certificate and the token it presents, from bytes or from files that may change.
//!
//! Files are read when the client is built, so that a mistake shows there, and again with each new connection, so that a certificate or
//! token that is renewed in time needs no restart. A file that can't be used then leaves the last good one in force.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::codegen::InterceptedService;
use tonic::codegen::http::Uri;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::Error;
use super::driver::connection::{self, Connector};
use crate::env::{Clock, read_file};
use crate::tls::{Identity, Obstacle, Roots, Starts, TcpDial, TlsConnector};

/// Largest file of certificates, of a key or of a token.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest token.
const TOKEN_BYTES_MAX: usize = 512;

/// A channel that presents the caller's token.
pub(super) type Link = InterceptedService<Channel, Bearer>;

/// Which nodes a client believes, and what it shows to them: TLS 1.3, always with a check of the node's certificate and name.
#[derive(Clone)]
pub struct Tls {
    cas: Pem,
    identity: Option<[Pem; 2]>,
}

impl Tls {
    /// Believes nodes whose certificate is signed by a CA in this PEM file.
    pub fn ca_file(path: impl Into<PathBuf>) -> Self {
        Self { cas: Pem::File(path.into()), identity: None }
    }

    /// Trusts the CAs of this PEM text.
    pub fn ca_pem(pem: impl Into<Vec<u8>>) -> Self {
        Self { cas: Pem::Bytes(pem.into().into()), identity: None }
    }

    /// Shows the certificate in a PEM file, with its key in another: for nodes that ask for one.
    pub fn identity_files(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some([Pem::File(certificate.into()), Pem::File(key.into())]);
        self
    }

    /// Presents the certificate of this PEM text, with its key.
    pub fn identity_pem(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some([Pem::Bytes(certificate.into().into()), Pem::Bytes(key.into().into())]);
        self
    }

    /// For a port that speaks HTTP/1. Errors: what can't be read or used.
    pub(super) fn for_http1(&self, clock: Arc<dyn Clock>) -> Result<TlsConnector, Error> {
        let (roots, identity) = self.load().map_err(|why| Error::invalid(format!("tls: {why}")))?;
        TlsConnector::for_http1(&roots, identity.as_ref(), clock).map_err(|error| Error::invalid(format!("tls: {error}")))
    }

    fn load(&self) -> Result<(Roots, Option<Identity>), String> {
        let (cas, place) = self.cas.read()?;
        let roots = Roots::from_pem(&cas).map_err(|error| format!("{error}{place}"))?;
        let Some([certificate, key]) = &self.identity else { return Ok((roots, None)) };
        let ((certificate, place), (key, _)) = (certificate.read()?, key.read()?);
        let identity = Identity::from_pem(&certificate, &key).map_err(|error| format!("{error}{place}"))?;
        Ok((roots, Some(identity)))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("shows_a_certificate", &self.identity.is_some()).finish_non_exhaustive()
    }
}

#[derive(Clone)]
enum Pem {
    Bytes(Arc<[u8]>),
    File(PathBuf),
}

impl Pem {
    /// The bytes, and where they are from, for an error.
    fn read(&self) -> Result<(Vec<u8>, String), String> {
        match self {
            Pem::Bytes(bytes) => Ok((bytes.to_vec(), String::new())),
            Pem::File(path) => {
                let place = format!(" path={}", path.display());
                let bytes = read_file(path, FILE_BYTES_MAX).map_err(|error| format!("can't read the file: {error}{place}"))?;
                Ok((bytes, place))
            }
        }
    }
}

/// Connects by TLS.
pub(super) struct Secured {
    tls: Tls,
    clock: Arc<dyn Clock>,
    connector: TlsConnector,
    starts: Starts,
}

impl Secured {
    /// Errors: what can't be read or used.
    pub fn new(tls: Tls, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let (roots, identity) = tls.load().map_err(|why| Error::invalid(format!("tls: {why}")))?;
        let connector = TlsConnector::new(&roots, identity.as_ref(), clock.clone());
        let connector = connector.map_err(|error| Error::invalid(format!("tls: {error}")))?;
        Ok(Self { tls, clock, connector, starts: Starts::default() })
    }

    /// Puts in force what the files hold now.
    async fn refresh(connector: &TlsConnector, tls: Tls, clock: Arc<dyn Clock>) {
        let loaded = tokio::task::spawn_blocking(move || tls.load()).await;
        let replaced = match loaded {
            Ok(Ok((roots, identity))) => connector.replace(&roots, identity.as_ref(), clock).map_err(|error| error.to_string()),
            Ok(Err(why)) => Err(why),
            Err(_) => Err("reading was cancelled".to_owned()),
        };
        if let Err(reason) = replaced {
            tracing::warn!(reason, "the certificates can't be read again, the last good ones stay");
        }
    }
}

impl Connector for Secured {
    fn connect(&self, endpoint: Endpoint, within: Duration) -> connection::Connecting {
        let (connector, tls, clock) = (self.connector.clone(), self.tls.clone(), self.clock.clone());
        let starts = self.starts.clone();
        Box::pin(async move {
            Self::refresh(&connector, tls.clone(), clock).await;
            let place = endpoint.uri().authority().map_or("", |place| place.as_str());
            let endpoint = match format!("https://{place}").parse::<Uri>() {
                Ok(origin) => endpoint.origin(origin),
                Err(_) => endpoint,
            };
            let mut connected = connection::connect(endpoint, TcpDial::new(Some(connector), within, starts)).await;
            if let (Err(error), Pem::File(path)) = (&mut connected, &tls.cas)
                && error.obstacle == Obstacle::NotSigned
            {
                error.text = format!("its certificate is not signed by the CA in {} (--ca, QUORATE_CA)", path.display());
            }
            connected
        })
    }
}

/// Where the token comes from. The last good one is shared by all connections.
#[derive(Clone, Default)]
pub(super) struct Credentials(Option<Arc<TokenSource>>);

struct TokenSource {
    file: Option<PathBuf>,
    last: Mutex<Bearer>,
}

impl Credentials {
    /// Errors: it is none.
    pub fn token(token: &str) -> Result<Self, Error> {
        let last = Mutex::new(Bearer::of(token).map_err(Error::invalid)?);
        Ok(Self(Some(Arc::new(TokenSource { file: None, last }))))
    }

    /// Errors: the file can't be read or holds none.
    pub fn token_file(path: PathBuf) -> Result<Self, Error> {
        let last = Mutex::new(Bearer::read(&path).map_err(Error::invalid)?);
        Ok(Self(Some(Arc::new(TokenSource { file: Some(path), last }))))
    }

    /// The credentials that a new connection presents.
    pub async fn bearer(&self) -> Bearer {
        let Some(held) = self.0.clone() else { return Bearer::default() };
        if let Some(path) = held.file.clone() {
            match tokio::task::spawn_blocking(move || Bearer::read(&path)).await {
                Ok(Ok(bearer)) => *held.last.lock().unwrap_or_else(PoisonError::into_inner) = bearer,
                Ok(Err(reason)) => tracing::warn!(reason, "the token can't be read again, the last good one stays"),
                Err(_) => {}
            }
        }
        let last = held.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }
}

impl Bearer {
    /// The value of the HTTP header; `None`: there is no token.
    pub fn header(&self) -> Option<&str> {
        self.0.as_ref()?.to_str().ok()
    }
}

/// Shows a token with every call, if there is one.
#[derive(Clone, Default)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn of(token: &str) -> Result<Self, String> {
        let wrong = || format!("a token is 1 to {TOKEN_BYTES_MAX} visible ASCII characters");
        let token = token.trim();
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong());
        }
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| wrong())?;
        // Not to be indexed by HPACK, and not shown by `Debug`.
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }

    fn read(path: &std::path::Path) -> Result<Self, String> {
        let place = path.display();
        let bytes = read_file(path, FILE_BYTES_MAX).map_err(|error| format!("can't read the token: {error} path={place}"))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("the token is no text path={place}"))?;
        Self::of(&text).map_err(|why| format!("{why} path={place}"))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_a_token_or_a_key() {
        let bearer = Bearer::of(" secret-token\n").expect("a token");
        let request = bearer.clone().call(Request::new(())).expect("shown");
        let shown = format!("{request:?} {:?} {:?}", request.metadata(), bearer.0);
        assert!(!shown.contains("secret"), "{shown}");
        assert_eq!(
            request.metadata().get("authorization").map(|value| value.as_encoded_bytes()),
            Some(&b"Bearer secret-token"[..])
        );
        let tls = Tls::ca_pem("secret").identity_pem("secret", "secret");
        assert!(!format!("{tls:?}").contains("secret"));
    }

    #[test]
    fn what_can_be_no_token_is_refused() {
        for bad in ["", " ", "two words", "größe", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            let Err(why) = Bearer::of(bad) else { panic!("must be refused") };
            assert!(bad.trim().is_empty() || !why.contains(bad), "{why}");
        }
    }
}
