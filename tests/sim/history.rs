//! What clients asked and were told: the only thing a checker believes.

use std::time::Duration;

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Load,
    Save {
        value: u64,
    },
    /// `expected` 0: there must be no session.
    SaveIf {
        expected: u64,
        value: u64,
    },
    Delete,
}

/// What the caller knows afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Found {
        version: u64,
        value: u64,
        revision: u64,
    },
    NotFound {
        tombstone: u64,
        revision: u64,
    },
    /// Of a save or a delete.
    Written {
        version: u64,
        revision: u64,
    },
    /// A delete found nothing; the client does not say where.
    NothingThere,
    Conflict {
        actual: u64,
        revision: u64,
    },
    /// Nothing changed.
    Refused,
    /// It may have happened, or may happen yet.
    Unknown,
}

/// One operation of the history. Times are the simulation's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub client: usize,
    pub key: usize,
    pub ask: Ask,
    pub answer: Answer,
    pub invoked: Duration,
    /// Of an unknown write: when its caller gave up. It may take effect later.
    pub returned: Duration,
}

impl Ask {
    /// What it stores.
    pub fn value(self) -> Option<u64> {
        match self {
            Self::Save { value } | Self::SaveIf { value, .. } => Some(value),
            Self::Load | Self::Delete => None,
        }
    }
}

impl Answer {
    /// Its place in the order of writes, if it has one.
    pub fn revision(self) -> Option<u64> {
        match self {
            Self::Found { revision, .. }
            | Self::NotFound { revision, .. }
            | Self::Written { revision, .. }
            | Self::Conflict { revision, .. } => Some(revision),
            Self::NothingThere | Self::Refused | Self::Unknown => None,
        }
    }
}
