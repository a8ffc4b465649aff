//! A disk in memory that can crash before any operation, fill up, or fail, and that remembers what was synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use quorate::env::{Disk, DiskFile, Space};
use quorate::testing::disk::{Change, NameChange};
use quorate::testing::inline::SeededRandom;

const BLOCK: usize = 4096;

/// What a crash leaves of the operations no sync covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing of them.
    Lost,
    /// All of them.
    Kept,
    /// The first few of each file and directory.
    Prefix,
    /// The first few, and a part of the next.
    Torn,
    /// Any of them, block by block.
    Reordered,
}

pub const CRASHES: [Crash; 5] = [Crash::Lost, Crash::Kept, Crash::Prefix, Crash::Torn, Crash::Reordered];

/// What goes wrong, and from which operation on. Only operations that change something count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// Every operation from here on fails: the process is gone.
    pub crash_at: Option<u64>,
    /// This one operation fails with an I/O error.
    pub fail_at: Option<u64>,
    /// From here on no new block can be had ...
    pub full_from: Option<u64>,
    /// ... as long as this file is there, if one is named.
    pub full_while: Option<&'static str>,
    /// The room left is reported as plenty, even when there is none.
    pub space_lies: bool,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    synced: Vec<u8>,
    current: Vec<u8>,
    pending: Vec<Change>,
    blocks: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    inodes: Vec<Inode>,
    synced: BTreeMap<PathBuf, usize>,
    names: BTreeMap<PathBuf, usize>,
    pending: Vec<NameChange<usize>>,
    plan: Plan,
    operations: u64,
}

#[derive(Clone, Debug, Default)]
pub struct CrashDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct CrashFile(CrashDisk, usize);

impl CrashDisk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn plan(&self, plan: Plan) {
        self.lock().plan = plan;
    }

    /// Operations that changed something, or tried to.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Changes of names that no sync covers yet.
    pub fn unsynced_names(&self) -> usize {
        self.lock().pending.len()
    }

    /// The disk as it is found after the process alone was killed: nothing is lost, and nothing more is durable.
    pub fn killed(&self) -> CrashDisk {
        CrashDisk(Arc::new(Mutex::new(Inner { plan: Plan::default(), operations: 0, ..self.lock().clone() })))
    }

    /// The disk as it is found after a crash now.
    pub fn crashed(&self, crash: Crash, seed: u64) -> CrashDisk {
        self.crashed_with(crash, seed, None)
    }

    /// The same with content written in any order, and of the names' changes those whose bit is set.
    pub fn crashed_with_names(&self, names: u32, seed: u64) -> CrashDisk {
        self.crashed_with(Crash::Reordered, seed, Some(names))
    }

    fn crashed_with(&self, crash: Crash, seed: u64, names: Option<u32>) -> CrashDisk {
        let mut inner = self.lock().clone();
        let dice = SeededRandom::new(seed);
        for inode in &mut inner.inodes {
            for op in left_of(&inode.pending, crash, &dice) {
                op.apply(&mut inode.synced);
            }
            inode.current = inode.synced.clone();
            inode.pending.clear();
        }
        let kept = match crash {
            Crash::Lost => 0,
            Crash::Kept => inner.pending.len(),
            _ => dice.below(inner.pending.len() as u64 + 1) as usize,
        };
        let pending = std::mem::take(&mut inner.pending);
        let any = |at: usize| match (crash, names) {
            (_, Some(names)) => names >> at & 1 == 1,
            (Crash::Reordered, None) => dice.below(2) == 0,
            _ => at < kept,
        };
        for (at, op) in pending.iter().enumerate() {
            if any(at) {
                op.apply(&mut inner.synced);
            }
        }
        inner.names = inner.synced.clone();
        inner.plan = Plan::default();
        inner.operations = 0;
        CrashDisk(Arc::new(Mutex::new(inner)))
    }
}

