//! Everything that goes wrong, from the seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::testing::disk::{Crash, Fault, Operation, SimDisk};
use quorate::testing::inline::SeededRandom;
use turmoil::Sim;

use super::corruption;
use super::coverage::sometimes;
use super::invariants;
use super::minority::{Next, Trial};
use super::net::{self, Link};
use super::node::Host;
use super::operator::Wanted;
use super::params::{Kind, Params};
use super::truth::Cuts;
use super::workload::{LARGE_EVERY, MIDDLING_EVERY, Shared};
use super::world::TO_REBUILD;

/// What ends a fault.
enum Cure {
    Start(u64),
    Kill(u64),
    Stop(u64),
    /// The power goes: of what was not synced, this is left.
    PowerCut(u64, Crash),
    Repair(String, String),
    Release(String, String),
    Calm,
    Near,
    /// The disk has room again.
    Room(u64),
    /// The disk is as fast as before.
    Fast(u64),
    /// The links carry as much as before.
    Widen(Vec<Link>),
    /// The disk that was taken out comes back.
    Unwipe(u64, Box<SimDisk>),
}

/// Causes faults and ends them.
pub struct Nemesis {
    random: SeededRandom,
    hosts: Vec<Host>,
    clients: Vec<String>,
    cures: Vec<(Duration, Cure)>,
    /// Hosts that are off.
    pub down: Vec<u64>,
    next: Duration,
    latency_max: Duration,
    pace_ms: u64,
    is_large: bool,
    kinds: Vec<Kind>,
    shared: Arc<Mutex<Shared>>,
    wanted: Wanted,
    /// Hosts with greater ids join later, if at all.
    nodes: u64,
    jumped: bool,
    /// Links that carry nothing, as far as that is certain.
    pub cuts: Cuts,
    /// Until then, a node that grants a vote loses its power the same moment.
    cuts_voters_until: Duration,
    /// Until then, a node that proposes a change of the members loses its power soon after.
    cuts_changers_until: Duration,
    /// Full disks on a minority, under way.
    trial: Option<Trial>,
    tried: bool,
    /// What a trial found.
    pub violation: Option<String>,
    /// How often each fault was caused.
    pub counts: BTreeMap<&'static str, u64>,
    /// What was done when, for the trace.
    pub log: Vec<String>,
}

