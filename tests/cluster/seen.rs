//! What a node reports of itself to its operators.

use quorate::client::{Content, WriteOptions};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::rig::{Cluster, PATIENCE};

/// What the standard health service says of one node's service.
async fn health(cluster: &Cluster, node: u64, service: &str) -> ServingStatus {
    let address = &cluster.config().member(node.into()).expect("a member").client;
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel).check(request).await.expect("an answer").into_inner().status()
}

async fn wait_health(cluster: &Cluster, node: u64, wanted: ServingStatus) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while health(cluster, node, "").await != wanted {
        assert!(std::time::Instant::now() < deadline, "not {wanted:?}");
        tokio::task::yield_now().await;
    }
    assert_eq!(health(cluster, node, "quorate.v1.Sessions").await, wanted, "both names say the same");
}

#[tokio::test]
async fn the_health_service_and_readiness_say_the_same_and_follow_the_quorum() {
    let mut cluster = Cluster::start(3).await;
    // A leader that hears nobody takes a while to know; a follower knows at once.
    let leader = cluster.leader(1).await;
    let left = (1..=3).find(|node| *node != leader).expect("three nodes");
    let others = (1..=3).filter(|node| *node != left);
    wait_health(&cluster, left, ServingStatus::Serving).await;
    let ready = cluster.get(left, "/readyz?verbose").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    for check in ["storage", "running", "bootstrapped", "leader", "digest", "clock", "disk"] {
        assert!(ready.contains(&format!("] {check}")), "{check} is not in {ready}");
    }
    cluster.kill_each(others).await;
    wait_health(&cluster, left, ServingStatus::NotServing).await;
    let ready = cluster.get(left, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("[-] leader"), "{ready}");
    cluster.start_node(leader).await;
    wait_health(&cluster, left, ServingStatus::Serving).await;
}

/// The transport's own text says of every failure only that it is one.
#[tokio::test]
async fn why_a_node_does_not_answer_the_others_is_said() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader(1).await;
    let gone = (1..=3).find(|node| *node != leader).expect("three nodes");
    cluster.kill(gone).await;
    let said = |status: &quorate::client::ClusterStatus| {
        status.nodes.iter().any(|node| node.id.0 == gone && !node.reachable && node.error.contains("Connection refused"))
    };
    cluster.wait_for("the reason", said).await.expect("nobody listens there");
}

/// Nobody sees the disk of a node before the node itself has.
#[tokio::test]
async fn a_node_has_looked_at_its_disk_before_it_serves() {
    let cluster = Cluster::prepare(1);
    let mut env = quorate::env::Env::real();
    env.disk = std::sync::Arc::new(cluster.sim_disk(1));
    let config = cluster.config().clone();
    let data_dir = config.node_dir(1.into());
    let options = quorate::server::Options { config, node: 1.into(), data_dir, bootstrap: true, env };
    // On one thread: what the start has spawned has not run yet.
    let server = quorate::server::Server::start(options).await.expect("it starts");
    let (free, total) = server.node().disk();
    assert!(free > 0 && total > 0, "free={free} total={total}");
}

/// A status whose counters stand still: the same as the one before it, with the cluster's opening write in it.
async fn quiet(cluster: &Cluster) -> quorate::client::ClusterStatus {
    let counted = |status: &quorate::client::ClusterStatus| -> Vec<(u64, u64)> {
        status.nodes.iter().map(|node| (node.writes, node.reads)).collect()
    };
    let mut last = Vec::new();
    let still = |status: &quorate::client::ClusterStatus| {
        let now = counted(status);
        let is_still = now == last && now.iter().any(|(writes, _)| *writes > 0);
        last = now;
        is_still
    };
    cluster.wait_for("nothing under way", still).await.expect("it comes to rest")
}

/// What `status --watch`, `doctor` and the page are made of.
#[tokio::test]
async fn a_node_counts_its_clients_operations_once_wherever_they_came_in() {
    let cluster = Cluster::start(3).await;
    let (leader, follower) = cluster.leader_and_follower().await;
    let sum = |status: &quorate::client::ClusterStatus| {
        status.nodes.iter().map(|node| (node.writes, node.reads)).fold((0, 0), |(w, r), (a, b)| (w + a, r + b))
    };
    // What the start has opened and loaded may be counted a moment after its answer.
    let before = quiet(&cluster).await;
    let mut caller = cluster.caller(follower).await;
    for n in 0..20 {
        let save = caller.save_of(&format!("s{n}"), "x");
        caller.settle(&save).await;
        caller.value(&format!("s{n}")).await;
    }
    let all =
        |status: &quorate::client::ClusterStatus| sum(status).0 >= sum(&before).0 + 21 && sum(status).1 >= sum(&before).1 + 20;
    let after = cluster.wait_for("all of it counted", all).await.expect("it is counted");
    let (writes, reads) = (sum(&after).0 - sum(&before).0, sum(&after).1 - sum(&before).1);
    // The client's own opening is one more; a retry another.
    assert!(writes >= 21 && reads >= 20, "writes={writes} reads={reads}");
    let of = |status: &quorate::client::ClusterStatus| {
        let node = status.nodes.iter().find(|node| node.id.0 == leader).expect("it answers");
        (node.writes, node.reads)
    };
    assert_eq!(of(&after), of(&before), "what a follower forwards is the follower's to count");
    let node = after.nodes.iter().find(|node| node.id.0 == leader).expect("it answers");
    assert!(node.syncs > 0 && node.sync_total > std::time::Duration::ZERO && node.disk_total_bytes > 0, "{node:?}");
    assert!(node.checks.len() >= 7 && node.cluster_version_max >= node.cluster_version, "{node:?}");
    let client = cluster.client();
    client.save("one more", Content::Value("x".into()), WriteOptions::default()).await.expect("a save");
}
