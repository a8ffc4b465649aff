//! Random commands against the reference model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use quorate::machine::Command;
use quorate::types::{
    Addition, Attributes, Base, Change, ChunkSum, ClientId, Counters, Expected, Expiry, Fence, Form, Holder, Label, LeaseTtl,
    OnConflict, Operation, Operations, Outcome, Renewals, Repack, Request, Require, Revision, SessionId, Verdict, Version, Write,
};

use crate::machine::lab::{Lab, blob, chunk, id, nonce, request};
use crate::support::reference::{IDLE_MS, Model, TOMBSTONE_MS};

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

/// A step, in terms that make sense in any state.
#[derive(Clone, Debug)]
struct Step {
    kind: u8,
    client: usize,
    wrong_nonce: bool,
    sequence: u64,
    below: u64,
    session: usize,
    expected: u8,
    base: u8,
    chunks: u8,
    head: u8,
    ttl: u8,
    fence: u8,
    wait: u64,
}

impl Step {
    fn expiry(&self, later: bool) -> Expiry {
        match self.ttl {
            0 => Expiry::Never,
            1 => Expiry::After(Duration::from_millis(50)),
            2 if later && self.head == 0 => Expiry::Idle(Duration::from_millis(60)),
            _ => Expiry::Keep,
        }
    }

    /// One of several lengths, none, or as it was.
    fn label(&self) -> Option<Label> {
        (self.base == 3).then(|| Label::new(&"l".repeat(100 * usize::from(self.head))).expect("short"))
    }

    fn attributes(&self, later: bool) -> Attributes {
        let form = if later { [Form::Unknown, Form::Value, Form::Transcript][usize::from(self.chunks)] } else { Form::Unknown };
        Attributes {
            expiry: self.expiry(later),
            form,
            tombstone_ttl: self.tombstone_ttl().filter(|_| later),
            label: self.label().filter(|_| later),
        }
    }

