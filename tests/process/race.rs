//! Turns that race on hot sessions while leaders are killed.

use std::sync::Arc;

use bob_core::ports::SessionStore;
use quorate::client::bob::ConcurrentSave;

use crate::process::harness::Cluster;
use crate::process::racing::Race;

const AGENTS: usize = 20;
const TURNS: u64 = 600;
const KILLS: u64 = 3;

/// Twenty stock agents, two clients, one session at a time; the leader dies three times meanwhile. `scripts/bench/agents.sh` does it for
/// longer, with more of everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_turns_are_all_kept_once_and_whole_through_leader_kills() {
    let mut cluster = Cluster::start(3).await;
    let store = || Arc::new(cluster.client().session_store().concurrent_save(ConcurrentSave::Rebase)) as Arc<dyn SessionStore>;
    let stores = [store(), store()];
    let race = Race::new("hot", TURNS, TURNS / 3);
    let agents = race.agents(AGENTS, &stores);
    for kill in 1..=KILLS {
        while race.acknowledged() < kill * TURNS / (KILLS + 1) && agents.iter().any(|agent| !agent.is_finished()) {
            tokio::task::yield_now().await;
        }
        let leader = cluster.leader().await;
        cluster.kill(leader);
        cluster.restart(leader);
    }
    for agent in agents {
        agent.await.expect("no panic");
    }
    let audit = race.audit(&cluster.client().session_store()).await.expect("sessions that can be read");
    assert!(audit.holds(), "{audit:?}\n{}", cluster.logs());
    assert_eq!(audit.acknowledged, TURNS, "an agent got an error: {audit:?}");
    cluster.assert_equal_digests().await;
}
