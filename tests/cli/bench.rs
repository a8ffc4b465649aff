//! `bench`: that it measures, counts, audits and cleans up. What it measures here means nothing: it is too little.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use quorate::testing::processes::Processes;
use serde_json::Value;

use crate::cli::{assert_refused, ended, quorate, run};

/// A directory on a disk, which the one for temporary files need not be.
fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a writable directory");
    path
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).expect("readable").next().is_none()
}

/// Measures, and gives the rows. The cluster must be gone afterwards. Times may miss their bars here; what is counted may not.
fn rows(name: &str, args: &[&str]) -> Vec<Value> {
    let dir = directory(name);
    let common = ["--runs", "1", "--settle", "0s", "-o", "json", "--data-dir", dir.to_str().expect("UTF-8")];
    let output = run(&[&["bench"], args, &common].concat());
    let (status, text) = ended(&output);
    assert!(status == 0 && text.is_empty() || status == 1 && text.starts_with("error: missed: "), "{status} {text}");
    assert!(is_empty(&dir), "the data of the command's own cluster is removed");
    std::fs::remove_dir(&dir).expect("empty");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = document["rows"].as_array().expect("rows").clone();
    for check in rows.iter().filter_map(|row| row["checks"].as_array()).flatten() {
        let is_time = check["found"].as_str().is_some_and(|found| found.contains(" ms"));
        assert!(is_time || check["ok"] == true, "{check:#}");
    }
    rows
}

