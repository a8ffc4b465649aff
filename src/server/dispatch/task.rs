//! The task that decides where each call goes: all that only one turn at a time may touch.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Envelope;
use super::batches::{Batch, Reply, is_full, may_begin};
use super::calls::Calls;
use super::fair::{Contest, Fair, Flow, Round};
use super::forward::{Event, Links, Sent};
use super::park::Park;
use crate::limits::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, PARKED_CALLS_MAX};
use crate::machine::Command;
use crate::mutant::{self, Mutant};
use crate::raft::{Leadership, Read};
use crate::server::admission::{self, RETRY_AFTER, Route, Situation};
use crate::server::call::{Call, Dispatched, Operation};
use crate::server::shares::{Circumstances, Hold, Share};
use crate::types::{Refusal, RefusalKind};
use crate::wire::v1;

/// How often deadlines are looked at, while anything is open.
const TICK: Duration = Duration::from_millis(50);
/// A write that its token's rate holds back is refused so long before its deadline, so that the refusal gets there first.
const HELD_BACK_MARGIN: Duration = Duration::from_millis(500);
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

/// The dispatcher's task: decides where each call goes.
pub struct Task {
    calls: Calls,
    envelope: Arc<Envelope>,
    leadership: Leadership,
    /// Counts changes of the leadership, from 1.
    epoch: u64,
    park: Park<Box<Call>>,
    links: Links,
    writes: Fair<Box<Call>>,
    reads: Fair<Box<Call>>,
    contest: Contest,
    write_batches: Arc<()>,
    read_batches: Arc<()>,
    /// Operations in the latest proposal, and in the latest read index.
    last_writes: usize,
    last_reads: usize,
}

impl Task {
    pub fn new(calls: Calls, envelope: Arc<Envelope>) -> Self {
        Self {
            links: Links::new(calls.clone()),
            calls,
            envelope,
            leadership: Leadership::default(),
            epoch: 1,
            park: Park::new(),
            writes: Fair::default(),
            reads: Fair::default(),
            contest: Contest::default(),
            write_batches: Arc::new(()),
            last_writes: 0,
            last_reads: 0,
            read_batches: Arc::new(()),
        }
    }

