//! A disk that hangs under a leader: `strace` holds its syncs until it is ended.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::backup::{json, status_json};
use crate::process::harness::{Cluster, PATIENCE};
use crate::process::load::Load;

/// How long each thread's next sync takes, where `strace` is not ended before.
const HANGS_FOR: Duration = Duration::from_secs(100);
/// Writes go on within this. What is promised are 5 s (`scripts/bench/hung.sh`); a test may meet a machine with other work to do.
const WITHIN: Duration = Duration::from_secs(15);

/// `strace`, attached to a node. Once it has ended the disk answers.
struct Hang(Child);

impl Hang {
    /// From now on the next sync of each of a node's threads hangs. `None`: this system lets nobody do that, which is said.
    async fn begin(cluster: &Cluster, node: usize) -> Option<Self> {
        let injected = format!("inject=fdatasync,fsync:delay_enter={}:when=1", HANGS_FOR.as_micros());
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=fdatasync,fsync", "-e", &injected, "-e", "signal=none"]);
        command.args(["-p", &cluster.pid(node).to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut strace = match command.stderr(Stdio::null()).spawn() {
            Ok(strace) => strace,
            Err(why) => {
                println!("skipped: strace does not run: {why}");
                return None;
            }
        };
        let began = Instant::now();
        while !traced(cluster.pid(node)) {
            if let Some(status) = strace.try_wait().expect("a child of ours") {
                println!("skipped: strace may not attach to a process here: {status}");
                return None;
            }
            assert!(began.elapsed() < PATIENCE, "strace does not attach");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(Self(strace))
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn traced(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
}

fn kinds(cluster: &Cluster, node: usize) -> Vec<String> {
    let endpoint = &cluster.endpoints()[node - 1];
    let events = json(&cluster.run(&["events", "--endpoints", endpoint, "-o", "json"]));
    let events = events["events"].as_array().cloned().unwrap_or_default();
    events.iter().filter_map(|event| event["kind"].as_str().map(str::to_owned)).collect()
}

/// Sixteen writers see no error and no pause of more than some seconds; another leads while the disk still hangs; the node says what was
/// wrong, and is a member like the others once its disk answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_while_the_disk_of_the_leader_hangs() {
    let cluster = Cluster::start(3).await;
    let load = Load::start(&cluster);
    load.progress(20, &cluster).await;
    let leader = cluster.leader().await;
    load.watch_gaps();
    let began = Instant::now();
    let Some(hang) = Hang::begin(&cluster, leader).await else { return };

    let others: Vec<String> =
        cluster.endpoints().into_iter().enumerate().filter(|(n, _)| n + 1 != leader).map(|(_, at)| at).collect();
    let leads = || {
        let status = status_json(&cluster.run(&["status", "--endpoints", &others.join(","), "-o", "json"]));
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().filter(|node| node["id"] != leader).find(|node| node["role"] == "leader").and_then(|node| node["id"].as_u64())
    };
    while leads().is_none() {
        assert!(began.elapsed() < PATIENCE, "nobody takes over\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    load.progress(20, &cluster).await;
    let seen = kinds(&cluster, leader);
    assert!(seen.contains(&"disk_hung".to_owned()) && !seen.contains(&"disk_answers".to_owned()), "{seen:?}");

    drop(hang);
    while !kinds(&cluster, leader).contains(&"disk_answers".to_owned()) {
        assert!(began.elapsed() < 2 * PATIENCE, "the disk never answers\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    load.progress(20, &cluster).await;
    let (writes, longest) = load.finish(&cluster).await;
    cluster.assert_equal_digests().await;
    println!("a disk hung: {writes} writes, no error, longest time without one {longest:?}");
    assert!(longest < WITHIN, "{longest:?} without a write");
    let status: Value = json(&cluster.run(&["status", "-o", "json"]));
    assert!(status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(|node| node["reachable"] == true)), "{status}");
}
