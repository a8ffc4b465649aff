//! Nodes as separate processes on this machine, for what only real ones show: killed with -9, paused, restarted, on real files and
//! sockets, on ports that nobody else takes.

mod ports;
mod proxies;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Error, Result};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

pub use ports::Ports;
pub(super) use proxies::Way;
pub use proxies::{Proxies, Rule};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// How often a process that should end is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Lines of each log that a failure shows.
const LINES_SHOWN: usize = 30;

/// Nodes with numbers from 1, of which some run. Dropping it kills those.
#[derive(Debug)]
pub struct Processes {
    /// The configuration that nodes are started with.
    pub config: PathBuf,
    /// The directory below which they keep their data.
    pub data: PathBuf,
    /// Nodes that are started from now on end with this program, whatever ends it, and know that something looks after them.
    pub is_supervised: bool,
    program: PathBuf,
    dir: PathBuf,
    nodes: Vec<[u16; 3]>,
    running: BTreeMap<usize, Child>,
    // Behind the processes: given back when they have ended.
    ports: Ports,
}

impl Processes {
    /// So many nodes of the program `quorate` that is there, with their files below `dir`. None runs. Errors: there are no ports for them.
    pub fn new(program: impl Into<PathBuf>, dir: &Path, count: usize) -> Result<Self> {
        let (config, data, ports) = (dir.join("cluster.toml"), dir.join("data"), Ports::reserve()?);
        let (nodes, running) = (Vec::new(), BTreeMap::new());
        let (program, dir, is_supervised) = (program.into(), dir.to_owned(), false);
        let mut processes = Self { config, data, is_supervised, program, dir, nodes, running, ports };
        (0..count).try_for_each(|_| processes.add().map(drop))?;
        Ok(processes)
    }

    /// One more node. Gives its number. Errors: there are no ports for it.
    pub fn add(&mut self) -> Result<usize> {
        let ports = self.ports.take(3)?;
        self.nodes.push([ports[0], ports[1], ports[2]]);
        Ok(self.nodes.len())
    }

    /// Gives every node other ports, as after a move of all hosts. Errors: there are no others.
    pub fn move_ports(&mut self) -> Result<()> {
        for _ in 0..std::mem::take(&mut self.nodes).len() {
            self.add()?;
        }
        Ok(())
    }

    /// A port of theirs that no node has. Errors: there is none left.
    pub fn spare_port(&mut self) -> Result<u16> {
        Ok(self.ports.take(1)?[0])
    }

    /// The numbers of all nodes.
    pub fn all(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.nodes.len()
    }

    /// The ports of a node: for clients, peers and administrators.
    pub fn ports(&self, node: usize) -> [u16; 3] {
        self.nodes[node - 1]
    }

