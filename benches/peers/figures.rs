//! What is measured, what it is compared with, and whether a bar was reached. Pure.

use std::collections::BTreeMap;

use quorate::testing::load::Spread;

use super::stores::Kind;

/// Names of what is measured, for tables and for bars.
pub mod workload {
    /// W1.
    pub const SAVES: &str = "save 1 KiB";
    /// W3, linearizable.
    pub const LOADS: &str = "load 1 KiB";
    /// W4.
    pub const TURNS: &str = "agent turn";
    /// W5.
    pub const LARGE_TEXT: &str = "save 512 KiB of text";
    /// W5 of what can't be compressed.
    pub const LARGE_NOISE: &str = "save 512 KiB of noise";
    /// Of a new store, some time after W1.
    pub const MEMORY_SAVES: &str = "memory after saves";
    /// Of a new store, some time after W4.
    pub const MEMORY_TURNS: &str = "memory after turns";
    /// W7.
    pub const RESTART: &str = "restart, 100 000 x 4 KiB";
}

use workload::{LARGE_TEXT, LOADS, MEMORY_SAVES, MEMORY_TURNS, RESTART, SAVES, TURNS};

/// A figure. The order is that of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Operations per second.
    Rate,
    /// Median latency.
    P50Ms,
    /// 99 of 100 were faster.
    P99Ms,
    /// The slowest.
    MaxMs,
    /// Of all server processes together.
    CpuMsPerOp,
    /// What all server processes had written to disk, as the kernel counts it.
    DiskBytesPerOp,
    /// All that went over the loopback, clients' and peers' both.
    WireBytesPerOp,
    /// Resident, of all server processes; PostgreSQL's shared memory counted once.
    MemoryMib,
    /// From the start of the last process to the first answer.
    FirstReadMs,
    /// Of the files, all servers together.
    DiskMib,
}

impl Metric {
    /// As a column's head.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "ops/s",
            Self::P50Ms => "p50 ms",
            Self::P99Ms => "p99 ms",
            Self::MaxMs => "max ms",
            Self::CpuMsPerOp => "cpu-ms/op",
            Self::DiskBytesPerOp => "disk B/op",
            Self::WireBytesPerOp => "wire B/op",
            Self::MemoryMib => "memory MiB",
            Self::FirstReadMs => "first read ms",
            Self::DiskMib => "disk MiB",
        }
    }

    /// As a key of JSON.
    pub fn key(self) -> String {
        self.name().to_lowercase().replace([' ', '/', '-'], "_")
    }

    /// A value in so many digits as mean something.
    pub fn text(self, value: f64) -> String {
        match self {
            Self::CpuMsPerOp => format!("{value:.4}"),
            Self::P50Ms | Self::P99Ms | Self::MaxMs => format!("{value:.2}"),
            _ => format!("{value:.0}"),
        }
    }
}

/// What one run gave.
pub type Figures = BTreeMap<Metric, f64>;

/// What was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// The workload.
    pub workload: &'static str,
    /// Callers at once; 0 where there are none.
    pub callers: usize,
}

/// One run of one store.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What was run.
    pub cell: Cell,
    /// In which round, from 0. Ratios are within a round.
    pub round: usize,
    /// On what.
    pub kind: Kind,
    /// What it gave.
    pub figures: Figures,
}

/// How far a figure must get.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// At least.
    Least(f64),
    /// At most.
    Most(f64),
}

/// A bar of issue 3, for quorate.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// Where it is measured.
    pub cell: Cell,
    /// What is measured.
    pub metric: Metric,
    /// As a ratio to whom, in the same round; `None`: the figure itself.
    pub against: Option<Kind>,
    /// How far it must get.
    pub bound: Bound,
}

const fn bar(workload: &'static str, callers: usize, metric: Metric, against: Option<Kind>, bound: Bound) -> Bar {
    Bar { cell: Cell { workload, callers }, metric, against, bound }
}

/// All bars.
pub const BARS: &[Bar] = &[
    bar(SAVES, 1, Metric::P50Ms, Some(Kind::Etcd), Bound::Most(0.5)),
    bar(SAVES, 64, Metric::Rate, Some(Kind::Etcd), Bound::Least(5.0)),
    bar(SAVES, 64, Metric::CpuMsPerOp, Some(Kind::Etcd), Bound::Most(1.0 / 5.0)),
    bar(SAVES, 64, Metric::Rate, Some(Kind::Postgres), Bound::Least(1.0)),
    bar(SAVES, 256, Metric::Rate, Some(Kind::Etcd), Bound::Least(6.0)),
    bar(SAVES, 256, Metric::CpuMsPerOp, Some(Kind::Etcd), Bound::Most(1.0 / 8.0)),
    bar(LOADS, 64, Metric::Rate, Some(Kind::Etcd), Bound::Least(5.0)),
    bar(LOADS, 64, Metric::Rate, Some(Kind::Postgres), Bound::Least(1.0)),
    bar(LOADS, 256, Metric::Rate, Some(Kind::Etcd), Bound::Least(5.0)),
    bar(LOADS, 256, Metric::Rate, Some(Kind::Postgres), Bound::Least(1.0)),
    bar(TURNS, 64, Metric::Rate, Some(Kind::Etcd), Bound::Least(15.0)),
    bar(TURNS, 64, Metric::DiskBytesPerOp, Some(Kind::Etcd), Bound::Most(1.0 / 40.0)),
    bar(LARGE_TEXT, 8, Metric::Rate, Some(Kind::Etcd), Bound::Least(3.0)),
    bar(MEMORY_SAVES, 64, Metric::MemoryMib, Some(Kind::Etcd), Bound::Most(1.0 / 3.0)),
    bar(MEMORY_TURNS, 64, Metric::MemoryMib, Some(Kind::Etcd), Bound::Most(1.0 / 10.0)),
    bar(RESTART, 0, Metric::FirstReadMs, None, Bound::Most(500.0)),
];

/// How a bar was met.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Which bar.
    pub bar: Bar,
    /// What was measured; `None`: nothing.
    pub figure: Option<Spread>,
}

impl Verdict {
    /// Whether it was reached, by the median; what was not measured was not.
    pub fn is_reached(&self) -> bool {
        self.figure.is_some_and(|figure| match self.bar.bound {
            Bound::Least(least) => figure.median >= least,
            Bound::Most(most) => figure.median <= most,
        })
    }
}

/// The bars of the cells that were run.
pub fn verdicts(all: &[Measured], cells: &[Cell]) -> Vec<Verdict> {
    let asked = BARS.iter().filter(|bar| cells.contains(&bar.cell));
    asked.map(|&bar| Verdict { bar, figure: compared(all, bar.cell, Kind::Quorate, bar.metric, bar.against) }).collect()
}

/// A figure over all rounds, or its ratio to another store's of the same round. `None`: no round has it, or both.
pub fn compared(all: &[Measured], cell: Cell, kind: Kind, metric: Metric, against: Option<Kind>) -> Option<Spread> {
    let of = |round: usize, kind: Kind| {
        let run = all.iter().find(|run| run.cell == cell && run.round == round && run.kind == kind);
        run.and_then(|run| run.figures.get(&metric)).copied()
    };
    let rounds = 0..all.iter().map(|run| run.round + 1).max().unwrap_or(0);
    Spread::of(rounds.filter_map(|round| match against {
        None => of(round, kind),
        Some(other) => Some(of(round, kind)? / of(round, other).filter(|figure| *figure > 0.0)?),
    }))
}
