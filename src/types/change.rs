//! The content of a write: chunks, changes, expectations, and the request identity that makes a retry exact.

use std::time::Duration;

use super::{
    Blob, Chunk, ClientId, Fence, Holder, Label, LeaseTtl, Nonce, Operation, Operations, Renewals, Repack, Revision, Sequence,
    SessionId, Version,
};
use crate::limits::COUNTERS_MAX;

/// Additive counters of a session (for Bob: token usage), by position. At most [`COUNTERS_MAX`]; missing ones are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(Vec<u64>);

impl Counters {
    /// `None` above [`COUNTERS_MAX`]. Trailing zeros are dropped, so equal counters compare equal.
    pub fn new(mut values: Vec<u64>) -> Option<Self> {
        if values.len() > COUNTERS_MAX {
            return None;
        }
        while values.last() == Some(&0) {
            values.pop();
        }
        Some(Self(values))
    }

    /// The counters, without trailing zeros: there may be fewer than were given, so read them by [`Counters::at`], not by index.
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }

    /// The counter at a position, counted from 0. One that was never given is 0.
    pub fn at(&self, position: usize) -> u64 {
        self.0.get(position).copied().unwrap_or(0)
    }

    /// Adds each increment to the counter at its position, saturating.
    pub fn add(&mut self, increments: &Counters) {
        if self.0.len() < increments.0.len() {
            self.0.resize(increments.0.len(), 0);
        }
        for (value, increment) in self.0.iter_mut().zip(&increments.0) {
            *value = value.saturating_add(*increment);
        }
    }
}

/// The state of a session a delta was made against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The session did not exist (or is deleted or expired).
    Absent,
    /// Exactly this content.
    At {
        /// The log index that created the session.
        create_revision: Revision,
        /// The version of the base.
        version: Version,
        /// Items the base holds.
        items: u64,
    },
}

/// The effect of a save on the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The whole new content; also how a plain value is stored (no chunks, everything in the head).
    Full {
        /// All items, in order.
        chunks: Vec<Chunk>,
        /// The rest of the state.
        head: Blob,
        /// The counters' new values.
        counters: Counters,
    },
    /// Appends to the base; never anything else.
    Delta {
        /// The base of the delta.
        base: Base,
        /// New items, in order.
        chunks: Vec<Chunk>,
        /// The new head, if it changed. Required where the base is [`Base::Absent`].
        head: Option<Blob>,
        /// The increments of the counters.
        counters: Counters,
    },
}

impl Change {
    /// The chunks it brings.
    pub fn chunks(&self) -> &[Chunk] {
        match self {
            Change::Full { chunks, .. } | Change::Delta { chunks, .. } => chunks,
        }
    }

    /// The head it brings, if any.
    pub fn head(&self) -> Option<&Blob> {
        match self {
            Change::Full { head, .. } => Some(head),
            Change::Delta { head, .. } => head.as_ref(),
        }
    }

    /// The chunks it brings, and the head if any.
    pub fn content(&self) -> Content<'_> {
        (self.chunks(), self.head())
    }

    /// The blobs it brings: every chunk's, then the head's.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        blobs(self.content())
    }

    /// Stored bytes it brings.
    pub fn stored_bytes(&self) -> u64 {
        stored_bytes(self.blobs())
    }
}

/// The chunks that a write brings to a session, and the head if any.
pub type Content<'c> = (&'c [Chunk], Option<&'c Blob>);

pub(super) fn blobs<'c>((chunks, head): Content<'c>) -> impl Iterator<Item = &'c Blob> {
    chunks.iter().map(|chunk| &chunk.blob).chain(head)
}

pub(super) fn stored_bytes<'c>(blobs: impl Iterator<Item = &'c Blob>) -> u64 {
    blobs.map(Blob::stored_bytes).fold(0, u64::saturating_add)
}

/// When the session is to expire after a save, by the machine's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// As it was: an idle session lives on for its whole time, any other until its deadline; a new one never expires.
    #[default]
    Keep,
    /// Never.
    Never,
    /// So long after the write is applied; whole milliseconds, at most [`crate::limits::SESSION_TTL_MAX`].
    After(Duration),
    /// So long after the last write that stored something: each that says `Keep` moves the deadline on, until one says `After` or `Never`.
    /// A conflict, or another write that stores nothing, does not move it; nor do loads. Bounds as of `After`. Since cluster version 2.
    Idle(Duration),
}

