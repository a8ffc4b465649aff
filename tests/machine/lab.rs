//! A machine with the rows it would have on disk. Every entry goes through the codec, every effect is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use quorate::codec;
use quorate::machine::audit::Audit;
use quorate::machine::rows::{self, Birth};
use quorate::machine::{Command, Effects, Entry, Machine, Places, Plan, allow_test_version};
use quorate::types::{
    Blob, Chunk, ClientId, Load, LogId, NodeId, Nonce, Outcome, Part, Request, Sequence, SessionId, Verdict, Write,
};

/// The rows a node would have on disk.
pub type Rows = BTreeMap<(u8, Bytes), Bytes>;

/// A machine, its rows, and the next log index.
#[derive(Clone)]
pub struct Lab {
    /// The machine.
    pub machine: Machine,
    /// Its rows.
    pub rows: Rows,
    /// The index the next entry gets.
    pub next_index: u64,
    /// Leaves out codec, invariants and the twin, where there are many states to go through.
    quick: bool,
    /// The same machine, whose rows are made at other times.
    twin: Option<Twin>,
}

/// A machine and rows that are completed now and then, as a flush comes.
#[derive(Clone)]
struct Twin {
    machine: Machine,
    rows: Rows,
}

impl Lab {
    /// An empty machine whose first entry gets index 1.
    pub fn new() -> Self {
        allow_test_version();
        Self { machine: Machine::new(), rows: Rows::new(), next_index: 1, quick: false, twin: None }
    }

    /// One that checks less, for a caller with many states to go through.
    pub fn quick() -> Self {
        Self { quick: true, ..Self::new() }
    }

    /// Encodes, decodes and applies one command; checks effects and invariants.
    pub fn apply(&mut self, stamp_ms: u64, command: Command) -> Outcome {
        let mut entry = Entry { stamp_ms, command };
        if !self.quick {
            let version = self.machine.cluster_version();
            let format = u8::try_from(version).expect("small");
            let decoded = codec::decode(&codec::encode(&entry, format), version).expect("own encoding");
            assert_eq!(decoded, entry, "codec round trip");
            entry = decoded;
        }
        self.step(|machine, log_id, effects| machine.apply(log_id, &entry, effects))
    }

    /// One entry: by the machine, whose rows are all made after it, and by its twin.
    fn step<R: PartialEq + std::fmt::Debug>(&mut self, apply: impl Fn(&mut Machine, LogId, &mut Effects) -> R) -> R {
        let twin = self.twin.take().filter(|twin| twin.machine.applied() == self.machine.applied());
        let twin =
            if self.quick { None } else { twin.or_else(|| Some(Twin { machine: self.machine.clone(), rows: self.rows.clone() })) };
        let log_id = LogId { term: 1, node: NodeId(1), index: self.next_index };
        self.next_index += 1;
        let mut effects = Effects::default();
        let result = apply(&mut self.machine, log_id, &mut effects);
        let digest = self.machine.digest();
        self.machine.complete(&mut effects);
        assert_eq!(self.machine.digest(), digest, "the digest does not depend on which rows are made");
        take(&mut self.rows, effects, true);
        let Some(mut twin) = twin else { return result };
        self.machine.check().expect("invariants");
        let mut effects = Effects::default();
        assert_eq!(apply(&mut twin.machine, log_id, &mut effects), result, "a twin answers alike");
        twin.machine.check().expect("invariants of the twin");
        let indexes = log_id.index.saturating_sub(3)..=log_id.index;
        for index in indexes {
            let (mine, of_twin) = (self.machine.digest_at(index), twin.machine.digest_at(index));
            assert_eq!(mine, of_twin, "digest after {index}");
        }
        // Now after one entry, now after many.
        let is_flushed = log_id.index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61 == 0;
        if is_flushed {
            twin.machine.complete(&mut effects);
        }
        take(&mut twin.rows, effects, false);
        if is_flushed {
            assert_eq!(twin.machine.unmade_bytes(), 0);
            assert!(twin.rows == self.rows, "rows made at other times are others");
        }
        self.twin = Some(twin);
        result
    }

