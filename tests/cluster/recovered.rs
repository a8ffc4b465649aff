//! A state ahead of its log, and a log far ahead of the leader's.

use std::path::Path;
use std::time::Instant;

use quorate::client::{Content, WriteOptions};
use quorate::limits::NUMBER_MAX;
use quorate::offline::Survivor;
use quorate::testing;
use quorate::types::NodeId;
use quorate::wire::peer::v1 as peer;

use super::rig::{Cluster, PATIENCE};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a writable directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("it is there").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a file"))).expect("copied");
    }
}

/// As a snapshot leaves it whose node died before its log was cut: a new cluster begins behind the state, not behind the log.
#[tokio::test]
async fn recovery_begins_behind_a_state_that_is_ahead_of_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut cluster = testing::Cluster::builder().nodes(1).data_dir(dir.path()).start().await.expect("a cluster");
    let client = cluster.client();
    let save = async |n: u32| {
        let content = Content::Value(n.to_string().into());
        client.save("s", content, WriteOptions::default()).await.expect("a save").revision.0
    };
    save(1).await;
    cluster.stop(1).await.expect("it runs");
    let (node, earlier) = (dir.path().join("1"), dir.path().join("earlier"));
    copy(&node.join("log"), &earlier);
    cluster.restart(1).await.expect("its data is there");
    let mut last = 0;
    for n in 2..20 {
        last = save(n).await;
    }
    cluster.stop(1).await.expect("it runs");
    std::fs::remove_dir_all(node.join("log")).expect("ours");
    std::fs::rename(&earlier, node.join("log")).expect("ours");

    let report = Survivor::open(&node).expect("both parts are whole").report();
    assert!(report.flushed.index >= last, "{report:?}");
    assert_eq!(report.last, report.flushed, "{report:?}");
}

/// A leader that is cut off may fill its log for as long as it likes. However long that is, its state can be rebuilt.
#[tokio::test]
async fn a_member_whose_log_is_far_longer_than_the_leaders_is_sent_a_state_behind_it() {
    let cluster = Cluster::start(3).await;
    let (leader, follower) = cluster.leader_and_follower().await;
    let route = cluster.route(follower, leader).await;
    let here = cluster.status_of(NodeId(leader)).await.expect("it answers").last_log.expect("it has one");
    let last_index = here + 70_000;
    let request = peer::RebuildRequest { route: Some(route), from_instance: cluster.hello(follower).await.instance, last_index };
    let deadline = Instant::now() + PATIENCE;
    let mut frames = loop {
        match cluster.peer(leader).rebuild(request.clone()).await {
            Ok(frames) => break frames.into_inner(),
            // An entry may take its time; what is there by then stays.
            Err(status) => assert!(Instant::now() < deadline, "{status}"),
        }
    };
    let Some(peer::snapshot_frame::Frame::Start(start)) = frames.message().await.expect("a frame").expect("the first").frame else {
        panic!("a state begins with what it is of")
    };
    assert!(start.last_log.expect("it has one").index > last_index);
    let endless = peer::RebuildRequest { last_index: NUMBER_MAX, ..request };
    drop(frames);
    let refused = loop {
        let status = cluster.peer(leader).rebuild(endless.clone()).await.expect_err("no leader lets so many be in flight");
        // The other one has just been let go of.
        if status.code() != tonic::Code::ResourceExhausted {
            break status;
        }
    };
    assert!(refused.message().contains("replace the node under a new id"), "{refused}");
}
