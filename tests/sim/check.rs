//! Whether a history is one of a linearizable store, in one pass over the order that the store itself names.
//!
//! Every answer carries a revision. Sorted by it, writes before reads, the operations must be legal for a sequential store over all keys,
//! and no operation may come after one that was invoked only after it had returned. Writes whose answer was lost have no revision: they
//! are placed by version, where a version is missing that nobody was told of, so for them the check is a necessary one only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::history::{Answer, Ask, Op};

/// What some answer says about one version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    Value(u64),
    Present,
    Absent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Content {
    #[default]
    Absent,
    Present(Option<u64>),
    /// A write nobody was told of, of any kind.
    Unknown,
}

#[derive(Default)]
struct Key {
    version: u64,
    content: Content,
    facts: BTreeMap<u64, Fact>,
    /// Writes without an answer that explain no version so far.
    open: BTreeSet<usize>,
    /// Versions that any of them may explain.
    wild: usize,
    /// Revisions from which on the content was such.
    past: Vec<(u64, Content)>,
}

struct Checker<'a> {
    ops: &'a [Op],
    keys: BTreeMap<usize, Key>,
    /// Who stored a value.
    writers: BTreeMap<u64, usize>,
    violations: Vec<String>,
}

/// Every violation found, in words.
pub fn check(ops: &[Op]) -> Vec<String> {
    let mut checker = Checker { ops, keys: BTreeMap::new(), writers: BTreeMap::new(), violations: Vec::new() };
    checker.prepare();
    let mut order: Vec<usize> = (0..ops.len()).filter(|at| ops[*at].answer.revision().is_some()).collect();
    order.sort_by_key(|at| (ops[*at].answer.revision(), is_read(&ops[*at]), ops[*at].invoked, *at));
    checker.real_time(&order);
    checker.one_write_per_revision(&order);
    order.iter().for_each(|at| checker.step(*at));
    checker.explain_wild();
    (0..ops.len()).filter(|at| ops[*at].answer == Answer::NothingThere).for_each(|at| checker.nothing_there(at));
    checker.violations
}

fn is_read(op: &Op) -> bool {
    op.ask == Ask::Load
}

