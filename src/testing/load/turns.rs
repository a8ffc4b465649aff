//! Agents' turns: a session is loaded, a turn is thought up, and what it said is stored.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use super::{Cas, Failure, Target};

/// How often a turn is made again on a newer document before it is a failure.
const CONFLICTS_MAX: u64 = 1000;
const HEAD: &[u8] = b"{\"messages\":[";
const TAIL: &[u8] = b"],\"usage\":[";

/// One turn's addition to its session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Messages, JSON objects in the form of Bob's, in order.
    pub messages: Vec<Bytes>,
    /// Tokens of prompts and of completions.
    pub usage: [u64; 2],
}

/// A session's whole content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// All messages, JSON objects; equal by value to those that were stored, if not byte by byte.
    pub messages: Vec<Bytes>,
    /// Tokens of prompts and of completions, of all turns together.
    pub usage: [u64; 2],
}

/// How a turn was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// How often the store had to be asked again, since another turn was first.
    pub conflicts: u64,
}

/// A store of agents' sessions. Racing turns on one session must all be kept, each once, each in one piece.
pub trait Turns: Send + Sync + 'static {
    /// A session as it was when a turn began.
    type Base: Send;

    /// Loads the session, linearizably; a new one is empty. Errors: as [`Failure`] says.
    fn begin(&self, key: &str) -> impl Future<Output = Result<Self::Base, Failure>> + Send;

    /// Adds the turn to the session it began on. Errors: as [`Failure`] says; a race is none.
    fn finish(&self, key: &str, base: Self::Base, turn: &Turn) -> impl Future<Output = Result<Finished, Failure>> + Send;

    /// Empties the session, whatever it holds. Errors: as [`Failure`] says.
    fn reset(&self, key: &str) -> impl Future<Output = Result<(), Failure>> + Send;

    /// All that the session holds now, for an audit. Errors: as [`Failure`] says, and content that no turn stored.
    fn transcript(&self, key: &str) -> impl Future<Output = Result<Transcript, Failure>> + Send;
}

/// Turns over any [`Target`]: the whole document is loaded and stored, on a conflict again with the newest. Growing it costs a copy, no
/// parsing: no application could ask less of its store.
#[derive(Debug)]
pub struct Whole<T>(pub Arc<T>);

impl<T: Target> Turns for Whole<T> {
    type Base = (u64, Bytes);

    async fn begin(&self, key: &str) -> Result<Self::Base, Failure> {
        Ok(self.0.load(key).await?.unwrap_or_default())
    }

    async fn finish(&self, key: &str, base: Self::Base, turn: &Turn) -> Result<Finished, Failure> {
        let (mut version, mut document) = base;
        for conflicts in 0..CONFLICTS_MAX {
            match self.0.save_if(key, grown(&document, turn)?, version).await? {
                Cas::Saved(_) => return Ok(Finished { conflicts }),
                Cas::Conflict(_) => (version, document) = self.begin(key).await?,
            }
        }
        Err(Failure::unchanged(format!("every attempt lost against others attempts={CONFLICTS_MAX}")))
    }

    async fn reset(&self, key: &str) -> Result<(), Failure> {
        self.0.save(key, document(&[], [0, 0])).await.map(drop)
    }

    async fn transcript(&self, key: &str) -> Result<Transcript, Failure> {
        let (_, document) = self.begin(key).await?;
        let (messages, usage) = parts(&document)?;
        let messages = split(messages)?;
        Ok(Transcript { messages, usage })
    }
}

fn document(messages: &[u8], usage: [u64; 2]) -> Bytes {
    let usage = format!("{},{}]}}", usage[0], usage[1]);
    [HEAD, messages, TAIL, usage.as_bytes()].concat().into()
}

/// The document with a turn more. Errors: it is none of ours.
fn grown(old: &[u8], turn: &Turn) -> Result<Bytes, Failure> {
    let (messages, usage) = parts(old)?;
    let more: usize = turn.messages.iter().map(|message| message.len() + 1).sum();
    let mut all = Vec::with_capacity(messages.len() + more);
    all.extend_from_slice(messages);
    for message in &turn.messages {
        if !all.is_empty() {
            all.push(b',');
        }
        all.extend_from_slice(message);
    }
    Ok(document(&all, [usage[0] + turn.usage[0], usage[1] + turn.usage[1]]))
}

/// The messages of a document, with commas between, and its usage. An absent one is empty.
fn parts(document: &[u8]) -> Result<(&[u8], [u64; 2]), Failure> {
    if document.is_empty() {
        return Ok((document, [0, 0]));
    }
    let parse = || {
        let rest = document.strip_prefix(HEAD)?;
        // No message holds the tail: its brackets and quotes would be escaped, and no array in one is followed by a usage.
        let at = rest.windows(TAIL.len()).rposition(|window| window == TAIL)?;
        let usage = std::str::from_utf8(&rest[at + TAIL.len()..]).ok()?.strip_suffix("]}")?;
        let (prompts, completions) = usage.split_once(',')?;
        Some((&rest[..at], [prompts.parse().ok()?, completions.parse().ok()?]))
    };
    parse().ok_or_else(|| Failure::unchanged(format!("the stored document is no transcript bytes={}", document.len())))
}

fn split(messages: &[u8]) -> Result<Vec<Bytes>, Failure> {
    let array = [b"[", messages, b"]"].concat();
    let values: Vec<serde_json::Value> = serde_json::from_slice(&array).map_err(Failure::unchanged)?;
    Ok(values.iter().map(|value| value.to_string().into()).collect())
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;

    fn turn(text: &str) -> Turn {
        let message = |role: &str| Bytes::from(format!("{{\"content\":\"{text}\",\"role\":\"{role}\"}}"));
        Turn { messages: vec![message("user"), message("assistant")], usage: [3, 4] }
    }

    #[tokio::test]
    async fn turns_that_race_are_all_kept_once_and_in_one_piece() {
        let store = Whole(Arc::new(Memory::default()));
        let (one, other) = (store.begin("k").await.expect("empty"), store.begin("k").await.expect("empty"));
        assert_eq!(store.finish("k", one, &turn("one")).await, Ok(Finished { conflicts: 0 }));
        assert_eq!(store.finish("k", other, &turn("other")).await, Ok(Finished { conflicts: 1 }));
        let expected = [turn("one").messages, turn("other").messages].concat();
        assert_eq!(store.transcript("k").await, Ok(Transcript { messages: expected, usage: [6, 8] }));
        store.reset("k").await.expect("stored");
        assert_eq!(store.transcript("k").await, Ok(Transcript::default()));
    }

    #[tokio::test]
    async fn what_is_no_transcript_is_reported_and_not_overwritten() {
        let memory = Arc::new(Memory::default());
        let store = Whole(memory.clone());
        for other in
            ["x", "{\"messages\":[],\"usage\":[1]}", "{\"messages\":[],\"usage\":[1,2]", "{\"messages\":[,],\"usage\":[1,2]}"]
        {
            memory.save("k", other.into()).await.expect("stored");
            assert!(store.transcript("k").await.is_err(), "{other}");
        }
        memory.save("k", "x".into()).await.expect("stored");
        let base = store.begin("k").await.expect("loads");
        assert!(store.finish("k", base, &turn("one")).await.is_err());
    }
}