    /// Applies a client's write.
    pub fn write(&mut self, stamp_ms: u64, write: Write) -> Outcome {
        self.apply(stamp_ms, Command::Client(write))
    }

    /// Passes an entry of Raft's own.
    pub fn skip(&mut self) {
        self.step(|machine, log_id, effects| machine.skip(log_id, effects));
    }

    /// Opens a client, whose nonce is made of a number.
    pub fn open(&mut self, stamp_ms: u64, number: u8) -> ClientId {
        match self.write(stamp_ms, Write::OpenClient { nonce: nonce(number) }).verdict {
            Verdict::ClientOpened { client } => client,
            other => panic!("client is not opened: {other:?}"),
        }
    }

    /// Rebuilds the machine from its rows, as a restart or a snapshot does, and checks that nothing is lost.
    pub fn rebuild(&mut self) {
        let rebuilt = from_rows(&self.rows).expect("own rows");
        rebuilt.check().expect("invariants of the rebuilt machine");
        assert_same(&self.machine, &rebuilt);
        self.machine = rebuilt;
    }

    /// Checks that content rows are exactly those the machine speaks of, for every live session.
    pub fn check_content(&self) {
        let heads: BTreeSet<_> = self.keys(rows::HEADS).cloned().collect();
        assert_eq!(heads.len() as u64, self.machine.counts().sessions, "one head row for each session");
        let mut chunks =
            self.rows.iter().filter(|((table, _), _)| *table == rows::CHUNKS).map(|(_, value)| rows::decode_chunk(value));
        // A transcript may lie about lengths, to come to a bound.
        if chunks.any(|row| !row.expect("a chunk").chunk.blob.is_intact()) {
            return;
        }
        let mut audit = Audit::default();
        for ((table, key), value) in &self.rows {
            audit.row(*table, key, value).expect("whole");
        }
        // Also of sessions that have expired and are not swept; of none are rows left over.
        let totals = audit.finish(&self.machine).expect("content as the machine says");
        assert_eq!((totals.orphans, totals.chunks), (0, self.keys(rows::CHUNKS).count() as u64), "chunk rows of no session");
        for listed in self.machine.list("", None, 1000).0 {
            let chunks = self.content(&listed.id).expect("listed").0;
            assert_eq!(chunks.iter().map(|chunk| chunk.item_count).sum::<u64>(), listed.info.items);
            for part in
                [Part::Info, Part::Last(1), Part::Last(3), Part::From { item: 1, limit: 2 }, Part::From { item: 0, limit: 1 }]
            {
                self.check_part(&listed.id, part);
            }
            assert_eq!(listed.info.chunks, chunks.len() as u64);
        }
    }

    /// A part of a live session, read as a node would: the number of its first item, its chunks, and how many rows were read for it.
    pub fn part(&self, id: &SessionId, part: Part) -> (u64, Vec<Chunk>, usize) {
        let load = Load { part, ..Load::whole(id.clone()) };
        let Plan::Part { mut walk, head, .. } = self.machine.plan(&load) else { panic!("a part of a live session") };
        assert_eq!(head, part.has_head());
        let (mut chunks, mut read) = (Vec::new(), 0);
        while let Some(position) = walk.next_chunk() {
            let row = self.rows.get(&(rows::CHUNKS, walk.places().key(position))).expect("a chunk");
            let rows::ChunkRow { chunk, first_item } = rows::decode_chunk(row).expect("a chunk");
            read += 1;
            if walk.step(chunk.item_count, first_item).expect("no more items than the session") {
                chunks.push(chunk);
            }
        }
        assert!(walk.is_done(), "the walk ended early part={part:?}");
        if walk.is_backwards() {
            chunks.reverse();
        }
        (walk.first_item(), chunks, read)
    }

