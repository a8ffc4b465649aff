//! Nodes whose disks fill up, each with a file system of its own: one stops no save; two of three have saves refused, all else goes on, and
//! it heals by itself.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use quorate::client::{Client, ErrorKind, WriteOptions};
use serde_json::Value;

use crate::process::backup::json;
use crate::process::harness::{Cluster, PATIENCE, SmallDisk};
use crate::process::value;

/// What a small disk holds: log segments, what is set aside for later, and some room.
pub const DISK_BYTES: u64 = 512 << 20;

/// Saves are taken again within this once there is room: what is promised, on any machine.
const HEALS_WITHIN: Duration = Duration::from_secs(30);

/// What a node says of its disk.
const LOW: &str = "disk low: no content is taken while others have room";
const HEALED: &str = "disk healed: content is taken again";

/// Takes room away until so little is left that saves must be refused. Dropped, it gives the room back.
pub struct Ballast(std::path::PathBuf);

impl Ballast {
    /// The node allocates and frees meanwhile: what was free may be taken, so it goes on until the file system itself says that it is full.
    pub fn load(disk: &SmallDisk) -> Self {
        let ballast = Self(disk.root.join("ballast"));
        let file = File::create(&ballast.0).expect("a writable disk");
        let (began, mut taken) = (Instant::now(), 0);
        loop {
            let stat = rustix::fs::statvfs(&disk.root).expect("the node's disk");
            let (left, room) = (stat.f_blocks * stat.f_frsize / 100, stat.f_bavail * stat.f_frsize);
            if room <= left {
                return ballast;
            }
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), taken, room - left) {
                Ok(()) => taken += room - left,
                Err(error) => assert!(error == rustix::io::Errno::NOSPC && began.elapsed() < PATIENCE, "{error} at {taken} bytes"),
            }
        }
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A client that says after some seconds what it is answered; until then it tries again.
fn impatient(cluster: &Cluster) -> Client {
    let deadline = Duration::from_secs(3);
    Client::builder().endpoints(cluster.endpoints()).write_deadline(deadline).build().expect("valid endpoints")
}

