//! Clients that save, load and delete, remember what they were answered, and sometimes lose patience.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate::client::{Client, Content, ErrorKind, Expiry, WriteOptions};
use quorate::env::Clock;
use quorate::limits::intervals;
use quorate::testing::history::{self, Answer, Ask, Op, Surprise};
use quorate::testing::inline::SeededRandom;

use super::coverage::sometimes;
use super::net;
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
    /// Until when every caller saves and thinks of nothing else, and that the values of such a rush are multiples of this.
    pub rush: (Duration, u64),
    /// Nobody is to change the members.
    pub is_settled: bool,
}

impl Shared {
    /// The next value; in a rush one of its size.
    fn next_value(&mut self, now: Duration) -> u64 {
        self.values += 1;
        if self.is_rush(now) {
            self.values = self.values.next_multiple_of(self.rush.1);
        }
        self.values
    }

    fn is_rush(&self, now: Duration) -> bool {
        now < self.rush.0
    }

    /// Whether some write has no answer yet.
    pub fn has_open_write(&self) -> bool {
        self.history.iter().any(|op| op.returned == Duration::MAX && !matches!(op.ask, Ask::Load))
    }
}

/// Bytes of the largest values.
pub static LARGE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Every so manieth value is a large one, every so manieth a middling one.
pub const LARGE_EVERY: u64 = 64;
pub const MIDDLING_EVERY: u64 = 8;
const MIDDLING_BYTES: usize = 20_000;
/// From here on a write is large; slow links carry a quarter of that meanwhile, or more.
const LARGE_WRITE_BYTES: usize = 1 << 20;

/// A value begins with its number.
pub const VALUE_BYTES: usize = 8;

/// The session of single values with this number.
pub fn id_of(key: usize) -> String {
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
    /// Whether some values are megabytes: they take their time.
    pub is_large: bool,
    /// The one node that is reached; what another has to do travels by way of it.
    pub pinned: Option<u64>,
}

impl Connect {
    /// Of a client of this run, by its name.
    pub fn of(params: &Params, name: &str) -> Self {
        Self { nodes: params.nodes, is_large: params.is_large(), pinned: params.pinned(name) }
    }

    /// A new client, with deadlines short enough to be missed at times.
    pub fn client(self, random: &SeededRandom) -> Client {
        let mut endpoints: Vec<String> = (1..=self.nodes).map(|id| format!("{}:7460", Host::name(id))).collect();
        endpoints.rotate_left(random.below(self.nodes) as usize);
        if let Some(pinned) = self.pinned {
            endpoints.retain(|endpoint| endpoint.starts_with(&format!("{}:", Host::name(pinned))));
        }
        // A node that is gone for good holds up nobody for longer than the end of a run may take.
        let patience = if self.is_large && self.pinned.is_none() { 4 } else { 1 };
        let deadline = |choice: u64| patience * Duration::from_millis([300, 1000, 3000, 8000][choice as usize]);
        Client::builder()
            .endpoints(endpoints)
            .write_deadline(deadline(random.below(4)))
            .read_deadline(deadline(random.below(4)))
            .connect_timeout(Duration::from_millis(500))
            .connector(Arc::new(net::Reach { only: self.pinned.map(Host::name) }))
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
        let (connect, keys, think_ms) = (Connect::of(params, &format!("c{id}")), params.keys + 1, params.think_ms);
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
            let is_rush = self.shared.lock().expect("no client panics with it").is_rush(self.clock.now());
            let ask = if is_rush { Ask::Save { value: self.next_value() } } else { self.choose(key) };
            // A caller may go away at any moment; what it handed over goes on.
            let patience = if self.random.below(16) == 0 { self.random.below(300) } else { 60_000 };
            self.call(&client, key, ask, Duration::from_millis(patience)).await;
            if self.random.below(100) == 0 {
                client = self.client();
            }
            let think_ms = if is_rush { 1 } else { self.random.below(self.think_ms + 1) };
            tokio::time::sleep(Duration::from_millis(think_ms)).await;
        }
    }

    /// Works until the scan: saves once in a while, and only loads for longer than its client's entry would live by itself.
    pub async fn run_reading(mut self) {
        let client = self.client();
        let (mut saves_at, pause) = (Duration::ZERO, intervals().client_idle_ttl * 3 / 2);
        while self.phase() < Phase::Scan {
            let ask = if self.clock.now() < saves_at {
                Ask::Load
            } else {
                saves_at = self.clock.now() + pause;
                Ask::Save { value: self.next_value() }
            };
            let key = self.random.below(self.keys as u64) as usize;
            self.call(&client, key, ask, Duration::from_secs(60)).await;
            tokio::time::sleep(Duration::from_millis(100 + self.random.below(300))).await;
        }
    }

    fn next_value(&self) -> u64 {
        self.shared.lock().expect("no client panics with it").next_value(self.clock.now())
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
        let value = || self.next_value();
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
        let slowed_before = net::slowed_bytes();
        let beside = (self.random.below(4) == 0).then(|| id_of(self.random.below(self.keys as u64) as usize));
        let to = history::Called { id: &id_of(key), beside: beside.as_deref() };
        let answered = tokio::time::timeout(patience, perform(client, to, ask, expiry)).await;
        let answer = answered.unwrap_or(Answer::Unknown);
        let returned = self.clock.now();
        {
            let mut shared = self.shared.lock().expect("no client panics with it");
            (shared.history[at].answer, shared.history[at].returned) = (answer, returned);
        }
        if let (Answer::Written { .. }, Ask::Save { value } | Ask::SaveIf { value, .. }) = (answer, ask) {
            let slowed = net::slowed_bytes() - slowed_before;
            if filler_bytes(value) >= LARGE_WRITE_BYTES && slowed >= LARGE_WRITE_BYTES as u64 / 4 {
                sometimes("large write over a slow link");
            }
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

async fn perform(client: &Client, to: history::Called<'_>, ask: Ask, expiry: Expiry) -> Answer {
    match history::perform(client, to, ask, WriteOptions { expiry, ..WriteOptions::default() }, content, value).await {
        // A node that finds damage ends, which is judged there; a client that reaches no other one in time has no answer.
        Err(Surprise::Error(error)) if ask.is_read() && error.kind() == ErrorKind::Corrupt => Answer::Refused,
        Ok(Answer::Unknown) if ask.is_read() => panic!("no read ends so"),
        answer => answer.unwrap_or_else(|surprise| panic!("no client here asks for it: {surprise:?}")),
    }
}

fn filler_bytes(value: u64) -> usize {
    match value {
        value if value.is_multiple_of(LARGE_EVERY) => LARGE_BYTES.load(Ordering::Relaxed),
        value if value.is_multiple_of(MIDDLING_EVERY) => MIDDLING_BYTES,
        value => 40 + (value % 400) as usize,
    }
}

/// The bytes of a value: some small, some not, none a part of another, and none that packing makes smaller: what is large for a client is
/// large for links, logs and disks.
fn content(value: u64) -> Content {
    let (random, filler) = (SeededRandom::new(value), filler_bytes(value));
    let mut bytes = Vec::with_capacity(VALUE_BYTES + filler + 8);
    bytes.extend(value.to_le_bytes());
    while bytes.len() < VALUE_BYTES + filler {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(VALUE_BYTES + filler);
    Content::Value(Bytes::from(bytes))
}

fn value(bytes: &Bytes) -> Option<u64> {
    let value = u64::from_le_bytes(*bytes.first_chunk::<VALUE_BYTES>()?);
    (content(value) == Content::Value(bytes.clone())).then_some(value)
}
