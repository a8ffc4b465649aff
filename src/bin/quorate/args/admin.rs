//! One node's admin port: `quorate health`, `quorate admin`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Credentials, Output};

/// How to reach the admin port of one node.
#[derive(Clone, Debug, Args)]
pub struct AdminPort {
    /// The admin address of the node
    #[arg(long, value_name = "HOST:PORT", env = "QUORATE_ADMIN", default_value = "127.0.0.1:7462", help_heading = "Connection")]
    pub admin: String,
    /// Give up after so long
    #[arg(long, value_name = "DURATION", value_parser = super::timeout, default_value = "2s", help_heading = "Connection")]
    pub timeout: Duration,
    #[command(flatten)]
    pub credentials: Credentials,
}

/// `quorate health`.
#[derive(Debug, Args)]
#[command(
    after_help = "For probes of containers and load balancers, and for cron. It asks one node, at its admin port, and needs no token.

Exit codes: 0 ready (with --live: alive); 1 it answers and is not (the checks that fail are printed); 2 wrong usage; 4 it does not answer."
)]
pub struct Health {
    /// Ready for traffic: it runs, is in a cluster, and knows a leader (the default)
    #[arg(long, conflicts_with = "live")]
    pub ready: bool,
    /// Alive: it has not had to stop serving for good. For what restarts a node; a cluster without a majority is no reason to
    #[arg(long)]
    pub live: bool,
    #[command(flatten)]
    pub port: AdminPort,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `quorate admin`.
#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Show or change what a node logs, until it is started again
    #[command(after_help = LOG_LEVEL_HELP)]
    LogLevel(LogLevel),
}

const LOG_LEVEL_HELP: &str = "LEVEL is error, warn, info, debug or trace for what quorate itself says, `default` for what the node was started with, or a whole \
filter as QUORATE_LOG takes it, e.g. `info,quorate::raft=debug,openraft=warn`. Without LEVEL the filter in force is printed. Of a node \
with tokens it needs one with the scope admin.";

/// `quorate admin log-level`.
#[derive(Debug, Args)]
pub struct LogLevel {
    /// A level, `default`, or a filter
    pub level: Option<String>,
    #[command(flatten)]
    pub port: AdminPort,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}
