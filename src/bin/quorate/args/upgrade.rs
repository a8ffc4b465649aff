//! `quorate upgrade`.

use clap::{Args, Subcommand};

use super::Ask;

/// `quorate upgrade`.
#[derive(Debug, Subcommand)]
pub enum Upgrade {
    /// Show what each node reads and holds, and what keeps the cluster version from rising. Works without a quorum
    Status(UpgradeStatus),
    /// Raise the cluster version by one, although nodes hold it. There is no way back
    #[command(after_help = FINISH_HELP)]
    Finish(UpgradeFinish),
}

const FINISH_HELP: &str = "Every member must read the next version: otherwise nothing changes, and the nodes to upgrade first are named. Afterwards releases that do not read \
it are refused; the way back is a backup from before. A `cluster_version_max` that stays in a cluster.toml has no effect on a version that is in force. \
Without that key in any file the leader raises the version by itself, and there is nothing to finish.";

/// `quorate upgrade status`.
#[derive(Debug, Args)]
pub struct UpgradeStatus {
    #[command(flatten)]
    pub ask: Ask,
}

/// `quorate upgrade finish`.
#[derive(Debug, Args)]
pub struct UpgradeFinish {
    #[command(flatten)]
    pub ask: Ask,
}
