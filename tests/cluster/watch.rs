//! Watches of a whole cluster: continued over lost nodes, resynced where the past is not known, and of no cost while nobody reads.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use quorate::client::{
    Client, Content, Expected, List, Order, Position, Revision, Selector, SessionChange, WatchFrame, WatchOptions, Watching,
    WriteOptions,
};
use quorate::types::{ClusterId, Watch};
use quorate::wire;
use quorate::wire::v1::sessions_client::SessionsClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::rig::{Cluster, PATIENCE};

async fn save(client: &Client, id: &str) -> Revision {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match client.save(id, Content::Value("x".into()), WriteOptions::default()).await {
            Ok(written) => return written.revision,
            Err(error) => assert!(std::time::Instant::now() < deadline, "not saved: {error}"),
        }
    }
}

async fn delete(client: &Client, id: &str) -> Revision {
    client.delete(id, None::<Expected>).await.expect("deleted").expect("it was there").revision
}

/// A watcher's map, by the rules of the protocol.
#[derive(Default)]
struct Map {
    sessions: BTreeMap<String, Revision>,
    resynced: Option<BTreeSet<String>>,
    revision: Revision,
    resyncs: usize,
}

impl Map {
    fn take(&mut self, frame: &WatchFrame) {
        if frame.resync {
            (self.resynced, self.resyncs) = (Some(BTreeSet::new()), self.resyncs + 1);
        }
        for change in &frame.changes {
            let id = change.id().as_str().to_owned();
            if let Some(resynced) = &mut self.resynced {
                resynced.insert(id.clone());
            }
            match change {
                SessionChange::Saved { info, .. } => {
                    let before = self.sessions.insert(id, info.mod_revision);
                    assert!(before.is_none_or(|before| before <= info.mod_revision), "a state went back");
                }
                SessionChange::Gone { .. } => drop(self.sessions.remove(&id)),
            }
        }
        if frame.walked
            && let Some(resynced) = self.resynced.take()
        {
            self.sessions.retain(|id, _| resynced.contains(id));
        }
        if let Some(revision) = frame.revision {
            assert!(self.revision <= revision, "revisions go back");
            self.revision = revision;
        }
    }

