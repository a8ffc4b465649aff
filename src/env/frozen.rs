//! The operating system's files, read only: what is written goes into memory and is forgotten. For looking at a stopped node.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::Locked as _;
use super::disk::{Disk, DiskFile, LockGuard, RealDisk, Space};

/// Bytes of a page that was written over.
const PAGE_BYTES: u64 = 4096;
/// Most that may be written over, of one file: engines only correct their bookkeeping.
const PAGES_MAX: usize = 64 * 1024;

/// Opens files without the right to write. Writes to an open file are seen by its readers and by nobody else; names never change.
#[derive(Clone, Copy, Debug)]
pub struct FrozenDisk;

#[derive(Debug)]
struct FrozenFile {
    file: std::fs::File,
    over: Mutex<Over>,
}

#[derive(Debug)]
struct Over {
    len: u64,
    /// So much of the file itself is still seen: less than it has once it was cut.
    own: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, format!("nothing is changed here: {what}"))
}

impl Disk for FrozenDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = std::fs::File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Arc::new(FrozenFile { file, over: Mutex::new(Over { len, own: len, pages: BTreeMap::new() }) }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Err(refused(&format!("make a file path={}", path.display())))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() { Ok(()) } else { Err(refused(&format!("make a directory path={}", path.display()))) }
    }

    fn rename(&self, from: &Path, _: &Path) -> io::Result<()> {
        Err(refused(&format!("rename a file path={}", from.display())))
    }

    /// Left-over files stay.
    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }

    /// A lock file that is missing is not made: no node has used the directory.
    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        let file = match std::fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Box::new(()))),
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl FrozenFile {
    /// The file's own bytes of one page, zeros behind the first `own` bytes of the file.
    fn own_page(&self, page: u64, own: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; PAGE_BYTES as usize];
        let own = own.saturating_sub(page * PAGE_BYTES).min(PAGE_BYTES) as usize;
        std::os::unix::fs::FileExt::read_exact_at(&self.file, &mut bytes[..own], page * PAGE_BYTES)?;
        Ok(bytes)
    }
}

impl DiskFile for FrozenFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let over = self.over.locked();
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= over.len).ok_or(io::ErrorKind::UnexpectedEof)?;
        if over.pages.range(offset / PAGE_BYTES..=end / PAGE_BYTES).next().is_none() && end <= over.own {
            drop(over);
            return std::os::unix::fs::FileExt::read_exact_at(&self.file, buf, offset);
        }
        let mut at = offset;
        while at < end {
            let (page, from) = (at / PAGE_BYTES, (at % PAGE_BYTES) as usize);
            let count = (PAGE_BYTES as usize - from).min((end - at) as usize);
            let to = (at - offset) as usize;
            match over.pages.get(&page) {
                Some(bytes) => buf[to..to + count].copy_from_slice(&bytes[from..from + count]),
                None => buf[to..to + count].copy_from_slice(&self.own_page(page, over.own)?[from..from + count]),
            }
            at += count as u64;
        }
        Ok(())
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        offset.checked_add(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let mut over = self.over.locked();
        let mut at = offset;
        for mut rest in slices.iter().map(|slice| &slice[..]) {
            while !rest.is_empty() {
                let (page, from) = (at / PAGE_BYTES, (at % PAGE_BYTES) as usize);
                let (now, later) = rest.split_at(rest.len().min(PAGE_BYTES as usize - from));
                if !over.pages.contains_key(&page) {
                    if over.pages.len() >= PAGES_MAX {
                        return Err(refused("more than what a look needs would be written over"));
                    }
                    let own = self.own_page(page, over.own)?;
                    over.pages.insert(page, own);
                }
                if let Some(bytes) = over.pages.get_mut(&page) {
                    bytes[from..from + now.len()].copy_from_slice(now);
                }
                at += now.len() as u64;
                rest = later;
            }
        }
        over.len = over.len.max(at);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// The removed part reads as zeros should the file grow again.
    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut over = self.over.locked();
        (over.len, over.own) = (len, over.own.min(len));
        over.pages.retain(|page, _| *page < len.div_ceil(PAGE_BYTES));
        if let Some(page) = over.pages.get_mut(&(len / PAGE_BYTES)) {
            page[(len % PAGE_BYTES) as usize..].fill(0);
        }
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut over = self.over.locked();
        over.len = over.len.max(offset.saturating_add(len));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.over.locked().len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_the_file_stays_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let before: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &before).expect("a writable directory");
        let file = FrozenDisk.open(&path).expect("it is there");
        let mut expected = before.clone();
        for (offset, text) in [(0usize, "head"), (4094, "across a page"), (9_998, "behind the end")] {
            file.write_at(&[IoSlice::new(&text.as_bytes()[..2]), IoSlice::new(&text.as_bytes()[2..])], offset as u64)
                .expect("in memory");
            expected.resize(expected.len().max(offset + text.len()), 0);
            expected[offset..offset + text.len()].copy_from_slice(text.as_bytes());
        }
        let mut found = vec![0; expected.len()];
        file.read_at(&mut found, 0).expect("all of it");
        assert_eq!(found, expected);
        assert!(file.read_at(&mut [0], expected.len() as u64).is_err());
        assert!(file.write_at(&[IoSlice::new(b"far")], u64::MAX).is_err());
        for cut in [9_990, 4096, 100] {
            file.set_len(cut as u64).and_then(|()| file.set_len(found.len() as u64)).expect("in memory");
            expected[cut..].fill(0);
            file.read_at(&mut found, 0).expect("all of it");
            assert!(found == expected, "what was cut off is zeros cut={cut}");
        }
        assert_eq!(std::fs::read(&path).expect("it is there"), before);
        assert!(FrozenDisk.create(&dir.path().join("new")).is_err() && FrozenDisk.rename(&path, &path).is_err());
        assert!(FrozenDisk.lock(&dir.path().join("LOCK")).expect("no lock file").is_some());
        assert_eq!(std::fs::read_dir(dir.path()).expect("a listing").count(), 1);
    }
}
