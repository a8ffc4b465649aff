//! W6 and W7: a leader that is killed or goes in good order, and a restart of everything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::client::Client;
use quorate::env::{ProcessUsage, directory_bytes};
use quorate::testing::load::{Saves, Spread, Values, drive, fill, gap, key};
use serde_json::json;
use tokio::task::JoinSet;

use super::report::{Row, millis, spread_json};
use super::work::{close, failed};
use super::{Bench, Cluster, Shown};
use crate::args::Workload;
use crate::failure::Failure;

/// Kills, hand-overs and stops ...
const TIMES: u32 = 5;
/// ... and how far apart they are at least.
const APART: Duration = Duration::from_secs(5);
/// Longest time without a write: median and worst.
const FAILOVER_MS: (f64, f64) = (250.0, 1000.0);
const HAND_OVER_MS: (f64, f64) = (50.0, 50.0);
/// Three nodes restart within this, at least so much is measured, and saves stay below.
const ROLLING_WINDOW: Duration = Duration::from_secs(20);
const ROLLING_P99_MS: f64 = 100.0;
const KEYS: u64 = 1000;
const RESTART_KEYS: u64 = 100_000;
const RESTART_VALUE_BYTES: usize = 4096;
/// A restarted cluster is asked so often; each question waits for itself.
const ASK_EVERY: Duration = Duration::from_millis(20);
const RESTART_TIMEOUT: Duration = Duration::from_secs(120);

impl Bench {
    fn cluster(&mut self) -> Result<&mut Cluster, Failure> {
        self.owned.as_mut().ok_or_else(|| Failure::usage("this workload needs its own cluster: leave out --endpoints"))
    }

    /// W6 and its kin: writers while the leader is killed with -9, hands over, or is stopped; it is restarted before the next time.
    pub(super) async fn interrupt(&mut self, workload: Workload) -> Result<(), Failure> {
        for callers in self.callers(workload) {
            let row = self.interruptions(workload, callers).await?;
            self.report.add(row);
        }
        Ok(())
    }

    async fn interruptions(&mut self, workload: Workload, callers: usize) -> Result<Row, Failure> {
        let name = workload.name();
        let times = self.args.runs.unwrap_or(TIMES);
        let clients = self.clients(callers)?;
        let targets: Vec<_> = clients.iter().cloned().map(|client| Arc::new(Values(client))).collect();
        let (mut gaps, mut ended_ms, mut calm) = (Vec::new(), Vec::new(), Vec::new());
        let (mut caught_up, mut writes, mut failures, mut first) = (Vec::new(), 0, 0, None);
        let operator = self.client()?;
        for time in 1..=times {
            let _shown = Shown::start(format!("{name}, {callers} writers, {time} of {times}"), Duration::ZERO);
            let next = tokio::time::sleep(APART);
            let leader = self.cluster()?.leader().await?;
            let corpus = self.corpus.clone();
            // What the disk and the machine do by themselves, for comparison.
            let nothing = gap(&targets, callers, KEYS, &corpus, async {}).await.map_err(|failure| failed(&failure))?;
            calm.push(millis(nothing.longest));
            let cluster = self.cluster()?;
            let mut ended = Ok(());
            let event = async {
                match workload {
                    Workload::HandOver => {
                        let handed = operator.transfer_leadership(None, Duration::from_secs(5)).await;
                        ended =
                            handed.map(drop).map_err(|error| Failure::failed(format!("the leader does not hand over: {error}")));
                    }
                    Workload::Stop => ended = cluster.stop(leader).await,
                    _ => cluster.kill(leader),
                }
            };
            let seen = gap(&targets, callers, KEYS, &corpus, event).await.map_err(|failure| failed(&failure))?;
            ended?;
            gaps.push(millis(seen.longest));
            ended_ms.push(millis(seen.ended));
            (writes, failures) = (writes + seen.writes, failures + seen.failures);
            first = first.or(seen.first_failure);
            let restarted = Instant::now();
            cluster.start_all()?;
            cluster.caught_up().await?;
            caught_up.push(millis(restarted.elapsed()));
            next.await;
        }
        close(clients.into_iter().chain([operator]).collect()).await;
        let mut row = Row::new(&name, callers, &self.args);
        let spread = Spread::of(gaps.clone());
        row.details.insert("gap_ms".into(), spread_json(spread));
        row.details.insert("gaps_ms".into(), json!(gaps));
        row.details.insert("gaps_ended_ms".into(), json!(ended_ms));
        let calm = Spread::of(calm);
        row.details.insert("calm_gap_ms".into(), spread_json(calm));
        row.details.insert("caught_up_ms".into(), spread_json(Spread::of(caught_up)));
        row.details.insert("writes".into(), json!(writes));
        row.details.insert("failures".into(), json!(failures));
        row.details.insert("first_failure".into(), json!(first));
        let text_of =
            |spread: Option<Spread>| spread.map_or_else(String::new, |s| format!("{:.0} ms ({:.0}-{:.0})", s.median, s.min, s.max));
        let (text, calm) = (text_of(spread), text_of(calm));
        row.say(format!(
            "{name}, {callers} writers, {times} times: longest time without a write {text}, when nothing happens {calm}, {failures} of {} writes failed",
            writes + failures
        ));
        let (median_max, worst_max) = if workload == Workload::Failover { FAILOVER_MS } else { HAND_OVER_MS };
        let kept = spread.is_some_and(|s| s.median <= median_max && s.max <= worst_max);
        row.check("time without a write", kept, format!("{text} (limit: median {median_max:.0} ms, worst {worst_max:.0} ms)"));
        row.check("no writer saw an error", failures == 0, format!("{failures} of {}", writes + failures));
        Ok(row)
    }

