//! Small scope, completely: every interleaving of two clients with three operations each, over a network that delays, repeats and loses,
//! with expiry, sweeps and give-ups, breadth-first with hashed states.
//!
//! ```text
//! client:   submit ─> request in the network ─> applied ─> reply delivered, or lost
//!             └ perhaps twice (a retry)  └ give up (Indeterminate): the sequence is closed, and a new operation follows
//! BaseMismatch delivered: the same request again, with the full change
//! ```
//!
//! In every state: invariants hold; the machine rebuilt from its rows is the same one (a snapshot or restart at that instant); no
//! request was executed twice; a repeated request got its first answer; versions are dense; no item is stored twice; and where
//! nothing overwrites or deletes, no acknowledged item is missing.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use quorate::machine::{Command, Plan};
use quorate::types::{
    Base, Change, ClientId, Counters, Expected, Expiry, Load, OnConflict, Outcome, Revision, SessionId, Verdict, Version, Write,
};

use crate::lab::{Lab, blob, chunk, id, request};

const TTL: Duration = Duration::from_millis(500);

/// What a client does, from what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    /// Appends on the base it knows, unconditionally; the full change after `BaseMismatch`.
    Append,
    /// Appends to whatever is newest.
    Rebase,
    /// Stores the whole only if nothing changed.
    Replace,
    /// As `Append`, and the session expires.
    Expiring,
    /// Deletes.
    Delete,
}

/// A request in flight.
#[derive(Clone, Debug)]
struct Pending {
    write: Write,
    /// Copies in the network.
    copies: u8,
    /// The client still waits.
    waiting: bool,
}

#[derive(Clone, Debug)]
struct Caller {
    client: ClientId,
    script: [Operation; 3],
    next: usize,
    sequence: u64,
    known: Base,
    /// Its requests whose copies may still arrive; the last one may be waited for.
    pending: Vec<Pending>,
}

#[derive(Clone)]
struct World {
    lab: Lab,
    callers: Vec<Caller>,
    /// Answers by client and sequence, as first given.
    answers: BTreeMap<(u64, u64), Outcome>,
    /// The version the session or its tombstone had last.
    version: u64,
    /// Texts of items that were acknowledged.
    acknowledged: BTreeSet<String>,
    may_vanish: bool,
    now: u64,
    swept: bool,
    /// Retries and give-ups left: one each, at any operation of either caller.
    retries: u8,
    give_ups: u8,
    /// The kind of the latest answer, for coverage.
    answered: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Submit { caller: usize, copies: u8 },
    GiveUp(usize),
    Deliver { caller: usize, pending: usize, lost: bool },
    Expire,
    Sweep,
}

fn session() -> SessionId {
    id("s")
}

impl World {
    fn new(scripts: [[Operation; 3]; 2]) -> Self {
        let mut lab = Lab { quick: true, ..Lab::new() };
        let callers = scripts.into_iter().enumerate().map(|(number, script)| Caller {
            client: lab.open(1000, number as u8),
            script,
            next: 0,
            sequence: 1,
            known: Base::Absent,
            pending: Vec::new(),
        });
        let callers = callers.collect();
        let overwrites = |operation: &Operation| !matches!(operation, Operation::Rebase);
        let may_vanish = scripts.iter().flatten().any(overwrites);
        let answers = BTreeMap::new();
        Self {
            lab,
            callers,
            answers,
            version: 0,
            acknowledged: BTreeSet::new(),
            may_vanish,
            now: 1000,
            swept: false,
            retries: 1,
            give_ups: 1,
            answered: None,
        }
    }

