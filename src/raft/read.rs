//! Reads: one read index for a batch, one view per read, rows read off the async threads.

use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::ReadPolicy;
use tokio::sync::Semaphore;

use super::adapter::state_machine::AppliedState;
use super::byte_permit::{BytePermit, ReadBudget, loaded_bytes};
use super::confirm::Confirmer;
use super::content::Wanted;
use super::context::NodeContext;
use crate::limits::{LOAD_MANY_BYTES_MAX, LOAD_MANY_ROWS_MAX, LOADED_BYTES_MAX};
use crate::machine::{Command, Effects, Entry, Machine, Plan};
use crate::mutant::{self, Mutant};
use crate::storage::state::{Error, Pinner};
use crate::types::{Consistency, List, ListPage, Listed, Load, LoadMany, Loaded, LogId, Order, Refusal, RefusalKind, Revision};

/// When to read again after a refusal for want of room.
const READ_RETRY_AFTER: Duration = Duration::from_millis(50);

/// Takes what was loaded and what it counts for until it is sent; called exactly once.
pub type ReplyRead<T> = Box<dyn FnOnce(Result<(Revision, T, Age, BytePermit), Refusal>) + Send>;
/// Takes the answer to a load.
pub type ReplyLoad = ReplyRead<Loaded>;
/// Takes the answers to several loads of one instant, in their order.
pub type ReplyMany = ReplyRead<Vec<Loaded>>;
/// Of a stale read: everything acknowledged so many milliseconds before it is in it; `None`: that is unknown, or the read is not stale.
pub type Age = Option<u64>;
/// Takes the answer to a listing and what it counts for until it is sent; called exactly once.
pub type ReplyList = Box<dyn FnOnce(Result<(ListPage, BytePermit), Refusal>) + Send>;

/// Answers reads.
pub struct Reads {
    pub context: Arc<NodeContext>,
    pub confirmer: Arc<Confirmer>,
    /// Content that was read and waits for its readers.
    pub loaded: ReadBudget,
    /// One repack is compared with its rows at a time.
    pub repacks: Semaphore,
}

/// One read.
pub enum Read {
    /// Of one session.
    Load(Load, ReplyLoad),
    /// Of several sessions, in one view.
    LoadMany(LoadMany, ReplyMany),
    /// Of one page.
    List(List, ReplyList),
}

impl Read {
    fn is_linearizable(&self) -> bool {
        let consistency = match self {
            Read::Load(load, _) => load.consistency,
            Read::LoadMany(many, _) => many.consistency(),
            Read::List(list, _) => list.consistency,
        };
        consistency == Consistency::Linearizable
    }

    fn refuse(self, refusal: Refusal) {
        match self {
            Read::Load(_, reply) => reply(Err(refusal)),
            Read::LoadMany(_, reply) => reply(Err(refusal)),
            Read::List(_, reply) => reply(Err(refusal)),
        }
    }
}

/// Confirms that this node still leads, and waits until everything committed before is applied (Raft dissertation §6.4; L18).
///
/// openraft's way takes calls to every follower that wait behind its appends, so it is the second one: after a change of leader, or
/// where the peers do not answer, and it knows how to refuse.
async fn read_index(reads: &Reads, count: usize) -> Result<(), Refusal> {
    if mutant::is(Mutant::ReadWithoutReadIndex) || reads.confirmer.confirm(count).await {
        return Ok(());
    }
    let context = &reads.context;
    // Apart: every batch would be larger by it.
    match Box::pin(context.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => Err(context.leadership.not_leader()),
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
            Err(Refusal::not_applied(RefusalKind::NoLeader, "no quorum answers this leader"))
        }
        Err(RaftError::Fatal(error)) => {
            Err(Refusal::not_applied(RefusalKind::Unavailable, format!("this node is stopping: {error}")))
        }
    }
}

/// Answers a batch. Dropping the future drops the replies.
pub async fn answer(reads: &Reads, batch: Vec<Read>) {
    let is_unconfirmed = |read: &Read| matches!(read, Read::List(..)) && mutant::is(Mutant::ListWithoutReadIndex);
    let is_to_confirm = |read: &Read| read.is_linearizable() && !is_unconfirmed(read);
    // Most batches are one kind whole.
    let linearizable = if batch.iter().all(is_to_confirm) {
        batch
    } else {
        let (linearizable, stale): (Vec<Read>, Vec<Read>) = batch.into_iter().partition(is_to_confirm);
        answer_from_view(reads, stale).await;
        linearizable
    };
    if linearizable.is_empty() {
        return;
    }
    match read_index(reads, linearizable.len()).await {
        Ok(()) => answer_from_view(reads, linearizable).await,
        Err(refusal) => linearizable.into_iter().for_each(|read| read.refuse(refusal.clone())),
    }
}

/// The refusal of a read while readers hold too much that they do not take. It heals as they do, or are cut off.
pub fn no_room() -> Refusal {
    let kind = RefusalKind::Overloaded { retry_after: READ_RETRY_AFTER };
    Refusal::not_applied(kind, format!("too many loaded bytes wait for their readers limit={LOADED_BYTES_MAX}"))
}

