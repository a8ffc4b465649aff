//! Looking at a cluster: `quorate status`, `quorate events`, `quorate doctor`.

use std::time::Duration;

use clap::Args;

use super::Ask;

/// `quorate status`.
#[derive(Debug, Args)]
#[command(after_help = STATUS_HELP)]
pub struct Status {
    /// Wait until the nodes have applied this index, and show their digests there: equal ones mean equal data
    #[arg(long, value_name = "INDEX")]
    pub digest_at: Option<u64>,
    /// Continue showing it, with what happens per second: in place on a terminal, else one table, or line of JSON, after the other
    #[arg(short, long, conflicts_with = "digest_at")]
    pub watch: bool,
    /// How often, with --watch
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "2s", requires = "watch")]
    pub interval: Duration,
    /// Stop after so many times, with --watch [default: on Ctrl-C]
    #[arg(long, value_name = "COUNT", requires = "watch")]
    pub count: Option<u64>,
    #[command(flatten)]
    pub ask: Ask,
}

const STATUS_HELP: &str = "Columns: TERM the leader's number, higher after each election; APPLIED the newest entry whose effects the node has; LAG how many entries it is behind the newest log that answers; LOG \
and STATE what its log and its state take on disk; CLIENTS AT where clients reach it; DIGEST (with --digest-at) stands for all its data \
after that entry. With --watch: WRITES/S and READS/S what it answered to clients, SYNC how long a sync of its log took, CHECKS those that fail, \
as `quorate doctor` explains them. -o json has more: committed, flushed, digest, checks, clock, disk, process id.

Exit codes: 0; 1 digests differ, or are not kept any more; 4 no node answers, or one is not at --digest-at in time.";

/// `quorate events`.
#[derive(Debug, Args)]
#[command(after_help = EVENTS_HELP)]
pub struct Events {
    #[command(flatten)]
    pub ask: Ask,
}

const EVENTS_HELP: &str = "Each node of --endpoints that answers is shown; it keeps its last 1 000 events in its data directory.

Kinds of events:
  started, stopped  the process of the node
  leader            another leader, or none
  membership        members that were added, removed, promoted or moved
  disk              room on the disk ran short, or is there again
  disk_hung         a sync of the log does not end; disk_answers: it did
  credentials       certificates or tokens were read again, or can't be used
  log               the log filter was changed
  refused           calls that were refused for load or disk, counted by minute
  damaged, rebuild  what was read is not what was written; the state is taken from the leader again
  diverged          a peer is in another state after the same entry
  failed            the node had to stop by itself";

/// `quorate doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Looked at: quorum and leader, nodes that do not answer, clocks, how long syncs take, room on the disks, certificates that end soon \
and files of credentials that can't be used, states that differ, damage and rebuilds of late, releases, configurations, how far nodes are behind. Exit code 0: no problems found, or notes only; 1: errors or warnings; 4: no node \
answered."
)]
pub struct Doctor {
    /// Tell of events so old at most
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "7d")]
    pub since: Duration,
    #[command(flatten)]
    pub ask: Ask,
}
