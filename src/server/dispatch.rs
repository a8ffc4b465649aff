//! The one place every operation goes through, whether it came by stream, by a call of its own, or forwarded by a peer.
//!
//! ```text
//! submit: validate -> count bytes in flight -> arrived
//! the task: arrived -> route -> writes ─ batches ─> Raft ──┐
//!                        │      reads ── batches ─> Raft ──┤ settle: answer, or arrived again if it changed nothing and
//!                        │      leader ── forward stream ──┘         the leadership is to blame
//!                        └──> park (a leader is awaited, or the stream to it)
//! ```
//!
//! One operation costs no task and no timer: the task takes what has arrived since its last turn, and one coarse tick finds what is
//! past its deadline. Batches in flight are bounded, so operations gather while Raft is busy. Each call is answered exactly once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};

use super::admission::{self, RETRY_AFTER, Route, Situation};
use super::auth::{Caller, Guard, Need};
use super::batch::{Batch, Reply};
use super::call::{Answer, Answerer, Asked, Call, Done, Operation, Origin};
use super::fair::{Fair, Round};
use super::forward::{Links, Sent};
use super::metrics::{Levels, Metrics, Wire};
use super::park::Park;
use super::readers::{Readers, Whose};
use super::receiving::Receiving;
use super::security;
use super::shares::{self, Circumstances, Hold, Share, Usage};
use super::slow::{Slow, Timing};
use super::table::{Open, Table};
use crate::env::Clock;
use crate::limits::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, IN_FLIGHT_BYTES_MAX, PARKED_CALLS_MAX};
use crate::machine::Command;
use crate::mutant::{self, Mutant};
use crate::raft::{Charge, Leadership, Node, Read, no_room};
use crate::types::{Refusal, RefusalKind};
use crate::wire::v1;

/// How often deadlines are looked at, while anything is open.
const TICK: Duration = Duration::from_millis(50);
/// Proposals in flight that need not be full: one on the disks while the next is made.
const WRITE_BATCHES_SOFT: usize = 2;
/// Proposals in flight at all: enough to keep the log's disk and the network busy with full ones.
const WRITE_BATCHES_MAX: usize = 8;
/// Read indexes in flight; what arrives meanwhile shares the next one.
const READ_BATCHES_MAX: usize = 2;
/// How often recorded measurements are folded, in ticks.
const METRICS_EVERY: u32 = 100;
/// How often readers are looked at, in ticks.
const READERS_EVERY: u32 = 20;

/// Who may do what, and what is known of the credentials in force.
pub struct Access {
    pub guard: Guard,
    pub state: Arc<security::State>,
}

/// A request that may go on, what its token may hold, and what is counted of it.
type Admitted = (admission::Validated, Option<Arc<Share>>, Charge);

/// A handle to the dispatcher. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher(Arc<Shared>);

struct Shared {
    node: Node,
    access: Access,
    clock: Arc<dyn Clock>,
    arrived: Mutex<VecDeque<Box<Call>>>,
    wake: Notify,
    table: Mutex<Table>,
    in_flight: Arc<AtomicU64>,
    readers: Readers,
    receiving: Receiving,
    stopping: AtomicBool,
    leader: Mutex<Option<v1::Leader>>,
    cluster_id: std::sync::OnceLock<Bytes>,
    metrics: Metrics,
    slow: Slow,
    began: Duration,
}

impl Dispatcher {
    pub fn new(node: Node, access: Access, clock: Arc<dyn Clock>, wire: Wire, slow: Duration) -> Self {
        let began = clock.now();
        Self(Arc::new(Shared {
            node,
            access,
            receiving: Receiving::new(clock.clone()),
            clock,
            arrived: Mutex::default(),
            wake: Notify::new(),
            table: Mutex::default(),
            in_flight: Arc::default(),
            readers: Readers::default(),
            stopping: AtomicBool::new(false),
            leader: Mutex::default(),
            cluster_id: std::sync::OnceLock::new(),
            metrics: Metrics::new(wire),
            slow: Slow::new(slow),
            began,
        }))
    }

