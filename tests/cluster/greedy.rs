//! Clients that take more than their share: what they can hold is bounded, others are answered so, and all heals once they are gone.

use bytes::Bytes;
use quorate::limits::{
    ADMIN_CONNECTIONS_MAX, LOADED_BYTES_MAX, LOADED_SHARE_BYTES_MAX, PEER_CONNECTIONS_MAX, RECEIVING_SHARE_BYTES_MAX,
    WRITE_BYTES_MAX, WRITE_MESSAGE_BYTES_MAX,
};
use quorate::types::{Applied, Consistency, Load, Loaded, Refusal, RefusalKind};
use quorate::wire::{self, v1, v1::submit_request::Operation, v1::submit_response::Answer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::wrappers::ReceiverStream;

use super::rig::{Caller, Cluster, PATIENCE, session, submit};
use crate::support::raw;

/// A gauge of a node, as its operators see it.
async fn gauge(cluster: &Cluster, id: u64, name: &str) -> u64 {
    read(cluster, id, name).await.expect("the gauge is there")
}

/// A counter, which is there once it counts.
async fn counter(cluster: &Cluster, id: u64, name: &str) -> u64 {
    read(cluster, id, name).await.unwrap_or(0)
}

async fn read(cluster: &Cluster, id: u64, name: &str) -> Option<u64> {
    let text = cluster.get(id, "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().parse::<f64>().expect("a number") as u64)
}

/// Loads of one session on a connection of its own, none of whose answers is ever taken. Held until it is dropped.
struct Greedy {
    _requests: tokio::sync::mpsc::Sender<v1::SubmitRequest>,
    answers: tonic::Streaming<v1::SubmitResponse>,
}

impl Greedy {
    async fn load(cluster: &Cluster, caller: &Caller, id: &str, times: u64) -> Self {
        let (requests, queue) = tokio::sync::mpsc::channel(times as usize);
        for tag in 0..times {
            let load = Load::whole(session(id));
            let request = submit(tag, &caller.cluster_id, Operation::Load(wire::load_to(&load)));
            requests.try_send(request).expect("room for all");
        }
        let answers = cluster.raw(1).submit(ReceiverStream::new(queue)).await.expect("a stream").into_inner();
        Self { _requests: requests, answers }
    }

    /// Takes all there is, up to how the stream ended.
    async fn ended(mut self) -> Refusal {
        loop {
            match self.answers.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it is not said why the stream ended"),
                Err(status) => return wire::refusal_from_status(&status),
            }
        }
    }
}

/// Readers that load far more than may wait for readers, each on its own connection, and take none of it. What the node holds stays
/// within its bound and one answer for each thread that reads; another reader is refused, definitely nothing else happens to it; and it is
/// served once the greediest was cut off, which is soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_nothing_is_cut_off_when_another_needs_the_room_and_small_answers_never_wait_for_it() {
    let cluster = Cluster::start_for_large_writes(1).await;
    let mut caller = cluster.caller(1).await;
    let large = Bytes::from(vec![7; WRITE_BYTES_MAX as usize - 4096]);
    caller.saved("large", large.clone()).await;

    // Each holds what its connection may, the last one a little: one after the other, so that the first has stood still longest.
    let each = LOADED_SHARE_BYTES_MAX / WRITE_BYTES_MAX;
    let connections = LOADED_BYTES_MAX / LOADED_SHARE_BYTES_MAX;
    let (mut greedy, mut held) = (Vec::new(), 0);
    for connection in 0..=connections {
        let loads = if connection < connections { each } else { 1 };
        greedy.push(Greedy::load(&cluster, &caller, "large", loads).await);
        held += loads * large.len() as u64;
        while gauge(&cluster, 1, "quorate_loaded_bytes").await < held {}
    }
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
    // A save is not held up by it, nor is a small answer: those have a reserve.
    caller.saved("small", "value").await;
    let small = caller.load_within("small", Consistency::Linearizable, 20_000).await;
    assert!(matches!(small, Ok(Loaded::Full(_))), "{small:?}");

    // Where others need the room it is cut off, though it is still there, long before it would be for standing still alone.
    assert_eq!(caller.value("large").await.map(|value| value.len()), Some(large.len()));
    assert_eq!(gauge(&cluster, 1, "quorate_readers_cut_off_total").await, 1);
    let refusal = greedy.swap_remove(0).ended().await;
    assert_eq!(refusal.kind, RefusalKind::Unavailable, "{refusal:?}");
    assert!(refusal.message.contains("others needed the room"), "{refusal:?}");
}

