//! Three nodes with certificates and tokens, which end with this process.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use quorate::client::{Builder, Client, Role, Tls};
use quorate::testing::processes::Processes;
use tempfile::TempDir;

/// Longest that anything here may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub struct Cluster {
    pub nodes: Processes,
    pub dir: TempDir,
    tokens: [String; 3],
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
        let certs = path("certs");
        let more = format!(
            "[tls]\ncert = \"{certs}/node-{{node}}.pem\"\nkey = \"{certs}/node-{{node}}-key.pem\"\nca = \"{certs}/ca.pem\"\n\
             client_certs = \"none\"\n[auth]\ntokens = \"{}\"\n",
            path("tokens.toml")
        );
        let mut nodes = Processes::new(env!("CARGO_BIN_EXE_quorate"), dir.path(), 3).expect("ports");
        nodes.is_supervised = true;
        nodes.configure("noisy", &more).expect("a writable directory");
        nodes.all().for_each(|node| nodes.serve(node, nodes.command(), ["--bootstrap"]).expect("the binary under test"));
        let cluster = Self { nodes, dir, tokens };
        let began = Instant::now();
        while cluster.leader().await.is_none() {
            assert!(began.elapsed() < PATIENCE, "no leader within {PATIENCE:?}: {}", cluster.nodes.logs());
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
        Client::builder().endpoints(self.nodes.endpoints()).tls(Tls::ca_file(self.ca())).token(self.token(tenant))
    }

    /// The leader and its term, as a majority sees it.
    pub async fn leader(&self) -> Option<(u64, u64)> {
        let client = self.builder(Tenant::Operator).build().expect("well formed");
        let status = client.status(Default::default()).await.ok()?;
        let leader = status.nodes.into_iter().find(|node| node.role == Role::Leader)?;
        Some((leader.id.0, leader.term))
    }
}
