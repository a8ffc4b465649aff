//! The operations of a transaction, and the bounds that they keep together.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;

use super::change::{Access, Content, blobs, stored_bytes};
use super::{Addition, Attributes, Change, Expected, Fence, OnConflict, Request, Require, SessionId, Write};
use crate::limits::{TRANSACTION_CHUNKS_MAX, TRANSACTION_OPERATIONS_MAX, WRITE_BYTES_MAX};

/// One operation of a transaction: the effect is that of the write of the same name, decided against the state before the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Compares and changes nothing: with a view of several sessions as of one instant, the others may follow from it.
    Require {
        /// The session.
        id: SessionId,
        /// If given, what must be stored.
        expected: Option<Expected>,
        /// That of the turn that it belongs to.
        fence: Option<Fence>,
    },
    /// Stores unconditionally.
    Save {
        /// The session.
        id: SessionId,
        /// The change of the content.
        change: Change,
        /// The attributes of the session.
        attributes: Attributes,
        /// That of the turn that it belongs to.
        fence: Option<Fence>,
    },
    /// Stores only if the session is as expected.
    SaveIfVersion {
        /// The session.
        id: SessionId,
        /// The version that must be stored.
        expected: Expected,
        /// The change of the content.
        change: Change,
        /// The effect if another version is stored.
        on_conflict: OnConflict,
        /// The attributes of the session.
        attributes: Attributes,
        /// That of the turn that it belongs to.
        fence: Option<Fence>,
    },
    /// Appends to whatever is stored.
    Append {
        /// The session.
        id: SessionId,
        /// The state that must be stored.
        require: Require,
        /// The new content.
        addition: Addition,
        /// The attributes of the session.
        attributes: Attributes,
        /// That of the turn that it belongs to.
        fence: Option<Fence>,
    },
    /// Deletes; where nothing is stored and nothing expected, that is no failure.
    Delete {
        /// The session.
        id: SessionId,
        /// If given, what must be stored.
        expected: Option<Expected>,
        /// That of the turn that it belongs to.
        fence: Option<Fence>,
    },
}

impl Operation {
    /// A write as an operation; `None` of one that a transaction does not have.
    pub fn of(write: Write) -> Option<Self> {
        match write {
            Write::Save { id, change, attributes, fence, .. } => Some(Operation::Save { id, change, attributes, fence }),
            Write::SaveIfVersion { id, expected, change, on_conflict, attributes, fence, .. } => {
                Some(Operation::SaveIfVersion { id, expected, change, on_conflict, attributes, fence })
            }
            Write::Append { id, require, addition, attributes, fence, .. } => {
                Some(Operation::Append { id, require, addition, attributes, fence })
            }
            Write::Delete { id, expected, fence, .. } => Some(Operation::Delete { id, expected, fence }),
            Write::Touch { .. }
            | Write::Repack { .. }
            | Write::Transaction { .. }
            | Write::AcquireLease { .. }
            | Write::RenewLeases { .. }
            | Write::ReleaseLease { .. }
            | Write::OpenClient { .. }
            | Write::KeepAlive { .. }
            | Write::CloseClient { .. } => None,
        }
    }

    /// The write that does the same if it comes alone; `None` of one that only compares.
    pub fn alone(self, request: Request) -> Option<Write> {
        match self {
            Operation::Require { .. } => None,
            Operation::Save { id, change, attributes, fence } => Some(Write::Save { request, id, change, attributes, fence }),
            Operation::SaveIfVersion { id, expected, change, on_conflict, attributes, fence } => {
                Some(Write::SaveIfVersion { request, id, expected, change, on_conflict, attributes, fence })
            }
            Operation::Append { id, require, addition, attributes, fence } => {
                Some(Write::Append { request, id, require, addition, attributes, fence })
            }
            Operation::Delete { id, expected, fence } => Some(Write::Delete { request, id, expected, fence }),
        }
    }

    /// Makes it part of the turn with this fence.
    pub fn set_fence(&mut self, given: Fence) {
        match self {
            Operation::Require { fence, .. }
            | Operation::Save { fence, .. }
            | Operation::SaveIfVersion { fence, .. }
            | Operation::Append { fence, .. }
            | Operation::Delete { fence, .. } => *fence = Some(given),
        }
    }

