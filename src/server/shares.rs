//! The shares of tokens: their limits and usage, judged before a write is proposed (decision 0073).
//!
//! ```text
//! every node   submit ── bytes in flight ──> admitted
//! the leader   a batch, before it is proposed ── clients, outcomes, new ids, sessions, stored bytes ──> a Hold, or a refusal
//! the machine  counts what is applied; a Hold counts what is proposed and not yet answered
//! ```
//!
//! Nothing is proposed for a token beyond its shares, as far as this node knows the holders: after a change of the leader a client has no
//! holder until it calls. Without a tokens file nothing is counted and nothing is refused here.

mod count;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use count::{Usage, nearly_used_up, run, tables, tokens};

use super::auth::{Grant, Portion, Portions, Resource, Scope};
use crate::limits::{
    BATCH_BYTES_MAX, IN_FLIGHT_BYTES_MAX, LARGE_BYTES_PER_SECOND, METADATA_BYTES_MAX, NEW_IDS_PER_SECOND, SESSIONS_MAX,
    SHARE_RETRY_AFTER,
};
use crate::machine::{HolderUsage, Metered};
use crate::raft::BytePermit;
use crate::types::{
    Addition, Attributes, Base, Change, Holder, Operation, Refusal, RefusalKind, Request, Require, SessionId, Write,
};

/// The part of the tables of clients and outcomes that only operators may fill: one of so many.
const CLIENTS_RESERVE: u64 = 25;
const OUTCOMES_RESERVE: u64 = 50;
/// New ids may come in bursts, of what comes in so many seconds.
const BURST_SECONDS: u64 = 10;

/// The shares of one token. Its counts outlive a change of the tokens file.
pub struct Share {
    name: Arc<str>,
    portions: Portions,
    /// Whether it may use the reserves.
    is_admin: bool,
    /// The ids of its sessions start with one of these; none starts with another.
    prefixes: Vec<Box<str>>,
    live: Arc<Live>,
}

/// A bucket that leaks: what is taken makes the next one due later. When that is, in microseconds of the node's monotonic clock.
#[derive(Default)]
struct Bucket(AtomicU64);

impl Bucket {
    /// How far ahead of its time one would be that comes now; 0: it is due.
    fn ahead_us(&self, now: Duration) -> u64 {
        self.0.load(Ordering::Relaxed).saturating_sub(now.as_micros() as u64)
    }

    fn take(&self, takes_us: u64, now: Duration) {
        let due_us = self.0.load(Ordering::Relaxed).max(now.as_micros() as u64);
        self.0.store(due_us.saturating_add(takes_us), Ordering::Relaxed);
    }
}

/// The counts of one token.
#[derive(Default)]
struct Live {
    held: Arc<HolderUsage>,
    proposed: Proposed,
    in_flight: Arc<AtomicU64>,
    /// Loaded content that waits for its readers.
    loaded: Arc<AtomicU64>,
    new_ids: Bucket,
    large_bytes: Bucket,
    refused: [AtomicU64; Resource::ALL.len()],
}

/// The most that unanswered proposals may add.
#[derive(Default)]
struct Proposed {
    clients: AtomicU64,
    outcomes: AtomicU64,
    records: AtomicU64,
    stored_bytes: AtomicU64,
    lease_bytes: AtomicU64,
}

/// The most that one proposal may add, counted until it is answered.
pub struct Hold {
    live: Arc<Live>,
    adds: Adds,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Adds {
    clients: u64,
    outcomes: u64,
    records: u64,
    /// Of their ids and labels.
    text_bytes: u64,
    stored_bytes: u64,
    lease_bytes: u64,
}

impl Adds {
    /// With the counter of each.
    fn counters<'l>(&self, live: &'l Live) -> [(&'l AtomicU64, u64); 5] {
        let Proposed { clients, outcomes, records, stored_bytes, lease_bytes } = &live.proposed;
        [
            (clients, self.clients),
            (outcomes, self.outcomes),
            (records, self.records),
            (stored_bytes, self.stored_bytes),
            (lease_bytes, self.lease_bytes),
        ]
    }
}

impl Hold {
    fn new(live: &Arc<Live>, adds: Adds) -> Self {
        for (counter, more) in adds.counters(live) {
            counter.fetch_add(more, Ordering::Relaxed);
        }
        Self { live: live.clone(), adds }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for (counter, less) in self.adds.counters(&self.live) {
            counter.fetch_sub(less, Ordering::Relaxed);
        }
    }
}

/// The circumstances of a write.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// By the node's monotonic clock.
    pub now: Duration,
    /// Bytes of the file system that the data lies on.
    pub disk_bytes: u64,
    /// Whether other tokens call too.
    pub is_contested: bool,
}

