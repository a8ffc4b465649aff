//! `quorate bench`: load on a cluster, and what it cost.
//!
//! Without `--endpoints` it starts three processes, on loopback, with data on a real disk, and removes them at the end.

mod cleanup;
mod cluster;
mod deltas;
mod gaps;
mod gauge;
mod parts;
mod progress;
mod report;
mod work;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate::client::Client;
use quorate::testing::load::{Corpus, Driven, PREFIX, Plan, Progress, Rng, Work, drive};

use self::cluster::Cluster;
use self::gauge::Gauge;
use self::progress::Shown;
use self::report::{Report, Row};
use crate::args::{self, Workload};
use crate::commands::session::connect;
use crate::failure::Failure;
use crate::signals::Signals;

/// Calls that are open when a run is cut may take so long.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Workloads without any named.
const DEFAULT: [Workload; 3] = [Workload::Save, Workload::Load, Workload::Turn];
const RUNS: u32 = 3;
/// Least bytes of text values are cut from.
const CORPUS_BYTES: usize = 4 << 20;

/// Runs all that was asked for and prints it. A signal ends it, and the cluster with it. Errors: wrong usage; a cluster that does not
/// come up; a failed audit or a missed figure, after printing.
pub async fn run(args: args::Bench) -> Result<(), Failure> {
    if args.cleanup {
        return cleanup::run(&args).await;
    }
    let mut signals = Signals::install().map_err(|error| Failure::failed(format!("can't watch for signals: {error}")))?;
    let workloads = if args.workloads.is_empty() { DEFAULT.to_vec() } else { args.workloads.clone() };
    let owned = match args.endpoints.is_empty() {
        true => Some(Cluster::new(args.data_dir.as_deref())?),
        false => None,
    };
    if let Some(workload) = workloads.iter().find(|workload| owned.is_none() && workload.needs_processes()) {
        return Err(Failure::usage(format!(
            "`{}` kills or stops nodes: it needs its own cluster, without --endpoints",
            workload.name()
        )));
    }
    let stop = Stop::default();
    let mut bench = Bench { corpus: corpus(&args), args, owned, report: Report::default(), run: 0, stop: stop.clone() };
    let ended = {
        let mut measuring = std::pin::pin!(bench.measure(&workloads));
        tokio::select! {
            ended = &mut measuring => Some(ended),
            () = signals.recv() => {
                // The run that is under way ends with what it has; a second signal does not wait for that.
                if stop.stop() {
                    tokio::select! {
                        _ = tokio::time::timeout(STOP_PATIENCE, &mut measuring) => {}
                        () = signals.recv() => {}
                    }
                }
                None
            }
        }
    };
    let ended = ended.unwrap_or_else(|| Err(interrupted(&mut bench.report, &bench.args.endpoints)));
    if let Some(cluster) = bench.owned.take() {
        cluster.end().await;
    }
    if ended.is_ok() || !bench.report.is_empty() {
        bench.report.print(bench.args.output)?;
    }
    ended?;
    bench.report.verdict()
}

/// The failure of an interrupted measurement, with its results so far and the state of the cluster.
fn interrupted(report: &mut Report, endpoints: &[String]) -> Failure {
    report.drop_unmeasured();
    let measured = match report.is_empty() {
        true => "interrupted before anything was measured",
        false => "interrupted: the results until then are printed",
    };
    match endpoints {
        [] => Failure::failed(measured),
        endpoints => {
            let endpoints = endpoints.join(",");
            Failure::failed(format!(
                "{measured}; its sessions, {PREFIX}…, stay in the cluster: `quorate bench --cleanup --endpoints {endpoints}` removes them"
            ))
        }
    }
}

fn corpus(args: &args::Bench) -> Corpus {
    let bytes = CORPUS_BYTES.max(4 * args.value_size.map_or(0, |size| size.as_u64() as usize));
    if args.incompressible { Corpus::incompressible(args.seed, bytes) } else { Corpus::text(args.seed, bytes) }
}

/// The progress that a signal stops.
#[derive(Clone, Default)]
struct Stop(Arc<Mutex<(bool, Option<Progress>)>>);

impl Stop {
    /// Nothing is begun any more, and the run that is under way ends now. Whether there is one.
    fn stop(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        if let Some(progress) = &state.1 {
            progress.cut();
        }
        state.1.is_some()
    }

