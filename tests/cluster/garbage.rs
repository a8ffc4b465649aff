//! Requests that are none. Each gets a refusal that names what is wrong, and nothing changes.

use bytes::Bytes;
use quorate::limits::{SESSION_ID_BYTES_MAX, WRITE_BYTES_MAX};
use quorate::types::{Applied, Blob, Change, Counters, Expiry, Refusal, RefusalKind, Write};
use quorate::wire::{self, v1, v1::submit_request::Operation};

use super::rig::{Caller, Cluster, session, submit};

async fn refused(caller: &mut Caller, request: v1::SubmitRequest) -> Refusal {
    let status = caller.raw.write(request).await.expect_err("it is no request");
    wire::refusal_from_status(&status)
}

fn message(write: &Write) -> Operation {
    Operation::Write(wire::write_to(write))
}

/// A save whose message is then spoiled.
fn spoiled(caller: &mut Caller, spoil: impl FnOnce(&mut v1::write_operation::Save)) -> Operation {
    let write = caller.save_of("s", "value");
    let mut message = wire::write_to(&write);
    match &mut message.write {
        Some(v1::write_operation::Write::Save(save)) => spoil(save),
        other => panic!("a save became {other:?}"),
    }
    Operation::Write(message)
}

#[tokio::test]
async fn garbage_is_refused_by_name_whichever_node_gets_it() {
    let cluster = Cluster::start(3).await;
    for node in 1..=3 {
        let mut caller = cluster.caller(node).await;
        let id = caller.cluster_id.clone();
        let cases: Vec<(&str, Operation)> = vec![
            ("id", spoiled(&mut caller, |save| save.id = "x".repeat(SESSION_ID_BYTES_MAX + 1))),
            ("request", spoiled(&mut caller, |save| save.request = None)),
            ("nonce", spoiled(&mut caller, |save| save.request.as_mut().expect("one").nonce = Bytes::from_static(b"short"))),
            ("sequence", spoiled(&mut caller, |save| save.request.as_mut().expect("one").sequence = 0)),
            ("change", spoiled(&mut caller, |save| save.change = None)),
            ("write", Operation::Write(v1::WriteOperation { write: None })),
        ];
        for (field, operation) in cases {
            let refusal = refused(&mut caller, submit(1, &id, operation)).await;
            assert_eq!((&refusal.kind, refusal.applied), (&RefusalKind::Invalid, Applied::No), "{field}: {refusal:?}");
            assert!(refusal.message.contains(field), "{field}: {}", refusal.message);
        }
        let nothing = v1::SubmitRequest { operation: None, ..submit(1, &id, Operation::Write(v1::WriteOperation::default())) };
        assert_eq!(refused(&mut caller, nothing).await.kind, RefusalKind::Invalid);
        assert_eq!(caller.value("s").await, None, "nothing changed");
    }
}

#[tokio::test]
async fn a_wrong_checksum_is_refused_and_never_stored() {
    let cluster = Cluster::start(1).await;
    let mut caller = cluster.caller(1).await;
    let mut head = Blob::plain(Bytes::from_static(b"value"));
    head.crc32c ^= 1;
    let change = Change::Full { chunks: vec![], head, counters: Counters::default() };
    let write = Write::Save { request: caller.request(), id: session("s"), change, attributes: Expiry::Keep.into(), fence: None };
    let refusal = caller.attempt(&write).await.expect_err("damaged on its way");
    assert_eq!((refusal.kind, refusal.applied), (RefusalKind::Invalid, Applied::No));
    assert!(refusal.message.contains("checksum"), "{}", refusal.message);
    assert_eq!(caller.value("s").await, None);
}

#[tokio::test]
async fn a_write_above_the_limit_is_refused_with_both_sides_and_a_message_above_it_too() {
    let cluster = Cluster::start_for_large_writes(1).await;
    let mut caller = cluster.caller(1).await;
    let write = caller.save_of("s", vec![0; WRITE_BYTES_MAX as usize + 1]);
    let refusal = caller.attempt(&write).await.expect_err("too large");
    assert_eq!((refusal.kind, refusal.applied), (RefusalKind::Invalid, Applied::No));
    assert!(refusal.message.contains(&WRITE_BYTES_MAX.to_string()), "{}", refusal.message);
    // Far above: the transport refuses the message before it is read, and the node goes on.
    let write = caller.save_of("s", vec![0; 24 << 20]);
    caller.attempt(&write).await.expect_err("far too large");
    let small = caller.save_of("s", "small");
    caller.attempt(&small).await.expect("the node goes on");
}

#[tokio::test]
async fn a_call_for_another_cluster_or_without_the_cluster_it_needs_is_refused() {
    let cluster = Cluster::start(3).await;
    for node in 1..=3 {
        let mut caller = cluster.caller(node).await;
        let write = caller.save_of("s", "value");
        let other = refused(&mut caller, submit(1, &[9; 16], message(&write))).await;
        assert_eq!((other.kind, other.applied), (RefusalKind::WrongCluster, Applied::No));
        let none = refused(&mut caller, submit(1, &[], message(&write))).await;
        assert_eq!((none.kind, none.applied), (RefusalKind::Invalid, Applied::No));
        let half = refused(&mut caller, submit(1, &[9; 7], message(&write))).await;
        assert_eq!((half.kind, half.applied), (RefusalKind::Invalid, Applied::No));
    }
}

#[tokio::test]
async fn an_operation_sent_to_the_wrong_call_is_refused() {
    let cluster = Cluster::start(1).await;
    let mut caller = cluster.caller(1).await;
    let write = caller.save_of("s", "value");
    let status = caller.raw.list(submit(1, &caller.cluster_id.clone(), message(&write))).await.expect_err("a write is no listing");
    assert_eq!(wire::refusal_from_status(&status).kind, RefusalKind::Invalid);
}
