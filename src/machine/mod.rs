//! Not part of the interface: any release may change it.
//!
//! The replicated state machine: every session's metadata, tombstones, the client table, and what one entry makes of them.
//!
//! Pure: no IO, clock, randomness or logging, never an error, no content in memory. `apply` is a function of the state and the entry,
//! so every replica decides alike; what it changes comes back as rows, from which the machine is rebuilt at start: some at once, some
//! once for many changes. Only the raft layer applies entries; readers use [`Machine::plan`], [`Machine::info`] and [`Machine::list`],
//! and fetch content rows themselves.
//!
//! ```text
//! entry ─> machine time moves ─> client and nonce ─> sequence ─> lease ─> size of the request ─> session at machine time ─> expected
//!                                      │                 │                                    (rebase or Conflict) ─┘   │
//!                                 ClientUnknown   Stale, WindowExceeded,      Saved, TooLarge <─ resulting size <─ base <─┘
//!                                                 Busy, recorded outcome                                            └> BaseMismatch
//! ```

pub mod audit;
mod birth;
mod changed;
mod changes;
mod clients;
mod digest;
pub mod invariants;
mod leases;
mod marks;
mod meter;
mod places;
mod read;
mod rebuild;
mod repack;
pub mod rows;
mod rules;
mod session;
mod sweep;
mod tables;
mod transaction;
mod walk;
mod watch;
mod write;

pub use changed::{Changed, Reach, Recent};
pub use changes::{Bounds, Place};
pub use meter::{HolderUsage, Metered, OpenedClient, PrefixUsage};
pub use places::Places;
pub use read::Plan;
pub use rebuild::BuildError;
pub use rows::{Effects, RowChange};
pub use rules::{Rules, TEST_VERSION, VERSION_MAX, allow_test_version, newest_version, rules};
pub use walk::Walk;
pub use watch::{Begin, Cursor, Step};

use crate::codec::FORMAT_2;
use crate::types::{LogId, Outcome, Revision, Verdict, Write};
use session::Moment;
use tables::Tables;

/// One entry of the log, as its proposer made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The proposing leader's stamp, in milliseconds since the Unix epoch. Need not be ordered: machine time is the largest so far.
    pub stamp_ms: u64,
    /// The command.
    pub command: Command,
}

/// An entry's command to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly every command is a client's write, and a box for each would cost more")]
pub enum Command {
    /// A client's write.
    Client(Write),
    /// Drops what has expired, at most `limit` records. An empty entry if nothing has.
    Sweep {
        /// Records to drop at most; never above [`Rules::sweep_count_max`].
        limit: u32,
    },
    /// Moves the cluster version up by one. The proposer has made sure that every member supports it.
    SetClusterVersion {
        /// The version to move to; anything but the next one changes nothing.
        version: u16,
    },
}

impl Command {
    /// The first cluster version that has this command with all its fields.
    pub fn cluster_version(&self) -> u16 {
        match self {
            Command::Client(write) => write.cluster_version(),
            Command::Sweep { .. } | Command::SetClusterVersion { .. } => 1,
        }
    }
}

/// How much the machine holds, expired but not yet swept records included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions.
    pub sessions: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Clients.
    pub clients: u64,
    /// Recorded outcomes: that of a transaction counts for each of its operations.
    pub outcomes: u64,
    /// Leases.
    pub leases: u64,
    /// Bytes of metadata, by the fixed formula (not what the allocator says); those of leases have another bound and are not in it.
    pub metadata_bytes: u64,
    /// Bytes of leases, by their fixed formula.
    pub lease_bytes: u64,
}

/// The state machine. `Clone` is for tests and tools: it copies everything.
#[derive(Clone, Debug)]
pub struct Machine {
    tables: Tables,
    applied: Option<LogId>,
    now_ms: u64,
    cluster_version: u16,
    rules: &'static Rules,
    history: digest::History,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// The machine of a new cluster: empty, at cluster version 1, at machine time 0.
    pub fn new() -> Self {
        Self::at_version(1).expect("version 1 always has rules")
    }

    /// An empty machine with other rules, for tests of limits that are too large to reach.
    #[doc(hidden)]
    pub fn with_rules(rules: &'static Rules) -> Self {
        Self { rules, cluster_version: rules.entry_format.into(), ..Self::new() }
    }

    fn at_version(version: u16) -> Option<Self> {
        Some(Self {
            tables: Tables::default(),
            applied: None,
            now_ms: 0,
            cluster_version: version,
            rules: rules(version)?,
            history: digest::History::default(),
        })
    }