    /// How long it has been running.
    pub fn uptime(&self) -> Duration {
        self.0.clock.now().saturating_sub(self.0.began)
    }

    /// The node below.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// Who may do what here.
    pub fn guard(&self) -> &Guard {
        &self.0.access.guard
    }

    /// The credentials in force.
    pub fn credentials(&self) -> &security::State {
        &self.0.access.state
    }

    /// Takes an operation; its answer goes to `answerer`, perhaps before this returns. Never waits.
    pub fn submit(&self, asked: Asked, origin: Origin, answerer: Answerer) {
        let started = self.0.clock.now();
        let Asked { request, caller, connection } = asked;
        match self.admit(request, &caller, connection.as_ref()) {
            Err(refusal) => answerer.answer(Err(refusal)),
            Ok((validated, share, charge)) => {
                self.arrive(Box::new(Call {
                    operation: validated.operation,
                    origin,
                    caller,
                    connection,
                    cluster_id: validated.cluster_id,
                    started,
                    deadline: started.saturating_add(validated.timeout),
                    handed: None,
                    parked_until: None,
                    epoch: 0,
                    refusal: None,
                    answerer: Some(answerer),
                    charge,
                    share,
                }));
            }
        }
    }

    fn admit(&self, request: v1::SubmitRequest, caller: &Caller, connection: Option<&Arc<AtomicU64>>) -> Result<Admitted, Refusal> {
        if self.is_stopping() {
            return Err(Refusal::not_applied(RefusalKind::Unavailable, "the node is stopping"));
        }
        let validated = admission::validate(request)?;
        let share = self.guard().admit(caller, Need::of(&validated.operation))?;
        if !validated.operation.is_write() {
            self.admit_read(share.as_deref(), connection)?;
        }
        let bytes = validated.operation.bytes();
        let charge = match &share {
            Some(share) => share.charge(&self.0.in_flight, bytes)?,
            None => Charge::within(&self.0.in_flight, bytes, IN_FLIGHT_BYTES_MAX).ok_or_else(admission::too_many_bytes)?,
        };
        Ok((validated, share, charge))
    }

    /// Errors: readers hold so much that they do not take that nothing more is to be read, at all, for this caller's token or on its
    /// connection.
    fn admit_read(&self, share: Option<&Share>, connection: Option<&Arc<AtomicU64>>) -> Result<(), Refusal> {
        let room = self.0.node.loaded();
        whose(share, connection).admit(room)?;
        while room.is_full() && self.0.readers.make_room(self.now()) {
            tracing::warn!("a reader that took nothing was cut off: others needed the room");
            self.0.metrics.cut_off(1);
            self.0.node.events().refused("slow_reader");
        }
        if room.has_room_for(0) { Ok(()) } else { Err(no_room()) }
    }

    /// The answer to one operation. Dropping the future loses the answer, not the operation.
    pub async fn ask(&self, asked: Asked) -> Answer {
        let tag = asked.request.tag;
        let (sender, mut answers) = mpsc::channel(1);
        let gone = || Refusal::unknown(RefusalKind::Unavailable, "the node stopped before the operation was settled");
        let Ok(room) = sender.try_reserve_owned() else { return Answer { tag, result: Err(gone()) } };
        self.submit(asked, Origin::Client, Answerer::new(tag, room));
        answers.recv().await.unwrap_or_else(|| Answer { tag, result: Err(gone()) })
    }

    /// Refuses new operations from now on.
    pub fn stop_admitting(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }

    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// Operations admitted and not yet done.
    pub fn has_open(&self) -> bool {
        self.table().len() > 0 || !self.arrived().is_empty()
    }

