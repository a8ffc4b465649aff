//! Ports that another process listens on: which, and whose they are.

use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use quorate::client::{ClusterStatus, StatusOptions};

use super::plan::Plan;
use crate::args;
use crate::commands::session::connect;
use crate::failure::Failure;
use crate::output;

/// The time the other side gets to identify itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// From these ports to those of a cluster beside it.
const NEXT: u16 = 100;

/// Errors: something listens on a port of the plan; says what, and how to go on. Nothing was started.
pub async fn require_free(plan: &Plan, cluster: &args::Cluster, data_dir: &Path) -> Result<(), Failure> {
    // What else is wrong with an address, the node itself says better.
    let is_taken = |address: &String| TcpListener::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    let Some(address) = plan.addresses().into_iter().find(is_taken) else { return Ok(()) };
    let port = plan.base_port.checked_add(NEXT).filter(|port| Plan::new(plan.nodes, *port).is_ok()).unwrap_or(7460);
    Err(Failure::usage(format!(
        "{address} is taken by {}; nothing was started. Use that cluster, or stop it, or start this one beside it: --base-port {port} \
         --data-dir {}-{port}",
        owner(cluster).await,
        data_dir.display()
    )))
}

/// The cluster that answers there.
async fn owner(cluster: &args::Cluster) -> String {
    let unknown = "another program, or a cluster with other certificates";
    let Ok(client) = connect(cluster) else { return unknown.to_owned() };
    let options = StatusOptions { timeout: ANSWER_WITHIN, ..StatusOptions::default() };
    match tokio::time::timeout(2 * ANSWER_WITHIN, client.status(options)).await {
        Ok(Ok(status)) => describe(&status),
        _ => unknown.to_owned(),
    }
}

fn describe(status: &ClusterStatus) -> String {
    let name = output::printable(&status.cluster_name);
    let id = status.cluster_id.map_or_else(|| "none yet".to_owned(), |id| id.to_string());
    let pids: Vec<String> =
        status.nodes.iter().filter(|node| node.reachable).map(|node| format!("node {} pid {}", node.id, node.pid)).collect();
    format!("a cluster that runs already: name={name} cluster_id={id} {}", pids.join(", "))
}

#[cfg(test)]
mod tests {
    use quorate::client::NodeStatus;

    use super::*;

    #[test]
    fn the_other_cluster_is_named_with_the_processes_to_stop() {
        let node = |id: u64, reachable| {
            let mut node = NodeStatus::new(id);
            (node.reachable, node.pid) = (reachable, 100 + id);
            node
        };
        let mut status = ClusterStatus::new(vec![node(1, true), node(2, false)]);
        status.cluster_name = "dev".to_owned();
        assert_eq!(describe(&status), "a cluster that runs already: name=dev cluster_id=none yet node 1 pid 101");
    }
}