impl Checker<'_> {
    fn violation(&mut self, at: usize, what: impl std::fmt::Display) {
        self.violations.push(format!("{what}: op {at} {:?}", self.ops[at]));
    }

    fn prepare(&mut self) {
        for (at, op) in self.ops.iter().enumerate() {
            let key = self.keys.entry(op.key).or_default();
            if let Some(value) = op.ask.value() {
                assert!(self.writers.insert(value, at).is_none(), "the workload stores no value twice");
            }
            if op.answer == Answer::Unknown && op.ask != Ask::Load {
                key.open.insert(at);
            }
        }
        for at in 0..self.ops.len() {
            self.learn(at);
        }
    }

    fn learn(&mut self, at: usize) {
        let op = self.ops[at].clone();
        match (op.ask, op.answer) {
            (_, Answer::Found { version, value, .. }) => {
                self.fact(at, version, Fact::Value(value));
                self.origin(at, version, value);
            }
            (_, Answer::NotFound { tombstone, .. }) if tombstone > 0 => self.fact(at, tombstone, Fact::Absent),
            (_, Answer::Conflict { actual, .. }) if actual > 0 => self.fact(at, actual, Fact::Present),
            (Ask::Save { value }, Answer::Written { version, .. }) => self.fact(at, version, Fact::Value(value)),
            (Ask::SaveIf { expected, value }, Answer::Written { version, .. }) => {
                self.fact(at, version, Fact::Value(value));
                if version > 1 {
                    self.fact(at, version - 1, if expected == 0 { Fact::Absent } else { Fact::Present });
                }
            }
            (Ask::Delete, Answer::Written { version, .. }) => {
                self.fact(at, version, Fact::Absent);
                self.fact(at, version - 1, Fact::Present);
            }
            _ => {}
        }
    }

    fn fact(&mut self, at: usize, version: u64, fact: Fact) {
        let facts = &mut self.keys.entry(self.ops[at].key).or_default().facts;
        let merged = match (facts.get(&version).copied(), fact) {
            (None, fact) => Some(fact),
            (Some(before), fact) if before == fact => Some(fact),
            (Some(Fact::Value(value)), Fact::Present) | (Some(Fact::Present), Fact::Value(value)) => Some(Fact::Value(value)),
            (Some(_), _) => None,
        };
        match merged {
            Some(merged) => drop(facts.insert(version, merged)),
            None => {
                let before = facts[&version];
                self.violation(at, format!("two operations with one version: version {version} is {before:?} and {fact:?}"));
            }
        }
    }

    /// A value that was read must have been written there, at that version, by a write that may have happened.
    fn origin(&mut self, at: usize, version: u64, value: u64) {
        let Some(writer) = self.writers.get(&value).copied() else { return self.violation(at, "phantom value") };
        let written = &self.ops[writer];
        if written.key != self.ops[at].key {
            return self.violation(at, format!("a value of another key, of op {writer}"));
        }
        match written.answer {
            Answer::Written { version: told, .. } if told != version => {
                self.violation(at, format!("one operation with two versions: op {writer} was told {told}"));
            }
            Answer::Written { .. } | Answer::Unknown => {}
            answer => self.violation(at, format!("effect of a write that had none: op {writer} was told {answer:?}")),
        }
    }

    fn real_time(&mut self, order: &[usize]) {
        let mut latest: Option<usize> = None;
        for at in order.iter().copied() {
            if let Some(before) = latest.filter(|before| self.ops[at].returned < self.ops[*before].invoked) {
                let why = if is_read(&self.ops[before]) && !is_read(&self.ops[at]) {
                    "stale read, lost write or"
                } else {
                    "stale read or"
                };
                self.violation(before, format!("{why} order against real time, before op {at} {:?}", self.ops[at]));
            }
            if latest.is_none_or(|before| self.ops[before].invoked < self.ops[at].invoked) {
                latest = Some(at);
            }
        }
    }

    fn one_write_per_revision(&mut self, order: &[usize]) {
        let writes: Vec<usize> = order.iter().copied().filter(|at| !is_read(&self.ops[*at])).collect();
        for pair in writes.windows(2) {
            if self.ops[pair[0]].answer.revision() == self.ops[pair[1]].answer.revision() {
                self.violation(pair[1], format!("two writes with one revision, the other is op {}", pair[0]));
            }
        }
    }

    #[allow(clippy::collapsible_match, reason = "a guard that changes the checker would hide that it does")]
    fn step(&mut self, at: usize) {
        let op = self.ops[at].clone();
        match (op.ask, op.answer) {
            (ask, Answer::Written { version, .. }) => self.written(at, ask, version),
            (_, Answer::Found { version, value, .. }) => self.found(at, version, value),
            (_, Answer::NotFound { tombstone, .. }) => self.not_found(at, tombstone),
            (ask, Answer::Conflict { actual, .. }) => self.conflict(at, ask, actual),
            _ => {}
        }
    }

    fn found(&mut self, at: usize, version: u64, value: u64) {
        if !self.advance(at, version) {
            return;
        }
        let content = self.key(at).content;
        let fits = [Content::Unknown, Content::Present(None), Content::Present(Some(value))].contains(&content);
        if !fits {
            self.violation(at, format!("read of what is not there, but {content:?}"));
        }
    }

    fn not_found(&mut self, at: usize, tombstone: u64) {
        if !self.advance(at, tombstone) {
            return;
        }
        let content = self.key(at).content;
        if matches!(content, Content::Present(_)) {
            self.violation(at, format!("lost session, which is {content:?}"));
        }
    }

    fn key(&mut self, at: usize) -> &mut Key {
        self.keys.entry(self.ops[at].key).or_default()
    }

    fn written(&mut self, at: usize, ask: Ask, version: u64) {
        if version == 0 || !self.advance(at, version - 1) {
            return;
        }
        let content = self.key(at).content;
        let fits = match ask {
            Ask::SaveIf { expected: 0, .. } => !matches!(content, Content::Present(_)),
            Ask::SaveIf { expected, .. } => expected == version - 1 && content != Content::Absent,
            Ask::Delete => content != Content::Absent,
            Ask::Save { .. } | Ask::Load => true,
        };
        if !fits {
            self.violation(at, format!("a write that had to fail, at version {} {content:?}", version - 1));
        }
        let after = ask.value().map_or(Content::Absent, |value| Content::Present(Some(value)));
        self.set(at, version, after);
    }

    fn set(&mut self, at: usize, version: u64, content: Content) {
        let revision = self.ops[at].answer.revision().expect("only answers with a place are walked");
        let key = self.key(at);
        key.version = version;
        key.content = content;
        key.past.push((revision, content));
    }

    fn conflict(&mut self, at: usize, ask: Ask, actual: u64) {
        if actual == 0 {
            let ops = self.ops;
            let key = self.key(at);
            let hidden = key.open.iter().any(|open| ops[*open].ask == Ask::Delete);
            if matches!(key.content, Content::Present(_)) && !hidden {
                let content = key.content;
                self.violation(at, format!("conflict with nothing, though there is {content:?}"));
            }
            return;
        }
        if !self.advance(at, actual) {
            return;
        }
        let content = self.key(at).content;
        let spurious = matches!(ask, Ask::SaveIf { expected, .. } if expected == actual);
        if spurious || content == Content::Absent {
            self.violation(at, format!("spurious conflict, at version {actual} {content:?}"));
        }
    }

    /// Moves the key on to `version`, through writes nobody was told of. False: that is a violation.
    fn advance(&mut self, at: usize, version: u64) -> bool {
        let now = self.key(at).version;
        if now > version {
            self.violation(at, format!("a version that had passed, {now} is there"));
            return false;
        }
        for missing in now + 1..=version {
            if !self.fill(at, missing) {
                self.violation(at, format!("version {missing} was written by nobody"));
                return false;
            }
        }
        true
    }

    /// Finds a write without an answer that made this version.
    fn fill(&mut self, at: usize, version: u64) -> bool {
        let until = self.ops[at].returned;
        let fact = self.key(at).facts.get(&version).copied();
        let content = match fact {
            None => {
                self.key(at).wild += 1;
                Content::Unknown
            }
            Some(Fact::Value(value)) => {
                let Some(writer) = self.writers.get(&value).copied() else { return false };
                if !self.fits(writer, version, until) {
                    return false;
                }
                self.key(at).open.remove(&writer);
                Content::Present(Some(value))
            }
            Some(fact) => {
                let open: Vec<usize> = self.key(at).open.iter().copied().collect();
                let read = |value: u64, key: &Key| key.facts.values().any(|fact| *fact == Fact::Value(value));
                let kind = |open: &&usize| (self.ops[**open].ask == Ask::Delete) == (fact == Fact::Absent);
                let key = &self.keys[&self.ops[at].key];
                let unread = |open: &&usize| self.ops[**open].ask.value().is_none_or(|value| !read(value, key));
                let mut fitting: Vec<usize> =
                    open.iter().filter(kind).filter(unread).filter(|open| self.fits(**open, version, until)).copied().collect();
                // The choosiest first.
                fitting.sort_by_key(|open| matches!(self.ops[*open].ask, Ask::Save { .. }));
                let Some(writer) = fitting.first() else { return false };
                self.key(at).open.remove(writer);
                if fact == Fact::Absent { Content::Absent } else { Content::Present(None) }
            }
        };
        self.set(at, version, content);
        true
    }

    fn fits(&self, writer: usize, version: u64, until: Duration) -> bool {
        let op = &self.ops[writer];
        let key = &self.keys[&op.key];
        let expects = match op.ask {
            Ask::SaveIf { expected: 0, .. } => !matches!(key.content, Content::Present(_)),
            Ask::SaveIf { expected, .. } => expected == version - 1 && key.content != Content::Absent,
            Ask::Delete => key.content != Content::Absent,
            Ask::Save { .. } => true,
            Ask::Load => false,
        };
        key.open.contains(&writer) && op.invoked <= until && expects
    }

    fn explain_wild(&mut self) {
        for (key, state) in &self.keys {
            if state.wild > state.open.len() {
                let (wild, open) = (state.wild, state.open.len());
                self.violations.push(format!(
                    "applied twice: key {key} has {wild} versions nobody wrote, and {open} writes without an answer"
                ));
            }
        }
    }

    /// A delete that found nothing needs an instant between its start and its end at which there was nothing.
    fn nothing_there(&mut self, at: usize) {
        let op = &self.ops[at];
        let known = |other: &&Op| other.answer.revision().is_some();
        let before = self.ops.iter().filter(known).filter(|other| other.returned < op.invoked);
        let after = self.ops.iter().filter(known).filter(|other| other.invoked > op.returned);
        let from = before.filter_map(|other| other.answer.revision()).max().unwrap_or(0);
        let until = after.filter_map(|other| other.answer.revision()).min().unwrap_or(u64::MAX);
        let key = &self.keys[&op.key];
        let hidden = key.open.iter().any(|open| self.ops[*open].ask == Ask::Delete);
        let first = key.past.iter().rev().find(|(revision, _)| *revision <= from).map_or(Content::Absent, |(_, content)| *content);
        let mut within =
            key.past.iter().filter(|(revision, _)| *revision > from && *revision <= until).map(|(_, content)| *content);
        let possible = |content: Content| !matches!(content, Content::Present(_));
        if !hidden && !possible(first) && !within.any(possible) {
            self.violation(at, format!("a delete found nothing between revisions {from} and {until}"));
        }
    }
}