    /// 16 bytes, or none before the cluster was bootstrapped.
    pub fn cluster_id(&self) -> Bytes {
        if let Some(id) = self.0.cluster_id.get() {
            return id.clone();
        }
        match self.0.node.cluster_id() {
            None => Bytes::new(),
            // A node's cluster never changes once it serves: adopting ends before a leader can be.
            Some(id) if self.0.node.leadership().borrow().leader.is_some() => {
                self.0.cluster_id.get_or_init(|| Bytes::copy_from_slice(id.as_bytes())).clone()
            }
            Some(id) => Bytes::copy_from_slice(id.as_bytes()),
        }
    }

    /// Who leads, where that is another node.
    pub fn leader_hint(&self) -> Option<v1::Leader> {
        self.0.leader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// What is counted here, of [`Levels`].
    pub fn levels(&self) -> Levels {
        Levels {
            in_flight_bytes: self.0.in_flight.load(Ordering::Relaxed),
            loaded_bytes: self.0.node.loaded().bytes(),
            open_operations: self.table().len() as u64,
            receiving_bytes: self.0.receiving.bytes(),
            requests_ended: self.0.receiving.ended(),
            ..Levels::default()
        }
    }

    /// The requests that are arriving.
    pub fn receiving(&self) -> &Receiving {
        &self.0.receiving
    }

    /// How full this node's tables are.
    pub fn tables(&self) -> Vec<Usage> {
        shares::tables(&self.0.node, self.0.in_flight.load(Ordering::Relaxed))
    }

    /// The streams that answer somebody.
    pub(super) fn readers(&self) -> &Readers {
        &self.0.readers
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrived(&self) -> MutexGuard<'_, VecDeque<Box<Call>>> {
        self.0.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrive(&self, call: Box<Call>) {
        self.arrived().push_back(call);
        self.0.wake.notify_one();
    }

    pub(super) fn now(&self) -> Duration {
        self.0.clock.now()
    }

    pub(super) fn wall_ms(&self) -> u64 {
        self.0.clock.wall_ms()
    }

    pub(super) fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// An attempt ended: answers, or tries again where that is safe and may help. Does nothing if it was settled before.
    pub(super) fn settle(&self, key: u64, result: Result<Done, Refusal>) {
        let open = self.table().take(key);
        if let Some(open) = open {
            self.settle_open(open, result);
        }
    }

    pub(super) fn settle_open(&self, open: Open, result: Result<Done, Refusal>) {
        let Some(mut call) = open.into_call() else { return };
        let result = match result {
            Err(refusal) if !call.operation.is_write() => Err(admission::settle_read(refusal)),
            other => other,
        };
        match result {
            Err(refusal) if admission::may_try_again(call.origin, &refusal) && !self.is_stopping() => {
                call.refusal = Some(refusal);
                self.arrive(call);
            }
            result => self.finish(call, result),
        }
    }

    /// The one way out of every call that was admitted: counted, logged if it was slow or refused, answered.
    fn finish(&self, call: Box<Call>, result: Result<Done, Refusal>) {
        let whose = whose(call.share.as_deref(), call.connection.as_ref());
        let result = result.and_then(|done| whose.share(self.0.node.loaded(), done));
        let now = self.0.clock.now();
        self.0.metrics.ended(call.operation.kind(), &result, now.saturating_sub(call.started));
        if call.origin == Origin::Client {
            self.0.metrics.answered_one(call.operation.kind());
        }
        self.tell_if_slow(&call, &result, now);
        self.0.metrics.saved(&call.operation, &result);
        if let Err(refusal) = &result {
            self.0.node.events().refused(super::metrics::refusal_name(&refusal.kind));
        }
        let Call { answerer, charge, .. } = *call;
        drop(charge);
        if let Some(answerer) = answerer {
            answerer.answer(result);
        }
    }

    fn tell_if_slow(&self, call: &Call, result: &Result<Done, Refusal>, now: Duration) {
        if self.0.slow.is(now.saturating_sub(call.started)) {
            let timing = Timing {
                started: call.started,
                handed: call.handed.map(|(at, _)| at),
                ended: now,
                parked: call.parked_until.is_some(),
                forwarded: call.handed.is_some_and(|(_, forwarded)| forwarded),
                is_write: call.operation.is_write(),
                slowest_sync: self.0.node.slowest_sync_since(call.started),
            };
            let cause = self.0.slow.tell(call.operation.kind().name(), super::metrics::result_name(result), &timing);
            self.0.metrics.slow(cause);
        }
    }

    fn look_at_readers(&self) {
        let cut_off = self.0.readers.look(self.now());
        if cut_off > 0 {
            tracing::warn!(streams = cut_off, "readers that took nothing were cut off");
            self.0.metrics.cut_off(cut_off);
            self.0.node.events().refused("slow_reader");
        }
    }

    /// Runs until `stop`; its spawner joins it. What is open then is answered as Raft lets go of it.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut task = Task::new(self.clone());
        let mut leadership = self.0.node.leadership();
        leadership.mark_changed();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0;
        while !*stop.borrow() {
            let busy = task.is_busy();
            tokio::select! {
                biased;
                changed = leadership.changed() => match changed {
                    Ok(()) => task.leadership_changed(&leadership.borrow_and_update().clone()),
                    // Raft is gone: nothing more will be settled by it.
                    Err(_) => break,
                },
                event = task.links.event() => task.links_changed(event),
                _ = tick.tick(), if busy => {
                    task.tick();
                    ticks += 1;
                    if ticks % METRICS_EVERY == 0 {
                        self.0.metrics.keep_up();
                    }
                    if ticks % READERS_EVERY == 0 {
                        self.look_at_readers();
                    }
                }
                () = self.0.wake.notified() => {}
                _ = stop.changed() => {}
            }
            task.turn();
        }
        task.refuse_all();
    }
}

/// The dispatcher's task: all that only one turn at a time may touch.
struct Task {
    dispatcher: Dispatcher,
    leadership: Leadership,
    /// Counts changes of the leadership, from 1.
    epoch: u64,
    park: Park<Box<Call>>,
    links: Links,
    writes: Fair<Box<Call>>,
    reads: Fair<Box<Call>>,
    write_batches: Arc<()>,
    read_batches: Arc<()>,
    /// Operations in the latest proposal, and in the latest read index.
    last_writes: usize,
    last_reads: usize,
}

impl Task {
    fn new(dispatcher: Dispatcher) -> Self {
        Self {
            links: Links::new(dispatcher.clone()),
            dispatcher,
            leadership: Leadership::default(),
            epoch: 1,
            park: Park::new(),
            writes: Fair::default(),
            reads: Fair::default(),
            write_batches: Arc::new(()),
            last_writes: 0,
            last_reads: 0,
            read_batches: Arc::new(()),
        }
    }

