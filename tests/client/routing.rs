//! Where calls go when nodes fail, refuse and hint.

use quorate::client::{Client, Consistency, ErrorKind, LoadOptions, WriteOptions};
use quorate::types::{Refusal, RefusalKind};
use tokio::net::TcpListener;

use super::fake::{Cluster, Fault, Node};
use super::{LONG, SHORT, client, client_within, value};

#[tokio::test]
async fn a_hint_is_followed_and_kept() {
    let (cluster, nodes) = Cluster::start(3).await;
    nodes[0].then(Fault::Refuse(nodes[2].hint()));
    let client = client(&nodes);
    for _ in 0..3 {
        client.save("a", value("x"), WriteOptions::default()).await.expect("saved");
    }
    assert_eq!(cluster.seen().iter().map(|seen| seen.node).collect::<Vec<_>>(), [1, 3, 3, 3]);
}

/// A node that forwarded a call says who leads: the next call goes there.
#[tokio::test]
async fn an_answer_that_names_the_leader_moves_later_calls_there() {
    let (cluster, nodes) = Cluster::start(3).await;
    let client = client(&nodes);
    client.save("a", value("x"), WriteOptions::default()).await.expect("saved");
    cluster.elect(&nodes[1]);
    for _ in 0..3 {
        client.save("a", value("x"), WriteOptions::default()).await.expect("saved");
    }
    assert_eq!(cluster.seen().iter().map(|seen| seen.node).collect::<Vec<_>>(), [1, 1, 2, 2]);
}

/// The old leader is gone and the others still name it: the client does not run after it in circles.
#[tokio::test]
async fn a_hint_to_a_dead_node_is_not_followed_in_circles() {
    let (cluster, mut nodes) = Cluster::start(3).await;
    cluster.elect(&nodes[2]);
    let dead = nodes.pop().expect("three");
    nodes[0].then(Fault::Refuse(dead.hint()));
    nodes[1].then(Fault::Refuse(dead.hint()));
    drop(dead);
    let client = client(&nodes);
    for _ in 0..20 {
        client.save("a", value("x"), WriteOptions::default()).await.expect("saved");
    }
    assert_eq!(cluster.applied(), 20);
}

#[tokio::test]
async fn a_hint_leads_to_a_node_nobody_named() {
    let (cluster, mut nodes) = Cluster::start(2).await;
    let leader = nodes.pop().expect("two");
    nodes[0].then(Fault::Refuse(leader.hint()));
    client(&nodes).save("a", value("x"), WriteOptions::default()).await.expect("saved");
    assert_eq!(cluster.seen().last().map(|seen| seen.node), Some(2));
}

#[tokio::test]
async fn a_read_whose_connection_drops_goes_elsewhere() {
    let (cluster, nodes) = Cluster::start(2).await;
    let client = client(&nodes);
    client.save("a", value("x"), WriteOptions::default()).await.expect("saved");
    nodes[0].then(Fault::LoseRequest);
    assert!(client.load("a").await.expect("answered").is_some());
    assert_eq!(cluster.loads(), 2);
}

#[tokio::test]
async fn a_node_that_is_stopping_is_left_at_once() {
    let (cluster, nodes) = Cluster::start(2).await;
    nodes[0].then(Fault::Refuse(Refusal::not_applied(RefusalKind::Unavailable, "stopping")));
    client(&nodes).save("a", value("x"), WriteOptions::default()).await.expect("saved");
    assert_eq!(cluster.seen().iter().map(|seen| seen.node).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn damaged_bytes_are_read_from_another_node_or_reported() {
    let damaged = || Fault::Refuse(Refusal::not_applied(RefusalKind::Corrupt, "checksum mismatch"));
    let (_, nodes) = Cluster::start(2).await;
    let client = client(&nodes);
    nodes[0].then(damaged());
    assert_eq!(client.load("a").await.expect("the other has them"), None);
    // The one that led has ended by the next round.
    for node in &nodes {
        node.then(damaged());
    }
    assert_eq!(client.load("a").await.expect("a sound one leads"), None);
    for node in &nodes {
        node.then_always(damaged());
    }
    let client = client_within(&nodes, LONG, SHORT);
    assert_eq!(client.load("a").await.expect_err("both are damaged for good").kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn credentials_that_are_refused_are_not_retried() {
    let (cluster, nodes) = Cluster::start(2).await;
    nodes[0].then(Fault::Refuse(Refusal::not_applied(RefusalKind::Denied, "not yours")));
    let error = client(&nodes).load_with("a", LoadOptions { consistency: Consistency::Stale }).await.expect_err("denied");
    assert_eq!((error.kind(), cluster.loads()), (ErrorKind::Denied, 1));
}

#[tokio::test]
async fn a_call_before_the_cluster_is_up_waits_for_it() {
    let cluster = Cluster::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let client = Client::builder().endpoints([address.to_string()]).write_deadline(LONG).build().expect("valid");
    let save = tokio::spawn(async move { client.save("a", value("x"), WriteOptions::default()).await });
    tokio::task::yield_now().await;
    let listener = TcpListener::bind(address).await.expect("free again");
    let _node = Node::serve(cluster.clone(), 1, listener);
    save.await.expect("no panic").expect("saved");
    assert_eq!(cluster.applied(), 1);
}

/// Nothing was ever sent: that is certain, and the caller is answered so.
#[tokio::test]
async fn without_any_cluster_calls_are_refused_at_their_deadline() {
    let address = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    let client =
        Client::builder().endpoints([address.to_string()]).write_deadline(SHORT).read_deadline(SHORT).build().expect("valid");
    let (save, load) = tokio::join!(client.save("a", value("x"), WriteOptions::default()), client.load("b"));
    assert!(matches!(save.expect_err("nobody there").kind(), ErrorKind::Refused { .. }));
    assert!(matches!(load.expect_err("nobody there").kind(), ErrorKind::Refused { .. }));
}

#[tokio::test]
async fn an_answer_nobody_asked_for_is_ignored() {
    let (_, nodes) = Cluster::start(1).await;
    nodes[0].then(Fault::StrangeTag).then(Fault::StrangeTag);
    let client = client_within(&nodes, LONG, LONG);
    client.save("a", value("x"), WriteOptions::default()).await.expect("saved");
    assert!(client.load("a").await.expect("answered").is_some());
}

/// A program with one runtime after another, as tests have, keeps its client.
#[test]
fn a_client_outlives_the_runtime_of_its_first_call() {
    let serving = tokio::runtime::Runtime::new().expect("a runtime");
    let (cluster, nodes) = serving.block_on(Cluster::start(1));
    let client = client(&nodes);
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(client.save("a", value("x"), WriteOptions::default())).expect("saved");
    }
    assert_eq!(cluster.applied(), 2);
}