/// The content that a write would store.
struct NewContent<'w> {
    id: &'w SessionId,
    bytes: u64,
    may_create: bool,
    /// Whether it takes the place of all that is stored.
    replaces: bool,
    /// Bytes of the label it sets.
    label_bytes: u64,
}

impl<'w> NewContent<'w> {
    /// Of each session that the write brings content to.
    fn all(write: &'w Write) -> impl Iterator<Item = Self> {
        let one = match write {
            Write::Save { id, change, attributes, .. } | Write::SaveIfVersion { id, change, attributes, .. } => {
                Some(Self::saved(id, change, attributes))
            }
            Write::Append { id, require, addition, attributes, .. } => Some(Self::appended(id, *require, addition, attributes)),
            // What a repack brings takes no more than what goes.
            Write::Touch { .. }
            | Write::Repack { .. }
            | Write::Delete { .. }
            | Write::AcquireLease { .. }
            | Write::RenewLeases { .. }
            | Write::ReleaseLease { .. }
            | Write::Transaction { .. }
            | Write::OpenClient { .. }
            | Write::KeepAlive { .. }
            | Write::CloseClient { .. } => None,
        };
        let within = write.operations().iter().filter_map(|operation| match operation {
            Operation::Save { id, change, attributes, .. } | Operation::SaveIfVersion { id, change, attributes, .. } => {
                Some(Self::saved(id, change, attributes))
            }
            Operation::Append { id, require, addition, attributes, .. } => Some(Self::appended(id, *require, addition, attributes)),
            Operation::Require { .. } | Operation::Delete { .. } => None,
        });
        one.into_iter().chain(within)
    }

    fn saved(id: &'w SessionId, change: &Change, attributes: &Attributes) -> Self {
        let replaces = matches!(change, Change::Full { .. });
        let may_create = replaces || matches!(change, Change::Delta { base: Base::Absent, .. });
        Self { id, bytes: change.stored_bytes(), may_create, replaces, label_bytes: label_bytes(attributes) }
    }

    fn appended(id: &'w SessionId, require: Require, addition: &Addition, attributes: &Attributes) -> Self {
        let may_create = require.may_create();
        Self { id, bytes: addition.stored_bytes(), may_create, replaces: false, label_bytes: label_bytes(attributes) }
    }
}

fn label_bytes(attributes: &Attributes) -> u64 {
    attributes.label.as_ref().map_or(0, |label| label.as_str().len() as u64)
}

impl Share {
    /// The shares of a token, with the counts of `before`.
    pub fn new(grant: &Grant, before: Option<&Share>) -> Self {
        let mut prefixes: Vec<Box<str>> = Vec::new();
        let mut sorted: Vec<&str> = grant.prefixes().iter().map(String::as_str).collect();
        sorted.sort_unstable();
        for prefix in sorted {
            if prefixes.last().is_none_or(|last| !prefix.starts_with(&**last)) {
                prefixes.push(prefix.into());
            }
        }
        if prefixes.is_empty() {
            prefixes.push("".into());
        }
        Self {
            name: grant.name.clone(),
            portions: grant.portions,
            is_admin: grant.has(Scope::Admin),
            prefixes,
            live: before.map(|before| before.live.clone()).unwrap_or_default(),
        }
    }

    /// The token's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The flow of its operations, for fair queueing.
    pub fn flow(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Bytes of content in proposals that are not answered.
    pub fn proposed_bytes(&self) -> u64 {
        self.live.proposed.stored_bytes.load(Ordering::Relaxed)
    }

    /// Loaded bytes that wait for its readers.
    pub fn loaded(&self) -> &Arc<AtomicU64> {
        &self.live.loaded
    }

    /// Identifies its holder in the client table.
    pub fn held_at(&self) -> usize {
        Arc::as_ptr(&self.live.held).addr()
    }

    /// The ids of its sessions start with one of these.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.prefixes.iter().map(|prefix| &**prefix)
    }

