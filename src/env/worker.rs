//! Background work that may block: a named thread in production, inline under a simulation.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::signal::Signal;

/// A worker's wish after one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do: call again at once.
    Again,
    /// Nothing to do until the next [`Worker::wake`].
    Idle,
    /// Nothing to do until the next wake, or for so long.
    After(Duration),
    /// Never call again.
    Stop,
}

/// Starts background work.
pub trait Workers: Send + Sync + 'static {
    /// Runs `step` now and after every wake, never concurrently with itself. Wakes that come while it runs are not lost: it runs
    /// once more. Errors: the operating system has no thread left.
    fn start(&self, name: &str, step: Box<dyn FnMut() -> Step + Send>) -> std::io::Result<Worker>;

    /// Runs `job` once, off the async threads.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}

/// A running worker. Dropping it asks it to stop after its current step and waits for that.
pub struct Worker {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Has the worker run a step soon. Cheap; many wakes may become one step.
    pub fn wake(&self) {
        self.signal.wake();
    }

    /// A handle that only wakes.
    pub fn waker(&self) -> Waker {
        Waker(self.signal.clone())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.signal.stop();
        if let Some(thread) = self.thread.take() {
            // A worker that drops its own handle must not wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Worker {
    /// A worker without a thread, for a [`Workers`] that runs the steps itself: [`Manual`] says when.
    pub fn manual() -> (Worker, Manual) {
        Self::manual_of(Signal::new(None))
    }

    /// A worker without a thread, run by its owner; `changed` is called after every wake and when the handle is dropped. It must be short and never panic.
    pub fn manual_with(changed: impl Fn() + Send + Sync + 'static) -> (Worker, Manual) {
        Self::manual_of(Signal::new(Some(Box::new(changed))))
    }

    fn manual_of(signal: Signal) -> (Worker, Manual) {
        let signal = Arc::new(signal);
        (Worker { signal: signal.clone(), thread: None }, Manual(signal))
    }
}

/// Lets another thread run, if one waits for a core.
pub fn yield_thread() {
    std::thread::yield_now();
}

/// The owner's side of a worker without a thread, asked before each step.
pub struct Manual(Arc<Signal>);

impl Manual {
    /// Whether the worker was woken since the last call.
    pub fn take_wake(&self) -> bool {
        self.0.take_wake()
    }

    /// Whether its handle was dropped: never run a step again, and drop the closure.
    pub fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}

/// Wakes a worker; outlives it harmlessly.
#[derive(Clone)]
pub struct Waker(Arc<Signal>);

impl Waker {
    /// Has the worker run a step soon.
    pub fn wake(&self) {
        self.0.wake();
    }
}

/// One named thread per worker, one short-lived thread per job beyond tokio's own blocking pool.
pub struct ThreadWorkers;

impl Workers for ThreadWorkers {
    fn start(&self, name: &str, mut step: Box<dyn FnMut() -> Step + Send>) -> std::io::Result<Worker> {
        let signal = Arc::new(Signal::new(None));
        let inside = signal.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            loop {
                let go_on = match step() {
                    Step::Again => !inside.is_stopped(),
                    Step::Idle => inside.wait(None),
                    Step::After(timeout) => inside.wait(Some(timeout)),
                    Step::Stop => false,
                };
                if !go_on {
                    return;
                }
            }
        })?;
        Ok(Worker { signal, thread: Some(thread) })
    }

    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(job)),
            Err(_) => job(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_worker_steps_once_at_the_start_and_once_per_wake_and_ends_with_its_handle() {
        let (seen, steps) = mpsc::channel();
        let worker =
            ThreadWorkers.start("test", Box::new(move || seen.send(()).map_or(Step::Stop, |()| Step::Idle))).expect("a thread");
        steps.recv().expect("the first step");
        worker.wake();
        steps.recv().expect("the step after a wake");
        drop(worker);
        assert!(steps.recv().is_err(), "the worker is gone, and its closure with it");
    }
}
