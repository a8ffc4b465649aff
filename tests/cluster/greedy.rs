//! Clients that take more than their share: what they can hold is bounded, others are answered so, and all heals once they are gone.

use bytes::Bytes;
use quorate::limits::{
    ADMIN_CONNECTIONS_MAX, LOADED_BYTES_MAX, RECEIVING_SHARE_BYTES_MAX, WRITE_BYTES_MAX, WRITE_MESSAGE_BYTES_MAX,
};
use quorate::types::{Applied, Consistency, Load, Loaded, RefusalKind};
use quorate::wire::{self, v1, v1::submit_request::Operation};
use tokio::io::AsyncReadExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::raw;
use super::rig::{Cluster, PATIENCE, session, submit};

/// A gauge of a node, as its operators see it.
async fn gauge(cluster: &Cluster, id: u64, name: &str) -> u64 {
    let text = cluster.get(id, "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the gauge is there");
    line.trim().parse::<f64>().expect("a number") as u64
}

/// Loads far more than may wait for readers, and takes none of it. What the node holds stays within its bound and one answer for each
/// thread that reads; another reader is refused, definitely nothing else happens to it; and it is served once the greedy one is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_nothing_fills_its_bound_only_and_all_heals_once_it_is_gone() {
    let cluster = Cluster::start_for_large_writes(1).await;
    let mut caller = cluster.caller(1).await;
    let large = Bytes::from(vec![7; WRITE_BYTES_MAX as usize - 4096]);
    let write = caller.save_of("large", large.clone());
    caller.settle(&write).await;

    let loads = 2 * LOADED_BYTES_MAX / WRITE_BYTES_MAX + 8;
    let (requests, queue) = tokio::sync::mpsc::channel(loads as usize);
    for tag in 0..loads {
        let load = Load { id: session("large"), have: None, consistency: Consistency::Linearizable };
        let request = submit(tag, &caller.cluster_id, Operation::Load(wire::load_to(&load)));
        requests.try_send(request).expect("room for all");
    }
    let answers = cluster.raw(1).submit(ReceiverStream::new(queue)).await.expect("a stream").into_inner();
    // Held, and never asked for its next answer.
    let held = (requests, answers);
    let refusal = loop {
        match caller.load_within("large", Consistency::Linearizable, 2000).await {
            Ok(Loaded::Full(content)) => assert_eq!(content.head.expect("a value").data.len(), large.len()),
            Ok(other) => panic!("an answer to another question: {other:?}"),
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(refusal.kind, RefusalKind::Overloaded { .. }), "{refusal:?}");
    assert_eq!(refusal.applied, Applied::No);
    assert!(refusal.message.contains(&LOADED_BYTES_MAX.to_string()), "{}", refusal.message);
    let bytes = gauge(&cluster, 1, "quorate_loaded_bytes").await;
    assert!(bytes > LOADED_BYTES_MAX && bytes <= LOADED_BYTES_MAX + 4 * WRITE_BYTES_MAX, "{bytes}");
    // A save is not held up by it.
    let write = caller.save_of("small", "value");
    caller.settle(&write).await;

    drop(held);
    assert_eq!(caller.value("large").await.map(|value| value.len()), Some(large.len()));
}

/// Connections that say nothing take up their port's share only; one more is closed at once, and the port serves on once they are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_bound_are_closed_and_the_port_serves_on_once_some_are_gone() {
    let cluster = Cluster::start(1).await;
    let address = cluster.config().member(1.into()).expect("a member").admin.clone();
    let connect = || async { tokio::net::TcpStream::connect(&address).await.expect("the port listens") };
    let mut silent = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS_MAX {
        silent.push(connect().await);
    }
    let mut nothing = [0; 1];
    // Accepted in order, so this one is the first that finds no room.
    let closed = connect().await.read(&mut nothing).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert!(cluster.raw(1).status(v1::StatusRequest::default()).await.is_ok(), "other ports serve");
    drop(silent);
    let text = loop {
        let text = {
            let mut stream = connect().await;
            let mut text = String::new();
            let asked = tokio::io::AsyncWriteExt::write_all(
                &mut stream,
                b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            );
            match asked.await {
                Ok(()) => stream.read_to_string(&mut text).await.map(|_| text).unwrap_or_default(),
                Err(_) => text,
            }
        };
        if !text.is_empty() {
            break text;
        }
    };
    let refused = text.lines().find_map(|line| line.strip_prefix("quorate_connections_refused_total{port=\"admin\"} "));
    assert!(refused.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count >= 1), "{refused:?}");
}

/// Begins more large requests than may be held, and ends none. One connection takes its share, others save on, large values too; and all
/// is given back once it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_become_whole_take_the_share_of_their_connection_only() {
    let cluster = Cluster::start_for_large_writes(1).await;
    let channel = cluster.channel(1);
    let (says, sends) = (WRITE_MESSAGE_BYTES_MAX as u32, WRITE_MESSAGE_BYTES_MAX as usize - 1);
    let mut open = Vec::new();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..RECEIVING_SHARE_BYTES_MAX / WRITE_MESSAGE_BYTES_MAX + 2 {
        let (sender, body) = raw::body(raw::message(says, sends));
        open.push(sender);
        let channel = channel.clone();
        calls.spawn(async move { raw::call(&channel, "/quorate.v1.Sessions/Write", None, body).await });
    }
    let refused = tokio::time::timeout(PATIENCE, calls.join_next()).await.expect("nothing bounds what is held of them");
    let status = refused.expect("one of them").expect("it ran");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    let refusal = wire::refusal_from_status(&status);
    assert_eq!(refusal.applied, Applied::No, "{refusal:?}");
    assert!(refusal.message.contains(&format!("limit={RECEIVING_SHARE_BYTES_MAX}")), "{}", refusal.message);
    let held = gauge(&cluster, 1, "quorate_receiving_bytes").await;
    assert!(held <= RECEIVING_SHARE_BYTES_MAX, "{held}");
    assert!(gauge(&cluster, 1, "quorate_requests_ended_total{reason=\"no_room\"}").await >= 1);

    let mut caller = cluster.caller(1).await;
    for value in [16, WRITE_BYTES_MAX as usize - 4096] {
        let write = caller.save_of("of another", vec![7; value]);
        caller.attempt(&write).await.expect("others have their own share");
    }
    drop((open, calls, channel));
    while gauge(&cluster, 1, "quorate_receiving_bytes").await > 0 {}
}
