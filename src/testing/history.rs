//! The calls of clients and their answers, and whether a linearizable store can have given them.
//!
//! ```text
//! clients ── Recorder ──> Vec<Op> ── resolve (committed log, if at hand) ──> check::exact, check::windows ──> Vec<Violation>
//!                            └── jsonl::write / jsonl::read ── export::edn, export::porcupine (an outside opinion)
//! ```
//!
//! [`exact()`] believes the revision of every answer and needs one pass. [`windows()`] believes none and places writes by version. A
//! failure of either is a bug; passing [`exact()`] with every write's place known is proof. [`verdict`] runs both.
//!
//! Both assume that a key's versions never restart: runs keep tombstones longer than themselves, or count versions on from where the log
//! says that one ended.

mod caller;
mod exact;
mod export;
mod jsonl;
mod leases;
mod listing;
mod log;
mod windows;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::env::Locked as _;

pub use caller::{Called, Caller, Surprise, content, perform, stored};
pub use exact::exact;
pub use export::{edn, porcupine};
pub use jsonl::{Broken, read, write};
pub use leases::{LeaseNote, Says, leases};
pub use listing::{Lister, Page, listings};
pub use log::{Committed, audit, resolve};
pub use windows::windows;

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A linearizable read.
    Load,
    /// A read of whatever the node had: checked against its revision, not against real time.
    LoadStale,
    /// An unconditional save.
    Save {
        /// The stored value; no history stores a value twice.
        value: u64,
    },
    /// A conditional save.
    SaveIf {
        /// The version that must be there; 0: there must be no session.
        expected: u64,
        /// The stored value; no history stores a value twice.
        value: u64,
    },
    /// An unconditional delete.
    Delete,
    /// The deadline of a session passed. Nobody asked: only the committed log tells, see [`resolve`].
    Expire,
}

/// The caller's knowledge after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of a load.
    Found {
        /// The stored version.
        version: u64,
        /// The stored value.
        value: u64,
        /// Applied index of the view that answered.
        revision: u64,
    },
    /// Of a load: there is no session.
    NotFound {
        /// Version of the tombstone, 0 without one.
        tombstone: u64,
        /// Applied index of the view that answered.
        revision: u64,
    },
    /// Of a save or a delete that took effect.
    Written {
        /// The version it made.
        version: u64,
        /// Index of the entry that executed it.
        revision: u64,
    },
    /// A delete found nothing; the client does not say where.
    NothingThere,
    /// A conditional save found another version. Nothing changed.
    Conflict {
        /// The version that is there, 0: none.
        actual: u64,
        /// Index of the entry that judged it.
        revision: u64,
    },
    /// Nothing changed: *every* attempt ended in a marked refusal before proposing.
    Refused,
    /// The call may have happened, or may happen yet.
    Unknown,
}

/// One operation of the history. Times count from the start of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The process that asked. One of them has one operation at a time.
    pub client: usize,
    /// The session, by number.
    pub key: usize,
    /// The call.
    pub ask: Ask,
    /// Its answer.
    pub answer: Answer,
    /// When it was asked.
    pub invoked: Duration,
    /// When it was answered. Of an unknown one: when its caller gave up; it may take effect later. `Duration::MAX`: never.
    pub returned: Duration,
    /// Its caller got no answer; the answer is the log's, see [`resolve`]. It took effect at some time after it was asked.
    pub late: bool,
    /// The save lets the session expire: without the committed log, a version that nobody made may be its end.
    pub expires: bool,
    /// The request id it travelled under, where the caller knows it.
    pub request: Option<Request>,
}

/// A request id: the client's number in the cluster, and the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Log index that opened the client.
    pub client: u64,
    /// Its sequence.
    pub sequence: u64,
}

/// The kind of a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Two operations with one version.
    OneVersionTwice,
    /// One operation with two versions, or more versions than writes.
    AppliedTwice,
    /// A value nobody stored there.
    PhantomValue,
    /// The value of a refused or conflicted write was read, or a write was answered as done that had to fail.
    EffectOfRefused,
    /// A conflict with the very version that was expected, or with nothing where there was something.
    SpuriousConflict,
    /// A read of a past that had ended before it began.
    StaleRead,
    /// An acknowledged write is gone.
    LostWrite,
    /// A version that no write explains: of the future, or of nobody.
    Unexplained,
    /// Answers whose revisions, versions and times allow no order.
    Disorder,
    /// A lease began while another lived, and was not taken from it.
    TwoHolders,
    /// A write was acknowledged under the number of a lease that had ended.
    OldFence,
    /// A write without a number was acknowledged while a lease lived.
    Unfenced,
    /// A lease has a number that is no larger than one before.
    FenceGoesBack,
    /// A write was refused by a lease that there was not.
    SpuriousFence,
}

