//! Bob's `SessionStore` over a [`Client`], and JSON forms of content.
//!
//! A state is stored as a transcript: each message is separate JSON, the rest of the state is the head, token usage the counters. Bob's
//! types leave out empty fields and hold any JSON: no binary format ever sees them. Saves send what is new since what this client
//! knows, loads get what is new, by the messages' values. Members that other programs stored in a message or in the
//! head are kept as text, unless a save replaces content that this client did not know.
//!
//! ```text
//! {"messages": [m, ..], "memory_summary": s, "total_usage": {"prompt_tokens": p, "completion_tokens": c}, ..}
//!    messages = [m, ..]     head = {"memory_summary": s, "total_usage": "counters", ..}     counters = [p, c]
//! ```

mod json;

use std::sync::Arc;
use std::time::Duration;

use bob_core::error::StoreError;
use bob_core::ports::SessionStore;
use bob_core::types::{Message, SessionState, TokenUsage, ToolCall};
use bytes::Bytes;
use serde_json::json;

use super::cache::bases::SaveMode;
use super::cache::pack;
use super::cache::view::{Failure, Item, New, View};
use super::cache::{Cache, lock};
use super::handle::Handle;
use super::sessions::{self, Found};
use super::{Client, Consistency, Counters, ErrorKind, Expected, Expiry, Version};
use crate::types::{Attributes, OnConflict};

const MESSAGES: &str = "messages";
const SUMMARY: &str = "memory_summary";
const USAGE: &str = "total_usage";
const PROMPT: &str = "prompt_tokens";
const COMPLETION: &str = "completion_tokens";
/// In a head: the usage is in the counters.
const IN_COUNTERS: &str = "counters";

/// The effect of a plain `save` after another turn was saved since this one loaded.
///
/// Bob's runtime loads, thinks for seconds, and saves without a condition: of 20 turns at once on one session, all acknowledged, the
/// port's literal meaning keeps one. `Reject` and `Rebase` continue from the version in the state: the one it was loaded at, 0 for a new
/// session. They answer `VersionConflict` for a version this client does not remember, or from which a save ended `Indeterminate`:
/// load again. A second save of the same turn continues from the first. A state with version 0 and no messages is a reset, and is stored
/// whatever was there, under every policy. `save_if_version` is the same under all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConcurrentSave {
    /// Stores over it: what the port says. The other turn is lost.
    #[default]
    Overwrite,
    /// `VersionConflict`; nothing changes.
    Reject,
    /// Appends this turn's messages to the newest state and adds its usage; `VersionConflict` where that would lose something: both
    /// changed the summary, history was rewritten, the session was deleted. A turn equal to another, message by message, is kept too.
    Rebase,
}

/// Bob's `SessionStore`, cheap to clone.
///
/// Conflicts are `StoreError::VersionConflict`; what is no session state is `Serialization`; all else is `Other` and holds an
/// [`super::Error`], to be downcast. Dropping the future of a save does not cancel it; a load may be dropped freely.
#[derive(Clone)]
pub struct Store {
    client: Client,
    cache: Arc<Cache<Message>>,
    concurrent_save: ConcurrentSave,
    attributes: Attributes,
    under_turns: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("client", &self.client)
            .field("concurrent_save", &self.concurrent_save)
            .field("attributes", &self.attributes)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// The adapter for Bob's `SessionStore`. All adapters of one client share what they know.
    pub fn session_store(&self) -> Store {
        Store {
            client: self.clone(),
            cache: self.adapters(),
            concurrent_save: ConcurrentSave::default(),
            attributes: Attributes::default(),
            under_turns: false,
        }
    }
}

impl Store {
    /// The client it stores with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// This store with another policy for plain saves. Stores of one client that save the same sessions should have the same policy.
    #[must_use]
    pub fn concurrent_save(self, concurrent_save: ConcurrentSave) -> Self {
        Self { concurrent_save, ..self }
    }

    /// This store with an expiry that it sends with every save, so that a session which was created again has it again. Bob's port has no word
    /// for it: by default sessions live until they are deleted.
    #[must_use]
    pub fn expiry(self, expiry: Expiry) -> Self {
        Self { attributes: Attributes { expiry, ..self.attributes }, ..self }
    }

    /// This store with a time of tombstones that it sends with every save; see
    /// [`WriteOptions::tombstone_ttl`](crate::client::WriteOptions::tombstone_ttl).
    #[doc(hidden)]
    #[must_use]
    pub fn tombstone_ttl(self, ttl: Duration) -> Self {
        Self { attributes: Attributes { tombstone_ttl: Some(ttl), ..self.attributes }, ..self }
    }

    /// This store, with every save of a session in the turn of it that the client holds ([`Client::turn`]), if it holds one: a runtime that knows
    /// nothing of turns then writes under one. In a turn that is lost a save fails with [`ErrorKind::Fenced`], within `StoreError::Other`.
    #[doc(hidden)]
    #[must_use]
    pub fn under_turns(self) -> Self {
        Self { under_turns: true, ..self }
    }

