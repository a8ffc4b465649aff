//! Small scope, completely: every interleaving of two clients with three operations each, over three nodes and a network that loses,
//! delays and repeats, breadth-first with hashed states.
//!
//! ```text
//! client:   submit ─> router, retry ─> under way ─> applied ─> answered
//!             ├ the answer is lost, or the attempt is abandoned and may arrive late: another attempt under the same request
//!             └ give up (Indeterminate): the sequence is closed, a late copy may still arrive, and a new operation follows
//! BaseMismatch answered: the same request again, with the full change
//! cluster:  the leader dies, the others decide who is next · a deadline passes · a sweep
//! ```
//!
//! In every state: invariants hold; the machine goes on as the one rebuilt from its rows, so a snapshot or restart may come at every
//! instant; no request was executed twice; a repeated request got its first answer; versions are dense; no item is stored twice; and
//! where nothing overwrites or deletes, no acknowledged item is missing.
//!
//! What is left out is left out without loss:
//! - What one client does by itself (submit, choose an endpoint, follow a hint) commutes with every step of the others, so it happens at
//!   once. Its way to the leader ends there before anything else happens; a copy that was sent to an earlier leader is one that arrives
//!   late, as a forwarding node may bring it.
//! - An entry that a dying leader appended is either lost or comes before all entries of the next one: that is an answer lost just before.
//! - Log indexes only grow and are only compared: states are equal up to renaming them. The order of stored items changes nothing later.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use quorate::machine::{Command, Plan};
use quorate::types::{
    Base, Change, ClientId, Counters, Expected, Expiry, Load, OnConflict, Outcome, Revision, SessionId, Verdict, Version, Write,
};

use crate::machine::lab::{Lab, blob, chunk, id, request};
use crate::machine::route::{Nodes, Route};

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

const EVERY: [Operation; 5] = [Operation::Append, Operation::Rebase, Operation::Replace, Operation::Expiring, Operation::Delete];

/// What each client may do in turn: any of these.
type Script = [&'static [Operation]; 3];

/// What may go wrong, how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Faults {
    /// Answers that are lost.
    losses: u8,
    /// Attempts that are abandoned, and may arrive late.
    retries: u8,
    give_ups: u8,
    leader_changes: u8,
    /// All of these together.
    total: u8,
}

/// Any one of them; any two, each once, in the whole scope.
const ANY: Faults = Faults { losses: 1, retries: 1, give_ups: 1, leader_changes: 1, total: 1 };
/// Only time passes.
const NONE: Faults = Faults { total: 0, ..ANY };

/// Whether all of the scope is followed, for which a build should be optimized: by `small_scope` of the gate, and by what plants bugs.
fn is_whole() -> bool {
    std::env::var_os("MODEL_WHOLE").is_some()
}

/// A request in flight.
#[derive(Clone, Debug)]
struct Pending {
    write: Write,
    /// The client waits for the answer of a copy at the leader.
    live: bool,
    /// Copies that nobody waits for.
    stale: u8,
}

impl Pending {
    fn is_over(&self) -> bool {
        !self.live && self.stale == 0
    }
}

#[derive(Clone, Debug)]
struct Caller {
    client: ClientId,
    route: Route,
    script: Script,
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
    nodes: Nodes,
    /// What may still go wrong, at any operation of either caller.
    faults: Faults,
    /// The kind of the latest answer, for coverage.
    answered: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Submit {
        caller: usize,
        operation: Operation,
    },
    /// The copy that is waited for is applied; its answer arrives, or is lost.
    Answer {
        caller: usize,
        pending: usize,
        lost: bool,
    },
    /// The caller's driver sends again, while the first copy is still under way.
    Abandon(usize),
    /// A copy that nobody waits for is applied.
    Late {
        caller: usize,
        pending: usize,
    },
    GiveUp(usize),
    LeaderDies {
        longer: usize,
    },
    Expire,
    Sweep,
}

fn session() -> SessionId {
    id("s")
}

impl World {
    fn new(scripts: [Script; 2], faults: Faults) -> Self {
        let mut lab = Lab::quick();
        let callers = scripts.into_iter().enumerate().map(|(number, script)| Caller {
            client: lab.open(1000, number as u8),
            route: Route::new(number),
            script,
            next: 0,
            sequence: 1,
            known: Base::Absent,
            pending: Vec::new(),
        });
        let callers = callers.collect();
        Self {
            lab,
            callers,
            answers: BTreeMap::new(),
            version: 0,
            acknowledged: BTreeSet::new(),
            may_vanish: false,
            now: 1000,
            swept: false,
            nodes: Nodes { leader: 0, down: None },
            faults,
            answered: None,
        }
    }

