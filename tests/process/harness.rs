//! Real processes on loopback: what is killed here is killed with -9.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quorate::client::{Client, ClusterStatus, NodeStatus, Role, Tls};
use tempfile::TempDir;

use crate::ports::Ports;

/// Longest a healthy cluster may take for anything waited for here.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Some nodes, each a process of its own.
pub struct Cluster {
    dir: TempDir,
    ports: Vec<[u16; 3]>,
    reserved: Ports,
    children: Vec<Option<Child>>,
    bootstrap: bool,
    /// The directory below `dir` that the nodes keep their data in.
    data: &'static str,
    /// Nodes that get a file system of their own, and its bytes.
    small: Vec<(usize, u64)>,
    /// More of the configuration, behind the nodes.
    pub more_configuration: String,
    /// Of every node that is started from now on.
    pub environment: Vec<(String, String)>,
    /// The CA's certificates, where the nodes speak TLS.
    pub ca: Option<String>,
}

/// The file system of one node's own.
pub struct SmallDisk {
    /// Its root, as this process reaches it.
    pub root: PathBuf,
}

/// Mounts `$2` bytes of memory on `$1` where only this process sees it, and becomes what follows.
const ON_SMALL_DISK: &str = "mount -t tmpfs -o size=$2 tmpfs \"$1\" && shift 2 && exec \"$@\"";
const UNSHARE: [&str; 5] = ["--user", "--map-root-user", "--mount", "sh", "-c"];

impl Cluster {
    /// Starts `count` nodes that bootstrap a new cluster, and waits until it has a leader.
    pub async fn start(count: usize) -> Self {
        let mut cluster = Self::prepare(count);
        (1..=count).for_each(|node| cluster.restart(node));
        cluster.leader().await;
        cluster
    }

    /// The configuration of `count` nodes that do not run and have no data.
    pub fn prepare(count: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let reserved = Ports::reserve();
        let ports = reserved.take(3 * count).chunks(3).map(|three| [three[0], three[1], three[2]]).collect();
        let mut cluster = Self {
            dir,
            ports,
            reserved,
            children: Vec::new(),
            bootstrap: true,
            data: "data",
            small: Vec::new(),
            more_configuration: String::new(),
            environment: Vec::new(),
            ca: None,
        };
        cluster.children = (0..count).map(|_| None).collect();
        cluster.write_configuration();
        cluster
    }

