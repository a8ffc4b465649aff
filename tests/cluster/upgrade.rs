//! A rolling upgrade in one process: once every member knows the next cluster version, the leader raises it, and everything goes on.
//!
//! In a separate process, because knowing the test-only version is a property of the whole process.

use std::process::Command;
use std::time::Duration;

use bob_core::ports::SessionStore as _;
use bob_core::types::SessionState;
use quorate::client::{
    AppendOptions, Client, Content, Counters, Done, ErrorKind, Expected, Expiry, Label, List, Part, TurnOptions, Version, Wait,
    WriteOptions,
};
use quorate::limits::LEASE_TTL_MIN;
use quorate::machine::{TEST_VERSION, allow_test_version};
use quorate::testing::Cluster;
use quorate::types::{
    Applied, Blob, Chunk, ChunkSum, Consistency, Fence, Holder, LeaseTtl, Loaded, LoadedContent, NodeId, Order, RefusalKind,
    Repack, Verdict, Write,
};
use quorate::wire;
use quorate::wire::peer::v1 as peer;

use super::rig::{Caller, peer_of, raw_of, session};

/// Where this variable is set, the process is the test's own.
const OWN: &str = "QUORATE_TEST_OWN_PROCESS";

/// Entries of the old format, the change, entries of the new format: all replicas agree, also after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_version_rises_once_every_member_knows_it_and_nothing_is_lost() {
    if std::env::var_os(OWN).is_none() {
        let mut own = Command::new(std::env::current_exe().expect("this program"));
        own.args(["--exact", "cluster::upgrade::cluster_version_rises_once_every_member_knows_it_and_nothing_is_lost"]);
        let output = own.env(OWN, "").output().expect("this program");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        return;
    }
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let client = cluster.client();
    client.save("before", value("old format"), WriteOptions::default()).await.expect("a save");
    let status = cluster.status().await.expect("a status");
    assert!(status.nodes.iter().all(|node| node.cluster_version == 1), "{status:?}");
    nothing_of_version_2_is_taken(&client).await;
    nor_of_a_client_that_sends_it_all_the_same(&cluster).await;

    allow_test_version();
    let risen = |node: &quorate::client::NodeStatus| node.cluster_version == u32::from(TEST_VERSION);
    cluster.wait_for("the version in force", |status| status.nodes.iter().all(risen)).await.expect("it rises by itself");
    // What it saves first declares no form: it has not heard yet that it may.
    assert!(client.load("before").await.expect("a load").is_some());
    client.save("after", value("new format"), WriteOptions::default()).await.expect("a save");

    let wrong = client.append("after", vec!["{}".into()], AppendOptions::default()).await.expect_err("a value takes no items");
    assert_eq!(wrong.kind(), ErrorKind::WrongForm, "{wrong}");
    assert!(wrong.to_string().contains("form=Value"), "the client declared it: {wrong}");
    let (messages, head, counters) = (Vec::new(), "{}".into(), Counters::default());
    client.save("empty", Content::Transcript { messages, head, counters }, WriteOptions::default()).await.expect("a save");
    client.append("empty", vec!["{}".into()], AppendOptions::default()).await.expect("a transcript without items takes them");
    what_does_not_read_the_version_in_force_is_refused(&cluster).await;
    let appenders = (0..3).map(|n| append_in_turn(cluster.client(), n));
    let appended = futures_util::future::join_all(appenders).await;
    let mut places: Vec<_> = appended.into_iter().flatten().collect();
    places.sort_unstable();
    assert_eq!(places, (0..3 * APPENDS).collect::<Vec<_>>(), "no two appends have the same place");

    attributes_are_kept(&client).await;

    let touched = client.touch("talk", Expiry::After(DAY)).await.expect("a touch").expect("it is there");
    assert!(touched.deadline_ms.is_some());
    assert_eq!(client.touch("nobody", Expiry::Never).await.expect("a touch"), None);
    let too_long = client.touch("talk", Expiry::After(4000 * DAY)).await.expect_err("ten years at most");
    assert_eq!(too_long.kind(), ErrorKind::Invalid, "{too_long}");

    a_repack_is_compared_with_what_is_stored(&cluster).await;
    two_turns_exclude_each_other(&cluster, &client).await;
    a_transaction_is_done_or_nothing_of_it(&client, &cluster.client()).await;
    a_turn_is_held_and_lost_and_given_back(&cluster).await;

    let leader = cluster.leader().await.expect("a leader");
    cluster.kill(leader).await.expect("it runs");
    cluster.restart(leader).await.expect("it reads its own log");
    for (id, text) in [("before", "old format"), ("after", "new format")] {
        let session = client.load(id).await.expect("a load").expect("it was saved");
        assert_eq!((session.info.version, session.content), (Version(1), value(text)));
    }
    let seen = client.load_part("talk", Part::Info).await.expect("a load").expect("it is there");
    assert_eq!((seen.info.version.0, seen.info.deadline_ms), (3 * APPENDS, touched.deadline_ms), "it moved the deadline alone");
    let talk = client.load("talk").await.expect("a load").expect("it was appended to");
    let Content::Transcript { messages, head, counters } = talk.content else { panic!("an append made a value") };
    assert_eq!((head.as_ref(), counters.at(0)), (&b"{}"[..], 3 * APPENDS));
    for n in 0..3 {
        let own = format!("[{n},");
        let of_one: Vec<_> = messages.iter().filter(|message| message.starts_with(own.as_bytes())).cloned().collect();
        assert_eq!(of_one, (0..APPENDS).map(|turn| message(n, turn)).collect::<Vec<_>>(), "in its order, once each");
    }
    cluster.converged().await.expect("equal digests");
}

