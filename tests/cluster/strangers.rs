//! What a node does for callers that are no members: those that were removed, and those that never were.

use bytes::Bytes;
use quorate::client::MemberChange;
use quorate::wire;
use quorate::wire::peer::v1::{self as peer, append_response::Result as Appended};
use tonic::Status;

use super::rig::{Cluster, PATIENCE};

/// In no test does a term grow so far by itself.
const HIGHER: u64 = 1000;

/// Every call that carries a route, as `from` to `to`, with a vote of its own in a higher term; what each answers.
async fn every_call(cluster: &Cluster, from: u64, to: u64) -> Vec<(&'static str, Result<(), Status>)> {
    let route = Some(cluster.route(from, to).await);
    let vote = Some(peer::Vote { term: HIGHER, node: from, committed: true });
    let mut peer = cluster.peer(to);
    let append = peer::AppendRequest { route: route.clone(), vote, ..Default::default() };
    let asked = peer::VoteRequest { route: route.clone(), vote, ..Default::default() };
    let mut answers = vec![
        ("append", peer.append(append.clone()).await.map(drop)),
        ("vote", peer.vote(asked.clone()).await.map(drop)),
        ("pre-vote", peer.vote(peer::VoteRequest { pre_vote: true, ..asked }).await.map(drop)),
    ];
    let transfer = peer::TransferLeaderRequest { route: route.clone(), from_leader: vote, to, last_log: None };
    answers.push(("transfer", peer.transfer_leader(transfer).await.map(drop)));
    let lost = peer::LostLeaderRequest { route: route.clone(), vote, last_log: None };
    answers.push(("lost leader", peer.lost_leader(lost).await.map(drop)));
    let rebuild = peer::RebuildRequest { route: route.clone(), ..Default::default() };
    answers.push(("rebuild", peer.rebuild(rebuild).await.map(drop)));
    answers.push(("status", peer.status(peer::StatusRequest { route: route.clone(), ..Default::default() }).await.map(drop)));
    answers.push(("moved", peer.moved(peer::MovedRequest { route: route.clone(), ..Default::default() }).await.map(drop)));
    let start = peer::SnapshotStart { route: route.clone(), vote, ..Default::default() };
    let start = peer::SnapshotFrame { frame: Some(peer::snapshot_frame::Frame::Start(start)) };
    answers.push(("snapshot", peer.snapshot(tokio_stream::iter([start])).await.map(drop)));
    let presence = peer::PresenceMessage { route: route.clone(), ..Default::default() };
    answers.push(("presence", peer.presence(tokio_stream::iter([presence])).await.map(drop)));
    let confirm = peer::ConfirmRequest { route: route.clone(), ..Default::default() };
    answers.push(("confirm", peer.confirm(tokio_stream::iter([confirm])).await.map(drop)));
    let forward = peer::ForwardRequest { route, ..Default::default() };
    answers.push(("forward", peer.forward(tokio_stream::iter([forward])).await.map(drop)));
    let mut streamed = peer.append_stream(tokio_stream::iter([append])).await.expect("it begins").into_inner();
    answers.push(("append stream", streamed.message().await.map(drop)));
    answers
}

async fn term(cluster: &Cluster, node: u64) -> u64 {
    cluster.status_of(node).await.expect("it runs").term
}

