//! Random histories of a correct store pass both checkers, with and without the committed log; one lie makes one of them speak.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate::testing::history::{
    Answer, Ask, Committed, Op, Request, Violation, audit, exact, read, resolve, value, verdict, windows, write,
};
use quorate::testing::inline::SeededRandom;

/// A session or its tombstone.
#[derive(Clone, Copy, Default)]
struct Session {
    version: u64,
    value: Option<u64>,
}

/// A correct store, and clients with calls under way.
struct Store {
    random: SeededRandom,
    now: u64,
    index: u64,
    sessions: Vec<Session>,
    /// What was there from which revision on, for stale reads.
    past: Vec<(u64, Vec<Session>)>,
    ops: Vec<Op>,
    log: Vec<Committed>,
    /// By client: the call, and its answer once it has taken effect.
    calls: BTreeMap<usize, (usize, Option<Answer>)>,
    /// Calls that were given up and may take effect yet.
    adrift: Vec<usize>,
    sequence: u64,
    fates: Fates,
}

/// What may happen besides answers.
#[derive(Clone, Copy)]
struct Fates {
    unknown: bool,
    expiry: bool,
}

const KEYS: u64 = 2;
const CLIENTS: usize = 4;

impl Store {
    fn new(seed: u64, fates: Fates) -> Self {
        Self {
            random: SeededRandom::new(seed),
            now: 0,
            index: 3,
            sessions: vec![Session::default(); KEYS as usize],
            past: vec![(0, vec![Session::default(); KEYS as usize])],
            ops: Vec::new(),
            log: Vec::new(),
            calls: BTreeMap::new(),
            adrift: Vec::new(),
            sequence: 0,
            fates,
        }
    }

    fn run(mut self, steps: usize) -> (Vec<Op>, Vec<Committed>) {
        for _ in 0..steps {
            self.now += self.random.below(3);
            self.step();
        }
        (self.ops, self.log)
    }

    fn step(&mut self) {
        if self.fates.expiry && self.random.below(12) == 0 {
            self.expire(0);
        }
        if !self.adrift.is_empty() && self.random.below(6) == 0 {
            let at = self.adrift.swap_remove(self.random.below(self.adrift.len() as u64) as usize);
            self.take_effect(at);
        }
        let client = self.random.below(CLIENTS as u64) as usize;
        let Some((at, answer)) = self.calls.get(&client).copied() else { return self.invoke(client) };
        let dice = self.random.below(10);
        if dice == 0 && answer.is_none() {
            self.complete(client, at, Answer::Refused);
        } else if dice == 1 && self.fates.unknown && !self.ops[at].ask.is_read() {
            self.complete(client, at, Answer::Unknown);
            self.adrift.extend(answer.is_none().then_some(at));
        } else if let Some(answer) = answer {
            self.complete(client, at, answer);
        } else {
            let answer = self.take_effect(at);
            self.calls.insert(client, (at, Some(answer)));
        }
    }

