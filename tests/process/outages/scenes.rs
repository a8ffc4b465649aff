//! The outages: each done to a cluster of its own.

use quorate::client::WriteOptions;
use quorate::testing::processes::{Proxies, Rule, Signal};

use super::{Truth, compare};
use crate::process::backup::succeeded;
use crate::process::disk::{Ballast, DISK_BYTES};
use crate::process::harness::{Cluster, faketime};
use crate::process::value;
use crate::security::pki::{Ca, Good, HOST, Pair};

/// Three nodes that hold a session; the leader and the others.
async fn three() -> (Cluster, usize, [usize; 2]) {
    let cluster = Cluster::start(3).await;
    let (leader, others) = roles(&cluster).await;
    (cluster, leader, others)
}

async fn roles(cluster: &Cluster) -> (usize, [usize; 2]) {
    cluster.client().save("kept", value("before"), WriteOptions::default()).await.expect("a save");
    cluster.assert_equal_digests().await;
    let leader = cluster.leader().await;
    let others: Vec<usize> = (1..=3).filter(|node| *node != leader).collect();
    (leader, [others[0], others[1]])
}

fn all(special: usize, name: &str, count: usize) -> Vec<(usize, &str)> {
    (1..=count).map(|node| (node, if node == special { name } else { "the others" })).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_that_was_killed() {
    let (mut cluster, leader, others) = three().await;
    others.into_iter().for_each(|node| cluster.kill(node));
    let looked = vec![(leader, "the old leader")];
    let truth = Truth::of("majority killed", looked);
    compare(&cluster, 3, &Truth { without_leader: vec![leader], saves: false, says: &["a majority is missing"], ..truth }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_that_stands_still() {
    let (cluster, leader, others) = three().await;
    others.into_iter().for_each(|node| cluster.signal(node, Signal::STOP));
    let looked = vec![(leader, "the old leader")];
    let truth = Truth::of("majority stands still (SIGSTOP)", looked);
    compare(&cluster, 3, &Truth { without_leader: vec![leader], saves: false, says: &["a majority is missing"], ..truth }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_from_its_peers() {
    let mut cluster = Cluster::prepare(3);
    let targets = (1..=3).map(|node| (node, cluster.peer(node))).collect();
    let mut proxies = Proxies::new(targets, || Ok(cluster.spare_port()), 1).expect("ports");
    for node in 1..=3 {
        proxies.open(node).await.expect("a free port");
        let ways = proxies.ways(node).into_iter().map(|(other, address)| format!("--peer-via={other}={address}"));
        let ways: Vec<String> = ways.collect();
        cluster.restart_with(node, &ways.iter().map(String::as_str).collect::<Vec<_>>());
    }
    cluster.leader().await;
    let (leader, _) = roles(&cluster).await;
    let cut: Vec<_> = proxies.pairs().into_iter().filter(|(from, to)| *from == leader || *to == leader).collect();
    proxies.set(&cut, Rule { stalled: true, ..Rule::default() });
    let looked = all(leader, "the cut-off leader", 3);
    compare(&cluster, 3, &Truth { without_leader: vec![leader], ..Truth::of("leader cut off from its peers", looked) }).await;
}

/// Some nodes with small disks; `None`: this system gives a test none, which is said.
async fn with_small_disks(nodes: &[usize]) -> Option<Cluster> {
    let mut cluster = Cluster::prepare(3);
    for node in nodes {
        if let Err(why) = cluster.limit_disk(*node, DISK_BYTES) {
            println!("skipped: this system gives a test no file system of its own: {why}");
            return None;
        }
    }
    (1..=3).for_each(|node| cluster.restart(node));
    cluster.leader().await;
    Some(cluster)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_is_full() {
    let Some(cluster) = with_small_disks(&[1]).await else { return };
    succeeded(&cluster.run(&["leader", "transfer", "2", "--timeout", "30s"]));
    roles(&cluster).await;
    let _ballast = Ballast::load(&cluster.small_disk(1).expect("it has a small disk"));
    let looked = all(1, "the full node", 3);
    let says = &["the full node: ready, warns (disk)", "check disk fails"];
    compare(&cluster, 3, &Truth { says, ..Truth::of("disk full on one voter", looked) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_whose_disk_is_full() {
    let (mut cluster, ..) = three().await;
    if let Err(why) = cluster.limit_disk(4, DISK_BYTES) {
        return println!("skipped: this system gives a test no file system of its own: {why}");
    }
    let learner = cluster.start_further();
    let addresses = cluster.addresses(learner);
    let mut add = vec!["member", "add", "4"];
    add.extend(addresses.iter().map(String::as_str));
    succeeded(&cluster.run(&add));
    let _ballast = Ballast::load(&cluster.small_disk(learner).expect("it has a small disk"));
    let looked = all(learner, "the full node", 4);
    let says = &["the full node: ready, warns (disk)", "check disk fails"];
    compare(&cluster, 4, &Truth { says, ..Truth::of("disk full on a learner", looked) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_voters_whose_disks_are_full() {
    let Some(cluster) = with_small_disks(&[1, 2]).await else { return };
    roles(&cluster).await;
    let _ballast = [1, 2].map(|node| Ballast::load(&cluster.small_disk(node).expect("it has a small disk")));
    let looked = vec![(1, "the full nodes"), (2, "the full nodes"), (3, "the other")];
    let says = &["the full nodes: ready, warns (disk)", "check disk fails"];
    compare(&cluster, 3, &Truth { saves: false, says, ..Truth::of("disks full on two voters of three", looked) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_with_an_empty_disk() {
    let (mut cluster, _, [empty, _]) = three().await;
    cluster.kill(empty);
    cluster.wipe(empty);
    cluster.restart(empty);
    let looked = all(empty, "the empty node", 3);
    let truth = Truth::of("a node comes back with an empty disk", looked);
    compare(&cluster, 3, &Truth { without_leader: vec![empty], says: &["bootstrapped"], ..truth }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_started_on_a_wrong_directory() {
    let (mut cluster, _, [wrong, _]) = three().await;
    cluster.kill(wrong);
    cluster.without_bootstrap();
    cluster.use_data("elsewhere");
    std::fs::create_dir_all(cluster.data_dir(wrong)).expect("a writable directory");
    cluster.restart(wrong);
    assert_eq!(cluster.exit_code(wrong).await, Some(2), "{}", cluster.log(wrong));
    let left = std::fs::read_dir(cluster.data_dir(wrong)).expect("it is there").count();
    assert_eq!(left, 0, "nothing was made in a directory that is not the node's");
    let looked = (1..=3).filter(|node| *node != wrong).map(|node| (node, "the others")).collect();
    compare(&cluster, 3, &Truth { says: &["does not answer"], ..Truth::of("a node is started on an empty directory", looked) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_were_a_year_ahead_and_are_right_again() {
    let Some(library) = faketime() else { return println!("SKIPPED: libfaketime is not installed") };
    let mut cluster = Cluster::prepare(3);
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME", "+365d"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ];
    cluster.environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    cluster.restart_all();
    cluster.environment.clear();
    cluster.leader().await;
    roles(&cluster).await;
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    cluster.restart_all();
    cluster.leader().await;
    let looked = (1..=3).map(|node| (node, "all")).collect();
    compare(&cluster, 3, &Truth { says: &["time"], ..Truth::of("all clocks were a year ahead", looked) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_all_come_back_at_other_addresses() {
    let (mut cluster, ..) = three().await;
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    cluster.move_ports();
    cluster.without_bootstrap();
    cluster.restart_all();
    cluster.leader().await;
    let looked = (1..=3).map(|node| (node, "all")).collect();
    compare(&cluster, 3, &Truth::of("all nodes come back at other addresses", looked)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_has_expired() {
    let mut cluster = Cluster::prepare(3);
    let ca = Ca::new();
    let dir = cluster.dir().to_owned();
    let write = |node: usize, pair: &Pair| {
        std::fs::write(dir.join(format!("node-{node}.pem")), &pair.certificate).expect("a writable directory");
        std::fs::write(dir.join(format!("node-{node}-key.pem")), &pair.key).expect("a writable directory");
    };
    std::fs::write(dir.join("ca.pem"), ca.pem()).expect("a writable directory");
    (1..=3).for_each(|node| write(node, &ca.named(node as u64, HOST)));
    let dir = dir.display();
    let tls = format!("cert = \"{dir}/node-{{node}}.pem\"\nkey = \"{dir}/node-{{node}}-key.pem\"\nca = \"{dir}/ca.pem\"\n");
    cluster.more_configuration = format!("\n[tls]\n{tls}");
    cluster.write_configuration();
    cluster.trust(ca.pem());
    cluster.restart_all();
    cluster.leader().await;
    let (_, [expired, _]) = roles(&cluster).await;
    cluster.stop(expired).await;
    write(expired, &ca.node(HOST, Good::Expired));
    cluster.restart(expired);
    assert_eq!(cluster.exit_code(expired).await, Some(2), "{}", cluster.log(expired));
    assert!(cluster.log(expired).contains("2021-01-01"), "the date is said: {}", cluster.log(expired));
    let looked = (1..=3).filter(|node| *node != expired).map(|node| (node, "the others")).collect();
    compare(&cluster, 3, &Truth { says: &["does not answer"], ..Truth::of("a node's certificate has expired", looked) }).await;
}