/// A member is removed. Whatever it asks for then, it hears that it was removed; no term grows by it, and the others go on.
#[tokio::test]
async fn a_member_that_was_removed_is_answered_so_by_every_call_and_brings_no_term() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader(1).await;
    let removed = (1..=3).find(|node| *node != leader).expect("three nodes");
    // Opened while it is a member: the check is made again for what comes on them later.
    let route = cluster.route(removed, leader).await;
    let (append, requests) = tokio::sync::mpsc::channel(4);
    let opened = peer::AppendRequest { route: Some(route.clone()), ..Default::default() };
    let vote = |term| Some(peer::Vote { term, node: removed, committed: true });
    // Of an earlier term: it is refused by Raft, not by its sender.
    append.send(peer::AppendRequest { vote: vote(0), ..opened.clone() }).await.expect("it is open");
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut appended = cluster.peer(leader).append_stream(requests).await.expect("a member's").into_inner();
    let answer = appended.message().await.expect("a member's").expect("one").result;
    assert!(matches!(answer, Some(Appended::HigherVote(_))), "{answer:?}");
    let (forward, calls) = tokio::sync::mpsc::channel(4);
    forward.send(peer::ForwardRequest { route: Some(route), ..Default::default() }).await.expect("it is open");
    let calls = tokio_stream::wrappers::ReceiverStream::new(calls);
    let mut forwarded = cluster.peer(leader).forward(calls).await.expect("a member's").into_inner();

    cluster.client().change_members(MemberChange::Remove(removed.into()), false, PATIENCE).await.expect("a majority answers");
    assert!(cluster.ended(removed).await.contains("removed"));
    let before = term(&cluster, leader).await;
    append.send(peer::AppendRequest { vote: vote(HIGHER), ..opened }).await.expect("it is open");
    let status = appended.message().await.expect_err("a removed node's");
    assert!(status.message().contains("removed from the cluster"), "{status}");
    forward.send(peer::ForwardRequest::default()).await.expect("it is open");
    let status = forwarded.message().await.expect_err("a removed node's");
    assert!(status.message().contains("removed from the cluster"), "{status}");

    for node in (1..=3).filter(|node| *node != removed) {
        for (call, answer) in every_call(&cluster, removed, node).await {
            let status = answer.expect_err(call);
            assert!(status.message().contains("removed from the cluster"), "{call}: {status}");
            assert!(status.metadata().contains_key("quorate-removed"), "{call}: {status:?}");
        }
        assert_eq!(term(&cluster, node).await, before, "its term is that of before");
    }
    assert_eq!(cluster.leader(1).await, leader);
}

/// An id that never was a member: no call of it is looked at, on any node that reaches a majority.
#[tokio::test]
async fn an_id_that_never_was_a_members_is_refused_by_every_call() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(1).await;
    let before = term(&cluster, leader).await;
    for node in 1..=3 {
        // Until it has heard the others, it can't know.
        let presence = async || {
            let first = peer::PresenceMessage { route: Some(cluster.route(9, node).await), ..Default::default() };
            cluster.peer(node).presence(tokio_stream::iter([first])).await
        };
        let deadline = std::time::Instant::now() + PATIENCE;
        while presence().await.is_ok() {
            assert!(std::time::Instant::now() < deadline, "it is let in");
            tokio::task::yield_now().await;
        }
        for (call, answer) in every_call(&cluster, 9, node).await {
            let status = answer.expect_err(call);
            assert!(status.message().contains("no member") && status.message().contains("node=9"), "{call}: {status}");
        }
        assert_eq!(term(&cluster, node).await, before, "its term is that of before");
    }
}

/// What a caller says as a candidate or a leader, it says for itself.
#[tokio::test]
async fn a_member_can_not_speak_with_the_vote_of_another() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(1).await;
    let followers: Vec<u64> = (1..=3).filter(|node| *node != leader).collect();
    let before = term(&cluster, leader).await;
    let route = Some(cluster.route(followers[0], followers[1]).await);
    let vote = Some(peer::Vote { term: HIGHER, node: leader, committed: true });
    let mut peer = cluster.peer(followers[1]);
    let append = peer::AppendRequest { route: route.clone(), vote, ..Default::default() };
    let asked = peer::VoteRequest { route, vote, ..Default::default() };
    for answer in [peer.append(append).await.map(drop), peer.vote(asked).await.map(drop)] {
        let status = answer.expect_err("another's vote");
        assert!(status.message().contains("the vote is not the caller's"), "{status}");
    }
    assert_eq!(term(&cluster, followers[1]).await, before);
}

