//! A healthy cluster.

use bytes::Bytes;
use futures_util::StreamExt as _;
use quorate::types::{Consistency, Expected, Expiry, Loaded, Verdict, Version, Write};
use quorate::wire::{self, v1};

use super::rig::{Cluster, session, submit, version};

#[tokio::test]
async fn any_node_takes_any_call() {
    let cluster = Cluster::start(3).await;
    for node in 1..=3 {
        let mut caller = cluster.caller(node).await;
        let id = format!("session-{node}");
        let save = caller.save_of(&id, "first");
        assert_eq!(version(&caller.attempt(&save).await.expect("a healthy cluster never refuses")), 1);
        let expected = Expected::At { version: Version(1), create_revision: None };
        let cas = caller.cas_of(&id, expected, "second");
        assert_eq!(version(&caller.attempt(&cas).await.expect("never refuses")), 2);
        let stale = caller.cas_of(&id, expected, "third");
        let conflict = caller.attempt(&stale).await.expect("never refuses");
        assert!(matches!(conflict.verdict, Verdict::Conflict { actual: Version(2), .. }), "{conflict:?}");
        for other in 1..=3 {
            let mut reader = cluster.caller(other).await;
            assert_eq!(reader.value(&id).await.as_deref(), Some(&b"second"[..]), "node {other}");
        }
        let delete = Write::Delete { request: caller.request(), id: session(&id), expected: None, fence: None };
        let deleted = caller.attempt(&delete).await.expect("never refuses");
        assert_eq!(deleted.verdict, Verdict::Deleted { version: Version(3) });
        assert_eq!(caller.value(&id).await, None);
    }
}

#[tokio::test]
async fn a_repeated_request_is_answered_as_the_first_time_by_every_node() {
    let cluster = Cluster::start(3).await;
    let mut caller = cluster.caller(1).await;
    let save = caller.save_of("s", "once");
    let first = caller.attempt(&save).await.expect("never refuses");
    for node in 1..=3 {
        caller = caller.at(cluster.raw(node));
        assert_eq!(caller.attempt(&save).await.expect("never refuses"), first, "node {node}");
    }
}

#[tokio::test]
async fn a_stream_answers_every_operation_by_its_tag_and_ends_with_its_requests() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(1).await;
    for node in 1..=3 {
        let mut caller = cluster.caller(node).await;
        let writes: Vec<Write> = (0..500).map(|n| caller.save_of(&format!("{node}-{n}"), format!("value {n}"))).collect();
        let cluster_id = caller.cluster_id.clone();
        let requests = writes
            .iter()
            .enumerate()
            .map(move |(tag, write)| submit(tag as u64, &cluster_id, v1::submit_request::Operation::Write(wire::write_to(write))));
        let requests: Vec<_> = requests.collect();
        let responses = caller.raw.submit(futures_util::stream::iter(requests)).await.expect("a stream").into_inner();
        let responses: Vec<_> = responses.map(|response| response.expect("no error")).collect().await;
        let mut tags: Vec<u64> = responses.iter().map(|response| response.tag).collect();
        tags.sort_unstable();
        assert_eq!(tags, (0..500).collect::<Vec<u64>>());
        for response in &responses {
            assert!(matches!(response.answer, Some(v1::submit_response::Answer::Outcome(_))), "{response:?}");
            assert_eq!(response.cluster_id, caller.cluster_id);
            assert_eq!(response.leader.as_ref().map(|hint| hint.node), (node != leader).then_some(leader));
        }
    }
}

#[tokio::test]
async fn the_largest_value_passes_through_a_follower_and_back() {
    let cluster = Cluster::start_for_large_writes(3).await;
    let (_, follower) = cluster.leader_and_follower().await;
    let mut caller = cluster.caller(follower).await;
    let value = Bytes::from((0..16 << 20).map(|n: u32| (n ^ (n >> 8)) as u8).collect::<Vec<u8>>());
    assert_eq!(version(&caller.saved("large", value.clone()).await), 1);
    assert_eq!(caller.value("large").await, Some(value));
}

#[tokio::test]
async fn an_expired_session_is_not_found_and_the_sweep_keeps_its_version_counting() {
    let cluster = Cluster::start(1).await;
    let mut caller = cluster.caller(1).await;
    let Write::Save { request, id, change, .. } = caller.save_of("s", "short-lived") else { unreachable!("a save") };
    let expiry = Expiry::After(std::time::Duration::from_millis(300));
    caller.attempt(&Write::Save { request, id, change, attributes: expiry.into(), fence: None }).await.expect("never refuses");
    // Each load waits for a read index; nothing is written by them, so only the sweep can move machine time.
    let gone = async {
        loop {
            if let Loaded::NotFound { tombstone } = caller.load_within("s", Consistency::Linearizable, 30_000).await.expect("reads")
            {
                return tombstone;
            }
        }
    };
    let tombstone = tokio::time::timeout(super::rig::PATIENCE, gone).await.expect("it expires without any write");
    assert_eq!(tombstone, Version(2));
}

#[tokio::test]
async fn the_admin_port_tells_how_it_is() {
    let cluster = Cluster::start(3).await;
    let mut caller = cluster.caller(1).await;
    let save = caller.save_of("secret-session-id", "value");
    caller.attempt(&save).await.expect("never refuses");
    assert!(cluster.get(1, "/livez").await.contains("200 OK"));
    let ready = cluster.get(1, "/readyz?verbose").await;
    assert!(ready.contains("200 OK") && ready.contains("[+] leader"), "{ready}");
    assert!(cluster.get(1, "/version").await.contains(env!("CARGO_PKG_VERSION")));
    let metrics = cluster.get(1, "/metrics").await;
    assert!(metrics.contains("quorate_operations_total{operation=\"save\""), "{metrics}");
    assert!(metrics.contains("quorate_applied_index "), "{metrics}");
    assert!(!metrics.contains("secret-session-id"));
}
