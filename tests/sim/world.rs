//! One simulation from one seed: faults, healing, a scan, a verdict.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use quorate::client::StatusOptions;
use quorate::limits;
use quorate::testing::history::{Answer, Ask, LeaseNote, audit, exact, verdict, windows};
use quorate::testing::inline::SeededRandom;
use turmoil::{Builder, Sim};

use super::audit::Audit;
use super::corruption;
use super::coverage;
use super::leases::{self, Holder};
use super::listing::{self, Lister, Page};
use super::nemesis::Nemesis;
use super::net::BUFFER_BYTES;
use super::node::{EPOCH_MS, Host, HostClock, Slot};
use super::operator::{Operator, Wanted};
use super::params::Params;
use super::truth;
use super::turns::{Turner, Turns};
use super::workload::{Caller, Connect, LARGE_BYTES, Phase, Shared};

/// How long clients go on after the last fault.
const HEALING: Duration = Duration::from_secs(3);
/// A healed cluster has served everyone and is of one mind within this.
const LIVENESS: Duration = Duration::from_secs(30);

/// Why a node ends that is no member any more.
const REMOVED: &str = "this node was removed from the cluster";

/// Why a node ends that has found corruption.
pub const TO_REBUILD: &str = "the next start rebuilds this node from the leader";

/// What came of it.
pub struct Report {
    pub violations: Vec<String>,
    /// A hash over all that happened: the same seed gives the same one.
    pub trace: u64,
    pub nodes: u64,
    pub virtual_time: Duration,
    pub operations: usize,
    pub acknowledged: usize,
    pub unknown: usize,
    pub installs: u64,
    pub faults: BTreeMap<&'static str, u64>,
    /// Points of [`coverage`].
    pub saw: BTreeMap<&'static str, u64>,
    pub lines: Vec<String>,
}

struct World {
    params: Arc<Params>,
    hosts: Vec<Host>,
    shared: Arc<Mutex<Shared>>,
    turns: Arc<Mutex<Turns>>,
    /// What those who write in leases were answered.
    notes: Arc<Mutex<Vec<LeaseNote>>>,
    pages: Arc<Mutex<Vec<Page>>>,
    scan: Arc<Mutex<Option<Vec<String>>>>,
    wanted: Wanted,
}

/// Runs one seed with faults for so long.
pub fn run(seed: u64, faults_for: Duration, dir: &std::path::Path) -> Report {
    // The recorder of metrics compares the processor's clock with the system's, once, until 200 ms have passed there.
    drop(metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder());
    let params = Arc::new(Params::new(seed));
    if params.short_intervals {
        limits::shorten(limits::Shortened::All);
    }
    LARGE_BYTES.store(params.large_bytes, Ordering::Relaxed);
    BUFFER_BYTES.store(params.buffer_bytes, Ordering::Relaxed);
    let mut sim = Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_millis(EPOCH_MS))
        .simulation_duration(Duration::from_secs(3600))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(params.latency_max)
        .tcp_capacity(1 << 16)
        .enable_random_order()
        .build();
    let shared = Shared { phase: Phase::Faults, history: Vec::new(), values: 0, rush: (Duration::ZERO, 1), is_settled: false };
    let shared = Arc::new(Mutex::new(shared));
    let hosts = hosts(&params, dir);
    let (turns, notes, pages, scan, wanted) = (Arc::default(), Arc::default(), Arc::default(), Arc::default(), Wanted::default());
    let world = World { params, hosts, shared, turns, notes, pages, scan, wanted };
    for host in world.hosts.clone() {
        sim.host(Host::name(host.id), move || {
            let host = host.clone();
            async move {
                host.run().await;
                Ok(())
            }
        });
    }
    let clients = world.clients(&mut sim);
    let mut nemesis = Nemesis::new(&world.params, world.hosts.clone(), clients, world.shared.clone(), world.wanted.clone());
    let mut watch = truth::Watch::default();
    let violation = world.drive(&mut sim, &mut nemesis, &mut watch, faults_for);
    let virtual_time = sim.elapsed();
    drop(sim);
    let mut report = world.report(&nemesis, violation);
    report.violations.append(&mut watch.violations);
    report.virtual_time = virtual_time;
    // Where locks lie differs from run to run.
    let dir = dir.display().to_string();
    report.lines.iter_mut().for_each(|line| *line = line.replace(&dir, ""));
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    report.trace = report.lines.iter().flat_map(|line| line.bytes()).fold(0xcbf2_9ce4_8422_2325, hash);
    report
}

