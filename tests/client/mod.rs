//! The client against a cluster in memory behind the real protocol, with scripted faults.

mod calls;
mod deltas;
mod edits;
mod exactly_once;
pub mod fake;
mod many;
mod parts;
mod routing;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::Node;
use quorate::client::{Client, Content, Error, Session, WriteOptions, Written};
use quorate::env::{Clock, SystemClock};
use tokio::task::JoinHandle;

/// Long enough to be no part of what a test shows.
const LONG: Duration = Duration::from_secs(30);
/// For tests that show what happens at a deadline.
const SHORT: Duration = Duration::from_millis(400);

fn client(nodes: &[Node]) -> Client {
    client_within(nodes, LONG, LONG)
}

/// Starts at the first node.
fn client_within(nodes: &[Node], writes: Duration, reads: Duration) -> Client {
    client_of(nodes, writes, reads, Arc::new(SystemClock::new()), Arc::default())
}

/// Two that differ in what is drawn, their nonces first.
fn two_clients(nodes: &[Node]) -> [Client; 2] {
    let random = Arc::new(Counting::default());
    [(); 2].map(|()| client_of(nodes, LONG, LONG, Arc::new(SystemClock::new()), random.clone()))
}

/// The same by a clock that the test moves on.
fn client_and_clock(nodes: &[Node], writes: Duration, reads: Duration) -> (Client, Arc<Movable>) {
    let clock = Arc::new(Movable::default());
    (client_of(nodes, writes, reads, clock.clone(), Arc::default()), clock)
}

fn client_of(nodes: &[Node], writes: Duration, reads: Duration, clock: Arc<dyn Clock>, random: Arc<Counting>) -> Client {
    let endpoints = nodes.iter().map(Node::address);
    let builder = Client::builder().endpoints(endpoints).write_deadline(writes).read_deadline(reads);
    builder.env(clock, random).build().expect("valid")
}

/// The system's time, which a test may move on.
#[derive(Default)]
struct Movable {
    clock: SystemClock,
    ahead: Mutex<Duration>,
}

impl Movable {
    fn advance(&self, by: Duration) {
        *self.ahead.lock().expect("no panic") += by;
    }
}

impl Clock for Movable {
    fn now(&self) -> Duration {
        self.clock.now() + *self.ahead.lock().expect("no panic")
    }

    fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }
}

/// Not random at all, and 0 first: the router starts at the first endpoint.
#[derive(Default)]
struct Counting(std::sync::atomic::AtomicU64);

impl quorate::env::Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let next = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_le_bytes();
        bytes.fill(0);
        let length = bytes.len().min(next.len());
        bytes[..length].copy_from_slice(&next[..length]);
    }
}

fn value(text: &str) -> Content {
    Content::Value(text.as_bytes().to_vec().into())
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> Content {
    let mut state = 9u64;
    let step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    Content::Value(std::iter::repeat_with(step).take(bytes).collect::<Vec<u8>>().into())
}

/// A save that its caller does not wait for.
fn begin_save(client: &Client, id: impl Into<String>, text: &'static str) -> JoinHandle<Result<Written, Error>> {
    let (client, id) = (client.clone(), id.into());
    tokio::spawn(async move { client.save(&id, value(text), WriteOptions::default()).await })
}

fn content(session: Option<Session>) -> Content {
    session.expect("a session").content
}
