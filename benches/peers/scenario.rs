//! The scenarios that end in a table: which store is measured when, and what is checked.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate::env::directory_bytes;
use quorate::testing::load::{fill, key};

use crate::Error;
use crate::arguments::{Arguments, Scenario};
use crate::figures::{Cell, Figures, Measured, Metric, workload};
use crate::measure::{Corpora, KEYS, Workload, measure, settle, used};
use crate::report::Report;
use crate::run_dir::RunDir;
use crate::stores::{Kind, Store};

const MIB: f64 = 1024.0 * 1024.0;
/// Longest a store may take to its first answer after a restart.
const FIRST_READ: Duration = Duration::from_secs(60);

/// Runs what was asked for. Errors: a store could not be started, or ended.
pub async fn run(arguments: &Arguments, run: &Arc<RunDir>) -> Result<Report, Error> {
    let mut report = Report::default();
    let plan = arguments.plan(0, 0);
    if arguments.quick {
        report.method.push("QUICK: short windows, for development only; no figure for the record.".to_owned());
    }
    report.method.push(format!(
        "{} rounds, stores in turn within each; {:?} measured after {:?}. Medians, spread from lowest to highest; ratios within a round. \
         One machine, loopback, real disk, sync on. etcd: leader contacted directly, 4 connections, quota 8 GiB, its history kept. \
         PostgreSQL and Redis: a connection per caller, at most 64. Redis: appendfsync always. quorate: 1 client, its cache on: \
         loads ask for what is new.",
        arguments.rounds(),
        plan.window,
        plan.warm_up
    ));
    let large = [Workload::Large { compressible: true }, Workload::Large { compressible: false }];
    match arguments.scenario {
        Scenario::Saves => alternating(arguments, run, &[Workload::Saves], &[1, 64, 256], &mut report).await?,
        Scenario::Loads => alternating(arguments, run, &[Workload::Loads], &[1, 64, 256], &mut report).await?,
        Scenario::Turns => alternating(arguments, run, &[Workload::Turns], &[64], &mut report).await?,
        Scenario::Large => alternating(arguments, run, &large, &[8], &mut report).await?,
        Scenario::Memory => memory(arguments, run, &mut report).await?,
        Scenario::Restart => restart(arguments, run, &mut report).await?,
        Scenario::Agents => return Err("agents have a report of their own".into()),
    }
    Ok(report)
}

/// All stores run; one at a time is under load.
async fn alternating(
    arguments: &Arguments,
    run: &Arc<RunDir>,
    workloads: &[Workload],
    callers: &[usize],
    report: &mut Report,
) -> Result<(), Error> {
    let corpora = Corpora::new();
    let mut stores = Vec::new();
    for &kind in &arguments.stores {
        let store = Store::start(kind, run).await?;
        if workloads.contains(&Workload::Loads) || workloads.contains(&Workload::Saves) {
            fill(&[Arc::new(store.client(64).await?)], KEYS, 1024, corpora.text(), 1).await?;
        }
        report.versions.push((kind, store.version().await?));
        stores.push(store);
    }
    let asked = if arguments.callers.is_empty() { callers } else { &arguments.callers };
    for &workload in workloads {
        for &callers in asked {
            let cell = Cell { workload: workload.name(), callers };
            report.cells.push(cell);
            for round in 0..arguments.rounds() {
                for store in &mut stores {
                    let plan = arguments.plan(callers, round);
                    let figures = measure(store, workload, &plan, &corpora, &mut report.failures).await?;
                    record(report, cell, round, store.kind(), figures);
                }
            }
        }
    }
    Ok(())
}

/// Adds a run, and says so to the waiters.
fn record(report: &mut Report, cell: Cell, round: usize, kind: Kind, figures: Figures) {
    let figures_text: Vec<String> =
        figures.iter().map(|(metric, value)| format!("{} {}", metric.text(*value), metric.name())).collect();
    eprintln!("round {} {} x{} {:<8} {}", round + 1, cell.workload, cell.callers, kind.name(), figures_text.join(", "));
    report.runs.push(Measured { cell, round, kind, figures });
}