fn hosts(params: &Arc<Params>, dir: &std::path::Path) -> Vec<Host> {
    let (digests, audit) = (Arc::default(), Arc::new(Mutex::new(Audit::new(params))));
    let lies = std::env::var_os("SIM_LYING_DISK").is_some();
    let host = |id: u64| {
        let slot = Arc::new(Mutex::new(Slot::new(Arc::clone(&digests), Arc::clone(&audit))));
        let skew_ms = Arc::new(AtomicU64::new(params.skew_ms(id)));
        Host { id, params: params.clone(), dir: dir.to_owned(), skew_ms, lies, slot }
    };
    (1..=params.nodes + params.spares).map(host).collect()
}

impl World {
    /// Starts them; gives their names.
    fn clients(&self, sim: &mut Sim<'_>) -> Vec<String> {
        let params = &self.params;
        let mut names = Vec::new();
        for id in 0..params.callers {
            let (params, shared) = (params.clone(), self.shared.clone());
            names.push(format!("c{id}"));
            sim.client(format!("c{id}"), async move {
                Caller::new(id, &params, shared).run().await;
                Ok(())
            });
        }
        if params.short_intervals {
            let (id, params, shared) = (params.callers + 1, params.clone(), self.shared.clone());
            names.push("reader".to_owned());
            sim.client("reader", async move {
                Caller::new(id, &params, shared).run_reading().await;
                Ok(())
            });
        }
        for id in 0..params.turners {
            let random = SeededRandom::new(params.seed.wrapping_mul(104_729).wrapping_add(id as u64));
            let (name, shared, turns) = (format!("t{id}"), self.shared.clone(), self.turns.clone());
            let connect = Connect::of(params, &name);
            let turner = Turner { name: name.clone(), connect, shared, turns, random, think_ms: params.think_ms };
            sim.client(name.clone(), async move {
                turner.run().await;
                Ok(())
            });
            names.push(name);
        }
        for id in 0..leases::holders(params) {
            let random = SeededRandom::new(params.seed.wrapping_mul(1_299_709).wrapping_add(id));
            let (name, shared, turns, notes) = (format!("h{id}"), self.shared.clone(), self.turns.clone(), self.notes.clone());
            let connect = Connect::of(params, &name);
            let holder = Holder { name: name.clone(), connect, shared, turns, notes, random, think_ms: params.think_ms };
            sim.client(name.clone(), async move {
                holder.run().await;
                Ok(())
            });
            names.push(name);
        }
        let (shared, pages) = (self.shared.clone(), self.pages.clone());
        let audit = self.hosts[0].slot.lock().expect("nobody panics with it").audit.clone();
        let (connect, random) = (Connect::of(params, "lister"), SeededRandom::new(params.seed ^ 0x6c69_7374));
        let lister = Lister { connect, shared, audit, pages, random, think_ms: params.think_ms };
        sim.client("lister", async move {
            lister.run().await;
            Ok(())
        });
        names.push("lister".to_owned());
        if params.spares > 0 {
            let random = SeededRandom::new(params.seed ^ 0x6f70_6572);
            let (shared, wanted) = (self.shared.clone(), self.wanted.clone());
            let (known, open) = (None, None);
            let operator = Operator { params: params.clone(), shared, wanted, hosts: self.hosts.clone(), random, known, open };
            sim.client("operator", async move {
                operator.run().await;
                Ok(())
            });
        }
        let (params, shared, turns, scan) = (params.clone(), self.shared.clone(), self.turns.clone(), self.scan.clone());
        let hosts = self.hosts.clone();
        sim.client("scan", async move {
            let mut caller = Caller::new(params.callers, &params, shared);
            caller.connect.pinned = None;
            *scan.lock().expect("nobody panics with it") = Some(scan_all(caller, &turns, &hosts).await);
            Ok(())
        });
        names
    }

