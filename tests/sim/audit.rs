//! The white-box audit: every entry that any node applied, replayed in order through the reference model of `tests/support`.
//!
//! Nodes must apply the same entry at an index and come to the same outcome, whenever and however often they apply it; the outcome must be
//! the model's; no request is executed twice. What it knows of the committed log also gives the history of the clients its places: then
//! the exact checker's verdict is proof.

use std::collections::{BTreeMap, BTreeSet};

use quorate::machine::{Command, Entry};
use quorate::raft::Applied;
use quorate::testing::history::{Committed, LeaseNote, Request};
use quorate::types::{Blob, Codec, Outcome, Revision, Verdict, Write};

use super::attempts;
use super::coverage::sometimes;
use super::eras::Eras;
use super::leases;
use super::node::EPOCH_MS;
use super::params::{Params, SHORT_IDLE_MS, SHORT_TOMBSTONE_MS, YEAR_MS};
use super::workload::{VALUE_BYTES, key_of};
use crate::support::reference::Model;

/// A later time is that of the one clock that may be a year ahead: all others are hours ahead at most.
const STAMP_MS_MAX: u64 = EPOCH_MS + YEAR_MS / 2;

/// What was applied so far.
#[derive(Default)]
pub struct Audit {
    model: Model,
    /// The index the model is to apply next.
    next: u64,
    /// Entries behind a gap: the nodes before it are gone, others will come to it.
    waiting: BTreeMap<u64, (Option<Entry>, Outcome)>,
    /// What was applied at each index, as a hash.
    marks: BTreeMap<u64, u64>,
    executed: BTreeSet<(u64, u64)>,
    /// Where each request stands in the log, whatever came of it there.
    entries: BTreeMap<(u64, u64), Vec<u64>>,
    committed: Vec<Committed>,
    eras: Eras,
    leases: leases::Log,
    short_intervals: bool,
    /// Clients that were answered that there is no entry of theirs.
    unknown: BTreeSet<u64>,
    /// When each client's entry was last prolonged by something else than a keep-alive.
    written_ms: BTreeMap<u64, u64>,
    violations: Vec<String>,
}

impl Audit {
    pub fn new(params: &Params) -> Self {
        let mut model = if params.short_intervals { Model::new(SHORT_TOMBSTONE_MS, SHORT_IDLE_MS) } else { Model::default() };
        // Clusters begin under version 1.
        model.is_old = true;
        Self { model, short_intervals: params.short_intervals, ..Self::default() }
    }

    /// Takes note of what a node applied.
    pub fn take(&mut self, node: u64, applied: &Applied<'_>) {
        let (index, mark) = (applied.log_id.index, mark(applied));
        match self.marks.insert(index, mark) {
            None => {}
            Some(first) if first == mark => return,
            Some(_) => {
                return self.violations.push(format!("n{node} applied another entry, or came to another outcome, index={index}"));
            }
        }
        self.waiting.insert(index, (applied.entry.cloned(), applied.outcome.clone()));
        while let Some((entry, outcome)) = self.waiting.remove(&self.next) {
            if let Some(entry) = entry {
                self.replay(self.next, &entry, &outcome);
            }
            self.next += 1;
        }
    }

