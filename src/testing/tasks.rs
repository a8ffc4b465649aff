//! Background work on tokio tasks, for a simulation in one thread: virtual time passes before each step, so that whatever may happen
//! between the request for some work and the work itself does happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::inline::SeededRandom;
use crate::env::{Step, Worker, Workers};

/// One task per worker and per job, on the runtime of the caller, with delays from a seed.
///
/// A step and a job run whole, in one poll. Outside a runtime a job runs at once, and a worker cannot be started.
#[derive(Clone)]
pub struct TaskWorkers {
    random: Arc<SeededRandom>,
    delay_max_us: Arc<AtomicU64>,
}

impl TaskWorkers {
    /// Steps and jobs begin up to `delay_max` after they could.
    pub fn new(seed: u64, delay_max: Duration) -> Self {
        let workers = Self { random: Arc::new(SeededRandom::new(seed)), delay_max_us: Arc::default() };
        workers.set_delay_max(delay_max);
        workers
    }

    /// Sets the delay of steps that begin from now on: the disk has become slow, or fast again.
    pub fn set_delay_max(&self, delay_max: Duration) {
        self.delay_max_us.store(delay_max.as_micros() as u64, Ordering::Relaxed);
    }

    /// Half of all work begins at once, the rest at any time within the bound.
    fn delay(&self) -> Duration {
        let bound = self.delay_max_us.load(Ordering::Relaxed);
        Duration::from_micros(self.random.below(2 * bound.max(1)).saturating_sub(bound))
    }

    async fn pause(&self) {
        let delay = self.delay();
        if delay.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(delay).await;
        }
    }
}

impl Workers for TaskWorkers {
    fn start(&self, _name: &str, mut step: Box<dyn FnMut() -> Step + Send>) -> std::io::Result<Worker> {
        let runtime = tokio::runtime::Handle::try_current().map_err(std::io::Error::other)?;
        let changed = Arc::new(Notify::new());
        let tell = changed.clone();
        // A permit is kept for a change that comes while a step runs.
        let (worker, manual) = Worker::manual_with(move || tell.notify_one());
        let own = self.clone();
        runtime.spawn(async move {
            loop {
                own.pause().await;
                if manual.is_stopped() {
                    return;
                }
                manual.take_wake();
                match step() {
                    Step::Again => {}
                    Step::Idle => changed.notified().await,
                    // Woken or not: the step says what there is to do.
                    Step::After(timeout) => drop(tokio::time::timeout(timeout, changed.notified()).await),
                    Step::Stop => return,
                }
            }
        });
        Ok(worker)
    }

    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return job() };
        let own = self.clone();
        runtime.spawn(async move {
            own.pause().await;
            job();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_steps_once_per_wake_and_ends_with_its_handle() {
        let workers = TaskWorkers::new(1, Duration::from_millis(3));
        let (steps, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let (counted, stepped) = (steps.clone(), seen.clone());
        let step = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            stepped.notify_one();
            Step::Idle
        };
        let worker = workers.start("test", Box::new(step)).expect("there is a runtime");
        seen.notified().await;
        worker.wake();
        seen.notified().await;
        assert_eq!(steps.load(Ordering::SeqCst), 2);
        worker.wake();
        drop(worker);
        for _ in 0..10 {
            tokio::time::advance(Duration::from_millis(1)).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(Arc::strong_count(&steps), 1, "the task dropped the step");
        assert_eq!(steps.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_waits_for_time_goes_on_by_itself() {
        let workers = TaskWorkers::new(2, Duration::from_millis(3));
        let (done, end) = tokio::sync::oneshot::channel();
        let (mut done, mut steps) = (Some(done), 0);
        let step = move || {
            steps += 1;
            if steps < 3 {
                return Step::After(Duration::from_secs(60));
            }
            done.take().map(|done| done.send(steps));
            Step::Stop
        };
        let _worker = workers.start("test", Box::new(step)).expect("there is a runtime");
        assert_eq!(end.await, Ok(3));
    }
}
