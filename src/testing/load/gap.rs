//! How long a store takes no writes when something happens to it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Corpus, Failure, Rng, Target, key};
use crate::env::Locked as _;

/// A writer's pause after a failed write.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(5);
/// Writes are looked at so long after the event at least, and until they flow again, if that is later.
const WATCHED: Duration = Duration::from_secs(3);
/// A store that takes none for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The writers' view of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The longest time in which no write succeeded, of all writers together.
    pub longest: Duration,
    /// When that ended, counted from the event: much later, and something else was its cause.
    pub ended: Duration,
    /// Writes that succeeded.
    pub writes: u64,
    /// Writes that failed.
    pub failures: u64,
    /// The first failure, in its own words.
    pub first_failure: Option<String>,
}

/// Runs `writers` that save all the time, makes `event` happen, and measures the longest time without a success from then on.
///
/// Errors: no write succeeds for a minute. Dropping the future stops the writers at their next write.
pub async fn gap<T: Target>(
    targets: &[Arc<T>],
    writers: usize,
    keys: u64,
    corpus: &Corpus,
    event: impl Future<Output = ()>,
) -> Result<Gap, Failure> {
    let shared = Arc::new(RunState::default());
    let stop = Stop(shared.clone());
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let target = targets[writer % targets.len()].clone();
            tokio::spawn(write(target, shared.clone(), keys, corpus.clone(), Rng::new(7).fork(writer as u64)))
        })
        .collect();
    let flowing = |since: u64| {
        let shared = shared.clone();
        async move {
            while shared.writes.load(Ordering::Relaxed) < since + 10 * writers as u64 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let gone = || Failure::unchanged(format!("no writes succeed for {PATIENCE:?}"));
    timeout(PATIENCE, flowing(0)).await.map_err(|_| gone())?;
    let began = Instant::now();
    *shared.last.locked() = Last { at: began, longest: Duration::ZERO, ended: began };
    event.await;
    tokio::time::sleep_until(began + WATCHED).await;
    timeout(PATIENCE, flowing(shared.writes.load(Ordering::Relaxed))).await.map_err(|_| gone())?;
    let Last { longest, ended, .. } = *shared.last.locked();
    drop(stop);
    for task in tasks {
        task.await.map_err(Failure::unchanged)?;
    }
    let first_failure = shared.first_failure.locked().take();
    Ok(Gap {
        longest,
        ended: ended - began,
        writes: shared.writes.load(Ordering::Relaxed),
        failures: shared.failures.load(Ordering::Relaxed),
        first_failure,
    })
}

/// The last success, the longest time between two, and when that ended.
#[derive(Clone, Copy)]
struct Last {
    at: Instant,
    longest: Duration,
    ended: Instant,
}

struct RunState {
    last: Mutex<Last>,
    writes: AtomicU64,
    failures: AtomicU64,
    first_failure: Mutex<Option<String>>,
    stop: AtomicBool,
}

impl Default for RunState {
    fn default() -> Self {
        Self {
            last: Mutex::new(Last { at: Instant::now(), longest: Duration::ZERO, ended: Instant::now() }),
            writes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            first_failure: Mutex::new(None),
            stop: AtomicBool::new(false),
        }
    }
}

struct Stop(Arc<RunState>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

async fn write<T: Target>(target: Arc<T>, shared: Arc<RunState>, keys: u64, corpus: Corpus, mut rng: Rng) {
    while !shared.stop.load(Ordering::Relaxed) {
        let key = key(rng.below(keys));
        match target.save(&key, corpus.cut(&mut rng, 1024)).await {
            Ok(_) => {
                shared.writes.fetch_add(1, Ordering::Relaxed);
                let mut last = shared.last.locked();
                let now = Instant::now();
                if now - last.at > last.longest {
                    (last.longest, last.ended) = (now - last.at, now);
                }
                last.at = now;
            }
            Err(failure) => {
                shared.failures.fetch_add(1, Ordering::Relaxed);
                shared.first_failure.locked().get_or_insert(failure.message);
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Cas, Memory};
    use super::*;

    /// Fails while it is down, 2 ms per write else.
    #[derive(Default)]
    struct Fragile {
        memory: Memory,
        down: AtomicBool,
    }

    impl Target for Fragile {
        async fn save(&self, key: &str, value: Bytes) -> Result<u64, Failure> {
            tokio::time::sleep(Duration::from_millis(2)).await;
            match self.down.load(Ordering::Relaxed) {
                true => Err(Failure::unchanged("down")),
                false => self.memory.save(key, value).await,
            }
        }

        async fn save_if(&self, key: &str, value: Bytes, expected: u64) -> Result<Cas, Failure> {
            self.memory.save_if(key, value, expected).await
        }

        async fn load(&self, key: &str) -> Result<Option<(u64, Bytes)>, Failure> {
            self.memory.load(key).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_gap_is_as_long_as_the_store_was_down() {
        let store = Arc::new(Fragile::default());
        let event = async {
            store.down.store(true, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(700)).await;
            store.down.store(false, Ordering::Relaxed);
        };
        let gap = gap(std::slice::from_ref(&store), 4, 100, &Corpus::text(1, 10_000), event).await.expect("it comes back");
        assert!((700..800).contains(&gap.longest.as_millis()), "{gap:?}");
        assert_eq!(gap.first_failure.as_deref(), Some("down"));
        assert!(gap.failures > 100 && gap.writes > 1000, "{gap:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_come_back_is_a_failure() {
        let store = Arc::new(Fragile::default());
        let event = async { store.down.store(true, Ordering::Relaxed) };
        assert!(gap(std::slice::from_ref(&store), 2, 100, &Corpus::text(1, 10_000), event).await.is_err());
    }
}