/// Loads whose content is still to be read, from what their view pinned (L19).
struct Pending {
    revision: Revision,
    age: Age,
    content: Content,
}

enum Content {
    One(Wanted, ReplyLoad),
    Many(Together, ReplyMany),
}

/// The content that a view has of each load, to be read, or the answer.
type Together = Vec<Result<Wanted, Loaded>>;

impl Pending {
    /// Reads it and answers. Errors: of the state, as it was answered; it has ended if they are final.
    fn read(self, budget: &ReadBudget) -> Result<(), Error> {
        let Self { revision, age, content } = self;
        match content {
            Content::One(wanted, reply) => {
                let read = room_for(budget, wanted.expected_bytes()).and_then(|()| read_one(wanted, budget));
                give(read.map(|loaded| (loaded_bytes(&loaded), loaded)), revision, age, reply, budget)
            }
            Content::Many(together, reply) => give(read_together(together, budget), revision, age, reply, budget),
        }
    }
}

/// Why content was not read.
enum Unread {
    Refused(Refusal),
    Failed(Error),
}

impl From<Refusal> for Unread {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn room_for(budget: &ReadBudget, bytes: u64) -> Result<(), Unread> {
    if budget.has_room_for(bytes) { Ok(()) } else { Err(Unread::Refused(no_room())) }
}

fn give<T>(
    read: Result<(u64, T), Unread>,
    revision: Revision,
    age: Age,
    reply: ReplyRead<T>,
    budget: &ReadBudget,
) -> Result<(), Error> {
    match read {
        Ok((bytes, loaded)) => reply(Ok((revision, loaded, age, budget.charge_loaded(bytes)))),
        Err(Unread::Refused(refusal)) => reply(Err(refusal)),
        Err(Unread::Failed(error)) if !error.is_final() => {
            reply(Err(Refusal::not_applied(RefusalKind::Unavailable, error.to_string())));
        }
        Err(Unread::Failed(error)) => {
            // A row that cannot be read is never "not found". The node stops serving until it is rebuilt.
            reply(Err(Refusal::not_applied(RefusalKind::Corrupt, format!("a stored row is damaged: {error}"))));
            return Err(error);
        }
    }
    Ok(())
}

fn read_one(wanted: Wanted, budget: &ReadBudget) -> Result<Loaded, Unread> {
    let loaded = wanted.read().map_err(Unread::Failed)?;
    // How much a part is, is known only now.
    if matches!(loaded, Loaded::Suffix { .. }) {
        room_for(budget, loaded_bytes(&loaded))?;
    }
    Ok(loaded)
}

/// All of them, with their bytes. Tails and parts have their bytes counted as they are read: what is held is bounded by one session more.
fn read_together(together: Together, budget: &ReadBudget) -> Result<(u64, Vec<Loaded>), Unread> {
    room_for(budget, together.iter().flatten().map(Wanted::expected_bytes).sum())?;
    let (mut bytes, mut all) = (0, Vec::with_capacity(together.len()));
    for wanted in together {
        let loaded = wanted.map_or_else(Ok, |wanted| read_one(wanted, budget))?;
        bytes += loaded_bytes(&loaded);
        all.push(loaded);
        within("stored_bytes", bytes, LOAD_MANY_BYTES_MAX)?;
    }
    Ok((bytes, all))
}

/// Errors: `Invalid`, with the sum and the bound.
fn within(what: &str, sum: u64, max: u64) -> Result<(), Refusal> {
    match sum <= max {
        true => Ok(()),
        false => Err(Refusal::invalid(format!(
            "the sessions are too large to be loaded together, load fewer at once {what}={sum} limit={max}"
        ))),
    }
}

async fn answer_from_view(reads: &Reads, batch: Vec<Read>) {
    let context = &reads.context;
    let mut pending = Vec::new();
    for read in batch {
        // Taken before the view: what is seen is at most so old.
        let age = if read.is_linearizable() { None } else { context.leadership.stale_ms() };
        match read {
            Read::Load(load, reply) => {
                if let Some(content) = answer_or_pin(context, &load, age, reply) {
                    pending.push(content);
                }
            }
            Read::LoadMany(many, reply) => match pin_together(reads, many.loads()).await {
                Ok((revision, together)) => pending.push(Pending { revision, age, content: Content::Many(together, reply) }),
                Err(refusal) => reply(Err(refusal)),
            },
            Read::List(_, reply) if !reads.loaded.has_room_for(0) => reply(Err(no_room())),
            Read::List(list, reply) => {
                let page = page(context, &list, age);
                let permit = reads.loaded.charge_page(&page);
                reply(Ok((page, permit)));
            }
        }
    }
    if pending.is_empty() {
        return;
    }
    let (state, budget) = (context.state.clone(), reads.loaded.clone());
    let later = mutant::is(Mutant::ViewNotOneInstant).then(|| context.state.clone());
    let job = move || {
        for mut content in pending {
            if let Some(state) = &later {
                content.revision = Revision(state.applied().map_or(0, |applied| applied.index));
            }
            // Room is looked for before each: a batch of large sessions must not be in memory at once while nobody takes them.
            if let Err(error) = content.read(&budget) {
                state.fail(error);
            }
        }
    };
    context.blocking.call(job).await;
}

/// Everything one load needs of one instant; answers at once what needs no rows.
fn answer_or_pin(context: &NodeContext, load: &Load, age: Age, reply: ReplyLoad) -> Option<Pending> {
    let planned = context.state.view(|state: &AppliedState, applied, pinner: &Pinner<'_>| {
        let revision = Revision(applied.map_or(0, |applied| applied.index));
        (revision, Wanted::of(plan(context, state, load), pinner))
    });
    match planned {
        (revision, Err(loaded)) => {
            reply(Ok((revision, loaded, age, BytePermit::default())));
            None
        }
        (revision, Ok(wanted)) => Some(Pending { revision, age, content: Content::One(wanted, reply) }),
    }
}

