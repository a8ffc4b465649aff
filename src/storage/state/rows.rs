//! Rows as parts that fit redb's pages, each with a checksum over where it belongs and what it says.
//!
//! ```text
//! redb key    (table, key, part)            parts count from 0
//! redb value  crc32c u32 | more u8 | bytes  crc over table, key length, key, part, more, bytes; more = 1: another part follows
//! ```

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use redb::{CursorError, ReadableTable as _, Table};

use super::engine::{Base, Head, PartKey};
use super::error::Error;
use crate::mutant::{self, Mutant};

/// A row to put, or without a value to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row<'r> {
    pub table: u8,
    pub key: &'r Bytes,
    pub value: Option<&'r Bytes>,
    /// The file is said to have no row of this key. It is only a hint: a write that is done again finds its own rows.
    pub is_first: bool,
}

impl<'r> Row<'r> {
    /// A row to put of which nothing more is known.
    pub fn put((table, key, value): (u8, &'r Bytes, &'r Bytes)) -> Self {
        Self { table, key, value: Some(value), is_first: false }
    }

    /// About how many bytes of pages writing it makes dirty: a leaf, its share of the branches above, and the value.
    pub fn dirty_bytes(&self) -> u64 {
        let bytes = self.value.map_or(0, Bytes::len) as u64;
        2 * 4096 + bytes + bytes / 4
    }
}

/// The table all rows are in.
type RowTable<'t> = Table<'t, PartKey, &'static [u8]>;
/// Table, key, value.
pub(super) type Found = (u8, Bytes, Bytes);

/// redb's pages are powers of two: a part with its key and overhead fills one of 64, 16 or 4 KiB well. Greedy, largest first.
const PART_BYTES: [usize; 3] = [65_300, 16_100, 3_900];
/// Bytes of key the sizes above leave room for.
const KEY_ROOM: usize = 100;
const PART_HEADER: usize = 5;

/// Bytes of the next part of a value of which `rest` bytes remain.
fn part_len(key_len: usize, rest: usize) -> usize {
    let room = |size: usize| size.saturating_sub(key_len.saturating_sub(KEY_ROOM)).max(256);
    PART_BYTES.into_iter().map(room).find(|size| rest >= *size).unwrap_or(rest)
}

fn part_crc(table: u8, key: &[u8], part: u16, more: u8, bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&[table]);
    let crc = crc32c::crc32c_append(crc, &(key.len() as u64).to_le_bytes());
    let crc = crc32c::crc32c_append(crc, key);
    let crc = crc32c::crc32c_append(crc, &part.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &[more]), bytes)
}

fn encode_part(table: u8, key: &[u8], part: u16, more: bool, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PART_HEADER + bytes.len());
    out.extend(part_crc(table, key, part, u8::from(more), bytes).to_le_bytes());
    out.push(u8::from(more));
    out.extend(bytes);
    out
}

/// Whether more parts follow, and the bytes. `None`: damaged, which is never a missing row (L20).
fn decode_part<'v>(table: u8, key: &[u8], part: u16, stored: &'v [u8]) -> Option<(bool, &'v [u8])> {
    let (crc, rest) = stored.split_first_chunk::<4>()?;
    let (more, bytes) = rest.split_first()?;
    let is_whole = part_crc(table, key, part, *more, bytes) == u32::from_le_bytes(*crc);
    (is_whole || mutant::is(Mutant::RowChecksumUnchecked)).then_some((*more != 0, bytes))
}

/// Puts and deletes rows, keeping the head's counts. Doing it again changes nothing.
///
/// New rows that follow each other go in through one gap: redb then fills pages, where it would leave each half empty that single
/// inserts split, and looks for the place once. Chunks of one session are such rows, and so is all of a snapshot.
pub(super) fn write(table: &mut RowTable<'_>, head: &mut Head, rows: &[Row<'_>]) -> Result<(), redb::StorageError> {
    let mut rest = rows;
    let mut last = None;
    while let Some((row, after)) = rest.split_first() {
        let run = run_len(table, &mut last, rest)?;
        let done = if run > 1 { put_run(table, head, &rest[..run])? } else { 0 };
        if done > 0 {
            rest = &rest[done..];
            continue;
        }
        let (parts, replaced) = match row.value {
            Some(value) => put(table, head, row, value)?,
            None => (0, true),
        };
        if replaced {
            remove_from(table, head, row, parts)?;
        }
        rest = after;
    }
    Ok(())
}

