//! Damage and divergence: found, named, served by no node, and repaired from the leader's state with log and vote kept.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate::env::{Disk as _, Env};
use quorate::storage::state::{Cover, Error, Options, State};
use quorate::testing;
use quorate::testing::disk::SimDisk;
use quorate::types::{Consistency, Loaded, RefusalKind};

use super::rig::{Caller, Cluster, version};
use crate::support::bytes::places;

const SESSIONS_TABLE: u8 = 1;
/// Long enough to be found in a file, and nowhere by chance.
const NEEDLE: &str = "a needle that lies in one row of one table and nowhere else";
const LOST: &str = "session-007";
const MARK: &str = "REBUILD";

/// Saves enough for several kept digests, one of it the needle.
async fn fill(caller: &mut Caller) {
    for n in 0..150 {
        version(&caller.saved(&format!("session-{n:03}"), format!("value {n}")).await);
    }
    version(&caller.saved("session-with-a-needle", NEEDLE).await);
}

/// Fills three nodes until all hold the same; gives one that follows.
async fn filled(cluster: &Cluster) -> u64 {
    let leader = cluster.leader(1).await;
    fill(&mut cluster.caller(leader).await).await;
    cluster.converged().await.expect("equal digests");
    (1..=3).find(|node| *node != leader).expect("three nodes")
}

/// Three nodes that are filled, and which of them was stopped.
async fn stopped_follower() -> (Cluster, u64) {
    let mut cluster = Cluster::start(3).await;
    let follower = filled(&cluster).await;
    cluster.stop(follower).await;
    (cluster, follower)
}

/// The same, where that node then lost a session, was started, and stopped because the others are in another state.
async fn stopped_for_a_lost_session() -> (Cluster, u64) {
    let (mut cluster, follower) = stopped_follower().await;
    lose_a_session(&cluster, follower);
    cluster.start_node(follower).await;
    let reason = cluster.ended(follower).await;
    assert!(reason.contains("a majority of the voters is in another state"), "{reason}");
    (cluster, follower)
}

fn dir(cluster: &Cluster, node: u64) -> PathBuf {
    cluster.config().node_dir(node.into())
}

fn has_mark(cluster: &Cluster, node: u64) -> bool {
    cluster.sim_disk(node).exists(&dir(cluster, node).join(MARK)).expect("it can be looked at")
}

/// The state file of a node, as its pointer says.
fn state_file(disk: &SimDisk, dir: &Path) -> PathBuf {
    let names = disk.list(&dir.join("state")).expect("it is there");
    dir.join("state").join(names.iter().find(|name| name.ends_with(".redb")).expect("a state file"))
}

/// Flips a bit in every place where the state file holds `text`: old pages may hold it as well as the one that counts.
fn flip(cluster: &Cluster, node: u64, text: &str) {
    let disk = cluster.sim_disk(node);
    let file = state_file(&disk, &dir(cluster, node));
    let bytes = disk.contents(&file).expect("it is there");
    let places = places(&bytes, text.as_bytes());
    assert!(!places.is_empty(), "the text is not in the state file");
    places.iter().for_each(|at| disk.damage(&file, (*at + text.len() / 2) as u64, 1));
}

/// A log that always covers: the node does not run.
struct Covered;

impl Cover for Covered {
    fn when_covered(&self, _: u64, done: Box<dyn FnOnce(Result<(), io::Error>) + Send>) {
        done(Ok(()));
    }

    fn sync(&self, done: Box<dyn FnOnce(Result<(), io::Error>) + Send>) {
        done(Ok(()));
    }
}

/// Removes a session's metadata from the state of a stopped node, with every checksum right: what a bug would do.
fn lose_a_session(cluster: &Cluster, node: u64) {
    let env = Env { disk: Arc::new(cluster.sim_disk(node)), ..Env::real() };
    let options = Options { reserve_bytes: 0, flush_after: Duration::ZERO, ..Options::default() };
    let dir = dir(cluster, node).join("state");
    let state = State::open(&env, &dir, options, Arc::new(Covered), |_| Ok::<_, Error>(())).expect("it is whole");
    state.update(|(), batch| batch.delete(SESSIONS_TABLE, Bytes::from_static(LOST.as_bytes())));
    // No entry was applied, so there is nothing to wait for but this.
    while state.bytes().unflushed_bytes > 0 {
        assert!(state.failed().is_none(), "{:?}", state.failed());
        std::thread::yield_now();
    }
}

async fn check_rebuilt(cluster: &Cluster, node: u64) {
    assert!(!has_mark(cluster, node), "the mark is removed once the state is whole");
    cluster.converged().await.expect("all replicas are in the same state");
    let mut reader = cluster.caller(node).await;
    assert_eq!(reader.value("session-with-a-needle").await.as_deref(), Some(NEEDLE.as_bytes()));
    assert_eq!(reader.value(LOST).await.as_deref(), Some(&b"value 7"[..]));
    let stale = reader.load_within("session-with-a-needle", Consistency::Stale, 30_000).await.expect("its own state answers");
    assert!(matches!(&stale, Loaded::Full(content) if content.head.as_ref().is_some_and(|head| head.data == NEEDLE)), "{stale:?}");
    let kinds: Vec<String> = cluster
        .node(node)
        .expect("it runs")
        .events()
        .all()
        .into_iter()
        .map(|event| format!("{} {}", event.kind, event.detail))
        .collect();
    assert!(kinds.iter().any(|event| event.starts_with("rebuild begins") || event.starts_with("rebuild done")), "{kinds:?}");
}

