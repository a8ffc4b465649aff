//! A disk in memory that does everything a real one may do to us.
//!
//! Only `sync` and `sync_dir` make anything durable. [`SimDisk::crash`] answers the disk as it may look after a power cut: of what was
//! not synced nothing is left, or everything, or a prefix, or a prefix with a torn end, or any subset of sectors. Names that were not
//! synced are journaled, as every file system of today does: a prefix of the changes to them survives. [`SimDisk::kill`] is the end
//! of the process alone: the page cache stays, and a later power cut may still take it.
//!
//! Everything follows from the calls and the seeds. [`SimDisk`] is a handle: clones are the same disk.
//!
//! ```
//! use std::io::IoSlice;
//! use std::path::Path;
//! use quorate::env::Disk;
//! use quorate::testing::disk::{Crash, SimDisk};
//!
//! let disk = SimDisk::new();
//! let file = disk.create(Path::new("/a")).expect("nothing is in the way");
//! disk.sync_dir(Path::new("/")).expect("no fault is set");
//! file.write_at(&[IoSlice::new(b"lost")], 0).expect("no fault is set");
//! let after = disk.crash(Crash::Lost, 0);
//! assert_eq!(after.contents(Path::new("/a")), Some(Vec::new()));
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::inline::SeededRandom;
use crate::env::{Disk, DiskFile, LockGuard, Locked as _, Space};

/// The part of unsynced writes that survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing.
    Lost,
    /// Everything.
    Kept,
    /// The writes before a random moment survive.
    Prefix,
    /// The writes before a random moment survive, with part of the write of that moment, up to a sector of so many bytes.
    Torn {
        /// 512 or 4096.
        sector: usize,
    },
    /// Any subset of the sectors written, each on its own; names up to a random moment.
    Reordered {
        /// 512 or 4096.
        sector: usize,
    },
}

/// An operation that can be made to fail. All but `Read` are counted by [`SimDisk::operations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `read_at`.
    Read,
    /// `write_at`; the first half of the bytes is written.
    Write,
    /// `sync` of a file.
    Sync,
    /// `set_len` and `allocate`.
    Allocate,
    /// `create`.
    Create,
    /// `rename`.
    Rename,
    /// `remove`.
    Remove,
    /// `sync_dir`.
    SyncDir,
}

/// A failure to come.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Of which calls.
    pub operation: Operation,
    /// On paths that contain this; for a handle, the path it was opened by.
    pub path_contains: String,
    /// How many matching calls succeed before.
    pub skip: u64,
    /// How many fail then.
    pub times: u64,
    /// With what.
    pub kind: io::ErrorKind,
}

/// The size of a block, of which a full disk has no more.
const BLOCK: u64 = 4096;

/// A disk without room: no block can be had that a file does not have.
#[derive(Clone, Debug)]
pub struct Full {
    /// So many changing calls come before.
    pub from: u64,
    /// Only as long as this file is there, if one is named.
    pub while_there: Option<PathBuf>,
    /// `space` says that there is plenty.
    pub hidden: bool,
}

/// The disk. See the module.
#[derive(Clone, Default)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
    /// Notified when held syncs may go on.
    released: Arc<Condvar>,
}

#[derive(Default)]
struct Inner {
    /// As a process sees it.
    names: BTreeMap<PathBuf, Arc<Inode>>,
    /// As a power cut leaves it.
    durable_names: BTreeMap<PathBuf, Arc<Inode>>,
    pending_names: Vec<(u64, NameChange)>,
    dirs: BTreeSet<PathBuf>,
    /// Orders everything that is pending.
    moment: u64,
    operations: u64,
    halts_after: Option<u64>,
    faults: Vec<Fault>,
    fails_at: Option<u64>,
    capacity: Option<u64>,
    full: Option<Full>,
    locks: BTreeSet<PathBuf>,
    holds_syncs: bool,
    /// How many calls wait for `holds_syncs` to end.
    held_syncs: usize,
}

/// A lock taken; dropping it frees the path.
#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.inner.locked().locks.remove(&self.path);
    }
}

/// A change of names that lead to files.
#[derive(Clone)]
enum NameChange {
    Create(PathBuf, Arc<Inode>),
    Rename(PathBuf, PathBuf, Arc<Inode>),
    Remove(PathBuf),
}

type Inode = Mutex<Data>;

#[derive(Clone, Default)]
struct Data {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(u64, Change)>,
    /// The blocks that were written.
    blocks: BTreeSet<u64>,
}

/// A change of a file's content.
#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
}

