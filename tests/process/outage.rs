//! What works when nodes do not: stale reads, the files of a stopped node, sessions as JSON, and what nodes remember.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use quorate::client::{Content, WriteOptions};
use serde_json::{Value, json};

use crate::process::backup::{everything, fill, json, path, refused, succeeded};
use crate::process::harness::Cluster;
use crate::process::value;
use crate::support::bytes::places;

/// Every file below a directory, with its bytes.
fn bytes_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(bytes_of(&path));
        } else {
            all.insert(path.display().to_string(), std::fs::read(&path).expect("a file"));
        }
    }
    all
}

/// Asserts that nobody but the owner reads it, and all below it.
fn private(path: &Path) {
    let found = std::fs::metadata(path).expect("it is there");
    assert_eq!(found.permissions().mode() & 0o077, 0, "{}", path.display());
    if found.is_dir() {
        std::fs::read_dir(path).expect("a listing").for_each(|entry| private(&entry.expect("an entry").path()));
    }
}

/// Two of three nodes are gone, then the third: what it holds can be read all the same, and nothing of it is changed by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_and_without_a_node_the_sessions_can_be_read() {
    let mut cluster = Cluster::start(3).await;
    fill(&cluster.client()).await;
    let before = everything(&cluster.client()).await;
    cluster.assert_equal_digests().await;
    let file = cluster.dir().join("whole.jsonl");
    succeeded(&cluster.run(&["session", "export", "--file", path(&file)]));
    let exported = std::fs::read_to_string(&file).expect("the export");
    assert_eq!(exported.lines().count(), before.len());
    private(&file);
    private(&cluster.data_dir(3));
    refused(&cluster.run(&["session", "export", "--file", path(&file)]), 2, &["already", "nothing was written", "whole.jsonl"]);

    cluster.kill(1);
    cluster.kill(2);
    refused(&cluster.run(&["session", "get", "value 7", "--timeout", "1s"]), 4, &[]);
    let got = cluster.run(&["session", "get", "value 7", "--stale"]);
    assert_eq!(succeeded(&got), "content 7");
    let text = String::from_utf8_lossy(&got.stderr).into_owned();
    assert!(text.starts_with("stale: writes acknowledged until ") && text.contains(" ago are in it"), "{text}");
    let listed = cluster.run(&["session", "ls", "--stale", "-o", "json"]);
    assert_eq!(json(&listed)["sessions"].as_array().map(Vec::len), Some(before.len()));
    assert!(String::from_utf8_lossy(&listed.stderr).starts_with("stale: "));
    let stale = succeeded(&cluster.run(&["session", "export", "--stale", "value 7"]));
    assert!(exported.contains(stale.split("\"revision\"").next().expect("text")), "{stale}");

    let dir = cluster.data_dir(3);
    let offline = |command: &str| cluster.run(&["offline", command, "--data-dir", path(&dir)]);
    refused(&offline("inspect"), 1, &["lock", "another process"]);
    // Restarted and stopped in order, so that everything is in its state file.
    succeeded(&cluster.run(&["events", "-o", "json"]));
    cluster.stop(3).await;
    let untouched = bytes_of(&dir);
    let offline = |command: &str| cluster.run(&["offline", command, "--data-dir", path(&dir), "-o", "json"]);
    assert_eq!(json(&offline("inspect"))["sessions"], before.len());
    let verified = json(&offline("verify"));
    assert_eq!((&verified["sessions"], &verified["damage"]), (&json!(before.len()), &json!("none")));
    let read = succeeded(&cluster.run(&["offline", "export", "--data-dir", path(&dir)]));
    let without_revision = |text: &str| -> Vec<Value> {
        let parse = |line: &str| {
            let mut document: Value = serde_json::from_str(line).expect("a document");
            document["revision"].take();
            document
        };
        text.lines().map(parse).collect()
    };
    assert_eq!(without_revision(&read), without_revision(&exported));
    assert_eq!(bytes_of(&dir), untouched, "nothing was written");

    // Both exports make the same sessions elsewhere.
    let other = Cluster::start(1).await;
    assert_eq!(json(&other.run(&["session", "import", path(&file), "-o", "json"]))["imported"], before.len());
    let contents = |all: Vec<(quorate::client::Listed, Content)>| -> Vec<(String, Vec<u8>)> {
        all.into_iter().map(|(listed, content)| (listed.id.as_str().to_owned(), content.to_json().expect("JSON"))).collect()
    };
    assert_eq!(contents(everything(&other.client()).await), contents(before.clone()));
    let again = json(&other.run(&["session", "import", path(&file), "--if-absent", "-o", "json"]));
    assert_eq!((&again["imported"], &again["existed"]), (&json!(0), &json!(before.len())));

    // One bit of a stored value.
    let (name, mut bytes) = untouched.into_iter().find(|(name, _)| name.ends_with(".redb")).expect("a state file");
    let places = places(&bytes, b"content 11");
    places.iter().for_each(|at| bytes[*at] ^= 1);
    assert!(!places.is_empty(), "the value lies in the file as it is");
    std::fs::write(&name, bytes).expect("a writable directory");
    refused(&cluster.run(&["offline", "verify", "--data-dir", path(&dir)]), 1, &["state", "damaged"]);
    let output = cluster.run(&["offline", "export", "--data-dir", path(&dir)]);
    refused(&output, 1, &["state", "damaged"]);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("content 11"), "what is damaged is not exported");
}

