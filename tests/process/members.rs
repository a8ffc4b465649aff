//! The members change by what an operator types, and a lost majority is recovered from.

use std::path::Path;
use std::process::Output;

use quorate::client::{Revision, WriteOptions};
use serde_json::Value;

use crate::process::backup::{everything, fill, json, path, refused, status_json, succeeded};
use crate::process::harness::Cluster;
use crate::process::value;

pub fn member(cluster: &Cluster, command: &[&str], addresses: &[String]) -> Output {
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    cluster.run(&[&["member"], command, &addresses, &["-o", "json"]].concat())
}

pub fn voters(members: &Value) -> Vec<u64> {
    let members = members["members"].as_array().expect("members");
    members.iter().filter(|member| member["voter"] == true).filter_map(|member| member["id"].as_u64()).collect()
}

/// Three, four, a removal, a replacement, each typed; what is removed ends with exit code 2 and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_as_typed() {
    let mut cluster = Cluster::start(3).await;
    fill(&cluster.client()).await;
    let before = everything(&cluster.client()).await;
    let listed = json(&member(&cluster, &["list"], &[]));
    assert_eq!((voters(&listed), &listed["largest_id"]), (vec![1, 2, 3], &Value::from(3)));
    assert!(succeeded(&cluster.run(&["member", "list"])).contains("3 voters: 2 must answer, 1 may fail"));

    let fourth = cluster.start_further();
    let added = json(&member(&cluster, &["add", "4"], &cluster.addresses(fourth)));
    assert_eq!(voters(&added), [1, 2, 3]);
    assert_eq!(voters(&json(&member(&cluster, &["promote", "4"], &[]))), [1, 2, 3, 4]);
    let leads = json(&cluster.run(&["leader", "transfer", "4", "-o", "json"]));
    assert_eq!((leads["leader"].as_u64(), cluster.leader().await), (Some(4), 4));
    refused(&cluster.run(&["leader", "transfer", "9"]), 2, &["node 9"]);

    // The leader itself, which hands over first.
    assert_eq!(voters(&json(&member(&cluster, &["remove", "4"], &[]))), [1, 2, 3]);
    assert_eq!(cluster.exit_code(4).await, Some(2));
    assert!(cluster.logs().contains("this node was removed from the cluster"), "{}", cluster.logs());
    cluster.restart(4);
    assert_eq!(cluster.exit_code(4).await, Some(2), "it is answered so again");

    // A lost disk: the old id never comes back.
    cluster.kill(2);
    cluster.wipe(2);
    let fifth = cluster.start_further();
    refused(&member(&cluster, &["add", "4"], &cluster.addresses(fifth)), 2, &["node 5 answers", "nothing was changed"]);
    let replaced = json(&member(&cluster, &["replace", "2", "5"], &cluster.addresses(fifth)));
    assert_eq!(voters(&replaced), [1, 3, 5]);
    assert_eq!(json(&member(&cluster, &["replace", "2", "5"], &cluster.addresses(fifth))), replaced, "typed again");

    // Two of three answer: what would leave one of two is refused, with the arithmetic.
    let leader = cluster.leader().await;
    let others: Vec<usize> = [1, 3, 5].into_iter().filter(|node| *node != leader).collect();
    cluster.kill(others[0]);
    let noticed = || {
        let status = status_json(&cluster.run(&["status", "-o", "json"]));
        status["nodes"].as_array().is_some_and(|nodes| nodes.iter().any(|node| node["reachable"] == false))
    };
    while !noticed() {}
    let output = cluster.run(&["member", "remove", &others[1].to_string(), "--timeout", "30s"]);
    refused(&output, 2, &["2 voters, of which 2 must answer and 1 do", "--force", "nothing was changed"]);
    assert_eq!(everything(&cluster.client()).await, before);
}

/// What the single node's configuration is.
fn single(cluster: &Cluster) -> (Cluster, String) {
    let other = Cluster::prepare(1);
    let config = other.dir().join("cluster.toml").display().to_string();
    assert_ne!(other.dir(), cluster.dir());
    (other, config)
}

