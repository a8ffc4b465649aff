//! What each call does when nothing fails.

use std::time::Duration;

use quorate::client::{
    AppendOptions, Client, Content, ErrorKind, Expected, Expiry, Label, List, LoadOptions, Revision, Role, SessionId,
    StatusOptions, Version, WriteOptions,
};
use quorate::types::{Holder, Verdict};

use super::fake::{Cluster, Fault, counters};
use super::{LONG, begin_save, client, client_and_clock, client_within, content, noise, value};

fn at(version: u64) -> Expected {
    Expected::At { version: Version(version), create_revision: None }
}

#[tokio::test]
async fn saves_loads_and_deletes_count_versions() {
    let (_, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    let options = WriteOptions::default;
    assert_eq!(client.load("a").await.expect("answered"), None);
    let first = client.save("a", value("one"), options()).await.expect("saved");
    assert_eq!(first.version, Version(1));
    let second = client.save_if_version("a", value("two"), at(1), options()).await.expect("saved");
    assert_eq!((second.version, second.create_revision), (Version(2), first.create_revision));
    assert!(second.revision > first.revision);
    let conflict = client.save_if_version("a", value("three"), at(1), options()).await.expect_err("a conflict");
    assert_eq!(conflict.kind(), ErrorKind::Conflict { actual: Version(2) });
    assert!(conflict.revision() > Some(second.revision));
    let session = client.load("a").await.expect("answered").expect("stored");
    assert_eq!((session.info.version, session.content), (Version(2), value("two")));
    let conflict = client.delete("a", Some(at(1))).await.expect_err("a conflict");
    assert_eq!(conflict.kind(), ErrorKind::Conflict { actual: Version(2) });
    let deleted = client.delete("a", None).await.expect("answered").expect("there was one");
    assert_eq!((deleted.version, deleted.create_revision), (Version(3), Revision(0)));
    assert_eq!(client.delete("a", None).await.expect("answered"), None);
    let read = client.load_with("a", LoadOptions::default()).await.expect("answered");
    assert_eq!((read.session, read.tombstone), (None, Version(3)));
    let again = client.save_if_version("a", value("four"), Expected::Absent, options()).await.expect("saved");
    assert_eq!(again.version, Version(4));
}

/// A node of an earlier release would pass over what it does not know, the fence of a write for one: nothing of a later cluster version is sent
/// before an answer said that it is in force. The cluster is asked, so that the first call after an upgrade is taken.
#[tokio::test]
async fn nothing_of_a_later_version_is_sent_before_it_is_in_force() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    let label = Label::new("a title").expect("short");
    let titled = WriteOptions { label: Some(label), ..WriteOptions::default() };
    for says in [0, 1] {
        cluster.say_in_force(says);
        let appended = client.append("a", vec!["{}".into()], AppendOptions::default()).await.expect_err("not in force");
        let saved = client.save("a", value("one"), titled.clone()).await.expect_err("not in force");
        let expected = Expected::Incarnation { create_revision: Revision(1) };
        let kept = client.save_if_version("a", value("one"), expected, WriteOptions::default()).await.expect_err("not in force");
        for error in [appended, saved, kept] {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains("needs=2 in_force=1"), "{error}");
        }
        assert_eq!(cluster.seen(), [], "nothing was sent");
    }
    cluster.say_in_force(2);
    nodes[0].then(Fault::Answer(Verdict::Fenced { current: None }));
    let fenced = client.append("a", vec!["{}".into()], AppendOptions::default()).await.expect_err("it was sent");
    assert_eq!(fenced.kind(), ErrorKind::Fenced, "{fenced}");
}

