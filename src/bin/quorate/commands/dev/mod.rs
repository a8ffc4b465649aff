//! `quorate dev`: a whole cluster on this machine, one child process per node.
//!
//! A child that dies is started again; one that can't start at all (exit code 2) stops the cluster with its reason, since starting it
//! again would not help. The children end with this process, however it ends: each watches a pipe that only this process holds.

mod child;
pub mod plan;
pub mod probe;
mod secure;
mod taken;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use quorate::env::{Env, Replacing};
use quorate::server::SMALL_BYTES;
use quorate::server::data_dir::require_no_nodes_own;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::child::{Child, Exited, Launch};
use self::plan::Plan;
use self::probe::Leader;
use crate::args;
use crate::commands::cert;
use crate::commands::session::connect;
use crate::failure::{Code, Failure};
use crate::signals::Signals;

/// The time a node gets to hand over, flush and exit before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// A node that died younger than this is started again only after [`RESTART_PAUSE`]: it would most likely die again.
const YOUNG: Duration = Duration::from_secs(3);
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// How often to look whether an earlier run has ended.
const LOCK_POLL: Duration = Duration::from_millis(100);
/// Of `cluster.toml`, which holds no secret.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
const CONFIG_MODE: u32 = 0o644;

/// Runs until a signal, or until a node can't start.
pub async fn run(args: args::Dev) -> Result<(), Failure> {
    let nodes = args.nodes.parse().map_err(|_| Failure::usage("--nodes must be 3 or 5"))?;
    let plan = Plan::new(nodes, args.base_port).map_err(Failure::usage)?;
    let launch = prepare(&plan, &args)?;
    let credentials = launch.certs.as_deref().map(secure::credentials).unwrap_or_default();
    let cluster = args::Cluster { endpoints: plan.endpoints(), timeout: None, credentials };
    let mut signals = Signals::install().map_err(|error| Failure::failed(format!("can't watch for signals: {error}")))?;
    tokio::select! {
        waited = wait_for_earlier_run(&plan, &args.data_dir) => waited?,
        () = signals.recv() => return Ok(()),
    }
    taken::require_free(&plan, &cluster, &args.data_dir).await?;
    let gigabytes = (plan.nodes * SMALL_BYTES) as f64 / 1e9;
    say(&format!(
        "data in {}: {gigabytes:.1} GB of disk at once, since every node reserves room for its log",
        args.data_dir.display()
    ));
    let (exits, exited) = mpsc::channel(plan.nodes as usize);
    let mut dev =
        Dev { plan, cluster, launch, children: BTreeMap::new(), exits, exited, chores: JoinSet::new(), restarts: JoinSet::new() };
    let ended = dev.supervise(&mut signals).await;
    dev.stop_all(&mut signals).await;
    ended
}

