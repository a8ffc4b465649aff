//! The audit of attempts, below the client's calls: of each write's attempts, one that was refused with "nothing changed" has no entry in
//! the committed log, ever. A client may well settle such a write by another attempt, so its callers would never know.
//!
//! Attempts of one request share its identity. Each makes one entry at most, so a request has at most as many entries as it had attempts
//! that were not refused so. A node that tries again by itself after such a refusal is under the same rule: its first try made no entry.
//!
//! One process runs one seed, so what was seen is the process's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// A client's number, and a sequence of it.
pub type Request = (u64, u64);

/// Of one request.
#[derive(Clone, Copy, Default)]
struct Count {
    begun: u64,
    refused: u64,
}

/// What clients sent, and what of it was refused as nothing.
#[derive(Default)]
pub struct Attempts(BTreeMap<Request, Count>);

static SEEN: Mutex<Attempts> = Mutex::new(Attempts(BTreeMap::new()));

/// A client sends a write.
pub fn begun(request: Request) {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).begun(request);
}

/// Its answer: nothing changed.
pub fn refused(request: Request) {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).refused(request);
}

static FORGOTTEN: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// A client takes it that its entry is gone: what was ambiguous ends as unknown, the rest gets another identity.
pub fn forgotten(client: u64) {
    FORGOTTEN.lock().unwrap_or_else(PoisonError::into_inner).insert(client);
}

/// Nobody takes that but by an entry of the committed log that was judged without one, which the model says too.
pub fn judge_forgotten(unknown: &BTreeSet<u64>) -> Vec<String> {
    let forgotten = FORGOTTEN.lock().unwrap_or_else(PoisonError::into_inner);
    let wrong = forgotten.difference(unknown);
    wrong.map(|client| format!("a client takes it that its entry is gone, which the log does not say client={client}")).collect()
}

/// Judges what was seen, see [`Attempts::judge`].
pub fn judge(entries: &BTreeMap<Request, Vec<u64>>) -> Vec<String> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).judge(entries)
}

impl Attempts {
    fn begun(&mut self, request: Request) {
        self.0.entry(request).or_default().begun += 1;
    }

    fn refused(&mut self, request: Request) {
        self.0.entry(request).or_default().refused += 1;
    }

    /// Judges by the indexes of the entries that each request has in the committed log.
    fn judge(&self, entries: &BTreeMap<Request, Vec<u64>>) -> Vec<String> {
        let lied = |(request, indexes): (&Request, &Vec<u64>)| {
            let Count { begun, refused } = self.0.get(request).copied().unwrap_or_default();
            (indexes.len() as u64 + refused > begun).then(|| {
                format!(
                    "an attempt that changed something was refused as one that did not: request={request:?} attempts={begun} \
                     refused={refused} entries={indexes:?}"
                )
            })
        };
        entries.iter().filter_map(lied).collect()
    }
}

/// Attempts of one request of which so many were refused as nothing, and the entries that it has.
#[cfg(test)]
fn judged(begun: u64, refused: u64, entries: &[u64]) -> usize {
    let mut attempts = Attempts::default();
    (0..begun).for_each(|_| attempts.begun((7, 1)));
    (0..refused).for_each(|_| attempts.refused((7, 1)));
    // Another request of the same client does not count for it.
    attempts.begun((7, 2));
    attempts.judge(&BTreeMap::from([((7, 1), entries.to_vec()), ((7, 2), vec![3])])).len()
}

#[test]
fn an_attempt_that_was_refused_as_nothing_has_no_entry() {
    assert_eq!(judged(1, 0, &[5]), 0, "executed");
    assert_eq!(judged(1, 0, &[]), 0, "lost");
    assert_eq!(judged(2, 1, &[5]), 0, "refused, and then executed");
    assert_eq!(judged(3, 1, &[5, 8]), 0, "refused once, and executed once of two times");
    assert_eq!(judged(2, 2, &[]), 0, "refused twice");
    assert_eq!(judged(1, 1, &[5]), 1, "refused, and executed all the same");
    assert_eq!(judged(2, 1, &[5, 8]), 1, "refused, and yet it is there beside the retry");
    assert_eq!(judged(1, 0, &[5, 8]), 1, "the node tried again what had not failed");
    assert_eq!(judged(0, 0, &[5]), 1, "nobody sent it");
}