    /// From now on nodes keep their data in another directory, which has none of what they had.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn use_data(&mut self, data: &'static str) {
        self.data = data;
    }

    /// Where the nodes keep their data.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn data(&self) -> PathBuf {
        self.dir.path().join(self.data)
    }

    /// From its next start on, a node keeps its data on a file system of its own, of so many bytes, which ends with the process.
    /// Errors: the system does not let this user mount one.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn limit_disk(&mut self, node: usize, bytes: u64) -> Result<(), String> {
        std::fs::create_dir_all(self.data_dir(node)).expect("a writable directory");
        let mut probe = Command::new("unshare");
        probe.args(UNSHARE).arg(ON_SMALL_DISK).arg("sh").arg(self.data_dir(node)).arg(bytes.to_string()).arg("true");
        let output = probe.stdin(Stdio::null()).output().map_err(|error| format!("unshare: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        self.small.push((node, bytes));
        Ok(())
    }

    /// The file system of a node's own; `None`: it has none, or does not run.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn small_disk(&self, node: usize) -> Option<SmallDisk> {
        let id = self.children[node - 1].as_ref()?.id();
        let own = PathBuf::from(format!("/proc/{id}/root"));
        let root = own.join(self.data_dir(node).strip_prefix("/").ok()?);
        self.small.iter().any(|(small, _)| *small == node).then_some(SmallDisk { root })
    }

    /// Kills a node that has a file system of its own and copies what that holds to an ordinary disk, where it starts from then on.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn move_disk(&mut self, node: usize) {
        let from = self.small_disk(node).expect("it has one").root;
        let (pid, to) = (self.pid(node).to_string(), self.data_dir(node));
        let done = |command: &mut Command| assert!(command.status().expect("it is there").success(), "{command:?}");
        // It stands still meanwhile, so that the copy is of one instant; the file system ends with it.
        done(Command::new("kill").args(["-STOP", &pid]));
        done(Command::new("cp").args(["-a", "--sparse=always"]).arg(from.join(".")).arg(&to));
        self.kill(node);
        self.small.retain(|(small, _)| *small != node);
    }

    /// The command that starts a node, on whichever disk.
    fn command(&self, node: usize) -> Command {
        let binary = env!("CARGO_BIN_EXE_quorate");
        let Some((_, bytes)) = self.small.iter().find(|(small, _)| *small == node) else { return Command::new(binary) };
        let mut command = Command::new("unshare");
        command.args(UNSHARE).arg(ON_SMALL_DISK).arg("sh").arg(self.data_dir(node)).arg(bytes.to_string()).arg(binary);
        command
    }

    /// Runs a command of the binary against this cluster.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn run(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(args).env("QUORATE_ENDPOINTS", self.endpoints().join(",")).env("QUORATE_CONFIG", self.configuration());
        if self.ca.is_some() {
            command.env("QUORATE_CA", self.ca_file());
        }
        command.stdin(Stdio::null()).output().expect("the binary under test")
    }

    /// Writes the configuration again, with what has changed.
    pub fn write_configuration(&self) {
        let mut text = "name = \"process-test\"\n".to_owned();
        for (index, [client, peer, admin]) in self.ports.iter().enumerate() {
            text += &format!(
                "\n[[node]]\nid = {}\nclient = \"127.0.0.1:{client}\"\npeer = \"127.0.0.1:{peer}\"\nadmin = \"127.0.0.1:{admin}\"\n",
                index + 1
            );
        }
        std::fs::write(self.configuration(), text + &self.more_configuration).expect("a writable directory");
    }

    fn configuration(&self) -> PathBuf {
        self.dir.path().join("cluster.toml")
    }

    /// The data directory of a node.
    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.data().join(node.to_string())
    }

    /// The process of a node that runs.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn pid(&self, node: usize) -> u32 {
        self.children[node - 1].as_ref().expect("the node runs").id()
    }

    /// Starts a node that does not run.
    pub fn restart(&mut self, node: usize) {
        self.restart_with(node, &[]);
    }

    /// The same with more arguments.
    pub fn restart_with(&mut self, node: usize, more: &[&str]) {
        assert!(self.children[node - 1].is_none(), "node {node} runs already");
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.dir.path().join(format!("{node}.log")));
        let mut command = self.command(node);
        command.arg("serve").arg("--config").arg(self.configuration());
        command.args(["--node", &node.to_string()]).arg("--data-dir").arg(self.data());
        if self.bootstrap {
            command.arg("--bootstrap");
        }
        command.envs(self.environment.iter().cloned());
        command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log file"));
        self.children[node - 1] = Some(command.spawn().expect("the binary under test"));
    }

    /// Stops a node in order and waits until it is gone.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn stop(&mut self, node: usize) {
        let mut child = self.children[node - 1].take().expect("the node runs");
        let killed = Command::new("kill").arg(child.id().to_string()).status().expect("kill is there");
        assert!(killed.success());
        child.wait().expect("a child of ours");
    }

    /// Writes a further node into the configuration, and starts it with `--join`: it is no member yet. Gives its number.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn start_further(&mut self) -> usize {
        let ports = self.reserved.take(3 * (self.ports.len() + 1));
        self.ports.push([ports[ports.len() - 3], ports[ports.len() - 2], ports[ports.len() - 1]]);
        self.children.push(None);
        self.write_configuration();
        let bootstrap = std::mem::replace(&mut self.bootstrap, false);
        self.restart_with(self.children.len(), &["--join"]);
        self.bootstrap = bootstrap;
        self.children.len()
    }

    /// The arguments that name a node's addresses.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn addresses(&self, node: usize) -> Vec<String> {
        let [client, peer, admin] = self.ports[node - 1];
        let named = [("--client", client), ("--peer", peer), ("--admin", admin)];
        named.into_iter().flat_map(|(name, port)| [name.to_owned(), format!("127.0.0.1:{port}")]).collect()
    }

    /// Waits until a node has ended by itself; gives its exit code.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub async fn exit_code(&mut self, node: usize) -> Option<i32> {
        let started = Instant::now();
        loop {
            let child = self.children[node - 1].as_mut().expect("the node runs");
            if let Some(status) = child.try_wait().expect("a child of ours") {
                self.children[node - 1] = None;
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "node {node} does not end\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last lines of one node's log.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn log(&self, node: usize) -> String {
        let text = std::fs::read_to_string(self.dir.path().join(format!("{node}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.join("\n")
    }

    /// Where everything of this cluster lies.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Kills a node with -9 and waits until it is gone.
    pub fn kill(&mut self, node: usize) {
        let mut child = self.children[node - 1].take().expect("the node runs");
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
    }

    /// Kills all nodes that run, at once.
    pub fn kill_all(&mut self) {
        let mut children: Vec<Child> = self.children.iter_mut().filter_map(Option::take).collect();
        children.iter_mut().for_each(|child| child.kill().expect("a child of ours"));
        for child in &mut children {
            child.wait().expect("a child of ours");
        }
    }

    /// Starts all nodes that do not run.
    pub fn restart_all(&mut self) {
        (1..=self.children.len())
            .filter(|node| self.children[node - 1].is_none())
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|node| self.restart(node));
    }

    /// The client addresses.
    pub fn endpoints(&self) -> Vec<String> {
        self.ports.iter().map(|[client, ..]| format!("127.0.0.1:{client}")).collect()
    }

    /// The admin address of a node.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn admin(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node - 1][2])
    }

    /// From now on clients and commands connect by TLS.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn trust(&mut self, ca: String) {
        std::fs::write(self.ca_file(), &ca).expect("a writable directory");
        self.ca = Some(ca);
    }

    fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Gives every node other ports, as after a move of all hosts: the configuration says so from now on.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn move_ports(&mut self) {
        let all = self.reserved.take(6 * self.ports.len());
        let unused: Vec<u16> = all.into_iter().filter(|port| !self.ports.iter().flatten().any(|used| used == port)).collect();
        self.ports = unused.chunks(3).take(self.ports.len()).map(|three| [three[0], three[1], three[2]]).collect();
        self.write_configuration();
    }

    /// Where a node's peers reach it.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn peer(&self, node: usize) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.ports[node - 1][1]).into()
    }

    /// Sends a signal to a node that runs.
    #[allow(dead_code, reason = "not by the benchmark, which shares this file")]
    pub fn signal(&self, node: usize, name: &str) {
        let sent = Command::new("kill").args([name, &self.pid(node).to_string()]).status().expect("kill is there");
        assert!(sent.success());
    }

    /// Of a client of all nodes.
    pub fn builder(&self) -> quorate::client::Builder {
        let builder = Client::builder().endpoints(self.endpoints());
        match &self.ca {
            Some(ca) => builder.tls(Tls::ca_pem(ca.clone())),
            None => builder,
        }
    }

    /// A client of all nodes, that gives up no call before the test would: how fast this machine is shows in no answer.
    pub fn client(&self) -> Client {
        self.builder().read_deadline(PATIENCE).write_deadline(PATIENCE).build().expect("valid endpoints")
    }

    /// Waits until every node that runs knows one leader and that one answers a linearizable read; gives its number. So a node that
    /// was just restarted counts again before the next one is killed.
    pub async fn leader(&self) -> usize {
        let client = self.builder().build().expect("valid endpoints");
        let started = Instant::now();
        loop {
            let served = client.load("no such session").await;
            let status = client.status(Default::default()).await;
            if served.is_ok()
                && let Ok(status) = &status
                && let Some(leader) = status.nodes.iter().find(|node| node.role == Role::Leader)
                && self.runs(status).all(|node| node.reachable && node.leader == Some(leader.id))
            {
                return leader.id.0 as usize;
            }
            assert!(started.elapsed() < PATIENCE, "no leader within {PATIENCE:?}: {served:?} {status:?}\n{}", self.logs());
        }
    }

    /// What the nodes that run say of themselves.
    fn runs<'s>(&'s self, status: &'s ClusterStatus) -> impl Iterator<Item = &'s NodeStatus> {
        status.nodes.iter().filter(|node| self.children[node.id.0 as usize - 1].is_some())
    }

    /// Waits until all nodes have applied the same index, and compares their digests at it.
    pub async fn assert_equal_digests(&self) {
        let client = self.client();
        let started = Instant::now();
        loop {
            let status = client.status(Default::default()).await;
            let nodes = status.as_ref().map_or(&[][..], |status| &status.nodes);
            let applied: Vec<_> = nodes.iter().map(|node| node.applied).collect();
            if !applied.is_empty() && applied.iter().all(|index| index.is_some() && *index == applied[0]) {
                let digests: Vec<_> = nodes.iter().map(|node| node.digest).collect();
                assert!(digests.iter().all(|digest| digest.is_some() && *digest == digests[0]), "digests differ: {digests:?}");
                return;
            }
            assert!(started.elapsed() < PATIENCE, "nodes do not converge: {status:?}\n{}", self.logs());
            tokio::task::yield_now().await;
        }
    }

    /// The last lines of every node's log, for a failing test.
    pub fn logs(&self) -> String {
        let tail = |node: usize| {
            let text = std::fs::read_to_string(self.dir.path().join(format!("{node}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(30).collect();
            format!("--- node {node}\n{}\n", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        (1..=self.children.len()).map(tail).collect()
    }

    /// From now on nodes start without `--bootstrap`.
    pub fn without_bootstrap(&mut self) {
        self.bootstrap = false;
    }

    /// Removes a directory and all in it, as a lost disk would.
    pub fn wipe(&self, node: usize) {
        remove_all(&self.data_dir(node));
    }
}

/// The library that gives a process other clocks, if it is installed.
#[allow(dead_code, reason = "not by the benchmark, which shares this file")]
pub fn faketime() -> Option<String> {
    let found = |dir: PathBuf| Some(dir.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    let dirs = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    dirs.filter_map(found).next().map(|path| path.display().to_string())
}

fn remove_all(path: &Path) {
    std::fs::remove_dir_all(path).expect("a directory of ours");
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_all();
    }
}
