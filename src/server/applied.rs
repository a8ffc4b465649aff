//! The numbers of applied requests, which a trial compares with those its clients sent.

use std::sync::Arc;

use super::Tuning;
use crate::machine::Command;
use crate::raft::Applied;
use crate::types::{Verdict, Write};

/// One entry; the numbers are 0 where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppliedWrite {
    /// Its index.
    pub index: u64,
    /// The client's number, and the sequence of its request. One that found the table of outcomes full counts as none: it is refused.
    pub client: u64,
    /// See `client`.
    pub sequence: u64,
    /// The entry named an unknown client.
    pub client_unknown: bool,
}

impl AppliedWrite {
    fn of(applied: &Applied<'_>) -> Self {
        let none = Self { index: applied.log_id.index, ..Self::default() };
        let Some(Command::Client(write)) = applied.entry.map(|entry| &entry.command) else { return none };
        let client_unknown = applied.outcome.verdict == Verdict::ClientUnknown;
        match (write, write.request()) {
            (Write::KeepAlive { client, .. } | Write::CloseClient { client, .. }, _) => {
                Self { client: client.0, client_unknown, ..none }
            }
            (_, Some(request)) if applied.outcome.verdict != Verdict::Busy => {
                Self { client: request.client.0, sequence: request.sequence.0, client_unknown, ..none }
            }
            _ => none,
        }
    }
}

impl Tuning {
    /// Calls this for every entry that the node applies, again for what it applies again after a crash. It must be short.
    pub fn observed(mut self, note: impl Fn(AppliedWrite) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(move |applied: Applied<'_>| note(AppliedWrite::of(&applied))));
        self
    }
}
