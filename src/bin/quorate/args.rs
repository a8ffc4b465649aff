//! The command line: what can be typed, with the help that explains it. Nothing here acts.

mod admin;
mod help;
mod lease;
mod member;
mod observe;
mod offline;
mod recover;
mod security;
mod session;
mod snapshot;
mod upgrade;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use quorate::limits::SESSION_ITEMS_MAX;

pub use admin::{Admin, AdminPort, Clients, ClientsDrop, ClientsLs, Health, LogLevel, Purge, Which};
pub use help::Help;
pub use lease::{Lease, LeaseLs, LeaseRelease, LeaseShow};
pub use member::{Add, Addresses, Leader, List as MemberList, Member, Replace};
pub use observe::{Doctor, Events, Status};
pub use offline::{Export as OfflineExport, Look, Offline};
pub use recover::Recover;
pub use security::{Cert, CertDev, Credentials, NodeCredentials, Token, TokenLs, TokenNew, TokenRevoke, TokenTest};
pub use session::Id;
pub use snapshot::{NewCluster, Restore, Save, Snapshot};
pub use upgrade::{Upgrade, UpgradeFinish, UpgradeStatus};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "quorate", version = env!("QUORATE_VERSION"), about, long_about = LONG_ABOUT, after_help = AFTER_HELP)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

const LONG_ABOUT: &str = "A distributed, replicated session store for AI agents, on Raft.

`quorate dev` starts a whole cluster on this machine and says what to type next. For machines of your own write one cluster.toml \
and run `quorate serve` on each. When something is wrong: `quorate doctor`, and `quorate help troubleshooting`.";

const AFTER_HELP: &str = "Exit codes: 0 done; 1 failed; 2 wrong usage, configuration or data directory; 3 conflict: the stored version is not the expected \
one, nothing changed; 4 unavailable: no node answered, or there is no leader (the message says whether anything changed); 5 there is no such session; \
130 interrupted (the message says what was done).

Environment: QUORATE_ENDPOINTS for --endpoints, QUORATE_CONFIG for --config, QUORATE_CA, QUORATE_CERT, QUORATE_KEY and \
QUORATE_TOKEN_FILE for the flags of these names, QUORATE_ADMIN for --admin, QUORATE_TOKEN for a token itself, QUORATE_LOG for what is \
logged, e.g. `debug` or `info,openraft=warn`, QUORATE_LOG_FORMAT for --log-format, NO_COLOR for a log without colours. A flag goes before the environment, the environment before the file.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster on this machine: one process per node, restarted when it dies
    Dev(Dev),
    /// Run one node of the cluster that cluster.toml describes
    Serve(Serve),
    /// Store, read, delete and list sessions
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Session(Session),
    /// Show who has the turn of which session, and end a lease
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Lease(Lease),
    /// Back a cluster up, look into a backup, make a new cluster of one
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Snapshot(Snapshot),
    /// Show and change who belongs to the cluster
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Member(Member),
    /// Hand the leadership over
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Leader(Leader),
    /// Show how far an upgrade is, and finish one that is held open
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Upgrade(Upgrade),
    /// Put load on a cluster, and tell how fast it was and what it cost
    Bench(Bench),
    /// Look into the files of a node that does not run, without changing them
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Offline(Offline),
    /// Make a new cluster of what one node still has, after a majority was lost for good
    #[command(after_help = recover::HELP)]
    Recover(Recover),
    /// Say by the exit code whether one node is ready, or alive: for probes and cron
    Health(Health),
    /// Change what a node logs while it runs; show and end the clients of a cluster
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Admin(Admin),
    /// Show what each node remembers of its past: leaders, members, disk, refusals, starts. Works without a quorum
    Events(Events),
    /// Show every node: its role, how far it is, what it holds. Works without a quorum
    Status(Status),
    /// Look for what is wrong or soon will be, and say how to fix each. Works without a quorum
    Doctor(Doctor),
    /// Make certificates to try things out
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Cert(Cert),
    /// Make tokens, show, test and revoke them
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Token(Token),
    /// Print the script that completes this command line in a shell
    Completions(Completions),
    /// Explain a command, or what the operations guide says about a topic: `quorate help topics`, `quorate help disk full`
    Help(Help),
}

