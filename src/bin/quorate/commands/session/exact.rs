//! A session as one line of JSON, and back: what is exported and what `-o json` prints.
//!
//! ```text
//! {.., "id": "..", "state": {"messages": [..], ..}}      a transcript; its messages are the text they were
//! {.., "id": "..", "value": ".."}                        a plain value that is text, `value_base16` where it is none
//! {.., "state": .., "transcript": {"messages": ["..", {"base16": ".."}], "head": "..", "counters": [..]}}
//!                                                        a transcript that `state` alone, on one line, would not give back
//! ```

use std::collections::BTreeMap;

use quorate::client::{Content, Session};
use quorate::types::{Counters, Label, Revision, SessionInfo};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::print::info_json;

/// One line, without its end. Whatever was stored can be written so, and comes back from [`Document`] as it was.
pub fn session_json(id: &str, session: &Session) -> String {
    content_json(id, &session.info, session.revision, &session.content)
}

/// One line of a session's metadata and some of its content.
pub fn content_json(id: &str, info: &SessionInfo, revision: Revision, content: &Content) -> String {
    let mut document = info_json(info);
    document.insert("id".into(), json!(id));
    document.insert("revision".into(), json!(revision.0));
    let mut line = Value::Object(document).to_string();
    line.pop();
    for (key, value) in parts(content) {
        line += &format!(",\"{key}\":");
        line += &value;
    }
    line.push('}');
    line
}

/// The members that hold the content, as JSON.
fn parts(content: &Content) -> Vec<(&'static str, String)> {
    let (messages, head, counters) = match content {
        Content::Value(bytes) => return vec![value(bytes)],
        Content::Transcript { messages, head, counters } => (messages, head, counters),
    };
    let mut parts = Vec::new();
    if let Some(state) = content.to_json().ok().and_then(|json| String::from_utf8(json).ok()) {
        // Outside of its texts, where JSON has no line ends, they are white space.
        let state = if state.contains(['\n', '\r']) { state.replace(['\n', '\r'], " ") } else { state };
        let is_exact = Content::from_json(state.as_bytes()) == *content;
        parts.push(("state", state));
        if is_exact {
            return parts;
        }
    }
    let messages: Vec<Value> = messages.iter().map(|message| text(message)).collect();
    parts.push(("transcript", json!({ "messages": messages, "head": text(head), "counters": counters.as_slice() }).to_string()));
    parts
}

fn value(bytes: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => ("value", json!(text).to_string()),
        Err(_) => ("value_base16", json!(base16(bytes)).to_string()),
    }
}

fn text(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!({ "base16": base16(bytes) }), |text| json!(text))
}

