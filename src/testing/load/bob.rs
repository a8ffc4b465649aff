//! Agents' turns through Bob's `SessionStore`, as his runtime makes them.

use std::sync::Arc;

use bob_core::error::StoreError;
use bob_core::ports::SessionStore;
use bob_core::types::SessionState;
use bytes::Bytes;

use super::{Failure, Finished, Transcript, Turn, Turns};
use crate::client::bob::ConcurrentSave;
use crate::client::{Client, Error, ErrorKind};

/// How often a turn is made again on a newer session before it is a failure.
const CONFLICTS_MAX: u64 = 1000;

/// How a turn is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saving {
    /// By `save`, once, as Bob's runtime does: only a store that merges racing turns keeps them all.
    Plain,
    /// By `save_if_version`; on a conflict the turn is added to the newest state and saved again.
    IfVersion,
}

/// Turns over any session store.
#[derive(Clone)]
pub struct Agents {
    /// The store.
    pub store: Arc<dyn SessionStore>,
    /// How turns are saved.
    pub saving: Saving,
}

impl std::fmt::Debug for Agents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agents").field("saving", &self.saving).finish_non_exhaustive()
    }
}

fn failure(error: StoreError) -> Failure {
    let indeterminate = match &error {
        StoreError::Other(source) => source.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::Indeterminate),
        _ => false,
    };
    Failure { message: error.to_string(), may_have_happened: indeterminate }
}

impl Agents {
    /// Over our own client. Plain saves that race are rebased: the machine appends each turn to what is there.
    pub fn of(client: &Client, saving: Saving) -> Self {
        let store = client.session_store().concurrent_save(ConcurrentSave::Rebase);
        Self { store: Arc::new(store), saving }
    }

    async fn load(&self, key: &String) -> Result<SessionState, Failure> {
        Ok(self.store.load(key).await.map_err(failure)?.unwrap_or_default())
    }
}

impl Turns for Agents {
    type Base = SessionState;

    async fn begin(&self, key: &str) -> Result<SessionState, Failure> {
        self.load(&key.to_owned()).await
    }

    async fn finish(&self, key: &str, base: SessionState, turn: &Turn) -> Result<Finished, Failure> {
        let key = key.to_owned();
        let mut state = grown(base, turn)?;
        if self.saving == Saving::Plain {
            self.store.save(&key, &state).await.map_err(failure)?;
            return Ok(Finished::default());
        }
        for conflicts in 0..CONFLICTS_MAX {
            match self.store.save_if_version(&key, &state, state.version).await {
                Ok(_) => return Ok(Finished { conflicts }),
                Err(StoreError::VersionConflict { .. }) => state = grown(self.load(&key).await?, turn)?,
                Err(error) => return Err(failure(error)),
            }
        }
        Err(Failure::unchanged(format!("every attempt lost against others attempts={CONFLICTS_MAX}")))
    }

    async fn reset(&self, key: &str) -> Result<(), Failure> {
        self.store.save(&key.to_owned(), &SessionState::default()).await.map_err(failure)
    }

    async fn transcript(&self, key: &str) -> Result<Transcript, Failure> {
        let state = self.begin(key).await?;
        let messages = state.messages.iter().map(|message| serde_json::to_vec(message).map(Bytes::from));
        let messages = messages.collect::<Result<_, _>>().map_err(Failure::unchanged)?;
        let usage = &state.total_usage;
        Ok(Transcript { messages, usage: [usage.prompt_tokens.into(), usage.completion_tokens.into()] })
    }
}

fn grown(mut state: SessionState, turn: &Turn) -> Result<SessionState, Failure> {
    for message in &turn.messages {
        state.messages.push(serde_json::from_slice(message).map_err(Failure::unchanged)?);
    }
    let tokens = |more: u64| u32::try_from(more).unwrap_or(u32::MAX);
    let usage = &mut state.total_usage;
    usage.prompt_tokens = usage.prompt_tokens.saturating_add(tokens(turn.usage[0]));
    usage.completion_tokens = usage.completion_tokens.saturating_add(tokens(turn.usage[1]));
    Ok(state)
}