impl Nemesis {
    pub fn new(params: &Params, hosts: Vec<Host>, clients: Vec<String>, shared: Arc<Mutex<Shared>>, wanted: Wanted) -> Self {
        Self {
            random: SeededRandom::new(params.seed ^ 0x006e_656d_6573_6973),
            hosts,
            clients,
            cures: Vec::new(),
            down: Vec::new(),
            next: Duration::from_secs(3),
            latency_max: params.latency_max,
            pace_ms: params.pace_ms,
            is_large: params.is_large(),
            kinds: params.faults.clone(),
            shared,
            wanted,
            nodes: params.nodes,
            jumped: false,
            cuts: Cuts::default(),
            cuts_voters_until: Duration::ZERO,
            cuts_changers_until: Duration::ZERO,
            trial: None,
            tried: false,
            violation: None,
            counts: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    /// Does what is due.
    pub fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        self.cure(sim, |at| at <= now);
        self.revive(sim);
        if let Some(trial) = self.trial.take() {
            return self.go_on(sim, now, trial);
        }
        self.cut_voters(sim, now);
        self.cut_changers(now);
        if now >= self.next {
            self.next = now + Duration::from_millis(50 + self.random.below(self.pace_ms * 2));
            self.strike(sim, now);
        }
    }

    /// Ends every other fault, and fills disks of a minority once all is well.
    fn try_minority(&mut self, sim: &mut Sim<'_>, now: Duration) {
        self.tried = true;
        self.heal(sim);
        (self.cuts_voters_until, self.cuts_changers_until) = (Duration::ZERO, Duration::ZERO);
        // Perhaps there are learners by then.
        *self.wanted.lock().expect("nobody panics with it") += 1;
        self.trial = Some(Trial::Settling { began: now });
    }

    fn go_on(&mut self, sim: &mut Sim<'_>, now: Duration, trial: Trial) {
        let quiet = self.down.is_empty() && self.cures.is_empty();
        match trial.step(now, quiet, &self.hosts, &self.shared, &self.random) {
            Next::GoOn(trial) => self.trial = Some(trial),
            Next::Fill(ids) => {
                self.count(sim, "full disks of a minority", &format!("{ids:?}"));
                for id in &ids {
                    let slot = self.host(*id).slot.lock().expect("no host panics with it");
                    slot.disk.set_capacity(Some(slot.disk.used() + self.random.below(2) * self.random.below(200_000)));
                }
                self.rush(now, 5000, MIDDLING_EVERY.pow(u32::from(self.random.below(2) == 0)));
                let first = self.shared.lock().expect("no client panics with it").history.len();
                self.trial = Some(Trial::Full { ids, since: now, first });
            }
            Next::End(ids) => {
                self.note(sim, &format!("room again on {ids:?}"));
                for id in ids {
                    self.host(id).slot.lock().expect("no host panics with it").disk.set_capacity(None);
                }
                self.shared.lock().expect("no client panics with it").is_settled = false;
            }
            Next::Violation(what) => self.violation = Some(what),
        }
    }

    /// The power goes before anything but the vote itself can have synced it; the node is back while that election is under way.
    fn cut_voters(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let voters = invariants::take_granted();
        if now >= self.cuts_voters_until {
            return;
        }
        for id in voters {
            if !self.down.contains(&id) {
                sometimes("power cut with a vote just granted");
                self.power_off(sim, id, Crash::Lost, true);
                self.later(now, 300, Cure::Start(id));
            }
        }
    }

    /// The power goes some time before both steps of the change can have been made.
    fn cut_changers(&mut self, now: Duration) {
        let leader = self.hosts.iter().find(|host| host.slot.lock().expect("no host panics with it").leads).map(|host| host.id);
        let (true, true, Some(leader)) = (invariants::take_proposed(), now < self.cuts_changers_until, leader) else { return };
        sometimes("power cut within a change of members");
        let crash = self.crash_kind();
        let delay = 1 + self.random.below(10 + 4 * self.latency_max.as_millis() as u64);
        self.cures.push((now + Duration::from_millis(delay), Cure::PowerCut(leader, crash)));
    }

    /// Causes no more faults, and starts again what ends late by an earlier one.
    pub fn revive_only(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        self.cure(sim, |at| at <= now);
        self.revive(sim);
    }

    /// Ends every fault.
    pub fn heal(&mut self, sim: &mut Sim<'_>) {
        self.note(sim, "heal");
        self.cure(sim, |_| true);
        self.cure(sim, |_| true);
        for host in &self.hosts {
            let slot = host.slot.lock().expect("no host panics with it");
            slot.disk.clear_faults();
            slot.disk.set_capacity(None);
        }
        self.revive(sim);
        assert!(self.cures.iter().all(|(_, cure)| matches!(cure, Cure::Start(_))), "only a restart can be left");
        self.cure(sim, |_| true);
        sim.set_fail_rate(0.0);
    }

    /// Starts again what ended by itself after its disk failed, or was asked to end. Whatever else ended is for the driver to judge.
    fn revive(&mut self, sim: &mut Sim<'_>) {
        for at in 0..self.hosts.len() {
            let id = self.hosts[at].id;
            let ended = {
                let mut slot = self.hosts[at].slot.lock().expect("no host panics with it");
                let found_corruption = slot.corrupt && slot.ended.as_deref().is_some_and(|why| why.contains(TO_REBUILD));
                let excused = slot.may_fail || found_corruption || slot.ended.as_deref() == Some("stopped");
                if excused { slot.ended.take() } else { None }
            };
            if let Some(why) = ended.filter(|_| !self.down.contains(&id)) {
                self.note(sim, &format!("n{id} ended: {why}"));
                self.power_off(sim, id, Crash::Kept, false);
                self.later(sim.elapsed(), 2000, Cure::Start(id));
            }
        }
    }

    fn cure(&mut self, sim: &mut Sim<'_>, due: impl Fn(Duration) -> bool) {
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.cures).into_iter().partition(|(at, _)| due(*at));
        self.cures = rest;
        for (_, cure) in due {
            match cure {
                Cure::Start(id) => {
                    self.note(sim, &format!("start n{id}"));
                    self.down.retain(|down| *down != id);
                    sim.bounce(Host::name(id));
                }
                Cure::Kill(id) => self.kill(sim, id),
                Cure::Stop(id) => {
                    self.note(sim, &format!("n{id} is asked to stop"));
                    self.host(id).slot.lock().expect("no host panics with it").stop.notify_one();
                }
                Cure::PowerCut(id, crash) => {
                    if !self.down.contains(&id) {
                        self.power_off(sim, id, crash, true);
                        self.later(sim.elapsed(), 3000, Cure::Start(id));
                    }
                }
                Cure::Repair(a, b) => {
                    self.note(sim, &format!("repair {a} {b}"));
                    sim.repair(a.as_str(), b.as_str());
                    self.cuts.heal(&a, &b);
                }
                Cure::Release(a, b) => {
                    self.note(sim, &format!("release {a} {b}"));
                    sim.release(a.as_str(), b.as_str());
                    self.cuts.heal(&a, &b);
                }
                Cure::Calm => sim.set_fail_rate(0.0),
                Cure::Near => sim.set_max_message_latency(self.latency_max),
                Cure::Room(id) => {
                    self.note(sim, &format!("n{id} has room"));
                    self.host(id).slot.lock().expect("no host panics with it").disk.set_capacity(None);
                }
                Cure::Widen(links) => {
                    self.note(sim, "links are wide again");
                    net::fast(&links);
                }
                Cure::Fast(id) => self.host(id).slow_disk(Duration::ZERO),
                Cure::Unwipe(id, disk) => {
                    self.note(sim, &format!("n{id} has its disk again"));
                    if !self.down.contains(&id) {
                        self.power_off(sim, id, Crash::Kept, false);
                        self.later(sim.elapsed(), 500, Cure::Start(id));
                    }
                    let mut slot = self.host(id).slot.lock().expect("no host panics with it");
                    (slot.disk, slot.wiped, slot.may_fail) = (*disk, false, false);
                }
            }
        }
    }

