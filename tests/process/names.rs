//! Names, looked up by the system's own resolver in a file of hosts that only the processes of a test see: in `cluster.toml`, where a node
//! follows a host that has another address now, and in `--endpoints`, where a name may have several.
//!
//! Where the system gives a test no namespace with a mount of its own, the tests say so loudly and pass, unless
//! `QUORATE_NAMESPACES_REQUIRED` is set, as the gate does where `unshare` works.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate::client::{Client, Content, Tls, WriteOptions};
use quorate::testing::processes::Processes;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::harness::PATIENCE;
use crate::process::backup::succeeded;

/// Puts `$1` in place of /etc/hosts where only this process sees it, and becomes what follows.
const BY_OWN_HOSTS: &str = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
const UNSHARE: [&str; 5] = ["--user", "--map-root-user", "--mount", "sh", "-c"];

/// Some nodes and commands that know hosts by name; ended with the test.
struct Named {
    nodes: Processes,
    dir: TempDir,
    /// The CA's certificate, where the nodes speak TLS.
    ca: Option<PathBuf>,
}

impl Named {
    /// With ports for two nodes. `None`: this system gives a test no file of hosts of its own, which is said.
    fn prepare() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let nodes = Processes::new(env!("CARGO_BIN_EXE_quorate"), dir.path(), 2).expect("ports");
        let named = Self { nodes, dir, ca: None };
        named.set_hosts("127.0.0.1 localhost\n");
        let output = named.with_own_hosts("true").output();
        let why = match output {
            Ok(output) if output.status.success() => return Some(named),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => format!("unshare: {error}"),
        };
        assert!(
            std::env::var_os("QUORATE_NAMESPACES_REQUIRED").is_none(),
            "a namespace with a mount of its own is required: {why}"
        );
        println!("SKIPPED: this system gives a test no file of hosts of its own: {why}");
        None
    }

    /// In the same file, which all processes of this test have mounted.
    fn set_hosts(&self, text: &str) {
        std::fs::write(self.dir.path().join("hosts"), text).expect("a writable directory");
    }

    /// The ports of a node: for clients, peers and administrators.
    fn ports(&self, node: usize) -> [u16; 3] {
        self.nodes.ports(node)
    }

    fn configure(&self, nodes: &str) {
        let tls = match &self.ca {
            Some(_) => "[tls]\ncert = \"certs/node-{node}.pem\"\nkey = \"certs/node-{node}-key.pem\"\nca = \"certs/ca.pem\"\n",
            None => "",
        };
        std::fs::write(&self.nodes.config, format!("name = \"names\"\n{nodes}{tls}")).expect("a writable directory");
    }

    /// From now on nodes show certificates for these hosts.
    fn secure(&mut self, hosts: &str) {
        let certs = self.dir.path().join("certs");
        succeeded(&self.run(&["cert", "dev", certs.to_str().expect("UTF-8"), "--nodes", "1,2", "--hosts", hosts]));
        self.ca = Some(certs.join("ca.pem"));
    }

    /// A command that looks names up in this test's file.
    fn with_own_hosts(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(UNSHARE).arg(BY_OWN_HOSTS).arg("sh").arg(self.dir.path().join("hosts")).arg(program);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn start(&mut self, node: usize) {
        let command = self.with_own_hosts(env!("CARGO_BIN_EXE_quorate"));
        self.nodes.serve(node, command, ["--bootstrap", "--insecure"]).expect("unshare ran before");
    }

    /// Runs a command of the binary, which reaches nodes by what the hosts file says.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.with_own_hosts(env!("CARGO_BIN_EXE_quorate"));
        command.args(args).envs(self.ca.iter().map(|ca| ("QUORATE_CA", ca)));
        command.output().expect("unshare ran before")
    }

    fn client(&self, address: &str) -> Client {
        let builder = Client::builder().endpoints([address]);
        match &self.ca {
            Some(ca) => builder.tls(Tls::ca_file(ca)),
            None => builder,
        }
        .build()
        .expect("valid")
    }

    /// Saves by the node that serves clients there, once it is possible.
    async fn save(&self, address: &str) {
        let client = self.client(address);
        let started = Instant::now();
        while let Err(error) = client.save("a", Content::Value(Bytes::from_static(b"x")), WriteOptions::default()).await {
            assert!(started.elapsed() < PATIENCE, "{error}\n{}", self.nodes.logs());
        }
        client.close().await;
    }

    /// Waits until a session is there.
    async fn until_saved(&self, address: &str, id: &str) {
        let client = self.client(address);
        let started = Instant::now();
        while !matches!(client.load(id).await, Ok(Some(_))) {
            assert!(started.elapsed() < PATIENCE, "{id} is not there\n{}", self.nodes.logs());
            tokio::task::yield_now().await;
        }
        client.close().await;
    }
}

