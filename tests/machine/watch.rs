//! The promises of a watch, against a naive oracle: random histories, frames cut anywhere, resumes on machines that know less.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use quorate::machine::{Begin, Bounds, Command, Cursor, Step};
use quorate::types::{Change, ClientId, Counters, Expiry, Revision, Selector, SessionChange, SessionId, Verdict, Write};

use crate::machine::lab::{Lab, blob, id, request};

const IDS: [&str; 6] = ["a/1", "a/2", "a/3", "b/1", "b/2", "c"];

/// What is stored, by outcomes and rows alone: creation and last write of each session.
type Truth = BTreeMap<SessionId, (u64, u64)>;

struct World {
    lab: Lab,
    client: ClientId,
    sequence: u64,
    now: u64,
    truth: Truth,
    /// The last deletion of each id.
    deleted: BTreeMap<SessionId, u64>,
    kept: Option<(usize, usize)>,
}

impl World {
    fn new() -> Self {
        let mut lab = Lab::quick();
        let client = lab.open(1000, 1);
        lab.apply(1000, Command::SetClusterVersion { version: 2 });
        Self { lab, client, sequence: 0, now: 1000, truth: Truth::new(), deleted: BTreeMap::new(), kept: None }
    }

    fn write(&mut self, write: impl FnOnce(quorate::types::Request) -> Write) -> Verdict {
        self.sequence += 1;
        let request = request(self.client, 1, self.sequence, self.sequence);
        let verdict = self.lab.write(self.now, write(request)).verdict;
        assert!(!matches!(verdict, Verdict::ClientUnknown), "the client lives");
        verdict
    }

    fn save(&mut self, id: &SessionId, expiry: Expiry) {
        let index = self.lab.next_index;
        let change = Change::Full { chunks: Vec::new(), head: blob("h"), counters: Counters::default() };
        let verdict = self.write(|request| Write::Save { request, id: id.clone(), change, attributes: expiry.into(), fence: None });
        let Verdict::Saved(saved) = verdict else { panic!("not saved: {verdict:?}") };
        self.truth.insert(id.clone(), (saved.content.create_revision.0, index));
    }

    fn delete(&mut self, id: &SessionId) {
        self.write(|request| Write::Delete { request, id: id.clone(), expected: None, fence: None });
        self.take_removals();
    }

    /// No write of the session: nobody is shown it.
    fn touch(&mut self, id: &SessionId) {
        let expiry = Expiry::After(Duration::from_millis(100));
        self.write(|request| Write::Touch { request, id: id.clone(), expiry, fence: None });
    }

    fn sweep(&mut self) {
        self.now += 60;
        self.lab.apply(self.now, Command::Sweep { limit: 10 });
        self.take_removals();
    }

    /// What has no row any more is gone.
    fn take_removals(&mut self) {
        let index = self.lab.next_index - 1;
        let rows = &self.lab.rows;
        let is_there = |id: &SessionId| rows.keys().any(|(table, key)| *table == 1 && key == id.as_str().as_bytes());
        let gone: Vec<_> = self.truth.keys().filter(|id| !is_there(id)).cloned().collect();
        for id in gone {
            self.truth.remove(&id);
            self.deleted.insert(id, index);
        }
    }

    /// As a restart, or a snapshot that is installed.
    fn rebuild(&mut self) {
        self.lab.rebuild();
        if let Some((saves, deletes)) = self.kept {
            self.lab.machine.remember(saves, deletes);
        }
    }
}

/// One that watches, by the rules that the protocol gives it.
struct Watcher {
    selector: Selector,
    cursor: Cursor,
    /// What it believes.
    shown: BTreeMap<SessionId, (u64, u64)>,
    /// Shown since the last `resync`, until the walk ends.
    resynced: Option<BTreeSet<SessionId>>,
    /// Where it would resume.
    revision: Option<Revision>,
    /// Whether `shown` is a whole state, which only one that began with it has.
    is_whole: bool,
    /// Where it began, if it began in the middle.
    began: u64,
}

