//! `quorate upgrade`: how far a rolling upgrade is, and its end.

use std::time::Duration;

use quorate::client::{ClusterStatus, NodeStatus, StatusOptions};
use quorate::types::NodeId;
use serde_json::{Value, json};

use super::member;
use crate::args;
use crate::commands::session::{ask_failure, connect};
use crate::failure::Failure;
use crate::output;

/// How long the end may take, where nobody says.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs one of them.
pub async fn run(command: args::Upgrade) -> Result<(), Failure> {
    match command {
        args::Upgrade::Status(args) => status(args).await,
        args::Upgrade::Finish(args) => finish(args).await,
    }
}

async fn status(args: args::UpgradeStatus) -> Result<(), Failure> {
    let client = connect(&args.ask.cluster)?;
    let mut options = StatusOptions::default();
    if let Some(timeout) = args.ask.cluster.timeout {
        options.timeout = timeout;
    }
    let status = client.status(options).await;
    client.close().await;
    let status = status.map_err(ask_failure)?;
    Ok(output::print(
        args.ask.output,
        || document(&status),
        || format!("{}\n{}", table(&status), Progress::of(&status).sentence()),
    )?)
}

async fn finish(args: args::UpgradeFinish) -> Result<(), Failure> {
    let client = connect(&args.ask.cluster)?;
    let finished = client.finish_upgrade(args.ask.cluster.timeout.unwrap_or(TIMEOUT)).await;
    client.close().await;
    let version = finished.map_err(member::failure)?;
    let done = format!("cluster version {version} is in force");
    output::changed(args.ask.output, &done, || json!({ "cluster_version": version }))
}

/// How far an upgrade is, by what all nodes say. Pure.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// The version in force is the newest that any node knows.
    Done { in_force: u32 },
    /// These nodes do not read the next one, or can't be reached.
    Open { next: u32, nodes: Vec<NodeId> },
    /// All read it, and these hold it.
    Held { next: u32, nodes: Vec<NodeId> },
    /// All read it and none holds it: it rises within a second or two of a leader's term.
    Rising { next: u32 },
}

impl Progress {
    fn of(status: &ClusterStatus) -> Self {
        let known =
            |number: fn(&NodeStatus) -> u32| status.nodes.iter().filter(|node| node.reachable).map(number).max().unwrap_or(0);
        let (in_force, newest) = (known(|node| node.cluster_version), known(|node| node.cluster_version_max));
        let next = in_force + 1;
        if newest <= in_force {
            return Self::Done { in_force };
        }
        let those = |is_meant: &dyn Fn(&NodeStatus) -> bool| {
            status.nodes.iter().filter(|node| is_meant(node)).map(|node| node.id).collect::<Vec<_>>()
        };
        let open = those(&|node| !node.reachable || node.cluster_version_max < next);
        let held = those(&|node| node.cluster_version_held != 0 && node.cluster_version_held < next);
        match (open.is_empty(), held.is_empty()) {
            (false, _) => Self::Open { next, nodes: open },
            (true, false) => Self::Held { next, nodes: held },
            (true, true) => Self::Rising { next },
        }
    }

    fn sentence(&self) -> String {
        let listed = |nodes: &[NodeId]| NodeId::listed(nodes.iter().copied());
        match self {
            Self::Done { in_force } => format!("cluster version {in_force} is in force; no node knows a later one"),
            Self::Open { next, nodes } => {
                format!("cluster version {next} waits for nodes that do not read it or can't be reached: upgrade {}", listed(nodes))
            }
            Self::Held { next, nodes } => format!(
                "every node reads cluster version {next}, which is held by cluster_version_max on {}: until `quorate upgrade finish` the \
                 release before can be put back",
                listed(nodes)
            ),
            Self::Rising { next } => format!("every node reads cluster version {next}: the leader raises it by itself"),
        }
    }
}

fn document(status: &ClusterStatus) -> Value {
    let progress = Progress::of(status);
    let (state, nodes): (_, &[NodeId]) = match &progress {
        Progress::Done { .. } => ("done", &[]),
        Progress::Open { nodes, .. } => ("open", nodes),
        Progress::Held { nodes, .. } => ("held", nodes),
        Progress::Rising { .. } => ("rising", &[]),
    };
    json!({
        "state": state,
        "waits_for": nodes.iter().map(|id| id.0).collect::<Vec<_>>(),
        "nodes": status.nodes.iter().map(|node| json!({
            "id": node.id.0,
            "reachable": node.reachable,
            "version": node.version,
            "cluster_version": node.cluster_version,
            "cluster_version_min": node.cluster_version_min,
            "cluster_version_max": node.cluster_version_max,
            "cluster_version_held": node.cluster_version_held,
        })).collect::<Vec<_>>(),
    })
}

fn table(status: &ClusterStatus) -> String {
    let mut table = output::table(["NODE", "BUILD", "IN FORCE", "READS", "HELD AT"]);
    for node in &status.nodes {
        let known = |text: String| if node.reachable { text } else { "-".to_owned() };
        table.add_row([
            node.id.to_string(),
            known(output::printable(&node.version)),
            known(node.cluster_version.to_string()),
            known(format!("{}..{}", node.cluster_version_min, node.cluster_version_max)),
            known(if node.cluster_version_held == 0 { "-".to_owned() } else { node.cluster_version_held.to_string() }),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress<const N: usize>(nodes: [(bool, u32, u32, u32); N]) -> Progress {
        let nodes = (1..).zip(nodes).map(|(id, (reachable, in_force, newest, held))| {
            let mut node = NodeStatus::new(id);
            (node.reachable, node.cluster_version, node.cluster_version_max, node.cluster_version_held) =
                (reachable, in_force, newest, held);
            node
        });
        let mut status = ClusterStatus::default();
        status.nodes = nodes.collect();
        Progress::of(&status)
    }

    #[test]
    fn an_upgrade_says_what_it_waits_for() {
        let (up, down) = (true, false);
        assert_eq!(progress([(up, 1, 1, 0), (up, 1, 1, 1)]), Progress::Done { in_force: 1 });
        assert_eq!(progress([(up, 1, 2, 0), (up, 1, 1, 1)]), Progress::Open { next: 2, nodes: vec![NodeId(2)] });
        assert_eq!(progress([(up, 1, 2, 0), (down, 0, 0, 0)]), Progress::Open { next: 2, nodes: vec![NodeId(2)] });
        assert_eq!(progress([(up, 1, 2, 0), (up, 1, 2, 1)]), Progress::Held { next: 2, nodes: vec![NodeId(2)] });
        assert_eq!(progress([(up, 1, 2, 2), (up, 1, 3, 0)]), Progress::Rising { next: 2 });
        assert_eq!(progress([(up, 2, 2, 1), (up, 2, 2, 0)]), Progress::Done { in_force: 2 });
    }
}
