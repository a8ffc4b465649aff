//! redb on our own files: opening, the one-row head, read bases, and errors classified.
//!
//! redb's own repair and its shadow paging are what makes a flush all or nothing. It latches the first error of its backend; so a
//! file whose backend failed is fenced and opened again, never repaired in place.

use std::borrow::Cow;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use redb::{Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, StorageBackend, TableDefinition, WriteTransaction};

use super::error::Error;
use super::rows::{self, Row};
use crate::env::{Disk, DiskFile};
use crate::mutant::{self, Mutant};
use crate::types::{LogId, NodeId};

/// Table, key, part: compared one after the other, so a key that is a prefix of another sorts before all of that one's parts.
pub(super) type PartKey = (u8, &'static [u8], u16);
pub(super) const ROWS: TableDefinition<'static, PartKey, &'static [u8]> = TableDefinition::new("rows");
const HEAD: TableDefinition<'static, u8, &'static [u8]> = TableDefinition::new("head");

const HEAD_FORMAT: u32 = 1;
const HEAD_BYTES: usize = 4 + 1 + 5 * 8 + 4;
const HEALTHY: &str = "no thread panics while it holds this lock";

/// A file's statement about itself; written in every transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The last entry whose rows are in the file.
    pub applied: Option<LogId>,
    /// Rows, each counted once however many parts it has.
    pub rows: u64,
    /// Stored bytes of keys and parts.
    pub bytes: u64,
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let applied = self.applied.unwrap_or_default();
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend(HEAD_FORMAT.to_le_bytes());
        out.push(u8::from(self.applied.is_some()));
        for number in [applied.term, applied.node.0, applied.index, self.rows, self.bytes] {
            out.extend(number.to_le_bytes());
        }
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Cow<'static, str>> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or("the head is too short")?;
        if bytes.len() != HEAD_BYTES || crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err("the head's checksum does not match".into());
        }
        if body[..4] != HEAD_FORMAT.to_le_bytes() {
            return Err("the head has an unknown format".into());
        }
        let mut numbers =
            body[5..].chunks_exact(8).map(|bytes| bytes.iter().rev().fold(0u64, |all, byte| all << 8 | u64::from(*byte)));
        let mut next = || numbers.next().unwrap_or_default();
        let applied = LogId { term: next(), node: NodeId(next()), index: next() }.bounded().map_err(|error| error.to_string())?;
        Ok(Self { applied: (body[4] == 1).then_some(applied), rows: next(), bytes: next() })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Fence {
    Open,
    NoWrites,
    Closed,
}

/// One open file as redb sees it, with a fence and the first error that counts.
#[derive(Debug)]
struct Fenced {
    file: Arc<dyn DiskFile>,
    /// Held shared by every operation, so that a fence waits for those in progress.
    fence: RwLock<Fence>,
    /// The last error, kept because redb answers only "an earlier operation failed" from then on.
    error: Mutex<Option<Error>>,
}

impl Fenced {
    fn run<T>(&self, writes: bool, what: &str, operation: impl FnOnce(&dyn DiskFile) -> io::Result<T>) -> io::Result<T> {
        let fence = self.fence.read().expect(HEALTHY);
        if *fence == Fence::Closed || (writes && *fence == Fence::NoWrites) {
            return Err(io::Error::other("the file is fenced"));
        }
        operation(&*self.file).inspect_err(|error| {
            let error = match what {
                "sync" => Error::sync(what, error),
                _ => Error::io(what, error),
            };
            let mut slot = self.error.lock().expect(HEALTHY);
            // A failure that is final is never forgotten for one that heals.
            if !slot.as_ref().is_some_and(Error::is_final) {
                *slot = Some(error);
            }
        })
    }
}