/// The leader compares what it replaces; every reader then has the same content.
async fn a_repack_is_compared_with_what_is_stored(cluster: &Cluster) {
    let client = cluster.client();
    for n in 0..40 {
        client.append("packed", vec![message(n, 0)], AppendOptions::default()).await.expect("an append");
    }
    let mut caller = Caller::open(raw_of(cluster, 1.into())).await;
    let before = whole(&mut caller, "packed").await;
    let (id, info) = (session("packed"), &before.info);
    assert_eq!((info.first_chunk, info.next_chunk, info.chunks), (0, 40, 40));
    let data: Vec<u8> = before.chunks[..30].iter().flat_map(|chunk| chunk.blob.data.to_vec()).collect();
    let chunks = vec![Chunk { item_count: 30, blob: Blob::plain(data.into()) }];
    let old = ChunkSum::of(&before.chunks[..30]);
    let repack = Repack { id, create_revision: info.create_revision, first_chunk: 0, until_chunk: 30, old, chunks };
    let other_hash = Repack { old: ChunkSum { hash: old.hash + 1, ..old }, ..repack.clone() };
    let other_end = Repack { until_chunk: 31, ..repack.clone() };
    let other_session = Repack { id: session("talk"), ..repack.clone() };
    for repack in [other_hash, other_end, other_session] {
        let write = Write::Repack { request: caller.request(), repack };
        let refused = caller.attempt(&write).await.expect_err("of another content");
        assert_eq!((refused.kind, refused.applied), (RefusalKind::Invalid, Applied::No), "{}", refused.message);
    }
    let write = Write::Repack { request: caller.request(), repack };
    let repacked = caller.settle(&write).await;
    assert_eq!(repacked.verdict, Verdict::Repacked { first_chunk: 30, chunks: 11 });
    // Its old chunks are gone; the same request is answered all the same.
    assert_eq!(caller.settle(&write).await, repacked);
    let after = whole(&mut caller, "packed").await;
    assert_eq!((after.info.version, after.info.mod_revision, after.info.items), (info.version, info.mod_revision, info.items));
    assert_eq!((after.info.first_chunk, after.info.next_chunk, after.info.chunks), (30, 40, 11));
    let unpacked = |chunks: &[Chunk]| -> Vec<u8> { chunks.iter().flat_map(|chunk| chunk.blob.data.to_vec()).collect() };
    assert_eq!(unpacked(&after.chunks), unpacked(&before.chunks));
    client.append("packed", vec![message(40, 0)], AppendOptions::default()).await.expect("an append");
    let part = client.load_part("packed", Part::From { item: 28, limit: 4 }).await.expect("a load").expect("it is there");
    let Some(Content::Transcript { messages, .. }) = part.content else { panic!("an append made a value") };
    assert_eq!((part.first_item, messages), (28, (28..32).map(|n| message(n, 0)).collect::<Vec<_>>()));
}