/// `quorate dev`.
#[derive(Debug, Args)]
pub struct Dev {
    /// How many nodes: 3 or 5
    #[arg(long, default_value = "3", value_parser = ["3", "5"])]
    pub nodes: String,
    /// Where the data lies; it survives a restart of this command
    #[arg(long, value_name = "DIR", default_value = "quorate-data")]
    pub data_dir: PathBuf,
    /// With certificates and a token, made once and kept in DIR/certs; what clients need to show is printed. For trials only
    #[arg(long)]
    pub secure: bool,
    /// Node N listens on this port + 10 * (N - 1) for clients, on the next for its peers, on the one after for HTTP
    #[arg(long, value_name = "PORT", default_value_t = 7460)]
    pub base_port: u16,
}

/// `quorate serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "SIGTERM and SIGINT hand the leadership over, flush, and exit 0. SIGHUP reads certificates and tokens again, which happens within \
seconds without it too. A restart needs no flag. `quorate admin log-level` changes what is logged while it runs."
)]
pub struct Serve {
    /// The file that describes the cluster, the same on every host
    #[arg(long, value_name = "FILE", env = "QUORATE_CONFIG", default_value = "cluster.toml")]
    pub config: PathBuf,
    /// Which [[node]] of it this is
    #[arg(long, value_name = "ID")]
    pub node: u64,
    /// Keep the data in DIR/ID instead of below the file's `data_dir`
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Form a new cluster once every member has answered; does nothing to one that has data
    #[arg(long)]
    pub bootstrap: bool,
    /// Start without data and wait until `member add` or `member replace` takes the node into a cluster; does nothing to one that has data
    #[arg(long, conflicts_with = "bootstrap")]
    pub join: bool,
    /// Allow addresses other machines can reach without [tls]: traffic is neither encrypted nor authenticated
    #[arg(long)]
    pub insecure: bool,
    #[command(flatten)]
    pub credentials: NodeCredentials,
    /// How to write the log on stderr
    #[arg(long, value_name = "FORMAT", env = "QUORATE_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Check the configuration and the node's place in it, say so, and exit
    #[arg(long, conflicts_with = "print_config")]
    pub check_config: bool,
    /// Print the configuration with every default spelled out, and exit
    #[arg(long)]
    pub print_config: bool,
    /// Stop when stdin ends: it is a pipe that the parent holds
    #[arg(long, hide = true)]
    pub parent_pipe: bool,
    /// Take little of the disk at once: the nodes of a trial share one
    #[arg(long, hide = true)]
    pub small: bool,
    /// Let every long interval pass in seconds, but not the life of tombstones: on all nodes of a trial, on none with data that matters
    #[arg(long, hide = true)]
    pub short_intervals: bool,
    /// Write a line for every entry that the node applies, index, client, sequence and whether the client was unknown, to a file
    #[arg(long, hide = true, value_name = "FILE")]
    pub applied_to: Option<PathBuf>,
    /// Know the cluster version that only tests know: this process stands for the next release
    #[arg(long, hide = true)]
    pub test_version: bool,
    /// Reach the peer port of member ID at another address: a proxy that a test put between
    #[arg(long, hide = true, value_name = "ID=HOST:PORT", value_parser = peer_via)]
    pub peer_via: Vec<(u64, String)>,
}

/// How a node writes its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line for people, coloured on a terminal unless NO_COLOR is set
    #[default]
    Text,
    /// One JSON object a line: timestamp, level, message, target, and the fields
    Json,
}

/// `quorate completions`.
#[derive(Debug, Args)]
#[command(after_help = "bash: quorate completions bash > /etc/bash_completion.d/quorate\n\
zsh:  quorate completions zsh > \"${fpath[1]}/_quorate\"\n\
fish: quorate completions fish > ~/.config/fish/completions/quorate.fish")]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `quorate session`.
#[derive(Debug, Subcommand)]
pub enum Session {
    /// Store a session, whatever is there now
    #[command(visible_aliases = ["save", "set"], after_help = CONTENT_HELP)]
    Put(Put),
    /// Store a session only if its version is the expected one
    #[command(after_help = CONTENT_HELP)]
    Cas(Cas),
    /// Print sessions, as they are by the newest acknowledged write
    #[command(after_help = GET_HELP)]
    Get(Get),
    /// Delete sessions: one, several, or all of a prefix
    #[command(visible_aliases = ["delete", "del"], after_help = RM_HELP)]
    Rm(Rm),
    /// Delete the sessions of a prefix that nobody has written for long
    #[command(after_help = PRUNE_HELP)]
    Prune(Prune),
    /// List sessions in order of their ids, or the one written last first
    #[command(visible_alias = "list", after_help = LS_HELP)]
    Ls(Ls),
    /// Print which sessions change, one line for each, until it is stopped
    #[command(after_help = WATCH_HELP)]
    Watch(Watch),
    /// Store what a session holds, or its first messages, as a new session
    #[command(after_help = COPY_HELP)]
    Copy(Copy),
    /// Write sessions as JSON, one per line
    #[command(after_help = EXPORT_HELP)]
    Export(Export),
    /// Store sessions that `export` wrote, or all of a directory of Bob's FileSessionStore
    #[command(after_help = IMPORT_HELP)]
    Import(Import),
}

