//! What a caller is answered about endpoints that do not do what they are asked.

use quorate::client::{Client, ErrorKind, WriteOptions};
use tokio::net::TcpListener;

use crate::process::backup::{refused, succeeded};
use crate::process::harness::Cluster;
use crate::process::value;

/// The lines below the first one, sorted.
fn lines(err: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = err.lines().skip(1).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_each_endpoint_has_a_line_and_the_first_says_that_there_is_no_majority() {
    let mut cluster = Cluster::start(3).await;
    cluster.client().save("a", value("x"), WriteOptions::default()).await.expect("saved");
    let leader = cluster.leader().await;
    let [dead, other, left] = [leader, leader % 3 + 1, (leader + 1) % 3 + 1];
    cluster.kill(dead);
    cluster.kill(other);
    let endpoints = cluster.endpoints();
    for (args, first) in [
        (
            ["session", "get", "a", "--timeout", "3s"],
            "error: no answer: 1 of 3 endpoints answers: no majority; `--stale` reads what",
        ),
        (
            ["session", "rm", "a", "--timeout", "3s"],
            "error: refused, nothing changed: 1 of 3 endpoints answers: no majority; try again",
        ),
    ] {
        let err = refused(&cluster.run(&args), 4, &[first]);
        let lines = lines(&err);
        assert_eq!(lines.len(), 3, "{err}");
        for gone in [dead, other] {
            assert!(lines.contains(&format!("  {}: Connection refused", endpoints[gone - 1]).as_str()), "{err}");
        }
        assert!(lines.iter().any(|line| line.starts_with(&format!("  {}: ", endpoints[left - 1]))), "{err}");
    }
    assert_eq!(succeeded(&cluster.run(&["session", "get", "a", "--stale"])), "x");
    cluster.kill(left);
    let err = refused(
        &cluster.run(&["status"]),
        4,
        &["error: no answer: none of 3 endpoints answers; check --endpoints, or try again\n"],
    );
    assert_eq!(lines(&err).len(), 3, "{err}");
    assert!(!err.contains("quorate status"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_that_are_not_the_clients_and_nodes_without_tls_are_distinguished() {
    let cluster = Cluster::start(1).await;
    let dir = tempfile::tempdir().expect("a directory");
    let certs = dir.path().join("certs").to_str().expect("UTF-8").to_owned();
    succeeded(&cluster.run(&["cert", "dev", &certs]));
    let (client, peer, admin) = (cluster.endpoints().remove(0), cluster.addresses(1).remove(3), cluster.admin(1));
    let nobody = {
        // It is let go at once, so that nobody is there.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address").to_string()
    };
    let ca = format!("{certs}/ca.pem");
    for (args, text) in [
        (vec!["status", "--ca", &ca], format!("{client}: it speaks no TLS: leave out --ca (QUORATE_CA)\n")),
        (vec!["session", "get", "a", "--ca", &ca], format!("{client}: it speaks no TLS: leave out --ca (QUORATE_CA)\n")),
        (vec!["status", "--endpoints", &peer], "that is a peer port".to_owned()),
        (vec!["session", "get", "a", "--endpoints", &peer], "that is a peer port".to_owned()),
        (vec!["status", "--endpoints", &admin], "that is an admin port: use the node's client port\n".to_owned()),
        (vec!["session", "get", "a", "--endpoints", &admin], "that is an admin port: use the node's client port\n".to_owned()),
        (vec!["status", "--endpoints", &nobody], format!("{nobody}: Connection refused; check --endpoints, or try again\n")),
    ] {
        refused(&cluster.run(&args), 4, &[&text]);
    }
    let added = ["member", "add", "2", "--client", "127.0.0.1:1", "--peer", &nobody, "--admin", "127.0.0.1:3", "--timeout", "30s"];
    refused(&cluster.run(&added), 2, &["node 2 does not answer: Connection refused", &nobody]);
}

/// It accepts connections and says nothing: that is reported, with its address, and the others get the call within its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_accepts_and_says_nothing_takes_its_share_of_the_time_and_is_named() {
    let cluster = Cluster::start(1).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent_address = silent.local_addr().expect("an address").to_string();
    let err = refused(&cluster.run(&["status", "--endpoints", &silent_address]), 4, &[&silent_address, "no answer for 2s"]);
    assert!(!err.contains("http2"), "{err}");
    // Whichever it begins with; connecting alone could take longer than the call may.
    let endpoints = [vec![silent_address; 1], cluster.endpoints()].concat();
    for _ in 0..4 {
        let client = Client::builder().endpoints(&endpoints).connect_timeout(std::time::Duration::from_secs(600)).build();
        let client = client.expect("valid");
        let loaded = client.load("a").await;
        assert!(loaded.is_ok(), "{loaded:?}");
        client.close().await;
    }
    let alone =
        Client::builder().endpoints(&endpoints[..1]).read_deadline(std::time::Duration::from_secs(1)).build().expect("valid");
    let error = alone.load("a").await.expect_err("nobody answers");
    assert!(matches!(error.kind(), ErrorKind::Refused { .. }), "{error}");
    assert!(error.endpoints().iter().any(|endpoint| endpoint.address == endpoints[0]), "{error}");
}

/// Content that another client wrote by the protocol alone, in a form of its own, is whole: nothing is damaged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_of_a_form_that_is_not_known_is_said_to_be_that() {
    use quorate::types::{Blob, Change, Counters, Expiry, Nonce, Request, Sequence, SessionId, Write};
    use quorate::wire::{self, v1, v1::sessions_client::SessionsClient};
    let cluster = Cluster::start(1).await;
    let endpoint = format!("http://{}", cluster.endpoints()[0]);
    let channel = tonic::transport::Endpoint::from_shared(endpoint).expect("an address").connect().await.expect("connected");
    let mut client = SessionsClient::new(channel);
    let mut write = async |write: Write, cluster_id: bytes::Bytes| {
        let operation = Some(v1::submit_request::Operation::Write(wire::write_to(&write)));
        client
            .write(v1::SubmitRequest { tag: 1, cluster_id, operation, ..Default::default() })
            .await
            .expect("answered")
            .into_inner()
    };
    let nonce = Nonce([7; 16]);
    let opened = write(Write::OpenClient { nonce }, bytes::Bytes::new()).await;
    let Some(v1::submit_response::Answer::Outcome(outcome)) = opened.answer else { panic!("{opened:?}") };
    let quorate::types::Verdict::ClientOpened { client: id } = wire::outcome_from(outcome.clone()).expect("well formed").verdict
    else {
        panic!("{outcome:?}")
    };
    let request = Request { client: id, nonce, sequence: Sequence(1), acknowledged_below: Sequence(1) };
    let change = Change::Full { chunks: vec![], head: Blob::plain("{\"of\":\"another\"}".into()), counters: Counters::default() };
    let id = SessionId::new("foreign").expect("short");
    write(Write::Save { request, id, change, attributes: Expiry::Keep.into(), fence: None }, opened.cluster_id).await;
    let err = refused(&cluster.run(&["session", "get", "foreign"]), 1, &["a form that this program does not know", "tag=123"]);
    assert!(!err.contains("damaged") && !err.contains("log"), "{err}");
}
