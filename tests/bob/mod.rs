//! Bob's port: the conformance suite, and what only our adapter does.

mod exact;
mod foreign;
mod policies;
mod random;
mod runtime;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::client::fake::{Cluster, Fault, Node};
use bob_core::error::StoreError;
use bob_core::ports::SessionStore;
use bob_core::types::{Message, Role, SessionState};
use quorate::client::{Client, Content, ErrorKind, WriteOptions};
use quorate::testing::conformance;
use quorate::types::{Refusal, RefusalKind, Verdict};

fn client(nodes: &[Node]) -> Client {
    Client::builder().endpoints(nodes.iter().map(Node::address)).build().expect("valid")
}

fn state(text: &str) -> SessionState {
    SessionState { messages: vec![Message::text(Role::User, text)], ..SessionState::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_adapter_keeps_every_promise_of_the_port() {
    let (_, nodes) = Cluster::start(3).await;
    let store: Arc<dyn SessionStore> = Arc::new(client(&nodes).session_store());
    let report = conformance::run(|| async { store.clone() }).await;
    assert!(report.passed(), "{report}");
}

#[tokio::test]
async fn a_deleted_session_goes_on_counting() {
    let (_, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    let store = client.session_store();
    let id = "a".to_owned();
    store.save(&id, &state("one")).await.expect("saved");
    client.delete(&id, None).await.expect("answered").expect("there was one");
    assert!(store.load(&id).await.expect("answered").is_none());
    let conflict = store.save_if_version(&id, &state("two"), 2).await.expect_err("a conflict");
    assert!(matches!(conflict, StoreError::VersionConflict { expected: 2, actual: 0 }), "{conflict}");
    assert_eq!(store.save_if_version(&id, &state("two"), 0).await.expect("created"), 3);
    client.delete(&id, None).await.expect("answered").expect("there was one");
    store.save(&id, &state("three")).await.expect("saved");
    assert_eq!(store.load(&id).await.expect("answered").expect("stored").version, 5);
}

/// A blind save would overwrite what could not be read: damage and refusals are errors, never `None`.
#[tokio::test]
async fn failures_are_ours_to_downcast_and_never_none() {
    let (_, nodes) = Cluster::start(1).await;
    let hasty = Client::builder().endpoints(nodes.iter().map(Node::address)).read_deadline(Duration::from_millis(400)).build();
    let store = hasty.expect("valid").session_store();
    // As often as it asks until its deadline.
    nodes[0].then_always(Fault::Refuse(Refusal::not_applied(RefusalKind::Corrupt, "checksum mismatch")));
    let id = "a".to_owned();
    let kind = |error: StoreError| match error {
        StoreError::Other(error) => error.downcast_ref::<quorate::client::Error>().expect("ours").kind(),
        other => panic!("not ours: {other:?}"),
    };
    assert_eq!(kind(store.load(&id).await.expect_err("damaged")), ErrorKind::Corrupt);
    nodes[0].forget_faults();
    nodes[0].then(Fault::Answer(Verdict::Stale));
    assert_eq!(kind(store.save(&id, &state("x")).await.expect_err("unsettled")), ErrorKind::Indeterminate);
    assert_eq!(kind(store.load(&"x".repeat(1025)).await.expect_err("too long")), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_session_stored_as_json_is_read_as_a_state_and_a_value_is_not() {
    let (_, nodes) = Cluster::start(1).await;
    let client = client(&nodes);
    let json =
        br#"{"messages":[{"role":"user","content":"hi"}],"total_usage":{"prompt_tokens":3,"completion_tokens":4},"version":8}"#;
    client.save("a", Content::from_json(json), WriteOptions::default()).await.expect("saved");
    client.save("b", Content::from_json(b"plain"), WriteOptions::default()).await.expect("saved");
    let store = client.session_store();
    let loaded = store.load(&"a".to_owned()).await.expect("answered").expect("stored");
    assert_eq!((loaded.version, loaded.total_usage.completion_tokens, loaded.messages.len()), (1, 4, 1));
    let error = store.load(&"b".to_owned()).await.expect_err("no state");
    assert!(matches!(error, StoreError::Serialization(_)), "{error}");
}

/// A map without an atomic `save_if_version`: the port's own default, which reads and then writes.
#[derive(Default)]
struct Naive(Mutex<BTreeMap<String, SessionState>>);

#[async_trait::async_trait]
impl SessionStore for Naive {
    async fn load(&self, id: &String) -> Result<Option<SessionState>, StoreError> {
        let loaded = self.0.lock().expect("no panic").get(id).cloned();
        tokio::task::yield_now().await;
        Ok(loaded)
    }

    async fn save(&self, id: &String, state: &SessionState) -> Result<(), StoreError> {
        let mut sessions = self.0.lock().expect("no panic");
        let version = sessions.get(id).map_or(0, |state| state.version) + 1;
        sessions.insert(id.clone(), SessionState { version, ..state.clone() });
        Ok(())
    }
}

/// The suite is worth something only if it finds what is wrong: the port's default implementation loses acknowledged turns.
#[tokio::test]
async fn the_suite_finds_the_races_of_the_ports_default() {
    let store: Arc<dyn SessionStore> = Arc::new(Naive::default());
    let report = conformance::run(|| async { store.clone() }).await;
    println!("{report}");
    let races = ["of_racing_creations_one_wins", "of_racing_conditional_saves_one_wins", "racing_increments_lose_nothing"];
    assert_eq!(report.failed(), races, "{report}");
}
