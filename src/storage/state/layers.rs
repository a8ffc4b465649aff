//! The layers a read sees: unflushed over frozen over the base, all of one instant.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, btree_map, hash_map};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::engine::Base;
use super::error::Error;
use super::fault::Fault;
use super::rows::{Found, Row, Scan};
use crate::limits::ROW_OVERHEAD_BYTES;
use crate::types::LogId;

/// The changes of entries that are applied together.
#[derive(Debug, Default)]
pub struct Batch {
    rows: Vec<(u8, Bytes, Cell)>,
    applied: Option<LogId>,
    unmade_bytes: Option<u64>,
}

impl Batch {
    /// Stores a row in place of whatever was there.
    pub fn put(&mut self, table: u8, key: Bytes, value: Bytes) {
        self.rows.push((table, key, Cell { value: Some(value), is_first: false }));
    }

    /// Puts a row whose key never had one. If it is deleted before it is flushed, the file never hears of it.
    pub fn put_first(&mut self, table: u8, key: Bytes, value: Bytes) {
        self.rows.push((table, key, Cell { value: Some(value), is_first: true }));
    }

    /// Deletes a row; one that is not there stays so.
    pub fn delete(&mut self, table: u8, key: Bytes) {
        self.rows.push((table, key, Cell { value: None, is_first: false }));
    }

    /// Says which entry is the last of them. Its index must be above that of the batch before.
    pub fn set_applied(&mut self, applied: LogId) {
        self.applied = Some(applied);
    }

    /// Says how many bytes of rows the machine has not made yet: they count as unflushed until it has.
    pub fn set_unmade_bytes(&mut self, bytes: u64) {
        self.unmade_bytes = Some(bytes);
    }
}

/// Rows that are not in the base yet; a row without a value is deleted there.
///
/// One map per table, so that the small tables, which every write changes, stay in the CPU's caches.
#[derive(Default)]
pub(super) struct Overlay {
    tables: BTreeMap<u8, Cells>,
    bytes: u64,
    /// Tables kept in hash tables.
    hashed_tables: &'static [u8],
}

/// The rows of one table.
enum Cells {
    Ordered(BTreeMap<Key, Cell>),
    /// One cache miss per look-up, where a tree has one per level. An iteration must sort.
    Hashed(HashMap<Key, Cell>),
}

impl Cells {
    fn is_empty(&self) -> bool {
        match self {
            Self::Ordered(rows) => rows.is_empty(),
            Self::Hashed(rows) => rows.is_empty(),
        }
    }

    /// Sets a row, by one look-up. Answers the bytes that are no more, where every row takes `key_bytes` besides its value.
    fn set(&mut self, key: Key, cell: Cell, key_bytes: u64) -> u64 {
        macro_rules! set {
            ($module:ident, $rows:expr) => {
                match $rows.entry(key) {
                    $module::Entry::Vacant(entry) => {
                        entry.insert(cell);
                        0
                    }
                    $module::Entry::Occupied(entry) if cell.value.is_none() && entry.get().is_first => {
                        2 * key_bytes + entry.remove().bytes()
                    }
                    $module::Entry::Occupied(mut entry) => {
                        let old = std::mem::replace(&mut entry.get_mut().value, cell.value);
                        key_bytes + old.map_or(0, |old| old.len() as u64)
                    }
                }
            };
        }
        match self {
            Self::Ordered(rows) => set!(btree_map, rows),
            Self::Hashed(rows) => set!(hash_map, rows),
        }
    }

    /// The rows within, in order of keys.
    fn range(&self, span: &Span) -> Vec<(&Key, &Cell)> {
        let (from, until) = (Key::new(span.from.clone()), Key::new(span.until.clone()));
        match self {
            _ if from >= until => Vec::new(),
            Self::Ordered(rows) => rows.range(from..until).collect(),
            Self::Hashed(rows) if span.is_single() => rows.get_key_value(&from).into_iter().collect(),
            Self::Hashed(rows) => in_order(rows.iter().filter(|(key, _)| (&from..&until).contains(key))),
        }
    }

    fn all(&self) -> Vec<(&Key, &Cell)> {
        match self {
            Self::Ordered(rows) => rows.iter().collect(),
            Self::Hashed(rows) => in_order(rows.iter()),
        }
    }
}

fn in_order<'r>(rows: impl Iterator<Item = (&'r Key, &'r Cell)>) -> Vec<(&'r Key, &'r Cell)> {
    let mut rows: Vec<_> = rows.collect();
    rows.sort_unstable_by_key(|(key, _)| *key);
    rows
}

/// A row's key, which is compared without a look at its bytes where the first 16 of them tell. Ordered as its bytes are.
#[derive(Clone)]
struct Key {
    first: u128,
    bytes: Bytes,
}

