//! `dev` and the commands against it: three real processes, real files, a leader that is killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use quorate::testing::processes::Ports;
use serde_json::Value;

use crate::cli::{assert_refused, contents, ended, quorate, run, run_with_input};

/// What a cluster gets to come up or to elect a leader, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `quorate dev`. Dropping it kills the parent: the nodes end with it.
pub struct Dev {
    process: Child,
    lines: Receiver<String>,
    pub endpoints: String,
}

impl Dev {
    fn start(data_dir: &Path, base_port: u16) -> Self {
        Self::start_with(data_dir, base_port, &[])
    }

    fn start_with(data_dir: &Path, base_port: u16, more: &[&str]) -> Self {
        let port = base_port.to_string();
        let args = ["dev", "--base-port", &port, "--data-dir", data_dir.to_str().expect("UTF-8")];
        let mut process =
            quorate(&[&args[..], more].concat()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary runs");
        let stdout = process.stdout.take().expect("piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let endpoints: Vec<String> = (0..3).map(|node| format!("127.0.0.1:{}", base_port + 10 * node)).collect();
        Self { process, lines, endpoints: endpoints.join(",") }
    }

    /// The first line that holds `part`, and all before it.
    fn wait_for(&self, part: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line with {part:?} after {seen:#?}"));
            let found = line.contains(part);
            seen.push(line);
            if found {
                return seen;
            }
        }
    }

    pub fn run(&self, args: &[&str], input: &[u8]) -> Output {
        run_with_input(&[args, &["--endpoints", &self.endpoints]].concat(), input)
    }

    /// Runs it, and asserts that it succeeds.
    pub fn ok(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(args, input);
        assert_eq!(ended(&output), (0, String::new()), "{args:?}");
        output.stdout
    }

    pub fn json(&self, args: &[&str], input: &[u8]) -> Value {
        serde_json::from_slice(&self.ok(&[args, &["-o", "json"]].concat(), input)).expect("JSON")
    }

    /// SIGTERM, and the exit code.
    fn stop(mut self) -> Option<i32> {
        signal("-TERM", self.process.id());
        self.process.wait().expect("it ends").code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn signal(signal: &str, pid: u32) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill runs");
    assert!(status.success(), "kill {signal} {pid}");
}

/// The number behind `pid ` in the line that starts so.
fn pid_in(line: &str) -> u32 {
    let digits = line.rsplit("pid ").next().expect("a pid").split(|c: char| !c.is_ascii_digit()).next().expect("digits");
    digits.parse().unwrap_or_else(|_| panic!("no pid in {line:?}"))
}

/// Bytes of the disk that what lies below a directory has, and the lengths of its files.
fn taken_by(dir: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = (0, 0);
    for entry in std::fs::read_dir(dir).expect("a readable directory") {
        let path = entry.expect("it is there").path();
        // Files are renamed and removed meanwhile.
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        let more = if metadata.is_dir() { taken_by(&path) } else { (512 * metadata.blocks(), metadata.len()) };
        sum = (sum.0 + more.0, sum.1 + more.1);
    }
    sum
}

/// The whole life of a development cluster: every command, the death of its leader, a restart.
#[test]
fn a_cluster_serves_every_command_survives_its_leader_and_keeps_its_data() {
    let dir = tempfile::tempdir().expect("a directory");
    // Nine ports, the last 22 behind the first.
    let ports = Ports::reserve().expect("a block");
    let base_port = ports.first();
    let dev = Dev::start(dir.path(), base_port);
    let lines = dev.wait_for("cluster is up");
    let leader = pid_in(lines.last().expect("a line"));
    assert!(lines.iter().any(|line| line.contains("0.2 GB of disk")), "{lines:#?}");
    // Both what is reserved and how long the files are.
    let (taken, length) = taken_by(dir.path());
    assert!(taken < 250_000_000 && length < 250_000_000, "{taken} {length}");
    let lines = dev.wait_for("Ctrl-C");
    assert!(lines.iter().any(|line| line.contains(&format!("http://127.0.0.1:{}/", base_port + 2))), "the page: {lines:#?}");
    let typed = lines.iter().find(|line| line.contains("session get greeting")).expect("what to type");
    assert!(typed.trim().starts_with(env!("CARGO_BIN_EXE_quorate")), "what works without a `quorate` on the path: {typed}");

    plain_values_are_kept_byte_for_byte(&dev);
    versions_are_checked(&dev);
    the_readme_is_typed(&dev);
    a_second_one_says_whose_the_ports_are(base_port, leader);
    transcripts_come_back_as_json(&dev);
    listings_page_and_stop_quietly(&dev);
    contents::are_kept(&dev, dir.path());
    status_tells_of_every_node(&dev);

    let before = dev.json(&["session", "put", "survivor"], b"before");
    signal("-KILL", leader);
    let after = dev.json(&["session", "cas", "survivor", "--expect", "1"], b"after");
    assert_eq!((before["version"].as_u64(), after["version"].as_u64()), (Some(1), Some(2)));
    let lines = dev.wait_for("interrupted");
    assert!(lines.iter().any(|line| line.contains("died") && line.contains(&leader.to_string())), "{lines:#?}");
    assert_eq!(dev.stop(), Some(0));

    let again = Dev::start(dir.path(), base_port);
    again.wait_for("cluster is up");
    assert_eq!(again.ok(&["session", "get", "survivor"], b""), b"after");
    assert_eq!(again.stop(), Some(0));
}

/// A caller who types what a secured cluster prints is let in, also after it was started again; nobody else is. It is not opened by mistake.
#[test]
fn a_secured_cluster_prints_what_lets_a_shell_in() {
    let dir = tempfile::tempdir().expect("a directory");
    let ports = Ports::reserve().expect("a block");
    let shell = |lines: &[String], command: &str| {
        let export = lines.iter().find(|line| line.contains("export QUORATE_CA=")).expect("what to show is printed");
        let typed = lines.iter().find(|line| line.contains(command)).unwrap_or_else(|| panic!("{command} is not in {lines:#?}"));
        Command::new("sh").args(["-c", &format!("{export}\n{typed}")]).stdin(Stdio::null()).output().expect("sh runs")
    };
    for expected in ["version=1", "version=2"] {
        let dev = Dev::start_with(dir.path(), ports.first(), &["--secure"]);
        let lines = dev.wait_for("Ctrl-C");
        let put = shell(&lines, "session put greeting");
        assert_eq!(ended(&put).0, 0, "{put:?}");
        assert!(String::from_utf8_lossy(&put.stdout).contains(expected), "{put:?}");
        assert_eq!(ended(&shell(&lines, "status")).0, 0);
        assert_ne!(ended(&dev.run(&["session", "get", "greeting", "--timeout", "2s"], b"")).0, 0, "without what is printed");
        assert_eq!(dev.stop(), Some(0));
    }
    let open = run(&["dev", "--data-dir", dir.path().to_str().expect("UTF-8"), "--base-port", &ports.first().to_string()]);
    assert_refused(&open, 2, &["certificates", "--secure"]);
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(dir.path().join("certs").join(name)).expect("it was made").permissions().mode() & 0o777
    };
    assert_eq!(["ca-key.pem", "node-1-key.pem", "client-key.pem", "me.token", "tokens.toml"].map(mode), [0o600; 5]);
}

/// What the README has one type beside a running `dev`.
fn the_readme_is_typed(dev: &Dev) {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("it is there");
    let (_, text) = readme.split_once("In another terminal:\n\n```sh\n").expect("where it begins");
    let (commands, _) = text.split_once("```").expect("where it ends");
    let directory = Path::new(env!("CARGO_BIN_EXE_quorate")).parent().expect("a directory").display();
    for command in commands.lines() {
        let script = format!("PATH={directory}:$PATH; export QUORATE_ENDPOINTS={}; {command}", dev.endpoints);
        let output = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().expect("sh runs");
        assert_eq!(ended(&output), (0, String::new()), "{command}");
    }
    assert!(commands.lines().count() > 5, "{commands}");
}

/// Another data directory, the same ports: it does not take the other's cluster for its own.
fn a_second_one_says_whose_the_ports_are(base_port: u16, leader: u32) {
    let dir = tempfile::tempdir().expect("a directory");
    let second = run(&["dev", "--base-port", &base_port.to_string(), "--data-dir", dir.path().to_str().expect("UTF-8")]);
    assert_refused(&second, 2, &["taken by a cluster that runs already", "cluster_id=", &format!("pid {leader}"), "--base-port"]);
    assert_eq!(String::from_utf8_lossy(&second.stdout), "", "nothing else is said");
}

/// All that it prints on one terminal: each line is a node's or its own.
#[test]
fn lines_of_the_nodes_and_of_the_command_are_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let ports = Ports::reserve().expect("a block");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let port = ports.first().to_string();
    let mut command = quorate(&["dev", "--base-port", &port, "--data-dir", dir.path().to_str().expect("UTF-8")]);
    command.stdout(writer.try_clone().expect("a pipe")).stderr(writer);
    let mut process = command.spawn().expect("the binary runs");
    drop(command);
    let mut logged = 0;
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        let of_a_node = (1..=3).find_map(|node| line.strip_prefix(&format!("node {node} | ")));
        let rest = of_a_node.unwrap_or(&line);
        assert!((1..=3).all(|node| !rest.contains(&format!("node {node} | "))), "two lines in one: {line}");
        let own = [
            "node 1 started",
            "node 2 started",
            "node 3 started",
            "cluster is up",
            "data in",
            "the page",
            "try, ",
            "  ",
            "Ctrl-C",
            "stopping",
            "stopped",
        ];
        match of_a_node {
            // The time, or the reason why it ends.
            Some(log) => assert!(log.starts_with("20") || log.starts_with("error: "), "{line}"),
            None => assert!(own.iter().any(|start| line.starts_with(start)), "{line}"),
        }
        logged += usize::from(of_a_node.is_some());
        if line.starts_with("Ctrl-C") {
            signal("-TERM", process.id());
        }
    }
    assert_eq!(process.wait().expect("it ends").code(), Some(0));
    assert!(logged > 3, "the nodes log to the same place");
}

