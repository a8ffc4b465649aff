//! The usage of the tables by holder and by prefix, counted as they change: beside the state and no part of it.
//!
//! No outcome, row or digest depends on these counts, and replicas need not agree: each node counts from its own start. A *holder* is a
//! token, for the server. Clients, and with them their outcomes, count for their holder; sessions and tombstones count for each *counted
//! prefix* that their ids start with.
//!
//! ```text
//! expect(nonce, holder) ... OpenClient applied ──> the client is the holder's
//! claim(client, nonce, holder) ─────────────────> an earlier client is the holder's
//! set_prefixes ─> count_on, count_on ... ────────> prefix_usage(prefix) is complete; before, ids up to the last counted one are in it
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::session::Session;
use super::tables::lease_text_bytes;
use super::{Counts, Machine, Rules};
use crate::types::{ClientId, Nonce, Request, SessionId};

/// Nonces that are proposed to become clients, at most: more than can be in flight. Those of proposals that were lost go when it is full.
const EXPECTED_MAX: usize = 8192;

/// The part of the client table that counts for one holder.
#[derive(Debug, Default)]
pub struct HolderUsage {
    clients: AtomicU64,
    outcomes: AtomicU64,
}

impl HolderUsage {
    /// Its clients.
    pub fn clients(&self) -> u64 {
        self.clients.load(Ordering::Relaxed)
    }

    /// Their recorded outcomes.
    pub fn outcomes(&self) -> u64 {
        self.outcomes.load(Ordering::Relaxed)
    }
}

/// The holder of a client. Dropping it takes its counts back; a clone has no holder, since one machine is the one that counts.
#[derive(Debug, Default)]
pub(super) struct Owner(Option<Arc<HolderUsage>>, u64);

impl Owner {
    fn of(held: Arc<HolderUsage>, outcomes: u64) -> Self {
        held.clients.fetch_add(1, Ordering::Relaxed);
        held.outcomes.fetch_add(outcomes, Ordering::Relaxed);
        Self(Some(held), outcomes)
    }

    fn is(&self, held: &Arc<HolderUsage>) -> bool {
        self.0.as_ref().is_some_and(|own| Arc::ptr_eq(own, held))
    }

    /// Counts a recorded outcome for as many as it counts for.
    pub fn recorded(&mut self, weight: u64) {
        if let Some(held) = &self.0 {
            held.outcomes.fetch_add(weight, Ordering::Relaxed);
            self.1 += weight;
        }
    }

    /// Takes a closed outcome back.
    pub fn closed(&mut self, weight: u64) {
        if let Some(held) = &self.0 {
            held.outcomes.fetch_sub(weight, Ordering::Relaxed);
            self.1 = self.1.saturating_sub(weight);
        }
    }
}

impl Clone for Owner {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(held) = &self.0 {
            held.clients.fetch_sub(1, Ordering::Relaxed);
            held.outcomes.fetch_sub(self.1, Ordering::Relaxed);
        }
    }
}

/// The bytes and the deadline that count of a session; of a tombstone all are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Bytes of the content, as stored.
    pub stored_bytes: u64,
    /// Bytes of the label.
    pub label_bytes: u64,
    /// The deadline, which has a key in an index.
    pub deadline_ms: Option<u64>,
}

impl Size {
    pub fn of(session: &Session) -> Self {
        Self { stored_bytes: session.stored_bytes, label_bytes: session.label_bytes(), deadline_ms: session.deadline_ms }
    }
}

/// The usage under one prefix of ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixUsage {
    /// Sessions and tombstones.
    pub records: u64,
    /// Bytes of their ids and labels.
    pub text_bytes: u64,
    /// Bytes of the sessions' content, as stored.
    pub stored_bytes: u64,
    /// Leases.
    pub leases: u64,
    /// Bytes of their ids and holders.
    pub lease_text_bytes: u64,
}

impl PrefixUsage {
    /// The bytes that count against the bound on leases.
    pub fn lease_bytes(&self, rules: &Rules) -> u64 {
        self.leases.saturating_mul(rules.lease_bytes).saturating_add(self.lease_text_bytes)
    }

