//! The calls of a node between their admission and their answer: where they arrive, the table of those in flight, and the one way out.
//!
//! Batches, forward streams and streams of answers know this, and nothing of the task above it that decides where a call goes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::env::Clock;
use crate::raft::{Node, no_room};
use crate::server::admission;
use crate::server::call::{Call, Operation, Origin, Response};
use crate::server::in_flight::{InFlight, InFlightTable};
use crate::server::metrics::{self, Metrics, Wire};
use crate::server::readers::{Readers, Whose};
use crate::server::shares::Share;
use crate::server::slow::{Slow, Timing};
use crate::types::Refusal;

/// The calls of a node, from admission to answer. Cheap to clone.
#[derive(Clone)]
pub struct Calls(Arc<Inner>);

struct Inner {
    node: Node,
    clock: Arc<dyn Clock>,
    arrived: Mutex<VecDeque<Box<Call>>>,
    wake: Notify,
    table: Mutex<InFlightTable>,
    in_flight: Arc<AtomicU64>,
    readers: Readers,
    stopping: AtomicBool,
    metrics: Metrics,
    slow: Slow,
}

impl Calls {
    pub fn new(node: Node, clock: Arc<dyn Clock>, wire: Wire, slow: Duration) -> Self {
        Self(Arc::new(Inner {
            node,
            clock,
            arrived: Mutex::default(),
            wake: Notify::new(),
            table: Mutex::default(),
            in_flight: Arc::default(),
            readers: Readers::default(),
            stopping: AtomicBool::new(false),
            metrics: Metrics::new(wire),
            slow: Slow::new(slow),
        }))
    }

    /// The consensus node.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    pub fn now(&self) -> Duration {
        self.0.clock.now()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The streams of answers to clients.
    pub fn readers(&self) -> &Readers {
        &self.0.readers
    }

    /// Bytes of operations admitted and not yet done.
    pub fn in_flight(&self) -> &Arc<AtomicU64> {
        &self.0.in_flight
    }

    /// Refuses new operations from now on.
    pub fn stop_admitting(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.wake();
    }

    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// Operations admitted and not yet done.
    pub fn has_open(&self) -> bool {
        self.table().len() > 0 || !self.arrived().is_empty()
    }

    /// Leaves a call to the task, which sends it where it belongs.
    pub fn arrive(&self, call: Box<Call>) {
        self.arrived().push_back(call);
        self.wake();
    }

    /// All that has arrived, oldest first.
    pub fn take_arrived(&self) -> VecDeque<Box<Call>> {
        std::mem::take(&mut *self.arrived())
    }

    fn arrived(&self) -> MutexGuard<'_, VecDeque<Box<Call>>> {
        self.0.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn table(&self) -> MutexGuard<'_, InFlightTable> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the dispatcher's task.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Ends with the next [`Calls::wake`], or at once after one that nobody waited for. Cancel safe.
    pub async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// Errors: readers hold so much that they do not take that nothing more is to be read, at all, for this caller's token or on its
    /// connection.
    pub fn admit_read(
        &self,
        operation: &Operation,
        share: Option<&Share>,
        connection: Option<&Arc<AtomicU64>>,
    ) -> Result<(), Refusal> {
        let budget = self.node().loaded();
        let expected_bytes = || match operation {
            Operation::Load(load) => self.node().expected_bytes(std::slice::from_ref(load)),
            Operation::LoadMany(many) => self.node().expected_bytes(many.loads()),
            _ => 0,
        };
        whose(share, connection).admit(budget, expected_bytes)?;
        while budget.is_full() && self.0.readers.make_room(self.now()) {
            tracing::warn!("a reader that took nothing was cut off: others needed the room");
            self.0.metrics.cut_off(1);
            self.node().events().refused("slow_reader");
        }
        if budget.has_room_for(0) { Ok(()) } else { Err(no_room()) }
    }

    /// An attempt ended: answers, or tries again where that is safe and may help. Does nothing if its call was answered before.
    pub fn end_attempt(&self, key: u64, result: Result<Response, Refusal>) {
        let in_flight = self.table().take(key);
        if let Some(in_flight) = in_flight {
            self.end_attempt_of(in_flight, result);
        }
    }

    pub fn end_attempt_of(&self, in_flight: InFlight, result: Result<Response, Refusal>) {
        let Some(mut call) = in_flight.into_call() else { return };
        let Err(refusal) = result else { return self.finish(call, result) };
        let refusal = if call.operation.is_write() { refusal } else { admission::refused_read(refusal) };
        if admission::may_try_again(call.origin, &refusal) && !self.is_stopping() {
            call.refusal = Some(refusal);
            return self.arrive(call);
        }
        self.finish(call, Err(refusal));
    }

    /// The one way out of every call that was admitted: counted, logged if it was slow or refused, answered.
    pub fn finish(&self, call: Box<Call>, result: Result<Response, Refusal>) {
        let mut result = result.and_then(|done| done.known_by(call.knows));
        if let Ok(done) = &mut result
            && let Err(refusal) = whose(call.share.as_deref(), call.connection.as_ref()).share(self.node().loaded(), done)
        {
            result = Err(refusal);
        }
        let now = self.now();
        self.0.metrics.ended(call.operation.kind(), &result, now.saturating_sub(call.started));
        if call.origin == Origin::Client {
            self.0.metrics.answered_one(call.operation.kind());
        }
        self.report_if_slow(&call, &result, now);
        self.0.metrics.saved(&call.operation, &result);
        if let Err(refusal) = &result {
            self.node().events().refused(metrics::refusal_name(&refusal.kind));
        }
        let Call { answerer, permit, .. } = *call;
        drop(permit);
        if let Some(answerer) = answerer {
            answerer.answer(result);
        }
    }

    fn report_if_slow(&self, call: &Call, result: &Result<Response, Refusal>, now: Duration) {
        if self.0.slow.is(now.saturating_sub(call.started)) {
            let timing = Timing {
                started: call.started,
                dispatched: call.dispatched.map(|last| last.at),
                ended: now,
                parked: call.parked_until.is_some(),
                forwarded: call.dispatched.is_some_and(|last| last.forwarded),
                is_write: call.operation.is_write(),
                slowest_sync: self.node().slowest_sync_since(call.started),
            };
            let cause = self.0.slow.report(call.operation.kind().name(), metrics::result_name(result), &timing);
            self.0.metrics.slow(cause);
        }
    }

    /// Cuts off the streams whose clients take nothing.
    pub fn cut_off_stalled_readers(&self) {
        let cut_off = self.0.readers.cut_off_stalled(self.now());
        if cut_off > 0 {
            tracing::warn!(streams = cut_off, "readers that took nothing were cut off");
            self.0.metrics.cut_off(cut_off);
            self.node().events().refused("slow_reader");
        }
    }
}

/// The shares that an answer counts in.
fn whose<'a>(share: Option<&'a Share>, connection: Option<&'a Arc<AtomicU64>>) -> Whose<'a> {
    Whose { connection, token: share.map(|share| (share.name(), share.loaded())) }
}