impl Watcher {
    fn new(world: &World, selector: Selector, begin: Begin) -> Self {
        let cursor = Cursor::begin(begin, &world.lab.machine);
        let is_whole = begin != Begin::Now;
        let began = world.lab.next_index - 1;
        Self { selector, cursor, shown: BTreeMap::new(), resynced: None, revision: None, is_whole, began }
    }

    /// The stream ended, and another node answers: with what this machine knows.
    fn resume(&mut self, world: &World, foreign: bool) {
        let begin = match self.revision {
            _ if foreign => Begin::Foreign,
            Some(revision) => Begin::From(revision),
            None if self.is_whole => Begin::Initial,
            None => Begin::Now,
        };
        // Without a revision there is nothing to go on from.
        if self.revision.is_none() {
            self.shown.clear();
            self.began = world.lab.next_index - 1;
        }
        self.resynced = None;
        self.cursor = Cursor::begin(begin, &world.lab.machine);
    }

    fn step(&mut self, world: &World, bounds: Bounds, seen: &mut BTreeMap<&'static str, usize>) {
        let step = self.cursor.step_within(&world.lab.machine, &self.selector, bounds);
        let mut count = |what| *seen.entry(what).or_default() += 1;
        count(match () {
            () if step.resync => "resync",
            () if step.walked => "walked",
            () if step.revision.is_none() => "within a walk",
            () if !step.complete => "cut",
            () => "complete",
        });
        if matches!(self.cursor, Cursor::Deletions { .. }) {
            count("deletions before a walk");
        }
        self.take(&step);
        self.check(world, &step);
    }

    fn take(&mut self, step: &Step) {
        if step.resync {
            self.resynced = Some(BTreeSet::new());
            self.is_whole = true;
        }
        let mut ids = BTreeSet::new();
        for change in &step.changes {
            let id = change.id().clone();
            assert!(self.selector.matches(&id), "it is shown of others");
            assert!(ids.insert(id.clone()), "twice in one frame");
            if let Some(resynced) = &mut self.resynced {
                resynced.insert(id.clone());
            }
            match change {
                SessionChange::Saved { info, .. } => {
                    let state = (info.create_revision.0, info.mod_revision.0);
                    let before = self.shown.insert(id, state);
                    assert!(before.is_none_or(|before| before.1 <= state.1), "a state went back: {before:?} {state:?}");
                }
                SessionChange::Gone { .. } => drop(self.shown.remove(&id)),
            }
        }
        if step.walked
            && let Some(resynced) = self.resynced.take()
        {
            self.shown.retain(|id, _| resynced.contains(id));
        }
        if let Some(revision) = step.revision {
            assert!(self.revision.is_none_or(|before| before <= revision), "revisions go back");
            self.revision = Some(revision);
        }
    }

    fn check(&self, world: &World, step: &Step) {
        let Some(Revision(revision)) = step.revision else { return };
        let mine = |id: &&SessionId| self.selector.matches(id);
        for id in world.truth.keys().filter(mine) {
            let state = world.truth[id];
            let concerns = state.1 <= revision && (self.is_whole || state.1 > self.began);
            assert!(!concerns || self.shown.get(id) == Some(&state), "{id:?} at {state:?} was not shown revision={revision}");
        }
        for (id, deleted) in world.deleted.iter().filter(|(id, _)| self.selector.matches(id)) {
            let concerns = *deleted <= revision && !world.truth.contains_key(id);
            assert!(
                !concerns || !self.shown.contains_key(id),
                "the deletion of {id:?} at {deleted} was not shown revision={revision}"
            );
        }
        if step.complete {
            let truth: Truth = world
                .truth
                .iter()
                .filter(|(id, state)| self.selector.matches(id) && (self.is_whole || state.1 > self.began))
                .map(|(id, state)| (id.clone(), *state))
                .collect();
            assert_eq!(self.shown, truth, "a complete frame");
            assert_eq!(revision, world.lab.next_index - 1, "complete up to what is applied");
        }
    }
}

