//! Certificates and keys out of PEM.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{RootCertStore, SupportedProtocolVersion, version};

use crate::env::Clock;

/// The versions that both ends speak.
pub const VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// Why certificates or keys can't be used: one line, without anything of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub(super) String);

/// The provider of this process, whatever another library may have installed as its default.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

/// A process's certificate with its intermediates, and its key.
pub struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// From PEM. Errors: one of them holds nothing of its kind, or the key is not the certificate's.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, Error> {
        let chain = certificates_of(certificates)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Error("the key file holds no private key in PEM".to_owned()))?;
        let signer = provider().key_provider.load_private_key(key.clone_key());
        let signer = signer.map_err(|_| Error("the private key is of no kind that can be used".to_owned()))?;
        let both = CertifiedKey::new(chain, signer);
        both.keys_match().map_err(|_| Error("the private key is not that of the certificate".to_owned()))?;
        Ok(Self { chain: both.cert, key })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// The CAs that a process trusts.
#[derive(Clone)]
pub struct Roots(pub(super) Arc<RootCertStore>);

impl Roots {
    /// From PEM, of one or several CAs. Errors: there is none, or one that can't be used.
    pub fn from_pem(cas: &[u8]) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates_of(cas)? {
            roots.add(certificate).map_err(|_| Error("a certificate is no CA's that can be used".to_owned()))?;
        }
        Ok(Self(Arc::new(roots)))
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}

fn certificates_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let none = || Error("the file holds no certificate in PEM".to_owned());
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| none())?;
    if certificates.is_empty() { Err(none()) } else { Ok(certificates) }
}

/// The clock that certificates are judged by.
pub struct Time(pub Arc<dyn Clock>);

pub fn unix_time(wall_ms: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(wall_ms))
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.wall_ms()))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}