/// A client that knows nothing of leases is answered that nothing changed, and by whom the session is held.
#[tokio::test]
async fn a_write_to_a_leased_session_is_no_unknown_one() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    client.save("a", value("one"), WriteOptions::default()).await.expect("saved");
    cluster.say_in_force(2);
    let leased = || Verdict::Leased { holder: Holder::new("worker-7").expect("short"), deadline_ms: 9000 };
    nodes[0].then(Fault::Answer(leased()));
    let saved = client.save("a", value("two"), WriteOptions::default()).await.expect_err("leased");
    nodes[0].then(Fault::Answer(leased()));
    let deleted = client.delete("a", None).await.expect_err("leased");
    nodes[0].then(Fault::Answer(leased()));
    let appended = client.append("a", vec!["{}".into()], AppendOptions::default()).await.expect_err("leased");
    nodes[0].then(Fault::Answer(leased()));
    let touched = client.touch("a", Expiry::Never).await.expect_err("leased");
    for error in [saved, deleted, appended, touched] {
        assert_eq!(error.kind(), ErrorKind::Leased { retry_after: Duration::from_secs(2) });
        assert!(error.to_string().contains("nothing changed") && error.to_string().contains("worker-7"), "{error}");
    }
    let next =
        client.save_if_version("a", value("three"), at(1), WriteOptions::default()).await.expect("what it knows still holds");
    assert_eq!(next.version, Version(2));
    drop(cluster);
}