    fn replay(&mut self, index: u64, entry: &Entry, outcome: &Outcome) {
        if entry.stamp_ms > STAMP_MS_MAX {
            self.violations
                .push(format!("machine time follows the one clock that is a year ahead index={index} stamp={}", entry.stamp_ms));
        }
        // A session may expire and its tombstone end with one entry: it is the last of its era.
        let passed = self.model.advance(entry.stamp_ms);
        self.leases.passed(index, &passed.leases);
        for (id, version) in passed.sessions {
            let Some(key) = key_of(&id) else { continue };
            let (value, request, is_expiry) = (None, None, true);
            let version = self.eras.before(key, index) + version;
            self.committed.push(Committed { key, version, revision: index, value, request, is_expiry });
        }
        // Elsewhere tombstones outlive the run: a version that starts again is a fault, whatever the log says of the time.
        for (id, version) in passed.tombstones.into_iter().filter(|_| self.short_intervals) {
            let Some(key) = key_of(&id) else { continue };
            self.eras.end(key, index, version);
        }
        if let Verdict::ClusterVersion { version } = outcome.verdict {
            self.model.is_old = version < 2;
        }
        let Command::Client(write) = &entry.command else { return };
        // The client takes a full table for a refusal: it changes nothing, but is in the log.
        if let Some(request) = write.request().filter(|_| outcome.verdict != Verdict::Busy) {
            self.entries.entry((request.client.0, request.sequence.0)).or_default().push(index);
        }
        let expected = self.model.apply(index, entry.stamp_ms, write);
        if expected != *outcome {
            self.violations.push(format!("the model answers {expected:?}, the machine {outcome:?} index={index} write={write:?}"));
        }
        self.note_client(entry.stamp_ms, write, outcome);
        self.leases.take(index, write, outcome);
        let version = match outcome.verdict {
            Verdict::Saved(saved) => saved.content.version.0,
            Verdict::Deleted { version } => version.0,
            _ => return,
        };
        if outcome.revision != Revision(index) {
            return;
        }
        let request = write.request().map(|request| Request { client: request.client.0, sequence: request.sequence.0 });
        if let Some(request) = request.filter(|request| !self.executed.insert((request.client, request.sequence))) {
            self.violations.push(format!("a request was executed twice, at last at index={index} {request:?}"));
        }
        if let Some(key) = write.written().next().and_then(|id| key_of(id.as_str())) {
            let value = write.changes().next().and_then(|change| change.head()).map(value_of);
            let before = self.eras.before(key, index);
            if version == 1 && before > 0 {
                sometimes("version started again");
            }
            let version = before + version;
            self.committed.push(Committed { key, version, revision: index, value, request, is_expiry: false });
        }
    }

    /// What the model has judged right, of a client's entry.
    fn note_client(&mut self, stamp_ms: u64, write: &Write, outcome: &Outcome) {
        let client = match write {
            Write::KeepAlive { client, .. } | Write::CloseClient { client, .. } => client.0,
            write => match write.request() {
                Some(request) => request.client.0,
                None => return,
            },
        };
        if outcome.verdict == Verdict::ClientUnknown {
            sometimes("client without an entry");
            self.unknown.insert(client);
        } else if outcome.verdict == Verdict::ClientKept {
            sometimes("client kept alive");
        } else if let Some(before) = self.written_ms.insert(client, stamp_ms)
            && stamp_ms > before + SHORT_IDLE_MS
        {
            sometimes("client kept alive for longer than it may be idle");
        }
    }

    /// Where versions start again.
    pub fn eras(&self) -> &Eras {
        &self.eras
    }

    /// What became of leases.
    pub fn leases(&self) -> &[LeaseNote] {
        self.leases.notes()
    }

    /// The last entry that any node applied.
    pub fn newest(&self) -> u64 {
        self.marks.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// The changes to sessions of single values, as they were committed, and what is wrong; `None`: an entry is unknown.
    pub fn finish(&mut self) -> (Option<Vec<Committed>>, Vec<String>) {
        let mut violations = std::mem::take(&mut self.violations);
        violations.extend(attempts::judge(&self.entries));
        violations.extend(attempts::judge_forgotten(&self.unknown));
        if let Some(first) = self.waiting.keys().next() {
            violations.push(format!("entries were applied behind one that no node applied index={} first={first}", self.next));
            return (None, violations);
        }
        (Some(std::mem::take(&mut self.committed)), violations)
    }
}

/// The number a value begins with.
fn value_of(head: &Blob) -> u64 {
    let unpacked = match head.codec {
        Codec::None => head.data[..=VALUE_BYTES].to_vec(),
        Codec::Zstd => zstd::decode_all(&head.data[..]).expect("what a client packed"),
    };
    // Before it stands what kind of content it is.
    u64::from_le_bytes(unpacked[1..=VALUE_BYTES].try_into().expect("eight bytes"))
}

/// A hash of an entry and its outcome. Contents count by their checksums.
fn mark(applied: &Applied<'_>) -> u64 {
    let mut text = format!("{} {:?}", applied.log_id, applied.outcome);
    if let Some(entry) = applied.entry {
        text += &format!(" {} ", entry.stamp_ms);
        match &entry.command {
            Command::Client(Write::OpenClient { nonce }) => text += &format!("{nonce:?}"),
            Command::Client(write) => {
                text += &format!("{:?} {:?}", write.request(), write.sessions().collect::<Vec<_>>());
                write.blobs().for_each(|blob| text += &format!(" {} {}", blob.crc32c, blob.raw_bytes));
            }
            other => text += &format!("{other:?}"),
        }
    }
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, hash)
}
