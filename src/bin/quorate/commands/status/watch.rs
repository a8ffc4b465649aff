//! `quorate status --watch`: the same again and again, with what happened between two looks.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use comfy_table::CellAlignment;
use quorate::client::{ClusterStatus, NodeStatus, StatusOptions};
use serde_json::{Value, json};

use super::{leader_of, role, status_json};
use crate::args::{self, Output};
use crate::commands::session::{ask_failure, connect};
use crate::failure::Failure;
use crate::output;

/// Cursor home, and everything below it cleared: the next table lies over the last.
const REDRAW: &str = "\x1b[H\x1b[2J";

/// Looks until it has done so `--count` times, or the user ends it. Errors: the first look gets no answer.
pub async fn run(args: args::Status) -> Result<(), Failure> {
    let client = connect(&args.ask.cluster)?;
    let options =
        StatusOptions { timeout: args.ask.cluster.timeout.unwrap_or(StatusOptions::default().timeout), ..Default::default() };
    let redraws = args.ask.output == Output::Table && io::stdout().is_terminal();
    let mut before: Option<(Instant, ClusterStatus)> = None;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        left -= 1;
        let result = client.status(options).await;
        let now = Instant::now();
        match result {
            Ok(status) => {
                let past = before.as_ref().map(|(at, status)| (now.duration_since(*at), status));
                let lines = lines(&status, past);
                match args.ask.output {
                    Output::Json => output::json(&json_of(&status, &lines))?,
                    Output::Table => output::line(&format!("{}{}", if redraws { REDRAW } else { "" }, table(&status, &lines)))?,
                }
                before = Some((now, status));
            }
            // One look without an answer is part of what is watched; the first says that it is no use.
            Err(error) if before.is_none() => {
                client.close().await;
                return Err(ask_failure(error));
            }
            Err(error) => output::line(&format!("no endpoint answers: {error}"))?,
        }
        if left > 0 {
            tokio::time::sleep(args.interval).await;
        }
    }
    client.close().await;
    Ok(())
}

/// The changes that two statuses of a node show.
#[derive(Clone, Debug, Default, PartialEq)]
struct Changes {
    /// Entries behind the newest one of any node.
    lag: Option<u64>,
    /// Of clients, each second since the look before.
    writes: Option<f64>,
    reads: Option<f64>,
    /// Mean of the log's syncs since then.
    sync: Option<Duration>,
}

/// One line for each node of `now`, in its order.
fn lines(now: &ClusterStatus, past: Option<(Duration, &ClusterStatus)>) -> Vec<Changes> {
    let newest = now.nodes.iter().filter_map(|node| node.last_log).max().unwrap_or(0);
    now.nodes.iter().map(|node| line(node, newest, past)).collect()
}

fn line(node: &NodeStatus, newest: u64, past: Option<(Duration, &ClusterStatus)>) -> Changes {
    if !node.reachable {
        return Changes::default();
    }
    let lag = Some(newest.saturating_sub(node.applied.unwrap_or(0)));
    let found = past.and_then(|(took, status)| Some((took, status.nodes.iter().find(|past| past.id == node.id)?)));
    // A node that was started in between counts from zero again.
    let Some((took, past)) = found.filter(|(_, past)| past.reachable && past.uptime <= node.uptime) else {
        return Changes { lag, ..Changes::default() };
    };
    let rate = |now: u64, past: u64| Some(now.saturating_sub(past) as f64 / took.as_secs_f64().max(0.001));
    let syncs = u32::try_from(node.syncs.saturating_sub(past.syncs)).unwrap_or(u32::MAX);
    Changes {
        lag,
        writes: rate(node.writes, past.writes),
        reads: rate(node.reads, past.reads),
        sync: node.sync_total.saturating_sub(past.sync_total).checked_div(syncs),
    }
}

fn json_of(status: &ClusterStatus, lines: &[Changes]) -> Value {
    let mut all = status_json(status);
    let nodes = all.get_mut("nodes").and_then(Value::as_array_mut);
    for (node, line) in nodes.into_iter().flatten().zip(lines) {
        if let Some(node) = node.as_object_mut() {
            node.insert("lag".into(), json!(line.lag));
            node.insert("writes_per_second".into(), json!(line.writes));
            node.insert("reads_per_second".into(), json!(line.reads));
            node.insert("sync_us_mean".into(), json!(line.sync.map(|sync| sync.as_micros() as u64)));
        }
    }
    all
}

