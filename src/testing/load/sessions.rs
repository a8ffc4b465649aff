//! `agent-sessions`: a population of agents at work, and the audit of what the store kept of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::population::{self, Class};
use super::{Corpus, Failure, PREFIX, Rng, Step, Transcript, Turns, Work};
use crate::env::Locked as _;

/// Turns that come by the client that had the turn before, whose cache knows the session.
const SAME_CLIENT: f64 = 0.80;
const EXTRA_LOADS: f64 = 0.01;
const RESETS: f64 = 0.004;
/// Turns a worker runs again from the beginning, since it lost track of them.
const RUN_TWICE: f64 = 0.001;
/// Sessions on which turns race, and how many of their turns do.
const RACY_SESSIONS: f64 = 0.05;
const RACY_TURNS: f64 = 0.12;
const HOT_SESSIONS: f64 = 0.01;
const HOT_TURNS: f64 = 0.40;
/// A session that large begins no further turn: with the largest turn it still is below the bound of a session.
const SESSION_BYTES_MAX: f64 = 24e6;
/// Sessions audited at once.
const AUDITORS: usize = 8;

/// Sessions at work. Time is compressed: a turn saves right after it loaded, and the next turn on a session comes as soon as a caller
/// takes it up.
pub struct Sessions<S> {
    stores: Vec<Arc<S>>,
    corpus: Corpus,
    run: u64,
    active: usize,
    seed: Rng,
    sequence: AtomicU64,
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    begun: u64,
    /// Waiting for their next turn. One that a caller works on is not here: turns race only where that is meant.
    idle: Vec<Session>,
    ended: Vec<Session>,
}

struct Session {
    key: String,
    class: Class,
    turns_left: u64,
    bytes: f64,
    client: usize,
    race: f64,
    rng: Rng,
    /// By marker.
    expected: BTreeMap<String, Expected>,
}

#[derive(Clone, Copy)]
struct Expected {
    messages: usize,
    usage: [u64; 2],
    /// Not acknowledged, but it may have happened.
    is_doubtful: bool,
}

/// The findings of an audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Sessions that were read.
    pub sessions: u64,
    /// Turns that were acknowledged and not emptied by a reset.
    pub turns: u64,
    /// Turns of which it is not known whether they were stored.
    pub doubtful: u64,
    /// Acknowledged turns that are not there.
    pub lost: u64,
    /// Turns that are there more than once.
    pub doubled: u64,
    /// Turns that are there and should not be.
    pub strange: u64,
    /// Turns of which messages are missing or stand elsewhere.
    pub torn: u64,
    /// Sessions whose usage is not the sum of their turns'.
    pub usage_wrong: u64,
    /// Sessions that could not be read.
    pub unread: u64,
}

impl Audit {
    /// Whether every acknowledged turn is kept, once, whole, and its usage counted.
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.strange + self.torn + self.usage_wrong + self.unread == 0
    }

    fn add(&mut self, other: &Audit) {
        self.sessions += other.sessions;
        self.turns += other.turns;
        self.doubtful += other.doubtful;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.strange += other.strange;
        self.torn += other.torn;
        self.usage_wrong += other.usage_wrong;
        self.unread += other.unread;
    }
}

impl<S: Turns> Sessions<S> {
    /// `stores` are the clients, at least one; `active` sessions are at work at any time; `run` tells their keys from another run's.
    pub fn new(stores: Vec<Arc<S>>, corpus: Corpus, active: usize, run: u64, seed: u64) -> Self {
        assert!(!stores.is_empty(), "turns come by some client");
        Self { stores, corpus, run, active, seed: Rng::new(seed), sequence: AtomicU64::new(0), pool: Mutex::default() }
    }

    /// Any session that waits for a turn; a new one while there are not enough.
    fn take(&self, rng: &mut Rng) -> Session {
        let mut pool = self.pool.locked();
        if pool.idle.len() >= self.active {
            let at = rng.below(pool.idle.len() as u64) as usize;
            return pool.idle.swap_remove(at);
        }
        pool.begun += 1;
        let number = pool.begun;
        drop(pool);
        let mut rng = self.seed.fork(number);
        let class = Class::draw(&mut rng);
        let race = match rng.unit() {
            share if share < HOT_SESSIONS => HOT_TURNS,
            share if share < HOT_SESSIONS + RACY_SESSIONS => RACY_TURNS,
            _ => 0.0,
        };
        Session {
            key: format!("{PREFIX}agents/{}/{number}", self.run),
            class,
            turns_left: class.turns(&mut rng),
            bytes: 0.0,
            client: rng.below(self.stores.len() as u64) as usize,
            race,
            rng,
            expected: BTreeMap::new(),
        }
    }

    fn put_back(&self, session: Session) {
        let has_ended = session.turns_left == 0 || session.bytes > SESSION_BYTES_MAX;
        let mut pool = self.pool.locked();
        if has_ended { pool.ended.push(session) } else { pool.idle.push(session) }
    }