    /// None at all, one that passes in the run, or as it was.
    fn tombstone_ttl(&self) -> Option<Duration> {
        match (self.head, self.ttl) {
            (0, 0) => Some(Duration::ZERO),
            (1, 1) => Some(Duration::from_millis(30)),
            (2, 1) => Some(Duration::ZERO),
            (2, 0) => Some(Duration::from_millis(TOMBSTONE_MS)),
            _ => None,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let request = (0..16u8, 0..2usize, prop::bool::weighted(0.03), 0..3u64, 0..3u64);
    let wait =
        prop_oneof![150 => Just(0u64), 30 => 1..40u64, 2 => Just(5_000u64), 1 => Just(IDLE_MS), 1 => Just(TOMBSTONE_MS - 20)];
    let change = (0..2usize, 0..6u8, 0..6u8, 0..3u8, 0..3u8, 0..4u8, 0..10u8, wait);
    (request, change).prop_map(|(request, change)| {
        let (kind, client, wrong_nonce, sequence, below) = request;
        let (session, expected, base, chunks, head, ttl, fence, wait) = change;
        Step { kind, client, wrong_nonce, sequence, below, session, expected, base, chunks, head, ttl, fence, wait }
    })
}

/// Turns steps into writes, with what two clients would know.
struct Driver {
    lab: Lab,
    model: Model,
    clients: [u64; 2],
    /// Next unused sequence of each client.
    sequences: [u64; 2],
    /// States each session went through: create_revision, version, items.
    past: [Vec<(u64, u64, u64)>; 2],
    now: u64,
    /// How often each kind of answer came.
    seen: BTreeMap<String, usize>,
}

impl Driver {
    fn run(steps: &[Step], seen: &mut BTreeMap<String, usize>) {
        let model = Model::default();
        let mut driver = Self {
            lab: Lab::new(),
            model,
            clients: [1, 2],
            sequences: [1; 2],
            past: Default::default(),
            now: 1000,
            seen: BTreeMap::new(),
        };
        for client in 0..2 {
            driver.compare(Write::OpenClient { nonce: nonce(client) });
        }
        // Most runs have what version 2 has.
        if !steps.len().is_multiple_of(4) {
            driver.lab.apply(driver.now, Command::SetClusterVersion { version: 2 });
        }
        for (n, step) in steps.iter().enumerate() {
            driver.now += step.wait;
            driver.step(step, n);
        }
        driver.lab.rebuild();
        driver.lab.check_content();
        for (kind, count) in driver.seen {
            *seen.entry(kind).or_default() += count;
        }
    }

    fn step(&mut self, step: &Step, n: usize) {
        match step.kind {
            0 => drop(self.compare(Write::OpenClient { nonce: nonce(step.client as u8) })),
            1 => {
                self.lab.apply(self.now, Command::Sweep { limit: u32::from(step.head) });
                self.model.advance(self.now);
                self.lab.check_content();
            }
            2 => self.lab.rebuild(),
            _ => {
                let write = self.write(step, n);
                let outcome = self.compare(write);
                if outcome.verdict == Verdict::ClientUnknown && !step.wrong_nonce {
                    self.compare(Write::OpenClient { nonce: nonce(step.client as u8) });
                }
            }
        }
    }

    /// A transaction has what this step says, and more for the other session.
    fn write(&mut self, step: &Step, n: usize) -> Write {
        if step.kind < 14 || self.lab.machine.cluster_version() == 1 {
            return self.single(step, n);
        }
        let kind = [4, 10, 7, 3][usize::from(step.ttl)];
        let first = self.single(&Step { kind, ..step.clone() }, n);
        let request = *first.request().expect("a write");
        let other = Step { kind: [7, 4, 10][usize::from(step.chunks)], session: 1 - step.session, sequence: 1, ..step.clone() };
        let next = self.sequences;
        let other = self.single(&other, n);
        self.sequences = next;
        let required = (step.base == 5).then(|| Operation::Require { id: id("c"), expected: Some(Expected::Absent), fence: None });
        let operations: Vec<_> = [first, other].into_iter().filter_map(Operation::of).chain(required).collect();
        // A touch is no operation.
        match Operations::new(operations) {
            Ok(operations) => Write::Transaction { request, operations },
            Err(_) => Write::Delete { request, id: session(step.session), expected: None, fence: None },
        }
    }

    /// Of what is there, as a leader has compared it; sometimes of what was there before, or with other items.
    fn repack(&mut self, step: &Step, request: Request, id: SessionId) -> Write {
        let stored = self.model.sessions.get(id.as_str()).cloned().unwrap_or_default();
        let behind = u64::from(step.head == 2).min(stored.next_chunk - stored.first_chunk);
        let (old, _) = stored.chunks.split_at(stored.chunks.len() - behind as usize);
        let sum = ChunkSum::of(old);
        let data: Vec<u8> = old.iter().flat_map(|chunk| chunk.blob.data.to_vec()).collect();
        let merged = chunk(sum.items + u64::from(step.expected == 0), &text(&data));
        let first_chunk = stored.first_chunk.saturating_sub(u64::from(step.expected == 1));
        let (create_revision, until_chunk) = (Revision(stored.created), stored.next_chunk - behind);
        let repack = Repack { id, create_revision, first_chunk, until_chunk, old: sum, chunks: vec![merged] };
        Write::Repack { request, repack }
    }

    fn request(&mut self, step: &Step) -> Request {
        let next = &mut self.sequences[step.client];
        // Mostly a new sequence; sometimes one of the last ones, which is a retry, perhaps with another content.
        let sequence = if step.sequence == 0 { next.saturating_sub(1 + step.below) } else { *next };
        *next += u64::from(step.sequence != 0);
        let below = if step.below == 2 { sequence.saturating_sub(1) } else { 0 };
        let number = if step.wrong_nonce { 9 } else { step.client as u8 };
        request(ClientId(self.clients[step.client]), number, sequence, below)
    }

    fn single(&mut self, step: &Step, n: usize) -> Write {
        let request = self.request(step);
        let id = session(step.session);
        let past = &self.past[step.session];
        let newest @ (created, version, items) = past.last().copied().unwrap_or((1, 1, 0));
        let older = past.get(past.len().saturating_sub(2)).copied().unwrap_or((1, 1, 0));
        let later = self.lab.machine.cluster_version() == 2;
        let expected = expected(step, later, older, newest);
        let fence = self.fence(step, id.as_str()).filter(|_| later);
        if later && (6..12).contains(&step.kind) && step.base == 5 && step.fence > 2 {
            return self.repack(step, request, id);
        }
        if later && step.kind >= 12 {
            return self.lease(step, request, id);
        }
        if step.kind == 3 {
            return Write::Delete { request, id, expected: (step.expected > 3).then_some(expected), fence };
        }
        let at = |(created, version, items)| Base::At { create_revision: Revision(created), version: Version(version), items };
        let base = match step.base {
            0 => None,
            1 => Some(Base::Absent),
            2 => Some(at(older)),
            3 => Some(at((created, version, items + u64::from(step.head)))),
            _ => Some(at((created, version, items))),
        };
        // Many plain values there, which take no items.
        let count = match step.kind {
            10 => step.chunks.max(1),
            _ if later && step.base < 2 && step.ttl > 1 => 0,
            _ => step.chunks,
        };
        let chunks = (0..count).map(|part| chunk(1, &format!("{n}.{part}"))).collect();
        let counters = Counters::new(vec![1]).expect("few");
        let change = match base {
            None => Change::Full { chunks, head: blob(["", "h", "g"][usize::from(step.head)]), counters },
            Some(base) => {
                let head = (step.head > 0 || base == Base::Absent).then(|| blob(["", "h", "g"][usize::from(step.head)]));
                Change::Delta { base, chunks, head, counters }
            }
        };
        let (expiry, attributes) = (step.expiry(later), step.attributes(later));
        if later && step.kind == 9 && step.chunks == 0 {
            return Write::Touch { request, id, expiry, fence };
        }
        if later && step.kind >= 10 {
            let require = require(step, older, newest);
            let (chunks, counters) = match change {
                Change::Full { chunks, counters, .. } | Change::Delta { chunks, counters, .. } => (chunks, counters),
            };
            let head_if_created = require.may_create().then(|| blob(["", "h", "g"][usize::from(step.head)]));
            return Write::Append {
                request,
                id,
                require,
                addition: Addition { chunks, head_if_created, counters },
                attributes,
                fence,
            };
        }
        match step.kind {
            4 | 5 => Write::Save { request, id, change, attributes, fence },
            kind => {
                let on_conflict = if kind < 7 { OnConflict::Reject } else { OnConflict::Rebase };
                Write::SaveIfVersion { request, id, expected, change, on_conflict, attributes, fence }
            }
        }
    }

    /// That of the lease that lives, mostly; an older one, or none.
    fn fence(&self, step: &Step, id: &str) -> Option<Fence> {
        let current = self.model.leases.get(id).map(|(fence, _, _)| Fence(*fence));
        match step.fence {
            0 => None,
            1 => Some(current.unwrap_or(Fence(3))),
            2 => Some(Fence(2)),
            _ => current,
        }
    }

    fn lease(&self, step: &Step, request: Request, id: SessionId) -> Write {
        let fence = self.fence(step, id.as_str()).unwrap_or(Fence(1));
        let ttl = LeaseTtl::new(Duration::from_secs(5 + u64::from(step.chunks))).expect("within");
        match (step.kind, step.base) {
            (12, _) => {
                let holder = Holder::new(&"h".repeat(usize::from(step.head))).expect("short");
                Write::AcquireLease { request, id, holder, ttl, steal: step.expected == 0 }
            }
            (_, 0..4) => {
                let other = session(1 - step.session);
                let of_other = self.fence(step, other.as_str()).unwrap_or(Fence(1));
                let both = if step.base == 0 { vec![(id, fence)] } else { vec![(other, of_other), (id, fence)] };
                Write::RenewLeases { request, leases: Renewals::new(both).expect("two"), ttl }
            }
            _ => Write::ReleaseLease { request, id, fence },
        }
    }

    fn compare(&mut self, write: Write) -> Outcome {
        let index = self.lab.next_index;
        let modelled = self.model.apply(index, self.now, &write);
        let outcome = self.lab.write(self.now, write.clone());
        assert_eq!(outcome, modelled, "write={write:?}");
        *self.seen.entry(kind(&outcome, index)).or_default() += 1;
        if let (Write::OpenClient { nonce }, Verdict::ClientOpened { client }) = (&write, &outcome.verdict) {
            let which = usize::from(nonce.0[0]);
            if self.clients[which] != client.0 {
                (self.clients[which], self.sequences[which]) = (client.0, 1);
            }
        }
        for (which, past) in self.past.iter_mut().enumerate() {
            let id = session(which);
            let expected = self.model.sessions.get(id.as_str());
            let content = self
                .lab
                .content(&id)
                .map(|(chunks, head)| (chunks.iter().map(|chunk| text(&chunk.blob.data)).collect::<Vec<_>>(), text(&head.data)));
            let modelled = expected.map(|session| {
                (session.chunks.iter().map(|chunk| text(&chunk.blob.data)).collect::<Vec<_>>(), text(&session.head.data))
            });
            assert_eq!(content, modelled);
            let Some(info) = self.lab.machine.info(&id) else {
                continue;
            };
            assert_eq!(info.deadline_ms, expected.and_then(|session| session.deadline));
            let lease = self.model.leases.get(id.as_str()).map(|(fence, holder, deadline)| (Fence(*fence), holder, *deadline));
            assert_eq!(info.lease.as_ref().map(|lease| (lease.fence, &lease.holder, lease.deadline_ms)), lease);
            let places = expected.map(|session| (session.first_chunk, session.next_chunk, session.chunks.len() as u64));
            assert_eq!(Some((info.first_chunk, info.next_chunk, info.chunks)), places);
            assert_eq!(Some(&info.label), expected.map(|session| &session.label));
            let state = (info.create_revision.0, info.version.0, info.items);
            if past.last() != Some(&state) {
                past.push(state);
            }
        }
        self.lab.check_content();
        outcome
    }
}

fn session(which: usize) -> SessionId {
    id(["a", "b"][which])
}

/// Name of a verdict's kind, for coverage.
fn kind(outcome: &Outcome, index: u64) -> String {
    let text = format!("{:?}", outcome.verdict);
    let name = text.split([' ', '(', '{']).next().unwrap_or_default().to_owned();
    match &outcome.verdict {
        _ if outcome.revision.0 != index => format!("{name} repeated"),
        Verdict::Saved(saved) if saved.rebased => "Saved rebased".to_owned(),
        _ => name,
    }
}

/// Everything the machine can answer to these commands is really compared, or the run proves little.
#[test]
fn the_machine_answers_as_the_model_does() {
    let config = ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() };
    let seen = RefCell::new(BTreeMap::new());
    let result = TestRunner::new(config).run(&prop::collection::vec(step(), 1..80), |steps| {
        Driver::run(&steps, &mut seen.borrow_mut());
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let seen = seen.into_inner();
    for expected in [
        "Saved",
        "Saved rebased",
        "Saved repeated",
        "Appended",
        "Appended repeated",
        "WrongForm",
        "Touched",
        "LeaseGranted",
        "LeaseHeld",
        "LeasesRenewed",
        "LeaseReleased",
        "LeaseLost",
        "Repacked",
        "NotRepacked",
        "Leased",
        "Leased repeated",
        "Fenced",
        "Conflict",
        "Conflict repeated",
        "BaseMismatch",
        "Transacted",
        "Transacted repeated",
        "Aborted",
        "Aborted repeated",
        "BaseMismatchAt",
        "Deleted",
        "Deleted repeated",
        "NotFound",
        "ClientOpened",
        "ClientUnknown",
        "Stale",
    ] {
        assert!(seen.get(expected).is_some_and(|count| *count > 20), "too little of {expected} seen={seen:?}");
    }
}

/// What a conditional write expects of a session, as of [`require`].
fn expected(step: &Step, later: bool, older: (u64, u64, u64), newest: (u64, u64, u64)) -> Expected {
    let at = |version, create_revision| Expected::At { version: Version(version), create_revision };
    match step.expected {
        0 => Expected::Absent,
        1 => at(older.1, None),
        2 => at(newest.1, Some(Revision(older.0))),
        3 if later => Expected::Incarnation { create_revision: Revision(older.0) },
        _ => at(newest.1, None),
    }
}

/// What an append requires of a session, of which these are the last two states: where it was created, its version and items.
fn require(step: &Step, older: (u64, u64, u64), newest: (u64, u64, u64)) -> Require {
    match step.expected {
        0 => Require::Absent,
        1 => Require::At { create_revision: None, version: Some(Version(older.1)), items: None },
        2 => Require::At { create_revision: Some(Revision(older.0)), version: None, items: Some(newest.2) },
        3 if step.fence < 2 => Require::Present,
        3 => Require::AppendedOnly { create_revision: Revision(newest.0), since: Version(older.1) },
        _ => Require::Any,
    }
}
