//! What an operator asks of one running node: its health, its log, and to read its files again.

use std::process::{Command, Output, Stdio};

use quorate::testing::processes::Signal;
use serde_json::Value;

use super::harness::Cluster;

fn quorate(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    for variable in ["CA", "CERT", "KEY", "TOKEN", "TOKEN_FILE", "ADMIN"] {
        command.env_remove(format!("QUORATE_{variable}"));
    }
    command.args(args).stdin(Stdio::null()).output().expect("the binary under test")
}

fn code_and_text(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned())
}

/// The whole log of a node.
fn log(cluster: &Cluster, node: usize) -> String {
    std::fs::read_to_string(cluster.dir().join(format!("{node}.log"))).expect("a log")
}

/// Waits until a node's log holds a text.
async fn until_logged(cluster: &Cluster, node: usize, text: &str) {
    let started = std::time::Instant::now();
    while !log(cluster, node).contains(text) {
        assert!(started.elapsed() < super::harness::PATIENCE, "{text:?} is not in the log\n{}", log(cluster, node));
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_by_its_exit_code_whether_a_node_is_ready_alive_or_gone() {
    let mut cluster = Cluster::start(3).await;
    let admin = cluster.admin(1);
    let health = |more: &[&str]| code_and_text(&quorate(&[&["health", "--admin", &admin][..], more].concat()));
    assert_eq!(health(&[]), (Some(0), "ready\n".into()));
    assert_eq!(health(&["--ready"]).0, Some(0));
    assert_eq!(health(&["--live"]), (Some(0), "ok\n".into()));
    let (code, text) = health(&["-o", "json"]);
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, &json["ready"], &json["checks"][0]["name"]), (Some(0), &Value::from(true), &Value::from("storage")));
    // A port that is open and answers no HTTP is no node that answers.
    let client = &cluster.endpoints()[0];
    let (code, text) = code_and_text(&quorate(&["health", "--admin", client]));
    assert!(code == Some(4) && text.contains(client.as_str()), "{code:?} {text}");

    cluster.kill(2);
    cluster.kill(3);
    let started = std::time::Instant::now();
    cluster.kill(1);
    cluster.without_bootstrap();
    cluster.restart(1);
    // Alone it finds no leader, and is alive.
    while health(&["--live"]).0 != Some(0) {
        assert!(started.elapsed() < super::harness::PATIENCE, "{}", cluster.logs());
    }
    let (code, text) = health(&[]);
    assert!(code == Some(1) && text.contains("[-] leader") && text.contains("error: the node is not ready"), "{text}");

    cluster.kill(1);
    let (code, text) = health(&[]);
    assert!(code == Some(4) && text.contains("error: no answer") && text.contains(&admin), "{text}");
    assert_eq!(health(&["--live"]).0, Some(4));
    assert_eq!(health(&["--live", "--ready"]).0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_logs_json_and_its_level_changes_while_it_runs() {
    let mut cluster = Cluster::prepare(1);
    cluster.restart_with(1, &["--log-format", "json"]);
    cluster.leader().await;
    let admin = cluster.admin(1);
    let level = |more: &[&str]| code_and_text(&quorate(&[&["admin", "log-level", "--admin", &admin][..], more].concat()));
    let (code, first) = level(&[]);
    assert!(code == Some(0) && first.starts_with("info"), "{first}");
    let (code, text) = level(&["debug"]);
    assert!(code == Some(0) && text.starts_with("debug,openraft=error"), "{text}");
    assert_eq!(level(&[]).1, text);
    let (code, text) = level(&["loud=["]);
    assert!(code == Some(2) && text.contains("loud=[") && text.contains("nothing changed"), "{text}");
    assert_eq!(level(&["default"]), (Some(0), first));
    let lines: Vec<Value> = log(&cluster, 1).lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let listens = lines.iter().find(|line| line["message"] == "listening").expect("it says where it listens");
    assert!(listens["level"] == "INFO" && listens["key"] == "client" && listens["timestamp"].is_string(), "{listens}");
    assert!(lines.iter().any(|line| line["message"] == "the log filter was changed" && line["level"] == "WARN"));
}

/// The habit of other servers, and a terminal that is closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_ends_no_node_and_is_answered_in_its_log() {
    let mut cluster = Cluster::start(1).await;
    cluster.signal(1, Signal::HUP);
    until_logged(&cluster, 1, "asked to read certificates and tokens again: none are configured").await;
    assert_eq!(quorate(&["health", "--admin", &cluster.admin(1)]).status.code(), Some(0));
    cluster.stop(1).await;
    assert!(log(&cluster, 1).contains("asked to read"), "it ran until it was stopped");
}

/// What reads the log may go: the node then logs to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_nobody_reads_any_more_goes_on() {
    let cluster = Cluster::prepare(1);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(["serve", "--node", "1", "--bootstrap", "--config"]).arg(cluster.dir().join("cluster.toml"));
    command.arg("--data-dir").arg(cluster.data()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let mut child = command.spawn().expect("the binary under test");
    drop(command);
    drop(reader);
    let started = std::time::Instant::now();
    let admin = cluster.admin(1);
    while quorate(&["health", "--admin", &admin]).status.code() != Some(0) {
        let ended = child.try_wait().expect("a child of ours");
        assert!(ended.is_none() && started.elapsed() < super::harness::PATIENCE, "{ended:?}");
    }
    // It writes a line for this.
    assert_eq!(quorate(&["admin", "log-level", "debug", "--admin", &admin]).status.code(), Some(0));
    assert_eq!(quorate(&["health", "--live", "--admin", &admin]).status.code(), Some(0));
    child.kill().expect("it runs");
    child.wait().expect("it was killed");
}