/// An address that swallows what wants to connect: its backlog is full, and stays so while this lives.
struct Swallows(#[allow(dead_code, reason = "held")] TcpListener, #[allow(dead_code, reason = "held")] Vec<TcpStream>);

impl Swallows {
    async fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(address).expect("a port that is reserved");
        let listener = socket.listen(1).expect("it listens");
        let mut held = Vec::new();
        // One more than the backlog is taken; what comes then is not answered.
        while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            held.push(stream.expect("taken into the backlog"));
        }
        Self(listener, held)
    }
}

/// Reaches two nodes by one name of two addresses, of which the node serves at one and nothing answers at the other, which `silent` makes:
/// for one node the first that the resolver gives, for the other node the second, so that the order in which it gives them does not matter.
async fn both_are_reached<S>(nodes: &mut Named, silent: impl AsyncFn(SocketAddr) -> S) {
    nodes.set_hosts("127.0.0.1 localhost\n127.0.0.2 many.quorate.test\n127.0.0.3 many.quorate.test\n");
    let of = |id: usize, place: &str| {
        let [client, peer, admin] = nodes.ports(id);
        format!(
            "[[node]]\nid = {id}\nclient = \"many.quorate.test:{client}\"\nclient_listen = \"{place}:{client}\"\n\
             peer = \"127.0.0.1:{peer}\"\nadmin = \"127.0.0.1:{admin}\"\n"
        )
    };
    nodes.configure(&format!("{}{}", of(1, "127.0.0.2"), of(2, "127.0.0.3")));
    let [[first, ..], [second, ..]] = [nodes.ports(1), nodes.ports(2)];
    let _silent = [silent(([127, 0, 0, 3], first).into()).await, silent(([127, 0, 0, 2], second).into()).await];
    nodes.start(1);
    nodes.start(2);
    nodes.save(&format!("127.0.0.2:{first}")).await;
    nodes.save(&format!("127.0.0.3:{second}")).await;

    let content = nodes.dir.path().join("content");
    std::fs::write(&content, "by name").expect("a writable directory");
    let content = content.to_str().expect("UTF-8");
    for port in [first, second] {
        let endpoint = format!("many.quorate.test:{port}");
        let id = format!("by-{port}");
        succeeded(&nodes.run(&["session", "put", &id, "--file", content, "--endpoints", &endpoint]));
        assert_eq!(succeeded(&nodes.run(&["session", "get", &id, "--endpoints", &endpoint])), "by name");
        succeeded(&nodes.run(&["status", "--endpoints", &endpoint]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_name_with_several_addresses_the_one_that_answers_is_found() {
    let Some(mut nodes) = Named::prepare() else { return };
    both_are_reached(&mut nodes, Swallows::at).await;
}

/// The other address takes the connection, and never says a word of TLS.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_name_with_several_addresses_the_one_that_speaks_tls_is_found() {
    let Some(mut nodes) = Named::prepare() else { return };
    nodes.secure("many.quorate.test,127.0.0.1,127.0.0.2,127.0.0.3");
    both_are_reached(&mut nodes, async |address| TcpListener::bind(address).await.expect("a port that is reserved")).await;
}

/// One process, one client: the name of the only endpoint gets another address between two of its connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_looks_a_name_up_again_for_each_connection() {
    let Some(mut nodes) = Named::prepare() else { return };
    let [client, peer, admin] = nodes.ports(1);
    let move_to = |nodes: &Named, place: &str| {
        nodes.set_hosts(&format!("127.0.0.1 localhost\n{place} moves.quorate.test\n"));
        nodes.configure(&format!(
            "[[node]]\nid = 1\nclient = \"moves.quorate.test:{client}\"\nclient_listen = \"{place}:{client}\"\n\
             peer = \"127.0.0.1:{peer}\"\nadmin = \"127.0.0.1:{admin}\"\n"
        ));
    };
    move_to(&nodes, "127.0.0.2");
    nodes.start(1);
    nodes.save(&format!("127.0.0.2:{client}")).await;
    let mut import = nodes.with_own_hosts(env!("CARGO_BIN_EXE_quorate"));
    import.args(["session", "import", "-", "--endpoints", &format!("moves.quorate.test:{client}")]);
    let mut import =
        import.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unshare ran before");
    let mut lines = import.stdin.take().expect("piped");
    lines.write_all(b"{\"id\":\"before\",\"value\":\"x\"}\n").expect("it reads");
    nodes.until_saved(&format!("127.0.0.2:{client}"), "before").await;

    nodes.nodes.kill(&[1]);
    move_to(&nodes, "127.0.0.3");
    nodes.start(1);
    nodes.until_saved(&format!("127.0.0.3:{client}"), "before").await;
    lines.write_all(b"{\"id\":\"after\",\"value\":\"x\"}\n").expect("it reads");
    drop(lines);
    let output = import.wait_with_output().expect("a child of ours");
    assert_eq!(succeeded(&output), "imported=2 existed=0 expired=0 refused=0\n", "{}", nodes.nodes.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_looked_up_again_for_each_connection() {
    let Some(mut nodes) = Named::prepare() else { return };
    // The second node listens to its peers at this address, and nowhere else.
    let move_to = |nodes: &Named, second: &str| {
        nodes.set_hosts(&format!("127.0.0.1 localhost one.quorate.test\n{second} two.quorate.test\n"));
        let of = |id: usize, name: &str, address: &str| {
            let [client, peer, admin] = nodes.ports(id);
            format!(
                "[[node]]\nid = {id}\nclient = \"127.0.0.1:{client}\"\npeer = \"{name}.quorate.test:{peer}\"\n\
                 peer_listen = \"{address}:{peer}\"\nadmin = \"127.0.0.1:{admin}\"\n"
            )
        };
        nodes.configure(&format!("{}{}", of(1, "one", "127.0.0.1"), of(2, "two", second)));
    };
    move_to(&nodes, "127.0.0.1");
    nodes.start(1);
    nodes.start(2);
    let endpoint = format!("127.0.0.1:{}", nodes.ports(1)[0]);
    nodes.save(&endpoint).await;

    // The host gets another address; the first node is not started again.
    nodes.nodes.kill(&[2]);
    move_to(&nodes, "127.0.0.2");
    nodes.start(2);
    nodes.save(&endpoint).await;
    // The leader replicates by connections of its own: so both have found the other.
    for leader in ["1", "2"] {
        let started = Instant::now();
        let moved = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
            command.args(["leader", "transfer", leader, "--endpoints", &endpoint]).stdin(Stdio::null()).output().expect("it runs")
        };
        loop {
            let output = moved();
            if output.status.success() {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{}\n{}", String::from_utf8_lossy(&output.stderr), nodes.nodes.logs());
        }
        nodes.save(&endpoint).await;
    }
    assert_eq!(nodes.nodes.ended_by_themselves(), [], "{}", nodes.nodes.logs());
}
