//! A write is applied once, and its caller gets the truth (Raft dissertation §6.3).

use std::collections::BTreeSet;
use std::time::Duration;

use quorate::client::{Client, Content, ErrorKind, Expected, TurnOptions, Version, WriteOptions};
use quorate::types::{Refusal, RefusalKind, Verdict};

use super::fake::{Cluster, Fault};
use super::{LONG, SHORT, begin_save, client, client_and_clock, client_within, content, noise, value};

fn no_leader() -> Fault {
    Fault::Refuse(Refusal::not_applied(RefusalKind::NoLeader, "no leader is known"))
}

/// The reply is lost after the write was applied; the same request goes to another node and is answered as the first time.
#[tokio::test]
async fn write_with_lost_reply_is_applied_once() {
    for content in [value("x"), noise(100_000)] {
        let (cluster, nodes) = Cluster::start(2).await;
        nodes[0].then(Fault::LoseReply);
        let written = client(&nodes).save("a", content, WriteOptions::default()).await.expect("saved");
        assert_eq!((written.version, cluster.applied()), (Version(1), 1));
        let seen = cluster.seen();
        assert_eq!(seen.len(), 2);
        assert_eq!((seen[0].client, seen[0].sequence), (seen[1].client, seen[1].sequence));
        assert_ne!(seen[0].node, seen[1].node);
    }
}

#[tokio::test]
async fn a_conditional_save_with_lost_reply_is_no_conflict() {
    let (cluster, nodes) = Cluster::start(2).await;
    nodes[0].then(Fault::LoseReply);
    let written = client(&nodes).save_if_version("a", value("x"), Expected::Absent, WriteOptions::default()).await.expect("saved");
    assert_eq!((written.version, cluster.applied()), (Version(1), 1));
}

#[tokio::test]
async fn a_write_refused_by_every_attempt_is_refused() {
    let (cluster, nodes) = Cluster::start(1).await;
    nodes[0].then_always(no_leader());
    let error = client_within(&nodes, SHORT, LONG).save("a", value("x"), WriteOptions::default()).await.expect_err("refused");
    assert!(matches!(error.kind(), ErrorKind::Refused { .. }), "{error}");
    assert_eq!(cluster.applied(), 0);
    let seen = cluster.seen();
    assert!(seen.len() > 1, "it was retried");
    assert_eq!(seen.iter().map(|seen| seen.sequence).collect::<BTreeSet<_>>().len(), 1, "a retry keeps its sequence");
}

/// One attempt may have been applied: refusals of later ones say nothing of it.
#[tokio::test]
async fn a_write_refused_after_an_ambiguous_attempt_is_indeterminate() {
    for first in
        [Fault::LoseRequest, Fault::LoseReply, Fault::Refuse(Refusal::unknown(RefusalKind::Unavailable, "proposed, then lost"))]
    {
        let other = Fault::Refuse(Refusal::not_applied(RefusalKind::WrongCluster, "another cluster"));
        for then in [no_leader(), other, Fault::Refuse(Refusal::invalid("wrong")), Fault::Answer(Verdict::ClientUnknown)] {
            let (_, nodes) = Cluster::start(1).await;
            nodes[0].then(first.clone());
            nodes[0].then_always(then.clone());
            let client = client_within(&nodes, SHORT, LONG);
            let error = client.save("a", value("x"), WriteOptions::default()).await.expect_err("unsettled");
            assert_eq!(error.kind(), ErrorKind::Indeterminate, "{first:?} then {then:?}: {error}");
        }
    }
}

/// A stream that ends in good order says no more of what was open on it than one that breaks.
#[tokio::test]
async fn a_write_on_a_stream_that_ends_in_good_order_is_indeterminate_if_nobody_settles_it() {
    let (cluster, nodes) = Cluster::start(1).await;
    nodes[0].then(Fault::EndInOrder);
    nodes[0].then_always(no_leader());
    let error = client_within(&nodes, SHORT, LONG).save("a", value("x"), WriteOptions::default()).await.expect_err("unsettled");
    assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
    assert_eq!(cluster.applied(), 1, "it was applied all the same");
}

