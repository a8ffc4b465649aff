//! The processes of one store: started, stopped, killed, counted.
//!
//! They are started from the main thread only: the kernel ends each when the thread that started it does
//! (`setpriv --pdeathsig`), so nothing outlives a driver that was killed with -9.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::Error;
use crate::run_dir::{RunDir, pid, remove};

/// Longest an orderly stop may take.
const STOP: Duration = Duration::from_secs(60);

/// How to start one process.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Names its log.
    pub name: String,
    /// What to run.
    pub program: PathBuf,
    /// With which arguments.
    pub arguments: Vec<String>,
    /// As whom, if not as this user.
    pub user: Option<&'static str>,
    /// What makes it stop at once and leave nothing behind.
    pub end: Signal,
}

impl Launch {
    /// A process that leaves nothing behind when killed.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, arguments: Vec<String>) -> Self {
        Self { name: name.into(), program: program.into(), arguments, user: None, end: Signal::KILL }
    }
}

/// All processes of one store. Dropping it ends them.
pub struct Servers {
    run: Arc<RunDir>,
    dir: PathBuf,
    launches: Vec<Launch>,
    children: Vec<Option<Child>>,
}

impl Servers {
    /// Starts them all; they keep what they have in `dir`, which goes with them. Errors: one could not be started.
    pub fn start(run: &Arc<RunDir>, dir: PathBuf, launches: Vec<Launch>) -> Result<Self, Error> {
        let children = launches.iter().map(|_| None).collect();
        let mut servers = Self { run: run.clone(), dir, launches, children };
        servers.start_all()?;
        Ok(servers)
    }

    /// Starts those that do not run; gives when the last one was started.
    pub fn start_all(&mut self) -> Result<Instant, Error> {
        for index in 0..self.launches.len() {
            if self.children[index].is_none() {
                self.start_one(index)?;
            }
        }
        Ok(Instant::now())
    }

    /// Starts one that does not run.
    pub fn start_one(&mut self, index: usize) -> Result<(), Error> {
        let launch = &self.launches[index];
        let log = OpenOptions::new().append(true).create(true).open(self.log_of(index))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", if launch.end == Signal::QUIT { "QUIT" } else { "KILL" }]);
        if let Some(user) = launch.user {
            command.args(["--reuid", user, "--regid", user, "--init-groups"]);
        }
        command.arg("--").arg(&launch.program).args(&launch.arguments);
        // A group of its own: ctrl-C reaches the driver only, which then ends them.
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).current_dir("/");
        let child = command.spawn().map_err(|error| format!("setpriv (package util-linux): {error}"))?;
        let entered = self.run.enter(child.id());
        self.children[index] = Some(child);
        entered
    }

    /// Kills one with -9 and waits until it is gone.
    pub fn kill(&mut self, index: usize) -> Result<(), Error> {
        let Some(mut child) = self.children[index].take() else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops all in good order, at once, and waits until they are gone.
    pub async fn stop(&mut self) -> Result<(), Error> {
        for id in self.children.iter().flatten().filter_map(|child| pid(child.id())) {
            kill_process(id, Signal::TERM)?;
        }
        let until = Instant::now() + STOP;
        for (launch, slot) in self.launches.iter().zip(&mut self.children) {
            let Some(mut child) = slot.take() else { continue };
            while child.try_wait()?.is_none() {
                if Instant::now() > until {
                    child.kill()?;
                    return Err(format!("{} did not stop within {STOP:?}", launch.name).into());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// The processes, with those they started themselves.
    pub fn pids(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.children.iter().flatten().map(Child::id).collect();
        let mut at = 0;
        while at < all.len() {
            let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", all[at])).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            at += 1;
        }
        all
    }

    /// Errors: one has ended by itself; with the end of its log.
    pub fn check(&mut self) -> Result<(), Error> {
        for index in 0..self.children.len() {
            let Some(child) = &mut self.children[index] else { continue };
            if let Some(status) = child.try_wait()? {
                let log = std::fs::read_to_string(self.log_of(index)).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(8).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                return Err(format!("{} ended, {status}:\n{}", self.launches[index].name, tail.join("\n")).into());
            }
        }
        Ok(())
    }

    /// Where they keep what they have.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn log_of(&self, index: usize) -> PathBuf {
        self.dir.join(format!("{}.log", self.launches[index].name))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for (launch, child) in self.launches.iter().zip(&self.children) {
            let id = child.as_ref().and_then(|child| pid(child.id()));
            // It may have ended by itself.
            let _ = id.map(|id| kill_process(id, launch.end));
        }
        let until = Instant::now() + Duration::from_secs(2);
        for child in self.children.iter_mut().flatten() {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::yield_now();
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        remove(&self.dir);
    }
}

/// Ports that were free a moment ago, all different.
pub fn free_ports(count: usize) -> Result<Vec<u16>, Error> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    Ok(listeners.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect::<Result<_, _>>()?)
}

/// Asks until it answers. Errors: a process ended, or there is no answer in time.
pub async fn ready<F, T>(servers: &mut Servers, mut ask: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        servers.check()?;
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() > until => return Err(format!("no answer within 30 s: {error}").into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
