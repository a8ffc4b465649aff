//! The arguments and results of reads.

use std::fmt;

use super::{Base, Blob, Chunk, Counters, Expected, Label, Lease, Part, Require, Revision, SessionId, Version};
use crate::limits::LOAD_MANY_IDS_MAX;

/// Which guarantee a read has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// By read index: sees every write acknowledged before it began.
    #[default]
    Linearizable,
    /// From whatever the asked node has applied; never waits for a quorum.
    Stale,
}

/// The name of one content of a session, for ever: of a stored one, or of the one that a reader has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentVersion {
    /// The session's version with this content.
    pub version: Version,
    /// The log index that created the session.
    pub create_revision: Revision,
    /// Items it holds.
    pub items: u64,
    /// The number its next chunk will get.
    pub next_chunk: u64,
}

impl ContentVersion {
    /// The base of a delta that is made against this content.
    pub fn base(self) -> Base {
        let Self { version, create_revision, items, next_chunk: _ } = self;
        Base::At { create_revision, version, items }
    }

    /// The expectation of a conditional write that replaces this content.
    pub fn expected(self) -> Expected {
        Expected::At { version: self.version, create_revision: Some(self.create_revision) }
    }

    /// The requirement of an append that refers to this content: the same session still has it.
    pub fn still_there(self) -> Require {
        Require::AppendedOnly { create_revision: self.create_revision, since: self.version }
    }
}

/// A read of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The session.
    pub id: SessionId,
    /// The content that the reader has, to get only what is new.
    pub have: Option<ContentVersion>,
    /// The part of it asked for. Of any but the whole, what the reader has only spares it an answer that says the same.
    pub part: Part,
    /// The guarantee asked for.
    pub consistency: Consistency,
}

impl Load {
    /// All of a session as it is now, for a reader who has nothing of it.
    pub fn whole(id: SessionId) -> Self {
        Self { id, have: None, part: Part::Whole, consistency: Consistency::Linearizable }
    }
}

/// Loads of several sessions, all of one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadMany {
    /// 1 to [`LOAD_MANY_IDS_MAX`], all with one consistency.
    loads: Vec<Load>,
}

impl LoadMany {
    /// Of each session what the reader has and the part asked for. Error: they are none, or too many.
    pub fn new(
        loads: impl IntoIterator<Item = (SessionId, Option<ContentVersion>, Part)>,
        consistency: Consistency,
    ) -> Result<Self, String> {
        let load = |(id, have, part)| Load { id, have, part, consistency };
        // No more are kept than it takes to see that they are too many.
        let loads: Vec<Load> = loads.into_iter().take(LOAD_MANY_IDS_MAX + 1).map(load).collect();
        match loads.len() {
            1..=LOAD_MANY_IDS_MAX => Ok(Self { loads }),
            0 => Err("no session is named field=loads value=0 min=1".into()),
            _ => Err(format!("too many sessions to load together field=loads max={LOAD_MANY_IDS_MAX}")),
        }
    }

    /// The loads, at least one.
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// Of all of them.
    pub fn consistency(&self) -> Consistency {
        self.loads.first().map_or(Consistency::default(), |load| load.consistency)
    }

    /// Asks as a reader who has nothing.
    pub fn forget(&mut self) {
        self.loads.iter_mut().for_each(|load| load.have = None);
    }
}

/// The order of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// By id.
    #[default]
    Ids,
    /// The session that was written last comes first. Reaches back 65 536 changes (and 16 MiB of ids), and the page says where that ends.
    Recent {
        /// Together with [`List::after`]: the page starts after the session of that id that was written at this revision. `None` for the
        /// first page.
        after: Option<Revision>,
    },
    /// Of leases instead of sessions: those that live, by id, whether their sessions exist or not. The page has [`ListPage::leases`] and no
    /// sessions.
    Leases,
}

/// A listing of one page.
#[derive(Clone, PartialEq, Eq)]
pub struct List {
    /// Only ids that start with this; empty for all.
    pub prefix: String,
    /// The page starts after this id; `None` for the first page.
    pub after: Option<SessionId>,
    /// Most sessions on the page, 1 to [`crate::limits::LIST_PAGE_MAX`].
    pub limit: u32,
    /// The guarantee asked for.
    pub consistency: Consistency,
    /// The order.
    pub order: Order,
}

/// The beginning of an id is not shown, as an id is not.
impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, after, limit, consistency, order } = self;
        let prefix = prefix.len();
        write!(
            f,
            "List {{ prefix_bytes: {prefix}, after: {after:?}, limit: {limit}, consistency: {consistency:?}, order: {order:?} }}"
        )
    }
}

