//! The members change while writers go on: no caller sees an error, and nothing acknowledged is lost.

use std::time::{Duration, Instant};

use crate::process::backup::json;
use crate::process::harness::{Cluster, PATIENCE};
use crate::process::load::Load;
use crate::process::members::{member, voters};

/// Three, five, three again, each change typed; the two that go are founders, one of them the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_become_five_become_three_under_load_without_an_error() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(&cluster);
    load.progress(10, &cluster).await;
    load.watch_gaps();
    for id in ["4", "5"] {
        let node = cluster.start_further();
        json(&member(&cluster, &["add", id], &cluster.addresses(node)));
        load.progress(10, &cluster).await;
    }
    for (id, expected) in [("4", vec![1, 2, 3, 4]), ("5", vec![1, 2, 3, 4, 5])] {
        assert_eq!(voters(&json(&member(&cluster, &["promote", id], &[]))), expected);
        load.progress(10, &cluster).await;
    }

    // The leader hands over first; then another founder, so that a newcomer is needed for every majority.
    let leads = cluster.leader().await;
    if leads > 3 {
        json(&cluster.run(&["leader", "transfer", "1", "-o", "json"]));
    }
    let first = cluster.leader().await;
    let second = (1..=3).find(|node| *node != first).expect("two of three");
    for node in [first, second] {
        json(&member(&cluster, &["remove", &node.to_string()], &[]));
        assert_eq!(cluster.exit_code(node).await, Some(2), "what is removed ends");
        load.progress(10, &cluster).await;
    }
    let left: Vec<u64> = (1..=5).filter(|node| *node != first as u64 && *node != second as u64).collect();
    assert_eq!(voters(&json(&member(&cluster, &["list"], &[]))), left);
    let (writes, longest) = load.finish(&cluster).await;
    cluster.assert_equal_digests().await;
    println!("3 to 5 to 3: {writes} writes, no error, longest time without one {longest:?}");
}

/// A node dies and its disk with it. A new one takes its place under a new id, while writers go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_is_replaced_under_a_new_id_under_load_without_an_error() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(&cluster);
    load.progress(10, &cluster).await;
    load.watch_gaps();
    let lost = cluster.leader().await;
    cluster.kill(lost);
    cluster.wipe(lost);
    load.progress(10, &cluster).await;
    // Started all the same, on an empty disk under its old id, it is no member: it may have forgotten a vote.
    let began = Instant::now();
    cluster.restart(lost);
    while !cluster.log(lost).contains("its disk is empty or another one") {
        assert!(began.elapsed() < PATIENCE, "an empty disk takes part\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.kill(lost);
    let fourth = cluster.start_further();
    let replaced = json(&member(&cluster, &["replace", &lost.to_string(), "4"], &cluster.addresses(fourth)));
    let left: Vec<u64> = (1..=4).filter(|node| *node != lost as u64).collect();
    assert_eq!(voters(&replaced), left);
    load.progress(10, &cluster).await;
    let (writes, longest) = load.finish(&cluster).await;
    cluster.assert_equal_digests().await;
    println!("a disk was lost: {writes} writes, no error, longest time without one {longest:?}");
}
