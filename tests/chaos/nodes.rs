//! The nodes: real processes of the real binary.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use quorate::client::{Client, NodeStatus, Role, StatusOptions};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::ports::Ports;
use crate::proxy::Proxies;
use crate::world::{is_stopped, works};

/// Some nodes and the proxies between them.
pub struct Nodes {
    dir: PathBuf,
    count: usize,
    ports: Vec<[u16; 3]>,
    running: BTreeMap<usize, Child>,
    // Behind the processes: given back when they have ended.
    _reserved: Ports,
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
        let reserved = Ports::reserve();
        let mut free = reserved.take(3 * count + count * (count - 1)).into_iter();
        let mut next = || free.next().ok_or_else(|| std::io::Error::other("no free ports"));
        let ports = (0..count).map(|_| Ok([next()?, next()?, next()?])).collect::<std::io::Result<Vec<_>>>()?;
        let targets =
            ports.iter().enumerate().map(|(at, [_, peer, _])| (at + 1, SocketAddr::from(([127, 0, 0, 1], *peer)))).collect();
        let proxies = Proxies::new(targets, next, seed)?;
        let dies_with_parent = works("setpriv", &["--pdeathsig", "KILL", "true"]);
        let nodes = Self {
            dir: dir.to_owned(),
            count,
            ports,
            _reserved: reserved,
            running: BTreeMap::new(),
            excused: Vec::new(),
            proxies,
            dies_with_parent,
            short_intervals,
            environment: BTreeMap::new(),
        };
        std::fs::write(nodes.dir.join("cluster.toml"), nodes.configuration())?;
        Ok(nodes)
    }

    fn configuration(&self) -> String {
        let mut text = "name = \"chaos\"\n".to_owned();
        for (at, [client, peer, admin]) in self.ports.iter().enumerate() {
            let id = at + 1;
            text += &format!(
                "\n[[node]]\nid = {id}\nclient = \"127.0.0.1:{client}\"\npeer = \"127.0.0.1:{peer}\"\nadmin = \"127.0.0.1:{admin}\"\n"
            );
        }
        text + "\n[storage]\nlog_kept = \"64MiB\"\n"
    }

    /// Numbers from 1.
    pub fn all(&self) -> Vec<usize> {
        (1..=self.count).collect()
    }

    /// How many make a majority.
    pub fn majority(&self) -> usize {
        self.count / 2 + 1
    }

    /// Where a node keeps its data.
    pub fn data(&self, node: usize) -> PathBuf {
        self.dir.join("data").join(node.to_string())
    }

    /// Where clients reach a node.
    pub fn endpoint(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node - 1][0])
    }

    /// All of them.
    pub fn endpoints(&self) -> Vec<String> {
        self.all().into_iter().map(|node| self.endpoint(node)).collect()
    }

    /// The process of a node that runs.
    pub fn pid(&self, node: usize) -> Option<u32> {
        self.running.get(&node).and_then(Child::id)
    }

    /// Starts a node that does not run. To be called from the runner's first thread: nodes die with it.
    pub async fn start(&mut self, node: usize) -> std::io::Result<()> {
        let program = env!("CARGO_BIN_EXE_quorate");
        let mut command = match self.dies_with_parent {
            true => Command::new("setpriv"),
            false => Command::new(program),
        };
        if self.dies_with_parent {
            command.args(["--pdeathsig", "KILL", program]);
        }
        command.arg("serve").arg("--config").arg(self.dir.join("cluster.toml"));
        command.args(["--node", &node.to_string(), "--bootstrap", "--parent-pipe"]).arg("--data-dir").arg(self.dir.join("data"));
        for (other, address) in self.proxies.ways(node) {
            command.args(["--peer-via", &format!("{other}={address}")]);
        }
        command.arg("--applied-to").arg(self.applied(node));
        if self.short_intervals {
            command.arg("--short-intervals");
        }
        let log = OpenOptions::new().append(true).create(true).open(self.log(node))?;
        command.envs(self.environment.get(&node).into_iter().flatten().cloned());
        // A group of its own: Ctrl-C reaches the runner only.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).process_group(0).kill_on_drop(true);
        self.proxies.open(node).await?;
        let child = command.spawn()?;
        self.running.insert(node, child);
        Ok(())
    }

    /// Where a node logs.
    pub fn log(&self, node: usize) -> PathBuf {
        self.dir.join(format!("node-{node}.log"))
    }

    /// Where a node writes down what it applies: beside its data, so that no fault of its disk reaches it.
    pub fn applied(&self, node: usize) -> PathBuf {
        self.dir.join(format!("applied-{node}"))
    }

    /// Kills nodes with -9, all at once, and waits until they are gone. Gives their pids.
    pub async fn kill(&mut self, nodes: &[usize]) -> Vec<u32> {
        let mut children: Vec<(usize, Child)> = nodes.iter().filter_map(|node| self.running.remove_entry(node)).collect();
        let pids = children.iter().filter_map(|(_, child)| child.id()).collect();
        children.iter().for_each(|(node, _)| self.proxies.close(*node));
        children.iter_mut().for_each(|(_, child)| drop(child.start_kill()));
        for (_, mut child) in children {
            let _ = child.wait().await;
        }
        pids
    }

    /// Asks a node to stop as its parent's end would, and waits; false if it had to be killed.
    pub async fn stop(&mut self, node: usize, patience: Duration) -> bool {
        let Some(mut child) = self.running.remove(&node) else { return false };
        drop(child.stdin.take());
        let ended = tokio::time::timeout(patience, child.wait()).await;
        self.proxies.close(node);
        matches!(ended, Ok(Ok(status)) if status.success())
    }

    /// Sends a signal. False: there is no such process.
    pub fn signal(&self, node: usize, signal: Signal) -> bool {
        let pid = self.pid(node).and_then(|pid| Pid::from_raw(pid as i32));
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Whether the system says that the process stands still.
    pub fn is_paused(&self, node: usize) -> bool {
        self.pid(node).is_some_and(|pid| is_stopped(pid as i32))
    }

    /// Nodes that have ended by themselves since asked last, with how.
    pub fn ended(&mut self) -> Vec<(usize, String)> {
        let mut ended = Vec::new();
        for (node, child) in &mut self.running {
            if let Ok(Some(status)) = child.try_wait() {
                ended.push((*node, status.to_string()));
            }
        }
        for (node, _) in &ended {
            self.running.remove(node);
            self.proxies.close(*node);
        }
        ended
    }

    /// The nodes that run.
    pub fn alive(&self) -> Vec<usize> {
        self.running.keys().copied().collect()
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