    fn drive(&self, sim: &mut Sim<'_>, nemesis: &mut Nemesis, watch: &mut truth::Watch, faults_for: Duration) -> Option<String> {
        let mut deadline = None;
        loop {
            sim_clock::set(Some(Duration::from_millis(EPOCH_MS) + sim.elapsed()));
            let stepped = sim.step();
            sim_clock::set(None);
            match stepped {
                Err(error) => return Some(format!("the simulation failed: {error}")),
                Ok(true) => return None,
                Ok(false) => {}
            }
            let now = sim.elapsed();
            if self.params.upgrades.is_some_and(|at| now >= at) {
                quorate::machine::allow_test_version();
            }
            let phase = self.shared.lock().expect("nobody panics with it").phase;
            match phase {
                Phase::Faults if now < faults_for => nemesis.step(sim),
                Phase::Faults => {
                    nemesis.heal(sim);
                    self.enter(Phase::Healing);
                }
                Phase::Healing if now < faults_for + HEALING => nemesis.revive_only(sim),
                Phase::Healing => {
                    self.enter(Phase::Scan);
                    deadline = Some(now + LIVENESS);
                }
                Phase::Scan => nemesis.revive_only(sim),
            }
            if let Some(violation) = nemesis.violation.take() {
                return Some(violation);
            }
            watch.look(now, &self.hosts, nemesis);
            if let Some(dead) = self.ended_by_itself() {
                return Some(dead);
            }
            if deadline.is_some_and(|deadline| now > deadline) {
                return Some(format!("the healed cluster did not serve everyone and agree within {LIVENESS:?}"));
            }
        }
    }

    fn enter(&self, phase: Phase) {
        self.shared.lock().expect("nobody panics with it").phase = phase;
    }

    fn ended_by_itself(&self) -> Option<String> {
        self.hosts.iter().find_map(|host| {
            let slot = host.slot.lock().expect("nobody panics with it");
            let is_meant = |why: &&String| {
                slot.may_fail || why.as_str() == "stopped" || why.contains(REMOVED) || (slot.corrupt && why.contains(TO_REBUILD))
            };
            let why = slot.ended.as_ref().filter(|why| !is_meant(why))?;
            Some(format!("n{} ended without a cause: {why}", host.id))
        })
    }