/// A leader that takes itself out has to tell the others so, and that it is committed. It may, under the vote they have followed it by,
/// and under no other.
#[tokio::test]
async fn a_leader_that_was_removed_may_finish_what_the_vote_it_is_followed_by_says() {
    let mut cluster = Cluster::start(3).await;
    let (leader, [node, other]) = cluster.roles().await;
    cluster.converged().await.expect("all replicas are in the same state");
    let route = Some(cluster.route(leader, node).await);
    let instances = [cluster.hello(node).await.instance, cluster.hello(other).await.instance];
    // Nobody else speaks, and alone it makes no majority: what it follows stays.
    cluster.kill(other).await;
    cluster.kill(leader).await;
    let status = cluster.status_of(node).await.expect("it runs");
    let (last, leads) = (status.last_log.expect("it has entries"), status.term);
    let member = |id: u64, instance: &Bytes| peer::membership::Member {
        id,
        peer_address: format!("127.0.0.1:{id}"),
        client_address: format!("127.0.0.1:1{id}"),
        admin_address: String::new(),
        instance: instance.clone(),
    };
    let without = peer::Membership {
        configs: vec![peer::membership::Config { voters: vec![node, other] }],
        members: [node, other].iter().zip(&instances).map(|(id, instance)| member(*id, instance)).collect(),
    };
    let log_id = |index| peer::LogId { term: leads, node: leader, index };
    let payload: Bytes = [&[0xff], &wire::to_bytes(&without)[..]].concat().into();
    let append = |vote_term, entries: Vec<peer::Entry>, previous, commit| peer::AppendRequest {
        route: route.clone(),
        vote: Some(peer::Vote { term: vote_term, node: leader, committed: true }),
        previous: Some(log_id(previous)),
        entries,
        leader_commit: Some(log_id(commit)),
    };
    let mut peer = cluster.peer(node);
    let entry = peer::Entry { log_id: Some(log_id(last + 1)), payload };
    let answer = peer.append(append(leads, vec![entry], last, last + 1)).await.expect("it leads").into_inner().result;
    assert!(matches!(answer, Some(Appended::Success(_))), "{answer:?}");
    let applied = |status: &quorate::client::ClusterStatus| {
        status.nodes.iter().any(|status| status.id.0 == node && status.applied == Some(last + 1))
    };
    cluster.wait_for("the removal to be applied", applied).await.expect("it is committed");
    let answer = peer.append(append(leads, vec![], last + 1, last + 1)).await.expect("it is followed").into_inner().result;
    assert!(matches!(answer, Some(Appended::Success(_))), "{answer:?}");
    let status = peer.append(append(leads + 1, vec![], last + 1, last + 1)).await.expect_err("no other vote of a removed node");
    assert!(status.message().contains("removed from the cluster"), "{status}");
    assert_eq!(term(&cluster, node).await, leads);
}

/// A node that was away while a member joined has not heard of it, and hears it from others: it follows it, though it can't know it by
/// its own membership.
#[tokio::test]
async fn a_node_that_was_away_while_a_member_joined_follows_it_as_a_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader(1).await;
    let away = (1..=3).find(|node| *node != leader).expect("three nodes");
    cluster.kill(away).await;
    let joined = cluster.add_learner().await;
    let client = cluster.client();
    client.change_members(MemberChange::Promote(joined.into()), false, PATIENCE).await.expect("it catches up");
    assert_eq!(client.transfer_leadership(Some(joined.into()), PATIENCE).await.expect("it is up to date").0, joined);
    cluster.start_node(away).await;
    cluster.converged().await.expect("it follows");
}

/// The same where nobody is left who could say so: one member is gone for good, one is down. The newcomer gets the vote it needs.
#[tokio::test]
async fn a_node_that_reaches_nobody_it_knows_votes_for_a_member_it_has_not_heard_of() {
    let mut cluster = Cluster::start(3).await;
    let (leader, [away, replaced]) = cluster.roles().await;
    cluster.kill(away).await;
    let joined = cluster.add_learner().await;
    let client = cluster.client();
    let change = MemberChange::Replace { old: replaced.into(), new: joined.into() };
    client.change_members(change, false, PATIENCE).await.expect("it catches up");
    assert!(cluster.ended(replaced).await.contains("removed"));
    cluster.kill(leader).await;
    cluster.start_node(away).await;
    let mut caller = cluster.caller(joined).await;
    caller.saved("s", "x").await;
    assert_eq!(cluster.leader(joined).await, joined, "only it had everything");
}