#[tokio::test]
async fn a_write_without_an_answer_is_indeterminate_and_its_sequence_closed() {
    let (cluster, nodes) = Cluster::start(1).await;
    nodes[0].then(Fault::Swallow);
    let client = client_within(&nodes, SHORT, LONG);
    let error = client.save("a", value("x"), WriteOptions::default()).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    client.save("a", value("y"), WriteOptions::default()).await.expect("saved");
    let seen = cluster.seen();
    assert_eq!((seen[0].sequence, seen[1].sequence, seen[1].acknowledged_below), (1, 2, 2));
}

/// A leader that was paused may have it, and may wake after another client has saved.
#[tokio::test]
async fn a_write_that_was_given_up_is_closed_though_its_client_writes_nothing_more() {
    let (cluster, nodes) = Cluster::start(1).await;
    nodes[0].then(Fault::Swallow);
    let client = client_within(&nodes, SHORT, LONG);
    let error = client.save("a", value("late"), WriteOptions::default()).await.expect_err("it is swallowed");
    assert!(matches!(error.kind(), ErrorKind::Indeterminate));
    while cluster.kept_alive() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(cluster.apply_swallowed(), [Verdict::Stale]);
    assert_eq!(client.load("a").await.expect("answered"), None);
    assert_eq!(cluster.seen().len(), 1, "no other write was needed");
}

/// Its sequence can't be called closed while an older one is open, for as long as that may take. A write that had to wait has a later
/// sequence than one whose deadline is later.
#[tokio::test]
async fn a_write_that_was_given_up_can_not_happen_though_an_older_sequence_is_open() {
    let (cluster, nodes) = Cluster::start(1).await;
    let (client, clock) = client_and_clock(&nodes, Duration::from_secs(100), LONG);
    nodes[0].then(Fault::Hold);
    let abandoned = begin_save(&client, "a", "first");
    cluster.arrived(1).await;
    abandoned.abort();
    let late = begin_save(&client, "a", "late");
    // It is with the driver before the next one.
    client.load("b").await.expect("answered");
    clock.advance(Duration::from_secs(30));
    nodes[0].then(Fault::Swallow);
    let open = begin_save(&client, "b", "open");
    cluster.arrived(3).await;
    nodes[0].then(Fault::Swallow);
    cluster.open_gate();
    cluster.arrived(4).await;
    clock.advance(Duration::from_secs(75));
    let sent = |sequence: u64| cluster.seen().iter().filter(|seen| seen.sequence == sequence).count();
    while sent(3) < 2 {
        client.load("b").await.expect("answered");
    }
    let error = late.await.expect("no panic").expect_err("it was swallowed");
    assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
    assert!(!open.is_finished() && sent(2) == 1, "the older one is open");
    let happened = cluster.apply_swallowed();
    assert!(matches!(happened[..], [Verdict::Saved { .. }, Verdict::Conflict { .. }]), "{happened:?}");
    assert_eq!(content(client.load("a").await.expect("answered")), value("first"));
}

#[tokio::test]
async fn outcomes_that_are_no_answers_are_treated_as_what_they_are() {
    for verdict in [Verdict::Stale, Verdict::WindowExceeded] {
        let (_, nodes) = Cluster::start(1).await;
        nodes[0].then(Fault::Answer(verdict));
        let error = client(&nodes).save("a", value("x"), WriteOptions::default()).await.expect_err("a bug");
        assert_eq!(error.kind(), ErrorKind::Indeterminate);
    }
    let (cluster, nodes) = Cluster::start(1).await;
    nodes[0].then(Fault::Answer(Verdict::Busy));
    client(&nodes).save("a", value("x"), WriteOptions::default()).await.expect("retried like an overload");
    assert_eq!((cluster.applied(), cluster.seen().len()), (1, 2));
}

#[tokio::test]
async fn a_client_the_cluster_forgot_opens_another_and_sends_again() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    client.save("a", value("x"), WriteOptions::default()).await.expect("saved");
    cluster.forget_clients();
    let written = client.save("a", value("y"), WriteOptions::default()).await.expect("saved");
    assert_eq!((written.version, cluster.applied()), (Version(2), 2));
    let seen = cluster.seen();
    assert_ne!(seen[1].client, seen[2].client);
    assert_eq!(seen[2].sequence, 1);
}

