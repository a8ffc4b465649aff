//! Calls below the generated clients: any headers, any body, whole or not.

use std::convert::Infallible;
use std::future::poll_fn;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::codegen::http::{HeaderMap, Request};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A message that says to have so many bytes, with the first of them: harmless zeros.
pub fn message(says: u32, bytes: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + bytes);
    message.put_u8(0);
    message.put_u32(says);
    message.put_bytes(0, bytes);
    message.freeze()
}

/// A body with these bytes so far, and what goes on with it: it is open while that lives.
pub fn body(first: Bytes) -> (mpsc::Sender<Result<Bytes, Infallible>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(Ok(first)).expect("room for one");
    (sender, Body::new(axum::body::Body::from_stream(ReceiverStream::new(receiver))))
}

/// Makes a call: the status it is refused with by the headers of its answer; `Ok` where more follows.
pub async fn call(channel: &Channel, path: &str, token: Option<&str>, body: Body) -> Status {
    let mut request = Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut channel = channel.clone();
    poll_fn(|cx| channel.poll_ready(cx)).await.expect("connected");
    let answer = channel.call(request.body(body).expect("a request")).await.expect("an answer");
    of(answer.headers())
}

fn of(headers: &HeaderMap) -> Status {
    Status::from_header_map(headers).unwrap_or_else(|| Status::new(Code::Ok, "more follows"))
}
