//! Turns: one writer at a time for one session. The fence excludes, which the cluster compares with every write; the guard here only keeps the
//! lease alive, and says when it may be lost.
//!
//! ```text
//! turn ─> AcquireLease ─> Turn ── save, append, .. with its fence
//!                          │ └── lost(): no renewal that was sent less than the ttl ago succeeded
//!                          └── renewer: one task per client, one command for all turns of one ttl, at a third of it
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::handle::{Fencing, Handle};
use super::{
    AppendOptions, Appended, Client, Content, Error, ErrorKind, Expected, Expiry, NO_REQUEST, Touched, WriteOptions, Written,
};
use super::{
    driver::operation::{MakeChange, Planned},
    session_id,
};
use crate::env::u64_from;
use crate::limits::LEASES_RENEWED_MAX;
use crate::mutant::{self, Mutant};
use crate::types::{Change, ClusterId, Fence, Holder, LeaseTtl, Outcome, Renewals, SessionId, Verdict, Write};

/// Pause between two attempts to take a turn that another has: at least, and at most.
const WAIT_MIN: Duration = Duration::from_secs(2);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Renewals within one time to live.
const RENEWALS_PER_TTL: u32 = 3;

/// The choice where another holder has the turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// `Leased`, at once.
    #[default]
    Reject,
    /// Try again every 2 to 5 s, for so long; then `Leased`. There is no queue: of several that wait, any may be next.
    Enqueue(Duration),
    /// Take it from its holder, whose writes are `Fenced` from then on.
    Interrupt,
}

/// How to take a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnOptions {
    /// The holder's name, for others to read: at most 256 bytes. It decides nothing.
    pub holder: String,
    /// How long the lease lives without a renewal: 5 s to 10 min. A holder that dies is followed after that.
    pub ttl: Duration,
    /// The choice where another holder has the turn.
    pub wait: Wait,
}

impl Default for TurnOptions {
    fn default() -> Self {
        Self { holder: String::new(), ttl: Duration::from_secs(30), wait: Wait::default() }
    }
}

impl Client {
    /// Takes the turn of a session, which need not exist: until the turn is released, dropped or lost, no other writes it. The lease is renewed
    /// in the background at a third of its time to live. It needs cluster version 2.
    ///
    /// Only what is written through the turn carries its fence; other calls of this client on that session are `Leased`, as everyone's are.
    /// Loads are free.
    ///
    /// Errors: `Invalid` for a holder or a time out of its bounds; `Leased` where another holder has it, after the wait; `Refused` also while the
    /// leader hears no majority of the clocks; `Unsupported` under cluster version 1; in each nothing changed. After `Indeterminate` the lease
    /// may have been granted to no one, and ends by itself. Dropping the future may leave such a lease too. Needs a tokio runtime.
    ///
    /// ```no_run
    /// # async fn example(client: quorate::client::Client) -> Result<(), quorate::client::Error> {
    /// use quorate::client::{AppendOptions, TurnOptions};
    ///
    /// let turn = client.turn("conversation", TurnOptions { holder: "worker 7".into(), ..TurnOptions::default() }).await?;
    /// let session = client.load("conversation").await?;
    /// turn.append(vec![r#"{"role": "assistant"}"#.into()], AppendOptions::default()).await?;
    /// turn.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(hidden)]
    pub async fn turn(&self, id: &str, options: TurnOptions) -> Result<Turn, Error> {
        let TurnOptions { holder, ttl, wait } = options;
        let invalid = |error: &dyn std::fmt::Display| Error::invalid(error.to_string());
        let holder = Holder::new(&holder).map_err(|error| invalid(&error))?;
        let ttl = LeaseTtl::new(ttl).map_err(|error| invalid(&error))?;
        let id = session_id(id)?;
        let config = self.handle.config();
        let until = config.clock.now() + if let Wait::Enqueue(at_most) = wait { at_most } else { Duration::ZERO };
        loop {
            let taken = acquire(&self.handle, &id, &holder, ttl, wait == Wait::Interrupt).await;
            let Err(error) = taken else { return taken.map(|lease| self.hold(lease)) };
            let pause = WAIT_MIN + Duration::from_millis(u64_from(&*config.random) % (WAIT_MAX - WAIT_MIN).as_millis() as u64);
            let left = until.saturating_sub(config.clock.now());
            if !matches!(error.kind(), ErrorKind::Leased { .. }) || left.is_zero() {
                return Err(error);
            }
            tokio::time::sleep(pause.min(left)).await;
        }
    }