/// The file outlives the process, however that ends, and hostile content costs nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_survive_a_restart_and_a_hostile_file() {
    let mut cluster = Cluster::start(1).await;
    cluster.stop(1).await;
    cluster.restart(1);
    cluster.leader().await;
    let events = json(&cluster.run(&["events", "-o", "json"]));
    let kinds: Vec<&str> = events["events"].as_array().expect("events").iter().filter_map(|event| event["kind"].as_str()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "started").count(), 2, "{kinds:?}");
    ["leader", "membership", "stopped"].iter().for_each(|kind| assert!(kinds.contains(kind), "{kind} is not in {kinds:?}"));
    assert!(succeeded(&cluster.run(&["events"])).contains("voters=1"));
    cluster.stop(1).await;
    std::fs::write(cluster.data_dir(1).join("events"), b"\xff\t\n7\tleader\tterm=1\n\x00\x00".repeat(999))
        .expect("a writable directory");
    cluster.restart(1);
    cluster.leader().await;
    let events = json(&cluster.run(&["events", "-o", "json"]));
    assert!(events["events"].as_array().is_some_and(|events| events.len() <= 1000), "{events}");
}

/// A directory of Bob's `FileSessionStore`: what is a session is imported, everything else is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_bobs_is_imported_and_hostile_files_are_named() {
    let cluster = Cluster::start(1).await;
    let dir = cluster.dir().join("bob");
    std::fs::create_dir(&dir).expect("a directory");
    let state = json!({ "messages": [{ "role": "user", "content": "hello" }], "version": 7 }).to_string();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("a writable directory");
    write("612f62.json", &state);
    write("session.json", &state);
    assert_eq!(json(&cluster.run(&["session", "import", path(&dir), "-o", "json"]))["imported"], 2);
    for id in ["a/b", ""] {
        let session = cluster.client().load(id).await.expect("a load").expect("it was imported");
        assert_eq!(session.info.version.0, 1);
        let Content::Transcript { messages, .. } = session.content else { panic!("a transcript") };
        assert_eq!(messages.len(), 1);
    }
    write("zz.json", &state);
    write("ff.json", &state);
    write("63.json", "{\"messages\":");
    write("64.json", "[]");
    write("61.json.tmp.1.2", &state);
    std::os::unix::fs::symlink("612f62.json", dir.join("65.json")).expect("a link");
    std::fs::create_dir(dir.join("66.json")).expect("a directory");
    let output = cluster.run(&["session", "import", path(&dir), "--if-absent"]);
    let (out, named) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), out.trim()), (Some(1), "imported=0 existed=2 expired=0 refused=7"), "{named}");
    for name in ["zz.json", "ff.json", "63.json", "64.json", "61.json.tmp.1.2", "65.json", "66.json"] {
        assert!(named.contains(&format!("file={name}")), "{name} is not in {named}");
    }
    cluster.client().save("after", value("x"), WriteOptions::default()).await.expect("the cluster goes on");
}
