//! Keeps the log short, purged only behind a durable flush (L29): by bytes, by age, and for good when an operator asks.
//!
//! openraft purges only what a snapshot covers; ours is a handle to rows that are durable already, so making one costs a flush.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::env::Stop;
use crate::limits::intervals;
use crate::raft::context::NodeContext;
use crate::storage::log::{Done, Log};
use crate::types::{Refusal, RefusalKind};

/// How often size and age are looked at.
const INTERVAL: Duration = Duration::from_millis(500);
/// A purge waits until the log is above its bound by this share of it: each costs a flush, and files go by whole segments anyway.
const SLACK_SHARE: u64 = 4;
/// How long each step of a purge may take before it is given up, to be tried again.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of the log is kept.
#[derive(Clone, Copy, Debug)]
pub struct LogKept {
    /// Bytes, for followers that lag.
    pub bytes: u64,
    /// No entry stays for longer, counted from the start of the process or its own, whichever is later.
    pub age: Duration,
}

/// Purges whenever the log is a quarter above the bytes to keep, and what is older than the age.
pub async fn run(context: Arc<NodeContext>, kept: LogKept, stop: Stop) {
    stop.or(async {
        // Everything up to `marked` was there one half of the age ago, and is gone before the next half is over.
        let half = kept.age.min(intervals().log_kept_at_most) / 2;
        let mut marked: Option<u64> = None;
        let mut marks_at = context.env.clock.now().saturating_add(half);
        loop {
            tokio::time::sleep(INTERVAL).await;
            if context.env.clock.now() >= marks_at {
                marks_at = context.env.clock.now().saturating_add(half);
                let erased = async {
                    begin_segment(&context.log).await?;
                    erase(&context, marked).await
                };
                match erased.await {
                    Ok(()) => marked = last_index(&context.log),
                    Err(error) => {
                        tracing::warn!(%error, upto = marked, "entries older than storage.log_kept_for could not be purged")
                    }
                }
            }
            if context.log.bytes() <= kept.bytes.saturating_add(kept.bytes / SLACK_SHARE) {
                continue;
            }
            let Some(point) = context.log.purge_point(kept.bytes) else { continue };
            if let Err(error) = purge(&context, point.index).await {
                tracing::warn!(%error, upto = point.index, "could not purge the log");
            }
        }
    })
    .await;
}

/// Erases deleted data from this node's disk when an operator asks, one erasure at a time.
pub struct Eraser {
    context: Arc<NodeContext>,
    under_way: AtomicBool,
}

impl Eraser {
    pub fn new(context: Arc<NodeContext>) -> Self {
        Self { context, under_way: AtomicBool::new(false) }
    }

    /// Takes everything that was applied so far off this node's disk, as far as it is not stored any more: out of the log, and out of the
    /// free pages of the state. Says how many rows of how many are in the state's new file. Gives the last entry that is gone.
    ///
    /// It takes about as long as sending a snapshot, and as much room as the sessions; updates may wait meanwhile. Errors: one is under
    /// way, or it failed: the disk's, or a step that did not end in time; nothing stored is lost, and it may be asked for again. Dropping
    /// the future does not stop the last step.
    pub async fn erase(&self, progress: impl FnMut(u64, u64) + Send + 'static) -> Result<u64, Refusal> {
        let refused = |message: String| Refusal::not_applied(RefusalKind::Unavailable, message);
        if self.under_way.swap(true, Ordering::AcqRel) {
            return Err(refused("this node erases deleted data already; wait for its end".to_owned()));
        }
        let erased = erase_all(&self.context, progress).await;
        self.under_way.store(false, Ordering::Release);
        erased.map_err(|error| refused(format!("deleted data could not be erased, all stored data is there: {error}")))
    }
}

async fn erase_all(context: &NodeContext, progress: impl FnMut(u64, u64) + Send + 'static) -> io::Result<u64> {
    // All of these lie in segments that end here; those that come meanwhile may be purged, and lie in the one that begins.
    let gone = last_index(&context.log).unwrap_or(0);
    begin_segment(&context.log).await?;
    erase(context, last_index(&context.log)).await?;
    let state = context.state.clone();
    context.blocking.call(move || state.rewrite(progress)).await.map_err(io::Error::other)?;
    Ok(gone)
}

fn last_index(log: &Log) -> Option<u64> {
    log.position().last.map(|last| last.index)
}

/// Purges up to `upto`, and leaves no file of a segment that ends there or before.
async fn erase(context: &NodeContext, upto: Option<u64>) -> io::Result<()> {
    if let Some(upto) = upto {
        let wait = context.raft.wait(Some(STEP_TIMEOUT));
        wait.applied_index_at_least(Some(upto), "a purged entry is applied").await.map_err(io::Error::other)?;
        purge(context, upto).await?;
        let wait = context.raft.wait(Some(STEP_TIMEOUT));
        let is_purged = |metrics: &openraft::RaftMetrics<_>| metrics.purged.map(|id| id.index) >= Some(upto);
        wait.metrics(is_purged, "the log is purged").await.map_err(io::Error::other)?;
    }
    of_log(|done| context.log.forget(done)).await?;
    // The files are gone once anything that was queued later is done.
    of_log(|done| context.log.sync(done)).await
}

async fn begin_segment(log: &Log) -> io::Result<()> {
    of_log(|done| log.roll(done)).await
}

async fn of_log(ask: impl FnOnce(Done)) -> io::Result<()> {
    let (done, result) = oneshot::channel();
    ask(Box::new(move |result| drop(done.send(result))));
    result.await.map_err(io::Error::other)?.map_err(io::Error::other)
}

async fn purge(context: &NodeContext, upto: u64) -> io::Result<()> {
    context.flush().await?;
    let flushed = context.state.flushed().map_or(0, |flushed| flushed.index);
    let upto = upto.min(flushed);
    let trigger = context.raft.trigger();
    trigger.snapshot().await.map_err(io::Error::other)?;
    let wait = context.raft.wait(Some(STEP_TIMEOUT));
    let covered =
        wait.metrics(|metrics| metrics.snapshot.as_ref().is_some_and(|snapshot| snapshot.index >= upto), "snapshot covers");
    covered.await.map_err(io::Error::other)?;
    trigger.purge_log(upto).await.map_err(io::Error::other)
}
