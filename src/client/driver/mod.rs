//! The client's task: it owns connections, open operations and the client table; callers hold a oneshot.
//!
//! ```text
//!           gate (an abandoned write of the session is open)
//! call ──┬────┴──> unsequenced (a write waits for the client, or for the window)
//!        │              │ take a sequence
//!        └── a read ────┴──> ready ──> an attempt ──> outcome ──> finish
//!                              ^            │ refusal, connection lost
//!                              └── timer <──┴── retry::next ──> finish
//! ```
//!
//! An operation is taken out of the table once, worked on, and put where it belongs: a save costs three look-ups (put in, sent, answered).
//! Queues may hold keys of operations that ended: every pop checks the table. The driver never waits for anything but its inbox, its
//! events and its timers; what blocks runs in tasks beside it, which end with it.

mod answers;
pub(crate) mod connection;
mod given_up;
pub(crate) mod operation;
// Pure decisions, for explorers of them: no part of the interface.
pub mod retry;
pub mod router;
mod timers;
mod window;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::Error;
use super::config::Config;
use super::credentials::Link;
use super::failures::Failures;
use crate::env::u64_from;
use crate::limits::{LARGE_OPERATION_BYTES, OPEN_WRITES_MAX, intervals};
use crate::types::{Change, Refusal, SessionId};
use crate::wire::v1;
use connection::{Event, StreamId};
use given_up::{GivenUp, Say};
use operation::{Body, Call, Key, Operation, Unsendable, Via};
use router::{Choice, Router};
use timers::Timers;
use window::RequestWindow;

/// Calls enqueued and not taken up yet.
pub(crate) const CALLS_MAX: usize = 1024;
/// Operations open at once; above it calls wait to be taken up.
const OPERATIONS_MAX: usize = 4 * OPEN_WRITES_MAX as usize;
/// Reports of connections not taken up yet.
const EVENTS_MAX: usize = 16;
/// Taken up in one go.
const BATCH_MAX: usize = 256;
/// The least time for an endpoint to connect, however short its share.
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_millis(200);
/// The most of a call's time that its endpoints share to connect.
const CONNECT_SHARED_MAX: Duration = Duration::from_secs(5);
/// How long an internal operation may take.
const OWN_DEADLINE: Duration = Duration::from_secs(5);
/// How long closing may take, after the last open operation ended.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// How often a write that waits for an abandoned one checks whether that one can be given up.
const GATE_POLL_INTERVAL_MIN: Duration = Duration::from_millis(50);
/// How often a write that waits to hear the version in force looks for an answer.
const VERSION_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Between two attempts to say that what was given up is closed.
const CLOSE_AGAIN: Duration = Duration::from_secs(1);
/// With nothing else to wait for.
const IDLE: Duration = Duration::from_secs(3600);

/// A stream to an endpoint.
struct Connection {
    generation: u64,
    /// `None` until it is up.
    requests: Option<mpsc::Sender<v1::SubmitRequest>>,
    /// Attempts on it without an answer.
    open: usize,
    task: AbortHandle,
}

/// A place for a request in a stream's channel, and the count of the stream's open attempts.
type Place<'a> = (StreamId, mpsc::Permit<'a, v1::SubmitRequest>, &'a mut usize);

impl Connection {
    /// `None` while it is being made, or where its channel takes no more.
    fn place(&mut self, target: usize) -> Option<Place<'_>> {
        let stream = StreamId { target, generation: self.generation };
        let permit = self.requests.as_ref()?.try_reserve().ok()?;
        Some((stream, permit, &mut self.open))
    }
}

/// Keys are counted up, by us: they need no hash that nobody can foresee.
#[derive(Default)]
struct Spread(u64);

type Counted = BuildHasherDefault<Spread>;

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // The table looks at the first bits and the last.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The full change of an operation, once it is made.
type FullChange = (Key, Result<Change, Error>);

