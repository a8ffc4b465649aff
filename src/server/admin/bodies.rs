//! Bodies of requests to the admin port: none is read of a caller that may not ask, and each arrives whole and in time.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Refused, page};
use crate::limits::GREETING_PATIENCE;
use crate::server::context::ServerContext;

/// A question is an id, a prefix and a few numbers, or a log filter.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Answers 401 or 403 before a body is read, 413 to one that is too large, 408 to one that is not whole in time.
pub async fn check(State(context): State<ServerContext>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        // Whatever it brings is not read, and its connection ends with it.
        return next.run(request).await;
    }
    if let Err(refusal) = context.guard().authorize_admin(request.headers()) {
        let of_page = request.uri().path().starts_with("/api/");
        return if of_page { page::Refused::from(refusal).into_response() } else { Refused(refusal).into_response() };
    }
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(GREETING_PATIENCE, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(whole)) => next.run(Request::from_parts(parts, Body::from(whole))).await,
        Ok(Err(_)) => {
            let text = format!("the body is too large or broke off; nothing was changed limit={BODY_BYTES_MAX}\n");
            (StatusCode::PAYLOAD_TOO_LARGE, text).into_response()
        }
        Err(_) => {
            let text = format!("the body did not arrive whole in time; nothing was changed limit={GREETING_PATIENCE:?}\n");
            (StatusCode::REQUEST_TIMEOUT, text).into_response()
        }
    }
}
