//! Client writes: `Save`, `SaveIfVersion`, `Append`, `Touch`, `Delete`, those of leases, and the order of their checks, which the module [`super`] draws.
//! Those of a transaction are decided here too, each as if it came alone.
//!
//! `decide` looks and returns what to do; `carry_out` does it. Between them nothing can fail.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::Machine;
use super::clients::Admission;
use super::places::Places;
use super::rows::{self, Birth, Effects};
use super::session::{HeadMark, Moment, Session, Tombstone};
use crate::mutant::{self, Mutant};
use crate::types::{
    Addition, Attributes, Base, Blob, Change, Chunk, Counters, Expected, Expiry, Fence, Form, OnConflict, Operation, Outcome,
    Request, Require, SessionId, TooLarge, Verdict, Version, Write,
};

/// A session's state at machine time.
#[derive(Clone, Copy)]
pub(super) enum Found<'m> {
    /// The session exists.
    Live(&'m Session),
    /// The session does not exist; a save continues from the tombstone's version (0 without one).
    Absent { tombstone: Version },
}

impl Found<'_> {
    /// The answer where it is not what was expected.
    fn conflict(self) -> Verdict {
        match self {
            Found::Live(session) => Verdict::Conflict { actual: session.version, tombstone: Version(0) },
            Found::Absent { tombstone } => Verdict::Conflict { actual: Version(0), tombstone },
        }
    }
}

/// A decision that is still to be carried out: what it is answered, and what it does. Between the two nothing can fail.
pub(super) struct Decision<'e> {
    pub verdict: Verdict,
    pub effect: Effect<'e>,
}

/// The effect of a decision on its session.
#[expect(clippy::large_enum_variant, reason = "nearly every decision stores, and a box for each would cost more")]
pub(super) enum Effect<'e> {
    Nothing,
    Store(Plan<'e>),
    /// The chunks that are there, and what is left.
    Remove(u64, Tombstone),
}

impl Decision<'_> {
    fn nothing(verdict: Verdict) -> Self {
        Self { verdict, effect: Effect::Nothing }
    }
}

impl Effect<'_> {
    /// Rows that it drops, at most: a removed session's as a sweep counts them, chunks and head, metadata and tombstone.
    fn rows_dropped(&self) -> u64 {
        match self {
            Effect::Nothing => 0,
            Effect::Remove(chunks, _) => chunks + 3,
            Effect::Store(plan) => plan.old.as_ref().map_or(0, |old| {
                let dropped = old.dropped_by(&plan.session);
                dropped.end - dropped.start + 1
            }),
        }
    }
}

/// The takings of a transaction's operations before this one; a write that comes alone has none before it.
#[derive(Default)]
pub(super) struct Taken {
    /// Sessions that are created ...
    pub creations: u64,
    /// ... records and bytes of metadata that there are more.
    records: u64,
    metadata_bytes: u64,
    stored_bytes: u64,
    /// Rows that are dropped.
    pub rows: u64,
}

impl Taken {
    /// Adds what an operation takes.
    pub fn add(&mut self, operation: &Operation, effect: &Effect<'_>) {
        self.stored_bytes = self.stored_bytes.saturating_add(operation.stored_bytes());
        self.rows = self.rows.saturating_add(effect.rows_dropped());
        let Effect::Store(plan) = effect else { return };
        self.creations += u64::from(plan.creates);
        self.records += plan.records;
        self.metadata_bytes = self.metadata_bytes.saturating_add(plan.metadata_bytes);
    }
}

/// A save, taken apart.
struct SaveRequest<'e> {
    id: &'e SessionId,
    expected: Option<Expected>,
    change: &'e Change,
    on_conflict: OnConflict,
    attributes: &'e Attributes,
}

/// An append, taken apart.
struct AppendRequest<'e> {
    id: &'e SessionId,
    require: Require,
    addition: &'e Addition,
    attributes: &'e Attributes,
}

/// The change of a save.
pub(super) struct Plan<'e> {
    session: Session,
    /// The content that it follows, of a session that is there, expired or not.
    old: Option<OldContent>,
    chunks: &'e [Chunk],
    head: Option<&'e Blob>,
    rebased: bool,
    /// Whether the session begins with it.
    creates: bool,
    /// Records and bytes of metadata that there are more by it.
    records: u64,
    metadata_bytes: u64,
}

