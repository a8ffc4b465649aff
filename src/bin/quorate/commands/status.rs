//! `quorate status`: every node, as far as one that can be reached can tell.

mod watch;

use comfy_table::{CellAlignment, Table, presets};
use quorate::client::{ClusterStatus, NodeStatus, Role, StatusOptions};
use quorate::types::Revision;
use serde_json::{Value, json};

use crate::args::{self, Output};
use crate::commands::session::{connect, read_failure};
use crate::failure::Failure;
use crate::output;

/// Asks and prints. Errors: no endpoint answered at all; a node that others can't reach is a line of the answer.
pub async fn run(args: args::Status) -> Result<(), Failure> {
    if args.watch {
        return watch::run(args).await;
    }
    let client = connect(&args.cluster)?;
    let mut options = StatusOptions { digest_at: args.digest_at.map(Revision), ..StatusOptions::default() };
    if let Some(timeout) = args.cluster.timeout {
        options.timeout = timeout;
    }
    let result = client.status(options).await;
    client.close().await;
    let status = result.map_err(read_failure)?;
    match args.output {
        Output::Json => output::json(&status_json(&status))?,
        Output::Table => output::line(&status_table(&status))?,
    }
    Ok(())
}

/// The node that leads, by the highest term anyone knows: a leader that was replaced may not have heard of it yet.
pub fn leader_of(status: &ClusterStatus) -> Option<u64> {
    let leaders = status.nodes.iter().filter(|node| node.reachable && node.role == Role::Leader);
    leaders.max_by_key(|node| node.term).map(|node| node.id.0)
}

fn status_json(status: &ClusterStatus) -> Value {
    json!({
        "cluster_id": status.cluster_id.map(|id| id.to_string()),
        "cluster_name": status.cluster_name,
        "nodes": status.nodes.iter().map(node_json).collect::<Vec<_>>(),
    })
}

fn node_json(node: &NodeStatus) -> Value {
    json!({
        "id": node.id.0,
        "client": node.client_address,
        "peer": node.peer_address,
        "reachable": node.reachable,
        "error": node.error,
        "role": role(node),
        "term": node.term,
        "leader": node.leader.map(|leader| leader.0),
        "last_log": node.last_log,
        "committed": node.committed,
        "applied": node.applied,
        "flushed": node.flushed,
        "purged": node.purged,
        // Text, since a JSON number keeps only 53 bits in many readers.
        "digest": node.digest.map(|digest| format!("{digest:016x}")),
        "digest_index": node.digest_index,
        "sessions": node.sessions,
        "clients": node.clients,
        "log_bytes": node.log_bytes,
        "state_bytes": node.state_bytes,
        "machine_time_ms": node.machine_time_ms,
        "wall_ms": node.wall_ms,
        "version": node.version,
        "cluster_version": node.cluster_version,
        "uptime_ms": node.uptime.as_millis() as u64,
        "pid": node.pid,
        "checks": node.checks.iter().map(|check| json!({
            "name": check.name, "ok": check.ok, "required": check.required, "detail": check.detail,
        })).collect::<Vec<_>>(),
        "clock_offset_ms": node.clock_offset_ms,
        "disk_free_bytes": node.disk_free_bytes,
        "disk_total_bytes": node.disk_total_bytes,
        "configuration_hash": format!("{:016x}", node.configuration_hash),
        "cluster_version_min": node.cluster_version_min,
        "cluster_version_max": node.cluster_version_max,
        "syncs": node.syncs,
        "sync_us_total": node.sync_total.as_micros() as u64,
        "sync_us_max": node.sync_slowest.as_micros() as u64,
        "writes": node.writes,
        "reads": node.reads,
        "scrub_passes": node.scrub_passes,
        "scrub_bytes": node.scrub_bytes,
        "scrubbed_ms": node.scrubbed_ms,
    })
}

fn role(node: &NodeStatus) -> &'static str {
    match node.role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Learner => "learner",
        Role::Candidate => "candidate",
        _ => "unknown",
    }
}

fn status_table(status: &ClusterStatus) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "NODE",
        "ROLE",
        "TERM",
        "LAST LOG",
        "COMMITTED",
        "APPLIED",
        "DIGEST",
        "SESSIONS",
        "LOG",
        "STATE",
        "CLIENTS AT",
        "PID",
    ]);
    for node in &status.nodes {
        table.add_row(node_row(node));
    }
    for column in [0, 2, 3, 4, 5, 7, 8, 9, 11] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let problems = status.nodes.iter().filter(|node| !node.reachable);
    let problems: String =
        problems.map(|node| format!("\nnode {} can't be reached: {}", node.id, output::printable(&node.error))).collect();
    let unled = if leader_of(status).is_none() { "\nno node leads: no writes until a majority is back" } else { "" };
    table.trim_fmt() + &problems + unled
}

fn node_row(node: &NodeStatus) -> Vec<String> {
    if !node.reachable {
        let mut row = vec![node.id.to_string(), "unreachable".into()];
        row.extend(std::iter::repeat_n("-".to_owned(), 8));
        row.extend([node.client_address.clone(), "-".into()]);
        return row;
    }
    let index = |index: Option<u64>| index.map_or_else(|| "-".into(), |index| index.to_string());
    vec![
        node.id.to_string(),
        role(node).to_owned(),
        node.term.to_string(),
        index(node.last_log),
        index(node.committed),
        index(node.applied),
        node.digest.map_or_else(|| "-".into(), |digest| format!("{digest:016x}@{}", index(node.digest_index))),
        node.sessions.to_string(),
        output::size(node.log_bytes),
        output::size(node.state_bytes),
        node.client_address.clone(),
        node.pid.to_string(),
    ]
}