const CONTENT_HELP: &str = "A JSON object with a `messages` array is stored as a transcript, of which later saves by an agent send only \
what is new: each message, and all else in it, is kept as the text it is, without white space around it. Anything else is stored byte \
for byte.

Limits: a session 64 MiB, and 16 MiB as it is stored, compressed (text becomes 4 to 5 times smaller); 100000 messages; an id 1024 bytes.

Exit codes: 0 saved; 2 wrong usage; 3 conflict: the version is another one, nothing changed; 4 unavailable; 1 anything else. Each message \
says whether anything changed.";

const GET_HELP: &str =
    "Exit code 5: there is no such session; `-o json` prints {\"found\":false,..}.

Several sessions are read together, as they all were at one instant, which each line names by its revision. Together they may have 16 MiB as stored \
and 8192 chunks; above that, and where a node is of a release that can't read several together, the command says so and prints nothing: get \
them one by one, or use `session export`.

--last, --from and --head read little of a large session: the messages that are printed, in whole chunks, and no others. Messages are numbered \
from 0, the oldest; `-o json` says by first_item where the printed ones begin, and by items how many there are. A plain value is printed whole.

Exit codes: 0 printed; 2 wrong usage; 4 unavailable; 5 there is no such session, or not all of several; 1 anything else.";

const COPY_HELP: &str = "A copy is made only where there is no session TO; from then on the two have nothing to do with each other. One load and \
one save: the content travels twice. Counters begin at 0 unless --with-counters is given.

Exit codes: 0 copied; 2 wrong usage; 3 conflict: there is a session TO, nothing changed; 4 unavailable; 5 there is no session FROM; 1 anything \
else.";

const RM_HELP: &str = "A missing session is no failure: `nothing to delete`, exit code 0. With --expect, a version that is not the stored one \
is a conflict, exit code 3, and nothing is deleted.

--prefix deletes the sessions that exist while it runs, 64 at once. Interrupted, the command says how many were deleted; typing it again is safe.

A session that is leased is refused, exit code 1, and nothing is deleted: `quorate lease show ID` says who has its turn. --steal deletes one session all \
the same: its holder, if it still runs, is refused from then on and loses the work of its turn.

Exit codes: 0 deleted, or not there; 2 wrong usage; 3 conflict: the version is another one, nothing deleted; 4 unavailable; 1 anything else; \
130 interrupted.";

const PRUNE_HELP: &str = "A session is idle if its last write (UPDATED of `session ls`) is so long ago by the cluster's own time, as it was in the view that the session \
was listed from. The clock of this machine is not asked. Reads are no writes, and neither is a moved deadline. The cluster's time stands still while \
nobody writes: then too little is deleted, never too much.

Each session is deleted only if it still is the one that was listed, by its creation and its version: one that was written meanwhile is kept, and \
counted as `changed`. See first what would go: --dry-run. Interrupted, the command says how many were deleted; typing it again is safe.

Exit codes: 0 done; 2 wrong usage; 4 unavailable; 1 anything else, e.g. a node of a release that does not say the cluster's time; 130 interrupted.";

const LS_HELP: &str = "`-o ids` is for other programs; an id with a line end in it takes two lines there, and `-o json` escapes it.

Exit codes: 0 listed; 2 wrong usage; 4 unavailable; 1 anything else.";

const WATCH_HELP: &str = "Each session's newest state comes once, however often it changed meanwhile; content is not printed. The watch continues on other nodes \
by itself. `-o json` prints one object a line, and after each frame one with `from`: pass that to --from to continue later where it ended.

Exit codes: 2 wrong usage; 1 the token may not see these sessions, or anything else.";

