//! Clients that take turns as Bob's runtime does: load, think, save. Two kinds of sessions:
//!
//! - *shared*: turns race and are rebased. Every acknowledged turn is in every later load exactly once, a refused one never, and usage
//!   counts exactly the turns that are there.
//! - *overwritten*: the last save wins. Every load finds exactly what some save stored, whole.
//! - *shared-appended*: as shared, by appends without a load before, where the cluster version has them. Each item stays in the place
//!   that its append was answered. Those in leases are of [`super::leases`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bob_core::error::StoreError;
use bob_core::ports::SessionStore as _;
use bob_core::types::{Message, Role, SessionState};
use quorate::client::bob::{ConcurrentSave, Store};
use quorate::client::{AppendOptions, Client, Content, Counters, Error, ErrorKind, Expiry, Label};
use quorate::env::Clock as _;
use quorate::testing::inline::SeededRandom;

use super::coverage::sometimes;
use super::leases;
use super::node::HostClock;
use super::workload::{Connect, Phase, Shared};

/// Sessions of each kind.
const SESSIONS: u64 = 2;
/// Between a turn's name and its neighbours in a summary.
const SEPARATOR: char = ' ';

/// How a turn's save ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
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
    /// The sessions and places of items that were appended.
    places: Vec<(String, usize, String)>,
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
        let (mut stores, mut client) = (self.stores(), self.connect.client(&self.random));
        let mut count = 0;
        loop {
            if self.shared.lock().expect("no client panics with it").phase >= Phase::Scan {
                return;
            }
            if self.random.below(50) == 0 {
                (stores, client) = (self.stores(), self.connect.client(&self.random));
            }
            count += 1;
            if self.random.below(3) == 0 {
                let session = format!("shared-appended{}", self.random.below(SESSIONS));
                self.append(&client, &clock, &session, format!("{}.{count}", self.name)).await;
                tokio::time::sleep(Duration::from_millis(self.random.below(self.think_ms + 1))).await;
                continue;
            }
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

    /// Appends a turn, and now and then looks at all of them first.
    async fn append(&mut self, client: &Client, clock: &HostClock, session: &str, name: String) {
        if self.random.below(4) == 0 {
            let asked = clock.now();
            let Ok(state) = appended(client, session).await else { return };
            self.turns.lock().expect("no client panics with it").check(session, &state, asked);
        }
        let at = self.turns.lock().expect("no client panics with it").begin(session, name.clone(), &SessionState::default());
        // Longer than any clock jumps on.
        let is_idle = self.random.below(4) == 0;
        let expiry = if is_idle { Expiry::Idle(Duration::from_secs(30 * 24 * 3600)) } else { Expiry::Keep };
        let label = (self.random.below(4) == 0).then(|| Label::new(&name).expect("short"));
        let is_labelled = label.is_some();
        let options = AppendOptions { counters: Counters::new(vec![1]).expect("few"), expiry, label, ..AppendOptions::default() };
        let append = client.append(session, vec![name.clone().into()], options);
        let end = match tokio::time::timeout(self.patience(), append).await {
            Ok(Ok(appended)) => {
                sometimes("append");
                if is_idle {
                    sometimes("idle deadline");
                }
                if is_labelled {
                    sometimes("label");
                }
                self.turns.lock().expect("no client panics with it").place(session, appended.first_item, name);
                End::Saved(clock.now())
            }
            Ok(Err(error)) => match error.kind() {
                ErrorKind::Refused { .. } | ErrorKind::Unsupported => End::Refused,
                ErrorKind::Indeterminate => End::Unknown,
                kind => panic!("no append ends so: {kind:?} {error}"),
            },
            Err(_) => End::Unknown,
        };
        self.turns.lock().expect("no client panics with it").end(at, end);
        if self.random.below(4) == 0 {
            self.touch(client, session).await;
        }
    }

    /// Ends the deadline of a session: nothing else changes by it, whatever became of it.
    async fn touch(&self, client: &Client, session: &str) {
        match tokio::time::timeout(self.patience(), client.touch(session, Expiry::Never)).await {
            Ok(Ok(Some(touched))) => {
                sometimes("touch");
                assert_eq!(touched.deadline_ms, None);
            }
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(error)) => match error.kind() {
                ErrorKind::Refused { .. } | ErrorKind::Unsupported | ErrorKind::Indeterminate => {}
                kind => panic!("no touch ends so: {kind:?} {error}"),
            },
        }
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
        self.turns.lock().expect("no client panics with it").end(at, end);
    }

    /// A caller may go away at any moment.
    fn patience(&self) -> Duration {
        let is_short = self.random.below(16) == 0;
        Duration::from_millis(if is_short { self.random.below(300) } else { 60_000 })
    }
}

/// A session that is only appended to, as the state that saves would have made of it.
pub async fn appended(client: &Client, session: &str) -> Result<SessionState, Error> {
    let mut state = SessionState::default();
    let Some(loaded) = client.load(session).await? else { return Ok(state) };
    let Content::Transcript { messages, counters, .. } = loaded.content else { panic!("{session} is a value") };
    let text = |message: &bytes::Bytes| String::from_utf8_lossy(message).into_owned();
    state.messages = messages.iter().map(|message| Message::text(Role::User, text(message))).collect();
    state.total_usage.prompt_tokens = u32::try_from(counters.at(0)).expect("few");
    Ok(state)
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
    pub fn begin(&mut self, session: &str, name: String, state: &SessionState) -> usize {
        self.contents.insert((session.to_owned(), names(state).join(" ")));
        self.taken.push((session.to_owned(), name, End::Unknown));
        self.taken.len() - 1
    }

    /// How a turn ended that [`Turns::begin`] numbered.
    pub fn end(&mut self, at: usize, end: End) {
        self.taken[at].2 = end;
    }

    /// A turn's item was answered this place.
    pub fn place(&mut self, session: &str, first_item: u64, name: String) {
        self.places.push((session.to_owned(), first_item as usize, name));
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
        for (_, place, name) in self.places.iter().filter(|(of, ..)| of == session) {
            if names.get(*place).is_some_and(|there| there != name) {
                violation(format!("item {name} was appended at {place}, where there is {}", names[*place]));
            }
        }
        if let Some(what) = leases::out_of_order(&names) {
            violation(what);
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
    pub async fn scan(turns: &Mutex<Turns>, client: &Client, clock: &HostClock) {
        let of_items = (0..SESSIONS).map(|n| format!("shared-appended{n}"));
        for session in of_items.chain((0..leases::SESSIONS).map(leases::id_of)) {
            let asked = clock.now();
            let state = loop {
                if let Ok(state) = appended(client, &session).await {
                    break state;
                }
            };
            turns.lock().expect("no client panics with it").check(&session, &state, asked);
        }
        let store = client.session_store();
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
