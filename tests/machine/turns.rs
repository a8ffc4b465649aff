//! Small scope of leases, completely: every interleaving of two clients that take, steal, renew, release and write, over answers that are
//! lost, copies that arrive late, a deadline that passes and a sweep; breadth-first with hashed states.
//!
//! What was granted, renewed and released is kept beside, from the answers alone. In every state: whatever was stored was written under the
//! lease that lived, or while none did; whatever was not stored changed nothing; a repeated request got its first answer; a fence is greater
//! than all before it; and the machine goes on as the one rebuilt from its rows.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use quorate::limits::LEASE_TTL_MIN;
use quorate::machine::Command;
use quorate::types::{
    Change, ClientId, Counters, Expiry, Fence, Holder, LeaseTtl, Outcome, Renewals, Revision, Verdict, Version, Write,
};

use crate::machine::lab::{Lab, blob, id, request};

/// What a client does, under the fence that it was granted last.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Take,
    Steal,
    Renew,
    Release,
    /// A save under its fence, or without one before it was ever granted one.
    Save,
    /// A save that never says a fence.
    Bare,
}

use Operation::{Bare, Release, Renew, Save, Steal, Take};

const EVERY: [Operation; 6] = [Take, Steal, Renew, Release, Save, Bare];

/// A request on its way.
#[derive(Clone)]
struct Sent {
    write: Write,
    /// Its client waits for it.
    live: bool,
    /// Copies that nobody waits for.
    stale: u8,
}

#[derive(Clone)]
struct Caller {
    client: ClientId,
    fence: Option<Fence>,
    done: usize,
    sent: Vec<Sent>,
}

#[derive(Clone)]
struct World {
    lab: Lab,
    callers: Vec<Caller>,
    now: u64,
    swept: bool,
    /// What may still go wrong.
    faults: u8,
    answers: BTreeMap<(u64, u64), Outcome>,
    /// Of the latest grant that was not released: its fence and its deadline.
    lease: Option<(Fence, u64)>,
    greatest: Fence,
    version: u64,
    seen: BTreeSet<&'static str>,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Submit(usize, Operation),
    Answer {
        caller: usize,
        at: usize,
        lost: bool,
    },
    /// Sent again, while the first copy is still under way.
    Again(usize),
    Late {
        caller: usize,
        at: usize,
    },
    Expire,
    Sweep,
}

impl World {
    fn new(faults: u8) -> Self {
        let mut lab = Lab::quick();
        lab.apply(1000, Command::SetClusterVersion { version: 2 });
        let callers = (0..2).map(|n| Caller { client: lab.open(1000, n), fence: None, done: 0, sent: Vec::new() }).collect();
        let (answers, seen) = (BTreeMap::new(), BTreeSet::new());
        Self { lab, callers, now: 1000, swept: false, faults, answers, lease: None, greatest: Fence(0), version: 0, seen }
    }