async fn whole(caller: &mut Caller, id: &str) -> LoadedContent {
    match caller.load_within(id, Consistency::Linearizable, 10_000).await.expect("a load") {
        Loaded::Full(content) => content,
        other => panic!("all of it: {other:?}"),
    }
}

/// A holder that goes on after its lease was taken writes nothing, nor does a client that knows nothing of leases.
async fn two_turns_exclude_each_other(cluster: &Cluster, client: &Client) {
    let mut first = Caller::open(raw_of(cluster, 1.into())).await;
    let mut second = Caller::open(raw_of(cluster, 2.into())).await;
    let ttl = LeaseTtl::new(Duration::from_secs(600)).expect("within");
    let take = async |caller: &mut Caller, name: &str, steal| {
        let (request, holder) = (caller.request(), Holder::new(name).expect("short"));
        caller.settle(&Write::AcquireLease { request, id: session("turn"), holder, ttl, steal }).await.verdict
    };
    let save = async |caller: &mut Caller, with: Fence| {
        let mut write = caller.save_of("turn", "text");
        if let Write::Save { fence, .. } = &mut write {
            *fence = Some(with);
        }
        caller.settle(&write).await.verdict
    };
    let Verdict::LeaseGranted { fence: old, .. } = take(&mut first, "first", false).await else { panic!("nobody has it") };
    let held = take(&mut second, "second", false).await;
    assert!(matches!(&held, Verdict::LeaseHeld { holder, .. } if holder.as_str() == "first"), "{held:?}");
    // By the leader and by a node that forwards; as often as it is asked.
    for node in [1, 2] {
        let mut old = Caller::open(raw_of(cluster, node.into())).await;
        let write = old.save_of("turn", "text");
        for knows in [0, 1, 0] {
            let refusal = old.attempt_knowing(&write, knows).await.expect_err("it knows no leases");
            assert_eq!((refusal.kind, refusal.applied), (RefusalKind::Denied, Applied::No), "{}", refusal.message);
        }
        assert!(matches!(old.settle(&write).await.verdict, Verdict::Leased { .. }), "for one that knows them");
    }
    let kept = client.save("turn", Content::Value("text".into()), WriteOptions::default()).await.expect_err("leased");
    assert!(matches!(kept.kind(), ErrorKind::Leased { .. }), "{kept}");
    assert!(matches!(save(&mut first, old).await, Verdict::Saved(_)));
    let Verdict::LeaseGranted { fence: new, .. } = take(&mut second, "second", true).await else { panic!("it is stolen") };
    assert!(new > old);
    assert_eq!(save(&mut first, old).await, Verdict::Fenced { current: Some(new) });
    assert!(matches!(save(&mut second, new).await, Verdict::Saved(_)));
    let info = client.load_part("turn", Part::Info).await.expect("a load").expect("it was saved").info;
    let lease = info.lease.expect("it lives");
    assert_eq!((info.version, lease.fence, lease.holder.as_str()), (Version(2), new, "second"));
    let page = client.list(List { order: Order::Leases, ..List::default() }).await.expect("a page");
    assert_eq!((page.sessions.len(), page.leases), (0, vec![(session("turn"), lease)]));
}