#[tokio::test]
async fn a_transcript_comes_back_as_it_was_saved() {
    let (_, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    let messages = (0..2000).map(|n| format!("{{\"role\":\"user\",\"content\":\"{}\"}}", "word ".repeat(n % 300)).into()).collect();
    let transcript = Content::Transcript { messages, head: "{}".into(), counters: counters(&[5, 6]) };
    client.save("t", transcript.clone(), WriteOptions::default()).await.expect("saved");
    assert_eq!(content(client.load("t").await.expect("answered")), transcript);
}

#[tokio::test]
async fn ids_may_be_empty_odd_and_at_the_bound_but_not_above() {
    let (_, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    for id in ["", "/", "?", "..", "a/b?c#d", "é\u{0}\n", &"x".repeat(1024)] {
        client.save(id, value(id), WriteOptions::default()).await.expect("saved");
        assert_eq!(content(client.load(id).await.expect("answered")), value(id));
    }
    let long = "x".repeat(1025);
    assert_eq!(client.load(&long).await.expect_err("too long").kind(), ErrorKind::Invalid);
    assert_eq!(client.save(&long, value(""), WriteOptions::default()).await.expect_err("too long").kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn pages_of_a_listing_follow_each_other() {
    let (_, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    for id in ["b/1", "a/1", "a/3", "a/2"] {
        client.save(id, value(id), WriteOptions::default()).await.expect("saved");
    }
    let list = |after: Option<&str>| List {
        prefix: "a/".into(),
        after: after.map(|id| SessionId::new(id).expect("short")),
        limit: 2,
        ..List::default()
    };
    let ids = |page: &quorate::client::ListPage| page.sessions.iter().map(|one| one.id.as_str().to_owned()).collect::<Vec<_>>();
    let first = client.list(list(None)).await.expect("answered");
    assert_eq!((ids(&first), first.more), (vec!["a/1".to_owned(), "a/2".to_owned()], true));
    let second = client.list(list(Some("a/2"))).await.expect("answered");
    assert_eq!((ids(&second), second.more), (vec!["a/3".to_owned()], false));
}

#[tokio::test]
async fn a_large_operation_travels_alone_and_a_large_load_in_frames() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    let large = noise(5 << 20);
    client.save("large", large.clone(), WriteOptions::default()).await.expect("saved");
    client.save("small", value("x"), WriteOptions::default()).await.expect("saved");
    let large = noise((5 << 20) + 1);
    client.save("large", large.clone(), WriteOptions::default()).await.expect("saved");
    assert_eq!(cluster.seen().iter().map(|seen| seen.unary).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(content(client.load("large").await.expect("answered")), large);
}

/// Frames of an attempt that was lost are no part of the next one's answer.
#[tokio::test]
async fn a_large_load_whose_connection_drops_after_its_first_frame_is_loaded_whole_by_the_next_attempt() {
    for count in [1, 2] {
        let (cluster, nodes) = Cluster::start(count).await;
        // A load that takes frames of the lost attempt is tried again until its deadline.
        let client = client_within(&nodes, LONG, Duration::from_secs(10));
        let large = noise(5 << 20);
        client.save("large", large.clone(), WriteOptions::default()).await.expect("saved");
        for node in &nodes {
            node.then(Fault::CutAnswer);
        }
        assert_eq!(content(client.load("large").await.expect("answered")), large);
        assert!(cluster.loads() > 1, "the first attempt was cut");
    }
}

#[tokio::test]
async fn closing_settles_what_is_open_and_a_later_call_opens_again() {
    let (cluster, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    client.close().await;
    let saves: Vec<_> = (0..50).map(|n| begin_save(&client, format!("s{n}"), "x")).collect();
    cluster.arrived(1).await;
    client.close().await;
    assert_eq!(cluster.clients(), 0);
    let mut saved = 0;
    for save in saves {
        saved += u64::from(save.await.expect("no panic").is_ok());
    }
    assert_eq!(saved, cluster.applied());
    assert!(saved > 0);
    client.save("s", value("y"), WriteOptions::default()).await.expect("opened again");
}

#[tokio::test]
async fn the_cluster_forgets_a_client_that_was_dropped() {
    let (cluster, nodes) = Cluster::start(1).await;
    let one = client(&nodes);
    one.save("a", value("x"), WriteOptions::default()).await.expect("saved");
    assert_eq!(cluster.clients(), 1);
    drop(one);
    let other = client(&nodes);
    while cluster.clients() > 0 {
        other.load("a").await.expect("answered");
    }
}

#[tokio::test]
async fn status_is_asked_of_the_next_endpoint_if_one_is_down() {
    let (_, mut nodes) = Cluster::start(1).await;
    let address = nodes[0].address();
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound").to_string();
    let client = Client::builder().endpoints([gone.clone(), address.clone()]).build().expect("valid");
    let status = client.status(StatusOptions::default()).await.expect("answered");
    assert_eq!((status.endpoint, status.cluster_name.as_str(), status.nodes.len()), (address, "fake", 2));
    assert_eq!((status.nodes[0].role, status.nodes[0].applied), (Role::Leader, Some(5)));
    assert!(!status.nodes[1].reachable);
    nodes.clear();
    let alone = Client::builder().endpoints([gone]).build().expect("valid");
    let error = alone.status(StatusOptions::default()).await.expect_err("nobody there");
    assert!(matches!(error.kind(), ErrorKind::Refused { .. }), "{error}");
}

/// A client in use says so every five minutes; one that is not lets itself be forgotten, and opens another when it is used again.
#[tokio::test]
async fn a_client_in_use_keeps_itself_alive() {
    let (cluster, nodes) = Cluster::start(1).await;
    let (client, clock) = client_and_clock(&nodes, LONG, LONG);
    client.save("a", value("x"), WriteOptions::default()).await.expect("saved");
    assert_eq!(cluster.kept_alive(), 0);
    for minutes in [6, 12] {
        clock.advance(Duration::from_secs(360));
        while cluster.kept_alive() < minutes / 6 {
            client.load("a").await.expect("answered");
        }
    }
    cluster.forget_clients();
    clock.advance(Duration::from_secs(360));
    client.save("a", value("y"), WriteOptions::default()).await.expect("a new client");
    assert_eq!((cluster.kept_alive(), cluster.applied()), (2, 2));
}

/// What a keep-alive calls closed is closed: a write that is open meanwhile is executed when it arrives.
#[tokio::test]
async fn a_keep_alive_leaves_a_write_that_is_open_meanwhile_open() {
    let (cluster, nodes) = Cluster::start(1).await;
    let (client, clock) = client_and_clock(&nodes, Duration::from_secs(120), LONG);
    client.save("b", value("x"), WriteOptions::default()).await.expect("saved");
    clock.advance(Duration::from_secs(250));
    nodes[0].then(Fault::Hold);
    let save = begin_save(&client, "a", "x");
    cluster.arrived(2).await;
    clock.advance(Duration::from_secs(60));
    while cluster.kept_alive() == 0 {
        client.load("b").await.expect("answered");
    }
    cluster.open_gate();
    save.await.expect("no panic").expect("it was open, and is executed");
    assert_eq!(cluster.applied(), 2);
}

/// A client that took the scheme for part of the name would speak plainly where its user asked for TLS.
#[test]
fn an_endpoint_with_a_scheme_or_path_that_is_not_spoken_is_refused() {
    for endpoint in ["https://host:1", "unix:/run/quorate:1", "user@host:1", "host/path:1"] {
        let refused = quorate::client::Client::builder().endpoints([endpoint]).build();
        assert_eq!(refused.err().map(|error| error.kind()), Some(quorate::client::ErrorKind::Invalid), "{endpoint}");
    }
    assert!(quorate::client::Client::builder().endpoints(["http://host:1/"]).build().is_ok());
}