fn selectors() -> [Selector; 4] {
    let prefix = |text: &str| Selector::Prefix(text.to_owned());
    [prefix(""), prefix("a/"), prefix("b/1"), Selector::of_ids(vec![id("c"), id("a/1"), id("nobody"), id("a/1")])]
}

#[derive(Clone, Debug)]
struct Op {
    kind: u8,
    which: usize,
    watcher: usize,
    records: usize,
    changes: usize,
}

fn run(ops: &[Op], seen: &mut BTreeMap<&'static str, usize>) {
    let mut world = World::new();
    let begins = [Begin::Initial, Begin::Now, Begin::Initial, Begin::Foreign];
    let mut watchers: Vec<Watcher> =
        selectors().into_iter().zip(begins).map(|(selector, begin)| Watcher::new(&world, selector, begin)).collect();
    for op in ops {
        let session = id(IDS[op.which % IDS.len()]);
        let watcher = &mut watchers[op.watcher];
        match op.kind {
            0..=5 => world.save(&session, if op.changes == 1 { Expiry::After(Duration::from_millis(50)) } else { Expiry::Never }),
            6..=8 => world.delete(&session),
            9 => world.sweep(),
            10 => {
                world.rebuild();
                // Another node, with less in memory.
                watcher.resume(&world, false);
            }
            11 => {
                world.kept = Some((op.records, op.changes));
                world.lab.machine.remember(op.records, op.changes);
            }
            12 => watcher.resume(&world, op.which == 0),
            // Installed under a watch that goes on.
            13 => world.rebuild(),
            24 => world.touch(&session),
            _ => {
                let bounds = Bounds { records: op.records, changes: op.changes, bytes: u64::MAX };
                watcher.step(&world, bounds, seen);
            }
        }
    }
    // A watcher that continues to read is shown all.
    for watcher in &mut watchers {
        let mut steps = 0;
        loop {
            let place = watcher.cursor.clone();
            watcher.step(&world, Bounds { records: 3, changes: 2, bytes: u64::MAX }, seen);
            steps += 1;
            assert!(steps < 1000, "it does not end at {place:?}");
            if watcher.cursor.place().is_some_and(|place| place.whole().0 == world.lab.next_index - 1) {
                break;
            }
        }
        watcher.step(&world, Bounds { records: 1, changes: 1, bytes: 1 }, seen);
    }
}