#[derive(Clone)]
struct SimFile {
    disk: SimDisk,
    inode: Arc<Inode>,
    path: PathBuf,
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.inner.locked();
        f.debug_struct("SimDisk").field("files", &inner.names.len()).field("operations", &inner.operations).finish()
    }
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimFile").field("path", &self.path).finish()
    }
}

impl SimDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        let disk = Self::default();
        disk.inner.locked().dirs.insert(PathBuf::from("/"));
        disk
    }

    /// How many changing calls there were, failed ones too.
    pub fn operations(&self) -> u64 {
        self.inner.locked().operations
    }

    /// Every changing call after the first `operations` of them fails and does nothing, as if the power were off.
    pub fn halt_after(&self, operations: u64) {
        self.inner.locked().halts_after = Some(operations);
        // A held sync fails rather than wait for power that never comes back.
        self.released.notify_all();
    }

    /// The one changing call after `operations` of them fails; a write then writes the first half.
    pub fn fail_at(&self, operations: u64) {
        self.inner.locked().fails_at = Some(operations);
    }

    /// Changes of names that no sync covers yet.
    pub fn unsynced_names(&self) -> usize {
        self.inner.locked().pending_names.len()
    }

    /// From now on `sync` and `sync_dir` do not return, as on a disk that stalls, until [`SimDisk::release_syncs`] or a halt. They
    /// block the thread that calls them: for disks under real threads, not under [`super::inline::InlineWorkers`].
    pub fn hold_syncs(&self) {
        self.inner.locked().holds_syncs = true;
    }

    /// Lets held syncs, and all that follow, go on.
    pub fn release_syncs(&self) {
        self.inner.locked().holds_syncs = false;
        self.released.notify_all();
    }

    /// How many syncs are being held.
    pub fn held_syncs(&self) -> usize {
        self.inner.locked().held_syncs
    }

    /// Waits while syncs are held; then the caller may go on under the lock it gets.
    fn locked_for_sync(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.locked();
        inner.held_syncs += 1;
        while inner.holds_syncs && inner.halts_after.is_none_or(|limit| inner.operations < limit) {
            inner = self.released.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.held_syncs -= 1;
        inner
    }

    /// Whether a call failed since the power is off.
    pub fn is_halted(&self) -> bool {
        let inner = self.inner.locked();
        inner.halts_after.is_some_and(|limit| inner.operations > limit)
    }

    /// Adds a fault. Faults are looked at in the order they were added; each counts for itself.
    pub fn inject(&self, fault: Fault) {
        self.inner.locked().faults.push(fault);
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.inner.locked().faults.clear();
    }

    /// Bytes all files together may take; beyond it writes end early with `StorageFull`. `None`: no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner.locked().capacity = bytes;
    }

    /// Takes away all room that no file has yet, or gives it back. Unlike [`SimDisk::set_capacity`] it also refuses a write within the
    /// length of a file where nothing was written before.
    pub fn fill(&self, full: Option<Full>) {
        self.inner.locked().full = full;
    }

    /// Bytes all files take.
    pub fn used(&self) -> u64 {
        self.inner.locked().used()
    }

    /// The file as a process sees it.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        Some(self.inner.locked().names.get(path)?.locked().current.clone())
    }

    /// Corruption: flips the bits of `mask` in one byte of a file, on the disk and in the cache. Panics without such a byte.
    pub fn damage(&self, path: &Path, offset: u64, mask: u8) {
        let inode = self.inner.locked().names.get(path).cloned().expect("a test damages files that are there");
        let mut data = inode.locked();
        data.apply_pending();
        data.durable[offset as usize] ^= mask;
        data.current[offset as usize] ^= mask;
    }

    /// The disk after a power cut now. This one continues as if nothing had happened. Faults, halt, holds, locks and capacity are not taken over.
    pub fn crash(&self, crash: Crash, seed: u64) -> SimDisk {
        self.crash_with(crash, seed, None)
    }

    /// The disk after a power cut now, as [`SimDisk::crash`] has it with [`Crash::Reordered`], but of the changes of names that no sync
    /// covers those are made whose bit is set in `names`: what a file system without a journal may leave.
    pub fn crash_with_names(&self, names: u64, seed: u64) -> SimDisk {
        self.crash_with(Crash::Reordered { sector: BLOCK as usize }, seed, Some(names))
    }

    fn crash_with(&self, crash: Crash, seed: u64, set: Option<u64>) -> SimDisk {
        let inner = self.inner.locked();
        let random = SeededRandom::new(seed);
        let cut = random.below(inner.moment + 2);
        // Between few and nearly all of the sectors: both ends find other mistakes.
        let keep_of_8 = [1, 4, 7][random.below(3) as usize];
        let names_until = match crash {
            Crash::Lost => 0,
            Crash::Kept => u64::MAX,
            Crash::Prefix | Crash::Torn { .. } => cut,
            Crash::Reordered { .. } => random.below(inner.moment + 2),
        };
        let mut names = inner.durable_names.clone();
        for (at, (moment, change)) in inner.pending_names.iter().enumerate() {
            if set.map_or(*moment < names_until, |set| set >> at & 1 == 1) {
                change.apply(&mut names);
            }
        }
        let survive = |data: &Data| {
            let mut left = data.durable.clone();
            for (moment, change) in &data.pending {
                match crash {
                    Crash::Lost => {}
                    Crash::Kept => change.apply(&mut left),
                    Crash::Prefix | Crash::Torn { .. } if *moment < cut => change.apply(&mut left),
                    Crash::Torn { sector } if *moment == cut => change.apply_torn(&mut left, sector, &random),
                    Crash::Prefix | Crash::Torn { .. } => {}
                    Crash::Reordered { sector } => change.apply_some(&mut left, sector, keep_of_8, &random),
                }
            }
            Data { current: left.clone(), durable: left, pending: Vec::new(), blocks: data.blocks.clone() }
        };
        let names: BTreeMap<_, _> =
            names.iter().map(|(path, inode)| (path.clone(), Arc::new(Inode::new(survive(&inode.locked()))))).collect();
        let after = Inner { durable_names: names.clone(), names, dirs: inner.dirs.clone(), ..Inner::default() };
        SimDisk { inner: Arc::new(Mutex::new(after)), released: Arc::default() }
    }

    /// The disk after the process died now: everything written is there, and what was not synced still isn't. This one continues as if
    /// nothing had happened. Faults, halt, holds, locks and capacity are not taken over.
    pub fn kill(&self) -> SimDisk {
        let inner = self.inner.locked();
        let mut copies: BTreeMap<*const Inode, Arc<Inode>> = BTreeMap::new();
        let mut copy = |inode: &Arc<Inode>| {
            let copied = copies.entry(Arc::as_ptr(inode)).or_insert_with(|| Arc::new(Inode::new(inode.locked().clone())));
            copied.clone()
        };
        let names = inner.names.iter().map(|(path, inode)| (path.clone(), copy(inode))).collect();
        let durable_names = inner.durable_names.iter().map(|(path, inode)| (path.clone(), copy(inode))).collect();
        let pending_names = inner.pending_names.iter().map(|(moment, change)| (*moment, change.with_file(&mut copy))).collect();
        let (dirs, moment) = (inner.dirs.clone(), inner.moment);
        let after = Inner { names, durable_names, pending_names, dirs, moment, ..Inner::default() };
        SimDisk { inner: Arc::new(Mutex::new(after)), released: Arc::default() }
    }

    fn file(&self, inode: Arc<Inode>, path: &Path) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), inode, path: path.to_owned() })
    }
}

