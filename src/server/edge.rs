//! The transport's part of a call: the caller's deadline in its header, and refusals that the transport makes itself.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::TryFutureExt as _;
use futures_util::future::MapOk;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Code, Status};

use crate::wire;

/// The header with what is left until the caller's deadline when it sent the call (gRPC over HTTP/2, "Requests").
const TIMEOUT: &str = "grpc-timeout";
/// The time a refusal needs to reach the caller before the caller gives up.
const MARGIN: Duration = Duration::from_millis(500);
/// Digits of a timeout.
const DIGITS_MAX: usize = 8;

/// The time for an operation, so that its answer arrives before the caller gives up; `None`: the caller names no deadline.
pub fn given(metadata: &MetadataMap) -> Option<Duration> {
    let timeout = parse(metadata.get(TIMEOUT)?.to_str().ok()?)?;
    Some(timeout - (timeout / 3).min(MARGIN))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The timeout of an operation, as its message has it: what the message says, and not more than is given.
pub fn timeout_ms(said: u32, given: Option<Duration>) -> u32 {
    let Some(given) = given else { return said };
    let given = u32::try_from(given.as_millis()).unwrap_or(u32::MAX).max(1);
    if said == 0 { given } else { said.min(given) }
}

/// A service whose every refusal is named, also those that the transport makes before a call reaches it: a message that is too large or
/// none, a method that is not there.
#[derive(Clone)]
pub struct Named<S>(pub S);

impl<S: NamedService> NamedService for Named<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Named<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = MapOk<S::Future, fn(Response<Body>) -> Response<Body>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request).map_ok(name)
    }
}

/// A status in the headers of a response, without a body, is a refusal before anything else was said. Ours have details; one without was
/// made before the service was called, if its code is one of those that a message or a method which can't be read gets.
fn name(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if is_unread(status.code()) && status.details().is_empty() => wire::unread(&status).into_http(),
        _ => response,
    }
}

/// Whether the transport ends a call so when it can't read it.
pub fn is_unread(code: Code) -> bool {
    matches!(code, Code::OutOfRange | Code::Internal | Code::InvalidArgument | Code::ResourceExhausted | Code::Unimplemented)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_deadline_is_kept_with_a_margin_and_nothing_else_is_taken_for_one() {
        let given = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(TIMEOUT, text.parse().expect("ASCII"));
            super::given(&metadata)
        };
        for (text, expected_ms) in
            [("10S", 9_500), ("600m", 400), ("90m", 60), ("1H", 3_599_500), ("3000000u", 2_500), ("1M", 59_500)]
        {
            assert_eq!(given(text), Some(Duration::from_millis(expected_ms)), "{text}");
        }
        assert_eq!(given("99999999n").map(|given| given.as_millis()), Some(66));
        for bad in ["", "S", "5", "5s", "-5S", "5 S", "123456789S", "9é"] {
            let mut metadata = MetadataMap::new();
            if let Ok(value) = bad.parse() {
                metadata.insert(TIMEOUT, value);
            }
            assert_eq!(super::given(&metadata), None, "{bad}");
        }
        assert_eq!(super::given(&MetadataMap::new()), None);
    }

    #[test]
    fn the_shorter_of_both_timeouts_counts() {
        let given = Some(Duration::from_millis(300));
        assert_eq!([timeout_ms(0, given), timeout_ms(5_000, given), timeout_ms(100, given)], [300, 300, 100]);
        assert_eq!([timeout_ms(0, None), timeout_ms(7, None), timeout_ms(0, Some(Duration::ZERO))], [0, 7, 1]);
    }
}