/// Every kind of frame is really seen, or the run proves little.
#[test]
fn a_watcher_has_at_every_complete_frame_what_is_stored() {
    let config = ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() };
    let seen = RefCell::new(BTreeMap::new());
    let op = (0..25u8, 0..6usize, 0..4usize, 1..5usize, 1..4usize).prop_map(|(kind, which, watcher, records, changes)| Op {
        kind,
        which,
        watcher,
        records,
        changes,
    });
    let result = TestRunner::new(config).run(&prop::collection::vec(op, 1..120), |ops| {
        run(&ops, &mut seen.borrow_mut());
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let seen = seen.into_inner();
    for expected in ["resync", "walked", "within a walk", "cut", "complete", "deletions before a walk"] {
        assert!(seen.get(expected).is_some_and(|count| *count > 20), "too little of {expected} seen={seen:?}");
    }
}

/// A sweep removes many at one revision. A frame that ends among them says the revision before it, and resuming tells them all.
#[test]
fn a_frame_that_ends_within_a_sweep_says_the_revision_before_it() {
    let mut world = World::new();
    for text in IDS {
        world.save(&id(text), Expiry::After(Duration::from_millis(50)));
    }
    let before = Revision(world.lab.next_index - 1);
    let mut cursor = Cursor::begin(Begin::Now, &world.lab.machine);
    world.sweep();
    let everything = Selector::Prefix(String::new());
    let step = cursor.step_within(&world.lab.machine, &everything, Bounds::of_records(4));
    assert_eq!((step.changes.len(), step.revision, step.complete), (4, Some(before), false));
    let mut resumed = Cursor::begin(Begin::From(before), &world.lab.machine);
    assert_eq!(resumed.step(&world.lab.machine, &everything).changes.len(), IDS.len());
    let step = cursor.step(&world.lab.machine, &everything);
    assert_eq!((step.changes.len(), step.revision, step.complete), (2, Some(Revision(before.0 + 1)), true));
}

/// A node that was rebuilt does not know what was deleted before. It says so, and tells the whole state.
#[test]
fn a_resume_on_a_node_that_does_not_know_the_deletions_is_a_resync() {
    let mut world = World::new();
    world.save(&id("a/1"), Expiry::Never);
    world.save(&id("a/2"), Expiry::Never);
    let known = Revision(world.lab.next_index - 1);
    world.delete(&id("a/1"));
    let everything = Selector::Prefix(String::new());
    let mut cursor = Cursor::begin(Begin::From(known), &world.lab.machine);
    let step = cursor.step(&world.lab.machine, &everything);
    assert_eq!(step.changes, [SessionChange::Gone { id: id("a/1") }]);
    world.rebuild();
    let mut cursor = Cursor::begin(Begin::From(known), &world.lab.machine);
    let step = cursor.step(&world.lab.machine, &everything);
    assert!(step.resync && step.walked && step.complete, "{step:?}");
    assert_eq!(step.changes.iter().map(|change| change.id().as_str()).collect::<Vec<_>>(), ["a/2"]);
    // From where it was rebuilt on, everything is known.
    let now = Revision(world.lab.next_index - 1);
    world.delete(&id("a/2"));
    let step = Cursor::begin(Begin::From(now), &world.lab.machine).step(&world.lab.machine, &everything);
    assert_eq!((step.resync, step.changes), (false, vec![SessionChange::Gone { id: id("a/2") }]));
}

/// Nothing of a walk can be resumed from: not what was written before it is shown, in order of ids.
#[test]
fn a_frame_within_a_walk_says_no_revision() {
    let mut world = World::new();
    for text in IDS {
        world.save(&id(text), Expiry::Never);
    }
    let mut cursor = Cursor::begin(Begin::Initial, &world.lab.machine);
    let began = Revision(world.lab.next_index - 1);
    let everything = Selector::Prefix(String::new());
    for expected in [3, 3] {
        let step = cursor.step_within(&world.lab.machine, &everything, Bounds { records: 3, changes: 3, bytes: u64::MAX });
        let at_end = step.walked;
        assert_eq!((step.changes.len(), step.revision), (expected, at_end.then_some(began)));
        world.save(&id("a/1"), Expiry::Never);
    }
    while !cursor.step(&world.lab.machine, &everything).complete {}
    assert!(cursor.place().is_some());
}

#[test]
fn recent_sessions_come_newest_first_in_pages_and_say_where_they_end() {
    let mut world = World::new();
    for text in ["a/1", "b/1", "a/2", "a/1", "a/3", "c"] {
        world.save(&id(text), Expiry::Never);
    }
    world.delete(&id("c"));
    let mut ids = Vec::new();
    let mut before: Option<(Revision, SessionId)> = None;
    loop {
        let page = world.lab.machine.recent("a/", before.as_ref().map(|(revision, id)| (*revision, id)), 2);
        assert_eq!(page.since, Revision(0));
        ids.extend(page.sessions.iter().map(|listed| listed.id.as_str().to_owned()));
        before = page.sessions.last().map(|listed| (listed.info.mod_revision, listed.id.clone()));
        if !page.more {
            break;
        }
    }
    assert_eq!(ids, ["a/3", "a/1", "a/2"]);
    world.lab.rebuild();
    let all = world.lab.machine.recent("", None, 1000);
    assert_eq!(all.sessions.len(), 4, "a machine that was built knows its newest sessions");
    world.lab.machine.remember(2, 2);
    let few = world.lab.machine.recent("", None, 1000);
    assert_eq!(few.sessions.iter().map(|listed| listed.id.as_str()).collect::<Vec<_>>(), ["a/3", "a/1"]);
    assert_eq!(few.since, Revision(few.sessions[1].info.mod_revision.0 - 1));
}
