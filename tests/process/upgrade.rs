//! A rolling upgrade with real processes: "the next release" is this binary with the test-only next cluster version allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use quorate::client::ClusterStatus;
use serde_json::Value;

use super::harness::Cluster;
use super::{increment, progress};

/// Makes a process the next release.
pub const NEXT: &str = "--test-version";

fn in_force(status: &ClusterStatus) -> Vec<u32> {
    status.nodes.iter().map(|node| node.cluster_version).collect()
}

/// Waits until every node says that this version is in force.
pub async fn wait_in_force(cluster: &Cluster, version: u32) {
    let client = cluster.client();
    let started = std::time::Instant::now();
    loop {
        let status = client.status(Default::default()).await;
        if status.as_ref().is_ok_and(|status| in_force(status).iter().all(|found| *found == version)) {
            return;
        }
        assert!(started.elapsed() < super::harness::PATIENCE, "not in force: {status:?}\n{}", cluster.logs());
        tokio::task::yield_now().await;
    }
}

/// What `quorate upgrade status` says: the state, and the nodes that it waits for.
fn state(cluster: &Cluster) -> (String, Value) {
    let output = cluster.run(&["upgrade", "status", "-o", "json"]);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    (found["state"].as_str().expect("a state").to_owned(), found["waits_for"].clone())
}

/// From the next start of each node on, its operator holds the version that is in force.
fn hold(cluster: &Cluster) {
    let path = cluster.dir().join("cluster.toml");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    std::fs::write(&path, format!("cluster_version_max = 1\n{text}")).expect("a writable file");
}

/// One node after the other becomes the next release, under load: the version rises only once the last one has and the operator lets it, nobody
/// sees an error, and what was written before and after is there. Then the old release is put back on one: it says why it can't, and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_upgrade_raises_the_version_at_its_end_and_an_old_release_is_refused_after_it() {
    let mut cluster = Cluster::start(3).await;
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = tokio::spawn(increment(cluster.client(), "counter".into(), stop.clone(), acknowledged.clone()));
    for node in 1..=3 {
        progress(&acknowledged, 10, &writer, &cluster).await;
        let status = cluster.client().status(Default::default()).await.expect("a status");
        assert_eq!(in_force(&status), [1, 1, 1], "not before every node reads it");
        if node == 3 {
            hold(&cluster);
            assert_eq!(state(&cluster), ("open".to_owned(), serde_json::json!([3])));
            let early = cluster.run(&["upgrade", "finish"]);
            let said = String::from_utf8_lossy(&early.stderr);
            assert!(early.status.code() == Some(2) && said.contains("nothing changed") && said.contains("nodes=3"), "{said}");
        }
        cluster.stop(node).await;
        cluster.restart_with(node, &[NEXT]);
        cluster.leader().await;
    }
    let held = ("held".to_owned(), serde_json::json!([3]));
    let started = std::time::Instant::now();
    while state(&cluster) != held {
        assert!(started.elapsed() < super::harness::PATIENCE, "{:?}\n{}", state(&cluster), cluster.logs());
        tokio::task::yield_now().await;
    }
    let status = cluster.client().status(Default::default()).await.expect("a status");
    assert_eq!(in_force(&status), [1, 1, 1], "not before the operator lets it");
    let table = String::from_utf8_lossy(&cluster.run(&["upgrade", "status"]).stdout).into_owned();
    assert!(table.contains("HELD AT") && table.contains("until `quorate upgrade finish`"), "{table}");
    // Until the leader has heard each of them, it says which it has not.
    while !cluster.run(&["upgrade", "finish"]).status.success() {
        assert!(started.elapsed() < super::harness::PATIENCE, "not finished\n{}", cluster.logs());
    }
    wait_in_force(&cluster, 2).await;
    assert_eq!(state(&cluster), ("done".to_owned(), serde_json::json!([])));
    progress(&acknowledged, 10, &writer, &cluster).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let saved = writer.await.expect("no increment failed");
    cluster.assert_equal_digests().await;

    cluster.stop(1).await;
    cluster.restart(1);
    let code = cluster.exit_code(1).await;
    let log = cluster.log(1);
    let said = ["a cluster version that this release does not read version=2 newest=1", "install the release that was here before"];
    assert!(code == Some(2) && said.iter().all(|said| log.contains(said)), "{code:?} {log}");
    // What it left is still the next release's.
    cluster.restart_with(1, &[NEXT]);
    cluster.leader().await;
    cluster.assert_equal_digests().await;
    let output = cluster.run(&["session", "get", "counter", "-o", "json"]);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["version"], saved, "{found}");
}
