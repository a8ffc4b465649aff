//! The admin port over HTTP/1: `/livez`, `/readyz`, `/version`, `/metrics`, `/log-level`, as plain text, and a page for people at `/`. The first two
//! and the page's own files are open to everyone who can connect; everything else asks for a token with the scope `admin`, `/metrics` for one with `metrics` or `admin`, where tokens
//! are in force. Where none are, all but the first two is answered only under a name that no other site has.

mod bodies;
mod hosts;
mod page;
mod unpacking;
mod view;

use std::fmt::Write as _;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::auth::Need;
use super::context::ServerContext;
use super::dispatch::Dispatcher;
use super::health::Facts;
use super::logging;
use super::metrics::{Levels, own_usage};
use super::shares;
use super::status::Reporter;
use crate::machine::newest_version;
use crate::raft::CLUSTER_VERSION_MIN;
use crate::types::{Refusal, RefusalKind};

/// The text for callers that may not see more.
const SEE_LOG: &str = "the last good ones stay in force: the node's log and `quorate doctor` say why";

const SEE_DOCTOR: &str = "nearly used up: `quorate doctor` says which and by whom";

/// The routes of one node.
pub fn router(context: ServerContext, dispatcher: Dispatcher, reporter: Reporter) -> Router {
    let page = page::router(context.clone(), dispatcher, reporter);
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .route("/log-level", get(log_level).put(change_log_level))
        .with_state(context.clone())
        .merge(page)
        .layer(middleware::from_fn_with_state(context.clone(), bodies::check))
        .layer(middleware::from_fn_with_state(context, hosts::check))
}

async fn livez(State(context): State<ServerContext>) -> (StatusCode, String) {
    match context.node().failed() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn readyz(State(context): State<ServerContext>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    let facts = Facts::of(&context);
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")));
    let code = if facts.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, readiness(&facts, verbose))
}

/// All checks where asked for, else those that fail.
fn readiness(facts: &Facts, verbose: bool) -> String {
    let mut text = String::new();
    for check in facts.checks() {
        let mark = match (check.ok, check.required) {
            (true, _) => "[+]",
            (false, true) => "[-]",
            (false, false) => "[!]",
        };
        if verbose || !check.ok {
            // Everybody may read this, and what is wrong with a file repeats what is in it.
            let detail = match &check.name[..] {
                "credentials" if facts.credentials.problem.is_some() => SEE_LOG,
                // Who holds a token is for operators to know.
                "shares" if !check.ok => SEE_DOCTOR,
                _ => &check.detail,
            };
            let line = format!("{mark} {} {detail}", check.name);
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text.push_str(if facts.is_ready() { "ready\n" } else { "not ready\n" });
    text
}

fn version_text() -> String {
    let (oldest, newest) = (CLUSTER_VERSION_MIN, newest_version());
    format!("quorate {} cluster_version_min={oldest} cluster_version_max={newest}\n", env!("QUORATE_VERSION"))
}

async fn version(State(context): State<ServerContext>, headers: HeaderMap) -> Result<String, Refused> {
    context.guard().authorize_admin(&headers)?;
    Ok(version_text())
}

/// The filter of this process's log.
async fn log_level(State(context): State<ServerContext>, headers: HeaderMap) -> Result<(StatusCode, String), Refused> {
    context.guard().authorize_admin(&headers)?;
    Ok(match logging::control() {
        Some(control) => (StatusCode::OK, format!("{}\n", control.filter())),
        None => no_log(),
    })
}

/// Another, until the process ends. By PUT: a browser lets no foreign page send one.
async fn change_log_level(
    State(context): State<ServerContext>,
    headers: HeaderMap,
    wanted: String,
) -> Result<(StatusCode, String), Refused> {
    context.guard().authorize_admin(&headers)?;
    let Some(control) = logging::control() else { return Ok(no_log()) };
    if wanted.len() > logging::FILTER_BYTES_MAX {
        return Ok((StatusCode::BAD_REQUEST, format!("the log filter is too long limit={}\n", logging::FILTER_BYTES_MAX)));
    }
    Ok(match control.set(&wanted) {
        Ok(filter) => {
            // As a warning, so that few filters hide it.
            tracing::warn!(filter, "the log filter was changed");
            context.node().events().note("log", format!("the filter is now {filter}"));
            (StatusCode::OK, format!("{filter}\n"))
        }
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")),
    })
}

fn no_log() -> (StatusCode, String) {
    (StatusCode::NOT_IMPLEMENTED, "this process does not let its log be changed\n".to_owned())
}

async fn metrics(State(context): State<ServerContext>, headers: HeaderMap) -> Result<impl IntoResponse, Refused> {
    context.guard().authorize_headers(&headers, Need::Metrics)?;
    let node = context.node();
    let levels = Levels {
        status: node.status(),
        log_written_bytes: node.log_written_bytes(),
        disk_low: node.disk_low(),
        differing: node.differing().len() as u64,
        machine_ahead_ms: node.machine_ahead_ms(),
        refused_credentials: context.guard().refused(),
        uptime: context.uptime(),
        wall_ms: context.wall_ms(),
        process: own_usage(),
        credentials: context.credentials().report(),
        leases: context.node().counts().0.leases,
        tables: context.tables(),
        tokens: shares::tokens(node, context.guard()),
        ..context.levels()
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], context.metrics().render(&levels)))
}

/// A request without the credentials it needs: 401 with what to send, or 403.
pub struct Refused(Refusal);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let text = format!("{}\n", self.0);
        match self.0.kind {
            RefusalKind::Denied => (StatusCode::FORBIDDEN, text).into_response(),
            _ => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer realm=\"quorate\"")], text).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::security::Report;

    #[test]
    fn readiness_names_what_is_missing_and_verbose_names_all() {
        let facts = Facts { bootstrapped: true, ..Facts::default() };
        assert_eq!(readiness(&facts, false), "[-] leader no quorum: no leader is known\nnot ready\n");
        let broken = Report { problem: Some("line 3: what is in the file".to_owned()), ..Report::default() };
        let text = readiness(&Facts { credentials: broken, ..facts.clone() }, false);
        assert!(text.contains("[!] credentials the last good ones stay in force") && !text.contains("line 3"), "{text}");
        let alone = Facts { lacks_quorum: true, ..facts.clone() };
        assert_eq!(
            readiness(&alone, false),
            "[-] leader no quorum: this node led, and no majority of the voters answers it\nnot ready\n"
        );
        let verbose = readiness(&Facts { leader: Some(2), ..facts }, true);
        assert!(verbose.contains("[+] leader leader=2\n") && verbose.ends_with("ready\n"), "{verbose}");
        assert_eq!(verbose.lines().count(), 12);
    }
}
