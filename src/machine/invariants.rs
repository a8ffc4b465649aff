//! The invariants that hold after every entry, numbered, so that code, simulation and documents cite the same sentence.
//!
//! | | |
//! |---|---|
//! | I1 | an id is a session or a tombstone, never both |
//! | I2 | a session's positions are ordered: create_revision ≤ mod_revision ≤ applied; append_only_since ≤ version and head_since ≤ version; version ≥ 1; first_chunk ≤ next_chunk; chunks that a repack made are at least one, of a later entry that is applied, and hold its first items; its head is within its size; an idle deadline is its time after a moment between the last write and machine time, or the end of a lease |
//! | I3 | no two sessions share both a create_revision and the place among the creations of its entry, nor does a repack share either with any |
//! | I4 | a session is within the bounds of the rules in force |
//! | I5 | nonces and clients name each other one to one; a client id was a log index already |
//! | I6 | a client's outcomes lie in its window and count for no more than it has sequences, none is one that is not recorded, and all of them are counted |
//! | I7 | the index of deadlines holds exactly one key for each record that has a deadline; that of a client is at most its deadline |
//! | I8 | the tables are within their bounds, and the bytes of ids, labels and holders are counted |
//! | I9 | the digest is the sum over the records |
//! | I10 | a fence was a log index already, and no two leases share one; a lease ends at most the longest time of one after machine time |

use std::collections::BTreeSet;
use std::fmt;

use super::rows::{Birth, ClientHeader};
use super::session::Session;
use super::tables::Due;
use super::{Machine, digest, tables};
use crate::types::{ClientId, Fence, Lease, Outcome, Sequence, SessionId, Verdict};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its number, as in the module's table.
    pub invariant: &'static str,
    /// The values that break it; session ids only as their hash.
    pub values: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant is broken invariant={} {}", self.invariant, self.values)
    }
}

impl std::error::Error for Broken {}

fn ensure(invariant: &'static str, holds: bool, values: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { invariant, values: values() }) }
}

impl Machine {
    /// Checks every invariant; linear in the size of the machine, so for tests, simulation and tools. Errors: the first one broken.
    pub fn check(&self) -> Result<(), Broken> {
        self.check_sessions()?;
        self.check_clients()?;
        self.check_leases()?;
        self.check_due()?;
        self.check_bounds()?;
        self.check_digest()
    }

    fn check_sessions(&self) -> Result<(), Broken> {
        self.tables.sessions.iter().try_for_each(|(id, kept)| self.check_session(id, &kept.value))?;
        self.check_created()
    }

    /// All sessions together: I3.
    pub(super) fn check_created(&self) -> Result<(), Broken> {
        let sessions = self.tables.sessions.values();
        let mut births: Vec<Birth> =
            sessions.flat_map(|kept| [Some(kept.value.birth()), kept.value.packed_birth()]).flatten().collect();
        births.sort_unstable();
        let twice = births.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        ensure("I3", twice.is_none(), || twice.map_or_else(String::new, |birth| birth.to_string()))
    }

    /// One session alone: I1, I2, I4.
    pub(super) fn check_session(&self, id: &SessionId, session: &Session) -> Result<(), Broken> {
        let applied = self.revision();
        ensure("I1", !self.tables.tombstones.contains_key(id), || format!("id={id:?}"))?;
        let revisions = session.create_revision <= session.mod_revision && session.mod_revision <= applied;
        let versions = session.append_only_since <= session.version && session.head_since <= session.version;
        let head = session.head.raw_bytes <= session.raw_bytes && session.head.stored_bytes <= session.stored_bytes;
        let chunks = session.first_chunk <= session.next_chunk;
        let packed = session.packed.as_deref().is_none_or(|packed| {
            let own = session.next_chunk.saturating_sub(session.first_chunk);
            let items = packed.chunks <= packed.items && packed.items.saturating_add(own) <= session.items;
            let revisions = session.create_revision < packed.revision && packed.revision <= applied;
            session.summed && packed.chunks > 0 && items && revisions
        });
        let idle = session.idle_ms.is_none_or(|idle_ms| {
            let latest_ms = self.now_ms.saturating_add(self.rules.lease_ttl_ms_max);
            let moved = session.updated_ms.saturating_add(idle_ms)..=latest_ms.saturating_add(idle_ms);
            session.deadline_ms.is_some_and(|deadline_ms| moved.contains(&deadline_ms))
        });
        ensure("I2", revisions && versions && head && chunks && packed && idle && session.version.0 >= 1, || {
            format!("id={id:?} applied={applied} session={session:?}")
        })?;
        let idle = session.idle_ms.is_none_or(|idle_ms| idle_ms <= self.rules.session_ttl_ms_max);
        let tombstone = session.tombstone_ms.is_none_or(|tombstone_ms| tombstone_ms < self.rules.tombstone_ttl_ms);
        ensure("I4", idle && tombstone && session.too_large(self.rules).is_none(), || format!("id={id:?} session={session:?}"))
    }

