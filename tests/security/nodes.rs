//! Nodes with certificates and tokens, each a process of its own on real sockets.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use quorate::client::{Builder, Client, Tls};
use quorate::server::auth::hash_of;
use quorate::testing::processes::Processes;
use tempfile::TempDir;

use crate::security::pki::{Ca, Good, HOST, Pair};

/// Longest a healthy cluster may take for anything waited for here.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The tokens: name, token, what the file says besides.
pub const TOKENS: [(&str, &str, &str); 7] = [
    ("writer", "tokensecret-writer", "scopes = [\"read\", \"write\", \"list\"]\nprefixes = [\"a/\"]"),
    ("reader", "tokensecret-reader", "scopes = [\"read\"]"),
    ("lister", "tokensecret-lister", "scopes = [\"list\"]\nprefixes = [\"a/\"]"),
    ("admin", "tokensecret-admin", "scopes = [\"admin\"]"),
    ("expired", "tokensecret-expired", "scopes = [\"read\", \"write\"]\nexpires = \"2021-01-01T00:00:00Z\""),
    ("operator", "tokensecret-operator", "scopes = [\"read\", \"write\", \"list\", \"admin\"]"),
    ("scraper", "tokensecret-scraper", "scopes = [\"metrics\"]"),
];

/// Some nodes, their CA, and where their files lie.
pub struct Nodes {
    pub ca: Ca,
    pub processes: Processes,
    pub dir: TempDir,
    hosts: Vec<&'static str>,
}

/// A file of tokens.
pub fn tokens_file(tokens: &[(&str, &str, &str)]) -> String {
    let entry = |(name, token, rest): &(&str, &str, &str)| {
        let hash: String = hash_of(token).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n\n")
    };
    tokens.iter().map(entry).collect()
}

impl Nodes {
    /// Starts them and waits until they serve. Clients must show certificates.
    pub async fn start(count: usize, log: &str) -> Self {
        Self::start_at(&vec![HOST; count], log).await
    }

