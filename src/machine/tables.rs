//! The machine's tables in memory, each change of which also changes the indexes and the digest, and marks the record for a new row: one
//! place, so that they can't disagree. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::changes::Changes;
use super::marks::{Marked, Marks, RowState};
use super::meter::{Meter, Owner, Size};
use super::rows::{self, ClientHeader, Effects};
use super::rules::Rules;
use super::session::{Session, Tombstone};
use super::{Counts, digest};
use crate::limits::intervals;
use crate::mutant::{self, Mutant};
use crate::types::{ClientId, Lease, Nonce, Outcome, Sequence, SessionId};

/// A record with the state of its row.
#[derive(Clone, Debug)]
pub(super) struct Kept<T> {
    pub value: T,
    pub row: RowState,
}

/// One client: its header and the outcomes of its open sequences.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub header: ClientHeader,
    pub row: RowState,
    /// The deadline it stands under in the index of deadlines: that of its latest row, or of its first header.
    pub due_ms: u64,
    pub outcomes: BTreeMap<Sequence, Kept<Outcome>>,
    /// Their number, where each counts for as many verdicts as it holds.
    pub weight: u64,
    /// Its holder, as far as this node knows; no part of the state.
    pub owner: Owner,
}

/// A record that has a deadline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Session(SessionId),
    Tombstone(SessionId),
    Client(ClientId),
    Lease(SessionId),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub sessions: BTreeMap<SessionId, Kept<Session>>,
    pub tombstones: BTreeMap<SessionId, Kept<Tombstone>>,
    pub clients: BTreeMap<ClientId, Client>,
    pub nonces: BTreeMap<Nonce, ClientId>,
    pub leases: BTreeMap<SessionId, Kept<Lease>>,
    /// One key for each record that has a deadline, ordered by it (invariant I7). That of a client moves when its row is made.
    pub due: BTreeSet<(u64, Due)>,
    /// Outcomes of all clients, by their weights.
    pub outcomes: u64,
    /// Bytes of all ids of sessions and tombstones, and of the labels.
    pub text_bytes: u64,
    /// Bytes of the ids and holders of all leases.
    pub lease_text_bytes: u64,
    /// Sum of the hashes of all records that are not marked.
    made_digest: u64,
    /// The records whose rows are to be made.
    pub marks: Marks,
    /// The usage by holder and prefix; no part of the state.
    pub meter: Meter,
    /// The newest changes; no part of the state.
    pub changes: Changes,
}

/// Bytes that a row takes at most, its key included; without the id of a session.
mod row_bytes {
    use super::Session;
    use crate::limits::COUNTERS_MAX;
    use crate::types::{Outcome, Verdict};

    const NUMBER: u64 = 9;
    const SESSION: u64 = (26 + COUNTERS_MAX as u64) * NUMBER;
    pub const CLIENT: u64 = 8 + 16 + 3 * NUMBER;
    const KEY: u64 = 16;
    const VERDICT: u64 = 8 * NUMBER;

    pub fn session(session: &Session) -> u64 {
        SESSION + session.label_bytes()
    }

    pub fn outcome(outcome: &Outcome) -> u64 {
        KEY + verdict(&outcome.verdict)
    }

    fn verdict(of: &Verdict) -> u64 {
        match of {
            Verdict::Appended(appended) => VERDICT + appended.counters.as_slice().len() as u64 * NUMBER,
            Verdict::LeaseHeld { holder, .. } | Verdict::Leased { holder, .. } => VERDICT + holder.as_str().len() as u64,
            Verdict::Transacted(transacted) => VERDICT + transacted.results.iter().map(verdict).sum::<u64>(),
            Verdict::Aborted(aborted) => VERDICT + verdict(&aborted.verdict),
            _ => VERDICT,
        }
    }
}

/// Marks a session that was changed, whose row is made later. Gives the hash of the row that it had.
fn mark_session(marks: &mut Marks, kept: &mut Kept<Session>, old: &Session, id: &SessionId) -> u64 {
    if kept.row.is_marked() {
        marks.grow(kept.value.label_bytes().saturating_sub(old.label_bytes()));
    }
    let bytes = row_bytes::session(&kept.value) + id.as_str().len() as u64;
    marks.mark(&mut kept.row, bytes, || Marked::Session(id.clone()))
}

