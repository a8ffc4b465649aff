//! The name that a session's rows of content have, apart from those of all others.

use std::fmt;

use crate::limits::CREATION_CHUNKS;
use crate::types::Revision;

/// Names the rows of one session's content: no other session has, or had, the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Birth {
    /// The index of the entry that created it.
    pub create_revision: Revision,
    /// Which of the sessions that this entry created it is, from 0.
    pub creation: u64,
}

impl Birth {
    /// Of a session with a chunk of this number, or whose next one has it.
    pub fn of(create_revision: Revision, chunk: u64) -> Self {
        Self { create_revision, creation: chunk / CREATION_CHUNKS }
    }
}

impl fmt::Display for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "create_revision={}", self.create_revision)?;
        if self.creation > 0 { write!(f, " creation={}", self.creation) } else { Ok(()) }
    }
}
