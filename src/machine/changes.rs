//! The newest changes in order of (revision, id), by which [`super::changed`] answers.
//!
//! It is no part of the state: no row, no digest. It begins where a machine is built, and says how far it reaches back. Every change of a
//! session goes through [`super::tables`], which tells it here. A change is passed over where its session moved on since.
//!
//! ```text
//!            saves_after                                 applied
//! saves   ───────┼── (7, b) ── (9, a) ── (12, b) ───────────┤     what was put, the newest 65 536
//! deletes ──┼─────────────── (8, c) ─────────────────────────┤    what was deleted or swept, the newest 65 536 or 4 MiB
//!     deletes_after
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use crate::limits::{CHANGE_BYTES, CHANGES_BYTES_MAX, CHANGES_KEPT, DELETIONS_BYTES_MAX, DELETIONS_KEPT};
use crate::mutant::{self, Mutant};
use crate::types::{Revision, SessionChange, SessionId};

/// A place in the order of changes: all at or before it are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// All before this revision are shown.
    pub revision: Revision,
    /// Of that revision those up to this id; `None`: all.
    pub within: Option<SessionId>,
}

impl Place {
    /// After all changes of this revision.
    pub fn after(revision: Revision) -> Self {
        Self { revision, within: None }
    }

    /// The last revision of which all is shown (L41).
    pub fn whole(&self) -> Revision {
        match self.within {
            Some(_) if !mutant::is(Mutant::CutRevisionSaid) => Revision(self.revision.0.saturating_sub(1)),
            _ => self.revision,
        }
    }

    /// Whether all that is shown at another place is shown here.
    pub fn has_reached(&self, other: &Self) -> bool {
        let within = match (&self.within, &other.within) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(others)) => mine >= others,
        };
        self.revision > other.revision || self.revision == other.revision && within
    }

    /// Whether a change is still to be shown.
    pub fn is_before(&self, revision: Revision, id: &SessionId) -> bool {
        revision > self.revision || revision == self.revision && self.within.as_ref().is_some_and(|shown| id > shown)
    }
}

/// The room of one frame.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Records looked at.
    pub records: usize,
    /// Changes taken.
    pub changes: usize,
    /// Bytes of those.
    pub bytes: u64,
}

impl Bounds {
    /// As many records, and no other bound.
    pub fn of_records(records: usize) -> Self {
        Self { records, changes: usize::MAX, bytes: u64::MAX }
    }

    /// Counts a record that is looked at. Whether there was room for it.
    pub(super) fn look(&mut self) -> bool {
        let has_room = self.records > 0 && self.changes > 0 && self.bytes > 0;
        self.records = self.records.saturating_sub(1);
        has_room
    }

    /// Counts a change that is taken.
    pub(super) fn take(&mut self, change: &SessionChange) {
        self.changes = self.changes.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(change.bytes());
    }
}

/// Changes of one kind: the newest, up to a number and to bytes of ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    pub entries: VecDeque<(Revision, SessionId)>,
    bytes: u64,
    /// Every change after this revision is there.
    pub after: Revision,
}

fn entry_bytes(id: &SessionId) -> u64 {
    CHANGE_BYTES + id.as_str().len() as u64
}

impl Queue {
    fn push(&mut self, revision: Revision, id: SessionId) {
        self.bytes += entry_bytes(&id);
        self.entries.push_back((revision, id));
    }

    /// Drops the oldest if there are too many, or too many bytes.
    fn shed(&mut self, count_max: usize, bytes_max: u64) -> Option<(Revision, SessionId)> {
        if self.entries.len() <= count_max && self.bytes <= bytes_max {
            return None;
        }
        let (revision, id) = self.entries.pop_front()?;
        self.bytes -= entry_bytes(&id);
        self.after = revision;
        Some((revision, id))
    }

    /// Puts the changes of the last revision in order of ids.
    fn sort_last(&mut self, revision: Revision) {
        let count = self.entries.iter().rev().take_while(|(at, _)| *at == revision).count();
        if count > 1 {
            let mut last = self.entries.split_off(self.entries.len() - count);
            last.make_contiguous().sort();
            self.entries.append(&mut last);
        }
    }

    /// The first change that is still to be shown.
    pub fn first_after(&self, place: &Place) -> usize {
        self.entries.partition_point(|(revision, id)| !place.is_before(*revision, id))
    }
}

/// Changes kept at most.
#[derive(Clone, Copy, Debug)]
struct Kept {
    saves: usize,
    deletes: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Self { saves: CHANGES_KEPT, deletes: DELETIONS_KEPT }
    }
}

/// The index.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    kept: Kept,
    pub saves: Queue,
    pub deletes: Queue,
    /// The newest deletion of each id among them.
    deleted: BTreeMap<SessionId, Revision>,
    /// The entry that is being applied.
    revision: Revision,
}