impl Key {
    fn new(bytes: Bytes) -> Self {
        let mut first = [0; 16];
        let len = bytes.len().min(first.len());
        first[..len].copy_from_slice(&bytes[..len]);
        Self { first: u128::from_be_bytes(first), bytes }
    }

    /// Whether `first` has all of it.
    fn is_short(&self) -> bool {
        self.bytes.len() <= 16
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.is_short() {
            // Equal keys have equal lengths, which need not be hashed for that.
            state.write_u128(self.first);
        } else {
            state.write(&self.bytes);
        }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        // Zeros stand for what a short key lacks, so equal ones say nothing yet.
        let lens = || self.bytes.len().cmp(&other.bytes.len());
        let rest = || if self.is_short() && other.is_short() { lens() } else { self.bytes.cmp(&other.bytes) };
        self.first.cmp(&other.first).then_with(rest)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A row as it was changed last; `None`: deleted.
#[derive(Debug)]
struct Cell {
    value: Option<Bytes>,
    /// No layer below has a row of this key.
    is_first: bool,
}

impl Cell {
    fn bytes(&self) -> u64 {
        self.value.as_ref().map_or(0, Bytes::len) as u64
    }
}

impl Overlay {
    pub fn new(hashed_tables: &'static [u8]) -> Self {
        Self { hashed_tables, ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.tables.values().all(Cells::is_empty)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All rows, in order of tables and keys.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let tables = self.tables.iter();
        tables.flat_map(|(table, rows)| {
            rows.all().into_iter().map(|(key, cell)| Row {
                table: *table,
                key: &key.bytes,
                value: cell.value.as_ref(),
                is_first: cell.is_first,
            })
        })
    }

    fn set(&mut self, table: u8, key: Bytes, cell: Cell) {
        let key_bytes = key.len() as u64 + ROW_OVERHEAD_BYTES;
        let singly = self.hashed_tables.contains(&table);
        let rows = self.tables.entry(table).or_insert_with(|| match singly {
            true => Cells::Hashed(HashMap::new()),
            false => Cells::Ordered(BTreeMap::new()),
        });
        self.bytes += key_bytes + cell.bytes();
        self.bytes -= rows.set(Key::new(key), cell, key_bytes);
    }

    fn get(&self, table: u8, key: &Bytes) -> Option<&Option<Bytes>> {
        let key = Key::new(key.clone());
        let cell = match self.tables.get(&table)? {
            Cells::Ordered(rows) => rows.get(&key),
            Cells::Hashed(rows) => rows.get(&key),
        };
        cell.map(|cell| &cell.value)
    }

    fn range(&self, span: &Span) -> impl Iterator<Item = ((u8, &Bytes), &Option<Bytes>)> {
        let table = span.table;
        let rows = self.tables.get(&table).map_or_else(Vec::new, |rows| rows.range(span));
        rows.into_iter().map(move |(key, cell)| ((table, &key.bytes), &cell.value))
    }
}

/// Rows on their way to the disk, with the entry they end at. Never changed.
pub(super) struct Frozen {
    pub overlay: Overlay,
    pub applied: Option<LogId>,
    /// The machine's mark at `applied`; `None`: no mark is taken.
    pub mark: Option<u64>,
}

/// Everything a view sees. One lock guards it.
pub(super) struct Live<M> {
    pub machine: M,
    pub unflushed: Overlay,
    /// Bytes of rows that the machine has not made yet.
    pub unmade_bytes: u64,
    /// Bytes put into `unflushed`, replaced ones too.
    pub put_bytes: u64,
    pub frozen: Option<Arc<Frozen>>,
    pub base: Arc<Base>,
    /// The mark of the machine `base` was flushed from, if one was taken.
    pub base_mark: Option<u64>,
    /// Invariant: `flushed <= frozen.applied <= applied`.
    pub applied: Option<LogId>,
    pub flushed: Option<LogId>,
    /// When the oldest change that is in no frozen set was made, by the monotonic clock.
    pub dirty_since: Option<Duration>,
}

impl<M> Live<M> {
    pub fn absorb(&mut self, batch: Batch, now: Duration) {
        self.unmade_bytes = batch.unmade_bytes.unwrap_or(self.unmade_bytes);
        if let Some(applied) = batch.applied {
            let before = self.applied.map(|id| id.index);
            assert!(before < Some(applied.index), "applied out of order: {applied} after {:?}", self.applied);
            self.applied = Some(applied);
        } else if batch.rows.is_empty() {
            return;
        }
        for (table, key, cell) in batch.rows {
            self.put_bytes += key.len() as u64 + cell.bytes();
            self.unflushed.set(table, key, cell);
        }
        self.dirty_since.get_or_insert(now);
    }

    /// Bytes held in memory until they are flushed.
    pub fn pending_bytes(&self) -> u64 {
        self.unflushed.bytes + self.unmade_bytes + self.frozen.as_ref().map_or(0, |frozen| frozen.overlay.bytes)
    }
}

#[derive(Clone)]
struct Span {
    table: u8,
    from: Bytes,
    until: Bytes,
}

impl Span {
    /// Whether it is of one key alone.
    fn is_single(&self) -> bool {
        self.until.len() == self.from.len() + 1 && self.until.starts_with(&self.from) && self.until.ends_with(&[0])
    }
}

/// Pins rows of the view it was handed out by.
pub struct Pinner<'a> {
    pub(super) unflushed: &'a Overlay,
    pub(super) frozen: &'a Option<Arc<Frozen>>,
    pub(super) base: &'a Arc<Base>,
    pub(super) fault: &'a Arc<Fault>,
}

impl Pinner<'_> {
    /// Pins the rows of half-open ranges `(table, from, until)`. Cost: the unflushed rows among them.
    pub fn pin(&self, ranges: &[(u8, Bytes, Bytes)]) -> Pinned {
        let spans = ranges.iter().map(|(table, from, until)| Span { table: *table, from: from.clone(), until: until.clone() });
        self.pin_spans(spans.collect())
    }

    /// Pins single rows.
    pub fn pin_keys(&self, keys: &[(u8, Bytes)]) -> Pinned {
        let span = |(table, key): &(u8, Bytes)| Span { table: *table, from: key.clone(), until: [key, &[0][..]].concat().into() };
        self.pin_spans(keys.iter().map(span).collect())
    }

    fn pin_spans(&self, spans: Vec<Span>) -> Pinned {
        let copied = |span| self.unflushed.range(span).map(|((table, key), value)| (table, key.clone(), value.clone()));
        let recent = spans.iter().flat_map(copied).collect();
        Pinned { spans, recent, frozen: self.frozen.clone(), base: self.base.clone(), fault: self.fault.clone() }
    }
}

/// Rows of one instant, to be read later. Holds that instant's file content: keep it for seconds, not for hours.
pub struct Pinned {
    spans: Vec<Span>,
    recent: Vec<(u8, Bytes, Option<Bytes>)>,
    frozen: Option<Arc<Frozen>>,
    base: Arc<Base>,
    fault: Arc<Fault>,
}

impl Pinned {
    /// The rows, in (table, key) order, each once. May wait for the disk: call it off the async threads.
    ///
    /// A row that is not there is simply missing. Errors: [`Error::Corrupt`] and [`Error::Io`], which the whole state then ends with;
    /// [`Error::Superseded`]: take a new view. Nothing was changed.
    pub fn read(&self) -> Result<Vec<Found>, Error> {
        self.noted(self.merged())
    }

