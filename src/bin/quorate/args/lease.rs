//! The holders of turns: `quorate lease`.

use clap::{Args, Subcommand};

use super::{Ask, Cluster, Id, Output, session};

/// `quorate lease`.
#[derive(Debug, Subcommand)]
pub enum Lease {
    /// List the leases that live, in order of the sessions' ids
    #[command(visible_alias = "list", after_help = LS_HELP)]
    Ls(LeaseLs),
    /// Show who has the turn of one session, and for how long
    #[command(visible_alias = "get", after_help = SHOW_HELP)]
    Show(LeaseShow),
    /// End the lease of a session, any holder's
    #[command(after_help = RELEASE_HELP)]
    Release(LeaseRelease),
}

const LS_HELP: &str = "While a lease lives, the session is written by its holder alone; every other write is refused as leased, and loads are free. LEFT is \
the time until it ends by itself, by the cluster's own time: its holder renews it. The session need not exist. Names of holders are what they \
call themselves; nothing checks them.

Exit codes: 0 listed; 2 wrong usage; 4 unavailable; 1 anything else.";

const SHOW_HELP: &str = "`-o json` prints {\"found\":false,..} where nobody has it.

Exit codes: 0 shown; 2 wrong usage; 4 unavailable; 5 nobody has the turn of this session; 1 anything else.";

const RELEASE_HELP: &str = "For a holder that is gone and does not come back in time; by itself a lease ends when LEFT has passed, 10 minutes at most. Its holder, if \
it still runs, is refused from then on (`Fenced`) and loses the work of its turn; nothing that is stored changes. Without --fence the lease that \
lives now is ended; with --fence only that one, and no younger one. `quorate session rm --steal ID` deletes a session that is leased.

Exit codes: 0 released; 2 wrong usage; 4 unavailable; 5 nobody has the turn, or with --fence not under this number: nothing changed; 1 anything \
else.";

/// `quorate lease ls`.
#[derive(Debug, Args)]
pub struct LeaseLs {
    /// Only of sessions whose ids begin so
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// At most so many [default: all]
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u64>,
    /// Answer from whatever the asked node has, without a quorum; says on stderr how old that may be
    #[arg(long)]
    pub stale: bool,
    #[command(flatten)]
    pub cluster: Cluster,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `quorate lease show`.
#[derive(Debug, Args)]
pub struct LeaseShow {
    #[command(flatten)]
    pub id: Id,
    /// Answer from whatever the asked node has, without a quorum; says on stderr how old that may be
    #[arg(long)]
    pub stale: bool,
    #[command(flatten)]
    pub ask: Ask,
}

/// `quorate lease release`.
#[derive(Debug, Args)]
pub struct LeaseRelease {
    #[command(flatten)]
    pub id: Id,
    /// Only the lease with this number, as `lease show` prints it
    #[arg(long, value_name = "NUMBER", value_parser = session::fence)]
    pub fence: Option<u64>,
    #[command(flatten)]
    pub ask: Ask,
}