    /// A session at a version: the very one that this client knows there, if it does. Another of the same id may have come to the same
    /// version, where tombstones stand for a short time.
    fn known(&self, id: &str, version: Version) -> Result<Expected, StoreError> {
        let id = super::session_id(id).map_err(|error| store_error(error.into(), version.0))?;
        Ok(lock(&self.cache.session(&id)).expected_at(version))
    }

    /// The handle for saves of a session: that of its turn, where this store is asked to find it.
    fn handle_of(&self, id: &str) -> Handle {
        let id = super::session_id(id).ok().filter(|_| self.under_turns);
        let fencing = id.and_then(|id| self.client.turns.fencing(&id));
        fencing.map_or_else(|| self.client.handle.clone(), |fencing| self.client.handle.fenced(fencing))
    }

    async fn save_by(&self, id: &str, state: &SessionState, mode: SaveMode) -> Result<u64, StoreError> {
        let new = new_from(state)?;
        let handle = self.handle_of(id);
        let saved = sessions::save(&handle, &self.cache, id, new, mode, self.attributes.clone()).await;
        saved.map(|written| written.version.0).map_err(|failure| store_error(failure, state.version))
    }
}

#[async_trait::async_trait]
impl SessionStore for Store {
    async fn load(&self, id: &String) -> Result<Option<SessionState>, StoreError> {
        let loaded = sessions::load(&self.client.handle, &self.cache, id, Consistency::Linearizable, false).await;
        let found = loaded.map_err(|failure| store_error(failure, 0))?.found;
        found.map(|Found { version, view, .. }| state_from(&view, version)).transpose()
    }

    async fn save(&self, id: &String, state: &SessionState) -> Result<(), StoreError> {
        let version = Version(state.version);
        let mode = match self.concurrent_save {
            ConcurrentSave::Overwrite => SaveMode::Blind,
            ConcurrentSave::Reject => SaveMode::Turn(version, OnConflict::Reject),
            ConcurrentSave::Rebase => SaveMode::Turn(version, OnConflict::Rebase),
        };
        self.save_by(id, state, mode).await.map(drop)
    }

    async fn save_if_version(&self, id: &String, state: &SessionState, expected_version: u64) -> Result<u64, StoreError> {
        let expected = match expected_version {
            0 => Expected::Absent,
            version => self.known(id, Version(version))?,
        };
        self.save_by(id, state, SaveMode::Expect(expected)).await.map_err(|error| match error {
            StoreError::VersionConflict { actual, .. } => StoreError::VersionConflict { expected: expected_version, actual },
            other => other,
        })
    }
}

fn store_error(failure: Failure, expected: u64) -> StoreError {
    match failure {
        Failure::Encoding(why) => StoreError::Serialization(why),
        Failure::Client(error) => match error.kind() {
            ErrorKind::Conflict { actual } => StoreError::VersionConflict { expected, actual: actual.0 },
            _ => StoreError::Other(Box::new(error)),
        },
    }
}

fn serialization(error: impl std::fmt::Display) -> StoreError {
    StoreError::Serialization(error.to_string())
}

/// A field added to a message or a tool call must be compared here, or this does not compile.
impl Item for Message {
    const COUNTER_MAX: u64 = u32::MAX as u64;

    fn is_same(&self, other: &Self) -> bool {
        let Message { role, content, tool_calls, tool_call_id, tool_name } = self;
        let calls = |calls: &[ToolCall], others: &[ToolCall]| {
            calls.len() == others.len() && calls.iter().zip(others).all(|(call, other)| is_same_call(call, other))
        };
        *role == other.role
            && *content == other.content
            && calls(tool_calls, &other.tool_calls)
            && *tool_call_id == other.tool_call_id
            && *tool_name == other.tool_name
    }

    fn to_bytes(&self) -> Result<Bytes, String> {
        let bytes = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        // Only arguments can be deep.
        if !self.tool_calls.is_empty() {
            check_depth(&bytes)?;
        }
        Ok(bytes.into())
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, String> {
        serde_json::from_slice(&bytes).or_else(|error| deep_from(&bytes, error))
    }

    fn foreign(&self, stored: &Bytes) -> Option<Bytes> {
        let mut rest = Compared(stored);
        let is_same = serde_json::to_writer(&mut rest, self).is_ok() && rest.0.is_empty();
        // A copy: what was loaded with it is not held.
        (!is_same).then(|| Bytes::copy_from_slice(stored))
    }

    fn head_after(old: &Bytes, new: &Bytes) -> Bytes {
        let (old, new_head) = (pack::untagged(old), pack::untagged(new).1);
        let head = if old.0 { json::head_after(&old.1, &new_head) } else { None };
        head.map_or_else(|| new.clone(), |head| pack::tagged(true, head.as_bytes()))
    }
}

/// Compares written bytes with the rest of a text; a difference is an error.
struct Compared<'t>(&'t [u8]);

