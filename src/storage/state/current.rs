//! `CURRENT`, the pointer to the file that counts, and the names next to it.
//!
//! ```text
//! nothing ──> "creating 1" ──> "open 1" ──install──> "open n" …        each: new file, sync, rename over, sync the directory
//! ```
//! A directory with state files but without `CURRENT` has lost it: that is damage, never a fresh start.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Error;
use crate::env::Disk;

pub(super) const CURRENT: &str = "CURRENT";
const CURRENT_NEW: &str = "CURRENT.new";
/// Longer content is damage.
const CURRENT_BYTES_MAX: u64 = 128;

/// The file that the directory points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Current {
    /// The first file was never finished.
    Creating,
    /// This file counts.
    Open(u64),
}

pub(super) fn file_name(number: u64) -> String {
    format!("{number:08}.redb")
}

fn file_number(name: &str) -> Option<u64> {
    name.strip_suffix(".redb")?.parse().ok()
}

/// Reads the pointer, or starts a new directory. Removes what an interrupted receive, install or creation left. Answers the pointer
/// and the greatest number a file may still have.
pub(super) fn open(disk: &dyn Disk, dir: &Path) -> Result<(Current, u64), Error> {
    disk.create_dir_all(dir).map_err(|error| Error::io("create the state directory", &error))?;
    let names = disk.list(dir).map_err(|error| Error::io("list the state directory", &error))?;
    let current = match names.iter().any(|name| name == CURRENT) {
        true => read(disk, dir)?,
        false if names.iter().any(|name| file_number(name).is_some()) => {
            return Err(Error::corrupt(CURRENT, "the pointer is missing beside state files"));
        }
        false => {
            remove(disk, &dir.join(CURRENT_NEW))?;
            write(disk, dir, Current::Creating)?;
            Current::Creating
        }
    };
    // A rename that was seen before a crash of the process alone must not be lost by a later one of the machine.
    disk.sync_dir(dir).map_err(|error| Error::sync("sync the state directory", &error))?;
    let mut last = 0;
    for name in names {
        let number = file_number(&name);
        last = last.max(number.unwrap_or(0));
        let left_over = number.is_some_and(|number| current != Current::Open(number)) || name == CURRENT_NEW;
        if left_over {
            remove(disk, &dir.join(name))?;
        }
    }
    Ok((current, last))
}

/// The greatest number a file in `dir` has; 0 without any.
pub(super) fn last_number(disk: &dyn Disk, dir: &Path) -> Result<u64, Error> {
    let names = disk.list(dir).map_err(|error| Error::io("list the state directory", &error))?;
    Ok(names.iter().filter_map(|name| file_number(name)).max().unwrap_or(0))
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    match disk.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove a left over file", &error)),
        _ => Ok(()),
    }
}

fn encode(current: Current) -> String {
    let text = match current {
        Current::Creating => "creating 1".to_owned(),
        Current::Open(number) => format!("open {number}"),
    };
    format!("{text} {:08x}\n", crc32c::crc32c(text.as_bytes()))
}

fn decode(bytes: &[u8]) -> Option<Current> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.split(' ');
    let current = match (words.next()?, words.next()?.parse().ok()?) {
        ("creating", 1) => Current::Creating,
        ("open", number) => Current::Open(number),
        _ => return None,
    };
    // The text is written in one way only, so comparing it whole also checks the checksum.
    (encode(current) == text).then_some(current)
}

fn read(disk: &dyn Disk, dir: &Path) -> Result<Current, Error> {
    let failed = |error| Error::io("read CURRENT", &error);
    let file = disk.open(&dir.join(CURRENT)).map_err(failed)?;
    let len = file.len().map_err(failed)?;
    let mut bytes = vec![0; len.min(CURRENT_BYTES_MAX) as usize];
    file.read_at(&mut bytes, 0).map_err(failed)?;
    decode(&bytes).filter(|_| len <= CURRENT_BYTES_MAX).ok_or_else(|| Error::corrupt(CURRENT, "the pointer is not readable"))
}

/// Points to `current`, durably, with all names made in the directory before.
///
/// Errors: [`Error::NoSpace`]: nothing changed. Any other: nothing is known.
pub(super) fn write(disk: &dyn Disk, dir: &Path, current: Current) -> Result<(), Error> {
    let new = dir.join(CURRENT_NEW);
    let prepared = prepare(disk, &new, current).inspect_err(|_| drop(disk.remove(&new)));
    prepared?;
    // The file it names must be there whenever the pointer is.
    disk.sync_dir(dir).map_err(|error| Error::sync("sync the state directory", &error))?;
    let certain = |what: &str, error: &std::io::Error| Error::sync(what, error);
    disk.rename(&new, &dir.join(CURRENT)).map_err(|error| certain("move CURRENT", &error))?;
    disk.sync_dir(dir).map_err(|error| certain("sync the state directory", &error))
}

fn prepare(disk: &dyn Disk, new: &Path, current: Current) -> Result<(), Error> {
    remove(disk, new)?;
    let file = disk.create(new).map_err(|error| Error::io("create CURRENT", &error))?;
    file.write_at(&[IoSlice::new(encode(current).as_bytes())], 0).map_err(|error| Error::io("write CURRENT", &error))?;
    file.sync().map_err(|error| Error::sync("sync CURRENT", &error))
}

/// A file that is removed when dropped, unless kept.
pub(super) struct UnkeptFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    kept: bool,
}

impl UnkeptFile {
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self { disk, path, kept: false }
    }

    pub fn is_kept(&self) -> bool {
        self.kept
    }

    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for UnkeptFile {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is removed by the next open.
            let _ = self.disk.remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_reads_as_written_and_not_with_any_bit_flipped() {
        for current in [Current::Creating, Current::Open(1), Current::Open(u64::MAX)] {
            let text = encode(current).into_bytes();
            assert_eq!(decode(&text), Some(current));
            for bit in 0..text.len() * 8 {
                let mut flipped = text.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&flipped), None, "bit {bit}");
            }
            assert_eq!(decode(&text[..text.len() - 1]), None);
        }
    }
}
