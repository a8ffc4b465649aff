//! Tasks that the one who spawned them stops and joins.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

/// Tasks of one owner. Dropped, it tells them to stop and joins none.
pub struct Tasks(Arc<watch::Sender<bool>>);

/// Spawns tasks that another owns. Cheap to clone.
#[derive(Clone)]
pub struct Spawner(Weak<watch::Sender<bool>>);

/// Tells a task when to stop. A task is joined once every one of these that it had is gone. Cheap to clone.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Tasks {
    /// None yet.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Spawns one.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(Stop) -> F) {
        spawn(&self.0, task);
    }

    /// For those that spawn tasks which belong to these.
    pub fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.0))
    }

    /// Tells all to stop, and waits until each has ended. Dropping the future leaves them stopping.
    pub async fn stop(&self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Spawner {
    /// Spawns one; nothing happens where the owner is gone.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(Stop) -> F) {
        if let Some(tasks) = self.0.upgrade() {
            spawn(&tasks, task);
        }
    }
}

fn spawn<F: Future<Output = ()> + Send + 'static>(tasks: &watch::Sender<bool>, task: impl FnOnce(Stop) -> F) {
    let stop = Stop(tasks.subscribe());
    // Until its end, whatever becomes of its own.
    let until_then = stop.clone();
    let task = task(stop);
    tokio::spawn(async move {
        task.await;
        drop(until_then);
    });
}

impl Stop {
    /// Does some work until it ends, or is to stop: then it goes no further than where it waits. Cancel safe as far as the work is.
    pub async fn or(mut self, work: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            // Its owner is gone: that counts as well.
            _ = self.0.wait_for(|stop| *stop) => {}
            () = work => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Counts those that have ended.
    struct Ended(Arc<AtomicU64>);

    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn all_tasks_have_ended_once_they_are_stopped() {
        let (tasks, ended) = (Tasks::new(), Arc::new(AtomicU64::new(0)));
        let waiting = |ended: &Arc<AtomicU64>| {
            let ended = Ended(ended.clone());
            |stop: Stop| {
                stop.or(async move {
                    let _ended = ended;
                    std::future::pending().await
                })
            }
        };
        tasks.spawn(waiting(&ended));
        let (spawner, inner) = (tasks.spawner(), waiting(&ended));
        tasks.spawn(|_| async move { spawner.spawn(inner) });
        tokio::task::yield_now().await;
        assert_eq!(ended.load(Ordering::Relaxed), 0);
        tasks.stop().await;
        assert_eq!(ended.load(Ordering::Relaxed), 2, "the one that a task spawned, too");
    }

    #[tokio::test]
    async fn tasks_whose_owner_is_gone_stop() {
        let (tasks, (gone, is_gone)) = (Tasks::new(), tokio::sync::oneshot::channel::<()>());
        let spawner = tasks.spawner();
        tasks.spawn(|stop| {
            stop.or(async move {
                let _gone = gone;
                std::future::pending().await
            })
        });
        drop(tasks);
        is_gone.await.expect_err("it was dropped");
        spawner.spawn(|_| async { unreachable!("nobody owns it") });
    }
}
