//! What can be asked for.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use quorate::testing::load::{Pace, Plan};

use crate::stores::Kind;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "peers", about = "Runs the same load on quorate and its peers, in alternation, and checks the bars of quorate")]
pub struct Arguments {
    /// What to measure
    pub scenario: Scenario,
    /// Stores, in the order of each round; bars are ratios to etcd
    #[arg(long, value_delimiter = ',', default_values_t = [Kind::Quorate, Kind::Etcd, Kind::Postgres, Kind::Redis], value_enum)]
    pub stores: Vec<Kind>,
    /// Only with so many callers at once; as the scenario says, if not given
    #[arg(long, value_delimiter = ',')]
    pub callers: Vec<usize>,
    /// How often each store is measured
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Length of each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub seconds: f64,
    /// Load before each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub warm_up: f64,
    /// For development: windows of 2 s after 0.5 s, idle times of 2 s, a tenth of the sessions
    #[arg(long)]
    pub quick: bool,
    /// Where stores keep their data while they run: a real disk
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers"))]
    pub dir: PathBuf,
    /// How to print the result
    #[arg(short = 'o', long, default_value = "table")]
    pub output: Output,
    /// agents: kill the leader with -9 so often, and start it again before the next
    #[arg(long, default_value_t = 3)]
    pub kills: u64,
    /// agents: time between two kills
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub kill_every: f64,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// W1: saves of 1 KiB by 1, 64, 256 callers
    Saves,
    /// W3: linearizable loads of 1 KiB by 1, 64, 256 callers
    Loads,
    /// W4: agents' turns, 64 at once
    Turns,
    /// W5: saves of 512 KiB by 8 callers, of text and of noise
    Large,
    /// Memory, each store alone, some time after saves and after turns
    Memory,
    /// W7: time to the first read after a restart
    Restart,
    /// Stock Bob agents on hot sessions of quorate, also while leaders are killed: nothing lost, nothing doubled
    Agents,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Arguments {
    /// The load of one run; the same for all stores of a round.
    pub fn plan(&self, callers: usize, round: usize) -> Plan {
        let (warm_up, window) = if self.quick { (0.5, 2.0) } else { (self.warm_up, self.seconds) };
        let (warm_up, window) = (Duration::from_secs_f64(warm_up), Duration::from_secs_f64(window));
        Plan { callers, warm_up, window, at_least: 0, pace: Pace::Closed, seed: round as u64 + 1 }
    }

    /// How long a store is left alone before its memory is read.
    pub fn idle(&self) -> Duration {
        Duration::from_secs(if self.quick { 2 } else { 10 })
    }

    /// How often each store is measured.
    pub fn rounds(&self) -> usize {
        self.rounds.max(1)
    }
}
