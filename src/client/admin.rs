//! Requests to a node's admin port, which speaks HTTP/1. For operators' tools: no part of the interface.
//!
//! One connection for each request. Nothing is sent again, and an answer is bounded.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Error;
use super::credentials::Credentials;
use crate::tls::TlsConnector;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The admin port of one node.
pub struct AdminPort {
    address: String,
    tls: Option<TlsConnector>,
    credentials: Credentials,
    timeout: Duration,
}

/// An admin port's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The text.
    pub body: String,
}

impl AdminPort {
    pub(super) fn new(address: String, tls: Option<TlsConnector>, credentials: Credentials, timeout: Duration) -> Self {
        Self { address, tls, credentials, timeout }
    }

    /// Where it is, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks for `path`. Errors: no answer in time, or none of HTTP. Dropping the future ends the connection.
    pub async fn get(&self, path: &str) -> Result<AdminAnswer, Error> {
        self.ask("GET", path, "").await
    }

    /// Sends `body` to `path`. Errors: as [`AdminPort::get`]; whether it was taken is not known then.
    pub async fn put(&self, path: &str, body: &str) -> Result<AdminAnswer, Error> {
        self.ask("PUT", path, body).await
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Result<AdminAnswer, Error> {
        let bearer = self.credentials.bearer().await;
        let credentials = bearer.header().map_or_else(String::new, |bearer| format!("Authorization: {bearer}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\n{credentials}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let place = &self.address;
        match tokio::time::timeout(self.timeout, self.exchange(&request)).await {
            Ok(Ok(answer)) => answer_of(&answer).ok_or_else(|| {
                let hint = if self.tls.is_none() { ": a port of TLS, or no admin port" } else { "" };
                Error::refused(format!("the program that answers speaks no HTTP{hint} address={place}"))
            }),
            Ok(Err(error)) => Err(Error::refused(format!("connection failed: {error} address={place}"))),
            Err(_) => Err(Error::refused(format!("no answer within {:?} address={place}", self.timeout))),
        }
    }

    async fn exchange(&self, request: &str) -> io::Result<Vec<u8>> {
        let stream = TcpStream::connect(&self.address).await?;
        match &self.tls {
            None => talk(stream, request).await,
            Some(tls) => {
                let host = self.address.rsplit_once(':').map_or(&self.address[..], |(host, _)| host);
                talk(tls.connect(host, stream).await?, request).await
            }
        }
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await {
        // Whether it is whole, its head says: a connection that ends without TLS' own end is no reason to drop it.
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

/// The status and the text; `None`: it is no HTTP, or not all of what was announced.
fn answer_of(bytes: &[u8]) -> Option<AdminAnswer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    if !first.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = first.next()?.parse().ok()?;
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let whole = length.is_none_or(|(_, length)| length.trim().parse() == Ok(body.len()));
    whole.then(|| AdminAnswer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_whole_or_not_at_all() {
        let whole = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nnot\n";
        assert_eq!(answer_of(whole), Some(AdminAnswer { status: 503, body: "not\n".into() }));
        assert_eq!(answer_of(b"HTTP/1.1 200 OK\r\n\r\nready"), Some(AdminAnswer { status: 200, body: "ready".into() }));
        for end in 0..whole.len() {
            assert_eq!(answer_of(&whole[..end]), None, "{end}");
        }
        for bad in [&b""[..], b"\x15\x03\x01\0\x02\x02\x16", b"HTTP/1.1 x\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"\r\n\r\n"] {
            assert_eq!(answer_of(bad), None, "{bad:?}");
        }
    }
}
