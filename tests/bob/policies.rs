//! Turns that race on one session, by policy; and what is never guessed.

use std::time::Duration;

use bob_core::error::StoreError;
use bob_core::ports::SessionStore as _;
use bob_core::types::{Message, Role, SessionState, TokenUsage};
use quorate::client::Part;
use quorate::client::bob::{ConcurrentSave, Store};
use quorate::types::{
    Base, Blob, Change, Chunk, ClientId, Counters, Expiry, Nonce, Request, Sequence, SessionId, SessionInfo, Verdict, Write,
};

use super::{client, state};
use crate::client::fake::{Cluster, Fault, Node};

const ID: &str = "a";

fn store(nodes: &[Node], policy: ConcurrentSave) -> Store {
    client(nodes).session_store().concurrent_save(policy)
}

async fn load(store: &Store) -> SessionState {
    store.load(&ID.to_owned()).await.expect("answered").unwrap_or_default()
}

async fn save(store: &Store, state: &SessionState) -> Result<(), StoreError> {
    store.save(&ID.to_owned(), state).await
}

/// A turn on top of a state: one message and one token.
fn turn(mut state: SessionState, text: &str) -> SessionState {
    state.messages.push(Message::text(Role::User, text));
    state.total_usage.prompt_tokens += 1;
    state
}

fn texts(state: &SessionState) -> Vec<&str> {
    state.messages.iter().map(|message| message.content.as_str()).collect()
}

fn is_conflict(result: Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::VersionConflict { .. }))
}

/// Twenty turns load, then all save. How many were acknowledged, and what is stored.
async fn race(policy: ConcurrentSave, is_new: bool) -> (usize, SessionState) {
    let (_, nodes) = Cluster::start(1).await;
    let store = store(&nodes, policy);
    if !is_new {
        save(&store, &turn(SessionState::default(), "first")).await.expect("saved");
    }
    let mut states = Vec::new();
    for n in 0..20 {
        states.push(turn(load(&store).await, &format!("turn {n}")));
    }
    let saves: Vec<_> = states
        .into_iter()
        .map(|state| {
            let store = store.clone();
            tokio::spawn(async move { save(&store, &state).await })
        })
        .collect();
    let mut acknowledged = 0;
    for save in saves {
        acknowledged += usize::from(save.await.expect("no panic").is_ok());
    }
    (acknowledged, load(&super::client(&nodes).session_store()).await)
}

#[tokio::test]
async fn racing_turns_are_overwritten_refused_or_all_kept() {
    for is_new in [true, false] {
        let first = usize::from(!is_new);
        for (policy, acknowledged, kept) in
            [(ConcurrentSave::Overwrite, 20, 1), (ConcurrentSave::Reject, 1, 1), (ConcurrentSave::Rebase, 20, 20)]
        {
            let (ok, stored) = race(policy, is_new).await;
            assert_eq!((ok, stored.messages.len()), (acknowledged, kept + first), "{policy:?} new={is_new}");
            let mut unique = texts(&stored);
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), stored.messages.len());
            assert_eq!(stored.total_usage.prompt_tokens as usize, kept + first, "{policy:?} new={is_new}");
        }
    }
}

/// The stored content holds another's message before ours: our own view must not be taken for it.
#[tokio::test]
async fn after_a_rebase_a_load_brings_what_is_stored_and_a_second_save_appends_only_what_is_new() {
    let (_, nodes) = Cluster::start(1).await;
    let (one, other) = (store(&nodes, ConcurrentSave::Rebase), store(&nodes, ConcurrentSave::Rebase));
    save(&one, &turn(SessionState::default(), "first")).await.expect("saved");
    let (mine, theirs) = (turn(load(&one).await, "mine"), turn(load(&other).await, "theirs"));
    save(&other, &theirs).await.expect("saved");
    save(&one, &mine).await.expect("rebased");
    let stored = load(&one).await;
    assert_eq!((texts(&stored), stored.version), (vec!["first", "theirs", "mine"], 3));
    let mine = turn(mine, "mine too");
    save(&one, &mine).await.expect("saved");
    save(&other, &turn(theirs, "theirs too")).await.expect("rebased");
    save(&one, &turn(mine, "mine at last")).await.expect("rebased");
    let stored = load(&store(&nodes, ConcurrentSave::Overwrite)).await;
    assert_eq!(texts(&stored), ["first", "theirs", "mine", "mine too", "theirs too", "mine at last"]);
    assert_eq!(stored.total_usage.prompt_tokens, 6);
}

