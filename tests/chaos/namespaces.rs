//! Namespaces of a run's own, where the system allows them: a network in which packets can be dropped, and processes and mounts that the
//! kernel ends together with the runner.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::args::Options;
use crate::say;
use crate::world::{self, works};

/// Set to 1 in the environment of a run inside, to 0 to stay outside.
pub const OWN_NET: &str = "QUORATE_CHAOS_OWN_NET";

/// Cleans up behind ended runs, and goes on inside: this process then is replaced by `unshare`, and does not come back from here.
///
/// It comes back inside, and where there are no namespaces. Errors: the loopback device inside can't be used.
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
    let mut flags = vec!["--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"];
    if !options.root {
        flags.splice(0..0, ["--user", "--map-root-user"]);
    }
    if !works("unshare", &[&flags[..], &["ip", "link", "set", "lo", "up"]].concat()) {
        say("no namespaces here: the proxies will lose packets");
        return Ok(());
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let error = Command::new("unshare").args(flags).arg(program).args(std::env::args_os().skip(1)).env(OWN_NET, "1").exec();
    Err(format!("unshare does not run: {error}"))
}
