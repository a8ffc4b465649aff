//! Shared by the parts of a server: the node, the credentials in force, the clock, and the counters.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::auth::Guard;
use super::dispatch::Calls;
use super::metrics::{Levels, Metrics};
use super::receiving::Receiving;
use super::security;
use super::shares::{self, Usage};
use super::watch::Watches;
use crate::env::Clock;
use crate::raft::Node;

/// The rights of callers, and the state of the credentials in force.
pub struct Access {
    pub guard: Guard,
    pub state: Arc<security::State>,
}

/// Shared by the parts of a server. Cheap to clone.
#[derive(Clone)]
pub struct ServerContext(Arc<Inner>);

struct Inner {
    access: Access,
    clock: Arc<dyn Clock>,
    calls: Calls,
    receiving: Receiving,
    watches: Watches,
    began: Duration,
}

impl ServerContext {
    pub fn new(access: Access, clock: Arc<dyn Clock>, calls: Calls) -> Self {
        let (receiving, began) = (Receiving::new(clock.clone()), clock.now());
        Self(Arc::new(Inner { access, clock, calls, receiving, watches: Watches::default(), began }))
    }

    /// The node below.
    pub fn node(&self) -> &Node {
        self.0.calls.node()
    }

    /// Checks the rights of callers.
    pub fn guard(&self) -> &Guard {
        &self.0.access.guard
    }

    /// The credentials in force.
    pub fn credentials(&self) -> &security::State {
        &self.0.access.state
    }

    /// The calls between admission and answer.
    pub fn calls(&self) -> &Calls {
        &self.0.calls
    }

    /// The requests that are arriving.
    pub fn receiving(&self) -> &Receiving {
        &self.0.receiving
    }

    /// The watches.
    pub fn watches(&self) -> &Watches {
        &self.0.watches
    }

    pub fn metrics(&self) -> &Metrics {
        self.0.calls.metrics()
    }

    pub fn now(&self) -> Duration {
        self.0.clock.now()
    }

    /// Milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> u64 {
        self.0.clock.wall_ms()
    }

    /// How long it has been running.
    pub fn uptime(&self) -> Duration {
        self.now().saturating_sub(self.0.began)
    }

    /// The [`Levels`] of the parts that this context reaches.
    pub fn levels(&self) -> Levels {
        Levels {
            in_flight_bytes: self.0.calls.in_flight().load(Ordering::Relaxed),
            loaded_bytes: self.node().loaded().bytes(),
            open_operations: self.0.calls.table().len() as u64,
            receiving_bytes: self.0.receiving.bytes(),
            requests_ended: self.0.receiving.ended(),
            watches: self.0.watches.counts(),
            ..Levels::default()
        }
    }

    /// How full this node's tables are.
    pub fn tables(&self) -> Vec<Usage> {
        shares::tables(self.node(), self.0.calls.in_flight().load(Ordering::Relaxed))
    }
}
