//! Reads: one read index for a batch, one view per read, rows read off the async threads.

use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::ReadPolicy;

use super::adapter::state_machine::AppliedState;
use super::byte_permit::{BytePermit, ReadBudget, loaded_bytes};
use super::confirm::Confirmer;
use super::content::Wanted;
use super::context::NodeContext;
use crate::limits::LOADED_BYTES_MAX;
use crate::machine::{Command, Effects, Entry, Machine, Plan};
use crate::mutant::{self, Mutant};
use crate::storage::state::Pinner;
use crate::types::{Consistency, List, ListPage, Listed, Load, Loaded, LogId, Order, Refusal, RefusalKind, Revision};

/// When to read again after a refusal for want of room.
const READ_RETRY_AFTER: Duration = Duration::from_millis(50);

/// Takes the answer to a load and what it counts for until it is sent; called exactly once.
pub type ReplyLoad = Box<dyn FnOnce(Result<(Revision, Loaded, Age, BytePermit), Refusal>) + Send>;
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
}

/// One read.
pub enum Read {
    /// Of one session.
    Load(Load, ReplyLoad),
    /// Of one page.
    List(List, ReplyList),
}

impl Read {
    fn is_linearizable(&self) -> bool {
        let consistency = match self {
            Read::Load(load, _) => load.consistency,
            Read::List(list, _) => list.consistency,
        };
        consistency == Consistency::Linearizable
    }

    fn refuse(self, refusal: Refusal) {
        match self {
            Read::Load(_, reply) => reply(Err(refusal)),
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

/// A load whose content is still to be read, from what its view pinned (L19).
struct Pending {
    revision: Revision,
    wanted: Wanted,
    age: Age,
    reply: ReplyLoad,
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
            let reply = content.reply;
            // Looked at before each: a batch of large sessions must not be in memory at once while nobody takes them.
            if !budget.has_room_for(content.wanted.expected_bytes()) {
                reply(Err(no_room()));
                continue;
            }
            match content.wanted.read() {
                // How much a part is, is known only now.
                Ok(loaded @ Loaded::Suffix { .. }) if !budget.has_room_for(loaded_bytes(&loaded)) => reply(Err(no_room())),
                Ok(loaded) => {
                    let permit = budget.charge_loaded(&loaded);
                    reply(Ok((content.revision, loaded, content.age, permit)));
                }
                Err(error) if !error.is_final() => {
                    reply(Err(Refusal::not_applied(RefusalKind::Unavailable, error.to_string())));
                }
                Err(error) => {
                    // A row that cannot be read is never "not found". The node stops serving until it is rebuilt.
                    reply(Err(Refusal::not_applied(RefusalKind::Corrupt, format!("a stored row is damaged: {error}"))));
                    state.fail(error);
                }
            }
        }
    };
    context.blocking.call(job).await;
}

/// Everything one load needs of one instant; answers at once what needs no rows.
fn answer_or_pin(context: &NodeContext, load: &Load, age: Age, reply: ReplyLoad) -> Option<Pending> {
    let planned = context.state.view(|state: &AppliedState, applied, pinner: &Pinner<'_>| {
        let revision = Revision(applied.map_or(0, |applied| applied.index));
        let local = mutant::is(Mutant::ExpiryByLocalClock).then(|| at_local_time(context, state));
        let mut plan = local.as_ref().unwrap_or(&state.machine).plan(load);
        if let Plan::Read { info, .. } | Plan::Part { info, .. } = &mut plan {
            info.remaining_ms = info.deadline_ms.map(|deadline_ms| deadline_ms.saturating_sub(cluster_now_ms(context, state)));
        }
        (revision, Wanted::of(plan, pinner))
    });
    match planned {
        (revision, Err(loaded)) => {
            reply(Ok((revision, loaded, age, BytePermit::default())));
            None
        }
        (revision, Ok(wanted)) => Some(Pending { revision, wanted, age, reply }),
    }
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
        let (mut sessions, more, since) = match list.order {
            Order::Recent { after } => {
                let recent = state.machine.recent(&list.prefix, after.zip(list.after.as_ref()), list.limit);
                (recent.sessions, recent.more, Some(recent.since))
            }
            _ => {
                let after = list.after.as_ref().map(|id| id.as_str());
                let (sessions, more) = state.machine.list(list.prefix.as_str(), after, list.limit);
                (sessions, more, None)
            }
        };
        let now_ms = cluster_now_ms(context, state);
        for Listed { info, .. } in &mut sessions {
            info.set_remaining(now_ms);
        }
        ListPage { revision: Revision(applied.map_or(0, |applied| applied.index)), sessions, more, age_ms, since }
    })
}
