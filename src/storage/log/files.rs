//! Names and files of the log's directory: segments, and spare ones to be segments later.
//!
//! ```text
//! blank-<n>.tmp --allocated, synced--> blank-<n>.spare --+
//!                                                        +--renamed, directory synced--> <id>.seg --purged--> <id>.spare
//! ```
//!
//! A blank file has its blocks, so that the log continues when the disk is full, and nothing written in them: the writer does that, a
//! little ahead of itself. One that was a segment was written through, and is taken first. Earlier releases left `zero-<n>.spare`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Error;
use crate::env::{Disk, DiskFile, Locked as _, Step, Waker, is_full};

/// The files in the directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Ids of the segments, ascending.
    pub segments: Vec<u64>,
    /// Names of files that may become segments.
    pub spares: Vec<String>,
    /// Names of files that were being made.
    pub unfinished: Vec<String>,
}

/// The prefix of files in which nothing was written.
const BLANK: &str = "blank-";

/// The file of a segment.
pub(super) fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:020}.seg"))
}

/// The segment whose file has this name. Ids beyond any that can be reached are not ours.
fn segment_id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 20)?;
    digits.parse().ok().filter(|id| (1..u64::MAX / 2).contains(id))
}

/// Lists the directory; names of other kinds are not the log's and stay.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for name in disk.list(dir).map_err(|error| Error::io("list its directory", dir, &error))? {
        if let Some(id) = segment_id(&name) {
            listing.segments.push(id);
        } else if name.ends_with(".spare") {
            listing.spares.push(name);
        } else if (name.starts_with(BLANK) || name.starts_with("zero-")) && name.ends_with(".tmp") {
            listing.unfinished.push(name);
        }
    }
    listing.segments.sort_unstable();
    Ok(listing)
}

/// A whole file, read into `buffer`, whatever is in it; above `bytes_max` it is no segment of ours. Errors: the disk's.
pub(super) fn read_whole(file: &dyn DiskFile, path: &Path, bytes_max: u64, mut buffer: BytesMut) -> Result<Bytes, Error> {
    let len = file.len().map_err(|error| Error::io("read", path, &error))?;
    if len > bytes_max {
        return Err(Error::corrupt(path, bytes_max, "a segment is longer than any segment may be"));
    }
    if buffer.capacity() < len as usize {
        // Zeroed by the system as it is touched; growing would write the zeros first.
        buffer = BytesMut::zeroed(len as usize);
    }
    buffer.resize(len as usize, 0);
    file.read_at(&mut buffer, 0).map_err(|error| Error::io("read", path, &error))?;
    Ok(buffer.freeze())
}

/// Spare files, shared by the writer, which takes and returns them, and the worker that makes them.
pub(super) struct Pool {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    target: usize,
    spares: Mutex<BTreeSet<String>>,
    /// Wakes the worker that makes more.
    pub maker: OnceLock<Waker>,
}

