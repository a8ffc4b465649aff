//! What was stored comes back as it was: every number and depth that Bob's types hold, and what other programs stored beside.

use bob_core::ports::SessionStore as _;
use bob_core::types::{Message, Role, SessionState, ToolCall};
use proptest::prelude::*;
use quorate::client::bob::Store;
use quorate::client::{Client, Content, WriteOptions};
use serde_json::{Value, json};

use super::client;
use crate::client::fake::{Cluster, Node};

fn call(arguments: Value) -> SessionState {
    SessionState {
        messages: vec![Message::assistant_tool_calls("", vec![ToolCall::new("f", arguments)])],
        ..SessionState::default()
    }
}

async fn arguments(store: &Store, id: &str) -> Value {
    let state = store.load(&id.to_owned()).await.expect("answered").expect("stored");
    state.messages[0].tool_calls[0].arguments.clone()
}

/// Saved by one client, loaded by another that knows nothing.
async fn back(nodes: &[Node], given: &Value) -> Value {
    client(nodes).session_store().save(&"a".to_owned(), &call(given.clone())).await.expect("saved");
    arguments(&client(nodes).session_store(), "a").await
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn any_number() -> impl Strategy<Value = Value> {
    let double = |bits: u64| json!(f64::from_bits(bits));
    prop_oneof![
        any::<u64>().prop_map(double),
        any::<f64>().prop_map(|n| json!(n)),
        (-1.0..1.0f64).prop_map(|n| json!(n)),
        any::<u64>().prop_map(|n| json!(n)),
        any::<i64>().prop_map(|n| json!(n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// To the last bit: both values are written to the same text, and compare the same.
    #[test]
    fn any_double_and_any_integer_comes_back_to_the_last_bit(numbers in proptest::collection::vec(any_number(), 200)) {
        let given = Value::Array(numbers);
        let got = runtime().block_on(async {
            let (_, nodes) = Cluster::start(1).await;
            back(&nodes, &given).await
        });
        prop_assert_eq!(got.to_string(), given.to_string());
        for (got, given) in got.as_array().expect("an array").iter().zip(given.as_array().expect("an array")) {
            prop_assert_eq!(got.as_f64().map(f64::to_bits), given.as_f64().map(f64::to_bits));
            prop_assert_eq!(got, given);
        }
    }
}

#[tokio::test]
async fn the_double_of_the_report_comes_back() {
    let (_, nodes) = Cluster::start(1).await;
    let given = json!({ "score": 0.228_042_335_998_907_22, "tiny": 5e-324, "large": f64::MAX, "zero": -0.0, "n": u64::MAX });
    assert_eq!(back(&nodes, &given).await.to_string(), given.to_string());
}

/// A parser of JSON takes 127 levels; in a message the arguments lie three levels deeper. Beyond what can be read again, nothing is saved.
#[tokio::test]
async fn arguments_as_deep_as_a_parser_takes_them_are_loaded_again_and_deeper_ones_are_refused() {
    let (_, nodes) = Cluster::start(1).await;
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| Value::Array(vec![inner]));
    for depth in [124, 125, 126, 127, 128, 200] {
        assert_eq!(back(&nodes, &nested(depth)).await, nested(depth), "{depth}");
    }
    let store = client(&nodes).session_store();
    let error = store.save(&"b".to_owned(), &call(nested(300))).await.expect_err("too deep");
    assert!(error.to_string().contains("nested too deep"), "{error}");
    assert!(store.load(&"b".to_owned()).await.expect("answered").is_none(), "nothing was stored");
}

async fn put(client: &Client, json: &str) {
    client.save("a", Content::from_json(json.as_bytes()), WriteOptions::default()).await.expect("saved");
}

async fn text(nodes: &[Node]) -> String {
    let session = client(nodes).load("a").await.expect("answered").expect("stored");
    String::from_utf8(session.content.to_json().expect("JSON")).expect("text")
}

fn said(text: &str) -> Message {
    Message::text(Role::Assistant, text)
}

/// Bob's types hold five fields of a message. What another program stored beside them outlasts a turn, and a rewritten history as well.
#[tokio::test]
async fn what_bobs_types_do_not_hold_outlasts_the_turns_of_an_agent() {
    let (_, nodes) = Cluster::start(1).await;
    let first = r#"{"wei":19876543210987654321, "role":"user","content":"hi","wei":1}"#;
    let json = |messages: &str, summary: &str, tokens: u32| {
        let usage = format!(r#""total_usage":{{"prompt_tokens":{tokens},"completion_tokens":0}}"#);
        format!(r#"{{"model":{{"t":0.10,"t":1}},"messages":[{messages}],"memory_summary":{summary},{usage}}}"#)
    };
    put(&client(&nodes), &json(&format!("{first},{}", r#"{"role":"user","content":"b"}"#), "null", 1)).await;
    let store = client(&nodes).session_store();
    let id = "a".to_owned();

    let mut state = store.load(&id).await.expect("answered").expect("stored");
    state.messages.push(said("c"));
    state.total_usage.prompt_tokens += 1;
    store.save(&id, &state).await.expect("saved");
    let turn = r#"{"role":"user","content":"b"},{"role":"assistant","content":"c"}"#;
    let lower = |text: String| text.replace("\"Assistant\"", "\"assistant\"");
    assert_eq!(lower(text(&nodes).await), json(&format!("{first},{turn}"), "null", 2));

    state.messages.truncate(1);
    state.messages.push(said("short"));
    state.memory_summary = Some("b and c".into());
    store.save(&id, &state).await.expect("saved");
    let rewritten = r#"{"role":"assistant","content":"short"}"#;
    assert_eq!(lower(text(&nodes).await), json(&format!("{first},{rewritten}"), "\"b and c\"", 2), "sent whole");

    store.save(&id, &SessionState::default()).await.expect("saved");
    let reset = r#"{"messages":[],"memory_summary":null,"total_usage":{"prompt_tokens":0,"completion_tokens":0}}"#;
    assert_eq!(text(&nodes).await, reset, "a reset begins with nothing");
}
