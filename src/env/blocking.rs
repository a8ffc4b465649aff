//! Work that may wait for a disk, off the async threads.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Workers;

/// Runs closures on the environment's workers. Cheap to clone.
#[derive(Clone)]
pub struct Blocking(Arc<dyn Workers>);

impl Blocking {
    /// On these workers.
    pub fn new(workers: Arc<dyn Workers>) -> Self {
        Self(workers)
    }

    /// Runs `f` and gives its result. Dropping the future does not stop `f`; its result is then dropped.
    pub async fn call<R: Send + 'static>(&self, f: impl FnOnce() -> R + Send + 'static) -> R {
        let (done, result) = oneshot::channel();
        self.0.run(Box::new(move || drop(done.send(f()))));
        result.await.expect("a worker runs every job to its end, or the process ends with it")
    }
}
