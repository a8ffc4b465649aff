//! Operations that took long, logged with where the time went, at most a few a second. No session id, no content.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// Lines logged in one second; the rest is counted.
const LINES_MAX: u32 = 5;
const SECOND: Duration = Duration::from_secs(1);

/// One operation that was answered, by the node's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// The admission.
    pub started: Duration,
    /// The last attempt began; `None`: there was none.
    pub dispatched: Option<Duration>,
    /// The answer.
    pub ended: Duration,
    /// No leader was known for some of the time.
    pub parked: bool,
    /// The call was sent to the leader.
    pub forwarded: bool,
    pub is_write: bool,
    /// The slowest sync of this node's log meanwhile.
    pub slowest_sync: Duration,
}

/// Where most of the time went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No leader was known.
    NoLeader,
    /// The call waited for its turn: more came than rounds under way let through.
    Queue,
    /// The leader, or the way there; its own log says more.
    Leader,
    /// This node's disk: a sync of the log took most of it.
    Sync,
    /// Replication, commit or apply: the other nodes' disks, or the network.
    Commit,
    /// The read index, or the rows.
    Read,
}

impl Cause {
    /// Its word in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoLeader => "no_leader",
            Self::Queue => "queue",
            Self::Leader => "leader",
            Self::Sync => "sync",
            Self::Commit => "commit",
            Self::Read => "read",
        }
    }
}

/// Every cause, in the order of their numbers.
pub const CAUSES: [Cause; 6] = [Cause::NoLeader, Cause::Queue, Cause::Leader, Cause::Sync, Cause::Commit, Cause::Read];

/// Names the cause. Pure.
pub fn cause(timing: &Timing) -> Cause {
    let dispatched = timing.dispatched.unwrap_or(timing.ended);
    let before = dispatched.saturating_sub(timing.started);
    let after = timing.ended.saturating_sub(dispatched);
    if before > after {
        return if timing.parked { Cause::NoLeader } else { Cause::Queue };
    }
    match timing {
        Timing { forwarded: true, .. } => Cause::Leader,
        Timing { is_write: true, slowest_sync, .. } if *slowest_sync * 2 >= after => Cause::Sync,
        Timing { is_write: true, .. } => Cause::Commit,
        _ => Cause::Read,
    }
}

/// Logs slow operations.
pub struct Slow {
    /// Answers that took longer are logged; zero: none.
    threshold: Duration,
    logged: Mutex<Logged>,
}

#[derive(Default)]
struct Logged {
    second: Duration,
    lines: u32,
    left_out: u64,
}

impl Slow {
    pub fn new(threshold: Duration) -> Self {
        Self { threshold, logged: Mutex::default() }
    }

    /// Whether an answer after so long is to be logged.
    pub fn is(&self, took: Duration) -> bool {
        !self.threshold.is_zero() && took >= self.threshold
    }

    /// Logs a slow operation, or counts it for the next line. Gives the cause.
    pub fn report(&self, operation: &'static str, result: &'static str, timing: &Timing) -> Cause {
        let cause = cause(timing);
        if let Some(left_out) = self.may_log(timing.ended) {
            let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            let dispatched = timing.dispatched.unwrap_or(timing.ended);
            tracing::warn!(
                operation,
                result,
                cause = cause.name(),
                took_ms = ms(timing.ended.saturating_sub(timing.started)),
                waited_ms = ms(dispatched.saturating_sub(timing.started)),
                raft_ms = ms(timing.ended.saturating_sub(dispatched)),
                slowest_sync_ms = ms(timing.slowest_sync),
                parked = timing.parked,
                forwarded = timing.forwarded,
                left_out,
                "a slow operation"
            );
        }
        cause
    }

    /// How many were not logged since the last line, if a line may be written now.
    fn may_log(&self, now: Duration) -> Option<u64> {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(logged.second) >= SECOND {
            (logged.second, logged.lines) = (now, 0);
        }
        if logged.lines == LINES_MAX {
            logged.left_out += 1;
            return None;
        }
        logged.lines += 1;
        Some(std::mem::take(&mut logged.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_cause_is_where_most_of_the_time_went() {
        let write = Timing { dispatched: Some(ms(10)), ended: ms(1000), is_write: true, ..Timing::default() };
        let cases = [
            (Timing { dispatched: Some(ms(900)), parked: true, ..write }, Cause::NoLeader),
            (Timing { dispatched: None, parked: true, ..write }, Cause::NoLeader),
            (Timing { dispatched: Some(ms(900)), ..write }, Cause::Queue),
            (Timing { slowest_sync: ms(800), ..write }, Cause::Sync),
            (Timing { slowest_sync: ms(80), ..write }, Cause::Commit),
            (Timing { parked: true, ..write }, Cause::Commit),
            (Timing { forwarded: true, slowest_sync: ms(800), ..write }, Cause::Leader),
            (Timing { is_write: false, slowest_sync: ms(800), ..write }, Cause::Read),
        ];
        for (timing, expected) in cases {
            assert_eq!(cause(&timing), expected, "{timing:?}");
        }
        let names: std::collections::BTreeSet<_> = CAUSES.iter().map(|cause| cause.name()).collect();
        assert_eq!(names.len(), CAUSES.len());
    }

    #[test]
    fn a_storm_is_logged_in_a_few_lines_and_its_rest_in_the_next() {
        let slow = Slow::new(ms(500));
        assert!(slow.is(ms(500)) && !slow.is(ms(499)) && !Slow::new(ms(0)).is(ms(10_000)));
        let logged = (0..100).filter_map(|_| slow.may_log(ms(5000))).count();
        assert_eq!(logged, LINES_MAX as usize);
        assert_eq!(slow.may_log(ms(6000)), Some(95));
        assert_eq!(slow.may_log(ms(6001)), Some(0));
    }
}