#[tokio::test]
async fn another_cluster_means_another_client() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    client.save("a", value("x"), WriteOptions::default()).await.expect("saved");
    cluster.become_another();
    assert_eq!(client.save("a", value("y"), WriteOptions::default()).await.expect("saved").version, Version(2));
    assert_eq!((cluster.applied(), cluster.clients()), (2, 1));
    cluster.become_another();
    assert!(client.load("a").await.expect("answered").is_some());
}

/// A fence means nothing to another cluster: what carries one is never executed there, and once the client knows where it is, never sent.
#[tokio::test]
async fn a_write_with_a_fence_goes_to_the_cluster_that_gave_it_and_to_no_other() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    cluster.say_in_force(2);
    let turn = client.turn("a", TurnOptions::default()).await.expect("nobody has it");
    turn.save(value("x"), WriteOptions::default()).await.expect("in its turn");
    cluster.become_another();
    let applied = cluster.applied();
    let fenced = turn.save(value("y"), WriteOptions::default()).await.expect_err("another cluster answers");
    assert_eq!((fenced.kind(), fenced.revision(), cluster.applied()), (ErrorKind::Fenced, None, applied));
    client.save("a", value("z"), WriteOptions::default()).await.expect("without a fence it is for any cluster");
    let seen = cluster.seen().len();
    let fenced = turn.delete(None).await.expect_err("another cluster is there");
    assert_eq!((fenced.kind(), cluster.applied(), cluster.seen().len()), (ErrorKind::Fenced, applied + 1, seen));
    let released = turn.release().await.map_err(|error| error.kind());
    assert!(released != Ok(true) && cluster.seen().len() == seen, "{released:?}");
}

/// A caller saves and goes away once so many operations have reached a node.
async fn abandon_save(client: &Client, cluster: &Cluster, arrived: usize) {
    tokio::select! {
        biased;
        saved = client.save("a", value("x"), WriteOptions::default()) => panic!("nothing answers it: {saved:?}"),
        () = cluster.arrived(arrived) => {}
    }
}

/// The caller goes away while its save is on its way; its next load on the session comes after the save.
#[tokio::test]
async fn a_dropped_save_goes_on_and_the_next_load_sees_it() {
    let (cluster, nodes) = Cluster::start(1).await;
    nodes[0].then(Fault::Hold);
    let client = client(&nodes);
    abandon_save(&client, &cluster, 1).await;
    let load = tokio::spawn({
        let client = client.clone();
        async move { client.load("a").await }
    });
    assert_eq!(client.load("b").await.expect("another session does not wait"), None);
    assert_eq!(cluster.loads(), 1);
    cluster.open_gate();
    assert_eq!(content(load.await.expect("no panic").expect("answered")), value("x"));
    assert_eq!((cluster.applied(), cluster.loads()), (1, 2));
}

#[tokio::test]
async fn behind_an_abandoned_save_a_load_reads_anyway_and_a_save_closes_it_first() {
    let (cluster, nodes) = Cluster::start(1).await;
    nodes[0].then(Fault::Swallow);
    let (client, clock) = client_and_clock(&nodes, LONG, LONG / 2);
    abandon_save(&client, &cluster, 1).await;
    let mut save = Box::pin(client.save("a", value("y"), WriteOptions::default()));
    let mut load = Box::pin(client.load("a"));
    // The loads of another session wake the client, which does first what is due.
    tokio::select! {
        biased;
        saved = &mut save => panic!("it waits: {saved:?}"),
        loaded = &mut load => panic!("it waits: {loaded:?}"),
        loaded = client.load("c") => assert_eq!(loaded.expect("answered"), None),
    }
    clock.advance(LONG / 4);
    tokio::select! {
        biased;
        saved = &mut save => panic!("it waits: {saved:?}"),
        (loaded, _) = async { tokio::join!(&mut load, client.load("c")) } => assert_eq!(loaded.expect("read anyway"), None),
    }
    clock.advance(LONG / 4);
    let (save, _) = tokio::join!(save, client.load("c"));
    assert_eq!(save.expect("the cluster serves").version, Version(1));
    let seen = cluster.seen();
    assert_eq!((seen.len(), cluster.applied()), (2, 1));
    assert!(seen[0].sequence < seen[1].acknowledged_below, "the abandoned one can't land after it: {seen:?}");
}