    /// Writers while every node is stopped in good order and started again, one after the other.
    pub(super) async fn rolling(&mut self) -> Result<(), Failure> {
        let name = Workload::Rolling.name();
        for callers in self.callers(Workload::Rolling) {
            let clients = self.clients(callers)?;
            let targets = clients.iter().cloned().map(|client| Arc::new(Values(client))).collect();
            let saves = Saves { targets, keys: KEYS, value_bytes: 1024, corpus: self.corpus.clone() };
            let mut row = Row::new(&name, callers, &self.args);
            let mut plan = self.plan(callers);
            plan.window = plan.window.max(ROLLING_WINDOW);
            let shown = Shown::start(format!("{name}, {callers} writers"), plan.warm_up + plan.window);
            let warm_up = plan.warm_up;
            let cluster = self.cluster()?;
            let restarts = async {
                tokio::time::sleep(warm_up).await;
                for node in 1..=3 {
                    cluster.stop(node).await?;
                    cluster.start_all()?;
                    cluster.caught_up().await?;
                }
                Ok::<_, Failure>(())
            };
            let (driven, restarted) = tokio::join!(drive(Arc::new(saves), &plan, &shown.progress, async || ()), restarts);
            restarted?;
            close(clients).await;
            let run = driven.run;
            let (p50, p99) = (millis(run.quantile(0.5)), millis(run.quantile(0.99)));
            row.details.insert("p50_ms".into(), json!(p50));
            row.details.insert("p99_ms".into(), json!(p99));
            row.details.insert("max_ms".into(), json!(millis(run.max())));
            row.details.insert("writes".into(), json!(run.operations));
            row.details.insert("failures".into(), json!(run.failures));
            row.details.insert("first_failure".into(), json!(run.first_failure));
            row.say(format!(
                "{name}, {callers} writers, all nodes restarted one by one: {} writes, {} failed, p50 {p50:.1} ms, p99 {p99:.1} ms, longest {:.0} ms",
                run.operations,
                run.failures,
                millis(run.max())
            ));
            row.check("99th percentile of saves", p99 <= ROLLING_P99_MS, format!("{p99:.1} ms (limit {ROLLING_P99_MS:.0} ms)"));
            row.check("no writer saw an error", run.failures == 0, format!("{} of {}", run.failures, run.operations));
            self.report.add(row);
        }
        Ok(())
    }

