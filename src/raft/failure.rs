//! Whether this node is to stop, and why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::events::Events;

/// Why a node ends or does not start that is no member any more.
pub const REMOVED: &str = "this node was removed from the cluster: it takes no part any more; to bring the machine back, empty the data directory and \
     add it under a new id";

/// The first failure of a node that it can't continue with.
pub struct Failure {
    events: Arc<Events>,
    reason: watch::Sender<Option<String>>,
    /// Whether it stops because it is no member any more.
    was_removed: AtomicBool,
    /// Whether it stops for its state to be rebuilt.
    rebuilds: AtomicBool,
}

impl Failure {
    /// None so far.
    pub fn new(events: Arc<Events>) -> Self {
        Self { events, reason: watch::Sender::new(None), was_removed: AtomicBool::new(false), rebuilds: AtomicBool::new(false) }
    }

    /// Something is broken for good: the process is to end.
    pub fn fail(&self, reason: String) {
        self.reason.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                tracing::error!(%reason, "the node stops");
                self.events.note("failed", reason.clone());
                *failed = Some(reason);
            }
            first
        });
    }

    /// This node is no member any more: it says so and stops.
    pub fn fail_removed(&self) {
        self.was_removed.store(true, Ordering::Relaxed);
        self.fail(REMOVED.to_owned());
    }

    /// Whether this node stops because it is no member any more.
    pub fn was_removed(&self) -> bool {
        self.was_removed.load(Ordering::Relaxed)
    }

    /// The process is to end for its state to be rebuilt. Gives whether that is new.
    pub fn begin_rebuild(&self) -> bool {
        !self.rebuilds.swap(true, Ordering::Relaxed)
    }

    /// Why this node must stop, once it must.
    pub fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Waits until this node must stop; gives the reason. Cancel safe.
    pub async fn wait(&self) -> String {
        let mut failed = self.reason.subscribe();
        let reason = failed.wait_for(Option::is_some).await.map(|reason| reason.clone());
        match reason {
            Ok(reason) => reason.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}
