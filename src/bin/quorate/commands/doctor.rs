//! `quorate doctor`: what is wrong with a cluster or soon will be, and how to fix each of it.

mod findings;

use comfy_table::{ContentArrangement, Table, presets};
use quorate::client::{NodeEvent, StatusOptions};
use serde_json::json;

use self::findings::{Finding, Severity, diagnose};
use crate::args::{self, Output};
use crate::commands::session::{ask_failure, connect};
use crate::failure::Failure;
use crate::output;

/// Asks every node and prints what it found. Errors: nobody answers, or there is something to fix.
pub async fn run(args: args::Doctor) -> Result<(), Failure> {
    let client = connect(&args.ask.cluster)?;
    let timeout = args.ask.cluster.timeout.unwrap_or(StatusOptions::default().timeout);
    let result = client.status(StatusOptions { timeout, ..Default::default() }).await;
    client.close().await;
    let status = result.map_err(ask_failure)?;
    let mut events = Vec::new();
    for node in status.nodes.iter().filter(|node| node.reachable) {
        let one = args::Cluster { endpoints: vec![node.client_address.clone()], ..args.ask.cluster.clone() };
        let client = connect(&one)?;
        // Where they can't be had, the status has said so already, or says nothing of the past.
        let of_node = client.events().await.map(|events| events.events).unwrap_or_default();
        client.close().await;
        events.push((node.id.0, recent(of_node, node.wall_ms, args.since.as_millis())));
    }
    let findings = diagnose(&status, &events);
    match args.ask.output {
        Output::Json => output::json(&json!({
            "cluster_name": status.cluster_name,
            "findings": findings.iter().map(|finding| json!({
                "severity": finding.severity.name(), "node": finding.node, "what": finding.what, "fix": finding.fix,
            })).collect::<Vec<_>>(),
        }))?,
        Output::Table => output::line(&table(&findings, status.nodes.len()))?,
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    match (count(Severity::Error), count(Severity::Warning)) {
        (0, 0) => Ok(()),
        (0, warnings) => Err(Failure::warning(format!("something needs attention warnings={warnings}"))),
        (errors, warnings) => Err(Failure::failed(format!("something is wrong errors={errors} warnings={warnings}"))),
    }
}

fn recent(events: Vec<NodeEvent>, now_ms: u64, since_ms: u128) -> Vec<NodeEvent> {
    let first_ms = u128::from(now_ms).saturating_sub(since_ms);
    events.into_iter().filter(|event| u128::from(event.at_ms) >= first_ms).collect()
}

fn table(findings: &[Finding], nodes: usize) -> String {
    if findings.is_empty() {
        return format!("no problems found nodes={nodes}");
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["", "WHERE", "WHAT", "WHAT TO DO"]);
    for finding in findings {
        let place = finding.node.map_or_else(|| "cluster".to_owned(), |node| format!("node {node}"));
        table.add_row([finding.severity.name().to_owned(), place, output::printable(&finding.what), finding.fix.to_owned()]);
    }
    table.trim_fmt()
}