fn plain_values_are_kept_byte_for_byte(dev: &Dev) {
    let bytes: Vec<u8> = (0..=255).collect();
    let put = dev.json(&["session", "put", "bytes"], &bytes);
    assert_eq!((put["id"].as_str(), put["version"].as_u64()), (Some("bytes"), Some(1)));
    assert!(put["revision"].as_u64().is_some_and(|revision| revision > 0), "{put}");
    assert_eq!(dev.ok(&["session", "get", "bytes"], b""), bytes);
    let text = dev.json(&["session", "save", "-", "--file", "Cargo.toml"], b"text\n");
    assert_eq!(text["id"], "text");
    let got = dev.json(&["session", "get", "text"], b"");
    assert_eq!(got["value"].as_str(), std::fs::read_to_string("Cargo.toml").ok().as_deref());
    assert_eq!(got["mod_revision"], text["revision"]);
}

fn versions_are_checked(dev: &Dev) {
    assert_eq!(dev.json(&["session", "cas", "cas", "--expect", "0"], b"one")["version"], 1);
    let conflict = dev.run(&["session", "cas", "cas", "--expect", "7"], b"two");
    let (code, message) = ended(&conflict);
    assert_eq!(code, 3, "{message}");
    assert!(message.contains("actual=1") && message.contains("nothing changed"), "{message}");
    assert_eq!(ended(&dev.run(&["session", "rm", "cas", "--expect", "7"], b"")).0, 3);
    assert_eq!(dev.json(&["session", "rm", "cas", "--expect", "1"], b"")["version"], 2);
    let gone = dev.run(&["session", "get", "cas"], b"");
    assert_eq!(ended(&gone).0, 5);
    assert_eq!(dev.json(&["session", "del", "cas"], b"")["version"], Value::Null, "there is nothing left to delete");
    assert_eq!(dev.json(&["session", "put", "cas"], b"new")["version"], 3, "versions go on counting after a delete");
}