impl Changes {
    /// Those of a machine that was built at `applied`: the newest states of sessions, and no deletions.
    pub fn from_sessions<'s>(sessions: impl Iterator<Item = (&'s SessionId, Revision)>, applied: Revision) -> Self {
        let mut newest = BinaryHeap::new();
        let mut after = Revision::default();
        for (id, revision) in sessions {
            newest.push(Reverse((revision, id)));
            if newest.len() > CHANGES_KEPT
                && let Some(Reverse((dropped, _))) = newest.pop()
            {
                after = dropped;
            }
        }
        let mut changes = Self { revision: applied, ..Self::default() };
        changes.saves.after = after;
        for Reverse((revision, id)) in newest.into_sorted_vec().into_iter().rev() {
            changes.saves.push(revision, id.clone());
            changes.shed_saves();
        }
        changes.deletes.after = if mutant::is(Mutant::DeletionsBeginForgotten) { Revision::default() } else { applied };
        changes
    }

    /// The next entry is applied.
    pub fn begin(&mut self, revision: Revision) {
        self.revision = revision;
    }

    /// The entry is applied.
    pub fn end(&mut self) {
        self.saves.sort_last(self.revision);
        self.deletes.sort_last(self.revision);
    }

    /// A session was stored. One whose last write was earlier is not newer than it was.
    pub fn saved(&mut self, id: &SessionId, mod_revision: Revision) {
        if mod_revision == self.revision {
            self.saves.push(mod_revision, id.clone());
            self.shed_saves();
        }
    }

    /// A session was removed, and no other put in its place.
    pub fn deleted(&mut self, id: &SessionId) {
        self.deletes.push(self.revision, id.clone());
        self.deleted.insert(id.clone(), self.revision);
        self.shed_deletes();
    }

    /// Whether a deletion is the newest of its id.
    pub fn is_newest_deletion(&self, revision: Revision, id: &SessionId) -> bool {
        self.deleted.get(id) == Some(&revision)
    }

    /// Keeps so few from now on.
    pub fn keep(&mut self, saves: usize, deletes: usize) {
        self.kept = Kept { saves, deletes };
        self.shed_saves();
        self.shed_deletes();
    }

    fn shed_deletes(&mut self) {
        while let Some((revision, id)) = self.deletes.shed(self.kept.deletes, DELETIONS_BYTES_MAX) {
            if self.deleted.get(&id) == Some(&revision) {
                self.deleted.remove(&id);
            }
        }
    }

    fn shed_saves(&mut self) {
        while self.saves.shed(self.kept.saves, CHANGES_BYTES_MAX).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SessionId {
        SessionId::new(text).expect("short")
    }

    #[test]
    fn a_place_within_a_revision_says_the_one_before_it() {
        let within = Place { revision: Revision(7), within: Some(id("b")) };
        assert_eq!(within.whole(), Revision(6));
        assert_eq!(Place::after(Revision(7)).whole(), Revision(7));
        for (revision, text, is_before) in [(6, "z", false), (7, "a", false), (7, "b", false), (7, "c", true), (8, "a", true)] {
            assert_eq!(within.is_before(Revision(revision), &id(text)), is_before, "{revision} {text}");
        }
        let whole = Place::after(Revision(7));
        assert!(!whole.is_before(Revision(7), &id("z")));
        assert!(whole.has_reached(&within) && within.has_reached(&within) && !within.has_reached(&whole));
        assert!(within.has_reached(&Place::after(Revision(6))) && !Place::after(Revision(6)).has_reached(&within));
    }

    #[test]
    fn the_changes_of_one_revision_are_in_order_of_ids() {
        let mut changes = Changes::default();
        changes.begin(Revision(3));
        for text in ["c", "a", "b"] {
            changes.deleted(&id(text));
        }
        changes.end();
        let ids: Vec<_> = changes.deletes.entries.iter().map(|(_, id)| id.as_str().to_owned()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
    }

    #[test]
    fn what_is_forgotten_is_known_to_be() {
        let mut changes = Changes::default();
        for n in 1..=DELETIONS_KEPT as u64 + 2 {
            changes.begin(Revision(n));
            changes.deleted(&id(&n.to_string()));
            changes.saved(&id("s"), Revision(n));
            changes.end();
        }
        assert_eq!((changes.deletes.after, changes.saves.after), (Revision(2), Revision(2)));
        assert_eq!((changes.deletes.entries.len(), changes.deleted.len()), (DELETIONS_KEPT, DELETIONS_KEPT));
        let long = "x".repeat(1000);
        for n in 0..5000 {
            changes.begin(Revision(100_000 + n));
            changes.deleted(&id(&format!("{long}{n}")));
        }
        assert!(changes.deletes.bytes <= DELETIONS_BYTES_MAX, "{}", changes.deletes.bytes);
        assert!(changes.deletes.after >= Revision(100_000), "{}", changes.deletes.after);
    }

    /// A session that was only touched keeps its place: its newest state is not newer.
    #[test]
    fn what_was_not_written_is_no_change() {
        let mut changes = Changes::default();
        changes.begin(Revision(9));
        changes.saved(&id("s"), Revision(4));
        assert!(changes.saves.entries.is_empty());
    }

    #[test]
    fn a_built_machine_knows_its_newest_sessions_and_no_deletion_before() {
        let ids: Vec<SessionId> = (0..CHANGES_KEPT as u64 + 3).map(|n| id(&n.to_string())).collect();
        let sessions = ids.iter().zip(1..).map(|(id, n)| (id, Revision(n)));
        let changes = Changes::from_sessions(sessions, Revision(99_000));
        assert_eq!((changes.saves.after, changes.deletes.after), (Revision(3), Revision(99_000)));
        assert_eq!(changes.saves.entries.front().map(|(revision, _)| *revision), Some(Revision(4)));
        assert!(changes.saves.entries.iter().is_sorted());
    }
}