impl Pool {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, segment_bytes: u64, target: usize) -> Self {
        Self { disk, dir, segment_bytes, target, spares: Mutex::default(), maker: OnceLock::new() }
    }

    /// Takes over what an earlier process left; files of another length are removed. Errors: the disk's.
    pub fn adopt(&self, listing: &Listing) -> Result<(), Error> {
        for name in listing.unfinished.iter().chain(&listing.spares) {
            let path = self.dir.join(name);
            let fits = || -> io::Result<bool> { Ok(self.disk.open(&path)?.len()? == self.segment_bytes) };
            if name.ends_with(".spare") && fits().map_err(|error| Error::io("open", &path, &error))? {
                self.spares.locked().insert(name.clone());
            } else {
                self.disk.remove(&path).map_err(|error| Error::io("remove", &path, &error))?;
            }
        }
        Ok(())
    }

    /// Makes the file of segment `id`, with a durable name and no frame of this id in it: a spare one renamed, else a new one.
    /// Says where its blocks begin that were never written. Errors: the disk's; if it was full, nothing changed.
    pub fn open_segment(&self, id: u64) -> Result<(Arc<dyn DiskFile>, u64), Error> {
        let path = segment_path(&self.dir, id);
        let spare = self.spares.locked().pop_first();
        let (file, blank_from) = match spare {
            Some(name) => {
                let from = self.dir.join(&name);
                if let Err(error) = self.disk.rename(&from, &path) {
                    self.spares.locked().insert(name);
                    return Err(Error::io("rename", &from, &error));
                }
                let blank_from = if name.starts_with(BLANK) { 0 } else { self.segment_bytes };
                (self.disk.open(&path).map_err(|error| Error::io("open", &path, &error))?, blank_from)
            }
            None => (self.create(&path)?, 0),
        };
        // Before the first byte of it: otherwise the id could be given again after a power cut.
        self.disk.sync_dir(&self.dir).map_err(|error| Error::io("sync", &self.dir, &error))?;
        if let Some(maker) = self.maker.get() {
            maker.wake();
        }
        Ok((file, blank_from))
    }

    /// A new file, blank, with its blocks.
    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, Error> {
        let file = self.disk.create(path).map_err(|error| Error::io("create", path, &error))?;
        if let Err(error) = allocate(&*file, self.segment_bytes) {
            self.disk.remove(path).map_err(|error| Error::io("remove", path, &error))?;
            return Err(Error::io("allocate", path, &error));
        }
        file.sync().map_err(|error| Error::io("sync", path, &error))?;
        Ok(file)
    }

    /// Takes back the file of a segment that is no longer part of the log. Errors: the disk's.
    pub fn retire(&self, id: u64) -> Result<(), Error> {
        let path = segment_path(&self.dir, id);
        let failed = |operation, error: &io::Error| Error::io(operation, &path, error);
        let fits = self.disk.open(&path).and_then(|file| file.len()).map_err(|error| failed("open", &error))? == self.segment_bytes;
        if !fits || self.spares.locked().len() >= self.target {
            return self.disk.remove(&path).map_err(|error| failed("remove", &error));
        }
        let name = format!("{id:020}.spare");
        self.disk.rename(&path, &self.dir.join(&name)).map_err(|error| failed("rename", &error))?;
        self.spares.locked().insert(name);
        Ok(())
    }

    /// Removes the spare files that were segments. Errors: the disk's.
    pub fn forget(&self) -> Result<(), Error> {
        let used: Vec<String> = self.spares.locked().extract_if(.., |name| !name.starts_with(BLANK)).collect();
        for path in used.iter().map(|name| self.dir.join(name)) {
            self.disk.remove(&path).map_err(|error| Error::io("remove", &path, &error))?;
        }
        self.disk.sync_dir(&self.dir).map_err(|error| Error::io("sync", &self.dir, &error))?;
        if let Some(maker) = self.maker.get() {
            maker.wake();
        }
        Ok(())
    }

    fn wants_more(&self) -> bool {
        self.spares.locked().len() < self.target
    }
}

fn allocate(file: &dyn DiskFile, bytes: u64) -> io::Result<()> {
    match file.allocate(0, bytes) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => file.set_len(bytes),
        other => other,
    }
}

/// Allocates blank spare segments in the background.
pub(super) struct SpareAllocator {
    pool: Arc<Pool>,
    number: u64,
    broken: bool,
}

const PAUSE_WHEN_FULL: Duration = Duration::from_secs(10);

impl SpareAllocator {
    pub fn new(pool: Arc<Pool>) -> Self {
        Self { pool, number: 0, broken: false }
    }

    /// Makes one file at most. A failure costs the file only: nothing depends on spare ones.
    pub fn step(&mut self) -> Step {
        if self.broken || !self.pool.wants_more() {
            return Step::Idle;
        }
        match self.make() {
            Ok(()) => Step::Again,
            Err(error) => {
                self.broken = !is_full(error.kind());
                Step::After(PAUSE_WHEN_FULL)
            }
        }
    }

    fn make(&mut self) -> io::Result<()> {
        let (unfinished, spare) = self.unused_names()?;
        let (disk, dir) = (&self.pool.disk, &self.pool.dir);
        let path = dir.join(unfinished);
        let file = disk.create(&path)?;
        let made = allocate(&*file, self.pool.segment_bytes).and_then(|()| file.sync());
        if let Err(error) = made.and_then(|()| disk.rename(&path, &dir.join(&spare))) {
            // Left behind, it is removed at the next start.
            let _ = disk.remove(&path);
            return Err(error);
        }
        self.pool.spares.locked().insert(spare);
        Ok(())
    }

    fn unused_names(&mut self) -> io::Result<(String, String)> {
        loop {
            self.number += 1;
            let names = [".tmp", ".spare"].map(|end| format!("{BLANK}{}{end}", self.number));
            let [unfinished, spare] = names;
            let exists = |name: &str| self.pool.disk.exists(&self.pool.dir.join(name));
            if !exists(&unfinished)? && !exists(&spare)? {
                return Ok((unfinished, spare));
            }
        }
    }
}
