//! What an operator types to look at a cluster, against real processes.

use quorate::client::{Content, WriteOptions};
use serde_json::Value;

use super::harness::Cluster;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_finds_nothing_in_a_healthy_cluster_and_names_a_node_that_is_down() {
    let mut cluster = Cluster::start(3).await;
    // The machine the tests run on may have a full disk or a slow one: those findings are about it, not about the cluster.
    let about_the_cluster = |output: &std::process::Output| -> Vec<Value> {
        let found: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
        let findings = found["findings"].as_array().cloned().unwrap_or_default();
        let of_the_machine = |what: &str| ["disk", "sync"].iter().any(|word| what.contains(word));
        findings.into_iter().filter(|finding| !of_the_machine(finding["what"].as_str().unwrap_or_default())).collect()
    };
    let output = cluster.run(&["doctor", "-o", "json"]);
    assert_eq!(about_the_cluster(&output), [] as [Value; 0]);

    let leader = cluster.leader().await;
    let follower = (1..=3).find(|node| *node != leader).expect("three nodes");
    cluster.kill(follower);
    let output = cluster.run(&["doctor", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let findings = about_the_cluster(&output);
    let down = findings.iter().find(|finding| finding["node"] == follower).unwrap_or_else(|| panic!("{findings:?}"));
    assert!(down["what"].as_str().is_some_and(|what| what.contains("does not answer")), "{down}");
    assert!(down["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{down}");

    cluster.kill(leader);
    let output = cluster.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("a majority is missing"), "{}", text(&output.stdout));
    cluster.kill_all();
    assert_eq!(cluster.run(&["doctor", "--timeout", "500ms"]).status.code(), Some(4), "nobody answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_status_shows_what_happens_between_two_looks() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let writes = async {
        loop {
            client.save("watched", Content::Value("x".into()), WriteOptions::default()).await.expect("a save");
        }
    };
    let cluster = std::sync::Arc::new(cluster);
    let own = cluster.clone();
    let looks =
        tokio::task::spawn_blocking(move || own.run(&["status", "--watch", "--count", "4", "--interval", "1s", "-o", "json"]));
    let output = tokio::select! {
        () = writes => unreachable!("it goes on for ever"),
        output = looks => output.expect("it ran"),
    };
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 4);
    let rate = |line: &Value| {
        line["nodes"].as_array().into_iter().flatten().filter_map(|node| node["writes_per_second"].as_f64()).sum::<f64>()
    };
    assert_eq!(rate(&lines[0]), 0.0, "the first look has nothing to compare with");
    assert!(lines.iter().any(|line| rate(line) > 0.0), "{lines:?}");

    let output = cluster.run(&["status", "--watch", "--count", "2", "--interval", "10ms"]);
    let shown = text(&output.stdout);
    assert_eq!(shown.matches("WRITES/S").count(), 2, "a table for each look: {shown}");
    assert!(!shown.contains('\u{1b}'), "nothing is redrawn where there is no terminal: {shown:?}");
}
