//! Certificates and tokens that change while nodes serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quorate::client::{Content, ErrorKind, WatchOptions, WriteOptions};

use crate::security::nodes::{Nodes, PATIENCE, TOKENS, tokens_file};
use crate::security::pki::{Good, HOST};
use crate::security::wire;

async fn metric(nodes: &Nodes, node: usize, line: &str) -> bool {
    let (_, text) = wire::get(&nodes.admin_address(node), &nodes.ca, "/metrics", Some("tokensecret-admin")).await;
    text.lines().any(|each| each == line)
}

/// Saves by new connections each, through every node, until it is stopped; counts them. An error ends the test.
async fn load(nodes: Arc<Nodes>, stop: Arc<AtomicBool>, saved: Arc<AtomicU64>) {
    while !stop.load(Ordering::Relaxed) {
        let client = nodes.client("writer");
        client.save("a/load", Content::Value("x".into()), WriteOptions::default()).await.expect("no error while files change");
        client.close().await;
        saved.fetch_add(1, Ordering::Relaxed);
    }
}

/// New certificates come in force without a restart and without an error to anyone; a broken file leaves the last good one in force and
/// is reported; a token that is withdrawn ends for a client that is connected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_change_under_load_without_an_error() {
    let nodes = Arc::new(Nodes::start(3, "info").await);
    let (stop, saved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let loading = tokio::spawn(load(nodes.clone(), stop.clone(), saved.clone()));
    let open = nodes.client("writer");
    let save = async || open.save("a/open", Content::Value("x".into()), WriteOptions::default()).await;
    save().await.expect("before");

    for node in 1..=3 {
        nodes.write_pair(&format!("node-{node}"), &nodes.ca.node(HOST, Good::Now));
    }
    for node in 1..=3 {
        let reloaded = async || {
            metric(&nodes, node, "quorate_credentials_reloads_total 1").await
                && metric(&nodes, node, "quorate_credentials_problem 0").await
        };
        nodes.until("new certificates are in force", reloaded).await;
    }

    nodes.write("node-1.pem", "no certificate at all");
    nodes.until("a broken file is reported", async || metric(&nodes, 1, "quorate_credentials_problem 1").await).await;
    let (code, ready) = wire::get(&nodes.admin_address(1), &nodes.ca, "/readyz?verbose", None).await;
    assert!(code == 200 && ready.contains("[!] credentials the last good ones stay in force: the node's log"), "{ready}");
    let before = saved.load(Ordering::Relaxed);
    nodes.until("new connections are still taken", async || saved.load(Ordering::Relaxed) > before + 3).await;
    nodes.write_pair("node-1", &nodes.ca.node(HOST, Good::Now));
    nodes.until("it is good again", async || metric(&nodes, 1, "quorate_credentials_problem 0").await).await;

    stop.store(true, Ordering::Relaxed);
    loading.await.expect("no error while files change");
    save().await.expect("the old connection stands");
    nodes.write("tokens.toml", &tokens_file(&TOKENS[1..]));
    let withdrawn = async || save().await.is_err_and(|error| error.kind() == ErrorKind::Unauthenticated);
    nodes.until("a withdrawn token ends", withdrawn).await;
    open.close().await;

    // A client that reads its token from a file takes the next one by itself.
    nodes.write("token", TOKENS[1].1);
    let client = nodes.builder().tls(nodes.tls()).token_file(nodes.path("token")).build().expect("well formed");
    client.load("a/open").await.expect("a reader");
    nodes.write("tokens.toml", &tokens_file(&[("reader", "tokensecret-next", TOKENS[1].2), TOKENS[2]]));
    let withdrawn = async || client.load("a/open").await.is_err_and(|error| error.kind() == ErrorKind::Unauthenticated);
    nodes.until("the old token ends", withdrawn).await;
    nodes.write("token", "tokensecret-next\n");
    nodes.until("the next token is shown", async || client.load("a/open").await.is_ok()).await;
    client.close().await;
}

/// A watch ends with the token that it was begun by, and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_token_ends_its_watches() {
    let nodes = Nodes::start(1, "info").await;
    let (lister, writer) = (nodes.client("lister"), nodes.client("writer"));
    let foreign = lister.watch(WatchOptions::prefix("b/")).expect("well formed").next().await.expect("an item");
    assert_eq!(foreign.expect_err("a foreign prefix").kind(), ErrorKind::Denied);
    let mut watching = lister.watch(WatchOptions::prefix("a/")).expect("well formed");
    let save = async || writer.save("a/1", Content::Value("x".into()), WriteOptions::default()).await;
    let first = watching.next().await.expect("an item").expect("a frame");
    assert!(first.changes.is_empty() && first.complete);
    save().await.expect("saved");
    let frame = watching.next().await.expect("an item").expect("a frame");
    assert_eq!(frame.changes.len(), 1);
    let without: Vec<_> = TOKENS.iter().filter(|(name, ..)| *name != "lister").copied().collect();
    nodes.write("tokens.toml", &tokens_file(&without));
    let ended = async {
        loop {
            save().await.expect("the writer's token is good");
            match watching.next().await.expect("an item") {
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(watching.next().await.is_none(), "and is over");
    writer.close().await;
}
