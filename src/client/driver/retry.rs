//! The decision after a refused attempt: pure.

use std::time::Duration;

use crate::types::{LeaderHint, Refusal, RefusalKind};

/// Shortest wait between refusals.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Longest wait between refusals.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Hints followed at once, one after the other, before a wait comes between.
const HINTS_AT_ONCE: u32 = 3;

/// How an operation fared so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// An attempt of this write may have been applied: only an outcome settles it now. Never set for a read.
    pub ambiguous: bool,
    /// The wait before the last attempt.
    pub backoff: Duration,
    /// Hints followed without a wait.
    pub hints: u32,
    /// Answers that there were only damaged bytes.
    pub corrupt: usize,
    /// Answers by nodes whose release does not know the operation.
    pub older: usize,
}

/// The facts of the decision.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// The time left until the deadline.
    pub remaining: Duration,
    /// How many endpoints there are to ask.
    pub endpoints: usize,
    /// A random number.
    pub random: u64,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go to the leader, at once.
    Follow(LeaderHint),
    /// Go to another endpoint, at once: this one failed.
    Elsewhere,
    /// Try again after this wait; another endpoint may know more.
    After(Duration),
    /// This cluster does not know our client: forget it, open another, then send again after this wait.
    Forget(Duration),
    /// Tell the caller.
    GiveUp,
}

/// Decides what follows a refusal. `history.ambiguous` already speaks of this attempt too.
///
/// Only the same request id is ever sent again, so a retry is safe whatever the refusal says; what may differ is what the caller is
/// reported in the end.
pub fn next(refusal: &Refusal, history: &mut History, situation: Situation) -> Decision {
    let wait = |history: &mut History, least: Duration| {
        history.backoff = jittered(history.backoff, situation.random);
        history.hints = 0;
        let wait = history.backoff.max(least);
        (wait < situation.remaining).then_some(wait)
    };
    match &refusal.kind {
        RefusalKind::Invalid | RefusalKind::Unauthenticated | RefusalKind::Denied | RefusalKind::Unsupported => Decision::GiveUp,
        RefusalKind::WrongCluster if history.ambiguous => Decision::GiveUp,
        RefusalKind::WrongCluster => wait(history, Duration::ZERO).map_or(Decision::GiveUp, Decision::Forget),
        RefusalKind::NotLeader(hint) if history.hints < HINTS_AT_ONCE => {
            history.hints += 1;
            Decision::Follow(hint.clone())
        }
        RefusalKind::Corrupt => {
            history.corrupt += 1;
            if !history.corrupt.is_multiple_of(situation.endpoints.max(1)) {
                return Decision::Elsewhere;
            }
            // A node that finds damage ends, to be rebuilt, and another one leads: until then each endpoint may have sent us to that node.
            wait(history, Duration::ZERO).map_or(Decision::GiveUp, Decision::After)
        }
        RefusalKind::Unavailable => Decision::Elsewhere,
        RefusalKind::Overloaded { retry_after } | RefusalKind::DiskLow { retry_after } => {
            wait(history, *retry_after).map_or(Decision::GiveUp, Decision::After)
        }
        RefusalKind::NotLeader(_) | RefusalKind::NoLeader | RefusalKind::DeadlineExceeded => {
            wait(history, Duration::ZERO).map_or(Decision::GiveUp, Decision::After)
        }
    }
}

/// Decorrelated jitter: between the least wait and three times the last one.
pub fn jittered(last: Duration, random: u64) -> Duration {
    let least = BACKOFF_MIN.as_micros() as u64;
    let most = (3 * last.as_micros() as u64).clamp(least, BACKOFF_MAX.as_micros() as u64);
    Duration::from_micros(least + random % (most - least + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Applied, NodeId};

    fn situation(remaining: Duration) -> Situation {
        Situation { remaining, endpoints: 3, random: 12_345 }
    }

    fn decide(kind: RefusalKind, history: &mut History) -> Decision {
        next(&Refusal::not_applied(kind, ""), history, situation(Duration::from_secs(5)))
    }

    #[test]
    fn a_call_that_is_wrong_or_not_allowed_is_not_retried() {
        for kind in [RefusalKind::Invalid, RefusalKind::Unauthenticated, RefusalKind::Denied, RefusalKind::Unsupported] {
            assert_eq!(decide(kind, &mut History::default()), Decision::GiveUp);
        }
    }

    #[test]
    fn a_hint_is_followed_at_once_but_not_in_circles() {
        let hint = LeaderHint { node: NodeId(2), address: "b:1".into() };
        let mut history = History::default();
        for _ in 0..HINTS_AT_ONCE {
            assert_eq!(decide(RefusalKind::NotLeader(hint.clone()), &mut history), Decision::Follow(hint.clone()));
        }
        assert!(matches!(decide(RefusalKind::NotLeader(hint.clone()), &mut history), Decision::After(_)));
        assert_eq!(decide(RefusalKind::NotLeader(hint.clone()), &mut history), Decision::Follow(hint));
    }

    #[test]
    fn a_wait_that_does_not_fit_before_the_deadline_gives_up() {
        let refusal = Refusal::not_applied(RefusalKind::Overloaded { retry_after: Duration::from_secs(2) }, "");
        let decision = next(&refusal, &mut History::default(), situation(Duration::from_secs(1)));
        assert_eq!(decision, Decision::GiveUp);
        assert!(matches!(decide(refusal.kind, &mut History::default()), Decision::After(wait) if wait >= Duration::from_secs(2)));
    }

    #[test]
    fn another_cluster_means_a_new_client_only_if_no_attempt_was_ambiguous() {
        assert!(matches!(decide(RefusalKind::WrongCluster, &mut History::default()), Decision::Forget(_)));
        let mut ambiguous = History { ambiguous: true, ..History::default() };
        assert_eq!(decide(RefusalKind::WrongCluster, &mut ambiguous), Decision::GiveUp);
    }

    #[test]
    fn damaged_bytes_are_looked_for_on_every_endpoint_and_after_a_wait_again() {
        let mut history = History::default();
        for _ in 0..2 {
            assert_eq!(decide(RefusalKind::Corrupt, &mut history), Decision::Elsewhere);
            assert_eq!(decide(RefusalKind::Corrupt, &mut history), Decision::Elsewhere);
            assert!(matches!(decide(RefusalKind::Corrupt, &mut history), Decision::After(_)));
        }
        let late = Situation { remaining: Duration::ZERO, endpoints: 1, random: 0 };
        assert_eq!(next(&Refusal::not_applied(RefusalKind::Corrupt, "damaged"), &mut history, late), Decision::GiveUp);
    }

    proptest! {
        #[test]
        fn jitter_stays_within_its_bounds(last in 0u64..5_000_000, random: u64) {
            let wait = jittered(Duration::from_micros(last), random);
            prop_assert!((BACKOFF_MIN..=BACKOFF_MAX).contains(&wait));
        }

        /// Whatever a node says, nothing waits past the deadline.
        #[test]
        fn no_decision_waits_past_the_deadline(retry_after in 0u64..10_000, remaining in 0u64..5_000, random: u64, unknown: bool) {
            let kind = RefusalKind::DiskLow { retry_after: Duration::from_millis(retry_after) };
            let refusal = Refusal { kind, applied: if unknown { Applied::Unknown } else { Applied::No }, message: String::new() };
            let remaining = Duration::from_millis(remaining);
            let situation = Situation { remaining, endpoints: 1, random };
            if let Decision::After(wait) = next(&refusal, &mut History::default(), situation) {
                prop_assert!(wait < remaining);
            }
        }
    }
}
