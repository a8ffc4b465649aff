//! One run of one workload on one store.

use std::sync::Arc;
use std::time::Duration;

use quorate::env::{ProcessUsage, loopback_bytes};
use quorate::testing::load::{Corpus, Driven, Loads, Plan, Progress, Saves, TurnLoop, Work, drive};

use crate::Error;
use crate::figures::{Figures, Metric, workload};
use crate::stores::{Kind, Store};

const MIB: f64 = 1024.0 * 1024.0;
const KIB: usize = 1024;
/// Keys of small values.
pub const KEYS: u64 = 10_000;
/// Keys of large ones.
const LARGE_KEYS: u64 = 100;

/// What is done on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// W1: 1 KiB.
    Saves,
    /// W3: 1 KiB, linearizable. The keys must be filled.
    Loads,
    /// W4: 8 KiB growing by 2 KiB to 200 KiB.
    Turns,
    /// W5: 512 KiB.
    Large {
        /// Of text, or of noise.
        compressible: bool,
    },
}

impl Workload {
    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Saves => workload::SAVES,
            Self::Loads => workload::LOADS,
            Self::Turns => workload::TURNS,
            Self::Large { compressible: true } => workload::LARGE_TEXT,
            Self::Large { compressible: false } => workload::LARGE_NOISE,
        }
    }
}

/// What values are made of.
pub struct Corpora {
    text: Corpus,
    noise: Corpus,
}

impl Corpora {
    /// Large enough that values rarely repeat.
    pub fn new() -> Self {
        Self { text: Corpus::text(1, 16 << 20), noise: Corpus::incompressible(2, 16 << 20) }
    }

    /// Text.
    pub fn text(&self) -> &Corpus {
        &self.text
    }
}

/// What the servers have used so far.
struct Used {
    usage: ProcessUsage,
    wire_bytes: u64,
}

/// Runs it; calls that failed are added to `failures`. Errors: the store can't be connected to, or has ended.
pub async fn measure(
    store: &mut Store,
    workload: Workload,
    plan: &Plan,
    corpora: &Corpora,
    failures: &mut Vec<String>,
) -> Result<Figures, Error> {
    settle().await;
    let client = store.client(plan.callers).await?;
    let corpus = if workload == (Workload::Large { compressible: false }) { &corpora.noise } else { &corpora.text };
    let saves = |keys, value_bytes| Saves { targets: vec![Arc::new(client.clone())], keys, value_bytes, corpus: corpus.clone() };
    let driven = match workload {
        Workload::Saves => run(store, saves(KEYS, KIB), plan).await,
        Workload::Loads => run(store, Loads { targets: vec![Arc::new(client)], keys: KEYS }, plan).await,
        Workload::Large { .. } => run(store, saves(LARGE_KEYS, 512 * KIB), plan).await,
        Workload::Turns => {
            let turns = TurnLoop {
                stores: vec![Arc::new(client.turns())],
                first_bytes: 8 * KIB,
                turn_bytes: 2 * KIB,
                session_bytes: 200 * KIB,
                corpus: corpus.clone(),
                run: plan.seed,
            };
            run(store, turns, plan).await
        }
    };
    store.servers().check()?;
    let Driven { run, before, after } = driven;
    if run.failures > 0 || run.operations == 0 {
        let why = run.first_failure.as_deref().unwrap_or("no operation ended");
        failures.push(format!("{}, {}, {} callers: {} x {why}", store.kind().name(), workload.name(), plan.callers, run.failures));
    }
    let per_op = |figure: f64| figure / run.operations.max(1) as f64;
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let less = |after: u64, before: u64| after.saturating_sub(before) as f64;
    Ok(Figures::from([
        (Metric::Rate, run.per_second()),
        (Metric::P50Ms, ms(run.quantile(0.5))),
        (Metric::P99Ms, ms(run.quantile(0.99))),
        (Metric::MaxMs, ms(run.max())),
        (Metric::CpuMsPerOp, per_op(ms(after.usage.cpu.saturating_sub(before.usage.cpu)))),
        (Metric::DiskBytesPerOp, per_op(less(after.usage.disk_bytes, before.usage.disk_bytes))),
        (Metric::WireBytesPerOp, per_op(less(after.wire_bytes, before.wire_bytes))),
        (Metric::MemoryMib, after.usage.memory_bytes as f64 / MIB),
    ]))
}

async fn run<W: Work>(store: &mut Store, work: W, plan: &Plan) -> Driven<Used> {
    let gauge = async || Used { usage: used(store), wire_bytes: loopback_bytes().unwrap_or(0) };
    drive(Arc::new(work), plan, &Progress::default(), gauge).await
}

/// What all processes of a store have used. One that ends between being listed and being read counts as nothing: PostgreSQL's helpers
/// come and go.
pub fn used(store: &mut Store) -> ProcessUsage {
    let pids = store.servers().pids();
    let mut sum = ProcessUsage::default();
    for one in pids.iter().filter_map(|pid| ProcessUsage::of(*pid).ok()) {
        sum.cpu += one.cpu;
        sum.memory_bytes += one.memory_bytes;
        sum.disk_bytes += one.disk_bytes;
    }
    if store.kind() == Kind::Postgres {
        // Its processes share their buffers: each page is counted by its share.
        sum.memory_bytes = pids.iter().filter_map(|pid| proportional_bytes(*pid)).sum();
    }
    sum
}

fn proportional_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse::<u64>().ok()?;
    Some(kib * 1024)
}

/// Writes out what the store before left to the kernel to write, so that it does not slow down this one.
pub async fn settle() {
    tokio::task::spawn_blocking(rustix::fs::sync).await.expect("a sync does not panic");
}
