//! `quorate status`: every node, as far as one that can be reached can tell.

mod watch;

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use quorate::client::{ClusterStatus, NodeStatus, Role, StatusOptions};
use quorate::limits::intervals;
use quorate::types::Revision;
use serde_json::{Value, json};

use crate::args::{self, Output};
use crate::commands::session::{ask_failure, connect};
use crate::failure::{Code, Failure};
use crate::output;

/// Asks and prints. Errors: no endpoint answered at all, or no node leads; a node that others can't reach is a line of the answer.
pub async fn run(args: args::Status) -> Result<(), Failure> {
    if args.watch {
        return watch::run(args).await;
    }
    let client = connect(&args.ask.cluster)?;
    let mut options = StatusOptions { digest_at: args.digest_at.map(Revision), ..StatusOptions::default() };
    if let Some(timeout) = args.ask.cluster.timeout {
        options.timeout = timeout;
    }
    let result = client.status(options).await;
    client.close().await;
    let status = result.map_err(ask_failure)?;
    output::print(args.ask.output, || status_json(&status), || status_table(&status, args.digest_at))?;
    if let Some(index) = args.digest_at {
        let agree = compared(&status, index, options.timeout)?;
        if args.ask.output == Output::Table {
            output::line(&agree)?;
        }
    }
    match leader_of(&status) {
        Some(_) => Ok(()),
        None => Err(Failure { code: Code::Unavailable, message: UNLED.to_owned() }),
    }
}

/// The line for a cluster in which no node leads.
const UNLED: &str = "no node leads: no writes, and no reads but stale ones, until a majority of the voters is back";

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
    let mut document = json!({
        "id": node.id.0,
        "client": node.client_address,
        "peer": node.peer_address,
        "reachable": node.reachable,
        "error": node.error,
        "voter": node.voter,
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
    });
    // Beside the others: the macro takes no more.
    document["cluster_version_held"] = node.cluster_version_held.into();
    document
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

/// Whether all nodes that answer are in the same state after the entry at `index`; says so. Errors: one is not there within `within`, does not
/// keep its digest of then, or is in another.
fn compared(status: &ClusterStatus, index: u64, within: Duration) -> Result<String, Failure> {
    let without = |reached: bool| -> Vec<String> {
        let nodes = status.nodes.iter().filter(|node| node.reachable && node.digest_index != Some(index));
        nodes.filter(|node| (node.applied >= Some(index)) == reached).map(|node| node.id.to_string()).collect()
    };
    let (behind, past) = (without(false).join(","), without(true).join(","));
    if !behind.is_empty() {
        let message = format!(
            "entry {index} is not reached within {within:?} nodes={behind}; name one that is there, or wait with --timeout"
        );
        return Err(Failure { code: Code::Unavailable, message });
    }
    if !past.is_empty() {
        let every = intervals().digest_entries;
        return Err(Failure::failed(format!(
            "nodes have passed entry {index}, and keep the digests of every {every}th entry only nodes={past}; name one to come, or a \
             multiple of {every}"
        )));
    }
    let (nodes, mut digests): (Vec<String>, Vec<u64>) =
        status.nodes.iter().filter_map(|node| Some((node.id.to_string(), node.digest?))).unzip();
    digests.dedup();
    match digests.len() {
        0 | 1 => Ok(format!("digests agree entry={index} nodes={}", nodes.join(","))),
        _ => Err(Failure::failed(format!("nodes are in different states after entry {index}; see `quorate doctor`"))),
    }
}