const EXPORT_HELP: &str =
    "Exit codes: 0 written; 2 wrong usage, or the file is there already; 4 unavailable; 1 anything else; 130 interrupted.";

const IMPORT_HELP: &str = "PATH is a file that `session export` or `offline export` wrote, `-` for stdin, or a directory with one JSON file per session, \
named by the id in hex digits. Up to 64 sessions are saved at once. Records that can't be read are reported on stderr and skipped, and the \
exit code is 1. Versions start again at 1; a session whose time has passed since the export is skipped. Interrupted, the command says how many \
were imported. A second import stores everything again, which is safe; with --if-absent it continues with the rest.

Exit codes: 0 imported; 2 wrong usage; 4 unavailable; 1 anything else, or something was skipped; 130 interrupted.";

/// `quorate session export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The sessions [default: all]
    #[arg(conflicts_with = "prefix", value_parser = session::id)]
    pub ids: Vec<String>,
    /// Only ids with this prefix
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// Where to write them; must not exist, and does not until all is written; `-` is stdout
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// Answer from whatever the asked node has, without a quorum; says how old that may be
    #[arg(long)]
    pub stale: bool,
    #[command(flatten)]
    pub cluster: Cluster,
}

/// `quorate session import`.
#[derive(Debug, Args)]
pub struct Import {
    /// A file or a directory; `-` is stdin
    pub path: PathBuf,
    /// Leave sessions alone that exist [default: store whatever is there now]
    #[arg(long)]
    pub if_absent: bool,
    #[command(flatten)]
    pub ask: Ask,
}

/// `quorate session put`.
#[derive(Debug, Args)]
pub struct Put {
    #[command(flatten)]
    pub id: Id,
    #[command(flatten)]
    pub content: ContentArgs,
    /// Expire it so long after this write, e.g. 30m, 12h, 7d; at most 10 years [default: keep what it has; a new one never expires]
    #[arg(long, value_name = "DURATION", value_parser = session::ttl)]
    pub ttl: Option<Duration>,
    #[command(flatten)]
    pub ask: Ask,
}

/// `quorate session cas`.
#[derive(Debug, Args)]
pub struct Cas {
    #[command(flatten)]
    pub id: Id,
    /// The version it must have; 0: it must not exist
    #[arg(long, value_name = "VERSION", allow_negative_numbers = true, value_parser = session::version)]
    pub expect: u64,
    #[command(flatten)]
    pub content: ContentArgs,
    /// Expire it so long after this write, e.g. 30m, 12h, 7d; at most 10 years [default: keep what it has; a new one never expires]
    #[arg(long, value_name = "DURATION", value_parser = session::ttl)]
    pub ttl: Option<Duration>,
    #[command(flatten)]
    pub ask: Ask,
}

/// `quorate session get`.
#[derive(Debug, Args)]
pub struct Get {
    /// The sessions, 64 at most; `-` reads one id from stdin. Several need `-o json`
    #[arg(value_parser = session::id, value_name = "ID", required_unless_present = "named")]
    pub ids: Vec<String>,
    /// The session, for an id that is empty or begins with `-`
    #[arg(long = "id", value_name = "ID")]
    pub named: Option<String>,
    /// raw: the content alone, a plain value byte for byte; json: with its version and revisions, one line for each session
    #[arg(short, long, value_enum, default_value_t)]
    pub output: GetOutput,
    #[command(flatten)]
    pub part: session::Part,
    /// Print to a terminal also what it would obey: control characters, bytes that are no text
    #[arg(long)]
    pub raw: bool,
    /// Answer from whatever the asked node has, without a quorum; says on stderr how old that may be
    #[arg(long)]
    pub stale: bool,
    #[command(flatten)]
    pub cluster: Cluster,
}

/// `quorate session copy`.
#[derive(Debug, Args)]
pub struct Copy {
    /// The session to copy
    #[arg(value_parser = session::id)]
    pub from: String,
    /// The session to create
    #[arg(value_parser = session::id)]
    pub to: String,
    /// Only the first so many messages; 0: all but the messages
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(0..=SESSION_ITEMS_MAX))]
    pub first: Option<u64>,
    /// Let the counters go on from where they are
    #[arg(long)]
    pub with_counters: bool,
    /// Expire the copy so long after this write, e.g. 30m, 12h, 7d; at most 10 years [default: never]
    #[arg(long, value_name = "DURATION", value_parser = session::ttl)]
    pub ttl: Option<Duration>,
    #[command(flatten)]
    pub cluster: Cluster,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `quorate session prune`.