/// The driver's task: owns every operation of a client from its call to its answer.
pub(crate) struct Driver {
    config: Arc<Config>,
    now: Duration,
    calls: mpsc::Receiver<Call>,
    events: mpsc::Receiver<Event>,
    reports: mpsc::Sender<Event>,
    /// Full changes that were made for operations whose base the cluster did not have.
    full_changes: mpsc::Receiver<FullChange>,
    make_full_changes: mpsc::Sender<FullChange>,
    tasks: JoinSet<()>,
    router: Router,
    /// The failures of endpoints since the last call that succeeded.
    failures: Failures,
    window: RequestWindow,
    operations: HashMap<Key, Operation, Counted>,
    /// Attempts without an answer, by tag.
    attempts: BTreeMap<u64, Key>,
    timers: Timers,
    /// Open writes of each session, oldest first.
    sessions: HashMap<SessionId, Vec<Key>>,
    /// Operations that wait for an abandoned write of their session, oldest first.
    gates: HashMap<SessionId, Vec<Key>>,
    unsequenced: VecDeque<Key>,
    ready: VecDeque<Key>,
    connections: BTreeMap<usize, Connection>,
    /// The second connection, for large operations, with its endpoint.
    bulk: Option<(usize, Link)>,
    next_key: Key,
    next_tag: u64,
    next_generation: u64,
    /// Operations of the user's that are open.
    users: usize,
    /// Our `OpenClient`, while it is on its way.
    opening: Option<Key>,
    /// Every endpoint just failed: look again then.
    wait_until: Option<Duration>,
    keep_alive_at: Option<Duration>,
    /// Answers of nodes so far.
    answers: u64,
    given_up: GivenUp,
    /// Our operation that says this of what was given up.
    closing: Option<(Key, Say)>,
    /// When to say so, at the earliest.
    close_at: Duration,
    used: bool,
    /// No call will come any more: settle what is open, then end.
    leaving: bool,
    close_sent: bool,
    closers: Vec<oneshot::Sender<()>>,
}

impl Driver {
    pub fn new(config: Arc<Config>, calls: mpsc::Receiver<Call>) -> Self {
        let (reports, events) = mpsc::channel(EVENTS_MAX);
        let (make_full_changes, full_changes) = mpsc::channel(EVENTS_MAX);
        let router = Router::new(&config.endpoints, u64_from(&*config.random));
        Self {
            now: config.clock.now(),
            window: RequestWindow::new(config.nonce()),
            config,
            calls,
            events,
            reports,
            full_changes,
            make_full_changes,
            tasks: JoinSet::new(),
            router,
            failures: Failures::default(),
            operations: HashMap::default(),
            attempts: BTreeMap::new(),
            timers: Timers::default(),
            sessions: HashMap::new(),
            gates: HashMap::new(),
            unsequenced: VecDeque::new(),
            ready: VecDeque::new(),
            connections: BTreeMap::new(),
            bulk: None,
            next_key: 1,
            next_tag: 1,
            next_generation: 1,
            users: 0,
            opening: None,
            wait_until: None,
            keep_alive_at: None,
            answers: 0,
            given_up: GivenUp::default(),
            closing: None,
            close_at: Duration::ZERO,
            used: false,
            leaving: false,
            close_sent: false,
            closers: Vec::new(),
        }
    }

    /// Runs until every handle is gone, or the client is closed, and what was open is settled.
    pub async fn run(mut self) {
        let mut calls = Vec::with_capacity(BATCH_MAX);
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut full_change = None;
        let mut armed = self.now + IDLE;
        let mut sleep = Box::pin(sleep_until(Instant::now() + IDLE));
        loop {
            self.pump();
            if self.leaving && self.operations.is_empty() {
                break;
            }
            let wake = self.wake_at();
            if wake != armed {
                armed = wake;
                sleep.as_mut().reset(Instant::now() + wake.saturating_sub(self.config.clock.now()));
            }
            tokio::select! {
                biased;
                _ = self.events.recv_many(&mut events, EVENTS_MAX) => {}
                made = self.full_changes.recv() => full_change = made,
                taken = self.calls.recv_many(&mut calls, BATCH_MAX), if self.takes_calls() => self.leaving = taken == 0,
                () = &mut sleep => armed = Duration::ZERO,
            }
            self.now = self.config.clock.now();
            events.drain(..).for_each(|event| self.report(event));
            if let Some((key, change)) = full_change.take() {
                self.full_change_made(key, change);
            }
            calls.drain(..).for_each(|call| self.accept(call));
            self.fire();
            while self.tasks.try_join_next().is_some() {}
        }
        for closer in self.closers {
            // The caller of `close` went away.
            let _ = closer.send(());
        }
    }