    /// The same; peers reach them at these hosts.
    pub async fn start_at(hosts: &[&'static str], log: &str) -> Self {
        let mut nodes = Self::prepare(hosts);
        for node in 1..=hosts.len() {
            nodes.spawn(node, log);
        }
        let client = nodes.client("writer");
        nodes.until("the nodes serve", async || client.load("a/none").await.is_ok()).await;
        client.close().await;
        nodes
    }

    /// The same with these tokens, without waiting.
    pub fn start_with(count: usize, tokens: &str) -> Self {
        let mut nodes = Self::prepare(&vec![HOST; count]);
        nodes.write("tokens.toml", tokens);
        for node in 1..=count {
            nodes.spawn(node, "info");
        }
        nodes
    }

    /// Everything they need, on disk.
    fn prepare(hosts: &[&'static str]) -> Self {
        let count = hosts.len();
        let dir = tempfile::tempdir().expect("a directory");
        let processes = Processes::new(env!("CARGO_BIN_EXE_quorate"), dir.path(), count).expect("ports");
        let nodes = Self { ca: Ca::new(), processes, dir, hosts: hosts.to_vec() };
        nodes.write("ca.pem", &nodes.ca.pem());
        nodes.write_pair("client", &nodes.ca.client(Good::Now));
        for (index, host) in hosts.iter().enumerate() {
            nodes.write_pair(&format!("node-{}", index + 1), &nodes.ca.node(host, Good::Now));
        }
        nodes.write("tokens.toml", &tokens_file(&TOKENS));
        nodes.write("cluster.toml", &nodes.configuration(count));
        nodes
    }

    /// Of the first so many nodes.
    pub fn configuration(&self, count: usize) -> String {
        let dir = self.dir.path().display();
        let mut text = "name = \"security-test\"\n".to_owned();
        for node in 1..=count {
            let (client, peer, admin) = (self.client_address(node), self.peer_address(node), self.admin_address(node));
            text += &format!("[[node]]\nid = {node}\nclient = \"{client}\"\npeer = \"{peer}\"\nadmin = \"{admin}\"\n");
        }
        // A machine that is busy with other tests holds up heartbeats; no leader is lost on purpose here.
        text += "[raft]\nheartbeat_interval = \"500ms\"\nelection_timeout_min = \"4s\"\nelection_timeout_max = \"8s\"\n";
        text += &format!(
            "[tls]\ncert = \"{dir}/node-{{node}}.pem\"\nkey = \"{dir}/node-{{node}}-key.pem\"\nca = \"{dir}/ca.pem\"\n\
             client_certs = \"require\"\n[auth]\ntokens = \"{dir}/tokens.toml\"\n"
        );
        text
    }

    fn spawn(&mut self, node: usize, log: &str) {
        let mut command = self.processes.command();
        command.env("QUORATE_LOG", log);
        self.processes.serve(node, command, ["--bootstrap"]).expect("the binary under test");
    }

    /// Kills a node with -9.
    pub fn kill(&mut self, node: usize) {
        self.processes.kill(&[node]);
    }

    /// Starts a node that was killed as one of another cluster, by another configuration on other data.
    pub fn start_from(&mut self, node: usize, config: &str, data: &str) {
        (self.processes.config, self.processes.data) = (self.path(config), self.path(data));
        self.processes.serve(node, self.processes.command(), []).expect("the binary under test");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces a file in one step, as a renewal of certificates does.
    pub fn write(&self, name: &str, text: &str) {
        let beside = self.path(&format!("{name}.new"));
        std::fs::write(&beside, text).expect("a writable directory");
        std::fs::rename(beside, self.path(name)).expect("a writable directory");
    }

    pub fn write_pair(&self, name: &str, pair: &Pair) {
        self.write(&format!("{name}-key.pem"), &pair.key);
        self.write(&format!("{name}.pem"), &pair.certificate);
    }

    pub fn client_address(&self, node: usize) -> String {
        self.processes.client(node)
    }

    pub fn peer_address(&self, node: usize) -> String {
        format!("{}:{}", self.hosts[node - 1], self.processes.ports(node)[1])
    }

    pub fn admin_address(&self, node: usize) -> String {
        self.processes.admin(node)
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.processes.endpoints()
    }

    /// What believes the nodes and has a good certificate.
    pub fn tls(&self) -> Tls {
        Tls::ca_file(self.path("ca.pem")).identity_files(self.path("client.pem"), self.path("client-key.pem"))
    }

    pub fn builder(&self) -> Builder {
        Client::builder().endpoints(self.endpoints())
    }

    /// A client with one of [`TOKENS`].
    pub fn client(&self, name: &str) -> Client {
        let (_, token, _) = TOKENS.iter().find(|(named, ..)| *named == name).expect("a token of this name");
        let patient = self.builder().read_deadline(PATIENCE).write_deadline(PATIENCE);
        patient.tls(self.tls()).token(*token).build().expect("well formed")
    }

    /// Runs a command of the binary against these nodes, with a good certificate.
    pub fn run(&self, args: &[&str], token: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(args).env("QUORATE_ENDPOINTS", self.endpoints().join(",")).env("QUORATE_TOKEN", token);
        command.env("QUORATE_CA", self.path("ca.pem")).env("QUORATE_CERT", self.path("client.pem"));
        command.env("QUORATE_KEY", self.path("client-key.pem"));
        command.stdin(Stdio::null()).output().expect("the binary under test")
    }

    /// The same, repeated while no node answers or none leads: what it does may be done twice.
    pub async fn answer(&self, args: &[&str], token: &str) -> Output {
        let output = RefCell::new(None);
        let answered = async || {
            let last = self.run(args, token);
            let unavailable = last.status.code() == Some(4);
            output.replace(Some(last));
            !unavailable
        };
        self.until("the command is answered", answered).await;
        output.take().expect("it ran")
    }

    /// Runs a command without certificates and token.
    pub fn run_open(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(args).env("QUORATE_ENDPOINTS", self.endpoints().join(","));
        command.stdin(Stdio::null()).output().expect("the binary under test")
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let started = Instant::now();
        while !holds().await {
            assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last lines of every node's log, for a failing test.
    pub fn logs(&self) -> String {
        self.processes.logs()
    }

    /// All of a node's log.
    pub fn log(&self, node: usize) -> String {
        self.processes.last_lines(node, usize::MAX)
    }
}
