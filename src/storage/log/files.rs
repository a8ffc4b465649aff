//! Names and files of the log's directory: segments, and spare ones to be segments later.
//!
//! ```text
//! zero-<n>.tmp --zeroed, synced--> zero-<n>.spare --+
//!                                                   +--renamed, directory synced--> <id>.seg --purged--> <id>.spare
//! ```

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Error;
use crate::env::{Disk, DiskFile, Step, Waker};

/// What lies in the directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Ids of the segments, ascending.
    pub segments: Vec<u64>,
    /// Names of files that may become segments.
    pub spares: Vec<String>,
    /// Names of files that were being zeroed.
    pub unfinished: Vec<String>,
}

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
        } else if name.starts_with("zero-") && name.ends_with(".tmp") {
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

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what an earlier process left; files of another length are removed. Errors: the disk's.
    pub fn adopt(&self, listing: &Listing) -> Result<(), Error> {
        for name in listing.unfinished.iter().chain(&listing.spares) {
            let path = self.dir.join(name);
            let fits = || -> io::Result<bool> { Ok(self.disk.open(&path)?.len()? == self.segment_bytes) };
            if name.ends_with(".spare") && fits().map_err(|error| Error::io("open", &path, &error))? {
                self.locked().insert(name.clone());
            } else {
                self.disk.remove(&path).map_err(|error| Error::io("remove", &path, &error))?;
            }
        }
        Ok(())
    }

    /// Makes the file of segment `id`, with a durable name and no frame of this id in it: a spare one renamed, else a new one.
    /// Errors: the disk's; if it was full, nothing changed.
    pub fn open_segment(&self, id: u64) -> Result<Arc<dyn DiskFile>, Error> {
        let path = segment_path(&self.dir, id);
        let spare = self.locked().pop_first();
        let file = match spare {
            Some(name) => {
                let from = self.dir.join(&name);
                if let Err(error) = self.disk.rename(&from, &path) {
                    self.locked().insert(name);
                    return Err(Error::io("rename", &from, &error));
                }
                self.disk.open(&path).map_err(|error| Error::io("open", &path, &error))?
            }
            None => self.create(&path, id == FIRST_ID)?,
        };
        // Before the first byte of it: otherwise the id could be given again after a power cut.
        self.disk.sync_dir(&self.dir).map_err(|error| Error::io("sync", &self.dir, &error))?;
        if let Some(maker) = self.maker.get() {
            maker.wake();
        }
        Ok(file)
    }

    /// A new file. The first of a log is filled with zeros, which costs a node's very first start a moment and every sync of that
    /// segment less than half; later ones are made in a hurry, when entries come faster than spare files.
    fn create(&self, path: &Path, is_first: bool) -> Result<Arc<dyn DiskFile>, Error> {
        let file = self.disk.create(path).map_err(|error| Error::io("create", path, &error))?;
        let allocated = match file.allocate(0, self.segment_bytes) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => file.set_len(self.segment_bytes),
            other => other,
        };
        let filled = allocated.and_then(|()| if is_first { fill(&*file, 0, self.segment_bytes) } else { Ok(()) });
        if let Err(error) = filled {
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
        if !fits || self.locked().len() >= self.target {
            return self.disk.remove(&path).map_err(|error| failed("remove", &error));
        }
        let name = format!("{id:020}.spare");
        self.disk.rename(&path, &self.dir.join(&name)).map_err(|error| failed("rename", &error))?;
        self.locked().insert(name);
        Ok(())
    }

    fn wants_more(&self) -> bool {
        self.locked().len() < self.target
    }
}

/// Fills new spare files with zeros, slowly: at full speed it ruins the latency of every sync on the same disk.
pub(super) struct Maker {
    pool: Arc<Pool>,
    pause: Duration,
    number: u64,
    current: Option<(String, Arc<dyn DiskFile>, u64)>,
    broken: bool,
}

/// The segment a new log begins with.
const FIRST_ID: u64 = 1;
const ZEROED_AT_ONCE: usize = 256 * 1024;
const PAUSE_WHEN_FULL: Duration = Duration::from_secs(10);

/// Writes zeros to `from..until`.
fn fill(file: &dyn DiskFile, from: u64, until: u64) -> io::Result<()> {
    static ZEROS: [u8; ZEROED_AT_ONCE] = [0; ZEROED_AT_ONCE];
    for offset in (from..until).step_by(ZEROED_AT_ONCE) {
        let some = (until - offset).min(ZEROED_AT_ONCE as u64);
        file.write_at(&[IoSlice::new(&ZEROS[..some as usize])], offset)?;
    }
    Ok(())
}

impl Maker {
    pub fn new(pool: Arc<Pool>, bytes_per_second: u64) -> Self {
        let pause = Duration::from_secs_f64(ZEROED_AT_ONCE as f64 / bytes_per_second.max(1) as f64);
        Self { pool, pause, number: 0, current: None, broken: false }
    }

    /// Does a little. A failure costs the file only: nothing depends on spare ones.
    pub fn step(&mut self) -> Step {
        if self.broken || (self.current.is_none() && !self.pool.wants_more()) {
            return Step::Idle;
        }
        match self.go_on() {
            Ok(()) => Step::After(self.pause),
            Err(error) => {
                if let Some((name, ..)) = self.current.take() {
                    // Left behind, it is removed at the next start.
                    let _ = self.pool.disk.remove(&self.pool.dir.join(name));
                }
                self.broken = !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                Step::After(PAUSE_WHEN_FULL)
            }
        }
    }

    fn go_on(&mut self) -> io::Result<()> {
        let Some((name, file, done)) = &mut self.current else {
            let name = self.unused_name()?;
            let file = self.pool.disk.create(&self.pool.dir.join(&name))?;
            self.current = Some((name, file, 0));
            return Ok(());
        };
        if *done < self.pool.segment_bytes {
            let some = (self.pool.segment_bytes - *done).min(ZEROED_AT_ONCE as u64);
            fill(&**file, *done, *done + some)?;
            file.sync()?;
            *done += some;
            return Ok(());
        }
        let spare = name.replace(".tmp", ".spare");
        self.pool.disk.rename(&self.pool.dir.join(&*name), &self.pool.dir.join(&spare))?;
        self.current = None;
        self.pool.locked().insert(spare);
        Ok(())
    }

    fn unused_name(&mut self) -> io::Result<String> {
        loop {
            self.number += 1;
            let name = format!("zero-{}.tmp", self.number);
            let taken = self.pool.disk.exists(&self.pool.dir.join(name.replace(".tmp", ".spare")))?;
            if !taken && !self.pool.disk.exists(&self.pool.dir.join(&name))? {
                return Ok(name);
            }
        }
    }
}
