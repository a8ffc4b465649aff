//! Ports for processes under test that nobody else takes, from before the processes bind them until after they have ended.
//!
//! A port that was free a moment ago may be another test's, or the near end of some connection, before a node binds it. So ports come
//! in blocks below the range that systems give to outgoing connections (Linux: from 32768), and who holds a block's lock file owns it; all
//! programs and checkouts on a machine share the files.

use std::fs::{File, OpenOptions, Permissions};
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Ports of one block: five nodes of three ports each, and a proxy for every ordered pair of them.
const BLOCK: u16 = 40;
const ALL: Range<u16> = 10_000..32_000;

/// A block of ports, of the owner alone while this lives.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    taken: u16,
    _lock: File,
}

impl Ports {
    /// A block all of whose ports can be bound. Errors: there is none, or the locks can't be kept in the directory for temporary files.
    pub fn reserve() -> std::io::Result<Self> {
        let dir = lock_dir()?;
        let blocks = (ALL.end - ALL.start) / BLOCK;
        // Programs begin at different places, so that they seldom ask for the same.
        let begin = (std::process::id() % u32::from(blocks)) as u16;
        let block = |at: u16| ALL.start + (begin + at) % blocks * BLOCK;
        let mut refused = String::new();
        for first in (0..blocks).map(block) {
            match lock(&dir, first) {
                Ok(lock) if is_free(first) => return Ok(Self { first, taken: 0, _lock: lock }),
                Ok(_) => refused = format!("a port of the block at {first} is in use"),
                Err(error) => refused = format!("the block at {first}: {error}"),
            }
        }
        Err(std::io::Error::other(format!("no free block of ports; the last one: {refused}; locks are in {}", dir.display())))
    }

    /// The first of the block's ports; the others follow it.
    pub fn first(&self) -> u16 {
        self.first
    }

    /// So many ports of the block that were not taken before. Errors: it has no more.
    pub fn take(&mut self, count: u16) -> std::io::Result<Vec<u16>> {
        if self.taken + count > BLOCK {
            return Err(std::io::Error::other(format!("a block has {BLOCK} ports, not {}", self.taken + count)));
        }
        let first = self.first + self.taken;
        self.taken += count;
        Ok((first..first + count).collect())
    }
}

/// One for all users: everybody may add a file to it, and a lock needs no more than reading.
fn lock_dir() -> std::io::Result<PathBuf> {
    let dir = std::env::temp_dir().join("quorate-test-ports");
    if std::fs::create_dir(&dir).is_ok() {
        std::fs::set_permissions(&dir, Permissions::from_mode(0o1777))?;
    }
    Ok(dir)
}

fn lock(dir: &Path, first: u16) -> std::io::Result<File> {
    let path = dir.join(first.to_string());
    let file = File::open(&path).or_else(|_| OpenOptions::new().create(true).truncate(false).write(true).open(&path))?;
    file.try_lock().map_err(std::io::Error::from)?;
    Ok(file)
}

fn is_free(first: u16) -> bool {
    (first..first + BLOCK).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_one_owner_until_it_is_given_back() {
        let mut held: Vec<Ports> = (0..4).map(|_| Ports::reserve().expect("a block")).collect();
        let mut all: Vec<u16> = held.iter_mut().flat_map(|ports| ports.take(BLOCK).expect("all of it")).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4 * usize::from(BLOCK));
        assert!(held[0].take(1).is_err(), "all are taken");
        let first = held[0].first();
        assert!(lock(&lock_dir().expect("writable"), first).is_err(), "it is held");
        drop(held);
        // Another program may have taken it meanwhile; this one may not have kept it.
        match lock(&lock_dir().expect("writable"), first) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
        }
    }

    #[test]
    fn a_block_with_a_port_in_use_is_passed_over() {
        let first = Ports::reserve().expect("a block").first();
        let taken = TcpListener::bind(("127.0.0.1", first + 7));
        // Another program's, if that fails.
        if taken.is_ok() {
            assert!(!is_free(first));
            assert_ne!(Ports::reserve().expect("a block").first(), first);
        }
    }
}
