//! Outcomes of the machine.

use super::super::v1;
use super::change::{form_from, form_to};
use super::{counters, in_range, required, unknown_value};
use crate::types::{Appended, ClientId, ContentVersion, Outcome, Refusal, Revision, Saved, TooLarge, Verdict, Version};

/// The message of an outcome.
///
/// Outcomes that only a cluster says to itself (`Swept`, `ClusterVersion`) have no message and leave the verdict empty, which a reader refuses.
pub fn outcome_to(outcome: &Outcome) -> v1::Outcome {
    v1::Outcome { revision: outcome.revision.0, verdict: verdict_to(&outcome.verdict) }
}

fn verdict_to(verdict: &Verdict) -> Option<v1::outcome::Verdict> {
    use v1::outcome::Verdict as Message;
    const EMPTY: v1::Empty = v1::Empty {};
    Some(match verdict {
        Verdict::Appended(Appended { content, chunks, counters }) => Message::Appended(v1::outcome::Appended {
            version: content.version.0,
            create_revision: content.create_revision.0,
            items: content.items,
            next_chunk: content.next_chunk,
            chunks: *chunks,
            counters: counters.as_slice().to_vec(),
        }),
        Verdict::WrongForm { form } => Message::WrongForm(form_to(*form)),
        Verdict::Saved(Saved { content, rebased }) => Message::Saved(v1::outcome::Saved {
            version: content.version.0,
            create_revision: content.create_revision.0,
            items: content.items,
            next_chunk: content.next_chunk,
            rebased: *rebased,
        }),
        Verdict::Touched { deadline_ms } => Message::Touched(v1::outcome::Touched { deadline_ms: *deadline_ms }),
        Verdict::Conflict { actual, tombstone } => {
            Message::Conflict(v1::outcome::Conflict { actual: actual.0, tombstone: tombstone.0 })
        }
        Verdict::BaseMismatch => Message::BaseMismatch(EMPTY),
        Verdict::TooLarge(too_large) => Message::TooLarge(too_large_to(*too_large)),
        Verdict::TooManySessions => Message::TooManySessions(EMPTY),
        Verdict::Deleted { version } => Message::Deleted(version.0),
        Verdict::NotFound { tombstone } => Message::NotFound(tombstone.0),
        Verdict::ClientOpened { client } => Message::ClientOpened(client.0),
        Verdict::ClientKept => Message::ClientKept(EMPTY),
        Verdict::ClientClosed => Message::ClientClosed(EMPTY),
        Verdict::TooManyClients => Message::TooManyClients(EMPTY),
        Verdict::ClientUnknown => Message::ClientUnknown(EMPTY),
        Verdict::Stale => Message::Stale(EMPTY),
        Verdict::WindowExceeded => Message::WindowExceeded(EMPTY),
        Verdict::Busy => Message::Busy(EMPTY),
        Verdict::Swept(_) | Verdict::ClusterVersion { .. } => return None,
    })
}

/// A validated outcome. Errors: `Invalid`, naming the field.
pub fn outcome_from(outcome: v1::Outcome) -> Result<Outcome, Refusal> {
    use v1::outcome::Verdict as Message;
    let verdict = match required("outcome.verdict", outcome.verdict)? {
        Message::Saved(v1::outcome::Saved { version, create_revision, items, next_chunk, rebased }) => {
            let version = Version(in_range("saved.version", version, 1, u64::MAX)?);
            let create_revision = Revision(create_revision);
            Verdict::Saved(Saved { content: ContentVersion { version, create_revision, items, next_chunk }, rebased })
        }
        Message::Appended(v1::outcome::Appended { version, create_revision, items, next_chunk, chunks, counters: now }) => {
            let version = Version(in_range("appended.version", version, 1, u64::MAX)?);
            let create_revision = Revision(create_revision);
            let content = ContentVersion { version, create_revision, items, next_chunk };
            Verdict::Appended(Appended { content, chunks, counters: counters(now)? })
        }
        Message::WrongForm(form) => Verdict::WrongForm { form: form_from(form)? },
        Message::Touched(touched) => Verdict::Touched { deadline_ms: touched.deadline_ms },
        Message::Conflict(conflict) => {
            Verdict::Conflict { actual: Version(conflict.actual), tombstone: Version(conflict.tombstone) }
        }
        Message::BaseMismatch(_) => Verdict::BaseMismatch,
        Message::TooLarge(too_large) => Verdict::TooLarge(too_large_from(too_large)?),
        Message::TooManySessions(_) => Verdict::TooManySessions,
        Message::Deleted(version) => Verdict::Deleted { version: Version(in_range("deleted", version, 1, u64::MAX)?) },
        Message::NotFound(tombstone) => Verdict::NotFound { tombstone: Version(tombstone) },
        Message::ClientOpened(client) => Verdict::ClientOpened { client: ClientId(client) },
        Message::ClientKept(_) => Verdict::ClientKept,
        Message::ClientClosed(_) => Verdict::ClientClosed,
        Message::TooManyClients(_) => Verdict::TooManyClients,
        Message::ClientUnknown(_) => Verdict::ClientUnknown,
        Message::Stale(_) => Verdict::Stale,
        Message::WindowExceeded(_) => Verdict::WindowExceeded,
        Message::Busy(_) => Verdict::Busy,
    };
    Ok(Outcome { revision: Revision(outcome.revision), verdict })
}

fn too_large_to(too_large: TooLarge) -> v1::TooLarge {
    use v1::too_large::What;
    let what = match too_large {
        TooLarge::StoredBytes { .. } => What::StoredBytes,
        TooLarge::RawBytes { .. } => What::RawBytes,
        TooLarge::Items { .. } => What::Items,
        TooLarge::Chunks { .. } => What::Chunks,
        TooLarge::Write { .. } => What::Write,
    };
    let (_, now, limit) = too_large.parts();
    v1::TooLarge { what: what.into(), now, limit }
}

fn too_large_from(message: v1::TooLarge) -> Result<TooLarge, Refusal> {
    use v1::too_large::What;
    let v1::TooLarge { what, now, limit } = message;
    match What::try_from(what) {
        Ok(What::StoredBytes) => Ok(TooLarge::StoredBytes { now, limit }),
        Ok(What::RawBytes) => Ok(TooLarge::RawBytes { now, limit }),
        Ok(What::Items) => Ok(TooLarge::Items { now, limit }),
        Ok(What::Chunks) => Ok(TooLarge::Chunks { now, limit }),
        Ok(What::Write) => Ok(TooLarge::Write { now, limit }),
        Ok(What::Unspecified) | Err(_) => Err(unknown_value("too_large.what", what)),
    }
}