/// How many rows from the first on are new and probably have no other between them: they differ in the last number of their keys, or
/// lie behind the last row of the table. `last` remembers that row for each table.
fn run_len(table: &RowTable<'_>, last: &mut Option<(u8, Bytes)>, rows: &[Row<'_>]) -> Result<usize, redb::StorageError> {
    let [first, second, ..] = rows else { return Ok(rows.len().min(1)) };
    if first.table != second.table || first.value.is_none() || second.value.is_none() {
        return Ok(1);
    }
    if first.is_first && second.is_first && is_sibling(first, second) {
        let siblings = rows.iter().take_while(|row| row.table == first.table && row.is_first && is_sibling(first, row));
        return Ok(siblings.count());
    }
    if last.as_ref().is_none_or(|(number, _)| *number != first.table) {
        *last = Some((first.table, last_key(table, first.table)?));
    }
    let is_behind = last.as_ref().is_some_and(|(_, last)| first.key > last || last.is_empty());
    let behind = rows.iter().take_while(|row| is_behind && row.table == first.table && row.value.is_some());
    Ok(behind.count().max(1))
}

fn is_sibling(one: &Row<'_>, other: &Row<'_>) -> bool {
    const NUMBER: usize = 8;
    let family = |key: &Bytes| key.len().checked_sub(NUMBER);
    family(one.key).is_some_and(|len| family(other.key) == Some(len) && one.key[..len] == other.key[..len])
}

/// The key of a table's last row; empty without one.
fn last_key(table: &RowTable<'_>, number: u8) -> Result<Bytes, redb::StorageError> {
    let mut range = match number.checked_add(1) {
        Some(next) => table.range::<PartKey>((number, &[][..], 0)..(next, &[][..], 0))?,
        None => table.range::<PartKey>((number, &[][..], 0)..)?,
    };
    Ok(range.next_back().transpose()?.map_or_else(Bytes::new, |(key, _)| Bytes::copy_from_slice(key.value().1)))
}

/// Inserts rows through one gap, as many as fit there; none if the first is there already.
fn put_run(table: &mut RowTable<'_>, head: &mut Head, rows: &[Row<'_>]) -> Result<usize, redb::StorageError> {
    let [first, ..] = rows else { return Ok(0) };
    let mut gap = table.lower_bound_mut(Bound::Included((first.table, &first.key[..], 0u16)))?;
    let mut done = 0;
    'rows: for row in rows {
        let mut rest = row.value.map_or(&[][..], |value| &value[..]);
        for part in 0u16.. {
            let (bytes, after) = rest.split_at(part_len(row.key.len(), rest.len()));
            let stored = encode_part(row.table, row.key, part, !after.is_empty(), bytes);
            match gap.insert_before((row.table, &row.key[..], part), stored.as_slice()) {
                Ok(()) => {}
                // Something lies between, or is there already.
                Err(CursorError::UnorderedKey) if part == 0 => break 'rows,
                Err(CursorError::UnorderedKey) => {
                    return Err(redb::StorageError::Corrupted("parts of a row are there without their first".to_owned()));
                }
                Err(CursorError::Storage(error)) => return Err(error),
                Err(error) => return Err(redb::StorageError::Corrupted(error.to_string())),
            }
            head.bytes += (row.key.len() + stored.len()) as u64;
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        head.rows += 1;
        done += 1;
    }
    gap.close()?;
    Ok(done)
}

