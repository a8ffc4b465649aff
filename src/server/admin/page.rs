//! A read-only page for people on the admin port: the cluster at a glance, sessions, one session's transcript.
//!
//! The page itself, a few files compiled in, holds no data and is open to everyone who can connect; it loads nothing from elsewhere, and
//! the headers forbid it to. Its data comes from `/api/…`, behind the admin token, which it sends as a header and keeps for no
//! longer than its tab. Ids are credentials: they travel in bodies of requests, and in the page's own address only behind the `#`, which
//! a browser sends to nobody, so that no log has them. Everything the answers hold is data to the page, never markup.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::unpacking::Unpacking;
use super::view;
use crate::client::Session;
use crate::server::auth::Caller;
use crate::server::call::IncomingRequest;
use crate::server::context::ServerContext;
use crate::server::dispatch::Dispatcher;
use crate::server::frames::Frames;
use crate::server::status::Reporter;
use crate::types::{Consistency, List, ListPage, Load, Loaded, Refusal, RefusalKind, SessionId};
use crate::wire::{self, v1};

const HTML: &str = include_str!("page.html");
const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");
const CONVERSATION: &str = include_str!("conversation.js");
const ICON: &str = include_str!("icon.svg");

/// Sessions on one page of the list, at most.
const SESSIONS_MAX: u64 = 200;
/// How long the cluster may take to answer.
const TIMEOUT_MS: u32 = 5000;

/// The rights of a page of this origin: use its own files and ask this node, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

#[derive(Clone)]
struct Context {
    server: ServerContext,
    dispatcher: Dispatcher,
    reporter: Reporter,
    unpacking: Unpacking,
}

impl Context {
    /// The caller, if it may operate the cluster; its rights to read and list are checked again for each question.
    ///
    /// Errors: `Unauthenticated` or `Denied`.
    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let guard = self.server.guard();
        guard.authorize_admin(headers)?;
        guard.caller_of(headers)
    }
}

/// The routes of the page.
pub fn router(server: ServerContext, dispatcher: Dispatcher, reporter: Reporter) -> Router {
    Router::new()
        .route("/", get(|| async { file("text/html; charset=utf-8", HTML) }))
        .route("/page.css", get(|| async { file("text/css; charset=utf-8", CSS) }))
        .route("/page.js", get(|| async { file("text/javascript; charset=utf-8", JS) }))
        .route("/conversation.js", get(|| async { file("text/javascript; charset=utf-8", CONVERSATION) }))
        .route("/icon.svg", get(|| async { file("image/svg+xml", ICON) }))
        .route("/api/status", get(status))
        .route("/api/sessions", post(sessions))
        .route("/api/session", post(session))
        .with_state(Context { server, dispatcher, reporter, unpacking: Unpacking::new() })
}

fn file(kind: &'static str, content: &'static str) -> Response {
    (guarded(kind), content).into_response()
}

/// Headers of every answer of the page.
fn guarded(kind: &'static str) -> [(HeaderName, &'static str); 6] {
    [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ]
}

fn data(value: &Value) -> Response {
    (guarded("application/json"), value.to_string()).into_response()
}

/// A refusal, with a code a browser understands.
pub struct Refused(Refusal);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let code = match self.0.kind {
            RefusalKind::Invalid => StatusCode::BAD_REQUEST,
            RefusalKind::Unauthenticated => StatusCode::UNAUTHORIZED,
            RefusalKind::Denied => StatusCode::FORBIDDEN,
            RefusalKind::Corrupt => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        (code, guarded("application/json"), json!({ "error": self.0.to_string() }).to_string()).into_response()
    }
}

/// The cluster; with `samples=N` the newest samples of each node, for the charts.
async fn status(State(context): State<Context>, RawQuery(query): RawQuery, headers: HeaderMap) -> Result<Response, Refused> {
    context.caller(&headers)?;
    let samples = query.as_deref().unwrap_or_default().split('&').find_map(|part| part.strip_prefix("samples=")?.parse().ok());
    let request = v1::StatusRequest { digest_at: 0, timeout_ms: 1000, local: false };
    let cluster = context.reporter.cluster_with_samples(&request, samples.unwrap_or(0)).await;
    Ok(data(&view::cluster(&cluster, context.server.node().id(), context.server.wall_ms())))
}

