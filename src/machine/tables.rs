//! The machine's tables in memory, each change of which also changes the indexes, the digest and the rows: one place, so that they
//! can't disagree. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::meter::{Meter, Owner};
use super::rows::{self, ClientHeader, Effects};
use super::rules::Rules;
use super::session::{Session, Tombstone};
use super::{Counts, digest};
use crate::types::{ClientId, Nonce, Outcome, Sequence, SessionId};

/// A record with its share in the digest.
#[derive(Clone, Debug)]
pub(super) struct Hashed<T> {
    pub value: T,
    pub hash: u64,
}

/// One client: its header and the outcomes of its open sequences.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub header: ClientHeader,
    pub hash: u64,
    pub outcomes: BTreeMap<Sequence, Hashed<Outcome>>,
    /// Its holder, as far as this node knows; no part of the state.
    pub owner: Owner,
}

/// A record that has a deadline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Session(SessionId),
    Tombstone(SessionId),
    Client(ClientId),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub sessions: BTreeMap<SessionId, Hashed<Session>>,
    pub tombstones: BTreeMap<SessionId, Hashed<Tombstone>>,
    pub clients: BTreeMap<ClientId, Client>,
    pub nonces: BTreeMap<Nonce, ClientId>,
    /// One key for each record that has a deadline, ordered by it (invariant I7).
    pub due: BTreeSet<(u64, Due)>,
    /// Outcomes of all clients.
    pub outcomes: u64,
    /// Bytes of all ids of sessions and tombstones.
    pub id_bytes: u64,
    /// Sum of the hashes of all records.
    pub digest: u64,
    /// The usage by holder and prefix; no part of the state.
    pub meter: Meter,
}

impl Tables {
    pub fn put_session(&mut self, id: &SessionId, session: Session, effects: &mut Effects) {
        let (key, value) = (rows::session_key(id), rows::encode(&session));
        self.keep_session(id, session, (&key, &value));
        effects.put(rows::SESSIONS, key, value);
    }

    /// Keeps a session whose row is encoded and there already.
    pub fn keep_session(&mut self, id: &SessionId, session: Session, (key, value): (&Bytes, &Bytes)) {
        let hash = self.joined(rows::SESSIONS, key, value);
        if let Some(deadline_ms) = session.deadline_ms {
            self.due.insert((deadline_ms, Due::Session(id.clone())));
        }
        let deadline_ms = session.deadline_ms;
        let stored_bytes = session.stored_bytes;
        let new = Hashed { value: session, hash };
        let Some(kept) = self.sessions.get_mut(id) else {
            self.sessions.insert(id.clone(), new);
            self.id_bytes += id.as_str().len() as u64;
            self.meter.added(id, stored_bytes);
            return;
        };
        let old = std::mem::replace(kept, new);
        self.meter.resized(id, old.value.stored_bytes, stored_bytes);
        self.left(old.hash);
        if let Some(old_ms) = old.value.deadline_ms.filter(|old_ms| Some(*old_ms) != deadline_ms) {
            self.due.remove(&(old_ms, Due::Session(id.clone())));
        }
    }

    /// Removes the metadata row only; content rows are the caller's.
    pub fn remove_session(&mut self, id: &SessionId, effects: &mut Effects) -> Option<Session> {
        let old = self.forget_session(id)?;
        effects.delete(rows::SESSIONS, rows::session_key(id));
        Some(old)
    }

    fn forget_session(&mut self, id: &SessionId) -> Option<Session> {
        let old = self.sessions.remove(id)?;
        self.left(old.hash);
        self.id_bytes -= id.as_str().len() as u64;
        self.meter.removed(id, old.value.stored_bytes);
        if let Some(deadline_ms) = old.value.deadline_ms {
            self.due.remove(&(deadline_ms, Due::Session(id.clone())));
        }
        Some(old.value)
    }

    pub fn put_tombstone(&mut self, id: &SessionId, tombstone: Tombstone, effects: &mut Effects) {
        self.forget_tombstone(id);
        let (key, value) = (rows::session_key(id), rows::encode(&tombstone));
        let hash = self.joined(rows::TOMBSTONES, &key, &value);
        effects.put(rows::TOMBSTONES, key, value);
        self.id_bytes += id.as_str().len() as u64;
        self.meter.added(id, 0);
        self.due.insert((tombstone.deadline_ms, Due::Tombstone(id.clone())));
        self.tombstones.insert(id.clone(), Hashed { value: tombstone, hash });
    }