impl Inner {
    fn used(&self) -> u64 {
        self.names.values().map(|inode| inode.locked().current.len() as u64).sum()
    }

    /// Counts a call and says whether it fails.
    fn admit(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        if operation != Operation::Read {
            self.operations += 1;
            if self.halts_after.is_some_and(|limit| self.operations > limit) {
                return Err(io::Error::other("the power is off"));
            }
            if self.fails_at.is_some_and(|at| self.operations == at + 1) {
                return Err(io::Error::other("a fault was injected"));
            }
        }
        let path = path.to_string_lossy();
        for fault in &mut self.faults {
            if fault.operation != operation || !path.contains(&fault.path_contains) || fault.times == 0 {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times = if fault.times == u64::MAX { u64::MAX } else { fault.times - 1 };
            return Err(io::Error::new(fault.kind, "a fault was injected"));
        }
        Ok(())
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.moment += 1;
        self.pending_names.push((self.moment, change));
    }

    fn is_full(&self) -> bool {
        self.full.as_ref().is_some_and(|full| {
            self.operations > full.from && full.while_there.as_ref().is_none_or(|path| self.names.contains_key(path))
        })
    }

    /// Of `bytes` that a file is to grow by, how many there is room for.
    fn room(&self, bytes: u64) -> u64 {
        self.capacity.map_or(bytes, |capacity| bytes.min(capacity.saturating_sub(self.used())))
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Arc<Inode>>) {
        match self {
            Self::Create(path, file) => drop(names.insert(path.clone(), file.clone())),
            Self::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), file.clone());
            }
            Self::Remove(path) => drop(names.remove(path)),
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Create(path, _) | Self::Remove(path) => path.parent() == Some(dir),
            Self::Rename(from, to, _) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    fn with_file(&self, copy: &mut impl FnMut(&Arc<Inode>) -> Arc<Inode>) -> Self {
        match self {
            Self::Create(path, file) => Self::Create(path.clone(), copy(file)),
            Self::Rename(from, to, file) => Self::Rename(from.clone(), to.clone(), copy(file)),
            Self::Remove(path) => Self::Remove(path.clone()),
        }
    }
}

