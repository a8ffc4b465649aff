//! The end that is connected to: what it shows, and whom it lets in.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerifier as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as RustlsError, ServerConfig, SignatureScheme,
};
use tokio_rustls::server::TlsStream;

use super::material::{Error, Identity, Roots, Time, VERSIONS, provider, unix_time};
use super::nodes::{PeerCertificate, nodes_of};
use crate::env::Clock;

/// Reads of what a refused connection still sends: some 64 KiB.
const LINGER_READS_MAX: usize = 16;

/// Names and addresses that members are reached at. Cheap to clone; all clones change together.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Arc<RwLock<BTreeSet<String>>>);

impl Hosts {
    /// From now on these.
    pub fn set(&self, hosts: BTreeSet<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = hosts;
    }

    fn all(&self) -> Vec<ServerName<'static>> {
        let hosts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        hosts.iter().filter_map(|host| ServerName::try_from(host.clone()).ok()).collect()
    }
}

/// The certificates that clients must present.
#[derive(Clone, Debug)]
pub enum ClientCertificates {
    /// Nothing; what they show is not looked at.
    None,
    /// Nothing; but what they show must be signed by one of these.
    Request(Roots),
    /// A certificate signed by one of these.
    Require(Roots),
}

/// The kind of port.
#[derive(Clone, Debug)]
pub enum Port {
    /// Clients'.
    Client(ClientCertificates),
    /// The members': a certificate signed by one of these, that is good for serving at a member's host. One that is only good for
    /// being a client of the same CA is refused.
    Peer(Roots, Hosts),
    /// HTTP, for operators.
    Admin,
}

/// Takes connections of one port. Cheap to clone; all clones change together.
#[derive(Clone)]
pub struct Acceptor(Arc<RwLock<Arc<ServerConfig>>>);

impl Acceptor {
    /// Errors: what can't be used.
    pub fn new(identity: &Identity, port: &Port, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Ok(Self(Arc::new(RwLock::new(config(identity, port, clock)?))))
    }

    /// From now on with these. Errors: as [`Acceptor::new`]; then nothing changed.
    pub fn replace(&self, identity: &Identity, port: &Port, clock: Arc<dyn Clock>) -> Result<(), Error> {
        let config = config(identity, port, clock)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// TLS on an accepted connection, and the certificate that the other end has shown, if any: it is believed. Errors: it spoke no TLS, or
    /// has nothing to show that is believed. It may take as long as the other end likes: bound it. Dropping the future ends the connection.
    pub async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Option<PeerCertificate>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let stream = match TlsAcceptor::from(config).accept(stream).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                linger(stream).await;
                return Err(error);
            }
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(PeerCertificate::new);
        Ok((stream, shown))
    }
}

/// Lets the other end read why: a connection closed while bytes of it are unread is reset, and a reset overtakes the alert.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    // It may have gone already.
    let _ = stream.shutdown().await;
    let mut unread = [0; 4096];
    for _ in 0..LINGER_READS_MAX {
        match stream.read(&mut unread).await {
            Ok(1..) => {}
            _ => return,
        }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

fn config(identity: &Identity, port: &Port, clock: Arc<dyn Clock>) -> Result<Arc<ServerConfig>, Error> {
    let unusable = |error: RustlsError| Error(format!("the certificate can't be used: {error}"));
    let builder = ServerConfig::builder_with_details(provider(), Arc::new(Time(clock)));
    let builder = builder.with_protocol_versions(VERSIONS).map_err(unusable)?;
    let builder = match port {
        Port::Admin | Port::Client(ClientCertificates::None) => builder.with_no_client_auth(),
        Port::Client(ClientCertificates::Request(roots)) => builder.with_client_cert_verifier(clients(roots, true)?),
        Port::Client(ClientCertificates::Require(roots)) => builder.with_client_cert_verifier(clients(roots, false)?),
        Port::Peer(roots, hosts) => builder.with_client_cert_verifier(Arc::new(Members::new(roots, hosts.clone())?)),
    };
    let mut config = builder.with_single_cert(identity.chain.clone(), identity.key.clone_key()).map_err(unusable)?;
    config.alpn_protocols = vec![if matches!(port, Port::Admin) { b"http/1.1".to_vec() } else { b"h2".to_vec() }];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn clients(roots: &Roots, optional: bool) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots.0.clone(), provider());
    let builder = if optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| Error(format!("the CAs can't be used: {error}")))
}

/// Lets members in: every caller that could serve at a member's host, by a certificate of the peers' CA.
struct Members {
    clients: Arc<dyn ClientCertVerifier>,
    serving: Arc<WebPkiServerVerifier>,
    hosts: Hosts,
}

impl Members {
    fn new(roots: &Roots, hosts: Hosts) -> Result<Self, Error> {
        let serving = WebPkiServerVerifier::builder_with_provider(roots.0.clone(), provider()).build();
        let serving = serving.map_err(|error| Error(format!("the CAs can't be used: {error}")))?;
        Ok(Self { clients: clients(roots, false)?, serving, hosts })
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Members")
    }
}

impl ClientCertVerifier for Members {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, RustlsError> {
        let verified = self.clients.verify_client_cert(end_entity, intermediates, now)?;
        let serves = |host: &ServerName<'_>| self.serving.verify_server_cert(end_entity, intermediates, host, &[], now).is_ok();
        if self.hosts.all().iter().any(serves) {
            Ok(verified)
        } else {
            Err(RustlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.clients.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.clients.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

/// Checks that a node's certificate does what its place needs: it is signed by `peers`, good now, good for serving at `host` and for
/// connecting to others, and, if it names nodes, names this one. Errors: what is wrong with it.
pub fn check_member(identity: &Identity, peers: &Roots, node: u64, host: &str, wall_ms: u64) -> Result<(), Error> {
    let hosts = Hosts::default();
    hosts.set([host.to_owned()].into());
    let members = Members::new(peers, hosts)?;
    let Some((end, rest)) = identity.chain.split_first() else { return Err(Error("there is no certificate".to_owned())) };
    let now = unix_time(wall_ms);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Error(format!("no name for a certificate host={host}")))?;
    let serving = members.serving.verify_server_cert(end, rest, &name, &[], now).map(drop);
    let connecting = members.clients.verify_client_cert(end, rest, now).map(drop);
    serving.and(connecting).map_err(|error| Error(format!("the certificate is no member's: {error} host={host}")))?;
    match nodes_of(end) {
        Some(named) if !named.contains(&node) => {
            Err(Error(format!("the certificate is another node's: named={named:?} node={node}")))
        }
        _ => Ok(()),
    }
}
