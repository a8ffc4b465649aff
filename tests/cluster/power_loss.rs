//! A leader may acknowledge what only its followers have synced; then it must not lead again as if nothing had happened.

use std::time::Duration;

use quorate::testing;
use quorate::types::Consistency;

use super::rig::{Cluster, version};

/// Raft dissertation §10.2.1: the leader writes to its disk in parallel with replication, and may commit by its followers alone. If it
/// came back as leader of the same term, it would give the lost entry's log id to another one, and nobody could tell them apart.
#[tokio::test]
async fn leader_that_lost_power_before_its_own_sync_keeps_what_its_followers_acknowledged() {
    // Nobody is elected before it is back, and then its own claim to lead is tried first.
    let (heartbeat, min, max) = (Duration::from_millis(100), Duration::from_secs(2), Duration::from_secs(3));
    let slow = testing::Cluster::builder().early_elections(false).timing(heartbeat, min, max).segment_bytes(64 * 1024);
    let mut cluster = Cluster::of(slow).await;
    let leader = cluster.leader(1).await;
    // Both talk to that very node, which so gets writes the moment it is back.
    let (mut caller, mut other) = (cluster.caller(leader).await, cluster.caller(leader).await);
    assert_eq!(version(&caller.saved("s", "synced everywhere").await), 1);

    let disk = cluster.sim_disk(leader);
    disk.hold_syncs();
    let second = caller.save_of("s", "acknowledged");
    let outcome = caller.attempt(&second).await.expect("two of three have synced it");
    assert_eq!(version(&outcome), 2);
    cluster.wait_for("the leader's log to want its sync", |_| disk.held_syncs() > 0).await.expect("it writes what it proposes");
    let term = cluster.status_of(leader).await.expect("it still answers").term;

    cluster.power_loss(leader).await;
    cluster.start_node(leader).await;
    let third = other.save_of("other", "after");
    assert_eq!(version(&other.settle(&third).await), 1);

    assert_eq!(caller.settle(&second).await, outcome, "one request, one outcome, before and after");
    let index = cluster.converged().await.expect("all replicas are in the same state");
    assert!(index > outcome.revision.0, "the later write comes after the acknowledged one");
    let status = cluster.status().await.expect("all answer");
    assert!(status.nodes.iter().all(|node| node.term > term), "somebody was elected again: {status:?}");
    for node in 1..=3 {
        let mut reader = cluster.caller(node).await;
        assert_eq!(reader.value("s").await.as_deref(), Some(&b"acknowledged"[..]), "node {node}");
        reader.load_within("other", Consistency::Stale, 30_000).await.expect("it is there");
    }
    let fourth = caller.save_of("s", "and on");
    assert_eq!(version(&caller.settle(&fourth).await), 3, "no version is given twice");
}
