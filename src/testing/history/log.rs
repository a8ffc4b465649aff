//! The committed log's knowledge of writes that no caller got an answer to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Answer, Ask, Kind, Op, Request, Violation};

/// A change that the committed log executed, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The session, by number.
    pub key: usize,
    /// The version it made.
    pub version: u64,
    /// Index of its entry.
    pub revision: u64,
    /// The stored value; none for a delete or an expiry.
    pub value: Option<u64>,
    /// The request; none for an expiry.
    pub request: Option<Request>,
    /// Nobody asked: a deadline passed.
    pub is_expiry: bool,
}

/// Gives every unknown write the place that the log has for it, and what is not in the log is known not to have happened. Expiries join
/// the history.
///
/// `log` must be all that was ever committed, up to behind the last operation. Writes are found by request id, else by value; a delete
/// without either is one of its key that no other caller got an answer to.
#[must_use]
pub fn resolve(ops: &[Op], log: &[Committed]) -> Vec<Op> {
    let mut by_request: BTreeMap<Request, &Committed> = BTreeMap::new();
    let mut by_value: BTreeMap<u64, &Committed> = BTreeMap::new();
    let mut deletes: BTreeMap<(usize, u64), &Committed> = BTreeMap::new();
    for entry in log.iter().filter(|entry| !entry.is_expiry) {
        by_request.extend(entry.request.map(|request| (request, entry)));
        match entry.value {
            Some(value) => drop(by_value.insert(value, entry)),
            None => drop(deletes.insert((entry.key, entry.version), entry)),
        }
    }
    for op in ops {
        if let (Ask::Delete, Answer::Written { version, .. }) = (op.ask, op.answer) {
            deletes.remove(&(op.key, version));
        }
    }
    let mut resolved = ops.to_vec();
    let is_nameless = |op: &Op| op.ask == Ask::Delete && op.request.is_none();
    // A write with a name takes its own first.
    for nameless in [false, true] {
        let is_open = |op: &&mut Op| op.answer == Answer::Unknown && !op.ask.is_read() && is_nameless(op) == nameless;
        for op in resolved.iter_mut().filter(is_open) {
            let named = op.request.and_then(|request| by_request.get(&request).copied());
            let stored = op.ask.value().and_then(|value| by_value.get(&value).copied());
            let free = || deletes.range((op.key, 0)..=(op.key, u64::MAX)).next().map(|(_, entry)| *entry);
            let entry = if nameless { free() } else { named.or(stored) };
            match entry {
                Some(entry) => {
                    deletes.remove(&(entry.key, entry.version));
                    op.answer = Answer::Written { version: entry.version, revision: entry.revision };
                    op.late = true;
                }
                None => op.answer = Answer::Refused,
            }
        }
    }
    resolved.extend(log.iter().filter(|entry| entry.is_expiry).map(|entry| Op {
        ask: Ask::Expire,
        answer: Answer::Written { version: entry.version, revision: entry.revision },
        ..Op::invoke(usize::MAX, entry.key, Ask::Expire, Duration::ZERO)
    }));
    resolved
}

/// The violations that the log itself proves: a request or value executed twice, or an acknowledged write that is missing or differs.
#[must_use]
pub fn audit(ops: &[Op], log: &[Committed]) -> Vec<Violation> {
    let mut found = Vec::new();
    let (mut requests, mut values, mut versions) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for entry in log {
        let again = entry.request.and_then(|request| requests.insert(request, entry));
        let again = again.or(entry.value.and_then(|value| values.insert(value, entry)));
        if let Some(first) = again {
            found.push(Violation { kind: Kind::AppliedTwice, what: format!("in the log: {first:?} and {entry:?}") });
        }
        if let Some(first) = versions.insert((entry.key, entry.version), entry) {
            found.push(Violation { kind: Kind::OneVersionTwice, what: format!("in the log: {first:?} and {entry:?}") });
        }
    }
    for (at, op) in ops.iter().enumerate() {
        let Answer::Written { version, revision } = op.answer else { continue };
        let entry = versions.get(&(op.key, version));
        if entry.is_none_or(|entry| entry.revision != revision || entry.value != op.ask.value()) {
            found.push(Violation { kind: Kind::LostWrite, what: format!("op {at} {op:?}, where the log has {entry:?}") });
        }
    }
    found
}
