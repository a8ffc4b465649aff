//! HTTP/2 between peers, the same at both ends.

use std::time::Duration;

use tonic::transport::{Endpoint, Error, Server};

use crate::tls::{CONNECTION_WINDOW_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW_BYTES, endpoint};

/// How long connecting may take: less than half the shortest election timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);

/// The way to the peer port at `route`, `host:port`. Errors: it is no address.
pub fn to_peer(route: &str) -> Result<Endpoint, Error> {
    Ok(endpoint(route)?.connect_timeout(CONNECT_TIMEOUT))
}

/// A server for a peer port.
pub fn peer_server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}
