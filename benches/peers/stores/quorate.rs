//! Three processes of the binary that is built here.

use std::path::PathBuf;
use std::sync::Arc;

use quorate::client::{Client, Role};

use super::program;
use crate::Error;
use crate::run_dir::RunDir;
use crate::servers::{Launch, Servers, free_ports, ready};

const NODES: usize = 3;

/// A started cluster.
pub struct Quorate {
    /// Its processes.
    pub servers: Servers,
    endpoints: Vec<String>,
    binary: PathBuf,
}

impl Quorate {
    /// Starts a new cluster. Errors: there is no leader in time.
    pub async fn start(run: &Arc<RunDir>) -> Result<Self, Error> {
        let binary = program("QUORATE_BIN", &[env!("CARGO_BIN_EXE_quorate")], "none: it is built by cargo")?;
        let ports = free_ports(3 * NODES)?;
        let mut configuration = "name = \"bench\"\n".to_owned();
        for (index, node) in ports.chunks(3).enumerate() {
            configuration += &format!(
                "\n[[node]]\nid = {}\nclient = \"127.0.0.1:{}\"\npeer = \"127.0.0.1:{}\"\nadmin = \"127.0.0.1:{}\"\n",
                index + 1,
                node[0],
                node[1],
                node[2]
            );
        }
        let dir = run.directory("quorate")?;
        let file = dir.join("quorate.toml");
        std::fs::write(&file, configuration)?;
        let launch = |node: usize| {
            let arguments =
                ["serve", "--bootstrap", "--config", &file.display().to_string(), "--node", &node.to_string(), "--data-dir"];
            let mut arguments: Vec<String> = arguments.map(Into::into).into();
            arguments.push(dir.join("data").display().to_string());
            Launch::new(format!("quorate{node}"), &binary, arguments)
        };
        let servers = Servers::start(run, dir.clone(), (1..=NODES).map(launch).collect())?;
        let endpoints = ports.chunks(3).map(|node| format!("127.0.0.1:{}", node[0])).collect();
        let mut quorate = Self { servers, endpoints, binary };
        let client = quorate.client()?;
        ready(&mut quorate.servers, async || Ok(client.load("no such session").await?)).await?;
        Ok(quorate)
    }

    /// What the binary says its version is.
    pub fn version(&self) -> Result<String, Error> {
        let output = std::process::Command::new(&self.binary).arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.split_whitespace().nth(1).unwrap_or_default().to_owned())
    }

    /// A client of all nodes.
    pub fn client(&self) -> Result<Client, Error> {
        Ok(Client::builder().endpoints(self.endpoints.clone()).build()?)
    }

    /// Which process leads, by its place.
    pub async fn leader(&self) -> Result<usize, Error> {
        let status = self.client()?.status(Default::default()).await?;
        let leader = status.nodes.iter().find(|node| node.role == Role::Leader).ok_or("quorate has no leader")?;
        Ok(usize::try_from(leader.id.0)? - 1)
    }
}
