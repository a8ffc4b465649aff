//! The end that connects: it believes its authorities and no other, and the name it connects to must be in the certificate.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, Error as RustlsError};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

use super::material::{Error, Identity, Roots, Time, VERSIONS, provider};
use crate::env::Clock;

/// What every connection from here believes and shows. Cheap to clone; all clones change together.
#[derive(Clone)]
pub struct Connecting(Arc<RwLock<Arc<ClientConfig>>>);

impl Connecting {
    /// With these authorities, and a certificate to show where there is one. Errors: the certificate can't be used.
    pub fn new(roots: &Roots, identity: Option<&Identity>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Ok(Self(Arc::new(RwLock::new(config(roots, identity, clock)?))))
    }

    /// The same for a port that speaks HTTP/1.
    pub fn for_http1(roots: &Roots, identity: Option<&Identity>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let mut config = config(roots, identity, clock)?;
        // Nobody else has it yet.
        if let Some(config) = Arc::get_mut(&mut config) {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Ok(Self(Arc::new(RwLock::new(config))))
    }

    /// From now on with these. Errors: as [`Connecting::new`]; then nothing changed.
    pub fn replace(&self, roots: &Roots, identity: Option<&Identity>, clock: Arc<dyn Clock>) -> Result<(), Error> {
        let config = config(roots, identity, clock)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// TLS on a byte stream to `host`, a name or an address that must be in the other end's certificate. Dropping the future ends it.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = host.trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::other(format!("no name for a certificate host={host}")))?;
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        TlsConnector::from(config).connect(name, stream).await
    }
}

impl std::fmt::Debug for Connecting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connecting")
    }
}

fn config(roots: &Roots, identity: Option<&Identity>, clock: Arc<dyn Clock>) -> Result<Arc<ClientConfig>, Error> {
    let unusable = |error: RustlsError| Error(format!("the certificate can't be used: {error}"));
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(Time(clock)));
    let builder = builder.with_protocol_versions(VERSIONS).map_err(unusable)?.with_root_certificates(roots.0.clone());
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { chain, key }) => builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(unusable)?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Connects channels over TCP, with TLS above where there is some.
#[derive(Clone, Debug)]
pub struct TcpDial(pub Connecting);

impl Service<Uri> for TcpDial {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.0.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let stream = TcpStream::connect((host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(443))).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(tls.connect(host, stream).await?))
        })
    }
}

/// How rustls, and all that passes its errors on, words an alert.
const ALERT: &str = "received fatal alert: ";
/// Alerts that speak of what we have shown, or not shown.
const OF_OUR_CERTIFICATE: [&str; 9] = [
    "CertificateRequired",
    "BadCertificate",
    "UnsupportedCertificate",
    "CertificateRevoked",
    "CertificateExpired",
    "CertificateUnknown",
    "UnknownCA",
    "AccessDenied",
    "DecryptError",
];

/// Whether a failure says that the other end refused our certificate, or the want of one. With TLS 1.3 that shows only after the
/// connection is made, with the first answer; the other end has looked at nothing that was sent. HTTP/2 keeps the text alone.
pub fn refused_by_peer(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if let Some((_, alert)) = text.split_once(ALERT) {
            return OF_OUR_CERTIFICATE.iter().any(|name| alert.starts_with(name));
        }
        next = error.source();
    }
    false
}
