//! Content from and to JSON: what the command line and other programs store.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::super::{Content, Error};
use super::{COMPLETION, IN_COUNTERS, MESSAGES, PROMPT, USAGE, counters, usage};

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
}
