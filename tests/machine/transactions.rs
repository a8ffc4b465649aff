//! Small scope, completely: every sequence of a few transactions and writes beside them, with retries of each at every place, against the
//! reference model: an abort, a retry after one, a full change after `BaseMismatchAt`, creations and expiries within one entry.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate::machine::Command;
use quorate::types::{
    Addition, Base, Change, ClientId, Counters, Expected, Expiry, OnConflict, Operation, Operations, Require, Revision, Verdict,
    Version, Write,
};

use crate::machine::lab::{Lab, blob, chunk, id, request};
use crate::support::reference::Model;

const SESSIONS: [&str; 3] = ["a", "b", "c"];

/// One of the steps that sequences are made of.
#[derive(Clone)]
enum Step {
    Write(Box<Write>),
    /// Time passes beyond every deadline, swept or not.
    Expire {
        swept: bool,
    },
}

fn full(text: &str) -> Change {
    Change::Full { chunks: vec![chunk(1, text)], head: blob("h"), counters: Counters::default() }
}

fn delta(base: Base, text: &str) -> Change {
    Change::Delta { base, chunks: vec![chunk(1, text)], head: Some(blob("h")), counters: Counters::default() }
}

fn save(name: &str, change: Change, expiry: Expiry) -> Operation {
    Operation::Save { id: id(name), change, attributes: expiry.into(), fence: None }
}

fn append(name: &str, require: Require) -> Operation {
    let counters = Counters::new(vec![1]).expect("few");
    let addition = Addition { chunks: vec![chunk(2, "more")], head_if_created: require.may_create().then(|| blob("h")), counters };
    Operation::Append { id: id(name), require, addition, attributes: Expiry::Keep.into(), fence: None }
}

/// Every step; a write that comes again is a retry, and two with one sequence are a delta and what its client sends next.
fn steps(clients: [ClientId; 2], first_index: u64) -> Vec<Step> {
    let transaction = |client: usize, sequence, operations: Vec<Operation>| {
        let request = request(clients[client], client as u8, sequence, 0);
        Step::Write(Box::new(Write::Transaction { request, operations: Operations::new(operations).expect("few") }))
    };
    let at = Base::At { create_revision: Revision(first_index), version: Version(1), items: 1 };
    let version = |version| Expected::At { version: Version(version), create_revision: None };
    let idle = Expiry::Idle(Duration::from_millis(500));
    vec![
        transaction(0, 1, vec![save("a", full("1"), Expiry::Keep), append("b", Require::Any), save("c", full("1"), idle)]),
        transaction(0, 2, vec![append("c", Require::Present), save("a", delta(at, "2"), Expiry::Keep)]),
        transaction(0, 2, vec![append("c", Require::Present), save("a", full("2 in full"), Expiry::Keep)]),
        transaction(
            1,
            1,
            vec![
                Operation::Delete { id: id("b"), expected: None, fence: None },
                Operation::Require { id: id("c"), expected: Some(version(1)), fence: None },
                Operation::SaveIfVersion {
                    id: id("a"),
                    expected: version(1),
                    change: delta(at, "3"),
                    on_conflict: OnConflict::Rebase,
                    attributes: Expiry::Keep.into(),
                    fence: None,
                },
            ],
        ),
        transaction(
            1,
            2,
            vec![
                Operation::Require { id: id("a"), expected: Some(Expected::Absent), fence: None },
                append("c", Require::Any),
                save("b", full("4"), Expiry::After(Duration::from_millis(500))),
            ],
        ),
        Step::Write(Box::new(Write::Delete { request: request(clients[1], 1, 3, 0), id: id("a"), expected: None, fence: None })),
        Step::Expire { swept: false },
        Step::Expire { swept: true },
    ]
}

#[derive(Clone)]
struct World {
    lab: Lab,
    model: Model,
    now: u64,
}

