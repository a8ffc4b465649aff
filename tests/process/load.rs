//! Writers that go on whatever is done to the cluster, check every answer, and find every acknowledged write at the end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate::client::{Client, Version};
use tokio::task::JoinHandle;

use crate::process::harness::{Cluster, PATIENCE};
use crate::process::{increment, value};

/// Writers at once, each with a session of its own.
pub const WRITERS: usize = 16;

/// See the module. A writer fails the test with the first error it sees, and with the first version that is not the next.
pub struct Load {
    writers: Vec<(Arc<AtomicU64>, JoinHandle<u64>)>,
    stop: Arc<AtomicBool>,
    watch: JoinHandle<Duration>,
    since: Arc<Mutex<Option<Instant>>>,
}

fn id(writer: usize) -> String {
    format!("writer {writer}")
}

impl Load {
    /// Starts the writers, through clients that know the nodes of this moment.
    pub fn start(cluster: &Cluster) -> Self {
        let (stop, since) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let clients: Vec<Client> = (0..4).map(|_| cluster.client()).collect();
        let writer = |writer: usize| {
            let count = Arc::new(AtomicU64::new(0));
            let work = increment(clients[writer % clients.len()].clone(), id(writer), stop.clone(), count.clone());
            (count, tokio::spawn(work))
        };
        let writers: Vec<_> = (0..WRITERS).map(writer).collect();
        let counts = writers.iter().map(|(count, _)| count.clone()).collect();
        let watch = tokio::spawn(longest_gap(counts, since.clone(), stop.clone()));
        Self { writers, stop, watch, since }
    }

    fn counts(&self) -> Vec<u64> {
        self.writers.iter().map(|(count, _)| count.load(Ordering::Relaxed)).collect()
    }

    /// From now on the longest time without an acknowledged write is taken.
    pub fn watch_gaps(&self) {
        *self.since.lock().expect("nobody panics with it") = Some(Instant::now());
    }

    /// Waits until every writer had so many more writes acknowledged.
    pub async fn progress(&self, more: u64, cluster: &Cluster) {
        let (before, started) = (self.counts(), Instant::now());
        while self.counts().iter().zip(&before).any(|(now, before)| *now < before + more) {
            assert!(self.writers.iter().all(|(_, writer)| !writer.is_finished()), "a writer failed\n{}", cluster.logs());
            assert!(started.elapsed() < PATIENCE, "from {before:?} to {:?} in {PATIENCE:?}\n{}", self.counts(), cluster.logs());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the writers: none saw an error, and everything acknowledged is there, once. Gives how many writes there were, and the
    /// longest time without one since [`Load::watch_gaps`].
    pub async fn finish(self, cluster: &Cluster) -> (u64, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let (client, mut total) = (cluster.client(), 0);
        for (writer, (_, work)) in self.writers.into_iter().enumerate() {
            let acknowledged = work.await.unwrap_or_else(|error| panic!("writer {writer}: {error}\n{}", cluster.logs()));
            let stored = client.load(&id(writer)).await.expect("a load").expect("it was saved");
            assert_eq!((stored.info.version, stored.content), (Version(acknowledged), value(acknowledged.to_string())));
            total += acknowledged;
        }
        (total, self.watch.await.expect("it only looks"))
    }
}

/// The longest time in which no count rose, from the moment on that `since` holds.
async fn longest_gap(counts: Vec<Arc<AtomicU64>>, since: Arc<Mutex<Option<Instant>>>, stop: Arc<AtomicBool>) -> Duration {
    let sum = || counts.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
    let (mut seen, mut at, mut longest) = (sum(), Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let since = *since.lock().expect("nobody panics with it");
        if let Some(since) = since {
            longest = longest.max(at.max(since).elapsed());
        }
        let now = sum();
        if now != seen {
            (seen, at) = (now, Instant::now());
        }
    }
    longest
}
