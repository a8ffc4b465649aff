//! Clients that save, load and delete, remember what they were told, and sometimes lose patience.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate::client::{Client, Content, Error, ErrorKind, Expected, Expiry, LoadOptions, Version, WriteOptions};
use quorate::env::Clock;
use quorate::testing::history::{Answer, Ask, Op};
use quorate::testing::inline::SeededRandom;

use super::coverage::sometimes;
use super::net::SimNet;
use super::node::{Host, HostClock};
use super::params::Params;

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

impl Shared {
    /// Whether some write has no answer yet.
    pub fn has_open_write(&self) -> bool {
        self.history.iter().any(|op| op.returned == Duration::MAX && !matches!(op.ask, Ask::Load))
    }
}

/// Bytes of the largest values.
pub static LARGE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A value begins with its number.
pub const VALUE_BYTES: usize = 8;

fn id_of(key: usize) -> String {
    format!("k{key}")
}

/// The number of a session of single values.
pub fn key_of(id: &str) -> Option<usize> {
    id.strip_prefix('k')?.parse().ok()
}

/// How clients reach the cluster.
#[derive(Clone, Copy)]
pub struct Connect {
    pub nodes: u64,
}

impl Connect {
    /// A new client, with deadlines short enough to be missed at times.
    pub fn client(self, random: &SeededRandom) -> Client {
        let mut endpoints: Vec<String> = (1..=self.nodes).map(|id| format!("{}:7460", Host::name(id))).collect();
        endpoints.rotate_left(random.below(self.nodes) as usize);
        let deadline = |choice: u64| Duration::from_millis([300, 1000, 3000, 8000][choice as usize]);
        Client::builder()
            .endpoints(endpoints)
            .write_deadline(deadline(random.below(4)))
            .read_deadline(deadline(random.below(4)))
            .connect_timeout(Duration::from_millis(500))
            .connector(Arc::new(SimNet))
            .env(Arc::new(HostClock::default()), Arc::new(SeededRandom::new(random.next())))
            .build()
            .expect("valid endpoints and deadlines")
    }
}

/// One client.
pub struct Caller {
    pub id: usize,
    pub connect: Connect,
    /// Sessions; what is saved to the last one soon expires.
    pub keys: usize,
    pub think_ms: u64,
    pub shared: Arc<Mutex<Shared>>,
    random: SeededRandom,
    clock: HostClock,
    seen: Vec<u64>,
}

impl Caller {
    pub fn new(id: usize, params: &Params, shared: Arc<Mutex<Shared>>) -> Self {
        let random = SeededRandom::new(params.seed.wrapping_mul(7919).wrapping_add(id as u64));
        let (connect, keys, think_ms) = (Connect { nodes: params.nodes }, params.keys + 1, params.think_ms);
        Self { id, connect, keys, think_ms, shared, random, clock: HostClock::default(), seen: vec![0; keys] }
    }

    pub fn client(&self) -> Client {
        self.connect.client(&self.random)
    }

    /// Works until the scan.
    pub async fn run(mut self) {
        let mut client = self.client();
        while self.phase() < Phase::Scan {
            let key = self.random.below(self.keys as u64) as usize;
            let ask = self.choose(key);
            // A caller may go away at any moment; what it handed over goes on.
            let patience = if self.random.below(16) == 0 { self.random.below(300) } else { 60_000 };
            self.call(&client, key, ask, Duration::from_millis(patience)).await;
            if self.random.below(100) == 0 {
                client = self.client();
            }
            tokio::time::sleep(Duration::from_millis(self.random.below(self.think_ms + 1))).await;
        }
    }

    pub fn phase(&self) -> Phase {
        self.shared.lock().expect("no client panics with it").phase
    }

    fn is_ephemeral(&self, key: usize) -> bool {
        key + 1 == self.keys
    }

    /// Soon, on the last session; elsewhere never within the run, whatever clocks do.
    fn expiry(&self, key: usize) -> Expiry {
        match self.random.below(8) {
            _ if self.is_ephemeral(key) => Expiry::After(Duration::from_millis(1000 + self.random.below(3000))),
            0 => Expiry::After(Duration::from_secs(30 * 24 * 3600)),
            1 => Expiry::Never,
            _ => Expiry::Keep,
        }
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
        let expiry = self.expiry(key);
        let mut op = Op::invoke(self.id, key, ask, invoked);
        op.expires = self.is_ephemeral(key);
        let at = {
            let mut shared = self.shared.lock().expect("no client panics with it");
            shared.history.push(op);
            shared.history.len() - 1
        };
        let answered = tokio::time::timeout(patience, perform(client, &id_of(key), ask, expiry)).await;
        let answer = answered.unwrap_or(Answer::Unknown);
        let returned = self.clock.now();
        {
            let mut shared = self.shared.lock().expect("no client panics with it");
            (shared.history[at].answer, shared.history[at].returned) = (answer, returned);
        }
        match answer {
            Answer::Found { version, .. } => self.seen[key] = version,
            Answer::Written { version, .. } if ask != Ask::Delete => self.seen[key] = version,
            Answer::Conflict { actual, .. } => {
                sometimes("conflict");
                self.seen[key] = actual;
            }
            Answer::NotFound { tombstone, .. } if tombstone > 0 => {
                sometimes("tombstone seen");
                self.seen[key] = 0;
            }
            Answer::NotFound { .. } | Answer::NothingThere | Answer::Written { .. } => self.seen[key] = 0,
            Answer::Refused | Answer::Unknown => {}
        }
        answer
    }
}

async fn perform(client: &Client, id: &str, ask: Ask, expiry: Expiry) -> Answer {
    let options = WriteOptions { expiry };
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
    let filler = match value {
        value if value.is_multiple_of(64) => LARGE_BYTES.load(Ordering::Relaxed) as u64,
        value if value.is_multiple_of(8) => 20_000,
        value => 40 + value % 400,
    };
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(VALUE_BYTES + filler as usize, value as u8);
    Content::Value(Bytes::from(bytes))
}

fn value(bytes: &[u8]) -> u64 {
    let value = u64::from_le_bytes(bytes[..VALUE_BYTES].try_into().expect("eight bytes"));
    assert_eq!(content(value), Content::Value(Bytes::copy_from_slice(bytes)), "the bytes are not those that were stored");
    value
}