impl World {
    fn step(&mut self, step: &Step, seen: &mut BTreeMap<&'static str, usize>) {
        match step {
            Step::Expire { swept } => {
                self.now += 500;
                let limit = if *swept { 10 } else { 0 };
                self.lab.apply(self.now, Command::Sweep { limit });
                self.model.advance(self.now);
            }
            Step::Write(write) => {
                let before = SESSIONS.map(|name| self.lab.machine.info(&id(name)));
                let counts = self.lab.machine.counts();
                let index = self.lab.next_index;
                let modelled = self.model.apply(index, self.now, write);
                let outcome = self.lab.write(self.now, (**write).clone());
                assert_eq!(outcome, modelled, "{write:?}");
                let after = SESSIONS.map(|name| self.lab.machine.info(&id(name)));
                let is_repeated = outcome.revision.0 != index;
                *seen.entry(kind(&outcome.verdict, is_repeated)).or_default() += 1;
                if is_repeated || matches!(outcome.verdict, Verdict::Aborted(_) | Verdict::BaseMismatchAt { .. }) {
                    assert_eq!(before, after, "what is not stored changes nothing");
                    assert_eq!(counts.tombstones, self.lab.machine.counts().tombstones);
                } else if let Verdict::Transacted(transacted) = &outcome.verdict {
                    self.all_at_one_revision(index, write, &transacted.results);
                }
            }
        }
        for name in SESSIONS {
            let deadline = self.model.sessions.get(name).and_then(|session| session.deadline);
            assert_eq!(self.lab.machine.info(&id(name)).and_then(|info| info.deadline_ms), deadline, "{name}");
        }
    }

    fn all_at_one_revision(&self, index: u64, write: &Write, results: &[Verdict]) {
        for (operation, result) in write.operations().iter().zip(results) {
            if let Verdict::Saved(_) | Verdict::Appended(_) = result {
                let info = self.lab.machine.info(operation.session().0).expect("stored");
                assert_eq!(info.mod_revision, Revision(index));
            }
        }
    }
}

fn kind(verdict: &Verdict, is_repeated: bool) -> &'static str {
    match (verdict, is_repeated) {
        (Verdict::Transacted(_), false) => "transacted",
        (Verdict::Transacted(_), true) => "transacted, repeated",
        (Verdict::Aborted(_), false) => "aborted",
        (Verdict::Aborted(_), true) => "aborted, repeated",
        (Verdict::BaseMismatchAt { .. }, _) => "base mismatch",
        _ => "other",
    }
}

/// Whether the scope is whole, for which a build should be optimized.
fn depth() -> usize {
    if std::env::var_os("MODEL_WHOLE").is_some() { 6 } else { 4 }
}

#[test]
fn every_sequence_of_transactions_with_retries_is_answered_as_by_the_model() {
    let mut lab = Lab::quick();
    lab.apply(1000, Command::SetClusterVersion { version: 2 });
    let mut model = Model::default();
    let clients = [0, 1].map(|number| {
        let index = lab.next_index;
        let opened = model.apply(index, 1000, &Write::OpenClient { nonce: crate::machine::lab::nonce(number) });
        let client = lab.open(1000, number);
        assert_eq!(opened.verdict, Verdict::ClientOpened { client });
        client
    });
    let steps = steps(clients, lab.next_index);
    let mut seen = BTreeMap::new();
    let mut worlds = vec![World { lab, model, now: 1000 }];
    for _ in 0..depth() {
        let mut next = Vec::with_capacity(worlds.len() * steps.len());
        for world in &worlds {
            for step in &steps {
                let mut world = world.clone();
                world.step(step, &mut seen);
                next.push(world);
            }
        }
        worlds = next;
    }
    // Those at the end were reached through all the others.
    for world in worlds.iter_mut() {
        world.lab.machine.check().expect("invariants");
        world.lab.rebuild();
        world.lab.check_content();
    }
    for kind in ["transacted", "transacted, repeated", "aborted", "aborted, repeated", "base mismatch"] {
        assert!(seen.get(kind).is_some_and(|count| *count > 50), "too little of {kind} seen={seen:?}");
    }
}
