//! The log of this process on stderr: its form, and changes of its level while it runs.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use quorate::server::{LogControl, set_log_control};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::args::LogFormat;
use crate::failure::Failure;

/// The level of a node by default. openraft's own errors matter, except those of calls that reach it while it stops.
const OF_A_NODE: &str = "info,openraft=error,openraft::raft::raft_inner=off";
/// The level of other commands.
const OF_A_COMMAND: &str = "error";
/// A bare level keeps these crates as quiet as they are by default.
const BELOW: &str = ",openraft=error,openraft::raft::raft_inner=off,h2=warn,hyper=warn,rustls=warn";

/// Logs what `QUORATE_LOG` asks for. Errors: it is no filter.
pub fn start(node: Option<LogFormat>) -> Result<(), Failure> {
    let wanted = std::env::var("QUORATE_LOG").unwrap_or_default();
    let default = if node.is_some() { OF_A_NODE } else { OF_A_COMMAND };
    let directives = if wanted.is_empty() { default } else { &wanted };
    let filter = EnvFilter::try_new(directives)
        .map_err(|error| Failure::usage(format!("QUORATE_LOG is no log filter: {error} QUORATE_LOG={directives:?}")))?;
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let colours = coloured(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref());
    // A line that can't be written is lost: saying so on the same stderr would panic, once its reader has gone.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    match node {
        Some(LogFormat::Json) => registry.with(lines.json().flatten_event(true)).init(),
        _ => registry.with(lines.with_ansi(colours)).init(),
    }
    if node.is_some() {
        set_log_control(Control { handle, started: directives.to_owned(), now: Mutex::new(directives.to_owned()) });
    }
    Ok(())
}

/// Whether a log for people has colours: on a terminal, unless NO_COLOR asks for none (no-color.org: set, and not empty).
fn coloured(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// The filter of this process.
struct Control {
    handle: reload::Handle<EnvFilter, Registry>,
    started: String,
    now: Mutex<String>,
}

impl LogControl for Control {
    fn filter(&self) -> String {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, wanted: &str) -> Result<String, String> {
        let directives = directives(wanted, &self.started);
        let filter =
            EnvFilter::try_new(&directives).map_err(|error| format!("this is no log filter: {error} filter={wanted:?}"))?;
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.reload(filter).map_err(|error| format!("the log can't be changed: {error}"))?;
        now.clone_from(&directives);
        Ok(directives)
    }
}

/// The filter that a level or a filter asks for.
fn directives(wanted: &str, started: &str) -> String {
    match wanted.trim() {
        "default" | "" => started.to_owned(),
        level if ["error", "warn", "info", "debug", "trace", "off"].contains(&level) => format!("{level}{BELOW}"),
        filter => filter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_and_not_for_those_who_want_none() {
        assert!(coloured(true, None) && coloured(true, Some(OsStr::new(""))));
        assert!(!coloured(true, Some(OsStr::new("1"))) && !coloured(false, None));
    }

    #[test]
    fn a_level_is_ours_alone_and_a_filter_is_taken_as_it_is() {
        assert_eq!(directives("default", "warn"), "warn");
        assert_eq!(directives(" debug\n", "warn"), format!("debug{BELOW}"));
        assert_eq!(directives("info,openraft=trace", "warn"), "info,openraft=trace");
        for level in ["error", "warn", "info", "debug", "trace", "off", "default"] {
            assert!(EnvFilter::try_new(directives(level, OF_A_NODE)).is_ok(), "{level}");
        }
    }
}
