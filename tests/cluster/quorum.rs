//! A leader whose majority is gone, as everyone who asks sees it.

use std::time::{Duration, Instant};

use quorate::client::{Client, Content, LoadOptions, StatusOptions, WriteOptions};
use quorate::types::{Applied, Consistency, NodeId, RefusalKind};
use quorate::wire::v1::{self, operations_client::OperationsClient};

use super::rig::{Caller, Cluster, PATIENCE, version};

/// What a node says of itself, once it says that somebody leads, or that nobody does.
async fn once_led(cluster: &Cluster, id: u64, is_led: bool) -> v1::NodeStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = cluster.raw(id).status(v1::StatusRequest { local: true, ..Default::default() }).await;
        let status = status.expect("it needs no quorum").into_inner().nodes.remove(0);
        // A node is healthy when its own watch has seen it too.
        let ready = cluster.get(id, "/readyz").await.contains(" 200 ");
        if status.leader.is_some() == is_led && ready == is_led {
            return status;
        }
        assert!(Instant::now() < deadline, "is_led={is_led} {status:?}");
        tokio::task::yield_now().await;
    }
}

/// How old a node says that its list is.
async fn stale_age(caller: &mut Caller) -> Option<Duration> {
    let list = v1::ListOperation { limit: 1, consistency: v1::Consistency::Stale.into(), ..Default::default() };
    let request = super::rig::submit(1, &caller.cluster_id, v1::submit_request::Operation::List(list));
    let answer = caller.raw.list(request).await.expect("a stale read needs no quorum").into_inner().answer;
    let Some(v1::submit_response::Answer::List(page)) = answer else { panic!("no page: {answer:?}") };
    page.age_ms.map(Duration::from_millis)
}

/// What a node remembers.
pub async fn events(cluster: &Cluster, id: u64) -> Vec<v1::Event> {
    let address = &cluster.config().member(id.into()).expect("a member").client;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut client = OperationsClient::new(endpoint.connect_lazy());
    client.events(v1::EventsRequest {}).await.expect("events").into_inner().events
}

#[tokio::test]
async fn a_leader_whose_majority_is_gone_is_none_to_anyone_who_asks() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader(1).await;
    let mut caller = cluster.caller(leader).await;
    let save = caller.save_of("s", "value");
    caller.attempt(&save).await.expect("a healthy cluster never refuses");
    once_led(&cluster, leader, true).await;
    cluster.kill_each((1..=3).filter(|node| *node != leader)).await;
    let status = once_led(&cluster, leader, false).await;
    assert_eq!(status.role(), v1::Role::Candidate, "no leader: {status:?}");
    let ready = cluster.get(leader, "/readyz").await;
    assert!(ready.contains(" 503 ") && ready.contains("[-] leader no quorum: this node led"), "{ready}");
    let metrics = cluster.get(leader, "/metrics").await;
    assert!(metrics.contains("quorate_has_leader 0") && metrics.contains("quorate_is_leader 0"), "{metrics}");
    // It counts as none from so long after its last confirmation on.
    let patience = cluster.config().raft.election_timeout_max;
    let age = stale_age(&mut caller).await.expect("it was confirmed once");
    assert!(age >= patience, "{age:?} {patience:?}");
    let write = caller.save_of("s", "later");
    let refusal = caller.attempt_within(&write, 500).await.expect_err("nobody can commit");
    assert_eq!((refusal.kind, refusal.applied), (RefusalKind::NoLeader, Applied::No), "refused before it is proposed");
    let known = events(&cluster, leader).await;
    assert!(known.iter().any(|event| event.kind == "quorum" && event.detail.starts_with("lost")), "{known:?}");

    cluster.start_each((1..=3).filter(|node| *node != leader)).await;
    assert_eq!(version(&caller.settle(&write).await), 2);
    once_led(&cluster, leader, true).await;
}

/// A learner hears the leader as before: that this has no majority it knows by the leader's word alone.
#[tokio::test]
async fn a_learner_of_a_leader_without_a_majority_knows_of_no_leader() {
    let mut cluster = Cluster::start(3).await;
    assert_eq!(cluster.add_learner().await, 4);
    once_led(&cluster, 4, true).await;
    let leader = cluster.leader(4).await;
    let mut learner = cluster.caller(4).await;
    cluster.kill_each((1..=3).filter(|node| *node != leader)).await;
    once_led(&cluster, 4, false).await;
    let age = stale_age(&mut learner).await.expect("the leader was confirmed once");
    assert!(age >= cluster.config().raft.election_timeout_max, "{age:?}");
    cluster.start_each((1..=3).filter(|node| *node != leader)).await;
    once_led(&cluster, 4, true).await;
}

/// It has nothing, which is no answer: every caller is answered so, and a client that asks it first asks on.
#[tokio::test]
async fn a_node_with_an_empty_disk_speaks_for_no_cluster() {
    let mut cluster = quorate::testing::Cluster::start(3).await.expect("a cluster");
    let client = cluster.client();
    let content = || Content::Value("kept".into());
    client.save("s", content(), WriteOptions::default()).await.expect("a healthy cluster never refuses");
    cluster.kill(3).await.expect("it runs");
    cluster.wipe(3).expect("it is off");
    cluster.restart(3).await.expect("an empty disk under an id that was used");
    let at = |id: u64| cluster.config().member(NodeId(id)).expect("a member").client.clone();
    let alone = Client::builder().endpoints([at(3)]).build().expect("a client");
    let deadline = Instant::now() + PATIENCE;
    while cluster.node(3).is_some_and(|node| node.estranged().is_none()) {
        assert!(Instant::now() < deadline, "the others call it, and it does not see what it is");
        tokio::task::yield_now().await;
    }
    let error = alone.members().await.expect_err("it knows no members").to_string();
    assert!(error.contains("in no cluster") && error.contains("replace"), "{error}");
    let stale = || LoadOptions { consistency: Consistency::Stale };
    let error =
        alone.load_with("s", stale()).await.expect_err("it has no sessions, and does not say that there are none").to_string();
    assert!(error.contains("in no cluster"), "{error}");
    let events = cluster.node(3).expect("it runs").events().all();
    assert!(events.iter().any(|event| event.kind == "no_cluster"), "{events:?}");

    let first = Client::builder().endpoints([at(3), at(1), at(2)]).build().expect("a client");
    assert_eq!(first.members().await.expect("another answers").members.len(), 3);
    assert_eq!(first.load_with("s", stale()).await.expect("another answers").session.expect("it was saved").content, content());
    let status = first.status(StatusOptions::default()).await.expect("another answers");
    let reachable: Vec<bool> = status.nodes.iter().map(|node| node.reachable).collect();
    assert_eq!((status.cluster_id.is_some(), reachable), (true, vec![true, true, false]), "{status:?}");
    assert!(status.nodes[2].error.contains("in no cluster"), "{status:?}");
}