#[tokio::test]
async fn a_node_in_another_state_than_a_majority_stops_and_comes_back_with_theirs() {
    let (mut cluster, follower) = stopped_for_a_lost_session().await;
    assert!(has_mark(&cluster, follower));
    let last_log = cluster.status().await.expect("two answer").nodes.iter().filter_map(|node| node.last_log).max();
    cluster.start_node(follower).await;
    check_rebuilt(&cluster, follower).await;
    let status = cluster.status_of(follower).await.expect("it runs");
    assert!(status.purged >= last_log, "the snapshot lies behind its own log: {status:?}");
    // The others raised an alarm, and it has ended.
    let calm = |status: &quorate::client::ClusterStatus| {
        status.nodes.iter().all(|node| node.checks.iter().all(|check| check.ok || check.name == "disk"))
    };
    cluster.wait_for("the alarm to end", calm).await.expect("all states agree");
}

#[tokio::test]
async fn a_flipped_bit_in_content_is_found_by_reading_everything_and_repaired() {
    let builder = testing::Cluster::builder().segment_bytes(1 << 20).scrub_interval(Duration::from_secs(1));
    let mut cluster = Cluster::of(builder).await;
    let follower = filled(&cluster).await;
    let read =
        |status: &quorate::client::ClusterStatus| status.nodes.iter().all(|node| node.scrub_passes > 0 && node.scrub_bytes > 0);
    cluster.wait_for("a pass of every node", read).await.expect("nothing is damaged");
    cluster.stop(follower).await;
    flip(&cluster, follower, NEEDLE);
    cluster.start_node(follower).await;
    let reason = cluster.ended(follower).await;
    for part in ["the checksum does not match", "name=heads", "session:", "create_revision=", ".redb"] {
        assert!(reason.contains(part), "{part} is not in {reason}");
    }
    assert!(!reason.contains("session-with-a-needle"), "an id is a credential: {reason}");
    assert!(has_mark(&cluster, follower));
    cluster.start_node(follower).await;
    check_rebuilt(&cluster, follower).await;
}

#[tokio::test]
async fn a_damaged_row_is_served_by_nobody_and_the_node_that_read_it_stops() {
    let (mut cluster, follower) = stopped_follower().await;
    flip(&cluster, follower, NEEDLE);
    cluster.start_node(follower).await;
    let mut reader = cluster.caller(follower).await;
    let refusal = reader.load_within("session-with-a-needle", Consistency::Stale, 30_000).await.expect_err("it is damaged");
    assert!(matches!(refusal.kind, RefusalKind::Corrupt | RefusalKind::Unavailable), "{refusal:?}");
    assert!(cluster.ended(follower).await.contains("name=heads"));
    cluster.start_node(follower).await;
    check_rebuilt(&cluster, follower).await;
}

/// Metadata is read at start: the node rebuilds before it opens a port. Its vote and log stay: it is the same member as before.
#[tokio::test]
async fn a_row_that_cannot_be_read_at_start_is_repaired_before_the_node_serves() {
    let mut cluster = Cluster::start(3).await;
    let follower = filled(&cluster).await;
    let before = cluster.status_of(follower).await.expect("it runs");
    cluster.stop(follower).await;
    flip(&cluster, follower, "session-with-a-needle");
    cluster.start_node(follower).await;
    check_rebuilt(&cluster, follower).await;
    let after = cluster.status_of(follower).await.expect("it runs");
    assert!(after.term >= before.term && after.purged > before.last_log, "{before:?} {after:?}");
}

#[tokio::test]
async fn a_node_killed_while_it_is_rebuilt_begins_again() {
    let (mut cluster, follower) = stopped_follower().await;
    flip(&cluster, follower, "session-with-a-needle");
    // It dies after so many more operations of its disk, wherever that is.
    for operations in [40, 60, 80, 100, 120] {
        let disk = cluster.sim_disk(follower);
        disk.halt_after(disk.operations() + operations);
        let _ = tokio::time::timeout(Duration::from_secs(5), cluster.try_start_node(follower)).await;
        cluster.kill_in_any_state(follower).await;
    }
    cluster.start_node(follower).await;
    check_rebuilt(&cluster, follower).await;
}

/// No start finds this damage by itself: only the mark says that the state must not be served.
#[tokio::test]
async fn the_mark_stays_until_another_state_is_in_place() {
    let (mut cluster, follower) = stopped_for_a_lost_session().await;
    let others: Vec<u64> = (1..=3).filter(|node| *node != follower).collect();
    for node in &others {
        cluster.stop(*node).await;
    }
    // Nobody sends it a state, so its start does not end by itself.
    let alone = tokio::time::timeout(Duration::from_secs(2), cluster.try_start_node(follower)).await;
    assert!(alone.is_err(), "it waits for a leader");
    cluster.kill_in_any_state(follower).await;
    assert!(has_mark(&cluster, follower), "the old state is still the one in place");
    for node in &others {
        cluster.start_node(*node).await;
    }
    cluster.start_node(follower).await;
    check_rebuilt(&cluster, follower).await;
}

#[tokio::test]
async fn a_node_without_others_names_the_damage_and_does_not_start() {
    let mut cluster = Cluster::start(1).await;
    let mut caller = cluster.caller(1).await;
    fill(&mut caller).await;
    cluster.stop(1).await;
    flip(&cluster, 1, "session-with-a-needle");
    let error = cluster.try_start_node(1).await.expect_err("nobody else has it").to_string();
    for part in ["no other member has it", "fix=", "the checksum does not match"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}
