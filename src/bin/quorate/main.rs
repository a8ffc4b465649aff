//! The `quorate` binary: reads the command line, runs one command, turns its end into an exit code.

mod args;
mod commands;
mod failure;
mod files;
mod logging;
mod output;
mod progress;
mod signals;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(mut error) => {
            let meant = args::meant(&error);
            if meant.is_some() {
                // What is merely spelled alike is not what was meant.
                error.remove(clap::error::ContextKind::SuggestedSubcommand);
            }
            // Help goes to stdout, whose reader may have gone; that is no failure.
            let _ = error.print();
            if let Some(command) = meant {
                let _ = writeln!(std::io::stderr(), "\n  tip: did you mean `quorate session {command}`?");
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::Code::Usage as u8));
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    logging::start(if let Command::Serve(args) = &command { Some(args.log_format) } else { None })?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let (Command::Serve(_), Some(workers)) = (&command, node_workers()) {
        runtime.worker_threads(workers);
    }
    let runtime = runtime.enable_all().build().map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::Bench(args) => commands::bench::run(args).await,
            Command::Dev(args) => commands::dev::run(args).await,
            Command::Serve(args) => commands::serve::run(args).await,
            Command::Session(command) => commands::session::run(command).await,
            Command::Snapshot(command) => commands::snapshot::run(command).await,
            Command::Member(command) => commands::member::run(command).await,
            Command::Leader(command) => commands::member::lead(command).await,
            Command::Offline(command) => commands::offline::run(&command),
            Command::Recover(args) => commands::recover::run(&args).await,
            Command::Events(args) => commands::events::run(args).await,
            Command::Health(args) => commands::admin::health(args).await,
            Command::Admin(command) => commands::admin::run(command).await,
            Command::Status(args) => commands::status::run(args).await,
            Command::Doctor(args) => commands::doctor::run(args).await,
            Command::Cert(args) => commands::cert::run(&args),
            Command::Token(args) => commands::token::run(args).await,
            Command::Completions(args) => commands::completions::run(&args),
            Command::Help(args) => commands::help::run(&args),
        }
    })
}

/// Async workers of a node: half of the processors, since its log, its flushes and its kernel's sync need the others. With more, every
/// message between two tasks wakes another processor. `None`: tokio decides, by `TOKIO_WORKER_THREADS` or as many as there are.
fn node_workers() -> Option<usize> {
    if std::env::var_os("TOKIO_WORKER_THREADS").is_some() {
        return None;
    }
    let processors = std::thread::available_parallelism().ok()?.get();
    Some((processors / 2).max(1))
}
