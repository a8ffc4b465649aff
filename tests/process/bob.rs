//! The stock Bob runtime over three processes, whose leader is killed between turns and during a save.

use std::sync::Arc;

use bob_core::ports::SessionStore as _;
use bob_core::types::Role;

use crate::process::harness::Cluster;
use crate::process::racing::agent;

const TURNS: usize = 6;

/// The conversation is complete afterwards, read by another client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_agent_keeps_its_conversation_through_killed_leaders() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let runtime = agent::runtime(Arc::new(client.session_store()));
    for number in 1..=TURNS {
        let leader = cluster.leader().await;
        let input = format!("message {number}");
        if number % 2 == 0 {
            // Between turns.
            cluster.kill(leader);
            agent::turn(&*runtime, "conversation", &input).await.expect("a turn without one node");
        } else {
            // While the turn runs: it loads, thinks, saves. The kill falls somewhere in it.
            let runtime = runtime.clone();
            let turn = tokio::spawn(async move { agent::turn(&*runtime, "conversation", &input).await });
            tokio::task::yield_now().await;
            cluster.kill(leader);
            turn.await.expect("no panic").expect("a turn through a kill");
        }
        cluster.restart(leader);
    }
    let other = cluster.client();
    let state = other.session_store().load(&"conversation".to_owned()).await.expect("a load").expect("a session");
    let said: Vec<&str> =
        state.messages.iter().filter(|message| message.role == Role::User).map(|message| message.content.as_str()).collect();
    let expected: Vec<String> = (1..=TURNS).map(|number| format!("message {number}")).collect();
    assert_eq!(said, expected, "every turn once, in order");
    assert_eq!(state.version, TURNS as u64);
    assert_eq!(state.total_usage.prompt_tokens, 10 * TURNS as u32);
    cluster.assert_equal_digests().await;
}
