//! Commands to one node's admin port: `quorate health`, `quorate admin`.

mod clients;

use quorate::client::{AdminAnswer, AdminPort, Client, Error};
use serde_json::{Value, json};

use crate::args::{self, Output};
use crate::commands::session::with_credentials;
use crate::failure::{Code, Failure};
use crate::output;

/// The status of an answer that is as it should be.
const OK: u16 = 200;
/// The status of one that says no.
const UNAVAILABLE: u16 = 503;

/// Asks whether a node is ready, or alive. Errors: it is not, or does not answer.
pub async fn health(args: args::Health) -> Result<(), Failure> {
    // It is asked for no token; what the environment holds need not be shown, nor fit an open port.
    let credentials = args::Credentials { token_file: None, token: None, ..args.port.credentials.clone() };
    let port = connect(&args::AdminPort { credentials, ..args.port })?;
    let path = match (args.live, args.output) {
        (true, _) => "/livez",
        (false, Output::Json) => "/readyz?verbose",
        (false, Output::Table) => "/readyz",
    };
    let answer = port.get(path).await.map_err(unreachable)?;
    let good = match answer.status {
        OK => true,
        UNAVAILABLE => false,
        _ => return Err(strange(&port, &answer)),
    };
    output::print(
        args.output,
        || health_json(port.address(), args.live, good, &answer.body),
        || output::lines(answer.body.trim_end()),
    )?;
    match (good, args.live) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::failed(format!("the node serves no more; see its log address={}", port.address()))),
        (false, false) => Err(Failure::failed(format!("the node is not ready; see `quorate status` address={}", port.address()))),
    }
}

fn health_json(address: &str, live: bool, good: bool, body: &str) -> Value {
    if live {
        return json!({ "address": address, "live": good, "detail": body.trim_end() });
    }
    let checks: Vec<Value> = body
        .lines()
        .filter_map(|line| {
            let (mark, rest) = line.strip_prefix('[')?.split_once("] ")?;
            let (name, detail) = rest.split_once(' ').unwrap_or((rest, ""));
            Some(json!({ "name": name, "ok": mark == "+", "required": mark != "!", "detail": detail }))
        })
        .collect();
    json!({ "address": address, "ready": good, "checks": checks })
}

/// Runs one of them.
pub async fn run(command: args::Admin) -> Result<(), Failure> {
    match command {
        args::Admin::LogLevel(args) => log_level(args).await,
        args::Admin::Clients(command) => clients::run(command).await,
        args::Admin::Purge(args) => super::purge::run(args).await,
    }
}

/// Shows or changes what a node logs. Errors: it does not answer, refuses, or the filter is none.
async fn log_level(args: args::LogLevel) -> Result<(), Failure> {
    let port = connect(&args.port)?;
    let answer = match &args.level {
        None => port.get("/log-level").await,
        Some(level) => port.put("/log-level", level).await,
    };
    let answer = answer.map_err(unreachable)?;
    let said = output::printable(answer.body.trim());
    match answer.status {
        OK => {}
        400 => return Err(Failure::usage(format!("{said}; nothing changed"))),
        401 | 403 => return Err(Failure::failed(format!("no or wrong credentials, nothing changed: {said}; pass --token-file"))),
        _ => return Err(strange(&port, &answer)),
    }
    output::print(args.output, || json!({ "address": port.address(), "filter": answer.body.trim() }), || &said)?;
    Ok(())
}

fn connect(port: &args::AdminPort) -> Result<AdminPort, Failure> {
    let builder = Client::builder().endpoints([&port.admin]).connect_timeout(port.timeout);
    let builder = with_credentials(builder, &port.credentials)?;
    builder.build_admin().map_err(|error| Failure::usage(format!("--admin, --ca, --cert, --key, --token-file: {error}")))
}

fn unreachable(error: Error) -> Failure {
    Failure { code: Code::Unavailable, message: format!("no answer: {error}; check --admin and --ca, and whether the node runs") }
}

fn strange(port: &AdminPort, answer: &AdminAnswer) -> Failure {
    let message =
        format!("the answer is not from an admin port of this release status={} address={}", answer.status, port.address());
    Failure { code: Code::Unavailable, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_from_the_lines_of_readiness() {
        let body = "[+] storage\n[-] leader no quorum: no leader is known\n[!] disk\nnot ready\n";
        let all = health_json("a:1", false, false, body);
        assert_eq!(all["ready"], false);
        assert_eq!(all["checks"][0], json!({ "name": "storage", "ok": true, "required": true, "detail": "" }));
        let leader = json!({ "name": "leader", "ok": false, "required": true, "detail": "no quorum: no leader is known" });
        assert_eq!(all["checks"][1], leader);
        assert_eq!(all["checks"][2], json!({ "name": "disk", "ok": false, "required": false, "detail": "" }));
        assert_eq!(all["checks"].as_array().map(Vec::len), Some(3));
        assert_eq!(health_json("a:1", true, true, "ok\n"), json!({ "address": "a:1", "live": true, "detail": "ok" }));
    }
}