impl Tables {
    /// Inserts a session, or changes one. Its row is made at once, while all of it is at hand; of one that changes again within
    /// [`digest_entries`](crate::limits::Intervals::digest_entries) entries, once for all further changes.
    pub fn put_session(&mut self, id: &SessionId, session: Session, effects: &mut Effects) {
        self.changes.saved(id, session.mod_revision);
        let Some(kept) = self.sessions.get_mut(id) else {
            let row = self.made(effects, session_row(id, &session));
            return self.insert_session(id, session, row);
        };
        let window = |session: &Session| session.mod_revision.0 / intervals().digest_entries;
        let changes_again = window(&kept.value) == window(&session);
        let old = std::mem::replace(&mut kept.value, session);
        let size = Size::of(&kept.value);
        if changes_again || kept.row.is_marked() {
            let left = mark_session(&mut self.marks, kept, &old, id);
            self.left(left);
        } else {
            let before = std::mem::replace(&mut kept.row, make(effects, session_row(id, &kept.value)));
            self.made_digest = self.made_digest.wrapping_sub(before.hash).wrapping_add(kept.row.hash);
        }
        self.replaced(id, &old, size);
    }

    /// Changes a session that is there, and no watch shows it (L44). Its row is made later, once for many touches.
    pub fn touch_session(&mut self, id: &SessionId, session: Session) {
        let Some(kept) = self.sessions.get_mut(id) else { return };
        let old = std::mem::replace(&mut kept.value, session);
        let size = Size::of(&kept.value);
        let left = mark_session(&mut self.marks, kept, &old, id);
        self.left(left);
        self.replaced(id, &old, size);
    }

    fn replaced(&mut self, id: &SessionId, old: &Session, new: Size) {
        let before = Size::of(old);
        self.text_bytes = self.text_bytes - before.label_bytes + new.label_bytes;
        self.meter.resized(id, &before, &new);
        if before.deadline_ms != new.deadline_ms {
            self.move_due(before.deadline_ms, new.deadline_ms, || Due::Session(id.clone()));
        }
    }

    /// Takes a session that is not there, with the row it was read from.
    pub fn load_session(&mut self, id: &SessionId, session: Session, (key, value): (&Bytes, &Bytes)) {
        let row = self.loaded(rows::SESSIONS, key, value);
        self.insert_session(id, session, row);
    }

    fn insert_session(&mut self, id: &SessionId, session: Session, row: RowState) {
        self.move_due(None, session.deadline_ms, || Due::Session(id.clone()));
        let size = Size::of(&session);
        self.text_bytes += id.as_str().len() as u64 + size.label_bytes;
        self.meter.added(id, &size);
        self.sessions.insert(id.clone(), Kept { value: session, row });
    }

    /// Removes the metadata row only; content rows are the caller's.
    pub fn remove_session(&mut self, id: &SessionId, effects: &mut Effects) -> Option<Session> {
        let old = self.sessions.remove(id)?;
        self.ended(old.row, effects, || (rows::SESSIONS, rows::session_key(id)));
        let size = Size::of(&old.value);
        self.text_bytes -= id.as_str().len() as u64 + size.label_bytes;
        self.meter.removed(id, &size);
        self.changes.deleted(id);
        self.move_due(old.value.deadline_ms, None, || Due::Session(id.clone()));
        Some(old.value)
    }

    /// Inserts a tombstone; there is none of this id.
    pub fn put_tombstone(&mut self, id: &SessionId, tombstone: Tombstone, effects: &mut Effects) {
        let row = self.made(effects, tombstone_row(id, &tombstone));
        self.insert_tombstone(id, tombstone, row);
    }

    /// Takes a tombstone that is not there, with the row it was read from.
    pub fn load_tombstone(&mut self, id: &SessionId, tombstone: Tombstone, (key, value): (&Bytes, &Bytes)) {
        let row = self.loaded(rows::TOMBSTONES, key, value);
        self.insert_tombstone(id, tombstone, row);
    }

    fn insert_tombstone(&mut self, id: &SessionId, tombstone: Tombstone, row: RowState) {
        self.text_bytes += id.as_str().len() as u64;
        self.meter.added(id, &Size::default());
        self.due.insert((tombstone.deadline_ms, Due::Tombstone(id.clone())));
        let old = self.tombstones.insert(id.clone(), Kept { value: tombstone, row });
        assert!(old.is_none(), "a tombstone is put over another id={id:?}");
    }