    /// One turn, or two that race.
    async fn work_on(&self, session: &mut Session) -> Result<Step, Failure> {
        if session.rng.chance(EXTRA_LOADS) {
            self.stores[session.client].begin(&session.key).await?;
        }
        if session.rng.chance(RESETS) {
            if let Err(failure) = self.stores[session.client].reset(&session.key).await {
                // Perhaps it was emptied, perhaps not.
                session.expected.values_mut().for_each(|turn| turn.is_doubtful |= failure.may_have_happened);
                return Err(failure);
            }
            session.expected.clear();
            session.bytes = 0.0;
        }
        if session.turns_left > 1 && session.rng.chance(session.race) {
            let (one, other) = (self.planned(session), self.planned(session));
            let begun = tokio::join!(self.begun(session, &one), self.begun(session, &other));
            let (first, second) = (begun.0?, begun.1?);
            let ended = tokio::join!(self.finished(session, &one, first), self.finished(session, &other, second));
            let steps = (session.record(&one, ended.0), session.record(&other, ended.1));
            return Ok(Step { conflicts: steps.0?.conflicts + steps.1?.conflicts });
        }
        let repeats = 1 + u64::from(session.rng.chance(RUN_TWICE));
        let mut conflicts = 0;
        for _ in 0..repeats {
            let planned = self.planned(session);
            let base = self.begun(session, &planned).await?;
            let ended = self.finished(session, &planned, base).await;
            conflicts += session.record(&planned, ended)?.conflicts;
        }
        Ok(Step { conflicts })
    }

    fn planned(&self, session: &mut Session) -> Planned {
        if !session.rng.chance(SAME_CLIENT) {
            session.client = session.rng.below(self.stores.len() as u64) as usize;
        }
        session.turns_left = session.turns_left.saturating_sub(1);
        let sizes = session.class.turn(&mut session.rng);
        session.bytes += sizes.bytes();
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let marker = format!("[turn {} {} {sequence}]", session.key, session.client);
        let turn = population::turn(&sizes, &marker, &self.corpus, &mut session.rng);
        Planned { client: session.client, marker, turn }
    }

    async fn begun(&self, session: &Session, planned: &Planned) -> Result<S::Base, Failure> {
        self.stores[planned.client].begin(&session.key).await
    }

    async fn finished(&self, session: &Session, planned: &Planned, base: S::Base) -> Result<Step, Failure> {
        let finished = self.stores[planned.client].finish(&session.key, base, &planned.turn).await?;
        Ok(Step { conflicts: finished.conflicts })
    }

    /// Reads every session by `store`, which should have no part in the work, and compares. No work may be under way.
    pub async fn audit(self: Arc<Self>, store: Arc<S>) -> Audit {
        let sessions: Vec<Session> = {
            let mut pool = self.pool.locked();
            let idle = std::mem::take(&mut pool.idle);
            std::mem::take(&mut pool.ended).into_iter().chain(idle).collect()
        };
        let sessions = Arc::new(Mutex::new(sessions));
        let auditors: Vec<_> = (0..AUDITORS)
            .map(|_| {
                let (sessions, store) = (sessions.clone(), store.clone());
                tokio::spawn(async move {
                    let mut audit = Audit::default();
                    loop {
                        let session = sessions.locked().pop();
                        let Some(session) = session else { return audit };
                        match store.transcript(&session.key).await {
                            Ok(transcript) => audit.add(&compare(&session.expected, &transcript)),
                            Err(_) => audit.unread += 1,
                        }
                    }
                })
            })
            .collect();
        let mut all = Audit::default();
        for auditor in auditors {
            match auditor.await {
                Ok(audit) => all.add(&audit),
                Err(_) => all.unread += 1,
            }
        }
        all
    }
}

struct Planned {
    client: usize,
    marker: String,
    turn: super::Turn,
}

impl Session {
    fn record(&mut self, planned: &Planned, ended: Result<Step, Failure>) -> Result<Step, Failure> {
        let is_doubtful = match &ended {
            Ok(_) => false,
            Err(failure) if failure.may_have_happened => true,
            Err(_) => return ended,
        };
        let expected = Expected { messages: planned.turn.messages.len(), usage: planned.turn.usage, is_doubtful };
        self.expected.insert(planned.marker.clone(), expected);
        ended
    }
}

impl<S: Turns> Work for Sessions<S> {
    type Caller = Rng;

    fn caller(&self, _: usize, rng: Rng) -> Rng {
        rng
    }

    async fn step(&self, rng: &mut Rng) -> Result<Step, Failure> {
        let mut session = self.take(rng);
        let result = self.work_on(&mut session).await;
        self.put_back(session);
        result
    }
}

