//! Callers, and the clock they run by.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Failure, Rng, Run};

/// A caller's pause after a failed call: a store that refuses at once must not be asked in a circle.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(20);
/// The runtime's timers are this coarse. A caller that waited for its moment and wakes up so late was woken late, not served late.
const TIMER_STEP: Duration = Duration::from_millis(2);
/// Open loop: how long after the window callers may still begin calls that were due within it.
const CATCH_UP: Duration = Duration::from_secs(10);
/// How often the number of ended calls is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The work that callers repeat.
pub trait Work: Send + Sync + 'static {
    /// The memory of one caller.
    type Caller: Send;

    /// The caller of this number, counted from 0.
    fn caller(&self, number: usize, rng: Rng) -> Self::Caller;

    /// One operation, with its retries after conflicts. Never cancelled.
    fn step(&self, caller: &mut Self::Caller) -> impl Future<Output = Result<Step, Failure>> + Send;
}

/// An operation that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// How often it had to be made again.
    pub conflicts: u64,
}

/// When calls are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each caller calls again as soon as it has its answer.
    Closed,
    /// Calls are due at random moments, so many per second on average, and whichever caller is free makes them. If none is, they
    /// wait, and that counts: latency is from the moment a call was due.
    Open {
        /// Calls per second, above 0.
        rate: f64,
    },
}

/// How much load, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Calls at once, at most.
    pub callers: usize,
    /// Not measured.
    pub warm_up: Duration,
    /// Measured.
    pub window: Duration,
    /// Closed loop: the window continues until so many operations have ended in it, however slow the machine is.
    pub at_least: u64,
    /// When calls are made.
    pub pace: Pace,
    /// Of all randomness.
    pub seed: u64,
}

impl Plan {
    /// A closed loop: 2 s of warm-up, 10 s measured.
    pub fn closed(callers: usize) -> Self {
        Self { callers, warm_up: Duration::from_secs(2), window: Duration::from_secs(10), at_least: 0, pace: Pace::Closed, seed: 1 }
    }

    /// Whether the end of the window depends on how much has ended.
    fn is_by_count(&self) -> bool {
        self.pace == Pace::Closed && self.at_least > 0
    }
}

/// How far a run is, for an observer that may end it early. Clones are of the same run.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    operations: Arc<AtomicU64>,
    cut: watch::Sender<bool>,
}

impl Progress {
    /// Operations that have ended, warm-up included.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// Ends the window now: what was measured until here is the run. In the warm-up that is nothing, over no time.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub(super) fn count(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until an instant, or until it is cut.
    async fn until(&self, at: Instant) {
        let mut cut = self.cut.subscribe();
        tokio::select! {
            () = sleep_until(at) => {}
            _ = cut.wait_for(|cut| *cut) => {}
        }
    }

    /// Waits until so many operations have ended, or until it is cut.
    async fn reached(&self, operations: u64) {
        while self.operations() < operations && !*self.cut.borrow() {
            sleep(POLL_INTERVAL).await;
        }
    }
}

/// A run, and what the gauge showed when the window began and when it ended.
#[derive(Clone, Debug)]
pub struct Driven<G> {
    /// The measurement.
    pub run: Run,
    /// At its start.
    pub before: G,
    /// At its end.
    pub after: G,
}

/// Puts `work` under load. `gauge` is read at both ends of the window, which is longer than planned only for [`Plan::at_least`]. Dropping the future leaves the callers running to their end.
pub async fn drive<W: Work, G>(work: Arc<W>, plan: &Plan, progress: &Progress, mut gauge: impl AsyncFnMut() -> G) -> Driven<G> {
    let begin = Instant::now();
    let start = begin + plan.warm_up;
    let rng = Rng::new(plan.seed);
    let planned = plan.warm_up + plan.window;
    let shared = Arc::new(RunState {
        begin,
        start,
        end_us: AtomicU64::new(micros(if plan.is_by_count() { Duration::MAX } else { planned })),
        is_by_count: plan.is_by_count(),
        window: plan.window,
        arrivals: match plan.pace {
            Pace::Closed => None,
            Pace::Open { rate } => Some(Mutex::new(Arrivals { next: begin, mean: 1.0 / rate, rng: rng.fork(u64::MAX) })),
        },
        progress: progress.clone(),
    });
    let callers: Vec<_> = (0..plan.callers)
        .map(|number| {
            let caller = work.caller(number, rng.fork(number as u64));
            tokio::spawn(call(work.clone(), caller, shared.clone()))
        })
        .collect();
    progress.until(shared.start).await;
    let before = gauge().await;
    let ended_before = progress.operations();
    progress.until(begin + planned).await;
    if plan.is_by_count() {
        progress.reached(ended_before + plan.at_least).await;
    }
    shared.end_by_now();
    let after = gauge().await;
    let mut run = Run::new(shared.end().saturating_duration_since(shared.start));
    run.ended = progress.operations() - ended_before;
    for caller in callers {
        match caller.await {
            Ok(one) => run.add(one),
            Err(error) => run.failed(format!("a caller ended: {error}")),
        }
    }
    run.unserved = shared.unserved();
    Driven { run, before, after }
}

