//! What a node of today leaves on its disk and sends to another one, as golden files: every later version must read them, and, as long as
//! a format is the current one, write the same bytes.
//!
//! `REWRITE_GOLDEN=1` writes those that are missing, and never changes one that is there: a format that changes gets new files beside
//! the old ones. Entries and rows have theirs in `tests/machine/golden`.

mod directory;
mod identity;
mod log;
mod state;

use std::path::{Path, PathBuf};

use quorate::env::Disk as _;
use quorate::testing::disk::SimDisk;

fn path_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/golden").join(name)
}

/// The file's bytes; written from `now` if it is missing and that is asked for.
fn golden(name: &str, now: &[u8]) -> Vec<u8> {
    let path = path_of(name);
    if !path.exists() && std::env::var_os("REWRITE_GOLDEN").is_some() {
        std::fs::write(&path, now).expect("a golden file can be written");
    }
    stored(name)
}

/// The file's bytes; it is there.
fn stored(name: &str) -> Vec<u8> {
    let path = path_of(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("golden file path={} error={error}", path.display()))
}

/// Fails with the place of the first difference rather than with all bytes.
fn assert_same(what: &str, now: &[u8], golden: &[u8]) {
    let differs = now.iter().zip(golden).position(|(now, golden)| now != golden);
    assert_eq!((now.len(), differs), (golden.len(), None), "{what} is written in another way now: length, first difference");
}

/// A disk with one durable file.
fn put(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let dir = path.parent().expect("a file lies in a directory");
    let put = || {
        disk.create_dir_all(dir)?;
        let file = disk.create(path)?;
        file.write_at(&[std::io::IoSlice::new(bytes)], 0)?;
        file.sync()?;
        disk.sync_dir(dir)
    };
    put().expect("no fault is set");
}