    /// Where clients reach a node.
    pub fn client(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports(node)[0])
    }

    /// Where its peers reach a node.
    pub fn peer(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports(node)[1])
    }

    /// Where a node answers over HTTP.
    pub fn admin(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports(node)[2])
    }

    /// All client addresses.
    pub fn endpoints(&self) -> Vec<String> {
        self.all().map(|node| self.client(node)).collect()
    }

    /// Writes the configuration of all nodes, with what else it shall say behind them. Errors: as files have.
    pub fn configure(&self, name: &str, more: &str) -> Result<()> {
        let node = |node: usize| {
            let (client, peer, admin) = (self.client(node), self.peer(node), self.admin(node));
            format!("[[node]]\nid = {node}\nclient = \"{client}\"\npeer = \"{peer}\"\nadmin = \"{admin}\"\n\n")
        };
        let nodes: String = self.all().map(node).collect();
        std::fs::write(&self.config, format!("name = \"{name}\"\n\n{nodes}{more}"))
    }

    /// Where a node keeps its data.
    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.data.join(node.to_string())
    }

    /// The program, or another that becomes it: a command for [`Processes::serve`].
    pub fn command(&self) -> Command {
        Command::new(&self.program)
    }

    /// Starts a node that does not run by a command that becomes the program, with more arguments than name the node, its configuration and
    /// its data. Errors: it runs, or can't be started.
    pub fn serve<'a>(&mut self, node: usize, mut command: Command, more: impl IntoIterator<Item = &'a str>) -> Result<()> {
        if self.running.contains_key(&node) {
            return Err(Error::other(format!("node {node} runs already")));
        }
        let log = OpenOptions::new().append(true).create(true).open(self.log(node))?;
        command.args(["serve", "--node", &node.to_string()]).args(self.is_supervised.then_some("--parent-pipe")).args(more);
        command.args([Path::new("--config"), &self.config, Path::new("--data-dir"), &self.data]);
        // A separate process group: Ctrl-C in a terminal reaches only the program that started the node; the pipe reports its end.
        command
            .stdin(if self.is_supervised { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0);
        self.running.insert(node, command.spawn()?);
        Ok(())
    }

    /// Where a node logs.
    pub fn log(&self, node: usize) -> PathBuf {
        self.dir.join(format!("{node}.log"))
    }

    /// The last lines of a node's log.
    pub fn last_lines(&self, node: usize, lines: usize) -> String {
        let text = String::from_utf8_lossy(&std::fs::read(self.log(node)).unwrap_or_default()).into_owned();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The last lines of every log, for a failure.
    pub fn logs(&self) -> String {
        self.all().map(|node| format!("--- node {node}\n{}\n", self.last_lines(node, LINES_SHOWN))).collect()
    }

    /// The nodes that were started and not ended from here.
    pub fn running(&self) -> Vec<usize> {
        self.running.keys().copied().collect()
    }

    /// The process of a node that runs.
    pub fn pid(&self, node: usize) -> Option<u32> {
        self.running.get(&node).map(Child::id)
    }

    /// Sends a signal to a node. False: there is no such process.
    pub fn signal(&self, node: usize, signal: Signal) -> bool {
        let pid = self.pid(node).and_then(|pid| Pid::from_raw(pid as i32));
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Kills nodes with -9, all at once, and waits until they are gone.
    pub fn kill(&mut self, nodes: &[usize]) {
        let mut children: Vec<Child> = nodes.iter().filter_map(|node| self.running.remove(node)).collect();
        // One may have ended by itself.
        children.iter_mut().for_each(|child| drop(child.kill()));
        children.iter_mut().for_each(|child| drop(child.wait()));
    }

    /// Kills every node that runs.
    pub fn kill_all(&mut self) {
        self.kill(&self.running());
    }

    /// Stops nodes in good order, all at once, and waits until they are gone; how each ended. Errors: one was not in time, so that all that
    /// were left are killed.
    pub async fn stop(&mut self, nodes: &[usize], patience: Duration) -> Result<Vec<ExitStatus>> {
        let mut ended = Vec::new();
        let until = tokio::time::Instant::now() + patience;
        for node in nodes {
            // Of a node that is supervised the end of its stdin means what SIGTERM means.
            let pipe = self.running.get_mut(node).and_then(|child| child.stdin.take());
            if pipe.is_none() {
                self.signal(*node, Signal::TERM);
            }
        }
        for node in nodes {
            match self.ended(*node, until - tokio::time::Instant::now()).await {
                Ok(status) => ended.push(status),
                Err(error) => {
                    self.kill(nodes);
                    return Err(error);
                }
            }
        }
        Ok(ended)
    }

    /// Waits until a node has ended by itself; gives how. Errors: it does not run, or not in time.
    pub async fn ended(&mut self, node: usize, patience: Duration) -> Result<ExitStatus> {
        let child = self.running.get_mut(&node).ok_or_else(|| Error::other(format!("node {node} does not run")))?;
        let ended = tokio::time::timeout(patience, end(child)).await;
        let status = ended.map_err(|_| Error::other(format!("node {node} does not end within {patience:?}")))??;
        self.running.remove(&node);
        Ok(status)
    }

    /// Nodes that have ended by themselves since this was asked last, with how.
    pub fn ended_by_themselves(&mut self) -> Vec<(usize, ExitStatus)> {
        let has_ended = |(node, child): (&usize, &mut Child)| Some((*node, child.try_wait().ok()??));
        let ended: Vec<_> = self.running.iter_mut().filter_map(has_ended).collect();
        ended.iter().for_each(|(node, _)| drop(self.running.remove(node)));
        ended
    }
}

async fn end(child: &mut Child) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill_all();
    }
}