    /// The bytes that count against the bound on metadata.
    pub fn metadata_bytes(&self, rules: &Rules) -> u64 {
        self.records.saturating_mul(rules.session_metadata_bytes).saturating_add(self.text_bytes)
    }

    fn add(&mut self, id: &SessionId, size: &Size) {
        self.records += 1;
        self.text_bytes += id.as_str().len() as u64 + size.label_bytes;
        self.stored_bytes += size.stored_bytes;
    }

    fn add_lease(&mut self, text_bytes: u64) {
        self.leases += 1;
        self.lease_text_bytes += text_bytes;
    }

    fn subtract_lease(&mut self, text_bytes: u64) {
        self.leases = self.leases.saturating_sub(1);
        self.lease_text_bytes = self.lease_text_bytes.saturating_sub(text_bytes);
    }

    fn subtract(&mut self, id: &SessionId, size: &Size) {
        // A count that is off must not end a node.
        self.records = self.records.saturating_sub(1);
        self.text_bytes = self.text_bytes.saturating_sub(id.as_str().len() as u64 + size.label_bytes);
        self.stored_bytes = self.stored_bytes.saturating_sub(size.stored_bytes);
    }

    fn join(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            text_bytes: self.text_bytes + other.text_bytes,
            stored_bytes: self.stored_bytes + other.stored_bytes,
            leases: self.leases + other.leases,
            lease_text_bytes: self.lease_text_bytes + other.lease_text_bytes,
        }
    }
}

/// How far the records that were there before are counted.
#[derive(Clone, Debug, Default)]
enum Progress {
    #[default]
    Nothing,
    /// Ids up to and with this one.
    Until(SessionId),
    All,
}

/// The counted prefixes, and the holders of clients that are being opened.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    /// Given by the caller that set the prefixes, which sees by it whether they are still in force.
    generation: u64,
    counted: BTreeMap<Box<str>, PrefixUsage>,
    /// The lengths of the prefixes, ascending, each once.
    lengths: Vec<usize>,
    progress: Progress,
    expected: Expected,
}

/// The holders of clients by nonce. A clone is empty, like that of [`Owner`].
#[derive(Debug, Default)]
struct Expected(BTreeMap<Nonce, Arc<HolderUsage>>);

impl Clone for Expected {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Meter {
    /// Counts a record that was added.
    pub fn added(&mut self, id: &SessionId, size: &Size) {
        if self.counts(id) {
            self.each(id, |usage| usage.add(id, size));
        }
    }

    /// Takes a removed record back.
    pub fn removed(&mut self, id: &SessionId, size: &Size) {
        if self.counts(id) {
            self.each(id, |usage| usage.subtract(id, size));
        }
    }

    /// Counts a lease that was added.
    pub fn lease_added(&mut self, id: &SessionId, text_bytes: u64) {
        if self.counts(id) {
            self.each(id, |usage| usage.add_lease(text_bytes));
        }
    }

    /// Takes a removed lease back.
    pub fn lease_removed(&mut self, id: &SessionId, text_bytes: u64) {
        if self.counts(id) {
            self.each(id, |usage| usage.subtract_lease(text_bytes));
        }
    }

    /// Counts a session at its new size.
    pub fn resized(&mut self, id: &SessionId, from: &Size, to: &Size) {
        let same = (from.stored_bytes, from.label_bytes) == (to.stored_bytes, to.label_bytes);
        if !same && self.counts(id) {
            self.each(id, |usage| {
                usage.stored_bytes = usage.stored_bytes.saturating_sub(from.stored_bytes).saturating_add(to.stored_bytes);
                usage.text_bytes = usage.text_bytes.saturating_sub(from.label_bytes).saturating_add(to.label_bytes);
            });
        }
    }

    /// The holder of a client that was opened just now.
    pub fn opened(&mut self, nonce: &Nonce) -> Owner {
        if self.expected.0.is_empty() {
            return Owner::default();
        }
        self.expected.0.remove(nonce).map_or_else(Owner::default, |held| Owner::of(held, 0))
    }