    pub fn remove_tombstone(&mut self, id: &SessionId, effects: &mut Effects) {
        let Some(old) = self.tombstones.remove(id) else {
            return;
        };
        self.ended(old.row, effects, || (rows::TOMBSTONES, rows::session_key(id)));
        self.text_bytes -= id.as_str().len() as u64;
        self.meter.removed(id, &Size::default());
        self.due.remove(&(old.value.deadline_ms, Due::Tombstone(id.clone())));
    }

    /// Inserts a lease, or puts one in the place of that which is there.
    pub fn put_lease(&mut self, id: &SessionId, lease: Lease, effects: &mut Effects) {
        let row = self.made(effects, lease_row(id, &lease));
        if let Some(old) = self.insert_lease(id, lease, row) {
            self.left(old.row.hash);
        }
    }

    /// Takes a lease that is not there, with the row it was read from.
    pub fn load_lease(&mut self, id: &SessionId, lease: Lease, (key, value): (&Bytes, &Bytes)) {
        let row = self.loaded(rows::LEASES, key, value);
        let old = self.insert_lease(id, lease, row);
        assert!(old.is_none(), "a lease is loaded over another id={id:?}");
    }

    fn insert_lease(&mut self, id: &SessionId, lease: Lease, row: RowState) -> Option<Kept<Lease>> {
        let text_bytes = lease_text_bytes(id, &lease);
        self.lease_text_bytes += text_bytes;
        self.meter.lease_added(id, text_bytes);
        let due = (lease.deadline_ms, Due::Lease(id.clone()));
        let old = self.leases.insert(id.clone(), Kept { value: lease, row });
        if let Some(old) = &old {
            self.lease_left(id, &old.value);
        }
        self.due.insert(due);
        old
    }

    pub fn remove_lease(&mut self, id: &SessionId, effects: &mut Effects) {
        let Some(old) = self.leases.remove(id) else { return };
        self.ended(old.row, effects, || (rows::LEASES, rows::session_key(id)));
        self.lease_left(id, &old.value);
    }

    fn lease_left(&mut self, id: &SessionId, old: &Lease) {
        let text_bytes = lease_text_bytes(id, old);
        self.lease_text_bytes -= text_bytes;
        self.meter.lease_removed(id, text_bytes);
        self.due.remove(&(old.deadline_ms, Due::Lease(id.clone())));
    }

    /// Inserts a client, or changes the header of one and closes its sequences below.
    pub fn put_client(&mut self, client: ClientId, header: ClientHeader, effects: &mut Effects) {
        let Some(row) = self.clients.get_mut(&client) else {
            let mut row = RowState::default();
            self.marks.mark(&mut row, row_bytes::CLIENT, || Marked::Client(client));
            return self.insert_client(client, header, row);
        };
        row.header = header;
        let mut left = self.marks.mark(&mut row.row, row_bytes::CLIENT, || Marked::Client(client));
        while let Some(oldest) = row.outcomes.first_entry().filter(|oldest| *oldest.key() < header.acknowledged_below) {
            let (sequence, outcome) = oldest.remove_entry();
            let weight = outcome.value.verdict.weight();
            row.owner.closed(weight);
            row.weight -= weight;
            self.outcomes -= weight;
            left = left.wrapping_add(outcome.row.hash);
            if outcome.row.is_made && !mutant::is(Mutant::ClosedOutcomeKeepsItsRow) {
                effects.delete(rows::OUTCOMES, rows::outcome_key(client, sequence));
            }
        }
        self.left(left);
    }

    /// Takes a client that is not there, with the row it was read from.
    pub fn load_client(&mut self, client: ClientId, header: ClientHeader, (key, value): (&Bytes, &Bytes)) {
        let row = self.loaded(rows::CLIENTS, key, value);
        self.insert_client(client, header, row);
    }

    fn insert_client(&mut self, client: ClientId, header: ClientHeader, row: RowState) {
        self.nonces.insert(header.nonce, client);
        self.due.insert((header.deadline_ms, Due::Client(client)));
        let owner = self.meter.opened(&header.nonce);
        self.clients
            .insert(client, Client { header, row, due_ms: header.deadline_ms, outcomes: BTreeMap::new(), weight: 0, owner });
    }

