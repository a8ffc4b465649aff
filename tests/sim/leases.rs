//! Clients that take the turn of a session, write in it and beside it, are cut off past the time of their leases, and go on writing.
//!
//! What they are answered is judged with what the committed log says of leases: see [`quorate::testing::history::leases()`]. What they write
//! is judged as that of all who append, see [`super::turns`]: nothing acknowledged is lost, nothing refused is there; and in its place among
//! the items no fence comes after a younger one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::client::{AppendOptions, Appended, Client, Counters, Error, ErrorKind, Expiry, Turn, TurnOptions, Wait};
use quorate::env::Clock as _;
use quorate::limits::LEASE_TTL_MIN;
use quorate::testing::history::{LeaseNote, Says, leases};
use quorate::testing::inline::SeededRandom;
use quorate::types::{Outcome, Revision, SessionId, Verdict, Write};

use super::coverage::sometimes;
use super::node::{Host, HostClock};
use super::params::Params;
use super::turns::{End, Turns, appended};
use super::workload::{Connect, Phase, Shared};

/// Sessions that are written in leases.
pub const SESSIONS: u64 = 2;
const PREFIX: &str = "shared-leased";
/// What stands before the fence in an item's name, and after it.
const FENCE: (char, char) = ('f', ':');

/// The session in leases with this number.
pub fn id_of(key: u64) -> String {
    format!("{PREFIX}{key}")
}

fn key_of(id: &SessionId) -> Option<usize> {
    id.as_str().strip_prefix(PREFIX)?.parse().ok()
}

/// How many clients take turns: no cluster has leases before it moves up.
pub fn holders(params: &Params) -> u64 {
    if params.upgrades.is_some() { 3 } else { 0 }
}

/// The committed log's statements about leases.
#[derive(Default)]
pub struct Log {
    notes: Vec<LeaseNote>,
    /// By session: the lease that lives.
    held: BTreeMap<usize, u64>,
    /// By session: its last lease ended as its time passed.
    expired: BTreeMap<usize, bool>,
}

impl Log {
    pub fn notes(&self) -> &[LeaseNote] {
        &self.notes
    }

    fn note(&mut self, key: usize, index: u64, says: Says) {
        self.notes.push(LeaseNote::of_log(key, index, says));
    }

    /// The time that this entry brought ended leases.
    pub fn passed(&mut self, index: u64, leases: &[(String, u64)]) {
        for (id, fence) in leases {
            let Some(key) = SessionId::new(id).ok().as_ref().and_then(key_of) else { continue };
            self.held.remove(&key);
            self.expired.insert(key, true);
            self.note(key, index, Says::Ended { fence: *fence });
        }
    }

    /// What an entry did that the model has judged right.
    pub fn take(&mut self, index: u64, write: &Write, outcome: &Outcome) {
        if outcome.revision != Revision(index) {
            return;
        }
        let Some(key) = write.sessions().next().and_then(|(id, _)| key_of(id)) else { return };
        match (write, &outcome.verdict) {
            (Write::AcquireLease { steal, .. }, Verdict::LeaseGranted { fence, .. }) => {
                if self.held.insert(key, fence.0).is_some() {
                    sometimes("lease taken away");
                } else if self.expired.insert(key, false) == Some(true) {
                    sometimes("lease after one whose time passed");
                }
                self.note(key, index, Says::Granted { fence: fence.0, steal: *steal });
            }
            (Write::ReleaseLease { fence, .. }, Verdict::LeaseReleased) => {
                sometimes("lease released");
                self.held.remove(&key);
                self.note(key, index, Says::Ended { fence: fence.0 });
            }
            (Write::RenewLeases { .. }, Verdict::LeasesRenewed { lost, .. }) if lost.positions().next().is_none() => {
                sometimes("lease renewed");
            }
            (write, Verdict::Appended(_) | Verdict::Touched { .. }) => {
                let fence = write.fence().map(|fence| fence.0);
                self.note(key, index, Says::Wrote { fence });
            }
            _ => {}
        }
    }
}

/// What log and callers say together.
pub fn judge(log: &[LeaseNote], callers: &[LeaseNote]) -> Vec<String> {
    let notes: Vec<LeaseNote> = log.iter().chain(callers).copied().collect();
    leases(&notes).iter().map(|violation| format!("leases: {violation}")).collect()
}

