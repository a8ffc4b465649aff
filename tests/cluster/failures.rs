//! Nodes that end, gracefully and not.

use std::time::Instant;

use quorate::types::{Applied, Consistency, RefusalKind};
use quorate::wire::v1;

use super::rig::{Cluster, version};

#[tokio::test]
async fn a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3).await;
    let (leader, survivor) = cluster.leader_and_follower().await;
    let mut caller = cluster.caller(survivor).await;
    for n in 0..20 {
        let save = caller.save_of(&format!("s{n}"), format!("value {n}"));
        caller.attempt(&save).await.expect("a healthy cluster never refuses");
    }
    cluster.kill(leader).await;
    assert_eq!(version(&caller.saved("after", "the crash").await), 1);
    for n in 0..20 {
        assert_eq!(caller.value(&format!("s{n}")).await, Some(format!("value {n}").into()));
    }
    cluster.start_node(leader).await;
    let mut back = cluster.caller(leader).await;
    assert_eq!(back.value("after").await.as_deref(), Some(&b"the crash"[..]));
}

#[tokio::test]
async fn a_stopped_leader_hands_over_and_its_open_clients_go_on_elsewhere() {
    let mut cluster = Cluster::start(3).await;
    let (leader, survivor) = cluster.leader_and_follower().await;
    let mut caller = cluster.caller(leader).await;
    let save = caller.save_of("s", "before");
    caller.attempt(&save).await.expect("never refuses");
    let _held_open = caller.raw.submit(futures_util::stream::pending()).await.expect("a stream that never asks anything");
    cluster.stop(leader).await;
    let mut caller = caller.at(cluster.raw(survivor));
    assert_eq!(version(&caller.saved("s", "after").await), 2);
    assert_ne!(cluster.leader(survivor).await, leader);
}

#[tokio::test]
async fn a_cluster_that_was_killed_whole_has_everything_after_its_restart() {
    let mut cluster = Cluster::start(3).await;
    let mut caller = cluster.caller(2).await;
    let save = caller.save_of("s", "kept");
    let before = caller.attempt(&save).await.expect("never refuses");
    cluster.kill_each(1..=3).await;
    cluster.start_each(1..=3).await;
    assert_eq!(caller.value("s").await.as_deref(), Some(&b"kept"[..]));
    assert_eq!(caller.settle(&save).await, before, "the client table survived too");
}

#[tokio::test]
async fn without_a_quorum_every_call_ends_within_its_deadline_and_says_why() {
    let mut cluster = Cluster::start(3).await;
    let (_, follower) = cluster.leader_and_follower().await;
    let mut caller = cluster.caller(follower).await;
    let save = caller.save_of("s", "value");
    caller.attempt(&save).await.expect("never refuses");
    cluster.kill_each((1..=3).filter(|node| *node != follower)).await;
    let deadline = Instant::now() + super::rig::PATIENCE;
    let write = caller.save_of("s", "lost");
    // At first the follower may still be waiting for a leader it believes in; soon it knows of none.
    loop {
        let asked = Instant::now();
        let refusal = caller.attempt_within(&write, 5000).await.expect_err("nobody can commit");
        assert!(asked.elapsed() < super::rig::PATIENCE, "it took {:?}", asked.elapsed());
        if refusal.kind == RefusalKind::NoLeader {
            assert_eq!(refusal.applied, Applied::No);
            assert!(refusal.message.contains("no quorum"), "{}", refusal.message);
            break;
        }
        assert!(Instant::now() < deadline, "{refusal:?}");
    }
    let read = caller.load_within("s", Consistency::Linearizable, 30_000).await.expect_err("no read index without a quorum");
    assert_eq!((read.kind, read.applied), (RefusalKind::NoLeader, Applied::No));
    caller.load_within("s", Consistency::Stale, 30_000).await.expect("a stale read needs no quorum");
}

#[tokio::test]
async fn a_leader_that_lost_its_quorum_refuses_reads_and_leaves_writes_unknown_within_their_deadline() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader(1).await;
    let mut caller = cluster.caller(leader).await;
    let save = caller.save_of("s", "value");
    caller.attempt(&save).await.expect("never refuses");
    cluster.kill_each((1..=3).filter(|node| *node != leader)).await;
    let asked = Instant::now();
    let write = caller.save_of("s", "perhaps");
    let refusal = caller.attempt_within(&write, 1000).await.expect_err("nobody can commit");
    assert!(asked.elapsed() < super::rig::PATIENCE, "it took {:?}", asked.elapsed());
    let known = refusal.kind == RefusalKind::NoLeader && refusal.applied == Applied::No;
    assert!(known || refusal.applied == Applied::Unknown, "{refusal:?}");
    // However it ended, it is counted, among the slow ones too, and remembered.
    let metrics = cluster.get(leader, "/metrics").await;
    let slow: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("quorate_slow_operations_total{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert!(slow >= 1.0, "{metrics}");
    let events = super::quorum::events(&cluster, leader).await;
    assert!(events.iter().any(|event| event.kind == "refused"), "{events:?}");
    let read = caller.load_within("s", Consistency::Linearizable, 1000).await.expect_err("no read index without a quorum");
    assert_eq!(read.applied, Applied::No, "{read:?}");
    cluster.start_each((1..=3).filter(|node| *node != leader)).await;
    // Whatever became of the first attempts, one request is applied once.
    assert_eq!(version(&caller.settle(&write).await), 2);
}

