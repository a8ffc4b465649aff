//! Connections below the client: to the peer port and to the admin port.

use std::sync::Arc;

use quorate::env::SystemClock;
use quorate::tls::{Identity, Roots, Starts, TcpDial, TlsConnector, host_of};
use quorate::wire::peer::v1::{HelloRequest, HelloResponse, peer_client::PeerClient};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::security::pki::{Ca, Pair};

/// Nothing here may take longer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// The peer port, believing `ca` and showing what is given.
pub async fn peer(address: &str, ca: &Ca, shown: Option<&Pair>) -> Result<PeerClient<Channel>, String> {
    channel(address, ca, shown).await.map(PeerClient::new)
}

/// A port, believing `ca` and showing what is given.
pub async fn channel(address: &str, ca: &Ca, shown: Option<&Pair>) -> Result<Channel, String> {
    let roots = Roots::from_pem(ca.pem().as_bytes()).expect("a CA");
    let identity = shown.map(|pair| Identity::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes()).expect("both fit"));
    let connecting = TlsConnector::new(&roots, identity.as_ref(), Arc::new(SystemClock::new())).expect("usable");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address").timeout(PATIENCE);
    let dial = TcpDial::new(Some(connecting), PATIENCE, Starts::default());
    endpoint.connect_with_connector(dial).await.map_err(|error| format!("{error:?}"))
}

/// Asks a peer port who it is.
pub async fn hello(address: &str, ca: &Ca, shown: Option<&Pair>) -> Result<HelloResponse, String> {
    let mut client = peer(address, ca, shown).await?;
    let request = HelloRequest { name: "security-test".to_owned(), configuration_hash: 0, from: 2 };
    client.hello(request).await.map(|response| response.into_inner()).map_err(|status: Status| format!("{status:?}"))
}

/// `GET path` from an admin port by TLS: the status code and the body.
pub async fn get(address: &str, ca: &Ca, path: &str, token: Option<&str>) -> (u16, String) {
    ask(address, &ca.pem(), &format!("GET {path}"), token, "").await
}

/// A method and a path of an admin port by TLS, with a body of JSON: the status code and the answer.
pub async fn ask(address: &str, ca: &str, what: &str, token: Option<&str>, body: &str) -> (u16, String) {
    let shown = token.map(|token| format!("Bearer {token}"));
    ask_with(address, ca, what, &shown.as_deref().into_iter().collect::<Vec<_>>(), body).await
}

/// The same with a body that says to have so many bytes, and may have fewer.
pub async fn ask_saying(address: &str, ca: &str, what: &str, token: Option<&str>, (says, body): (usize, &str)) -> (u16, String) {
    let shown = token.map(|token| format!("Bearer {token}"));
    send(address, ca, what, &shown.as_deref().into_iter().collect::<Vec<_>>(), (says, body)).await
}

/// The same, with these headers `authorization`.
pub async fn ask_with(address: &str, ca: &str, what: &str, shown: &[&str], body: &str) -> (u16, String) {
    send(address, ca, what, shown, (body.len(), body)).await
}

async fn send(address: &str, ca: &str, what: &str, shown: &[&str], (says, body): (usize, &str)) -> (u16, String) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("a CA");
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS 1.3");
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(address).await.expect("the port listens");
    let name = ServerName::try_from(host_of(address).to_owned()).expect("a name");
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
    let token: String = shown.iter().map(|shown| format!("authorization: {shown}\r\n")).collect();
    let head = format!("{what} HTTP/1.1\r\nhost: {address}\r\n{token}connection: close\r\ncontent-type: application/json\r\n");
    let request = format!("{head}content-length: {says}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // An end without a farewell is an end too.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (code, answer)
}
