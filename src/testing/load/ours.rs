//! Our own client as a target.

use bytes::Bytes;

use super::{Cas, Failure, Finished, Target, Transcript, Turn, Turns};
use crate::client::{Client, Content, Counters, Error, ErrorKind, Expected, Version, WriteOptions};

/// How often a turn is made again on a newer session before it is a failure.
const CONFLICTS_MAX: u64 = 1000;

/// Plain values.
#[derive(Clone, Debug)]
pub struct Values(pub Client);

/// Agents' turns by the typed API: transcripts, conditional saves.
#[derive(Clone, Debug)]
pub struct Transcripts(pub Client);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { message: error.to_string(), may_have_happened: error.kind() == ErrorKind::Indeterminate }
    }
}

fn expected(version: u64) -> Expected {
    match version {
        0 => Expected::Absent,
        version => Expected::At { version: Version(version), create_revision: None },
    }
}

impl Target for Values {
    async fn save(&self, key: &str, value: Bytes) -> Result<u64, Failure> {
        Ok(self.0.save(key, Content::Value(value), WriteOptions::default()).await?.version.0)
    }

    async fn save_if(&self, key: &str, value: Bytes, version: u64) -> Result<Cas, Failure> {
        save_if(&self.0, key, Content::Value(value), version).await
    }

    async fn load(&self, key: &str) -> Result<Option<(u64, Bytes)>, Failure> {
        let Some(session) = self.0.load(key).await? else { return Ok(None) };
        match session.content {
            Content::Value(bytes) => Ok(Some((session.info.version.0, bytes))),
            Content::Transcript { .. } => Err(Failure::unchanged(format!("a transcript where a value was stored key={key}"))),
        }
    }
}

async fn save_if(client: &Client, key: &str, content: Content, version: u64) -> Result<Cas, Failure> {
    match client.save_if_version(key, content, expected(version), WriteOptions::default()).await {
        Ok(written) => Ok(Cas::Saved(written.version.0)),
        Err(error) => match error.kind() {
            ErrorKind::Conflict { actual } => Ok(Cas::Conflict(actual.0)),
            _ => Err(error.into()),
        },
    }
}

impl Turns for Transcripts {
    type Base = (u64, Transcript);

    async fn begin(&self, key: &str) -> Result<Self::Base, Failure> {
        let Some(session) = self.0.load(key).await? else { return Ok((0, Transcript::default())) };
        let Content::Transcript { messages, counters, .. } = session.content else {
            return Err(Failure::unchanged(format!("a value where a transcript was stored key={key}")));
        };
        Ok((session.info.version.0, Transcript { messages, usage: [counters.at(0), counters.at(1)] }))
    }

    async fn finish(&self, key: &str, base: Self::Base, turn: &Turn) -> Result<Finished, Failure> {
        let (mut version, mut transcript) = base;
        for conflicts in 0..CONFLICTS_MAX {
            transcript.messages.extend_from_slice(&turn.messages);
            let usage = [transcript.usage[0] + turn.usage[0], transcript.usage[1] + turn.usage[1]];
            match save_if(&self.0, key, content(transcript.messages, usage), version).await? {
                Cas::Saved(_) => return Ok(Finished { conflicts }),
                Cas::Conflict(_) => (version, transcript) = self.begin(key).await?,
            }
        }
        Err(Failure::unchanged(format!("every attempt lost against others attempts={CONFLICTS_MAX}")))
    }

    async fn reset(&self, key: &str) -> Result<(), Failure> {
        self.0.save(key, content(Vec::new(), [0, 0]), WriteOptions::default()).await?;
        Ok(())
    }

    async fn transcript(&self, key: &str) -> Result<Transcript, Failure> {
        Ok(self.begin(key).await?.1)
    }
}

fn content(messages: Vec<Bytes>, usage: [u64; 2]) -> Content {
    let counters = Counters::new(usage.to_vec()).expect("two are below the bound of counters");
    Content::Transcript { messages, head: Bytes::from_static(b"{}"), counters }
}