#[derive(Debug)]
struct Backend(Arc<Fenced>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.run(false, "length", |file| file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.run(false, "read", |file| file.read_at(out, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.run(true, "set length", |file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.run(true, "sync", |file| file.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.run(true, "write", |file| file.write_at(&[IoSlice::new(data)], offset))
    }
}

/// One redb file.
pub(super) struct File {
    name: String,
    backend: Arc<Fenced>,
    db: Database,
    /// Bytes of dirty pages that the cache holds surely.
    dirty_bytes_max: u64,
}

impl File {
    /// Makes a new file without rows, durable but for its name. Errors: it may be left behind; remove it.
    pub fn create(disk: &dyn Disk, dir: &Path, name: &str, cache_bytes: usize) -> Result<Arc<Self>, Error> {
        let file = disk.create(&dir.join(name)).map_err(|error| Error::io("create the state file", &error))?;
        let file = Self::start(file, name, cache_bytes)?;
        file.commit(Head::default(), std::iter::empty())?;
        Ok(file)
    }

    /// Opens a file that was once complete. Everything read from it afterwards is durable.
    pub fn open(disk: &dyn Disk, dir: &Path, name: &str, cache_bytes: usize) -> Result<Arc<Self>, Error> {
        let file = disk.open(&dir.join(name)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::corrupt(name, "the file is missing"),
            _ => Error::io("open the state file", &error),
        })?;
        // A killed process may leave a commit that is only in the page cache; the log must not be purged on its word.
        file.sync().map_err(|error| Error::sync("sync the state file", &error))?;
        if file.is_empty().map_err(|error| Error::io("length", &error))? {
            return Err(Error::corrupt(name, "the file is empty"));
        }
        Self::start(file, name, cache_bytes)
    }

    fn start(file: Arc<dyn DiskFile>, name: &str, cache_bytes: usize) -> Result<Arc<Self>, Error> {
        let backend = Arc::new(Fenced { file, fence: RwLock::new(Fence::Open), error: Mutex::new(None) });
        let db = Builder::new()
            .set_cache_size(cache_bytes)
            .create_with_backend(Backend(backend.clone()))
            .map_err(|error| classified(name, &backend, error))?;
        Ok(Arc::new(Self { name: name.to_owned(), backend, db, dirty_bytes_max: cache_bytes as u64 / 8 * 3 }))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Length of the file, in bytes; 0 if it is unknown.
    pub fn len(&self) -> u64 {
        self.backend.file.len().unwrap_or(0)
    }

    /// Lets nothing through any more; a reader that continues gets [`Error::Superseded`]. Waits for operations in progress.
    pub fn close(&self) {
        *self.backend.fence.write().expect(HEALTHY) = Fence::Closed;
    }

    /// Lets no write through any more, so that dropping the file later costs no IO.
    pub fn stop_writes(&self) {
        let mut fence = self.backend.fence.write().expect(HEALTHY);
        if *fence == Fence::Open {
            *fence = Fence::NoWrites;
        }
    }

    pub fn is_closed(&self) -> bool {
        *self.backend.fence.read().expect(HEALTHY) == Fence::Closed
    }

    /// Puts and deletes rows on top of `head` and makes it durable with `head.applied`, all or nothing (L27).
    ///
    /// Errors: [`Error::NoSpace`]: whether it was committed is known only by opening the file again.
    pub fn commit<'r>(&self, head: Head, rows: impl Iterator<Item = Row<'r>>) -> Result<Head, Error> {
        if mutant::is(Mutant::AppliedNotAtomic) {
            self.commit_inner(head, std::iter::empty()).map_err(|error| self.error(error))?;
        }
        let committed = self.commit_inner(head, rows).map_err(|error| self.error(error))?;
        // redb writes some pages at its leisure and forgives failures there; we forgive none.
        match &*self.backend.error.lock().expect(HEALTHY) {
            Some(error) if error.is_final() => Err(error.clone()),
            _ => Ok(committed),
        }
    }

    fn commit_inner<'r>(&self, mut head: Head, rows: impl Iterator<Item = Row<'r>>) -> Result<Head, redb::Error> {
        let rows: Vec<Row<'r>> = rows.collect();
        let (last, earlier) = self.portions(&rows);
        for portion in earlier {
            let mut txn: WriteTransaction = self.db.begin_write()?;
            txn.set_durability(Durability::None)?;
            rows::write(&mut txn.open_table(ROWS)?, &mut head, portion)?;
            txn.commit()?;
        }
        let mut txn: WriteTransaction = self.db.begin_write()?;
        // Without it a reopen after a crash walks the whole file.
        txn.set_quick_repair(true);
        rows::write(&mut txn.open_table(ROWS)?, &mut head, last)?;
        txn.open_table(HEAD)?.insert(0u8, head.encode().as_slice())?;
        txn.commit()?;
        Ok(head)
    }

    /// The rows, cut so that the pages each portion makes dirty stay in memory until its end: the last one, and those before it.
    ///
    /// redb keeps half of its cache for dirty pages, writes what is more to the file early, and reads it back at the commit to sum it up
    /// and write it again. Portions are commits without durability: only the last one makes any of them count after a crash, and nobody
    /// reads in between.
    fn portions<'r, 's>(&self, rows: &'s [Row<'r>]) -> (&'s [Row<'r>], Vec<&'s [Row<'r>]>) {
        let mut earlier = Vec::new();
        let (mut rest, mut at, mut bytes) = (rows, 0, 0);
        while let Some(row) = rest.get(at) {
            bytes += row.dirty_bytes();
            at += 1;
            if bytes > self.dirty_bytes_max && at < rest.len() {
                let (portion, after) = rest.split_at(at);
                earlier.push(portion);
                (rest, at, bytes) = (after, 0, 0);
            }
        }
        (rest, earlier)
    }

    /// Pins the last committed content.
    pub fn base(self: &Arc<Self>) -> Result<Arc<Base>, Error> {
        let (table, head) = self.base_inner().map_err(|error| self.error(error))?;
        let head = match head {
            Some(bytes) => Head::decode(&bytes).map_err(|what| Error::corrupt(&self.name, what))?,
            None => return Err(Error::corrupt(&self.name, "the head is missing")),
        };
        Ok(Arc::new(Base { table, head, file: self.clone() }))
    }

    #[allow(clippy::type_complexity)]
    fn base_inner(&self) -> Result<(ReadOnlyTable<PartKey, &'static [u8]>, Option<Vec<u8>>), redb::Error> {
        let txn = self.db.begin_read()?;
        let head = txn.open_table(HEAD)?.get(0u8)?.map(|bytes| bytes.value().to_vec());
        Ok((txn.open_table(ROWS)?, head))
    }

    pub fn error(&self, error: impl Into<redb::Error>) -> Error {
        classified(&self.name, &self.backend, error)
    }
}