impl Data {
    fn apply_pending(&mut self) {
        for (_, change) in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => put(bytes, *offset as usize, data),
            Self::Len(len) => set_len(bytes, *len as usize),
        }
    }

    /// A random number of whole sectors from the start.
    fn apply_torn(&self, bytes: &mut Vec<u8>, sector: usize, random: &SeededRandom) {
        let Self::Write(offset, data) = self else { return };
        let start = *offset as usize;
        let sectors = (start + data.len()).div_ceil(sector) - start / sector;
        let kept = random.below(sectors as u64 + 1) as usize;
        let end = ((start / sector + kept) * sector).clamp(start, start + data.len());
        if end > start {
            put(bytes, start, &data[..end - start]);
        }
    }

    /// Each sector, or the new length, by itself.
    fn apply_some(&self, bytes: &mut Vec<u8>, sector: usize, keep_of_8: u64, random: &SeededRandom) {
        let keeps = || random.below(8) < keep_of_8;
        match self {
            Self::Len(_) if keeps() => self.apply(bytes),
            Self::Len(_) => {}
            Self::Write(offset, data) => {
                let mut at = *offset as usize;
                let mut rest = &data[..];
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at((sector - at % sector).min(rest.len()));
                    if keeps() {
                        put(bytes, at, piece);
                    }
                    at += piece.len();
                    rest = after;
                }
            }
        }
    }
}

/// Gives a file's content a length. A build without optimization fills a vector byte by byte, which was a third of what clusters of tests
/// cost: here zeros come from the system, or a block at a time.
fn set_len(bytes: &mut Vec<u8>, len: usize) {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    if bytes.is_empty() {
        *bytes = vec![0; len];
    }
    bytes.truncate(len);
    while bytes.len() < len {
        let more = ZEROS.len().min(len - bytes.len());
        bytes.extend_from_slice(&ZEROS[..more]);
    }
}

