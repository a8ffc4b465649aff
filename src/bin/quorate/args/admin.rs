//! One node's admin port: `quorate health`, `quorate admin`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Ask, Credentials, Output};

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
    /// Show who fills the table of clients, and end clients
    #[command(subcommand)]
    Clients(Clients),
    /// Take what was deleted off the disks of all nodes, one after the other: out of their logs, and out of free pages
    #[command(after_help = PURGE_HELP)]
    Purge(Purge),
}

/// `quorate admin clients`.
#[derive(Debug, Subcommand)]
pub enum Clients {
    /// Show how many clients and recorded outcomes each token has, as the leader knows
    #[command(visible_alias = "list")]
    Ls(ClientsLs),
    /// End clients, so that others find room in the table
    #[command(after_help = DROP_HELP)]
    Drop(ClientsDrop),
}

const DROP_HELP: &str = "A client that is ended and still runs opens another one at its next call, if its token has room for it. What it had under way may end as \
`Indeterminate`: it can't know any more whether it happened. Something must say which clients are meant; look first, with the same flags, \
at what `quorate admin clients ls` shows. A tenant that fills the table again is stopped by a smaller share (`quorate help shares`), or by \
`quorate token revoke`.";

/// Which clients.
#[derive(Debug, Args)]
pub struct Which {
    /// Only those of this token
    #[arg(long, value_name = "NAME", conflicts_with = "unknown")]
    pub of: Option<String>,
    /// Only those of which the leader does not know whose they are: they have not called since it leads
    #[arg(long)]
    pub unknown: bool,
    /// Only those that have not called for so long
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub idle: Option<Duration>,
    /// Only this one; may be given several times
    #[arg(long = "client", value_name = "ID")]
    pub clients: Vec<u64>,
}

/// `quorate admin clients ls`.
#[derive(Debug, Args)]
pub struct ClientsLs {
    #[command(flatten)]
    pub which: Which,
    /// Show so many of the clients too, those with the most outcomes first
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub limit: u32,
    #[command(flatten)]
    pub ask: Ask,
}

/// `quorate admin clients drop`.
#[derive(Debug, Args)]
pub struct ClientsDrop {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub ask: Ask,
}

const PURGE_HELP: &str = "Deleted and replaced content stays in a node's log for storage.log_kept_for at most, and in free pages of its state until \
they are used again. This command erases both at once, up to the entry that each node prints. The leader is the last, and hands over first. \
Each node needs as much room as its sessions, and about the time of a backup; a node that was away needs a snapshot afterwards. Stored \
sessions are not touched: after an error run it again. Backups, and snapshots of disks, are not reached.";

/// `quorate admin purge`.
#[derive(Debug, Args)]
pub struct Purge {
    /// Only this node
    #[arg(long, value_name = "ID")]
    pub node: Option<u64>,
    #[command(flatten)]
    pub ask: Ask,
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