    fn takes_calls(&self) -> bool {
        !self.leaving && self.operations.len() < OPERATIONS_MAX
    }

    fn wake_at(&self) -> Duration {
        let timer = self.timers.first().map(|(at, _)| at);
        // The next look at the endpoints matters only to what waits for one.
        let wait = self.wait_until.filter(|_| !self.ready.is_empty());
        let close = Some(self.close_at).filter(|at| !self.given_up.is_empty() && self.closing.is_none() && *at > self.now);
        [timer, wait, self.keep_alive_at, close].into_iter().flatten().min().unwrap_or(self.now + IDLE)
    }

    fn accept(&mut self, call: Call) {
        if let Body::Close { reply } = call.body {
            self.closers.push(reply);
            // Calls enqueued before still count; the next receive answers that there is no more.
            self.calls.close();
            return;
        }
        let mut operation = Operation::new(call);
        if operation.deadline <= self.now {
            let error = operation.failure();
            return operation.fail(error);
        }
        if let Body::Write { plan: Some(plan), .. } = &mut operation.body {
            plan.on_accepted();
        }
        self.used = true;
        self.users += 1;
        let key = self.enter(&operation);
        let gate = self.gate_of(&operation, key);
        for id in operation.written() {
            self.sessions.entry(id.clone()).or_default().push(key);
        }
        match gate {
            Some(id) => self.gate(id, key, operation),
            None => self.proceed(key, operation),
        }
    }

    /// The key of a new operation, which is still outside the table.
    fn enter(&mut self, operation: &Operation) -> Key {
        let key = self.next_key;
        self.next_key += 1;
        self.timers.start(key, operation);
        key
    }

    /// The first session of the operation that an older write holds up: one whose caller went away, since what the caller does next must come
    /// after it; where a lease is released any, since without it that write would be fenced.
    fn gate_of(&self, operation: &Operation, key: Key) -> Option<SessionId> {
        let ends_a_turn = operation.ends_a_turn();
        let holds_up =
            |write: &Key| *write < key && self.operations.get(write).is_some_and(|open| ends_a_turn || open.is_abandoned());
        operation.sessions().find(|id| self.sessions.get(*id).is_some_and(|writes| writes.iter().any(holds_up))).cloned()
    }

    fn gate(&mut self, id: SessionId, key: Key, mut operation: Operation) {
        operation.gated = true;
        let half = (operation.deadline - self.now) / 2;
        self.timers.arm(key, &mut operation, self.now + half);
        self.gates.entry(id).or_default().push(key);
        self.operations.insert(key, operation);
    }

    /// A write has waited long for an abandoned one of its session, which nobody waits for: that is given up, so that it can't land after
    /// this one, where it is the oldest that is open. Until then it still could, and this one waits on.
    fn close_abandoned(&mut self, key: Key) {
        let Some(write) = self.operations.get(&key).filter(|operation| operation.is_write()) else { return };
        for id in write.sessions().cloned().collect::<Vec<_>>() {
            while let Some(oldest) = self.oldest_abandoned(&id, key) {
                tracing::debug!("an abandoned write is given up for the next one of its session");
                self.fail_key(oldest, Error::indeterminate(None));
            }
        }
        let Some(operation) = self.operations.get_mut(&key).filter(|operation| operation.gated) else { return };
        let again = ((operation.deadline - self.now) / 2).max(GATE_POLL_INTERVAL_MIN);
        let at = (self.now + again).min(operation.deadline);
        self.timers.arm(key, operation, at);
    }

