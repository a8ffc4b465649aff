//! Changes of sessions, as a watch shows them: never their content.

use std::fmt;

use super::{ClusterId, Revision, SessionId, SessionInfo};

/// The sessions that a watch is about.
#[derive(Clone, PartialEq, Eq)]
pub enum Selector {
    /// Those whose ids begin so; empty for all. Needs the scope `list`.
    Prefix(String),
    /// These, at most [`crate::limits::WATCH_IDS_MAX`]. Needs the scope `read`.
    Ids(Vec<SessionId>),
}

/// The beginning of an id is not shown, as an id is not.
impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => write!(f, "Prefix {{ bytes: {} }}", prefix.len()),
            Self::Ids(ids) => write!(f, "Ids({ids:?})"),
        }
    }
}

impl Selector {
    /// Each of these once, in order.
    pub fn of_ids(mut ids: Vec<SessionId>) -> Self {
        ids.sort();
        ids.dedup();
        Self::Ids(ids)
    }

    /// Whether it is about this session. Ids must be in order, as [`Selector::of_ids`] puts them.
    pub fn matches(&self, id: &SessionId) -> bool {
        match self {
            Self::Prefix(prefix) => id.as_str().starts_with(prefix),
            Self::Ids(ids) => ids.binary_search(id).is_ok(),
        }
    }
}

/// A place in the order of one cluster's writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The last revision.
    pub revision: Revision,
}

/// A request to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The sessions.
    pub selector: Selector,
    /// Where to continue; `None`: with what changes from now on, after the whole state if `initial`.
    pub from: Option<Position>,
    /// Whether the whole state comes first.
    pub initial: bool,
    /// The largest revision that the client has seen.
    pub seen: Option<Position>,
}

/// One frame of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatchFrame {
    /// The cluster that answered.
    pub cluster_id: ClusterId,
    /// The revision up to which all is shown: every matching session whose newest state is at or before it. `None` within a walk of ids:
    /// from there nothing can be resumed.
    pub revision: Option<Revision>,
    /// The changes, each id once, at most [`crate::limits::WATCH_FRAME_CHANGES`].
    pub changes: Vec<SessionChange>,
    /// Whether nothing was newer when it was made: all that was shown is the whole, in a state at least as new as `revision`.
    pub complete: bool,
    /// Whether the whole state follows, up to the frame that is `walked`; what was not in it is gone.
    pub resync: bool,
    /// Whether a walk of ids ends with it.
    pub walked: bool,
    /// Everything acknowledged so many milliseconds before is in what the node has applied; `None`: that is unknown.
    pub age_ms: Option<u64>,
}

/// The newest state of a session, as a watch shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// The session is there in this state. Another [`create_revision`](SessionInfo::create_revision) than before: the session before it is gone.
    Saved {
        /// The session.
        id: SessionId,
        /// Its metadata.
        info: SessionInfo,
    },
    /// The session was deleted, or expired and was swept.
    Gone {
        /// The session.
        id: SessionId,
    },
}

impl SessionChange {
    /// The session.
    pub fn id(&self) -> &SessionId {
        match self {
            Self::Saved { id, .. } | Self::Gone { id } => id,
        }
    }

    /// Bytes it takes in a frame, at most.
    pub fn bytes(&self) -> u64 {
        /// Numbers of a session's metadata, with their tags.
        const INFO: u64 = 16 * 11;
        let id = self.id().as_str().len() as u64 + 16;
        match self {
            Self::Saved { info, .. } => id + INFO + info.counters.as_slice().len() as u64 * 10 + info.label.as_str().len() as u64,
            Self::Gone { .. } => id,
        }
    }
}