/// Saves until one is refused for want of room, or until one is taken, which is a matter of a second or two.
async fn save_until(client: &Client, cluster: &Cluster, refused: bool) {
    let started = Instant::now();
    loop {
        let said = match client.save("kept", value("again"), WriteOptions::default()).await {
            Ok(_) if !refused => return,
            // It must name what is short.
            Err(error) if refused && matches!(error.kind(), ErrorKind::Refused { .. }) && error.to_string().contains("disk") => {
                return;
            }
            other => format!("{other:?}"),
        };
        assert!(started.elapsed() < PATIENCE, "refused={refused} is not so within {PATIENCE:?}: {said}\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A cluster whose first node has a small disk. `None`: this system gives a test none, which is said.
async fn with_a_small_disk() -> Option<Cluster> {
    let mut cluster = Cluster::prepare(3);
    if let Err(why) = cluster.limit_disk(1, DISK_BYTES) {
        println!("skipped: this system gives a test no file system of its own: {why}");
        return None;
    }
    cluster.restart_all();
    cluster.leader().await;
    Some(cluster)
}

/// Asks one node for its events; gives them as `kind detail`, oldest first.
fn events(cluster: &Cluster, node: usize) -> Vec<String> {
    let found = json(&cluster.run(&["events", "--endpoints", &cluster.endpoints()[node - 1], "-o", "json"]));
    let line = |event: &Value| format!("{} {}", event["kind"].as_str().unwrap_or(""), event["detail"].as_str().unwrap_or(""));
    found["events"].as_array().map(|events| events.iter().map(line).collect()).unwrap_or_default()
}

/// The same from the file in a node's directory.
fn in_file(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("events")).unwrap_or_default();
    text.lines().filter_map(|line| Some(line.split_once('\t')?.1.replacen('\t', " ", 1))).collect()
}

/// Makes a node lead. The leader may not have heard yet that the node has room again.
fn lead(cluster: &Cluster, node: usize) {
    let started = Instant::now();
    loop {
        let asked = cluster.run(&["leader", "transfer", &node.to_string(), "--timeout", "30s"]);
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        if asked.status.success() {
            return;
        }
        assert!(said.contains("is full") && started.elapsed() < PATIENCE, "{said}\n{}", cluster.logs());
    }
}

/// Waits until the last thing a node says of its disk is this.
async fn wait_disk(cluster: &Cluster, node: usize, what: &str) {
    let began = Instant::now();
    loop {
        let last = events(cluster, node).into_iter().rfind(|event| event.starts_with(LOW) || event.starts_with(HEALED));
        if last.as_deref() == Some(what) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{what:?} is not so: {last:?}\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A follower, then the leader: its full disk is its own matter. No save is refused by anybody, nobody else is blamed, and it catches up
/// once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_full_disk_of_three_refuses_no_save_and_its_node_catches_up() {
    let Some(cluster) = with_a_small_disk().await else { return };
    let client = cluster.client();
    for leader in [2, 1] {
        lead(&cluster, leader);
        let ballast = Ballast::load(&cluster.small_disk(1).expect("the node runs on a disk of its own"));
        for n in 0..20 {
            client.save(&format!("early {n}"), value("before"), WriteOptions::default()).await.expect("a save");
        }
        wait_disk(&cluster, 1, LOW).await;
        for n in 0..20 {
            client.save(&format!("late {n}"), value("beside"), WriteOptions::default()).await.expect("a save");
        }
        let doctor = cluster.run(&["doctor"]);
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert_eq!(said.matches("check disk fails").count(), 1, "only the full one is blamed: {said}");
        drop(ballast);
        wait_disk(&cluster, 1, HEALED).await;
        cluster.assert_equal_digests().await;
    }
    for node in 1..=3 {
        let refused: Vec<String> = events(&cluster, node).into_iter().filter(|event| event.contains("kind=disk_low")).collect();
        assert!(refused.is_empty(), "node {node}: {refused:?}");
    }
}

/// One is dead and one is full: the full one is needed, and must not be filled up. As leader, then as follower, it stops saves before it
/// must, and lets them go on by itself soon after there is room again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_beside_a_dead_node_refuses_saves_keeps_loads_and_deletes_and_heals_by_itself() {
    let Some(mut cluster) = with_a_small_disk().await else { return };
    cluster.kill(3);
    let (client, patient) = (impatient(&cluster), cluster.client());
    for n in 0..20 {
        patient.save(&format!("session {n}"), value("before"), WriteOptions::default()).await.expect("a save");
    }
    patient.save("kept", value("before"), WriteOptions::default()).await.expect("a save");
    for round in 0..2 {
        lead(&cluster, 1 + round);
        let disk = cluster.small_disk(1).expect("the node runs on a disk of its own");
        let ballast = Ballast::load(&disk);
        save_until(&client, &cluster, true).await;
        let loaded = patient.load("session 1").await.expect("loads go on").expect("it is there");
        assert_eq!(loaded.content, value("before"));
        patient.delete(&format!("session {}", 10 + round), None).await.expect("deletes make room");
        assert_eq!(patient.load(&format!("session {}", 10 + round)).await.expect("a load").map(|found| found.content), None);
        let low = events(&cluster, 1);
        let times = low.iter().filter(|event| *event == LOW).count();
        assert_eq!(times, 1 + round, "{low:?}");
        let room = Instant::now();
        drop(ballast);
        save_until(&client, &cluster, false).await;
        let healed = room.elapsed();
        println!("round {round}: saves are taken {healed:?} after there is room");
        assert!(healed < HEALS_WITHIN, "{healed:?}");
        wait_disk(&cluster, 1, HEALED).await;
    }
    cluster.restart(3);
    cluster.assert_equal_digests().await;
}

/// A node's file of events, and with it what the node had to remember: who led, who belonged to the cluster, that its disk was low,
/// what it refused and why. It is killed, its disk is copied to another one, and it starts from that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_went_through_is_remembered_across_a_crash() {
    let Some(mut cluster) = with_a_small_disk().await else { return };
    lead(&cluster, 1);
    cluster.kill(3);
    let disk = cluster.small_disk(1).expect("the node runs on a disk of its own");
    let ballast = Ballast::load(&disk);
    save_until(&impatient(&cluster), &cluster, true).await;
    drop(ballast);
    save_until(&cluster.client(), &cluster, false).await;
    let expected =
        ["started release=", "membership voters=1,2,3", "leader term=", "disk low: ", "disk healed: ", "refused kind=disk_low"];
    let missing = |found: &[String]| expected.iter().find(|kind| !found.iter().any(|event| event.starts_with(*kind))).copied();
    // The file is written once a second.
    let began = Instant::now();
    while let Some(missing) = missing(&in_file(&disk.root)) {
        assert!(began.elapsed() < PATIENCE, "{missing:?} is not in the file: {:?}", in_file(&disk.root));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.move_disk(1);
    let before = in_file(&cluster.data_dir(1));
    cluster.restart(1);
    cluster.leader().await;
    let after = events(&cluster, 1);
    assert_eq!(missing(&after), None, "{after:?}");
    assert_eq!(after[..before.len()], before, "what was in the file comes first");
    assert_eq!(after.iter().filter(|event| event.starts_with("started ")).count(), 2, "{after:?}");
}

/// The node is stopped while its disk is full, perhaps to get another one: the others are enough, and go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_ends_with_a_full_disk_does_not_stop_the_others() {
    let Some(mut cluster) = with_a_small_disk().await else { return };
    let ballast = Ballast::load(&cluster.small_disk(1).expect("the node runs on a disk of its own"));
    wait_disk(&cluster, 1, LOW).await;
    cluster.kill(1);
    save_until(&cluster.client(), &cluster, false).await;
    drop(ballast);
}