    /// Applies one entry: the answer, and in `effects` the rows that are changed by now. [`Machine::complete`] has the others.
    ///
    /// Machine time moves first, so the entry is judged at its own stamp. Panics if entries come out of order, or if a cluster version
    /// is put in force that this release does not know: both are our own mistakes, and going on would make replicas disagree.
    pub fn apply(&mut self, log_id: LogId, entry: &Entry, effects: &mut Effects) -> Outcome {
        self.begin(log_id);
        self.now_ms = self.now_ms.max(entry.stamp_ms);
        let moment = Moment {
            revision: Revision(log_id.index),
            now_ms: self.now_ms,
            creation: 0,
            sums: self.rules.entry_format >= FORMAT_2,
        };
        let outcome = match &entry.command {
            Command::Client(write) => self.apply_write(write, moment, effects),
            Command::Sweep { limit } => {
                let swept = self.sweep(*limit, moment, effects);
                Outcome { revision: moment.revision, verdict: Verdict::Swept(swept) }
            }
            Command::SetClusterVersion { version } => self.set_cluster_version(*version, moment),
        };
        self.finish(log_id, effects);
        outcome
    }

    /// Passes an entry of Raft's own (blank, membership): `applied` moves, machine time does not. Panics if it comes out of order.
    pub fn skip(&mut self, log_id: LogId, effects: &mut Effects) {
        self.begin(log_id);
        self.finish(log_id, effects);
    }

    fn begin(&mut self, log_id: LogId) {
        let in_order = self.applied.is_none_or(|applied| log_id.index > applied.index);
        assert!(in_order, "applied out of order log_id={log_id} applied={:?}", self.applied);
        self.tables.changes.begin(Revision(log_id.index));
    }

    /// Decides by the index, or by what is marked, never by how many entries were applied at once: that differs from node to node.
    fn finish(&mut self, log_id: LogId, effects: &mut Effects) {
        self.applied = Some(log_id);
        self.tables.changes.end();
        let is_noted = digest::is_noted(log_id.index);
        if is_noted || self.tables.marks.len() >= marks::MARKS_MAX {
            self.tables.make_rows(effects);
        }
        if is_noted {
            self.history.note(log_id.index, self.digest());
        }
    }

    /// Makes the rows that are not made yet, and those that say where the machine stands: with all of `effects` since the last time, a
    /// machine is rebuilt from them as this one is. Nothing else changes by it, at whatever time it is called.
    pub fn complete(&mut self, effects: &mut Effects) {
        self.tables.make_rows(effects);
        effects.put(rows::GLOBAL, rows::global_key(), rows::encode_global(&self.global()));
    }

    /// Bytes of the rows that [`Machine::complete`] would make, at most.
    pub fn unmade_bytes(&self) -> u64 {
        self.tables.marks.bytes()
    }

    fn set_cluster_version(&mut self, version: u16, moment: Moment) -> Outcome {
        if Some(version) == self.cluster_version.checked_add(1) {
            let Some(next) = rules(version) else {
                panic!("cluster version in force is not known to this release version={version} newest={}", newest_version());
            };
            (self.cluster_version, self.rules) = (version, next);
        }
        Outcome { revision: moment.revision, verdict: Verdict::ClusterVersion { version: self.cluster_version } }
    }

    fn global(&self) -> rows::Global {
        rows::Global { applied: self.applied, now_ms: self.now_ms, cluster_version: self.cluster_version }
    }

    /// The last entry applied or skipped.
    pub fn applied(&self) -> Option<LogId> {
        self.applied
    }

    /// Machine time: the largest stamp applied so far, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The cluster version in force.
    pub fn cluster_version(&self) -> u16 {
        self.cluster_version
    }

    /// The earliest machine time at which a sweep has something to drop.
    pub fn due_at_ms(&self) -> Option<u64> {
        self.tables.due.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// The digest at `applied`: equal on every replica that applied the same entries, whatever its layout on disk. Cost: the rows
    /// that are not made yet.
    pub fn digest(&self) -> u64 {
        let start = digest::mix(u64::from(self.cluster_version), self.now_ms);
        self.tables.digest().wrapping_add(start)
    }

    /// The digest after `index`: at `applied`, and after every [`crate::limits::Intervals::digest_entries`]th of the latest indexes since start.
    pub fn digest_at(&self, index: u64) -> Option<u64> {
        if self.applied.is_some_and(|applied| applied.index == index) {
            return Some(self.digest());
        }
        self.history.at(index)
    }

    /// How much it holds.
    pub fn counts(&self) -> Counts {
        self.tables.counts(self.rules)
    }
}
