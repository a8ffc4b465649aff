//! What an operator types at a secured cluster: each command takes certificates and tokens, and is refused without.

use std::process::Output;

use quorate::testing::processes::Signal;
use serde_json::Value;

use crate::security::nodes::Nodes;
use crate::security::pki::{Ca, Good, HOST};

const OPERATOR: &str = "tokensecret-operator";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

#[track_caller]
fn refused(output: &Output, code: i32, parts: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(parts.iter().all(|part| said.contains(part)), "{parts:?} are not in {said}");
    assert!(!said.contains("tokensecret"), "{said}");
}

/// What the doctor says of a node's credentials.
async fn credentials_of(nodes: &Nodes, node: u64) -> Option<(String, String)> {
    let findings = json(&nodes.answer(&["doctor", "-o", "json"], OPERATOR).await);
    let findings = findings["findings"].as_array().expect("findings");
    let is_it =
        |finding: &&Value| finding["node"] == node && finding["what"].as_str().is_some_and(|what| what.contains("credentials"));
    let finding = findings.iter().find(is_it)?;
    assert_eq!(finding["severity"], "warning", "{finding}");
    Some((finding["what"].as_str()?.to_owned(), finding["fix"].as_str()?.to_owned()))
}

/// A certificate that ends within days and a file that can't be used are found on the node that has them, each with a fix; once
/// they are renewed, nothing is found.
#[tokio::test]
async fn the_doctor_looks_at_every_nodes_certificate_by_tls() {
    let nodes = Nodes::start(3, "info").await;
    for node in 1..=3 {
        assert_eq!(credentials_of(&nodes, node).await, None);
    }
    refused(&nodes.answer(&["doctor"], "tokensecret-writer").await, 1, &["lacks a scope", "needs=admin"]);

    nodes.write_pair("node-2", &nodes.ca.node(HOST, Good::Days(5)));
    nodes.write("node-3.pem", "no certificate at all");
    let both = async || credentials_of(&nodes, 2).await.is_some() && credentials_of(&nodes, 3).await.is_some();
    nodes.until("the doctor finds both", both).await;
    let (what, fix) = credentials_of(&nodes, 2).await.expect("it was found");
    // Five days, of which some of the first hour may have passed.
    let hours = ["119", "120"].iter().any(|hours| what.contains(&format!("certificate_left_hours={hours}")));
    assert!(hours && fix.contains("renewed"), "{what} {fix}");
    let (what, _) = credentials_of(&nodes, 3).await.expect("it was found");
    assert!(what.contains("the file holds no certificate"), "{what}");
    assert_eq!(nodes.answer(&["doctor"], OPERATOR).await.status.code(), Some(1), "there is something to fix");

    // One that has ended comes in force nowhere, and starts no node.
    nodes.write_pair("node-3", &nodes.ca.node(HOST, Good::Expired));
    let config = nodes.path("cluster.toml");
    let check = ["serve", "--check-config", "--node", "3", "--config", config.to_str().expect("UTF-8")];
    refused(&nodes.run_open(&check), 2, &["the certificate expired on 20", "days ago", "node-3.pem"]);

    for node in [2, 3] {
        nodes.write_pair(&format!("node-{node}"), &nodes.ca.node(HOST, Good::Now));
    }
    let healed = async || credentials_of(&nodes, 2).await.is_none() && credentials_of(&nodes, 3).await.is_none();
    nodes.until("the doctor finds nothing any more", healed).await;
}

/// A probe shows no token and believes the nodes' CA; what changes a node asks for one. SIGHUP says what came of it.
#[tokio::test]
async fn one_nodes_admin_port_is_asked_by_tls() {
    let nodes = Nodes::start(1, "info").await;
    let admin = nodes.admin_address(1);
    let health = ["health", "--admin", &admin];
    assert_eq!(text(&nodes.answer(&health, "no-token-that-is-known").await.stdout), "ready\n");
    refused(&nodes.run_open(&health), 4, &["no answer", "speaks no HTTP: a port of TLS", "--ca"]);
    let level = ["admin", "log-level", "warn", "--admin", &admin];
    refused(&nodes.run(&level, "tokensecret-writer"), 1, &["nothing changed", "needs=admin", "--token-file"]);
    assert!(text(&nodes.run(&level, "tokensecret-admin").stdout).starts_with("warn,"));
    let default = ["admin", "log-level", "default", "--admin", &admin];
    assert!(text(&nodes.run(&default, "tokensecret-admin").stdout).starts_with("info"));

    let hang_up = || {
        let sent = nodes.processes.signal(1, Signal::HUP);
        assert!(sent);
    };
    let logged = async |parts: &[&str]| {
        let said = async || nodes.log(1).lines().any(|line| parts.iter().all(|part| line.contains(part)));
        nodes.until(&format!("the log says {parts:?}"), said).await;
    };
    let asked = "asked to read certificates and tokens again";
    hang_up();
    logged(&[asked, "done", "changed=0"]).await;
    nodes.write("tokens.toml", "no tokens at all");
    hang_up();
    logged(&[asked, "the last good ones stay in force", "tokens.toml"]).await;
    assert_eq!(nodes.run(&["status"], "tokensecret-admin").status.code(), Some(0), "it runs, by the last good tokens");
}

