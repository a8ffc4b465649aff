//! Processes killed with -9: nothing acknowledged is lost, whatever dies.

mod admin;
mod backup;
mod bob;
mod browser;
mod disk;
mod doctor;
mod grow;
mod harness;
mod hung;
mod languages;
mod leases;
mod load;
mod members;
mod metrics;
mod names;
mod outage;
mod outages;
mod page;
mod page_words;
mod race;
#[allow(dead_code, reason = "the bench that shares it stops races early")]
mod racing;
mod reached;
mod upgrade;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use harness::Cluster;
use quorate::client::{Client, Content, ErrorKind, Role, WriteOptions};
use quorate::testing::history::{Caller, Recorder, verdict};
use quorate::testing::inline::SeededRandom;
use quorate::types::{Expected, Version};

fn value(text: impl Into<String>) -> Content {
    Content::Value(Bytes::from(text.into()))
}

/// Increments one session by compare-and-set until it is stopped; any error fails the test. Gives the number of acknowledged saves.
async fn increment(client: Client, id: String, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>) -> u64 {
    let mut expected = Expected::Absent;
    while !stop.load(Ordering::Relaxed) {
        let next = acknowledged.load(Ordering::Relaxed) + 1;
        let written = client.save_if_version(&id, value(next.to_string()), expected, WriteOptions::default()).await;
        let written = written.unwrap_or_else(|error| panic!("{id}, save {next}: {error}"));
        assert_eq!(written.version, Version(next), "a gap");
        expected = Expected::At { version: written.version, create_revision: None };
        acknowledged.store(next, Ordering::Relaxed);
    }
    acknowledged.load(Ordering::Relaxed)
}

/// How often the leader is killed: few times in the suite, more by `scripts/kills.sh`.
fn kills() -> u64 {
    std::env::var("QUORATE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(4)
}

/// Waits until so many more saves were acknowledged.
async fn progress(acknowledged: &AtomicU64, more: u64, writer: &tokio::task::JoinHandle<u64>, cluster: &Cluster) {
    let until = acknowledged.load(Ordering::Relaxed) + more;
    while acknowledged.load(Ordering::Relaxed) < until {
        assert!(!writer.is_finished(), "the writer failed\n{}", cluster.logs());
        tokio::task::yield_now().await;
    }
}

/// The leader is killed with a write under way, restarted, killed again. The caller sees no error, no gap, no double.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_go_on_through_leader_kills_without_a_gap_or_an_error() {
    let mut cluster = Cluster::start(3).await;
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = tokio::spawn(increment(cluster.client(), "counter".into(), stop.clone(), acknowledged.clone()));
    let random = SeededRandom::new(u64::from(std::process::id()));
    for _ in 0..kills() {
        progress(&acknowledged, random.below(40), &writer, &cluster).await;
        let leader = cluster.leader().await;
        cluster.kill(leader);
        // The others serve while it is gone, for some tens of milliseconds to a second or two.
        progress(&acknowledged, 20 + random.below(400), &writer, &cluster).await;
        cluster.restart(leader);
    }
    stop.store(true, Ordering::Relaxed);
    let total = writer.await.expect("no save failed");
    let stored = cluster.client().load("counter").await.expect("a load").expect("a session");
    assert_eq!(stored.info.version, Version(total));
    assert_eq!(stored.content, value(total.to_string()));
    cluster.assert_equal_digests().await;
    println!("{} kills, {total} acknowledged saves, no gap, no error", kills());
}

