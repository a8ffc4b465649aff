//! Followers that were away for so long that the log they need is gone.

use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream;
use quorate::client::MemberChange;
use quorate::env::Disk as _;
use quorate::testing::{self, disk::SimDisk};
use quorate::types::Expected;
use quorate::wire::peer::v1::{self as peer, append_response::Result as Appended, peer_client::PeerClient, snapshot_frame::Frame};
use tokio::sync::mpsc;
use tonic::transport::Channel;

use super::rig::{Caller, Cluster, PATIENCE, version};

/// Large enough that few of them fill a segment.
const VALUE_BYTES: usize = 8 * 1024;
/// More than the log keeps, by far.
const SAVES: usize = 30;

/// A cluster that keeps next to nothing of its log.
async fn forgetful() -> Cluster {
    Cluster::of(testing::Cluster::builder().segment_bytes(64 * 1024).log_bytes_kept(32 * 1024)).await
}

/// Such a cluster with saves of the first round: also its leader, a follower, and a caller of the leader.
async fn filled() -> (Cluster, u64, u64, Caller) {
    let cluster = forgetful().await;
    let (leader, follower) = cluster.leader_and_follower().await;
    let mut caller = cluster.caller(leader).await;
    save_many(&mut caller, 1).await;
    (cluster, leader, follower, caller)
}

