//! Names in `cluster.toml`: a node follows a host that has another address now, without a restart.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use bytes::Bytes;
use quorate::client::{Client, Content, WriteOptions};

use super::harness::PATIENCE;
use crate::ports::Ports;

/// Puts `$1` in place of /etc/hosts where only this process sees it, and becomes what follows.
const BY_OWN_HOSTS: &str = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
const UNSHARE: [&str; 5] = ["--user", "--map-root-user", "--mount", "sh", "-c"];

/// Two nodes that know each other by name; ended with the test.
struct Named {
    dir: PathBuf,
    ports: Vec<u16>,
    running: Vec<(usize, Child)>,
}

impl Named {
    /// In the same file, which the nodes have mounted.
    fn set_hosts(&self, second: &str) {
        let text = format!("127.0.0.1 localhost one.quorate.test\n{second} two.quorate.test\n");
        std::fs::write(self.dir.join("hosts"), text).expect("a writable directory");
    }

    /// The second node listens to its peers at this address, and nowhere else.
    fn configure(&self, second: &str) {
        let node = |id: usize, name: &str, address: &str| {
            let [client, peer, admin] = [0, 1, 2].map(|at| self.ports[3 * (id - 1) + at]);
            format!(
                "[[node]]\nid = {id}\nclient = \"127.0.0.1:{client}\"\npeer = \"{name}.quorate.test:{peer}\"\n\
                 peer_listen = \"{address}:{peer}\"\nadmin = \"127.0.0.1:{admin}\"\n"
            )
        };
        let text = format!("name = \"names\"\n{}{}", node(1, "one", "127.0.0.1"), node(2, "two", second));
        std::fs::write(self.dir.join("cluster.toml"), text).expect("a writable directory");
    }

    fn start(&mut self, node: usize) {
        let log = std::fs::File::create(self.dir.join(format!("{node}.log"))).expect("a log file");
        let mut command = Command::new("unshare");
        command.args(UNSHARE).arg(BY_OWN_HOSTS).arg("sh").arg(self.dir.join("hosts")).arg(env!("CARGO_BIN_EXE_quorate"));
        command
            .args(["serve", "--bootstrap", "--insecure", "--node", &node.to_string(), "--config"])
            .arg(self.dir.join("cluster.toml"));
        command.arg("--data-dir").arg(self.dir.join("data")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.running.push((node, command.spawn().expect("unshare ran before")));
    }

    fn kill(&mut self, node: usize) {
        let at = self.running.iter().position(|(running, _)| *running == node).expect("it runs");
        let (_, mut child) = self.running.remove(at);
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
    }

    fn logs(&self) -> String {
        let log = |node| std::fs::read_to_string(self.dir.join(format!("{node}.log"))).unwrap_or_default();
        format!("--- 1\n{}\n--- 2\n{}", log(1), log(2))
    }

    /// Saves by node `node`, which needs both, once it is possible.
    async fn save(&self, node: usize) {
        let client = Client::builder().endpoints([format!("127.0.0.1:{}", self.ports[3 * (node - 1)])]).build().expect("valid");
        let started = Instant::now();
        while let Err(error) = client.save("a", Content::Value(Bytes::from_static(b"x")), WriteOptions::default()).await {
            assert!(started.elapsed() < PATIENCE, "{error}\n{}", self.logs());
        }
        client.close().await;
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn may_mount(hosts: &Path) -> Result<(), String> {
    let mut probe = Command::new("unshare");
    probe.args(UNSHARE).arg(BY_OWN_HOSTS).arg("sh").arg(hosts).arg("true");
    let output = probe.stdin(Stdio::null()).output().map_err(|error| format!("unshare: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_looked_up_again_for_each_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let reserved = Ports::reserve();
    let mut nodes = Named { dir: dir.path().to_owned(), ports: reserved.take(6), running: Vec::new() };
    nodes.set_hosts("127.0.0.1");
    if let Err(why) = may_mount(&dir.path().join("hosts")) {
        println!("skipped: this system gives a test no file of hosts of its own: {why}");
        return;
    }
    nodes.configure("127.0.0.1");
    nodes.start(1);
    nodes.start(2);
    nodes.save(1).await;

    // The host gets another address; the first node is not started again.
    nodes.kill(2);
    nodes.set_hosts("127.0.0.2");
    nodes.configure("127.0.0.2");
    nodes.start(2);
    nodes.save(1).await;
    // The leader replicates by connections of its own: so both have found the other.
    for leader in ["1", "2"] {
        let started = Instant::now();
        let moved = || {
            let endpoint = format!("127.0.0.1:{}", nodes.ports[0]);
            let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
            command.args(["leader", "transfer", leader, "--endpoints", &endpoint]).stdin(Stdio::null()).output().expect("it runs")
        };
        loop {
            let output = moved();
            if output.status.success() {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{}\n{}", String::from_utf8_lossy(&output.stderr), nodes.logs());
        }
        nodes.save(1).await;
    }
    assert!(nodes.running.iter_mut().all(|(_, child)| child.try_wait().expect("a child of ours").is_none()), "{}", nodes.logs());
}