    fn later(&mut self, now: Duration, within_ms: u64, cure: Cure) {
        let delay = Duration::from_millis(20 + self.random.below(within_ms));
        self.cures.push((now + delay, cure));
    }

    fn note(&mut self, sim: &Sim<'_>, what: &str) {
        self.log.push(format!("{:>9.3} {what}", sim.elapsed().as_secs_f64()));
    }

    fn count(&mut self, sim: &Sim<'_>, fault: &'static str, on: &str) {
        *self.counts.entry(fault).or_default() += 1;
        self.note(sim, &format!("{fault} {on}"));
    }

    fn crash_kind(&self) -> Crash {
        if self.hosts[0].lies {
            // A tear within what was said to be synced would be seen by the log itself.
            return Crash::Lost;
        }
        let sector = [512, 4096][self.random.below(2) as usize];
        match self.random.below(5) {
            0 => Crash::Lost,
            1 => Crash::Prefix,
            2 => Crash::Torn { sector },
            3 => Crash::Reordered { sector },
            _ => Crash::Kept,
        }
    }

    /// Ends a process; a power cut takes what was not synced.
    fn power_off(&mut self, sim: &mut Sim<'_>, id: u64, crash: Crash, cut: bool) {
        let seed = self.random.next();
        sim.crash(Host::name(id));
        let mut slot = self.host(id).slot.lock().expect("no host panics with it");
        slot.disk = if cut { slot.disk.crash(crash, seed) } else { slot.disk.kill() };
        if slot.leads {
            sometimes("leader crashed");
            if self.shared.lock().expect("no client panics with it").has_open_write() {
                sometimes("leader crashed with a write in flight");
            }
        }
        slot.ended = None;
        slot.may_fail = slot.wiped;
        slot.leads = false;
        drop(slot);
        self.down.push(id);
        self.note(sim, &format!("n{id} is off cut={cut} {crash:?}"));
    }

    fn host(&self, id: u64) -> &Host {
        &self.hosts[id as usize - 1]
    }

    /// The leader, every other time, if there is one; else anyone.
    fn victim(&self) -> u64 {
        let leader = self.hosts.iter().find(|host| host.slot.lock().expect("no host panics with it").leads);
        match leader {
            Some(leader) if self.random.below(2) == 0 => leader.id,
            _ => 1 + self.random.below(self.hosts.len() as u64),
        }
    }

