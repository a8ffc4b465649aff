//! Background work without threads, a clock that stands still, randomness from a seed: one thread owns every order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::disk::SimDisk;
use crate::env::{Clock, Env, Locked as _, Manual, Random, Step, Worker, Workers};

/// Collects workers and runs their steps when asked.
///
/// A worker never runs while it is started, woken or dropped, only inside [`InlineWorkers::run`] and [`InlineWorkers::elapse`].
#[derive(Clone, Default)]
pub struct InlineWorkers {
    tasks: Arc<Mutex<Vec<Option<Task>>>>,
}

struct Task {
    name: String,
    step: Box<dyn FnMut() -> Step + Send>,
    manual: Manual,
    runnable: bool,
    sleeping: Option<Duration>,
}

impl Workers for InlineWorkers {
    fn start(&self, name: &str, step: Box<dyn FnMut() -> Step + Send>) -> std::io::Result<Worker> {
        let (worker, manual) = Worker::manual();
        let task = Task { name: name.to_owned(), step, manual, runnable: true, sleeping: None };
        self.tasks.locked().push(Some(task));
        Ok(worker)
    }

    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

impl InlineWorkers {
    /// Runs steps, in the order the workers were started, until all are idle, asleep or gone. Panics after `1 << 20` steps.
    pub fn run(&self) {
        for _ in 0..1 << 20 {
            if !self.run_one(None) {
                return;
            }
        }
        panic!("a worker never becomes idle");
    }

    /// As [`InlineWorkers::run`], for the workers of this name only.
    pub fn run_named(&self, name: &str) {
        for _ in 0..1 << 20 {
            if !self.run_one(Some(name)) {
                return;
            }
        }
        panic!("a worker never becomes idle name={name}");
    }

    /// Ends the sleep of every worker that waits for time, and runs. Does not move any clock.
    pub fn elapse(&self) {
        for task in self.tasks.locked().iter_mut().flatten() {
            task.runnable |= task.sleeping.take().is_some();
        }
        self.run();
    }

    /// The shortest time a worker waits for.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.tasks.locked().iter().flatten().filter_map(|task| task.sleeping).min()
    }

    /// One step of one runnable worker, without the lock: a step may start and wake others. False: none was runnable.
    fn run_one(&self, name: Option<&str>) -> bool {
        let count = self.tasks.locked().len();
        for at in 0..count {
            let Some(mut task) = self.tasks.locked().get_mut(at).and_then(Option::take) else { continue };
            if task.manual.is_stopped() {
                return true;
            }
            let wanted = name.is_none_or(|name| name == task.name);
            if wanted {
                task.runnable |= task.manual.take_wake();
            }
            let runs = wanted && std::mem::take(&mut task.runnable);
            let mut keep = true;
            if runs {
                task.sleeping = None;
                match (task.step)() {
                    Step::Again => task.runnable = true,
                    Step::Idle => {}
                    Step::After(timeout) => task.sleeping = Some(timeout),
                    Step::Stop => keep = false,
                }
            }
            if let Some(place) = self.tasks.locked().get_mut(at).filter(|_| keep) {
                *place = Some(task);
            }
            if runs {
                return true;
            }
        }
        false
    }
}

/// A clock that moves only when asked.
#[derive(Clone, Default)]
pub struct ManualClock {
    nanos: Arc<AtomicU64>,
}

impl ManualClock {
    /// Moves both clocks on.
    pub fn advance(&self, by: Duration) {
        self.nanos.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> u64 {
        self.now().as_millis() as u64
    }
}

/// Random numbers from a seed (splitmix64). Not for secrets.
#[derive(Debug)]
pub struct SeededRandom {
    state: AtomicU64,
}

impl SeededRandom {
    /// Numbers from a seed: equal seeds give equal numbers.
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let mut z = self.state.fetch_add(step, Ordering::SeqCst).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below 0");
        self.next() % bound
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.next().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}

/// An [`Env`] of these parts, with handles to drive them.
#[derive(Clone)]
pub struct SimEnv {
    /// The environment of the code under test.
    pub env: Env,
    /// Its clock.
    pub clock: ManualClock,
    /// Its workers.
    pub workers: InlineWorkers,
}

impl SimEnv {
    /// One on this disk.
    pub fn new(disk: &SimDisk, seed: u64) -> Self {
        let (clock, workers) = (ManualClock::default(), InlineWorkers::default());
        let env = Env {
            clock: Arc::new(clock.clone()),
            random: Arc::new(SeededRandom::new(seed)),
            disk: Arc::new(disk.clone()),
            workers: Arc::new(workers.clone()),
        };
        Self { env, clock, workers }
    }

    /// Moves the clock on and runs what waited for time.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.workers.elapse();
    }
}