#[derive(Debug, Args)]
pub struct Prune {
    /// Only sessions with this prefix
    #[arg(long)]
    pub prefix: String,
    /// Those that nobody has written for so long, e.g. 12h, 30d; at most 10 years
    #[arg(long, value_name = "DURATION", value_parser = session::ttl)]
    pub idle_for: Duration,
    /// Delete nothing: print the ids that would be deleted
    #[arg(long)]
    pub dry_run: bool,
    /// At most so many in a second
    #[arg(long, value_name = "COUNT", value_parser = session::rate, default_value_t = 200)]
    pub rate: u32,
    #[command(flatten)]
    pub cluster: Cluster,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `quorate session rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// The sessions; `-` reads one id from stdin
    #[arg(value_parser = session::id, value_name = "ID", required_unless_present_any = ["named", "prefix"])]
    pub ids: Vec<String>,
    /// The session, for an id that is empty or begins with `-`
    #[arg(long = "id", value_name = "ID")]
    pub named: Option<String>,
    /// All sessions with this prefix
    #[arg(long, conflicts_with_all = ["ids", "named", "expect"])]
    pub prefix: Option<String>,
    /// Delete nothing: print the ids that would be deleted
    #[arg(long, conflicts_with = "expect")]
    pub dry_run: bool,
    /// At most so many in a second, of several [default: no limit]
    #[arg(long, value_name = "COUNT", value_parser = session::rate)]
    pub rate: Option<u32>,
    /// Delete it only if it has this version
    #[arg(long, value_name = "VERSION", allow_negative_numbers = true, value_parser = session::version)]
    pub expect: Option<u64>,
    /// Delete it also while another has its turn: takes the lease, deletes under it, and gives it back
    #[arg(long, conflicts_with_all = ["prefix", "dry_run"])]
    pub steal: bool,
    #[command(flatten)]
    pub ask: Ask,
}

/// `quorate session ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Only ids with this prefix
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// Only those that come after this id
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
    /// The one written last first; reaches back 65536 changes, and says on stderr where that ends
    #[arg(long, conflicts_with = "after")]
    pub recent: bool,
    /// At most so many [default: all]
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u64>,
    /// Print how many there are, and nothing else
    #[arg(long)]
    pub count: bool,
    /// Answer from whatever the asked node has, without a quorum; says on stderr how old that may be
    #[arg(long)]
    pub stale: bool,
    #[command(flatten)]
    pub cluster: Cluster,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    pub output: LsOutput,
}

/// `quorate session watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// Sessions whose ids begin so
    #[arg(long, conflicts_with = "ids", required_unless_present = "ids")]
    pub prefix: Option<String>,
    /// These sessions, at most 64
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Print those that are there first
    #[arg(long, conflicts_with = "from")]
    pub initial: bool,
    /// Continue after this place, as `-o json` prints it
    #[arg(long, value_name = "CLUSTER:REVISION")]
    pub from: Option<String>,
    #[command(flatten)]
    pub cluster: Cluster,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Where content comes from.
#[derive(Debug, Args)]
pub struct ContentArgs {
    /// The content; `-` is stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// Arguments of other stores' commands; refused, with the place to name them.
    #[arg(hide = true, value_name = "CONTENT")]
    pub typed: Vec<String>,
}