    /// The oldest abandoned write before `key` of a session, if every sequence below its own is closed: the next request then closes it.
    fn oldest_abandoned(&self, id: &SessionId, key: Key) -> Option<Key> {
        let abandoned = |write: &Key| self.operations.get(write).filter(|operation| *write < key && operation.is_abandoned());
        let (oldest, operation) = self.sessions.get(id)?.iter().find_map(|write| Some((*write, abandoned(write)?)))?;
        operation.request.is_some_and(|request| self.window.is_oldest(&request)).then_some(oldest)
    }

    fn open_gates(&mut self, id: &SessionId) {
        for key in self.gates.remove(id).unwrap_or_default() {
            // One whose patience ended has gone on by itself.
            let Some(operation) = self.operations.get(&key).filter(|operation| operation.gated) else { continue };
            if let Some(gate) = self.gate_of(operation, key) {
                self.gates.entry(gate).or_default().push(key);
            } else if let Some(operation) = self.operations.remove(&key) {
                self.proceed(key, operation);
            }
        }
    }

    /// On to a sequence, or straight to an endpoint.
    fn proceed(&mut self, key: Key, mut operation: Operation) {
        self.timers.disarm(key, &mut operation);
        operation.gated = false;
        let needs_sequence = operation.is_write() && operation.request.is_none();
        if needs_sequence && self.unsequenced.is_empty() {
            operation.request = self.window.take();
        }
        let queue = if needs_sequence && operation.request.is_none() { &mut self.unsequenced } else { &mut self.ready };
        queue.push_back(key);
        self.operations.insert(key, operation);
    }

    /// Does what is due.
    fn fire(&mut self) {
        while let Some((at, key)) = self.timers.first().filter(|(at, _)| *at <= self.now) {
            let Some(operation) = self.operations.get(&key) else {
                self.timers.forget(at, key);
                continue;
            };
            let waits = operation.gated && operation.is_write();
            match operation.deadline <= self.now {
                true if waits => {
                    let error = Error::refused("an abandoned write of this session is still open, this one was not sent");
                    self.fail_key(key, error);
                }
                true => self.give_up_key(key),
                false if waits => self.close_abandoned(key),
                false => {
                    self.timers.forget(at, key);
                    if let Some(operation) = self.operations.remove(&key) {
                        self.proceed(key, operation);
                    }
                }
            }
        }
        if self.keep_alive_at.is_some_and(|at| at <= self.now) {
            self.keep_alive();
        }
    }

    fn give_up_key(&mut self, key: Key) {
        if let Some(operation) = self.operations.remove(&key) {
            self.give_up(key, operation);
        }
    }

    /// Fails an operation for which nothing more is tried, with what became of the endpoints.
    fn give_up(&mut self, key: Key, mut operation: Operation) {
        let connecting = self.connections.iter().filter(|(_, connection)| connection.requests.is_none()).map(|(at, _)| *at);
        let waited_for = operation.attempt.map(|attempt| attempt.via.target()).into_iter();
        for at in waited_for.chain(connecting.filter(|_| operation.attempt.is_none())) {
            self.failures.note_silence(self.router.address(at));
        }
        let error =
            if operation.is_about_endpoints() { operation.failure().with_endpoints(&self.failures) } else { operation.failure() };
        self.fail(key, operation, error);
    }

    fn keep_alive(&mut self) {
        self.keep_alive_at = self.window.client().map(|_| self.now + intervals().keep_alive);
        if std::mem::take(&mut self.used) && self.keep_alive_at.is_some() {
            self.start_internal(Body::KeepAlive, OWN_DEADLINE);
        }
    }

    /// Starts an operation of the driver itself.
    fn start_internal(&mut self, body: Body, within: Duration) -> Key {
        let operation = Operation::new(Call { deadline: self.now + within, body, permit: None });
        let key = self.enter(&operation);
        self.proceed(key, operation);
        key
    }

    /// Moves everything on as far as it goes.
    fn pump(&mut self) {
        self.sequence();
        if self.leaving && self.users == 0 && !self.close_sent {
            self.close_sent = true;
            // Nobody is left to use it.
            let ours = self.opening.into_iter().chain(self.closing.as_ref().map(|(key, _)| *key));
            for key in ours.collect::<Vec<_>>() {
                self.fail_key(key, Error::refused("the client is closed"));
            }
            if self.window.client().is_some() {
                self.start_internal(Body::CloseClient, CLOSE_DEADLINE);
            }
        }
        self.close_given_up();
        self.send_ready();
        self.drop_idle_connections();
    }

