//! Listening, and connections that keep coming whatever one of them does.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::StartError;
use crate::limits::CONNECTION_QUIET_MAX;
use crate::raft::net::{Accepted, Incoming, Net, Traffic};
use crate::types::NodeId;

/// After an accept that failed, e.g. for want of file descriptors: time for some to be closed.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// One of a node's ports.
pub struct Port {
    /// What the configuration calls it.
    pub key: &'static str,
    /// One more than so many connections is closed at once.
    pub connections_max: u64,
    /// Counts its connections and what they carry.
    pub traffic: Arc<Traffic>,
}

/// Listens at one of a node's addresses. Errors: one line that says how to mend it.
pub async fn listen(net: &dyn Net, node: NodeId, port: Port, address: &str) -> Result<Incoming, StartError> {
    let key = port.key;
    match net.listen(address).await {
        Ok((bound, incoming)) => {
            tracing::info!(%bound, key, "listening");
            Ok(patient(incoming, port))
        }
        Err(error) => {
            let mend = match error.kind() {
                std::io::ErrorKind::AddrInUse => format!("stop what uses the port, or change `{key}`"),
                std::io::ErrorKind::PermissionDenied => format!("use a port above 1023, or change `{key}`"),
                _ => format!("change `{key}` to an address of this machine"),
            };
            Err(StartError(format!("cannot listen: {error}; {mend} of this node in cluster.toml node={node} {key}={address}")))
        }
    }
}

/// The same connections without the failures between them, which are logged: a failed accept must not end the service. Those that are
/// too many, or bring nothing, are closed.
fn patient(incoming: Incoming, port: Port) -> Incoming {
    let Port { key, connections_max, traffic } = port;
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
