//! Copies and edits of conversations: what they leave, what they cost, and what another write between their two steps does.

use bytes::Bytes;
use quorate::client::{Client, Content, CopyOptions, ErrorKind, Version, WriteOptions};

use super::fake::{Cluster, Fault, counters};
use super::{client, content, two_clients, value};

fn messages(texts: &[&str]) -> Vec<Bytes> {
    texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect()
}

fn transcript(texts: &[&str], counts: &[u64]) -> Content {
    Content::Transcript { messages: messages(texts), head: "{}".into(), counters: counters(counts) }
}

async fn save(client: &Client, id: &str, content: Content) {
    client.save(id, content, WriteOptions::default()).await.expect("saved");
}

#[tokio::test]
async fn a_copy_is_a_session_of_its_own_with_the_items_that_were_asked_for() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    save(&client, "t", transcript(&["a", "b", "c"], &[5])).await;
    save(&client, "v", value("hello")).await;
    for (to, first_items, with_counters, expected) in [
        ("all", None, false, transcript(&["a", "b", "c"], &[])),
        ("counted", None, true, transcript(&["a", "b", "c"], &[5])),
        ("none", Some(0), false, transcript(&[], &[])),
        ("two", Some(2), false, transcript(&["a", "b"], &[])),
        ("more", Some(9), false, transcript(&["a", "b", "c"], &[])),
    ] {
        let options = CopyOptions { first_items, with_counters, ..CopyOptions::default() };
        let copied = client.copy("t", to, options).await.expect("saved").expect("there is one");
        assert_eq!(copied.version, Version(1));
        assert_eq!(content(client.load(to).await.expect("answered")), expected, "{to}");
    }
    client
        .copy("v", "w", CopyOptions { first_items: Some(1), ..CopyOptions::default() })
        .await
        .expect("saved")
        .expect("there is one");
    assert_eq!(content(client.load("w").await.expect("answered")), value("hello"));
    let before = cluster.applied();
    let taken = client.copy("t", "two", CopyOptions::default()).await.expect_err("it is there");
    assert_eq!(taken.kind(), ErrorKind::Conflict { actual: Version(1) });
    assert_eq!(client.copy("nobody", "new", CopyOptions::default()).await.expect("answered"), None);
    assert_eq!(client.copy("t", "t", CopyOptions::default()).await.expect_err("one").kind(), ErrorKind::Invalid);
    assert_eq!(cluster.applied(), before + 1, "the conflict is recorded, and nothing else was written");
}

#[tokio::test]
async fn items_are_replaced_from_a_number_on() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    save(&client, "t", transcript(&["a", "b", "c"], &[5])).await;
    for (item, new, expected) in
        [(2, &["d"][..], &["a", "b", "d"][..]), (3, &["e"], &["a", "b", "d", "e"]), (2, &[], &["a", "b"]), (0, &["x"], &["x"])]
    {
        client.replace_from("t", item, messages(new)).await.expect("saved").expect("there is one");
        assert_eq!(content(client.load("t").await.expect("answered")), transcript(expected, &[5]), "from {item}");
    }
    assert_eq!(cluster.changes()[2], (true, 1, cluster.changes()[2].2), "at the end, it is an append");
    let beyond = client.replace_from("t", 2, Vec::new()).await.expect_err("there is one item");
    assert!(beyond.to_string().contains("field=item value=2 min=0 max=1"), "{beyond}");
    assert_eq!(client.replace_from("nobody", 0, Vec::new()).await.expect("answered"), None);
    save(&client, "v", value("hello")).await;
    assert_eq!(client.replace_from("v", 0, Vec::new()).await.expect_err("a value").kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_cleared_conversation_keeps_its_id_its_head_and_its_versions() {
    let (cluster, nodes) = Cluster::start(1).await;
    let [writer, other] = two_clients(&nodes);
    save(&writer, "t", transcript(&["a", "b"], &[5])).await;
    let cleared = other.clear("t").await.expect("saved").expect("there is one");
    assert_eq!(cleared.version, Version(2));
    assert_eq!(cluster.answers(), ["suffix"], "no item travels");
    assert_eq!(content(writer.load("t").await.expect("answered")), transcript(&[], &[5]));
    assert_eq!(other.clear("nobody").await.expect("answered"), None);
    save(&writer, "v", value("hello")).await;
    assert_eq!(other.clear("v").await.expect_err("a value").kind(), ErrorKind::Invalid);
}

/// The save waits at the node while another client saves: what that one stored stays.
#[tokio::test]
async fn an_edit_of_what_another_changed_meanwhile_is_a_conflict() {
    for is_clear in [false, true] {
        let (cluster, nodes) = Cluster::start(1).await;
        let [one, other] = two_clients(&nodes);
        save(&one, "t", transcript(&["a"], &[])).await;
        save(&other, "mine", value("x")).await;
        let arrived = cluster.arrivals();
        // Of the two calls of an edit, the second is the write.
        nodes[0].then(Fault::StrangeTag).then(Fault::Hold);
        let edit = tokio::spawn(async move {
            if is_clear { other.clear("t").await } else { other.replace_from("t", 0, messages(&["z"])).await }
        });
        cluster.arrived(arrived + 2).await;
        save(&one, "t", transcript(&["a", "b"], &[])).await;
        cluster.open_gate();
        let conflict = edit.await.expect("no panic").expect_err("a conflict");
        assert_eq!(conflict.kind(), ErrorKind::Conflict { actual: Version(2) }, "clear={is_clear}");
        assert_eq!(content(one.load("t").await.expect("answered")), transcript(&["a", "b"], &[]));
    }
}