    fn report(&self, nemesis: &Nemesis, violation: Option<String>) -> Report {
        let shared = self.shared.lock().expect("nobody panics with it");
        let mut violations: Vec<String> = violation.into_iter().collect();
        for host in &self.hosts {
            let slot = host.slot.lock().expect("nobody panics with it");
            violations.extend(slot.violations.iter().take(3).map(|violation| format!("n{}: {violation}", host.id)));
            violations.extend(truth::judge(host.id, &slot.shown, &shared.history).into_iter().take(3));
            if slot.was_corrupted && !slot.corrupt {
                violations.extend(
                    corruption::find(&slot.disk, &host.state_dir())
                        .map(|what| format!("n{}: corruption was overlooked: {what}", host.id)),
                );
            }
        }
        violations.extend(self.scan.lock().expect("nobody panics with it").take().into_iter().flatten());
        violations.extend(self.turns.lock().expect("nobody panics with it").violations.iter().take(3).cloned());
        let (log, eras, wrong) = {
            let slot = self.hosts[0].slot.lock().expect("nobody panics with it");
            let mut audit = slot.audit.lock().expect("nobody panics with it");
            let (log, wrong) = audit.finish();
            if log.is_some() {
                let notes = self.notes.lock().expect("nobody panics with it");
                violations.extend(leases::judge(audit.leases(), &notes).into_iter().take(3));
            }
            (log, audit.eras().clone(), wrong)
        };
        violations.extend(wrong.into_iter().take(3));
        let pages = self.pages.lock().expect("nobody panics with it");
        violations.extend(listing::judge(&pages, &shared.history, log.as_deref(), &eras).into_iter().take(3));
        let history = eras.counted_on(&shared.history);
        if eras.is_empty() {
            violations.extend(verdict(&history).iter().map(ToString::to_string));
        }
        if let Some(log) = log {
            // With the log at hand every write has its place. Where versions start again, nobody can do without.
            let resolved = eras.resolved(&history, &log);
            let by_windows = if eras.is_empty() { Vec::new() } else { windows(&resolved) };
            let known = exact(&resolved).into_iter().chain(by_windows).chain(audit(&history, &log));
            violations.extend(known.map(|violation| format!("by the log: {violation}")));
        }
        let count = |wanted: &dyn Fn(Answer) -> bool| shared.history.iter().filter(|op| wanted(op.answer)).count();
        let mut lines = nemesis.log.clone();
        for (at, op) in shared.history.iter().enumerate() {
            let mut line = format!("{:>9.3} op {at}", op.invoked.as_secs_f64());
            let _ = write!(line, " c{} k{} {:?} -> {:?}", op.client, op.key, op.ask, op.answer);
            if op.returned < Duration::MAX {
                let _ = write!(line, " at {:.6}", op.returned.as_secs_f64());
            }
            lines.push(line);
        }
        lines.extend(self.notes.lock().expect("nobody panics with it").iter().map(|note| format!("{note:?}")));
        lines.extend(pages.iter().map(|page| format!("{page:?}")));
        Report {
            violations,
            trace: 0,
            nodes: self.params.nodes,
            virtual_time: Duration::ZERO,
            saw: coverage::seen(),
            operations: shared.history.len(),
            acknowledged: count(&|answer| answer.revision().is_some()),
            unknown: count(&|answer| answer == Answer::Unknown),
            installs: self.hosts.iter().map(|host| host.slot.lock().expect("nobody panics with it").installs).sum(),
            faults: nemesis.counts.clone(),
            lines,
        }
    }
}

/// Reads every key and writes each once more, then waits until no member is corrupt, and all have applied the same and say so with the
/// same digest.
async fn scan_all(mut caller: Caller, turns: &Mutex<Turns>, hosts: &[Host]) -> Vec<String> {
    while caller.phase() < Phase::Scan {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let client = caller.client();
    let patience = Duration::from_secs(60);
    for key in 0..caller.keys {
        while caller.call(&client, key, Ask::Load, patience).await.revision().is_none() {}
        loop {
            let value = {
                let mut shared = caller.shared.lock().expect("nobody panics with it");
                shared.values += 1;
                shared.values
            };
            if caller.call(&client, key, Ask::Save { value }, patience).await.revision().is_some() {
                break;
            }
        }
        while caller.call(&client, key, Ask::Load, patience).await.revision().is_none() {}
    }
    // What soon expires does, whether or not it is looked at.
    while !matches!(caller.call(&client, caller.keys - 1, Ask::Load, patience).await, Answer::NotFound { .. }) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Turns::scan(turns, &client, &HostClock::default()).await;
    loop {
        let Ok(status) = client.status(StatusOptions::default()).await else { continue };
        let digests: Vec<_> = status.nodes.iter().map(|node| (node.applied, node.digest_index, node.digest)).collect();
        let same = digests.iter().all(|digest| digest.0.is_some() && digest.0 == digests[0].0);
        let is_sound = |id: u64| !hosts[id as usize - 1].slot.lock().expect("nobody panics with it").corrupt;
        if same && status.nodes.iter().all(|node| node.reachable && is_sound(node.id.0)) {
            let equal = digests.iter().all(|digest| *digest == digests[0]);
            return if equal { Vec::new() } else { vec![format!("digests differ at the end: {digests:?}")] };
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