    pub fn remove_tombstone(&mut self, id: &SessionId, effects: &mut Effects) {
        if self.forget_tombstone(id) {
            effects.delete(rows::TOMBSTONES, rows::session_key(id));
        }
    }

    fn forget_tombstone(&mut self, id: &SessionId) -> bool {
        let Some(old) = self.tombstones.remove(id) else {
            return false;
        };
        self.left(old.hash);
        self.id_bytes -= id.as_str().len() as u64;
        self.meter.removed(id, 0);
        self.due.remove(&(old.value.deadline_ms, Due::Tombstone(id.clone())));
        true
    }

    /// Inserts a client, or changes the header of one.
    pub fn put_client(&mut self, client: ClientId, header: ClientHeader, effects: &mut Effects) {
        let (key, value) = (rows::client_key(client), rows::encode(&header));
        let hash = self.joined(rows::CLIENTS, &key, &value);
        effects.put(rows::CLIENTS, key, value);
        self.nonces.insert(header.nonce, client);
        let meter = &mut self.meter;
        let new = || Client { header, hash: 0, outcomes: BTreeMap::new(), owner: meter.opened(&header.nonce) };
        let row = self.clients.entry(client).or_insert_with(new);
        let (old_hash, old_ms) = (row.hash, row.header.deadline_ms);
        (row.header, row.hash) = (header, hash);
        self.left(old_hash);
        self.due.remove(&(old_ms, Due::Client(client)));
        self.due.insert((header.deadline_ms, Due::Client(client)));
    }

    pub fn remove_client(&mut self, client: ClientId, effects: &mut Effects) {
        let Some(row) = self.clients.remove(&client) else {
            return;
        };
        effects.delete(rows::CLIENTS, rows::client_key(client));
        self.left(row.hash);
        self.nonces.remove(&row.header.nonce);
        self.due.remove(&(row.header.deadline_ms, Due::Client(client)));
        for (sequence, outcome) in row.outcomes {
            self.outcomes -= 1;
            self.left(outcome.hash);
            effects.delete(rows::OUTCOMES, rows::outcome_key(client, sequence));
        }
    }

    /// Records an outcome; the client exists.
    pub fn put_outcome(&mut self, client: ClientId, sequence: Sequence, outcome: Outcome, effects: &mut Effects) {
        let (key, value) = (rows::outcome_key(client, sequence), rows::encode(&outcome));
        let hash = digest::row(rows::OUTCOMES, &key, &value);
        let Some(row) = self.clients.get_mut(&client) else {
            return;
        };
        let old = row.outcomes.insert(sequence, Hashed { value: outcome, hash });
        assert!(old.is_none(), "sequence answered twice client={client} sequence={sequence}");
        row.owner.recorded();
        self.outcomes += 1;
        self.digest = self.digest.wrapping_add(hash);
        effects.put(rows::OUTCOMES, key, value);
    }

    /// Drops the outcomes of closed sequences.
    pub fn close_below(&mut self, client: ClientId, acknowledged_below: Sequence, effects: &mut Effects) {
        let Some(row) = self.clients.get_mut(&client) else {
            return;
        };
        while let Some(oldest) = row.outcomes.first_entry().filter(|oldest| *oldest.key() < acknowledged_below) {
            let (sequence, outcome) = oldest.remove_entry();
            row.owner.closed();
            self.outcomes -= 1;
            self.digest = self.digest.wrapping_sub(outcome.hash);
            effects.delete(rows::OUTCOMES, rows::outcome_key(client, sequence));
        }
    }

    /// The bytes of sessions and tombstones, by the fixed formula.
    pub fn metadata_bytes(&self, rules: &Rules) -> u64 {
        self.record_count().saturating_mul(rules.session_metadata_bytes).saturating_add(self.id_bytes)
    }

    /// Sessions and tombstones.
    pub fn record_count(&self) -> u64 {
        (self.sessions.len() + self.tombstones.len()) as u64
    }

    pub fn counts(&self, rules: &Rules) -> Counts {
        Counts {
            sessions: self.sessions.len() as u64,
            tombstones: self.tombstones.len() as u64,
            clients: self.clients.len() as u64,
            outcomes: self.outcomes,
            metadata_bytes: self.metadata_bytes(rules),
        }
    }

    fn joined(&mut self, table: u8, key: &Bytes, value: &Bytes) -> u64 {
        let hash = digest::row(table, key, value);
        self.digest = self.digest.wrapping_add(hash);
        hash
    }

    fn left(&mut self, hash: u64) {
        self.digest = self.digest.wrapping_sub(hash);
    }
}
