//! `quorate recover`.

use std::path::PathBuf;

use clap::Args;

use super::{Credentials, NewCluster, Output};

/// The end of `--help`.
pub const HELP: &str = "For the day on which the disks of a majority are gone for good. As long as they may come back, wait for them: a cluster without a \
majority loses nothing. `session export --stale` reads what is left meanwhile.

The survivor must be stopped; of several take the one whose `offline inspect` shows the greatest last_log. Without --accept-loss \
this only says what would be kept and what may be lost. With it, new data directories are written; the survivor's is never changed. \
Sessions, versions, create_revisions, tombstones and expiry are kept, clients are not: the new cluster has a new id, and its \
revisions begin far above the old ones. Then start each node with `quorate serve`, without --bootstrap, and never again one of the \
old directories.

One node on this machine: give a cluster.toml with that one [[node]], then grow it by `quorate member add`.";

/// `quorate recover`.
#[derive(Debug, Args)]
pub struct Recover {
    /// The data directory of the node that is left, e.g. quorate-data/3
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// I know that acknowledged writes may be lost
    #[arg(long)]
    pub accept_loss: bool,
    #[command(flatten)]
    pub new: NewCluster,
    #[command(flatten)]
    pub credentials: Credentials,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}