    /// Steps possible here. A client that is idle submits first and alone.
    fn actions(&self) -> Vec<Action> {
        let is_waiting = |caller: &Caller| caller.pending.iter().any(|pending| pending.live);
        let idle = self.callers.iter().position(|caller| !is_waiting(caller) && caller.next < caller.script.len());
        if let Some(caller) = idle {
            let operations = self.callers[caller].script[self.callers[caller].next].iter();
            return operations.map(|operation| Action::Submit { caller, operation: *operation }).collect();
        }
        let left = |kind: u8| kind > 0 && self.faults.total > 0;
        let mut actions = Vec::new();
        for (n, caller) in self.callers.iter().enumerate() {
            if is_waiting(caller) {
                actions.extend(left(self.faults.give_ups).then_some(Action::GiveUp(n)));
                actions.extend(left(self.faults.retries).then_some(Action::Abandon(n)));
            }
            for (at, pending) in caller.pending.iter().enumerate() {
                if pending.live {
                    actions.push(Action::Answer { caller: n, pending: at, lost: false });
                    actions.extend(left(self.faults.losses).then_some(Action::Answer { caller: n, pending: at, lost: true }));
                }
                actions.extend((pending.stale > 0).then_some(Action::Late { caller: n, pending: at }));
            }
        }
        if left(self.faults.leader_changes) && self.callers.iter().any(is_waiting) {
            actions.extend([1, 2].map(|longer| Action::LeaderDies { longer }));
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
            Action::Submit { caller, operation } => self.submit(caller, operation),
            Action::GiveUp(n) => {
                // Indeterminate: it knows nothing any more, until it loads. What it sent may still arrive.
                self.spend(|faults| &mut faults.give_ups);
                self.abandon(n);
                self.finish(n);
                self.callers[n].known = self.current();
            }
            Action::Abandon(n) => {
                self.spend(|faults| &mut faults.retries);
                self.abandon(n);
                let (nodes, caller) = (self.nodes, &mut self.callers[n]);
                caller.route.lose_answer(nodes, nodes.leader);
                caller.pending.last_mut().expect("it waits").live = true;
            }
            Action::Answer { caller, pending, lost } => self.deliver(caller, pending, lost),
            Action::Late { caller, pending } => {
                self.callers[caller].pending[pending].stale -= 1;
                let write = self.callers[caller].pending[pending].write.clone();
                self.execute(&write);
            }
            Action::LeaderDies { longer } => self.lose_leader(longer),
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

    fn spend(&mut self, kind: impl FnOnce(&mut Faults) -> &mut u8) {
        *kind(&mut self.faults) -= 1;
        self.faults.total -= 1;
    }

    /// The copy that was waited for is one that nobody waits for now.
    fn abandon(&mut self, n: usize) {
        let pending = self.callers[n].pending.last_mut().expect("it waits");
        (pending.live, pending.stale) = (false, pending.stale + 1);
    }

    /// A caller that waited has its connection end, and sends again; what was sent before never reached the leader.
    fn lose_leader(&mut self, longer: usize) {
        self.spend(|faults| &mut faults.leader_changes);
        let old = self.nodes.leader;
        self.nodes.lose_leader(longer);
        let nodes = self.nodes;
        for caller in self.callers.iter_mut().filter(|caller| caller.pending.iter().any(|pending| pending.live)) {
            caller.route.lose_answer(nodes, old);
        }
    }

    fn current(&self) -> Base {
        self.lab.machine.info(&session()).map_or(Base::Absent, |info| Base::At {
            create_revision: info.create_revision,
            version: info.version,
            items: info.items,
        })
    }

    fn submit(&mut self, n: usize, operation: Operation) {
        self.may_vanish |= operation != Operation::Rebase;
        let (nodes, caller) = (self.nodes, &mut self.callers[n]);
        caller.route.begin(nodes);
        let label = format!("{n}.{}", caller.sequence);
        let request = request(caller.client, n as u8, caller.sequence, caller.sequence);
        let head = (caller.known == Base::Absent).then(|| blob("h"));
        let delta = Change::Delta { base: caller.known, chunks: vec![chunk(1, &label)], head, counters: Counters::default() };
        let expected = match caller.known {
            Base::Absent => Expected::Absent,
            Base::At { version, create_revision, .. } => Expected::At { version, create_revision: Some(create_revision) },
        };
        let (id, expiry) = (session(), Expiry::Keep);
        let conditional = |change, on_conflict| Write::SaveIfVersion {
            request,
            id: id.clone(),
            expected,
            change,
            on_conflict,
            attributes: expiry.into(),
            fence: None,
        };
        let write = match operation {
            Operation::Append => Write::Save { request, id: id.clone(), change: delta, attributes: expiry.into(), fence: None },
            Operation::Expiring => {
                Write::Save { request, id: id.clone(), change: delta, attributes: Expiry::After(TTL).into(), fence: None }
            }
            Operation::Rebase => conditional(delta, OnConflict::Rebase),
            Operation::Replace => conditional(full(&label), OnConflict::Reject),
            Operation::Delete => Write::Delete { request, id: id.clone(), expected: None, fence: None },
        };
        caller.pending.push(Pending { write, live: true, stale: 0 });
    }

    fn finish(&mut self, n: usize) {
        let caller = &mut self.callers[n];
        if let Some(pending) = caller.pending.last_mut() {
            pending.live = false;
        }
        caller.next += 1;
        caller.sequence += 1;
    }

    fn execute(&mut self, write: &Write) -> Outcome {
        let index = self.lab.next_index;
        let outcome = self.lab.write(self.now, write.clone());
        self.judge(write, &outcome, index);
        outcome
    }

    fn deliver(&mut self, n: usize, at: usize, lost: bool) {
        let write = self.callers[n].pending[at].write.clone();
        let request = *write.request().expect("has one");
        let outcome = self.execute(&write);
        let nodes = self.nodes;
        if lost {
            self.spend(|faults| &mut faults.losses);
            return self.callers[n].route.lose_answer(nodes, nodes.leader);
        }
        self.callers[n].route.answered(nodes);
        match &outcome.verdict {
            Verdict::BaseMismatch => {
                let label = format!("{n}.{}", request.sequence);
                let Write::Save { request, id, attributes, .. } = write else {
                    // A conditional one can't know how to go on: its caller loads.
                    self.finish(n);
                    self.callers[n].known = self.current();
                    return;
                };
                // Copies of the delta may still be under way; they carry the same request.
                self.callers[n].pending[at].live = false;
                let full = Write::Save { request, id, change: full(&label), attributes, fence: None };
                self.callers[n].pending.push(Pending { write: full, live: true, stale: 0 });
            }
            Verdict::Saved(saved) => {
                let appended = matches!(write.changes().next(), Some(Change::Delta { .. }));
                if appended {
                    self.acknowledged.insert(format!("{n}.{}", request.sequence));
                }
                // After a rebase the stored items are not this caller's; it loads.
                let known = if saved.rebased { self.current() } else { saved.content.base() };
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
            Verdict::Saved(saved) => Some(saved.content.version),
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
        let load = Load::whole(session());
        let plan = self.lab.machine.plan(&load);
        if let Plan::Read { info, .. } = &plan {
            ranks.insert(info.create_revision);
        }
        for caller in &self.callers {
            ranks.extend(created(&caller.known));
            ranks.extend(caller.pending.iter().filter(|pending| !pending.is_over()).flat_map(|pending| revisions(&pending.write)));
        }
        let rank = |revision: Revision| ranks.iter().position(|other| *other == revision);
        let mut hasher = DefaultHasher::new();
        // The order of items changes nothing that follows.
        let items: BTreeSet<_> = self.items().into_iter().collect();
        match &plan {
            Plan::Read { info, .. } => (rank(info.create_revision), info.version, info.deadline_ms, items).hash(&mut hasher),
            other => format!("{other:?}").hash(&mut hasher),
        }
        (self.now, self.swept, self.may_vanish, self.faults, self.nodes).hash(&mut hasher);
        if !self.may_vanish {
            self.acknowledged.hash(&mut hasher);
        }
        // Only answers that may be asked for again.
        let asked = self.callers.iter().flat_map(|caller| {
            let open = caller.pending.iter().filter(|pending| !pending.is_over());
            open.filter_map(|pending| pending.write.request().map(|request| (request.client.0, request.sequence.0)))
        });
        for (key, outcome) in asked.filter_map(|key| Some((key, self.answers.get(&key)?))) {
            let created = match &outcome.verdict {
                Verdict::Saved(saved) => (rank(saved.content.create_revision), saved.content.items, saved.rebased),
                _ => (None, 0, false),
            };
            (key, created, std::mem::discriminant(&outcome.verdict)).hash(&mut hasher);
        }
        for caller in &self.callers {
            (caller.next, caller.sequence, base_key(&caller.known, &rank), &caller.route).hash(&mut hasher);
            for pending in caller.pending.iter().filter(|pending| !pending.is_over()) {
                let delta = match pending.write.changes().next() {
                    Some(Change::Delta { base, .. }) => base_key(base, &rank),
                    _ => (3, None, 0, 0),
                };
                let sequence = pending.write.request().map(|request| request.sequence);
                (kind_of(&pending.write), sequence, delta, pending.live, pending.stale).hash(&mut hasher);
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
    match write.changes().next() {
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

/// What a request asks for, beside its base: its caller may have chosen any operation.
fn kind_of(write: &Write) -> (u8, bool, Option<Version>) {
    match write {
        Write::Save { attributes, .. } => (0, attributes.expiry == Expiry::Keep, None),
        Write::SaveIfVersion { on_conflict, expected, .. } => {
            let version = match expected {
                Expected::Absent | Expected::Incarnation { .. } => None,
                Expected::At { version, .. } => Some(*version),
            };
            (1, *on_conflict == OnConflict::Rebase, version)
        }
        _ => (2, false, None),
    }
}

/// Visits every state of these scripts, checks that each kind of answer came up, and that there are so many states, in the whole scope
/// the second number.
fn explore(scripts: [Script; 2], mut faults: Faults, kinds: &[&str], states_min: [usize; 2]) {
    faults.total *= 1 + u8::from(is_whole());
    let start = World::new(scripts, faults);
    let mut seen = HashSet::from([start.hash()]);
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
            next.callers.iter_mut().for_each(|caller| caller.pending.retain(|pending| !pending.is_over()));
            queue.push_back(next);
        }
    }
    assert!(finished > 0, "no interleaving reaches the end");
    for kind in kinds {
        assert!(answered.contains(*kind), "no interleaving was answered {kind} answered={answered:?}");
    }
    println!("states={} of {scripts:?} {faults:?}", seen.len());
    assert!(seen.len() > states_min[usize::from(is_whole())], "the scope is too small states={}", seen.len());
}

/// Each operation as it stands.
fn script(operations: [&'static Operation; 3]) -> Script {
    operations.map(std::slice::from_ref)
}

use Operation::{Append, Delete, Expiring, Rebase, Replace};

#[test]
fn every_interleaving_of_rebasing_turns_loses_nothing() {
    let turns = script([&Rebase; 3]);
    explore([turns, turns], ANY, &["Saved", "rebased", "repeated", "Stale"], [2_000, 25_000]);
}

#[test]
fn every_interleaving_of_appends_with_full_changes_under_one_request_applies_each_once() {
    let appends = script([&Append; 3]);
    explore([appends, appends], ANY, &["Saved", "repeated", "Stale", "BaseMismatch"], [4_000, 60_000]);
}

#[test]
fn every_interleaving_with_expiry_keeps_versions_dense() {
    let scripts = [script([&Append, &Expiring, &Append]), script([&Rebase, &Append, &Rebase])];
    explore(scripts, ANY, &["Saved", "rebased", "repeated", "Stale", "BaseMismatch", "Conflict"], [15_000, 15_000]);
}

#[test]
fn every_interleaving_with_deletes_and_conditional_saves_answers_each_request_once() {
    let scripts = [script([&Expiring, &Delete, &Append]), script([&Replace, &Rebase, &Append])];
    let kinds = ["Saved", "Deleted", "NotFound", "repeated", "Stale", "BaseMismatch", "Conflict"];
    explore(scripts, ANY, &kinds, [12_000, 12_000]);
}

/// Whatever two clients do: all scripts of three operations at once, without faults but for time. Where the scope is not whole, one of
/// the two deletes at last.
#[test]
fn every_script_of_three_operations_in_every_interleaving() {
    let last: &[Operation] = if is_whole() { &EVERY } else { &[Delete] };
    let kinds = ["Saved", "Deleted", "NotFound", "rebased", "BaseMismatch", "Conflict"];
    explore([[&EVERY; 3], [&EVERY, &EVERY, last]], NONE, &kinds, [30_000, 80_000]);
}