/// The form of a session's content, as who writes the head declares it. The server looks at no content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Not declared.
    #[default]
    Unknown,
    /// A plain value: everything is in the head.
    Value,
    /// A transcript: a head, and items that may be appended to.
    Transcript,
}

/// The attributes a write gives its session, besides the content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The change of the deadline.
    pub expiry: Expiry,
    /// The form of the head that the write brings; what an append creates is a transcript. Since cluster version 2.
    pub form: Form,
    /// How long a tombstone of the session stands after its delete or expiry, in whole milliseconds of at most
    /// [`crate::limits::TOMBSTONE_TTL_MAX`]; `None`: as it was, and so long for a new session. Since cluster version 2.
    pub tombstone_ttl: Option<Duration>,
    /// Its label; the empty one takes it away, `None` leaves it. Since cluster version 2.
    pub label: Option<Label>,
}

impl Expiry {
    /// The first cluster version that has it.
    pub fn cluster_version(self) -> u16 {
        match self {
            Expiry::Keep | Expiry::Never | Expiry::After(_) => 1,
            Expiry::Idle(_) => 2,
        }
    }
}

impl Attributes {
    /// The first cluster version that has all of them.
    pub fn cluster_version(&self) -> u16 {
        let Self { expiry, form, tombstone_ttl, label } = self;
        if *form == Form::Unknown && tombstone_ttl.is_none() && label.is_none() { expiry.cluster_version() } else { 2 }
    }
}

impl From<Expiry> for Attributes {
    fn from(expiry: Expiry) -> Self {
        Self { expiry, ..Self::default() }
    }
}

/// The condition of a conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No session: it never existed, or is deleted or expired.
    Absent,
    /// A session at this version.
    At {
        /// The version that must be stored.
        version: Version,
        /// If given, the session must also be the one created there.
        create_revision: Option<Revision>,
    },
    /// The session that was created there, at any version: not another one of its name, created after it was deleted. Since cluster
    /// version 2.
    Incarnation {
        /// The log index that created it.
        create_revision: Revision,
    },
}

impl Expected {
    /// The first cluster version that has it.
    pub fn cluster_version(self) -> u16 {
        match self {
            Expected::Absent | Expected::At { .. } => 1,
            Expected::Incarnation { .. } => 2,
        }
    }
}

/// The effect of `SaveIfVersion` when the stored version is not the expected one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// `Conflict`; nothing changes.
    #[default]
    Reject,
    /// Append the delta to the newest state, where that is safe; `Conflict` otherwise.
    Rebase,
}

/// The state of a session that an append requires; else it is answered `Conflict`, and nothing changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Require {
    /// Any: a session that is absent is created.
    #[default]
    Any,
    /// A session is there.
    Present,
    /// No session: it never existed, or is deleted or expired.
    Absent,
    /// A session is there, and each that is given is its own. At least one is.
    At {
        /// The log index that created it.
        create_revision: Option<Revision>,
        /// Its version.
        version: Option<Version>,
        /// Its items.
        items: Option<u64>,
    },
    /// The session that was created there is there, and since that version nothing but appends came: what was read of it then, is in it
    /// still.
    AppendedOnly {
        /// The log index that created it.
        create_revision: Revision,
        /// A version that it had.
        since: Version,
    },
}

impl Require {
    /// Whether an append with it may create the session, and so must bring a head.
    pub fn may_create(&self) -> bool {
        matches!(self, Require::Any | Require::Absent)
    }
}

/// The content an append adds to whatever is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addition {
    /// New items, in order; none, if only counters move.
    pub chunks: Vec<Chunk>,
    /// The head of a session that the append creates. The head of one that exists is never touched.
    pub head_if_created: Option<Blob>,
    /// The increments of the counters.
    pub counters: Counters,
}

impl Addition {
    /// Stored bytes it brings.
    pub fn stored_bytes(&self) -> u64 {
        stored_bytes(blobs(self.content()))
    }

    /// The chunks it brings, and the head if any.
    pub fn content(&self) -> Content<'_> {
        (&self.chunks, self.head_if_created.as_ref())
    }
}