/// The name of an item that is written under a fence; 0: under none.
fn item(fence: u64, of: &str, count: u64) -> String {
    format!("{}{fence}{}{of}.{count}", FENCE.0, FENCE.1)
}

fn fence_of(name: &str) -> Option<u64> {
    let (fence, _) = name.strip_prefix(FENCE.0)?.split_once(FENCE.1)?;
    fence.parse().ok().filter(|fence| *fence > 0)
}

/// What is wrong with the order of a session's items: a fence stands after a younger one.
pub fn out_of_order(names: &[String]) -> Option<String> {
    let fences: Vec<u64> = names.iter().filter_map(|name| fence_of(name)).collect();
    let wrong = fences.windows(2).find(|pair| pair[0] > pair[1])?;
    Some(format!("an item under fence {} stands after one under {}", wrong[1], wrong[0]))
}

/// One client.
pub struct Holder {
    pub name: String,
    pub connect: Connect,
    pub shared: Arc<Mutex<Shared>>,
    pub turns: Arc<Mutex<Turns>>,
    pub notes: Arc<Mutex<Vec<LeaseNote>>>,
    pub random: SeededRandom,
    pub think_ms: u64,
}

/// The caller's side of one call: the session, and when it was asked.
#[derive(Clone, Copy)]
struct Called {
    key: u64,
    invoked: Duration,
}

impl Holder {
    /// Works until the scan.
    pub async fn run(self) {
        let clock = HostClock::default();
        let mut client = self.connect.client(&self.random);
        let mut count = 0;
        while self.phase() < Phase::Scan {
            if self.random.below(20) == 0 {
                client = self.connect.client(&self.random);
            }
            let key = self.random.below(SESSIONS);
            if self.random.below(3) == 0 {
                self.write(&clock, key, 0, &mut count, &client, None).await;
                self.touch(&clock, key, &client).await;
            } else {
                self.take_turn(&clock, key, &mut count, &client).await;
            }
            self.think().await;
        }
    }

    fn phase(&self) -> Phase {
        self.shared.lock().expect("no client panics with it").phase
    }

    async fn think(&self) {
        tokio::time::sleep(Duration::from_millis(self.random.below(2 * self.think_ms + 1))).await;
    }

    fn note(&self, clock: &HostClock, called: Called, revision: Revision, says: Says) {
        let Called { key, invoked } = called;
        let note = LeaseNote { key: key as usize, revision: revision.0, says, invoked, returned: clock.now() };
        self.notes.lock().expect("no client panics with it").push(note);
    }

