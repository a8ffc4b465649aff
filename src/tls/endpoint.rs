//! How callers speak HTTP/2, clients as well as peers.

use std::time::Duration;

use tonic::transport::{Endpoint, Error};

/// Interval of keep-alives: an idle connection that died without a reset is found out after it and the timeout together.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long an idle connection's answer to a keep-alive is waited for.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that one stream may have on the way: one append of the largest entry passes without waiting for the other side.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes that one connection may have on the way.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// The way to `host:port`. Errors: it is no address.
pub fn endpoint(address: &str) -> Result<Endpoint, Error> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}