/// By the client's own guards: only what is written through the turn is taken, and nothing once it is another's.
async fn a_turn_is_held_and_lost_and_given_back(cluster: &Cluster) {
    let (ours, others) = (cluster.client(), cluster.client());
    let take = |wait| TurnOptions { holder: "worker".into(), ttl: LEASE_TTL_MIN, wait };
    let turn = ours.turn("guarded", take(Wait::Reject)).await.expect("nobody has it");
    let unaware =
        ours.save("guarded", value("text"), WriteOptions::default()).await.expect_err("the same client, without its turn");
    assert!(matches!(unaware.kind(), ErrorKind::Leased { .. }), "{unaware}");
    let held = others.turn("guarded", take(Wait::Enqueue(Duration::from_millis(1)))).await.expect_err("it is not given up in time");
    assert!(matches!(held.kind(), ErrorKind::Leased { .. }), "{held}");
    assert_eq!(turn.save(value("one"), WriteOptions::default()).await.expect("in its turn").version, Version(1));

    let store = ours.session_store().under_turns();
    let other_store = others.session_store().under_turns();
    let (id, state) = ("guarded".to_owned(), SessionState::default());
    other_store.save(&id, &state).await.expect_err("it has no turn to find");
    store.save(&id, &state).await.expect("it finds the turn of its client");

    let stolen = others.turn("guarded", take(Wait::Interrupt)).await.expect("it is taken");
    assert!(stolen.fence() > turn.fence());
    let fenced = turn.save(value("two"), WriteOptions::default()).await.expect_err("another has the turn");
    assert_eq!(fenced.kind(), ErrorKind::Fenced, "{fenced}");
    let fenced = store.save(&id, &state).await.expect_err("another has the turn").to_string();
    assert!(fenced.contains("take another turn"), "{fenced}");
    assert_eq!(stolen.save(value("two"), WriteOptions::default()).await.expect("in its turn").version, Version(3));
    assert!(stolen.release().await.expect("an answer"));
    // Nobody has it now, and its guard knows that it is lost: what is written through it is fenced all the same.
    turn.lost().await;
    let fenced = turn.save(value("late"), WriteOptions::default()).await.expect_err("it is lost");
    assert_eq!(fenced.kind(), ErrorKind::Fenced, "{fenced}");
    let fenced = store.save(&id, &state).await.expect_err("it is lost").to_string();
    assert!(fenced.contains("take another turn"), "{fenced}");
    assert!(!turn.release().await.expect("an answer"), "it was lost");
    ours.save("guarded", value("three"), WriteOptions::default()).await.expect("nobody has it");

    // Dropped, a turn is given back too.
    drop(ours.turn("guarded", take(Wait::Reject)).await.expect("nobody has it"));
    drop(others.turn("guarded", take(Wait::Enqueue(Duration::from_secs(30)))).await.expect("it is given back"));
    let long = TurnOptions { ttl: Duration::from_secs(3600), ..TurnOptions::default() };
    assert_eq!(ours.turn("guarded", long).await.expect_err("ten minutes at most").kind(), ErrorKind::Invalid);
}