/// Without tokens a connection is all there is to tell callers apart by: one that takes nothing holds a quarter of the room, what it asks
/// for beyond that is refused, definitely, and another connection is served as if it were not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_reader_takes_nothing_holds_its_share_of_what_is_loaded_and_stops_no_other() {
    let cluster = Cluster::start_for_large_writes(1).await;
    let mut caller = cluster.caller(1).await;
    let large = Bytes::from(vec![7; WRITE_BYTES_MAX as usize - 4096]);
    caller.saved("large", large.clone()).await;

    let loads = 2 * LOADED_BYTES_MAX / WRITE_BYTES_MAX;
    let mut greedy = Greedy::load(&cluster, &caller, "large", loads).await;
    let beyond = loads - LOADED_SHARE_BYTES_MAX / WRITE_BYTES_MAX;
    while counter(&cluster, 1, "quorate_operations_total{operation=\"load\",result=\"overloaded\"}").await < beyond {}
    // Refusals are small: once an answer is taken at all, they overtake the content.
    let mut refused = 0;
    while refused < beyond {
        match greedy.answers.message().await.expect("nobody else needs the room").and_then(|response| response.answer) {
            Some(Answer::Refusal(refusal)) => {
                let refusal = wire::refusal_from(refusal);
                assert!(matches!(refusal.kind, RefusalKind::Overloaded { .. }) && refusal.applied == Applied::No, "{refusal:?}");
                assert!(refusal.message.contains("of one connection"), "{refusal:?}");
                refused += 1;
            }
            Some(Answer::Load(_)) => {}
            other => panic!("an answer to another question: {other:?}"),
        }
    }
    for _ in 0..loads {
        assert_eq!(caller.value("large").await.map(|value| value.len()), Some(large.len()));
    }
    let bytes = gauge(&cluster, 1, "quorate_loaded_bytes").await;
    assert!(bytes <= LOADED_SHARE_BYTES_MAX, "{bytes}");
    assert_eq!(gauge(&cluster, 1, "quorate_readers_cut_off_total").await, 0);
}

/// A connection of HTTP/1.1 to a node's admin port that asked once, got its answer and stays open; `None`: it was closed at once.
async fn served(address: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.expect("the port listens");
    let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut first = [0; 12];
    let answered = stream.read_exact(&mut first).await;
    (asked.is_ok() && answered.is_ok()).then(|| assert_eq!(&first, b"HTTP/1.1 200")).map(|()| stream)
}

/// One address gets half of a port's connections; one more is closed at once, and the port serves on once they are gone. Probes are
/// answered all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_bound_are_closed_and_the_port_serves_on_once_some_are_gone() {
    let cluster = Cluster::start(1).await;
    let address = cluster.config().member(1.into()).expect("a member").admin.clone();
    let mut held = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS_MAX / 2 {
        held.push(served(&address).await.expect("there is a place for it"));
    }
    assert!(served(&address).await.is_none(), "one address has half of all places");
    assert!(cluster.raw(1).status(v1::StatusRequest::default()).await.is_ok(), "other ports serve");
    for path in ["/livez", "/readyz"] {
        let answer = cluster.get(1, path).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    drop(held);
    while served(&address).await.is_none() {}
    assert!(gauge(&cluster, 1, "quorate_connections_refused_total{port=\"admin\"}").await >= 1);
}

/// Connects to a port again and again and says nothing, or not all of a beginning.
async fn begin(address: &str, connections: usize, first: &[u8]) -> Vec<TcpStream> {
    let mut begun = Vec::new();
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address).await.expect("the port listens");
        stream.write_all(first).await.expect("a byte or so finds room");
        begun.push(stream);
    }
    begun
}

/// Connections without any credential that never say what they are take no place, on no port: members, clients and operators get in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_never_begin_keep_nobody_out_of_any_port() {
    let mut cluster = Cluster::start(3).await;
    let member = cluster.config().member(1.into()).expect("a member").clone();
    let peers = begin(&member.peer, PEER_CONNECTIONS_MAX as usize + 14, b"").await;
    let operators = begin(&member.admin, 2 * ADMIN_CONNECTIONS_MAX as usize, b"GET /metrics HTTP/1.1\r\nx: ").await;
    let clients = begin(&member.client, 300, b"PRI * HTTP/2.0\r\n").await;

    assert!(cluster.get(1, "/livez").await.starts_with("HTTP/1.1 200 "));
    assert!(cluster.get(1, "/metrics").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(cluster.hello(1).await.node, 1, "a new connection to the port for peers");
    // A member that is started again opens new connections.
    cluster.kill(2).await;
    cluster.start_node(2).await;
    let mut caller = cluster.caller(1).await;
    caller.saved("a", "x").await;
    assert!(gauge(&cluster, 1, "quorate_greetings_dropped_total{port=\"peer\"}").await >= 14);
    assert_eq!(gauge(&cluster, 1, "quorate_connections_refused_total{port=\"peer\"}").await, 0);
    drop((peers, operators, clients));
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