    fn strike(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let id = self.victim();
        let name = Host::name(id);
        let kind = self.kinds[self.random.below(self.kinds.len() as u64) as usize];
        match kind {
            Kind::Partition => self.partition(sim, now, &name),
            Kind::Bridge => self.bridge(sim, now, id),
            Kind::OneWay => self.one_way(sim, now, &name),
            Kind::Pause => self.pause(sim, now, &name),
            Kind::Loss => {
                self.count(sim, "loss", "");
                sim.set_fail_rate([0.001, 0.005, 0.02][self.random.below(3) as usize]);
                self.later(now, 3000, Cure::Calm);
            }
            Kind::SlowLink => self.slow_links(sim, now, &name),
            Kind::PowerCutWithinChange => {
                self.count(sim, "change of members to be cut", "");
                self.cuts_changers_until = now + Duration::from_millis(4000);
                *self.wanted.lock().expect("nobody panics with it") += 1;
            }
            Kind::Corruption => self.corrupt(sim, now, id),
            Kind::Latency => {
                self.count(sim, "latency", "");
                sim.set_max_message_latency(Duration::from_millis(20 + self.random.below(600)));
                self.later(now, 3000, Cure::Near);
            }
            Kind::Members => {
                self.count(sim, "change of members", "");
                *self.wanted.lock().expect("nobody panics with it") += 1;
            }
            Kind::PowerCutOfAll => self.all_power(sim, now),
            Kind::WipedDisks => self.wipe(sim, now),
            Kind::FullMinority if self.tried || self.is_large => {}
            Kind::FullMinority => self.try_minority(sim, now),
            Kind::Jump if self.jumped => {}
            Kind::Jump => {
                // Longer than a client may be idle.
                self.jumped = true;
                self.count(sim, "all clocks two hours on", "");
                self.hosts.iter().for_each(|host| host.jump_ms(2 * 3600 * 1000 + 1));
            }
            _ if self.down.contains(&id) => {}
            kind => self.strike_one(sim, now, id, kind),
        }
    }

    /// What is done to one node that runs.
    fn strike_one(&mut self, sim: &mut Sim<'_>, now: Duration, id: u64, kind: Kind) {
        let name = Host::name(id);
        match kind {
            Kind::Kill => {
                self.count(sim, "kill", &name);
                self.amid_saves(sim, now, [Cure::Kill(id)]);
            }
            Kind::PowerCut => {
                self.count(sim, "power cut", &name);
                let crash = self.crash_kind();
                self.power_off(sim, id, crash, true);
                self.later(now, 3000, Cure::Start(id));
            }
            Kind::PowerCutAfterVote => {
                self.count(sim, "power cut after a vote", &name);
                self.cuts_voters_until = now + Duration::from_millis(3000);
                self.power_off(sim, id, Crash::Kept, false);
                self.later(now, 3000, Cure::Start(id));
            }
            Kind::PowerCutWithinWork => {
                self.count(sim, "power cut within work", &name);
                self.halt_soon(id);
                let crash = self.crash_kind();
                self.later(now, 100, Cure::PowerCut(id, crash));
            }
            Kind::LongOutage => {
                self.count(sim, "long outage", &name);
                let crash = self.crash_kind();
                self.power_off(sim, id, crash, true);
                self.later(now + Duration::from_secs(5), 5000, Cure::Start(id));
            }
            Kind::FailedSync => self.fail_disk(sim, now, id, Operation::Sync, "failed sync"),
            Kind::FailedWrite => self.fail_disk(sim, now, id, Operation::Write, "failed write"),
            Kind::FullDisk => {
                self.count(sim, "full disk", &name);
                let slot = self.host(id).slot.lock().expect("no host panics with it");
                // Often to the last byte: then neither the log nor a flush finds room.
                let left = self.random.below(2) * self.random.below(200_000);
                slot.disk.set_capacity(Some(slot.disk.used() + left));
                drop(slot);
                // Half of the time everyone saves just then: the log needs room before anybody knows that there is none.
                if self.random.below(2) == 0 {
                    self.rush(now, 1000, MIDDLING_EVERY);
                }
                self.later(now, 4000, Cure::Room(id));
            }
            Kind::SlowDisk => {
                self.count(sim, "slow disk", &name);
                self.host(id).slow_disk(Duration::from_millis(50 + self.random.below(1500)));
                self.later(now, 3000, Cure::Fast(id));
            }
            Kind::HungDisk => {
                self.count(sim, "hung disk", &name);
                self.host(id).slow_disk(Duration::from_millis(4000 + self.random.below(8000)));
                self.later(now + Duration::from_secs(2), 4000, Cure::Fast(id));
            }
            _ => {
                // Sometimes everyone at once: then what is open finds no majority to settle it.
                let all = (1..=self.hosts.len() as u64).filter(|id| !self.down.contains(id));
                let ids: Vec<u64> = if self.random.below(4) == 0 { all.collect() } else { vec![id] };
                self.count(sim, "orderly stop", &format!("{ids:?}"));
                self.amid_saves(sim, now, ids.into_iter().map(Cure::Stop));
            }
        }
    }