impl<'e> Plan<'e> {
    fn of(session: Session, chunks: &'e [Chunk], head: Option<&'e Blob>, rebased: bool) -> Self {
        Self { session, old: None, chunks, head, rebased, creates: false, records: 0, metadata_bytes: 0 }
    }
}

/// Where the content of a session lies.
struct OldContent {
    birth: Birth,
    places: Places,
}

impl OldContent {
    fn of(session: &Session) -> Self {
        Self { birth: session.birth(), places: session.places() }
    }

    /// The positions of the chunks that go once this is stored: all, unless it appends.
    fn dropped_by(&self, next: &Session) -> Range<u64> {
        let appends = self.birth == next.birth() && self.places.begin_as(&next.places());
        if appends { 0..0 } else { self.places.all() }
    }
}

impl Machine {
    pub(super) fn apply_write(&mut self, write: &Write, moment: Moment, effects: &mut Effects) -> Outcome {
        let verdict = match write {
            Write::OpenClient { nonce } => self.open_client(*nonce, moment, effects),
            Write::KeepAlive { client, nonce, acknowledged_below } => {
                self.keep_alive(*client, *nonce, *acknowledged_below, moment, effects)
            }
            Write::CloseClient { client, nonce } => self.close_client(*client, *nonce, moment, effects),
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
                return self
                    .once(request, write.weight(), moment, effects, |machine, effects| machine.execute(write, moment, effects));
            }
        };
        Outcome { revision: moment.revision, verdict }
    }

    /// Executes a request unless its sequence was answered, is closed or is too far ahead; records the answer.
    ///
    /// `BaseMismatch` is not an answer: the sequence stays open, and the same request may carry the full change (L3). Every other verdict is
    /// recorded, and is what a repeated request gets (L4). There must be room for as many outcomes as the answer may count for: `weight`.
    fn once(
        &mut self,
        request: &Request,
        weight: u64,
        moment: Moment,
        effects: &mut Effects,
        execute: impl FnOnce(&mut Self, &mut Effects) -> Verdict,
    ) -> Outcome {
        if let Admission::Answer(outcome) = self.admit(request, weight, moment, effects) {
            return outcome;
        }
        let outcome = Outcome { revision: moment.revision, verdict: execute(self, effects) };
        let answers = match outcome.verdict {
            Verdict::BaseMismatch | Verdict::BaseMismatchAt { .. } => mutant::is(Mutant::BaseMismatchRecorded),
            Verdict::Leased { .. } => !mutant::is(Mutant::LeasedNotRecorded),
            _ => true,
        };
        if answers && !mutant::is(Mutant::NoDedup) {
            self.tables.put_outcome(request.client, request.sequence, outcome.clone());
        }
        outcome
    }

    /// Executes a write that has a request. Before all else that the fence of one to a session is its lease's (L45).
    fn execute(&mut self, write: &Write, moment: Moment, effects: &mut Effects) -> Verdict {
        match write {
            Write::Save { id, change, attributes, fence, .. } => {
                let save = SaveRequest { id, expected: None, change, on_conflict: OnConflict::Reject, attributes };
                self.fenced(id, *fence, |machine| machine.save(&save, moment, effects))
            }
            Write::SaveIfVersion { id, expected, change, on_conflict, attributes, fence, .. } => {
                let save = SaveRequest { id, expected: Some(*expected), change, on_conflict: *on_conflict, attributes };
                self.fenced(id, *fence, |machine| machine.save(&save, moment, effects))
            }
            Write::Append { id, require, addition, attributes, fence, .. } => {
                let append = AppendRequest { id, require: *require, addition, attributes };
                self.fenced(id, *fence, |machine| machine.append(&append, moment, effects))
            }
            Write::Touch { id, expiry, fence, .. } => self.fenced(id, *fence, |machine| machine.touch_session(id, *expiry)),
            Write::Delete { id, expected, fence, .. } => {
                self.fenced(id, *fence, |machine| machine.delete(id, *expected, moment, effects))
            }
            // It changes no content, so a lease does not exclude it.
            Write::Repack { repack, .. } => self.repack(repack, moment, effects),
            Write::Transaction { operations, .. } => self.transact(operations, moment, effects),
            Write::AcquireLease { id, holder, ttl, steal, .. } => self.acquire_lease(id, holder, *ttl, *steal, moment, effects),
            Write::RenewLeases { leases, ttl, .. } => self.renew_leases(leases, *ttl, effects),
            Write::ReleaseLease { id, fence, .. } => self.release_lease(id, *fence, effects),
            Write::OpenClient { .. } | Write::KeepAlive { .. } | Write::CloseClient { .. } => {
                unreachable!("a write without a request is not executed once")
            }
        }
    }

    fn fenced(&mut self, id: &SessionId, fence: Option<Fence>, execute: impl FnOnce(&mut Self) -> Verdict) -> Verdict {
        match self.check_fence(id, fence) {
            Ok(()) => execute(self),
            Err(verdict) => verdict,
        }
    }

    /// The session at machine time. Never depends on whether a sweep has come by (L14), and a tombstone's version is gone on from (L13).
    pub(super) fn find(&self, id: &SessionId) -> Found<'_> {
        if let Some(session) = self.tables.sessions.get(id) {
            if !session.value.is_expired(self.now_ms) {
                return Found::Live(&session.value);
            }
            return Found::Absent { tombstone: self.standing(session.value.tombstone_of_expired(self.rules)) };
        }
        let tombstone = self.tables.tombstones.get(id).map_or(Version(0), |tombstone| self.standing(tombstone.value));
        Found::Absent { tombstone }
    }

    /// The version of a tombstone that still stands.
    fn standing(&self, tombstone: Tombstone) -> Version {
        let stands = tombstone.deadline_ms > self.now_ms && !mutant::is(Mutant::VersionRestarts);
        if stands { tombstone.version } else { Version(0) }
    }

    fn save(&mut self, save: &SaveRequest<'_>, moment: Moment, effects: &mut Effects) -> Verdict {
        let decided = self.decide_save(save, moment, &Taken::default());
        if let (Err(Verdict::Conflict { .. }), true) = (&decided, mutant::is(Mutant::IdleMovedByAConflict)) {
            self.touch_session(save.id, Expiry::Keep);
        }
        self.settle(save.id, decided, moment, effects)
    }

    /// Carries out a decision, if it is one.
    fn settle(&mut self, id: &SessionId, decided: Result<Decision<'_>, Verdict>, moment: Moment, effects: &mut Effects) -> Verdict {
        match decided {
            Err(verdict) => verdict,
            Ok(Decision { verdict, effect }) => {
                self.carry_out(id, effect, moment, effects);
                verdict
            }
        }
    }

    pub(super) fn carry_out(&mut self, id: &SessionId, effect: Effect<'_>, moment: Moment, effects: &mut Effects) {
        match effect {
            Effect::Nothing => {}
            Effect::Store(plan) => self.store(id, plan, effects),
            Effect::Remove(_, tombstone) => self.remove(id, Some(tombstone), moment, effects),
        }
    }

    /// The decision on an operation of a transaction, as if it came alone after the ones before took what they take: its fence before all
    /// else (L45). One that only requires is asked for a fence only if it names one.
    pub(super) fn decide_operation<'e>(
        &self,
        operation: &'e Operation,
        moment: Moment,
        taken: &Taken,
    ) -> Result<Decision<'e>, Verdict> {
        match operation {
            Operation::Require { id, expected, fence } => {
                if fence.is_some() {
                    self.check_fence(id, *fence)?;
                }
                match conflict(self.find(id), *expected) {
                    Some(conflict) => Err(conflict),
                    None => Ok(Decision::nothing(Verdict::Met)),
                }
            }
            Operation::Save { id, change, attributes, fence } => {
                self.check_fence(id, *fence)?;
                let save = SaveRequest { id, expected: None, change, on_conflict: OnConflict::Reject, attributes };
                self.decide_save(&save, moment, taken)
            }
            Operation::SaveIfVersion { id, expected, change, on_conflict, attributes, fence } => {
                self.check_fence(id, *fence)?;
                let save = SaveRequest { id, expected: Some(*expected), change, on_conflict: *on_conflict, attributes };
                self.decide_save(&save, moment, taken)
            }
            Operation::Append { id, require, addition, attributes, fence } => {
                self.check_fence(id, *fence)?;
                let append = AppendRequest { id, require: *require, addition, attributes };
                self.decide_append(&append, moment, taken)
            }
            Operation::Delete { id, expected, fence } => {
                self.check_fence(id, *fence)?;
                self.decide_delete(id, *expected, moment)
            }
        }
    }

    fn decide_save<'e>(&self, save: &SaveRequest<'e>, moment: Moment, taken: &Taken) -> Result<Decision<'e>, Verdict> {
        self.check_write(save.change.stored_bytes(), taken)?;
        let found = self.find(save.id);
        let mut plan = match conflict(found, save.expected) {
            None => changed(found, save.change, moment)?,
            Some(conflict) if may_rebase(save) => rebased(found, save.change, moment).ok_or(conflict)?,
            Some(conflict) => return Err(conflict),
        };
        if plan.head.is_some() {
            plan.session.declared = save.attributes.form;
        }
        self.give(save.id, save.attributes, &mut plan.session);
        self.check_result(save.id, found, taken, &mut plan)?;
        Ok(Decision { verdict: Verdict::Saved(plan.session.answer_saved(plan.rebased)), effect: Effect::Store(plan) })
    }

    fn append(&mut self, append: &AppendRequest<'_>, moment: Moment, effects: &mut Effects) -> Verdict {
        let decided = self.decide_append(append, moment, &Taken::default());
        self.settle(append.id, decided, moment, effects)
    }

    /// The head of a session that exists is never touched (L43).
    fn decide_append<'e>(&self, append: &AppendRequest<'e>, moment: Moment, taken: &Taken) -> Result<Decision<'e>, Verdict> {
        let Addition { chunks, head_if_created, counters } = append.addition;
        self.check_write(append.addition.stored_bytes(), taken)?;
        let found = self.find(append.id);
        if let Some(conflict) = unmet(found, append.require) {
            return Err(conflict);
        }
        let mut plan = match (found, head_if_created) {
            (Found::Live(session), _) if !chunks.is_empty() && !takes_items(session) => {
                return Err(Verdict::WrongForm { form: session.form() });
            }
            (Found::Live(session), head) => {
                let head = head.as_ref().filter(|_| mutant::is(Mutant::AppendReplacesHead));
                append_to(session, chunks, head, counters, moment, false)
            }
            (Found::Absent { tombstone }, Some(head)) => {
                let mut plan = append_to(&Session::unborn(moment, tombstone), chunks, Some(head), counters, moment, false);
                plan.session.declared = Form::Transcript;
                plan
            }
            // Admission refuses it; without a head there is no session.
            (Found::Absent { .. }, None) => return Err(found.conflict()),
        };
        self.give(append.id, append.attributes, &mut plan.session);
        self.check_result(append.id, found, taken, &mut plan)?;
        Ok(Decision { verdict: Verdict::Appended(plan.session.answer_appended()), effect: Effect::Store(plan) })
    }

    fn check_write(&self, stored_bytes: u64, taken: &Taken) -> Result<(), Verdict> {
        let limit = self.rules.write_bytes_max;
        let stored_bytes = stored_bytes.saturating_add(taken.stored_bytes);
        if stored_bytes > limit { Err(Verdict::TooLarge(TooLarge::Write { now: stored_bytes, limit })) } else { Ok(()) }
    }

    /// Checks the bounds of the session that a plan makes, and names the content that goes.
    fn check_result(&self, id: &SessionId, found: Found<'_>, taken: &Taken, plan: &mut Plan<'_>) -> Result<(), Verdict> {
        if let Some(which) = plan.session.too_large(self.rules) {
            return Err(Verdict::TooLarge(which));
        }
        let old = match found {
            Found::Live(session) => Some(session),
            Found::Absent { .. } => self.tables.sessions.get(id).map(|expired| &expired.value),
        };
        plan.creates = matches!(found, Found::Absent { .. });
        (plan.records, plan.metadata_bytes) = self.more_metadata(id, old, &plan.session);
        if !self.has_room_for(plan, taken) {
            return Err(Verdict::TooManySessions);
        }
        plan.old = old.map(OldContent::of);
        Ok(())
    }

    /// The records and bytes of metadata that storing a session in the place of an old one, expired or not, takes more. One that replaces
    /// another, or a tombstone, takes no more unless its label is longer.
    fn more_metadata(&self, id: &SessionId, old: Option<&Session>, next: &Session) -> (u64, u64) {
        let is_new = old.is_none() && !self.tables.tombstones.contains_key(id);
        let more = next.label_bytes().saturating_sub(old.map_or(0, Session::label_bytes));
        let record = self.rules.session_metadata_bytes.saturating_add(id.as_str().len() as u64);
        (u64::from(is_new), more.saturating_add(if is_new { record } else { 0 }))
    }

    /// Whether there is room for what a plan takes more, beside what the ones before it take.
    fn has_room_for(&self, plan: &Plan<'_>, taken: &Taken) -> bool {
        let records = self.tables.record_count().saturating_add(taken.records).saturating_add(plan.records);
        let bytes = taken.metadata_bytes.saturating_add(plan.metadata_bytes);
        let metadata_bytes = self.tables.metadata_bytes(self.rules).saturating_add(bytes);
        let has_place = plan.records == 0 || records <= self.rules.sessions_max;
        let fits = metadata_bytes <= self.rules.metadata_bytes_max || mutant::is(Mutant::LabelUncounted);
        plan.metadata_bytes == 0 || (has_place && fits)
    }

    /// Gives a session that is about to be stored what a write says of it, besides the content.
    fn give(&self, id: &SessionId, attributes: &Attributes, session: &mut Session) {
        self.move_deadline(id, attributes.expiry, session);
        if let Some(ttl) = attributes.tombstone_ttl {
            // The longest is what a session has of which nothing was said: one way to write it.
            session.tombstone_ms = Some(millis(ttl)).filter(|ttl_ms| *ttl_ms < self.rules.tombstone_ttl_ms);
        }
        if let Some(label) = &attributes.label {
            session.label = label.clone();
        }
    }

    /// Moves the deadline of a session that is about to be stored, or is touched. Whatever does neither leaves an idle deadline (L44).
    fn move_deadline(&self, id: &SessionId, expiry: Expiry, session: &mut Session) {
        let ttl_ms = |ttl| millis(ttl).min(self.rules.session_ttl_ms_max);
        let idle = |idle_ms: u64| (Some(self.idle_until(id, idle_ms)), Some(idle_ms));
        (session.deadline_ms, session.idle_ms) = match (expiry, session.idle_ms) {
            (Expiry::Keep, None) => (session.deadline_ms, None),
            (Expiry::Keep, Some(idle_ms)) => idle(idle_ms),
            (Expiry::Never, _) => (None, None),
            (Expiry::After(ttl), _) => (Some(self.now_ms.saturating_add(ttl_ms(ttl))), None),
            (Expiry::Idle(ttl), _) => idle(ttl_ms(ttl)),
        };
    }

    fn store(&mut self, id: &SessionId, plan: Plan<'_>, effects: &mut Effects) {
        let Plan { session, old, chunks, head, .. } = plan;
        assert!(session.chunk_count() >= chunks.len() as u64, "chunks of a write are not counted next={}", session.next_chunk);
        if let Some(old) = &old {
            delete_chunks(&old.places, old.dropped_by(&session), effects);
            if old.birth != session.birth() {
                effects.delete(rows::HEADS, rows::head_key(old.birth));
            }
        }
        let first_new = session.next_chunk - chunks.len() as u64;
        let first_item = session.items - chunks.iter().map(|chunk| chunk.item_count).sum::<u64>();
        let key = |n| rows::chunk_key(session.create_revision, first_new + n);
        put_chunks(chunks, session.summed.then_some(first_item), key, effects);
        if let Some(head) = head {
            effects.put(rows::HEADS, rows::head_key(session.birth()), rows::encode(head));
        }
        if old.is_none() {
            self.tables.remove_tombstone(id, effects);
        }
        self.tables.put_session(id, session, effects);
    }

    /// Moves the deadline alone: conditional writes and watches see nothing of it (L44). One that says `Keep` moves an idle one on.
    pub(super) fn touch_session(&mut self, id: &SessionId, expiry: Expiry) -> Verdict {
        let mut next = match self.find(id) {
            Found::Absent { tombstone } => return Verdict::NotFound { tombstone },
            Found::Live(session) => session.clone(),
        };
        self.move_deadline(id, expiry, &mut next);
        if mutant::is(Mutant::TouchBumpsTheVersion) {
            next.version = next.version.next();
        }
        let deadline_ms = next.deadline_ms;
        self.tables.touch_session(id, next);
        Verdict::Touched { deadline_ms }
    }

    fn delete(&mut self, id: &SessionId, expected: Option<Expected>, moment: Moment, effects: &mut Effects) -> Verdict {
        let decided = self.decide_delete(id, expected, moment);
        self.settle(id, decided, moment, effects)
    }

    fn decide_delete(&self, id: &SessionId, expected: Option<Expected>, moment: Moment) -> Result<Decision<'static>, Verdict> {
        let found = self.find(id);
        // What expects nothing and finds nothing is no conflict: there is nothing to delete.
        if let Some(conflict) = conflict(found, expected) {
            return Err(conflict);
        }
        Ok(match found {
            Found::Absent { tombstone } => Decision::nothing(Verdict::NotFound { tombstone }),
            Found::Live(session) => {
                let tombstone = session.tombstone(moment.now_ms, self.rules);
                let effect = Effect::Remove(session.chunk_count(), tombstone);
                Decision { verdict: Verdict::Deleted { version: tombstone.version }, effect }
            }
        })
    }

    /// Drops a session with its content; the tombstone, if it stands for any time yet, continues counting.
    pub(super) fn remove(&mut self, id: &SessionId, tombstone: Option<Tombstone>, moment: Moment, effects: &mut Effects) {
        let Some(old) = self.tables.remove_session(id, effects) else {
            return;
        };
        let places = old.places();
        delete_chunks(&places, places.all(), effects);
        effects.delete(rows::HEADS, rows::head_key(old.birth()));
        if let Some(tombstone) = tombstone.filter(|tombstone| tombstone.deadline_ms > moment.now_ms) {
            assert!(tombstone.version > old.version, "tombstone does not count on version={}", tombstone.version);
            self.tables.put_tombstone(id, tombstone, effects);
        }
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

/// Puts the rows of chunks, the first of which has this first item; `None`: their rows say none.
pub(super) fn put_chunks(chunks: &[Chunk], mut first_item: Option<u64>, key: impl Fn(u64) -> Bytes, effects: &mut Effects) {
    for (n, chunk) in (0..).zip(chunks) {
        effects.put(rows::CHUNKS, key(n), rows::encode_chunk(first_item, chunk));
        first_item = first_item.map(|item| item.saturating_add(chunk.item_count));
    }
}

/// Deletes the rows of the chunks at these positions.
pub(super) fn delete_chunks(places: &Places, positions: Range<u64>, effects: &mut Effects) {
    for position in positions {
        effects.delete(rows::CHUNKS, places.key(position));
    }
}

/// The conflict between what is and what is expected, if there is one.
fn conflict(found: Found<'_>, expected: Option<Expected>) -> Option<Verdict> {
    let is_met = match (found, expected?) {
        (Found::Absent { .. }, Expected::Absent) => true,
        (Found::Live(session), Expected::At { version, create_revision }) => {
            session.version == version && create_revision.is_none_or(|created| created == session.create_revision)
        }
        (Found::Live(session), Expected::Incarnation { create_revision }) => session.create_revision == create_revision,
        (Found::Absent { .. }, Expected::At { .. } | Expected::Incarnation { .. }) | (Found::Live(_), Expected::Absent) => false,
    };
    (!is_met).then(|| found.conflict())
}

/// Whether a save that found another state than it expected may be made against that one. Never against another session of its name, if
/// that was all it expected: not with a base of none either.
fn may_rebase(save: &SaveRequest<'_>) -> bool {
    let is_of_another = matches!(save.expected, Some(Expected::Incarnation { .. })) && !mutant::is(Mutant::RebaseOntoAnother);
    save.on_conflict == OnConflict::Rebase && !is_of_another
}

/// Whether items may be appended: only to what is known to be a transcript.
fn takes_items(session: &Session) -> bool {
    session.form() == Form::Transcript || mutant::is(Mutant::AppendToAValue)
}

/// The conflict between what is and what an append requires, if there is one.
fn unmet(found: Found<'_>, require: Require) -> Option<Verdict> {
    let is_met = match (found, require) {
        (_, Require::Any) | (Found::Live(_), Require::Present) | (Found::Absent { .. }, Require::Absent) => true,
        (Found::Live(session), Require::At { create_revision, version, items }) => {
            create_revision.is_none_or(|created| created == session.create_revision)
                && version.is_none_or(|version| version == session.version)
                && items.is_none_or(|items| items == session.items)
        }
        (Found::Live(session), Require::AppendedOnly { create_revision, since }) => {
            create_revision == session.create_revision && (session.append_only_since..=session.version).contains(&since)
        }
        (Found::Live(_), Require::Absent)
        | (Found::Absent { .. }, Require::Present | Require::At { .. } | Require::AppendedOnly { .. }) => false,
    };
    (!is_met && !mutant::is(Mutant::RequireUnchecked)).then(|| found.conflict())
}

/// The session after a change on what it was made against. Error: `BaseMismatch`.
fn changed<'e>(found: Found<'_>, change: &'e Change, moment: Moment) -> Result<Plan<'e>, Verdict> {
    match change {
        Change::Full { chunks, head, counters } => {
            let session = match found {
                Found::Live(session) => session.replaced(chunks, head, counters, moment),
                Found::Absent { tombstone } => Session::unborn(moment, tombstone).appended(chunks, Some(head), counters, moment),
            };
            Ok(Plan::of(session, chunks, Some(head), false))
        }
        Change::Delta { base, chunks, head, counters } => {
            let new;
            let session = match (found, *base) {
                (Found::Absent { tombstone }, Base::Absent) => {
                    new = Session::unborn(moment, tombstone);
                    &new
                }
                (Found::Live(session), base) if is_base(session, base) || mutant::is(Mutant::DeltaUnchecked) => session,
                _ => return Err(Verdict::BaseMismatch),
            };
            Ok(append_to(session, chunks, head.as_ref(), counters, moment, false))
        }
    }
}

fn append_to<'e>(
    session: &Session,
    chunks: &'e [Chunk],
    head: Option<&'e Blob>,
    counters: &Counters,
    moment: Moment,
    rebased: bool,
) -> Plan<'e> {
    Plan::of(session.appended(chunks, head, counters, moment), chunks, head, rebased)
}