    /// Counts an operation's bytes from now on, in `total` too. While half of the total is free a token may exceed its share.
    ///
    /// `None`: too much is in flight in all. Errors: too much of this token is. Nothing changed.
    pub fn charge(&self, total: &Arc<AtomicU64>, bytes: u64) -> Result<Option<BytePermit>, Refusal> {
        let own = &self.live.in_flight;
        let used = own.fetch_add(bytes, Ordering::Relaxed);
        if let Err(refusal) = self.room_in_flight(used, total, bytes) {
            own.fetch_sub(bytes, Ordering::Relaxed);
            return Err(refusal);
        }
        let permit = BytePermit::within(total, bytes, IN_FLIGHT_BYTES_MAX);
        if permit.is_none() {
            own.fetch_sub(bytes, Ordering::Relaxed);
        }
        Ok(permit.map(|permit| permit.with(own)))
    }

    /// Whether [`Share::charge`] would have room now for an operation that is still arriving. Errors: likely not; nothing changed.
    pub fn expect_room(&self, total: &AtomicU64, bytes: u64) -> Result<(), Refusal> {
        self.room_in_flight(self.live.in_flight.load(Ordering::Relaxed), total, bytes)
    }

    fn room_in_flight(&self, used: u64, total: &AtomicU64, bytes: u64) -> Result<(), Refusal> {
        let limit = self.portions.of(Resource::InFlightBytes).of(IN_FLIGHT_BYTES_MAX).unwrap_or(IN_FLIGHT_BYTES_MAX);
        let in_all = total.load(Ordering::Relaxed).saturating_add(bytes);
        if used == 0 || used.saturating_add(bytes) <= limit || in_all <= IN_FLIGHT_BYTES_MAX / 2 {
            return Ok(());
        }
        Err(self.refuse(Resource::InFlightBytes, used.saturating_add(bytes), limit, "fewer or smaller writes at once"))
    }

    /// Whether a write may be proposed for this token, by what the machine has applied and what is proposed already. The client of the
    /// write is this token's from then on.
    ///
    /// Errors: `Overloaded`, naming the share and both numbers; nothing changed.
    pub fn judge(&self, write: &Write, machine: &mut Metered<'_>, at: Circumstances) -> Result<Option<Hold>, Refusal> {
        let mut adds = Adds::default();
        match write {
            Write::OpenClient { nonce } => {
                if !machine.knows(nonce) {
                    self.room_for_client(machine)?;
                    machine.expect(*nonce, &self.live.held);
                    adds.clients = 1;
                }
            }
            Write::KeepAlive { client, nonce, .. } => self.claim(*client, *nonce, machine)?,
            Write::CloseClient { .. } => {}
            Write::Save { request, .. }
            | Write::SaveIfVersion { request, .. }
            | Write::Append { request, .. }
            | Write::Touch { request, .. }
            | Write::Delete { request, .. }
            | Write::Repack { request, .. }
            | Write::Transaction { request, .. }
            | Write::AcquireLease { request, .. }
            | Write::RenewLeases { request, .. }
            | Write::ReleaseLease { request, .. } => {
                self.claim(request.client, request.nonce, machine)?;
                self.room_for_outcome(request, write.weight(), machine)?;
                adds.outcomes = write.weight();
                for content in NewContent::all(write) {
                    self.room_for_content(&content, machine, at, &mut adds)?;
                    adds.stored_bytes += content.bytes;
                }
                if let Write::AcquireLease { id, holder, .. } = write {
                    adds.lease_bytes = self.room_for_lease(id, holder, machine)?;
                }
                if let Some(rate) = self.new_ids_rate().filter(|_| adds.records > 0) {
                    self.take_new_ids(adds.records, rate, at.now)?;
                }
            }
        }
        if at.is_contested && adds.stored_bytes > BATCH_BYTES_MAX {
            self.take_large(adds.stored_bytes, at.now);
        }
        Ok((adds != Adds::default()).then(|| Hold::new(&self.live, adds)))
    }

    /// Whether a large write of this token may go while other tokens call: the earlier ones are paid for at the token's rate. A write that is
    /// due goes whatever its size, and makes the next one due later. `now`: by the node's monotonic clock.
    pub fn large_is_due(&self, now: Duration) -> bool {
        self.large_rate().is_none_or(|rate| rate > 0 && self.live.large_bytes.ahead_us(now) == 0)
    }

    /// Bytes of large writes per second while other tokens call; `None`: as many as come.
    fn large_rate(&self) -> Option<u64> {
        self.portions.of(Resource::LargeBytes).of(LARGE_BYTES_PER_SECOND)
    }

    fn take_large(&self, bytes: u64, now: Duration) {
        if let Some(rate) = self.large_rate() {
            self.live.large_bytes.take(bytes.saturating_mul(1_000_000).checked_div(rate).unwrap_or(0), now);
        }
    }

