//! A leader that is cut off from its peers, and not from its clients: it lets go of what it has open, and the callers go elsewhere.

use std::time::Instant;

use quorate::client::{Client, Content, WriteOptions};
use quorate::testing;
use quorate::types::{Applied, Consistency, Loaded, RefusalKind, Write};

use super::rig::{Caller, Cluster, PATIENCE, version};

/// Small segments, as in the other tests.
const SEGMENT_BYTES: u64 = 1 << 20;

/// A cluster, its leader and the other nodes.
async fn cuttable(nodes: u64) -> (Cluster, u64, Vec<u64>) {
    let cluster = Cluster::of(testing::Cluster::builder().nodes(nodes).segment_bytes(SEGMENT_BYTES).cuttable()).await;
    let leader = cluster.leader(1).await;
    (cluster, leader, (1..=nodes).filter(|node| *node != leader).collect())
}

/// Lets `begin` have a write proposed by the leader, which no other can sync meanwhile, and cuts the leader off once it is in its log.
/// The write is open there then, and may be in the logs of the others.
async fn cut_with_an_open_write<T: Send + 'static>(
    cluster: &Cluster,
    leader: u64,
    others: &[u64],
    begin: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    let log_end = || cluster.node(leader).expect("it runs").status().last_log;
    let before = log_end();
    others.iter().for_each(|node| cluster.sim_disk(*node).hold_syncs());
    let begun = tokio::spawn(begin);
    let deadline = Instant::now() + PATIENCE;
    while log_end() == before {
        assert!(Instant::now() < deadline, "the write is not proposed");
        tokio::task::yield_now().await;
    }
    cluster.cut_off(leader).expect("it is cuttable");
    others.iter().for_each(|node| cluster.sim_disk(*node).release_syncs());
    begun
}

async fn attempt(mut caller: Caller, write: Write) -> (Caller, Result<quorate::types::Outcome, quorate::types::Refusal>) {
    // Its deadline is the default, far beyond any election.
    let result = caller.attempt(&write).await;
    (caller, result)
}

/// It was held until its own deadline before. It may have been applied: only the same request elsewhere can say.
#[tokio::test]
async fn an_open_write_of_a_leader_that_is_cut_off_is_answered_as_unknown_and_happens_once_elsewhere() {
    let (cluster, leader, others) = cuttable(3).await;
    let mut caller = cluster.caller(leader).await;
    let write = caller.save_of("s", "value");
    let begun = cut_with_an_open_write(&cluster, leader, &others, attempt(caller, write.clone())).await;
    let (mut caller, result) = begun.await.expect("no panic");
    let refusal = result.expect_err("nobody answers that leader");
    assert_eq!((refusal.kind, refusal.applied), (RefusalKind::Unavailable, Applied::Unknown), "{}", refusal.message);

    let mut elsewhere = cluster.caller(others[0]).await;
    let later = caller.save_of("s", "later");
    for refused in [caller.attempt(&later).await.err(), caller.load_within("s", Consistency::Linearizable, 0).await.err()] {
        let refused = refused.expect("it leads nobody");
        assert_eq!((refused.kind, refused.applied), (RefusalKind::NoLeader, Applied::No), "{}", refused.message);
    }
    let mut same = caller.at(cluster.raw(others[0]));
    assert_eq!(version(&same.settle(&write).await), 1);
    assert_eq!(elsewhere.value("s").await.as_deref(), Some(b"value".as_slice()));

    cluster.reconnect(leader).expect("it is cuttable");
    let mut back = same.at(cluster.raw(leader));
    assert_eq!(version(&back.settle(&write).await), 1, "the same outcome, wherever it is asked for");
    assert_eq!(version(&back.settle(&later).await), 2, "what was refused had not happened");
    cluster.converged().await.expect("all agree");
}

