//! Stock Bob agents on hot sessions of a three-process cluster, also while its leader is killed again and again.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bob_core::ports::SessionStore;
use quorate::client::bob::ConcurrentSave;
use serde_json::json;

use crate::Error;
use crate::arguments::{Arguments, Output};
use crate::run_dir::RunDir;
use crate::stores::Quorate;

#[path = "../../tests/process/racing.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod racing;

use racing::{Audit, Race};

/// Clients with what they know apart, as if they were processes of their own.
const CLIENTS: usize = 4;
/// A runtime copies the whole session for each step of its model: sessions that grow for ever would measure that.
const TURNS_PER_SESSION: u64 = 400;

struct Raced {
    agents: usize,
    kills: u64,
    elapsed: Duration,
    audit: Audit,
    /// The longest time without an acknowledged turn.
    gap: Duration,
}

/// Runs all races. Errors: the cluster did not start, or a session could not be read.
pub async fn run(arguments: &Arguments, run: &Arc<RunDir>) -> Result<ExitCode, Error> {
    let mut all = Vec::new();
    let asked = if arguments.callers.is_empty() { &[20, 200] } else { arguments.callers.as_slice() };
    for &agents in asked {
        for kills in [0, arguments.kills] {
            let raced = race(arguments, run, agents, kills).await?;
            if arguments.output == Output::Table {
                println!("{}", line(&raced));
            }
            all.push(raced);
        }
    }
    let passed = !all.is_empty() && all.iter().all(|raced| raced.audit.holds());
    if arguments.output == Output::Json {
        println!("{}", json!({ "races": all.iter().map(fields).collect::<Vec<_>>(), "passed": passed }));
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn race(arguments: &Arguments, run: &Arc<RunDir>, agents: usize, kills: u64) -> Result<Raced, Error> {
    let mut cluster = Quorate::start(run).await?;
    let mut stores: Vec<Arc<dyn SessionStore>> = Vec::new();
    for _ in 0..CLIENTS {
        stores.push(Arc::new(cluster.client()?.session_store().concurrent_save(ConcurrentSave::Rebase)));
    }
    let race = Race::new("hot", u64::MAX, TURNS_PER_SESSION);
    let began = Instant::now();
    let workers = race.agents(agents, &stores);
    let mut gap = Gap::new();
    if kills == 0 {
        gap.watch(&race, arguments.plan(0, 0).window).await;
    }
    for _ in 0..kills {
        let leader = cluster.leader().await?;
        cluster.servers.kill(leader)?;
        gap.watch(&race, Duration::from_secs_f64(arguments.kill_every / 2.0)).await;
        cluster.servers.start_one(leader)?;
        gap.watch(&race, Duration::from_secs_f64(arguments.kill_every / 2.0)).await;
    }
    let elapsed = began.elapsed();
    race.stop();
    for worker in workers {
        worker.await?;
    }
    cluster.servers.check()?;
    let audit = race.audit(&cluster.client()?.session_store()).await?;
    Ok(Raced { agents, kills, elapsed, audit, gap: gap.longest })
}

/// Watches for times in which nothing is acknowledged, to about 5 ms.
struct Gap {
    count: u64,
    since: Instant,
    longest: Duration,
}

impl Gap {
    fn new() -> Self {
        Self { count: 0, since: Instant::now(), longest: Duration::ZERO }
    }

    async fn watch(&mut self, race: &Race, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let count = race.acknowledged();
            if count != self.count {
                (self.count, self.since) = (count, Instant::now());
            }
            self.longest = self.longest.max(self.since.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn line(raced: &Raced) -> String {
    let Raced { agents, kills, elapsed, audit, gap } = raced;
    let word = if audit.holds() { "reached" } else { "MISSED" };
    let rate = audit.acknowledged as f64 / elapsed.as_secs_f64();
    let failure = audit.first_failure.as_ref().map_or(String::new(), |failure| format!("; first error: {failure}"));
    format!(
        "{word}  {agents} agents, {kills} kills: {} turns kept once ({rate:.0}/s), lost {}, doubled {}, split {}, wrong usage {}; \
         refused {} (kept all the same {}), indeterminate {}, never asked for {}; longest gap {:.2} s{failure}",
        audit.acknowledged,
        audit.lost,
        audit.doubled,
        audit.split,
        audit.wrong_usage,
        audit.refused,
        audit.kept_though_refused,
        audit.indeterminate,
        audit.never_made,
        gap.as_secs_f64(),
    )
}

fn fields(raced: &Raced) -> serde_json::Value {
    let Raced { agents, kills, elapsed, audit, gap } = raced;
    json!({
        "agents": agents, "kills": kills, "seconds": elapsed.as_secs_f64(), "acknowledged": audit.acknowledged,
        "lost": audit.lost, "doubled": audit.doubled, "split": audit.split, "wrong_usage": audit.wrong_usage,
        "refused": audit.refused, "kept_though_refused": audit.kept_though_refused, "indeterminate": audit.indeterminate,
        "never_made": audit.never_made, "gap_s": gap.as_secs_f64(), "holds": audit.holds(),
    })
}
