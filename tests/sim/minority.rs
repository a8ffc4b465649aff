//! Full disks on a minority and nothing else: saves must go on (decision 0054).
//!
//! ```text
//! all other faults end ──settle──> disks of a minority of the voters, and of any learners, are full ──hold──> room again
//!                                  every bound that passes without a save that was acknowledged is a violation
//! ```

use std::sync::Mutex;
use std::time::Duration;

use quorate::testing::history::{Answer, Ask};
use quorate::testing::inline::SeededRandom;

use super::coverage::sometimes;
use super::node::Host;
use super::workload::Shared;

/// From the end of all other faults until disks fill up; nobody changes the members any more after the first part of it.
const SETTLE: Duration = Duration::from_secs(7);
const CHANGES_UNTIL: Duration = Duration::from_millis(1500);
/// How long disks are full.
const HOLD: Duration = Duration::from_secs(14);
/// A save is acknowledged within this: a leader whose log has no room is noticed, another leads, and a caller has tried again.
const BOUND: Duration = Duration::from_secs(10);
/// Entries that a voter may be behind when it begins.
const BEHIND_MAX: u64 = 500;

/// Where a trial is.
pub enum Trial {
    Settling {
        began: Duration,
    },
    Full {
        ids: Vec<u64>,
        since: Duration,
        /// The operations before this one began earlier.
        first: usize,
    },
}

/// What a trial asks for.
pub enum Next {
    GoOn(Trial),
    /// These disks are full from now on.
    Fill(Vec<u64>),
    /// It ends; these have room again.
    End(Vec<u64>),
    Violation(String),
}

impl Trial {
    /// Goes on; `quiet`: nobody is down, and no fault is open.
    pub fn step(self, now: Duration, quiet: bool, hosts: &[Host], shared: &Mutex<Shared>, random: &SeededRandom) -> Next {
        let is_sound = |host: &Host| {
            let slot = host.slot.lock().expect("no host panics with it");
            slot.ended.is_none() && !slot.wiped && !slot.corrupt
        };
        let is_sound = quiet && hosts.iter().all(is_sound);
        match self {
            Self::Settling { began } if now < began + SETTLE => {
                shared.lock().expect("no client panics with it").is_settled = now >= began + CHANGES_UNTIL;
                Next::GoOn(self)
            }
            Self::Settling { .. } => match choose(hosts, random).filter(|_| is_sound) {
                Some(ids) => Next::Fill(ids),
                None => Next::End(Vec::new()),
            },
            // Something of an earlier fault came late: then this proves nothing.
            Self::Full { ids, .. } if !is_sound => Next::End(ids),
            Self::Full { ids, since, first } => {
                let last = last_save(shared, first, since);
                if now > last.unwrap_or(since) + BOUND {
                    return Next::Violation(format!(
                        "no save was taken within {BOUND:?} though a majority had room full={ids:?} since={since:?} now={now:?}"
                    ));
                }
                if now < since + HOLD {
                    return Next::GoOn(Self::Full { ids, since, first });
                }
                sometimes("saves taken beside full disks");
                Next::End(ids)
            }
        }
    }
}

/// When the last save was acknowledged that began since; `None`: none was.
fn last_save(shared: &Mutex<Shared>, first: usize, since: Duration) -> Option<Duration> {
    let shared = shared.lock().expect("no client panics with it");
    let is_save = |ask: Ask| matches!(ask, Ask::Save { .. } | Ask::SaveIf { .. });
    let ops = shared.history[first.min(shared.history.len())..].iter();
    let taken = ops.filter(|op| is_save(op.ask) && matches!(op.answer, Answer::Written { .. }) && op.invoked >= since);
    taken.map(|op| op.returned).filter(|at| *at < Duration::MAX).max()
}

/// A minority of the voters, every other time the leader among them, and some of the others. `None`: the members are just changing, or
/// somebody is far behind.
fn choose(hosts: &[Host], random: &SeededRandom) -> Option<Vec<u64>> {
    let of = |host: &Host| {
        let slot = host.slot.lock().expect("no host panics with it");
        (host.id, slot.leads, slot.applied, slot.voters.clone())
    };
    let all: Vec<_> = hosts.iter().map(of).collect();
    let (leader, _, applied, configs) = all.iter().find(|host| host.1)?.clone();
    let [voters] = &configs[..] else { return None };
    let is_near = |id: &u64| all.iter().any(|host| host.0 == *id && host.2 + BEHIND_MAX > applied);
    if voters.len() < 3 || !voters.iter().all(is_near) {
        return None;
    }
    let mut ids: Vec<u64> = voters.iter().copied().collect();
    ids.rotate_left(random.below(voters.len() as u64) as usize);
    if random.below(2) == 0 {
        ids.retain(|id| *id != leader);
        ids.insert(0, leader);
    }
    ids.truncate(1 + random.below((voters.len() as u64 - 1) / 2) as usize);
    ids.extend(hosts.iter().map(|host| host.id).filter(|id| !voters.contains(id) && random.below(2) == 0));
    Some(ids)
}
