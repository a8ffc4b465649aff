//! Entries that are applied together: under one lock, with one look at the clock, answered once.
//!
//! A round is what is at hand, and its end differs from node to node. So nothing but memory may depend on it (law L40): machine time,
//! digest, `applied` and outcomes are each entry's own.

use std::collections::VecDeque;

use super::types::StoredMembership;
use crate::limits::KIB;
use crate::machine::{Command, Entry};
use crate::mutant::{self, Mutant};
use crate::types::LogId;

/// Entries of a round at most.
const ENTRIES_MAX: usize = 64;
/// A round ends with the entry that brings it to so many bytes.
const BYTES_SOFT: u64 = 256 * KIB;
/// The view lock is given up once so many rows were changed under it.
pub const ROWS_SOFT: usize = 4096;

/// An entry to apply.
pub enum Applicable {
    /// A command to the machine.
    Command(Entry),
    /// An entry of Raft's own: a membership, or a blank one.
    Own(Option<StoredMembership>),
}

/// Entries with their places in the log and the proposers that wait for them, here: `R`.
#[derive(Default)]
pub struct Round<R> {
    entries: VecDeque<(LogId, Applicable, R)>,
    bytes: u64,
    is_closed: bool,
}

impl<R> Round<R> {
    /// Whether one more entry may join.
    pub fn has_room(&self) -> bool {
        !self.is_closed && self.entries.len() < ENTRIES_MAX && self.bytes < BYTES_SOFT
    }

    /// Adds an entry of so many bytes. One that changes the cluster version is the last: the next one is decoded by the new version.
    pub fn push(&mut self, log_id: LogId, entry: Applicable, bytes: u64, waiting: R) {
        let changes_version = matches!(&entry, Applicable::Command(Entry { command: Command::SetClusterVersion { .. }, .. }));
        self.is_closed = changes_version && !mutant::is(Mutant::RoundAtOneVersion);
        self.bytes += bytes;
        self.entries.push_back((log_id, entry, waiting));
    }

    /// Whether all are taken.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes the next entry.
    pub fn pop(&mut self) -> Option<(LogId, Applicable, R)> {
        self.entries.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(command: Command) -> Applicable {
        Applicable::Command(Entry { stamp_ms: 1, command })
    }

    /// How many of these entries, as (what, bytes), one round takes.
    fn taken(entries: impl IntoIterator<Item = (Applicable, u64)>) -> usize {
        let mut round = Round::default();
        for (index, (entry, bytes)) in (1..).zip(entries) {
            if !round.has_room() {
                break;
            }
            round.push(LogId { index, ..LogId::default() }, entry, bytes, ());
        }
        std::iter::from_fn(|| round.pop()).count()
    }

    #[test]
    fn a_round_ends_at_its_entries_at_its_bytes_and_behind_a_change_of_the_cluster_version() {
        let sweep = || entry(Command::Sweep { limit: 1 });
        let raise = || entry(Command::SetClusterVersion { version: 2 });
        assert_eq!(taken([]), 0);
        assert_eq!(taken((0..100).map(|_| (sweep(), 1))), 64);
        assert_eq!(taken((0..100).map(|_| (Applicable::Own(None), 0))), 64);
        assert_eq!(taken((0..100).map(|_| (sweep(), 100 * KIB))), 3, "the third brings it above");
        assert_eq!(taken([(sweep(), 100 << 20), (sweep(), 1)]), 1, "one of any size is applied");
        assert_eq!(taken([(sweep(), 1), (raise(), 1), (sweep(), 1)]), 2);
    }
}
