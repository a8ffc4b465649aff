//! The stock Bob runtime over real servers in this process.

use std::sync::Arc;

use bob_core::ports::SessionStore as _;
use bob_core::types::Role;
use quorate::client::bob::ConcurrentSave;
use quorate::testing::Cluster;

#[path = "../../examples/bob_agent.rs"]
#[allow(dead_code, reason = "the example's own main")]
mod agent;

const TURNS: usize = 20;

/// Bob's runtime loads, thinks, and saves without a condition: under `Rebase` no acknowledged turn is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_turns_at_once_on_one_session_are_all_kept_once() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let client = || cluster.client();
    let clients = [client(), client()];
    let runtimes =
        clients.each_ref().map(|client| agent::runtime(Arc::new(client.session_store().concurrent_save(ConcurrentSave::Rebase))));
    // The session is new for the first round.
    for round in 1..=2 {
        let turns: Vec<_> = (0..TURNS)
            .map(|n| {
                let runtime = runtimes[n % 2].clone();
                tokio::spawn(async move { agent::turn(&*runtime, "hot", &format!("round {round} turn {n}")).await })
            })
            .collect();
        for turn in turns {
            turn.await.expect("no panic").expect("acknowledged");
        }
        let state = client().session_store().load(&"hot".to_owned()).await.expect("answered").expect("stored");
        let mut said: Vec<_> =
            state.messages.iter().filter(|message| message.role == Role::User).map(|message| message.content.clone()).collect();
        said.sort_unstable();
        let mut expected: Vec<_> =
            (1..=round).flat_map(|round| (0..TURNS).map(move |n| format!("round {round} turn {n}"))).collect();
        expected.sort_unstable();
        assert_eq!(said, expected);
        assert_eq!(state.messages.len(), 2 * round * TURNS, "every answer follows its question");
        assert!(state.messages.chunks(2).all(|pair| pair[0].role == Role::User && pair[1].role == Role::Assistant));
        let tokens = u32::try_from(round * TURNS).expect("few");
        assert_eq!((state.total_usage.prompt_tokens, state.total_usage.completion_tokens), (10 * tokens, 3 * tokens));
    }
}