    /// Takes a turn, writes in it, is perhaps cut off for longer than its lease lives, and writes on.
    async fn take_turn(&self, clock: &HostClock, key: u64, count: &mut u64, client: &Client) {
        let steal = self.random.below(6) == 0;
        let enqueue = Wait::Enqueue(Duration::from_millis(self.random.below(6000)));
        let wait = if steal { Wait::Interrupt } else { [Wait::Reject, enqueue][self.random.below(2) as usize] };
        let called = Called { key, invoked: clock.now() };
        let options = TurnOptions { holder: self.name.clone(), ttl: LEASE_TTL_MIN, wait };
        let turn = match tokio::time::timeout(self.patience(), client.turn(&id_of(key), options)).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(error)) => return self.refused(clock, called, None, &error),
            Err(_) => return,
        };
        let fence = turn.fence();
        self.note(clock, called, Revision(fence), Says::Granted { fence, steal });
        for _ in 0..self.random.below(4) {
            self.write(clock, key, fence, count, client, Some(&turn)).await;
            self.think().await;
        }
        if self.random.below(3) == 0 {
            self.cut_off(LEASE_TTL_MIN + Duration::from_millis(self.random.below(4000))).await;
            // Sooner, unless the cut was healed by another who made one.
            drop(tokio::time::timeout(LEASE_TTL_MIN, turn.lost()).await);
            self.write(clock, key, fence, count, client, Some(&turn)).await;
        }
        if self.random.below(4) > 0 {
            // Lost, or not known; its time ends it.
            drop(tokio::time::timeout(self.patience(), turn.release()).await);
        }
    }

    /// Nothing that this client sends arrives before so long, and nothing reaches it: its process stands still, as others see it.
    async fn cut_off(&self, until: Duration) {
        let nodes = || (1..=self.connect.nodes).map(Host::name);
        nodes().for_each(|node| turmoil::hold(self.name.as_str(), node));
        tokio::time::sleep(until).await;
        nodes().for_each(|node| turmoil::release(self.name.as_str(), node));
        sometimes("holder cut off past the time of its lease");
    }

    /// Appends an item, in a turn or beside all.
    async fn write(&self, clock: &HostClock, key: u64, fence: u64, count: &mut u64, client: &Client, turn: Option<&Turn>) {
        let session = id_of(key);
        if self.random.below(4) == 0 {
            let asked = clock.now();
            let Ok(state) = appended(client, &session).await else { return };
            self.turns.lock().expect("no client panics with it").check(&session, &state, asked);
        }
        *count += 1;
        let name = item(fence, &self.name, *count);
        let at = self.turns.lock().expect("no client panics with it").begin(&session, name.clone(), &Default::default());
        let options = AppendOptions { counters: Counters::new(vec![1]).expect("few"), ..AppendOptions::default() };
        let (called, items) = (Called { key, invoked: clock.now() }, vec![name.clone().into()]);
        let append = async {
            match turn {
                Some(turn) => turn.append(items, options).await,
                None => client.append(&session, items, options).await,
            }
        };
        let answered = tokio::time::timeout(self.patience(), append).await;
        let fence = turn.map(Turn::fence);
        let end = self.answered(clock, called, fence, answered.ok(), &name);
        self.turns.lock().expect("no client panics with it").end(at, end);
    }

    /// What the answer to an append means; without one it is unknown.
    fn answered(
        &self,
        clock: &HostClock,
        called: Called,
        fence: Option<u64>,
        answer: Option<Result<Appended, Error>>,
        name: &str,
    ) -> End {
        match answer {
            Some(Ok(appended)) => {
                if fence.is_some() {
                    sometimes("write in a lease");
                }
                self.note(clock, called, appended.revision, Says::Wrote { fence });
                let mut turns = self.turns.lock().expect("no client panics with it");
                turns.place(&id_of(called.key), appended.first_item, name.to_owned());
                End::Saved(clock.now())
            }
            Some(Err(error)) if error.kind() == ErrorKind::Indeterminate => End::Unknown,
            Some(Err(error)) => {
                self.refused(clock, called, fence, &error);
                End::Refused
            }
            None => End::Unknown,
        }
    }

    /// Nothing changed.
    fn refused(&self, clock: &HostClock, called: Called, fence: Option<u64>, error: &Error) {
        match (error.kind(), error.revision(), fence) {
            (ErrorKind::Leased { .. }, Some(revision), None) => {
                sometimes("held by another");
                self.note(clock, called, revision, Says::Held);
            }
            (ErrorKind::Fenced, Some(revision), Some(fence)) => {
                sometimes("write fenced");
                self.note(clock, called, revision, Says::Fenced { fence });
            }
            (ErrorKind::Refused { .. } | ErrorKind::Unsupported | ErrorKind::Indeterminate, ..) => {}
            (kind, ..) => panic!("no call of a holder ends so: {kind:?} {error}"),
        }
    }

    /// A touch is a write as all are.
    async fn touch(&self, clock: &HostClock, key: u64, client: &Client) {
        let called = Called { key, invoked: clock.now() };
        if let Ok(Err(error)) = tokio::time::timeout(self.patience(), client.touch(&id_of(key), Expiry::Never)).await {
            self.refused(clock, called, None, &error);
        }
    }

    /// A caller may go away at any moment.
    fn patience(&self) -> Duration {
        let is_short = self.random.below(16) == 0;
        Duration::from_millis(if is_short { self.random.below(300) } else { 60_000 })
    }
}

#[test]
fn items_stand_in_the_order_of_their_fences() {
    let names = |fences: &[u64]| fences.iter().map(|fence| item(*fence, "h0", 1)).collect::<Vec<_>>();
    assert_eq!(out_of_order(&names(&[0, 5, 5, 0, 9])), None);
    assert!(out_of_order(&names(&[5, 0, 9, 5])).is_some());
    // Of others, no name is one.
    assert_eq!(out_of_order(&["t0.2".to_owned(), "f:".to_owned()]), None);
}