fn plan(context: &NodeContext, state: &AppliedState, load: &Load) -> Plan {
    let local = mutant::is(Mutant::ExpiryByLocalClock).then(|| at_local_time(context, state));
    let mut plan = local.as_ref().unwrap_or(&state.machine).plan(load);
    if let Plan::Read { info, .. } | Plan::Part { info, .. } = &mut plan {
        info.remaining_ms = info.deadline_ms.map(|deadline_ms| deadline_ms.saturating_sub(cluster_now_ms(context, state)));
    }
    plan
}

/// Everything several loads need of one instant. Errors: `Invalid`, they are too large together, as far as is known before they are read.
async fn pin_together(reads: &Reads, loads: &[Load]) -> Result<(Revision, Together), Refusal> {
    if !mutant::is(Mutant::ManyViews) {
        return pin_of_one_view(&reads.context, loads);
    }
    let (mut revision, mut all) = (None, Together::new());
    for load in loads.chunks(1) {
        let (at, mut one) = pin_of_one_view(&reads.context, load)?;
        revision = revision.or(Some(at));
        all.append(&mut one);
        read_index(reads, 1).await?;
    }
    Ok((revision.unwrap_or_default(), all))
}

fn pin_of_one_view(context: &NodeContext, loads: &[Load]) -> Result<(Revision, Together), Refusal> {
    context.state.view(|state: &AppliedState, applied, pinner: &Pinner<'_>| {
        let revision = Revision(applied.map_or(0, |applied| applied.index));
        let plans: Vec<Plan> = loads.iter().map(|load| plan(context, state, load)).collect();
        within("rows", plans.iter().map(Plan::rows).sum(), LOAD_MANY_ROWS_MAX)?;
        within("stored_bytes", plans.iter().map(Plan::stored_bytes).sum(), LOAD_MANY_BYTES_MAX)?;
        Ok((revision, plans.into_iter().map(|plan| Wanted::of(plan, pinner)).collect()))
    })
}

/// The time that deadlines are measured by: machine time, which the median of the voters' clocks leads while nobody writes.
pub(super) fn cluster_now_ms(context: &NodeContext, state: &AppliedState) -> u64 {
    context.clocks.median_now_ms(&context.voters()).unwrap_or(0).max(state.machine.now_ms())
}

/// The machine as if its time were this node's clock: what [`Mutant::ExpiryByLocalClock`] reads.
fn at_local_time(context: &NodeContext, state: &AppliedState) -> Machine {
    let mut machine = state.machine.clone();
    let applied = machine.applied().unwrap_or_default();
    let entry = Entry { stamp_ms: context.clocks.wall_ms(), command: Command::Sweep { limit: 0 } };
    machine.apply(LogId { index: applied.index + 1, ..applied }, &entry, &mut Effects::default());
    machine
}

fn page(context: &NodeContext, list: &List, age_ms: Age) -> ListPage {
    context.state.view(|state, applied, _| {
        let after = list.after.as_ref().map(|id| id.as_str());
        let mut leases = Vec::new();
        let (mut sessions, more, since) = match list.order {
            Order::Recent { after } => {
                let recent = state.machine.recent(&list.prefix, after.zip(list.after.as_ref()), list.limit);
                (recent.sessions, recent.more, Some(recent.since))
            }
            Order::Leases => {
                let (page, more) = state.machine.leases(&list.prefix, after, list.limit);
                leases = page;
                (Vec::new(), more, None)
            }
            Order::Ids => {
                let (sessions, more) = state.machine.list(list.prefix.as_str(), after, list.limit);
                (sessions, more, None)
            }
        };
        let now_ms = cluster_now_ms(context, state);
        for Listed { info, .. } in &mut sessions {
            info.set_remaining(now_ms);
        }
        let revision = Revision(applied.map_or(0, |applied| applied.index));
        ListPage { revision, sessions, more, age_ms, since, machine_time_ms: Some(state.machine.now_ms()), leases }
    })
}