/// The committed content of one file at one instant. Holds its file open.
pub(super) struct Base {
    pub table: ReadOnlyTable<PartKey, &'static [u8]>,
    pub head: Head,
    pub file: Arc<File>,
}

fn classified(name: &str, backend: &Fenced, error: impl Into<redb::Error>) -> Error {
    if *backend.fence.read().expect(HEALTHY) == Fence::Closed {
        return Error::Superseded;
    }
    let latched = backend.error.lock().expect(HEALTHY).clone();
    match (error.into(), latched) {
        (redb::Error::Corrupted(what), _) => Error::corrupt(name, what),
        (_, Some(Error::Io { kind: io::ErrorKind::UnexpectedEof, what })) => {
            Error::corrupt(name, format!("the file ends early: {what}"))
        }
        (_, Some(latched)) => latched,
        (redb::Error::Io(error), None) if error.kind() == io::ErrorKind::InvalidData => Error::corrupt(name, error.to_string()),
        (redb::Error::Io(error), None) => Error::Io { kind: error.kind(), what: error.to_string() },
        (
            error @ (redb::Error::TableDoesNotExist(_) | redb::Error::TableTypeMismatch { .. } | redb::Error::UpgradeRequired(_)),
            None,
        ) => Error::corrupt(name, error.to_string()),
        (error, None) => Error::Io { kind: io::ErrorKind::Other, what: error.to_string() },
    }
}