    fn is_busy(&self) -> bool {
        !self.park.is_empty() || !self.writes.is_empty() || !self.reads.is_empty() || self.dispatcher.has_open()
            // Content that waits for its reader is what keeps an otherwise idle node looking at its readers.
            || self.dispatcher.0.node.loaded().bytes() > 0
    }

    fn situation(&self) -> Situation {
        let node = &self.dispatcher.0.node;
        let outside = node.outside();
        Situation {
            now: self.dispatcher.0.clock.now(),
            cluster_id: node.cluster_id(),
            is_estranged: outside.is_some() && node.estranged().is_some(),
            outside,
            leads: self.leadership.is_self,
            leader: self.leadership.leader.clone().filter(|leader| leader.node != node.id()),
            saves_wait_for: if self.leadership.is_self { node.saves_wait_for() } else { None },
            lacks_quorum: self.leadership.lacks_quorum,
            hung: self.leadership.hung,
            stopping: self.dispatcher.is_stopping(),
        }
    }

    /// Takes what has arrived, and hands over as much as may be in flight.
    fn turn(&mut self) {
        let arrived = std::mem::take(&mut *self.dispatcher.arrived());
        if !arrived.is_empty() {
            let situation = self.situation();
            arrived.into_iter().for_each(|call| self.send(call, &situation));
        }
        self.propose();
        self.read();
    }