/// Names one write for ever: a retry anywhere carries the same `client` and `sequence` (Raft dissertation §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The row of the client table.
    pub client: ClientId,
    /// Proves that the request comes from the opener of the client.
    pub nonce: Nonce,
    /// Which of the client's writes this is.
    pub sequence: Sequence,
    /// Every sequence below is closed: its final outcome was received, or the caller got `Indeterminate`.
    pub acknowledged_below: Sequence,
}

/// The use of a session by a write, and so the right that it needs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Compared, and not changed.
    Read,
    /// Perhaps changed.
    Write,
}

/// A write as a client submits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Stores unconditionally.
    Save {
        /// The request's identity.
        request: Request,
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
        /// The request's identity.
        request: Request,
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
    /// Deletes; a tombstone continues counting versions.
    Delete {
        /// The request's identity.
        request: Request,
        /// The session.
        id: SessionId,
        /// If given, what must be stored.
        expected: Option<Expected>,
        /// That of the turn that it belongs to.
        fence: Option<Fence>,
    },
    /// Appends to whatever is stored. Since cluster version 2.
    Append {
        /// The request's identity.
        request: Request,
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
    /// Moves the deadline of a session and nothing else: neither its version nor its `mod_revision`. Since cluster version 2.
    Touch {
        /// The request's identity.
        request: Request,
        /// The session.
        id: SessionId,
        /// The change of the deadline.
        expiry: Expiry,
        /// That of the turn that it belongs to.
        fence: Option<Fence>,
    },
    /// Takes the lease of a session: from then on all writes to it must carry its fence. Since cluster version 2.
    AcquireLease {
        /// The request's identity.
        request: Request,
        /// The session; it need not exist.
        id: SessionId,
        /// The holder that takes it.
        holder: Holder,
        /// How long it lives.
        ttl: LeaseTtl,
        /// Whether one that lives is taken from its holder.
        steal: bool,
    },
    /// Lets leases live on, each under its fence. Since cluster version 2.
    RenewLeases {
        /// The request's identity.
        request: Request,
        /// The leases.
        leases: Renewals,
        /// How long from now on they live, at least.
        ttl: LeaseTtl,
    },
    /// Gives a lease back. Since cluster version 2.
    ReleaseLease {
        /// The request's identity.
        request: Request,
        /// The session.
        id: SessionId,
        /// The fence of the lease.
        fence: Fence,
    },
    /// Replaces chunks of a session by fewer ones with the same items, and changes nothing else. Exempt from the lease. Since cluster version 2.
    Repack {
        /// The request's identity.
        request: Request,
        /// The chunks that are replaced, and those in their place.
        repack: Repack,
    },
    /// All of its operations, or none. Since cluster version 2.
    Transaction {
        /// The request's identity.
        request: Request,
        /// The operations.
        operations: Operations,
    },
    /// Opens a client; the same nonce again gives the same client.
    OpenClient {
        /// 128 random bits.
        nonce: Nonce,
    },
    /// Keeps an idle client from expiring, and closes sequences.
    KeepAlive {
        /// The client.
        client: ClientId,
        /// Its nonce.
        nonce: Nonce,
        /// As in [`Request`].
        acknowledged_below: Sequence,
    },
    /// Forgets a client and its outcomes.
    CloseClient {
        /// The client.
        client: ClientId,
        /// Its nonce.
        nonce: Nonce,
    },
}

impl Write {
    /// The request identity, of a write that has one.
    pub fn request(&self) -> Option<&Request> {
        match self {
            Write::Save { request, .. }
            | Write::SaveIfVersion { request, .. }
            | Write::Append { request, .. }
            | Write::Touch { request, .. }
            | Write::Repack { request, .. }
            | Write::Transaction { request, .. }
            | Write::Delete { request, .. }
            | Write::AcquireLease { request, .. }
            | Write::RenewLeases { request, .. }
            | Write::ReleaseLease { request, .. } => Some(request),
            Write::OpenClient { .. } | Write::KeepAlive { .. } | Write::CloseClient { .. } => None,
        }
    }

    /// Gives a write that has a request identity this one.
    pub fn set_request(&mut self, new: Request) {
        match self {
            Write::Save { request, .. }
            | Write::SaveIfVersion { request, .. }
            | Write::Append { request, .. }
            | Write::Touch { request, .. }
            | Write::Repack { request, .. }
            | Write::Transaction { request, .. }
            | Write::Delete { request, .. }
            | Write::AcquireLease { request, .. }
            | Write::RenewLeases { request, .. }
            | Write::ReleaseLease { request, .. } => *request = new,
            Write::OpenClient { .. } | Write::KeepAlive { .. } | Write::CloseClient { .. } => {}
        }
    }

    /// The operations, of a transaction.
    pub fn operations(&self) -> &[Operation] {
        match self {
            Write::Transaction { operations, .. } => operations,
            Write::Save { .. }
            | Write::Repack { .. }
            | Write::SaveIfVersion { .. }
            | Write::Append { .. }
            | Write::Touch { .. }
            | Write::Delete { .. }
            | Write::AcquireLease { .. }
            | Write::RenewLeases { .. }
            | Write::ReleaseLease { .. }
            | Write::OpenClient { .. }
            | Write::KeepAlive { .. }
            | Write::CloseClient { .. } => &[],
        }
    }

    /// How many recorded outcomes its own counts for, until its client acknowledges it.
    pub fn weight(&self) -> u64 {
        self.operations().len().max(1) as u64
    }

    /// Gives a write that has one change this one.
    pub fn set_change(&mut self, new: Change) {
        match self {
            Write::Save { change, .. } | Write::SaveIfVersion { change, .. } => *change = new,
            Write::Append { .. }
            | Write::Touch { .. }
            | Write::Delete { .. }
            | Write::Repack { .. }
            | Write::Transaction { .. }
            | Write::AcquireLease { .. }
            | Write::RenewLeases { .. }
            | Write::ReleaseLease { .. }
            | Write::OpenClient { .. }
            | Write::KeepAlive { .. }
            | Write::CloseClient { .. } => {}
        }
    }

    /// The sessions it names, each once, with what it does to them.
    pub fn sessions(&self) -> impl Iterator<Item = (&SessionId, Access)> {
        let (one, leases): (_, &[(SessionId, Fence)]) = match self {
            Write::Save { id, .. }
            | Write::SaveIfVersion { id, .. }
            | Write::Append { id, .. }
            | Write::Touch { id, .. }
            | Write::Delete { id, .. }
            | Write::AcquireLease { id, .. }
            | Write::Repack { repack: Repack { id, .. }, .. }
            | Write::ReleaseLease { id, .. } => (Some((id, Access::Write)), &[]),
            Write::RenewLeases { leases, .. } => (None, leases.as_slice()),
            Write::Transaction { .. } | Write::OpenClient { .. } | Write::KeepAlive { .. } | Write::CloseClient { .. } => {
                (None, &[])
            }
        };
        one.into_iter()
            .chain(leases.iter().map(|(id, _)| (id, Access::Write)))
            .chain(self.operations().iter().map(Operation::session))
    }

    /// The sessions it may change, each once.
    pub fn written(&self) -> impl Iterator<Item = &SessionId> {
        self.sessions().filter(|(_, access)| *access == Access::Write).map(|(id, _)| id)
    }

    /// The changes to contents, of its saves.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        let one = match self {
            Write::Save { change, .. } | Write::SaveIfVersion { change, .. } => Some(change),
            Write::Append { .. }
            | Write::Repack { .. }
            | Write::Touch { .. }
            | Write::Delete { .. }
            | Write::Transaction { .. }
            | Write::AcquireLease { .. }
            | Write::RenewLeases { .. }
            | Write::ReleaseLease { .. }
            | Write::OpenClient { .. }
            | Write::KeepAlive { .. }
            | Write::CloseClient { .. } => None,
        };
        one.into_iter().chain(self.operations().iter().filter_map(Operation::change))
    }

    /// The chunks it brings, and the head if any, of each session to which it brings content, even if that is empty.
    pub fn contents(&self) -> impl Iterator<Item = Content<'_>> {
        let one = match self {
            Write::Save { change, .. } | Write::SaveIfVersion { change, .. } => Some(change.content()),
            Write::Append { addition, .. } => Some(addition.content()),
            Write::Repack { repack, .. } => Some((repack.chunks.as_slice(), None)),
            Write::Touch { .. }
            | Write::Delete { .. }
            | Write::Transaction { .. }
            | Write::AcquireLease { .. }
            | Write::RenewLeases { .. }
            | Write::ReleaseLease { .. }
            | Write::OpenClient { .. }
            | Write::KeepAlive { .. }
            | Write::CloseClient { .. } => None,
        };
        one.into_iter().chain(self.operations().iter().filter_map(Operation::content))
    }

    /// Whether it stores content, even if that is empty.
    pub fn has_content(&self) -> bool {
        self.contents().next().is_some()
    }

    /// The chunks it brings, to all sessions together.
    pub fn chunk_count(&self) -> u64 {
        self.contents().map(|(chunks, _)| chunks.len() as u64).sum()
    }

    /// The blobs it brings: for each session every chunk's, then the head's.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.contents().flat_map(blobs)
    }

    /// Stored bytes it brings.
    pub fn stored_bytes(&self) -> u64 {
        stored_bytes(self.blobs())
    }

    /// The attributes it gives to sessions.
    pub fn attributes(&self) -> impl Iterator<Item = &Attributes> {
        let one = match self {
            Write::Save { attributes, .. } | Write::SaveIfVersion { attributes, .. } | Write::Append { attributes, .. } => {
                Some(attributes)
            }
            Write::Touch { .. }
            | Write::Repack { .. }
            | Write::Transaction { .. }
            | Write::Delete { .. }
            | Write::AcquireLease { .. }
            | Write::RenewLeases { .. }
            | Write::ReleaseLease { .. }
            | Write::OpenClient { .. }
            | Write::KeepAlive { .. }
            | Write::CloseClient { .. } => None,
        };
        one.into_iter().chain(self.operations().iter().filter_map(Operation::attributes))
    }

    /// The changes of deadlines.
    pub fn expiries(&self) -> impl Iterator<Item = Expiry> {
        let touch = if let Write::Touch { expiry, .. } = self { Some(*expiry) } else { None };
        self.attributes().map(|attributes| attributes.expiry).chain(touch)
    }

    /// The fence it carries, of a write to a session.
    pub fn fence(&self) -> Option<Fence> {
        match self {
            Write::Save { fence, .. }
            | Write::SaveIfVersion { fence, .. }
            | Write::Append { fence, .. }
            | Write::Touch { fence, .. }
            | Write::Delete { fence, .. } => *fence,
            Write::Transaction { .. }
            | Write::Repack { .. }
            | Write::AcquireLease { .. }
            | Write::RenewLeases { .. }
            | Write::ReleaseLease { .. }
            | Write::OpenClient { .. }
            | Write::KeepAlive { .. }
            | Write::CloseClient { .. } => None,
        }
    }

    /// Takes back what a save declared of its head, which cluster version 1 does not have and which nothing depends on.
    pub fn undeclare(&mut self) {
        if let Write::Save { attributes, .. } | Write::SaveIfVersion { attributes, .. } = self {
            attributes.form = Form::Unknown;
        }
    }

    /// The first cluster version that has this write with all its fields.
    pub fn cluster_version(&self) -> u16 {
        let verb = match self {
            Write::Save { attributes, .. } => attributes.cluster_version(),
            Write::SaveIfVersion { expected, attributes, .. } => attributes.cluster_version().max(expected.cluster_version()),
            Write::Delete { expected, .. } => expected.map_or(1, Expected::cluster_version),
            Write::Append { .. }
            | Write::Touch { .. }
            | Write::Repack { .. }
            | Write::Transaction { .. }
            | Write::AcquireLease { .. }
            | Write::RenewLeases { .. }
            | Write::ReleaseLease { .. } => 2,
            Write::OpenClient { .. } | Write::KeepAlive { .. } | Write::CloseClient { .. } => 1,
        };
        if self.fence().is_some() { verb.max(2) } else { verb }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read_by_its_position_whether_zeros_follow_it_or_not() {
        let counters = Counters::new(vec![0, 7, 0, 0]).expect("few");
        assert_eq!([0, 1, 2, 3, 15].map(|position| counters.at(position)), [0, 7, 0, 0, 0]);
        assert_eq!(counters, Counters::new(vec![0, 7]).expect("few"));
    }
}