    /// The session, with what it does to it.
    pub fn session(&self) -> (&SessionId, Access) {
        match self {
            Operation::Require { id, .. } => (id, Access::Read),
            Operation::Save { id, .. }
            | Operation::SaveIfVersion { id, .. }
            | Operation::Append { id, .. }
            | Operation::Delete { id, .. } => (id, Access::Write),
        }
    }

    /// The change to the content, of a save.
    pub fn change(&self) -> Option<&Change> {
        match self {
            Operation::Save { change, .. } | Operation::SaveIfVersion { change, .. } => Some(change),
            Operation::Append { .. } | Operation::Require { .. } | Operation::Delete { .. } => None,
        }
    }

    /// The chunks it brings, and the head if any; of an operation that brings content, even if that is empty.
    pub fn content(&self) -> Option<Content<'_>> {
        match self {
            Operation::Save { change, .. } | Operation::SaveIfVersion { change, .. } => Some(change.content()),
            Operation::Append { addition, .. } => Some(addition.content()),
            Operation::Require { .. } | Operation::Delete { .. } => None,
        }
    }

    /// Stored bytes it brings.
    pub fn stored_bytes(&self) -> u64 {
        self.content().map_or(0, |content| stored_bytes(blobs(content)))
    }

    /// The attributes it gives to its session.
    pub fn attributes(&self) -> Option<&Attributes> {
        match self {
            Operation::Save { attributes, .. }
            | Operation::SaveIfVersion { attributes, .. }
            | Operation::Append { attributes, .. } => Some(attributes),
            Operation::Require { .. } | Operation::Delete { .. } => None,
        }
    }
}

/// Why operations are no transaction. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTransaction {
    /// Too few operations or too many.
    Operations {
        /// How many.
        count: usize,
    },
    /// Two operations on one session.
    Twice {
        /// The position of the second.
        index: usize,
    },
    /// Too many stored bytes in all operations together.
    Bytes {
        /// How many.
        bytes: u64,
    },
    /// Too many chunks in all operations together.
    Chunks {
        /// How many.
        chunks: u64,
    },
}

impl fmt::Display for NoTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operations { count } => {
                write!(
                    f,
                    "a transaction has a wrong number of operations field=transaction.operations count={count} min=1 \
                     max={TRANSACTION_OPERATIONS_MAX}"
                )
            }
            Self::Twice { index } => {
                write!(f, "a transaction names a session twice: one operation on each field=transaction.operations[{index}].id")
            }
            Self::Bytes { bytes } => {
                write!(f, "a transaction is too large field=transaction.operations write_bytes={bytes} limit={WRITE_BYTES_MAX}")
            }
            Self::Chunks { chunks } => write!(
                f,
                "a transaction has too many chunks field=transaction.operations chunks={chunks} limit={TRANSACTION_CHUNKS_MAX}"
            ),
        }
    }
}

impl std::error::Error for NoTransaction {}

/// The operations of a transaction: at least one, at most [`TRANSACTION_OPERATIONS_MAX`], each on another session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operations(Vec<Operation>);

impl Operations {
    /// Errors: what they would have to keep together and do not (L47). An entry that breaks it would be refused by every replica.
    pub fn new(operations: Vec<Operation>) -> Result<Self, NoTransaction> {
        let count = operations.len();
        if !(1..=TRANSACTION_OPERATIONS_MAX).contains(&count) {
            return Err(NoTransaction::Operations { count });
        }
        let mut ids = BTreeSet::new();
        if let Some(index) = operations.iter().position(|operation| !ids.insert(operation.session().0)) {
            return Err(NoTransaction::Twice { index });
        }
        let bytes = operations.iter().map(Operation::stored_bytes).fold(0, u64::saturating_add);
        if bytes > WRITE_BYTES_MAX {
            return Err(NoTransaction::Bytes { bytes });
        }
        let chunks = operations.iter().filter_map(Operation::content).map(|(chunks, _)| chunks.len() as u64).sum();
        if chunks > TRANSACTION_CHUNKS_MAX {
            return Err(NoTransaction::Chunks { chunks });
        }
        Ok(Self(operations))
    }
}

impl Deref for Operations {
    type Target = [Operation];

    fn deref(&self) -> &[Operation] {
        &self.0
    }
}
