//! Looking at a cluster: `quorate status`, `quorate events`, `quorate doctor`.

use std::time::Duration;

use clap::Args;

use super::{Cluster, Output};

/// `quorate status`.
#[derive(Debug, Args)]
#[command(after_help = STATUS_HELP)]
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

const STATUS_HELP: &str = "Columns: TERM the leader's number, higher after each election; LAST LOG the newest entry in the node's log, COMMITTED the newest known to \
be on a majority, APPLIED the newest that its answers show: a node is behind by the difference to the leader's; DIGEST@INDEX a checksum of all \
data at that entry: compare nodes at the same index only, or use --digest-at; SESSIONS how many there are; LOG and STATE the size of its log \
and of its state file; CLIENTS AT where clients reach it.

With --watch: LAG entries it is behind, writes and reads of clients per second, SYNC the mean fsync of its log since the last look, DISK FREE, and \
checks that fail.

Exit codes: 0 at least one node answered, whatever it said; 4 none did. `quorate doctor` judges what it finds by its exit code.";

/// `quorate events`.
#[derive(Debug, Args)]
#[command(after_help = "Each node of --endpoints that answers is shown; it keeps its last 1 000 events in its data directory.

Events: started, stopped, failed (why it stopped by itself), leader, membership, disk (low, or room again), disk_hung and disk_answers, refused, \
damaged, diverged, rebuild, credentials (certificates and tokens that were reloaded or can't be used).")]
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
and files of credentials that can't be used, states that differ, damage and rebuilds of late, releases, configurations, how far nodes are behind. Exit code 0: no problems found; 1: some; 4: no node \
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