    pub fn remove_client(&mut self, client: ClientId, effects: &mut Effects) {
        let Some(row) = self.clients.remove(&client) else {
            return;
        };
        self.ended(row.row, effects, || (rows::CLIENTS, rows::client_key(client)));
        self.nonces.remove(&row.header.nonce);
        self.due.remove(&(row.due_ms, Due::Client(client)));
        self.outcomes -= row.weight;
        for (sequence, outcome) in row.outcomes {
            self.ended(outcome.row, effects, || (rows::OUTCOMES, rows::outcome_key(client, sequence)));
        }
    }

    /// Records an outcome; the client exists.
    pub fn put_outcome(&mut self, client: ClientId, sequence: Sequence, outcome: Outcome) {
        let mut row = RowState::default();
        if !mutant::is(Mutant::OpenOutcomeForgotten) {
            self.marks.mark(&mut row, row_bytes::outcome(&outcome), || Marked::Outcome(client, sequence));
        }
        self.insert_outcome(client, sequence, outcome, row);
    }

    /// Takes an outcome that is not there, with the row it was read from; the client exists.
    pub fn load_outcome(&mut self, client: ClientId, sequence: Sequence, outcome: Outcome, (key, value): (&Bytes, &Bytes)) {
        let row = self.loaded(rows::OUTCOMES, key, value);
        self.insert_outcome(client, sequence, outcome, row);
    }

    fn insert_outcome(&mut self, client: ClientId, sequence: Sequence, outcome: Outcome, row: RowState) {
        let Some(kept) = self.clients.get_mut(&client) else {
            return;
        };
        let weight = outcome.verdict.weight();
        let old = kept.outcomes.insert(sequence, Kept { value: outcome, row });
        assert!(old.is_none(), "sequence answered twice client={client} sequence={sequence}");
        kept.owner.recorded(weight);
        kept.weight += weight;
        self.outcomes += weight;
    }

    /// Makes the row of every marked record, and moves the clients among them in the index of deadlines.
    pub fn make_rows(&mut self, effects: &mut Effects) {
        self.move_clients();
        let marks = std::mem::take(&mut self.marks);
        effects.rows.reserve(marks.len());
        let mut made = 0u64;
        for (place, marked) in marks.iter() {
            let hash = match marked {
                Marked::Session(id) => {
                    let Some(kept) = self.sessions.get_mut(id) else { continue };
                    make_marked(&mut kept.row, place, effects, || session_row(id, &kept.value))
                }
                Marked::Client(client) => {
                    let Some(kept) = self.clients.get_mut(client) else { continue };
                    make_marked(&mut kept.row, place, effects, || client_row(*client, &kept.header))
                }
                Marked::Outcome(client, sequence) => {
                    let kept = self.clients.get_mut(client).and_then(|row| row.outcomes.get_mut(sequence));
                    let Some(kept) = kept else { continue };
                    make_marked(&mut kept.row, place, effects, || outcome_row(*client, *sequence, &kept.value))
                }
            };
            made = made.wrapping_add(hash);
        }
        self.made_digest = self.made_digest.wrapping_add(made);
    }

    /// Moves each marked client to its deadline in the index: a sweep begins with it, so that all nodes sweep alike (L39).
    pub fn move_clients(&mut self) {
        for (_, marked) in self.marks.iter() {
            let Marked::Client(client) = marked else { continue };
            let Some(row) = self.clients.get_mut(client).filter(|row| row.due_ms != row.header.deadline_ms) else { continue };
            self.due.remove(&(row.due_ms, Due::Client(*client)));
            row.due_ms = row.header.deadline_ms;
            self.due.insert((row.due_ms, Due::Client(*client)));
        }
    }

    /// Sum of the hashes of all records. Cost: an encoding of each marked one.
    pub fn digest(&self) -> u64 {
        let marked = self.marks.iter().filter_map(|(place, marked)| self.marked_hash(place, marked));
        marked.fold(self.made_digest, u64::wrapping_add)
    }