    fn check_clients(&self) -> Result<(), Broken> {
        ensure("I5", self.tables.nonces.len() == self.tables.clients.len(), || format!("nonces={}", self.tables.nonces.len()))?;
        let mut outcomes = 0;
        for (client, row) in &self.tables.clients {
            let named = self.tables.nonces.get(&row.header.nonce) == Some(client);
            ensure("I5", named, || format!("client={client}"))?;
            self.check_client(*client)?;
            for (sequence, outcome) in &row.outcomes {
                self.check_outcome(*client, &row.header, *sequence, &outcome.value)?;
            }
            self.check_weight(*client, row.outcomes.values().map(|kept| kept.value.verdict.weight()).sum())?;
            outcomes += row.weight;
        }
        ensure("I6", outcomes == self.tables.outcomes, || format!("outcomes={outcomes} counted={}", self.tables.outcomes))
    }

    /// One client's id: I5.
    pub(super) fn check_client(&self, client: ClientId) -> Result<(), Broken> {
        let applied = self.revision();
        ensure("I5", client.0 <= applied.0, || format!("client={client} applied={applied}"))
    }

    /// One outcome and the window of its client: I6.
    pub(super) fn check_outcome(
        &self,
        client: ClientId,
        header: &ClientHeader,
        sequence: Sequence,
        outcome: &Outcome,
    ) -> Result<(), Broken> {
        let below = header.acknowledged_below;
        let until = Sequence(below.0.saturating_add(self.rules.open_writes_max));
        let inside = (below..until).contains(&sequence);
        ensure("I6", inside, || format!("client={client} sequence={sequence} window={below}..{until}"))?;
        let recorded = is_recorded(&outcome.verdict);
        ensure("I6", recorded, || format!("client={client} sequence={sequence} not recorded={:?}", outcome.verdict))
    }

    fn check_leases(&self) -> Result<(), Broken> {
        self.tables.leases.iter().try_for_each(|(id, kept)| self.check_lease(id, &kept.value))?;
        self.check_fences()
    }

    /// One lease alone: I10.
    pub(super) fn check_lease(&self, id: &SessionId, lease: &Lease) -> Result<(), Broken> {
        let applied = self.revision();
        let latest_ms = self.now_ms.saturating_add(self.rules.lease_ttl_ms_max);
        let holds = (1..=applied.0).contains(&lease.fence.0) && lease.deadline_ms <= latest_ms;
        ensure("I10", holds, || format!("id={id:?} applied={applied} latest_ms={latest_ms} lease={lease:?}"))
    }

    /// All leases together: I10.
    pub(super) fn check_fences(&self) -> Result<(), Broken> {
        let mut fences: Vec<Fence> = self.tables.leases.values().map(|kept| kept.value.fence).collect();
        fences.sort_unstable();
        let twice = fences.windows(2).find(|pair| pair[0] == pair[1]);
        ensure("I10", twice.is_none(), || format!("fence={}", twice.map_or(Fence(0), |pair| pair[0])))
    }

    /// The weight of all outcomes of one client: I6.
    pub(super) fn check_weight(&self, client: ClientId, weight: u64) -> Result<(), Broken> {
        let counted = self.tables.clients.get(&client).map_or(0, |row| row.weight);
        let limit = self.rules.open_writes_max;
        ensure("I6", weight == counted && weight <= limit, || {
            format!("client={client} outcomes={weight} counted={counted} limit={limit}")
        })
    }

