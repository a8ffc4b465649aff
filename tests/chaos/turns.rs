//! Agents' turns through Bob's adapter, racing on few sessions: what `Rebase` acknowledged is there once, whole, and counted.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bob_core::error::StoreError;
use bob_core::ports::SessionStore as _;
use bob_core::types::{Message, Role, SessionState};
use quorate::client::bob::{ConcurrentSave, Store};
use quorate::client::{Client, Error, ErrorKind};

use crate::chaos::load::Shared;
use crate::chaos::reach::Reach;

/// A session is left behind after so many turns.
const TURNS_PER_SESSION: usize = 200;
const PROMPT: u32 = 10;
const COMPLETION: u32 = 3;

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It must be there.
    Kept,
    /// It must not.
    Refused,
    /// It may.
    Unknown,
}

/// One turn, by its session and its own name.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Its session.
    pub session: String,
    /// Unique.
    pub name: String,
    /// How it ended.
    pub end: End,
}

/// All turns so far.
#[derive(Default)]
pub struct Turns(Mutex<Vec<Turn>>);

impl Turns {
    /// In the order they began.
    pub fn all(&self) -> Vec<Turn> {
        self.0.lock().expect("nobody panics with it").clone()
    }

    fn begin(&self, agent: usize) -> (usize, Turn) {
        let mut turns = self.0.lock().expect("nobody panics with it");
        let at = turns.len();
        let turn = Turn { session: format!("agent-{}", at / TURNS_PER_SESSION), name: format!("{agent}-{at}"), end: End::Unknown };
        turns.push(turn.clone());
        (at, turn)
    }

    fn end(&self, at: usize, end: End) {
        self.0.lock().expect("nobody panics with it")[at].end = end;
    }
}

/// An agent takes turns until it is stopped.
pub async fn agent(number: usize, reach: Reach, shared: Arc<Shared>, turns: Arc<Turns>) {
    let client = || {
        let builder = reach.builder(0).connect_timeout(Duration::from_millis(500));
        builder.build().expect("valid endpoints").session_store().concurrent_save(ConcurrentSave::Rebase)
    };
    let mut store = client();
    let mut taken = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let (at, turn) = turns.begin(number);
        turns.end(at, take(&store, &turn, &shared).await);
        taken += 1;
        if taken % 100 == 0 {
            store = client();
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

async fn take(store: &Store, turn: &Turn, shared: &Shared) -> End {
    let mut state = match store.load(&turn.session).await {
        Ok(state) => state.unwrap_or_default(),
        // Nothing was asked to be stored.
        Err(error) => return ended(&error, shared, true),
    };
    state.messages.push(Message::text(Role::User, &turn.name));
    state.messages.push(Message::text(Role::Assistant, &turn.name));
    state.total_usage.prompt_tokens += PROMPT;
    state.total_usage.completion_tokens += COMPLETION;
    match store.save(&turn.session, &state).await {
        Ok(()) => End::Kept,
        Err(error) => ended(&error, shared, false),
    }
}

fn ended(error: &StoreError, shared: &Shared, was_read: bool) -> End {
    let kind = match error {
        StoreError::VersionConflict { .. } => return End::Refused,
        StoreError::Other(source) => source.downcast_ref::<Error>().map(Error::kind),
        _ => None,
    };
    match kind {
        Some(ErrorKind::Refused { .. }) => End::Refused,
        Some(ErrorKind::Indeterminate) if !was_read => End::Unknown,
        _ => {
            shared.surprise(format!("an agent was answered: {error}"));
            End::Unknown
        }
    }
}

/// What is wrong with what is stored.
pub async fn check(endpoints: &[String], turns: &[Turn]) -> Vec<String> {
    let mut sessions: BTreeMap<&str, Vec<&Turn>> = BTreeMap::new();
    for turn in turns {
        sessions.entry(&turn.session).or_default().push(turn);
    }
    let client = Client::builder().endpoints(endpoints).build().expect("valid endpoints");
    let store = client.session_store();
    let mut wrong = Vec::new();
    for (session, turns) in sessions {
        match store.load(&session.to_owned()).await {
            Ok(state) => wrong.extend(judge(session, &turns, &state.unwrap_or_default())),
            Err(error) => wrong.push(format!("{session}: can't be loaded: {error}")),
        }
    }
    wrong
}

fn judge(session: &str, turns: &[&Turn], state: &SessionState) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for pair in state.messages.chunks(2) {
        let whole =
            pair.len() == 2 && pair[0].content == pair[1].content && pair[0].role == Role::User && pair[1].role == Role::Assistant;
        if !whole {
            wrong.push(format!("{session}: a question without its answer: {:?}", pair[0].content));
            break;
        }
        *found.entry(&pair[0].content).or_default() += 1;
    }
    for turn in turns {
        let count = found.remove(turn.name.as_str()).unwrap_or(0);
        let right = match turn.end {
            End::Kept => count == 1,
            End::Refused => count == 0,
            End::Unknown => count <= 1,
        };
        if !right {
            wrong.push(format!("{session}: turn {} ended as {:?} and is there {count} times", turn.name, turn.end));
        }
    }
    wrong.extend(found.keys().map(|name| format!("{session}: nobody took turn {name:?}")));
    let kept = (state.messages.len() / 2) as u32;
    let usage = (state.total_usage.prompt_tokens, state.total_usage.completion_tokens);
    if usage != (kept * PROMPT, kept * COMPLETION) {
        wrong.push(format!("{session}: {kept} turns, and the usage is {usage:?}"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(name: &str, end: End) -> Turn {
        Turn { session: "s".into(), name: name.into(), end }
    }

    fn state(names: &[&str]) -> SessionState {
        let mut state = SessionState::default();
        for name in names {
            state.messages.push(Message::text(Role::User, name.to_owned()));
            state.messages.push(Message::text(Role::Assistant, name.to_owned()));
            state.total_usage.prompt_tokens += PROMPT;
            state.total_usage.completion_tokens += COMPLETION;
        }
        state
    }

    #[test]
    fn every_way_to_lose_a_turn_is_found() {
        let (a, b, c) = (turn("a", End::Kept), turn("b", End::Refused), turn("c", End::Unknown));
        let turns = [&a, &b, &c];
        assert_eq!(judge("s", &turns, &state(&["a"])), [""; 0]);
        assert_eq!(judge("s", &turns, &state(&["c", "a"])), [""; 0]);
        for bad in [&[] as &[&str], &["a", "a"], &["a", "b"], &["a", "c", "c"], &["a", "x"]] {
            assert_eq!(judge("s", &turns, &state(bad)).len(), 1, "{bad:?}");
        }
        let mut split = state(&["a"]);
        split.messages.pop();
        assert!(!judge("s", &turns, &split).is_empty());
        let mut miscounted = state(&["a"]);
        miscounted.total_usage.prompt_tokens += 1;
        assert_eq!(judge("s", &turns, &miscounted).len(), 1);
    }
}