    fn marked_hash(&self, place: usize, marked: &Marked) -> Option<u64> {
        let (row, (table, key, value)) = match marked {
            Marked::Session(id) => self.sessions.get(id).map(|kept| (&kept.row, session_row(id, &kept.value)))?,
            Marked::Client(client) => self.clients.get(client).map(|row| (&row.row, client_row(*client, &row.header)))?,
            Marked::Outcome(client, sequence) => {
                let kept = self.clients.get(client)?.outcomes.get(sequence)?;
                (&kept.row, outcome_row(*client, *sequence, &kept.value))
            }
        };
        row.is_at(place).then(|| digest::row(table, &key, &value))
    }

    /// The bytes of sessions and tombstones, by the fixed formula.
    pub fn metadata_bytes(&self, rules: &Rules) -> u64 {
        self.record_count().saturating_mul(rules.session_metadata_bytes).saturating_add(self.text_bytes)
    }

    /// The bytes of all leases, by their fixed formula.
    pub fn lease_bytes(&self, rules: &Rules) -> u64 {
        (self.leases.len() as u64).saturating_mul(rules.lease_bytes).saturating_add(self.lease_text_bytes)
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
            leases: self.leases.len() as u64,
            metadata_bytes: self.metadata_bytes(rules),
            lease_bytes: self.lease_bytes(rules),
        }
    }

    /// Makes a row of a record that has none.
    fn made(&mut self, effects: &mut Effects, row: Row) -> RowState {
        let row = make(effects, row);
        self.made_digest = self.made_digest.wrapping_add(row.hash);
        row
    }

    /// Takes the share of a row that is there.
    fn loaded(&mut self, table: u8, key: &Bytes, value: &Bytes) -> RowState {
        let hash = digest::row(table, key, value);
        self.made_digest = self.made_digest.wrapping_add(hash);
        RowState::made(hash)
    }

    /// A record is gone: one of which no row was ever made leaves nothing, any other the deletion of its row (L39).
    fn ended(&mut self, row: RowState, effects: &mut Effects, key: impl FnOnce() -> (u8, Bytes)) {
        self.left(row.hash);
        if row.is_made {
            let (table, key) = key();
            effects.delete(table, key);
        }
    }

    fn left(&mut self, hash: u64) {
        self.made_digest = self.made_digest.wrapping_sub(hash);
    }

    fn move_due(&mut self, from_ms: Option<u64>, to_ms: Option<u64>, due: impl Fn() -> Due) {
        if let Some(from_ms) = from_ms {
            self.due.remove(&(from_ms, due()));
        }
        if let Some(to_ms) = to_ms {
            self.due.insert((to_ms, due()));
        }
    }
}

/// Table, key, value.
type Row = (u8, Bytes, Bytes);

pub(super) fn session_row(id: &SessionId, session: &Session) -> Row {
    (rows::SESSIONS, rows::session_key(id), rows::encode(session))
}

pub(super) fn tombstone_row(id: &SessionId, tombstone: &Tombstone) -> Row {
    (rows::TOMBSTONES, rows::session_key(id), rows::encode(tombstone))
}

pub(super) fn client_row(client: ClientId, header: &ClientHeader) -> Row {
    (rows::CLIENTS, rows::client_key(client), rows::encode(header))
}

pub(super) fn outcome_row(client: ClientId, sequence: Sequence, outcome: &Outcome) -> Row {
    (rows::OUTCOMES, rows::outcome_key(client, sequence), rows::encode(outcome))
}

pub(super) fn lease_row(id: &SessionId, lease: &Lease) -> Row {
    (rows::LEASES, rows::session_key(id), rows::encode(lease))
}

/// The bytes of a lease that its texts take.
pub(super) fn lease_text_bytes(id: &SessionId, lease: &Lease) -> u64 {
    (id.as_str().len() + lease.holder.as_str().len()) as u64
}

/// Makes a row, whose share in the digest is still to be added.
fn make(effects: &mut Effects, (table, key, value): Row) -> RowState {
    let row = RowState::made(digest::row(table, &key, &value));
    effects.put(table, key, value);
    row
}

/// Makes a row if the mark at this place is its record's. Answers what it adds to the digest.
fn make_marked(state: &mut RowState, place: usize, effects: &mut Effects, row: impl FnOnce() -> Row) -> u64 {
    if !state.is_at(place) {
        return 0;
    }
    *state = make(effects, row());
    state.hash
}
