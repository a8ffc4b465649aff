//! The simplest store there is, to show what a [`Target`] must do and to measure the generator itself.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;

use super::{Cas, Failure, Target};
use crate::env::Locked as _;

/// A map behind a lock.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, (u64, Bytes)>>);

impl Target for Memory {
    async fn save(&self, key: &str, value: Bytes) -> Result<u64, Failure> {
        let mut map = self.0.locked();
        let stored = map.entry(key.to_owned()).or_default();
        *stored = (stored.0 + 1, value);
        Ok(stored.0)
    }

    async fn save_if(&self, key: &str, value: Bytes, expected: u64) -> Result<Cas, Failure> {
        let mut map = self.0.locked();
        let stored = map.get(key).map_or(0, |stored| stored.0);
        if stored != expected {
            return Ok(Cas::Conflict(stored));
        }
        map.insert(key.to_owned(), (stored + 1, value));
        Ok(Cas::Saved(stored + 1))
    }

    async fn load(&self, key: &str) -> Result<Option<(u64, Bytes)>, Failure> {
        Ok(self.0.locked().get(key).cloned())
    }
}
