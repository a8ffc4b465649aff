//! Faults: each is installed, shown to be there, held, and taken away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate::testing::inline::SeededRandom;
use rustix::process::Signal;

use crate::chaos::args::Options;
use crate::chaos::cut::Cut;
use crate::chaos::disks::Disks;
use crate::chaos::load::{CALLERS, Caller, KEYS, Shared};
use crate::chaos::nodes::Nodes;
use crate::chaos::plan::{Kind, between};
use crate::chaos::reach::Reach;
use crate::chaos::strace::Injection;
use quorate::testing::processes::Rule;

/// A healthy cluster serves again within so long after a fault.
const HEAL_MAX: Duration = Duration::from_secs(60);
/// Nodes take part again after a snapshot within so long.
const FALL_BEHIND_MAX: Duration = Duration::from_secs(120);
const STOP_MAX: Duration = Duration::from_secs(20);
const BULK_BYTES: usize = 512 << 10;

/// Whether a fault was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was: how that is known.
    Installed(String),
    /// It can't be done here: why.
    Skipped(String),
    /// It was tried, and nothing shows that it was there.
    Indeterminate(String),
}

/// One fault of a run. Times count from its start.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// To whom, in words.
    pub target: String,
    /// Whether it was there.
    pub status: Status,
    /// When it began.
    pub began: Duration,
    /// When it was taken away.
    pub healed: Duration,
    /// How long after that all nodes agreed and writes were served; none: not within the bound.
    pub served: Option<Duration>,
}

/// Whom it was done to, and how that is known.
type Done = Result<(String, String), Status>;

/// What does it.
pub struct Nemesis {
    /// To whom.
    pub nodes: Nodes,
    /// Who asks whether they serve.
    pub prober: Caller,
    cut: Cut,
    disks: Option<Disks>,
    random: SeededRandom,
    shared: Arc<Shared>,
    injections: usize,
    hold: Option<Duration>,
}

impl Nemesis {
    /// Faults to these nodes.
    pub fn new(nodes: Nodes, cut: Cut, disks: Option<Disks>, options: &Options, shared: &Arc<Shared>) -> Self {
        let (seed, hold) = (options.seed, options.hold);
        let prober = Caller::new(CALLERS, seed, Reach::any(&nodes.endpoints()), shared);
        Self { nodes, prober, cut, disks, random: SeededRandom::new(seed), shared: shared.clone(), injections: 0, hold }
    }

    /// One fault from beginning to end, and until the cluster serves again.
    pub async fn inflict(&mut self, kind: Kind) -> Fault {
        let began = self.shared.began.elapsed();
        let hold = self.hold.unwrap_or_else(|| between(&self.random, kind.hold()));
        let done = match kind {
            Kind::KillOne | Kind::KillLeader | Kind::KillMajority | Kind::KillAll => self.kill(kind, hold).await,
            Kind::PauseOne | Kind::PauseLeader => self.pause(kind, hold).await,
            Kind::CutLeader | Kind::CutMinority | Kind::CutOneWay | Kind::CutBridge => self.partition(kind, hold).await,
            Kind::Loss => self.lose(hold).await,
            Kind::Delay => self.delay(hold).await,
            Kind::Clock => self.skew(hold).await,
            Kind::DiskFull => self.fill(hold).await,
            Kind::DiskSlow => self.slow(hold).await,
            Kind::DiskHung => self.hang(hold).await,
            Kind::SyncError => self.fail_sync().await,
            Kind::Rolling => self.roll().await,
            Kind::Snapshot => self.leave_behind().await,
            Kind::PowerLoss => self.lose_power(hold).await,
        };
        let healed = self.shared.began.elapsed();
        let served = self.recover(HEAL_MAX).await;
        let (target, status) = match done {
            Ok((target, evidence)) => (target, Status::Installed(evidence)),
            Err(status) => (String::new(), status),
        };
        if served.is_none() {
            self.shared.surprise(format!("{}: not served again within {HEAL_MAX:?}: {:?}", kind.name(), self.nodes.status().await));
        }
        Fault { kind, target, status, began, healed, served }
    }

