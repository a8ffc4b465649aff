//! Whether a history is one of a linearizable store, in one pass over the order that the store itself names.
//!
//! Every answer carries a revision. Sorted by it, writes before reads, the operations must be legal for a sequential store over all keys,
//! and no operation may come after one that was invoked only after it had returned. Writes whose answer was lost have no revision: they
//! are placed by version, where a version is missing that no caller got an answer to, so for them the check is a necessary one only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Answer, Ask, Kind, Op, Violation};

/// An answer's statement about one version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Value(u64),
    Present,
    Absent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Content {
    #[default]
    Absent,
    Present(Option<u64>),
    /// A write no caller got an answer to, of any kind.
    Unknown,
}

#[derive(Default)]
struct Key {
    version: u64,
    content: Content,
    facts: BTreeMap<u64, Fact>,
    /// Writes without an answer that explain no version so far.
    open: BTreeSet<usize>,
    /// Values that some answer places: their writes explain no other version.
    placed: BTreeSet<u64>,
    /// Versions that any of the open writes may explain.
    wild: usize,
    /// A session of this key may end by its deadline, without an answer to any caller.
    expires: bool,
    /// Revisions from which on the content was such.
    past: Vec<(u64, Content)>,
    /// Revisions between which, at some time, there was nothing by a write no caller got an answer to.
    absences: Vec<(u64, u64)>,
}

struct Checker<'a> {
    ops: &'a [Op],
    keys: BTreeMap<usize, Key>,
    /// The writers of values.
    writers: BTreeMap<u64, usize>,
    /// For each operation with a place: when it and all after it had returned first.
    until: BTreeMap<usize, Duration>,
    violations: Vec<Violation>,
}

/// Every violation, by the revisions of the answers. About linear in the length of the history.
#[must_use]
pub fn exact(ops: &[Op]) -> Vec<Violation> {
    let mut checker =
        Checker { ops, keys: BTreeMap::new(), writers: BTreeMap::new(), until: BTreeMap::new(), violations: Vec::new() };
    checker.prepare();
    let mut order: Vec<usize> = (0..ops.len()).filter(|at| ops[*at].answer.revision().is_some()).collect();
    // Deadlines pass when an entry moves the time on, before it is judged.
    let rank = |op: &Op| if op.ask == Ask::Expire { 0 } else { 1 + u8::from(op.ask.is_read()) };
    order.sort_by_key(|at| (ops[*at].answer.revision(), rank(&ops[*at]), ops[*at].invoked, *at));
    checker.real_time(&order);
    checker.one_write_per_revision(&order);
    order.iter().for_each(|at| checker.step(*at));
    checker.explain_wild();
    checker.nothing_there(&order);
    checker.violations
}