/// One thing that no linearizable store does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// By name.
    pub kind: Kind,
    /// In words, with the operations.
    pub what: String,
}

impl Kind {
    /// The name that reports use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OneVersionTwice => "two operations with one version",
            Self::AppliedTwice => "one operation with two versions (applied twice)",
            Self::PhantomValue => "phantom value",
            Self::EffectOfRefused => "effect of a refused or conflicted write",
            Self::SpuriousConflict => "spurious conflict",
            Self::StaleRead => "stale read",
            Self::LostWrite => "lost acknowledged write",
            Self::Unexplained => "version written by nobody",
            Self::Disorder => "no order fits",
            Self::TwoHolders => "two holders of one lease",
            Self::OldFence => "write under a fence that had ended",
            Self::Unfenced => "write without a fence under a lease",
            Self::FenceGoesBack => "fence that does not grow",
            Self::SpuriousFence => "refused by a lease that there was not",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.what)
    }
}

/// The violations that both checkers find.
#[must_use]
pub fn verdict(ops: &[Op]) -> Vec<Violation> {
    let mut found = exact(ops);
    found.extend(windows(ops));
    found
}

impl Op {
    /// An operation under way: until it is answered, it may or may not have happened.
    #[must_use]
    pub fn invoke(client: usize, key: usize, ask: Ask, invoked: Duration) -> Self {
        Self {
            client,
            key,
            ask,
            answer: Answer::Unknown,
            invoked,
            returned: Duration::MAX,
            late: false,
            expires: false,
            request: None,
        }
    }

    /// When it must have taken effect: an unknown write may do so at any time.
    pub(crate) fn deadline(&self) -> Duration {
        if self.late || self.answer == Answer::Unknown { Duration::MAX } else { self.returned }
    }
}

impl Ask {
    /// The stored value.
    #[must_use]
    pub fn value(self) -> Option<u64> {
        match self {
            Self::Save { value } | Self::SaveIf { value, .. } => Some(value),
            Self::Load | Self::LoadStale | Self::Delete | Self::Expire => None,
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_read(self) -> bool {
        matches!(self, Self::Load | Self::LoadStale)
    }

    /// Whether it leaves no session.
    #[must_use]
    pub fn removes(self) -> bool {
        matches!(self, Self::Delete | Self::Expire)
    }
}

impl Answer {
    /// Its place in the order of writes, if it has one.
    #[must_use]
    pub fn revision(self) -> Option<u64> {
        match self {
            Self::Found { revision, .. }
            | Self::NotFound { revision, .. }
            | Self::Written { revision, .. }
            | Self::Conflict { revision, .. } => Some(revision),
            Self::NothingThere | Self::Refused | Self::Unknown => None,
        }
    }
}

/// A value that is unique without asking anyone: the `sequence`-th of one client. Both stay below 2³².
#[must_use]
pub fn value(client: usize, sequence: u64) -> u64 {
    assert!(client < 1 << 32 && sequence < 1 << 32, "client={client} sequence={sequence}");
    (client as u64) << 32 | sequence
}

/// Collects a history while it happens. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Vec<Op>>>);

impl Recorder {
    /// Notes that a call begins. It stands in the history as unknown until [`Recorder::complete`]: what a run ends in the middle of
    /// may have happened.
    pub fn invoke(&self, op: Op) -> usize {
        let mut ops = self.0.locked();
        ops.push(op);
        ops.len() - 1
    }

    /// Notes the answer to the call that [`Recorder::invoke`] numbered.
    pub fn complete(&self, at: usize, answer: Answer, returned: Duration) {
        let op = &mut self.0.locked()[at];
        assert!(op.returned == Duration::MAX, "answered twice at={at}");
        (op.answer, op.returned) = (answer, returned);
    }

    /// The history so far, in the order of invocation.
    #[must_use]
    pub fn history(&self) -> Vec<Op> {
        self.0.locked().clone()
    }
}