#[tokio::test]
async fn the_benchmark_measures_a_secured_cluster() {
    let nodes = Nodes::start(1, "info").await;
    let endpoints = nodes.endpoints().join(",");
    let run = |token: &str| {
        let few = [
            "--seconds",
            "1ms",
            "--at-least",
            "20",
            "--warm-up",
            "0s",
            "--callers",
            "2",
            "--keys",
            "20",
            "--runs",
            "1",
            "--settle",
            "0s",
        ];
        nodes.run(&[&["bench", "save", "turn", "-o", "json", "--endpoints", &endpoints][..], &few].concat(), token)
    };
    let measured = json(&run(OPERATOR));
    let rows = measured["rows"].as_array().expect("rows");
    assert!(rows.len() == 2 && rows.iter().all(|row| row["failures"] == 0), "{measured}");
    assert!(rows.iter().all(|row| row["operations"].as_u64() >= Some(18)), "{measured}");
    refused(&run("tokensecret-unknown"), 1, &["not known here"]);
}

/// Two of three nodes are gone. The third is recovered from by callers that may ask the others whether they live, and by no others.
#[tokio::test]
async fn a_lost_majority_of_a_secured_cluster_is_recovered_from() {
    let mut nodes = Nodes::start(3, "info").await;
    let file = nodes.path("content");
    std::fs::write(&file, "kept").expect("a writable directory");
    let put = async || nodes.run(&["session", "put", "a/1", "--file", file.to_str().expect("UTF-8")], OPERATOR).status.success();
    nodes.until("a session is stored", put).await;
    let everywhere = async || {
        let status = json(&nodes.answer(&["status", "-o", "json"], OPERATOR).await);
        let all = status["nodes"].as_array().expect("nodes");
        all.iter().all(|node| node["last_log"].as_u64().is_some() && node["last_log"] == all[0]["last_log"])
    };
    nodes.until("every node has it", everywhere).await;

    nodes.kill(3);
    nodes.write("new.toml", &nodes.configuration(1));
    let (from, config, data) = (nodes.path("data").join("3"), nodes.path("new.toml"), nodes.path("new-data"));
    let [from, config, data] = [&from, &config, &data].map(|path| path.to_str().expect("UTF-8"));
    let recover = ["recover", "--from", from, "--config", config, "--data-dir", data, "--accept-loss", "-o", "json"];
    // Perhaps it led: between two leaders a cluster lives too.
    for _ in 0..3 {
        refused(&nodes.run(&recover, OPERATOR), 2, &["the old cluster lives", "nothing was written"]);
    }
    let denied = nodes.run(&recover, "tokensecret-writer");
    refused(&denied, 2, &["must be asked first", "needs=admin", "nothing was written"]);
    assert_eq!(String::from_utf8_lossy(&denied.stderr).matches("address=").count(), 1, "{denied:?}");
    refused(&nodes.run_open(&recover), 2, &["--ca", "nothing was written"]);
    nodes.write("other-ca.pem", &Ca::new().pem());
    let other = nodes.path("other-ca.pem");
    let deceived = [&recover[..], &["--ca", other.to_str().expect("UTF-8")]].concat();
    refused(&nodes.run(&deceived, OPERATOR), 2, &["must be asked first", "is not signed by the CA in", "nothing was written"]);

    nodes.kill(1);
    nodes.kill(2);
    let recovered = json(&nodes.run(&recover, OPERATOR));
    assert_eq!(recovered["nodes"][0]["id"], 1, "{recovered}");
    nodes.start_from(1, "new.toml", "new-data");
    let got = async || nodes.run(&["session", "get", "a/1"], OPERATOR).stdout == b"kept";
    nodes.until("the new cluster has the session", got).await;
}