impl Checker<'_> {
    fn violation(&mut self, kind: Kind, at: usize, what: impl std::fmt::Display) {
        self.violations.push(Violation { kind, what: format!("{what}: op {at} {:?}", self.ops[at]) });
    }

    fn prepare(&mut self) {
        for (at, op) in self.ops.iter().enumerate() {
            let key = self.keys.entry(op.key).or_default();
            key.expires |= op.expires;
            if op.answer == Answer::Unknown && !op.ask.is_read() {
                key.open.insert(at);
            }
            if let Some(before) = op.ask.value().and_then(|value| self.writers.insert(value, at)) {
                self.violation(Kind::Disorder, at, format_args!("op {before} stores the same value, so nothing can be said"));
            }
        }
        // The log that knows of expiries knows of all.
        for op in self.ops.iter().filter(|op| op.ask == Ask::Expire) {
            self.keys.entry(op.key).or_default().expires = false;
        }
        for at in 0..self.ops.len() {
            for (version, fact) in facts(&self.ops[at]) {
                self.fact(at, version, fact);
            }
            if let Answer::Found { version, value, .. } = self.ops[at].answer
                && let Some((kind, what)) = origin(self.ops, &self.writers, at, version, value)
            {
                self.violation(kind, at, what);
            }
        }
    }

    fn fact(&mut self, at: usize, version: u64, fact: Fact) {
        let key = self.keys.entry(self.ops[at].key).or_default();
        if let Fact::Value(value) = fact {
            key.placed.insert(value);
        }
        let before = key.facts.get(&version).copied();
        match merged(before, fact) {
            Some(merged) => drop(key.facts.insert(version, merged)),
            None => {
                let what = format!("version {version} is {before:?} and {fact:?}");
                self.violation(Kind::OneVersionTwice, at, what);
            }
        }
    }

    fn real_time(&mut self, order: &[usize]) {
        let mut latest: Option<usize> = None;
        for at in order.iter().copied().filter(|at| self.ops[*at].ask != Ask::LoadStale) {
            let late = latest.filter(|before| self.ops[at].deadline() < self.ops[*before].invoked);
            if let Some(before) = late {
                self.violation(
                    blame(&self.ops[before], &self.ops[at]),
                    before,
                    format_args!("op {at} {:?} was over", self.ops[at]),
                );
            }
            if latest.is_none_or(|before| self.ops[before].invoked < self.ops[at].invoked) {
                latest = Some(at);
            }
        }
        let mut until = Duration::MAX;
        for at in order.iter().rev().copied() {
            if self.ops[at].ask != Ask::LoadStale {
                until = until.min(self.ops[at].deadline());
            }
            self.until.insert(at, until);
        }
    }

    fn one_write_per_revision(&mut self, order: &[usize]) {
        let writes: Vec<usize> =
            order.iter().copied().filter(|at| !self.ops[*at].ask.is_read() && self.ops[*at].ask != Ask::Expire).collect();
        for pair in writes.windows(2) {
            if self.ops[pair[0]].answer.revision() == self.ops[pair[1]].answer.revision() {
                self.violation(Kind::Disorder, pair[1], format_args!("two writes with one revision, the other is op {}", pair[0]));
            }
        }
    }

    fn step(&mut self, at: usize) {
        let op = &self.ops[at];
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
            self.violation(Kind::PhantomValue, at, format_args!("at version {version} there is {content:?}"));
        }
    }

    fn not_found(&mut self, at: usize, tombstone: u64) {
        if !self.advance(at, tombstone) {
            return;
        }
        let content = self.key(at).content;
        if matches!(content, Content::Present(_)) {
            self.violation(Kind::LostWrite, at, format_args!("lost session, which is {content:?}"));
        }
    }

    fn key(&mut self, at: usize) -> &mut Key {
        self.keys.entry(self.ops[at].key).or_default()
    }

    fn written(&mut self, at: usize, ask: Ask, version: u64) {
        if version == 0 {
            return self.violation(Kind::Disorder, at, "no write makes version 0");
        }
        if !self.advance(at, version - 1) {
            return;
        }
        let content = self.key(at).content;
        let fits = match ask {
            Ask::SaveIf { expected: 0, .. } => !matches!(content, Content::Present(_)),
            Ask::SaveIf { expected, .. } => expected == version - 1 && content != Content::Absent,
            Ask::Delete | Ask::Expire => content != Content::Absent,
            Ask::Save { .. } => true,
            Ask::Load | Ask::LoadStale => false,
        };
        if !fits {
            let what = format!("a write that had to fail, at version {} {content:?}", version - 1);
            self.violation(Kind::EffectOfRefused, at, what);
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
        let Ask::SaveIf { expected, .. } = ask else {
            return self.violation(Kind::SpuriousConflict, at, "it asked for no version");
        };
        if actual == 0 {
            let hidden = self.may_be_gone(self.ops[at].key);
            let content = self.key(at).content;
            if expected == 0 || matches!(content, Content::Present(_)) && !hidden {
                self.violation(Kind::SpuriousConflict, at, format_args!("with nothing, though there is {content:?}"));
            }
            return;
        }
        if !self.advance(at, actual) {
            return;
        }
        let content = self.key(at).content;
        if expected == actual || content == Content::Absent {
            self.violation(Kind::SpuriousConflict, at, format_args!("at version {actual} {content:?}"));
        }
    }

    /// Whether a session may have ended without an answer to any caller.
    fn may_be_gone(&self, key: usize) -> bool {
        let key = &self.keys[&key];
        key.expires || key.open.iter().any(|open| self.ops[*open].ask == Ask::Delete)
    }

    /// Moves the key on to `version`, through writes no caller got an answer to. False: that is a violation.
    fn advance(&mut self, at: usize, version: u64) -> bool {
        let now = self.key(at).version;
        if now > version {
            let kind = if self.ops[at].ask.is_read() { Kind::LostWrite } else { Kind::Disorder };
            self.violation(kind, at, format_args!("version {version} has passed, {now} is there"));
            return false;
        }
        // Each of them takes a write, and each write may be followed by the end of what it stored.
        let key = self.key(at);
        let room = if key.expires { 2 * key.open.len() + 1 } else { key.open.len() } as u64;
        if version - now > room {
            self.violation(
                Kind::AppliedTwice,
                at,
                format_args!("from version {now} to {version} with {room} writes to explain it"),
            );
            self.set(at, version, Content::Unknown);
        }
        for missing in self.key(at).version + 1..=version {
            if !self.fill(at, missing) {
                self.violation(Kind::Unexplained, at, format_args!("version {missing}"));
                self.set(at, missing, Content::Unknown);
            }
        }
        true
    }

    /// Finds a write without an answer that made this version.
    fn fill(&mut self, at: usize, version: u64) -> bool {
        let until = self.until[&at];
        let key = &self.keys[&self.ops[at].key];
        let content = match key.facts.get(&version).copied() {
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
                let ops = self.ops;
                let suits = |open: &usize| {
                    let ask = ops[*open].ask;
                    let unread = ask.value().is_none_or(|value| !key.placed.contains(&value));
                    ask.removes() == (fact == Fact::Absent) && unread && self.fits(*open, version, until)
                };
                // The choosiest first.
                let writer = key.open.iter().copied().filter(suits).min_by_key(|open| matches!(ops[*open].ask, Ask::Save { .. }));
                let expired = key.expires && fact == Fact::Absent && key.content != Content::Absent;
                match writer {
                    Some(writer) => drop(self.key(at).open.remove(&writer)),
                    None if expired => {}
                    None => return false,
                }
                if fact == Fact::Absent { Content::Absent } else { Content::Present(None) }
            }
        };
        let since = self.key(at).past.last().map_or(0, |(revision, _)| *revision);
        self.set(at, version, content);
        let key = self.key(at);
        if let (Content::Absent | Content::Unknown, Some((now, _))) = (content, key.past.last().copied()) {
            key.absences.push((since, now));
        }
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
            Ask::Load | Ask::LoadStale | Ask::Expire => false,
        };
        key.open.contains(&writer) && op.invoked <= until && expects
    }

    fn explain_wild(&mut self) {
        for (key, state) in &self.keys {
            if state.wild > state.open.len() && !state.expires {
                let (wild, open) = (state.wild, state.open.len());
                let what = format!("key {key} has {wild} versions nobody wrote, and {open} writes without an answer");
                self.violations.push(Violation { kind: Kind::AppliedTwice, what });
            }
        }
    }

    /// A delete that found nothing needs an instant between its start and its end at which there was nothing.
    fn nothing_there(&mut self, order: &[usize]) {
        let places = Places::of(self.ops, order);
        for at in (0..self.ops.len()).filter(|at| self.ops[*at].answer == Answer::NothingThere) {
            let op = &self.ops[at];
            let (from, until) = (places.before(op.invoked), places.after(op.returned));
            let key = &self.keys[&op.key];
            let possible = |content: Content| !matches!(content, Content::Present(_));
            let next = key.past.partition_point(|(revision, _)| *revision <= from);
            let first = next.checked_sub(1).map_or(Content::Absent, |last| key.past[last].1);
            let mut within = key.past[next..].iter().take_while(|(revision, _)| *revision <= until).map(|(_, content)| *content);
            let unseen =
                key.absences.get(key.absences.partition_point(|(_, end)| *end < from)).is_some_and(|(since, _)| *since <= until);
            if !self.may_be_gone(op.key) && !unseen && !possible(first) && !within.any(possible) {
                let what = format!("a delete found nothing between revisions {from} and {until}");
                self.violation(Kind::StaleRead, at, what);
            }
        }
    }
}

