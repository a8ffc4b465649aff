//! A backup of a running cluster, and new clusters out of it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use bytes::Bytes;
use quorate::client::{Client, Content, Counters, List, Listed, Revision, WriteOptions};
use quorate::server::backup;
use serde_json::Value;

use crate::process::harness::Cluster;
use crate::process::value;

pub fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn json(output: &Output) -> Value {
    serde_json::from_str(&succeeded(output)).expect("one JSON document")
}

/// The document of `status`, also while none leads, when it prints the nodes and exits with 4.
pub fn status_json(output: &Output) -> Value {
    assert!(matches!(output.status.code(), Some(0 | 4)), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Asserts the exit code, and that stderr is one line, with perhaps one for each endpoint below it, and holds all of `parts`. Gives it.
pub fn refused(output: &Output, code: i32, parts: &[&str]) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.trim_end().lines().skip(1).all(|line| line.starts_with("  ")), "one line, and what is below it: {message:?}");
    parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in {message:?}"));
    message
}

/// Values, a transcript in several chunks, a large one in several rows, and a session that was deleted.
pub async fn fill(client: &Client) {
    for number in 0..20 {
        client.save(&format!("value {number}"), value(format!("content {number}")), WriteOptions::default()).await.expect("a save");
    }
    let mut messages = Vec::new();
    for turn in 0..5 {
        messages.push(Bytes::from(format!("{{\"turn\":{turn}}}")));
        let counters = Counters::new(vec![turn, 1]).expect("two counters");
        let content = Content::Transcript { messages: messages.clone(), head: "{}".into(), counters };
        client.save("transcript", content, WriteOptions::default()).await.expect("a save");
    }
    let noise: Vec<u8> = (0..300_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    client.save("large", Content::Value(noise.into()), WriteOptions::default()).await.expect("a save");
    client.save("deleted", value("x"), WriteOptions::default()).await.expect("a save");
    client.delete("deleted", None).await.expect("a delete");
}

/// Every session with all that is known of it, and its content.
pub async fn everything(client: &Client) -> Vec<(Listed, Content)> {
    let page = client.list(List::default()).await.expect("a listing");
    assert!(!page.more);
    let mut all = Vec::new();
    for listed in page.sessions {
        let session = client.load(listed.id.as_str()).await.expect("a load").expect("it is listed");
        assert_eq!(session.info, listed.info);
        all.push((listed, session.content));
    }
    all
}

pub fn path(file: &Path) -> &str {
    file.to_str().expect("a path of ours")
}

/// A full cluster, its sessions, and a backup of it in its directory.
async fn backed_up() -> (Cluster, Vec<(Listed, Content)>, PathBuf, Value) {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    fill(&client).await;
    let before = everything(&client).await;
    let file = cluster.data().join("backup");
    // Neither what lies under the name that a temporary file once had, nor what it leads to, is touched.
    let victim = cluster.data().join("victim");
    std::fs::write(&victim, "victim").expect("a writable directory");
    let trap = cluster.data().join("backup.partial");
    std::os::unix::fs::symlink(&victim, &trap).expect("a link");
    let saved = json(&cluster.run(&["snapshot", "save", path(&file), "-o", "json"]));
    assert_eq!(std::fs::read_to_string(&trap).expect("it is still there"), "victim");
    assert_eq!(std::fs::metadata(&file).expect("the backup").permissions().mode() & 0o777, 0o600);
    (cluster, before, file, saved)
}

/// The same file makes a cluster of three and a cluster of one. In both is all that was there, with the same versions and
/// create_revisions, and nothing that came later; a client of the old cluster goes on with the new one; no revision comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_restores_into_three_nodes_and_into_one() {
    let (mut cluster, before, file, saved) = backed_up().await;
    assert_eq!(saved["sessions"], 22);
    assert_eq!(saved["tombstones"], 1);
    assert_eq!(json(&cluster.run(&["snapshot", "inspect", path(&file), "-o", "json"])), saved);
    let revision = saved["revision"].as_u64().expect("a number");

    // In place of the old cluster, with a client that knows the old one.
    let client = cluster.client();
    client.save("value 0", value("behind the backup"), WriteOptions::default()).await.expect("a save");
    client.save("later", value("behind the backup"), WriteOptions::default()).await.expect("a save");
    cluster.kill_all();
    cluster.use_data("restored");
    cluster.without_bootstrap();
    let restored = json(&cluster.run(&["snapshot", "restore", path(&file), "--data-dir", path(&cluster.data()), "-o", "json"]));
    assert_ne!(restored["cluster_id"], saved["cluster_id"]);
    assert_eq!(restored["nodes"].as_array().map(Vec::len), Some(3));
    cluster.restart_all();
    cluster.leader().await;
    assert_eq!(everything(&client).await, before, "the old client sees the new cluster, nothing of its cache");
    let written = client.save("value 0", value("new"), WriteOptions::default()).await.expect("the client opens itself again");
    assert!(written.revision > Revision(revision), "{written:?}");
    assert_eq!(written.version.0, 2, "it goes on from the restored version");
    let born = client.save("born later", value("new"), WriteOptions::default()).await.expect("a save");
    assert!(born.create_revision > Revision(revision), "{born:?}");
    let again = client.save("deleted", value("new"), WriteOptions::default()).await.expect("a save");
    assert_eq!(again.version.0, 3, "the tombstone was kept");
    cluster.assert_equal_digests().await;
    // What was restored survives as any other data does.
    let now = everything(&client).await;
    cluster.kill_all();
    cluster.restart_all();
    cluster.leader().await;
    assert_eq!(everything(&client).await, now);

    let mut single = Cluster::prepare(1);
    single.without_bootstrap();
    succeeded(&single.run(&["snapshot", "restore", path(&file), "--node", "1", "--data-dir", path(&single.data())]));
    single.restart_all();
    single.leader().await;
    assert_eq!(everything(&single.client()).await, before);
    let written = single.client().save("value 0", value("new"), WriteOptions::default()).await.expect("a save");
    assert!(written.revision > Revision(revision));
}

