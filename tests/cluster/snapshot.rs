//! Followers that were away for so long that the log they need is gone.

use std::path::PathBuf;

use quorate::env::Disk as _;
use quorate::testing;
use quorate::types::Expected;

use super::rig::{Caller, Cluster, version};

/// Large enough that few of them fill a segment.
const VALUE_BYTES: usize = 8 * 1024;
/// More than the log keeps, by far.
const SAVES: usize = 30;

/// A cluster that keeps next to nothing of its log.
async fn forgetful() -> Cluster {
    Cluster::of(testing::Cluster::builder().segment_bytes(64 * 1024).log_bytes_kept(32 * 1024)).await
}

async fn save_many(caller: &mut Caller, round: usize) {
    for n in 0..SAVES {
        let save = caller.save_of(&format!("s{n}"), vec![round as u8; VALUE_BYTES]);
        assert_eq!(version(&caller.settle(&save).await), round as u64);
    }
}

/// Kills a node and writes until the others have purged more than its whole log. Gives the last entry of that log.
async fn leave_behind(cluster: &mut Cluster, caller: &mut Caller, node: u64, round: usize) -> u64 {
    let last_log = cluster.status_of(node).await.expect("it runs").last_log.expect("it has entries");
    cluster.kill(node).await;
    save_many(caller, round).await;
    let purged = |status: &quorate::client::ClusterStatus| {
        let mut others = status.nodes.iter().filter(|other| other.id.0 != node);
        others.all(|other| other.purged.is_some_and(|purged| purged > last_log))
    };
    cluster.wait_for("the log to be purged beyond the follower's last entry", purged).await.expect("little is kept");
    last_log
}

async fn check_caught_up(cluster: &Cluster, node: u64, last_log: u64, round: usize) {
    cluster.converged().await.expect("all replicas are in the same state");
    let status = cluster.status_of(node).await.expect("it runs");
    // Its own log could have been purged so far only by an install: all it had ended at `last_log`.
    assert!(status.purged.is_some_and(|purged| purged > last_log), "no snapshot was installed: {status:?}");
    let mut reader = cluster.caller(node).await;
    let expected = vec![round as u8; VALUE_BYTES];
    assert_eq!(reader.value(&format!("s{}", SAVES - 1)).await.as_deref(), Some(&expected[..]));
}

#[tokio::test]
async fn follower_that_was_away_while_the_log_was_purged_catches_up_by_snapshot() {
    let mut cluster = forgetful().await;
    let leader = cluster.leader(1).await;
    let follower = (1..=3).find(|node| *node != leader).expect("three nodes");
    let mut caller = cluster.caller(leader).await;
    save_many(&mut caller, 1).await;
    let mut other = cluster.caller(leader).await;
    let held = other.save_of("held", "once");
    let outcome = other.settle(&held).await;
    let last_log = leave_behind(&mut cluster, &mut caller, follower, 2).await;
    cluster.start_node(follower).await;
    check_caught_up(&cluster, follower, last_log, 2).await;
    // What arrived by snapshot holds the client table too. Every replica applies the repeated request: one that did not know it would
    // save again, and its digest would show it.
    assert_eq!(other.settle(&held).await, outcome);
    cluster.converged().await.expect("all replicas are in the same state");
    // A version is checked against it as before.
    let mut caller = caller.at(cluster.raw(follower));
    let save = caller.cas_of("s0", Expected::Absent, "not this one");
    let refused = caller.settle(&save).await;
    assert!(matches!(refused.verdict, quorate::types::Verdict::Conflict { .. }), "{refused:?}");
}

/// While a follower installs, for as long as that takes, the others write and purge on: it must not chase one snapshot after the other
/// with a log that is gone each time (openraft #1706).
#[tokio::test]
async fn follower_that_installs_a_snapshot_is_not_outrun_by_purging() {
    let mut cluster = forgetful().await;
    let leader = cluster.leader(1).await;
    let follower = (1..=3).find(|node| *node != leader).expect("three nodes");
    let mut caller = cluster.caller(leader).await;
    save_many(&mut caller, 1).await;
    let last_log = leave_behind(&mut cluster, &mut caller, follower, 2).await;
    let disk = cluster.sim_disk(follower);
    let state = PathBuf::from(format!("/{follower}/state"));
    let files = || disk.list(&state).expect("it is there");
    let before = files();
    cluster.start_node(follower).await;
    disk.hold_syncs();
    let has_begun = |_: &_| files().iter().any(|name| !before.contains(name));
    cluster.wait_for("the snapshot to arrive", has_begun).await.expect("nothing else helps the follower");
    for round in 3..6 {
        save_many(&mut caller, round).await;
    }
    disk.release_syncs();
    // And while it catches up, too.
    save_many(&mut caller, 6).await;
    check_caught_up(&cluster, follower, last_log, 6).await;
}

/// The follower dies after so many more operations of its disk than it had done when the new state file appeared: while rows come in,
/// while the file is synced, while `CURRENT` is moved, or while the old file is removed.
#[tokio::test]
async fn follower_killed_at_any_point_of_an_install_catches_up_after_its_restart() {
    let mut cluster = forgetful().await;
    let leader = cluster.leader(1).await;
    let follower = (1..=3).find(|node| *node != leader).expect("three nodes");
    let mut caller = cluster.caller(leader).await;
    save_many(&mut caller, 1).await;
    for (round, operations) in (2..).zip([0, 2, 5, 9, 14, 20]) {
        let last_log = leave_behind(&mut cluster, &mut caller, follower, round).await;
        let disk = cluster.sim_disk(follower);
        let state = PathBuf::from(format!("/{follower}/state"));
        let files = || disk.list(&state).expect("it is there");
        let before = files();
        // No install ends while no sync does.
        cluster.start_node(follower).await;
        disk.hold_syncs();
        let has_begun = |_: &_| files().iter().any(|name| !before.contains(name));
        cluster.wait_for("the snapshot to arrive", has_begun).await.expect("nothing else helps the follower");
        disk.halt_after(disk.operations() + operations);
        disk.release_syncs();
        if operations > 0 {
            cluster.wait_for("the disk to end", |_| disk.is_halted()).await.expect("an install takes more operations");
        }
        cluster.kill(follower).await;
        cluster.start_node(follower).await;
        check_caught_up(&cluster, follower, last_log, round).await;
    }
}