/// While an older write of another session is open, closing the abandoned one would close nothing: it could still land.
#[tokio::test]
async fn a_save_waits_for_an_abandoned_one_as_long_as_that_can_land_after_it_and_no_longer() {
    let (cluster, nodes) = Cluster::start(1).await;
    let (client, clock) = client_and_clock(&nodes, LONG, LONG);
    nodes[0].then(Fault::Hold);
    let older = begin_save(&client, "b", "w");
    cluster.arrived(1).await;
    nodes[0].then(Fault::Swallow);
    abandon_save(&client, &cluster, 2).await;
    let mut next = Box::pin(client.save("a", value("y"), WriteOptions::default()));
    // The loads wake the client, which does first what is due.
    for moved in [Duration::ZERO, LONG / 2] {
        clock.advance(moved);
        tokio::select! {
            biased;
            saved = &mut next => panic!("it waits: {saved:?}"),
            loaded = client.load("c") => assert_eq!(loaded.expect("answered"), None),
        }
    }
    assert_eq!(cluster.seen().len(), 2, "half its deadline is over, and it is not refused");
    cluster.open_gate();
    older.await.expect("no panic").expect("saved");
    clock.advance(LONG / 4);
    let (next, loaded) = tokio::join!(next, client.load("c"));
    assert_eq!((next.expect("the cluster serves").version, loaded.expect("answered")), (Version(1), None));
    let seen = cluster.seen();
    assert!(seen[1].sequence < seen[2].acknowledged_below, "the abandoned one can't land after it: {seen:?}");
}

/// 1 500 writes wait for the first: the client sends no more than the window, and the rest when it opens.
#[tokio::test]
async fn no_more_writes_are_open_than_the_window() {
    let (cluster, nodes) = Cluster::start(1).await;
    nodes[0].then(Fault::Hold);
    let client = client(&nodes);
    let save = |n: usize| begin_save(&client, format!("s{n}"), "x");
    let first = save(0);
    cluster.arrived(1).await;
    let rest: Vec<_> = (1..1500).map(save).collect();
    cluster.arrived(1024).await;
    assert_eq!(client.load("s0").await.expect("reads go on"), None);
    assert_eq!(cluster.seen().iter().map(|seen| seen.sequence).max(), Some(1024));
    cluster.open_gate();
    for save in rest.into_iter().chain([first]) {
        save.await.expect("no panic").expect("saved");
    }
    assert_eq!(cluster.applied(), 1500);
}

/// Callers that race on one counter, over replies and requests that get lost: nothing is lost and nothing counted twice.
#[tokio::test]
async fn racing_increments_over_lost_replies_lose_nothing() {
    const CALLERS: usize = 16;
    const TURNS: usize = 10;
    let (_, nodes) = Cluster::start(3).await;
    for node in &nodes {
        for turn in 0..30 {
            node.then([Fault::LoseReply, Fault::StrangeTag, Fault::LoseRequest, no_leader(), Fault::StrangeTag][turn % 5].clone());
        }
    }
    let client = client_within(&nodes, Duration::from_secs(60), Duration::from_secs(60));
    let increment = || async {
        loop {
            let session = client.load("n").await.expect("answered");
            let (count, expected) = match session {
                None => (0u64, Expected::Absent),
                Some(session) => {
                    let Content::Value(bytes) = session.content else { panic!("a value") };
                    let count = u64::from_le_bytes(bytes[..].try_into().expect("eight bytes"));
                    (count, Expected::At { version: session.info.version, create_revision: None })
                }
            };
            let next = Content::Value((count + 1).to_le_bytes().to_vec().into());
            match client.save_if_version("n", next, expected, WriteOptions::default()).await {
                Ok(_) => return,
                Err(error) => assert!(matches!(error.kind(), ErrorKind::Conflict { .. }), "{error}"),
            }
        }
    };
    let caller = || async {
        for _ in 0..TURNS {
            increment().await;
        }
    };
    let mut callers: Vec<_> = (0..CALLERS).map(|_| Box::pin(caller())).collect();
    let mut polled = Vec::new();
    for caller in &mut callers {
        polled.push(caller.as_mut());
    }
    futures_util::future::join_all(polled).await;
    let total = (CALLERS * TURNS) as u64;
    let Content::Value(bytes) = content(client.load("n").await.expect("answered")) else { panic!("a value") };
    assert_eq!(u64::from_le_bytes(bytes[..].try_into().expect("eight bytes")), total);
}
