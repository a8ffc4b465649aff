//! Whether a history is one of a linearizable store, without trusting a single revision.
//!
//! Versions are dense, so those of the answers give the order of the writes of each key, and where among them a read belongs. That order
//! must fit the times: no operation may come after one that was invoked only after it had returned. Versions that no caller got an answer to
//! must be explained by writes without an answer; which of them, is a matching that needs no search, see [`Gaps`].
//!
//! ```text
//! version      1          2          3 (gap)      4
//! write     [──w1──]   [─w2─]    [──?──────────  [w4]      a gap's write began before everything behind the gap was over
//! reads        [r1]       [─r2──]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::exact::{Fact, blame, facts, merged, origin};
use super::{Answer, Ask, Kind, Op, Violation};

/// The facts about a key.
#[derive(Default)]
struct Key {
    /// The facts about each version.
    facts: BTreeMap<u64, Fact>,
    /// The writer of each version.
    writers: BTreeMap<u64, usize>,
    /// Operations with a place among the versions, writes before reads.
    placed: Vec<(u64, bool, usize)>,
    /// Writes without an answer and without a version.
    open: Vec<usize>,
    nothing_there: Vec<usize>,
    expires: bool,
}

/// Every violation, by versions and times. About linear in the length of the history.
#[must_use]
pub fn windows(ops: &[Op]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut by_value = BTreeMap::new();
    let mut keys: BTreeMap<usize, Key> = BTreeMap::new();
    for (at, op) in ops.iter().enumerate() {
        by_value.extend(op.ask.value().map(|value| (value, at)));
        keys.entry(op.key).or_default().expires |= op.expires;
    }
    for op in ops.iter().filter(|op| op.ask == Ask::Expire) {
        keys.entry(op.key).or_default().expires = false;
    }
    for (at, op) in ops.iter().enumerate() {
        let key = keys.entry(op.key).or_default();
        found.extend(key.learn(at, op));
        if let Answer::Found { version, value, .. } = op.answer {
            match origin(ops, &by_value, at, version, value) {
                Some((kind, what)) => found.push(violation(kind, at, op, &what)),
                None => found.extend(key.wrote(by_value[&value], version)),
            }
        }
    }
    for key in keys.values_mut() {
        key.place_found(ops);
        found.extend(key.order(ops));
        found.extend(key.explain(ops));
        found.extend(key.judge_nothing_there(ops));
    }
    found
}

fn violation(kind: Kind, at: usize, op: &Op, what: &str) -> Violation {
    Violation { kind, what: format!("{what}: op {at} {op:?}") }
}

impl Key {
    /// Takes in what one answer says by itself.
    fn learn(&mut self, at: usize, op: &Op) -> Vec<Violation> {
        let mut found = Vec::new();
        for (version, fact) in facts(op) {
            match merged(self.facts.get(&version).copied(), fact) {
                Some(merged) => drop(self.facts.insert(version, merged)),
                None => {
                    let before = self.facts[&version];
                    found.push(violation(Kind::OneVersionTwice, at, op, &format!("version {version} is {before:?} and {fact:?}")));
                }
            }
        }
        match (op.ask, op.answer) {
            (ask, Answer::Written { version, .. }) => {
                let must_be = match ask {
                    Ask::SaveIf { expected, .. } if expected > 0 => Some(expected + 1),
                    _ => None,
                };
                if must_be.is_some_and(|must_be| must_be != version) || ask.is_read() || version == 0 {
                    found.push(violation(Kind::EffectOfRefused, at, op, "it had to fail"));
                }
                found.extend(self.wrote(at, version));
            }
            (Ask::Load, Answer::Found { version, .. } | Answer::NotFound { tombstone: version, .. }) => {
                self.placed.push((version, true, at));
            }
            (Ask::SaveIf { expected, .. }, Answer::Conflict { actual, .. }) => {
                if actual == expected {
                    found.push(violation(Kind::SpuriousConflict, at, op, "it expected what was there"));
                }
                // With nothing there, no answer has the version.
                if actual > 0 {
                    self.placed.push((actual, true, at));
                }
            }
            (Ask::Delete, Answer::NothingThere) => self.nothing_there.push(at),
            (ask, Answer::Unknown) if !ask.is_read() => self.open.push(at),
            _ => {}
        }
        found
    }