/// A node that stops in order can wait for a majority only so long. What it has proposed by then may happen yet.
#[tokio::test]
async fn an_open_write_of_a_leader_that_stops_is_answered_as_unknown_and_happens_once_elsewhere() {
    let (mut cluster, leader, others) = cuttable(3).await;
    let mut caller = cluster.caller(leader).await;
    let write = caller.save_of("s", "value");
    let last_log = || cluster.node(leader).expect("it runs").status().last_log;
    let before = last_log();
    others.iter().for_each(|node| cluster.sim_disk(*node).hold_syncs());
    let begun = tokio::spawn(attempt(caller, write.clone()));
    let deadline = Instant::now() + PATIENCE;
    while last_log() == before {
        assert!(Instant::now() < deadline, "the write is not proposed");
        tokio::task::yield_now().await;
    }
    cluster.stop(leader).await;
    let (caller, result) = begun.await.expect("no panic");
    let refusal = result.expect_err("no other node has synced it");
    assert_eq!(refusal.applied, Applied::Unknown, "{}", refusal.message);
    others.iter().for_each(|node| cluster.sim_disk(*node).release_syncs());
    let mut same = caller.at(cluster.raw(others[0]));
    assert_eq!(version(&same.settle(&write).await), 1, "once");
}

/// What a caller sees: its write, with the default deadline, succeeds while the leader it was sent to stays cut off.
#[tokio::test]
async fn an_open_write_of_a_leader_that_is_cut_off_succeeds_for_its_caller_while_the_cut_lasts() {
    for nodes in [3, 5] {
        let (cluster, leader, others) = cuttable(nodes).await;
        let at = |node: &u64| cluster.config().member((*node).into()).expect("a member").client.clone();
        // Its first save opens it, at the leader.
        let client = Client::builder().endpoints([at(&leader)]).build().expect("a client");
        let saved = client.save("s", Content::Value("first".into()), WriteOptions::default()).await;
        saved.expect("a healthy cluster never refuses");
        let save = {
            let client = client.clone();
            async move { client.save("s", Content::Value("second".into()), WriteOptions::default()).await }
        };
        let begun = cut_with_an_open_write(&cluster, leader, &others, save).await;
        let saved = begun.await.expect("no panic").expect("the others serve");
        assert_eq!(saved.version.0, 2, "once");
    }
}

/// A load that waits for a majority's word is no better off: it is refused as one that found no leader, and read elsewhere.
#[tokio::test]
async fn a_load_from_a_leader_that_is_cut_off_is_refused_before_its_deadline() {
    let (cluster, leader, others) = cuttable(3).await;
    let mut caller = cluster.caller(leader).await;
    caller.saved("s", "value").await;
    cluster.cut_off(leader).expect("it is cuttable");
    let refusal = caller.load_within("s", Consistency::Linearizable, 0).await.expect_err("it can't know whether it leads");
    assert_eq!((refusal.kind, refusal.applied), (RefusalKind::NoLeader, Applied::No), "{}", refusal.message);
    let stale = caller.load_within("s", Consistency::Stale, 0).await.expect("a stale read needs no majority");
    assert!(matches!(stale, Loaded::Full(_)), "{stale:?}");
    assert_eq!(caller.at(cluster.raw(others[0])).value("s").await.as_deref(), Some(b"value".as_slice()));
}

/// Its connections stand and nothing comes: the others replace it once it counts no more, before their own timeouts are over.
#[tokio::test]
async fn a_leader_that_is_silent_is_replaced_though_nobody_s_election_timeout_ends() {
    for nodes in [3, 5] {
        let (cluster, leader, others) = cuttable(nodes).await;
        others.iter().for_each(|id| cluster.node(*id).expect("it runs").never_time_out());
        cluster.cut_off(leader).expect("it is cuttable");
        let replaced = |node: &quorate::client::NodeStatus| node.leader.is_some_and(|other| other.0 != leader);
        let elsewhere = |status: &quorate::client::ClusterStatus| {
            status.nodes.iter().filter(|node| node.id.0 != leader).all(|node| node.reachable && replaced(node))
        };
        cluster.wait_for("another leader", elsewhere).await.expect("a majority lost it");
        let at = cluster.config().member(others[0].into()).expect("a member").client.clone();
        let client = Client::builder().endpoints([at]).build().expect("a client");
        client.save("s", Content::Value("saved".into()), WriteOptions::default()).await.expect("a majority serves");
    }
}