fn base16(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes out of hex digits, two each; `None`: it is something else.
pub fn from_base16(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

/// The members of an object, each as the text it is.
pub struct Document<'t>(BTreeMap<String, &'t RawValue>);

impl<'t> Document<'t> {
    /// Errors: it is no JSON object.
    pub fn of(text: &'t [u8]) -> Result<Self, String> {
        serde_json::from_slice(text).map(Self).map_err(|error| format!("it is no JSON object: {error}"))
    }

    fn get<T: FromJson>(&self, name: &str) -> Option<T> {
        self.0.get(name).and_then(|value| T::from_json(value.get()))
    }

    /// The session's id.
    pub fn id(&self) -> Result<String, String> {
        self.get("id").ok_or_else(|| "it has no id".into())
    }

    /// Milliseconds it has left to live, where it is now so late since the Unix epoch; `None`: it never expires.
    ///
    /// An export holds the time left by its cluster's clock, which may differ from the clocks here and there. Only an export of an earlier
    /// release has the deadline alone.
    pub fn left_ms(&self, now_ms: u64) -> Result<Option<u64>, String> {
        let deadline_ms = self.number("deadline_ms")?;
        Ok(self.number("ttl_ms")?.or(deadline_ms.map(|deadline_ms| deadline_ms.saturating_sub(now_ms))))
    }

    /// Milliseconds that each write gives it to live, if its deadline is idle.
    pub fn idle_ms(&self) -> Result<Option<u64>, String> {
        self.number("idle_ttl_ms")
    }

    /// Milliseconds that its tombstone stands, if that was said.
    pub fn tombstone_ms(&self) -> Result<Option<u64>, String> {
        self.number("tombstone_ttl_ms")
    }

    /// Its label, if it has one.
    pub fn label(&self) -> Result<Option<Label>, String> {
        if self.0.get("label").is_none_or(|label| label.get() == "null") {
            return Ok(None);
        }
        let text: String = self.get("label").ok_or("its label is no text")?;
        Label::new(&text).map(Some).map_err(|error| error.to_string())
    }

    fn number(&self, name: &str) -> Result<Option<u64>, String> {
        match self.0.get(name).map(|number| number.get()) {
            None | Some("null") => Ok(None),
            // Not taken for one that never ends.
            Some(number) => u64::from_json(number).map(Some).ok_or_else(|| format!("its {name} is no number of milliseconds")),
        }
    }

    /// The content to store.
    pub fn content(&self) -> Result<Content, String> {
        if self.0.contains_key("first_item") {
            return Err("it is a part of a session, as `session get` prints it with --last, --from or --head".into());
        }
        if let Some(transcript) = self.0.get("transcript") {
            return exact(transcript).ok_or_else(|| "its transcript is not one of messages, head and counters".into());
        }
        if let Some(state) = self.0.get("state") {
            return transcript(state.get());
        }
        if let Some(text) = self.get::<String>("value") {
            return Ok(Content::Value(text.into()));
        }
        if let Some(hex) = self.get::<String>("value_base16") {
            return from_base16(&hex)
                .map(|bytes| Content::Value(bytes.into()))
                .ok_or_else(|| "its value_base16 is not hex digits".into());
        }
        Err("it has none of state, value, value_base16".into())
    }

    /// The state in a file of another store: all of it but that store's own count, messages first.
    pub fn state(mut self) -> Result<Content, String> {
        self.0.remove("version");
        let messages = self.0.remove_entry("messages");
        let members: Vec<String> =
            messages.into_iter().chain(self.0).map(|(key, value)| format!("{}:{}", json!(key), value.get())).collect();
        transcript(&format!("{{{}}}", members.join(",")))
    }
}

fn transcript(state: &str) -> Result<Content, String> {
    match Content::from_json(state.as_bytes()) {
        content @ Content::Transcript { .. } => Ok(content),
        Content::Value(_) => Err("it is no session: an object with an array `messages` is expected".into()),
    }
}

fn exact(transcript: &RawValue) -> Option<Content> {
    let Document(members) = Document::of(transcript.get().as_bytes()).ok()?;
    let messages: Vec<&RawValue> = serde_json::from_str(members.get("messages")?.get()).ok()?;
    let counters: Vec<u64> = serde_json::from_str(members.get("counters")?.get()).ok()?;
    let bytes = |text: &RawValue| match String::from_json(text.get()) {
        Some(text) => Some(text.into_bytes()),
        None => Document::of(text.get().as_bytes()).ok()?.get::<String>("base16").and_then(|hex| from_base16(&hex)),
    };
    Some(Content::Transcript {
        messages: messages.into_iter().map(|message| bytes(message).map(Into::into)).collect::<Option<_>>()?,
        head: bytes(members.get("head")?)?.into(),
        counters: Counters::new(counters)?,
    })
}

/// A value read out of a member; a member of another kind counts as missing.
trait FromJson: Sized {
    fn from_json(text: &str) -> Option<Self>;
}

impl FromJson for String {
    fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl FromJson for u64 {
    fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(content: &Content) -> Content {
        let line = session_json("id\n", &Session::new(content.clone()));
        assert!(!line.contains('\n'), "one line: {line}");
        let document = Document::of(line.as_bytes()).expect("our own");
        assert_eq!(document.id().expect("it has one"), "id\n");
        document.content().expect("our own")
    }

    /// JSON as people and programs write it: white space, any number, keys in any order and twice, escapes, half a surrogate pair.
    fn any_json() -> impl Strategy<Value = String> {
        let space = || prop_oneof![4 => Just(""), 1 => Just(" "), 1 => Just("\n"), 1 => Just("\r\n\t")];
        let number = prop_oneof![
            "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
            any::<f64>().prop_map(|n| json!(n).to_string())
        ];
        let text = prop_oneof![
            "[a-c ü\u{7f}]{0,5}".prop_map(|text| format!("\"{text}\"")),
            Just(r#""\ud800""#.to_owned()),
            Just(r#""\/\u00fc\n""#.to_owned()),
        ];
        let leaf = prop_oneof![number, text.clone(), Just("null".to_owned()), Just("true".to_owned())];
        leaf.prop_recursive(5, 40, 5, move |inner| {
            let items = proptest::collection::vec((space(), inner.clone()), 0..4);
            let members = proptest::collection::vec((text.clone(), space(), inner), 0..4);
            prop_oneof![
                (items, space()).prop_map(|(items, space)| {
                    format!("[{}{space}]", items.iter().map(|(space, item)| format!("{space}{item}")).collect::<Vec<_>>().join(","))
                }),
                (members, space()).prop_map(|(members, space)| {
                    let members: Vec<String> =
                        members.iter().map(|(key, space, value)| format!("{space}{key}{space}:{value}")).collect();
                    format!("{{{}{space}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        /// Text that is stored and loaded, exported and imported, comes back unchanged.
        #[test]
        fn any_json_comes_back_from_a_line_as_the_text_it_was(messages in proptest::collection::vec(any_json(), 0..4), other in any_json(), first: bool) {
            let messages = messages.join(",");
            let text = match first {
                true => format!("{{\"messages\":[{messages}],\"other\":{other}}}"),
                false => format!("{{\"other\":{other},\"messages\":[{messages}],\"total_usage\":{{\"prompt_tokens\":7,\"completion_tokens\":0}}}}"),
            };
            let content = Content::from_json(text.as_bytes());
            let is_transcript = matches!(content, Content::Transcript { .. });
            prop_assert!(is_transcript, "{}", text);
            let stored = String::from_utf8(back(&content).to_json().expect("JSON")).expect("text");
            let is_compact = |text: &str| !text.contains([' ', '\n', '\t']);
            if is_compact(&text) {
                prop_assert_eq!(&stored, &text);
            }
            prop_assert_eq!(back(&content), content);
        }

        /// Whatever an application stores: transcripts that are no JSON, counters without a head that speaks of them, any bytes.
        #[test]
        fn any_content_comes_back_from_a_line_as_it_was(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..4),
            head in prop_oneof![Just(b"{}".to_vec()), Just(br#"{"total_usage":"counters"}"#.to_vec()), proptest::collection::vec(any::<u8>(), 0..9)],
            counters in proptest::collection::vec(any::<u64>(), 0..5),
        ) {
            let messages = messages.into_iter().map(Into::into).collect();
            let value = Content::Value(head.clone().into());
            prop_assert_eq!(back(&value), value);
            let transcript = Content::Transcript { messages, head: head.into(), counters: Counters::new(counters).expect("few") };
            prop_assert_eq!(back(&transcript), transcript);
        }
    }

    #[test]
    fn a_transcript_that_lies_across_lines_is_one_line_and_comes_back_as_it_was() {
        let content = Content::from_json(b"{\"messages\":[{\n  \"a\": 1\n}]}");
        let line = session_json("a", &Session::new(content.clone()));
        assert!(line.contains(r#""state":{"messages":[{   "a": 1 }]},"transcript":{"#), "{line}");
        assert_eq!(back(&content), content);
    }

    #[test]
    fn what_state_gives_back_is_written_once() {
        let line = session_json("a", &Session::new(Content::from_json(br#"{"messages":[{"wei":19876543210987654321}]}"#)));
        assert!(line.ends_with(r#","state":{"messages":[{"wei":19876543210987654321}]}}"#), "{line}");
    }

    /// A value of any depth: each level around it is one level more.
    #[test]
    fn what_is_nested_to_any_depth_comes_back() {
        for depth in [125, 126, 127, 128, 129, 5000] {
            let deep = "[".repeat(depth) + &"]".repeat(depth);
            let text = format!("{{\"messages\":[{deep}],\"other\":{deep}}}");
            let content = Content::from_json(text.as_bytes());
            assert_eq!(String::from_utf8(back(&content).to_json().expect("JSON")).expect("text"), text);
            assert_eq!(back(&Content::from_json(deep.as_bytes())), Content::Value(deep.into_bytes().into()));
        }
    }

    #[test]
    fn the_file_of_another_store_is_its_state_without_its_count() {
        let file = br#"{ "version": 3, "memory_summary": null, "messages": [{"role":"user","content":"x", "n": 1.50}], "total_usage": {"prompt_tokens":1,"completion_tokens":2} }"#;
        let content = Document::of(file).expect("an object").state().expect("a state");
        let expected = r#"{"messages":[{"role":"user","content":"x", "n": 1.50}],"memory_summary":null,"total_usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        assert_eq!(String::from_utf8(content.to_json().expect("JSON")).expect("text"), expected);
    }

    #[test]
    fn hex_is_bytes_or_nothing() {
        assert_eq!(from_base16("00fF"), Some(vec![0, 255]));
        assert_eq!(from_base16(""), Some(vec![]));
        assert_eq!(from_base16("0"), None);
        assert_eq!(from_base16("+1"), None);
    }
}
