//! Stored content, and the arguments and results of calls.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::cache::pack;
use crate::types::{
    Attributes, ClusterId, Consistency, ContentVersion, Counters, Expiry, Label, Part, Require, Revision, SessionInfo, Version,
};

/// The content of a session.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// Any bytes.
    Value(Bytes),
    /// An agent's conversation. The cluster never looks inside; this client does not check that it is JSON.
    Transcript {
        /// The messages, JSON each, oldest first.
        messages: Vec<Bytes>,
        /// The rest of the state, JSON.
        head: Bytes,
        /// Additive counters, for Bob: prompt and completion tokens.
        counters: Counters,
    },
}

impl Content {
    /// The items, the head as it is stored, unpacked, and the counters.
    pub(super) fn into_parts(self) -> (Vec<Bytes>, Bytes, Counters) {
        match self {
            Content::Value(bytes) => (Vec::new(), pack::tagged(false, &bytes), Counters::default()),
            Content::Transcript { messages, head, counters } => (messages, pack::tagged(true, &head), counters),
        }
    }

    /// Content out of a head as it is stored, unpacked, and the items; a plain value has none.
    pub(super) fn from_parts(head: &Bytes, messages: Vec<Bytes>, counters: &Counters) -> Self {
        let (is_transcript, head) = pack::untagged(head);
        match is_transcript {
            true => Self::Transcript { messages, head, counters: counters.clone() },
            false => Self::Value(head),
        }
    }
}

/// Content is what users entrusted to us: only its size is printed.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Value(bytes) => write!(f, "Value({} bytes)", bytes.len()),
            Content::Transcript { messages, .. } => write!(f, "Transcript({} messages)", messages.len()),
        }
    }
}

/// A loaded session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// Version, sizes, times.
    pub info: SessionInfo,
    /// The last entry applied to what was read.
    pub revision: Revision,
    /// The content.
    pub content: Content,
}

impl Session {
    /// A session with this content and nothing else said, as tests of code that reads sessions need it.
    pub fn new(content: Content) -> Self {
        Self { info: SessionInfo::default(), revision: Revision::default(), content }
    }
}

/// A part of a session. Only the items of the part are in it; where it was in the session is beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionPart {
    /// Version, sizes, times: of the whole session.
    pub info: SessionInfo,
    /// The last entry applied to what was read.
    pub revision: Revision,
    /// The number of the part's first message, counted from 0, the oldest; `info.items` if it has none.
    pub first_item: u64,
    /// The content; `None` of [`Part::Info`](super::Part). A transcript has the messages of the part, perhaps none, and its head; a plain
    /// value has no items, so that every part with a head is the whole value.
    pub content: Option<Content>,
    pub(super) seen: Option<SeenContent>,
}

impl SessionPart {
    /// The name of the content this is a part of, to ask later whether it is still stored; `None`: a node that names no cluster gave it.
    pub fn seen(&self) -> Option<SeenContent> {
        self.seen
    }
}

/// The content that a part was of, to ask by whether it is still stored. It names one content for ever, also beside other clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenContent {
    pub(super) cluster: ClusterId,
    pub(super) content: ContentVersion,
}

/// How to load a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartOptions {
    /// The guarantee asked for; linearizable by default.
    pub consistency: Consistency,
    /// The content that the caller has a part of already: if that is still stored, the answer says so and brings nothing.
    pub have: Option<SeenContent>,
}

/// One session of a load of several: which part of it, and what the caller has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartOf {
    /// The session.
    pub id: String,
    /// The part.
    pub part: Part,
    /// As [`PartOptions::have`].
    pub have: Option<SeenContent>,
}

impl PartOf {
    /// That part, for a caller who has nothing.
    pub fn new(id: impl Into<String>, part: Part) -> Self {
        Self { id: id.into(), part, have: None }
    }
}

/// A read part of a session, or why there is none, with where in the order of writes that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartRead {
    /// The last entry applied to what was read.
    pub revision: Revision,
    /// If there is no session: the version its tombstone counts from; 0 without one.
    pub tombstone: Version,
    /// Of a stale read: everything acknowledged so long before it is in it; `None`: that is unknown.
    pub age: Option<Duration>,
    /// The session has the very content that the caller has; `part` is `None` for that.
    pub not_modified: bool,
    /// The part, if there is a session and it has another content than the caller.
    pub part: Option<SessionPart>,
}

/// A read session, or that there is none, with where in the order of writes that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Read {
    /// The last entry applied to what was read.
    pub revision: Revision,
    /// If there is no session: the version its tombstone counts from; 0 without one.
    pub tombstone: Version,
    /// Of a stale read: everything acknowledged so long before it is in it; `None`: that is unknown.
    pub age: Option<Duration>,
    /// The session, if there is one.
    pub session: Option<Session>,
}

/// A write that happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The session's version now; the tombstone's, of a delete.
    pub version: Version,
    /// Where the session was created; 0 for a delete.
    pub create_revision: Revision,
    /// The write's own place in the order of all writes.
    pub revision: Revision,
}

/// How to load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The guarantee asked for; linearizable by default.
    pub consistency: Consistency,
}

/// How to copy a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Only so many items, the oldest, at most 100 000; `None`, or fewer than that in the session: all. A plain value is copied whole.
    pub first_items: Option<u64>,
    /// Whether the counters go on from where they are; they begin at 0 otherwise.
    pub with_counters: bool,
    /// When the copy is to expire; never, by default.
    pub expiry: Expiry,
}

/// How to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// When the session is to expire; as it was, by default.
    pub expiry: Expiry,
    /// How long a tombstone is to go on counting the versions of the session when it has ended, at most 7 days; as it was, by default.
    /// See [`crate::docs::verbs`], "Time of a tombstone", for what a short one costs. It needs cluster version 2.
    #[doc(hidden)]
    pub tombstone_ttl: Option<Duration>,
    /// The label, which metadata, listings and watches show; the empty one takes it away; as it was, by default. It needs cluster version 2.
    #[doc(hidden)]
    pub label: Option<Label>,
}

impl WriteOptions {
    pub(super) fn attributes(self) -> Attributes {
        let Self { expiry, tombstone_ttl, label } = self;
        Attributes { expiry, tombstone_ttl, label, ..Attributes::default() }
    }
}

/// How to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendOptions {
    /// The state of the session that is required; any, by default, and one that is absent is created.
    pub require: Require,
    /// The head, JSON, of a session that the append creates; `{}` if it is empty. That of one that exists is never touched.
    pub head_if_created: Bytes,
    /// The increments of the counters.
    pub counters: Counters,
    /// When the session is to expire; as it was, by default.
    pub expiry: Expiry,
    /// As of [`WriteOptions`](crate::client::WriteOptions).
    pub tombstone_ttl: Option<Duration>,
    /// As of [`WriteOptions`](crate::client::WriteOptions).
    pub label: Option<Label>,
}

/// An append that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The session's version now.
    pub version: Version,
    /// Where the session was created.
    pub create_revision: Revision,
    /// The append's own place in the order of all writes.
    pub revision: Revision,
    /// The position of the first new item, counted from 0.
    pub first_item: u64,
    /// Items of the session now; the new ones are the last.
    pub items: u64,
    /// The counters now.
    pub counters: Counters,
}

/// A session that was touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Touched {
    /// The touch's own place in the order of all writes; the session's `mod_revision` stays.
    pub revision: Revision,
    /// When the session expires now, by the cluster's time in milliseconds since the Unix epoch; `None`: never.
    pub deadline_ms: Option<u64>,
}