struct RunState {
    begin: Instant,
    start: Instant,
    /// Microseconds after `begin`; earlier once the run is cut, or has done enough.
    end_us: AtomicU64,
    is_by_count: bool,
    window: Duration,
    /// `None`: closed loop.
    arrivals: Option<Mutex<Arrivals>>,
    progress: Progress,
}

struct Arrivals {
    next: Instant,
    /// Seconds between two.
    mean: f64,
    rng: Rng,
}

impl Arrivals {
    fn take(&mut self) -> Instant {
        let due = self.next;
        self.next += Duration::from_secs_f64(self.rng.exponential(self.mean));
        due
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

impl RunState {
    fn end(&self) -> Instant {
        self.begin + Duration::from_micros(self.end_us.load(Ordering::Relaxed))
    }

    /// The window ends now, if it has not ended before.
    fn end_by_now(&self) {
        self.end_us.fetch_min(micros(self.begin.elapsed()), Ordering::Relaxed);
    }

    /// Waits until a call is due; since when it is. `None`: no more.
    async fn due(&self) -> Option<Instant> {
        let Some(arrivals) = &self.arrivals else {
            let now = Instant::now();
            return (now < self.end()).then_some(now);
        };
        let due = arrivals.lock().unwrap_or_else(PoisonError::into_inner).take();
        let now = Instant::now();
        if due >= self.end() || now > self.end() + CATCH_UP {
            // It was taken and is not made: `unserved` looks from here on.
            let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            arrivals.next = arrivals.next.min(due);
            return None;
        }
        if due <= now {
            return Some(due);
        }
        sleep_until(due).await;
        let woken = Instant::now();
        Some(if woken - due <= TIMER_STEP { woken } else { due })
    }

    /// Calls that were due before the end and that no caller took.
    fn unserved(&self) -> u64 {
        let Some(arrivals) = &self.arrivals else { return 0 };
        let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        while arrivals.take() < self.end() {
            count += 1;
        }
        count
    }

    /// Closed loop: what ended within the window. Open loop: what was due within it.
    fn counts(&self, due: Instant, done: Instant) -> bool {
        let at = if self.arrivals.is_some() { due } else { done };
        self.start <= at && at < self.end()
    }
}

async fn call<W: Work>(work: Arc<W>, mut caller: W::Caller, shared: Arc<RunState>) -> Run {
    let mut run = Run::new(shared.window);
    while let Some(due) = shared.due().await {
        let result = work.step(&mut caller).await;
        let done = Instant::now();
        shared.progress.count();
        let counts = shared.counts(due, done);
        if shared.is_by_count {
            // What ends the run must come to its turn, also where no step ever waits.
            tokio::task::yield_now().await;
        }
        match result {
            Ok(step) if counts => run.succeeded(done - due, step.conflicts),
            Ok(_) => {}
            Err(failure) => {
                if counts {
                    run.failed(failure.message);
                }
                sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes 10 ms, but 500 ms once.
    struct Stall;

    impl Work for Stall {
        type Caller = u64;

        fn caller(&self, _: usize, _: Rng) -> u64 {
            0
        }

        async fn step(&self, calls: &mut u64) -> Result<Step, Failure> {
            *calls += 1;
            sleep(Duration::from_millis(if *calls == 20 { 500 } else { 10 })).await;
            if *calls == 7 { Err(Failure::unchanged("seventh")) } else { Ok(Step { conflicts: 1 }) }
        }
    }

    fn plan(pace: Pace) -> Plan {
        Plan { callers: 1, warm_up: Duration::ZERO, window: Duration::from_secs(2), at_least: 0, pace, seed: 1 }
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_counts_what_it_did_and_what_failed() {
        let mut gauge = 0;
        let read = async || {
            gauge += 1;
            gauge
        };
        let driven = drive(Arc::new(Stall), &plan(Pace::Closed), &Progress::default(), read).await;
        assert_eq!((driven.before, driven.after), (1, 2));
        let run = driven.run;
        // 2 s hold 200 calls of 10 ms; one took 500 ms, one failed and waited.
        assert!((140..=150).contains(&run.operations), "{run:?}");
        assert_eq!((run.failures, run.first_failure.as_deref(), run.conflicts), (1, Some("seventh"), run.operations));
        assert!(run.quantile(0.5) < Duration::from_millis(13) && run.max() >= Duration::from_millis(500), "{run:?}");
    }

    /// The stall holds up everything that was due meanwhile, though only one call was slow by itself.
    #[tokio::test(start_paused = true)]
    async fn what_was_due_during_a_stall_is_counted_as_late() {
        let driven = drive(Arc::new(Stall), &plan(Pace::Open { rate: 40.0 }), &Progress::default(), async || ()).await;
        let (run, late) = (&driven.run, driven.run.quantile(0.9));
        assert!(run.operations > 50 && run.unserved == 0, "{run:?}");
        assert!(late > Duration::from_millis(200), "{late:?}");
    }

    /// A run that is ended early has its measurements until then, over the time it took.
    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_cut_is_what_was_measured_until_then() {
        for (warm_up, window) in [(Duration::ZERO, Duration::from_secs(1)), (Duration::from_secs(2), Duration::ZERO)] {
            let progress = Progress::default();
            let plan = Plan { warm_up, window: Duration::from_secs(3600), ..plan(Pace::Closed) };
            let cut = async {
                sleep(Duration::from_secs(1)).await;
                progress.cut();
            };
            let work = Arc::new(Stall);
            let (driven, ()) = tokio::join!(drive(work, &plan, &progress, async || ()), cut);
            let measured = driven.run.window;
            assert!(measured.abs_diff(window) < Duration::from_millis(5), "{measured:?}");
            // 1 s holds 100 calls of 10 ms; one took 500 ms, one failed and waited.
            assert!(
                if window.is_zero() { driven.run.operations == 0 } else { (40..=50).contains(&driven.run.operations) },
                "{driven:?}"
            );
        }
    }

    /// A slow machine measures longer and as much; a fast one does not measure less than the window.
    #[tokio::test(start_paused = true)]
    async fn a_run_by_count_goes_on_until_enough_has_ended() {
        for (at_least, operations, seconds) in [(1000, 990..=1010, 10), (5, 140..=150, 2)] {
            let plan = Plan { at_least, ..plan(Pace::Closed) };
            let run = drive(Arc::new(Stall), &plan, &Progress::default(), async || ()).await.run;
            assert!(operations.contains(&run.operations) && run.window.as_secs() >= seconds, "{run:?}");
        }
    }

    /// Steps that never wait leave no turn to anything else on their thread.
    #[tokio::test]
    async fn a_run_by_count_of_steps_that_never_wait_ends() {
        struct Ready;
        impl Work for Ready {
            type Caller = ();
            fn caller(&self, _: usize, _: Rng) {}
            async fn step(&self, (): &mut ()) -> Result<Step, Failure> {
                Ok(Step::default())
            }
        }
        let plan = Plan { window: Duration::ZERO, at_least: 100, ..plan(Pace::Closed) };
        let run = drive(Arc::new(Ready), &plan, &Progress::default(), async || ()).await.run;
        assert!(run.operations >= 100, "{run:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_caller_could_begin_is_reported() {
        let driven = drive(Arc::new(Stall), &plan(Pace::Open { rate: 2000.0 }), &Progress::default(), async || ()).await;
        let run = driven.run;
        assert!(run.unserved > 2000 && run.operations > 1000, "{run:?}");
        assert!((140..=150).contains(&run.ended), "most ended after the window: {run:?}");
        assert!((3600..4400).contains(&(run.unserved + run.operations + run.failures)), "{run:?}");
    }
}
