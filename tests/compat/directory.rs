//! A whole data directory and a whole backup file of version 1, as one node left them: later versions start from them and find everything.
//!
//! The directory is kept as one file: for each file its path, its length and its bytes, and all of that packed with zstd. What is
//! reserved on the disk for hard times is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate::client::{Client, Content, WriteOptions};
use quorate::offline::StoppedNode;
use quorate::testing::Cluster;
use quorate::types::{Counters, Expected, Expiry, Version};

use crate::compat::{path_of, stored};

const DIRECTORY: &str = "data_directory.zst";
const BACKUP: &str = "backup";
const UNPACKED_BYTES_MAX: usize = 256 << 20;
const SEGMENT_BYTES: u64 = 64 * 1024;
const RESERVED: &str = "RESERVE";

fn transcript(messages: &[&str]) -> Content {
    let messages = messages.iter().map(|message| Bytes::copy_from_slice(message.as_bytes())).collect();
    Content::Transcript { messages, head: Bytes::from_static(b"{\"session_id\":\"t\"}"), counters: Counters::default() }
}

/// One of everything a session can be.
fn kept() -> Vec<(&'static str, Version, Content)> {
    let long = "0123456789abcdef".repeat(2000);
    vec![
        ("", Version(1), Content::Value("an empty id".into())),
        ("a/b?c=..", Version(1), Content::Value(Bytes::from_static(b"\0\xff"))),
        ("long", Version(1), Content::Value(long.into())),
        ("reborn", Version(3), Content::Value("after a delete".into())),
        (
            "transcript",
            Version(2),
            transcript(&["{\"role\":\"user\",\"content\":\"hi\"}", "{\"role\":\"assistant\",\"content\":\"hello\"}"]),
        ),
    ]
}

async fn fill(client: &Client) {
    let save = async |id: &str, content: Content| client.save(id, content, WriteOptions::default()).await.expect("a save");
    for (id, _, content) in kept() {
        match id {
            "reborn" => {
                save(id, Content::Value("before".into())).await;
                client.delete(id, None).await.expect("a delete");
                save(id, content).await;
            }
            "transcript" => {
                save(id, transcript(&["{\"role\":\"user\",\"content\":\"hi\"}"])).await;
                client.load(id).await.expect("a load");
                save(id, content).await;
            }
            _ => drop(save(id, content).await),
        }
    }
    save("deleted", Content::Value("x".into())).await;
    client.delete("deleted", None).await.expect("a delete");
    let expiry = Expiry::After(std::time::Duration::from_secs(300 * 24 * 3600));
    client
        .save("expires", Content::Value("one day".into()), WriteOptions { expiry, ..WriteOptions::default() })
        .await
        .expect("a save");
}

/// Everything below a directory, by relative path.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(next).expect("a directory of ours") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.file_name().is_some_and(|name| name != RESERVED && name != "LOCK") {
                found.insert(path.strip_prefix(dir).expect("below it").to_owned(), std::fs::read(&path).expect("readable"));
            }
        }
    }
    found
}

fn packed(files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<u8> {
    let mut all = Vec::new();
    for (path, bytes) in files {
        let path = path.to_str().expect("our names are text");
        all.extend((path.len() as u32).to_le_bytes());
        all.extend((bytes.len() as u64).to_le_bytes());
        all.extend(path.as_bytes());
        all.extend(bytes);
    }
    zstd::bulk::compress(&all, 19).expect("memory")
}

fn unpack_into(dir: &Path, packed: &[u8]) {
    let all = zstd::bulk::decompress(packed, UNPACKED_BYTES_MAX).expect("packed by us");
    let mut rest = &all[..];
    while let Some((path_len, after)) = rest.split_first_chunk::<4>() {
        let (len, after) = after.split_first_chunk::<8>().expect("a length");
        let (path, after) = after.split_at(u32::from_le_bytes(*path_len) as usize);
        let (bytes, after) = after.split_at(u64::from_le_bytes(*len) as usize);
        let path = dir.join(std::str::from_utf8(path).expect("our names are text"));
        std::fs::create_dir_all(path.parent().expect("in a directory")).expect("writable");
        std::fs::write(path, bytes).expect("writable");
        rest = after;
    }
}

/// Makes the golden files that are missing, if that is asked for.
async fn make_missing() {
    if (path_of(DIRECTORY).exists() && path_of(BACKUP).exists()) || std::env::var_os("REWRITE_GOLDEN").is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let builder = Cluster::builder().nodes(1).segment_bytes(SEGMENT_BYTES).data_dir(dir.path());
    let mut cluster = builder.start().await.expect("a cluster");
    let client = cluster.client();
    fill(&client).await;
    let mut backup = client.backup(Default::default(), std::time::Duration::from_secs(10)).await.expect("a backup");
    let mut whole = Vec::new();
    while let Some(piece) = backup.next().await.expect("a piece") {
        whole.extend_from_slice(&piece.data);
    }
    // Closing it would take its row out of the table of clients, which is to be among what is kept.
    drop(client);
    cluster.stop(1).await.expect("it ends in order");
    std::fs::write(path_of(DIRECTORY), packed(&files(&dir.path().join("1")))).expect("writable");
    std::fs::write(path_of(BACKUP), whole).expect("writable");
}

#[tokio::test]
async fn a_node_starts_from_a_golden_data_directory_and_has_everything() {
    make_missing().await;
    let dir = tempfile::tempdir().expect("a directory");
    unpack_into(&dir.path().join("1"), &stored(DIRECTORY));
    {
        let offline = StoppedNode::open(&dir.path().join("1")).expect("a stopped node's files");
        let summary = offline.verify(|_| {}).expect("nothing is damaged");
        assert_eq!((summary.sessions, summary.tombstones, summary.cluster_version), (6, 1, 1));
        assert!(summary.clients >= 1, "{summary:?}");
    }
    let cluster = Cluster::builder().nodes(1).segment_bytes(SEGMENT_BYTES).data_dir(dir.path()).start().await.expect("it starts");
    let client = cluster.client();
    for (id, version, content) in kept() {
        let session = client.load(id).await.expect("a load").expect("it was saved");
        assert_eq!((session.info.version, session.content), (version, content), "{id:?}");
    }
    // Versions count on where a tombstone is, unless its seven days are over by now.
    assert!(client.load("deleted").await.expect("a load").is_none());
    let next = client.save_if_version(
        "a/b?c=..",
        Content::Value("y".into()),
        Expected::At { version: Version(1), create_revision: None },
        WriteOptions::default(),
    );
    assert_eq!(next.await.expect("it has version 1").version, Version(2));
    client.close().await;
}

#[test]
fn a_golden_backup_is_whole_and_says_what_is_in_it() {
    let bytes = stored(BACKUP);
    let (header, summary, _) = quorate::server::backup::verify(&bytes[..], |_| {}).expect("it is whole");
    assert_eq!((&header.name[..], summary.sessions, summary.tombstones), ("test", 6, 1));
}