/// On several hosts each node is restored by itself, with the cluster id the first one printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_restored_one_by_one_with_one_cluster_id_are_one_cluster() {
    let (source, before, file, _) = backed_up().await;
    let mut cluster = Cluster::prepare(3);
    cluster.without_bootstrap();
    let data = cluster.data();
    let restore = |node: &str, more: &[&str]| {
        let args = ["snapshot", "restore", path(&file), "--data-dir", path(&data), "-o", "json", "--node", node];
        cluster.run(&[&args[..], more].concat())
    };
    let first = json(&restore("1", &[]));
    let id = first["cluster_id"].as_str().expect("text").to_owned();
    refused(&restore("2", &["--cluster-id", &"07".repeat(16)]), 2, &["--cluster-id", "24 hours"]);
    refused(&restore("2", &["--cluster-id", "abc"]), 2, &["32 hex digits"]);
    refused(&restore("9", &["--cluster-id", &id]), 2, &["id=9"]);
    // A backup of a moment later: two nodes made of the two would share revisions and differ in what those are.
    let client = source.client();
    client.save("value 0", value("behind the first backup"), WriteOptions::default()).await.expect("a save");
    let later = source.data().join("later");
    succeeded(&source.run(&["snapshot", "save", path(&later)]));
    let mixed = ["snapshot", "restore", path(&later), "--data-dir", path(&data), "--node", "2", "--cluster-id", &id];
    refused(&cluster.run(&mixed), 2, &["--cluster-id", "another backup", "nothing was written"]);
    assert!(!data.join("2").exists());
    succeeded(&restore("2", &["--cluster-id", &id]));
    succeeded(&restore("3", &["--cluster-id", &id]));
    refused(&restore("3", &["--cluster-id", &id]), 2, &["not empty", "nothing was changed"]);
    cluster.restart_all();
    cluster.leader().await;
    assert_eq!(everything(&cluster.client()).await, before);
    cluster.assert_equal_digests().await;
}

/// Whatever bit is flipped and wherever the file is cut: refused by record and offset, and nothing is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_cut_off_backup_is_refused_and_nothing_is_written() {
    let (cluster, _, file, _) = backed_up().await;
    let whole = std::fs::read(&file).expect("the backup");
    backup::verify(&whole[..], |_| {}).expect("it is whole");
    for at in (0..whole.len()).step_by(whole.len() / 500) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(backup::verify(&flipped[..], |_| {}).is_err(), "a flipped bit of byte {at}");
        assert!(backup::verify(&whole[..at], |_| {}).is_err(), "cut at {at}");
    }
    let longer = [&whole[..], b"x"].concat();
    backup::verify(&longer[..], |_| {}).expect_err("something behind the end");

    let damaged = cluster.data().join("damaged");
    let mut flipped = whole.clone();
    let at = whole.len() / 2;
    flipped[at] ^= 1;
    std::fs::write(&damaged, flipped).expect("a writable directory");
    refused(&cluster.run(&["snapshot", "inspect", path(&damaged)]), 1, &["damaged", "record=", "offset=", "file="]);
    let target = cluster.data().join("target");
    let restore = ["snapshot", "restore", path(&damaged), "--data-dir", path(&target)];
    refused(&cluster.run(&restore), 1, &["damaged", "record=", "offset="]);
    assert!(!target.exists(), "nothing was written");

    // What never was one is called that, and only what begins like one is damaged.
    for (bytes, what) in
        [(&b"hello\n"[..], "it does not begin like one"), (b"", "it is empty"), (&whole[1..], "it does not begin like one")]
    {
        std::fs::write(&damaged, bytes).expect("a writable directory");
        refused(&cluster.run(&["snapshot", "inspect", path(&damaged)]), 1, &["this is no backup of quorate", what, "file="]);
    }
    std::fs::write(&damaged, &whole[..5]).expect("a writable directory");
    refused(&cluster.run(&["snapshot", "inspect", path(&damaged)]), 1, &["the backup is damaged: it is cut off"]);

    // A directory that has data, here that of a running node, and a file that exists.
    let used = cluster.data();
    let restore = ["snapshot", "restore", path(&file), "--data-dir", path(&used)];
    refused(&cluster.run(&restore), 2, &["not empty", "nothing was changed"]);
    refused(&cluster.run(&["snapshot", "save", path(&file)]), 2, &["already"]);
    assert_eq!(std::fs::read(&file).expect("the backup"), whole);
}

/// Without a quorum a backup is refused, leaving no file behind, unless what one node has is enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_only_a_stale_backup_is_made() {
    let (mut cluster, before, _, _) = backed_up().await;
    cluster.kill(1);
    cluster.kill(2);
    let file = cluster.data().join("stale");
    refused(&cluster.run(&["snapshot", "save", path(&file), "--timeout", "2s"]), 4, &[]);
    let left = std::fs::read_dir(cluster.data()).expect("a listing").flatten().map(|entry| entry.file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with("stale")), "nothing is left of it");
    let saved = json(&cluster.run(&["snapshot", "save", path(&file), "--stale", "-o", "json"]));
    assert_eq!(saved["node"], 3);
    assert_eq!(saved["sessions"], before.len());
}