    /// Steps possible here. What one caller does by itself comes first and alone: no other step can tell when it happened. For the
    /// same reason a retry is a second copy from the start, and a reply is lost only where another copy will bring it.
    fn actions(&self) -> Vec<Action> {
        let is_waiting = |caller: &Caller| caller.pending.last().is_some_and(|pending| pending.waiting);
        let idle = self.callers.iter().position(|caller| !is_waiting(caller) && caller.next < caller.script.len());
        if let Some(caller) = idle {
            let copies = 1..=1 + self.retries;
            return copies.map(|copies| Action::Submit { caller, copies }).collect();
        }
        let mut actions = Vec::new();
        for (n, caller) in self.callers.iter().enumerate() {
            actions.extend((self.give_ups > 0 && is_waiting(caller)).then_some(Action::GiveUp(n)));
            for (at, pending) in caller.pending.iter().enumerate().filter(|(_, pending)| pending.copies > 0) {
                actions.push(Action::Deliver { caller: n, pending: at, lost: false });
                if pending.waiting && pending.copies > 1 {
                    actions.push(Action::Deliver { caller: n, pending: at, lost: true });
                }
            }
        }
        let has_deadline = self.lab.machine.info(&session()).is_some_and(|info| info.deadline_ms.is_some());
        if self.now == 1000 && has_deadline {
            actions.push(Action::Expire);
        }
        if self.now > 1000 && !self.swept {
            actions.push(Action::Sweep);
        }
        actions
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Submit { caller, copies } => self.submit(caller, copies),
            Action::GiveUp(n) => {
                // Indeterminate: it knows nothing any more, until it loads.
                self.finish(n);
                self.give_ups -= 1;
                self.callers[n].known = self.current();
            }
            Action::Deliver { caller, pending, lost } => self.deliver(caller, pending, lost),
            Action::Expire => {
                self.now += u64::try_from(TTL.as_millis()).expect("short");
                self.lab.apply(self.now, Command::Sweep { limit: 0 });
                self.version += 1;
                self.may_vanish = true;
            }
            Action::Sweep => {
                self.lab.apply(self.now, Command::Sweep { limit: 10 });
                self.swept = true;
            }
        }
    }

    fn current(&self) -> Base {
        self.lab.machine.info(&session()).map_or(Base::Absent, |info| Base::At {
            create_revision: info.create_revision,
            version: info.version,
            items: info.items,
        })
    }

    fn submit(&mut self, n: usize, copies: u8) {
        self.retries -= copies - 1;
        let caller = &mut self.callers[n];
        let operation = caller.script[caller.next];
        let label = format!("{n}.{}", caller.sequence);
        let request = request(caller.client, n as u8, caller.sequence, caller.sequence);
        let head = (caller.known == Base::Absent).then(|| blob("h"));
        let delta = Change::Delta { base: caller.known, chunks: vec![chunk(1, &label)], head, counters: Counters::default() };
        let expected = match caller.known {
            Base::Absent => Expected::Absent,
            Base::At { version, create_revision, .. } => Expected::At { version, create_revision: Some(create_revision) },
        };
        let (id, expiry) = (session(), Expiry::Keep);
        let conditional =
            |change, on_conflict| Write::SaveIfVersion { request, id: id.clone(), expected, change, on_conflict, expiry };
        let write = match operation {
            Operation::Append => Write::Save { request, id: id.clone(), change: delta, expiry },
            Operation::Expiring => Write::Save { request, id: id.clone(), change: delta, expiry: Expiry::After(TTL) },
            Operation::Rebase => conditional(delta, OnConflict::Rebase),
            Operation::Replace => conditional(full(&label), OnConflict::Reject),
            Operation::Delete => Write::Delete { request, id: id.clone(), expected: None },
        };
        caller.pending.push(Pending { write, copies, waiting: true });
    }

    fn finish(&mut self, n: usize) {
        let caller = &mut self.callers[n];
        if let Some(pending) = caller.pending.last_mut() {
            pending.waiting = false;
        }
        caller.next += 1;
        caller.sequence += 1;
    }

    fn deliver(&mut self, n: usize, at: usize, lost: bool) {
        let pending = &mut self.callers[n].pending[at];
        pending.copies -= 1;
        let (write, waiting) = (pending.write.clone(), pending.waiting);
        let request = *write.request().expect("has one");
        let index = self.lab.next_index;
        let outcome = self.lab.write(self.now, write.clone());
        self.judge(&write, &outcome, index);
        if lost || !waiting {
            return;
        }
        match &outcome.verdict {
            Verdict::BaseMismatch => {
                let label = format!("{n}.{}", request.sequence);
                let pending = &mut self.callers[n].pending[at];
                let Write::Save { request, id, expiry, .. } = write else {
                    // A conditional one can't know how to go on: its caller loads.
                    self.finish(n);
                    self.callers[n].known = self.current();
                    return;
                };
                // Copies of the delta may still be under way; they carry the same request.
                pending.waiting = false;
                let full = Write::Save { request, id, change: full(&label), expiry };
                self.callers[n].pending.push(Pending { write: full, copies: 1, waiting: true });
            }
            Verdict::Saved(saved) => {
                let appended = matches!(write.change(), Some(Change::Delta { .. }));
                if appended {
                    self.acknowledged.insert(format!("{n}.{}", request.sequence));
                }
                let (create_revision, version, items) = (saved.create_revision, saved.version, saved.items);
                // After a rebase the stored items are not this caller's; it loads.
                let known = if saved.rebased { self.current() } else { Base::At { create_revision, version, items } };
                self.finish(n);
                self.callers[n].known = known;
            }
            Verdict::Deleted { .. } | Verdict::NotFound { .. } => {
                self.finish(n);
                self.callers[n].known = Base::Absent;
            }
            Verdict::Conflict { .. } => {
                self.finish(n);
                self.callers[n].known = self.current();
            }
            other => panic!("an open request was answered {other:?}"),
        }
    }

    /// Checks one answer against everything answered before.
    fn judge(&mut self, write: &Write, outcome: &Outcome, index: u64) {
        let request = write.request().expect("has one");
        let key = (request.client.0, request.sequence.0);
        let is_fresh = outcome.revision == Revision(index);
        self.answered = Some(kind(outcome, is_fresh));
        match &outcome.verdict {
            Verdict::BaseMismatch | Verdict::Stale => {
                assert!(is_fresh);
                // A mismatch after an answer would have the client send the full change again.
                assert!(outcome.verdict == Verdict::Stale || !self.answers.contains_key(&key), "answered, then BaseMismatch");
                return;
            }
            _ => {}
        }
        if let Some(first) = self.answers.get(&key) {
            assert_eq!(first, outcome, "a repeated request got another answer");
            return;
        }
        assert!(is_fresh, "a new request got an old answer");
        let written = match &outcome.verdict {
            Verdict::Saved(saved) => Some(saved.version),
            Verdict::Deleted { version } => Some(*version),
            _ => None,
        };
        if let Some(version) = written {
            assert_eq!(version, Version(self.version + 1), "versions are dense");
            self.version += 1;
        }
        self.answers.insert(key, outcome.clone());
    }

    /// What must hold after every step; what a state's hash stands for is checked once for each.
    fn check(&self) {
        let texts = self.items();
        let distinct: BTreeSet<_> = texts.iter().cloned().collect();
        assert_eq!(texts.len(), distinct.len(), "an item is stored twice {texts:?}");
        if !self.may_vanish {
            assert!(self.acknowledged.is_subset(&distinct), "acknowledged items are missing {texts:?} {:?}", self.acknowledged);
        }
    }

    fn items(&self) -> Vec<String> {
        let chunks = self.lab.content(&session()).map(|(chunks, _)| chunks).unwrap_or_default();
        chunks.iter().map(|chunk| String::from_utf8_lossy(&chunk.blob.data).into_owned()).collect()
    }

    /// The state up to renaming of log indexes, which only grow: two states that hash alike behave alike.
    fn hash(&self) -> u64 {
        let mut ranks = BTreeSet::new();
        let load = Load { id: session(), have: None, consistency: Default::default() };
        let plan = self.lab.machine.plan(&load);
        if let Plan::Read { info, .. } = &plan {
            ranks.insert(info.create_revision);
        }
        for caller in &self.callers {
            ranks.extend(created(&caller.known));
            ranks.extend(caller.pending.iter().filter(|pending| pending.copies > 0).flat_map(|pending| revisions(&pending.write)));
        }
        let rank = |revision: Revision| ranks.iter().position(|other| *other == revision);
        let mut hasher = DefaultHasher::new();
        // The order of items changes nothing that follows.
        let items: BTreeSet<_> = self.items().into_iter().collect();
        match &plan {
            Plan::Read { info, .. } => (rank(info.create_revision), info.version, info.deadline_ms, items).hash(&mut hasher),
            other => format!("{other:?}").hash(&mut hasher),
        }
        (self.now, self.swept, self.may_vanish, self.retries, self.give_ups).hash(&mut hasher);
        if !self.may_vanish {
            self.acknowledged.hash(&mut hasher);
        }
        // Only answers that may be asked for again.
        let asked = self.callers.iter().flat_map(|caller| {
            let open = caller.pending.iter().filter(|pending| pending.copies > 0 || pending.waiting);
            open.filter_map(|pending| pending.write.request().map(|request| (request.client.0, request.sequence.0)))
        });
        for (key, outcome) in asked.filter_map(|key| Some((key, self.answers.get(&key)?))) {
            let created = match &outcome.verdict {
                Verdict::Saved(saved) => (rank(saved.create_revision), saved.items, saved.rebased),
                _ => (None, 0, false),
            };
            (key, created, std::mem::discriminant(&outcome.verdict)).hash(&mut hasher);
        }
        for caller in &self.callers {
            (caller.next, caller.sequence, base_key(&caller.known, &rank)).hash(&mut hasher);
            for pending in caller.pending.iter().filter(|pending| pending.copies > 0 || pending.waiting) {
                let delta = match pending.write.change() {
                    Some(Change::Delta { base, .. }) => base_key(base, &rank),
                    _ => (3, None, 0, 0),
                };
                let sequence = pending.write.request().map(|request| request.sequence);
                (sequence, delta, pending.copies, pending.waiting).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

fn kind(outcome: &Outcome, is_fresh: bool) -> &'static str {
    match &outcome.verdict {
        _ if !is_fresh => "repeated",
        Verdict::Saved(saved) if saved.rebased => "rebased",
        Verdict::Saved(_) => "Saved",
        Verdict::Deleted { .. } => "Deleted",
        Verdict::NotFound { .. } => "NotFound",
        Verdict::Conflict { .. } => "Conflict",
        Verdict::BaseMismatch => "BaseMismatch",
        Verdict::Stale => "Stale",
        _ => "other",
    }
}

fn full(label: &str) -> Change {
    Change::Full { chunks: vec![chunk(1, &format!("full {label}"))], head: blob("h"), counters: Counters::default() }
}

fn created(base: &Base) -> Option<Revision> {
    match base {
        Base::Absent => None,
        Base::At { create_revision, .. } => Some(*create_revision),
    }
}

fn revisions(write: &Write) -> Option<Revision> {
    match write.change() {
        Some(Change::Delta { base, .. }) => created(base),
        _ => None,
    }
}

fn base_key(base: &Base, rank: &impl Fn(Revision) -> Option<usize>) -> (u8, Option<usize>, u64, u64) {
    match base {
        Base::Absent => (0, None, 0, 0),
        Base::At { create_revision, version, items } => (1, rank(*create_revision), version.0, *items),
    }
}

/// Visits every state of one pair of scripts, checks that each kind of answer came up, and returns how many states there are.
fn explore(scripts: [[Operation; 3]; 2], kinds: &[&str]) -> usize {
    let start = World::new(scripts);
    let mut seen = BTreeSet::from([start.hash()]);
    let mut queue = VecDeque::from([start]);
    let (mut finished, mut answered) = (0, BTreeSet::new());
    while let Some(world) = queue.pop_front() {
        finished += usize::from(world.callers.iter().all(|caller| caller.next == 3));
        for action in world.actions() {
            let mut next = world.clone();
            next.act(action);
            next.check();
            answered.extend(next.answered.take());
            if !seen.insert(next.hash()) {
                continue;
            }
            if next.lab.next_index != world.lab.next_index {
                next.lab.machine.check().expect("invariants");
                next.lab.rebuild();
                next.lab.check_content();
            }
            // Requests that can't arrive any more are no part of the state.
            next.callers.iter_mut().for_each(|caller| caller.pending.retain(|pending| pending.copies > 0 || pending.waiting));
            queue.push_back(next);
        }
    }
    assert!(finished > 0, "no interleaving reaches the end");
    for kind in kinds {
        assert!(answered.contains(*kind), "no interleaving was answered {kind} answered={answered:?}");
    }
    seen.len()
}

#[test]
fn every_interleaving_of_rebasing_turns_loses_nothing() {
    use Operation::Rebase;
    let states = explore([[Rebase; 3], [Rebase; 3]], &["Saved", "rebased", "repeated", "Stale"]);
    assert!(states > 5_000, "the scope is too small states={states}");
}

#[test]
fn every_interleaving_of_appends_with_full_changes_under_one_request_applies_each_once() {
    use Operation::Append;
    let states = explore([[Append; 3], [Append; 3]], &["Saved", "repeated", "Stale", "BaseMismatch"]);
    assert!(states > 10_000, "the scope is too small states={states}");
}

#[test]
fn every_interleaving_with_expiry_keeps_versions_dense() {
    use Operation::{Append, Expiring, Rebase};
    let scripts = [[Append, Expiring, Append], [Rebase, Append, Rebase]];
    let states = explore(scripts, &["Saved", "rebased", "repeated", "Stale", "BaseMismatch", "Conflict"]);
    assert!(states > 30_000, "the scope is too small states={states}");
}

#[test]
fn every_interleaving_with_deletes_and_conditional_saves_answers_each_request_once() {
    use Operation::{Append, Delete, Expiring, Rebase, Replace};
    let scripts = [[Expiring, Delete, Append], [Replace, Rebase, Append]];
    let states = explore(scripts, &["Saved", "Deleted", "NotFound", "repeated", "Stale", "BaseMismatch", "Conflict"]);
    assert!(states > 20_000, "the scope is too small states={states}");
}