fn left_of(pending: &[Change], crash: Crash, dice: &SeededRandom) -> Vec<Change> {
    let kept = dice.below(pending.len() as u64 + 1) as usize;
    match crash {
        Crash::Lost => Vec::new(),
        Crash::Kept => pending.to_vec(),
        Crash::Prefix => pending[..kept].to_vec(),
        Crash::Torn => {
            let mut left = pending[..kept].to_vec();
            if let Some(Change::Write(offset, data)) = pending.get(kept) {
                left.push(Change::Write(*offset, data[..dice.below(data.len().max(1) as u64) as usize].to_vec()));
            }
            left
        }
        Crash::Reordered => {
            let blocks = pending.iter().flat_map(|op| match op {
                Change::Len(_) => vec![op.clone()],
                Change::Write(offset, data) => {
                    let chunks = data.chunks(BLOCK).enumerate();
                    chunks.map(|(at, chunk)| Change::Write(offset + (at * BLOCK) as u64, chunk.to_vec())).collect()
                }
            });
            blocks.filter(|_| dice.below(2) == 0).collect()
        }
    }
}

impl Inner {
    /// Counts an operation that changes something. Err: it fails.
    fn operation(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        if self.plan.crash_at.is_some_and(|at| number >= at) {
            return Err(io::Error::other("crashed"));
        }
        if self.plan.fail_at == Some(number) {
            return Err(io::Error::other("the disk failed on purpose"));
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let still = self.plan.full_while.is_none_or(|name| self.names.contains_key(Path::new(name)));
        still && self.plan.full_from.is_some_and(|from| self.operations > from)
    }

    fn existing(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, op: NameChange<usize>) {
        op.apply(&mut self.names);
        self.pending.push(op);
    }

    fn write(&mut self, inode: usize, op: Change) {
        op.apply(&mut self.inodes[inode].current);
        self.inodes[inode].pending.push(op);
    }
}

impl Disk for CrashDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.lock().existing(path)?;
        Ok(Arc::new(CrashFile(self.clone(), inode)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.lock();
        inner.operation()?;
        if inner.is_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if inner.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = inner.inodes.len();
        inner.inodes.push(Inode::default());
        inner.change(NameChange::Create(path.to_owned(), inode));
        Ok(Arc::new(CrashFile(self.clone(), inode)))
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.operation()?;
        let inode = inner.existing(from)?;
        inner.change(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.operation()?;
        inner.existing(path)?;
        inner.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.operation()?;
        inner.synced = inner.names.clone();
        inner.pending.clear();
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let inner = self.lock();
        let names = inner.names.keys().filter(|name| name.parent() == Some(path));
        Ok(names.map(|name| name.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.lock().names.contains_key(path))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let inner = self.lock();
        let free = if inner.is_full() && !inner.plan.space_lies { 0 } else { 1 << 40 };
        Ok(Space { free, total: 1 << 41 })
    }
}

impl DiskFile for CrashFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.0.lock();
        let content = &inner.inodes[self.1].current;
        let found = content.get(offset as usize..offset as usize + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let data: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let mut inner = self.0.lock();
        inner.operation()?;
        let blocks = offset / BLOCK as u64..(offset + data.len() as u64).div_ceil(BLOCK as u64);
        let full = inner.is_full();
        if full && !blocks.clone().all(|block| inner.inodes[self.1].blocks.contains(&block)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inner.inodes[self.1].blocks.extend(blocks);
        inner.write(self.1, Change::Write(offset, data));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.operation()?;
        let inode = &mut inner.inodes[self.1];
        for op in std::mem::take(&mut inode.pending) {
            op.apply(&mut inode.synced);
        }
        assert!(inode.synced == inode.current);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.operation()?;
        inner.write(self.1, Change::Len(len));
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.operation()?;
        if inner.is_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let len = inner.inodes[self.1].current.len().max((offset + len) as usize) as u64;
        inner.write(self.1, Change::Len(len));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().inodes[self.1].current.len() as u64)
    }
}
