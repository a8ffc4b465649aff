//! Asks the cluster itself: whether it takes writes, since when, and who leads.

use std::time::{Duration, Instant};

use quorate::client::{Client, StatusOptions};
use tokio::task::JoinSet;

/// A new probe starts so long after the one before, whether that was answered or not.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// Probes in flight at most.
const PROBES_MAX: usize = 64;
/// Below this nobody waited: it is what connecting, opening a client and a first write take by themselves.
const NOTICEABLE: Duration = Duration::from_millis(100);

/// Waits until the cluster takes a write, and returns how long after `since` that was.
///
/// A probe is a delete of a session that does not exist: it goes through the log like any write, and leaves nothing behind. A new one
/// starts every [`PROBE_INTERVAL`], so that the answer does not depend on how a single call backs off. Dropping the future stops it.
async fn writes_resume(client: &Client, since: Instant) -> Duration {
    // Each probe has an id of its own: calls on one session wait for each other.
    let (process, mut count) = (std::process::id(), 0_u64);
    let mut probes = JoinSet::new();
    let mut next = tokio::time::interval(PROBE_INTERVAL);
    loop {
        tokio::select! {
            _ = next.tick(), if probes.len() < PROBES_MAX => {
                count += 1;
                let (client, id) = (client.clone(), format!("quorate-dev-probe/{process}/{count}"));
                probes.spawn(async move { client.delete(&id, None).await.is_ok() });
            }
            Some(result) = probes.join_next() => {
                if matches!(result, Ok(true)) {
                    return since.elapsed();
                }
            }
        }
    }
}

/// The leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The node.
    pub node: u64,
    /// Its process, as it says: another cluster on the same ports has others.
    pub pid: u64,
}

/// Waits until a node leads and answers. Dropping the future stops it.
pub async fn leader(client: &Client) -> Leader {
    let mut next = tokio::time::interval(Duration::from_millis(100));
    loop {
        next.tick().await;
        let options = StatusOptions { timeout: Duration::from_secs(1), ..StatusOptions::default() };
        let Ok(status) = client.status(options).await else { continue };
        let leading = super::super::status::leader_of(&status);
        if let Some(node) = status.nodes.iter().find(|node| node.reachable && Some(node.id.0) == leading) {
            return Leader { node: node.id.0, pid: node.pid };
        }
    }
}

/// Waits until the cluster takes a write of this new client and some node leads: how long after `since`, and which. Ends the client.
pub async fn up(client: Client, since: Instant) -> (Duration, Leader) {
    let up = (writes_resume(&client, since).await, leader(&client).await);
    // The client's row expires by itself where this does not arrive.
    let _ = tokio::time::timeout(Duration::from_secs(1), client.close()).await;
    up
}

/// One sentence about an interruption.
pub fn describe(interruption: Duration) -> String {
    let seconds = interruption.as_secs_f64();
    if interruption < NOTICEABLE {
        return format!("writes were not interrupted: a new client's first one took {seconds:.2} s");
    }
    format!("writes were interrupted for {seconds:.2} s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_is_shown_in_seconds_and_a_plain_round_trip_is_none() {
        assert_eq!(describe(Duration::from_millis(50)), "writes were not interrupted: a new client's first one took 0.05 s");
        assert_eq!(describe(Duration::from_millis(1234)), "writes were interrupted for 1.23 s");
    }
}
