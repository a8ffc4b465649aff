//! Three nodes with certificates and tokens, which end with this process.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quorate::client::{Builder, Client, Role, Tls};
use tempfile::TempDir;

use crate::ports::Ports;

/// Longest that anything here may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub struct Cluster {
    pub dir: TempDir,
    pub ports: Vec<[u16; 3]>,
    tokens: [String; 3],
    children: Vec<Child>,
    // Behind the processes.
    _reserved: Ports,
}

/// Who calls.
#[derive(Clone, Copy)]
pub enum Tenant {
    Quiet,
    Noisy,
    Operator,
}

fn quorate(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate")).args(args).output().expect("the binary under test");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Cluster {
    /// Starts them and waits until they serve.
    pub async fn start() -> Self {
        // On a disk: in memory nothing is shown of what syncs cost.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
        quorate(&["cert", "dev", &path("certs"), "--hosts", "127.0.0.1"]);
        let token = |name: &str, scopes: &str, more: &[&str]| {
            quorate(&[&["token", "new", name, "--scopes", scopes, "--file", &path("tokens.toml")], more].concat())
        };
        let tokens = [
            token("quiet", "read,write,list", &["--prefix", "quiet/"]),
            token("noisy", "read,write,list", &["--prefix", "noisy/"]),
            token("operator", "admin", &[]),
        ];
        // What an operator gives a tenant that saves large values beside others on a small disk.
        let file = path("tokens.toml");
        let text = std::fs::read_to_string(&file).expect("it was just written");
        let noisy = "prefixes = [\"noisy/\"]\n";
        assert!(text.contains(noisy), "{text}");
        let shared = format!("{noisy}shares = {{ large_bytes_per_second = \"1 MiB\" }}\n");
        std::fs::write(&file, text.replace(noisy, &shared)).expect("a writable file");
        let reserved = Ports::reserve();
        let ports: Vec<[u16; 3]> = reserved.take(9).chunks(3).map(|three| [three[0], three[1], three[2]]).collect();
        let certs = path("certs");
        let mut text = "name = \"noisy\"\n".to_owned();
        for (index, [client, peer, admin]) in ports.iter().enumerate() {
            let id = index + 1;
            text += &format!(
                "[[node]]\nid = {id}\nclient = \"127.0.0.1:{client}\"\npeer = \"127.0.0.1:{peer}\"\nadmin = \"127.0.0.1:{admin}\"\n"
            );
        }
        text += &format!(
            "[tls]\ncert = \"{certs}/node-{{node}}.pem\"\nkey = \"{certs}/node-{{node}}-key.pem\"\nca = \"{certs}/ca.pem\"\n\
             client_certs = \"none\"\n[auth]\ntokens = \"{}\"\n",
            path("tokens.toml")
        );
        std::fs::write(path("cluster.toml"), text).expect("a writable directory");
        let start = |node: usize| {
            let log = std::fs::File::create(path(&format!("{node}.log"))).expect("a log file");
            let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
            command.args(["serve", "--bootstrap", "--parent-pipe", "--node", &node.to_string(), "--config", &path("cluster.toml")]);
            command.args(["--data-dir", &path("data")]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
            command.spawn().expect("the binary under test")
        };
        let children = (1..=ports.len()).map(start).collect();
        let cluster = Self { dir, ports, tokens, children, _reserved: reserved };
        let began = Instant::now();
        while cluster.leader().await.is_none() {
            assert!(began.elapsed() < PATIENCE, "no leader within {PATIENCE:?}: {}", cluster.logs());
        }
        cluster
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("certs/ca.pem")
    }

    pub fn token(&self, tenant: Tenant) -> &str {
        &self.tokens[tenant as usize]
    }

    pub fn builder(&self, tenant: Tenant) -> Builder {
        let endpoints = self.ports.iter().map(|[client, ..]| format!("127.0.0.1:{client}"));
        Client::builder().endpoints(endpoints).tls(Tls::ca_file(self.ca())).token(self.token(tenant))
    }

    /// The leader and its term, as a majority sees it.
    pub async fn leader(&self) -> Option<(u64, u64)> {
        let client = self.builder(Tenant::Operator).build().expect("well formed");
        let status = client.status(Default::default()).await.ok()?;
        let leader = status.nodes.into_iter().find(|node| node.role == Role::Leader)?;
        Some((leader.id.0, leader.term))
    }

    fn logs(&self) -> String {
        let log = |node: usize| std::fs::read_to_string(self.dir.path().join(format!("{node}.log"))).unwrap_or_default();
        (1..=self.ports.len()).map(log).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
