//! `quorate snapshot`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Ask, Output};

/// `quorate snapshot`.
#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Back the whole cluster up into one file, while it runs
    #[command(after_help = SAVE_HELP)]
    Save(Save),
    /// Verify a backup from its first byte to its last, and show what it holds
    #[command(
        after_help = "A damaged or cut-off file is refused with the record and the byte offset it is damaged at; exit code 1."
    )]
    Inspect(Inspect),
    /// Make the data directories of a new cluster out of a backup; of as many nodes as cluster.toml has
    #[command(after_help = RESTORE_HELP)]
    Restore(Restore),
}

const SAVE_HELP: &str = "The backup holds every write acknowledged before the command began, as of one revision, and comes from the first endpoint that \
answers: name a follower to spare the leader. It is written under a temporary name \
(FILE.0123456789abcdef.partial), readable by its owner alone, synced, verified as it lies on the disk, and only then named FILE. Without a quorum pass --stale: the backup then holds what that one node has.";

const RESTORE_HELP: &str = "Sessions, their versions and create_revisions, tombstones and expiry are kept; open clients of the old cluster are not, and must \
load again before they save. The new cluster has a new id. The backup is verified before anything is written, and a data \
directory that has something in it is refused. So is a backup whose time is more than a day ahead of this host's clock: the time that \
sessions expire by never goes back. With the clock right, --force restores it; sessions that should expire live until the clocks have caught up.

All nodes on this machine:   quorate snapshot restore FILE --config cluster.toml
Nodes on several machines:   quorate snapshot restore FILE --config cluster.toml --node 1
                             and on each of the others what that prints, with the same --cluster-id, before any node is started.
Then start every node with `quorate serve`, without --bootstrap. Never restore a node into a cluster that is running: replace it.";

/// `quorate snapshot save`.
#[derive(Debug, Args)]
pub struct Save {
    /// Where to write the backup; must not exist
    pub file: PathBuf,
    /// Do not ask a quorum how far the backup must reach: it holds whatever the asked node has
    #[arg(long)]
    pub stale: bool,
    #[command(flatten)]
    pub ask: Ask,
}

/// `quorate snapshot inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The backup
    pub file: PathBuf,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `quorate snapshot restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup
    pub file: PathBuf,
    #[command(flatten)]
    pub new: NewCluster,
    /// Restore also what says a time more than a day ahead of this host's clock
    #[arg(long)]
    pub force: bool,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// A cluster that is made of a backup, or of what one node has: its nodes, and where their data goes.
#[derive(Debug, Args)]
pub struct NewCluster {
    /// The file that describes the new cluster
    #[arg(long, value_name = "FILE", env = "QUORATE_CONFIG", default_value = "cluster.toml")]
    pub config: PathBuf,
    /// Only this node [default: every node of the file]
    #[arg(long, value_name = "ID")]
    pub node: Option<u64>,
    /// Put the data in DIR/ID instead of below the file's `data_dir`
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The new cluster's id, as the same command for its first node printed it [default: a new one]
    #[arg(long, value_name = "HEX")]
    pub cluster_id: Option<String>,
}