    /// A part has the chunks that hold its items, and no others.
    fn check_part(&self, id: &SessionId, part: Part) {
        let (all, _) = self.content(id).expect("live");
        let wanted = part.items(all.iter().map(|chunk| chunk.item_count).sum());
        let (mut next, mut first_item, mut expected) = (0, wanted.start, Vec::new());
        for chunk in all {
            let items = next..next + chunk.item_count;
            next = items.end;
            if items.start < wanted.end && wanted.start < items.end {
                first_item = if expected.is_empty() { items.start } else { first_item };
                expected.push(chunk);
            }
        }
        let (first, chunks, _) = self.part(id, part);
        assert_eq!((first, chunks), (first_item, expected), "{part:?}");
    }

    fn keys(&self, table: u8) -> impl Iterator<Item = &Bytes> {
        self.rows.keys().filter(move |(of, _)| *of == table).map(|(_, key)| key)
    }

    /// The chunks at some positions.
    pub fn chunks(&self, places: &Places, positions: Range<u64>) -> Vec<Chunk> {
        let row = |position| self.rows.get(&(rows::CHUNKS, places.key(position))).expect("a chunk");
        positions.map(|position| rows::decode_chunk(row(position)).expect("a chunk").chunk).collect()
    }

    /// The content of a live session, read as a node would.
    pub fn content(&self, id: &SessionId) -> Option<(Vec<Chunk>, Blob)> {
        let load = Load::whole(id.clone());
        let Plan::Read { info, places, chunks, .. } = self.machine.plan(&load) else {
            return None;
        };
        let row = |table, key: Bytes| self.rows.get(&(table, key)).expect("content row");
        let chunks = self.chunks(&places, chunks);
        let head =
            rows::decode_head(row(rows::HEADS, rows::head_key(Birth::of(info.create_revision, info.next_chunk)))).expect("head");
        Some((chunks, head))
    }
}

/// Changes rows. `once`: none of them is changed twice, as by one entry.
fn take(rows: &mut Rows, effects: Effects, once: bool) {
    let mut seen = BTreeSet::new();
    for change in effects.rows {
        assert!(seen.insert((change.table, change.key.clone())) || !once, "row changed twice table={}", change.table);
        let key = (change.table, change.key);
        match change.value {
            Some(value) => drop(rows.insert(key, value)),
            None => assert!(rows.remove(&key).is_some(), "deleted row is not there key={key:?}"),
        }
    }
}

/// The machine of some rows.
pub fn from_rows(rows: &Rows) -> Result<Machine, rows::Error> {
    Machine::from_rows(rows.iter().map(|((table, key), value)| Ok((*table, key.clone(), value.clone()))))
}

/// Checks that two machines answer alike.
pub fn assert_same(one: &Machine, other: &Machine) {
    assert_eq!(one.digest(), other.digest(), "digest");
    assert_eq!(one.counts(), other.counts());
    assert_eq!(one.applied(), other.applied());
    assert_eq!(
        (one.now_ms(), one.cluster_version(), one.due_at_ms()),
        (other.now_ms(), other.cluster_version(), other.due_at_ms())
    );
    assert_eq!(one.list("", None, 1000), other.list("", None, 1000));
}

/// The nonce made of a number.
pub fn nonce(number: u8) -> Nonce {
    Nonce([number; 16])
}

/// A session id.
pub fn id(id: &str) -> SessionId {
    SessionId::new(id).expect("short")
}

/// A head.
pub fn blob(text: &str) -> Blob {
    Blob::plain(Bytes::copy_from_slice(text.as_bytes()))
}

/// A chunk of so many items.
pub fn chunk(item_count: u64, text: &str) -> Chunk {
    Chunk { item_count, blob: blob(text) }
}

/// A request whose nonce is made of a number.
pub fn request(client: ClientId, number: u8, sequence: u64, acknowledged_below: u64) -> Request {
    Request { client, nonce: nonce(number), sequence: Sequence(sequence), acknowledged_below: Sequence(acknowledged_below) }
}
