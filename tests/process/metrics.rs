//! What Prometheus' own tool says of our figures and rules.
//!
//! Without `promtool` (Debian's package `prometheus`) the tests say so loudly and pass, unless `QUORATE_PROMTOOL_REQUIRED` is set, as the
//! gate does once it has installed it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use quorate::client::{Content, WriteOptions};

use super::harness::Cluster;

/// Runs it to its end; `None`, and a word on stderr, where there is none.
fn promtool(args: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new("promtool");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            assert!(std::env::var_os("QUORATE_PROMTOOL_REQUIRED").is_none(), "promtool is required: {error}");
            let _ = writeln!(std::io::stderr(), "SKIPPED: metrics and rules were not checked: no promtool: {error}");
            return None;
        }
    };
    let mut stdin = child.stdin.take().expect("piped");
    // It may end without reading: that is for the caller to judge by its exit code.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    Some(child.wait_with_output().expect("it ends"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The text of `/metrics`.
fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the admin port");
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains(" 200 "), "{head}");
    body.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_own_tool_has_no_complaint_about_any_metric() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    client.save("a", Content::Value(Bytes::from_static(b"x")), WriteOptions::default()).await.expect("saved");
    client.load("a").await.expect("loaded");
    for node in 1..=3 {
        let text = scrape(&cluster.admin(node));
        for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"]
        {
            assert!(text.contains(&format!("\n{name} ")), "node {node} has no {name}:\n{text}");
        }
        let Some(output) = promtool(&["check", "metrics"], &text) else { return };
        assert!(output.status.success() && said(&output).is_empty(), "node {node}: {}", said(&output));
    }
    // The control: a verdict that is always good would show nothing.
    let output = promtool(&["check", "metrics"], "# TYPE quorate_x_total gauge\nquorate_x_total 1\n").expect("it ran before");
    assert!(!output.status.success() && said(&output).contains("no help text"), "{}", said(&output));
}

#[test]
fn every_alert_is_a_rule_that_prometheus_takes_and_is_shown_to_fire() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/deploy");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("it is there");
    let (rules, cases) = (read("alerts.yaml"), read("alerts_test.yaml"));
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let firing = [format!("alertname: {alert}\n"), format!("alertname=\"{alert}\"")];
        assert!(firing.iter().any(|firing| cases.contains(firing)), "no case of alerts_test.yaml shows when {alert} fires");
    }
    let path = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
    let Some(output) = promtool(&["check", "rules", &path("alerts.yaml")], "") else { return };
    assert!(output.status.success(), "{}", said(&output));
    let output = promtool(&["test", "rules", &path("alerts_test.yaml")], "").expect("it ran before");
    assert!(output.status.success(), "{}", said(&output));
    // The control: with a rule that can't fire, the cases fail.
    let broken = tempfile::tempdir().expect("a directory");
    std::fs::write(broken.path().join("alerts.yaml"), rules.replace("quorate_has_leader", "quorate_has_no_leader"))
        .expect("writable");
    let copy = broken.path().join("alerts_test.yaml");
    std::fs::write(&copy, cases).expect("writable");
    let output = promtool(&["test", "rules", copy.to_str().expect("UTF-8")], "").expect("it ran before");
    assert!(!output.status.success() && said(&output).contains("QuorateNoLeader"), "{}", said(&output));
}