/// Compares what should be there with what is.
fn compare(expected: &BTreeMap<String, Expected>, transcript: &Transcript) -> Audit {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let mut turns: Vec<(Option<String>, usize)> = Vec::new();
    for message in &transcript.messages {
        match marker(message) {
            Some(marker) => turns.push((Some(marker), 1)),
            None => match turns.last_mut() {
                Some((_, messages)) => *messages += 1,
                None => turns.push((None, 1)),
            },
        }
    }
    let certain = expected.values().filter(|turn| !turn.is_doubtful).count() as u64;
    let mut audit = Audit { sessions: 1, turns: certain, doubtful: expected.len() as u64 - certain, ..Audit::default() };
    let mut usage = [0, 0];
    for (marker, messages) in &turns {
        let Some((marker, turn)) = marker.as_ref().and_then(|marker| expected.get_key_value(marker)) else {
            audit.strange += 1;
            continue;
        };
        let times = seen.entry(marker.as_str()).or_default();
        *times += 1;
        if *times == 1 {
            usage = [usage[0] + turn.usage[0], usage[1] + turn.usage[1]];
        }
        audit.torn += u64::from(*messages != turn.messages);
    }
    audit.doubled = seen.values().filter(|times| **times > 1).count() as u64;
    audit.lost = expected.iter().filter(|(marker, turn)| !turn.is_doubtful && !seen.contains_key(marker.as_str())).count() as u64;
    audit.usage_wrong = u64::from(usage != transcript.usage);
    audit
}

/// The first words of a user's message.
fn marker(message: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(message).ok()?;
    if value.get("role")? != "user" {
        return None;
    }
    let content = value.get("content")?.as_str()?;
    Some(content[..=content.find(']')?].to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::{Memory, Plan, Progress, Target, Whole, drive};
    use super::*;

    async fn worked() -> (Arc<Memory>, Arc<Sessions<Whole<Memory>>>) {
        let memory = Arc::new(Memory::default());
        let stores = (0..3).map(|_| Arc::new(Whole(memory.clone()))).collect();
        let sessions = Arc::new(Sessions::new(stores, Corpus::text(1, 1 << 16), 20, 1, 5));
        let plan = Plan { warm_up: Duration::ZERO, window: Duration::ZERO, at_least: 400, ..Plan::closed(4) };
        let run = drive(sessions.clone(), &plan, &Progress::default(), async || ()).await.run;
        assert!(run.operations > 20 && run.failures == 0, "{run:?}");
        (memory, sessions)
    }

    #[tokio::test]
    async fn a_store_that_keeps_everything_is_found_clean() {
        let (memory, sessions) = worked().await;
        let audit = sessions.audit(Arc::new(Whole(memory))).await;
        assert!(audit.is_clean() && audit.sessions >= 20 && audit.turns > 20, "{audit:?}");
    }

    #[tokio::test]
    async fn a_session_that_went_missing_is_found() {
        let (memory, sessions) = worked().await;
        let lost = sessions.pool.locked().idle.iter().map(|session| session.key.clone()).next().expect("one");
        memory.save(&lost, Bytes::new()).await.expect("stored");
        let audit = sessions.audit(Arc::new(Whole(memory))).await;
        assert!(audit.lost > 0 && !audit.is_clean(), "{audit:?}");
    }

    #[test]
    fn every_kind_of_damage_is_reported_by_name() {
        let user = |marker: &str| Bytes::from(format!("{{\"role\":\"user\",\"content\":\"{marker} text\"}}"));
        let answer = || Bytes::from_static(b"{\"role\":\"assistant\",\"content\":\"[turn x]\"}");
        let turn = |is_doubtful| Expected { messages: 2, usage: [3, 1], is_doubtful };
        let expected = BTreeMap::from([("[a]".to_owned(), turn(false)), ("[b]".to_owned(), turn(true))]);
        let found = |messages: Vec<Bytes>, usage| {
            let Audit { lost, doubled, strange, torn, usage_wrong, .. } = compare(&expected, &Transcript { messages, usage });
            [lost, doubled, strange, torn, usage_wrong]
        };
        let whole = |marker| vec![user(marker), answer()];
        assert_eq!(found(whole("[a]"), [3, 1]), [0, 0, 0, 0, 0], "a doubtful turn may be missing");
        assert_eq!(found([whole("[b]"), whole("[a]")].concat(), [6, 2]), [0, 0, 0, 0, 0], "or be there");
        assert_eq!(found(whole("[b]"), [3, 1]), [1, 0, 0, 0, 0]);
        assert_eq!(found([whole("[a]"), whole("[a]")].concat(), [3, 1]), [0, 1, 0, 0, 0]);
        assert_eq!(found([whole("[a]"), whole("[c]")].concat(), [3, 1]), [0, 0, 1, 0, 0]);
        assert_eq!(found([vec![answer()], whole("[a]")].concat(), [3, 1]), [0, 0, 1, 0, 0]);
        assert_eq!(found(vec![user("[a]")], [3, 1]), [0, 0, 0, 1, 0]);
        assert_eq!(found(whole("[a]"), [3, 2]), [0, 0, 0, 0, 1]);
    }
}