/// Writes all parts of a row. Answers how many there are, and whether the row it replaces had more.
fn put(table: &mut RowTable<'_>, head: &mut Head, row: &Row<'_>, value: &Bytes) -> Result<(u16, bool), redb::StorageError> {
    let (number, key) = (row.table, row.key);
    let mut rest = &value[..];
    let mut part = 0u16;
    let mut replaced = true;
    loop {
        let (bytes, after) = rest.split_at(part_len(key.len(), rest.len()));
        let stored = encode_part(number, key, part, !after.is_empty(), bytes);
        let old =
            table.insert((number, &key[..], part), stored.as_slice())?.map(|old| (old.value().len(), old.value().get(4).copied()));
        head.bytes += (key.len() + stored.len()) as u64;
        head.rows += u64::from(part == 0 && old.is_none());
        head.bytes = head.bytes.saturating_sub(old.map_or(0, |(len, _)| (key.len() + len) as u64));
        replaced = replaced && matches!(old, Some((_, Some(more))) if more != 0);
        rest = after;
        part = part.checked_add(1).expect("a value is far below 65 536 parts");
        if rest.is_empty() {
            return Ok((part, replaced));
        }
    }
}

/// Removes the parts of a row from part `from` on.
fn remove_from(table: &mut RowTable<'_>, head: &mut Head, row: &Row<'_>, from: u16) -> Result<(), redb::StorageError> {
    let (number, key) = (row.table, row.key);
    for part in from..=u16::MAX {
        let old = table.remove((number, &key[..], part))?.map(|old| (old.value().len(), old.value().get(4).copied()));
        let Some((len, more)) = old else { break };
        head.bytes = head.bytes.saturating_sub((key.len() + len) as u64);
        head.rows = head.rows.saturating_sub(u64::from(part == 0));
        if more == Some(0) {
            break;
        }
    }
    Ok(())
}

/// Rows of one base in (table, key) order, put together from their parts. Ends after the first error.
pub(super) struct Scan {
    parts: Option<Parts>,
    failed: Option<Error>,
    base: Arc<Base>,
}

type Parts = redb::Range<'static, PartKey, &'static [u8]>;

impl Scan {
    /// All rows.
    pub fn all(base: &Arc<Base>) -> Self {
        Self::new(base, base.table.range::<PartKey>(..))
    }

    /// All rows of one table.
    pub fn table(base: &Arc<Base>, table: u8) -> Self {
        let from: PartKey = (table, &[], 0);
        match table.checked_add(1) {
            Some(next) => Self::new(base, base.table.range::<PartKey>(from..(next, &[], 0))),
            None => Self::new(base, base.table.range::<PartKey>(from..)),
        }
    }

    /// The rows of one table with keys in `from..until`.
    pub fn range(base: &Arc<Base>, table: u8, from: &[u8], until: &[u8]) -> Self {
        if from >= until {
            return Self { parts: None, failed: None, base: base.clone() };
        }
        Self::new(base, base.table.range((table, from, 0)..(table, until, 0)))
    }

    fn new(base: &Arc<Base>, parts: Result<Parts, redb::StorageError>) -> Self {
        let (parts, failed) = match parts {
            Ok(parts) => (Some(parts), None),
            Err(error) => (None, Some(base.file.error(error))),
        };
        Self { parts, failed, base: base.clone() }
    }

    fn row(&mut self) -> Result<Option<Found>, Error> {
        let mut row: Option<(u8, Bytes, Vec<u8>)> = None;
        let mut expected = 0u16;
        loop {
            let Some(parts) = &mut self.parts else { return Ok(None) };
            let entry = match (parts.next(), &row) {
                (Some(entry), _) => entry.map_err(|error| self.base.file.error(error))?,
                (None, None) => return Ok(None),
                (None, Some((table, key, _))) => return Err(self.damage(*table, key, "the last part is missing")),
            };
            let (table, key, part) = entry.0.value();
            let same = row.as_ref().is_none_or(|row| (row.0, &row.1[..]) == (table, key));
            if !same || part != expected {
                return Err(self.damage(table, key, "parts are missing or left over"));
            }
            let Some((more, bytes)) = decode_part(table, key, part, entry.1.value()) else {
                return Err(self.damage(table, key, "the checksum does not match"));
            };
            let row = row.get_or_insert_with(|| (table, Bytes::copy_from_slice(key), Vec::new()));
            row.2.extend_from_slice(bytes);
            if !more {
                return Ok(Some((row.0, row.1.clone(), Bytes::from(std::mem::take(&mut row.2)))));
            }
            expected = expected.checked_add(1).ok_or_else(|| self.damage(table, key, "there are too many parts"))?;
        }
    }

