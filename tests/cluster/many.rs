//! Sessions loaded together on whole nodes: of one instant, wherever they are asked for, and bounded together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quorate::client::{Client, Consistency, Content, ErrorKind, Part, PartOf, Session, WriteOptions};
use quorate::testing::Cluster;

use super::parts::noise;

const SESSIONS: usize = 8;

fn number(session: Option<&Session>) -> u64 {
    match session.map(|session| &session.content) {
        Some(Content::Value(bytes)) => u64::from_le_bytes(*bytes.first_chunk().expect("a number")),
        None => 0,
        other => panic!("a number, not {other:?}"),
    }
}

/// One writer gives the sessions the same number, one after the other: at any instant those at the front have the next one already, and
/// the others not yet.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_loaded_together_are_of_one_instant() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let ids: Arc<Vec<String>> = Arc::new((0..SESSIONS).map(|at| format!("s{at}")).collect());
    let is_over = Arc::new(AtomicBool::new(false));
    let (writer, written, over) = (cluster.client(), ids.clone(), is_over.clone());
    let writing = tokio::spawn(async move {
        for round in 1..=15u64 {
            for id in written.iter() {
                let content = Content::Value(Bytes::copy_from_slice(&round.to_le_bytes()));
                writer.save(id, content, WriteOptions::default()).await.expect("saved");
            }
        }
        over.store(true, Ordering::Release);
    });
    let readers = cluster.endpoints().into_iter().map(|endpoint| {
        let client = Client::builder().endpoints([endpoint]).build().expect("well formed");
        let (ids, is_over) = (ids.clone(), is_over.clone());
        tokio::spawn(async move {
            let mut last = 0;
            while !is_over.load(Ordering::Acquire) {
                let loaded = client.load_many(&ids).await.expect("answered");
                let numbers: Vec<u64> = loaded.iter().map(|session| number(session.as_ref())).collect();
                assert!(numbers.is_sorted_by(|one, next| one >= next), "those before have it already: {numbers:?}");
                assert!(numbers[0] - numbers[SESSIONS - 1] <= 1, "no state there ever was: {numbers:?}");
                let sum = numbers.iter().sum();
                assert!(last <= sum, "no instant after another is before it");
                last = sum;
                let revisions: Vec<_> = loaded.iter().flatten().map(|session| session.revision).collect();
                assert!(revisions.iter().all(|revision| *revision == revisions[0]), "{revisions:?}");
                assert!(loaded.iter().flatten().all(|session| session.info.mod_revision <= session.revision));
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.expect("of one instant");
    }
    writing.await.expect("saved");
}

#[tokio::test]
async fn sessions_too_large_to_be_loaded_together_are_refused_with_the_sum_and_still_loaded_in_part() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let writer = cluster.client();
    for (seed, id) in ["a", "b"].into_iter().enumerate() {
        // In two steps: a tail of it is large as well.
        let mut messages = vec![noise(seed + 1, 9 << 20), Bytes::from_static(b"1")];
        for more in 0..2 {
            let content = Content::Transcript { messages: messages.clone(), head: "{}".into(), counters: Default::default() };
            writer.save(id, content, WriteOptions::default()).await.expect("saved");
            messages.push(if more == 0 { noise(seed + 3, 1 << 20) } else { Bytes::new() });
        }
    }
    for endpoint in cluster.endpoints() {
        let client = Client::builder().endpoints([endpoint]).build().expect("well formed");
        let whole = client.load_many(&["a", "b"]).await.expect_err("19 MiB");
        assert_eq!(whole.kind(), ErrorKind::Invalid);
        assert!(
            whole.to_string().contains("load fewer at once stored_bytes=") && whole.to_string().contains("limit=16777216"),
            "{whole}"
        );
        let parts = |part| ["a", "b", "a"].map(|id| PartOf::new(id, part));
        let last = client.load_parts(&parts(Part::Last(1)), Consistency::Linearizable).await.expect("small");
        assert!(last.iter().all(|read| read.part.as_ref().is_some_and(|part| part.first_item == 2)));
        // How much a part is, shows as it is read.
        let error = client.load_parts(&parts(Part::Last(3)), Consistency::Linearizable).await.expect_err("19 MiB");
        assert!(error.to_string().contains("stored_bytes="), "{error}");
        assert_eq!(client.load_many(&["a", "none"]).await.expect("one alone fits").iter().flatten().count(), 1);
        assert_eq!(client.load_many(&["b", "none"]).await.expect("one alone fits").iter().flatten().count(), 1);
        // Of what this client knows nothing travels.
        assert_eq!(client.load_many(&["a", "b"]).await.expect("known").iter().flatten().count(), 2);
    }
}