fn table(status: &ClusterStatus, lines: &[Changes]) -> String {
    let mut table = output::table([
        "NODE",
        "ROLE",
        "TERM",
        "APPLIED",
        "LAG",
        "WRITES/S",
        "READS/S",
        "SYNC",
        "SESSIONS",
        "LOG",
        "STATE",
        "DISK FREE",
        "CHECKS",
    ]);
    for (node, line) in status.nodes.iter().zip(lines) {
        table.add_row(row(node, line));
    }
    for column in [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let leader = leader_of(status).map_or_else(|| "no node leads".to_owned(), |leader| format!("node {leader} leads"));
    let total = |of: fn(&Changes) -> Option<f64>| lines.iter().filter_map(of).fold(0.0, |sum, rate| sum + rate);
    let (writes, reads) = (total(|line| line.writes), total(|line| line.reads));
    let at = output::time(status.nodes.iter().map(|node| node.wall_ms).max().unwrap_or(0));
    let name = output::printable(&status.cluster_name);
    format!("{at}  {name}: {leader}, {writes:.0} writes/s, {reads:.0} reads/s\n\n{}", table.trim_fmt())
}

fn row(node: &NodeStatus, line: &Changes) -> Vec<String> {
    if !node.reachable {
        let mut row = vec![node.id.to_string(), "unreachable".into()];
        row.extend(std::iter::repeat_n("-".to_owned(), 10));
        row.push(output::printable(&node.error));
        return row;
    }
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let failing: Vec<String> = node.checks.iter().filter(|check| !check.ok).map(|check| output::printable(&check.name)).collect();
    vec![
        node.id.to_string(),
        role(node).to_owned(),
        node.term.to_string(),
        or_dash(node.applied.map(|index| index.to_string())),
        or_dash(line.lag.map(|lag| lag.to_string())),
        or_dash(line.writes.map(|rate| format!("{rate:.0}"))),
        or_dash(line.reads.map(|rate| format!("{rate:.0}"))),
        or_dash(line.sync.map(|sync| format!("{:.2}ms", sync.as_secs_f64() * 1000.0))),
        node.sessions.to_string(),
        output::size(node.log_bytes),
        output::size(node.state_bytes),
        output::size(node.disk_free_bytes),
        if failing.is_empty() { "ok".into() } else { failing.join(",") },
    ]
}

#[cfg(test)]
mod tests {
    use quorate::client::Role;

    use super::*;

    fn node(id: u64, applied: u64, writes: u64, uptime_s: u64) -> NodeStatus {
        let mut node = NodeStatus::new(id);
        node.reachable = true;
        node.role = if id == 1 { Role::Leader } else { Role::Follower };
        node.last_log = Some(applied);
        node.applied = Some(applied);
        node.writes = writes;
        node.syncs = writes;
        node.sync_total = Duration::from_millis(2 * writes);
        node.uptime = Duration::from_secs(uptime_s);
        node
    }

    #[test]
    fn rates_and_lag_come_from_two_looks_and_a_restarted_node_has_none_at_first() {
        let past = ClusterStatus::new(vec![node(1, 100, 50, 10), node(2, 100, 0, 10), node(3, 100, 70, 10)]);
        let now = ClusterStatus::new(vec![node(1, 200, 150, 12), node(2, 180, 0, 12), node(3, 200, 10, 1)]);
        let first = lines(&now, None);
        assert_eq!((first[0].lag, first[0].writes), (Some(0), None));
        let lines = lines(&now, Some((Duration::from_secs(2), &past)));
        assert_eq!((lines[0].writes, lines[0].sync), (Some(50.0), Some(Duration::from_millis(2))));
        assert_eq!((lines[1].lag, lines[1].writes, lines[1].sync), (Some(20), Some(0.0), None));
        assert_eq!((lines[2].lag, lines[2].writes), (Some(0), None));
        let text = table(&now, &lines);
        // No figure at all adds up to 0, and not to the floating point's own -0.
        let quiet = table(&now, &vec![Changes::default(); 3]);
        assert!(quiet.contains(" 0 writes/s, 0 reads/s"), "{quiet}");
        assert!(text.contains("node 1 leads, 50 writes/s") && !text.contains('\x1b'), "{text}");
    }

    #[test]
    fn a_node_that_does_not_answer_is_a_line_with_the_reason() {
        let mut down = NodeStatus::new(2);
        down.error = "refused\x1b[31m".into();
        let status = ClusterStatus::new(vec![node(1, 5, 0, 1), down]);
        let text = table(&status, &lines(&status, None));
        assert!(text.contains("unreachable") && text.contains("refused\\u{1b}[31m"), "{text}");
    }
}