impl Default for List {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            after: None,
            limit: crate::limits::LIST_PAGE_MAX,
            consistency: Consistency::default(),
            order: Order::Ids,
        }
    }
}

/// A session's metadata, without its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// The log index that created it.
    pub create_revision: Revision,
    /// Its version.
    pub version: Version,
    /// The log index of the last write.
    pub mod_revision: Revision,
    /// Items it holds.
    pub items: u64,
    /// The number of its first chunk behind those that a repack made: a reader whose content ends before it has all of it sent. Since cluster
    /// version 2; 0 from an earlier release.
    pub first_chunk: u64,
    /// The number its next chunk will get.
    pub next_chunk: u64,
    /// Chunks it holds. Since cluster version 2; 0 from an earlier release.
    pub chunks: u64,
    /// Bytes of content after unpacking.
    pub raw_bytes: u64,
    /// Bytes of content as stored.
    pub stored_bytes: u64,
    /// The counters.
    pub counters: Counters,
    /// Machine time of its creation, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Machine time of the last write, in milliseconds.
    pub updated_ms: u64,
    /// Machine time it expires at, in milliseconds.
    pub deadline_ms: Option<u64>,
    /// Milliseconds that each write which stored something gives it to live; `None`: its deadline moves only where a write says so. Since
    /// cluster version 2.
    pub idle_ttl_ms: Option<u64>,
    /// Milliseconds that its tombstone stands; `None`: [`crate::limits::TOMBSTONE_TTL_MAX`]. Since cluster version 2.
    pub tombstone_ttl_ms: Option<u64>,
    /// Its label; empty: none. Since cluster version 2.
    pub label: Label,
    /// The lease of the turn that writes it; `None`: none lives, or it was not asked for, as in frames of a watch. Since cluster version 2.
    pub lease: Option<Lease>,
    /// Milliseconds until its deadline, when it was read; `None`: it never expires, or the node that answered does not say.
    pub remaining_ms: Option<u64>,
}

impl SessionInfo {
    /// The name of its content.
    pub fn content_version(&self) -> ContentVersion {
        let Self { version, create_revision, items, next_chunk, .. } = *self;
        ContentVersion { version, create_revision, items, next_chunk }
    }
}

/// Content of a session, or what is new of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedContent {
    /// The session.
    pub info: SessionInfo,
    /// Its chunks, from the first asked for.
    pub chunks: Vec<Chunk>,
    /// The head; absent in a tail whose reader has it already.
    pub head: Option<Blob>,
}

/// The answer to a [`Load`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// There is no such session.
    NotFound {
        /// The tombstone's version; 0 without one.
        tombstone: Version,
    },
    /// The reader has this very content.
    NotModified,
    /// The reader's items are a prefix: only what is new.
    Tail(LoadedContent),
    /// Everything.
    Full(LoadedContent),
    /// The part that was asked for, in whole chunks: perhaps with items before and behind it.
    Suffix {
        /// The number of the chunks' first item; without chunks, of the first one asked for.
        first_item: u64,
        /// The metadata, and of the content what belongs to the part.
        content: LoadedContent,
    },
}

impl SessionInfo {
    /// Says what is left to live at this time.
    #[doc(hidden)]
    pub fn set_remaining(&mut self, now_ms: u64) {
        self.remaining_ms = self.deadline_ms.map(|deadline_ms| deadline_ms.saturating_sub(now_ms));
    }
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The session.
    pub id: SessionId,
    /// Its metadata.
    pub info: SessionInfo,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListPage {
    /// The last entry applied to what this page saw. Pages of one listing each have their own.
    pub revision: Revision,
    /// The sessions, at most [`crate::limits::LIST_PAGE_MAX`].
    pub sessions: Vec<Listed>,
    /// Whether more follow: ask again after the last id.
    pub more: bool,
    /// Of a stale listing: everything acknowledged so many milliseconds before it is in it; `None`: that is unknown.
    pub age_ms: Option<u64>,
    /// Of a listing of [`Order::Recent`]: every session of the prefix that was written after this revision is on its pages, and none that
    /// was not.
    pub since: Option<Revision>,
    /// Machine time of the view that the page is of, in milliseconds since the Unix epoch: what `updated_ms` of its sessions is measured by. It
    /// stands still while nobody writes. `None`: the node's release does not say.
    pub machine_time_ms: Option<u64>,
    /// Of a listing of [`Order::Leases`]: sessions, and the leases that live, at most [`crate::limits::LIST_PAGE_MAX`].
    pub leases: Vec<(SessionId, Lease)>,
}
