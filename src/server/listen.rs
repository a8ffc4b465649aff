//! Listening, and connections that keep coming whatever one of them does.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::StartError;
use crate::raft::net::{Accepted, Incoming, Net, Traffic};
use crate::types::NodeId;

/// After an accept that failed, e.g. for want of file descriptors: time for some to be closed.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Listens at one of a node's addresses; `key` is what the configuration calls it. What its connections carry is counted in `traffic`.
/// Errors: one line that says how to mend it.
pub async fn listen(net: &dyn Net, node: NodeId, key: &str, address: &str, traffic: Arc<Traffic>) -> Result<Incoming, StartError> {
    match net.listen(address).await {
        Ok((bound, incoming)) => {
            tracing::info!(%bound, key, "listening");
            Ok(patient(incoming, traffic))
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

/// The same connections without the failures between them, which are logged: a failed accept must not end the service.
fn patient(incoming: Incoming, traffic: Arc<Traffic>) -> Incoming {
    let accepted = incoming.filter_map(move |connection| {
        let traffic = traffic.clone();
        async move { counted_or_logged(connection, traffic).await.map(Ok) }
    });
    Box::pin(accepted)
}

async fn counted_or_logged(connection: std::io::Result<Accepted>, traffic: Arc<Traffic>) -> Option<Accepted> {
    match connection {
        Ok(connection) => Some(connection.counted(traffic)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(AFTER_FAILURE).await;
            None
        }
    }
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