    /// The refusal of a large write whose deadline passes while the token's rate holds it back. Nothing changed.
    pub fn refuse_held_back(&self, bytes: u64) -> Refusal {
        let rate = self.large_rate().unwrap_or(LARGE_BYTES_PER_SECOND);
        let advice = "the write waited until its deadline while other tokens called: save less at once, or give it more time";
        self.refuse(Resource::LargeBytes, bytes, rate, advice)
    }

    /// A client that this node knows as nobody's, or another's, is the token's if it still has a place for it.
    fn claim(&self, client: crate::types::ClientId, nonce: crate::types::Nonce, machine: &mut Metered<'_>) -> Result<(), Refusal> {
        if machine.is_held_by(client, nonce, &self.live.held) {
            return Ok(());
        }
        self.own_room_for_client(machine)?;
        machine.claim(client, nonce, &self.live.held);
        Ok(())
    }

    fn own_room_for_client(&self, machine: &Metered<'_>) -> Result<(), Refusal> {
        let used = self.live.held.clients() + self.live.proposed.clients.load(Ordering::Relaxed);
        match self.portions.of(Resource::Clients).of(machine.rules().clients_max) {
            Some(limit) if used >= limit => {
                Err(self.refuse(Resource::Clients, used, limit, "close clients, or wait for idle ones to end within the hour"))
            }
            _ => Ok(()),
        }
    }

    fn room_for_client(&self, machine: &Metered<'_>) -> Result<(), Refusal> {
        self.own_room_for_client(machine)?;
        let (used, all) = (machine.counts().clients, machine.rules().clients_max);
        self.beside_reserve(Resource::Clients, used, all - all / CLIENTS_RESERVE)
    }

    /// One more outcome is the last; those of a transaction's other operations come on top.
    fn room_for_outcome(&self, request: &Request, weight: u64, machine: &Metered<'_>) -> Result<(), Refusal> {
        let rules = machine.rules();
        let used = self.live.held.outcomes() + self.live.proposed.outcomes.load(Ordering::Relaxed) + (weight - 1);
        let in_all = machine.counts().outcomes + (weight - 1);
        let limit = self.portions.of(Resource::Outcomes).of(rules.outcomes_max);
        let most = rules.outcomes_max - rules.outcomes_max / OUTCOMES_RESERVE;
        if limit.is_none_or(|limit| used < limit) && (in_all < most || self.is_admin) {
            return Ok(());
        }
        // What repeats a request, or makes room for itself, always continues.
        if machine.adds_no_outcome(request) {
            return Ok(());
        }
        if let Some(limit) = limit.filter(|limit| used >= *limit) {
            return Err(self.refuse(
                Resource::Outcomes,
                used,
                limit,
                "let its clients acknowledge what was answered, or close them",
            ));
        }
        self.beside_reserve(Resource::Outcomes, in_all, most)
    }

    /// Refuses what would take the operators' reserve.
    fn beside_reserve(&self, what: Resource, used: u64, most: u64) -> Result<(), Refusal> {
        if used < most || self.is_admin {
            return Ok(());
        }
        self.live.refused[what as usize].fetch_add(1, Ordering::Relaxed);
        let name = what.name();
        let message = format!(
            "the table of {name} is full but for what is kept for tokens with scope admin; nothing changed; an operator sees who fills it \
             with `quorate doctor` token={:?} table={name} used={used} limit={most}",
            self.name
        );
        Err(Refusal::not_applied(RefusalKind::Overloaded { retry_after: SHARE_RETRY_AFTER }, message))
    }