    /// W7: everything stopped and started again, with much in it.
    pub(super) async fn restart(&mut self) -> Result<(), Failure> {
        let name = Workload::Restart.name();
        let keys = self.args.keys.unwrap_or(RESTART_KEYS);
        let value_bytes = self.args.value_size.map_or(RESTART_VALUE_BYTES, |size| size.as_u64() as usize);
        let clients = self.clients(4)?;
        let targets = clients.iter().cloned().map(|client| Arc::new(Values(client))).collect();
        let filling = Saves { targets, keys, value_bytes, corpus: self.corpus.clone() };
        let shown = Shown::start(format!("{name}: filling {keys} keys of {value_bytes} bytes"), Duration::ZERO);
        fill(&filling.targets, keys, value_bytes, &filling.corpus, self.args.seed).await.map_err(|failure| failed(&failure))?;
        close(clients).await;
        drop(shown);
        let mut reads = Vec::new();
        for run in 1..=self.args.runs.unwrap_or(super::RUNS) {
            let _shown = Shown::start(format!("{name}, run {run}"), Duration::ZERO);
            let cluster = self.cluster()?;
            cluster.stop_all().await?;
            cluster.start_all()?;
            let started = Instant::now();
            let endpoints = cluster.endpoints();
            let asked = tokio::time::timeout(RESTART_TIMEOUT, first_read(&endpoints, keys, started));
            reads.push(millis(asked.await.map_err(|_| Failure::failed("no read succeeds after the restart"))??));
        }
        let settle = self.args.settle;
        tokio::time::sleep(settle).await;
        let cluster = self.cluster()?;
        let memory_bytes = ProcessUsage::of_all(cluster.pids()).ok().map(|usage| usage.memory_bytes);
        let disk_bytes = directory_bytes(&cluster.data()).ok();
        let mut row = Row::new(&name, 1, &self.args);
        let spread = Spread::of(reads);
        row.memory_bytes = memory_bytes;
        row.details.insert("first_read_ms".into(), spread_json(spread));
        row.details.insert("disk_bytes".into(), json!(disk_bytes));
        row.details.insert("keys".into(), json!(keys));
        row.details.insert("value_bytes".into(), json!(value_bytes));
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".into(), crate::output::size);
        row.say(format!(
            "{name}, {keys} keys of {value_bytes} bytes: first read {} after the last process was started, memory {}, disk {}",
            spread.map_or_else(String::new, |s| format!("{:.0} ms ({:.0}-{:.0})", s.median, s.min, s.max)),
            size(memory_bytes),
            size(disk_bytes)
        ));
        self.report.add(row);
        Ok(())
    }
}

/// How long after `since` the first linearizable read succeeds. A new client asks every [`ASK_EVERY`], so that the answer does not
/// depend on how one of them backs off.
async fn first_read(endpoints: &[String], keys: u64, since: Instant) -> Result<Duration, Failure> {
    let mut questions = JoinSet::new();
    let mut next = tokio::time::interval(ASK_EVERY);
    loop {
        tokio::select! {
            _ = next.tick() => {
                let builder = Client::builder().endpoints(endpoints).read_deadline(Duration::from_secs(2));
                let client = builder.build().map_err(Failure::usage)?;
                let id = key(questions.len() as u64 % keys);
                questions.spawn(async move { client.load(&id).await });
            }
            Some(Ok(answer)) = questions.join_next() => match answer {
                Ok(Some(_)) => return Ok(since.elapsed()),
                Ok(None) => return Err(Failure::failed("a session that was stored is not there after the restart")),
                Err(_) => {}
            },
        }
    }
}