/// `quorate bench`.
#[derive(Debug, Args)]
#[command(after_help = BENCH_HELP)]
pub struct Bench {
    /// The measurements, in this order [default: save load turn]
    #[arg(value_enum, value_name = "WORKLOAD", hide_possible_values = true)]
    pub workloads: Vec<Workload>,
    /// Calls at once; several numbers make several measurements [default: by workload]
    #[arg(long, value_name = "COUNT,...", value_delimiter = ',', value_parser = callers)]
    pub callers: Vec<usize>,
    /// Clients that the callers share, each with a connection: no more than there are callers
    #[arg(long, value_name = "COUNT", value_parser = callers, default_value = "4")]
    pub clients: usize,
    /// How long each run is measured, e.g. 10, 500ms
    #[arg(long, value_name = "DURATION", value_parser = window, default_value = "10s")]
    pub seconds: Duration,
    /// Measure longer, if need be, until so many calls have ended, for machines of unknown speed; not with --rate
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true, conflicts_with = "rate")]
    pub at_least: u64,
    /// How long the load runs before it is measured; later runs on the same data warm up for 1s at most
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "2s")]
    pub warm_up: Duration,
    /// Runs, of which the median is shown with the lowest and the highest [default: 3; of `failover`, `hand-over` and `stop`: 5]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: Option<u32>,
    /// Open loop: calls are due at random moments, so many per second on average, and latency counts from then, also while callers are
    /// busy. Without it each caller calls again as soon as it has its answer
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub rate: Option<f64>,
    /// How many keys [default: 10000; by workload]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub keys: Option<u64>,
    /// Size of values, e.g. 1KiB, 512KiB [default: 1KiB; by workload]
    #[arg(long, value_name = "SIZE", value_parser = value_size)]
    pub value_size: Option<bytesize::ByteSize>,
    /// Values that no compression makes smaller; else they compress like text, 4 to 5 times
    #[arg(long)]
    pub incompressible: bool,
    /// Of everything that is random
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// How long to wait after the load before memory is looked at; 0s: don't
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "10s")]
    pub settle: Duration,
    /// Measure this cluster, and leave the data in it, as sessions bench/… (see --cleanup); without it, three processes started for the purpose
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// With --endpoints: measure nothing, and remove the sessions that earlier measurements left there, all that begin with bench/
    #[arg(long, requires = "endpoints", conflicts_with = "workloads")]
    pub cleanup: bool,
    /// With --endpoints: processes whose processor time, memory and disk are counted [default: the nodes, if all are on this machine]
    #[arg(long, value_name = "PID,...", value_delimiter = ',', requires = "endpoints")]
    pub pids: Vec<u32>,
    /// With --endpoints: the nodes' HTTP addresses, where bytes on wires and in logs are counted; not by TLS
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', requires = "endpoints", conflicts_with = "ca")]
    pub admin: Vec<String>,
    #[command(flatten)]
    pub credentials: Credentials,
    /// Without --endpoints: make the cluster's directory in this one; it must be on a disk [default: the one for temporary files]
    #[arg(long, value_name = "DIR", conflicts_with = "endpoints")]
    pub data_dir: Option<PathBuf>,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

const BENCH_HELP: &str = "Workloads (each on a new cluster, unless --endpoints names one):
  save (w1)         unconditional saves of 1 KiB to 10000 keys, by 1, 16, 64, 256 callers
  update (w2)       load, then save if the version still is the same, again after a conflict; 64 callers
  update-hot        the same on 8 keys
  cas               saves if the version is the expected one, without loads
  load (w3)         linearizable loads of 1 KiB, by 1, 64, 256 callers; a client that has the newest version gets no content
  turn (w4)         agents' turns by Bob's port: load, then save_if_version of a transcript from 8 KiB, +2 KiB per turn, to 200 KiB
  save-large (w5)   saves of 512 KiB, 8 callers
  failover (w6)     16 writers while the leader is killed with -9, 5 times, 5 s apart: the longest time without a write
  hand-over, stop   the same while the leader hands over as by `quorate leader transfer`, or is stopped as by SIGTERM
  rolling           16 writers while all nodes are stopped and started again, one after the other: failures and latencies
  restart (w7)      everything stopped and started with 100000 keys of 4 KiB: time to the first read, memory, disk
  agent-sessions    a population of agents: sizes, turns, races and resets as seen in practice; ends with an audit of every turn
  deltas            what growing sessions cost, each figure checked against its limit

Columns, medians of all runs: OPS/S operations that succeeded; latencies; CPU/OP processor time of all nodes; MEMORY resident of all \
nodes, when quiet again; bytes per operation: DISK/OP as the kernel counts them, LOG/OP written to all logs, PEERS/OP between nodes, \
CLIENTS/OP to and from clients; DELTAS share of saves that sent only what was new. `-` is not known.

Exit code 1 also if an audit finds a turn lost or doubled, or a figure misses its limit. Figures of one run on one machine: compare \
within a run only, and leave the machine alone meanwhile.

A token for --endpoints needs the scopes read and write, and admin for the nodes' processes to be counted.";

