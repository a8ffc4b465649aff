//! Reads of the machine: pure decisions at machine time. Content rows are fetched by the caller, from the same view.

use std::ops::{Bound, Range};

use super::Machine;
use super::places::Places;
use super::session::Session;
use super::walk::Walk;
use super::write::Found;
use crate::limits::LIST_PAGE_MAX;
use crate::mutant::{self, Mutant};
use crate::types::{ContentVersion, Lease, Listed, Load, Part, SessionId, SessionInfo, Version};

/// Expired records a listing passes over at most, once it has found something.
const LIST_EXPIRED_MAX: usize = 65_536;

/// The answer to a load, and the rows it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// There is no such session at machine time.
    NotFound {
        /// The tombstone's version; 0 without one.
        tombstone: Version,
    },
    /// The reader has this very content.
    NotModified,
    /// Rows to read.
    Read {
        /// The session's metadata.
        info: SessionInfo,
        /// Whether the reader's items are a prefix, and only what is new is read.
        tail: bool,
        /// Where its chunks lie.
        places: Places,
        /// The positions of those to read, half-open.
        chunks: Range<u64>,
        /// Whether to read the head.
        head: bool,
    },
    /// Rows to read of the part that was asked for.
    Part {
        /// The session's metadata.
        info: SessionInfo,
        /// The way to its chunks.
        walk: Walk,
        /// Whether to read the head.
        head: bool,
    },
}

impl Plan {
    /// The rows of content that may have to be read, at most.
    pub fn rows(&self) -> u64 {
        let (chunks, head) = match self {
            Plan::NotFound { .. } | Plan::NotModified => return 0,
            Plan::Read { chunks, head, .. } => (chunks.clone(), *head),
            Plan::Part { walk, head, .. } => (walk.chunks(), *head),
        };
        chunks.end.saturating_sub(chunks.start) + u64::from(head)
    }

    /// The stored bytes of the answer as far as metadata tells: those of a whole session. Of a tail or a part they are known once it is read.
    pub fn stored_bytes(&self) -> u64 {
        match self {
            Plan::Read { info, tail: false, .. } => info.stored_bytes,
            _ => 0,
        }
    }
}

impl Machine {
    /// Decides a load at machine time.
    pub fn plan(&self, load: &Load) -> Plan {
        let session = match self.find(&load.id) {
            Found::Absent { tombstone } => return Plan::NotFound { tombstone },
            Found::Live(session) => session,
        };
        let same = load.have.filter(|have| have.create_revision == session.create_revision);
        match same {
            Some(have) if have.version == session.version => Plan::NotModified,
            _ if load.part != Part::Whole => Plan::Part {
                info: self.info_of(&load.id, session),
                walk: Walk::new(session, load.part),
                head: load.part.has_head(),
            },
            Some(have) if is_prefix(session, &have) => Plan::Read {
                info: self.info_of(&load.id, session),
                tail: true,
                places: session.places(),
                chunks: session.places().of_number(have.next_chunk)..session.chunk_count(),
                head: session.head_since > have.version,
            },
            _ => Plan::Read {
                info: self.info_of(&load.id, session),
                tail: false,
                places: session.places(),
                chunks: session.places().all(),
                head: true,
            },
        }
    }

    /// About how many stored bytes the answer to a load has: of a part, its share of the items; for a reader who knows a version, none.
    pub fn expected_bytes(&self, load: &Load) -> u64 {
        let Some(session) = self.tables.sessions.get(&load.id).filter(|_| load.have.is_none()) else { return 0 };
        let session = &session.value;
        let items = load.part.items(session.items);
        match load.part {
            Part::Whole => session.stored_bytes,
            // Below 2^24 bytes and 2^17 items, by the bounds of a session.
            _ => session.stored_bytes.saturating_mul(items.end - items.start) / session.items.max(1),
        }
    }

    pub(super) fn info_of(&self, id: &SessionId, session: &Session) -> SessionInfo {
        SessionInfo { lease: self.lease(id).cloned(), ..session.info() }
    }

    /// The leases that live at machine time, of sessions whose ids begin so, in order of ids, beyond `after`; at most `limit`. Gives whether
    /// more follow.
    pub fn leases(&self, prefix: &str, after: Option<&str>, limit: u32) -> (Vec<(SessionId, Lease)>, bool) {
        let start = start_after(prefix, after);
        let limit = limit.clamp(1, LIST_PAGE_MAX) as usize;
        let all = self.tables.leases.range::<str, _>((start, Bound::Unbounded)).map(|(id, kept)| (id, &kept.value));
        let mut living = all.take_while(|(id, _)| id.as_str().starts_with(prefix)).filter(|(_, lease)| self.lives(lease));
        let page = living.by_ref().take(limit).map(|(id, lease)| (id.clone(), lease.clone())).collect();
        (page, living.next().is_some())
    }

    /// The metadata of a session that exists at machine time.
    pub fn info(&self, id: &SessionId) -> Option<SessionInfo> {
        match self.find(id) {
            Found::Live(session) => Some(self.info_of(id, session)),
            Found::Absent { .. } => None,
        }
    }

    /// Sessions whose id begins with `prefix`, after the id `after`, in order of ids, at most `limit` (1 to [`LIST_PAGE_MAX`]);
    /// and whether more may follow.
    ///
    /// Expired sessions are skipped. A page that found something ends after 65 536 of them; an empty page comes only at the end,
    /// so a caller that continues after the last id gets through.
    pub fn list(&self, prefix: &str, after: Option<&str>, limit: u32) -> (Vec<Listed>, bool) {
        let start = start_after(prefix, after);
        let limit = limit.clamp(1, LIST_PAGE_MAX) as usize;
        let (mut page, mut passed) = (Vec::new(), 0);
        for (id, session) in self.tables.sessions.range::<str, _>((start, Bound::Unbounded)) {
            if !id.as_str().starts_with(prefix) {
                break;
            }
            if session.value.is_expired(self.now_ms) {
                passed += 1;
                if passed > LIST_EXPIRED_MAX && !page.is_empty() {
                    return (page, true);
                }
                continue;
            }
            if page.len() == limit {
                if mutant::is(Mutant::ListSkips) {
                    page.pop();
                    page.push(Listed { id: id.clone(), info: self.info_of(id, &session.value) });
                }
                return (page, true);
            }
            page.push(Listed { id: id.clone(), info: self.info_of(id, &session.value) });
        }
        (page, false)
    }
}

/// Where ids that begin so start, beyond `after`.
pub(super) fn start_after<'t>(prefix: &'t str, after: Option<&'t str>) -> Bound<&'t str> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}

/// Whether what the reader has is an earlier state whose items are a prefix of today's, and ends at a chunk's end. It may end with a chunk
/// that a repack has replaced: then only where the new ones end (L49).
fn is_prefix(session: &Session, have: &ContentVersion) -> bool {
    let is_earlier = have.version >= session.append_only_since && have.version < session.version && have.items <= session.items;
    let is_below = have.next_chunk < session.first_chunk && mutant::is(Mutant::TailBelowFirstChunk);
    is_earlier && (is_below || (session.first_chunk..=session.next_chunk).contains(&have.next_chunk))
}
