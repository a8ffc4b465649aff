//! The client's end of a connection: it trusts its own CAs and no other, and the name it dials must be in the certificate.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, Error as RustlsError};

use super::material::{Error, Identity, Roots, Time, VERSIONS, provider};
use super::validity::{self, Validity};
use crate::env::Clock;

/// Opens TLS connections that trust these CAs and present this certificate. Cheap to clone; all clones change together.
#[derive(Clone)]
pub struct TlsConnector(Arc<RwLock<Current>>);

struct Current {
    config: Arc<ClientConfig>,
    /// Of the certificate that is presented.
    validity: Option<Validity>,
    clock: Arc<dyn Clock>,
}

impl Current {
    fn new(roots: &Roots, identity: Option<&Identity>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let config = config(roots, identity, clock.clone())?;
        Ok(Self { config, validity: identity.and_then(Validity::of), clock })
    }
}

impl TlsConnector {
    /// Trusts these CAs and presents a certificate, if one is given. Errors: the certificate can't be used.
    pub fn new(roots: &Roots, identity: Option<&Identity>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Ok(Self(Arc::new(RwLock::new(Current::new(roots, identity, clock)?))))
    }

    /// As [`TlsConnector::new`], for a port that speaks HTTP/1.
    pub fn for_http1(roots: &Roots, identity: Option<&Identity>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let mut current = Current::new(roots, identity, clock)?;
        // Nobody else has it yet.
        if let Some(config) = Arc::get_mut(&mut current.config) {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Ok(Self(Arc::new(RwLock::new(current))))
    }

    /// Trusts and presents these from now on. Errors: as [`TlsConnector::new`]; then nothing changed.
    pub fn replace(&self, roots: &Roots, identity: Option<&Identity>, clock: Arc<dyn Clock>) -> Result<(), Error> {
        let current = Current::new(roots, identity, clock)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }

    /// Since when the presented certificate has expired, in words; `None`: it has not.
    pub(super) fn expired(&self) -> Option<String> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (not_after, now) = (current.validity?.not_after, current.clock.wall_ms() / 1000);
        (now > not_after).then(|| validity::expired(not_after, now))
    }

    /// TLS on a byte stream to `host`, a name or an address that must be in the other end's certificate. Dropping the future ends it.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = host.trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::other(format!("no name for a certificate host={host}")))?;
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner).config.clone();
        tokio_rustls::TlsConnector::from(config).connect(name, stream).await
    }
}

impl std::fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConnector")
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
