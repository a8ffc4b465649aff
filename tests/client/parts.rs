//! Parts of a session: what comes back, what an older node's answer is cut to, and that nothing else is touched.

use bytes::Bytes;
use quorate::client::{Client, Content, ErrorKind, Part, PartOptions, SessionPart, Version, WriteOptions};

use super::fake::{Cluster, counters};
use super::{client, content, value};

fn messages(from: u64, until: u64) -> Vec<Bytes> {
    (from..until).map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}", "word ".repeat(n as usize % 7)).into()).collect()
}

fn transcript(count: u64) -> Content {
    Content::Transcript { messages: messages(0, count), head: "{}".into(), counters: counters(&[5, 6]) }
}

/// Ten messages in chunks of 3, 1, 4 and 2.
async fn converse(client: &Client, id: &str) {
    for count in [3, 4, 8, 10] {
        client.save(id, transcript(count), WriteOptions::default()).await.expect("saved");
    }
}

fn held(part: &SessionPart) -> &[Bytes] {
    match &part.content {
        Some(Content::Transcript { messages, head, counters: stored }) => {
            assert_eq!((head.as_ref(), stored), (&b"{}"[..], &counters(&[5, 6])));
            messages
        }
        other => panic!("a transcript, not {other:?}"),
    }
}

#[tokio::test]
async fn a_part_holds_the_items_it_names_whatever_release_the_node_is_of() {
    for is_older in [false, true] {
        let (cluster, nodes) = Cluster::start(1).await;
        converse(&client(&nodes), "t").await;
        if is_older {
            cluster.become_older();
        }
        let reader = client(&nodes);
        let from = |item, limit| Part::From { item, limit };
        for (part, items) in [
            (Part::Whole, 0..10),
            (Part::Head, 10..10),
            (Part::Last(1), 9..10),
            (Part::Last(2), 8..10),
            (Part::Last(7), 3..10),
            (Part::Last(100_000), 0..10),
            (from(0, 1), 0..1),
            (from(2, 3), 2..5),
            (from(5, 2), 5..7),
            (from(9, 100), 9..10),
            (from(10, 1), 10..10),
            (from(u64::MAX, 1), 10..10),
        ] {
            let loaded = reader.load_part("t", part).await.expect("answered").expect("stored");
            assert_eq!(held(&loaded), messages(items.start, items.end), "{part:?} older={is_older}");
            assert_eq!((loaded.first_item, loaded.info.items, loaded.info.version), (items.start, 10, Version(4)), "{part:?}");
        }
        let info = reader.load_part("t", Part::Info).await.expect("answered").expect("stored");
        assert_eq!((info.content, info.first_item, info.info.counters), (None, 10, counters(&[5, 6])));
        assert_eq!(reader.load_part("none", Part::Last(1)).await.expect("answered"), None);
        let answer = if is_older { "full" } else { "suffix" };
        assert_eq!(cluster.answers().iter().filter(|given| **given == answer).count(), if is_older { 13 } else { 12 });
    }
}

#[tokio::test]
async fn a_plain_value_is_whole_in_every_part_with_a_head() {
    let (_, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    client.save("v", value("hello"), WriteOptions::default()).await.expect("saved");
    for part in [Part::Whole, Part::Head, Part::Last(3), Part::From { item: 7, limit: 1 }] {
        let loaded = client.load_part("v", part).await.expect("answered").expect("stored");
        assert_eq!((loaded.content, loaded.first_item), (Some(value("hello")), 0), "{part:?}");
    }
}

#[tokio::test]
async fn a_part_out_of_its_bounds_is_refused_by_name_and_nothing_is_sent() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    for (part, field) in
        [(Part::Last(0), "part.last value=0"), (Part::From { item: 3, limit: 100_001 }, "part.from.limit value=100001")]
    {
        let error = client.load_part("t", part).await.expect_err("out of bounds");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&format!("field={field} min=1 max=100000")), "{error}");
    }
    assert_eq!(cluster.loads(), 0);
}

/// A part is no content: a load after it asks for everything, and a save after it does not continue from it.
#[tokio::test]
async fn a_part_is_never_taken_for_the_content() {
    let (cluster, nodes) = Cluster::start(1).await;
    converse(&client(&nodes), "t").await;
    let reader = client(&nodes);
    let part = reader.load_part("t", Part::Last(2)).await.expect("answered").expect("stored");
    assert_eq!(held(&part), messages(8, 10));
    assert_eq!(content(reader.load("t").await.expect("answered")), transcript(10));
    assert_eq!(cluster.answers(), ["suffix", "full"]);
    reader.load_part("t", Part::Last(2)).await.expect("answered").expect("stored");
    assert_eq!(content(reader.load("t").await.expect("answered")), transcript(10));
    assert_eq!(cluster.answers()[2..], ["suffix", "not modified"], "what was known before is not lost by a part");
}

#[tokio::test]
async fn a_reader_who_has_the_content_gets_nothing_and_any_other_the_part() {
    for is_older in [false, true] {
        let (cluster, nodes) = Cluster::start(1).await;
        let writer = client(&nodes);
        converse(&writer, "t").await;
        if is_older {
            cluster.become_older();
        }
        let reader = client(&nodes);
        let first = reader.load_part("t", Part::Last(1)).await.expect("answered").expect("stored");
        let options = PartOptions { have: first.seen(), ..PartOptions::default() };
        let same = reader.load_part_with("t", Part::Last(1), options).await.expect("answered");
        assert_eq!((same.not_modified, same.part), (true, None), "older={is_older}");
        writer.save("t", transcript(12), WriteOptions::default()).await.expect("saved");
        let later = reader.load_part_with("t", Part::Last(1), options).await.expect("answered");
        assert!(!later.not_modified);
        assert_eq!(held(&later.part.expect("another content")), messages(11, 12), "older={is_older}");
        let expected: &[&str] =
            if is_older { &["full", "not modified", "tail", "full"] } else { &["suffix", "not modified", "suffix"] };
        assert_eq!(cluster.answers(), expected, "a tail does not hold what an older node was asked for");
        // Of another cluster, the same numbers are another content.
        cluster.become_another();
        let elsewhere =
            reader.load_part_with("t", Part::Last(1), PartOptions { have: first.seen(), ..PartOptions::default() }).await;
        assert!(elsewhere.expect("answered").part.is_some());
        writer.delete("t", None).await.expect("answered").expect("there was one");
        let gone = reader.load_part_with("t", Part::Info, options).await.expect("answered");
        assert_eq!((gone.not_modified, gone.part, gone.tombstone), (false, None, Version(6)));
    }
}
