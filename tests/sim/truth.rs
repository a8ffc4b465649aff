//! What nodes say in an outage, against what is true: who leads, and how old what they show is. Operators and balancers act on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate::testing::history::Op;

use super::coverage::sometimes;
use super::nemesis::Nemesis;
use super::net;
use super::node::Host;

/// A leader may name itself for so long without a majority: an election timeout, and some rounds of messages.
const OWN: Duration = Duration::from_millis(3000);
/// Others may name it for so long: it may have been confirmed just before they last heard of it.
const OTHERS: Duration = Duration::from_millis(6000);
/// Virtual time goes on in steps.
const STEP: Duration = Duration::from_millis(5);

/// Links that carry nothing. One that two faults cut counts as whole once the first has ended: what is here is certain.
#[derive(Default)]
pub struct Cuts(BTreeSet<(String, String)>);

impl Cuts {
    /// From one host to another nothing gets through.
    pub fn cut(&mut self, from: &str, to: &str) {
        self.0.insert((from.to_owned(), to.to_owned()));
    }

    /// Perhaps it does again.
    pub fn heal(&mut self, a: &str, b: &str) {
        self.0.retain(|(from, to)| (&from[..], &to[..]) != (a, b) && (&from[..], &to[..]) != (b, a));
    }

    fn is_cut(&self, a: u64, b: u64) -> bool {
        let (a, b) = (Host::name(a), Host::name(b));
        self.0.contains(&(a.clone(), b.clone())) || self.0.contains(&(b, a))
    }
}

/// What a node showed without a quorum.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub at: Duration,
    pub age: Duration,
    pub revision: u64,
}

/// Watches who is named as leader.
#[derive(Default)]
pub struct Watch {
    /// By node: whom it names, and since when that one certainly has no majority.
    since: BTreeMap<u64, (u64, Duration)>,
    pub violations: Vec<String>,
}

impl Watch {
    /// Looks at every node. Slow links keep words under way for as long as they like: then nobody is judged.
    pub fn look(&mut self, now: Duration, hosts: &[Host], nemesis: &Nemesis) {
        let is_up =
            |host: &Host| !nemesis.down.contains(&host.id) && host.slot.lock().expect("no host panics with it").ended.is_none();
        let up: BTreeSet<u64> = hosts.iter().filter(|host| is_up(host)).map(|host| host.id).collect();
        for host in hosts {
            let (believes, voters) = {
                let slot = host.slot.lock().expect("no host panics with it");
                (slot.believes, slot.settled.clone())
            };
            let Some(leader) = believes.filter(|_| up.contains(&host.id) && !net::is_any_slow()) else {
                self.since.remove(&host.id);
                continue;
            };
            let at_leader = hosts.iter().find(|other| other.id == leader && up.contains(&leader));
            let voters = at_leader.map_or(voters, |other| other.slot.lock().expect("no host panics with it").settled.clone());
            let answers = |voter: &&u64| up.contains(voter) && (**voter == leader || !nemesis.cuts.is_cut(leader, **voter));
            let has_majority = up.contains(&leader) && 2 * voters.iter().filter(answers).count() > voters.len();
            if has_majority || voters.is_empty() {
                self.since.remove(&host.id);
                continue;
            }
            let since = self.since.entry(host.id).or_insert((leader, now));
            if since.0 != leader {
                *since = (leader, now);
            }
            let limit = if leader == host.id { OWN } else { OTHERS };
            if now.saturating_sub(since.1) > limit && self.violations.len() < 3 {
                let alone = now.saturating_sub(since.1);
                self.violations.push(format!("n{} names n{leader} as leader, which has had no majority for {alone:?}", host.id));
            }
        }
    }
}

/// Whether what a node showed holds everything that was acknowledged before it says.
pub fn judge(host: u64, shown: &[Seen], history: &[Op]) -> Vec<String> {
    let mut known: Vec<(Duration, u64)> = history.iter().filter_map(|op| Some((op.returned, op.answer.revision()?))).collect();
    known.sort_unstable();
    let mut newest = 0;
    for (_, revision) in &mut known {
        newest = newest.max(*revision);
        *revision = newest;
    }
    let mut wrong = Vec::new();
    for seen in shown {
        let until = seen.at.saturating_sub(seen.age + STEP);
        let before = known.partition_point(|(returned, _)| *returned < until);
        let acknowledged = before.checked_sub(1).map_or(0, |last| known[last].1);
        if seen.age < Duration::from_secs(1) {
            sometimes("stale read younger than a second");
        } else if seen.age > Duration::from_secs(3) {
            sometimes("stale read older than three seconds");
        }
        if seen.revision < acknowledged {
            wrong.push(format!("n{host} shows less than it says: {seen:?}, and {acknowledged} was acknowledged before that"));
        }
    }
    wrong
}