#[tokio::test]
async fn status_without_a_quorum_lists_every_node() {
    let mut cluster = Cluster::start(3).await;
    cluster.caller(3).await;
    cluster.kill(1).await;
    cluster.kill(2).await;
    let asked = Instant::now();
    let status = cluster.raw(3).status(v1::StatusRequest::default()).await.expect("needs no quorum").into_inner();
    assert!(asked.elapsed() < super::rig::PATIENCE);
    let reachable: Vec<(u64, bool)> = status.nodes.iter().map(|node| (node.id, node.reachable)).collect();
    assert_eq!(reachable, [(1, false), (2, false), (3, true)]);
    for node in &status.nodes {
        assert!(!node.client_address.is_empty() && !node.peer_address.is_empty(), "{node:?}");
        assert_eq!(node.error.is_empty(), node.reachable, "{node:?}");
    }
}

#[tokio::test]
async fn digests_agree_at_the_same_index() {
    let cluster = Cluster::start(3).await;
    let mut caller = cluster.caller(1).await;
    for n in 0..10 {
        let save = caller.save_of(&format!("s{n}"), "value");
        caller.attempt(&save).await.expect("never refuses");
    }
    let local = v1::StatusRequest { local: true, ..Default::default() };
    let applied = cluster.raw(1).status(local).await.expect("alive").into_inner().nodes[0].applied.expect("something is applied");
    // Digests are kept after every 1024th index and at the last applied one; all stand still at it once they have it.
    let request = v1::StatusRequest { digest_at: applied, timeout_ms: 5000, local: false };
    let nodes = cluster.raw(2).status(request).await.expect("alive").into_inner().nodes;
    let digests: Vec<_> = nodes.iter().map(|node| (node.digest_index, node.digest)).collect();
    assert!(digests.iter().all(|digest| digest.0 == Some(applied) && *digest == digests[0]), "{digests:?}");
}

#[tokio::test]
async fn a_cluster_is_not_formed_while_a_member_is_missing() {
    let mut cluster = Cluster::prepare(3);
    cluster.start_node(1).await;
    cluster.start_node(2).await;
    let status = cluster.raw(1).status(v1::StatusRequest::default()).await.expect("answers").into_inner();
    assert_eq!(status.nodes.iter().map(|node| node.id).collect::<Vec<_>>(), [1, 2, 3], "the configured ones");
    let ready = cluster.get(1, "/readyz").await;
    assert!(ready.contains("503") && ready.contains("[-] leader"), "{ready}");
    cluster.start_node(3).await;
    cluster.caller(1).await;
}

#[tokio::test]
async fn a_port_in_use_is_one_line_that_names_the_address_and_how_to_fix_it() {
    let mut cluster = Cluster::start(1).await;
    cluster.stop(1).await;
    let address = cluster.config().members[0].client.clone();
    let _occupied = std::net::TcpListener::bind(&address).expect("it was released just now");
    let error = cluster.try_start_node(1).await.expect_err("the port is in use").to_string();
    assert!(error.contains(&address) && error.contains("`client`") && !error.contains('\n'), "{error}");
}

/// Nobody else takes the address of a node that is off, also no call that goes out: else a test fails that starts it again.
#[tokio::test]
async fn the_address_of_a_node_that_is_off_stays_its_own() {
    let mut cluster = Cluster::start(1).await;
    cluster.stop(1).await;
    let address: std::net::SocketAddr = cluster.config().members[0].admin.parse().expect("an address");
    let caller = tokio::net::TcpSocket::new_v4().expect("a socket");
    let taken = caller.bind(address).expect_err("it is held");
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    let refused = tokio::net::TcpStream::connect(address).await.expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_cluster_on_real_directories_comes_back_after_a_kill_and_cannot_lose_power() {
    let dir = tempfile::tempdir().expect("a directory");
    let builder = quorate::testing::Cluster::builder().nodes(1).data_dir(dir.path()).segment_bytes(1 << 20);
    let mut cluster = builder.start().await.expect("it starts");
    let client = cluster.client();
    let content = || quorate::client::Content::Value("kept".into());
    client.save("s", content(), Default::default()).await.expect("one of one");
    cluster.power_loss(1, quorate::testing::disk::Crash::Lost, 0).await.expect_err("what a real disk has synced is not known");
    cluster.restart(1).await.expect_err("it runs still");
    cluster.kill(1).await.expect("it runs");
    cluster.kill(1).await.expect_err("it is dead already");
    cluster.restart(1).await.expect("the lock and the ports are free");
    assert_eq!(client.load("s").await.expect("it leads again").expect("it was saved").content, content());
    cluster.stop(1).await.expect("in order");
    assert!(dir.path().join("1/log").is_dir() && cluster.disk(1).is_none(), "it is on the real disk");
}