    fn counts(&self, id: &SessionId) -> bool {
        match &self.progress {
            Progress::Nothing => false,
            Progress::Until(last) => id <= last,
            Progress::All => true,
        }
    }

    fn each(&mut self, id: &SessionId, mut change: impl FnMut(&mut PrefixUsage)) {
        for length in &self.lengths {
            // No prefix ends within a character of this id, if it ends there.
            let Some(prefix) = id.as_str().get(..*length) else { continue };
            if let Some(usage) = self.counted.get_mut(prefix) {
                change(usage);
            }
        }
    }
}

/// A client, for operators. The nonce is a credential and must stay inside this process.
pub struct OpenedClient {
    /// Its id.
    pub id: ClientId,
    /// Its nonce.
    pub nonce: Nonce,
    /// Its holder, if this node knows it.
    pub held: Option<Arc<HolderUsage>>,
    /// Its recorded outcomes, each for as many as it counts for.
    pub outcomes: u64,
    /// Machine time since its last call, in milliseconds.
    pub idle_ms: u64,
}

/// A machine, to read and set holders and counted prefixes. No replicated state changes.
pub struct Metered<'m>(&'m mut Machine);

impl Machine {
    /// Its meter, to change it.
    pub fn metered(&mut self) -> Metered<'_> {
        Metered(self)
    }

    /// The usage under these prefixes together; none may begin with another. `None`: one of them is not counted, or not all earlier
    /// records are yet.
    pub fn prefix_usage<'a>(&self, prefixes: impl IntoIterator<Item = &'a str>) -> Option<PrefixUsage> {
        let meter = &self.tables.meter;
        let complete = matches!(meter.progress, Progress::All);
        let mut counted = prefixes.into_iter().map(|prefix| meter.counted.get(prefix).copied());
        counted.try_fold(PrefixUsage::default(), |sum, usage| Some(sum.join(usage?))).filter(|_| complete)
    }

    /// The generation given to [`Metered::set_prefixes`]; 0: never set.
    pub fn prefixes_generation(&self) -> u64 {
        self.tables.meter.generation
    }

    /// The rules in force.
    pub fn rules(&self) -> &'static Rules {
        self.rules
    }

    /// At most `limit` clients, in order of their ids, beyond `after`.
    pub fn clients_after(&self, after: Option<ClientId>, limit: usize) -> Vec<OpenedClient> {
        let beyond = after.map_or(Bound::Unbounded, Bound::Excluded);
        let client = |(id, row): (&ClientId, &super::tables::Client)| OpenedClient {
            id: *id,
            nonce: row.header.nonce,
            held: row.owner.0.clone(),
            outcomes: row.weight,
            idle_ms: self.now_ms.saturating_add(self.rules.client_idle_ttl_ms).saturating_sub(row.header.deadline_ms),
        };
        self.tables.clients.range((beyond, Bound::Unbounded)).take(limit).map(client).collect()
    }
}

