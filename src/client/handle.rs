//! The callers' side of the driver: enqueues calls, bounded, and starts the driver with the first of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::config::Config;
use super::driver::operation::{Body, Call, MakeChange, Planned, Reply};
use super::driver::{CALLS_MAX, Driver};
use super::{Error, ErrorKind};
use crate::limits::{KIB, MIB};
use crate::types::{Change, ClusterId, Fence, Outcome, Write};

/// Bytes of writes this client holds at once, enqueued and not settled; above it callers wait.
const HELD_BYTES_MAX: u64 = 128 * MIB;

#[derive(Clone)]
pub(super) struct Handle {
    shared: Arc<Inner>,
    /// That of the turn whose writes go through this handle.
    fencing: Option<Fencing>,
}

/// A fence, with the cluster that gave it: to any other it means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fencing {
    pub fence: Fence,
    pub cluster: ClusterId,
}

struct Inner {
    config: Arc<Config>,
    /// Counts KiB of [`HELD_BYTES_MAX`].
    held: Arc<Semaphore>,
    calls: Mutex<Option<mpsc::Sender<Call>>>,
}

impl Handle {
    pub fn new(config: Config) -> Self {
        let held = Arc::new(Semaphore::new((HELD_BYTES_MAX / KIB) as usize));
        Self { shared: Arc::new(Inner { config: Arc::new(config), held, calls: Mutex::new(None) }), fencing: None }
    }

    /// A handle for the writes of a turn, on this driver: each is sent to the cluster of its fence only.
    pub fn fenced(&self, fencing: Fencing) -> Self {
        Self { shared: self.shared.clone(), fencing: Some(fencing) }
    }

    /// The fencing of the turn whose writes go through this handle.
    pub fn fencing(&self) -> Option<Fencing> {
        self.fencing
    }

    /// The fence that a write through this handle carries.
    pub fn fence(&self) -> Option<Fence> {
        self.fencing.map(|fencing| fencing.fence)
    }

    pub fn config(&self) -> &Arc<Config> {
        &self.shared.config
    }

    /// Enqueues a write and waits for its outcome. Dropped before it is enqueued, nothing was sent; after that it continues.
    pub async fn write(&self, write: Write, plan: Option<Box<dyn Planned>>) -> Result<Outcome, Error> {
        let config = self.config();
        let plan = match self.fencing {
            Some(Fencing { cluster, .. }) => Some(Box::new(OfOneCluster { cluster, plan }) as Box<dyn Planned>),
            None => plan,
        };
        let deadline = config.clock.now() + config.write_deadline;
        let (reply, answer) = oneshot::channel();
        let bytes = write.stored_bytes();
        let permit = self.hold(bytes, config.write_deadline).await?;
        self.enqueue(Call { deadline, body: Body::Write { write, plan, reply }, permit }, config.write_deadline).await?;
        // The driver ended with its runtime, or by a bug of ours: what it sent is not known.
        answer.await.unwrap_or_else(|_| Err(Error::indeterminate(None)))
    }

    /// Enqueues a read and waits for its answer.
    pub async fn read<T>(&self, body: impl FnOnce(Reply<T>) -> Body) -> Result<T, Error> {
        let config = self.config();
        let deadline = config.clock.now() + config.read_deadline;
        let (reply, answer) = oneshot::channel();
        self.enqueue(Call { deadline, body: body(reply), permit: None }, config.read_deadline).await?;
        answer.await.unwrap_or_else(|_| Err(Error::refused("the client's task ended")))
    }

    /// Asks the driver to end, if one runs; dropping `reply` is the answer where none does.
    pub async fn close(&self, reply: oneshot::Sender<()>) {
        let running = self.calls().take();
        if let Some(calls) = running {
            let call = Call { deadline: Duration::MAX, body: Body::Close { reply }, permit: None };
            // It ended by itself.
            let _ = calls.send(call).await;
        }
    }

    /// Small writes are bounded by their number; only what is worth counting is counted.
    async fn hold(&self, bytes: u64, within: Duration) -> Result<Option<OwnedSemaphorePermit>, Error> {
        let Ok(kib @ 1..) = u32::try_from(bytes / KIB) else { return Ok(None) };
        let held = self.shared.held.clone();
        if let Ok(permit) = held.clone().try_acquire_many_owned(kib) {
            return Ok(Some(permit));
        }
        match tokio::time::timeout(within, held.acquire_many_owned(kib)).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(_)) | Err(_) => Err(Error::refused("too many bytes of writes are open in this client")),
        }
    }

    async fn enqueue(&self, call: Call, within: Duration) -> Result<(), Error> {
        let calls = self.running()?;
        let call = match calls.try_send(call) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Full(call) | mpsc::error::TrySendError::Closed(call)) => call,
        };
        // Closed between the two steps: the next one runs.
        let calls = self.running()?;
        match tokio::time::timeout(within, calls.send(call)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::refused("the client was closed")),
            Err(_) => Err(Error::refused("too many calls are open in this client")),
        }
    }

    /// The way to the driver, which is started if none runs: the first call, after a close, after the end of its runtime.
    fn running(&self) -> Result<mpsc::Sender<Call>, Error> {
        let mut calls = self.calls();
        if let Some(running) = calls.as_ref().filter(|running| !running.is_closed()) {
            return Ok(running.clone());
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::invalid("a call needs a tokio runtime"))?;
        let (sender, receiver) = mpsc::channel(CALLS_MAX);
        runtime.spawn(Driver::new(self.shared.config.clone(), receiver).run());
        *calls = Some(sender.clone());
        Ok(sender)
    }

    /// A panic elsewhere leaves the sender as good as it was.
    fn calls(&self) -> MutexGuard<'_, Option<mpsc::Sender<Call>>> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The plan of a write that carries a fence: it is sent to one cluster, and to no other instead.
struct OfOneCluster {
    cluster: ClusterId,
    plan: Option<Box<dyn Planned>>,
}

impl Planned for OfOneCluster {
    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster)
    }

    fn full_change(&mut self, elsewhere: bool) -> Option<MakeChange> {
        if elsewhere { None } else { self.plan.as_mut()?.full_change(false) }
    }

    fn on_full_change(&mut self, change: &Change) {
        if let Some(plan) = &mut self.plan {
            plan.on_full_change(change);
        }
    }

    fn fallback(&mut self) -> Option<Write> {
        self.plan.as_mut()?.fallback()
    }

    fn on_accepted(&mut self) {
        if let Some(plan) = &mut self.plan {
            plan.on_accepted();
        }
    }

    fn on_finished(&mut self, end: Result<(&Outcome, Option<ClusterId>), ErrorKind>) {
        if let Some(plan) = &mut self.plan {
            plan.on_finished(end);
        }
    }
}