    /// Ends the lease of a session that has this fence, any holder's: its writes are `Fenced` from then on. For operators, of a
    /// holder that is gone; a [`Turn`] releases itself. `false`: no lease of this fence lives, and nothing changed.
    ///
    /// Errors: as [`Client::delete`]; `Unsupported` under cluster version 1. Dropping the future does not cancel it.
    #[doc(hidden)]
    pub async fn release_lease(&self, id: &str, fence: Fence) -> Result<bool, Error> {
        release(&self.handle, session_id(id)?, fence).await
    }

    fn hold(&self, lease: Arc<Guard>) -> Turn {
        self.turns.add(lease.clone(), &self.handle);
        let fenced = Client { handle: self.handle.fenced(lease.fencing), ..self.clone() };
        Turn { client: fenced, turns: self.turns.clone(), guard: lease, is_released: false }
    }
}

/// Notes the cluster that an outcome came from.
#[derive(Default)]
struct OfCluster(Arc<OnceLock<ClusterId>>);

impl Planned for OfCluster {
    fn cluster(&self) -> Option<ClusterId> {
        None
    }

    fn full_change(&mut self, _: bool) -> Option<MakeChange> {
        None
    }

    fn on_full_change(&mut self, _: &Change) {}

    fn fallback(&mut self) -> Option<Write> {
        None
    }

    fn on_accepted(&mut self) {}

    fn on_finished(&mut self, end: Result<(&Outcome, Option<ClusterId>), ErrorKind>) {
        if let Ok((_, Some(cluster))) = end {
            let _ = self.0.set(cluster);
        }
    }
}

async fn acquire(handle: &Handle, id: &SessionId, holder: &Holder, ttl: LeaseTtl, steal: bool) -> Result<Arc<Guard>, Error> {
    let (answered, clock) = (OfCluster::default(), handle.config().clock.clone());
    let cluster = answered.0.clone();
    let write = Write::AcquireLease { request: NO_REQUEST, id: id.clone(), holder: holder.clone(), ttl, steal };
    let began = clock.now();
    let outcome = handle.write(write, Some(Box::new(answered))).await?;
    match (outcome.verdict, cluster.get()) {
        (Verdict::LeaseGranted { fence, .. }, Some(cluster)) => {
            let fencing = Fencing { fence, cluster: *cluster };
            Ok(Arc::new(Guard::new(id.clone(), fencing, ttl, began)))
        }
        (Verdict::LeaseHeld { holder, .. }, _) => Err(Error::leased(&holder, outcome.revision)),
        // No acquisition gets such an outcome, or no node says which cluster it is of: what it did is not known.
        _ => Err(Error::indeterminate(None)),
    }
}

/// A lease that is held, or was.
struct Guard {
    id: SessionId,
    fencing: Fencing,
    ttl: LeaseTtl,
    /// By the client's clock, in microseconds: when the first attempt of the last renewal that succeeded was handed over.
    renewed_us: AtomicU64,
    /// The cluster said that the lease is gone, or its time passed. A lost one is never renewed.
    is_lost: AtomicBool,
    changed: Notify,
}

impl Guard {
    fn new(id: SessionId, fencing: Fencing, ttl: LeaseTtl, began: Duration) -> Self {
        let guard =
            Self { id, fencing, ttl, renewed_us: AtomicU64::default(), is_lost: AtomicBool::default(), changed: Notify::new() };
        guard.renewed(began);
        guard
    }

