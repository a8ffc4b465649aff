//! System calls of one node that fail or take long: `strace` injects it into the running process, and says so call by call.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::chaos::world::works;

/// Attached to a node until it is dropped or detached.
pub struct Injection {
    strace: Child,
    record: PathBuf,
}

impl Injection {
    /// Attaches. `what` is strace's own expression. Errors: why it can't be done here.
    pub fn attach(pid: u32, calls: &str, what: &str, record: PathBuf) -> Result<Self, String> {
        let mut command = match works("setpriv", &["--pdeathsig", "KILL", "true"]) {
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "strace"]);
                command
            }
            false => Command::new("strace"),
        };
        command.args(["-f", "-qq", "-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{what}"), "-e", "signal=none"]);
        command.arg("-o").arg(&record).args(["-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let strace = command.spawn().map_err(|error| format!("strace does not run: {error}"))?;
        Ok(Self { strace, record })
    }

    /// How many calls it has treated so far.
    pub fn count(&self) -> usize {
        let record = std::fs::read(&self.record).unwrap_or_default();
        let record = String::from_utf8_lossy(&record);
        record.lines().filter(|line| line.contains("(INJECTED)") || line.contains("(DELAYED)")).count()
    }

    /// Waits until it has treated a call; false if it has not in time.
    pub async fn took_effect(&self, patience: Duration) -> bool {
        let waited = tokio::time::timeout(patience, async {
            while self.count() == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        waited.await.is_ok()
    }

    /// Lets the node go on as it was. Gives how many calls were treated, and what strace complained of.
    pub async fn detach(mut self) -> (usize, String) {
        if let Some(pid) = self.strace.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, Signal::INT);
        }
        let complaint = match tokio::time::timeout(Duration::from_secs(5), self.strace.wait()).await {
            Ok(_) => {
                let mut text = String::new();
                if let Some(mut stderr) = self.strace.stderr.take() {
                    let _ = tokio::io::AsyncReadExt::read_to_string(&mut stderr, &mut text).await;
                }
                text.lines().next().unwrap_or("").to_owned()
            }
            Err(_) => {
                let _ = self.strace.kill().await;
                "it had to be killed".to_owned()
            }
        };
        (self.count(), complaint)
    }
}