/// Which revisions lie before and after an instant, by the operations that were over, or not begun.
struct Places {
    returned: Vec<(Duration, u64)>,
    invoked: Vec<(Duration, u64)>,
}

impl Places {
    fn of(ops: &[Op], order: &[usize]) -> Self {
        let linear = || order.iter().map(|at| &ops[*at]).filter(|op| op.ask != Ask::LoadStale);
        let place = |op: &Op| op.answer.revision().expect("it has a place");
        let mut returned: Vec<_> = linear().map(|op| (op.deadline(), place(op))).collect();
        returned.sort_unstable();
        let mut largest = 0;
        returned.iter_mut().for_each(|(_, revision)| (largest, *revision) = (largest.max(*revision), largest.max(*revision)));
        let mut invoked: Vec<_> = linear().map(|op| (op.invoked, place(op))).collect();
        invoked.sort_unstable();
        let mut least = u64::MAX;
        invoked.iter_mut().rev().for_each(|(_, revision)| (least, *revision) = (least.min(*revision), least.min(*revision)));
        Self { returned, invoked }
    }

    fn before(&self, instant: Duration) -> u64 {
        let over = self.returned.partition_point(|(returned, _)| *returned < instant);
        over.checked_sub(1).map_or(0, |last| self.returned[last].1)
    }

