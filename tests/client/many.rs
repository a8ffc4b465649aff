//! Loads of several sessions together: what comes back, what is asked again, and what an older node makes of it.

use quorate::client::{Client, Consistency, Content, ErrorKind, LoadOptions, Part, PartOf, Session, Version, WriteOptions};

use super::fake::{Cluster, Fault};
use super::{client, value};

async fn save(client: &Client, id: &str, text: &'static str) {
    client.save(id, value(text), WriteOptions::default()).await.expect("saved");
}

fn contents(loaded: Vec<Option<Session>>) -> Vec<Option<Content>> {
    loaded.into_iter().map(|session| session.map(|session| session.content)).collect()
}

#[tokio::test]
async fn sessions_come_in_the_order_of_their_ids_and_each_is_asked_for_only_what_is_new() {
    let (cluster, nodes) = Cluster::start(1).await;
    let writer = client(&nodes);
    save(&writer, "a", "one").await;
    save(&writer, "b", "two").await;
    let reader = client(&nodes);
    let ids = ["b", "none", "a", "b"];
    let expected = [Some(value("two")), None, Some(value("one")), Some(value("two"))];
    assert_eq!(contents(reader.load_many(&ids).await.expect("answered")), expected);
    assert_eq!(cluster.answers(), ["full", "not found", "full", "full"]);
    let reads = reader.load_many_with(&ids, LoadOptions::default()).await.expect("answered");
    assert_eq!(cluster.answers()[4..], ["not modified", "not found", "not modified", "not modified"]);
    assert!(reads.iter().all(|read| read.revision == reads[0].revision));
    // What it learned serves a load, and the other way round.
    assert!(reader.load("a").await.expect("answered").is_some());
    save(&writer, "a", "three").await;
    assert_eq!(contents(reader.load_many(&["a"]).await.expect("answered")), [Some(value("three"))]);
    assert_eq!(cluster.answers()[8..], ["not modified", "full"]);
    // A stale answer may be older than what is known: nothing is asked by it, and nothing learned.
    reader.load_many_with(&["a"], LoadOptions { consistency: Consistency::Stale }).await.expect("answered");
    assert_eq!(cluster.answers()[10..], ["full"]);
}

/// The ids of one cluster are the ids of others as well: what is known of one means nothing there.
#[tokio::test]
async fn what_is_known_of_another_cluster_is_not_asked_by() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    save(&client, "a", "one").await;
    save(&client, "b", "two").await;
    client.load_many(&["a", "b"]).await.expect("answered");
    cluster.become_another();
    assert_eq!(contents(client.load_many(&["a"]).await.expect("answered")), [Some(value("one"))]);
    // Of the first it knows the new cluster, of the second the old one.
    assert_eq!(contents(client.load_many(&["a", "b"]).await.expect("answered")), [Some(value("one")), Some(value("two"))]);
    assert_eq!(cluster.answers()[2..], ["full", "not modified", "full"]);
}

#[tokio::test]
async fn each_part_is_as_one_load_gives_it_and_none_enters_the_memory_of_contents() {
    let (cluster, nodes) = Cluster::start(1).await;
    let writer = client(&nodes);
    save(&writer, "a", "one").await;
    save(&writer, "b", "two").await;
    let reader = client(&nodes);
    let mut wanted = [
        PartOf::new("a", Part::Info),
        PartOf::new("b", Part::Last(2)),
        PartOf::new("c", Part::Head),
        PartOf::new("b", Part::Whole),
    ];
    let reads = reader.load_parts(&wanted, Consistency::Linearizable).await.expect("answered");
    let found: Vec<_> = reads.iter().map(|read| read.part.as_ref().map(|part| (part.info.version, part.content.clone()))).collect();
    let two = Some((Version(1), Some(value("two"))));
    assert_eq!(found, [Some((Version(1), None)), two.clone(), None, two]);
    for (wanted, read) in wanted.iter_mut().zip(&reads) {
        wanted.have = read.part.as_ref().and_then(|part| part.seen());
    }
    save(&writer, "a", "three").await;
    let again = reader.load_parts(&wanted, Consistency::Linearizable).await.expect("answered");
    assert_eq!(again.iter().map(|read| read.not_modified).collect::<Vec<_>>(), [false, true, false, true]);
    assert_eq!(again[0].part.as_ref().expect("another content").info.version, Version(2));
    assert!(reader.load("b").await.expect("answered").is_some());
    assert_eq!(cluster.answers().last(), Some(&"full"), "nothing was known of it");
}

#[tokio::test]
async fn none_and_too_many_are_refused_by_name_and_nothing_is_sent() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    let long = "x".repeat(1025);
    for (ids, says) in [(vec![], "no session is named"), (vec!["a"; 65], "max=64"), (vec!["a", &*long], "1024")] {
        let error = client.load_many(&ids).await.expect_err("out of bounds");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(says), "{error}");
    }
    let error = client.load_parts(&[PartOf::new("a", Part::Last(0))], Consistency::Linearizable).await.expect_err("none");
    assert!(error.to_string().contains("field=part.last value=0"), "{error}");
    assert_eq!(cluster.loads(), 0);
}

/// Nothing a node of an earlier release has answers for one instant.
#[tokio::test]
async fn older_nodes_are_named_as_the_reason_once_each_was_asked() {
    let (cluster, nodes) = Cluster::start(3).await;
    cluster.become_older();
    let client = client(&nodes);
    let error = client.load_many(&["a", "b"]).await.expect_err("not known there");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("upgrade every node"), "{error}");
    assert_eq!(client.load("a").await.expect("each alone is known"), None);
}

/// A leader that changes in the middle of an answer: the frames of the attempt before are no part of the next.
#[tokio::test]
async fn an_answer_whose_connection_drops_is_asked_for_again_in_full() {
    let (_, nodes) = Cluster::start(1).await;
    let writer = client(&nodes);
    let mut state = 1u64;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    });
    let noise: Vec<u8> = noise.take(3 << 20).collect();
    writer.save("large", Content::Value(noise.clone().into()), WriteOptions::default()).await.expect("saved");
    save(&writer, "small", "one").await;
    nodes[0].then(Fault::CutAnswer);
    let loaded = client(&nodes).load_many(&["small", "large"]).await.expect("answered");
    assert_eq!(contents(loaded), [Some(value("one")), Some(Content::Value(noise.into()))]);
}

/// A caller that went away in the middle of a save of either session: what it loads next comes after it.
#[tokio::test]
async fn a_load_of_several_waits_for_abandoned_writes_of_each() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    for id in ["a", "b"] {
        nodes[0].then(Fault::Hold);
        let save = client.save(id, value("new"), WriteOptions::default());
        let arrived = cluster.arrivals() + 1;
        tokio::select! {
            _ = save => panic!("it is held"),
            () = cluster.arrived(arrived) => {}
        }
    }
    let loading = client.load_many(&["none", "a", "b"]);
    tokio::pin!(loading);
    // Asked after it and answered before: it was not sent.
    let other = tokio::select! {
        biased;
        _ = &mut loading => panic!("it waits"),
        other = client.load("other") => other,
    };
    assert_eq!((other.expect("answered"), cluster.arrivals()), (None, 3));
    cluster.open_gate();
    let loaded = loading.await.expect("answered");
    assert_eq!(contents(loaded), [None, Some(value("new")), Some(value("new"))]);
}
