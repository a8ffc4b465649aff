//! The time that a leader stamps into entries (L15). Pure.
//!
//! Machine time is the largest stamp applied. One wrong clock must neither expire what is alive nor freeze expiry for years, so the
//! leader stamps the lower median of the voters' clocks, and where that is behind machine time, half the speed of its monotonic
//! clock.

use std::time::Duration;

/// A voter's wall clock, as it was heard.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The voter's wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// When that arrived, by this node's monotonic clock.
    pub arrived: Duration,
}

/// The start of this node's leadership, which the half-speed clock counts from.
#[derive(Clone, Copy, Debug)]
pub struct LeadershipStart {
    /// Machine time then.
    pub machine_ms: u64,
    /// This node's monotonic clock then.
    pub at: Duration,
}

/// The lower median of the voters' clocks now, or `None` without a majority of fresh ones.
///
/// `samples` are the voters', this node's own included; `fresh` is two election timeouts.
pub fn median_ms(samples: &[Sample], voters: usize, now: Duration, fresh: Duration) -> Option<u64> {
    let mut clocks: Vec<u64> = samples
        .iter()
        .filter_map(|sample| {
            let age = now.saturating_sub(sample.arrived);
            (age <= fresh).then(|| sample.wall_ms.saturating_add(age.as_millis() as u64))
        })
        .collect();
    if clocks.is_empty() || clocks.len() <= voters / 2 {
        return None;
    }
    clocks.sort_unstable();
    Some(clocks[(clocks.len() - 1) / 2])
}

/// The stamp of an entry proposed now. Never behind `machine_ms`; never stands still for long; never runs ahead for long.
pub fn stamp_ms(machine_ms: u64, median: Option<u64>, start: LeadershipStart, now: Duration) -> u64 {
    let half_speed = start.machine_ms.saturating_add(now.saturating_sub(start.at).as_millis() as u64 / 2);
    match median {
        Some(median) if median >= machine_ms => median,
        _ => machine_ms.max(half_speed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::from_secs(4);
    const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;

    fn samples(clocks: &[u64]) -> Vec<Sample> {
        clocks.iter().map(|wall_ms| Sample { wall_ms: *wall_ms, arrived: Duration::from_secs(10) }).collect()
    }

    fn median(clocks: &[u64], voters: usize) -> Option<u64> {
        median_ms(&samples(clocks), voters, Duration::from_secs(10), FRESH)
    }

    #[test]
    fn one_clock_a_year_off_moves_nothing() {
        assert_eq!(median(&[1000, 1001, 1000 + YEAR_MS], 3), Some(1001));
        assert_eq!(median(&[YEAR_MS, YEAR_MS + 1, 5], 3), Some(YEAR_MS));
        // With two of three heard, the lower one counts: a clock ahead still moves nothing.
        assert_eq!(median(&[1000, 1000 + YEAR_MS], 3), Some(1000));
    }

    #[test]
    fn a_minority_or_old_samples_give_no_median() {
        assert_eq!(median(&[1000], 3), None);
        assert_eq!(median(&[1000, 1000], 5), None);
        assert_eq!(median_ms(&samples(&[1, 2, 3]), 3, Duration::from_secs(15), FRESH), None);
    }

    #[test]
    fn a_sample_ages_with_the_monotonic_clock() {
        assert_eq!(median_ms(&samples(&[1000, 1000]), 3, Duration::from_secs(12), FRESH), Some(3000));
    }

    #[test]
    fn a_median_behind_machine_time_lets_it_go_on_at_half_speed() {
        let start = LeadershipStart { machine_ms: 50_000, at: Duration::from_secs(100) };
        let stamp = |machine, median, seconds| stamp_ms(machine, median, start, Duration::from_secs(seconds));
        assert_eq!(stamp(50_000, Some(10_000), 100), 50_000);
        assert_eq!(stamp(50_000, Some(12_000), 102), 51_000);
        assert_eq!(stamp(51_000, None, 110), 55_000);
        assert_eq!(stamp(55_000, Some(60_000), 110), 60_000, "a median ahead is the time");
        assert_eq!(stamp(60_000, Some(59_999), 110), 60_000, "never behind machine time");
    }
}