    /// Closes what was given up, again until the cluster has heard it: what arrives late then is refused. Writes say what is closed too,
    /// but there may be none.
    fn close_given_up(&mut self) {
        if self.leaving || self.closing.is_some() || self.close_at > self.now {
            return;
        }
        let Some(say) = self.given_up.next(&self.window) else { return };
        let body = match &say {
            Say::Closed(_) => Body::KeepAlive,
            Say::Settle(write) => Body::Settle { write: write.clone() },
        };
        self.closing = Some((self.start_internal(body, OWN_DEADLINE), say));
    }

    fn sequence(&mut self) {
        while let Some(key) = self.unsequenced.front().copied() {
            let Some(operation) = self.operations.get_mut(&key) else {
                self.unsequenced.pop_front();
                continue;
            };
            let Some(request) = self.window.take() else { break };
            operation.request = Some(request);
            self.unsequenced.pop_front();
            self.ready.push_back(key);
        }
        if !self.unsequenced.is_empty() && self.window.client().is_none() && self.opening.is_none() {
            let nonce = self.window.nonce();
            self.opening = Some(self.start_internal(Body::Open { nonce }, OWN_DEADLINE));
        }
    }

    fn send_ready(&mut self) {
        self.wait_until = None;
        if self.ready.is_empty() {
            return;
        }
        let target = match self.router.choose(self.now) {
            Choice::Use(target) => target,
            Choice::Wait(until) => {
                self.wait_until = Some(until);
                return;
            }
        };
        let mut waiting = VecDeque::new();
        while let Some(key) = self.ready.pop_front() {
            let Some(operation) = self.operations.get_mut(&key) else { continue };
            if operation.bytes > LARGE_OPERATION_BYTES {
                self.send_alone(key, target);
                continue;
            }
            let connection = self.connections.get_mut(&target);
            // A channel that takes no more belongs to a stream whose end is about to be reported.
            let Some((stream, place, open)) = connection.and_then(|connection| connection.place(target)) else {
                waiting.push_back(key);
                continue;
            };
            match operation.attempt(self.next_tag, Via::Stream(stream), &self.window, self.now) {
                Ok(request) => {
                    self.attempts.insert(self.next_tag, key);
                    self.next_tag += 1;
                    place.send(request);
                    *open += 1;
                }
                Err(unsendable) => {
                    drop(place);
                    self.on_not_sent(key, unsendable);
                }
            }
        }
        self.ready = waiting;
        if !self.ready.is_empty() && !self.connections.contains_key(&target) {
            self.connect(target);
        }
    }

    fn send_alone(&mut self, key: Key, target: usize) {
        let Some(operation) = self.operations.get_mut(&key) else { return };
        let remaining = operation.deadline.saturating_sub(self.now);
        let request = match operation.attempt(self.next_tag, Via::Alone(target), &self.window, self.now) {
            Ok(request) => request,
            Err(unsendable) => return self.on_not_sent(key, unsendable),
        };
        self.attempts.insert(self.next_tag, key);
        self.next_tag += 1;
        let channel = self.bulk.as_ref().filter(|(at, _)| *at == target).map(|(_, channel)| channel.clone());
        let dial = self.config.dial(self.router.address(target)).within(self.share(remaining));
        self.tasks.spawn(connection::alone(dial, target, channel, request, remaining, self.reports.clone()));
    }

    fn on_not_sent(&mut self, key: Key, unsendable: Unsendable) {
        let Some(operation) = self.operations.remove(&key) else { return };
        match unsendable {
            Unsendable::OtherCluster => self.make_full(key, operation, true),
            Unsendable::NotOpen => self.fail(key, operation, Error::refused("the client is not open")),
            Unsendable::NotInForce { needs } => self.await_version(key, operation, needs),
        }
    }

