//! Listening, and connections that keep coming whatever one of them does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;

use super::StartError;
use crate::limits::CONNECTION_QUIET_MAX;
use crate::raft::net::{Accepted, Incoming, Net, Proof, Traffic};
use crate::tls::Acceptor;
use crate::types::NodeId;

/// After an accept that failed, e.g. for want of file descriptors: time for some to be closed.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// How long TLS may take to stand.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes under way at once; above it connections wait in the kernel.
const HANDSHAKES_MAX: usize = 1024;

/// One of a node's ports.
pub struct Port {
    /// What the configuration calls it.
    pub key: &'static str,
    /// One more than so many connections is closed at once.
    pub connections_max: u64,
    /// Counts its connections and what they carry.
    pub traffic: Arc<Traffic>,
    /// Whom it lets in, and a count of whom it did not; without, everyone who connects.
    pub tls: Option<(Acceptor, Arc<AtomicU64>)>,
}

/// Listens at one of a node's addresses, which the configuration has under a key. Errors: one line that says how to fix it.
pub async fn listen(net: &dyn Net, node: NodeId, mut port: Port, (named, address): (&str, &str)) -> Result<Incoming, StartError> {
    let key = port.key;
    match net.listen(address).await {
        Ok((bound, incoming)) => {
            let tls = port.tls.take();
            tracing::info!(%bound, key, tls = tls.is_some(), "listening");
            let incoming = patient(incoming, port);
            Ok(match tls {
                None => incoming,
                Some((acceptor, refused)) => secured(incoming, key, acceptor, refused),
            })
        }
        Err(error) => {
            let advice = match error.kind() {
                std::io::ErrorKind::AddrInUse => format!("stop what uses the port, or change `{named}`"),
                std::io::ErrorKind::PermissionDenied => format!("use a port above 1023, or change `{named}`"),
                _ => format!("change `{named}` to an address of this machine, or say by `{key}_listen` where to listen"),
            };
            Err(StartError(format!("cannot listen: {error}; {advice} of this node in cluster.toml node={node} {named}={address}")))
        }
    }
}

/// The same connections without the failures between them, which are logged: a failed accept must not end the service. Those that are
/// too many, or bring nothing, are closed.
fn patient(incoming: Incoming, port: Port) -> Incoming {
    let Port { key, connections_max, traffic, .. } = port;
    let accepted = incoming.filter_map(move |connection| {
        let traffic = traffic.clone();
        async move {
            match connection {
                Ok(_) if !traffic.admits(connections_max) => {
                    tracing::debug!(key, limit = connections_max, "a connection too many was closed");
                    None
                }
                Ok(connection) => Some(Ok(connection.counted(traffic).closed_when_quiet(CONNECTION_QUIET_MAX))),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(AFTER_FAILURE).await;
                    None
                }
            }
        }
    });
    Box::pin(accepted)
}

/// The same connections, once TLS stands on them. Handshakes run side by side, so that a slow one holds up no other.
fn secured(incoming: Incoming, key: &'static str, acceptor: Acceptor, refused: Arc<AtomicU64>) -> Incoming {
    let handshakes = incoming.map(move |connection| handshake(connection, acceptor.clone()));
    let accepted = handshakes.buffer_unordered(HANDSHAKES_MAX).filter_map(move |accepted| {
        let accepted = match accepted {
            Ok(accepted) => Some(Ok(accepted)),
            Err(reason) => {
                let before = refused.fetch_add(1, Ordering::Relaxed);
                // One line for each power of two: a caller that can connect can fail to without end.
                if before.is_power_of_two() || before == 0 {
                    tracing::warn!(key, %reason, so_far = before + 1, "a connection was refused: no TLS, or no certificate that is believed");
                } else {
                    tracing::debug!(key, %reason, "a connection was refused");
                }
                None
            }
        };
        std::future::ready(accepted)
    });
    Box::pin(accepted)
}

async fn handshake(connection: std::io::Result<Accepted>, acceptor: Acceptor) -> std::io::Result<Accepted> {
    let (stream, shown) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(connection?)).await??;
    Ok(Accepted::new(stream).proved(Proof(shown.map(Arc::new))))
}

/// Connections for the HTTP server.
pub struct HttpListener(pub Incoming);

impl axum::serve::Listener for HttpListener {
    type Io = Accepted;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.0.next().await {
            Some(Ok(connection)) => (connection, ()),
            // The listener is gone; the server ends by its own signal.
            Some(Err(_)) | None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(())
    }
}
