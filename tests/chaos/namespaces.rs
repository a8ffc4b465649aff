//! Namespaces of a run's own, where the system allows them: a network in which packets can be dropped, and processes and mounts that the
//! kernel ends together with the runner.
//!
//! ```text
//! runner outside ── waits, hands signals on ──> unshare ──> runner inside, process 1 ──> nodes, strace, mounts
//!       killed: the kernel kills unshare, then process 1, then all that is in its namespaces
//! ```

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::chaos::args::Options;
use crate::chaos::say;
use crate::chaos::world::{self, works};

/// Set to 1 in the environment of a run inside, to 0 to stay outside.
pub const OWN_NET: &str = "QUORATE_CHAOS_OWN_NET";

/// How often a signal is handed on: process 1 of a namespace does not hear one before it listens.
const AGAIN: Duration = Duration::from_millis(500);
/// A process that was asked to end does it within so long, or is killed.
const END_MAX: Duration = Duration::from_secs(30);

/// Cleans up behind ended runs, and goes on inside: this process then waits for the one inside, and ends with its exit status.
///
/// It comes back inside, and where there are no namespaces. Errors: the loopback device inside can't be used; nothing can be started.
pub fn enter(options: &Options) -> Result<(), String> {
    let inside = std::env::var(OWN_NET);
    if inside.as_deref() == Ok("1") {
        return works("ip", &["link", "set", "lo", "up"])
            .then_some(())
            .ok_or_else(|| "the loopback device can't be used".to_owned());
    }
    for line in world::clean(&options.dir).map_err(|error| error.to_string())? {
        say(&format!("found and cleaned: {line}"));
    }
    if inside.is_ok() {
        return Ok(());
    }
    let mut flags = vec!["--pdeathsig", "KILL", "unshare"];
    if !options.root {
        flags.extend(["--user", "--map-root-user"]);
    }
    flags.extend(["--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]);
    if !works("setpriv", &[&flags[..], &["ip", "link", "set", "lo", "up"]].concat()) {
        say("no namespaces here: the proxies will lose packets");
        return Ok(());
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new("setpriv");
    command.args(flags).arg(program).args(std::env::args_os().skip(1)).env(OWN_NET, "1");
    // A group of its own, for what is handed on.
    command.process_group(0).kill_on_drop(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let status = runtime.block_on(attend(command))?;
    std::process::exit(status.code().unwrap_or(3))
}

/// Starts it and waits for its end, handing on the signals that this process gets.
async fn attend(mut command: Command) -> Result<ExitStatus, String> {
    let failed = |error: std::io::Error| format!("the runner inside can't be started: {error}");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let mut inside = command.spawn().map_err(failed)?;
    let received = tokio::select! {
        status = inside.wait() => return status.map_err(failed),
        _ = interrupt.recv() => Signal::INT,
        _ = terminate.recv() => Signal::TERM,
        _ = hangup.recv() => Signal::TERM,
    };
    end(&mut inside, received).await.map_err(failed)
}

async fn end(inside: &mut Child, received: Signal) -> std::io::Result<ExitStatus> {
    let began = tokio::time::Instant::now();
    while began.elapsed() < END_MAX {
        if let Some(group) = inside.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process_group(group, received);
        }
        if let Ok(status) = tokio::time::timeout(AGAIN, inside.wait()).await {
            return status;
        }
    }
    inside.start_kill()?;
    inside.wait().await
}
