//! Bob's `SessionStore` over a [`Client`], and JSON forms of content.
//!
//! A state is stored as a transcript: each message is JSON of its own, the rest of the state is the head, token usage the counters. Bob's
//! types leave out empty fields and hold any JSON: no binary format ever sees them.
//!
//! ```text
//! {"messages": [m, ..], "memory_summary": s, "total_usage": {"prompt_tokens": p, "completion_tokens": c}, ..}
//!    messages = [m, ..]     head = {"memory_summary": s, "total_usage": "counters", ..}     counters = [p, c]
//! ```

use bob_core::error::StoreError;
use bob_core::ports::SessionStore;
use bob_core::types::{Message, SessionState, TokenUsage};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Client, Content, Counters, Error, ErrorKind, Expected, Version, WriteOptions};

const MESSAGES: &str = "messages";
const SUMMARY: &str = "memory_summary";
const USAGE: &str = "total_usage";
const PROMPT: &str = "prompt_tokens";
const COMPLETION: &str = "completion_tokens";
/// In a head: the usage is in the counters.
const IN_COUNTERS: &str = "counters";

/// Bob's `SessionStore`, cheap to clone.
///
/// Conflicts are `StoreError::VersionConflict`; what is no session state is `Serialization`; all else is `Other` and holds an
/// [`Error`], to be downcast. Dropping the future of a save does not cancel it; a load may be dropped freely.
#[derive(Clone, Debug)]
pub struct Store {
    client: Client,
}

impl Client {
    /// The adapter for Bob's `SessionStore`.
    pub fn session_store(&self) -> Store {
        Store { client: self.clone() }
    }
}

impl Store {
    /// The client it stores with.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

#[async_trait::async_trait]
impl SessionStore for Store {
    async fn load(&self, id: &String) -> Result<Option<SessionState>, StoreError> {
        match self.client.load(id).await.map_err(other)? {
            None => Ok(None),
            Some(session) => state_from(session.content, session.info.version).map(Some),
        }
    }

    async fn save(&self, id: &String, state: &SessionState) -> Result<(), StoreError> {
        let content = content_from(state)?;
        self.client.save(id, content, WriteOptions::default()).await.map(drop).map_err(other)
    }

    async fn save_if_version(&self, id: &String, state: &SessionState, expected_version: u64) -> Result<u64, StoreError> {
        let content = content_from(state)?;
        let expected = match expected_version {
            0 => Expected::Absent,
            version => Expected::At { version: Version(version), create_revision: None },
        };
        match self.client.save_if_version(id, content, expected, WriteOptions::default()).await {
            Ok(written) => Ok(written.version.0),
            Err(error) => match error.kind() {
                ErrorKind::Conflict { actual } => Err(StoreError::VersionConflict { expected: expected_version, actual: actual.0 }),
                _ => Err(other(error)),
            },
        }
    }
}

fn other(error: Error) -> StoreError {
    StoreError::Other(Box::new(error))
}

fn serialization(error: impl std::fmt::Display) -> StoreError {
    StoreError::Serialization(error.to_string())
}

/// A field added to the state must be placed here, or this does not compile. The version is the store's to say.
fn content_from(state: &SessionState) -> Result<Content, StoreError> {
    let SessionState { messages, memory_summary, total_usage, version: _ } = state;
    let TokenUsage { prompt_tokens, completion_tokens } = total_usage;
    let message = |message| serde_json::to_vec(message).map(Bytes::from).map_err(serialization);
    let head = json!({ SUMMARY: memory_summary, USAGE: IN_COUNTERS });
    Ok(Content::Transcript {
        messages: messages.iter().map(message).collect::<Result<_, _>>()?,
        head: serde_json::to_vec(&head).map_err(serialization)?.into(),
        counters: counters([u64::from(*prompt_tokens), u64::from(*completion_tokens)]),
    })
}

fn state_from(content: Content, version: Version) -> Result<SessionState, StoreError> {
    let Content::Transcript { messages, head, counters } = content else {
        return Err(serialization("the session holds a plain value, not a session state"));
    };
    let messages = messages.iter().map(|message| serde_json::from_slice::<Message>(message)).collect::<Result<_, _>>();
    let head: Map<String, Value> = serde_json::from_slice(&head).map_err(serialization)?;
    let memory_summary = match head.get(SUMMARY) {
        None | Some(Value::Null) => None,
        Some(Value::String(summary)) => Some(summary.clone()),
        Some(_) => return Err(serialization("the session's memory_summary is not a string")),
    };
    let [prompt_tokens, completion_tokens] = usage(&counters).map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
    let total_usage = TokenUsage { prompt_tokens, completion_tokens };
    Ok(SessionState { messages: messages.map_err(serialization)?, memory_summary, total_usage, version: version.0 })
}

fn counters(values: [u64; 2]) -> Counters {
    Counters::new(values.to_vec()).expect("two are below the bound of counters")
}

/// Prompt and completion tokens.
fn usage(counters: &Counters) -> [u64; 2] {
    let at = |index: usize| counters.as_slice().get(index).copied().unwrap_or(0);
    [at(0), at(1)]
}

impl Content {
    /// A JSON object with an array of `messages` as a transcript, which the adapter can read if it is a session state; anything else as
    /// a value.
    pub fn from_json(bytes: &[u8]) -> Content {
        let transcript = serde_json::from_slice(bytes).ok().and_then(transcript_from);
        transcript.unwrap_or_else(|| Content::Value(Bytes::copy_from_slice(bytes)))
    }

