//! The voters' clocks, as their answers tell them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::time::{self, LeadershipStart, Sample};
use crate::env::{Clock, Locked as _};
use crate::mutant::{self, Mutant};
use crate::types::{NodeId, bounded};

/// The clocks of the members, and since when this node leads.
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
        // No clock shows that.
        if bounded("wall_ms", wall_ms).is_err() {
            return;
        }
        let sample = Sample { wall_ms, arrived: self.clock.now() };
        self.inner.locked().samples.insert(peer, sample);
    }

    /// The stamp of an entry proposed now, by a leader of `term`, where machine time is `machine_ms`.
    pub fn stamp_ms(&self, term: u64, machine_ms: u64, voters: &[NodeId]) -> u64 {
        let now = self.clock.now();
        let mut inner = self.inner.locked();
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
        let median = self.median_now_ms(voters)?;
        Some(self.clock.wall_ms() as i64 - median as i64)
    }

    /// The voters' median now, in milliseconds since the Unix epoch; `None` without a majority of fresh clocks.
    pub fn median_now_ms(&self, voters: &[NodeId]) -> Option<u64> {
        self.median(&self.inner.locked(), voters, self.clock.now())
    }

    /// How far machine time is ahead of the voters' median, or without one of this node's clock, in milliseconds. It is behind in a
    /// cluster that writes nothing.
    pub fn machine_ahead_ms(&self, machine_ms: u64, voters: &[NodeId]) -> u64 {
        machine_ms.saturating_sub(self.median_now_ms(voters).unwrap_or_else(|| self.clock.wall_ms()))
    }

    fn median(&self, inner: &Inner, voters: &[NodeId], now: Duration) -> Option<u64> {
        let own = Sample { wall_ms: self.clock.wall_ms(), arrived: now };
        let of = |id: &NodeId| if *id == self.me { Some(own) } else { inner.samples.get(id).copied() };
        let samples: Vec<Sample> = voters.iter().filter_map(of).collect();
        time::median_ms(&samples, voters.len(), now, self.fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::inline::ManualClock;

    #[test]
    fn machine_time_is_ahead_of_the_median_and_without_one_of_the_own_clock() {
        let voters = [1, 2, 3].map(NodeId);
        let clock = ManualClock::default();
        clock.advance(Duration::from_secs(5));
        let clocks = Clocks::new(Arc::new(clock), NodeId(1), Duration::from_secs(4));
        assert_eq!((clocks.machine_ahead_ms(9000, &voters), clocks.machine_ahead_ms(4000, &voters)), (4000, 0));
        clocks.heard(NodeId(2), 1000);
        assert_eq!(clocks.machine_ahead_ms(9000, &voters), 8000, "the lower of two");
        clocks.heard(NodeId(3), 6000);
        assert_eq!(clocks.machine_ahead_ms(9000, &voters), 4000);
    }
}