    /// Reads until a complete frame at this revision or later.
    async fn read_until(&mut self, watching: &mut Watching, revision: Revision) {
        let read = async {
            loop {
                let frame = watching.next().await.expect("it does not end").expect("a node answers");
                self.take(&frame);
                if frame.complete && self.revision >= revision {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("a complete frame");
    }
}

/// A watch of one node, without our client.
async fn raw(mut sessions: SessionsClient<Channel>, watch: &Watch) -> Result<Streaming<wire::v1::WatchFrame>, Status> {
    Ok(sessions.watch(wire::watch_to(watch)).await?.into_inner())
}

fn everything(from: Option<Position>, initial: bool) -> Watch {
    Watch { selector: Selector::Prefix(String::new()), from, initial, seen: None }
}

/// The next frames up to one that is complete, as one map.
async fn complete(frames: &mut Streaming<wire::v1::WatchFrame>) -> (Map, WatchFrame) {
    let mut map = Map::default();
    let read = async {
        loop {
            let frame = frames.next().await.expect("a frame").expect("a frame");
            let frame = wire::watch_frame_from(frame).expect("well formed");
            map.take(&frame);
            if frame.complete {
                return frame;
            }
        }
    };
    let frame = tokio::time::timeout(PATIENCE, read).await.expect("a complete frame");
    (map, frame)
}

/// Its node is killed, then the leader: the watch continues at another one, and shows each save and delete that came meanwhile.
#[tokio::test]
async fn a_watch_continues_over_the_loss_of_its_node_and_of_the_leader() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let mut expected = BTreeMap::new();
    for id in ["a/1", "a/2", "a/3", "b/1"] {
        expected.insert(id.to_owned(), save(&client, id).await);
    }
    expected.remove("b/1");
    let options = WatchOptions { initial: true, ..WatchOptions::prefix("a/") };
    let mut watching = client.watch(options).expect("well formed");
    let mut map = Map::default();
    map.read_until(&mut watching, expected["a/3"]).await;
    assert_eq!(map.sessions, expected);

    // The client began with the first of its endpoints.
    cluster.kill(1).await;
    expected.insert("a/1".to_owned(), save(&client, "a/1").await);
    expected.remove("a/2");
    let deleted = delete(&client, "a/2").await;
    map.read_until(&mut watching, deleted).await;
    assert_eq!(map.sessions, expected);

    cluster.start_node(1).await;
    let leader = cluster.leader(1).await;
    cluster.kill(leader).await;
    expected.insert("a/4".to_owned(), save(&client, "a/4").await);
    let last = save(&client, "b/1").await;
    map.read_until(&mut watching, last).await;
    assert_eq!(map.sessions, expected);
}

/// While nobody reads, the node keeps a cursor: what changed many times meanwhile comes once.
#[tokio::test]
async fn a_watcher_that_does_not_read_is_shown_the_newest_states_once() {
    const ROUNDS: usize = 12;
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let ids: Vec<String> = (0..64).map(|n| format!("{}{n}", "x".repeat(1000))).collect();
    let address = &cluster.config().member(1.into()).expect("a member").client;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    // Room for one frame on its way.
    let channel =
        endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535).connect().await.expect("it serves");
    let mut frames = raw(SessionsClient::new(channel), &everything(None, true)).await.expect("a watch");
    let mut last = Revision(0);
    for _ in 0..ROUNDS {
        let saves = ids.iter().map(|id| save(&client, id));
        last = futures_util::future::join_all(saves).await.into_iter().max().expect("some");
    }
    let mut changes = 0;
    let mut map = Map::default();
    let read = async {
        loop {
            let frame = wire::watch_frame_from(frames.next().await.expect("a frame").expect("a frame")).expect("well formed");
            changes += frame.changes.len();
            map.take(&frame);
            if frame.complete && map.revision >= last {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a complete frame");
    assert_eq!(map.sessions.len(), ids.len());
    assert!(changes < ids.len() * ROUNDS / 2, "nothing was passed over changes={changes}");
    let metrics = cluster.get(1, "/metrics").await;
    assert!(metrics.contains("\nquorate_watches 1\n"), "{metrics}");
    drop(frames);
}

/// Neither another cluster's place nor one from before a node was started can be continued from: the whole state comes, and says so.
#[tokio::test]
async fn a_resume_from_what_the_node_does_not_know_is_a_resync() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client();
    for id in ["a", "b"] {
        save(&client, id).await;
    }
    let (first, frame) = complete(&mut raw(cluster.raw(1), &everything(None, true)).await.expect("a watch")).await;
    assert_eq!((first.sessions.len(), first.resyncs), (2, 0));
    let known = Position { cluster_id: frame.cluster_id, revision: first.revision };
    let deleted = delete(&client, "a").await;

    let (same, _) = complete(&mut raw(cluster.raw(1), &everything(Some(known), false)).await.expect("a watch")).await;
    assert_eq!((same.sessions.len(), same.resyncs, same.revision), (0, 0, deleted), "one deletion, and nothing else");

    let foreign = Position { cluster_id: ClusterId([9; 16]), ..known };
    let (whole, _) = complete(&mut raw(cluster.raw(1), &everything(Some(foreign), false)).await.expect("a watch")).await;
    assert_eq!((whole.sessions.keys().map(String::as_str).collect::<Vec<_>>(), whole.resyncs), (vec!["b"], 1));

    client.close().await;
    // It flushes when it stops, so the deletion is not applied again.
    cluster.stop(1).await;
    cluster.start_node(1).await;
    cluster.caller(1).await;
    let (whole, _) = complete(&mut raw(cluster.raw(1), &everything(Some(known), false)).await.expect("a watch")).await;
    assert_eq!((whole.sessions.keys().map(String::as_str).collect::<Vec<_>>(), whole.resyncs), (vec!["b"], 1));
}

#[tokio::test]
async fn a_node_without_a_leader_ends_its_watches_and_bad_watches_are_refused_by_name() {
    let mut cluster = Cluster::start(3).await;
    let refused = |status: Status, text: &str| {
        assert!(status.code() == Code::InvalidArgument && status.message().contains(text), "{status:?}");
    };
    let none = wire::v1::WatchRequest::default();
    refused(cluster.raw(1).watch(none).await.expect_err("of nothing"), "field=watch.selector");
    let ids = |count: usize| {
        let ids = (0..count).map(|n| n.to_string()).collect();
        let selector = Some(wire::v1::watch_request::Selector::Ids(wire::v1::WatchIds { ids }));
        wire::v1::WatchRequest { selector, ..Default::default() }
    };
    refused(cluster.raw(1).watch(ids(65)).await.expect_err("too many"), "field=watch.ids value=65 min=1 max=64");
    refused(cluster.raw(1).watch(ids(0)).await.expect_err("none"), "field=watch.ids value=0 min=1 max=64");
    let from = Some(wire::v1::Position { cluster_id: vec![1; 3].into(), revision: 1 });
    refused(
        cluster.raw(1).watch(wire::v1::WatchRequest { from, ..ids(1) }).await.expect_err("no id"),
        "field=watch.from.cluster_id",
    );

    let (leader, [one, other]) = cluster.roles().await;
    let mut frames = raw(cluster.raw(one), &everything(None, true)).await.expect("a watch");
    let (_, frame) = complete(&mut frames).await;
    let ahead = Position { cluster_id: frame.cluster_id, revision: Revision(1 << 40) };
    let lags = raw(cluster.raw(one), &everything(Some(ahead), false)).await.map(drop).expect_err("it has not applied so far");
    assert!(lags.code() == Code::Unavailable && lags.message().contains("has not applied"), "{lags:?}");
    cluster.kill_each([leader, other]).await;
    let end = async {
        loop {
            if let Err(status) = frames.next().await.expect("it says why") {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, end).await.expect("it ends");
    assert!(status.message().contains("no leader"), "{status:?}");
}

#[tokio::test]
async fn recent_sessions_are_listed_newest_first_and_the_page_says_how_far_it_reaches() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    for id in ["a/1", "b/1", "a/2", "a/1"] {
        save(&client, id).await;
    }
    let mut ids = Vec::new();
    let mut list = List { prefix: "a/".into(), limit: 1, order: Order::Recent { after: None }, ..List::default() };
    loop {
        let page = client.list(list.clone()).await.expect("listed");
        assert_eq!(page.since, Some(Revision(0)));
        let Some(last) = page.sessions.last() else { break };
        ids.extend(page.sessions.iter().map(|listed| listed.id.as_str().to_owned()));
        (list.after, list.order) = (Some(last.id.clone()), Order::Recent { after: Some(last.info.mod_revision) });
        if !page.more {
            break;
        }
    }
    assert_eq!(ids, ["a/1", "a/2"]);
}
