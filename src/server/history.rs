//! The counts of a node in each short interval of its last minutes, for the charts of the admin page: they show the time before the page
//! was opened. In memory only, bounded; any node of the cluster may ask for it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::metrics::{Spread, quantile_us};
use crate::env::Locked as _;
use crate::types::NodeId;
use crate::wire::v1;

/// How long one interval is. A late task makes one longer; its sample says how long it was.
pub const INTERVAL: Duration = Duration::from_secs(2);
/// Samples kept: five minutes.
pub const SAMPLES_MAX: usize = 150;

/// The counters of a node at one moment, from its start on.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// By the node's clock that does not jump.
    pub at: Duration,
    /// Answers to writes and to reads.
    pub answered: [u64; 2],
    pub spread: Spread<u64>,
    pub syncs: u64,
    pub sync_us: u64,
    pub leads: bool,
    /// On the leader: entries that other members lack, of those it has heard of.
    pub behind: Vec<(NodeId, u64)>,
}

#[derive(Default)]
struct Past {
    /// When the first interval began.
    first: Duration,
    /// Where the open interval began.
    last: Option<Counted>,
    /// Of the newest sample.
    sequence: u64,
    /// Ends of intervals, and what was counted.
    samples: VecDeque<(Duration, v1::Sample)>,
}

/// The last minutes of one node.
#[derive(Default)]
pub struct History(Mutex<Past>);

impl History {
    /// Ends an interval and begins the next one.
    fn count(&self, now: Counted) {
        let mut past = self.0.locked();
        let Some(last) = past.last.clone() else {
            (past.first, past.last) = (now.at, Some(now));
            return;
        };
        // By time, not by count: so places of samples of different nodes stay where they are beside each other, whatever is late.
        let sequence = millis(now.at.saturating_sub(past.first) + INTERVAL / 2) / millis(INTERVAL);
        if sequence <= past.sequence {
            return;
        }
        past.sequence = sequence;
        past.last = Some(now.clone());
        let spread = std::array::from_fn(|at| now.spread[at].saturating_sub(last.spread[at]));
        let behind = now.behind.iter().filter(|_| now.leads).map(|(node, entries)| v1::Behind { node: node.0, entries: *entries });
        let sample = v1::Sample {
            sequence,
            age_ms: 0,
            interval_ms: millis(now.at.saturating_sub(last.at)),
            writes: now.answered[0].saturating_sub(last.answered[0]),
            reads: now.answered[1].saturating_sub(last.answered[1]),
            p50_us: quantile_us(&spread, 0.5),
            p99_us: quantile_us(&spread, 0.99),
            syncs: now.syncs.saturating_sub(last.syncs),
            sync_us: now.sync_us.saturating_sub(last.sync_us),
            leads: now.leads,
            behind: behind.collect(),
        };
        if past.samples.len() == SAMPLES_MAX {
            past.samples.pop_front();
        }
        past.samples.push_back((now.at, sample));
    }

    /// At most so many samples, the newest ones, oldest first.
    pub fn newest(&self, count: usize, now: Duration) -> Vec<v1::Sample> {
        let past = self.0.locked();
        let skipped = past.samples.len().saturating_sub(count);
        let aged = past.samples.iter().skip(skipped);
        aged.map(|(at, sample)| v1::Sample { age_ms: millis(now.saturating_sub(*at)), ..sample.clone() }).collect()
    }
}

/// Keeps the history current until `stop`.
pub async fn run(history: &History, counted: impl Fn() -> Counted, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !*stop.borrow() {
        tokio::select! {
            _ = stop.changed() => {}
            _ = ticks.tick() => history.count(counted()),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, writes: u64) -> Counted {
        Counted { at: Duration::from_secs(seconds), answered: [writes, 2 * writes], ..Counted::default() }
    }

    #[test]
    fn a_sample_says_what_happened_between_two_looks_and_how_long_ago() {
        let history = History::default();
        history.count(at(10, 100));
        assert!(history.newest(9, Duration::from_secs(10)).is_empty(), "one look is no interval");
        let mut later = Counted { leads: true, behind: vec![(NodeId(3), 7)], syncs: 4, sync_us: 400, ..at(12, 130) };
        later.spread[4] = 30;
        history.count(later.clone());
        history.count(Counted { at: Duration::from_millis(12_900), ..later.clone() });
        assert_eq!(history.newest(9, Duration::from_secs(13)).len(), 1, "too early for another");
        history.count(Counted { leads: false, at: Duration::from_secs(15), ..later });
        let all = history.newest(9, Duration::from_secs(16));
        let first = v1::Sample {
            sequence: 1,
            age_ms: 4000,
            interval_ms: 2000,
            writes: 30,
            reads: 60,
            p50_us: Some(1750),
            p99_us: Some(2485),
            syncs: 4,
            sync_us: 400,
            leads: true,
            behind: vec![v1::Behind { node: 3, entries: 7 }],
        };
        let second = v1::Sample { sequence: 3, age_ms: 1000, interval_ms: 3000, ..v1::Sample::default() };
        assert_eq!(all, [first, second.clone()]);
        assert_eq!(history.newest(1, Duration::from_secs(16)), [second]);
        assert!(history.newest(0, Duration::from_secs(16)).is_empty());
    }

    #[test]
    fn no_more_is_kept_than_five_minutes() {
        let history = History::default();
        (0..1000).for_each(|n| history.count(at(2 * n, n)));
        let all = history.newest(usize::MAX, Duration::from_secs(2000));
        assert_eq!((all.len(), all[0].sequence, all[149].sequence), (150, 850, 999));
        assert_eq!(INTERVAL * SAMPLES_MAX as u32, Duration::from_secs(300));
    }
}