    fn kill(&mut self, sim: &mut Sim<'_>, id: u64) {
        if !self.down.contains(&id) {
            self.power_off(sim, id, Crash::Kept, false);
            self.later(sim.elapsed(), 3000, Cure::Start(id));
        }
    }

    /// Does it: half of the time at once, else while everyone saves, so that something is under way.
    fn amid_saves(&mut self, sim: &mut Sim<'_>, now: Duration, what: impl IntoIterator<Item = Cure>) {
        let mut due = now;
        if self.random.below(2) == 0 {
            self.rush(now, 300, 1);
            due += Duration::from_millis(50 + self.random.below(200));
        }
        self.cures.extend(what.into_iter().map(|what| (due, what)));
        self.cure(sim, |at| at <= now);
    }

    /// For so long every caller saves values that are multiples of this.
    fn rush(&self, now: Duration, for_ms: u64, every: u64) {
        self.shared.lock().expect("no client panics with it").rush = (now + Duration::from_millis(for_ms), every);
    }

    /// The links of one node, to it, from it or both, carry little for a while; where values are large, one is under way.
    fn slow_links(&mut self, sim: &mut Sim<'_>, now: Duration, name: &str) {
        let others = self.others(name);
        let direction = self.random.below(3);
        let scale = if self.is_large { 16 } else { 1 };
        let bytes_per_second = scale * [16 << 10, 64 << 10, 256 << 10, 1 << 20][self.random.below(4) as usize];
        self.count(sim, "slow link", &format!("{name} and {others:?} direction={direction} bytes_per_second={bytes_per_second}"));
        let here = sim.lookup(name);
        let there = others.iter().map(|other| sim.lookup(other.as_str()));
        let both = there.flat_map(|there| [(here, there), (there, here)].into_iter().enumerate().collect::<Vec<_>>());
        let links: Vec<Link> = both.filter(|(at, _)| direction != *at as u64).map(|(_, link)| link).collect();
        net::slow(&links, bytes_per_second);
        if self.is_large {
            self.rush(now, 1500, LARGE_EVERY);
        }
        self.later(now + Duration::from_secs(1), 10_000, Cure::Widen(links));
    }

    /// The power of one node goes, and a row of its state is corrupted. Never of two at a time: nodes that are rebuilt do not vote, and two of
    /// three would wait for a leader for ever; nor while others lack their disks.
    fn corrupt(&mut self, sim: &mut Sim<'_>, now: Duration, id: u64) {
        let is_struck = |host: &Host| {
            let slot = host.slot.lock().expect("no host panics with it");
            slot.corrupt || slot.wiped
        };
        if self.down.contains(&id) || self.hosts.iter().any(is_struck) {
            return;
        }
        let crash = self.crash_kind();
        self.power_off(sim, id, crash, true);
        self.later(now, 1000, Cure::Start(id));
        let (dir, disk) = (self.host(id).state_dir(), self.host(id).slot.lock().expect("no host panics with it").disk.clone());
        if let Some(what) = corruption::strike(&disk, &dir, &self.random) {
            self.count(sim, "corruption", &format!("{} {what}", Host::name(id)));
            let mut slot = self.host(id).slot.lock().expect("no host panics with it");
            (slot.corrupt, slot.was_corrupted) = (true, true);
        }
    }

    /// One call of its disk fails, some time soon, and power goes later.
    fn fail_disk(&mut self, sim: &mut Sim<'_>, now: Duration, id: u64, operation: Operation, what: &'static str) {
        self.count(sim, what, &Host::name(id));
        let skip = self.random.below(4);
        let fault = Fault { operation, path_contains: String::new(), skip, times: 1, kind: std::io::ErrorKind::Other };
        let mut slot = self.host(id).slot.lock().expect("no host panics with it");
        slot.may_fail = true;
        slot.disk.inject(fault);
        drop(slot);
        self.later(now, 1000, Cure::PowerCut(id, Crash::Lost));
    }

