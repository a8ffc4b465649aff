//! The state of a node that does not run, read only: on a disk that forgets what is written.

use std::path::Path;
use std::sync::Arc;

use super::engine::Base;
use super::error::Error;
use super::rows::{Found, Rows, Scan};
use super::{Options, open_base};
use crate::env::Env;

/// One state as of its last flush.
pub struct StoppedState {
    base: Arc<Base>,
}

impl StoppedState {
    /// Opens the state in `dir`. Blocking. Errors: as of [`super::State::open`]; a directory without a state is [`Error::Invalid`].
    pub fn open(env: &Env, dir: &Path) -> Result<Self, Error> {
        let current = dir.join(super::current::CURRENT);
        if !env.disk.exists(&current).map_err(|error| Error::io("look for a state", &error))? {
            return Err(Error::invalid(format!("there is no state path={}", dir.display())));
        }
        let (base, _) = open_base(env, dir, Options::default())?;
        Ok(Self { base })
    }

    /// All rows.
    pub fn rows(&self) -> Rows<'_> {
        Rows(&self.base)
    }

    /// The rows of one table with keys in `from..until`. After the first error there is nothing more.
    pub fn range(&self, table: u8, from: &[u8], until: &[u8]) -> impl Iterator<Item = Result<Found, Error>> + use<> {
        Scan::range(&self.base, table, from, until)
    }

    /// Length of the file, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.base.file.len()
    }

    /// Rows in it.
    pub fn total(&self) -> u64 {
        self.base.head.rows
    }
}
