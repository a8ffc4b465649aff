//! Files. Every file operation of a node goes through [`Disk`], redb's too.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes this process may still allocate.
    pub free: u64,
    /// The size of the file system.
    pub total: u64,
}

/// Whether a disk is merely full: the same succeeds once there is room. Not so of a sync, after which nothing is known.
pub fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A file system as a node uses it. Nothing but `sync*` makes anything durable.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a new file that nobody but its owner may read; an existing one is an error. Durable only after `sync_dir` of its directory.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a directory that nobody but its owner may enter, and its missing parents, and syncs the parents of those it made.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Renames a file over another. Durable only after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable only after `sync_dir`.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Names of the files and directories in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Whether there is something at `path`.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Room on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// Takes the lock file at `path`, made if it is missing, and holds it until the answer is dropped or the process ends. Does not
    /// wait; `None`: another has it. The lock is the operating system's unless the disk says otherwise.
    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// A lock that is held as long as this lives.
pub type LockGuard = Box<dyn Debug + Send + Sync>;

/// An open file. All positions are absolute; calls may come from several threads.
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Fills `buf` from `offset`; reading past the end is `UnexpectedEof`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all slices one after the other from `offset`, growing the file as needed.
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Makes what was written durable (data and length). After an error nothing is known; do not try again.
    fn sync(&self) -> io::Result<()>;

    /// Sets the length; new bytes read as zero.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves blocks for `offset..offset + len`, extending the length; bytes beyond the old length read as zero.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// The length, in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Puts `text` in the file `name` of a directory, whole or not at all, durably. Blocking. It is written beside it first, into `name.tmp`.
///
/// Errors: the disk's; the old file or the new one is there.
pub fn replace_file(disk: &dyn Disk, dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    if disk.exists(&temporary)? {
        disk.remove(&temporary)?;
    }
    let file = disk.create(&temporary)?;
    file.write_at(&[IoSlice::new(text.as_bytes())], 0)?;
    file.sync()?;
    disk.rename(&temporary, &dir.join(name))?;
    disk.sync_dir(dir)
}

/// Of every file and every directory that a node makes, whatever the umask: a reader of one reads the sessions.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The operating system's files.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk;

/// Missing parents are what `mkdir -p` makes of them: others may have to pass through them.
fn create_dir_all(path: &Path, mode: Option<u32>) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    create_dir_all(parent, None)?;
    let mut builder = std::fs::DirBuilder::new();
    if let Some(mode) = mode {
        builder.mode(mode);
    }
    match builder.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => RealDisk.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }),
    }
}

#[derive(Debug)]
struct RealFile(std::fs::File);

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(std::fs::OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = std::fs::OpenOptions::new();
        Ok(Arc::new(RealFile(options.read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        create_dir_all(path, Some(DIRECTORY_MODE))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let name = entry?.file_name();
            names.push(name.into_string().map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("a file name is not UTF-8 name={}", name.display()))
            })?);
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space { free: stat.f_bavail.saturating_mul(stat.f_frsize), total: stat.f_blocks.saturating_mul(stat.f_frsize) })
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, buf, offset)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut at = offset;
        let mut slices: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            // The kernel takes at most IOV_MAX slices in one call.
            let some = rest.len().min(1024);
            let written = rustix::io::retry_on_intr(|| rustix::io::pwritev(&self.0, &rest[..some], at))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            at += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), offset, len))?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// With the usual umask of 022 everybody could read every session; this process's is whatever it is, and may only take more away.
    #[test]
    fn what_a_node_makes_is_for_its_owner_alone_and_missing_parents_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        let plain = dir.path().join("plain");
        std::fs::create_dir(&plain).expect("writable");
        let deep = dir.path().join("parent").join("1");
        RealDisk.create_dir_all(&deep).expect("writable");
        let (file, lock) = (deep.join("file"), deep.join("LOCK"));
        RealDisk.create(&file).expect("writable");
        drop(RealDisk.lock(&lock).expect("writable"));
        assert_eq!([&deep, &file, &lock].map(|path| mode(path) & 0o077), [0; 3]);
        assert_eq!(mode(&dir.path().join("parent")), mode(&plain), "others may have to pass through it");
    }
}