fn recover(cluster: &Cluster, from: &Path, to: &Path, config: &str, more: &[&str]) -> Output {
    let args = ["recover", "--from", path(from), "--config", config, "--data-dir", path(to), "-o", "json"];
    cluster.run(&[&args[..], more].concat())
}

/// Two of three disks are destroyed. The third becomes a cluster of one, then one of three; everything it had is there, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_had_survives_the_loss_of_the_majority() {
    let mut cluster = Cluster::start(3).await;
    fill(&cluster.client()).await;
    let before = everything(&cluster.client()).await;
    cluster.assert_equal_digests().await;
    let known = cluster.client().save("last", value("acknowledged"), WriteOptions::default()).await.expect("a save");
    cluster.assert_equal_digests().await;
    let survivor = cluster.data_dir(3);

    // As long as it runs, or others lead, there is nothing to recover.
    let (mut one, config) = single(&cluster);
    refused(&recover(&cluster, &survivor, &one.data(), &config, &["--accept-loss"]), 1, &["lock", "nothing was changed"]);
    cluster.kill(3);
    refused(&recover(&cluster, &survivor, &one.data(), &config, &["--accept-loss"]), 2, &["the old cluster lives"]);
    cluster.kill_all();
    cluster.wipe(1);
    cluster.wipe(2);

    // It says first what may be lost, and writes nothing.
    let answered = recover(&cluster, &survivor, &one.data(), &config, &[]);
    refused(&answered, 2, &["nothing was written", "only the lost nodes had is lost", "--accept-loss"]);
    let answered: Value = serde_json::from_slice(&answered.stdout).expect("what would be kept");
    assert_eq!(answered["sessions"], before.len() + 1);
    assert!(!one.data().exists());

    let recovered = json(&recover(&cluster, &survivor, &one.data(), &config, &["--accept-loss"]));
    let last = recovered["last_log"].as_u64().expect("a number");
    assert!(last >= known.revision.0);
    one.without_bootstrap();
    one.restart_all();
    one.leader().await;
    let client = one.client();
    let after: Vec<_> = everything(&client).await;
    assert_eq!(after.iter().filter(|(listed, _)| listed.id.as_str() != "last").cloned().collect::<Vec<_>>(), before);
    let kept = client.load("last").await.expect("a load").expect("it was acknowledged");
    assert_eq!((kept.content, kept.info.create_revision), (value("acknowledged"), known.create_revision));
    let written = client.save("last", value("more"), WriteOptions::default()).await.expect("it goes on");
    assert_eq!(written.version.0, 2);
    assert!(written.revision > Revision(last + 1_000_000), "no revision comes twice: {written:?}");
    assert_eq!(client.save("deleted", value("new"), WriteOptions::default()).await.expect("a save").version.0, 3, "tombstones too");

    // Grown again.
    let second = one.start_further();
    succeeded(&member(&one, &["add", "2"], &one.addresses(second)));
    assert_eq!(voters(&json(&member(&one, &["promote", "2"], &[]))), [1, 2]);
    one.assert_equal_digests().await;

    // Another survivor than the one that the id was drawn for would make another cluster of it.
    let id = recovered["new_cluster_id"].as_str().expect("text");
    let mixed = recover(&cluster, &one.data_dir(1), &one.dir().join("mixed"), &config, &["--accept-loss", "--cluster-id", id]);
    refused(&mixed, 1, &["lock"]);
    one.stop(1).await;
    let mixed = recover(&cluster, &one.data_dir(1), &one.dir().join("mixed"), &config, &["--accept-loss", "--cluster-id", id]);
    refused(&mixed, 2, &["--cluster-id", "another survivor", "nothing was written"]);
    assert!(!one.dir().join("mixed").exists());

    // The same survivor makes three nodes at once; it was not changed by any of this.
    let mut three = Cluster::prepare(3);
    let config = three.dir().join("cluster.toml").display().to_string();
    json(&recover(&cluster, &survivor, &three.data(), &config, &["--accept-loss"]));
    refused(&recover(&cluster, &survivor, &three.data(), &config, &["--accept-loss"]), 2, &["not empty"]);
    three.without_bootstrap();
    three.restart_all();
    three.leader().await;
    assert_eq!(three.client().load("last").await.expect("a load").expect("kept").content, value("acknowledged"));
    three.assert_equal_digests().await;
}