    /// After an error that is final, the whole state ends.
    fn noted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|error| {
            if error.is_final() {
                self.fault.fail(error.clone());
            }
        })
    }

    /// To look rows up one by one, for a caller who learns from each whether it needs the next.
    pub fn by_key(mut self) -> PinnedByKey {
        self.recent.sort_unstable_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        PinnedByKey(self)
    }

    fn merged(&self) -> Result<Vec<Found>, Error> {
        let mut rows: BTreeMap<(u8, Bytes), Option<Bytes>> = BTreeMap::new();
        for span in &self.spans {
            if let Some(frozen) = &self.frozen {
                rows.extend(frozen.overlay.range(span).map(|((table, key), value)| ((table, key.clone()), value.clone())));
            }
        }
        rows.extend(self.recent.iter().map(|(table, key, value)| ((*table, key.clone()), value.clone())));
        for span in &self.spans {
            if span.is_single() && rows.contains_key(&(span.table, span.from.clone())) {
                continue;
            }
            for row in Scan::range(&self.base, span.table, &span.from, &span.until) {
                let (table, key, value) = row?;
                rows.entry((table, key)).or_insert(Some(value));
            }
        }
        Ok(rows.into_iter().filter_map(|((table, key), value)| Some((table, key, value?))).collect())
    }
}

/// Rows of one instant, looked up one by one.
pub struct PinnedByKey(Pinned);

