//! The machine's answers. An outcome is the only thing that settles a write.

use super::{ClientId, ContentVersion, Counters, Fence, Form, Holder, Lost, Revision, Version};

/// The answer of the machine to one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Index of the entry that executed the write; a retry answers the original one. For `Conflict` and `NotFound`: where it was
    /// evaluated.
    pub revision: Revision,
    /// The verdict.
    pub verdict: Verdict,
}

/// A save that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The stored content.
    pub content: ContentVersion,
    /// Whether the delta was appended to a newer state than its base. The stored content then holds others' items too: a client
    /// must not take its own content for that of this version.
    pub rebased: bool,
}

/// An append that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The stored content. The new items are its last ones.
    pub content: ContentVersion,
    /// Chunks the session holds now.
    pub chunks: u64,
    /// The counters now.
    pub counters: Counters,
}

/// Which bound a write would exceed. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLarge {
    /// Stored bytes of the session after the write.
    StoredBytes {
        /// The size after the write.
        now: u64,
        /// The limit.
        limit: u64,
    },
    /// Raw bytes of the session after the write.
    RawBytes {
        /// The size after the write.
        now: u64,
        /// The limit.
        limit: u64,
    },
    /// Items of the session after the write.
    Items {
        /// The number after the write.
        now: u64,
        /// The limit.
        limit: u64,
    },
    /// Chunks of the session after the write; a client repacks.
    Chunks {
        /// The number after the write.
        now: u64,
        /// The limit.
        limit: u64,
    },
    /// Bytes of the write itself.
    Write {
        /// The size of the write.
        now: u64,
        /// The limit.
        limit: u64,
    },
    /// Rows that a transaction would drop: of sessions that it deletes or replaces.
    Rows {
        /// The number for its operations up to this one.
        now: u64,
        /// The limit.
        limit: u64,
    },
}

impl TooLarge {
    /// The measured quantity, its value, the limit.
    pub fn parts(&self) -> (&'static str, u64, u64) {
        match *self {
            TooLarge::StoredBytes { now, limit } => ("stored_bytes", now, limit),
            TooLarge::RawBytes { now, limit } => ("raw_bytes", now, limit),
            TooLarge::Items { now, limit } => ("items", now, limit),
            TooLarge::Chunks { now, limit } => ("chunks", now, limit),
            TooLarge::Write { now, limit } => ("write_bytes", now, limit),
            TooLarge::Rows { now, limit } => ("rows_dropped", now, limit),
        }
    }
}

/// A transaction that was stored, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transacted {
    /// The verdict on each operation, in their order.
    pub results: Vec<Verdict>,
}

/// A transaction that was not stored, nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// The position of the first operation that failed, from 0.
    pub index: u32,
    /// The verdict on it.
    pub verdict: Box<Verdict>,
}

/// The counts of one `Sweep`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Expired sessions (each left a tombstone).
    pub sessions: u32,
    /// Idle clients.
    pub clients: u32,
    /// Old tombstones.
    pub tombstones: u32,
    /// Ended leases.
    pub leases: u32,
}

/// The verdict on one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Stored.
    Saved(Saved),
    /// The session is not as expected. Nothing changed.
    Conflict {
        /// The stored version; 0 if there is no session.
        actual: Version,
        /// If there is none but a tombstone: the version it counts from.
        tombstone: Version,
    },
    /// The delta's base is not current, or its item count differs. Nothing changed and nothing is recorded: the sequence stays open,
    /// and the same request may carry the full change.
    BaseMismatch,
    /// The write or the session would be too large. Nothing changed.
    TooLarge(TooLarge),
    /// A creation above the bound on sessions, or a longer label above that on their metadata. Nothing changed.
    TooManySessions,
    /// Deleted; the delete took this version.
    Deleted {
        /// The tombstone's version.
        version: Version,
    },
    /// There was nothing to delete. Nothing changed.
    NotFound {
        /// The tombstone's version; 0 without one.
        tombstone: Version,
    },
    /// The client is open.
    ClientOpened {
        /// Its id.
        client: ClientId,
    },
    /// The client lives on.
    ClientKept,
    /// The client is forgotten.
    ClientClosed,
    /// No room in the client table. Nothing changed.
    TooManyClients,
    /// No such client, or the wrong nonce. Nothing changed; not recorded.
    ClientUnknown,
    /// The sequence was closed by its client before it arrived. Not executed; not recorded.
    Stale,
    /// The sequence is too far ahead of `acknowledged_below`. Not executed; not recorded.
    WindowExceeded,
    /// The table of outcomes is full. Not executed; not recorded: retry like an overload.
    Busy,
    /// The counts of a sweep.
    Swept(Swept),
    /// The cluster version now in force.
    ClusterVersion {
        /// The version.
        version: u16,
    },
    /// Appended.
    Appended(Appended),
    /// The session is no transcript, so no items can be appended. Nothing changed.
    WrongForm {
        /// Its form.
        form: Form,
    },
    /// The deadline is moved, or was there already.
    Touched {
        /// Machine time the session expires at; `None`: never.
        deadline_ms: Option<u64>,
    },
    /// The lease is granted.
    LeaseGranted {
        /// Its number.
        fence: Fence,
        /// Machine time it ends at.
        deadline_ms: u64,
    },
    /// Another holder has the lease. Nothing changed.
    LeaseHeld {
        /// The holder that has it.
        holder: Holder,
        /// Machine time it ends at, unless it is renewed.
        deadline_ms: u64,
    },
    /// The leases are renewed, but for those that are lost.
    LeasesRenewed {
        /// Machine time that each of them lives until, at least: a renewal shortens none.
        deadline_ms: u64,
        /// Those that lived no more, or were of another fence; nothing of them changed.
        lost: Lost,
    },
    /// The lease is given back.
    LeaseReleased,
    /// The lease to be given back lived no more, or is another's. Nothing changed.
    LeaseLost,
    /// No room for another lease. Nothing changed.
    TooManyLeases,
    /// A lease lives, and the write carries no fence. Nothing changed.
    Leased {
        /// The holder that has it.
        holder: Holder,
        /// Machine time it ends at, unless it is renewed.
        deadline_ms: u64,
    },
    /// The write carries a fence, and no lease of that fence lives. Nothing changed.
    Fenced {
        /// That of the lease that lives, if one does.
        current: Option<Fence>,
    },
    /// All operations of a transaction are done.
    Transacted(Transacted),
    /// An operation of a transaction failed. Nothing at all changed.
    Aborted(Aborted),
    /// As `BaseMismatch`, of an operation of a transaction: the same request may carry that change in full.
    BaseMismatchAt {
        /// Its position, from 0.
        index: u32,
    },
    /// The session is as an operation requires it. Nothing changed.
    Met,
    /// Its chunks are packed again, with the same items.
    Repacked {
        /// The number of the first chunk behind the new ones.
        first_chunk: u64,
        /// Chunks the session holds now.
        chunks: u64,
    },
    /// The session or its chunks are others than a repack was made from, or the new ones hold something else. Nothing changed.
    NotRepacked,
}

