//! Freezes unflushed rows, waits for the log to cover them, writes them, publishes.
//!
//! ```text
//! Idle ── due or asked for: freeze at applied = X ──> Covering(X) ── log synced or purged to >= X ──> Covered ── commit ──> publish ─┐
//!   ^                                                                                                  ^  └─ no space: reopen, later ┘ │
//!   └───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! A state ahead of its log could not be opened after a power cut: openraft applies what a quorum has, perhaps before this node's own log
//! has synced it (L26). No step waits for the log; its callback wakes the worker. A write is one redb transaction, all or nothing.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::engine::{Base, File, Head};
use super::error::Error;
use super::layers::{Batch, Frozen, Live, Overlay};
use super::reserve::Reserve;
use super::{HEALTHY, Inner};
use crate::env::Step;
use crate::mutant::{self, Mutant};

/// How long a full disk is left alone before the next attempt.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The log's answer, once there is one.
type CoverResult = Arc<Mutex<Option<Result<(), io::Error>>>>;

/// Where the flusher is. Its lock is held through every write, so taking it stops the flusher.
#[derive(Default)]
pub(super) enum Phase {
    #[default]
    Idle,
    Covering(CoverResult),
    Covered,
}

impl<M: Send + Sync + 'static> Inner<M> {
    /// One step of the flusher; never waits for the log. Not for use from several threads at once: they would only queue.
    pub(super) fn step(&self) -> Step {
        let mut phase = self.phase.lock().expect(HEALTHY);
        if self.fault.failed().is_some() {
            return Step::Stop;
        }
        self.advance(&mut phase).unwrap_or_else(|error| match error {
            Error::NoSpace { .. } => {
                tracing::debug!("the disk has no room for a flush, trying again");
                Step::After(RETRY_AFTER)
            }
            error => {
                drop(phase);
                self.fault.fail(error);
                Step::Stop
            }
        })
    }

    fn advance(&self, phase: &mut MutexGuard<'_, Phase>) -> Result<Step, Error> {
        match &**phase {
            Phase::Idle => Ok(self.begin(phase)),
            Phase::Covering(answer) => {
                let answer = answer.lock().expect(HEALTHY).take();
                match answer {
                    None => Ok(Step::Idle),
                    Some(Err(error)) => Err(Error::sync("the log failed", &error)),
                    Some(Ok(())) => {
                        **phase = Phase::Covered;
                        Ok(Step::Again)
                    }
                }
            }
            Phase::Covered => {
                let mut reserve = self.reserve.lock().expect(HEALTHY);
                match self.write_frozen(&mut reserve) {
                    Err(Error::NoSpace { .. }) if reserve.release() => return Ok(Step::Again),
                    written => written?,
                }
                reserve.take_if_room();
                **phase = Phase::Idle;
                Ok(Step::Again)
            }
        }
    }

    /// Freezes if a flush is due, and asks the log to cover it.
    fn begin(&self, phase: &mut Phase) -> Step {
        self.fault.notify_flushed(self.live.read().expect(HEALTHY).flushed);
        let frozen = match self.freeze() {
            Ok(frozen) => frozen,
            Err(step) => return step,
        };
        let answer = CoverResult::default();
        *phase = Phase::Covering(answer.clone());
        match frozen.applied.filter(|_| !mutant::is(Mutant::StateAheadOfLog)) {
            None => *answer.lock().expect(HEALTHY) = Some(Ok(())),
            Some(applied) => {
                let wake = self.wake.clone();
                let done = move |result| {
                    *answer.lock().expect(HEALTHY) = Some(result);
                    wake.wake();
                };
                self.cover.when_covered(applied.index, Box::new(done));
            }
        }
        Step::Again
    }

    /// Makes and freezes all rows of one instant, under one hold of the view lock: the machine's own last, and its mark after them (L39).
    /// Err: nothing is due; what to do instead.
    fn freeze(&self) -> Result<Arc<Frozen>, Step> {
        let asked = self.fault.has_waiting();
        let now = self.env.clock.now();
        let mut live = self.live.write().expect(HEALTHY);
        assert!(live.frozen.is_none(), "two flushes at once");
        let Some(since) = live.dirty_since else { return Err(Step::Idle) };
        let age = now.saturating_sub(since);
        if !asked && !self.options.is_due(&live) && age < self.options.flush_after {
            return Err(Step::After(self.options.flush_after - age));
        }
        let take = |live: &mut Live<M>| std::mem::replace(&mut live.unflushed, Overlay::new(self.options.hashed_tables));
        let early = mutant::is(Mutant::RowsMadeLate).then(|| take(&mut live));
        let completion = self.completion.get();
        if let Some(completion) = completion {
            let mut batch = Batch::default();
            (completion.rows)(&mut live.machine, &mut batch);
            live.absorb(batch, now);
            live.unmade_bytes = 0;
        }
        let overlay = early.unwrap_or_else(|| take(&mut live));
        let mark = completion.map(|completion| (completion.mark)(&live.machine));
        let frozen = Arc::new(Frozen { overlay, applied: live.applied, mark });
        live.frozen = Some(frozen.clone());
        live.put_bytes = 0;
        live.dirty_since = None;
        Ok(frozen)
    }

    fn write_frozen(&self, reserve: &mut Reserve) -> Result<(), Error> {
        let (base, frozen) = {
            let live = self.live.read().expect(HEALTHY);
            (live.base.clone(), live.frozen.clone().expect("the phase says that rows are frozen"))
        };
        reserve.release_for(frozen.overlay.bytes());
        let base = if base.file.is_closed() { self.reopen(&base.file)? } else { base };
        let head = Head { applied: frozen.applied, ..base.head };
        let written = base.file.commit(head, frozen.overlay.rows()).and_then(|_| base.file.base());
        let new = match written {
            Ok(new) => new,
            Err(error @ Error::NoSpace { .. }) => {
                // redb answers nothing any more, not even reads. The rows stay frozen, and over the reopened file the same is seen.
                self.reopen(&base.file)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let old = {
            let mut live = self.live.write().expect(HEALTHY);
            let (before, after) = (live.flushed.map(|id| id.index), frozen.applied.map(|id| id.index));
            assert!(before <= after, "a flush went back: {before:?}, {after:?}");
            live.flushed = frozen.applied;
            live.frozen = None;
            live = self.split(live, Mutant::FlushInTwoSteps);
            live.base_mark = frozen.mark;
            self.fault.set_pending_bytes(live.pending_bytes());
            std::mem::replace(&mut live.base, new)
        };
        drop((old, base, frozen));
        self.fault.notify_flushed(self.live.read().expect(HEALTHY).flushed);
        Ok(())
    }

    /// Opens the file again after its engine latched a full disk. `flushed` stays: what a failed commit left is written again.
    fn reopen(&self, file: &Arc<File>) -> Result<Arc<Base>, Error> {
        file.close();
        let base = File::open(&*self.env.disk, &self.dir, file.name(), self.options.cache_bytes)?.base()?;
        let old = {
            let mut live = self.live.write().expect(HEALTHY);
            // Whether the failed commit is in it is not known.
            live.base_mark = None;
            std::mem::replace(&mut live.base, base.clone())
        };
        drop(old);
        Ok(base)
    }
}