/// Writes into a file's content, which grows where it must.
fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        set_len(bytes, end);
    }
    bytes[offset..end].copy_from_slice(data);
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no such file path={}", path.display()))
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.inner.locked().names.get(path).cloned().ok_or_else(|| not_found(path))?;
        Ok(self.file(inode, path))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner.locked();
        inner.admit(Operation::Create, path)?;
        if inner.is_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if inner.names.contains_key(path) || inner.dirs.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|parent| inner.dirs.contains(parent)) {
            return Err(not_found(path));
        }
        let inode = Arc::new(Inode::new(Data::default()));
        inner.change_names(NameChange::Create(path.to_owned(), inode.clone()));
        drop(inner);
        Ok(self.file(inode, path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.locked().dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner.locked();
        inner.admit(Operation::Rename, to)?;
        let inode = inner.names.get(from).cloned().ok_or_else(|| not_found(from))?;
        inner.change_names(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.locked();
        inner.admit(Operation::Remove, path)?;
        if !inner.names.contains_key(path) {
            return Err(not_found(path));
        }
        inner.change_names(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.locked_for_sync();
        inner.admit(Operation::SyncDir, path)?;
        let (synced, rest) = std::mem::take(&mut inner.pending_names).into_iter().partition(|(_, change)| change.is_in(path));
        inner.pending_names = rest;
        Vec::into_iter(synced).for_each(|(_, change): (u64, NameChange)| change.apply(&mut inner.durable_names));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let inner = self.inner.locked();
        if !inner.dirs.contains(path) {
            return Err(not_found(path));
        }
        let children = inner.names.keys().chain(&inner.dirs).filter(|child| child.parent() == Some(path));
        let names: BTreeSet<_> = children.filter_map(|child| Some(child.file_name()?.to_str()?.to_owned())).collect();
        Ok(names.into_iter().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let inner = self.inner.locked();
        Ok(inner.names.contains_key(path) || inner.dirs.contains(path))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let inner = self.inner.locked();
        let total = inner.capacity.unwrap_or(1 << 40);
        let none_left = inner.is_full() && inner.full.as_ref().is_some_and(|full| !full.hidden);
        Ok(Space { free: if none_left { 0 } else { total.saturating_sub(inner.used()) }, total })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        let is_free = self.inner.locked().locks.insert(path.to_owned());
        Ok(is_free.then(|| Box::new(SimLock { disk: self.clone(), path: path.to_owned() }) as LockGuard))
    }
}

impl SimFile {
    fn change(&self, inner: &mut Inner, change: Change) {
        inner.moment += 1;
        let mut data = self.inode.locked();
        change.apply(&mut data.current);
        data.pending.push((inner.moment, change));
    }

    fn set_len_at_least(&self, len: u64, may_shrink: bool) -> io::Result<()> {
        let mut inner = self.disk.inner.locked();
        inner.admit(Operation::Allocate, &self.path)?;
        let now = self.inode.locked().current.len() as u64;
        let more = len.saturating_sub(now);
        if inner.room(more) < more || !may_shrink && inner.is_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if len > now || may_shrink {
            self.change(&mut inner, Change::Len(len));
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.inner.locked().admit(Operation::Read, &self.path)?;
        let data = self.inode.locked();
        let from = data.current.get(offset as usize..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.inner.locked();
        let admitted = inner.admit(Operation::Write, &self.path);
        if inner.halts_after.is_some_and(|limit| inner.operations > limit) {
            return admitted;
        }
        let mut bytes = slices.iter().map(|slice| &**slice).collect::<Vec<&[u8]>>().concat();
        let wanted = bytes.len();
        if admitted.is_err() {
            bytes.truncate(wanted / 2);
        }
        let blocks = offset / BLOCK..(offset + wanted as u64).div_ceil(BLOCK);
        if inner.is_full() && !blocks.clone().all(|block| self.inode.locked().blocks.contains(&block)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inode.locked().blocks.extend(blocks);
        let len = self.inode.locked().current.len() as u64;
        let more = (offset + bytes.len() as u64).saturating_sub(len);
        let lacking = more - inner.room(more);
        bytes.truncate(bytes.len().saturating_sub(lacking as usize));
        if !bytes.is_empty() {
            self.change(&mut inner, Change::Write(offset, bytes));
        }
        admitted?;
        if lacking > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        // Under one lock, so that no crash finds a sync that was admitted and made nothing durable.
        let mut inner = self.disk.locked_for_sync();
        inner.admit(Operation::Sync, &self.path)?;
        self.inode.locked().apply_pending();
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.set_len_at_least(len, true)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.set_len_at_least(offset + len, false)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inode.locked().current.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_sync_makes_nothing_durable_and_fails_once_the_power_is_off() {
        let disk = SimDisk::new();
        let path = Path::new("/a");
        let file = disk.create(path).expect("nothing is in the way");
        disk.sync_dir(Path::new("/")).expect("not held yet");
        file.write_at(&[IoSlice::new(b"x")], 0).expect("writes are not held");
        disk.hold_syncs();
        let syncing = std::thread::spawn(move || file.sync());
        while disk.held_syncs() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(disk.crash(Crash::Lost, 0).contents(path), Some(Vec::new()));
        assert_eq!(disk.kill().contents(path), Some(b"x".to_vec()));
        disk.halt_after(0);
        syncing.join().expect("no panic").expect_err("the power is off");
        assert_eq!((disk.held_syncs(), disk.crash(Crash::Lost, 0).contents(path)), (0, Some(Vec::new())));
    }

    #[test]
    fn a_released_sync_makes_durable_what_was_written() {
        let disk = SimDisk::new();
        let file = disk.create(Path::new("/a")).expect("nothing is in the way");
        file.write_at(&[IoSlice::new(b"x")], 0).expect("no fault is set");
        disk.hold_syncs();
        let (own, held) = (disk.clone(), file.clone());
        let syncing = std::thread::spawn(move || held.sync().and_then(|()| own.sync_dir(Path::new("/"))));
        while disk.held_syncs() == 0 {
            std::thread::yield_now();
        }
        disk.release_syncs();
        syncing.join().expect("no panic").expect("released");
        assert_eq!(disk.crash(Crash::Lost, 0).contents(Path::new("/a")), Some(b"x".to_vec()));
    }

    #[test]
    fn a_lock_is_held_until_it_is_dropped_and_not_by_a_dead_process() {
        let disk = SimDisk::new();
        let path = Path::new("/LOCK");
        let held = disk.lock(path).expect("no fault is set").expect("it is free");
        assert!(disk.lock(path).expect("no fault is set").is_none());
        assert!(disk.kill().lock(path).expect("no fault is set").is_some(), "the process that held it is gone");
        drop(held);
        assert!(disk.lock(path).expect("no fault is set").is_some());
    }
}