    fn send(&mut self, mut call: Box<Call>, situation: &Situation) {
        // Refused under the leadership that still stands: another attempt now would end alike.
        if call.refusal.is_some() && call.epoch == self.epoch {
            return self.park(call, situation);
        }
        call.epoch = self.epoch;
        match admission::route(&call, situation) {
            Route::Here => {
                let waiting = if call.operation.is_write() { &mut self.writes } else { &mut self.reads };
                let flow = call.share.as_ref().map(|share| share.flow());
                waiting.push(flow, call.charge.bytes(), call, situation.now);
            }
            Route::Forward(leader) => match self.links.send(leader, call) {
                Sent::Yes => self.dispatcher.0.metrics.forwarded(),
                Sent::NotYet(call) => self.park(call, situation),
            },
            Route::Park => self.park(call, situation),
            Route::Refuse(refusal) => self.dispatcher.finish(call, Err(refusal)),
        }
    }

    fn park(&mut self, mut call: Box<Call>, situation: &Situation) {
        let until = admission::parked_until(call.parked_until, situation.now, call.deadline);
        call.parked_until = Some(until);
        if until <= situation.now {
            return self.expired(call);
        }
        if let Err(call) = self.park.push(call) {
            let kind = RefusalKind::Overloaded { retry_after: RETRY_AFTER };
            let refusal = Refusal::not_applied(kind, format!("too many calls wait for a leader limit={PARKED_CALLS_MAX}"));
            self.dispatcher.finish(call, Err(refusal));
        }
        tracing::debug!("a call is parked");
        self.dispatcher.0.metrics.parked(self.park.len());
    }

    fn expired(&mut self, mut call: Box<Call>) {
        let refusal = call.refusal.take().unwrap_or_else(admission::no_quorum);
        self.dispatcher.finish(call, Err(refusal));
    }

    /// Tries all parked calls again; those parked for too long are refused.
    fn unpark(&mut self) {
        if self.park.is_empty() {
            return;
        }
        let situation = self.situation();
        let released = self.park.release(situation.now);
        released.expired.into_iter().for_each(|call| self.expired(call));
        for mut call in released.waiting {
            call.epoch = 0;
            self.send(call, &situation);
        }
        self.dispatcher.0.metrics.parked(self.park.len());
    }

    fn leadership_changed(&mut self, now: &Leadership) {
        if now.leader != self.leadership.leader {
            self.dispatcher.0.metrics.leader_changed();
        }
        self.leadership = now.clone();
        self.epoch += 1;
        if now.hung {
            self.let_go("the disk of this node hangs and another leads", |_| true);
        } else if now.lacks_quorum && !mutant::is(Mutant::CutLeaderKeepsOpenWrites) {
            let why = "no quorum: no majority of the voters answers this leader, another may lead by now";
            self.let_go(why, |operation| !operation.is_stale_read());
        }
        let me = self.dispatcher.0.node.id();
        let hint = now.leader.as_ref().filter(|leader| leader.node != me);
        *self.dispatcher.0.leader.lock().unwrap_or_else(PoisonError::into_inner) =
            hint.map(|leader| v1::Leader { node: leader.node.0, address: leader.address.clone() });
        self.links.keep_only(hint.map(|leader| leader.node));
        if let Some(leader) = hint {
            self.links.open(leader.node);
        }
        let situation = self.situation();
        self.waiting().into_iter().for_each(|call| self.send(call, &situation));
        // What an earlier leadership still has in flight may take long to come to an end, and must not hold up this one.
        self.write_batches = Arc::new(());
        self.read_batches = Arc::new(());
        self.unpark();
    }

