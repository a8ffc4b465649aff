//! Who may connect at all.

use std::time::Duration;

use quorate::client::{Client, Error, ErrorKind, Tls};

use crate::nodes::Nodes;
use crate::pki::{Authority, Good, HOST, Pair};
use crate::wire;

/// What a load of a client ends in that must not get in.
async fn refused(client: Client) -> Error {
    let error = client.load("a/1").await.expect_err("must be refused");
    client.close().await;
    error
}

fn shown(nodes: &Nodes, pair: &Pair) -> Client {
    let tls = Tls::authority_pem(nodes.authority.pem()).identity_pem(pair.certificate.clone(), pair.key.clone());
    nodes.builder().tls(tls).token("tokensecret-writer").build().expect("well formed")
}

/// Without a certificate, with another authority's, with one that has expired: the node takes none of them and says so.
#[tokio::test]
async fn a_client_without_a_good_certificate_is_refused_at_once() {
    let nodes = Nodes::start(1, "info").await;
    let none = nodes.builder().tls(Tls::authority_pem(nodes.authority.pem())).token("tokensecret-writer").build();
    for (what, client, alert) in [
        ("none", none.expect("well formed"), "CertificateRequired"),
        ("wrong authority", shown(&nodes, &Authority::new().client(Good::Now)), "UnknownCA"),
        ("expired", shown(&nodes, &nodes.authority.client(Good::Expired)), "CertificateExpired"),
    ] {
        let error = refused(client).await;
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{what}: {error}");
        assert!(error.to_string().contains(alert), "{what}: {error}");
    }
    let good = nodes.client("writer");
    good.load("a/1").await.expect("a good certificate");
    good.close().await;
}

/// A client speaks to no node that it does not believe, and to none in the open; a node answers nothing in the open.
#[tokio::test]
async fn neither_end_speaks_to_one_it_does_not_believe_or_in_the_open() {
    let nodes = Nodes::start(1, "info").await;
    let pair = nodes.authority.client(Good::Now);
    let deceived = Tls::authority_pem(Authority::new().pem()).identity_pem(pair.certificate, pair.key);
    let deceived = nodes.builder().tls(deceived).token("tokensecret-writer").read_deadline(Duration::from_secs(1));
    let error = refused(deceived.build().expect("well formed")).await;
    assert!(matches!(error.kind(), ErrorKind::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");

    // The authority is believed, the name is not in the node's certificate.
    let elsewhere = nodes.client_address(1).replace(HOST, "localhost");
    let elsewhere = Client::builder().endpoints([elsewhere]).tls(nodes.tls()).token("tokensecret-writer");
    let error = refused(elsewhere.read_deadline(Duration::from_secs(1)).build().expect("well formed")).await;
    assert!(error.to_string().contains("NotValidForName") || error.to_string().contains("not valid for name"), "{error}");

    let open = nodes.builder().read_deadline(Duration::from_secs(1)).build().expect("well formed");
    let error = refused(open).await;
    assert!(matches!(error.kind(), ErrorKind::Refused { .. }), "{error:?}");
}

/// The peer port takes members only: not a client of the same authority, even on a member's host; not a node of another host.
#[tokio::test]
async fn the_peer_port_takes_members_only() {
    let nodes = Nodes::start(1, "info").await;
    let (address, authority) = (nodes.peer_address(1), &nodes.authority);
    let member = authority.node(HOST, Good::Now);
    let answer = wire::hello(&address, authority, Some(&member)).await.expect("a member's certificate");
    assert_eq!(answer.node, 1);
    for (what, shown) in [
        ("none", None),
        ("a client's", Some(authority.client(Good::Now))),
        ("wrong authority", Some(Authority::new().node(HOST, Good::Now))),
        ("another host's", Some(authority.node("10.1.2.3", Good::Now))),
        ("expired", Some(authority.node(HOST, Good::Expired))),
    ] {
        let error = wire::hello(&address, authority, shown.as_ref()).await.expect_err(what);
        assert!(error.contains("received fatal alert"), "{what}: {error}");
    }
    // Each is counted once its connection has ended.
    let counted = async || {
        let (_, text) = wire::get(&nodes.admin_address(1), authority, "/metrics", Some("tokensecret-admin")).await;
        text.contains("quorate_tls_refused_total{port=\"peer\"} 5")
    };
    nodes.until("the refused are counted", counted).await;
}
