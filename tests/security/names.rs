//! Whom a member's certificate speaks for.

use quorate::wire::peer::v1::{Route, StatusRequest};
use tonic::Code;

use crate::security::nodes::Nodes;
use crate::security::pki::{Good, HOST, Pair};
use crate::security::wire;

/// What node 1 answers to a call from a node that calls itself `from` and shows this certificate.
async fn ask(nodes: &Nodes, shown: &Pair, from: u64) -> Result<(), (Code, String)> {
    let (address, ca) = (nodes.peer_address(1), &nodes.ca);
    let hello = wire::hello(&address, ca, Some(shown)).await.expect("a member's certificate");
    let route = Some(Route { cluster_id: hello.cluster_id, from, to: 1, to_instance: hello.instance });
    let mut client = wire::peer(&address, ca, Some(shown)).await.expect("a member's certificate");
    let answer = client.status(StatusRequest { route, digest_at: 0, timeout_ms: 60_000, samples: 0 }).await;
    answer.map(drop).map_err(|status| (status.code(), status.message().to_owned()))
}

/// A certificate that names its node is good for that one alone; one that names none for the nodes of its hosts; and the refusal names
/// both. So a node that was removed can't go on under another's id, and a certificate that was put on the wrong host is found.
#[tokio::test]
async fn one_member_does_not_pass_for_another() {
    let nodes = Nodes::start_at(&[HOST, "localhost"], "info").await;
    let ca = &nodes.ca;
    let named = ca.named(2, HOST);
    // A node that has not heard the others yet can't know who is a member.
    let is_settled = async || ask(&nodes, &ca.named(9, HOST), 9).await.is_err();
    nodes.until("the nodes have heard each other", is_settled).await;
    assert_eq!(ask(&nodes, &named, 2).await, Ok(()), "it is that of node 2, wherever node 2 is");
    let (code, message) = ask(&nodes, &named, 3).await.expect_err("it is not that of node 3");
    assert_eq!((code, &message[..]), (Code::PermissionDenied, "the certificate is not one of node 3: it is that of node 2"));

    assert_eq!(ask(&nodes, &ca.node("localhost", Good::Now), 2).await, Ok(()), "node 2 is there");
    let (code, message) = ask(&nodes, &ca.node(HOST, Good::Now), 2).await.expect_err("node 2 is not there");
    assert_eq!(code, Code::PermissionDenied);
    assert_eq!(message, "the certificate is not one of node 2: it names no node and is not good for the node's host localhost");
    for of_nine in [ca.node(HOST, Good::Now), ca.named(9, HOST)] {
        let (code, message) = ask(&nodes, &of_nine, 9).await.expect_err("node 9 never was a member");
        assert_eq!(code, Code::PermissionDenied);
        assert_eq!(message, "the caller is no member, and none of a majority of the members knows it node=9");
    }
    nodes.until("the refusal is logged", async || nodes.log(1).contains("it is that of node 2")).await;
}