impl PinnedByKey {
    /// The value of a row that was pinned; `None`: it is not there. May wait for the disk, and errors, as [`Pinned::read`].
    pub fn get(&self, table: u8, key: &Bytes) -> Result<Option<Bytes>, Error> {
        let Self(pinned) = self;
        let is_pinned = pinned.spans.iter().any(|span| span.table == table && (&span.from..&span.until).contains(&key));
        assert!(is_pinned, "a row was looked up that is not pinned table={table}");
        if let Ok(at) = pinned.recent.binary_search_by(|row| (row.0, &row.1).cmp(&(table, key))) {
            return Ok(pinned.recent[at].2.clone());
        }
        if let Some(value) = pinned.frozen.as_ref().and_then(|frozen| frozen.overlay.get(table, key)) {
            return Ok(value.clone());
        }
        let found = Scan::range(&pinned.base, table, key, &[key, &[0][..]].concat()).next().transpose();
        Ok(pinned.noted(found)?.map(|(.., value)| value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(batch: Batch, mut overlay: Overlay) -> Overlay {
        batch.rows.into_iter().for_each(|(table, key, cell)| overlay.set(table, key, cell));
        overlay
    }

    #[test]
    fn keys_are_ordered_as_their_bytes_whatever_their_length() {
        let mut keys: Vec<Vec<u8>> = vec![vec![]];
        for len in [1, 2, 15, 16, 17, 18, 40] {
            for last in [0, 1, 255] {
                keys.push([vec![0; len - 1], vec![last]].concat());
                keys.push([vec![7; len - 1], vec![last]].concat());
            }
        }
        for (one, other) in keys.iter().flat_map(|one| keys.iter().map(move |other| (one, other))) {
            let key = |bytes: &[u8]| Key::new(Bytes::copy_from_slice(bytes));
            assert_eq!(key(one).cmp(&key(other)), one.cmp(other), "{one:?} {other:?}");
        }
    }

    #[test]
    fn keys_are_equal_and_hash_alike_only_if_their_bytes_are() {
        let keys: Vec<Vec<u8>> = (0..40).flat_map(|len| [vec![0; len], [vec![0; len], vec![1]].concat()]).collect();
        let hash = |key: &Key| {
            std::hash::BuildHasher::hash_one(&std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default(), key)
        };
        for (one, other) in keys.iter().flat_map(|one| keys.iter().map(move |other| (one, other))) {
            let (a, b) = (Key::new(Bytes::copy_from_slice(one)), Key::new(Bytes::copy_from_slice(other)));
            assert_eq!(a == b, one == other, "{one:?} {other:?}");
            assert!(a != b || hash(&a) == hash(&b), "{one:?}");
        }
    }

    fn put_all(overlay: Overlay, rows: &[(u8, &'static [u8], bool)]) -> Overlay {
        let mut batch = Batch::default();
        for (table, key, is_put) in rows {
            match is_put {
                true => batch.put(*table, Bytes::from_static(key), Bytes::from_static(b"value")),
                false => batch.delete(*table, Bytes::from_static(key)),
            }
        }
        self::overlay(batch, overlay)
    }

    #[test]
    fn hashed_rows_are_given_as_ordered_ones_are() {
        let rows: [(u8, &'static [u8], bool); 8] = [
            (1, b"b", true),
            (1, b"a", true),
            (1, b"a long key whose first bytes are those of another 2", true),
            (1, b"a long key whose first bytes are those of another 1", true),
            (1, b"a\0", true),
            (1, b"", true),
            (2, b"z", true),
            (1, b"b", false),
        ];
        let (ordered, hashed) = (put_all(Overlay::default(), &rows), put_all(Overlay::new(&[1]), &rows));
        assert_eq!(ordered.rows().collect::<Vec<_>>(), hashed.rows().collect::<Vec<_>>());
        assert_eq!(ordered.bytes(), hashed.bytes());
        let bytes = Bytes::from_static;
        for (from, until) in [("", "zz"), ("a", "a\0"), ("a", "b"), ("c", "a"), ("", "\0"), ("b", "b\0"), ("a", "a")] {
            let span = Span { table: 1, from: bytes(from.as_bytes()), until: bytes(until.as_bytes()) };
            let found = |overlay: &Overlay| overlay.range(&span).map(|((_, key), _)| key.clone()).collect::<Vec<_>>();
            assert_eq!(found(&ordered), found(&hashed), "{from:?}..{until:?}");
        }
    }

    #[test]
    fn a_first_row_that_is_deleted_before_the_flush_leaves_nothing_and_any_other_leaves_its_deletion() {
        for hashed_tables in [&[][..], &[1, 2]] {
            let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
            let mut batch = Batch::default();
            batch.put_first(1, key.clone(), value.clone());
            batch.put(1, key.clone(), value.clone());
            batch.put(2, key.clone(), value);
            let rows = overlay(batch, Overlay::new(hashed_tables));
            assert_eq!(rows.rows().count(), 2);
            let mut batch = Batch::default();
            batch.delete(1, key.clone());
            batch.delete(2, key.clone());
            let rows = overlay(batch, rows);
            assert_eq!(rows.rows().map(|row| (row.table, row.value)).collect::<Vec<_>>(), vec![(2, None)]);
            assert_eq!(rows.bytes(), key.len() as u64 + ROW_OVERHEAD_BYTES);
        }
    }
}