fn number(row: &Value, path: &str) -> f64 {
    row.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {path} in {row:#}"))
}

#[test]
fn load_is_measured_counted_and_audited_on_a_cluster_of_its_own() {
    // However long that takes here: what is asserted depends on how much was done, not on how fast.
    let short = ["--seconds", "100ms", "--at-least", "400", "--warm-up", "0s", "--callers", "4", "--clients", "2", "--keys", "50"];
    let rows = rows("micro", &[&["save", "w3", "update-hot", "turn", "agent-sessions"], &short[..]].concat());
    let names: Vec<&str> = rows.iter().filter_map(|row| row["workload"].as_str()).collect();
    assert_eq!(names, ["save", "load", "update-hot", "turn", "agent-sessions"]);
    for row in &rows {
        assert_eq!((number(row, "/failures"), number(row, "/callers")), (0.0, 4.0), "{row:#}");
        for path in ["/operations", "/operations_per_second/median", "/latency_ms/p50/median", "/latency_ms/max/median"] {
            assert!(number(row, path) > 0.0, "{path} in {row:#}");
        }
        assert!(number(row, "/per_operation/client_wire_bytes/median") > 0.0, "{row:#}");
        assert!(number(row, "/per_operation/client_cpu_ms/median") >= 0.0, "{row:#}");
    }
    for row in rows.iter().filter(|row| row["workload"] != "load") {
        assert!(number(row, "/per_operation/log_bytes/median") > 0.0, "{row:#}");
        assert!(number(row, "/per_operation/peer_wire_bytes/median") > 0.0, "{row:#}");
    }
    // The first turn of each session is all of it; resets are rare.
    assert!(number(&rows[3], "/delta_share") > 0.0, "later turns go as deltas: {:#}", rows[3]);
    assert!(number(&rows[4], "/delta_share") > 0.9, "turns go as deltas: {:#}", rows[4]);
    let audit = &rows[4]["details"]["audit"];
    assert!(number(audit, "/turns") > 0.0, "{audit:#}");
    assert_eq!(rows[4]["checks"][0]["ok"], true, "{:#}", rows[4]);
}

#[test]
fn a_leader_is_killed_and_everything_restarted() {
    let rows = rows("gaps", &["failover", "restart", "--callers", "4", "--keys", "200", "--value-size", "1KiB"]);
    assert!(number(&rows[0], "/details/gap_ms/median") > 0.0, "{:#}", rows[0]);
    assert!(number(&rows[0], "/details/writes") > 0.0, "{:#}", rows[0]);
    assert!(number(&rows[1], "/details/first_read_ms/median") > 0.0, "{:#}", rows[1]);
    assert!(number(&rows[1], "/details/disk_bytes") > 200.0 * 1024.0, "{:#}", rows[1]);
}

#[test]
fn an_interrupted_measurement_leaves_no_process_and_no_data() {
    let dir = directory("interrupted");
    let mut command = quorate(&["bench", "save", "--seconds", "1h", "--data-dir", dir.to_str().expect("UTF-8")]);
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
    while is_empty(&dir) {
        std::thread::yield_now();
    }
    let status = Command::new("kill").args(["-TERM", &process.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
    assert_eq!(process.wait().expect("it ends").code(), Some(1));
    assert!(is_empty(&dir));
    std::fs::remove_dir(&dir).expect("empty");
}

/// On somebody else's cluster what was measured stays behind: it is said, with the command that removes it, and that removes all of it.
#[test]
fn an_interrupted_measurement_says_what_it_leaves_and_cleanup_removes_it() {
    let dir = directory("left");
    let cluster = start(&dir);
    let endpoints = &cluster.client(1);
    let mut command = quorate(&[
        "bench",
        "save",
        "--seconds",
        "1h",
        "--warm-up",
        "0s",
        "--endpoints",
        endpoints,
        "--pids",
        &cluster.pid(1).expect("it runs").to_string(),
    ]);
    let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mine = ["session", "put", "mine", "--endpoints", endpoints];
    assert_eq!(ended(&crate::cli::run_with_input(&mine, b"x")).0, 0);
    let count = || {
        let output = run(&["session", "ls", "--prefix", "bench/", "-o", "json", "--endpoints", endpoints]);
        String::from_utf8_lossy(&output.stdout).matches("\"bench/").count()
    };
    while count() == 0 {
        std::thread::yield_now();
    }
    let status = Command::new("kill").args(["-INT", &process.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
    let output = process.wait_with_output().expect("it ends");
    let left = format!("quorate bench --cleanup --endpoints {endpoints}");
    assert_refused(&output, 1, &["interrupted: the results until then are printed", "stay in the cluster", &left]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("OPS/S"), "{output:?}");
    assert!(count() > 0);

    let removed = run(&["bench", "--cleanup", "--endpoints", endpoints]);
    assert_eq!(ended(&removed), (0, String::new()));
    assert!(String::from_utf8_lossy(&removed.stdout).starts_with("removed sessions="), "{removed:?}");
    assert_eq!(count(), 0);
    let kept = run(&["session", "get", "mine", "--endpoints", endpoints]);
    assert_eq!((kept.status.code(), &kept.stdout[..]), (Some(0), &b"x"[..]), "nobody else's session is removed");
    assert_eq!(ended(&run(&["bench", "--cleanup"])).0, 2, "only of a cluster that is named");
    drop(cluster);
    std::fs::remove_dir_all(&dir).expect("it is ours");
}

/// One node.
fn start(dir: &Path) -> Processes {
    let mut nodes = Processes::new(env!("CARGO_BIN_EXE_quorate"), dir, 1).expect("ports");
    nodes.configure("bench-test", "").expect("a writable directory");
    nodes.serve(1, quorate(&[]), ["--bootstrap"]).expect("the binary runs");
    while run(&["health", "--admin", &nodes.admin(1)]).status.code() != Some(0) {
        std::thread::yield_now();
    }
    nodes
}

#[test]
fn wrong_usage_is_refused_before_anything_starts() {
    for args in [
        &["bench", "frobnicate"][..],
        &["bench", "--callers", "0"],
        &["bench", "--seconds", "0s"],
        &["bench", "--runs", "0"],
        &["bench", "--rate", "-1"],
        &["bench", "--value-size", "17MiB"],
        &["bench", "--value-size", "0"],
        &["bench", "--pids", "1"],
        &["bench", "--endpoints", "127.0.0.1:1", "--data-dir", "x"],
    ] {
        assert_eq!(ended(&run(args)).0, 2, "{args:?}");
    }
    assert_refused(&run(&["bench", "failover", "--endpoints", "127.0.0.1:1"]), 2, &["failover", "--endpoints"]);
    assert_refused(&run(&["bench", "save", "--data-dir", "/proc/self"]), 2, &["--data-dir"]);
}

#[test]
fn a_cluster_that_is_not_there_is_unavailable() {
    let output = run(&["bench", "save", "--endpoints", "127.0.0.1:1"]);
    assert_eq!(ended(&output).0, 4, "{output:?}");
}