    fn invoke(&mut self, client: usize) {
        let key = self.random.below(KEYS) as usize;
        self.sequence += 1;
        let value = value(client, self.sequence);
        let there = self.sessions[key];
        let ask = match self.random.below(10) {
            0..3 => Ask::Load,
            3 => Ask::LoadStale,
            4..6 => Ask::Save { value },
            6 => Ask::SaveIf { expected: self.random.below(4), value },
            7..9 => Ask::SaveIf { expected: there.value.map_or(0, |_| there.version), value },
            _ => Ask::Delete,
        };
        let request = Some(Request { client: client as u64, sequence: self.sequence }).filter(|_| self.random.below(2) == 0);
        let expires = self.fates.expiry && key == 0 && ask.value().is_some();
        self.ops.push(Op { request, expires, ..Op::invoke(client, key, ask, self.time()) });
        self.calls.insert(client, (self.ops.len() - 1, None));
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    fn complete(&mut self, client: usize, at: usize, answer: Answer) {
        (self.ops[at].answer, self.ops[at].returned) = (answer, self.time());
        self.calls.remove(&client);
    }

    fn expire(&mut self, key: usize) {
        if self.sessions[key].value.is_some() {
            self.index += 1;
            self.write(key, None, None, true);
        }
    }

    fn write(&mut self, key: usize, value: Option<u64>, request: Option<Request>, is_expiry: bool) -> Answer {
        let version = self.sessions[key].version + 1;
        self.sessions[key] = Session { version, value };
        self.past.push((self.index, self.sessions.clone()));
        self.log.push(Committed { key, version, revision: self.index, value, request, is_expiry });
        Answer::Written { version, revision: self.index }
    }

    fn take_effect(&mut self, at: usize) -> Answer {
        let Op { key, ask, request, .. } = self.ops[at];
        let read = |there: Session, revision| match there.value {
            Some(value) => Answer::Found { version: there.version, value, revision },
            None => Answer::NotFound { tombstone: there.version, revision },
        };
        if ask == Ask::Load {
            return read(self.sessions[key], self.index);
        }
        if ask == Ask::LoadStale {
            let (revision, sessions) = &self.past[self.random.below(self.past.len() as u64) as usize];
            return read(sessions[key], *revision);
        }
        self.index += 1;
        let there = self.sessions[key];
        let actual = there.value.map_or(0, |_| there.version);
        match ask {
            Ask::SaveIf { expected, .. } if expected != actual => Answer::Conflict { actual, revision: self.index },
            Ask::Delete if there.value.is_none() => Answer::NothingThere,
            _ => self.write(key, ask.value(), request, false),
        }
    }
}

fn none(found: &[Violation], what: &str) {
    assert!(found.is_empty(), "{what}: {}", found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
}

const SEEDS: u64 = 400;
const STEPS: usize = 300;

#[test]
fn histories_of_a_correct_store_pass_both_checkers_and_survive_a_file() {
    let mut unknown = 0;
    for seed in 0..SEEDS {
        let (ops, log) = Store::new(seed, Fates { unknown: seed % 4 != 0, expiry: seed % 3 == 0 }).run(STEPS);
        unknown += ops.iter().filter(|op| op.answer == Answer::Unknown && op.returned < Duration::MAX).count();
        none(&exact(&ops), &format!("seed={seed}, by revision"));
        none(&windows(&ops), &format!("seed={seed}, by version"));
        none(&audit(&ops, &log), &format!("seed={seed}, the log"));
        let resolved = resolve(&ops, &log);
        none(&exact(&resolved), &format!("seed={seed}, by revision with the log"));
        none(&windows(&resolved), &format!("seed={seed}, by version with the log"));
        for ops in [ops, resolved] {
            let mut file = Vec::new();
            write(&ops, &mut file).unwrap();
            let mut again = read(file.as_slice()).unwrap_or_else(|broken| panic!("seed={seed}: {broken}"));
            // Its lines are in the order of time.
            let by_time = |op: &Op| (op.client, op.invoked, op.key, op.ask.value(), op.answer.revision());
            let mut ops = ops;
            again.sort_by_key(by_time);
            ops.sort_by_key(by_time);
            assert_eq!(again, ops, "seed={seed}");
        }
    }
    assert!(unknown > 1000, "{unknown}");
}

/// Changes one answer into one that no order allows, if the history has the place for it.
fn lie(ops: &mut [Op], which: u64, random: &SeededRandom) -> bool {
    let start = random.below(ops.len() as u64) as usize;
    for at in (0..ops.len()).map(|step| (start + step) % ops.len()) {
        let op = ops[at].clone();
        let was_read = |ops: &[Op]| {
            let value = op.ask.value();
            ops.iter().any(|other| matches!(other.answer, Answer::Found { value: read, .. } if Some(read) == value))
        };
        let changed = match (which, op.ask, op.answer) {
            // The value of another write, or of none.
            (0, _, Answer::Found { version, revision, .. }) => Answer::Found { version, value: value(99, 1), revision },
            (1, _, Answer::Found { version, value, revision }) => Answer::Found { version: version + 1, value, revision },
            (2, _, Answer::Written { version, revision }) => Answer::Written { version: version + 1, revision },
            (3, Ask::SaveIf { expected, .. }, Answer::Written { revision, .. }) => Answer::Conflict { actual: expected, revision },
            (4, _, Answer::Written { .. }) if was_read(ops) => Answer::Refused,
            // What was acknowledged before it began is gone.
            (5, Ask::Load, Answer::Found { version, revision, .. }) if version > 1 => {
                let over = |other: &Op| {
                    other.key == op.key
                        && other.returned < op.invoked
                        && matches!(other.answer, Answer::Written { version: written, .. } if written == version)
                };
                let before = ops.iter().find_map(|other| match (other.key == op.key, other.ask.value(), other.answer) {
                    (true, Some(value), Answer::Written { version: written, .. }) if written + 1 == version => Some(value),
                    _ => None,
                });
                match before.filter(|_| ops.iter().any(over)) {
                    Some(value) => Answer::Found { version: version - 1, value, revision },
                    None => continue,
                }
            }
            _ => continue,
        };
        ops[at].answer = changed;
        return true;
    }
    false
}

#[test]
fn a_single_lie_is_caught() {
    let (mut caught, mut by_revision, mut by_version) = ([0; 6], 0, 0);
    for seed in 0..SEEDS {
        let (mut ops, _) = Store::new(seed, Fates { unknown: false, expiry: false }).run(STEPS);
        // Calls that the end found under way may have done anything.
        ops.retain(|op| op.answer != Answer::Unknown || op.ask.is_read());
        let which = seed % 6;
        let honest = ops.clone();
        if !verdict(&honest).is_empty() || !lie(&mut ops, which, &SeededRandom::new(seed)) {
            continue;
        }
        let (exact, windows) = (exact(&ops), windows(&ops));
        assert!(!exact.is_empty() || !windows.is_empty(), "seed={seed} lie={which}");
        caught[which as usize] += 1;
        by_revision += usize::from(!exact.is_empty());
        by_version += usize::from(!windows.is_empty());
    }
    assert!(caught.iter().all(|count| *count > 30), "{caught:?}");
    assert!(by_revision > 200 && by_version > 200, "{by_revision} {by_version}");
}