    /// Runs until `stop`; its spawner joins it. Calls in flight then are answered as Raft drops them.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut leadership = self.calls.node().leadership();
        leadership.mark_changed();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0;
        while !*stop.borrow() {
            let busy = self.is_busy();
            tokio::select! {
                biased;
                changed = leadership.changed() => match changed {
                    Ok(()) => self.on_leadership(&leadership.borrow_and_update().clone()),
                    // Raft is gone: it answers nothing more.
                    Err(_) => break,
                },
                event = self.links.event() => self.on_link_event(event),
                _ = tick.tick(), if busy => {
                    self.tick();
                    ticks += 1;
                    if ticks % METRICS_EVERY == 0 {
                        self.calls.metrics().keep_up();
                    }
                    if ticks % READERS_EVERY == 0 {
                        self.calls.cut_off_stalled_readers();
                    }
                }
                () = self.calls.woken() => {}
                _ = stop.changed() => {}
            }
            self.turn();
        }
        self.refuse_all();
    }

    fn is_busy(&self) -> bool {
        !self.park.is_empty() || !self.writes.is_empty() || !self.reads.is_empty() || self.calls.has_open()
            // Content that waits for its reader is what keeps an otherwise idle node looking at its readers.
            || self.calls.node().loaded().bytes() > 0
    }

    fn situation(&self) -> Situation {
        let node = self.calls.node();
        let outside = node.outside();
        let leader = self.leadership.leader.clone().filter(|leader| leader.node != node.id());
        let in_force = node.cluster_version();
        self.envelope.set_in_force(in_force);
        Situation {
            now: self.calls.now(),
            cluster_id: node.cluster_id(),
            is_estranged: outside.is_some() && node.estranged().is_some(),
            outside,
            leads: self.leadership.is_self,
            in_force,
            leader_reads: leader.as_ref().and_then(|leader| node.newest_version_of(leader.node, self.leadership.term)),
            leader,
            saves_wait_for: if self.leadership.is_self { node.saves_wait_for() } else { None },
            lacks_quorum: self.leadership.lacks_quorum,
            hung: self.leadership.hung,
            stopping: self.calls.is_stopping(),
        }
    }

    /// Takes what has arrived, and hands over as much as may be in flight.
    fn turn(&mut self) {
        let arrived = self.calls.take_arrived();
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
                let (bytes, token) = (call.permit.bytes(), call.share.as_ref().map(|share| share.flow()));
                self.contest.note(token.as_ref(), situation.now);
                // Without tokens all keep their order.
                let is_large = bytes > BATCH_BYTES_MAX && token.is_some();
                waiting.push(Flow { token, is_large }, bytes, call);
            }
            Route::Forward(leader) => match self.links.send(leader, call) {
                Sent::Yes => self.calls.metrics().forwarded(),
                Sent::NotYet(call) => self.park(call, situation),
            },
            Route::Park => self.park(call, situation),
            Route::Refuse(refusal) => self.calls.finish(call, Err(refusal)),
        }
    }

    fn park(&mut self, mut call: Box<Call>, situation: &Situation) {
        let until = admission::parked_until(call.parked_until, situation.now, call.deadline);
        call.parked_until = Some(until);
        if until <= situation.now {
            return self.on_expired(call);
        }
        if let Err(call) = self.park.push(call) {
            let kind = RefusalKind::Overloaded { retry_after: RETRY_AFTER };
            let refusal = Refusal::not_applied(kind, format!("too many calls wait for a leader limit={PARKED_CALLS_MAX}"));
            return self.calls.finish(call, Err(refusal));
        }
        tracing::debug!("a call is parked");
        self.calls.metrics().parked(self.park.len());
    }

    fn on_expired(&mut self, mut call: Box<Call>) {
        let refusal = call.refusal.take().unwrap_or_else(admission::no_quorum);
        self.calls.finish(call, Err(refusal));
    }

    /// Tries all parked calls again; those parked for too long are refused.
    fn unpark(&mut self) {
        if self.park.is_empty() {
            return;
        }
        let situation = self.situation();
        let released = self.park.release(situation.now);
        released.expired.into_iter().for_each(|call| self.on_expired(call));
        for mut call in released.waiting {
            call.epoch = 0;
            self.send(call, &situation);
        }
        self.calls.metrics().parked(self.park.len());
    }

    fn on_leadership(&mut self, now: &Leadership) {
        if now.leader != self.leadership.leader {
            self.calls.metrics().leader_changed();
        }
        self.leadership = now.clone();
        self.epoch += 1;
        if now.hung {
            self.let_go("the disk of this node hangs and another leads", |_| true);
        } else if now.lacks_quorum && !mutant::is(Mutant::CutLeaderKeepsOpenWrites) {
            let why = "no quorum: no majority of the voters answers this leader, another may lead by now";
            self.let_go(why, |operation| !operation.is_stale_read());
        }
        let me = self.calls.node().id();
        let hint = now.leader.as_ref().filter(|leader| leader.node != me);
        self.envelope.set_leader(hint.map(|leader| v1::Leader { node: leader.node.0, address: leader.address.clone() }));
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

    /// Answers what this node's Raft has in flight and won't answer soon: the caller goes elsewhere with the same request.
    ///
    /// A write that was proposed may be in the logs of others already: nothing but an outcome settles it.
    fn let_go(&self, why: &str, wanted: impl Fn(&Operation) -> bool) {
        let open = self.calls.table().take_local(wanted);
        for in_flight in open {
            let refusal = Refusal::unknown_unless(mutant::is(Mutant::CutLeaderSaysNotApplied), RefusalKind::Unavailable, why);
            self.calls.end_attempt_of(in_flight, Err(refusal));
        }
    }

    fn on_link_event(&mut self, event: Event) {
        self.links.on_event(event);
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
        let now = self.calls.now();
        let expired = self.calls.table().expire(now);
        for call in expired {
            let message = "the deadline passed before the operation was answered: no quorum, or too slow a one";
            let kind = RefusalKind::DeadlineExceeded;
            let refusal = match call.operation {
                Operation::Write(_) => Refusal::unknown_unless(mutant::is(Mutant::LateRefused), kind, message),
                _ => Refusal::not_applied(kind, message),
            };
            self.calls.finish(call, Err(refusal));
        }
        let ends = |call: &Call| call.deadline <= now || held_back(call, now).is_some();
        if self.writes.iter().chain(self.reads.iter()).any(|call| ends(call)) {
            let situation = self.situation();
            for call in self.waiting() {
                match held_back(&call, now).map(|(share, bytes)| share.refuse_held_back(bytes)) {
                    Some(refusal) => self.calls.finish(call, Err(refusal)),
                    None => self.send(call, &situation),
                }
            }
        }
        self.unpark();
    }

    /// A round costs the same for one operation as for hundreds, so operations that arrive while enough rounds are under way wait for the
    /// next one to end, unless they fill a batch. A second round that would be smaller than the one under way waits too: otherwise callers
    /// that are answered together are split into ever smaller batches.
    fn may_propose(&self, round: Round, now: Duration) -> bool {
        let ready = self.writes.ready(round, |call| must_wait(call, now));
        let full = if is_full(ready) { WRITE_BATCHES_MAX } else { 0 };
        may_begin(&self.write_batches, WRITE_BATCHES_SOFT, full, ready.len, self.last_writes)
    }

    /// How much one proposal or one read index takes.
    fn round(&self, now: Duration) -> Round {
        Round { operations_max: BATCH_OPERATIONS_MAX, bytes_max: BATCH_BYTES_MAX, is_contested: self.contest.is_on(now) }
    }

    fn propose(&mut self) {
        let now = self.calls.now();
        let round = self.round(now);
        while self.may_propose(round, now) {
            let taken = self.writes.take(round, |call| must_wait(call, now));
            let calls = self.judge(taken);
            if calls.is_empty() {
                continue;
            }
            self.last_writes = calls.len();
            let batch = Arc::new(Batch::new(self.calls.clone(), self.write_batches.clone()));
            self.calls.metrics().proposed(calls.len());
            let now = self.calls.now();
            let mut table = self.calls.table();
            let mut commands = Vec::with_capacity(calls.len());
            for (mut call, hold) in calls {
                call.dispatched = Some(Dispatched { at: now, forwarded: false });
                let Operation::Write(write) = &call.operation else { continue };
                let command = Command::Client(write.clone());
                let reply = Reply::new(&batch, table.enter(call)).holding(hold);
                commands.push((command, reply.of_write()));
            }
            drop(table);
            self.calls.node().propose(commands);
        }
    }

    /// Refuses what is beyond the shares of its token; gives the rest, with what each counts for. One look at the machine for all.
    fn judge(&self, calls: Vec<Box<Call>>) -> Vec<(Box<Call>, Option<Hold>)> {
        if calls.iter().all(|call| call.share.is_none()) {
            return calls.into_iter().map(|call| (call, None)).collect();
        }
        let node = self.calls.node();
        let now = self.calls.now();
        let at = Circumstances { now, disk_bytes: node.disk().1, is_contested: self.contest.is_on(now) };
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
                Err(refusal) => self.calls.finish(call, Err(refusal)),
            }
        }
        allowed
    }

    fn read(&mut self) {
        let round = self.round(self.calls.now());
        while may_begin(&self.read_batches, READ_BATCHES_MAX, 0, self.reads.len(), self.last_reads) {
            let calls = self.reads.take(round, |_| false);
            self.last_reads = calls.len();
            let batch = Arc::new(Batch::new(self.calls.clone(), self.read_batches.clone()));
            self.calls.metrics().read(calls.len());
            let now = self.calls.now();
            let mut table = self.calls.table();
            let mut reads = Vec::with_capacity(calls.len());
            for mut call in calls {
                call.dispatched = Some(Dispatched { at: now, forwarded: false });
                let operation = call.operation.clone();
                let reply = Reply::new(&batch, table.enter(call));
                match operation {
                    Operation::Load(load) => reads.push(Read::Load(load, reply.of_load())),
                    Operation::List(list) => reads.push(Read::List(list, reply.of_list())),
                    Operation::LoadMany(many) => reads.push(Read::LoadMany(many, reply.of_many())),
                    Operation::Write(_) => {}
                }
            }
            drop(table);
            self.calls.node().read(reads);
        }
    }

    fn refuse_all(&mut self) {
        let arrived = self.calls.take_arrived();
        let parked = self.park.release(Duration::ZERO).waiting;
        for call in self.waiting().into_iter().chain(arrived).chain(parked) {
            let refusal = Refusal::not_applied(RefusalKind::Unavailable, "the node is stopping");
            self.calls.finish(call, Err(refusal));
        }
        let open = self.calls.table().drain();
        for in_flight in open {
            let why = "the node stopped before the operation was answered";
            let refusal = Refusal::unknown_unless(mutant::is(Mutant::StoppedRefused), RefusalKind::Unavailable, why);
            self.calls.end_attempt_of(in_flight, Err(refusal));
        }
    }
}

/// Whether a large write waits while other tokens call: for another of its token that is under way, or for its token's rate.
fn must_wait(call: &Call, now: Duration) -> bool {
    call.share.as_ref().is_some_and(|share| share.proposed_bytes() > BATCH_BYTES_MAX || !share.large_is_due(now))
}

/// The share and the bytes of a large write that its token's rate holds back until its deadline.
fn held_back(call: &Call, now: Duration) -> Option<(&Share, u64)> {
    let (Some(share), Operation::Write(write)) = (&call.share, &call.operation) else { return None };
    let bytes = write.stored_bytes();
    let is_late = call.deadline <= now + HELD_BACK_MARGIN;
    (is_late && bytes > BATCH_BYTES_MAX && !share.large_is_due(now)).then_some((share, bytes))
}