    /// That a write made a version, as it was answered or as was read.
    fn wrote(&mut self, at: usize, version: u64) -> Option<Violation> {
        let before = self.writers.insert(version, at).filter(|before| *before != at)?;
        let what = format!("version {version} was made by op {before} and op {at}");
        Some(Violation { kind: Kind::OneVersionTwice, what })
    }

    /// Gives writes without an answer the version at which their value was read.
    fn place_found(&mut self, ops: &[Op]) {
        let writers: BTreeSet<usize> = self.writers.values().copied().collect();
        self.open.retain(|at| !writers.contains(at));
        self.placed.extend(self.writers.iter().map(|(version, at)| (*version, false, *at)));
        self.placed.sort_by_key(|(version, is_read, at)| (*version, *is_read, ops[*at].invoked));
    }

    /// Walks all that has a place with the largest start so far. Reads of one version may be in any order.
    fn order(&self, ops: &[Op]) -> Vec<Violation> {
        let mut found = Vec::new();
        let (mut latest, mut within): (Option<usize>, Option<usize>) = (None, None);
        let later = |a: Option<usize>, b: usize| Some(a.filter(|a| ops[*a].invoked >= ops[b].invoked).unwrap_or(b));
        let mut current = None;
        for (version, is_read, at) in self.placed.iter().copied() {
            if current != Some((version, is_read)) {
                latest = within.take().map_or(latest, |within| later(latest, within));
                current = Some((version, is_read));
            }
            if let Some(before) = latest.filter(|before| ops[at].deadline() < ops[*before].invoked) {
                let what = format!("by its version it comes before op {at} {:?}, which was over", ops[at]);
                found.push(violation(blame(&ops[before], &ops[at]), before, &ops[before], &what));
            }
            within = later(within, at);
        }
        found
    }

    /// Explains the versions that no caller got an answer to.
    fn explain(&self, ops: &[Op]) -> Vec<Violation> {
        let last = self.facts.keys().next_back().copied().unwrap_or(0);
        // Unplaced versions are all below the last fact; more of them than writes and expiries could make need no listing.
        let missing = last.saturating_sub(self.writers.len() as u64);
        let room = if self.expires { 2 * self.open.len() + self.writers.len() + 1 } else { self.open.len() } as u64;
        if missing > room {
            let what =
                format!("{missing} versions below {last} that no caller got an answer to, and {room} writes to explain them");
            return vec![Violation { kind: Kind::AppliedTwice, what }];
        }
        let mut gaps = Gaps::default();
        let mut conditional: BTreeMap<u64, usize> = BTreeMap::new();
        for at in &self.open {
            match ops[*at].ask {
                // Of those that fit the same version, the one that began first fits whenever another does.
                Ask::SaveIf { expected, .. } if expected > 0 => {
                    let first = conditional.entry(expected.saturating_add(1)).or_insert(*at);
                    *first = if ops[*at].invoked < ops[*first].invoked { *at } else { *first };
                }
                ask if ask.removes() => gaps.deletes.push(ops[*at].invoked),
                _ => gaps.saves.push(ops[*at].invoked),
            }
        }
        let mut until = Duration::MAX;
        let mut behind = self.placed.iter().rev().peekable();
        let mut pending = Vec::new();
        for version in (1..=last).rev() {
            while let Some((_, _, at)) = behind.next_if(|(placed, _, _)| *placed >= version) {
                until = until.min(ops[*at].deadline());
            }
            if !self.writers.contains_key(&version) {
                pending.push((version, until));
            }
        }
        for (version, until) in pending.into_iter().rev() {
            let fact = self.facts.get(&version).copied();
            let was = self.facts.get(&(version - 1));
            // A conditional write fits one version only: it goes first.
            let fits = |at: &usize| fact != Some(Fact::Absent) && was != Some(&Fact::Absent) && ops[*at].invoked <= until;
            let is_made = conditional.get(&version).is_some_and(fits);
            let may_expire = self.expires && !matches!(fact, Some(Fact::Present | Fact::Value(_)));
            if !is_made && !may_expire {
                gaps.missing.push((version, fact, until));
            }
        }
        let unexplained = |version| format!("version {version}: no write without an answer can have made it");
        gaps.unmatched().map(|version| Violation { kind: Kind::Unexplained, what: unexplained(version) }).into_iter().collect()
    }

