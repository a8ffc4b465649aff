//! What openraft's `ForwardToLeader` means to a write: nothing was appended. The client is answered that nothing changed, and tries
//! elsewhere; if that were wrong, a write reported as refused could still happen.

use quorate::machine::Command;
use quorate::server::Node;
use quorate::types::{Applied, Nonce, Outcome, Refusal, Write};
use tokio::sync::oneshot;

use super::rig::Cluster;

type Answer = Result<Outcome, Refusal>;

/// Proposes so many new clients in one batch, below everything that would route or retry.
async fn propose(node: &Node, from: u64, count: u64) -> Vec<Answer> {
    let (mut batch, mut answers) = (Vec::new(), Vec::new());
    for n in from..from + count {
        let mut nonce = [7; 16];
        nonce[..8].copy_from_slice(&n.to_be_bytes());
        let (reply, answer) = oneshot::channel();
        let reply: quorate::raft::Reply = Box::new(move |result| drop(reply.send(result)));
        batch.push((Command::Client(Write::OpenClient { nonce: Nonce(nonce) }), reply));
        answers.push(answer);
    }
    node.propose(batch);
    let mut results = Vec::new();
    for answer in answers {
        results.push(answer.await.expect("each reply is called"));
    }
    results
}

#[tokio::test]
async fn write_that_a_follower_refuses_was_not_appended_anywhere() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(1).await;
    cluster.converged().await.expect("quiet");
    let before: Vec<_> =
        cluster.status().await.expect("all answer").nodes.iter().map(|node| (node.last_log, node.clients)).collect();
    for follower in (1..=3).filter(|node| *node != leader) {
        let node = cluster.node(follower).expect("it runs");
        for answer in propose(node, follower * 100, 20).await {
            let refusal = answer.expect_err("it does not lead");
            assert_eq!(refusal.applied, Applied::No, "{refusal:?}");
        }
    }
    // One entry that is appended, so that one appended before would be seen below it.
    let node = cluster.node(leader).expect("it runs");
    assert!(propose(node, 1, 1).await.iter().all(Result::is_ok));
    cluster.converged().await.expect("quiet again");
    let after: Vec<_> =
        cluster.status().await.expect("all answer").nodes.iter().map(|node| (node.last_log, node.clients)).collect();
    let expected: Vec<_> = before.iter().map(|(last, clients)| (last.map(|last| last + 1), clients + 1)).collect();
    assert_eq!(after, expected, "only the accepted one is in the logs and the states");
}

/// The leader hands over while it is given one batch after the other, so that some of them meet it as it stops leading.
#[tokio::test]
async fn write_refused_by_a_leader_that_is_losing_its_leadership_never_happens() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader(1).await;
    cluster.converged().await.expect("quiet");
    let before = cluster.status_of(leader).await.expect("it answers").clients;
    let node = cluster.node(leader).expect("it runs").clone();
    let (mut done, mut refused, mut unknown) = (0, 0, 0);
    let stopping = tokio::spawn({
        let node = node.clone();
        async move { node.shutdown().await }
    });
    for batch in 1.. {
        for answer in propose(&node, batch * 1000, 8).await {
            match answer {
                Ok(_) => done += 1,
                Err(refusal) if refusal.applied == Applied::No => refused += 1,
                Err(_) => unknown += 1,
            }
        }
        if stopping.is_finished() {
            break;
        }
    }
    stopping.await.expect("it stops");
    drop(node);
    assert!(refused > 0, "the leader was not met while it stopped leading: done={done} unknown={unknown}");
    cluster.kill(leader).await;
    cluster.start_node(leader).await;
    cluster.converged().await.expect("quiet");
    for node in cluster.status().await.expect("all answer").nodes {
        let opened = node.clients - before;
        assert!((done..=done + unknown).contains(&opened), "opened={opened} done={done} refused={refused} unknown={unknown}");
    }
}