/// After a rebase the whole of our own view would drop the other's message.
#[tokio::test]
async fn a_rebased_turn_that_rewrites_itself_is_a_conflict_and_loses_nothing() {
    let (_, nodes) = Cluster::start(1).await;
    let (one, other) = (store(&nodes, ConcurrentSave::Rebase), store(&nodes, ConcurrentSave::Rebase));
    save(&one, &turn(SessionState::default(), "first")).await.expect("saved");
    let (mine, theirs) = (turn(load(&one).await, "mine"), turn(load(&other).await, "theirs"));
    save(&other, &theirs).await.expect("saved");
    save(&one, &mine).await.expect("rebased");
    let mut rewritten = turn(mine, "more");
    rewritten.total_usage = TokenUsage::default();
    assert!(is_conflict(save(&one, &rewritten).await));
    assert_eq!(texts(&load(&one).await), ["first", "theirs", "mine"]);
}

#[tokio::test]
async fn rewritten_history_is_stored_if_nothing_happened_meanwhile_and_a_conflict_otherwise() {
    for policy in [ConcurrentSave::Reject, ConcurrentSave::Rebase] {
        let (_, nodes) = Cluster::start(1).await;
        let (one, other) = (store(&nodes, policy), store(&nodes, policy));
        save(&one, &turn(turn(SessionState::default(), "first"), "second")).await.expect("saved");
        let mut compacted = load(&one).await;
        compacted.messages.remove(0);
        save(&one, &compacted).await.expect("nothing happened meanwhile");
        let mut compacted = load(&one).await;
        save(&other, &turn(load(&other).await, "theirs")).await.expect("saved");
        compacted.messages.clear();
        assert!(is_conflict(save(&one, &compacted).await), "{policy:?}");
        assert_eq!(texts(&load(&one).await), ["second", "theirs"], "{policy:?}");
    }
}

#[tokio::test]
async fn a_base_that_is_not_remembered_is_a_conflict_until_the_next_load() {
    let (_, nodes) = Cluster::start(1).await;
    let one = store(&nodes, ConcurrentSave::Rebase);
    save(&one, &turn(SessionState::default(), "first")).await.expect("saved");
    for policy in [ConcurrentSave::Reject, ConcurrentSave::Rebase] {
        let base = load(&one).await;
        let other = store(&nodes, policy);
        assert!(is_conflict(save(&other, &turn(base.clone(), "more")).await), "{policy:?}");
        assert_eq!(load(&other).await.version, base.version);
        save(&other, &turn(base, "more")).await.expect("remembered now");
    }
    // A new session that nobody said is new is created, or it is a conflict.
    let other = store(&nodes, ConcurrentSave::Rebase);
    assert!(is_conflict(save(&other, &state("blind")).await));
    assert_eq!(texts(&load(&one).await), ["first", "more", "more"]);
}

#[tokio::test]
async fn a_base_whose_save_ended_without_an_outcome_is_a_conflict_until_the_next_load() {
    for policy in [ConcurrentSave::Reject, ConcurrentSave::Rebase] {
        let (_, nodes) = Cluster::start(1).await;
        let store = store(&nodes, policy);
        let first = turn(load(&store).await, "first");
        nodes[0].then(Fault::Answer(Verdict::Stale));
        assert!(matches!(save(&store, &first).await, Err(StoreError::Other(_))));
        assert!(is_conflict(save(&store, &first).await), "{policy:?}");
        assert_eq!(load(&store).await.version, 0);
        save(&store, &first).await.expect("it is known again what is stored");
        assert_eq!(texts(&load(&store).await), ["first"]);
    }
}

#[tokio::test]
async fn a_reset_is_unconditional_under_every_policy() {
    for policy in [ConcurrentSave::Overwrite, ConcurrentSave::Reject, ConcurrentSave::Rebase] {
        let (_, nodes) = Cluster::start(1).await;
        let (one, other) = (store(&nodes, policy), store(&nodes, policy));
        save(&one, &turn(SessionState::default(), "first")).await.expect("saved");
        save(&other, &SessionState::default()).await.expect("a reset");
        let stored = load(&one).await;
        assert_eq!((stored.messages.len(), stored.version, stored.total_usage.prompt_tokens), (0, 2, 0), "{policy:?}");
        save(&one, &turn(stored, "again")).await.expect("a turn after it");
    }
}