    /// This run is under way, or none.
    fn watches(&self, progress: Option<Progress>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = progress;
    }

    fn is_stopped(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A run of the command.
struct Bench {
    args: args::Bench,
    corpus: Corpus,
    /// `None`: the cluster of --endpoints.
    owned: Option<Cluster>,
    report: Report,
    /// Counts the uses of the cluster, so that their keys differ.
    run: u64,
    stop: Stop,
}

impl Bench {
    async fn measure(&mut self, workloads: &[Workload]) -> Result<(), Failure> {
        // Keys of an earlier command on the same cluster differ too.
        self.run = Rng::new(std::process::id().into()).fork(self.args.seed).below(1 << 40) << 8;
        for workload in workloads {
            if let Some(cluster) = &mut self.owned {
                // Each workload gets a new cluster, so that none measures what another left behind.
                cluster.renew().await?;
            }
            self.run += 1;
            match workload {
                Workload::Failover | Workload::HandOver | Workload::Stop => self.interrupt(*workload).await?,
                Workload::Rolling => self.rolling().await?,
                Workload::Restart => self.restart().await?,
                Workload::Deltas => self.deltas().await?,
                Workload::AgentSessions => self.agent_sessions().await?,
                micro => self.micro(*micro).await?,
            }
        }
        Ok(())
    }

    fn client(&self) -> Result<Client, Failure> {
        match &self.owned {
            Some(cluster) => cluster.client(),
            None => connect(&args::Cluster {
                endpoints: self.args.endpoints.clone(),
                timeout: None,
                credentials: self.args.credentials.clone(),
            }),
        }
    }

    /// The clients that so many callers share.
    fn clients(&self, callers: usize) -> Result<Vec<Client>, Failure> {
        (0..callers.min(self.args.clients)).map(|_| self.client()).collect()
    }

    async fn gauge(&self) -> Result<Gauge, Failure> {
        match &self.owned {
            Some(cluster) => Ok(Gauge { pids: cluster.pids(), admin: cluster.admin() }),
            None => Gauge::of(&self.client()?, &self.args).await,
        }
    }

    fn plan(&self, callers: usize) -> Plan {
        let pace = self.args.rate.map_or(quorate::testing::load::Pace::Closed, |rate| quorate::testing::load::Pace::Open { rate });
        let args::Bench { warm_up, seconds: window, at_least, seed, .. } = self.args;
        Plan { callers, warm_up, window, at_least, pace, seed }
    }

    /// Runs `work` as often as asked, and looks at the memory after.
    async fn repeat<W: Work>(&mut self, name: &str, callers: usize, work: Arc<W>) -> Result<(), Failure> {
        let gauge = self.gauge().await?;
        let runs = self.args.runs.unwrap_or(RUNS);
        // It is there from the first run on, for when somebody interrupts a later one.
        self.report.add(Row::new(name, callers, &self.args));
        for run in 1..=runs {
            let mut plan = self.plan(callers);
            plan.seed = plan.seed.wrapping_add(u64::from(run) << 32);
            // What is warm stays warm.
            plan.warm_up = if run == 1 { plan.warm_up } else { plan.warm_up.min(Duration::from_secs(1)) };
            let shown = Shown::start(format!("{name}, {callers} callers, run {run} of {runs}"), plan.warm_up + plan.window);
            let read = async || gauge.read().await;
            self.stop.watches(Some(shown.progress.clone()));
            let Driven { run, before, after } = drive(work.clone(), &plan, &shown.progress, read).await;
            self.stop.watches(None);
            if let Some(row) = self.report.last().filter(|_| !run.window.is_zero()) {
                row.measured(run, before, after);
            }
            if self.stop.is_stopped() {
                return Err(Failure::failed("interrupted"));
            }
        }
        if !self.args.settle.is_zero() {
            let _shown = Shown::start(format!("{name}: memory when it is quiet"), self.args.settle);
            tokio::time::sleep(self.args.settle).await;
            let memory_bytes = gauge.read().await.usage.map(|usage| usage.memory_bytes);
            if let Some(row) = self.report.last() {
                row.memory_bytes = memory_bytes;
            }
        }
        Ok(())
    }
}

/// Both, if both are known.
fn both<T>(before: Option<T>, after: Option<T>) -> Option<(T, T)> {
    Some((before?, after?))
}
