//! A rolling upgrade with real processes: "the next release" is this binary with the test-only next cluster version allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use quorate::client::ClusterStatus;
use serde_json::Value;

use super::harness::Cluster;
use super::{increment, progress};

/// Makes a process the next release.
const NEXT: &str = "--test-version";

fn in_force(status: &ClusterStatus) -> Vec<u32> {
    status.nodes.iter().map(|node| node.cluster_version).collect()
}

async fn wait_in_force(cluster: &Cluster, version: u32) {
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

/// One node after the other becomes the next release, under load: the version rises only once the last one has, nobody sees an error,
/// and what was written before and after is there. Then the old release is put back on one: it says why it can't, and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_upgrade_raises_the_version_at_its_end_and_an_old_release_is_refused_after_it() {
    let mut cluster = Cluster::start(3).await;
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = tokio::spawn(increment(cluster.client(), "counter".into(), stop.clone(), acknowledged.clone()));
    for node in 1..=3 {
        progress(&acknowledged, 10, &writer, &cluster).await;
        let status = cluster.client().status(Default::default()).await.expect("a status");
        assert_eq!(in_force(&status), [1, 1, 1], "not before every node reads it");
        cluster.stop(node).await;
        cluster.restart_with(node, &[NEXT]);
        cluster.leader().await;
    }
    wait_in_force(&cluster, 2).await;
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