    /// Back to bytes: the very bytes of a value; of a transcript, JSON of the same value.
    ///
    /// Errors: `Corrupt`, if a transcript is not JSON, which only another program can have stored.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        let (messages, head, counters) = match self {
            Content::Value(bytes) => return Ok(bytes.to_vec()),
            Content::Transcript { messages, head, counters } => (messages, head, counters),
        };
        let corrupt = |error: serde_json::Error| Error::corrupt(format!("the transcript is not JSON: {error}"));
        let mut object: Map<String, Value> = serde_json::from_slice(head).map_err(corrupt)?;
        let messages = messages.iter().map(|message| serde_json::from_slice(message)).collect::<Result<_, _>>();
        object.insert(MESSAGES.to_owned(), Value::Array(messages.map_err(corrupt)?));
        if is_in_counters(&object) {
            let [prompt, completion] = usage(counters);
            object.insert(USAGE.to_owned(), json!({ PROMPT: prompt, COMPLETION: completion }));
        }
        serde_json::to_vec(&object).map_err(corrupt)
    }
}

fn is_in_counters(object: &Map<String, Value>) -> bool {
    object.get(USAGE).and_then(Value::as_str) == Some(IN_COUNTERS)
}

fn transcript_from(mut object: Map<String, Value>) -> Option<Content> {
    // The mark of our own would be taken for one on the way back.
    if is_in_counters(&object) {
        return None;
    }
    let Some(Value::Array(messages)) = object.remove(MESSAGES) else { return None };
    let usage = object.get(USAGE).and_then(plain_usage);
    if usage.is_some() {
        object.insert(USAGE.to_owned(), IN_COUNTERS.into());
    }
    let bytes = |value: &Value| serde_json::to_vec(value).map(Bytes::from).ok();
    Some(Content::Transcript {
        messages: messages.iter().map(bytes).collect::<Option<_>>()?,
        head: serde_json::to_vec(&object).ok()?.into(),
        counters: counters(usage.unwrap_or_default()),
    })
}

/// Exactly the two counts of a session state.
fn plain_usage(usage: &Value) -> Option<[u64; 2]> {
    let usage = usage.as_object().filter(|usage| usage.len() == 2)?;
    Some([usage.get(PROMPT)?.as_u64()?, usage.get(COMPLETION)?.as_u64()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(json: &str) -> Value {
        let content = Content::from_json(json.as_bytes());
        serde_json::from_slice(&content.to_json().expect("our own")).expect("JSON")
    }

    #[test]
    fn a_state_survives_as_a_transcript() {
        let json = r#"{"messages":[{"role":"user","content":"hi"}],"memory_summary":null,"total_usage":{"prompt_tokens":7,"completion_tokens":0},"version":3}"#;
        assert_eq!(back(json), serde_json::from_str::<Value>(json).expect("JSON"));
        let Content::Transcript { counters, .. } = Content::from_json(json.as_bytes()) else { panic!("a transcript") };
        assert_eq!(counters.as_slice(), [7]);
        let state = state_from(Content::from_json(json.as_bytes()), Version(9)).expect("a state");
        assert_eq!((state.version, state.messages.len(), state.total_usage.prompt_tokens), (9, 1, 7));
    }

    #[test]
    fn other_transcripts_survive_by_value() {
        for json in [
            r#"{"messages":[]}"#,
            r#"{"messages":[1,null,{"a":[{}]}],"x":{"y":0},"total_usage":null}"#,
            r#"{"messages":["m"],"total_usage":{"prompt_tokens":1,"completion_tokens":2,"cached":3}}"#,
            r#"{"messages":["m"],"total_usage":{"prompt_tokens":-1,"completion_tokens":2}}"#,
        ] {
            assert!(matches!(Content::from_json(json.as_bytes()), Content::Transcript { .. }), "{json}");
            assert_eq!(back(json), serde_json::from_str::<Value>(json).expect("JSON"));
        }
    }

    #[test]
    fn everything_else_is_a_value_byte_for_byte() {
        for bytes in
            ["", "hello", "[1]", " {\"messages\" : 1}", r#"{"a":1}"#, r#"{"messages":[],"total_usage":"counters"}"#, "\u{0}"]
        {
            let content = Content::from_json(bytes.as_bytes());
            assert_eq!(content, Content::Value(Bytes::copy_from_slice(bytes.as_bytes())));
            assert_eq!(content.to_json().expect("a value"), bytes.as_bytes());
        }
    }

    #[test]
    fn usage_above_what_bob_counts_saturates() {
        let content = Content::Transcript {
            messages: vec![],
            head: Bytes::from_static(b"{}"),
            counters: counters([u64::MAX, u64::from(u32::MAX) + 1]),
        };
        let TokenUsage { prompt_tokens, completion_tokens } = state_from(content, Version(1)).expect("a state").total_usage;
        assert_eq!((prompt_tokens, completion_tokens), (u32::MAX, u32::MAX));
    }

    #[test]
    fn a_plain_value_is_no_session_state() {
        let error = state_from(Content::Value(Bytes::from_static(b"x")), Version(1)).expect_err("no state");
        assert!(matches!(error, StoreError::Serialization(_)), "{error}");
    }
}
