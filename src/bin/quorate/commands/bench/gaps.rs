//! W6 and W7: a leader that is killed, and a restart of everything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::client::Client;
use quorate::env::{ProcessUsage, directory_bytes};
use quorate::testing::load::{Saves, Spread, Values, fill, gap, key};
use serde_json::json;
use tokio::task::JoinSet;

use super::report::{Row, millis, spread_json};
use super::work::{close, failed};
use super::{Bench, Cluster, Shown};
use crate::args::Workload;
use crate::failure::Failure;

const KILLS: u32 = 5;
const KEYS: u64 = 1000;
const RESTART_KEYS: u64 = 100_000;
const RESTART_VALUE_BYTES: usize = 4096;
/// A restarted cluster is asked so often; each question waits for itself.
const ASK_EVERY: Duration = Duration::from_millis(20);
const RESTART_TIMEOUT: Duration = Duration::from_secs(120);

impl Bench {
    fn cluster(&mut self) -> Result<&mut Cluster, Failure> {
        self.owned.as_mut().ok_or_else(|| Failure::usage("this workload needs a cluster of its own"))
    }

    /// W6: writers while the leader is killed with -9; it is restarted before the next kill.
    pub(super) async fn failover(&mut self) -> Result<(), Failure> {
        let name = Workload::Failover.name();
        let kills = self.args.runs.unwrap_or(KILLS);
        for callers in self.callers(Workload::Failover) {
            let clients = self.clients(callers)?;
            let targets: Vec<_> = clients.iter().cloned().map(|client| Arc::new(Values(client))).collect();
            let (mut gaps, mut caught_up, mut writes, mut failures, mut first) = (Vec::new(), Vec::new(), 0, 0, None);
            for kill in 1..=kills {
                let _shown = Shown::start(format!("{name}, {callers} writers, kill {kill} of {kills}"), Duration::ZERO);
                let leader = self.cluster()?.leader().await?;
                let corpus = self.corpus.clone();
                let cluster = self.cluster()?;
                let seen = gap(&targets, callers, KEYS, &corpus, cluster.kill(leader)).await.map_err(|failure| failed(&failure))?;
                gaps.push(millis(seen.longest));
                (writes, failures) = (writes + seen.writes, failures + seen.failures);
                first = first.or(seen.first_failure);
                let restarted = Instant::now();
                cluster.start_all()?;
                cluster.caught_up().await?;
                caught_up.push(millis(restarted.elapsed()));
            }
            close(clients).await;
            let mut row = Row::new(&name, callers, &self.args);
            let (gaps, caught_up) = (Spread::of(gaps), Spread::of(caught_up));
            row.details.insert("gap_ms".into(), spread_json(gaps));
            row.details.insert("caught_up_ms".into(), spread_json(caught_up));
            row.details.insert("writes".into(), json!(writes));
            row.details.insert("failures".into(), json!(failures));
            row.details.insert("first_failure".into(), json!(first));
            let text = |spread: Option<Spread>| {
                spread.map_or_else(String::new, |s| format!("{:.0} ms ({:.0}-{:.0})", s.median, s.min, s.max))
            };
            row.say(format!(
                "{name}, {callers} writers, leader killed {kills} times: longest time without a write {}, restarted node caught up \
                 after {}, {failures} of {} writes failed",
                text(gaps),
                text(caught_up),
                writes + failures
            ));
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