async fn a_transaction_is_done_or_nothing_of_it(client: &Client, other: &Client) {
    let message = || vec!["{}".into()];
    let begin = || {
        client
            .transaction()
            .append("t/talk", message(), AppendOptions::default())
            .save("t/note", value("note"), WriteOptions::default())
            .delete("t/draft", None)
    };
    let first = begin().commit().await.expect("all is well");
    let [Done::Appended(talk), Done::Saved(note), Done::Deleted(None)] = &first.done[..] else { panic!("{first:?}") };
    assert_eq!((talk.first_item, talk.version, note.version), (0, Version(1), Version(1)));
    assert!(talk.revision == first.revision && talk.create_revision == note.create_revision);

    let expected = Expected::At { version: Version(2), create_revision: None };
    let failed = begin().save_if_version("t/budget", value("1"), expected, WriteOptions::default()).commit().await;
    let failed = failed.expect_err("there is no budget");
    assert_eq!((failed.kind(), failed.operation()), (ErrorKind::Conflict { actual: Version(0) }, Some(3)), "{failed}");
    assert!(failed.to_string().contains("operation 3 on \"t/budget\""), "{failed}");
    let whole = client.load("t/talk").await.expect("a load").expect("it was appended to");
    assert_eq!(whole.info.items, 1, "nothing of it was done");

    // Once with the turn of one of its sessions, once with one of none of them, which it only requires; another client has none.
    let turn = client.turn("t/talk", TurnOptions::default()).await.expect("nobody has it");
    let lock = client.turn("t/lock", TurnOptions::default()).await.expect("nobody has it");
    let leased = begin().commit().await.expect_err("the talk is held");
    assert!(matches!((leased.kind(), leased.operation()), (ErrorKind::Leased { .. }, Some(0))), "{leased}");
    let done = begin().under(&turn).under(&lock).commit().await.expect("under both");
    assert_eq!(done.done.len(), 3, "one for each that was given: {done:?}");
    drop(other.turn("t/lock", TurnOptions { wait: Wait::Interrupt, ..TurnOptions::default() }).await.expect("it is taken"));
    let fenced = begin().under(&turn).under(&lock).commit().await.expect_err("a turn is over");
    assert_eq!((fenced.kind(), fenced.operation()), (ErrorKind::Fenced, Some(3)), "{fenced}");
    turn.release().await.expect("an answer");
    let required = Expected::Incarnation { create_revision: talk.create_revision };
    let done = other.transaction().require("t/talk", required).delete("t/note", None).commit().await.expect("it is that one");
    assert!(matches!(&done.done[..], [Done::Met, Done::Deleted(Some(_))]), "{done:?}");

    for (wrong, says) in [
        (client.transaction(), "count=0"),
        (client.transaction().delete("a", None).delete("a", None), "operations[1].id"),
        ((0..65).fold(client.transaction(), |all, n| all.delete(&format!("{n}"), None)), "count=65 min=1 max=64"),
        (client.transaction().delete("a", None).delete(&"x".repeat(1025), None), "operation 1"),
    ] {
        let error = wrong.commit().await.expect_err("wrong as written");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// A node of a release that does not know what is in force would leave out a part of what it forwards.
async fn what_does_not_read_the_version_in_force_is_refused(cluster: &Cluster) {
    let leader = cluster.leader().await.expect("a leader");
    let other = NodeId(leader.0 % 3 + 1);
    for (cluster_version_max, is_refused) in [(0, true), (1, true), (2, false)] {
        let mut peer = peer_of(cluster, leader);
        let hello = peer.hello(peer::HelloRequest::default()).await.expect("it runs").into_inner();
        let route = peer::Route { cluster_id: hello.cluster_id, from: other.0, to: leader.0, to_instance: hello.instance };
        let first = peer::ForwardRequest { route: Some(route), cluster_version_max, ..Default::default() };
        let mut answers = peer.forward(tokio_stream::iter([first])).await.expect("it begins").into_inner();
        let ended = answers.message().await.map(|answer| assert!(answer.is_none(), "nothing was asked"));
        assert_eq!(ended.is_err(), is_refused, "{cluster_version_max}: {ended:?}");
        if let Err(status) = ended {
            assert_eq!(wire::refusal_from_status(&status).kind, RefusalKind::Unsupported, "{status}");
        }
    }
}

const DAY_MS: u64 = 24 * 3_600_000;
const DAY: Duration = Duration::from_millis(DAY_MS);
/// How many items each appender appends, one at a time.
const APPENDS: u64 = 20;

fn value(text: &'static str) -> Content {
    Content::Value(text.into())
}

fn idle() -> WriteOptions {
    WriteOptions { expiry: Expiry::Idle(DAY), ..WriteOptions::default() }
}

fn label() -> Label {
    Label::new("a title").expect("short")
}

async fn nothing_of_version_2_is_taken(client: &Client) {
    let early = client.append("talk", vec!["{}".into()], AppendOptions::default()).await.expect_err("version 1 has no appends");
    assert_eq!(early.kind(), ErrorKind::Unsupported, "{early}");
    assert!(early.to_string().contains("needs=2 in_force=1"), "{early}");
    assert_eq!(client.load("talk").await.expect("a load"), None, "nothing changed");
    let early = client.save("idle", value("text"), idle()).await.expect_err("version 1 has no idle deadlines");
    assert_eq!(early.kind(), ErrorKind::Unsupported, "{early}");
    for options in [
        WriteOptions { tombstone_ttl: Some(Duration::ZERO), ..WriteOptions::default() },
        WriteOptions { label: Some(label()), ..WriteOptions::default() },
    ] {
        let early = client.save("titled", value("text"), options).await.expect_err("version 1 has no such attribute");
        assert_eq!(early.kind(), ErrorKind::Unsupported, "{early}");
    }
    let early = client.touch("before", Expiry::Never).await.expect_err("version 1 has no touches");
    assert_eq!(early.kind(), ErrorKind::Unsupported, "{early}");
}

async fn nor_of_a_client_that_sends_it_all_the_same(cluster: &Cluster) {
    let mut caller = Caller::open(raw_of(cluster, 1.into())).await;
    let (request, id) = (caller.request(), session("touched"));
    let touch = Write::Touch { request, id, expiry: Expiry::Never, fence: None };
    let refusal = caller.attempt(&touch).await.expect_err("version 1 has no touches");
    assert_eq!((refusal.kind, refusal.applied), (RefusalKind::Unsupported, Applied::No), "{}", refusal.message);
    assert!(refusal.message.contains("needs=2 in_force=1"), "{}", refusal.message);
}

async fn attributes_are_kept(client: &Client) {
    client.save("idle", value("text"), idle()).await.expect("a save");
    let first = client.load_part("idle", Part::Info).await.expect("a load").expect("it was saved").info;
    assert_eq!((first.idle_ttl_ms, first.deadline_ms), (Some(DAY_MS), Some(first.updated_ms + DAY_MS)));
    client.save("idle", value("more text"), WriteOptions::default()).await.expect("a save");
    let then = client.load_part("idle", Part::Info).await.expect("a load").expect("it was saved").info;
    assert_eq!((then.idle_ttl_ms, then.deadline_ms), (Some(DAY_MS), Some(then.updated_ms + DAY_MS)), "it moved on");

    let options = WriteOptions { tombstone_ttl: Some(Duration::ZERO), label: Some(label()), ..WriteOptions::default() };
    client.save("titled", value("text"), options).await.expect("a save");
    client.save("titled", value("more text"), WriteOptions::default()).await.expect("a save");
    let list = client.list(List { prefix: "titled".into(), ..List::default() }).await.expect("a page");
    let titled: Vec<_> = list.sessions.into_iter().map(|listed| (listed.info.label, listed.info.tombstone_ttl_ms)).collect();
    assert_eq!(titled, [(label(), Some(0))]);
    client.delete("titled", None).await.expect("a delete").expect("it was there");
    let again = client.save("titled", value("text"), WriteOptions::default()).await.expect("a save");
    assert_eq!(again.version, Version(1), "nothing counts on");
}

fn message(appender: u64, turn: u64) -> bytes::Bytes {
    format!("[{appender},{turn}]").into()
}

/// The places of the items that one client appends.
async fn append_in_turn(client: Client, appender: u64) -> Vec<u64> {
    let mut places = Vec::new();
    for turn in 0..APPENDS {
        let counters = Counters::new(vec![1]).expect("few");
        let options = AppendOptions { counters, ..AppendOptions::default() };
        places.push(client.append("talk", vec![message(appender, turn)], options).await.expect("an append").first_item);
    }
    places
}