    /// A delete that found nothing needs a version at which there was nothing, at that time.
    fn judge_nothing_there(&self, ops: &[Op]) -> Vec<Violation> {
        // A write that may have ended a session unseen could have done so then.
        if self.nothing_there.is_empty() || self.expires || !self.open.is_empty() {
            return Vec::new();
        }
        let mut seen: BTreeMap<u64, Duration> = BTreeMap::new();
        for (version, _, at) in &self.placed {
            let first = seen.entry(*version).or_insert(Duration::MAX);
            *first = (*first).min(ops[*at].deadline());
        }
        // From the end of what first saw it until the start of what ended it, something was there.
        let mut present: Vec<(Duration, Duration)> = Vec::new();
        let mut since = None;
        for (version, fact) in &self.facts {
            let begun = self.writers.get(version).map_or(Duration::ZERO, |at| ops[*at].invoked);
            match (fact, since) {
                (Fact::Absent, Some(from)) => {
                    present.push((from, begun));
                    since = None;
                }
                (Fact::Present | Fact::Value(_), None) => since = seen.get(version).copied(),
                _ => {}
            }
        }
        present.extend(since.map(|from| (from, Duration::MAX)));
        let impossible = |op: &Op| present.iter().any(|(from, until)| *from < op.invoked && op.returned < *until);
        let bad = self.nothing_there.iter().filter(|at| impossible(&ops[**at]));
        bad.map(|at| violation(Kind::StaleRead, *at, &ops[*at], "a delete found nothing where there was something")).collect()
    }
}

/// Versions to be explained, and writes to explain them.
///
/// A write can make a gap's version if it began before everything behind the gap was over, and those instants only grow from gap to gap:
/// so a write that fits one fits all later ones of its sort. A perfect matching exists iff (Hall) up to every instant there are as many
/// writes as gaps: saves for what was there, deletes for what was not, either for what nobody saw.
#[derive(Default)]
struct Gaps {
    /// Version, what is known of it, and by when its write had begun; in order.
    missing: Vec<(u64, Option<Fact>, Duration)>,
    saves: Vec<Duration>,
    deletes: Vec<Duration>,
}

impl Gaps {
    /// The first version that no matching explains.
    fn unmatched(mut self) -> Option<u64> {
        self.saves.sort_unstable();
        self.deletes.sort_unstable();
        let begun = |writes: &[Duration], until: Duration| writes.partition_point(|invoked| *invoked <= until);
        let (mut present, mut absent, mut either) = (0, 0, 0);
        // What saves and deletes have left up to each gap, and the least of it from there on.
        let mut left = Vec::new();
        for (version, fact, until) in &self.missing {
            match fact {
                Some(Fact::Absent) => absent += 1,
                Some(Fact::Present | Fact::Value(_)) => present += 1,
                None => either += 1,
            }
            let count = |writes: &[Duration]| i64::try_from(begun(writes, *until)).unwrap_or(i64::MAX);
            left.push((*version, count(&self.saves) - present, count(&self.deletes) - absent, either));
        }
        let (mut saves, mut deletes, mut first) = (i64::MAX, i64::MAX, None);
        for (version, save, delete, either) in left.into_iter().rev() {
            (saves, deletes) = (saves.min(save), deletes.min(delete));
            if saves < 0 || deletes < 0 || saves.saturating_add(deletes) < either {
                first = Some(version);
            }
        }
        first
    }
}