/// Every node is killed at once while saves are under way: what was acknowledged is there after a restart, which needs no flag.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_save_survives_a_kill_of_all_nodes_at_once() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let counts: Vec<Arc<AtomicU64>> = (0..8).map(|_| Arc::default()).collect();
    let writers: Vec<_> = counts
        .iter()
        .cloned()
        .enumerate()
        .map(|(writer, count)| {
            let client = client.clone();
            tokio::spawn(async move {
                loop {
                    let next = count.load(Ordering::Relaxed) + 1;
                    if client.save(&format!("session {writer}"), value(next.to_string()), WriteOptions::default()).await.is_ok() {
                        count.store(next, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    while counts.iter().any(|count| count.load(Ordering::Relaxed) < 50) {
        tokio::task::yield_now().await;
    }
    cluster.kill_all();
    writers.iter().for_each(|writer| writer.abort());
    let acknowledged: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    cluster.without_bootstrap();
    cluster.restart_all();
    cluster.leader().await;
    let client = cluster.client();
    for (writer, acknowledged) in acknowledged.into_iter().enumerate() {
        let stored = client.load(&format!("session {writer}")).await.expect("a load").expect("a session");
        let Content::Value(bytes) = &stored.content else { panic!("a value was saved") };
        let stored: u64 = std::str::from_utf8(bytes).expect("digits").parse().expect("digits");
        assert!(stored >= acknowledged, "session {writer}: {acknowledged} acknowledged, {stored} stored");
        assert!(stored <= acknowledged + 1, "session {writer}: {stored} was never asked for");
    }
    cluster.assert_equal_digests().await;
}

/// Two of three disks are lost, and every process still has `--bootstrap`: the third has data, so no second cluster may form.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_wiped_nodes_with_the_bootstrap_flag_left_on_form_no_second_cluster() {
    let mut cluster = Cluster::start(3).await;
    cluster.client().save("kept", value("before"), WriteOptions::default()).await.expect("a save");
    cluster.kill_all();
    cluster.wipe(1);
    cluster.wipe(2);
    cluster.restart_all();
    let logged = || std::fs::read_to_string(cluster.dir().join("1.log")).unwrap_or_default();
    let started = std::time::Instant::now();
    while !logged().contains("stop this node, mount its disk, and leave out --bootstrap") {
        assert!(started.elapsed() < harness::PATIENCE, "{}", logged());
        tokio::task::yield_now().await;
    }
    let client =
        Client::builder().endpoints(cluster.endpoints()).read_deadline(std::time::Duration::from_secs(4)).build().expect("valid");
    let error = client.load("kept").await.expect_err("two wiped disks are no quorum");
    assert!(matches!(error.kind(), ErrorKind::Refused { .. }), "{error:?}");
    let status = client.status(Default::default()).await.expect("a status without a quorum");
    assert_eq!(status.nodes.len(), 3, "every configured node is listed");
    assert!(status.nodes.iter().all(|node| node.role != Role::Leader), "{status:?}");
}

/// Two of three nodes down: a clear refusal within the deadline, nothing lost, and service by itself when one is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_calls_are_refused_and_service_returns_by_itself() {
    let mut cluster = Cluster::start(3).await;
    cluster.client().save("kept", value("before"), WriteOptions::default()).await.expect("a save");
    let leader = cluster.leader().await;
    let other = if leader == 1 { 2 } else { 1 };
    cluster.kill(leader);
    cluster.kill(other);
    let deadline = std::time::Duration::from_secs(3);
    let builder = Client::builder().endpoints(cluster.endpoints()).read_deadline(deadline).write_deadline(deadline);
    let impatient = builder.build().expect("valid");
    let error = impatient.load("kept").await.expect_err("no quorum");
    assert!(matches!(error.kind(), ErrorKind::Refused { .. }), "{error:?}");
    let error = impatient.save("kept", value("after"), WriteOptions::default()).await.expect_err("no quorum");
    assert!(matches!(error.kind(), ErrorKind::Refused { .. } | ErrorKind::Indeterminate), "{error:?}");
    let status = impatient.status(Default::default()).await.expect("a status without a quorum");
    assert_eq!(status.nodes.len(), 3);
    cluster.restart(leader);
    cluster.leader().await;
    let stored = cluster.client().load("kept").await.expect("a load").expect("it is there");
    assert!(stored.info.version >= Version(1));
}

/// Several clients at once, with every kind of call, while leaders are killed: both checkers find nothing wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_are_answered_while_processes_are_killed_is_linearizable() {
    let mut cluster = Cluster::start(3).await;
    let (recorder, began) = (Recorder::default(), tokio::time::Instant::now());
    let mut callers = tokio::task::JoinSet::new();
    for process in 0..4 {
        let mut caller = Caller::new(process, cluster.client(), 2, recorder.clone(), began);
        callers.spawn(async move {
            loop {
                caller.step().await;
            }
        });
    }
    for _ in 0..kills() {
        answers(&recorder, 50, &mut callers, &cluster).await;
        let leader = cluster.leader().await;
        cluster.kill(leader);
        answers(&recorder, 50, &mut callers, &cluster).await;
        cluster.restart(leader);
    }
    answers(&recorder, 50, &mut callers, &cluster).await;
    callers.shutdown().await;
    cluster.assert_equal_digests().await;
    let found: Vec<String> = verdict(&recorder.history()).iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}\n{}", found.join("\n"), cluster.logs());
}

/// Waits for so many more answers that settle their call.
async fn answers(recorder: &Recorder, more: usize, callers: &mut tokio::task::JoinSet<()>, cluster: &Cluster) {
    let known = || recorder.history().iter().filter(|op| op.answer.revision().is_some()).count();
    let until = known() + more;
    while known() < until {
        if let Some(failed) = callers.try_join_next() {
            panic!("a caller failed: {failed:?}\n{}", cluster.logs());
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