/// Bob's port does not say when a session expires. A store says it with every save, also of a session that was deleted meanwhile.
#[tokio::test]
async fn a_store_says_with_every_save_when_the_session_expires() {
    let (cluster, nodes) = Cluster::start(1).await;
    cluster.say_in_force(2);
    let hour = Duration::from_secs(3600);
    for (expiry, idle_ttl_ms) in [(Expiry::After(hour), None), (Expiry::Idle(hour), Some(3_600_000))] {
        let store = store(&nodes, ConcurrentSave::Rebase).expiry(expiry);
        let client = store.client().clone();
        for _ in 0..2 {
            save(&store, &turn(load(&store).await, "a turn")).await.expect("saved");
            let info = client.load_part(ID, Part::Info).await.expect("answered").expect("it was saved").info;
            assert_eq!((info.deadline_ms, info.idle_ttl_ms), (Some(info.updated_ms + 3_600_000), idle_ttl_ms), "{expiry:?}");
            client.delete(ID, None).await.expect("deleted");
        }
    }
}

/// The caller gave up waiting and saves the turn again, with more: the first save is still on its way.
#[tokio::test]
async fn a_turn_whose_save_was_abandoned_is_kept_once() {
    for same in [true, false] {
        let (cluster, nodes) = Cluster::start(1).await;
        let store = store(&nodes, ConcurrentSave::Rebase);
        let first = turn(load(&store).await, "first");
        nodes[0].then(Fault::Hold);
        let abandoned = tokio::spawn({
            let (store, first) = (store.clone(), first.clone());
            async move { save(&store, &first).await }
        });
        cluster.arrived(2).await;
        abandoned.abort();
        assert!(abandoned.await.expect_err("it was aborted").is_cancelled());
        let next = if same { turn(first, "more") } else { turn(SessionState::default(), "other") };
        let second = tokio::spawn({
            let store = store.clone();
            async move { save(&store, &next).await }
        });
        tokio::task::yield_now().await;
        cluster.open_gate();
        second.await.expect("no panic").expect("saved");
        assert_eq!(texts(&load(&store).await), ["first", if same { "more" } else { "other" }]);
    }
}

/// A restored cluster may hold another content under the version that was loaded.
#[tokio::test]
async fn a_turn_loaded_from_another_cluster_is_a_conflict_until_the_next_load() {
    for policy in [ConcurrentSave::Reject, ConcurrentSave::Rebase] {
        let (cluster, nodes) = Cluster::start(1).await;
        let store = store(&nodes, policy);
        save(&store, &turn(SessionState::default(), "first")).await.expect("saved");
        let mine = turn(load(&store).await, "mine");
        cluster.become_another();
        assert!(is_conflict(save(&store, &mine).await), "{policy:?}");
        save(&store, &turn(load(&store).await, "again")).await.expect("loaded from this one");
        assert_eq!(texts(&load(&store).await), ["first", "again"]);
    }
}

/// At the bound on chunks a turn repacks; where that loses the race, it is appended.
#[tokio::test]
async fn a_repack_that_loses_a_race_is_an_append() {
    let (cluster, nodes) = Cluster::start(1).await;
    let (one, other) = (store(&nodes, ConcurrentSave::Rebase), store(&nodes, ConcurrentSave::Rebase));
    for n in 0..1024 {
        save(&one, &turn(load(&one).await, &format!("turn {n}"))).await.expect("saved");
    }
    let (mine, late) = (turn(load(&one).await, "mine"), turn(load(&other).await, "late"));
    cluster.apply(append(&client(&nodes).load(ID).await.expect("answered").expect("stored").info, "theirs"));
    save(&one, &mine).await.expect("appended");
    let sent: Vec<bool> = cluster.changes().iter().rev().take(2).map(|change| change.0).collect();
    assert_eq!(sent, [true, false], "the whole, then the delta");
    let stored = load(&one).await;
    assert_eq!(texts(&stored)[1023..], ["turn 1023", "theirs", "mine"]);
    save(&one, &turn(stored, "repacked")).await.expect("repacked");
    assert!(!cluster.changes().last().expect("sent").0);
    assert!(is_conflict(save(&other, &late).await), "nothing may be appended to what was before a full change");
    assert_eq!(texts(&load(&other).await).len(), 1027);
}

/// Somebody else's delta.
fn append(info: &SessionInfo, text: &str) -> Write {
    let message = serde_json::to_vec(&Message::text(Role::User, text)).expect("JSON");
    let mut item = u32::try_from(message.len()).expect("short").to_le_bytes().to_vec();
    item.extend(message);
    let SessionInfo { create_revision, version, items, .. } = *info;
    let change = Change::Delta {
        base: Base::At { create_revision, version, items },
        chunks: vec![Chunk { item_count: 1, blob: Blob::plain(item.into()) }],
        head: None,
        counters: Counters::default(),
    };
    let (client, nonce, sequence) = (ClientId(0), Nonce([0; 16]), Sequence(0));
    let request = Request { client, nonce, sequence, acknowledged_below: sequence };
    Write::Save { request, id: SessionId::new(ID).expect("short"), change, attributes: Expiry::Keep.into(), fence: None }
}
