//! The files of a node that does not run, opened without being changed: to look into them, or to make a new cluster of them.

use std::path::Path;
use std::sync::Arc;

use crate::env::{Env, FrozenDisk};
use crate::machine::Machine;
use crate::raft::adapter::state_machine::machine_from;
use crate::storage::directory;
use crate::storage::identity::Identity;
use crate::storage::lock::Lock;
use crate::storage::log;
use crate::storage::state::StoppedState;

/// Why there is nothing to read, or what is damaged in it: one line that names it. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub(crate) String);

/// An error of one part of the directory.
pub(super) fn named(part: &str, error: impl std::fmt::Display) -> Error {
    Error(format!("{part}: {error}"))
}

/// A stopped node's data directory. Holds its lock: no node can start from it meanwhile.
pub(super) struct StoppedFiles {
    pub identity: Identity,
    pub state: StoppedState,
    /// The metadata in the state; no content.
    pub machine: Machine,
    _lock: Lock,
}

impl StoppedFiles {
    /// Takes the lock, reads identity, the log as asked for, and metadata; gives also what was read of the log. Blocking.
    ///
    /// Errors: it is no node's own directory, and what it is instead; a node runs on it; or one of the three is damaged.
    pub fn open<L>(dir: &Path, read_log: impl FnOnce(&Env, &Path) -> Result<L, log::Error>) -> Result<(Self, L), Error> {
        let env = Env { disk: Arc::new(FrozenDisk), ..Env::real() };
        if let Some(why) = directory::why_not_own(&env.disk, dir).map_err(|error| named("directory", error))? {
            return Err(Error(why));
        }
        let lock = Lock::acquire(&*env.disk, dir).map_err(|error| named("lock", error))?;
        let identity = Identity::inspect(&env.disk, dir).map_err(|error| named("identity", error))?;
        let log = read_log(&env, &dir.join("log")).map_err(|error| named("log", error))?;
        let state = StoppedState::open(&env, &dir.join("state")).map_err(|error| named("state", error))?;
        let machine = machine_from(&state.rows()).map_err(|error| named("state", error))?;
        Ok((Self { identity, state, machine, _lock: lock }, log))
    }
}
