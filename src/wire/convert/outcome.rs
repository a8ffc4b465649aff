//! Outcomes of the machine.

use super::super::v1;
use super::change::{form_from, form_to};
use super::{counters, fence_from, holder_from, in_range, required, unknown_value};
use crate::limits::{LEASES_RENEWED_MAX, TRANSACTION_OPERATIONS_MAX};
use crate::types::{
    Aborted, Appended, ClientId, ContentVersion, Holder, Lost, Outcome, Refusal, Revision, Saved, TooLarge, Transacted, Verdict,
    Version,
};

/// The message of an outcome.
///
/// Outcomes that only a cluster says to itself (`Swept`, `ClusterVersion`) have no message and leave the verdict empty, which a reader refuses.
pub fn outcome_to(outcome: &Outcome) -> v1::Outcome {
    v1::Outcome { revision: outcome.revision.0, verdict: verdict_to(&outcome.verdict) }
}

/// A verdict within another, without a revision.
fn within_to(verdict: &Verdict) -> v1::Outcome {
    v1::Outcome { revision: 0, verdict: verdict_to(verdict) }
}

/// The verdict on an operation that is done, or not.
fn within_from(field: &str, is_done: bool, outcome: Option<v1::Outcome>) -> Result<Verdict, Refusal> {
    let verdict = outcome_from(required(field, outcome)?)?.verdict;
    match verdict.of_operation() {
        Some(done) if done == is_done => Ok(verdict),
        _ => Err(Refusal::invalid(format!("the verdict is given on no operation field={field}"))),
    }
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
        Verdict::LeaseGranted { fence, deadline_ms } => {
            Message::LeaseGranted(v1::outcome::LeaseGranted { fence: fence.0, deadline_ms: *deadline_ms })
        }
        Verdict::LeaseHeld { holder, deadline_ms } => Message::LeaseHeld(held_to(holder, *deadline_ms)),
        Verdict::LeasesRenewed { deadline_ms, lost } => Message::LeasesRenewed(v1::outcome::LeasesRenewed {
            deadline_ms: *deadline_ms,
            lost: lost.positions().map(|position| position as u32).collect(),
        }),
        Verdict::LeaseReleased => Message::LeaseReleased(EMPTY),
        Verdict::LeaseLost => Message::LeaseLost(EMPTY),
        Verdict::TooManyLeases => Message::TooManyLeases(EMPTY),
        Verdict::Leased { holder, deadline_ms } => Message::Leased(held_to(holder, *deadline_ms)),
        Verdict::Fenced { current } => Message::Fenced(v1::outcome::Fenced { current: current.map(|fence| fence.0) }),
        Verdict::Conflict { actual, tombstone } => {
            Message::Conflict(v1::outcome::Conflict { actual: actual.0, tombstone: tombstone.0 })
        }
        Verdict::Transacted(Transacted { results }) => {
            Message::Transacted(v1::outcome::Transacted { results: results.iter().map(within_to).collect() })
        }
        Verdict::Aborted(Aborted { index, verdict }) => {
            Message::Aborted(Box::new(v1::outcome::Aborted { index: *index, outcome: Some(Box::new(within_to(verdict))) }))
        }
        Verdict::BaseMismatchAt { index } => Message::BaseMismatchAt(*index),
        Verdict::Met => Message::Met(EMPTY),
        Verdict::Repacked { first_chunk, chunks } => {
            Message::Repacked(v1::outcome::Repacked { first_chunk: *first_chunk, chunks: *chunks })
        }
        Verdict::NotRepacked => Message::NotRepacked(EMPTY),
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
        Message::Repacked(v1::outcome::Repacked { first_chunk, chunks }) => Verdict::Repacked { first_chunk, chunks },
        Message::NotRepacked(_) => Verdict::NotRepacked,
        Message::WrongForm(form) => Verdict::WrongForm { form: form_from(form)? },
        Message::Touched(touched) => Verdict::Touched { deadline_ms: touched.deadline_ms },
        Message::LeaseGranted(v1::outcome::LeaseGranted { fence, deadline_ms }) => {
            Verdict::LeaseGranted { fence: fence_from("lease_granted.fence", fence)?, deadline_ms }
        }
        Message::LeaseHeld(held) => {
            Verdict::LeaseHeld { holder: holder_from("lease_held.holder", &held.holder)?, deadline_ms: held.deadline_ms }
        }
        Message::LeasesRenewed(v1::outcome::LeasesRenewed { deadline_ms, lost }) => {
            let lost = lost.into_iter().map(|position| {
                in_range("leases_renewed.lost", position.into(), 0, LEASES_RENEWED_MAX as u64 - 1).map(|position| position as usize)
            });
            Verdict::LeasesRenewed { deadline_ms, lost: Lost::at(lost.collect::<Result<Vec<_>, Refusal>>()?) }
        }
        Message::LeaseReleased(_) => Verdict::LeaseReleased,
        Message::LeaseLost(_) => Verdict::LeaseLost,
        Message::TooManyLeases(_) => Verdict::TooManyLeases,
        Message::Leased(held) => {
            Verdict::Leased { holder: holder_from("leased.holder", &held.holder)?, deadline_ms: held.deadline_ms }
        }
        Message::Fenced(v1::outcome::Fenced { current }) => {
            Verdict::Fenced { current: current.map(|fence| fence_from("fenced.current", fence)).transpose()? }
        }
        Message::Conflict(conflict) => {
            Verdict::Conflict { actual: Version(conflict.actual), tombstone: Version(conflict.tombstone) }
        }
        Message::Transacted(v1::outcome::Transacted { results }) => {
            in_range("transacted.results", results.len() as u64, 1, TRANSACTION_OPERATIONS_MAX as u64)?;
            let results = results.into_iter().map(|result| within_from("transacted.results", true, Some(result)));
            Verdict::Transacted(Transacted { results: results.collect::<Result<_, _>>()? })
        }
        Message::Aborted(aborted) => {
            let verdict = Box::new(within_from("aborted.outcome", false, aborted.outcome.map(|outcome| *outcome))?);
            Verdict::Aborted(Aborted { index: aborted.index, verdict })
        }
        Message::BaseMismatchAt(index) => Verdict::BaseMismatchAt { index },
        Message::Met(_) => Verdict::Met,
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

fn held_to(holder: &Holder, deadline_ms: u64) -> v1::outcome::LeaseHeld {
    v1::outcome::LeaseHeld { holder: holder.as_str().to_owned(), deadline_ms }
}

fn too_large_to(too_large: TooLarge) -> v1::TooLarge {
    use v1::too_large::What;
    let what = match too_large {
        TooLarge::StoredBytes { .. } => What::StoredBytes,
        TooLarge::RawBytes { .. } => What::RawBytes,
        TooLarge::Items { .. } => What::Items,
        TooLarge::Chunks { .. } => What::Chunks,
        TooLarge::Write { .. } => What::Write,
        TooLarge::Rows { .. } => What::Rows,
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
        Ok(What::Rows) => Ok(TooLarge::Rows { now, limit }),
        Ok(What::Unspecified) | Err(_) => Err(unknown_value("too_large.what", what)),
    }
}
