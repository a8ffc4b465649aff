//! Random turns by two clients under `Rebase`, against a plain list of what was acknowledged.

use std::collections::BTreeMap;

use bob_core::error::StoreError;
use bob_core::ports::SessionStore as _;
use bob_core::types::{Message, Role, SessionState};
use proptest::prelude::*;
use quorate::client::bob::{ConcurrentSave, Store};

use super::client;
use crate::client::fake::{Cluster, Fault};

const SESSIONS: usize = 2;
const TURNS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A turn of a client begins: it loads.
    Begin {
        turn: usize,
        session: usize,
    },
    /// It says so many messages and saves.
    Save {
        turn: usize,
        messages: usize,
    },
    /// It rewrites its history and saves.
    Compact {
        turn: usize,
    },
    /// The same, and the reply is lost.
    Lossy {
        turn: usize,
    },
    Reset {
        session: usize,
    },
    Delete {
        session: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (turn, session) = (0..TURNS, 0..SESSIONS);
    prop_oneof![
        4 => (turn.clone(), session.clone()).prop_map(|(turn, session)| Step::Begin { turn, session }),
        6 => (turn.clone(), 0usize..3).prop_map(|(turn, messages)| Step::Save { turn, messages }),
        1 => turn.clone().prop_map(|turn| Step::Compact { turn }),
        1 => turn.prop_map(|turn| Step::Lossy { turn }),
        1 => session.clone().prop_map(|session| Step::Reset { session }),
        1 => session.prop_map(|session| Step::Delete { session }),
    ]
}

/// What should be stored.
#[derive(Clone, Debug, Default, PartialEq)]
struct Expected {
    texts: Vec<String>,
    tokens: u32,
}

struct Turn {
    session: usize,
    state: SessionState,
    /// What was loaded or saved last: what comes after it is new.
    saved: Expected,
    /// Whether it began with nothing and saved: what it then rewrites looks like another turn from the same nothing.
    is_ambiguous: bool,
}

fn view(state: &SessionState) -> Expected {
    let texts = state.messages.iter().map(|message| message.content.clone()).collect();
    Expected { texts, tokens: state.total_usage.prompt_tokens }
}

struct World {
    nodes: Vec<crate::client::fake::Node>,
    stores: [Store; 2],
    /// Somebody who only reads.
    reader: Store,
    turns: BTreeMap<usize, Turn>,
    expected: [Option<Expected>; SESSIONS],
    said: u32,
}

fn id(session: usize) -> String {
    format!("session {session}")
}

impl World {
    async fn step(&mut self, step: Step) {
        match step {
            Step::Begin { turn, session } => {
                let loaded = self.stores[turn % 2].load(&id(session)).await.expect("answered");
                assert_eq!(loaded.as_ref().map(view), self.expected[session], "loaded by turn {turn}");
                let state = loaded.unwrap_or_default();
                self.turns.insert(turn, Turn { session, saved: view(&state), state, is_ambiguous: false });
            }
            Step::Save { turn, messages } => self.save(turn, messages).await,
            Step::Lossy { turn } => {
                if self.turns.contains_key(&turn) {
                    self.nodes[0].then(Fault::LoseReply);
                    self.save(turn, 1).await;
                    self.nodes[0].forget_faults();
                }
            }
            Step::Compact { turn } => {
                if let Some(turn) = self.turns.get_mut(&turn).filter(|turn| !turn.is_ambiguous) {
                    turn.state.messages = turn.state.messages.split_off(turn.state.messages.len().min(1));
                }
                self.save(turn, 1).await;
            }
            Step::Reset { session } => {
                self.stores[0].save(&id(session), &SessionState::default()).await.expect("unconditional");
                self.expected[session] = Some(Expected::default());
            }
            Step::Delete { session } => {
                self.stores[0].client().delete(&id(session), None).await.expect("answered");
                self.expected[session] = None;
            }
        }
    }

    async fn save(&mut self, number: usize, messages: usize) {
        let Some(turn) = self.turns.get_mut(&number) else { return };
        // Equal content after an acknowledged save is a new turn by definition: say something.
        for _ in 0..messages.max(1) {
            self.said += 1;
            turn.state.messages.push(Message::text(Role::User, format!("message {}", self.said)));
            turn.state.total_usage.prompt_tokens += self.said;
        }
        let (session, now) = (turn.session, view(&turn.state));
        match self.stores[number % 2].save(&id(session), &turn.state).await {
            Ok(()) => {
                let new = now.texts.strip_prefix(&turn.saved.texts[..]);
                let expected = &mut self.expected[session];
                match (new, expected) {
                    (Some(new), Some(expected)) => {
                        expected.texts.extend_from_slice(new);
                        expected.tokens += now.tokens - turn.saved.tokens;
                    }
                    (None, Some(expected)) => {
                        assert_eq!(*expected, turn.saved, "history was rewritten over what others stored");
                        *expected = now.clone();
                    }
                    (_, expected @ None) => {
                        assert_eq!(turn.saved, Expected::default(), "a session was created from the middle of a turn");
                        *expected = Some(now.clone());
                    }
                }
                turn.is_ambiguous |= turn.saved.texts.is_empty();
                turn.saved = now;
            }
            Err(StoreError::VersionConflict { .. }) => drop(self.turns.remove(&number)),
            Err(error) => panic!("{error}"),
        }
        let stored = self.reader.load(&id(session)).await.expect("answered");
        assert_eq!(stored.as_ref().map(view), self.expected[session], "stored by turn {number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn every_acknowledged_turn_is_stored_once(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (_, nodes) = Cluster::start(1).await;
            let store = || client(&nodes).session_store().concurrent_save(ConcurrentSave::Rebase);
            let (stores, reader) = ([store(), store()], store());
            let mut world = World { nodes, stores, reader, turns: BTreeMap::new(), expected: Default::default(), said: 0 };
            for step in steps {
                world.step(step).await;
            }
            let fresh = client(&world.nodes).session_store();
            for (session, expected) in world.expected.iter().enumerate() {
                let stored = fresh.load(&id(session)).await.expect("answered");
                assert_eq!(stored.as_ref().map(view), *expected, "at the end, in session {session}");
            }
        });
    }
}
