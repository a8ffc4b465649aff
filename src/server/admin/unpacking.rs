//! Unpacking sessions for the page: off the node's async threads, and few at a time.
//!
//! A session's author chooses its unpacked size, up to 64 MiB: meanwhile the node serves.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::types::{Refusal, RefusalKind};

/// Sessions unpacked at once; further ones wait for their turn.
const AT_ONCE: usize = 2;

/// Permits to unpack. Cheap to clone.
#[derive(Clone)]
pub struct Unpacking(Arc<Semaphore>);

impl Unpacking {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Runs `work` on a thread that may block, once fewer than [`AT_ONCE`] do. Dropping the future does not stop what has begun, which
    /// keeps its turn until it ends.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        let stopping = || Refusal::not_applied(RefusalKind::Unavailable, "the node is stopping");
        let turn = self.0.clone().acquire_owned().await.map_err(|_| stopping())?;
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| stopping())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// The only async thread serves while a session is unpacked: the work waits for what it does meanwhile.
    #[tokio::test]
    async fn the_async_thread_goes_on_while_sessions_are_unpacked_and_few_are_at_once() {
        let unpacking = Unpacking::new();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (begun, beginning) = mpsc::channel();
        let mut ends = Vec::new();
        let mut works = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let (end, ending) = mpsc::channel::<()>();
            ends.push(end);
            let (unpacking, running, most, begun) = (unpacking.clone(), running.clone(), most.clone(), begun.clone());
            works.spawn(async move {
                unpacking
                    .run(move || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        begun.send(()).expect("the test waits");
                        // Until the async thread lets it end.
                        let _ = ending.recv();
                        running.fetch_sub(1, Ordering::SeqCst);
                    })
                    .await
            });
        }
        let mut seen = 0;
        while seen < AT_ONCE {
            seen += beginning.try_iter().count();
            tokio::task::yield_now().await;
        }
        drop(ends);
        while let Some(worked) = works.join_next().await {
            worked.expect("no panic").expect("it is not stopping");
        }
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
    }
}
