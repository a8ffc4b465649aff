//! Clients in other languages, made from `proto/` alone against three processes: `tests/languages/`.
//!
//! The tools are no part of the tree: `.ci/run` installs them below `target/languages` and requires this. Without them it says so.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::harness::Cluster;

/// Below the folder of build artifacts.
fn installed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../languages").join(name)
}

/// Whether to go on without what is not there.
fn is_there(what: &Path) -> bool {
    let there = what.exists();
    assert!(there || std::env::var_os("QUORATE_LANGUAGES_REQUIRED").is_none(), "{} is not installed", what.display());
    if !there {
        eprintln!("SKIPPED: {} is not installed; see .ci/run", what.display());
    }
    there
}

/// Runs a client against the cluster; gives the lines of what was as it should be.
fn run(mut command: Command, cluster: &Cluster) -> Vec<String> {
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/proto")).args(cluster.endpoints()).stdin(Stdio::null());
    let output = command.output().expect("it is installed");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}\n{}", cluster.logs());
    out.lines().map(str::to_owned).collect()
}

/// They save, load, list, meet a conflict and a refusal, and read an answer of several MiB in many frames.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_in_python_and_node_made_from_the_protocol_alone_see_what_is_right() {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/languages");
    let (python, node) = (installed("python/bin/python"), installed("node/node_modules/@grpc/grpc-js"));
    if !is_there(&python) || !is_there(&node) {
        return;
    }
    let cluster = Cluster::start(3).await;
    let all = ["open", "save and load", "conflict", "list", "a large answer", "refusal"];
    let mut command = Command::new(&python);
    command.arg(clients.join("python/client.py"));
    assert_eq!(run(command, &cluster), [&all[..], &["reflection"]].concat());
    let mut command = Command::new("node");
    command.arg(clients.join("node/client.js")).env("QUORATE_NODE_PACKAGES", installed("node"));
    assert_eq!(run(command, &cluster), all);
}
