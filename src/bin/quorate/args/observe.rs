//! Looking at a cluster: `quorate status`, `quorate events`, `quorate doctor`.

use std::time::Duration;

use clap::Args;

use super::{Cluster, Output};

/// `quorate status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Wait until the nodes have applied this index, and show their digests there: equal ones mean equal data
    #[arg(long, value_name = "INDEX")]
    pub digest_at: Option<u64>,
    /// Go on showing it, with what happens per second: in place on a terminal, else one table, or line of JSON, after the other
    #[arg(short, long, conflicts_with = "digest_at")]
    pub watch: bool,
    /// How often, with --watch
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "2s", requires = "watch")]
    pub interval: Duration,
    /// Stop after so many times, with --watch [default: on Ctrl-C]
    #[arg(long, value_name = "COUNT", requires = "watch")]
    pub count: Option<u64>,
    #[command(flatten)]
    pub cluster: Cluster,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `quorate events`.
#[derive(Debug, Args)]
#[command(after_help = "Each node of --endpoints that answers is shown; it keeps its last 1 000 events in its data directory.")]
pub struct Events {
    #[command(flatten)]
    pub cluster: Cluster,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `quorate doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Looked at: quorum and leader, nodes that do not answer, clocks, how long syncs take, room on the disks, certificates that end soon \
and files of credentials that can't be used, states that differ, damage and rebuilds of late, releases, configurations, how far nodes are behind. Exit code 0: nothing to mend; 1: something is; 4: no node \
answered."
)]
pub struct Doctor {
    /// Tell of events so old at most
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "7d")]
    pub since: Duration,
    #[command(flatten)]
    pub cluster: Cluster,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}
