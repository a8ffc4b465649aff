//! Disks that fill up, one, the leader's, a learner's, two: a minority's is the minority's own (decision 0054).

use std::time::Instant;

use quorate::client::{ClusterStatus, NodeStatus};
use quorate::testing;
use quorate::testing::disk::SimDisk;
use quorate::types::{RefusalKind, Verdict, Write};

use super::rig::{Caller, Cluster, PATIENCE, session, version};

const VALUE_BYTES: usize = 8 * 1024;
const SAVES: usize = 20;

/// Takes room away until a fiftieth of it is left, which nobody but the node itself counts as its own.
fn fill(disk: &SimDisk) {
    disk.set_capacity(Some(disk.used() + disk.used() / 50));
}

fn complains(node: &NodeStatus) -> bool {
    node.checks.iter().any(|check| check.name == "disk" && !check.ok)
}

fn of(status: &ClusterStatus, id: u64) -> &NodeStatus {
    status.nodes.iter().find(|node| node.id.0 == id).expect("a member")
}

/// Waits until these and no other nodes say that their disks are full.
async fn wait_complaints(cluster: &Cluster, full: &[u64]) {
    let wanted = |status: &ClusterStatus| status.nodes.iter().all(|node| complains(node) == full.contains(&node.id.0));
    cluster.wait_for(&format!("the disks of {full:?} and no others to be full"), wanted).await.expect("each looks at its own");
}

/// None of them is refused for want of room; a machine under load may lose its leader, which is another matter.
async fn save_all(caller: &mut Caller, round: u8) {
    let deadline = Instant::now() + PATIENCE;
    for n in 0..SAVES {
        let save = caller.save_of(&format!("s{n}"), vec![round; VALUE_BYTES]);
        let outcome = loop {
            match caller.attempt(&save).await {
                Ok(outcome) => break outcome,
                Err(refusal) => {
                    let is_other = !matches!(refusal.kind, RefusalKind::DiskLow { .. });
                    assert!(is_other && Instant::now() < deadline, "round {round}, save {n}: {refusal}");
                }
            }
        };
        assert_eq!(version(&outcome), u64::from(round));
    }
}

async fn stays_behind_and_catches_up(cluster: &Cluster, by_snapshot: bool) {
    let (leader, follower) = cluster.leader_and_follower().await;
    let mut caller = cluster.caller(leader).await;
    save_all(&mut caller, 1).await;
    cluster.converged().await.expect("all have the same");
    let disk = cluster.sim_disk(follower);
    fill(&disk);
    save_all(&mut caller, 2).await;
    wait_complaints(cluster, &[follower]).await;
    // It takes what comes before the leader has heard of it, and then nothing any more.
    let deadline = Instant::now() + PATIENCE;
    let mut round = 2;
    let lagging = loop {
        round += 1;
        save_all(&mut caller, round).await;
        let all = cluster.status().await.expect("they answer");
        let last_log = |id| of(&all, id).last_log.expect("it has entries");
        if last_log(follower) + SAVES as u64 <= last_log(leader) {
            break of(&all, follower).clone();
        }
        assert!(Instant::now() < deadline, "it takes content: {all:?}");
    };
    assert!(lagging.leader.is_some(), "it hears the leader as ever: {lagging:?}");
    if by_snapshot {
        let is_gone = |status: &ClusterStatus| of(status, leader).purged > lagging.last_log;
        cluster.wait_for("the log it needs to be purged", is_gone).await.expect("little is kept");
    }
    disk.set_capacity(None);
    wait_complaints(cluster, &[]).await;
    cluster.converged().await.expect("it catches up");
}

#[tokio::test]
async fn a_full_follower_refuses_no_save_takes_no_content_and_catches_up_by_log() {
    stays_behind_and_catches_up(&Cluster::start(3).await, false).await;
}

#[tokio::test]
async fn a_full_follower_whose_log_is_gone_catches_up_by_snapshot_once_it_has_room() {
    let forgetful = testing::Cluster::builder().segment_bytes(64 * 1024).log_bytes_kept(32 * 1024);
    stays_behind_and_catches_up(&Cluster::of(forgetful).await, true).await;
}

#[tokio::test]
async fn a_leader_whose_disk_is_full_lets_one_with_room_lead() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(1).await;
    let other = (1..=3).find(|node| *node != leader).expect("three nodes");
    let mut caller = cluster.caller(other).await;
    caller.saved("s", vec![1; VALUE_BYTES]).await;
    let disk = cluster.sim_disk(leader);
    fill(&disk);
    let another_leads = |status: &ClusterStatus| {
        let leads = |node: &NodeStatus| node.leader.is_some_and(|id| id.0 != leader);
        status.nodes.iter().all(leads) && complains(of(status, leader))
    };
    cluster.wait_for("one with room to lead", another_leads).await.expect("it hands over");
    assert_eq!(version(&caller.saved("s", vec![2; VALUE_BYTES]).await), 2);
    disk.set_capacity(None);
    cluster.converged().await.expect("it catches up");
}

#[tokio::test]
async fn two_full_of_three_refuse_saves_by_name_and_take_deletes_until_there_is_room() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(1).await;
    let full: Vec<u64> = (1..=3).filter(|node| *node != leader).collect();
    let mut caller = cluster.caller(leader).await;
    save_all(&mut caller, 1).await;
    let disks: Vec<SimDisk> = full.iter().map(|id| cluster.sim_disk(*id)).collect();
    disks.iter().for_each(fill);
    wait_complaints(&cluster, &full).await;
    let deadline = Instant::now() + PATIENCE;
    let refused = loop {
        let save = caller.save_of("s0", vec![2; VALUE_BYTES]);
        match caller.attempt(&save).await {
            Err(refusal) if matches!(refusal.kind, RefusalKind::DiskLow { .. }) => break refusal,
            answer => assert!(Instant::now() < deadline, "saves are taken: {answer:?}"),
        }
    };
    let named = format!("full={},{}", full[0], full[1]);
    assert!(refused.message.contains(&named), "{refused}");
    let delete = Write::Delete { request: caller.request(), id: session("s1"), expected: None, fence: None };
    let deleted = caller.settle(&delete).await;
    assert!(matches!(deleted.verdict, Verdict::Deleted { .. }), "{deleted:?}");
    assert_eq!(caller.value("s1").await, None);
    disks[0].set_capacity(None);
    assert_eq!(version(&caller.saved("s2", vec![2; VALUE_BYTES]).await), 2, "one with room makes a majority");
    disks[1].set_capacity(None);
    cluster.converged().await.expect("all catch up");
}
