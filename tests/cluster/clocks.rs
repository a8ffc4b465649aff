//! Clocks that were wrong together, and are right again.

use std::time::{Duration, Instant, SystemTime};

use quorate::client::ClusterStatus;
use quorate::env::unix_ms;
use quorate::types::{Consistency, Expiry, Loaded, Write};

use super::rig::{Cluster, PATIENCE};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const HOUR_MS: u64 = 3600 * 1000;

fn complains(status: &ClusterStatus) -> bool {
    status.nodes.iter().all(|node| node.checks.iter().any(|check| check.name == "time" && !check.ok && !check.required))
}

/// All clocks are a year ahead while something is saved, then right: the time that sessions expire by stays a year ahead (decision 0004), every
/// node says so, and what a session has left to live is reported as that, whatever its deadline.
#[tokio::test]
async fn time_that_ran_ahead_is_reported_by_every_node_and_what_is_left_to_live_is_not_a_year_more() {
    let cluster = Cluster::start(3).await;
    cluster.set_clocks_ahead(YEAR);
    let deadline = Instant::now() + PATIENCE;
    loop {
        // It is an entry too, whose stamp is ahead once its leader has heard enough clocks.
        cluster.caller(1).await;
        let status = cluster.status().await.expect("they answer");
        if status.nodes.iter().any(|node| node.machine_time_ms > unix_ms(SystemTime::now()) + YEAR.as_millis() as u64 / 2) {
            break;
        }
        assert!(Instant::now() < deadline, "no time is ahead: {status:?}");
    }
    let mut caller = cluster.caller(1).await;
    let mut save = caller.save_of("s", "x");
    if let Write::Save { attributes, .. } = &mut save {
        attributes.expiry = Expiry::After(Duration::from_millis(HOUR_MS));
    }
    caller.settle(&save).await;
    cluster.set_clocks_ahead(Duration::ZERO);
    cluster.wait_for("every node to say that time is ahead", complains).await.expect("it never goes back");
    let ready = cluster.get(2, "/readyz?verbose").await;
    assert!(ready.contains("[!] time machine_ahead_s=315"), "{ready}");
    let metrics = cluster.get(3, "/metrics").await;
    assert!(metrics.contains("quorate_machine_time_ahead_seconds 315"), "{metrics}");
    let client = cluster.client();
    while !client.events().await.expect("a node answers").events.iter().any(|event| event.kind == "time") {
        assert!(Instant::now() < deadline, "no event tells it");
    }
    let found = match caller.load_within("s", Consistency::Linearizable, 30_000).await {
        Ok(Loaded::Full(found)) => found.info,
        other => panic!("it is there: {other:?}"),
    };
    assert!(found.remaining_ms.is_some_and(|left| (1..=HOUR_MS).contains(&left)), "{found:?}");
}