    fn after(&self, instant: Duration) -> u64 {
        let begun = self.invoked.partition_point(|(invoked, _)| *invoked <= instant);
        self.invoked.get(begun).map_or(u64::MAX, |(_, revision)| *revision)
    }
}

/// The statements of an answer about versions of its key.
pub(super) fn facts(op: &Op) -> Vec<(u64, Fact)> {
    let before = |version: u64, fact: Fact| version.checked_sub(1).filter(|before| *before > 0).map(|before| (before, fact));
    match (op.ask, op.answer) {
        (_, Answer::Found { version, value, .. }) => vec![(version, Fact::Value(value))],
        (_, Answer::NotFound { tombstone, .. }) if tombstone > 0 => vec![(tombstone, Fact::Absent)],
        (_, Answer::Conflict { actual, .. }) if actual > 0 => vec![(actual, Fact::Present)],
        (Ask::Save { value }, Answer::Written { version, .. }) => vec![(version, Fact::Value(value))],
        (Ask::SaveIf { expected, value }, Answer::Written { version, .. }) => {
            let was = if expected == 0 { Fact::Absent } else { Fact::Present };
            [(version, Fact::Value(value))].into_iter().chain(before(version, was)).collect()
        }
        (Ask::Delete | Ask::Expire, Answer::Written { version, .. }) => {
            [(version, Fact::Absent)].into_iter().chain(before(version, Fact::Present)).collect()
        }
        _ => Vec::new(),
    }
}

/// Both facts together; none: they contradict each other.
pub(super) fn merged(before: Option<Fact>, fact: Fact) -> Option<Fact> {
    match (before, fact) {
        (None, fact) => Some(fact),
        (Some(before), fact) if before == fact => Some(fact),
        (Some(Fact::Value(value)), Fact::Present) | (Some(Fact::Present), Fact::Value(value)) => Some(Fact::Value(value)),
        (Some(_), _) => None,
    }
}

/// A value that was read must have been written there, at that version, by a write that may have happened.
pub(super) fn origin(ops: &[Op], writers: &BTreeMap<u64, usize>, at: usize, version: u64, value: u64) -> Option<(Kind, String)> {
    let Some(writer) = writers.get(&value).copied() else { return Some((Kind::PhantomValue, "nobody stored it".to_owned())) };
    let written = &ops[writer];
    if written.key != ops[at].key {
        return Some((Kind::PhantomValue, format!("a value of another key, of op {writer}")));
    }
    match written.answer {
        Answer::Written { version: answered, .. } if answered != version => {
            Some((Kind::AppliedTwice, format!("op {writer} was answered version {answered}")))
        }
        Answer::Written { .. } | Answer::Unknown => None,
        answer => Some((Kind::EffectOfRefused, format!("op {writer} was answered {answer:?}"))),
    }
}

/// The name of the violation when `later` was over before `earlier` began, though it comes after it.
pub(super) fn blame(earlier: &Op, later: &Op) -> Kind {
    let wrote = matches!(earlier.answer, Answer::Written { .. });
    if wrote && later.ask.is_read() {
        Kind::Unexplained
    } else if wrote {
        Kind::Disorder
    } else {
        Kind::StaleRead
    }
}
