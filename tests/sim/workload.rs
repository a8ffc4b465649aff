//! Clients that save, load and delete, remember what they were told, and sometimes lose patience.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate::client::{Client, Content, Error, ErrorKind, Expected, LoadOptions, Version, WriteOptions};
use quorate::env::Clock;
use quorate::testing::history::{Answer, Ask, Op};
use quorate::testing::inline::SeededRandom;

use super::net::SimNet;
use super::node::{Host, HostClock};

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Faults,
    /// Faults have ended; clients go on.
    Healing,
    /// Clients end; what is there is read.
    Scan,
}

/// What the driver and the clients share.
pub struct Shared {
    pub phase: Phase,
    pub history: Vec<Op>,
    pub values: u64,
}

/// One client.
pub struct Caller {
    pub id: usize,
    pub nodes: u64,
    pub keys: usize,
    pub think_ms: u64,
    pub shared: Arc<Mutex<Shared>>,
    random: Arc<SeededRandom>,
    clock: Arc<HostClock>,
    seen: Vec<u64>,
}

impl Caller {
    pub fn new(id: usize, seed: u64, nodes: u64, keys: usize, think_ms: u64, shared: Arc<Mutex<Shared>>) -> Self {
        let random = Arc::new(SeededRandom::new(seed.wrapping_mul(7919).wrapping_add(id as u64)));
        let clock = Arc::new(HostClock::new(0));
        Self { id, nodes, keys, think_ms, shared, random, clock, seen: vec![0; keys] }
    }

    /// Works until the scan.
    pub async fn run(mut self) {
        let mut client = self.connect();
        while self.phase() < Phase::Scan {
            let key = self.random.below(self.keys as u64) as usize;
            let ask = self.choose(key);
            // A caller may go away at any moment; what it handed over goes on.
            let patience = if self.random.below(16) == 0 { self.random.below(300) } else { 60_000 };
            self.call(&client, key, ask, Duration::from_millis(patience)).await;
            if self.random.below(100) == 0 {
                client = self.connect();
            }
            tokio::time::sleep(Duration::from_millis(self.random.below(self.think_ms + 1))).await;
        }
    }

    pub fn phase(&self) -> Phase {
        self.shared.lock().expect("no client panics with it").phase
    }

    /// A new client, with deadlines short enough to be missed at times.
    pub fn connect(&self) -> Client {
        let mut endpoints: Vec<String> = (1..=self.nodes).map(|id| format!("{}:7460", Host::name(id))).collect();
        endpoints.rotate_left(self.random.below(self.nodes) as usize);
        let deadline = |choice: u64| Duration::from_millis([300, 1000, 3000, 8000][choice as usize]);
        Client::builder()
            .endpoints(endpoints)
            .write_deadline(deadline(self.random.below(4)))
            .read_deadline(deadline(self.random.below(4)))
            .connect_timeout(Duration::from_millis(500))
            .connector(Arc::new(SimNet))
            .env(self.clock.clone(), self.random.clone())
            .build()
            .expect("valid endpoints and deadlines")
    }

    fn choose(&self, key: usize) -> Ask {
        let value = || {
            let mut shared = self.shared.lock().expect("no client panics with it");
            shared.values += 1;
            shared.values
        };
        match self.random.below(20) {
            0..8 => Ask::Load,
            8..13 => Ask::Save { value: value() },
            13..18 => {
                // Mostly what was seen last; sometimes what cannot be right.
                let expected = if self.random.below(8) == 0 { self.random.below(5) } else { self.seen[key] };
                Ask::SaveIf { expected, value: value() }
            }
            _ => Ask::Delete,
        }
    }

    /// One operation, written into the history.
    pub async fn call(&mut self, client: &Client, key: usize, ask: Ask, patience: Duration) -> Answer {
        let invoked = self.clock.now();
        // It stands in the history while it runs: what a simulation ends in the middle of may have happened.
        let op = Op::invoke(self.id, key, ask, invoked);
        let at = {
            let mut shared = self.shared.lock().expect("no client panics with it");
            shared.history.push(op);
            shared.history.len() - 1
        };
        let answered = tokio::time::timeout(patience, perform(client, &format!("k{key}"), ask)).await;
        let answer = answered.unwrap_or(Answer::Unknown);
        let returned = self.clock.now();
        {
            let mut shared = self.shared.lock().expect("no client panics with it");
            (shared.history[at].answer, shared.history[at].returned) = (answer, returned);
        }
        match answer {
            Answer::Found { version, .. } => self.seen[key] = version,
            Answer::Written { version, .. } if ask != Ask::Delete => self.seen[key] = version,
            Answer::Conflict { actual, .. } => self.seen[key] = actual,
            Answer::NotFound { .. } | Answer::NothingThere | Answer::Written { .. } => self.seen[key] = 0,
            Answer::Refused | Answer::Unknown => {}
        }
        answer
    }
}

async fn perform(client: &Client, id: &str, ask: Ask) -> Answer {
    let options = WriteOptions::default();
    let written = match ask {
        Ask::Load => return loaded(client, id).await,
        Ask::Save { value } => client.save(id, content(value), options).await.map(Some),
        Ask::SaveIf { expected, value } => {
            let at = Expected::At { version: Version(expected), create_revision: None };
            let expected = if expected == 0 { Expected::Absent } else { at };
            client.save_if_version(id, content(value), expected, options).await.map(Some)
        }
        Ask::Delete => client.delete(id, None).await,
        Ask::LoadStale | Ask::Expire => panic!("no client here asks for {ask:?}"),
    };
    match written {
        Ok(Some(written)) => Answer::Written { version: written.version.0, revision: written.revision.0 },
        Ok(None) => Answer::NothingThere,
        Err(error) => failed(&error),
    }
}

fn failed(error: &Error) -> Answer {
    match error.kind() {
        ErrorKind::Conflict { actual } => {
            let revision = error.revision().expect("a conflict was judged somewhere");
            Answer::Conflict { actual: actual.0, revision: revision.0 }
        }
        ErrorKind::Refused { .. } => Answer::Refused,
        ErrorKind::Indeterminate => Answer::Unknown,
        kind => panic!("no client here asks for {kind:?}: {error}"),
    }
}

async fn loaded(client: &Client, id: &str) -> Answer {
    match client.load_with(id, LoadOptions::default()).await {
        Ok(read) => match read.session {
            None => Answer::NotFound { tombstone: read.tombstone.0, revision: read.revision.0 },
            Some(session) => {
                let Content::Value(bytes) = session.content else { panic!("nobody stored a transcript") };
                let value = value(&bytes);
                Answer::Found { version: session.info.version.0, value, revision: read.revision.0 }
            }
        },
        Err(error) => match failed(&error) {
            Answer::Refused => Answer::Refused,
            answer => panic!("no read ends so: {answer:?}"),
        },
    }
}

/// The bytes of a value: some small, some not, and none a part of another.
fn content(value: u64) -> Content {
    let filler = if value.is_multiple_of(8) { 20_000 } else { 40 + value % 400 };
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(8 + filler as usize, value as u8);
    Content::Value(Bytes::from(bytes))
}

fn value(bytes: &[u8]) -> u64 {
    let value = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    assert_eq!(content(value), Content::Value(Bytes::copy_from_slice(bytes)), "the bytes are not those that were stored");
    value
}
