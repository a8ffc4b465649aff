//! Whether the answers about the leases of sessions are those of a store that lets one holder write at a time (laws L45, L46).
//!
//! ```text
//! order of writes   5         6       7        8          9        10
//!                   grant 5   write   write    grant 9    write    write
//! fence                       5 ok    none ✗   by steal   5 ✗      9 ok
//! ```
//!
//! It needs every grant and every end of a lease, which the committed log has: no caller is answered that its time has passed. Notes of
//! the log and of callers may say the same twice.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Kind, Violation};

/// A statement about the lease of one session at a place in the order of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseNote {
    /// The session, by number.
    pub key: usize,
    /// Index of the entry that did it.
    pub revision: u64,
    /// The statement.
    pub says: Says,
    /// When it was asked. Of the log: zero.
    pub invoked: Duration,
    /// When it was answered. Of the log, and where the answer is late: `Duration::MAX`.
    pub returned: Duration,
}

/// An event, or a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// A lease began.
    Granted {
        /// Its number.
        fence: u64,
        /// Taken from the holder, if there is one.
        steal: bool,
    },
    /// A lease was released, or its time had passed when this entry moved the time on.
    Ended {
        /// Its number.
        fence: u64,
    },
    /// A write was acknowledged.
    Wrote {
        /// The number that its caller wrote under.
        fence: Option<u64>,
    },
    /// A write under this number was refused for it.
    Fenced {
        /// The number.
        fence: u64,
    },
    /// A write without a number, or an acquisition, was refused as another has the lease.
    Held,
}

impl LeaseNote {
    /// A note of the log: nobody was asked.
    #[must_use]
    pub fn of_log(key: usize, revision: u64, says: Says) -> Self {
        Self { key, revision, says, invoked: Duration::ZERO, returned: Duration::MAX }
    }

    /// Ends come first: time moves on before an entry is judged.
    fn rank(&self) -> u8 {
        u8::from(!matches!(self.says, Says::Ended { .. }))
    }
}

/// A session's lease, as far as the notes went.
#[derive(Default)]
struct Key {
    holder: Option<u64>,
    /// The greatest number so far, and the entry that granted it.
    newest: Option<(u64, u64)>,
    /// The end that came last: a second note of it says nothing new.
    ended: Option<(u64, u64)>,
}

impl Key {
    /// The fault of a note that comes next.
    fn take(&mut self, note: &LeaseNote) -> Option<(Kind, String)> {
        let (holder, newest) = (self.holder, self.newest);
        match note.says {
            Says::Granted { fence, .. } if newest == Some((fence, note.revision)) => None,
            Says::Granted { fence, steal } => {
                self.holder = Some(fence);
                self.newest = Some((newest.map_or(fence, |(newest, _)| newest.max(fence)), note.revision));
                if let Some((before, _)) = newest.filter(|(before, _)| *before >= fence) {
                    return Some((Kind::FenceGoesBack, format!("{before} was granted before")));
                }
                let other = holder.filter(|_| !steal)?;
                Some((Kind::TwoHolders, format!("{other} had not ended, and was not taken away")))
            }
            Says::Ended { fence } => {
                let is_known = self.ended.replace((fence, note.revision)) == Some((fence, note.revision));
                if holder == Some(fence) {
                    self.holder = None;
                }
                (holder != Some(fence) && !is_known).then(|| (Kind::Disorder, format!("{holder:?} is the lease that lives")))
            }
            Says::Wrote { fence } if fence == holder => None,
            Says::Wrote { fence: None } => Some((Kind::Unfenced, format!("{holder:?} is the lease that lives"))),
            Says::Wrote { fence: Some(_) } => Some((Kind::OldFence, format!("{holder:?} is the lease that lives"))),
            Says::Fenced { fence } => {
                (holder == Some(fence)).then(|| (Kind::SpuriousFence, "it is the lease that lives".to_owned()))
            }
            Says::Held => holder.is_none().then(|| (Kind::SpuriousFence, "no lease lives".to_owned())),
        }
    }
}

/// Every violation: between a grant and its end no write but by its number is acknowledged, numbers grow, none comes back, and nobody is
/// refused by a lease that there is not.
#[must_use]
pub fn leases(notes: &[LeaseNote]) -> Vec<Violation> {
    let mut order: Vec<&LeaseNote> = notes.iter().collect();
    order.sort_by_key(|note| (note.revision, note.rank(), note.invoked));
    let (mut keys, mut found) = (BTreeMap::<usize, Key>::new(), Vec::new());
    let mut latest: Option<&LeaseNote> = None;
    for note in order {
        if let Some((kind, what)) = keys.entry(note.key).or_default().take(note) {
            found.push(Violation { kind, what: format!("{what}: {note:?}") });
        }
        if let Some(before) = latest.filter(|before| note.returned < before.invoked) {
            found.push(Violation { kind: Kind::Disorder, what: format!("{note:?} was over before {before:?} began") });
        }
        if latest.is_none_or(|before| before.invoked < note.invoked) {
            latest = Some(note);
        }
    }
    found
}