async fn save_many(caller: &mut Caller, round: usize) {
    for n in 0..SAVES {
        assert_eq!(version(&caller.saved(&format!("s{n}"), vec![round as u8; VALUE_BYTES]).await), round as u64);
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

/// Starts a node and waits until a snapshot arrives. No install ends while no sync does: they are held from then on.
async fn begin_install(cluster: &mut Cluster, node: u64) -> SimDisk {
    let disk = cluster.sim_disk(node);
    let state = PathBuf::from(format!("/{node}/state"));
    let files = || disk.list(&state).expect("it is there");
    let before = files();
    cluster.start_node(node).await;
    disk.hold_syncs();
    let has_begun = |_: &_| files().iter().any(|name| !before.contains(name));
    cluster.wait_for("the snapshot to arrive", has_begun).await.expect("nothing else helps the node");
    disk
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
    let (mut cluster, leader, follower, mut caller) = filled().await;
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
    let (mut cluster, _, follower, mut caller) = filled().await;
    let last_log = leave_behind(&mut cluster, &mut caller, follower, 2).await;
    let disk = begin_install(&mut cluster, follower).await;
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
    let (mut cluster, _, follower, mut caller) = filled().await;
    for (round, operations) in (2..).zip([0, 2, 5, 9, 14, 20]) {
        let last_log = leave_behind(&mut cluster, &mut caller, follower, round).await;
        let disk = begin_install(&mut cluster, follower).await;
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

/// An entry that changes nothing, as it lies in a log.
const BLANK: &[u8] = &[0];

/// Speaks to the peer port of a node, as another.
#[derive(Clone)]
struct Impostor {
    peer: PeerClient<Channel>,
    route: peer::Route,
}

impl Impostor {
    async fn new(cluster: &Cluster, from: u64, to: u64) -> Self {
        Self { peer: cluster.peer(to), route: cluster.route(from, to).await }
    }

    /// What a node is sent that has lost its state and whose log ends at `last_index`.
    async fn state(&mut self, from_instance: Bytes, last_index: u64) -> Vec<peer::SnapshotFrame> {
        let route = Some(self.route.clone());
        let request = peer::RebuildRequest { route, from_instance, last_index };
        let mut sent = self.peer.rebuild(request).await.expect("a leader sends its state").into_inner();
        let mut frames = Vec::new();
        while let Some(frame) = sent.message().await.expect("it goes on to its end") {
            frames.push(frame);
        }
        frames
    }

    /// Appends entries that change nothing, up to one.
    async fn append(&mut self, vote: peer::Vote, previous: peer::LogId, last: u64) -> Appended {
        let entry = |index| peer::Entry { log_id: Some(peer::LogId { index, ..previous }), payload: Bytes::from_static(BLANK) };
        let entries = (previous.index + 1..=last).map(entry).collect();
        let route = Some(self.route.clone());
        let request = peer::AppendRequest { route, vote: Some(vote), previous: Some(previous), entries, leader_commit: None };
        self.peer.append(request).await.expect("the node answers").into_inner().result.expect("a result")
    }

    /// Sends a snapshot, frame by frame as they come.
    async fn install(mut self, frames: mpsc::UnboundedReceiver<peer::SnapshotFrame>) -> peer::SnapshotResponse {
        let frames = stream::unfold(frames, async |mut frames| frames.recv().await.map(|frame| (frame, frames)));
        self.peer.snapshot(frames).await.expect("the node answers").into_inner()
    }
}

/// While a snapshot is under way, the same leader appends what it holds: nothing is installed, the entries stay, and more follow them. Of
/// one that comes later, no row is wanted.
#[tokio::test]
async fn snapshot_of_what_its_leader_has_appended_changes_nothing() {
    let mut cluster = Cluster::start(3).await;
    let (leader, [node, other]) = cluster.roles().await;
    let mut caller = cluster.caller(leader).await;
    assert_eq!(version(&caller.saved("s", "x").await), 1);
    cluster.converged().await.expect("all replicas are in the same state");
    let instance = Impostor::new(&cluster, leader, node).await.route.to_instance;
    cluster.kill(node).await;
    let status = cluster.status_of(leader).await.expect("it runs");
    let last_log = status.last_log.expect("it has entries");
    let mut frames = Impostor::new(&cluster, node, leader).await.state(instance, last_log).await;
    let Some(Frame::Start(start)) = &mut frames[0].frame else { panic!("the first begins it") };
    let snapshot = start.last_log.expect("of an entry");
    assert!(snapshot.index > last_log && snapshot.node == leader, "{snapshot:?}");
    cluster.kill(leader).await;
    cluster.kill(other).await;

    cluster.start_node(node).await;
    let mut impostor = Impostor::new(&cluster, leader, node).await;
    let vote = peer::Vote { term: snapshot.term, node: leader, committed: true };
    (start.route, start.vote) = (Some(impostor.route.clone()), Some(vote));
    let (first, end) = (frames[0].clone(), frames.pop().expect("the last one ends it"));
    let disk = cluster.sim_disk(node);
    let files = || disk.list(&PathBuf::from(format!("/{node}/state"))).expect("it is there");
    let before = files();
    let (sender, receiver) = mpsc::unbounded_channel();
    let installs = tokio::spawn(impostor.clone().install(receiver));
    frames.into_iter().for_each(|frame| sender.send(frame).expect("they are taken"));
    let deadline = Instant::now() + PATIENCE;
    while files().iter().all(|name| before.contains(name)) {
        assert!(Instant::now() < deadline && !installs.is_finished(), "no row was taken");
        tokio::task::yield_now().await;
    }
    let previous = peer::LogId { index: last_log, ..snapshot };
    assert!(matches!(impostor.append(vote, previous, snapshot.index).await, Appended::Success(_)));
    sender.send(end).expect("it is waited for");
    assert_eq!(installs.await.expect("no panic").vote, Some(vote));
    let (sender, receiver) = mpsc::unbounded_channel();
    sender.send(first).expect("it is taken");
    assert_eq!(impostor.clone().install(receiver).await.vote, Some(vote), "the rest of it is not waited for");
    drop(sender);
    let status = cluster.status_of(node).await.expect("it runs");
    assert_eq!(status.last_log, Some(snapshot.index));
    assert!(status.applied < Some(snapshot.index), "nobody said that it is committed: {status:?}");
    assert!(matches!(impostor.append(vote, snapshot, snapshot.index + 1).await, Appended::Success(_)), "more follows");
}

/// Of the largest id nothing is left but a row: its node was removed, the log is purged, every process that knew is gone, and the
/// leader has it from a snapshot.
#[tokio::test]
async fn an_id_is_never_used_again_though_its_node_is_gone_and_all_others_were_restarted() {
    let (mut cluster, leader, follower, mut caller) = filled().await;
    cluster.kill(follower).await;
    let gone = cluster.add_learner().await;
    // One that never heard who the members are has nobody to ask.
    let has_heard = |node: &quorate::client::NodeStatus| node.id.0 == gone && node.applied.is_some_and(|applied| applied > 0);
    cluster.wait_for("the new node", |status| status.nodes.iter().any(has_heard)).await.expect("it is sent the log");
    cluster.client().change_members(MemberChange::Remove(gone.into()), false, PATIENCE).await.expect("a majority answers");
    assert!(cluster.ended(gone).await.contains("removed"));
    let removed = cluster.status_of(leader).await.expect("it runs").last_log.expect("it has entries");
    save_many(&mut caller, 2).await;
    let purged = |status: &quorate::client::ClusterStatus| {
        let mut others = status.nodes.iter().filter(|other| other.id.0 != follower);
        others.all(|other| other.purged.is_some_and(|purged| purged > removed))
    };
    cluster.wait_for("the log to be purged beyond the removal", purged).await.expect("little is kept");
    cluster.kill_each((1..=3).filter(|node| *node != follower)).await;
    cluster.start_each(1..=3).await;
    check_caught_up(&cluster, follower, removed, 2).await;
    let client = cluster.client();
    assert_eq!(client.transfer_leadership(Some(follower.into()), PATIENCE).await.expect("it has caught up").0, follower);

    // The node that was removed hears so again; one without data under its id is none.
    cluster.start_node(gone).await;
    assert!(cluster.ended(gone).await.contains("removed"));
    cluster.wipe(gone);
    cluster.start_node(gone).await;
    let again = MemberChange::Add(cluster.member(gone).expect("prepared"));
    let error = client.change_members(again, false, PATIENCE).await.expect_err("the id was used").to_string();
    assert!(error.contains("never used twice") && error.contains(&format!("above {gone}")), "{error}");
}
