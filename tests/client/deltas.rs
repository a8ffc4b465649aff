//! What is sent and what is asked for, when something is known.

use quorate::client::{Client, Content, ErrorKind, Expected, Version, WriteOptions};
use quorate::types::{Blob, Change, Chunk, Expiry, Write};

use super::fake::{Cluster, Fault, counters};
use super::{client, content};

fn transcript(items: usize, usage: u64) -> Content {
    let messages = (0..items).map(|n| format!("{{\"content\":\"message {n}\"}}").into()).collect();
    Content::Transcript { messages, head: "{}".into(), counters: counters(&[usage]) }
}

async fn save(client: &Client, content: Content) -> Version {
    client.save("s", content, WriteOptions::default()).await.expect("saved").version
}

async fn load(client: &Client) -> Content {
    content(client.load("s").await.expect("answered"))
}

fn id() -> quorate::types::SessionId {
    quorate::types::SessionId::new("s").expect("short")
}

/// Somebody else's full change.
fn overwrite(text: &str) -> Write {
    let head = Blob::plain(format!("\u{0}{text}").into_bytes().into());
    let change = Change::Full { chunks: Vec::<Chunk>::new(), head, counters: counters(&[]) };
    Write::Save { request: no_request(), id: id(), change, attributes: Expiry::Keep.into(), fence: None }
}

fn no_request() -> quorate::types::Request {
    let (client, nonce) = (quorate::types::ClientId(0), quorate::types::Nonce([0; 16]));
    let sequence = quorate::types::Sequence(0);
    quorate::types::Request { client, nonce, sequence, acknowledged_below: sequence }
}

#[tokio::test]
async fn a_save_sends_only_what_is_new() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    for items in [3, 5, 5, 9] {
        save(&client, transcript(items, items as u64)).await;
    }
    let sent: Vec<_> = cluster.changes().iter().map(|(delta, items, _)| (*delta, *items)).collect();
    assert_eq!(sent, [(false, 3), (true, 2), (true, 0), (true, 4)]);
    assert_eq!(load(&super::client(&nodes)).await, transcript(9, 9));
}

#[tokio::test]
async fn a_conditional_save_is_a_delta_of_the_version_it_expects() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    save(&client, transcript(3, 1)).await;
    let at = |version| Expected::At { version: Version(version), create_revision: None };
    let options = WriteOptions::default();
    client.save_if_version("s", transcript(4, 1), at(1), options.clone()).await.expect("saved");
    assert!(cluster.changes()[1].0);
    let conflict = client.save_if_version("s", transcript(5, 1), at(1), options).await.expect_err("a conflict");
    assert_eq!(conflict.kind(), ErrorKind::Conflict { actual: Version(2) });
    assert_eq!(load(&client).await, transcript(4, 1));
}

#[tokio::test]
async fn history_rewritten_and_a_counter_that_fell_are_sent_whole() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    save(&client, transcript(5, 5)).await;
    for content in [transcript(4, 5), transcript(6, 1), Content::Value("plain".into()), transcript(2, 9)] {
        save(&client, content.clone()).await;
        assert!(!cluster.changes().last().expect("sent").0, "{content:?}");
        assert_eq!(load(&client).await, content);
        assert_eq!(load(&super::client(&nodes)).await, content);
    }
}

#[tokio::test]
async fn a_load_of_what_is_known_brings_only_what_is_new() {
    let (cluster, nodes) = Cluster::start(1).await;
    let (one, other) = (client(&nodes), client(&nodes));
    save(&one, transcript(3, 1)).await;
    assert_eq!(load(&other).await, transcript(3, 1));
    assert_eq!(load(&other.clone()).await, transcript(3, 1));
    save(&one, transcript(7, 4)).await;
    let session = other.load("s").await.expect("answered").expect("stored");
    assert_eq!((session.info.version, session.info.items, session.content), (Version(2), 7, transcript(7, 4)));
    save(&one, transcript(2, 1)).await;
    assert_eq!(load(&other).await, transcript(2, 1));
    one.delete("s", None).await.expect("deleted");
    assert_eq!(other.load("s").await.expect("answered"), None);
    assert_eq!(cluster.answers(), ["full", "not modified", "tail", "full", "not found"]);
}

/// The base is overwritten by another client meanwhile: the whole follows under the same request, and the caller sees nothing of it.
#[tokio::test]
async fn a_base_that_is_not_current_is_followed_by_the_whole_under_the_same_request() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    save(&client, transcript(3, 1)).await;
    cluster.apply(overwrite("theirs"));
    assert_eq!(save(&client, transcript(4, 2)).await, Version(3));
    let seen = cluster.seen();
    assert_eq!((seen.len(), seen[1].sequence), (3, seen[2].sequence));
    assert_eq!(cluster.changes().iter().map(|change| change.0).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(load(&super::client(&nodes)).await, transcript(4, 2));
    save(&client, transcript(5, 2)).await;
    assert!(cluster.changes()[3].0, "what was stored whole is a base");
}

#[tokio::test]
async fn a_delta_whose_reply_is_lost_is_applied_once() {
    let (_, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    save(&client, transcript(3, 1)).await;
    nodes[0].then(Fault::LoseReply);
    assert_eq!(save(&client, transcript(4, 2)).await, Version(2));
    assert_eq!(save(&client, transcript(5, 3)).await, Version(3));
    assert_eq!(load(&super::client(&nodes)).await, transcript(5, 3));
}

/// A restore keeps creations and versions: what was known of the old cluster must not be taken for what the new one holds.
#[tokio::test]
async fn another_cluster_means_nothing_known() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    save(&client, transcript(3, 1)).await;
    assert_eq!(load(&client).await, transcript(3, 1));
    cluster.become_another();
    assert_eq!(load(&client).await, transcript(3, 1));
    assert_eq!(cluster.answers(), ["full", "full"]);
    assert_eq!(save(&client, transcript(4, 1)).await, Version(2));
    cluster.become_another_again();
    assert_eq!(save(&client, transcript(5, 1)).await, Version(3));
    assert!(!cluster.changes().last().expect("sent").0, "a base of another cluster was used");
    assert_eq!(load(&super::client(&nodes)).await, transcript(5, 1));
}

#[tokio::test]
async fn many_chunks_are_repacked_into_few() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    for items in 1..=1030 {
        save(&client, transcript(items, 1)).await;
    }
    let whole: Vec<_> = cluster.changes().iter().enumerate().filter(|(_, change)| !change.0).map(|(at, _)| at).collect();
    assert_eq!(whole, [0, 1024]);
    assert_eq!(load(&super::client(&nodes)).await, transcript(1030, 1));
}