/// Nodes whose parent was killed just now still flush: wait for them a while, rather than fail on their locks. Errors: they go on.
async fn wait_for_earlier_run(plan: &Plan, data_dir: &Path) -> Result<(), Failure> {
    let locks: Vec<_> = (1..=plan.nodes).map(|node| data_dir.join(node.to_string()).join("LOCK")).collect();
    let is_held = |path: &std::path::PathBuf| {
        // Closing the file gives a lock back at once.
        std::fs::File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
    };
    let deadline = Instant::now() + STOP_TIMEOUT;
    let mut is_said = false;
    while let Some(lock) = locks.iter().find(|path| is_held(path)) {
        if Instant::now() >= deadline {
            return Err(Failure::usage(format!(
                "a cluster runs on this data directory already; nothing was started. Use that one (`quorate status` shows its processes), \
                 or stop it, or name another --data-dir and --base-port lock={}",
                lock.display()
            )));
        }
        if !is_said {
            say("waiting for the nodes of an earlier run to end");
            is_said = true;
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
    Ok(())
}

/// Makes the data directory and writes the cluster's file into it, with certificates and tokens if asked for. Errors: it can't be
/// written, or holds another cluster's data.
fn prepare(plan: &Plan, args: &args::Dev) -> Result<Launch, Failure> {
    let data_dir = &args.data_dir;
    let unusable = |error: String| {
        Failure::usage(format!("can't use the data directory: {error}; name another with --data-dir path={}", data_dir.display()))
    };
    require_no_nodes_own(&Env::real(), data_dir).map_err(&unusable)?;
    std::fs::create_dir_all(data_dir).map_err(|error| unusable(error.to_string()))?;
    let config = data_dir.join("cluster.toml");
    if config.exists() {
        let existing = quorate::server::config::Config::load(&config).map_err(|error| unusable(error.to_string()))?;
        plan.fits(&existing).map_err(|why| Failure::usage(format!("{}: {why}", data_dir.display())))?;
        if existing.tls.is_some() && !args.secure {
            return Err(Failure::usage(format!("{}: its nodes have certificates: pass --secure", data_dir.display())));
        }
    }
    let certs = if args.secure { Some(secure::make(plan, data_dir)?) } else { None };
    let sections = certs.as_deref().map(|certs| format!("\n{}", cert::sections(certs))).unwrap_or_default();
    write_config(&config, &(plan.cluster_toml() + &sections)).map_err(|error| unusable(error.to_string()))?;
    let program = std::env::current_exe().map_err(|error| Failure::failed(format!("can't find this program: {error}")))?;
    Ok(Launch { program, config, data_dir: data_dir.to_owned(), certs })
}

/// As a whole, so that a run that is killed leaves the old one; not at all if it says the same.
fn write_config(path: &Path, text: &str) -> std::io::Result<()> {
    let file = Replacing::open(path, CONFIG_BYTES_MAX)?;
    if file.before() == Some(text.as_bytes()) {
        return Ok(());
    }
    let prepared = file.prepare(text.as_bytes(), CONFIG_MODE)?;
    file.replace(prepared)
}

struct Dev {
    plan: Plan,
    /// How to reach it.
    cluster: args::Cluster,
    launch: Launch,
    children: BTreeMap<u64, Child>,
    exits: mpsc::Sender<Exited>,
    exited: mpsc::Receiver<Exited>,
    /// Questions to the cluster, each of which ends in something to say.
    chores: JoinSet<Chore>,
    /// Nodes waiting for their next start.
    restarts: JoinSet<u64>,
}

enum Chore {
    Up { leader: Leader },
    Resumed { node: u64, interruption: Duration, leader: Leader },
}

impl Dev {
    async fn supervise(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        for node in 1..=self.plan.nodes {
            self.start(node)?;
        }
        self.ask_when_up()?;
        loop {
            tokio::select! {
                () = signals.recv() => return Ok(()),
                Some(exit) = self.exited.recv() => self.on_exit(exit)?,
                Some(Ok(node)) = self.restarts.join_next() => self.start(node)?,
                Some(Ok(chore)) = self.chores.join_next() => self.tell(chore)?,
            }
        }
    }

    fn start(&mut self, node: u64) -> Result<(), Failure> {
        let child = Child::start(&self.launch, node, self.exits.clone())
            .map_err(|error| Failure::failed(format!("can't start node {node}: {error}")))?;
        say(&format!("node {node} started: pid {} clients {}", child.pid, self.plan.client_address(node)));
        self.children.insert(node, child);
        Ok(())
    }

    /// Errors: the node can't start, and never will by itself.
    fn on_exit(&mut self, exit: Exited) -> Result<(), Failure> {
        let Some(child) = self.children.remove(&exit.node) else { return Ok(()) };
        let node = exit.node;
        if exit.status.as_ref().is_ok_and(|status| status.code() == Some(Code::Usage as i32)) {
            if child::was_removed(&exit.last_line) {
                say(&format!("node {node} is no member any more and stays down"));
                return Ok(());
            }
            return Err(Failure::usage(format!("node {node} can't start: {}", child::reason(&exit.last_line))));
        }
        let how = exit.status.map_or_else(|error| error, |status| status.to_string());
        say(&format!("node {node} died: pid {} {how}; starting it again", child.pid));
        let pause = if child.started.elapsed() < YOUNG { RESTART_PAUSE } else { Duration::ZERO };
        self.restarts.spawn(async move {
            tokio::time::sleep(pause).await;
            node
        });
        // More than a few questions at once would only slow the answer.
        if self.chores.len() < self.plan.nodes as usize {
            let (client, died) = (connect(&self.cluster)?, Instant::now());
            self.chores.spawn(async move {
                let (interruption, leader) = probe::up(client, died).await;
                Chore::Resumed { node, interruption, leader }
            });
        }
        Ok(())
    }

    fn ask_when_up(&mut self) -> Result<(), Failure> {
        let client = connect(&self.cluster)?;
        self.chores.spawn(async move { Chore::Up { leader: probe::up(client, Instant::now()).await.1 } });
        Ok(())
    }

    fn tell(&mut self, chore: Chore) -> Result<(), Failure> {
        match chore {
            // Another cluster that took the ports meanwhile, or a leader that was started again: ask once more.
            Chore::Up { leader } if !self.is_ours(leader) => self.ask_when_up()?,
            Chore::Up { leader } => {
                say(&format!("cluster is up: {}", leads(leader)));
                self.say_what_to_type(leader);
            }
            Chore::Resumed { node, interruption, leader } => {
                say(&format!("node {node} died and {}; {}", probe::describe(interruption), leads(leader)));
            }
        }
        Ok(())
    }

    fn is_ours(&self, leader: Leader) -> bool {
        self.children.get(&leader.node).is_some_and(|child| u64::from(child.pid) == leader.pid)
    }

    fn say_what_to_type(&self, leader: Leader) {
        let default = Plan::new(3, 7460).is_ok_and(|default| default == self.plan);
        let flag = if default { String::new() } else { format!(" --endpoints {}", self.plan.endpoints().join(",")) };
        let quorate = typed(&self.launch.program, std::env::var_os("PATH").as_deref());
        let scheme = if self.launch.certs.is_some() { "https" } else { "http" };
        say(&format!("the page, in a browser: {scheme}://{}/", self.plan.admin_address(1)));
        if let Some(certs) = &self.launch.certs {
            say(&format!("  it asks for the token in {}", certs.join("me.token").display()));
        }
        say("try, in another terminal:");
        if let Some(certs) = &self.launch.certs {
            say(&format!("  {}", cert::environment(certs)));
        }
        say(&format!("  echo hello | {quorate} session put greeting{flag}"));
        say(&format!("  {quorate} session get greeting -o json{flag}"));
        say(&format!("  {quorate} status{flag}"));
        say(&format!("  kill -9 {}    # the leader: another takes over, nothing acknowledged is lost", leader.pid));
        say(&format!("Ctrl-C stops it; the data stays in {}", self.launch.data_dir.display()));
    }

    /// Stops every child in good order, and kills what has not ended after [`STOP_TIMEOUT`] or at a second signal.
    async fn stop_all(&mut self, signals: &mut Signals) {
        self.chores.abort_all();
        self.restarts.abort_all();
        if self.children.is_empty() {
            return;
        }
        say("stopping");
        self.children.values_mut().for_each(Child::stop);
        let in_time = tokio::select! {
            all = tokio::time::timeout(STOP_TIMEOUT, self.wait_for_all()) => all.is_ok(),
            () = signals.recv() => false,
        };
        if !in_time {
            for (node, child) in &mut self.children {
                say(&format!("node {node} has not stopped yet: killing it, pid {}", child.pid));
                child.kill();
            }
            self.wait_for_all().await;
        }
        say("stopped");
    }

    async fn wait_for_all(&mut self) {
        while !self.children.is_empty() {
            let Some(exit) = self.exited.recv().await else { return };
            self.children.remove(&exit.node);
        }
    }
}

fn leads(leader: Leader) -> String {
    format!("node {} leads, pid {}", leader.node, leader.pid)
}

/// How a shell finds this program, wherever it stands: by its name if that is the one that `path` leads to.
fn typed(program: &Path, path: Option<&OsStr>) -> String {
    let found = path.and_then(|path| std::env::split_paths(path).map(|dir| dir.join("quorate")).find(|file| file.is_file()));
    let is_found = found.is_some_and(|found| found.canonicalize().ok() == program.canonicalize().ok());
    let place = program.display().to_string();
    match place {
        _ if is_found => "quorate".to_owned(),
        plain if plain.chars().all(|c| c.is_alphanumeric() || "/._-+".contains(c)) => plain,
        other => format!("'{}'", other.replace('\'', "'\\''")),
    }
}

/// Prints a line of the command itself on stdout, in one piece. A closed stdout must not stop the cluster.
fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_type_works_where_the_program_is_not_on_the_path_and_with_spaces_in_its_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("quorate");
        std::fs::write(&program, "").expect("a writable directory");
        assert_eq!(typed(&program, Some(dir.path().as_os_str())), "quorate");
        assert_eq!(typed(Path::new("/opt/a/quorate"), Some(dir.path().as_os_str())), "/opt/a/quorate", "another is found first");
        assert_eq!(typed(Path::new("/opt/it's a/quorate"), None), "'/opt/it'\\''s a/quorate'");
    }
}
