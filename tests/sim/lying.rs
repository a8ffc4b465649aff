//! A disk that says it has synced the log and has not: the control that must be caught.
//!
//! It is honest for the first syncs of a file: a node without any log left would know.

use std::io::{IoSlice, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate::env::{Disk, DiskFile, LockGuard, Space};
use quorate::testing::disk::SimDisk;

/// Syncs everything but segments of the log.
#[derive(Debug)]
pub struct LyingDisk(pub SimDisk);

#[derive(Debug)]
struct LyingFile(Arc<dyn DiskFile>, AtomicU64);

/// Honest syncs of each open file.
const HONEST: u64 = 5;

fn lie(path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
    if path.extension().is_some_and(|extension| extension == "seg") { Arc::new(LyingFile(file, AtomicU64::new(0))) } else { file }
}

impl Disk for LyingDisk {
    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        Ok(lie(path, self.0.open(path)?))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        Ok(lie(path, self.0.create(path)?))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.0.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.0.sync_dir(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.0.list(path)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.0.exists(path)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        self.0.space(path)
    }

    fn lock(&self, path: &Path) -> Result<Option<LockGuard>> {
        self.0.lock(path)
    }
}

impl DiskFile for LyingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> Result<()> {
        self.0.write_at(slices, offset)
    }

    fn sync(&self) -> Result<()> {
        if self.1.fetch_add(1, Ordering::Relaxed) < HONEST { self.0.sync() } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.0.allocate(offset, len)
    }

    fn len(&self) -> Result<u64> {
        self.0.len()
    }
}
