//! How long the log's syncs take: of all of them, and the slow ones of late with the moment they ended.

use std::collections::VecDeque;
use std::time::Duration;

/// Slower ones are remembered one by one ...
const SLOW: Duration = Duration::from_millis(20);
/// ... so many of them.
const SLOW_MAX: usize = 128;
/// The slowest is reported of so long a time, and at most twice as long.
const WINDOW: Duration = Duration::from_secs(60);

/// The syncs measured since the log was opened.
#[derive(Debug, Default)]
pub(super) struct Measured {
    count: u64,
    total: Duration,
    window_began: Duration,
    slowest: [Duration; 2],
    slow: VecDeque<(Duration, Duration)>,
}

/// The measurements at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Syncs {
    /// Syncs of batches since the log was opened.
    pub count: u64,
    /// How long they took together, write included.
    pub total: Duration,
    /// The slowest of the last one to two minutes.
    pub slowest: Duration,
}

impl Measured {
    /// A batch was written and synced; it began and ended at these moments of the monotonic clock.
    pub fn note(&mut self, began: Duration, ended: Duration) {
        let took = ended.saturating_sub(began);
        self.count += 1;
        self.total += took;
        self.turn(ended);
        self.slowest[0] = self.slowest[0].max(took);
        if took >= SLOW {
            if self.slow.len() == SLOW_MAX {
                self.slow.pop_front();
            }
            self.slow.push_back((ended, took));
        }
    }

    fn turn(&mut self, now: Duration) {
        let age = now.saturating_sub(self.window_began);
        if age >= WINDOW {
            self.slowest = [Duration::ZERO, if age < 2 * WINDOW { self.slowest[0] } else { Duration::ZERO }];
            self.window_began = now;
        }
    }

    pub fn now(&mut self, now: Duration) -> Syncs {
        self.turn(now);
        Syncs { count: self.count, total: self.total, slowest: self.slowest[0].max(self.slowest[1]) }
    }

    /// The slowest that ended after `since`; zero if none was slow.
    pub fn slowest_since(&self, since: Duration) -> Duration {
        self.slow.iter().rev().take_while(|(ended, _)| *ended > since).map(|(_, took)| *took).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_slowest_is_forgotten_after_two_minutes_at_most_and_the_sums_never() {
        let mut measured = Measured::default();
        measured.note(ms(0), ms(900));
        measured.note(ms(1000), ms(1001));
        assert_eq!(measured.now(ms(1001)), Syncs { count: 2, total: ms(901), slowest: ms(900) });
        assert_eq!(measured.now(ms(61_000)).slowest, ms(900));
        assert_eq!(measured.now(ms(122_000)), Syncs { count: 2, total: ms(901), slowest: ms(0) });
    }

    #[test]
    fn slow_ones_are_found_by_when_they_ended() {
        let mut measured = Measured::default();
        measured.note(ms(0), ms(500));
        measured.note(ms(500), ms(501));
        measured.note(ms(600), ms(630));
        assert_eq!(measured.slowest_since(ms(499)), ms(500));
        assert_eq!(measured.slowest_since(ms(500)), ms(30));
        assert_eq!(measured.slowest_since(ms(630)), ms(0));
        (1000..3000).for_each(|at| measured.note(ms(at), ms(at + 25)));
        assert_eq!(measured.slow.len(), SLOW_MAX);
    }
}
