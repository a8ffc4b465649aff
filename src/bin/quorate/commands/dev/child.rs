//! One node as a child process: started, its log prefixed, its end reported exactly once.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};

/// How to start a node.
#[derive(Clone, Debug)]
pub struct Launch {
    /// This program.
    pub program: PathBuf,
    /// The cluster's file.
    pub config: PathBuf,
    /// Where all nodes keep their data.
    pub data_dir: PathBuf,
    /// Where certificates and tokens lie, if there are any.
    pub certs: Option<PathBuf>,
}

/// A running node. Dropping it ends the process: its stdin is the pipe it watches.
#[derive(Debug)]
pub struct Child {
    /// Its process id.
    pub pid: u32,
    /// When it was started.
    pub started: Instant,
    pipe: Option<ChildStdin>,
    kill: Option<oneshot::Sender<()>>,
}

/// A child has ended.
#[derive(Debug)]
pub struct Exited {
    /// Which node.
    pub node: u64,
    /// How.
    pub status: Result<ExitStatus, String>,
    /// The last line it logged: where it failed at start, the reason.
    pub last_line: String,
}

impl Child {
    /// Starts a node; its end will be sent to `exits`. Errors: the process could not be started.
    pub fn start(launch: &Launch, node: u64, exits: mpsc::Sender<Exited>) -> std::io::Result<Self> {
        let mut process = Command::new(&launch.program)
            .arg("serve")
            .args([Path::new("--config"), &launch.config, Path::new("--data-dir"), &launch.data_dir])
            .args(["--node", &node.to_string(), "--bootstrap", "--parent-pipe", "--small"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C in a terminal must reach the parent only, which then stops the nodes in good order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = process.id().ok_or_else(|| std::io::Error::other("the process ended at once"))?;
        let pipe = process.stdin.take();
        let log = process.stderr.take();
        let (kill, killed) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let copied = tokio::spawn(copy_log(node, log));
            // A dropped sender only means that the handle has gone: its pipe has gone too, so the process ends by itself.
            let status = tokio::select! {
                status = process.wait() => status,
                Ok(()) = killed => {
                    let _ = process.start_kill();
                    process.wait().await
                }
            };
            let last_line = copied.await.unwrap_or_default();
            let _ = exits.send(Exited { node, status: status.map_err(|error| error.to_string()), last_line }).await;
        });
        Ok(Self { pid, started: Instant::now(), pipe, kill: Some(kill) })
    }

    /// Asks the node to hand over, flush and exit: the end of its stdin means what SIGTERM means, and reaches no other process.
    pub fn stop(&mut self) {
        self.pipe = None;
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        if let Some(kill) = self.kill.take() {
            let _ = kill.send(());
        }
    }
}

/// Copies a node's log to stderr, each line behind its node. Returns the last line.
async fn copy_log(node: u64, log: Option<impl AsyncRead + Unpin>) -> String {
    let Some(log) = log else { return String::new() };
    let mut lines = BufReader::new(log).split(b'\n');
    let mut last = String::new();
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line).into_owned();
        // In one piece, since all nodes and this command write to one terminal. A closed one must not stop the cluster.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("node {node} | {line}\n").as_bytes());
        if !line.trim().is_empty() {
            last = line;
        }
    }
    last
}

/// Whether a node's last line says that it is no member any more.
pub fn was_removed(last_line: &str) -> bool {
    reason(last_line).starts_with("this node was removed from the cluster")
}

/// The reason in the last line of a node that could not start, without the prefix of every error line.
pub fn reason(last_line: &str) -> &str {
    last_line.strip_prefix("error: ").unwrap_or(last_line)
}
