//! The voters' clocks, as their answers tell them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::time::{self, LeadershipStart, Sample};
use crate::env::Clock;
use crate::mutant::{self, Mutant};
use crate::types::NodeId;

/// What is known of the clocks, and since when this node leads.
pub struct Clocks {
    clock: Arc<dyn Clock>,
    me: NodeId,
    fresh: Duration,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    samples: BTreeMap<NodeId, Sample>,
    start: Option<(u64, LeadershipStart)>,
}

impl Clocks {
    /// `fresh`: two election timeouts.
    pub fn new(clock: Arc<dyn Clock>, me: NodeId, fresh: Duration) -> Self {
        Self { clock, me, fresh, inner: Mutex::default() }
    }

    /// This node's wall clock, as its answers carry it.
    pub fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    /// A peer's answer carried its wall clock.
    pub fn heard(&self, peer: NodeId, wall_ms: u64) {
        let sample = Sample { wall_ms, arrived: self.clock.now() };
        self.lock().samples.insert(peer, sample);
    }

    /// The stamp of an entry proposed now, by a leader of `term`, where machine time is `machine_ms`.
    pub fn stamp_ms(&self, term: u64, machine_ms: u64, voters: &[NodeId]) -> u64 {
        let now = self.clock.now();
        let mut inner = self.lock();
        let start = match inner.start {
            Some((known, start)) if known == term => start,
            _ => {
                let start = LeadershipStart { machine_ms, at: now };
                inner.start = Some((term, start));
                start
            }
        };
        let own = mutant::is(Mutant::LeadersOwnStamp).then(|| self.clock.wall_ms());
        let median = own.or_else(|| self.median(&inner, voters, now));
        time::stamp_ms(machine_ms, median, start, now)
    }

    /// How far this node's wall clock is from the voters' median, in milliseconds; `None` without a median.
    pub fn offset_ms(&self, voters: &[NodeId]) -> Option<i64> {
        let median = self.median(&self.lock(), voters, self.clock.now())?;
        Some(self.clock.wall_ms() as i64 - median as i64)
    }

    fn median(&self, inner: &Inner, voters: &[NodeId], now: Duration) -> Option<u64> {
        let own = Sample { wall_ms: self.clock.wall_ms(), arrived: now };
        let of = |id: &NodeId| if *id == self.me { Some(own) } else { inner.samples.get(id).copied() };
        let samples: Vec<Sample> = voters.iter().filter_map(of).collect();
        time::median_ms(&samples, voters.len(), now, self.fresh)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
