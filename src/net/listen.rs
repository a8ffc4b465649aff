//! Listening, and connections that keep coming whatever one of them does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};

use super::greet::{Greetings, Speaks, begun};
use super::ports::{Accepted, Incoming, Net, Proof, Traffic};
use crate::limits::{CONNECTION_QUIET_MAX, GREETING_PATIENCE};
use crate::tls::Acceptor;
use crate::types::NodeId;

/// After an accept that failed, e.g. for want of file descriptors: time for some to be closed.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// One of a node's ports.
pub struct Port {
    /// Its name in the configuration.
    pub key: &'static str,
    /// Its protocol, by TLS or not.
    pub speaks: Speaks,
    /// One more than so many connections is closed at once.
    pub connections_max: u64,
    /// Counts its connections and what they carry.
    pub traffic: Arc<Traffic>,
    /// Accepts its TLS connections, with a count of refused ones; `None`: the port is open.
    pub tls: Option<(Acceptor, Arc<AtomicU64>)>,
}

/// Listens at one of a node's addresses, which the configuration has under a key. Errors: one line that says how to fix it.
pub async fn listen(net: &dyn Net, node: NodeId, port: Port, (named, address): (&str, &str)) -> Result<Incoming, String> {
    let key = port.key;
    match net.listen(address).await {
        Ok((bound, incoming)) => {
            tracing::info!(%bound, key, tls = port.tls.is_some(), "listening");
            Ok(placed(greeted(patient(incoming, port.traffic.clone()), &port), port))
        }
        Err(error) => {
            let advice = match error.kind() {
                std::io::ErrorKind::AddrInUse => format!("stop what uses the port, or change `{named}`"),
                std::io::ErrorKind::PermissionDenied => format!("use a port above 1023, or change `{named}`"),
                _ => format!("change `{named}` to an address of this machine, or say by `{key}_listen` where to listen"),
            };
            Err(format!("cannot listen: {error}; {advice} of this node in cluster.toml node={node} {named}={address}"))
        }
    }
}

/// The connections without the failures between them, which are logged: a failed accept must not end the service. Silent ones are closed
/// after a while.
fn patient(incoming: Incoming, traffic: Arc<Traffic>) -> Incoming {
    let accepted = incoming.filter_map(move |connection| {
        let traffic = traffic.clone();
        async move {
            match connection {
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

/// The connections, once TLS stands on them where the port has it, and their first bytes have come.
fn greeted(incoming: Incoming, port: &Port) -> Incoming {
    let (key, speaks) = (port.key, port.speaks);
    let tls = port.tls.clone();
    let greet = move |accepted: Accepted| {
        let tls = tls.clone();
        async move {
            let accepted = match tls {
                Some((acceptor, refused)) => secured(accepted, key, &acceptor, &refused).await?,
                None => accepted,
            };
            begun(accepted, speaks).await
        }
        .boxed()
    };
    let greeted = Greetings::new(incoming, GREETING_PATIENCE, port.traffic.clone(), greet);
    let all = greeted.filter_map(move |accepted| {
        if let Err(reason) = &accepted {
            tracing::debug!(key, %reason, "a connection showed nothing that is served here");
        }
        std::future::ready(accepted.ok().map(Ok))
    });
    Box::pin(all)
}

/// TLS on a connection. Errors: it does not stand.
async fn secured(accepted: Accepted, key: &str, acceptor: &Acceptor, refused: &AtomicU64) -> std::io::Result<Accepted> {
    let source = accepted.source();
    match acceptor.accept(accepted).await {
        Ok((stream, shown)) => {
            let secured = Accepted::new(stream).proved(Proof(shown.map(Arc::new)));
            Ok(match source {
                Some(source) => secured.from(source),
                None => secured,
            })
        }
        Err(reason) => {
            let before = refused.fetch_add(1, Ordering::Relaxed);
            // One line for each power of two: a caller that can connect can fail to without end.
            if before.is_power_of_two() || before == 0 {
                tracing::warn!(key, %reason, so_far = before + 1, "a connection was refused: no TLS, or no certificate that is believed");
            } else {
                tracing::debug!(key, %reason, "a connection was refused");
            }
            Err(reason)
        }
    }
}

/// The connections, as far as there are places for them.
fn placed(incoming: Incoming, port: Port) -> Incoming {
    let Port { key, connections_max, traffic, .. } = port;
    let placed = incoming.filter_map(move |accepted| {
        let placed = accepted.map(|accepted| match traffic.place(&accepted, connections_max) {
            Some(place) => Some(accepted.placed(place)),
            None => {
                tracing::debug!(key, limit = connections_max, "a connection too many was closed");
                None
            }
        });
        std::future::ready(placed.transpose())
    });
    Box::pin(placed)
}
