//! Watches and their frames.

use super::super::v1;
use super::read::{info_from, info_to};
use super::{cluster_id_to, out_of_range, session_id, wrong_length};
use crate::limits::{SESSION_ID_BYTES_MAX, WATCH_FRAME_CHANGES, WATCH_IDS_MAX};
use crate::types::{ClusterId, Position, Refusal, Revision, Selector, SessionChange, Watch, WatchFrame};

/// A validated watch. Errors: `Invalid`, naming the field.
pub fn watch_from(watch: v1::WatchRequest) -> Result<Watch, Refusal> {
    let selector = match watch.selector {
        Some(v1::watch_request::Selector::Prefix(prefix)) if prefix.len() > SESSION_ID_BYTES_MAX => {
            return Err(out_of_range("watch.prefix.bytes", prefix.len(), 0, SESSION_ID_BYTES_MAX));
        }
        Some(v1::watch_request::Selector::Prefix(prefix)) => Selector::Prefix(prefix),
        Some(v1::watch_request::Selector::Ids(v1::WatchIds { ids })) if ids.is_empty() || ids.len() > WATCH_IDS_MAX => {
            return Err(out_of_range("watch.ids", ids.len(), 1, WATCH_IDS_MAX));
        }
        Some(v1::watch_request::Selector::Ids(v1::WatchIds { ids })) => {
            Selector::of_ids(ids.iter().map(|id| session_id("watch.ids", id)).collect::<Result<_, Refusal>>()?)
        }
        None => return Err(Refusal::invalid("a watch names neither a prefix nor ids field=watch.selector")),
    };
    Ok(Watch {
        selector,
        from: watch.from.map(|from| position("watch.from.cluster_id", &from)).transpose()?,
        initial: watch.initial,
        seen: watch.seen.map(|seen| position("watch.seen.cluster_id", &seen)).transpose()?,
    })
}

fn position(field: &str, position: &v1::Position) -> Result<Position, Refusal> {
    Ok(Position { cluster_id: cluster(field, &position.cluster_id)?, revision: Revision(position.revision) })
}

fn cluster(field: &str, id: &[u8]) -> Result<ClusterId, Refusal> {
    ClusterId::from_slice(id).ok_or_else(|| wrong_length(field, id.len()))
}

/// The message of a watch.
pub fn watch_to(watch: &Watch) -> v1::WatchRequest {
    let position =
        |position: &Position| v1::Position { cluster_id: cluster_id_to(Some(position.cluster_id)), revision: position.revision.0 };
    v1::WatchRequest {
        selector: Some(match &watch.selector {
            Selector::Prefix(prefix) => v1::watch_request::Selector::Prefix(prefix.clone()),
            Selector::Ids(ids) => {
                v1::watch_request::Selector::Ids(v1::WatchIds { ids: ids.iter().map(|id| id.as_str().to_owned()).collect() })
            }
        }),
        from: watch.from.as_ref().map(position),
        initial: watch.initial,
        seen: watch.seen.as_ref().map(position),
    }
}

/// A validated frame. Errors: `Invalid`, naming the field.
pub fn watch_frame_from(frame: v1::WatchFrame) -> Result<WatchFrame, Refusal> {
    if frame.changes.len() > WATCH_FRAME_CHANGES {
        return Err(out_of_range("frame.changes", frame.changes.len(), 0, WATCH_FRAME_CHANGES));
    }
    let change = |change: v1::SessionChange| {
        let id = session_id("change.id", &change.id)?;
        Ok(match change.info {
            Some(info) => SessionChange::Saved { id, info: info_from(info)? },
            None => SessionChange::Gone { id },
        })
    };
    Ok(WatchFrame {
        cluster_id: cluster("frame.cluster_id", &frame.cluster_id)?,
        revision: frame.revision.map(Revision),
        changes: frame.changes.into_iter().map(change).collect::<Result<_, Refusal>>()?,
        complete: frame.complete,
        resync: frame.resync,
        walked: frame.walked,
        age_ms: frame.age_ms,
    })
}

/// The message of a frame.
pub fn watch_frame_to(frame: &WatchFrame) -> v1::WatchFrame {
    let change = |change: &SessionChange| match change {
        SessionChange::Saved { id, info } => v1::SessionChange { id: id.as_str().to_owned(), info: Some(info_to(info)) },
        SessionChange::Gone { id } => v1::SessionChange { id: id.as_str().to_owned(), info: None },
    };
    v1::WatchFrame {
        cluster_id: cluster_id_to(Some(frame.cluster_id)),
        revision: frame.revision.map(|revision| revision.0),
        changes: frame.changes.iter().map(change).collect(),
        complete: frame.complete,
        resync: frame.resync,
        walked: frame.walked,
        age_ms: frame.age_ms,
    }
}