/// Whether a delta of `base` may be applied: exactly that content is stored (L10).
fn is_base(session: &Session, base: Base) -> bool {
    match base {
        Base::Absent => false,
        Base::At { create_revision, version, items } => {
            session.create_revision == create_revision && session.version == version && session.items == items
        }
    }
}

/// The newest state with the delta appended, where that loses nothing (L11); `None` where it is a conflict.
///
/// A head equal to the stored one is unchanged: two turns racing on a new session both bring one.
fn rebased<'e>(found: Found<'_>, change: &'e Change, moment: Moment) -> Option<Plan<'e>> {
    let (Found::Live(session), Change::Delta { base, chunks, head, counters }) = (found, change) else {
        return None;
    };
    let (base_version, base_items) = match *base {
        Base::Absent => (Version(0), 0),
        Base::At { create_revision, version, items } if create_revision == session.create_revision => (version, items),
        Base::At { .. } => return None,
    };
    // A base beyond what is stored was never stored here.
    let is_known = base_version <= session.version && base_items <= session.items;
    let head = head.as_ref().filter(|head| HeadMark::of(head) != session.head);
    let head_is_safe = head.is_none() || session.head_since <= base_version;
    let is_prefix = base_version >= session.append_only_since || mutant::is(Mutant::RebaseAcrossRewrite);
    let is_safe = is_known && is_prefix && head_is_safe;
    is_safe.then(|| append_to(session, chunks, head, counters, moment, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Revision;

    #[test]
    fn a_base_is_current_only_with_the_same_creation_version_and_item_count() {
        let session = Session { create_revision: Revision(3), version: Version(2), items: 4, ..Session::default() };
        let base = |created, version, items| Base::At { create_revision: Revision(created), version: Version(version), items };
        assert!(is_base(&session, base(3, 2, 4)));
        for other in [base(4, 2, 4), base(3, 1, 4), base(3, 2, 5), Base::Absent] {
            assert!(!is_base(&session, other), "{other:?}");
        }
    }
}
