//! Peers side by side: the same load on quorate, etcd, PostgreSQL and Redis, each as its users would run it, on this machine's disk.
//!
//! `scripts/bench/*.sh` build this and run one scenario each; `--help` says the rest. Stores take turns within each round, since figures
//! drift by a third over minutes; ratios are within a round. Everything is removed at the end, also on ctrl-C; what a killed run left
//! is cleaned, and reported, by the next.

mod agents;
mod arguments;
mod figures;
mod measure;
mod report;
mod run_dir;
mod scenario;
mod servers;
mod stores;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use arguments::{Arguments, Output, Scenario};
use run_dir::RunDir;

/// Whatever ends a run.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Exit codes: 0 every bar reached; 1 one missed, or calls failed; 2 it could not be measured; 130 interrupted.
#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = match RunDir::new(&arguments.dir) {
        Ok(run) => Arc::new(run),
        Err(error) => return failed(&error),
    };
    // The stores are started, and dropped, within this future, on this thread: see `servers`.
    tokio::select! {
        ended = measured(&arguments, &run) => ended.unwrap_or_else(|error| failed(&error)),
        () = interrupted() => {
            eprintln!("interrupted; stores ended, {} cleaned", arguments.dir.display());
            ExitCode::from(130)
        }
    }
}

fn failed(error: &Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(2)
}

async fn interrupted() {
    let [mut interrupt, mut terminate, mut hang_up] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(|kind| signal(kind).expect("signals can be listened to"));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
}

async fn measured(arguments: &Arguments, run: &Arc<RunDir>) -> Result<ExitCode, Error> {
    if arguments.scenario == Scenario::Agents {
        return agents::run(arguments, run).await;
    }
    let report = scenario::run(arguments, run).await?;
    match arguments.output {
        Output::Table => print!("{}", report.text()),
        Output::Json => println!("{}", report.json()),
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
