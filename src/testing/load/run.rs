//! The measurements of a run of load.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Operations that ended within one window, and how long they took.
#[derive(Clone, Debug)]
pub struct Run {
    /// How long was measured.
    pub window: Duration,
    /// Operations that succeeded.
    pub operations: u64,
    /// Operations that ended while the gauge ran, whenever they were due and however they ended: what it showed was spent on these.
    pub ended: u64,
    /// Conditional saves among them that had to be made again, because another was first.
    pub conflicts: u64,
    /// Operations that failed.
    pub failures: u64,
    /// The first failure, in its own words.
    pub first_failure: Option<String>,
    /// Open loop: calls that were due within the window and were never begun, since all callers were busy until long after it.
    pub unserved: u64,
    /// Microseconds.
    latency: Histogram<u64>,
}

impl Run {
    pub(super) fn new(window: Duration) -> Self {
        let latency = Histogram::new(3).expect("three digits are few enough");
        Self { window, operations: 0, ended: 0, conflicts: 0, failures: 0, first_failure: None, unserved: 0, latency }
    }

    /// One without operations, to record some by hand; its window is 0.
    pub fn empty() -> Self {
        Self::new(Duration::ZERO)
    }

    /// An operation that succeeded and took so long.
    pub fn record(&mut self, took: Duration) {
        self.succeeded(took, 0);
    }

    pub(super) fn succeeded(&mut self, took: Duration, conflicts: u64) {
        self.operations += 1;
        self.conflicts += conflicts;
        // It grows by itself; a latency of centuries would not fit.
        let _ = self.latency.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub(super) fn failed(&mut self, why: String) {
        self.failures += 1;
        self.first_failure.get_or_insert(why);
    }

    pub(super) fn add(&mut self, other: Run) {
        self.operations += other.operations;
        self.conflicts += other.conflicts;
        self.failures += other.failures;
        self.unserved += other.unserved;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.latency.add(&other.latency).expect("it grows by itself");
    }

    /// Successful operations per second.
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.window.as_secs_f64()
    }

    /// The latency that this share of operations stayed within, e.g. 0.99; three digits are exact.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(share))
    }

    /// The longest latency.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.latency.max())
    }
}

/// One figure of several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The lowest.
    pub min: f64,
    /// The one in the middle; between two, their mean.
    pub median: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure, else `None`.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { min, median, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_add_up() {
        let mut one = Run::new(Duration::from_secs(2));
        let mut other = one.clone();
        (1..=99).for_each(|ms| one.succeeded(Duration::from_millis(ms), 0));
        other.succeeded(Duration::from_millis(1000), 3);
        other.failed("first".into());
        other.failed("second".into());
        one.add(other);
        assert_eq!((one.operations, one.conflicts, one.failures, one.first_failure.as_deref()), (100, 3, 2, Some("first")));
        assert!((one.per_second() - 50.0).abs() < 1e-9);
        let ms = |time: Duration| time.as_millis();
        assert_eq!((ms(one.quantile(0.5)), ms(one.quantile(0.99))), (50, 99));
        assert!((1000..=1001).contains(&ms(one.max())));
    }

    #[test]
    fn a_spread_is_lowest_middle_and_highest() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 2.0]).map(|spread| spread.median), Some(3.0));
        assert_eq!(Spread::of([]), None);
    }
}
