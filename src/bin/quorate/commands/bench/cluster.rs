//! Three child processes: started again for each workload, killed and restarted where that is the workload.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate::client::{Client, StatusOptions};
use quorate::testing::processes::Processes;

use crate::commands::dev::probe;
use crate::failure::Failure;

const NODES: usize = 3;
/// The time a node gets to hand over, flush and exit before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A cluster of child processes, for a measurement. Its nodes end with this process; [`Cluster::end`] also removes their data.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    nodes: Processes,
}

impl Cluster {
    /// Plans one whose data lies in a new directory below `parent`, or below that for temporary files. Starts nothing.
    ///
    /// Errors: the directory can't be made, or would be no disk; no ports are free.
    pub fn new(parent: Option<&Path>) -> Result<Self, Failure> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let unusable = |error: std::io::Error| {
            Failure::usage(format!("can't use the directory: {error}; name another with --data-dir path={}", parent.display()))
        };
        std::fs::create_dir_all(&parent).map_err(unusable)?;
        let parent = parent.canonicalize().map_err(unusable)?;
        if is_memory(&parent) {
            let advice =
                "data there would lie in memory, and syncing it would cost nothing; name a directory on a disk with --data-dir";
            return Err(Failure::usage(format!("{advice} path={}", parent.display())));
        }
        let dir = parent.join(format!("quorate-bench-{}", std::process::id()));
        std::fs::create_dir(&dir).map_err(unusable)?;
        Ok(Self { nodes: planned(&dir)?, dir })
    }

    /// Ends the nodes that run, removes what they stored, and starts new ones. Errors: they don't come up.
    pub async fn renew(&mut self) -> Result<(), Failure> {
        self.nodes.kill_all();
        let unusable =
            |error: std::io::Error| Failure::failed(format!("can't use the data directory: {error} path={}", self.dir.display()));
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir).map_err(unusable)?;
        }
        std::fs::create_dir_all(&self.dir).map_err(unusable)?;
        self.nodes = planned(&self.dir)?;
        self.nodes.configure("bench", "").map_err(unusable)?;
        self.start_all()?;
        let up = tokio::time::timeout(START_TIMEOUT, probe::up(self.client()?, Instant::now())).await;
        let down = |_| Failure::failed(format!("the nodes do not come up; they say why in {}", self.dir.join("*.log").display()));
        up.map(drop).map_err(down)
    }

    /// Starts every node that does not run.
    pub fn start_all(&mut self) -> Result<(), Failure> {
        let running = self.nodes.running();
        for node in self.nodes.all().filter(|node| !running.contains(node)) {
            let started = self.nodes.serve(node, self.nodes.command(), ["--bootstrap"]);
            started.map_err(|error| Failure::failed(format!("can't start node {node}: {error}")))?;
        }
        Ok(())
    }

    /// Kills a node with -9 and waits until it is gone.
    pub fn kill(&mut self, node: u64) {
        self.nodes.kill(&[node as usize]);
    }

    /// Stops a node in good order. Errors: it had to be killed.
    pub async fn stop(&mut self, node: u64) -> Result<(), Failure> {
        self.stop_nodes(&[node as usize]).await
    }

    /// Stops all nodes in good order, together. Errors: one had to be killed.
    pub async fn stop_all(&mut self) -> Result<(), Failure> {
        self.stop_nodes(&self.nodes.running()).await
    }

    async fn stop_nodes(&mut self, nodes: &[usize]) -> Result<(), Failure> {
        self.nodes.stop(nodes, STOP_TIMEOUT).await.map(drop).map_err(|error| Failure::failed(error.to_string()))
    }

    /// Kills the nodes and removes what they stored.
    pub async fn end(mut self) {
        self.nodes.kill_all();
        if let Err(error) = std::fs::remove_dir_all(&self.dir)
            && self.dir.exists()
        {
            tracing::error!(%error, path = %self.dir.display(), "the data is left behind");
        }
    }

    /// The client addresses.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.endpoints()
    }

    /// A client of this cluster, which is open, whatever certificates and tokens the environment names for others.
    pub fn client(&self) -> Result<Client, Failure> {
        Client::builder().endpoints(self.endpoints()).build().map_err(Failure::usage)
    }

    /// Where the nodes answer over HTTP.
    pub fn admin(&self) -> Vec<String> {
        self.nodes.all().map(|node| self.nodes.admin(node)).collect()
    }

    /// The processes that run.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.all().filter_map(|node| self.nodes.pid(node)).collect()
    }

    /// Where all nodes keep their data.
    pub fn data(&self) -> PathBuf {
        self.nodes.data.clone()
    }

    /// The leader. Errors: there is none in time.
    pub async fn leader(&self) -> Result<u64, Failure> {
        let leader = tokio::time::timeout(START_TIMEOUT, probe::leader(&self.client()?)).await;
        leader.map(|leader| leader.node).map_err(|_| Failure::failed("no node leads"))
    }

    /// Waits until every node has applied what any has applied when this is called. Errors: not in time.
    pub async fn caught_up(&self) -> Result<(), Failure> {
        let client = self.client()?;
        let deadline = Instant::now() + START_TIMEOUT;
        let mut goal = None;
        let mut next = tokio::time::interval(Duration::from_millis(20));
        while Instant::now() < deadline {
            next.tick().await;
            let options = StatusOptions { timeout: Duration::from_secs(1), ..StatusOptions::default() };
            let Ok(status) = client.status(options).await else { continue };
            let applied = |node: &quorate::client::NodeStatus| node.applied.unwrap_or(0);
            let goal = *goal.get_or_insert(status.nodes.iter().map(applied).max().unwrap_or(0));
            if status.nodes.iter().all(|node| node.reachable && applied(node) >= goal) {
                return Ok(());
            }
        }
        Err(Failure::failed("a node that was restarted does not catch up"))
    }
}

fn planned(dir: &Path) -> Result<Processes, Failure> {
    let nodes = std::env::current_exe().and_then(|program| Processes::new(program, dir, NODES));
    let mut nodes = nodes.map_err(|error| Failure::failed(format!("can't plan nodes: {error}")))?;
    nodes.is_supervised = true;
    Ok(nodes)
}

/// Whether a path lies on a file system without a disk, as far as the system says.
fn is_memory(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    is_memory_by(&mounts, path)
}

fn is_memory_by(mounts: &str, path: &Path) -> bool {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let holds = mounts.filter(|(point, _)| path.starts_with(point));
    let deepest = holds.max_by_key(|(point, _)| point.len());
    deepest.is_some_and(|(_, kind)| matches!(kind, "tmpfs" | "ramfs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_memory_is_recognised_beside_one_on_a_disk() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/disk xfs rw 0 0\nstrange\n";
        let is_memory = |path: &str| is_memory_by(mounts, Path::new(path));
        assert!(is_memory("/tmp/x") && !is_memory("/tmp/disk/x") && !is_memory("/home") && !is_memory("/tmpx"));
    }
}