    fn renewed(&self, began: Duration) {
        self.renewed_us.fetch_max(u64::try_from(began.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    fn renewed_at(&self) -> Duration {
        Duration::from_micros(self.renewed_us.load(Ordering::Relaxed))
    }

    fn lose(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Whether it is lost by now; once it is, it stays so.
    fn is_lost(&self, now: Duration) -> bool {
        if now >= self.renewed_at() + self.ttl.get() {
            self.is_lost.store(true, Ordering::Relaxed);
        }
        self.is_lost.load(Ordering::Relaxed)
    }

    /// Through a handle that carries its fence, and so knows its cluster.
    async fn release(&self, handle: &Handle) -> Result<bool, Error> {
        release(handle, self.id.clone(), self.fencing.fence).await
    }

    fn renew_at(&self) -> Duration {
        self.renewed_at() + self.ttl.get() / RENEWALS_PER_TTL
    }
}

/// The turns of a client, and of all its clones.
#[derive(Default)]
pub(super) struct Turns {
    held: Mutex<Held>,
    /// A turn was taken, or given up.
    changed: Notify,
}

#[derive(Default)]
struct Held {
    guards: BTreeMap<(SessionId, Fence), Arc<Guard>>,
    /// A task renews them; it ends with the last one.
    is_renewed: bool,
}

impl Turns {
    /// A panic elsewhere leaves the table as good as it was.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, guard: Arc<Guard>, handle: &Handle) {
        let mut held = self.held();
        held.guards.insert((guard.id.clone(), guard.fencing.fence), guard);
        if !std::mem::replace(&mut held.is_renewed, true) {
            tokio::spawn(renew(self.clone(), handle.clone()));
        }
        drop(held);
        self.changed.notify_one();
    }

    fn remove(&self, guard: &Guard) {
        self.held().guards.remove(&(guard.id.clone(), guard.fencing.fence));
        self.changed.notify_one();
    }

    /// The fence of the turn of this client that was taken last for a session, lost or not, and is still held (not dropped).
    #[allow(dead_code, reason = "without an adapter nobody asks")]
    pub fn fencing(&self, id: &SessionId) -> Option<Fencing> {
        let held = self.held();
        let of_session = held.guards.range((id.clone(), Fence(0))..=(id.clone(), Fence(u64::MAX)));
        let is_forgotten = |guard: &Guard| mutant::is(Mutant::LostTurnUnfenced) && guard.is_lost.load(Ordering::Relaxed);
        of_session.last().map(|(_, guard)| guard).filter(|guard| !is_forgotten(guard)).map(|guard| guard.fencing)
    }

    /// The leases to renew together now, or when the next are due; `None`: no turn is held, and the task ends.
    fn due(&self, now: Duration) -> Option<Due> {
        let mut held = self.held();
        if held.guards.is_empty() {
            held.is_renewed = false;
            return None;
        }
        let alive: Vec<&Arc<Guard>> = held.guards.values().filter(|guard| !guard.is_lost(now)).collect();
        let Some(first) = alive.iter().min_by_key(|guard| guard.renew_at()) else { return Some(Due::Later(None)) };
        if first.renew_at() > now {
            return Some(Due::Later(Some(first.renew_at() - now)));
        }
        // Each session once: of two turns of one, the older is lost.
        let mut by_session: BTreeMap<&SessionId, &Arc<Guard>> = BTreeMap::new();
        for guard in alive.iter().filter(|guard| guard.ttl == first.ttl) {
            by_session.insert(&guard.id, guard);
        }
        let mut due: Vec<Arc<Guard>> = by_session.into_values().cloned().collect();
        due.sort_by_key(|guard| guard.renew_at());
        due.truncate(LEASES_RENEWED_MAX);
        Some(Due::Now(first.ttl, due))
    }
}

enum Due {
    Now(LeaseTtl, Vec<Arc<Guard>>),
    Later(Option<Duration>),
}

/// Renews the leases of a client's turns until there is none.
async fn renew(turns: Arc<Turns>, handle: Handle) {
    let clock = handle.config().clock.clone();
    while let Some(due) = turns.due(clock.now()) {
        match due {
            Due::Later(after) => {
                let changed = turns.changed.notified();
                match after {
                    Some(after) => drop(tokio::time::timeout(after, changed).await),
                    None => changed.await,
                }
            }
            Due::Now(ttl, guards) => {
                let began = clock.now();
                let leases = guards.iter().map(|guard| (guard.id.clone(), guard.fencing.fence)).collect();
                let leases = Renewals::new(leases).expect("each session once, and not too many");
                let renewal = handle.write(Write::RenewLeases { request: NO_REQUEST, leases, ttl }, None);
                // One that hangs must not hold up the next: each may be sent again, as none shortens a lease.
                let pause = ttl.get() / (4 * RENEWALS_PER_TTL);
                match tokio::time::timeout(ttl.get() / RENEWALS_PER_TTL, renewal).await {
                    Ok(Ok(Outcome { verdict: Verdict::LeasesRenewed { lost, .. }, .. })) => {
                        for (position, guard) in guards.iter().enumerate() {
                            if lost.has(position) { guard.lose() } else { guard.renewed(began) }
                        }
                    }
                    Ok(_) => tokio::time::sleep(pause).await,
                    Err(_) => {}
                }
            }
        }
    }
}

/// A turn of a session: writes through it carry its fence, also once it is lost, and are then `Fenced`.
///
/// Dropped, it releases the lease as soon as it can, if its runtime still runs; [`Turn::release`] is sure. A lost turn never comes back: take
/// another.
pub struct Turn {
    /// Its writes carry the fence.
    client: Client,
    turns: Arc<Turns>,
    guard: Arc<Guard>,
    is_released: bool,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn").field("fence", &self.fence()).finish_non_exhaustive()
    }
}

impl Turn {
    /// A number that is larger than that of every turn of this session before, in this cluster: other resources may be fenced by it too.
    pub fn fence(&self) -> u64 {
        self.guard.fencing.fence.0
    }

    /// The session.
    pub fn session(&self) -> &str {
        self.guard.id.as_str()
    }

    pub(super) fn fencing(&self) -> (SessionId, Fencing) {
        (self.guard.id.clone(), self.guard.fencing)
    }

    /// Resolves when the turn may be lost: the cluster said so, or the last renewal that succeeded was sent longer ago than the lease lives.
    /// Stop the work then. Where clocks are sound this comes before another can have the turn; what excludes is the fence. Cancel safe.
    pub async fn lost(&self) {
        let clock = self.client.handle.config().clock.clone();
        loop {
            let changed = self.guard.changed.notified();
            let now = clock.now();
            if self.guard.is_lost(now) {
                return;
            }
            let left = (self.guard.renewed_at() + self.guard.ttl.get()).saturating_sub(now);
            // Renewed, or lost: looked at again either way.
            drop(tokio::time::timeout(left, changed).await);
        }
    }

    /// As [`Client::save`], in this turn. Errors: also `Fenced`, and nothing changed.
    pub async fn save(&self, content: Content, options: WriteOptions) -> Result<Written, Error> {
        self.client.save(self.session(), content, options).await
    }

    /// As [`Client::save_if_version`], in this turn. Errors: also `Fenced`, and nothing changed; it is asked before the version.
    pub async fn save_if_version(&self, content: Content, expected: Expected, options: WriteOptions) -> Result<Written, Error> {
        self.client.save_if_version(self.session(), content, expected, options).await
    }

    /// As [`Client::append`], in this turn. Errors: also `Fenced`, and nothing changed.
    pub async fn append(&self, items: Vec<bytes::Bytes>, options: AppendOptions) -> Result<Appended, Error> {
        self.client.append(self.session(), items, options).await
    }

    /// As [`Client::delete`], in this turn. Errors: also `Fenced`, and nothing changed. The lease stays.
    pub async fn delete(&self, expected: Option<Expected>) -> Result<Option<Written>, Error> {
        self.client.delete(self.session(), expected).await
    }

    /// As [`Client::touch`], in this turn. Errors: also `Fenced`, and nothing changed.
    pub async fn touch(&self, expiry: Expiry) -> Result<Option<Touched>, Error> {
        self.client.touch(self.session(), expiry).await
    }

    /// Gives the turn back, once the writes that were begun in it have ended. `false`: it was lost before, and nothing changed.
    ///
    /// Errors: `Refused`, `Indeterminate`: the lease may live on until its time has passed. Dropping the future does not cancel it.
    pub async fn release(mut self) -> Result<bool, Error> {
        self.is_released = true;
        self.turns.remove(&self.guard);
        self.guard.release(&self.client.handle).await
    }
}

async fn release(handle: &Handle, id: SessionId, fence: Fence) -> Result<bool, Error> {
    let outcome = handle.write(Write::ReleaseLease { request: NO_REQUEST, id, fence }, None).await?;
    match outcome.verdict {
        Verdict::LeaseReleased => Ok(true),
        Verdict::LeaseLost => Ok(false),
        // No release gets such an outcome: what it did is not known.
        _ => Err(Error::indeterminate(None)),
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_released {
            return;
        }
        self.turns.remove(&self.guard);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Where it can't be released, its time ends it.
            let (guard, handle) = (self.guard.clone(), self.client.handle.clone());
            runtime.spawn(async move { guard.release(&handle).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    fn guard(id: &str, fence: u64, ttl_secs: u64, began_secs: u64) -> Arc<Guard> {
        let ttl = LeaseTtl::new(Duration::from_secs(ttl_secs)).expect("within");
        let fencing = Fencing { fence: Fence(fence), cluster: CLUSTER };
        let id = SessionId::new(id).expect("short");
        Arc::new(Guard::new(id, fencing, ttl, Duration::from_secs(began_secs)))
    }

    fn turns(guards: &[&Arc<Guard>]) -> Turns {
        let turns = Turns::default();
        for guard in guards {
            turns.held().guards.insert((guard.id.clone(), guard.fencing.fence), (*guard).clone());
        }
        turns
    }

    fn due(turns: &Turns, now_secs: u64) -> Option<(u64, Vec<u64>)> {
        match turns.due(Duration::from_secs(now_secs)).expect("turns are held") {
            Due::Now(ttl, guards) => Some((ttl.get().as_secs(), guards.iter().map(|guard| guard.fencing.fence.0).collect())),
            Due::Later(_) => None,
        }
    }

    #[test]
    fn turns_of_one_time_are_renewed_together_once_the_first_is_due() {
        let guards = [guard("a", 1, 30, 100), guard("b", 2, 30, 109), guard("c", 3, 60, 98)];
        let turns = turns(&guards.each_ref());
        assert_eq!(due(&turns, 109), None);
        assert_eq!(due(&turns, 110), Some((30, vec![1, 2])));
        guards[..2].iter().for_each(|guard| guard.renewed(Duration::from_secs(110)));
        assert_eq!(due(&turns, 117), None);
        assert_eq!(due(&turns, 118), Some((60, vec![3])), "the one that is due first");
    }

    #[test]
    fn a_lost_turn_is_never_renewed_and_of_two_of_one_session_the_later_only() {
        let guards = [guard("a", 1, 30, 100), guard("a", 5, 30, 105), guard("b", 2, 30, 101), guard("c", 3, 30, 70)];
        let turns = turns(&guards.each_ref());
        guards[2].lose();
        assert_eq!(due(&turns, 120), Some((30, vec![5])));
        assert!(guards[3].is_lost(Duration::from_secs(100)), "its time has passed");
        guards[3].renewed(Duration::from_secs(119));
        assert!(guards[3].is_lost(Duration::from_secs(120)), "an answer that comes late brings nothing back");
        assert_eq!(turns.fencing(&guards[0].id).map(|fencing| fencing.fence), Some(Fence(5)));
        assert_eq!(turns.fencing(&guards[2].id).map(|fencing| fencing.fence), Some(Fence(2)), "lost, and still its fence");
        turns.remove(&guards[2]);
        assert_eq!(turns.fencing(&guards[2].id), None);
    }

    #[test]
    fn no_more_are_renewed_at_once_than_a_command_holds() {
        let guards: Vec<_> = (0..LEASES_RENEWED_MAX as u64 + 3).map(|n| guard(&format!("{n}"), n + 1, 30, 100 + n % 2)).collect();
        let turns = turns(&guards.iter().collect::<Vec<_>>());
        let (_, fences) = due(&turns, 115).expect("all are due");
        assert_eq!(fences.len(), LEASES_RENEWED_MAX);
        assert!(turns.held().guards.len() > LEASES_RENEWED_MAX && fences[0] % 2 == 1, "the oldest first {fences:?}");
    }

    #[test]
    fn the_last_turn_that_ends_ends_the_renewals() {
        let guard = guard("a", 1, 30, 100);
        let turns = turns(&[&guard]);
        turns.held().is_renewed = true;
        turns.remove(&guard);
        assert!(turns.due(Duration::ZERO).is_none());
        assert!(!turns.held().is_renewed);
    }
}