/// A measurement of `quorate bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Unconditional saves
    #[value(alias = "w1")]
    Save,
    /// Load, then save if unchanged
    #[value(alias = "w2")]
    Update,
    /// Update on few keys
    #[value(alias = "w2hot")]
    UpdateHot,
    /// Conditional saves alone
    #[value(alias = "w2cas")]
    Cas,
    /// Linearizable loads
    #[value(alias = "w3")]
    Load,
    /// Agents' turns
    #[value(alias = "w4")]
    Turn,
    /// Saves of large values
    #[value(alias = "w5")]
    SaveLarge,
    /// A leader that is killed
    #[value(alias = "w6")]
    Failover,
    /// A leader that hands over
    HandOver,
    /// A leader that is stopped in good order
    Stop,
    /// All nodes restarted in good order, one after the other
    Rolling,
    /// Everything restarted
    #[value(alias = "w7")]
    Restart,
    /// A population of agents
    AgentSessions,
    /// Growing sessions
    Deltas,
}

/// How to reach the cluster.
#[derive(Clone, Debug, Args)]
pub struct Cluster {
    /// Client addresses of some nodes; any of them will do
    #[arg(
        long,
        value_name = "HOST:PORT,...",
        env = "QUORATE_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:7460,127.0.0.1:7470,127.0.0.1:7480",
        help_heading = "Connection"
    )]
    pub endpoints: Vec<String>,
    /// Give up after so long, e.g. 500ms, 10s [default: 15s to write, 5s to read]
    #[arg(long, value_name = "DURATION", value_parser = timeout, help_heading = "Connection")]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub credentials: Credentials,
}

/// A question to the cluster.
#[derive(Debug, Args)]
pub struct Ask {
    #[command(flatten)]
    pub cluster: Cluster,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// One JSON object
    Json,
}

/// The output of `session ls`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LsOutput {
    /// For people
    #[default]
    Table,
    /// One JSON object
    Json,
    /// The ids alone, one a line
    Ids,
}

/// The output of `session get`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GetOutput {
    /// The content alone
    #[default]
    Raw,
    /// One JSON object
    Json,
}

/// The command of `session` that was typed without that word.
pub fn meant(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let is_first = std::env::args().nth(1).as_ref() == Some(typed);
    let is_known = Session::augment_subcommands(clap::Command::new("session")).find_subcommand(typed).is_some();
    (error.kind() == ErrorKind::InvalidSubcommand && is_first && is_known).then(|| typed.clone())
}

fn callers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(callers @ 1..=4096) => Ok(callers),
        _ => Err("must be a number from 1 to 4096".to_owned()),
    }
}

fn window(text: &str) -> Result<Duration, String> {
    // The flag says what a bare number means.
    let seconds = text.parse().map(Duration::from_secs);
    let duration = seconds.or_else(|_| humantime::parse_duration(text)).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("must be above 0s".to_owned()) } else { Ok(duration) }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("must be a number from 0.001 to 10000000".to_owned()),
    }
}

fn value_size(text: &str) -> Result<bytesize::ByteSize, String> {
    let size: bytesize::ByteSize = text.parse().map_err(|error| format!("is no size: {error}"))?;
    let limit = quorate::limits::WRITE_BYTES_MAX;
    if size.as_u64() == 0 || size.as_u64() > limit {
        return Err(format!("must be above 0 and at most {}", bytesize::ByteSize::b(limit)));
    }
    Ok(size)
}

fn peer_via(text: &str) -> Result<(u64, String), String> {
    let (id, address) = text.split_once('=').ok_or("must be ID=HOST:PORT")?;
    Ok((id.parse().map_err(|_| "ID must be a number")?, address.to_owned()))
}

fn timeout(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let limit = quorate::limits::WRITE_DEADLINE_MAX;
    if duration.is_zero() || duration > limit {
        return Err(format!("must be above 0s and at most {}", humantime::format_duration(limit)));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn aliases_mean_what_they_stand_for() {
        let parse = |words: &[&str]| Cli::try_parse_from(words).expect("valid").command;
        assert!(matches!(parse(&["quorate", "session", "save", "a"]), Command::Session(Session::Put(_))));
        assert!(matches!(parse(&["quorate", "session", "set", "a"]), Command::Session(Session::Put(_))));
        assert!(matches!(parse(&["quorate", "session", "delete", "a"]), Command::Session(Session::Rm(_))));
        assert!(matches!(parse(&["quorate", "session", "del", "a"]), Command::Session(Session::Rm(_))));
        assert!(matches!(parse(&["quorate", "session", "list"]), Command::Session(Session::Ls(_))));
    }
}
