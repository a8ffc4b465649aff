//! Content from and to JSON: what the command line and other programs store.
//!
//! The inside of a message, and members beside the messages, are kept as text: numbers, the order of keys and repeated keys too.
//! Nothing here reads values into numbers or maps, so nothing is rounded, sorted or dropped, and no depth is too deep.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::{Content, Error};
use super::{COMPLETION, IN_COUNTERS, MESSAGES, PROMPT, SUMMARY, USAGE, counters, usage};

/// Holds the place of messages that were not the first member.
const PLACE: &str = "[]";

impl Content {
    /// A JSON object with an array of `messages` as a transcript, which the adapter can read if it is a session state; anything else as
    /// a value.
    pub fn from_json(bytes: &[u8]) -> Content {
        transcript_from(bytes).unwrap_or_else(|| Content::Value(Bytes::copy_from_slice(bytes)))
    }

    /// Back to bytes: the very bytes of a value; of a transcript, a JSON object with each message, and each member beside them, as the
    /// text it was. White space around those is left out.
    ///
    /// Errors: `Corrupt`, if a transcript is not JSON, which only another program can have stored.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        let (messages, head, counters) = match self {
            Content::Value(bytes) => return Ok(bytes.to_vec()),
            Content::Transcript { messages, head, counters } => (messages, head, counters),
        };
        let corrupt = |error: serde_json::Error| Error::corrupt(format!("the transcript is not JSON: {error}"));
        let Members(members) = serde_json::from_slice(head).map_err(corrupt)?;
        let messages = array(messages).map_err(corrupt)?;
        let mut object = Object::default();
        if !members.iter().any(|member| member.name() == MESSAGES) {
            object.push(MESSAGES_KEY, &messages);
        }
        for member in &members {
            match &*member.name() {
                MESSAGES => object.push(member.key.get(), &messages),
                USAGE if is_in_counters(member.value) => {
                    let [prompt, completion] = usage(counters);
                    object.push(member.key.get(), &format!("{{\"{PROMPT}\":{prompt},\"{COMPLETION}\":{completion}}}"));
                }
                _ => object.push(member.key.get(), member.value.get()),
            }
        }
        Ok(object.end().into_bytes())
    }
}

/// The summary that a head names. Error: the head is no object, or its summary no text.
pub(super) fn summary(head: &[u8]) -> Result<Option<String>, String> {
    let Members(members) = serde_json::from_slice(head).map_err(|error| error.to_string())?;
    // As everywhere: of members of one name the last one counts.
    let Some(member) = members.iter().rfind(|member| member.name() == SUMMARY) else { return Ok(None) };
    serde_json::from_str(member.value.get()).map_err(|_| "the session's memory_summary is not a string".into())
}

/// The head of a session whose state is now that of `new`: its summary, usage in the counters, and what else was in `old`, as it was.
/// `None`: nothing of `old` is to be kept.
pub(super) fn head_after(old: &[u8], new: &[u8]) -> Option<String> {
    let Members(members) = serde_json::from_slice(old).ok()?;
    let now = summary(new).ok()?;
    let is_kept = summary(old).is_ok_and(|before| before == now);
    let text = serde_json::to_string(&now).ok()?;
    let mut head = Object::default();
    let (mut has_summary, mut has_usage) = (false, false);
    for member in &members {
        let name = member.name();
        let value = match &*name {
            SUMMARY if !is_kept => &text,
            USAGE => IN_COUNTERS_TEXT,
            _ => member.value.get(),
        };
        has_summary |= name == SUMMARY;
        has_usage |= name == USAGE;
        head.push(member.key.get(), value);
    }
    if !has_summary {
        head.push(&format!("\"{SUMMARY}\""), &text);
    }
    if !has_usage {
        head.push(&format!("\"{USAGE}\""), IN_COUNTERS_TEXT);
    }
    Some(head.end())
}

/// How deep JSON is nested; of anything else, some number.
pub(super) fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// [`IN_COUNTERS`], as JSON.
const IN_COUNTERS_TEXT: &str = "\"counters\"";
const MESSAGES_KEY: &str = "\"messages\"";

/// The messages in one array. Error: one is not JSON.
fn array(messages: &[Bytes]) -> Result<String, serde_json::Error> {
    let mut array = String::with_capacity(messages.iter().map(|message| message.len() + 1).sum::<usize>() + 2);
    array.push('[');
    for (at, message) in messages.iter().enumerate() {
        if at > 0 {
            array.push(',');
        }
        array.push_str(serde_json::from_slice::<&RawValue>(message)?.get());
    }
    array.push(']');
    Ok(array)
}

/// An object that is being written.
#[derive(Default)]
struct Object(String);

impl Object {
    /// Both are JSON.
    fn push(&mut self, key: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0 += key;
        self.0.push(':');
        self.0 += value;
    }

    fn end(mut self) -> String {
        self.0 += if self.0.is_empty() { "{}" } else { "}" };
        self.0
    }
}