fn transcripts_come_back_as_json(dev: &Dev) {
    let state = serde_json::json!({
        "messages": [{ "role": "user", "content": "hi" }, { "role": "assistant", "content": "hello" }],
        "memory_summary": null,
        "total_usage": { "prompt_tokens": 3, "completion_tokens": 4 },
    });
    dev.ok(&["session", "put", "talk"], state.to_string().as_bytes());
    let got = dev.json(&["session", "get", "talk"], b"");
    assert_eq!(got["state"]["messages"], state["messages"]);
    assert_eq!(got["items"], 2);
}

fn listings_page_and_stop_quietly(dev: &Dev) {
    for n in 0..5 {
        dev.ok(&["session", "put", &format!("page/{n}")], b"x");
    }
    let listed = dev.json(&["session", "ls", "--prefix", "page/", "--limit", "3"], b"");
    let ids: Vec<&str> =
        listed["sessions"].as_array().expect("a list").iter().filter_map(|session| session["id"].as_str()).collect();
    assert_eq!(ids, ["page/0", "page/1", "page/2"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let closed = quorate(&["session", "list", "--endpoints", &dev.endpoints]).stdout(writer).stderr(Stdio::piped()).output();
    assert_eq!(ended(&closed.expect("the binary runs")), (0, String::new()));
}

fn status_tells_of_every_node(dev: &Dev) {
    let status = dev.json(&["status"], b"");
    let nodes = status["nodes"].as_array().expect("nodes");
    let ids: Vec<u64> = nodes.iter().filter_map(|node| node["id"].as_u64()).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert!(nodes.iter().all(|node| node["reachable"] == true), "{status:#}");
    assert_eq!(nodes.iter().filter(|node| node["role"] == "leader").count(), 1, "{status:#}");
    let applied = nodes.iter().filter_map(|node| node["applied"].as_u64()).max().expect("an index");
    let digests = dev.json(&["status", "--digest-at", &applied.to_string()], b"");
    assert!(digests["nodes"].is_array(), "{digests:#}");
}