    fn damage(&self, table: u8, key: &[u8], what: &str) -> Error {
        let key = Some(Bytes::copy_from_slice(key));
        Error::Corrupt { file: self.base.file.name().to_owned(), table: Some(table), key, what: what.to_owned() }
    }
}

impl Iterator for Scan {
    type Item = Result<Found, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let row = self.row().transpose();
        if !matches!(row, Some(Ok(_))) {
            self.parts = None;
        }
        row
    }
}

/// The rows of a file, to build a machine from.
pub struct Rows<'a>(pub(super) &'a Arc<Base>);

impl Rows<'_> {
    /// All rows of `tables`, in (table, key) order, checksums verified. After the first error there is nothing more.
    pub fn table_range(&self, tables: &[u8]) -> impl Iterator<Item = Result<Found, Error>> + use<> {
        let mut tables = tables.to_vec();
        tables.sort_unstable();
        tables.dedup();
        let base = self.0.clone();
        let mut failed = false;
        tables.into_iter().flat_map(move |table| Scan::table(&base, table)).take_while(move |row| {
            let go_on = !failed;
            failed = row.is_err();
            go_on
        })
    }

    /// The rows of one table with keys from `from` on; the same.
    pub fn from(&self, table: u8, from: &[u8]) -> impl Iterator<Item = Result<Found, Error>> + use<> {
        assert!(table < u8::MAX, "no table has the greatest number");
        Scan::new(self.0, self.0.table.range((table, from, 0)..(table + 1, &[][..], 0)))
    }

    /// The rows of one table with keys in `from..until`; the same.
    pub fn range(&self, table: u8, from: &[u8], until: &[u8]) -> impl Iterator<Item = Result<Found, Error>> + use<> {
        Scan::range(self.0, table, from, until)
    }

    /// The last entry these rows contain; `None` in a new file.
    pub fn applied(&self) -> Option<crate::types::LogId> {
        self.0.head.applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_cut_greedily_and_loses_no_byte() {
        let cut = |mut rest: usize| {
            let mut parts = Vec::new();
            while rest > 0 {
                parts.push(part_len(20, rest));
                rest -= part_len(20, rest);
            }
            parts
        };
        assert_eq!(cut(3_900), [3_900]);
        assert_eq!(cut(20_001), [16_100, 3_900, 1]);
        assert_eq!(cut(70_000), [65_300, 3_900, 800]);
        assert_eq!(cut(16 * 1024 * 1024).iter().sum::<usize>(), 16 * 1024 * 1024);
        assert_eq!(part_len(1024, 3_900), 3_900 - (1024 - KEY_ROOM), "a long key leaves less room");
    }

    #[test]
    fn a_part_that_moved_or_changed_does_not_decode() {
        let stored = encode_part(1, b"key", 2, true, b"bytes");
        assert_eq!(decode_part(1, b"key", 2, &stored), Some((true, &b"bytes"[..])));
        assert_eq!(decode_part(2, b"key", 2, &stored), None);
        assert_eq!(decode_part(1, b"kex", 2, &stored), None);
        assert_eq!(decode_part(1, b"key", 1, &stored), None);
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_part(1, b"key", 2, &flipped), None, "bit {bit}");
        }
        for len in 0..stored.len() {
            assert_eq!(decode_part(1, b"key", 2, &stored[..len]), None, "length {len}");
        }
    }
}
