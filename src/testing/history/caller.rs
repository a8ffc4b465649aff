//! A client at random work that writes down what it was answered.

use bytes::Bytes;
use tokio::time::Instant;

use super::{Answer, Ask, Op, Recorder, value};
use crate::client::{Client, Content, Error, ErrorKind, LoadOptions, Read, WriteOptions};
use crate::testing::inline::SeededRandom;
use crate::types::{Consistency, Expected, Version};

/// One process of a history: saves, conditional saves, loads, stale loads and deletes of a few sessions, one at a time.
#[derive(Debug)]
pub struct Caller {
    process: usize,
    client: Client,
    recorder: Recorder,
    /// When the history begins.
    began: Instant,
    random: SeededRandom,
    seen: Vec<u64>,
    sequence: u64,
}

impl Caller {
    /// Works on the sessions `k0` to `k(keys - 1)`. All callers of a history share `recorder` and `began`, and differ in `process`.
    #[must_use]
    pub fn new(process: usize, client: Client, keys: usize, recorder: Recorder, began: Instant) -> Self {
        let random = SeededRandom::new(process as u64 + 1);
        Self { process, client, recorder, began, random, seen: vec![0; keys], sequence: 0 }
    }

    /// Makes one call and records it. Dropping the future leaves the call in the history as one whose answer is unknown; the caller
    /// must not go on then.
    pub async fn step(&mut self) -> Answer {
        let key = self.random.below(self.seen.len() as u64) as usize;
        let ask = self.choose(key);
        self.call(key, ask).await
    }

    /// Makes this call and records it, as [`Caller::step`].
    ///
    /// Panics if the client answers what no such call can lead to: a refusal of its arguments, damage.
    pub async fn call(&mut self, key: usize, ask: Ask) -> Answer {
        let at = self.recorder.invoke(Op::invoke(self.process, key, ask, self.began.elapsed()));
        let beside = self.random.below(4) == 0;
        let beside = beside.then(|| format!("k{}", self.random.below(self.seen.len() as u64)));
        let to = Called { id: &format!("k{key}"), beside: beside.as_deref() };
        let answer = perform(&self.client, to, ask, WriteOptions::default(), content, stored).await;
        let answer = answer.unwrap_or_else(|surprise| panic!("no call here leads to it: {surprise:?}"));
        self.recorder.complete(at, answer, self.began.elapsed());
        match answer {
            Answer::Found { version, .. } => self.seen[key] = version,
            Answer::Written { version, .. } => self.seen[key] = if ask.removes() { 0 } else { version },
            Answer::Conflict { actual, .. } => self.seen[key] = actual,
            Answer::NotFound { .. } | Answer::NothingThere => self.seen[key] = 0,
            Answer::Refused | Answer::Unknown => {}
        }
        answer
    }

    fn choose(&mut self, key: usize) -> Ask {
        self.sequence += 1;
        let value = value(self.process, self.sequence);
        match self.random.below(20) {
            0..7 => Ask::Load,
            7 => Ask::LoadStale,
            8..13 => Ask::Save { value },
            13..18 => {
                // Mostly what was seen last; sometimes what cannot be right.
                let expected = if self.random.below(8) == 0 { self.random.below(5) } else { self.seen[key] };
                Ask::SaveIf { expected, value }
            }
            _ => Ask::Delete,
        }
    }
}

/// An outcome that is no answer to any call of a history.
#[derive(Debug)]
pub enum Surprise {
    /// The client answered this.
    Error(Error),
    /// The session held bytes that nobody stored, at this version.
    Content(Version),
}

/// The session of a call.
#[derive(Clone, Copy, Debug)]
pub struct Called<'i> {
    /// Its id.
    pub id: &'i str,
    /// A linearizable load loads it together with this one, whose answer nobody looks at: it is the first in the view of both.
    pub beside: Option<&'i str>,
}

/// Makes one call through `client`, of values that `content` turns into bytes and `stored` knows again. Dropping the future leaves the
/// outcome unknown. Errors: what no such call leads to.
pub async fn perform(
    client: &Client,
    Called { id, beside }: Called<'_>,
    ask: Ask,
    options: WriteOptions,
    content: impl Fn(u64) -> Content,
    stored: impl Fn(&Bytes) -> Option<u64>,
) -> Result<Answer, Surprise> {
    let written = match ask {
        Ask::Load => return found(load(client, id, beside).await, stored),
        Ask::LoadStale => {
            return found(client.load_with(id, LoadOptions { consistency: Consistency::Stale }).await, stored);
        }
        Ask::Save { value } => client.save(id, content(value), options).await.map(Some),
        Ask::SaveIf { expected, value } => {
            let at = Expected::At { version: Version(expected), create_revision: None };
            let expected = if expected == 0 { Expected::Absent } else { at };
            client.save_if_version(id, content(value), expected, options).await.map(Some)
        }
        Ask::Delete => client.delete(id, None).await,
        Ask::Expire => panic!("nobody asks a session to expire"),
    };
    match written {
        Ok(Some(written)) => Ok(Answer::Written { version: written.version.0, revision: written.revision.0 }),
        Ok(None) => Ok(Answer::NothingThere),
        Err(error) => failed(error),
    }
}

fn failed(error: Error) -> Result<Answer, Surprise> {
    match (error.kind(), error.revision()) {
        (ErrorKind::Conflict { actual }, Some(revision)) => Ok(Answer::Conflict { actual: actual.0, revision: revision.0 }),
        (ErrorKind::Refused { .. }, _) => Ok(Answer::Refused),
        (ErrorKind::Indeterminate, _) => Ok(Answer::Unknown),
        _ => Err(Surprise::Error(error)),
    }
}

async fn load(client: &Client, id: &str, beside: Option<&str>) -> Result<Read, Error> {
    if let Some(beside) = beside {
        match client.load_many_with(&[beside, id], LoadOptions::default()).await.map(|mut reads| reads.pop()) {
            Ok(read) => return Ok(read.unwrap_or_default()),
            // They are too large together.
            Err(error) if error.kind() == ErrorKind::Invalid => {}
            Err(error) => return Err(error),
        }
    }
    client.load_with(id, LoadOptions::default()).await
}

fn found(read: Result<Read, Error>, stored: impl Fn(&Bytes) -> Option<u64>) -> Result<Answer, Surprise> {
    let read = match read {
        Ok(read) => read,
        // It has nothing to conflict with.
        Err(error) if matches!(error.kind(), ErrorKind::Conflict { .. }) => return Err(Surprise::Error(error)),
        Err(error) => return failed(error),
    };
    let Some(session) = read.session else {
        return Ok(Answer::NotFound { tombstone: read.tombstone.0, revision: read.revision.0 });
    };
    let version = session.info.version;
    let value = match &session.content {
        Content::Value(bytes) => stored(bytes),
        Content::Transcript { .. } => None,
    };
    let value = value.ok_or(Surprise::Content(version))?;
    Ok(Answer::Found { version: version.0, value, revision: read.revision.0 })
}

/// The bytes of a value: some small, some not, and none a part of another.
#[must_use]
pub fn content(value: u64) -> Content {
    let filler = if value.is_multiple_of(8) { 20_000 } else { 40 + value % 400 };
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(8 + filler as usize, value as u8);
    Content::Value(Bytes::from(bytes))
}

/// The value of which `bytes` are [`content`], all of it.
#[must_use]
pub fn stored(bytes: &Bytes) -> Option<u64> {
    let value = u64::from_le_bytes(*bytes.first_chunk::<8>()?);
    (content(value) == Content::Value(bytes.clone())).then_some(value)
}
