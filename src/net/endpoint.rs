//! HTTP/2 between peers, the same at both ends.

use std::time::Duration;

use tonic::transport::{Endpoint, Error, Server};

/// How long connecting may take: less than half the shortest election timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);
/// HTTP/2 keep-alive: an idle connection that died without a reset is found out after both.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Flow-control windows that let one append of the largest entry pass without waiting for the other side.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// The way to the peer port at `route`, `host:port`. Errors: it is no address.
pub fn to_peer(route: &str) -> Result<Endpoint, Error> {
    Ok(Endpoint::from_shared(format!("http://{route}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// A server for a peer port.
pub fn peer_server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}
