//! What was deleted leaves the disks: by the age of the log, and at once when an operator asks.

use std::path::Path;
use std::time::{Duration, Instant};

use quorate::client::{Client, Content, PurgeProgress, WriteOptions};
use quorate::testing;
use quorate::types::NodeId;

use super::rig::{Cluster, PATIENCE};
use crate::support::bytes::places;

const DELETED: &str = "a sentence that nobody may find any more";

/// Names of the files below a directory in which the deleted content is.
fn found_in(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(found_in(&path));
        } else if let Ok(bytes) = std::fs::read(&path)
            && !places(&bytes, DELETED.as_bytes()).is_empty()
        {
            found.push(path.display().to_string());
        }
    }
    found
}

fn of_one(cluster: &Cluster, node: u64) -> Client {
    let address = &cluster.config().member(NodeId(node)).expect("a member").client;
    Client::builder().endpoints([address.clone()]).build().expect("well formed")
}

/// Saves, replaces and deletes what must go, among what stays.
async fn save_and_delete(client: &Client) {
    for (id, value) in [("deleted", DELETED), ("replaced", DELETED), ("replaced", "other"), ("kept", "kept")] {
        // Not compressed: it is looked for in the files.
        client.save(id, Content::Value(value.into()), WriteOptions::default()).await.expect("it serves");
    }
    client.delete("deleted", None).await.expect("it serves");
}

async fn purge(client: &Client) -> u64 {
    let mut purge = client.purge().await.expect("it answers");
    loop {
        if let PurgeProgress::Done(revision) = purge.next().await.expect("it ends") {
            return revision.0;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_is_in_no_file_of_any_node_once_all_were_purged() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::of(testing::Cluster::builder().data_dir(dir.path()).segment_bytes(64 * 1024)).await;
    let client = of_one(&cluster, 1);
    save_and_delete(&client).await;
    cluster.converged().await.expect("all replicas are in the same state");
    assert!(found_in(dir.path()).len() >= 3, "in every log");
    let last = cluster.status_of(1).await.expect("it runs").applied.expect("writes were");
    // Twice: the second finds next to nothing, and ends as well.
    for _ in 0..2 {
        for node in 1..=3 {
            let node = of_one(&cluster, node);
            assert!(purge(&node).await >= last, "everything so far");
            node.close().await;
        }
        assert_eq!(found_in(dir.path()), Vec::<String>::new());
    }
    assert_eq!(client.load("deleted").await.expect("it serves"), None);
    for id in ["replaced", "kept"] {
        assert!(client.load(id).await.expect("it serves").is_some(), "{id}");
    }
    client.save("later", Content::Value("later".into()), WriteOptions::default()).await.expect("it serves on");
    cluster.converged().await.expect("all replicas are in the same state");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_keeps_an_entry_for_longer_than_its_age_though_nothing_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let builder = testing::Cluster::builder().nodes(1).data_dir(dir.path()).segment_bytes(64 * 1024);
    let cluster = Cluster::of(builder.log_kept_for(Duration::from_secs(2))).await;
    let client = of_one(&cluster, 1);
    save_and_delete(&client).await;
    assert!(!found_in(dir.path()).is_empty());
    let began = Instant::now();
    let logs = dir.path().join("1/log");
    while !found_in(&logs).is_empty() {
        assert!(began.elapsed() < PATIENCE, "it stays: {:?}", found_in(&logs));
        tokio::task::yield_now().await;
    }
    assert!(client.load("kept").await.expect("it serves").is_some());
    client.close().await;
}
