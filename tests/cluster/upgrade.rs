//! A rolling upgrade in one process: once every member knows the next cluster version, the leader raises it, and everything goes on.
//!
//! In a separate process, because knowing the test-only version is a property of the whole process.

use std::process::Command;

use quorate::client::{Content, Version, WriteOptions};
use quorate::machine::{TEST_VERSION, allow_test_version};
use quorate::testing::Cluster;

/// Where this variable is set, the process is the test's own.
const OWN: &str = "QUORATE_TEST_OWN_PROCESS";

/// Entries of the old format, the change, entries of the new format: all replicas agree, also after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_version_rises_once_every_member_knows_it_and_nothing_is_lost() {
    if std::env::var_os(OWN).is_none() {
        let mut own = Command::new(std::env::current_exe().expect("this program"));
        own.args(["--exact", "cluster::upgrade::cluster_version_rises_once_every_member_knows_it_and_nothing_is_lost"]);
        let output = own.env(OWN, "").output().expect("this program");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        return;
    }
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let client = cluster.client();
    let value = |text: &'static str| Content::Value(text.into());
    client.save("before", value("old format"), WriteOptions::default()).await.expect("a save");
    let status = cluster.status().await.expect("a status");
    assert!(status.nodes.iter().all(|node| node.cluster_version == 1), "{status:?}");

    allow_test_version();
    let risen = |node: &quorate::client::NodeStatus| node.cluster_version == u32::from(TEST_VERSION);
    cluster.wait_for("the version in force", |status| status.nodes.iter().all(risen)).await.expect("it rises by itself");
    client.save("after", value("new format"), WriteOptions::default()).await.expect("a save");

    let leader = cluster.leader().await.expect("a leader");
    cluster.kill(leader).await.expect("it runs");
    cluster.restart(leader).await.expect("it reads its own log");
    for (id, text) in [("before", "old format"), ("after", "new format")] {
        let session = client.load(id).await.expect("a load").expect("it was saved");
        assert_eq!((session.info.version, session.content), (Version(1), value(text)));
    }
    cluster.converged().await.expect("equal digests");
}
