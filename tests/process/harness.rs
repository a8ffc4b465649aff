//! Real processes on loopback: what is killed here is killed with -9.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use quorate::client::{Client, ClusterStatus, NodeStatus, Role, Tls};
use quorate::testing::processes::{Processes, Signal};
use tempfile::TempDir;

/// Longest a healthy cluster may take for anything waited for here.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Some nodes, each a process of its own.
pub struct Cluster {
    nodes: Processes,
    dir: TempDir,
    bootstrap: bool,
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
        let nodes = Processes::new(env!("CARGO_BIN_EXE_quorate"), dir.path(), count).expect("ports");
        let (more_configuration, environment) = (String::new(), Vec::new());
        let cluster = Self { nodes, dir, bootstrap: true, small: Vec::new(), more_configuration, environment, ca: None };
        cluster.write_configuration();
        cluster
    }

    /// From now on nodes keep their data in another directory, which has none of what they had.
    pub fn use_data(&mut self, data: &str) {
        self.nodes.data = self.dir.path().join(data);
    }

    /// Where the nodes keep their data.
    pub fn data(&self) -> PathBuf {
        self.nodes.data.clone()
    }

    /// From its next start on, a node keeps its data on a file system of its own, of so many bytes, which ends with the process.
    /// Errors: the system does not let this user mount one.
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
    pub fn small_disk(&self, node: usize) -> Option<SmallDisk> {
        let id = self.nodes.pid(node)?;
        let own = PathBuf::from(format!("/proc/{id}/root"));
        let root = own.join(self.data_dir(node).strip_prefix("/").ok()?);
        self.small.iter().any(|(small, _)| *small == node).then_some(SmallDisk { root })
    }

    /// Kills a node that has a file system of its own and copies what that holds to an ordinary disk, where it starts from then on.
    pub fn move_disk(&mut self, node: usize) {
        let from = self.small_disk(node).expect("it has one").root;
        let to = self.data_dir(node);
        let done = |command: &mut Command| assert!(command.status().expect("it is there").success(), "{command:?}");
        // It stands still meanwhile, so that the copy is of one instant; the file system ends with it.
        self.signal(node, Signal::STOP);
        done(Command::new("cp").args(["-a", "--sparse=always"]).arg(from.join(".")).arg(&to));
        self.kill(node);
        self.small.retain(|(small, _)| *small != node);
    }

    /// The command that starts a node, on the disk that it has.
    fn command(&self, node: usize) -> Command {
        let Some((_, bytes)) = self.small.iter().find(|(small, _)| *small == node) else { return self.nodes.command() };
        let mut command = Command::new("unshare");
        command.args(UNSHARE).arg(ON_SMALL_DISK).arg("sh").arg(self.data_dir(node)).arg(bytes.to_string());
        command.arg(self.nodes.command().get_program());
        command
    }

    /// Runs a command of the binary against this cluster.
    pub fn run(&self, args: &[&str]) -> Output {
        let mut command = self.nodes.command();
        command.args(args).env("QUORATE_ENDPOINTS", self.endpoints().join(",")).env("QUORATE_CONFIG", &self.nodes.config);
        if self.ca.is_some() {
            command.env("QUORATE_CA", self.ca_file());
        }
        command.stdin(Stdio::null()).output().expect("the binary under test")
    }

    /// Writes the configuration again, with what has changed.
    pub fn write_configuration(&self) {
        self.nodes.configure("process-test", &self.more_configuration).expect("a writable directory");
    }

    /// The data directory of a node.
    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.nodes.data_dir(node)
    }

    /// The process of a node that runs.
    pub fn pid(&self, node: usize) -> u32 {
        self.nodes.pid(node).expect("the node runs")
    }

    /// Starts a node that does not run.
    pub fn restart(&mut self, node: usize) {
        self.restart_with(node, &[]);
    }

    /// The same with more arguments.
    pub fn restart_with(&mut self, node: usize, more: &[&str]) {
        let mut command = self.command(node);
        command.envs(self.environment.iter().cloned());
        let bootstrap = self.bootstrap.then_some("--bootstrap");
        self.nodes.serve(node, command, bootstrap.into_iter().chain(more.iter().copied())).expect("the binary under test");
    }

    /// Stops a node in order, as a service manager does, and waits until it is gone.
    pub async fn stop(&mut self, node: usize) {
        self.nodes.stop(&[node], PATIENCE).await.unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
    }

    /// Writes a further node into the configuration, and starts it with `--join`: it is no member yet. Gives its number.
    pub fn start_further(&mut self) -> usize {
        let node = self.nodes.add().expect("ports");
        self.write_configuration();
        let bootstrap = std::mem::replace(&mut self.bootstrap, false);
        self.restart_with(node, &["--join"]);
        self.bootstrap = bootstrap;
        node
    }

    /// The arguments that name a node's addresses.
    pub fn addresses(&self, node: usize) -> Vec<String> {
        let named = [("--client", self.nodes.client(node)), ("--peer", self.nodes.peer(node)), ("--admin", self.admin(node))];
        named.into_iter().flat_map(|(name, address)| [name.to_owned(), address]).collect()
    }

    /// Waits until a node has ended by itself; gives its exit code.
    pub async fn exit_code(&mut self, node: usize) -> Option<i32> {
        self.nodes.ended(node, PATIENCE).await.unwrap_or_else(|error| panic!("{error}\n{}", self.logs())).code()
    }

    /// The last lines of one node's log.
    pub fn log(&self, node: usize) -> String {
        self.nodes.last_lines(node, 5)
    }

    /// Where everything of this cluster lies.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Kills a node with -9 and waits until it is gone.
    pub fn kill(&mut self, node: usize) {
        assert!(self.nodes.running().contains(&node), "node {node} runs");
        self.nodes.kill(&[node]);
    }

    /// Kills all nodes that run, at once.
    pub fn kill_all(&mut self) {
        self.nodes.kill_all();
    }

    /// Starts all nodes that do not run.
    pub fn restart_all(&mut self) {
        let running = self.nodes.running();
        self.nodes.all().filter(|node| !running.contains(node)).for_each(|node| self.restart(node));
    }

    /// The client addresses.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.endpoints()
    }

    /// The admin address of a node.
    pub fn admin(&self, node: usize) -> String {
        self.nodes.admin(node)
    }

    /// From now on clients and commands connect by TLS.
    pub fn trust(&mut self, ca: String) {
        std::fs::write(self.ca_file(), &ca).expect("a writable directory");
        self.ca = Some(ca);
    }

    fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Gives every node other ports, as after a move of all hosts: the configuration says so from now on.
    pub fn move_ports(&mut self) {
        self.nodes.move_ports().expect("ports");
        self.write_configuration();
    }

    /// Where a node's peers reach it.
    pub fn peer(&self, node: usize) -> std::net::SocketAddr {
        self.nodes.peer(node).parse().expect("an address")
    }

    /// A port that no node has.
    pub fn spare_port(&mut self) -> u16 {
        self.nodes.spare_port().expect("a port")
    }

    /// Sends a signal to a node that runs.
    pub fn signal(&self, node: usize, signal: Signal) {
        assert!(self.nodes.signal(node, signal), "node {node} runs");
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
        status.nodes.iter().filter(|node| self.nodes.pid(node.id.0 as usize).is_some())
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
        self.nodes.logs()
    }

    /// From now on nodes start without `--bootstrap`.
    pub fn without_bootstrap(&mut self) {
        self.bootstrap = false;
    }

    /// Removes a directory and all in it, as a lost disk would.
    pub fn wipe(&self, node: usize) {
        std::fs::remove_dir_all(self.data_dir(node)).expect("a directory of ours");
    }
}

/// The library that gives a process other clocks, if it is installed.
pub fn faketime() -> Option<String> {
    let found = |dir: PathBuf| Some(dir.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    let dirs = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    dirs.filter_map(found).next().map(|path| path.display().to_string())
}
