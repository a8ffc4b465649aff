//! The next frame of a watch: pure decisions over a machine, one hold of the view lock each.
//!
//! ```text
//!   begin ──> At(place) <───────────────────────────── walked: R₀ ──┐
//!               │  the changes after it, in order                   │
//!               │                                                   │
//!               ├─ too old for the saves ──> Deletions ──> Ids ─────┤   no revision is said within a walk:
//!               └─ too old for the deletions: resync ────> Ids ─────┘   nothing can be resumed from there
//! ```
//!
//! Promises, of the frames of one watch, in order. After a frame with revision R every matching id whose newest state is at or before R
//! was shown (L41). Per id states never go back. A session that was not shown by the end of a walk that began with `resync` is gone.

use super::Machine;
use super::changed::Reach;
use super::changes::{Bounds, Place};
use crate::limits::{LABEL_BYTES_MAX, SESSION_ID_BYTES_MAX, WATCH_FRAME_BYTES, WATCH_FRAME_CHANGES, WATCH_STEP_RECORDS};
use crate::mutant::{self, Mutant};
use crate::types::{Revision, Selector, SessionChange, SessionId};

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With what changes from now on.
    Now,
    /// With the whole state.
    Initial,
    /// With what changed after this revision of this cluster.
    From(Revision),
    /// With the whole state, as the watcher has another cluster's.
    Foreign,
}

/// How far a watch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// All up to here is shown.
    At(Place),
    /// Within the deletions since a revision; a walk follows.
    Deletions {
        /// All up to here are shown.
        place: Place,
        /// The walk that comes after them.
        walk: Walk,
    },
    /// Within the sessions, in order of ids.
    Ids(Walk),
}

/// A walk of ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Only what was written after this revision is shown.
    since: Revision,
    /// The last entry applied when it began; the watch continues from there.
    began: Revision,
    /// All up to this id are shown.
    after: Option<SessionId>,
    /// Whether the next frame says `resync`.
    resync: bool,
}

/// The result of one hold of the view lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The changes, each id once.
    pub changes: Vec<SessionChange>,
    /// All matching ids whose newest state is at or before it are shown; `None`: within a walk.
    pub revision: Option<Revision>,
    /// Whether nothing was newer.
    pub complete: bool,
    /// Whether the whole state follows, and what is not in it is gone.
    pub resync: bool,
    /// Whether a walk ends with it.
    pub walked: bool,
}

impl Step {
    /// Whether a watcher must be shown.
    pub fn says_something(&self) -> bool {
        !self.changes.is_empty() || self.resync || self.walked
    }
}

/// The bounds of a frame.
fn frame() -> Bounds {
    // The last change may begin just below the bound.
    const CHANGE_BYTES_MAX: u64 = (SESSION_ID_BYTES_MAX + LABEL_BYTES_MAX) as u64 + 512;
    Bounds { records: WATCH_STEP_RECORDS, changes: WATCH_FRAME_CHANGES, bytes: WATCH_FRAME_BYTES - CHANGE_BYTES_MAX }
}

impl Cursor {
    /// The cursor of a new watch.
    pub fn begin(begin: Begin, machine: &Machine) -> Self {
        let now = machine.revision();
        match begin {
            Begin::Now => Self::At(Place::after(now)),
            Begin::From(revision) => Self::At(Place::after(revision)),
            Begin::Initial => Self::Ids(Walk { since: Revision(0), began: now, after: None, resync: false }),
            Begin::Foreign => Self::resync(machine),
        }
    }

    fn resync(machine: &Machine) -> Self {
        Self::Ids(Walk { since: Revision(0), began: machine.revision(), after: None, resync: true })
    }

    /// The place, if it is within no walk.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::At(place) => Some(place),
            Self::Deletions { .. } | Self::Ids(_) => None,
        }
    }

    /// Shows the next changes, as many as fit a frame. The cursor is then behind them.
    pub fn step(&mut self, machine: &Machine, selector: &Selector) -> Step {
        self.step_within(machine, selector, frame())
    }

    /// As [`Cursor::step`], with other bounds.
    pub fn step_within(&mut self, machine: &Machine, selector: &Selector, bounds: Bounds) -> Step {
        self.look_back(machine);
        match self {
            Self::At(place) => {
                let changed = machine.changes_after(place, bounds, |id| selector.matches(id));
                let step = Step {
                    changes: changed.changes.into_iter().map(|(_, change)| change).collect(),
                    revision: Some(changed.place.whole()),
                    complete: changed.at_end,
                    ..Step::default()
                };
                *place = changed.place;
                step
            }
            Self::Deletions { place, walk } => {
                let changed = machine.deletions_after(place, bounds, |id| selector.matches(id));
                let changes = changed.changes.into_iter().map(|(_, change)| change).collect();
                let step = Step { changes, revision: walk.said(), ..Step::default() };
                *place = changed.place;
                if changed.at_end {
                    *self = Self::Ids(walk.clone());
                }
                step
            }
            Self::Ids(walk) => {
                let (changes, next) = walk.sessions(machine, selector, bounds);
                let walked = next.is_none();
                walk.after = next;
                let revision = if walked { Some(walk.began) } else { walk.said() };
                // A frame that says so even if there is nothing: what the watcher has is gone.
                let resync = walk.resync && (walked || !changes.is_empty());
                walk.resync &= !resync;
                let complete = walked && walk.began == machine.revision();
                if walked {
                    *self = Self::At(Place::after(walk.began));
                }
                Step { changes, revision, complete, resync, walked }
            }
        }
    }

    /// Turns to a walk where the changes after its place are not known any more (L42).
    fn look_back(&mut self, machine: &Machine) {
        let place = match self {
            Self::At(place) | Self::Deletions { place, .. } => place.clone(),
            Self::Ids(_) => return,
        };
        let is_walk = matches!(self, Self::Deletions { .. });
        match machine.reach(place.whole()) {
            Reach::Nothing => *self = Self::resync(machine),
            Reach::Deletions if !is_walk => {
                let walk = Walk { since: place.whole(), began: machine.revision(), after: None, resync: false };
                *self = Self::Deletions { place, walk };
            }
            Reach::Deletions | Reach::Changes => {}
        }
    }
}

impl Walk {
    /// The revision that a frame within it says: none, as from there nothing is to be resumed.
    fn said(&self) -> Option<Revision> {
        mutant::is(Mutant::WalkSaysItsRevision).then_some(self.began)
    }

    fn sessions(&self, machine: &Machine, selector: &Selector, mut bounds: Bounds) -> (Vec<SessionChange>, Option<SessionId>) {
        let ids = match selector {
            Selector::Prefix(prefix) => return machine.walk(prefix, self.after.as_ref(), self.since, bounds),
            Selector::Ids(ids) => ids,
        };
        let (mut changes, mut last) = (Vec::new(), self.after.as_ref());
        for id in ids.iter().filter(|id| self.after.as_ref().is_none_or(|after| *id > after)) {
            if !bounds.look() {
                return (changes, last.cloned());
            }
            last = Some(id);
            if let Some(change) = machine.saved_since(id, self.since) {
                bounds.take(&change);
                changes.push(change);
            }
        }
        (changes, None)
    }
}
