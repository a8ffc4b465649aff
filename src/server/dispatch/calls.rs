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
use crate::server::call::{Call, Done, Origin};
use crate::server::metrics::{self, Metrics, Wire};
use crate::server::readers::{Readers, Whose};
use crate::server::shares::Share;
use crate::server::slow::{Slow, Timing};
use crate::server::table::{Open, Table};
use crate::types::Refusal;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Calls(Arc<Inner>);

struct Inner {
    node: Node,
    clock: Arc<dyn Clock>,
    arrived: Mutex<VecDeque<Box<Call>>>,
    wake: Notify,
    table: Mutex<Table>,
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

    /// The node below.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    pub fn now(&self) -> Duration {
        self.0.clock.now()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The streams that answer somebody.
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

    /// A call is to be sent where it belongs, by the task.
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

    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the task a turn.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Ends with the next [`Calls::wake`], or at once after one that nobody waited for. Cancel safe.
    pub async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// Errors: readers hold so much that they do not take that nothing more is to be read, at all, for this caller's token or on its
    /// connection.
    pub fn admit_read(&self, share: Option<&Share>, connection: Option<&Arc<AtomicU64>>) -> Result<(), Refusal> {
        let room = self.node().loaded();
        whose(share, connection).admit(room)?;
        while room.is_full() && self.0.readers.make_room(self.now()) {
            tracing::warn!("a reader that took nothing was cut off: others needed the room");
            self.0.metrics.cut_off(1);
            self.node().events().refused("slow_reader");
        }
        if room.has_room_for(0) { Ok(()) } else { Err(no_room()) }
    }

    /// An attempt ended: answers, or tries again where that is safe and may help. Does nothing if it was settled before.
    pub fn settle(&self, key: u64, result: Result<Done, Refusal>) {
        let open = self.table().take(key);
        if let Some(open) = open {
            self.settle_open(open, result);
        }
    }

    pub fn settle_open(&self, open: Open, result: Result<Done, Refusal>) {
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
    pub fn finish(&self, call: Box<Call>, result: Result<Done, Refusal>) {
        let whose = whose(call.share.as_deref(), call.connection.as_ref());
        let result = result.and_then(|done| whose.share(self.node().loaded(), done));
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
        let Call { answerer, charge, .. } = *call;
        drop(charge);
        if let Some(answerer) = answerer {
            answerer.answer(result);
        }
    }

    fn report_if_slow(&self, call: &Call, result: &Result<Done, Refusal>, now: Duration) {
        if self.0.slow.is(now.saturating_sub(call.started)) {
            let timing = Timing {
                started: call.started,
                handed: call.handed.map(|(at, _)| at),
                ended: now,
                parked: call.parked_until.is_some(),
                forwarded: call.handed.is_some_and(|(_, forwarded)| forwarded),
                is_write: call.operation.is_write(),
                slowest_sync: self.node().slowest_sync_since(call.started),
            };
            let cause = self.0.slow.tell(call.operation.kind().name(), metrics::result_name(result), &timing);
            self.0.metrics.slow(cause);
        }
    }

    /// Cuts off readers that stand still.
    pub fn look_at_readers(&self) {
        let cut_off = self.0.readers.look(self.now());
        if cut_off > 0 {
            tracing::warn!(streams = cut_off, "readers that took nothing were cut off");
            self.0.metrics.cut_off(cut_off);
            self.node().events().refused("slow_reader");
        }
    }
}

/// Whose readers an answer waits for.
fn whose<'a>(share: Option<&'a Share>, connection: Option<&'a Arc<AtomicU64>>) -> Whose<'a> {
    Whose { connection, token: share.map(|share| (share.name(), share.loaded())) }
}