    /// Answers what this node's Raft has open and won't settle soon: the caller goes elsewhere with the same request.
    ///
    /// A write that was handed over may be in the logs of others already: nothing but an outcome settles it.
    fn let_go(&self, why: &str, wanted: impl Fn(&Operation) -> bool) {
        let open = self.dispatcher.table().take_local(wanted);
        for open in open {
            let refusal = Refusal::unknown_unless(mutant::is(Mutant::CutLeaderSaysNotApplied), RefusalKind::Unavailable, why);
            self.dispatcher.settle_open(open, Err(refusal));
        }
    }

    fn links_changed(&mut self, event: super::forward::Event) {
        self.links.changed(event);
        self.unpark();
    }

    /// All that waits for a round, to be routed again.
    fn waiting(&mut self) -> Vec<Box<Call>> {
        let mut waiting = self.writes.drain();
        waiting.append(&mut self.reads.drain());
        waiting
    }

    /// Refuses what is past its deadline; tries parked calls again.
    fn tick(&mut self) {
        let now = self.dispatcher.0.clock.now();
        let expired = self.dispatcher.table().expire(now);
        for call in expired {
            let message = "the deadline passed before the operation was settled: no quorum, or too slow a one";
            let kind = RefusalKind::DeadlineExceeded;
            let refusal = match call.operation {
                Operation::Write(_) => Refusal::unknown_unless(mutant::is(Mutant::LateRefused), kind, message),
                _ => Refusal::not_applied(kind, message),
            };
            self.dispatcher.finish(call, Err(refusal));
        }
        if self.writes.iter().chain(self.reads.iter()).any(|call| call.deadline <= now) {
            let situation = self.situation();
            self.waiting().into_iter().for_each(|call| self.send(call, &situation));
        }
        self.unpark();
    }

    /// A round costs the same for one operation as for hundreds, so what arrives while enough rounds are under way waits for the next
    /// one to end; unless it fills a batch, which then gains nothing by waiting. A second round that would be smaller than the one
    /// under way waits too: otherwise what comes back together is cut into ever smaller rounds.
    fn may_propose(&self) -> bool {
        let full = if is_full(&self.writes) { WRITE_BATCHES_MAX } else { 0 };
        may_begin(&self.write_batches, WRITE_BATCHES_SOFT, full, self.writes.len(), self.last_writes)
    }

    fn propose(&mut self) {
        while self.may_propose() {
            let taken = take_batch(&mut self.writes, self.dispatcher.now());
            if taken.is_empty() {
                // What waits is large, and waits for another of its token.
                break;
            }
            let calls = self.judge(taken);
            if calls.is_empty() {
                continue;
            }
            self.last_writes = calls.len();
            let batch = Arc::new(Batch::new(self.dispatcher.clone(), self.write_batches.clone()));
            self.dispatcher.0.metrics.proposed(calls.len());
            let now = self.dispatcher.now();
            let mut table = self.dispatcher.table();
            let mut commands = Vec::with_capacity(calls.len());
            for (mut call, hold) in calls {
                call.handed = Some((now, false));
                let Operation::Write(write) = &call.operation else { continue };
                let command = Command::Client(write.clone());
                let reply = Reply::new(&batch, table.enter(call)).holding(hold);
                commands.push((command, reply.of_write()));
            }
            drop(table);
            self.dispatcher.0.node.propose(commands);
        }
    }

    /// Refuses what is beyond the shares of its token; gives the rest, with what each counts for. One look at the machine for all.
    fn judge(&self, calls: Vec<Box<Call>>) -> Vec<(Box<Call>, Option<Hold>)> {
        if calls.iter().all(|call| call.share.is_none()) {
            return calls.into_iter().map(|call| (call, None)).collect();
        }
        let node = &self.dispatcher.0.node;
        let at = Circumstances { now: self.dispatcher.now(), disk_bytes: node.disk().1 };
        let judged = node.metered(|machine| {
            let judge = |call: &Box<Call>| match (&call.share, &call.operation) {
                (Some(share), Operation::Write(write)) => share.judge(write, machine, at),
                _ => Ok(None),
            };
            calls.iter().map(judge).collect::<Vec<_>>()
        });
        let mut allowed = Vec::with_capacity(calls.len());
        for (call, judged) in calls.into_iter().zip(judged) {
            match judged {
                Ok(hold) => allowed.push((call, hold)),
                Err(refusal) => self.dispatcher.finish(call, Err(refusal)),
            }
        }
        allowed
    }