/// Each store alone, new, after load and rest.
async fn memory(arguments: &Arguments, run: &Arc<RunDir>, report: &mut Report) -> Result<(), Error> {
    let corpora = Corpora::new();
    report.method.push(format!("Memory: of a store that was new before the load, {:?} after it ended.", arguments.idle()));
    for (load, name) in [(Workload::Saves, workload::MEMORY_SAVES), (Workload::Turns, workload::MEMORY_TURNS)] {
        let cell = Cell { workload: name, callers: 64 };
        report.cells.push(cell);
        for round in 0..arguments.rounds() {
            for &kind in &arguments.stores {
                let mut store = Store::start(kind, run).await?;
                if report.versions.iter().all(|(known, _)| *known != kind) {
                    report.versions.push((kind, store.version().await?));
                }
                let plan = arguments.plan(cell.callers, round);
                let under_load = measure(&mut store, load, &plan, &corpora, &mut report.failures).await?;
                tokio::time::sleep(arguments.idle()).await;
                store.servers().check()?;
                let mib = used(&mut store).memory_bytes as f64 / MIB;
                let mut figures = Figures::from([(Metric::MemoryMib, mib)]);
                // How much was done decides how much there is to remember.
                figures.extend(under_load.get_key_value(&Metric::Rate));
                record(report, cell, round, kind, figures);
            }
        }
    }
    Ok(())
}

/// Each store alone: filled once, stopped in good order and started again every round.
async fn restart(arguments: &Arguments, run: &Arc<RunDir>, report: &mut Report) -> Result<(), Error> {
    let keys = if arguments.quick { 10_000 } else { 100_000 };
    let cell = Cell { workload: workload::RESTART, callers: 0 };
    report.cells.push(cell);
    report
        .method
        .push(format!("Restart: {keys} keys; all processes started together, files in the page cache, any node may answer."));
    let corpora = Corpora::new();
    for &kind in &arguments.stores {
        let mut store = Store::start(kind, run).await?;
        report.versions.push((kind, store.version().await?));
        fill(&[Arc::new(store.client(64).await?)], keys, 4096, corpora.text(), 1).await?;
        for round in 0..arguments.rounds() {
            store.servers().stop().await?;
            settle().await;
            read_all(store.servers().dir())?;
            let bytes = directory_bytes(store.servers().dir())?;
            let started = store.servers().start_all()?;
            let found = first_read(&mut store, started, &key(keys - 1)).await?;
            let ms = started.elapsed().as_secs_f64() * 1000.0;
            if found.is_none_or(|value| value.len() != 4096) {
                report.failures.push(format!("{}: the last key filled was lost", kind.name()));
            }
            let memory = used(&mut store).memory_bytes as f64 / MIB;
            let figures = [(Metric::FirstReadMs, ms), (Metric::MemoryMib, memory), (Metric::DiskMib, bytes as f64 / MIB)];
            record(report, cell, round, kind, Figures::from(figures));
        }
    }
    Ok(())
}

/// Asks again and again, through new connections, until there is an answer.
async fn first_read(store: &mut Store, started: Instant, key: &str) -> Result<Option<Bytes>, Error> {
    loop {
        store.servers().check()?;
        let answer = tokio::time::timeout(Duration::from_millis(250), store.first_load(key)).await;
        match answer {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) if started.elapsed() > FIRST_READ => return Err(error),
            Err(late) if started.elapsed() > FIRST_READ => return Err(late.into()),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Reads all files below, so that the kernel has them in memory.
fn read_all(dir: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path)?;
        } else {
            std::io::copy(&mut std::fs::File::open(path)?, &mut std::io::sink())?;
        }
    }
    Ok(())
}