async fn sessions(State(context): State<Context>, headers: HeaderMap, body: Bytes) -> Result<Response, Refused> {
    let caller = context.caller(&headers)?;
    let question = question(&body)?;
    let text = |name: &str| question.get(name).and_then(Value::as_str);
    let list = List {
        prefix: text("prefix").unwrap_or_default().to_owned(),
        after: text("after").map(SessionId::new).transpose().map_err(|error| Refusal::invalid(error.to_string()))?,
        limit: question.get("limit").and_then(Value::as_u64).unwrap_or(SESSIONS_MAX).clamp(1, SESSIONS_MAX) as u32,
        consistency: consistency(&question),
        ..List::default()
    };
    let operation = v1::submit_request::Operation::List(wire::list_to(&list));
    match ask(&context, caller, operation).await?.only() {
        Some(v1::submit_response::Answer::List(page)) => {
            let page: ListPage = wire::list_page_from(page)?;
            Ok(data(&view::page(&page, context.server.wall_ms())))
        }
        other => Err(unexpected(other).into()),
    }
}

async fn session(State(context): State<Context>, headers: HeaderMap, body: Bytes) -> Result<Response, Refused> {
    let caller = context.caller(&headers)?;
    let question = question(&body)?;
    let id = question.get("id").and_then(Value::as_str).ok_or_else(|| Refusal::invalid("the question names no id"))?;
    let id = SessionId::new(id).map_err(|error| Refusal::invalid(error.to_string()))?;
    let from = question.get("from").and_then(Value::as_u64);
    let load = Load { consistency: consistency(&question), ..Load::whole(id.clone()) };
    let frames = ask(&context, caller, v1::submit_request::Operation::Load(wire::load_to(&load))).await?;
    let mut assembler = wire::LoadAssembler::default();
    for answer in frames {
        let v1::submit_response::Answer::Load(frame) = answer else { return Err(unexpected(Some(answer)).into()) };
        let Some(whole) = assembler.push(frame)? else { continue };
        let Loaded::Full(content) = whole.loaded else {
            return Ok(data(&json!({ "id": id.as_str(), "found": false, "age_ms": whole.age_ms })));
        };
        let (revision, age_ms) = (whole.revision, whole.age_ms);
        let unpack = move || {
            let session = Session::from_stored(content, revision)?;
            let mut shown = view::session(&id, &session, from);
            shown["age_ms"] = json!(age_ms);
            Ok(data(&shown))
        };
        let shown: Result<_, crate::client::Error> = context.unpacking.run(unpack).await?;
        return Ok(shown.map_err(|error| Refusal::not_applied(RefusalKind::Corrupt, error.to_string()))?);
    }
    Err(unexpected(None).into())
}

fn question(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::invalid(format!("the question is no JSON: {error}")))
}

fn consistency(question: &Value) -> Consistency {
    match question.get("stale").and_then(Value::as_bool) {
        Some(true) => Consistency::Stale,
        _ => Consistency::Linearizable,
    }
}

async fn ask(context: &Context, caller: Caller, operation: v1::submit_request::Operation) -> Result<Frames, Refusal> {
    let request = v1::SubmitRequest { timeout_ms: TIMEOUT_MS, operation: Some(operation), ..Default::default() };
    context.dispatcher.ask(IncomingRequest { request, caller, connection: None }).await.result.map(|done| Frames::new(Ok(done)))
}

fn unexpected(answer: Option<v1::submit_response::Answer>) -> Refusal {
    match answer {
        Some(v1::submit_response::Answer::Refusal(refusal)) => wire::refusal_from(refusal),
        _ => Refusal::not_applied(RefusalKind::Unavailable, "no answer came"),
    }
}
