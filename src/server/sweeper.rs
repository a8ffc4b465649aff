//! Proposes sweeps where this node leads and something is due. An idle cluster writes nothing.

use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::limits::SWEEP_COUNT_MAX;
use crate::machine::Command;
use crate::raft::Node;
use crate::types::{Refusal, Swept, Verdict};

/// Something due is noticed after this at the latest.
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(500);
/// How long at least between two sweeps that dropped all there was.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(50);
/// After a sweep that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Sweep,
    /// Nothing is due: check again after so long.
    Wait(Duration),
    /// Another node's business.
    AwaitLeadership,
}

fn next(leads: bool, due_in: Option<Duration>) -> Next {
    match (leads, due_in) {
        (false, _) => Next::AwaitLeadership,
        (true, Some(Duration::ZERO)) => Next::Sweep,
        (true, due_in) => Next::Wait(due_in.unwrap_or(POLL_INTERVAL_MAX).clamp(POLL_INTERVAL_MIN, POLL_INTERVAL_MAX)),
    }
}

/// How long to rest after a sweep: not at all while it may have left something.
fn rest(swept: Option<Swept>) -> Duration {
    match swept {
        None => AFTER_FAILURE,
        Some(swept) => {
            let dropped = [swept.sessions, swept.clients, swept.tombstones, swept.leases].map(u64::from).iter().sum::<u64>();
            if dropped >= u64::from(SWEEP_COUNT_MAX) { Duration::ZERO } else { POLL_INTERVAL_MIN }
        }
    }
}

/// Runs until `stop`; its spawner joins it.
pub async fn run(node: Node, mut stop: watch::Receiver<bool>) {
    let mut leadership = node.leadership();
    while !*stop.borrow() {
        let leads = leadership.borrow_and_update().is_self;
        let due_in = if leads { node.due_in() } else { None };
        let wait = match next(leads, due_in) {
            // Without a quorum the answer may take for ever; a stop does not wait for it.
            Next::Sweep => tokio::select! {
                swept = sweep(&node) => rest(swept),
                _ = stop.changed() => return,
            },
            Next::Wait(after) => after,
            Next::AwaitLeadership => Duration::MAX,
        };
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
            _ = stop.changed() => {}
        }
    }
}

/// One sweep; `None`: refused, or its fate is unknown. Another one does no harm.
async fn sweep(node: &Node) -> Option<Swept> {
    let (sender, reply) = oneshot::channel::<Result<Swept, Refusal>>();
    let swept = move |result: Result<crate::types::Outcome, Refusal>| {
        let swept = result.map(|outcome| match outcome.verdict {
            Verdict::Swept(swept) => swept,
            _ => Swept::default(),
        });
        // The node stops: nobody waits any more.
        let _ = sender.send(swept);
    };
    node.propose(vec![(Command::Sweep { limit: SWEEP_COUNT_MAX }, Box::new(swept))]);
    match reply.await {
        Ok(Ok(swept)) => {
            tracing::debug!(
                sessions = swept.sessions,
                clients = swept.clients,
                tombstones = swept.tombstones,
                leases = swept.leases,
                "swept"
            );
            Some(swept)
        }
        Ok(Err(refusal)) => {
            tracing::debug!(%refusal, "a sweep was not confirmed");
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leader_sweeps_and_only_when_something_is_due() {
        assert_eq!(next(false, Some(Duration::ZERO)), Next::AwaitLeadership);
        assert_eq!(next(true, Some(Duration::ZERO)), Next::Sweep);
        assert_eq!(next(true, None), Next::Wait(POLL_INTERVAL_MAX));
    }

    #[test]
    fn what_is_due_is_noticed_within_a_second() {
        assert_eq!(next(true, Some(Duration::from_secs(3600))), Next::Wait(POLL_INTERVAL_MAX));
        assert_eq!(next(true, Some(Duration::from_millis(200))), Next::Wait(Duration::from_millis(200)));
        assert!(POLL_INTERVAL_MAX < Duration::from_secs(1));
    }

    #[test]
    fn a_full_sweep_is_followed_by_another_at_once() {
        assert_eq!(rest(Some(Swept { sessions: SWEEP_COUNT_MAX, ..Swept::default() })), Duration::ZERO);
        assert_eq!(rest(Some(Swept { sessions: 1, ..Swept::default() })), POLL_INTERVAL_MIN);
        assert_eq!(rest(None), AFTER_FAILURE);
    }
}