impl Metered<'_> {
    /// The counts of all tables.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }

    /// The rules in force.
    pub fn rules(&self) -> &'static Rules {
        self.0.rules
    }

    /// The usage under these prefixes together, as by [`Machine::prefix_usage`].
    pub fn prefix_usage<'a>(&self, prefixes: impl IntoIterator<Item = &'a str>) -> Option<PrefixUsage> {
        self.0.prefix_usage(prefixes)
    }

    /// Counts under these prefixes from now on, in place of those before. [`Metered::count_on`] counts the records that are there.
    pub fn set_prefixes(&mut self, generation: u64, prefixes: impl Iterator<Item = Box<str>>) {
        let meter = &mut self.0.tables.meter;
        meter.generation = generation;
        meter.counted = prefixes.map(|prefix| (prefix, PrefixUsage::default())).collect();
        let mut lengths: Vec<usize> = meter.counted.keys().map(|prefix| prefix.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        meter.lengths = lengths;
        meter.progress = Progress::Nothing;
    }

    /// Counts at most `limit` sessions that were there before, and as many tombstones and leases; whether more are left.
    pub fn count_on(&mut self, limit: usize) -> bool {
        let tables = &mut self.0.tables;
        let after = match std::mem::replace(&mut tables.meter.progress, Progress::All) {
            Progress::All => return false,
            Progress::Nothing => Bound::Unbounded,
            Progress::Until(last) => Bound::Excluded(last),
        };
        let range = (after, Bound::Unbounded);
        let ends = [
            tables.sessions.range(range.clone()).map(|(id, _)| id).nth(limit.saturating_sub(1)),
            tables.tombstones.range(range.clone()).map(|(id, _)| id).nth(limit.saturating_sub(1)),
            tables.leases.range(range.clone()).map(|(id, _)| id).nth(limit.saturating_sub(1)),
        ];
        let last = ends.into_iter().flatten().min().cloned();
        let within = |id: &SessionId| last.as_ref().is_none_or(|last| id <= last);
        let sessions = tables.sessions.range(range.clone()).map(|(id, session)| (id, Size::of(&session.value)));
        let tombstones = tables.tombstones.range(range.clone()).map(|(id, _)| (id, Size::default()));
        for (id, size) in sessions.take_while(|(id, _)| within(id)).chain(tombstones.take_while(|(id, _)| within(id))) {
            tables.meter.each(id, |usage| usage.add(id, &size));
        }
        for (id, lease) in tables.leases.range(range).take_while(|(id, _)| within(id)) {
            tables.meter.each(id, |usage| usage.add_lease(lease_text_bytes(id, &lease.value)));
        }
        let Some(last) = last else { return false };
        tables.meter.progress = Progress::Until(last);
        true
    }

    /// Makes a client that is opened with this nonce the holder's.
    pub fn expect(&mut self, nonce: Nonce, held: &Arc<HolderUsage>) {
        let expected = &mut self.0.tables.meter.expected.0;
        if expected.len() >= EXPECTED_MAX {
            expected.clear();
        }
        expected.insert(nonce, held.clone());
    }

    /// Whether this client, if it is there, is its holder's already.
    pub fn is_held_by(&self, client: ClientId, nonce: Nonce, held: &Arc<HolderUsage>) -> bool {
        let row = self.0.tables.clients.get(&client).filter(|row| row.header.nonce == nonce);
        row.is_none_or(|row| row.owner.is(held))
    }

    /// Gives a client to this holder, with its outcomes. Nothing happens without the client's nonce.
    pub fn claim(&mut self, client: ClientId, nonce: Nonce, held: &Arc<HolderUsage>) {
        if let Some(row) = self.0.tables.clients.get_mut(&client).filter(|row| row.header.nonce == nonce) {
            row.owner = Owner::of(held.clone(), row.weight);
        }
    }

    /// Whether there is a client with this nonce.
    pub fn knows(&self, nonce: &Nonce) -> bool {
        self.0.tables.nonces.contains_key(nonce)
    }

    /// Whether a request adds no outcome to those of its client: it was answered, or it closes at least one.
    pub fn adds_no_outcome(&self, request: &Request) -> bool {
        self.0.tables.clients.get(&request.client).is_none_or(|row| {
            let oldest = row.outcomes.first_key_value().map(|(sequence, _)| *sequence);
            oldest.is_some_and(|oldest| oldest < request.acknowledged_below) || row.outcomes.contains_key(&request.sequence)
        })
    }

    /// Whether there is a session or a tombstone of this id.
    pub fn has_record(&self, id: &SessionId) -> bool {
        self.0.tables.sessions.contains_key(id) || self.0.tables.tombstones.contains_key(id)
    }

    /// Bytes of the lease of a session, by the fixed formula, whether it lives or waits for its sweep; 0 of none.
    pub fn lease_bytes(&self, id: &SessionId) -> u64 {
        let bytes = |lease| self.0.rules.lease_bytes + lease_text_bytes(id, lease);
        self.0.tables.leases.get(id).map_or(0, |lease| bytes(&lease.value))
    }

    /// Bytes of a session's content as stored; 0 of none.
    pub fn stored_bytes(&self, id: &SessionId) -> u64 {
        self.0.tables.sessions.get(id).map_or(0, |session| session.value.stored_bytes)
    }
}