    fn check_due(&self) -> Result<(), Broken> {
        let sessions =
            self.tables.sessions.iter().filter_map(|(id, kept)| Some((kept.value.deadline_ms?, Due::Session(id.clone()))));
        let tombstones = self.tables.tombstones.iter().map(|(id, kept)| (kept.value.deadline_ms, Due::Tombstone(id.clone())));
        let clients = self.tables.clients.iter().map(|(client, row)| (row.due_ms, Due::Client(*client)));
        let leases = self.tables.leases.iter().map(|(id, kept)| (kept.value.deadline_ms, Due::Lease(id.clone())));
        let due: BTreeSet<_> = sessions.chain(tombstones).chain(clients).chain(leases).collect();
        ensure("I7", due == self.tables.due, || format!("records={} keys={}", due.len(), self.tables.due.len()))
    }

    pub(super) fn check_bounds(&self) -> Result<(), Broken> {
        let (counts, rules) = (self.counts(), self.rules);
        // A delete turns a session into a tombstone, so it needs no room; creations are refused, and longer labels.
        let records =
            counts.sessions + counts.tombstones <= rules.sessions_max && counts.metadata_bytes <= rules.metadata_bytes_max;
        let clients = counts.clients <= rules.clients_max && counts.outcomes <= rules.outcomes_max;
        let ids = self.tables.sessions.keys().chain(self.tables.tombstones.keys());
        let id_bytes: u64 = ids.map(|id| id.as_str().len() as u64).sum();
        let label_bytes: u64 = self.tables.sessions.values().map(|kept| kept.value.label_bytes()).sum();
        let counted = id_bytes + label_bytes == self.tables.text_bytes;
        let leases = self.tables.lease_bytes(rules) <= rules.leases_bytes_max;
        let texts = self.tables.leases.iter().map(|(id, kept)| tables::lease_text_bytes(id, &kept.value));
        let leases = leases && texts.sum::<u64>() == self.tables.lease_text_bytes;
        ensure("I8", records && clients && leases && counted, || {
            format!("counts={counts:?} id_bytes={id_bytes} label_bytes={label_bytes}")
        })
    }

    fn check_digest(&self) -> Result<(), Broken> {
        let tables = &self.tables;
        let sessions = tables.sessions.iter().map(|(id, kept)| tables::session_row(id, &kept.value));
        let tombstones = tables.tombstones.iter().map(|(id, kept)| tables::tombstone_row(id, &kept.value));
        let clients = tables.clients.iter().map(|(client, row)| tables::client_row(*client, &row.header));
        let outcomes = tables.clients.iter().flat_map(|(client, row)| {
            row.outcomes.iter().map(|(sequence, kept)| tables::outcome_row(*client, *sequence, &kept.value))
        });
        let leases = tables.leases.iter().map(|(id, kept)| tables::lease_row(id, &kept.value));
        let all = sessions.chain(tombstones).chain(clients).chain(outcomes).chain(leases);
        let sum = all.map(|(table, key, value)| digest::row(table, &key, &value)).fold(0, u64::wrapping_add);
        let kept = tables.digest();
        ensure("I9", sum == kept, || format!("sum={sum:016x} kept={kept:016x}"))
    }
}

fn is_recorded(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Saved(_)
        | Verdict::Appended(_)
        | Verdict::WrongForm { .. }
        | Verdict::Touched { .. }
        | Verdict::LeaseGranted { .. }
        | Verdict::LeaseHeld { .. }
        | Verdict::LeasesRenewed { .. }
        | Verdict::LeaseReleased
        | Verdict::LeaseLost
        | Verdict::TooManyLeases
        | Verdict::Leased { .. }
        | Verdict::Fenced { .. }
        | Verdict::Transacted(_)
        | Verdict::Aborted(_)
        | Verdict::Repacked { .. }
        | Verdict::NotRepacked
        | Verdict::Conflict { .. }
        | Verdict::TooLarge(_)
        | Verdict::TooManySessions
        | Verdict::Deleted { .. }
        | Verdict::NotFound { .. } => true,
        Verdict::BaseMismatch
        | Verdict::BaseMismatchAt { .. }
        // Recorded within that of a transaction only.
        | Verdict::Met
        | Verdict::ClientOpened { .. }
        | Verdict::ClientKept
        | Verdict::ClientClosed
        | Verdict::TooManyClients
        | Verdict::ClientUnknown
        | Verdict::Stale
        | Verdict::WindowExceeded
        | Verdict::Busy
        | Verdict::Swept(_)
        | Verdict::ClusterVersion { .. } => false,
    }
}
