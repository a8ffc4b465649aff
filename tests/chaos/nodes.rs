//! The nodes: real processes of the real binary.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use quorate::client::{Client, NodeStatus, Role, StatusOptions};
use quorate::testing::processes::{Processes, Signal};

use crate::chaos::world::{is_stopped, works};
use quorate::testing::processes::Proxies;

/// Some nodes and the proxies between them.
pub struct Nodes {
    dir: PathBuf,
    processes: Processes,
    /// Nodes that may end by themselves: a fault they can't survive was installed.
    pub excused: Vec<usize>,
    /// What stands between them.
    pub proxies: Proxies,
    dies_with_parent: bool,
    short_intervals: bool,
    /// Of the next start, by node.
    pub environment: BTreeMap<usize, Vec<(String, String)>>,
}

impl Nodes {
    /// Nothing runs yet. The log kept is the least that the configuration allows, so that a follower falls behind it soon.
    pub fn new(dir: &Path, count: usize, seed: u64, short_intervals: bool) -> std::io::Result<Self> {
        let mut processes = Processes::new(env!("CARGO_BIN_EXE_quorate"), dir, count)?;
        processes.is_supervised = true;
        processes.configure("chaos", "[storage]\nlog_kept = \"64MiB\"\n")?;
        let targets = processes.all().map(|node| (node, SocketAddr::from(([127, 0, 0, 1], processes.ports(node)[1])))).collect();
        let proxies = Proxies::new(targets, || processes.spare_port(), seed)?;
        let dies_with_parent = works("setpriv", &["--pdeathsig", "KILL", "true"]);
        let (excused, environment) = (Vec::new(), BTreeMap::new());
        Ok(Self { dir: dir.to_owned(), processes, excused, proxies, dies_with_parent, short_intervals, environment })
    }

    /// Numbers from 1.
    pub fn all(&self) -> Vec<usize> {
        self.processes.all().collect()
    }

    /// How many make a majority.
    pub fn majority(&self) -> usize {
        self.processes.all().count() / 2 + 1
    }

    /// Where clients reach a node.
    pub fn endpoint(&self, node: usize) -> String {
        self.processes.client(node)
    }

    /// All of them.
    pub fn endpoints(&self) -> Vec<String> {
        self.processes.endpoints()
    }

    /// Where a node keeps its data.
    pub fn data(&self, node: usize) -> PathBuf {
        self.processes.data_dir(node)
    }

    /// The process of a node that runs.
    pub fn pid(&self, node: usize) -> Option<u32> {
        self.processes.pid(node)
    }

    /// Starts a node that does not run. To be called from the runner's first thread: nodes die with it.
    pub async fn start(&mut self, node: usize) -> std::io::Result<()> {
        let mut command = self.processes.command();
        if self.dies_with_parent {
            let program = command.get_program().to_owned();
            command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).arg(program);
        }
        command.envs(self.environment.get(&node).into_iter().flatten().cloned());
        let mut more = vec!["--bootstrap".to_owned(), format!("--applied-to={}", self.applied(node).display())];
        more.extend(self.proxies.ways(node).into_iter().map(|(other, address)| format!("--peer-via={other}={address}")));
        more.extend(self.short_intervals.then(|| "--short-intervals".to_owned()));
        self.proxies.open(node).await?;
        self.processes.serve(node, command, more.iter().map(String::as_str))
    }

    /// Where a node logs.
    pub fn log(&self, node: usize) -> PathBuf {
        self.processes.log(node)
    }

    /// Where a node writes down what it applies: beside its data, so that no fault of its disk reaches it.
    pub fn applied(&self, node: usize) -> PathBuf {
        self.dir.join(format!("applied-{node}"))
    }

    /// Kills nodes with -9, all at once, and waits until they are gone. Gives their pids.
    pub fn kill(&mut self, nodes: &[usize]) -> Vec<u32> {
        let pids = nodes.iter().filter_map(|node| self.pid(*node)).collect();
        nodes.iter().for_each(|node| self.proxies.close(*node));
        self.processes.kill(nodes);
        pids
    }

    /// Asks a node to stop as its parent's end would, and waits; false if it had to be killed.
    pub async fn stop(&mut self, node: usize, patience: Duration) -> bool {
        let ended = self.processes.stop(&[node], patience).await;
        self.proxies.close(node);
        ended.is_ok_and(|ended| ended.iter().all(|status| status.success()))
    }

    /// Sends a signal. False: there is no such process.
    pub fn signal(&self, node: usize, signal: Signal) -> bool {
        self.processes.signal(node, signal)
    }

    /// Whether the system says that the process stands still.
    pub fn is_paused(&self, node: usize) -> bool {
        self.pid(node).is_some_and(|pid| is_stopped(pid as i32))
    }

    /// Nodes that have ended by themselves since asked last, with how.
    pub fn ended(&mut self) -> Vec<(usize, String)> {
        let ended = self.processes.ended_by_themselves();
        ended.iter().for_each(|(node, _)| self.proxies.close(*node));
        ended.into_iter().map(|(node, status)| (node, status.to_string())).collect()
    }

    /// The nodes that run.
    pub fn alive(&self) -> Vec<usize> {
        self.processes.running()
    }

    /// What each node that answers says of itself, asked directly and all at once.
    pub async fn status(&self) -> BTreeMap<usize, NodeStatus> {
        let mut asked = tokio::task::JoinSet::new();
        for node in self.alive() {
            let client = Client::builder().endpoints([self.endpoint(node)]).connect_timeout(Duration::from_millis(500)).build();
            let client = client.expect("an address of ours");
            asked.spawn(async move {
                let options = StatusOptions { timeout: Duration::from_millis(1000), ..StatusOptions::default() };
                let status = client.status(options).await.ok()?;
                status.nodes.into_iter().find(|status| status.id.0 == node as u64).map(|status| (node, status))
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// Who leads, if one that runs says so.
    pub async fn leader(&self) -> Option<usize> {
        let status = self.status().await;
        let leaders = status.iter().filter(|(_, status)| status.role == Role::Leader);
        leaders.max_by_key(|(_, status)| status.term).map(|(node, _)| *node)
    }
}