    fn read(&mut self) {
        while may_begin(&self.read_batches, READ_BATCHES_MAX, 0, self.reads.len(), self.last_reads) {
            let calls = take_batch(&mut self.reads, self.dispatcher.now());
            self.last_reads = calls.len();
            let batch = Arc::new(Batch::new(self.dispatcher.clone(), self.read_batches.clone()));
            self.dispatcher.0.metrics.read(calls.len());
            let now = self.dispatcher.now();
            let mut table = self.dispatcher.table();
            let mut reads = Vec::with_capacity(calls.len());
            for mut call in calls {
                call.handed = Some((now, false));
                let operation = call.operation.clone();
                let reply = Reply::new(&batch, table.enter(call));
                match operation {
                    Operation::Load(load) => reads.push(Read::Load(load, reply.of_load())),
                    Operation::List(list) => reads.push(Read::List(list, reply.of_list())),
                    Operation::Write(_) => {}
                }
            }
            drop(table);
            self.dispatcher.0.node.read(reads);
        }
    }

    fn refuse_all(&mut self) {
        let arrived = std::mem::take(&mut *self.dispatcher.arrived());
        let parked = self.park.release(Duration::ZERO).waiting;
        for call in self.waiting().into_iter().chain(arrived).chain(parked) {
            let refusal = Refusal::not_applied(RefusalKind::Unavailable, "the node is stopping");
            self.dispatcher.finish(call, Err(refusal));
        }
        let open = self.dispatcher.table().drain();
        for open in open {
            let why = "the node stopped before the operation was settled";
            let refusal = Refusal::unknown_unless(mutant::is(Mutant::StoppedRefused), RefusalKind::Unavailable, why);
            self.dispatcher.settle_open(open, Err(refusal));
        }
    }
}

/// Whose readers an answer waits for.
fn whose<'a>(share: Option<&'a Share>, connection: Option<&'a Arc<AtomicU64>>) -> Whose<'a> {
    Whose { connection, token: share.map(|share| (share.name(), share.loaded())) }
}

/// Whether another round may begin for `waiting` operations: at once if none is under way; up to `soft` of them if it is no smaller than
/// the `last` one; up to `full` of them anyway.
fn may_begin(under_way: &Arc<()>, soft: usize, full: usize, waiting: usize, last: usize) -> bool {
    let under_way = Arc::strong_count(under_way) - 1;
    waiting > 0 && (under_way == 0 || under_way < full || (under_way < soft && waiting >= last))
}

/// Whether what waits fills a batch.
fn is_full(waiting: &Fair<Box<Call>>) -> bool {
    waiting.len() >= BATCH_OPERATIONS_MAX || waiting.bytes() >= BATCH_BYTES_MAX
}

/// What goes into one proposal or one read index, in turn by token: at most [`BATCH_OPERATIONS_MAX`], and beyond the first at most
/// [`BATCH_BYTES_MAX`]. Nothing only where all that waits is large writes of tokens that have one under way.
fn take_batch(waiting: &mut Fair<Box<Call>>, now: Duration) -> Vec<Box<Call>> {
    let round = Round { operations_max: BATCH_OPERATIONS_MAX, bytes_max: BATCH_BYTES_MAX, now };
    waiting.take(round, |call| call.share.as_ref().is_some_and(|share| share.proposed_bytes() > BATCH_BYTES_MAX))
}