/// One member of an object, as it is written.
struct Member<'t> {
    key: &'t RawValue,
    value: &'t RawValue,
}

impl Member<'_> {
    /// The key without quotes and escapes. One that is no text, as half of a surrogate pair, is no name that is looked for.
    fn name(&self) -> Cow<'_, str> {
        let text = self.key.get();
        let plain = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).filter(|text| !text.contains('\\'));
        plain.map_or_else(|| serde_json::from_str(text).map_or("".into(), Cow::Owned), Cow::Borrowed)
    }
}

/// All members of an object in their order, also those of the same name.
struct Members<'t>(Vec<Member<'t>>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry()? {
                    members.push(Member { key, value });
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// Whether this is the mark of usage that is in the counters.
fn is_in_counters(usage: &RawValue) -> bool {
    serde_json::from_str::<Cow<'_, str>>(usage.get()).is_ok_and(|text| text == IN_COUNTERS)
}

/// `None` for what would not come back from a transcript as it is: then it is kept as a value.
fn transcript_from(text: &[u8]) -> Option<Content> {
    let Members(members) = serde_json::from_slice(text).ok()?;
    // Written in any other way, or twice, they are not ours to take apart.
    for (name, most) in [(MESSAGES, 1), (USAGE, 1)] {
        let named = || members.iter().filter(|member| member.name() == name);
        if named().count() > most || named().any(|member| member.key.get().len() != name.len() + 2) {
            return None;
        }
    }
    let place = members.iter().position(|member| member.name() == MESSAGES)?;
    let messages: Vec<&RawValue> = serde_json::from_str(members[place].value.get()).ok()?;
    let mut head = Object::default();
    let mut counted = None;
    for (at, Member { key, value }) in members.iter().enumerate() {
        let is_usage = members[at].name() == USAGE;
        // The mark of our own would be taken for one on the way back.
        if is_usage && is_in_counters(value) {
            return None;
        }
        let plain = if is_usage { plain_usage(value) } else { None };
        match plain {
            _ if at == place && place == 0 => {}
            _ if at == place => head.push(key.get(), PLACE),
            None => head.push(key.get(), value.get()),
            Some(_) => head.push(key.get(), IN_COUNTERS_TEXT),
        }
        counted = counted.or(plain);
    }
    Some(Content::Transcript {
        messages: messages.iter().map(|message| Bytes::copy_from_slice(message.get().as_bytes())).collect(),
        head: head.end().into(),
        counters: counters(counted.unwrap_or_default()),
    })
}

/// Exactly the two counts of a session state, as numbers that come back as they are.
fn plain_usage(usage: &RawValue) -> Option<[u64; 2]> {
    let Members(members) = serde_json::from_str(usage.get()).ok()?;
    let count = |name: &str| {
        let member = members.iter().find(|member| member.name() == name)?;
        serde_json::from_str::<u64>(member.value.get()).ok()
    };
    if members.len() == 2 { Some([count(PROMPT)?, count(COMPLETION)?]) } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn back(json: &str) -> String {
        String::from_utf8(Content::from_json(json.as_bytes()).to_json().expect("our own")).expect("JSON is text")
    }

    fn is_transcript(json: &str) -> bool {
        matches!(Content::from_json(json.as_bytes()), Content::Transcript { .. })
    }

    #[test]
    fn a_state_survives_as_a_transcript() {
        let json = r#"{"messages":[{"role":"user","content":"hi"}],"memory_summary":null,"total_usage":{"prompt_tokens":7,"completion_tokens":0},"version":3}"#;
        assert_eq!(back(json), json);
        let Content::Transcript { counters, head, .. } = Content::from_json(json.as_bytes()) else { panic!("a transcript") };
        assert_eq!(counters.as_slice(), [7]);
        assert_eq!(head, r#"{"memory_summary":null,"total_usage":"counters","version":3}"#);
    }

    /// Numbers no double holds, keys out of order and twice, white space, escapes, half a surrogate pair, a depth no parser of values takes.
    #[test]
    fn what_a_message_was_comes_back_byte_for_byte() {
        let deep = format!("{{\"messages\":[{}1{}]}}", "[".repeat(5000), "]".repeat(5000));
        for json in [
            r#"{"messages":[{"wei":19876543210987654321,"score":0.22804233599890722}]}"#,
            r#"{"messages":[{"b":1,"a":2,"b":3},1e999,-0,1.0,1E+2,"\ud800","\/ü\u00fc",{ "a" : [ 1 , 2 ] }]}"#,
            r#"{"messages":[1,null,{"a":[{}]}],"x":{"y":0},"total_usage":null,"x":7.10}"#,
            r#"{"z":1.50,"messages":["m"],"a":{"b":1,"a":0,"b":1},"\u0061":2}"#,
            r#"{"messages":["m"],"total_usage":{"prompt_tokens":1,"completion_tokens":2,"cached":3}}"#,
            r#"{"messages":["m"],"total_usage":{"prompt_tokens":-1,"completion_tokens":2}}"#,
            r#"{"messages":["m"],"total_usage":{"prompt_tokens":1,"prompt_tokens":2}}"#,
            r#"{"messages":[]}"#,
            &deep,
        ] {
            assert!(is_transcript(json), "{json}");
            assert_eq!(back(json), json);
            assert_eq!(Content::from_json(back(json).as_bytes()), Content::from_json(json.as_bytes()));
        }
    }

    #[test]
    fn white_space_is_left_out_between_members_and_messages_and_kept_within() {
        assert_eq!(
            back("\n{ \"a\" : 1.0 ,\n\"messages\" : [ { \"b\" : [ ] } , 2 ] }\n"),
            "{\"a\":1.0,\"messages\":[{ \"b\" : [ ] },2]}"
        );
    }

    #[test]
    fn everything_else_is_a_value_byte_for_byte() {
        for bytes in [
            "",
            "hello",
            "[1]",
            " {\"messages\" : 1}",
            r#"{"a":1}"#,
            "\u{0}",
            r#"{"messages":[],"total_usage":"counters"}"#,
            r#"{"messages":[],"total_usage":"c\u006funters"}"#,
            r#"{"messages":[],"messages":[]}"#,
            r#"{"m\u0065ssages":[]}"#,
            r#"{"messages":[],"m\u0065ssages":[]}"#,
            r#"{"messages":[],"total_usage":{"prompt_tokens":1,"completion_tokens":2},"total_usage":1}"#,
            r#"{"messages":[]} {}"#,
            r#"{"messages":[01]}"#,
        ] {
            let content = Content::from_json(bytes.as_bytes());
            assert_eq!(content, Content::Value(Bytes::copy_from_slice(bytes.as_bytes())));
            assert_eq!(content.to_json().expect("a value"), bytes.as_bytes());
        }
    }

    /// Content of earlier builds and of the adapter has its own head, without a place for the messages.
    #[test]
    fn a_head_without_a_place_for_the_messages_has_them_first() {
        let head = r#"{"memory_summary":null,"total_usage":"counters"}"#;
        let stored = Content::Transcript { messages: vec!["1".into()], head: head.into(), counters: counters([1, 2]) };
        let json = stored.to_json().expect("JSON");
        let expected = r#"{"messages":[1],"memory_summary":null,"total_usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        assert_eq!(String::from_utf8_lossy(&json), expected);
        assert_eq!(Content::from_json(&json), stored);
    }

    /// An earlier build reads this one's content: it takes a head for a map and puts the messages in.
    #[test]
    fn the_place_of_the_messages_is_a_member_that_earlier_builds_replace() {
        let Content::Transcript { head, .. } = Content::from_json(br#"{"a":1,"messages":[1],"b":2}"#) else {
            panic!("a transcript")
        };
        let map: serde_json::Map<String, Value> = serde_json::from_slice(&head).expect("an object");
        assert_eq!(Value::Object(map), serde_json::json!({ "a": 1, "messages": [], "b": 2 }));
    }

    #[test]
    fn depth_is_counted_outside_of_text() {
        for (json, expected) in
            [("1", 0), ("[]", 1), (r#"{"a":[{}],"b":[]}"#, 3), (r#"["[[[","\\\"[[",[]]"#, 2), (r#"["\\",[[]]]"#, 3)]
        {
            assert_eq!(depth(json.as_bytes()), expected, "{json}");
        }
    }

    /// A turn of an agent changes the summary and the usage, and leaves other members alone.
    #[test]
    fn a_turn_leaves_the_rest_of_a_head_as_it_was() {
        let new = r#"{"memory_summary":"s","total_usage":"counters"}"#;
        let after = |old: &str| head_after(old.as_bytes(), new.as_bytes());
        assert_eq!(after(new).as_deref(), Some(new));
        assert_eq!(after("{}").as_deref(), Some(new));
        let old = r#"{"total_usage":"counters","z":1.50,"memory_summary":"\u0073","z":[]}"#;
        assert_eq!(after(old).as_deref(), Some(old), "the same summary, in other letters");
        let other = r#"{"total_usage":null,"z":1.50,"memory_summary":null,"messages":[]}"#;
        let expected = r#"{"total_usage":"counters","z":1.50,"memory_summary":"s","messages":[]}"#;
        assert_eq!(after(other).as_deref(), Some(expected));
        assert_eq!(after(""), None);
    }

    #[test]
    fn a_transcript_that_is_no_json_is_said_to_be_none() {
        let head = || Bytes::from_static(b"{}");
        let of = |messages: Vec<Bytes>, head| Content::Transcript { messages, head, counters: counters([0, 0]) }.to_json();
        assert!(of(vec!["{".into()], head()).is_err());
        assert!(of(vec!["".into()], head()).is_err());
        assert!(of(vec![], "[]".into()).is_err());
        assert!(of(vec!["1".into()], head()).is_ok());
    }
}