impl Verdict {
    /// Whether the operation of a transaction on which it is given is done; `None`: it is given on no operation, or ends the transaction
    /// unrecorded.
    pub fn of_operation(&self) -> Option<bool> {
        match self {
            Verdict::Met | Verdict::Saved(_) | Verdict::Appended(_) | Verdict::Deleted { .. } | Verdict::NotFound { .. } => {
                Some(true)
            }
            Verdict::Conflict { .. }
            | Verdict::TooLarge(_)
            | Verdict::TooManySessions
            | Verdict::WrongForm { .. }
            | Verdict::Leased { .. }
            | Verdict::Fenced { .. } => Some(false),
            Verdict::Touched { .. }
            | Verdict::Repacked { .. }
            | Verdict::NotRepacked
            | Verdict::LeaseGranted { .. }
            | Verdict::LeaseHeld { .. }
            | Verdict::LeasesRenewed { .. }
            | Verdict::LeaseReleased
            | Verdict::LeaseLost
            | Verdict::TooManyLeases
            | Verdict::BaseMismatch
            | Verdict::Transacted(_)
            | Verdict::Aborted(_)
            | Verdict::BaseMismatchAt { .. }
            | Verdict::ClientOpened { .. }
            | Verdict::ClientKept
            | Verdict::ClientClosed
            | Verdict::TooManyClients
            | Verdict::ClientUnknown
            | Verdict::Stale
            | Verdict::WindowExceeded
            | Verdict::Busy
            | Verdict::Swept(_)
            | Verdict::ClusterVersion { .. } => None,
        }
    }

    /// How many recorded outcomes it counts for: one for each verdict that it holds.
    pub fn weight(&self) -> u64 {
        match self {
            Verdict::Transacted(Transacted { results }) => results.len().max(1) as u64,
            _ => 1,
        }
    }

    /// The first cluster version in which it is given.
    pub fn cluster_version(&self) -> u16 {
        match self {
            Verdict::Appended(_)
            | Verdict::WrongForm { .. }
            | Verdict::Touched { .. }
            | Verdict::Transacted(_)
            | Verdict::Aborted(_)
            | Verdict::BaseMismatchAt { .. }
            | Verdict::Met
            | Verdict::Repacked { .. }
            | Verdict::NotRepacked
            | Verdict::LeaseGranted { .. }
            | Verdict::LeaseHeld { .. }
            | Verdict::LeasesRenewed { .. }
            | Verdict::LeaseReleased
            | Verdict::LeaseLost
            | Verdict::TooManyLeases
            | Verdict::Leased { .. }
            | Verdict::Fenced { .. } => 2,
            Verdict::Saved(_)
            | Verdict::Conflict { .. }
            | Verdict::BaseMismatch
            | Verdict::TooLarge(_)
            | Verdict::TooManySessions
            | Verdict::Deleted { .. }
            | Verdict::NotFound { .. }
            | Verdict::ClientOpened { .. }
            | Verdict::ClientKept
            | Verdict::ClientClosed
            | Verdict::TooManyClients
            | Verdict::ClientUnknown
            | Verdict::Stale
            | Verdict::WindowExceeded
            | Verdict::Busy
            | Verdict::Swept(_)
            | Verdict::ClusterVersion { .. } => 1,
        }
    }
}