    fn room_for_content(
        &self,
        content: &NewContent<'_>,
        machine: &Metered<'_>,
        at: Circumstances,
        adds: &mut Adds,
    ) -> Result<(), Refusal> {
        let NewContent { id, bytes, may_create, replaces, label_bytes } = *content;
        let stored = self.portions.of(Resource::StoredBytes).of(at.disk_bytes).filter(|_| at.disk_bytes > 0 || !self.is_part());
        let sessions = self.portions.of(Resource::Sessions);
        let creates = may_create && (self.new_ids_rate().is_some() || sessions != Portion::ALL) && !machine.has_record(id);
        if stored.is_none() && !creates {
            return Ok(());
        }
        // Not all is counted yet, after a start or a change of the tokens: then nothing is refused for it.
        if let Some(usage) = machine.prefix_usage(self.prefixes()) {
            let proposed = &self.live.proposed;
            if let Some(limit) = stored {
                let used = usage.stored_bytes + proposed.stored_bytes.load(Ordering::Relaxed) + adds.stored_bytes;
                let replaced = if replaces { machine.stored_bytes(id) } else { 0 };
                if used.saturating_add(bytes) > limit && bytes > replaced {
                    let now = (used + bytes).saturating_sub(replaced);
                    return Err(self.refuse(Resource::StoredBytes, now, limit, "delete sessions, or let them expire"));
                }
            }
            if let Some(limit) = sessions.of(SESSIONS_MAX as u64).filter(|_| creates) {
                let used = usage.records + proposed.records.load(Ordering::Relaxed) + adds.records;
                let rules = machine.rules();
                let metadata = usage.metadata_bytes(rules)
                    + (adds.records + 1) * rules.session_metadata_bytes
                    + adds.text_bytes
                    + id.as_str().len() as u64
                    + label_bytes;
                let is_long = metadata > portion_of(METADATA_BYTES_MAX, limit);
                if used >= limit || is_long {
                    let what =
                        "tombstones of deleted sessions count for 7 days, and ids and labels above 150 bytes for more than one";
                    return Err(self.refuse(Resource::Sessions, used, limit, what));
                }
            }
        }
        if creates {
            adds.records += 1;
            adds.text_bytes += id.as_str().len() as u64 + label_bytes;
        }
        Ok(())
    }

    /// The bytes that a lease adds to those that are counted; one that takes another's place adds what it is longer.
    fn room_for_lease(&self, id: &SessionId, holder: &Holder, machine: &Metered<'_>) -> Result<u64, Refusal> {
        let rules = machine.rules();
        let Some(limit) = self.portions.of(Resource::LeaseBytes).of(rules.leases_bytes_max) else { return Ok(0) };
        // Not all is counted yet, after a start or a change of the tokens: then nothing is refused for it.
        let Some(usage) = machine.prefix_usage(self.prefixes()) else { return Ok(0) };
        let text_bytes = (id.as_str().len() + holder.as_str().len()) as u64;
        let more = (rules.lease_bytes + text_bytes).saturating_sub(machine.lease_bytes(id));
        let used = usage.lease_bytes(rules) + self.live.proposed.lease_bytes.load(Ordering::Relaxed) + more;
        if more > 0 && used > limit {
            return Err(self.refuse(Resource::LeaseBytes, used, limit, "release leases, or let them end"));
        }
        Ok(more)
    }

    /// Whether stored bytes are a part of the disk, not a number.
    fn is_part(&self) -> bool {
        matches!(self.portions.of(Resource::StoredBytes), Portion::Of(_))
    }

    /// New ids a second; `None`: as many as come.
    fn new_ids_rate(&self) -> Option<u64> {
        self.portions.of(Resource::NewIds).of(NEW_IDS_PER_SECOND)
    }

    /// Each new id makes the next one due a little later, and what is due within the burst's time may come now: those of one write together.
    fn take_new_ids(&self, count: u64, rate: u64, now: Duration) -> Result<(), Refusal> {
        let gap_us = 1_000_000_u64.checked_div(rate).unwrap_or(u64::MAX / 4).max(1);
        let ahead_us = self.live.new_ids.ahead_us(now);
        let most_us = gap_us.saturating_mul(rate.saturating_mul(BURST_SECONDS).saturating_sub(1).max(u64::from(rate > 0)));
        if rate == 0 || ahead_us > most_us {
            let used = (ahead_us / gap_us).max(rate);
            return Err(self.refuse(Resource::NewIds, used, rate, "create sessions more slowly"));
        }
        self.live.new_ids.take(gap_us.saturating_mul(count), now);
        Ok(())
    }

    fn refuse(&self, what: Resource, used: u64, limit: u64, advice: &str) -> Refusal {
        self.live.refused[what as usize].fetch_add(1, Ordering::Relaxed);
        let name = what.name();
        let message = format!(
            "the token's share of {name} is used up; nothing changed; {advice}, or raise shares.{name} in the tokens file token={:?} \
             share={name} used={used} limit={limit}",
            self.name
        );
        Refusal::not_applied(RefusalKind::Overloaded { retry_after: SHARE_RETRY_AFTER }, message)
    }
}

/// The part of `total` that `count` is of all sessions.
fn portion_of(total: u64, count: u64) -> u64 {
    (u128::from(total) * u128::from(count) / SESSIONS_MAX as u128).min(u128::from(total)) as u64
}
