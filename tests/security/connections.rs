//! Who may connect at all.

use std::time::Duration;

use quorate::client::{Client, Error, ErrorKind, Tls};

use crate::security::nodes::{Nodes, PATIENCE};
use crate::security::pki::{Ca, Good, HOST, Pair};
use crate::security::wire;

/// What a load of a client ends in that must not get in.
async fn refused(client: Client) -> Error {
    let error = client.load("a/1").await.expect_err("must be refused");
    client.close().await;
    error
}

fn shown(nodes: &Nodes, pair: &Pair) -> Client {
    let tls = Tls::ca_pem(nodes.ca.pem()).identity_pem(pair.certificate.clone(), pair.key.clone());
    nodes.builder().tls(tls).token("tokensecret-writer").build().expect("well formed")
}

/// Without a certificate, with another CA's, with one that has expired: the node takes none of them and says so.
#[tokio::test]
async fn a_client_without_a_good_certificate_is_refused_at_once() {
    let nodes = Nodes::start(1, "info").await;
    let none = nodes.builder().tls(Tls::ca_pem(nodes.ca.pem())).token("tokensecret-writer").build();
    for (what, client, alert) in [
        ("none", none.expect("well formed"), "it wants a client's certificate"),
        ("wrong CA", shown(&nodes, &Ca::new().client(Good::Now)), "does not know the CA that signed the certificate"),
        ("expired", shown(&nodes, &nodes.ca.client(Good::Expired)), "the certificate shown to it expired on 2021-01-01, "),
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
    let pair = nodes.ca.client(Good::Now);
    let deceived = Tls::ca_pem(Ca::new().pem()).identity_pem(pair.certificate, pair.key);
    let deceived = nodes.builder().tls(deceived).token("tokensecret-writer").read_deadline(PATIENCE);
    let error = refused(deceived.build().expect("well formed")).await;
    assert!(matches!(error.kind(), ErrorKind::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("its certificate is not signed by a CA that is believed here"), "{error}");

    // The CA is believed, the name is not in the node's certificate.
    let elsewhere = nodes.client_address(1).replace(HOST, "localhost");
    let elsewhere = Client::builder().endpoints([elsewhere]).tls(nodes.tls()).token("tokensecret-writer");
    let error = refused(elsewhere.read_deadline(PATIENCE).build().expect("well formed")).await;
    assert!(error.to_string().contains("its certificate is not good for localhost, only for "), "{error}");

    // It does not try again until its deadline: nothing would change by that.
    let open = nodes.builder().read_deadline(Duration::from_secs(120)).build().expect("well formed");
    let error = refused(open).await;
    assert!(matches!(error.kind(), ErrorKind::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("it speaks TLS: pass --ca (QUORATE_CA)") && error.endpoints()[0].settings, "{error}");
}

/// What is typed wrongly most often is answered in words that say what to type instead.
#[tokio::test]
async fn a_command_that_does_not_fit_the_nodes_is_answered_in_plain_words_with_what_to_pass() {
    let nodes = Nodes::start(1, "info").await;
    nodes.write("other.pem", &Ca::new().pem());
    nodes.write_pair("expired", &nodes.ca.client(Good::Expired));
    let path = |name: &str| nodes.path(name).to_str().expect("UTF-8").to_owned();
    let (node, peer, admin) = (nodes.client_address(1), nodes.peer_address(1), nodes.admin_address(1));
    let (ca, cert, key) = (path("ca.pem"), path("client.pem"), path("client-key.pem"));
    let shown = ["--ca", &ca, "--cert", &cert, "--key", &key];
    let (get, status) = (["session", "get", "a/1"], ["status"]);
    let with = |command: &[&str], more: &[&str]| {
        let output = nodes.run_open(&[command, more].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let other = path("other.pem");
    let (old, old_key) = (path("expired.pem"), path("expired-key.pem"));
    let https = format!("https://{node}");
    for (command, more, code, said) in [
        (&get[..], &[][..], 4, format!("error: no answer: {node}: it speaks TLS: pass --ca (QUORATE_CA)\n")),
        (&status, &[], 4, format!("error: no answer: {node}: it speaks TLS: pass --ca (QUORATE_CA)\n")),
        (&["session", "rm", "a/1"], &[], 4, format!("nothing changed: {node}: it speaks TLS: pass --ca (QUORATE_CA)\n")),
        (&get, &["--ca", &other], 4, format!("{node}: its certificate is not signed by the CA in {other} (--ca, QUORATE_CA)\n")),
        (&get, &["--ca", &ca], 1, "it wants a client's certificate: pass --cert and --key (QUORATE_CERT, QUORATE_KEY)".to_owned()),
        (&get, &["--ca", &ca, "--cert", &old, "--key", &old_key], 1, "expired on 2021-01-01, ".to_owned()),
        (&get, &shown, 1, "a token is passed by --token-file (QUORATE_TOKEN_FILE) or QUORATE_TOKEN".to_owned()),
        (&get, &["--endpoints", &https], 2, "pass --ca (QUORATE_CA)".to_owned()),
        (&get, &["--endpoints", &peer, "--ca", &ca], 1, "a peer port wants a member's".to_owned()),
        (
            &get,
            &[&shown[..], &["--endpoints", &admin]].concat(),
            4,
            format!("{admin}: that is an admin port: use the node's client port\n"),
        ),
    ] {
        let (ended, err) = with(command, more);
        assert_eq!(ended, Some(code), "{command:?} {more:?}: {err}");
        assert!(err.contains(&said), "{command:?} {more:?}: {said:?} is not in {err:?}");
        assert!(!err.contains("http2") && !err.contains("alert"), "{err}");
    }
}

/// The peer port takes members only: not a client of the same CA, even on a member's host; not a node of another host.
#[tokio::test]
async fn the_peer_port_takes_members_only() {
    let nodes = Nodes::start(1, "info").await;
    let (address, ca) = (nodes.peer_address(1), &nodes.ca);
    let member = ca.node(HOST, Good::Now);
    let answer = wire::hello(&address, ca, Some(&member)).await.expect("a member's certificate");
    assert_eq!(answer.node, 1);
    for (what, shown) in [
        ("none", None),
        ("a client's", Some(ca.client(Good::Now))),
        ("wrong CA", Some(Ca::new().node(HOST, Good::Now))),
        ("another host's", Some(ca.node("10.1.2.3", Good::Now))),
        ("expired", Some(ca.node(HOST, Good::Expired))),
    ] {
        let error = wire::hello(&address, ca, shown.as_ref()).await.expect_err(what);
        assert!(error.contains("received fatal alert"), "{what}: {error}");
    }
    // Each is counted once its connection has ended.
    let counted = async || {
        let (_, text) = wire::get(&nodes.admin_address(1), ca, "/metrics", Some("tokensecret-admin")).await;
        let count = text.lines().find_map(|line| line.strip_prefix("quorate_tls_refused_total{port=\"peer\"} "));
        // A channel may have connected once more to make its call.
        count.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count >= 5)
    };
    nodes.until("the refused are counted", counted).await;
}