    fn actions(&self, operations: usize) -> Vec<Action> {
        let is_waiting = |caller: &Caller| caller.sent.iter().any(|sent| sent.live);
        if let Some(n) = self.callers.iter().position(|caller| !is_waiting(caller) && caller.done < operations) {
            return EVERY.map(|operation| Action::Submit(n, operation)).to_vec();
        }
        let mut actions = Vec::new();
        for (caller, of) in self.callers.iter().enumerate() {
            for (at, sent) in of.sent.iter().enumerate() {
                if sent.live {
                    actions.push(Action::Answer { caller, at, lost: false });
                }
                if sent.live && self.faults > 0 {
                    actions.extend([Action::Answer { caller, at, lost: true }, Action::Again(caller)]);
                }
                if sent.stale > 0 {
                    actions.push(Action::Late { caller, at });
                }
            }
        }
        if self.now == 1000 && self.lease.is_some() {
            actions.push(Action::Expire);
        }
        if self.now > 1000 && !self.swept {
            actions.push(Action::Sweep);
        }
        actions
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Submit(n, operation) => {
                let write = self.write(n, operation);
                self.callers[n].sent.push(Sent { write, live: true, stale: 0 });
            }
            Action::Again(n) => {
                self.faults -= 1;
                self.callers[n].sent.last_mut().expect("it waits").stale += 1;
            }
            Action::Late { caller, at } => {
                self.callers[caller].sent[at].stale -= 1;
                let write = self.callers[caller].sent[at].write.clone();
                self.execute(&write);
            }
            Action::Answer { caller, at, lost } => {
                let write = self.callers[caller].sent[at].write.clone();
                let outcome = self.execute(&write);
                if lost {
                    self.faults -= 1;
                    return;
                }
                let caller = &mut self.callers[caller];
                caller.sent[at].live = false;
                caller.done += 1;
                if let Verdict::LeaseGranted { fence, .. } = outcome.verdict {
                    caller.fence = Some(fence);
                }
            }
            Action::Expire => {
                self.now += LEASE_TTL_MIN.as_millis() as u64;
                self.lab.apply(self.now, Command::Sweep { limit: 0 });
            }
            Action::Sweep => {
                self.lab.apply(self.now, Command::Sweep { limit: 10 });
                self.swept = true;
            }
        }
    }

    fn write(&self, n: usize, operation: Operation) -> Write {
        let caller = &self.callers[n];
        let sequence = caller.done as u64 + 1;
        let (request, id) = (request(caller.client, n as u8, sequence, sequence), id("s"));
        let (ttl, fence) = (LeaseTtl::new(LEASE_TTL_MIN).expect("within"), caller.fence.unwrap_or(Fence(1)));
        let save = |fence| {
            let change = Change::Full { chunks: Vec::new(), head: blob("h"), counters: Counters::default() };
            Write::Save { request, id: id.clone(), change, attributes: Expiry::Keep.into(), fence }
        };
        let holder = || Holder::new(&n.to_string()).expect("short");
        match operation {
            Take => Write::AcquireLease { request, id, holder: holder(), ttl, steal: false },
            Steal => Write::AcquireLease { request, id, holder: holder(), ttl, steal: true },
            Renew => Write::RenewLeases { request, leases: Renewals::new(vec![(id, fence)]).expect("one"), ttl },
            Release => Write::ReleaseLease { request, id, fence },
            Save => save(caller.fence),
            Bare => save(None),
        }
    }

    fn execute(&mut self, write: &Write) -> Outcome {
        let index = self.lab.next_index;
        let outcome = self.lab.write(self.now, write.clone());
        let version = self.lab.machine.info(&id("s")).map_or(0, |info| info.version.0);
        let before = std::mem::replace(&mut self.version, version);
        let request = write.request().expect("has one");
        let key = (request.client.0, request.sequence.0);
        if outcome.verdict == Verdict::Stale {
            self.seen.insert("Stale");
            assert_eq!(version, before);
            return outcome;
        }
        if let Some(first) = self.answers.get(&key) {
            self.seen.insert("repeated");
            assert_eq!((first, version), (&outcome, before), "a repeated request got another answer, or changed something");
            return outcome;
        }
        assert_eq!(outcome.revision, Revision(index), "a new request got an old answer");
        self.answers.insert(key, outcome.clone());
        let living = self.lease.filter(|(_, deadline_ms)| *deadline_ms > self.now).map(|(fence, _)| fence);
        let changed = match (&outcome.verdict, write) {
            (Verdict::Saved(saved), write) => {
                assert_eq!(write.fence(), living, "stored, and not under the lease that lives");
                assert_eq!(saved.content.version, Version(before + 1));
                true
            }
            (Verdict::LeaseGranted { fence, deadline_ms }, Write::AcquireLease { steal, .. }) => {
                assert!(*steal || living.is_none(), "granted while another lives");
                assert!(*fence > self.greatest, "a fence that does not grow fence={fence} greatest={}", self.greatest);
                (self.greatest, self.lease) = (*fence, Some((*fence, *deadline_ms)));
                false
            }
            (Verdict::LeaseHeld { .. }, _) => {
                assert!(living.is_some());
                false
            }
            (Verdict::LeasesRenewed { deadline_ms, lost }, Write::RenewLeases { leases, .. }) => {
                let of_living = Some(leases.as_slice()[0].1) == living;
                assert_eq!(!lost.has(0), of_living, "renewed iff it lives");
                if let Some((_, until_ms)) = self.lease.as_mut().filter(|_| of_living) {
                    *until_ms = (*until_ms).max(*deadline_ms);
                }
                false
            }
            (Verdict::LeaseReleased, Write::ReleaseLease { fence, .. }) => {
                assert_eq!(living, Some(*fence));
                self.lease = None;
                false
            }
            (Verdict::LeaseLost, Write::ReleaseLease { fence, .. }) => {
                assert_ne!(living, Some(*fence));
                false
            }
            (Verdict::Leased { .. }, write) => {
                assert!(living.is_some() && write.fence().is_none());
                false
            }
            (Verdict::Fenced { current }, write) => {
                assert_eq!(*current, living);
                assert!(write.fence().is_some_and(|fence| Some(fence) != living));
                false
            }
            other => panic!("not an answer to this: {other:?}"),
        };
        assert_eq!(version != before, changed, "{:?}", outcome.verdict);
        self.seen.insert(kind(&outcome.verdict));
        outcome
    }

    /// Up to renaming of fences, which only grow, and of versions, which nothing asks.
    fn hash(&self) -> u64 {
        let mut fences: BTreeSet<Fence> = self.callers.iter().filter_map(|caller| caller.fence).collect();
        fences.extend(self.lease.map(|(fence, _)| fence));
        let open = || self.callers.iter().flat_map(|caller| caller.sent.iter()).filter(|sent| sent.live || sent.stale > 0);
        fences.extend(open().filter_map(|sent| fence_of(&sent.write)));
        let rank = |fence: Fence| fences.iter().position(|other| *other == fence);
        let mut hasher = DefaultHasher::new();
        (self.now, self.swept, self.faults).hash(&mut hasher);
        self.lease.map(|(fence, deadline_ms)| (rank(fence), deadline_ms)).hash(&mut hasher);
        for caller in &self.callers {
            (caller.fence.map(rank), caller.done).hash(&mut hasher);
            for sent in caller.sent.iter().filter(|sent| sent.live || sent.stale > 0) {
                let request = sent.write.request().expect("has one");
                let steals = matches!(sent.write, Write::AcquireLease { steal: true, .. });
                let answered = self.answers.get(&(request.client.0, request.sequence.0));
                let answer = answered.map(|outcome| (kind(&outcome.verdict), granted(&outcome.verdict).map(rank)));
                (std::mem::discriminant(&sent.write), steals, fence_of(&sent.write).map(rank)).hash(&mut hasher);
                (request.sequence, answer, sent.live, sent.stale).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

fn fence_of(write: &Write) -> Option<Fence> {
    match write {
        Write::RenewLeases { leases, .. } => Some(leases.as_slice()[0].1),
        Write::ReleaseLease { fence, .. } => Some(*fence),
        write => write.fence(),
    }
}

fn granted(verdict: &Verdict) -> Option<Fence> {
    if let Verdict::LeaseGranted { fence, .. } = verdict { Some(*fence) } else { None }
}

fn kind(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Saved(_) => "Saved",
        Verdict::LeaseGranted { .. } => "LeaseGranted",
        Verdict::LeaseHeld { .. } => "LeaseHeld",
        Verdict::LeasesRenewed { lost, .. } if lost.has(0) => "lost",
        Verdict::LeasesRenewed { .. } => "renewed",
        Verdict::LeaseReleased => "LeaseReleased",
        Verdict::LeaseLost => "LeaseLost",
        Verdict::Leased { .. } => "Leased",
        Verdict::Fenced { .. } => "Fenced",
        _ => "other",
    }
}

#[test]
fn every_interleaving_of_two_turns_keeps_them_apart() {
    // Two operations each, or in an optimized build, as the gate has it, three.
    let (operations, states_min) = if std::env::var_os("MODEL_WHOLE").is_some() { (3, 100_000) } else { (2, 15_000) };
    let start = World::new(1);
    let mut states = HashSet::from([start.hash()]);
    let mut queue = VecDeque::from([start]);
    let mut seen = BTreeSet::new();
    while let Some(world) = queue.pop_front() {
        for action in world.actions(operations) {
            let mut next = world.clone();
            next.act(action);
            seen.append(&mut next.seen);
            if !states.insert(next.hash()) {
                continue;
            }
            if next.lab.next_index != world.lab.next_index {
                next.lab.machine.check().expect("invariants");
                next.lab.rebuild();
            }
            next.callers.iter_mut().for_each(|caller| caller.sent.retain(|sent| sent.live || sent.stale > 0));
            queue.push_back(next);
        }
    }
    println!("states={}", states.len());
    for kind in [
        "Saved",
        "LeaseGranted",
        "LeaseHeld",
        "renewed",
        "lost",
        "LeaseReleased",
        "LeaseLost",
        "Leased",
        "Fenced",
        "repeated",
        "Stale",
    ] {
        assert!(seen.contains(kind), "no interleaving was answered {kind} seen={seen:?}");
    }
    assert!(states.len() > states_min, "the scope is too small states={}", states.len());
}
