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
use std::pin::Pin;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    end_at_a_panic();
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
    // In a box: else each place where the runtime polls it has all commands compiled into it.
    let ended: Pin<Box<dyn Future<Output = Result<(), Failure>>>> = Box::pin(async {
        match command {
            Command::Bench(args) => commands::bench::run(args).await,
            Command::Dev(args) => commands::dev::run(args).await,
            Command::Serve(args) => commands::serve::run(args).await,
            Command::Session(command) => commands::session::run(command).await,
            Command::Lease(command) => commands::lease::run(command).await,
            Command::Snapshot(command) => commands::snapshot::run(command).await,
            Command::Member(command) => commands::member::run(command).await,
            Command::Leader(command) => commands::member::lead(command).await,
            Command::Upgrade(command) => commands::upgrade::run(command).await,
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
    });
    runtime.block_on(ended)
}

/// A panic ends the process, however it was built: one that ended a task of Raft alone would leave a node that takes writes and answers none.
fn end_at_a_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
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
