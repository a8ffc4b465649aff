//! Clients that take turns as Bob's runtime does: load, think, save. Two kinds of sessions:
//!
//! - *shared*: turns race and are rebased. Every acknowledged turn is in every later load exactly once, a refused one never, and usage
//!   counts exactly the turns that are there.
//! - *overwritten*: the last save wins. Every load finds exactly what some save stored, whole.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bob_core::error::StoreError;
use bob_core::ports::SessionStore as _;
use bob_core::types::{Message, Role, SessionState};
use quorate::client::bob::{ConcurrentSave, Store};
use quorate::client::{Error, ErrorKind};
use quorate::env::Clock as _;
use quorate::testing::inline::SeededRandom;

use super::coverage::sometimes;
use super::node::HostClock;
use super::workload::{Connect, Phase, Shared};

/// Sessions of each kind.
const SESSIONS: u64 = 2;
/// Between a turn's name and its neighbours in a summary.
const SEPARATOR: char = ' ';

/// How a turn's save ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Saved(Duration),
    Refused,
    Unknown,
}

/// What turners share: a session's name, a turn's, and its end.
#[derive(Default)]
pub struct Turns {
    taken: Vec<(String, String, End)>,
    /// Every content that a save of an overwritten session was to store.
    contents: BTreeSet<(String, String)>,
    pub violations: Vec<String>,
}

/// One client.
pub struct Turner {
    pub name: String,
    pub connect: Connect,
    pub shared: Arc<Mutex<Shared>>,
    pub turns: Arc<Mutex<Turns>>,
    pub random: SeededRandom,
    pub think_ms: u64,
}

fn is_shared(session: &str) -> bool {
    session.starts_with("shared")
}

/// The names of all turns in a state, summarized ones first.
fn names(state: &SessionState) -> Vec<String> {
    let summary = state.memory_summary.as_deref().unwrap_or_default();
    let summarized = summary.split(SEPARATOR).filter(|name| !name.is_empty()).map(str::to_owned);
    summarized.chain(state.messages.iter().map(|message| message.content.clone())).collect()
}

impl Turner {
    /// Works until the scan.
    pub async fn run(mut self) {
        let clock = HostClock::default();
        let mut stores = self.stores();
        let mut count = 0;
        loop {
            if self.shared.lock().expect("no client panics with it").phase >= Phase::Scan {
                return;
            }
            if self.random.below(50) == 0 {
                stores = self.stores();
            }
            count += 1;
            let session = ["shared", "overwritten"][self.random.below(2) as usize];
            let session = format!("{session}{}", self.random.below(SESSIONS));
            let store = &stores[usize::from(is_shared(&session))];
            self.turn(store, &clock, &session, format!("{}.{count}", self.name)).await;
            tokio::time::sleep(Duration::from_millis(self.random.below(self.think_ms + 1))).await;
        }
    }

    /// One that overwrites, and one that rebases.
    fn stores(&self) -> [Store; 2] {
        let store = self.connect.client(&self.random).session_store();
        [store.clone(), self.connect.client(&self.random).session_store().concurrent_save(ConcurrentSave::Rebase)]
    }

    async fn turn(&mut self, store: &Store, clock: &HostClock, session: &str, name: String) {
        let asked = clock.now();
        let Ok(loaded) = store.load(&session.to_owned()).await else { return };
        let mut state = loaded.unwrap_or_default();
        self.turns.lock().expect("no client panics with it").check(session, &state, asked);
        tokio::time::sleep(Duration::from_millis(self.random.below(2 * self.think_ms + 1))).await;
        if state.messages.len() > 6 && self.random.below(8) == 0 {
            let kept = state.messages.split_off(state.messages.len() - 2);
            let gone = std::mem::replace(&mut state.messages, kept);
            let gone = gone.into_iter().map(|message| message.content);
            let summary = state.memory_summary.take().into_iter().chain(gone);
            state.memory_summary = Some(summary.collect::<Vec<_>>().join(&SEPARATOR.to_string()));
        }
        state.messages.push(Message::text(Role::User, name.clone()));
        state.total_usage.prompt_tokens += 1;
        let at = self.turns.lock().expect("no client panics with it").begin(session, name, &state);
        let saved = tokio::time::timeout(self.patience(), store.save(&session.to_owned(), &state)).await;
        let end = match saved {
            Ok(Ok(())) => End::Saved(clock.now()),
            Ok(Err(error)) => ended(&error),
            Err(_) => End::Unknown,
        };
        self.turns.lock().expect("no client panics with it").taken[at].2 = end;
    }

    /// A caller may go away at any moment.
    fn patience(&self) -> Duration {
        let is_short = self.random.below(16) == 0;
        Duration::from_millis(if is_short { self.random.below(300) } else { 60_000 })
    }
}

fn ended(error: &StoreError) -> End {
    match error {
        StoreError::VersionConflict { .. } => End::Refused,
        StoreError::Other(error) => match error.downcast_ref::<Error>().map(Error::kind) {
            Some(ErrorKind::Refused { .. }) => End::Refused,
            Some(ErrorKind::Indeterminate) => End::Unknown,
            kind => panic!("no turn ends so: {kind:?} {error}"),
        },
        error => panic!("no turn ends so: {error}"),
    }
}

impl Turns {
    fn begin(&mut self, session: &str, name: String, state: &SessionState) -> usize {
        self.contents.insert((session.to_owned(), names(state).join(" ")));
        self.taken.push((session.to_owned(), name, End::Unknown));
        self.taken.len() - 1
    }

    /// What a load that was asked for then found.
    pub fn check(&mut self, session: &str, state: &SessionState, asked: Duration) {
        let names = names(state);
        let mut violation = |what: String| self.violations.push(format!("{session} version {}: {what}", state.version));
        if !is_shared(session) {
            if !names.is_empty() && !self.contents.contains(&(session.to_owned(), names.join(" "))) {
                violation(format!("nobody stored this: {names:?}"));
            }
            return;
        }
        let found: BTreeSet<&String> = names.iter().collect();
        if found.len() < names.len() {
            violation(format!("a turn is there twice: {names:?}"));
        }
        if state.total_usage.prompt_tokens as usize != names.len() {
            violation(format!("usage {} of {} turns", state.total_usage.prompt_tokens, names.len()));
        }
        for (at, name, end) in self.taken.iter().filter(|turn| turn.0 == session) {
            let is_there = found.contains(name);
            match end {
                End::Saved(when) if *when < asked && !is_there => violation(format!("lost turn {name} of {at}, saved at {when:?}")),
                End::Refused if is_there => violation(format!("effect of a refused turn {name}")),
                _ => {}
            }
        }
        if names.len() > 1 {
            sometimes("shared session of several turns");
        }
    }

    /// Loads every session once more.
    pub async fn scan(turns: &Mutex<Turns>, store: &Store, clock: &HostClock) {
        for session in (0..SESSIONS).flat_map(|n| [format!("shared{n}"), format!("overwritten{n}")]) {
            let asked = clock.now();
            let loaded = loop {
                if let Ok(loaded) = store.load(&session).await {
                    break loaded;
                }
            };
            turns.lock().expect("no client panics with it").check(&session, &loaded.unwrap_or_default(), asked);
        }
    }
}