    /// The cluster may be at another version by now than when it last answered: it is asked, once. The write waits for any answer, then is
    /// sent, or ends.
    fn await_version(&mut self, key: Key, mut operation: Operation, needs: u16) {
        let before = operation.answers_before;
        if before.is_some_and(|before| before < self.answers) || self.window.client().is_none() {
            let refusal = Refusal::unsupported(needs, self.window.in_force());
            return self.fail(key, operation, Error::from_refusal(refusal));
        }
        if before.is_none() {
            operation.answers_before = Some(self.answers);
            self.start_internal(Body::KeepAlive, OWN_DEADLINE);
        }
        self.timers.arm(key, &mut operation, self.now + VERSION_POLL_INTERVAL);
        self.operations.insert(key, operation);
    }

    fn connect(&mut self, target: usize) {
        let line = StreamId { target, generation: self.next_generation };
        self.next_generation += 1;
        let deadlines = self.ready.iter().filter_map(|key| self.operations.get(key)).map(|operation| operation.deadline);
        let remaining = deadlines.max().map_or(CONNECT_SHARED_MAX, |deadline| deadline.saturating_sub(self.now));
        let dial = self.config.dial(self.router.address(target)).within(self.share(remaining.min(CONNECT_SHARED_MAX)));
        // Each open operation has one attempt at most, and our own are few: the stream's channel never fills.
        let stream = connection::stream(dial, line, OPERATIONS_MAX + BATCH_MAX, self.reports.clone());
        let task = self.tasks.spawn(stream);
        self.connections.insert(target, Connection { generation: line.generation, requests: None, open: 0, task });
    }

    /// An endpoint's share of the remaining time: equal for each, with one more left for the call, so that an endpoint that swallows
    /// everything leaves time for the others.
    fn share(&self, remaining: Duration) -> Duration {
        (remaining / (self.router.count() as u32 + 1)).max(CONNECT_TIMEOUT_MIN)
    }

    /// Ends streams to where nothing is sent any more.
    fn drop_idle_connections(&mut self) {
        if self.connections.len() > 1
            && let Choice::Use(preferred) = self.router.choose(self.now)
        {
            self.connections.retain(|at, connection| {
                let kept = *at == preferred || connection.open > 0 || connection.requests.is_none();
                if !kept {
                    connection.task.abort();
                }
                kept
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tonic::transport::Endpoint;

    use super::connection::{Connecting, Connector};
    use super::*;
    use crate::client::credentials::Credentials;
    use crate::env::{SystemClock, SystemRandom};
    use crate::types::{Consistency, List};

    /// Takes every connection and makes none; keeps how long each could take.
    #[derive(Default)]
    struct Silent(Mutex<Vec<Duration>>);

    impl Connector for Silent {
        fn connect(&self, _: Endpoint, within: Duration) -> Connecting {
            self.0.lock().expect("no panic").push(within);
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn endpoints_share_the_time_of_the_only_call_too() {
        for (left, share) in [(Duration::from_secs(1), 250), (Duration::from_secs(30), 1250), (Duration::from_millis(1), 200)] {
            let connector = Arc::new(Silent::default());
            let config = Config {
                endpoints: ["a:1", "b:1", "c:1"].map(str::to_owned).to_vec(),
                write_deadline: left,
                read_deadline: left,
                connect_timeout: Duration::from_secs(60),
                connector: connector.clone(),
                credentials: Credentials::default(),
                clock: Arc::new(SystemClock::default()),
                random: Arc::new(SystemRandom),
                seen: Default::default(),
            };
            let (_calls, inbox) = mpsc::channel(1);
            let mut driver = Driver::new(Arc::new(config), inbox);
            let (reply, _answer) = oneshot::channel();
            let list = List { limit: 1, consistency: Consistency::Stale, ..List::default() };
            let body = Body::List { list, reply };
            driver.accept(Call { deadline: driver.now + left, body, permit: None });
            driver.pump();
            while connector.0.lock().expect("no panic").is_empty() {
                tokio::task::yield_now().await;
            }
            assert_eq!(*connector.0.lock().expect("no panic"), [Duration::from_millis(share)], "left={left:?}");
        }
    }
}