impl std::io::Write for Compared<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(std::io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How deep a stored message may be nested, so that every thread has the stack to read it. A parser that takes 127 levels gave the
/// arguments of a call, which lie three levels deep in their message.
const MESSAGE_DEPTH_MAX: usize = 256;

/// Error: what is stored could not be read again.
fn check_depth(message: &[u8]) -> Result<(), String> {
    match json::depth(message) {
        0..=MESSAGE_DEPTH_MAX => Ok(()),
        depth => Err(format!("the message is nested too deep depth={depth} limit={MESSAGE_DEPTH_MAX}")),
    }
}

/// The message, if nothing but its depth was an error.
fn deep_from(bytes: &[u8], error: serde_json::Error) -> Result<Message, String> {
    check_depth(bytes).map_err(|_| error.to_string())?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    deserializer.disable_recursion_limit();
    let message = serde::Deserialize::deserialize(&mut deserializer).map_err(|error: serde_json::Error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(message)
}

fn is_same_call(call: &ToolCall, other: &ToolCall) -> bool {
    let ToolCall { call_id, name, arguments } = call;
    *call_id == other.call_id && *name == other.name && *arguments == other.arguments
}

/// A field added to the state must be placed here, or this does not compile.
fn new_from(state: &SessionState) -> Result<New<'_, Message>, StoreError> {
    let SessionState { messages, memory_summary, total_usage, version: _ } = state;
    let TokenUsage { prompt_tokens, completion_tokens } = total_usage;
    let head = json!({ SUMMARY: memory_summary, USAGE: IN_COUNTERS });
    let head = serde_json::to_vec(&head).map_err(serialization)?;
    let counters = counters([u64::from(*prompt_tokens), u64::from(*completion_tokens)]);
    Ok(New { items: messages, head: pack::tagged(true, &head), counters })
}

fn state_from(view: &View<Message>, version: Version) -> Result<SessionState, StoreError> {
    let (is_transcript, head) = pack::untagged(&view.head);
    if !is_transcript {
        return Err(serialization("the session holds a plain value, not a session state"));
    }
    let memory_summary = json::summary(&head).map_err(serialization)?;
    let [prompt_tokens, completion_tokens] = usage(&view.counters).map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
    let total_usage = TokenUsage { prompt_tokens, completion_tokens };
    let messages = view.map(Message::clone);
    Ok(SessionState { messages, memory_summary, total_usage, version: version.0 })
}

fn counters(values: [u64; 2]) -> Counters {
    Counters::new(values.to_vec()).expect("two are below the bound of counters")
}

/// Prompt and completion tokens.
fn usage(counters: &Counters) -> [u64; 2] {
    [counters.at(0), counters.at(1)]
}

#[cfg(test)]
mod tests {
    use super::super::cache::view::Meter;
    use super::*;

    fn view(head: Bytes, counters: Counters) -> View<Message> {
        let meter = Meter::default();
        View::empty(&meter).followed_by(Vec::new(), head, counters, &meter)
    }

    #[test]
    fn usage_above_what_bob_counts_saturates_and_counts_on() {
        let view = view(pack::tagged(true, b"{}"), counters([u64::MAX, u64::from(u32::MAX) + 1]));
        let state = state_from(&view, Version(1)).expect("a state");
        let TokenUsage { prompt_tokens, completion_tokens } = state.total_usage;
        assert_eq!((prompt_tokens, completion_tokens), (u32::MAX, u32::MAX));
        let step = view.step(&new_from(&state).expect("a state"), &Meter::default()).expect("a state");
        assert_eq!(step.append.expect("no counter fell").counters, Counters::default());
    }

    #[test]
    fn a_plain_value_is_no_session_state() {
        let error = state_from(&view(pack::tagged(false, b"x"), Counters::default()), Version(1)).expect_err("no state");
        assert!(matches!(error, StoreError::Serialization(_)), "{error}");
    }

    #[test]
    fn messages_are_the_same_only_if_every_field_is() {
        let call = |name: &str, n: u32| ToolCall::new(name, json!({ "n": n }));
        let base = Message::assistant_tool_calls("text", vec![call("f", 1)]);
        assert!(base.is_same(&base.clone()));
        let others = [
            Message { role: bob_core::types::Role::User, ..base.clone() },
            Message { content: "other".into(), ..base.clone() },
            Message { tool_calls: vec![call("f", 2)], ..base.clone() },
            Message { tool_calls: vec![call("g", 1)], ..base.clone() },
            Message { tool_calls: vec![call("f", 1).with_call_id("x")], ..base.clone() },
            Message { tool_calls: vec![], ..base.clone() },
            Message { tool_call_id: Some("x".into()), ..base.clone() },
            Message { tool_name: Some("x".into()), ..base.clone() },
        ];
        assert!(others.iter().all(|other| !base.is_same(other) && !other.is_same(&base)));
    }
}
