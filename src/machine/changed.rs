//! Reads of the index of changes: which sessions changed after a place, which were written last, and how far back that is known.
//!
//! A change is passed over where its session moved on since, so each comes once, in its newest state. Pure, as all reads of the machine.

use std::ops::Bound;

use super::Machine;
use super::changes::{Bounds, Place};
use super::read::start_after;
use crate::limits::LIST_PAGE_MAX;
use crate::mutant::{self, Mutant};
use crate::types::{Listed, Revision, SessionChange, SessionId};

/// How far back the changes are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every change since is known.
    Changes,
    /// Every deletion since; of the saves, the newest state of each session says when it was.
    Deletions,
    /// Something was deleted since, and which is not known.
    Nothing,
}

/// Some changes after a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// In order of (revision, id).
    pub changes: Vec<(Revision, SessionChange)>,
    /// All up to here are shown, or moved on.
    pub place: Place,
    /// Whether nothing is newer.
    pub at_end: bool,
}

/// One page of recent sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recent {
    /// The newest first.
    pub sessions: Vec<Listed>,
    /// Whether more follow.
    pub more: bool,
    /// All sessions that changed after this revision are among them, or on the pages before and after.
    pub since: Revision,
}

impl Machine {
    /// How much is known of the changes after this revision.
    pub fn reach(&self, from: Revision) -> Reach {
        let changes = &self.tables.changes;
        match () {
            () if from < changes.deletes.after => Reach::Nothing,
            () if from < changes.saves.after => Reach::Deletions,
            () => Reach::Changes,
        }
    }

    /// The changes after a place that `matches` takes, each session's newest once. [`Machine::reach`] must say that they are known.
    pub fn changes_after(&self, place: &Place, bounds: Bounds, matches: impl Fn(&SessionId) -> bool) -> Changed {
        let changes = &self.tables.changes;
        let (mut saves, mut deletes) = (changes.saves.first_after(place), changes.deletes.first_after(place));
        self.merge(place, bounds, matches, || {
            let (save, delete) = (changes.saves.entries.get(saves), changes.deletes.entries.get(deletes));
            match (save, delete) {
                (Some(save), delete) if delete.is_none_or(|delete| save < delete) => {
                    saves += 1;
                    Some(save)
                }
                (_, delete) => {
                    deletes += 1;
                    delete
                }
            }
        })
    }

    /// As [`Machine::changes_after`], only the deletions.
    pub fn deletions_after(&self, place: &Place, bounds: Bounds, matches: impl Fn(&SessionId) -> bool) -> Changed {
        let deletes = &self.tables.changes.deletes;
        let mut next = deletes.entries.range(deletes.first_after(place)..);
        self.merge(place, bounds, matches, || next.next())
    }

    fn merge<'m>(
        &'m self,
        place: &Place,
        mut bounds: Bounds,
        matches: impl Fn(&SessionId) -> bool,
        mut next: impl FnMut() -> Option<&'m (Revision, SessionId)>,
    ) -> Changed {
        let mut changes = Vec::new();
        let mut last: Option<&(Revision, SessionId)> = None;
        while let Some(entry) = next() {
            if !bounds.look() {
                // It is not cut before it has begun: a bound of nothing would never end.
                let place = last.map_or_else(
                    || place.clone(),
                    |(revision, id)| Place { revision: *revision, within: (entry.0 == *revision).then(|| id.clone()) },
                );
                return Changed { changes, place, at_end: false };
            }
            last = Some(entry);
            let (revision, id) = entry;
            if matches(id)
                && let Some(change) = self.newest(*revision, id)
            {
                bounds.take(&change);
                changes.push((*revision, change));
            }
        }
        let end = Place::after(self.revision());
        let place = if place.revision > end.revision { place.clone() } else { end };
        Changed { changes, place, at_end: true }
    }

    /// The change of a session at this revision, if it did not move on.
    fn newest(&self, revision: Revision, id: &SessionId) -> Option<SessionChange> {
        match self.tables.sessions.get(id) {
            Some(kept) if kept.value.mod_revision == revision => {
                Some(SessionChange::Saved { id: id.clone(), info: kept.value.info() })
            }
            Some(_) => None,
            None if mutant::is(Mutant::WatchSkipsADelete) => None,
            None => {
                let is_newest = self.tables.changes.is_newest_deletion(revision, id);
                is_newest.then(|| SessionChange::Gone { id: id.clone() })
            }
        }
    }

    /// The state of a session that was last written after `since`, whatever its deadline says: it is there until a sweep removes it.
    pub fn saved_since(&self, id: &SessionId, since: Revision) -> Option<SessionChange> {
        let session = &self.tables.sessions.get(id)?.value;
        (session.mod_revision > since).then(|| SessionChange::Saved { id: id.clone(), info: session.info() })
    }

    /// Sessions whose ids begin so, beyond `after`, in order of ids, that were last written after `since`. Gives the id to go on after; `None`:
    /// that was the last.
    pub fn walk(
        &self,
        prefix: &str,
        after: Option<&SessionId>,
        since: Revision,
        mut bounds: Bounds,
    ) -> (Vec<SessionChange>, Option<SessionId>) {
        let start = start_after(prefix, after.map(SessionId::as_str));
        let mut changes = Vec::new();
        let mut last: Option<&SessionId> = None;
        for (id, kept) in self.tables.sessions.range::<str, _>((start, Bound::Unbounded)) {
            if !id.as_str().starts_with(prefix) {
                break;
            }
            if !bounds.look() {
                return (changes, last.or(after).cloned());
            }
            last = Some(id);
            if kept.value.mod_revision > since {
                let change = SessionChange::Saved { id: id.clone(), info: kept.value.info() };
                bounds.take(&change);
                changes.push(change);
            }
        }
        (changes, None)
    }

    /// Sessions that exist at machine time and whose ids begin so, the one written last first, from before (revision, id); at most `limit`.
    pub fn recent(&self, prefix: &str, before: Option<(Revision, &SessionId)>, limit: u32) -> Recent {
        let saves = &self.tables.changes.saves;
        let end = match before {
            Some(before) => saves.entries.partition_point(|(revision, id)| (*revision, id) < before),
            None => saves.entries.len(),
        };
        let limit = limit.clamp(1, LIST_PAGE_MAX) as usize;
        let mut page = Recent { sessions: Vec::new(), more: false, since: saves.after };
        for (revision, id) in saves.entries.range(..end).rev().filter(|(revision, _)| *revision > saves.after) {
            if !id.as_str().starts_with(prefix) {
                continue;
            }
            let Some(session) = self.tables.sessions.get(id).map(|kept| &kept.value) else { continue };
            if session.mod_revision != *revision || session.is_expired(self.now_ms) {
                continue;
            }
            if page.sessions.len() == limit {
                page.more = true;
                break;
            }
            page.sessions.push(Listed { id: id.clone(), info: self.info_of(id, session) });
        }
        page
    }

    /// Remembers so few saves and deletions from now on, for tests of what lies further back.
    #[doc(hidden)]
    pub fn remember(&mut self, saves: usize, deletes: usize) {
        self.tables.changes.keep(saves, deletes);
    }

    /// The last entry applied, as a revision; 0: none.
    pub fn revision(&self) -> Revision {
        Revision(self.applied.map_or(0, |applied| applied.index))
    }
}