fn status_table(status: &ClusterStatus, digest_at: Option<u64>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let newest = status.nodes.iter().filter(|node| node.reachable).filter_map(|node| node.last_log).max().unwrap_or(0);
    let cells = match digest_at {
        None => &["SESSIONS", "LOG", "STATE"][..],
        Some(_) => &["DIGEST"],
    };
    let header = ["NODE", "ROLE", "TERM", "APPLIED", "LAG"].into_iter().chain(cells.iter().copied()).chain(["CLIENTS AT"]);
    table.set_header(header);
    for node in &status.nodes {
        table.add_row(node_row(node, newest, digest_at));
    }
    let last = 5 + cells.len();
    for at in 0..=last {
        if let Some(column) = table.column_mut(at) {
            // One space between two columns: the whole is to fit 80.
            column.set_padding((0, 1));
            if at != 1 && at != last {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let problems = status.nodes.iter().filter(|node| !node.reachable);
    let problems: String =
        problems.map(|node| format!("\nnode {} can't be reached: {}", node.id, output::printable(&node.error))).collect();
    table.trim_fmt() + &problems
}

fn node_row(node: &NodeStatus, newest: u64, digest_at: Option<u64>) -> Vec<String> {
    let index = |index: Option<u64>| index.map_or_else(|| "-".into(), |index| index.to_string());
    let size = |bytes: u64| output::size(bytes).replace(".0 ", " ");
    let cells = match digest_at {
        _ if !node.reachable => vec!["-".to_owned(); if digest_at.is_some() { 1 } else { 3 }],
        None => vec![node.sessions.to_string(), size(node.log_bytes), size(node.state_bytes)],
        Some(at) => {
            let digest = node.digest.filter(|_| node.digest_index == Some(at));
            vec![digest.map_or_else(|| "-".to_owned(), |digest| format!("{digest:016x}"))]
        }
    };
    let first = match node.reachable {
        false => vec![node.id.to_string(), "unreachable".into(), "-".into(), "-".into(), "-".into()],
        true => {
            let lag = newest.saturating_sub(node.applied.unwrap_or(0));
            vec![node.id.to_string(), role(node).to_owned(), node.term.to_string(), index(node.applied), lag.to_string()]
        }
    };
    first.into_iter().chain(cells).chain([node.client_address.clone()]).collect()
}

#[cfg(test)]
mod tests {

    use super::*;

    fn node(id: u64, applied: u64, digest: Option<(u64, u64)>) -> NodeStatus {
        let mut node = NodeStatus::new(id);
        node.reachable = true;
        node.role = if id == 1 { Role::Leader } else { Role::Follower };
        node.applied = Some(applied);
        node.last_log = Some(applied);
        node.term = 12;
        node.sessions = 100_000;
        node.log_bytes = 192 << 20;
        node.state_bytes = 64 << 20;
        node.client_address = "10.0.0.1:7460".into();
        node.digest_index = digest.map(|(index, _)| index);
        node.digest = digest.map(|(_, digest)| digest);
        node
    }

    #[test]
    fn the_table_fits_a_terminal_of_80_columns_and_shows_digests_only_where_they_can_be_compared() {
        let mut down = NodeStatus::new(3);
        (down.client_address, down.error) = ("10.0.0.3:7460".into(), "refused".into());
        let status =
            ClusterStatus::new(vec![node(1, 1_234_567, Some((1_234_567, 1))), node(2, 1_234_560, Some((1_234_560, 2))), down]);
        for at in [None, Some(1_234_567)] {
            let table = status_table(&status, at);
            assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
            assert_eq!(table.contains("0000000000000001"), at.is_some(), "{table}");
            assert!(!table.contains("0000000000000002"), "that is of another entry: {table}");
        }
    }

    #[test]
    fn digests_are_compared_at_one_entry_or_said_not_to_be() {
        let why = |nodes: Vec<NodeStatus>| {
            compared(&ClusterStatus::new(nodes), 50, Duration::from_secs(2)).err().map(|failure| (failure.code, failure.message))
        };
        let at = |id, digest| node(id, 60, Some((50, digest)));
        let nodes = vec![at(1, 7), at(2, 7), NodeStatus::new(3)];
        let agree = compared(&ClusterStatus::new(nodes), 50, Duration::from_secs(2)).expect("the two that answer");
        assert_eq!(agree, "digests agree entry=50 nodes=1,2");
        let (code, text) = why(vec![at(1, 7), node(2, 49, None)]).expect("behind");
        assert!(code == Code::Unavailable && text.contains("not reached within 2s nodes=2"), "{text}");
        let (code, text) = why(vec![at(1, 7), node(2, 60, None)]).expect("past");
        assert!(code == Code::Failed && text.contains("passed entry 50") && text.contains("nodes=2"), "{text}");
        assert!(
            why(vec![at(1, 7), at(2, 8)]).is_some_and(|(code, text)| code == Code::Failed && text.contains("different states"))
        );
    }
}
