//! Bob's port over real nodes: the conformance suite, also while a leader dies.

use std::sync::Arc;

use bob_core::ports::SessionStore;
use quorate::testing::conformance;
use tokio::sync::Notify;

use super::rig::Cluster;

fn store(cluster: &Cluster) -> Arc<dyn SessionStore> {
    Arc::new(cluster.client().session_store())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_adapter_keeps_every_promise_of_the_port_over_a_cluster() {
    let cluster = Cluster::start(3).await;
    let store = store(&cluster);
    let report = conformance::run(|| async { store.clone() }).await;
    assert!(report.passed(), "{report}");
}

/// Callers see no error and no wrong answer, only a pause: every write that lost its answer is settled under its own request id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_adapter_keeps_every_promise_of_the_port_while_a_leader_dies() {
    let mut cluster = Cluster::start(3).await;
    let store = store(&cluster);
    let leader = cluster.leader(1).await;
    let begun = Notify::new();
    let make = || async {
        begun.notify_one();
        store.clone()
    };
    let dies = async {
        begun.notified().await;
        cluster.kill(leader).await;
    };
    let (report, ()) = tokio::join!(conformance::run(make), dies);
    assert!(report.passed(), "{report}");
}