    /// Some nodes, up to a majority, run with empty disks for a while, the flag of a new cluster still on. With a majority of them, the
    /// others are off: nothing must be served, nor a second cluster begin.
    fn wipe(&mut self, sim: &mut Sim<'_>, now: Duration) {
        // Never one that may join meanwhile: with another disk it would be another node.
        let nodes = self.nodes;
        if self.hosts.iter().any(|host| host.slot.lock().expect("no host panics with it").wiped) {
            return;
        }
        let count = 1 + self.random.below(nodes / 2 + 1);
        let first = self.random.below(2) * self.random.below(nodes);
        let ids: Vec<u64> = (0..count).map(|at| 1 + (first + at) % nodes).collect();
        self.count(sim, "wiped disks", &format!("{ids:?}"));
        for id in 1..=nodes {
            let is_wiped = ids.contains(&id);
            if !is_wiped && count <= nodes / 2 {
                continue;
            }
            if !self.down.contains(&id) {
                self.power_off(sim, id, Crash::Kept, false);
            }
            if is_wiped {
                let mut slot = self.host(id).slot.lock().expect("no host panics with it");
                let disk = std::mem::take(&mut slot.disk);
                (slot.disk, slot.wiped, slot.may_fail) = (SimDisk::new(), true, true);
                drop(slot);
                self.cures.retain(|(_, cure)| !matches!(cure, Cure::Start(at) | Cure::PowerCut(at, _) if *at == id));
                self.cures.push((now + Duration::from_millis(50), Cure::Start(id)));
                self.cures.push((now + Duration::from_millis(4000 + self.random.below(3000)), Cure::Unwipe(id, Box::new(disk))));
            } else {
                self.cures.retain(|(_, cure)| !matches!(cure, Cure::Start(at) | Cure::PowerCut(at, _) if *at == id));
                self.cures.push((now + Duration::from_secs(8), Cure::Start(id)));
            }
        }
    }

    fn halt_soon(&mut self, id: u64) {
        let skip = self.random.below(12);
        let mut slot = self.host(id).slot.lock().expect("no host panics with it");
        slot.may_fail = true;
        slot.disk.halt_after(slot.disk.operations() + skip);
    }

    fn all_power(&mut self, sim: &mut Sim<'_>, now: Duration) {
        self.count(sim, "power cut of all", "");
        for id in 1..=self.hosts.len() as u64 {
            if !self.down.contains(&id) {
                let crash = self.crash_kind();
                self.power_off(sim, id, crash, true);
                self.later(now, 1500, Cure::Start(id));
            }
        }
    }

    /// Everyone a node may lose sight of: all other nodes, and some or all clients.
    fn others(&mut self, name: &str) -> Vec<String> {
        let with_clients = self.random.below(2) == 0;
        let nodes = self.hosts.iter().map(|host| Host::name(host.id)).filter(|other| other != name);
        let mut others: Vec<String> = nodes.collect();
        if self.random.below(4) == 0 {
            // It still sees one of the others.
            others.pop();
        }
        if with_clients {
            others.extend(self.clients.iter().cloned());
        }
        others
    }

    fn partition(&mut self, sim: &mut Sim<'_>, now: Duration, name: &str) {
        let others = self.others(name);
        self.count(sim, "partition", &format!("{name} from {others:?}"));
        for other in others {
            sim.partition(name, other.as_str());
            self.cuts.cut(name, &other);
            self.later(now, 4000, Cure::Repair(name.to_owned(), other));
        }
    }

    /// Two halves that see each other only through one node.
    fn bridge(&mut self, sim: &mut Sim<'_>, now: Duration, middle: u64) {
        self.count(sim, "bridge", &Host::name(middle));
        let ends: Vec<u64> = (1..=self.hosts.len() as u64).filter(|id| *id != middle).collect();
        let (left, right) = ends.split_at(ends.len() / 2);
        for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (Host::name(*a), Host::name(*b)))) {
            sim.partition(a.as_str(), b.as_str());
            self.cuts.cut(&a, &b);
            self.later(now, 4000, Cure::Repair(a, b));
        }
    }

    fn one_way(&mut self, sim: &mut Sim<'_>, now: Duration, name: &str) {
        let others = self.others(name);
        let out = self.random.below(2) == 0;
        self.count(sim, "partition one way", &format!("{name} out={out} {others:?}"));
        for other in others {
            let (from, to) = if out { (name, other.as_str()) } else { (other.as_str(), name) };
            sim.partition_oneway(from, to);
            self.cuts.cut(from, to);
            self.later(now, 4000, Cure::Repair(name.to_owned(), other));
        }
    }

    /// Messages wait, and arrive late but whole.
    fn pause(&mut self, sim: &mut Sim<'_>, now: Duration, name: &str) {
        let others = self.others(name);
        self.count(sim, "pause", &format!("{name} from {others:?}"));
        let until = 20 + self.random.below(4000);
        for other in others {
            sim.hold(name, other.as_str());
            self.cuts.cut(name, &other);
            self.cures.push((now + Duration::from_millis(until), Cure::Release(name.to_owned(), other)));
        }
    }
}