    /// Starts what does not run, and waits until all nodes know one leader and a write is served. None: not in time.
    pub async fn recover(&mut self, patience: Duration) -> Option<Duration> {
        let began = tokio::time::Instant::now();
        while began.elapsed() < patience {
            self.look_after().await;
            let status = self.nodes.status().await;
            let leaders: Vec<_> = status.values().map(|status| status.leader).collect();
            let agreed =
                status.len() == self.nodes.all().len() && leaders.iter().all(|leader| leader.is_some() && *leader == leaders[0]);
            if agreed && self.prober.prove(KEYS).await {
                self.nodes.excused.clear();
                return Some(began.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        None
    }

    /// Nodes that ended by themselves. One that had no reason of ours is a finding.
    fn ended(&mut self) -> Vec<usize> {
        let ended = self.nodes.ended();
        for (node, how) in &ended {
            if !self.nodes.excused.contains(node) {
                let log = std::fs::read_to_string(self.nodes.log(*node)).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                self.shared.surprise(format!("node {node} ended by itself: {how}: {last:?}"));
            }
        }
        ended.into_iter().map(|(node, _)| node).collect()
    }

    /// Starts nodes that do not run.
    async fn look_after(&mut self) {
        self.ended();
        for node in self.nodes.all() {
            if !self.nodes.alive().contains(&node) {
                self.start(node).await;
            }
        }
    }

    async fn start(&mut self, node: usize) {
        if let Err(error) = self.nodes.start(node).await {
            self.shared.surprise(format!("node {node} can't be started: {error}"));
        }
    }

    /// The leader first, then others in some order.
    async fn ordered(&self) -> Result<Vec<usize>, Status> {
        let leader = self.nodes.leader().await.ok_or_else(|| Status::Indeterminate("nobody led".to_owned()))?;
        let mut others: Vec<usize> = self.nodes.all().into_iter().filter(|node| *node != leader).collect();
        let first = self.random.below(others.len() as u64) as usize;
        others.rotate_left(first);
        others.insert(0, leader);
        Ok(others)
    }

    async fn kill(&mut self, kind: Kind, hold: Duration) -> Done {
        let ordered = self.ordered().await?;
        let targets = match kind {
            Kind::KillOne => &ordered[1..2],
            Kind::KillLeader => &ordered[..1],
            Kind::KillMajority => &ordered[..self.nodes.majority()],
            _ => &ordered[..],
        };
        let pids = self.nodes.kill(targets);
        tokio::time::sleep(hold).await;
        for node in targets {
            self.start(*node).await;
        }
        let done = (named(targets), format!("gone: pids {pids:?}"));
        if pids.len() == targets.len() { Ok(done) } else { Err(Status::Indeterminate(done.1)) }
    }

    async fn pause(&mut self, kind: Kind, hold: Duration) -> Done {
        let ordered = self.ordered().await?;
        let node = if kind == Kind::PauseLeader { ordered[0] } else { ordered[1] };
        let sent = self.nodes.signal(node, Signal::STOP);
        tokio::time::sleep(hold).await;
        let paused = self.nodes.is_paused(node);
        self.nodes.signal(node, Signal::CONT);
        let evidence = format!("stood still at the end of {hold:?}");
        if sent && paused {
            Ok((named(&[node]), evidence))
        } else {
            Err(Status::Indeterminate("it did not stand still".to_owned()))
        }
    }

    async fn partition(&mut self, kind: Kind, hold: Duration) -> Done {
        let ordered = self.ordered().await?;
        let minority = ordered.len() - self.nodes.majority();
        let both = |a: &[usize], b: &[usize]| -> Vec<(usize, usize)> {
            a.iter().flat_map(|a| b.iter().flat_map(move |b| [(*a, *b), (*b, *a)])).collect()
        };
        let (pairs, target) = match kind {
            Kind::CutLeader => (both(&ordered[..1], &ordered[1..]), named(&ordered[..1])),
            Kind::CutMinority => {
                (both(&ordered[1..=minority], &[&ordered[..1], &ordered[minority + 1..]].concat()), named(&ordered[1..=minority]))
            }
            Kind::CutOneWay => {
                (ordered[1..].iter().map(|other| (ordered[0], *other)).collect(), format!("{} can't send", named(&ordered[..1])))
            }
            // The bridge is a follower: half of the others on each side.
            _ => {
                let (bridge, mut rest) = (ordered[1], ordered.clone());
                rest.retain(|node| *node != bridge);
                let (left, right) = rest.split_at(rest.len() / 2);
                (both(left, right), format!("{} | {} with node {bridge} between", named(left), named(right)))
            }
        };
        self.drop_packets(&pairs, 100, hold, target).await
    }

    async fn lose(&mut self, hold: Duration) -> Done {
        let percent = 10 + self.random.below(25);
        let pairs = self.nodes.proxies.pairs();
        self.drop_packets(&pairs, percent, hold, format!("{percent} % of packets between all")).await
    }

    async fn drop_packets(&mut self, pairs: &[(usize, usize)], percent: u64, hold: Duration, target: String) -> Done {
        let before = self.cut.affected(&self.nodes.proxies);
        self.cut.drop_packets(&self.nodes.proxies, pairs, percent).map_err(Status::Skipped)?;
        tokio::time::sleep(hold).await;
        let affected = self.cut.affected(&self.nodes.proxies).saturating_sub(before);
        if let Err(error) = self.cut.heal(&self.nodes.proxies) {
            self.shared.surprise(format!("a partition can't be healed: {error}"));
        }
        if affected == 0 {
            return Err(Status::Indeterminate("nothing was lost".to_owned()));
        }
        Ok((target, format!("{affected} packets or chunks by {}", self.cut.name())))
    }

    async fn delay(&mut self, hold: Duration) -> Done {
        let delay = Duration::from_millis(30 + self.random.below(170));
        let before = self.nodes.proxies.affected();
        let pairs = self.nodes.proxies.pairs();
        self.nodes.proxies.set(&pairs, Rule { delay, ..Rule::default() });
        tokio::time::sleep(hold).await;
        self.nodes.proxies.heal();
        let affected = self.nodes.proxies.affected() - before;
        if affected == 0 {
            return Err(Status::Indeterminate("nothing was delayed".to_owned()));
        }
        Ok((format!("{delay:?} each way between all"), format!("{affected} chunks came late")))
    }

    async fn skew(&mut self, hold: Duration) -> Done {
        let library = faketime().ok_or_else(|| Status::Skipped("libfaketime is not installed".to_owned()))?;
        let ordered = self.ordered().await?;
        let node = ordered[self.random.below(2) as usize];
        let environment = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME", "+400d"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ];
        self.nodes.environment.insert(node, environment.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec());
        self.nodes.kill(&[node]);
        self.start(node).await;
        let mut days = 0;
        let _ = tokio::time::timeout(Duration::from_secs(15), async {
            while days < 300 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let status = self.nodes.status().await;
                let wall = status.get(&node).map_or(0, |status| status.wall_ms);
                let others =
                    status.iter().filter(|(other, _)| **other != node).map(|(_, status)| status.wall_ms).max().unwrap_or(u64::MAX);
                days = wall.saturating_sub(others) / 86_400_000;
            }
        })
        .await;
        tokio::time::sleep(hold).await;
        self.nodes.environment.remove(&node);
        self.nodes.kill(&[node]);
        self.start(node).await;
        if days < 300 {
            return Err(Status::Indeterminate("the node's clock was not seen to differ".to_owned()));
        }
        Ok((named(&[node]), format!("its clock was {days} days ahead")))
    }

    async fn fill(&mut self, hold: Duration) -> Done {
        let node = self.ordered().await?[self.random.below(2) as usize];
        let Some(disks) = &self.disks else {
            return self.inject(node, "pwritev,pwritev2,pwrite64,fallocate", "error=ENOSPC", hold, "calls ended with ENOSPC").await;
        };
        let left = disks.fill(node).map_err(Status::Skipped)?;
        self.nodes.excused.push(node);
        tokio::time::sleep(hold).await;
        if let Err(error) = disks.empty(node) {
            self.shared.surprise(format!("the disk can't be emptied: {error}"));
        }
        Ok((named(&[node]), format!("{left} bytes were free")))
    }

    async fn slow(&mut self, hold: Duration) -> Done {
        let node = self.ordered().await?[self.random.below(2) as usize];
        let delay = 100_000 + self.random.below(700_000);
        self.inject(node, "fdatasync,fsync", &format!("delay_enter={delay}"), hold, &format!("syncs took {delay} us longer")).await
    }

    /// Six seconds: twice what a leader waits before it hands over. Each thread's next sync only, so that it ends.
    async fn hang(&mut self, hold: Duration) -> Done {
        let leader = self.ordered().await?[0];
        let said = |nodes: &Nodes| {
            let log = std::fs::read_to_string(nodes.log(leader)).unwrap_or_default();
            log.matches("the disk of this node hangs").count()
        };
        let before = said(&self.nodes);
        let (target, evidence) =
            self.inject(leader, "fdatasync,fsync", "delay_enter=6000000:when=1", hold, "syncs took 6 s longer").await?;
        if said(&self.nodes) == before {
            return Err(Status::Indeterminate(format!("{evidence}, and the node did not notice")));
        }
        Ok((target, format!("{evidence}; the node said so")))
    }

    async fn inject(&mut self, node: usize, calls: &str, what: &str, hold: Duration, evidence: &str) -> Done {
        let injection = self.attach(node, calls, what)?;
        if what.starts_with("error") {
            self.nodes.excused.push(node);
        }
        injection.took_effect(Duration::from_secs(10)).await;
        tokio::time::sleep(hold).await;
        let (count, complaint) = injection.detach().await;
        if count == 0 {
            return Err(Status::Indeterminate(format!("no call was treated: {complaint}")));
        }
        // Its own end is no finding where it was made to fail; it may also have gone on.
        let ended = if self.ended().contains(&node) { "; it stopped" } else { "" };
        Ok((named(&[node]), format!("{count} {evidence}{ended}")))
    }

    fn attach(&mut self, node: usize, calls: &str, what: &str) -> Result<Injection, Status> {
        if !crate::chaos::world::works("strace", &["-V"]) {
            return Err(Status::Skipped("strace is not installed".to_owned()));
        }
        let pid = self.nodes.pid(node).ok_or_else(|| Status::Indeterminate("the node does not run".to_owned()))?;
        self.injections += 1;
        let record = self
            .nodes
            .data(node)
            .parent()
            .and_then(|data| data.parent())
            .map(|dir| dir.join(format!("strace-{}", self.injections)));
        Injection::attach(pid, calls, what, record.unwrap_or_default()).map_err(Status::Skipped)
    }

    /// A node whose sync failed does not know what its disk holds: it must stop, and not sync again.
    async fn fail_sync(&mut self) -> Done {
        let node = self.ordered().await?[self.random.below(2) as usize];
        let injection = self.attach(node, "fdatasync,fsync", "error=EIO")?;
        self.nodes.excused.push(node);
        let took_effect = injection.took_effect(Duration::from_secs(10)).await;
        let mut stopped = false;
        let _ = tokio::time::timeout(Duration::from_secs(15), async {
            while took_effect && !stopped {
                tokio::time::sleep(Duration::from_millis(50)).await;
                stopped = self.ended().contains(&node);
            }
        })
        .await;
        let (count, complaint) = injection.detach().await;
        if count == 0 {
            return Err(Status::Indeterminate(format!("no sync was treated: {complaint}")));
        }
        if !stopped {
            self.shared.surprise(format!("node {node} goes on after {count} failed syncs"));
        }
        Ok((named(&[node]), format!("{count} syncs ended with EIO; stopped={stopped}")))
    }

    async fn roll(&mut self) -> Done {
        let mut pids = Vec::new();
        for node in self.nodes.all() {
            pids.extend(self.nodes.pid(node));
            if !self.nodes.stop(node, STOP_MAX).await {
                self.shared.surprise(format!("node {node} did not stop in good order within {STOP_MAX:?}"));
            }
            self.start(node).await;
            if self.recover(HEAL_MAX).await.is_none() {
                return Err(Status::Indeterminate(format!("node {node} was not back in time")));
            }
        }
        Ok(("all, one after the other".to_owned(), format!("ended: pids {pids:?}")))
    }

    async fn leave_behind(&mut self) -> Done {
        let ordered = self.ordered().await?;
        let node = ordered[1];
        let last = self.nodes.status().await.get(&node).and_then(|status| status.last_log).unwrap_or(u64::MAX);
        self.nodes.kill(&[node]);
        let stop = Arc::new(AtomicBool::new(false));
        let fillers: Vec<_> = (1..=2)
            .map(|n| {
                let reach = Reach::any(&self.nodes.endpoints());
                let filler = Caller::new(CALLERS + n, self.random.next(), reach, &self.shared);
                tokio::spawn(filler.fill(KEYS + n, BULK_BYTES, stop.clone()))
            })
            .collect();
        let mut purged = 0;
        let _ = tokio::time::timeout(FALL_BEHIND_MAX, async {
            while purged <= last {
                tokio::time::sleep(Duration::from_millis(200)).await;
                // Of every node that could send it entries.
                purged = self.nodes.status().await.values().map(|status| status.purged.unwrap_or(0)).min().unwrap_or(0);
            }
        })
        .await;
        stop.store(true, Ordering::Relaxed);
        for filler in fillers {
            let _ = filler.await;
        }
        self.start(node).await;
        if purged <= last {
            return Err(Status::Indeterminate(format!("the log it needs was not purged: last={last} purged={purged}")));
        }
        Ok((named(&[node]), format!("it had entries up to {last}, the others none up to {purged}")))
    }

    async fn lose_power(&mut self, hold: Duration) -> Done {
        let Some(disks) = &self.disks else { return Err(Status::Skipped("needs a file system for each node".to_owned())) };
        let all = self.nodes.all();
        let off: Result<Vec<()>, String> = all.iter().map(|node| disks.power_off(*node)).collect();
        self.nodes.kill(&all);
        let on: Result<Vec<()>, String> = all.iter().map(|node| disks.power_on(*node)).collect();
        tokio::time::sleep(hold).await;
        for node in &all {
            self.start(*node).await;
        }
        off.map_err(Status::Indeterminate)?;
        on.map_err(Status::Indeterminate)?;
        Ok((named(&all), "file systems were shut down without a flush, and mounted again".to_owned()))
    }

    /// From now on no sync of any node reaches its disk, and all say they do: what a power loss then takes must be found out.
    pub fn lie(&mut self) -> Result<Vec<Injection>, Status> {
        self.nodes.all().into_iter().map(|node| self.attach(node, "fdatasync,fsync", "retval=0")).collect()
    }
}

fn named(nodes: &[usize]) -> String {
    let numbers: Vec<String> = nodes.iter().map(usize::to_string).collect();
    format!("node{} {}", if nodes.len() == 1 { "" } else { "s" }, numbers.join(", "))
}

fn faketime() -> Option<String> {
    let found = |dir: std::path::PathBuf| Some(dir.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    let dirs = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    dirs.filter_map(found).next().map(|path| path.display().to_string())
}
