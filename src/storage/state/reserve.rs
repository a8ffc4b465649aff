//! Room set aside for the flushes that a full disk would refuse.
//!
//! Deletes and sweeps must reach the disk for it to heal, and they need room first. The reserve is given up when a flush finds none,
//! and taken again once there is plenty. It is a help, not a promise: failing to take it fails nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::Disk;
use crate::limits::{KIB, MIB};

/// Its name in the state's directory.
const RESERVE: &str = "RESERVE";
/// The most that must be free besides, before the reserve is taken again.
const LOW_BYTES_MAX: u64 = 1024 * MIB;

pub(super) struct Reserve {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    bytes: u64,
    held: bool,
}

impl Reserve {
    /// Takes the reserve if there is room; `bytes` of 0: none is wanted.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, bytes: u64) -> Self {
        let path = dir.join(RESERVE);
        let whole = || -> io::Result<bool> { Ok(disk.exists(&path)? && disk.open(&path)?.len()? == bytes) };
        let held = bytes > 0 && whole().unwrap_or(false);
        let mut reserve = Self { disk, dir: dir.to_owned(), bytes, held };
        reserve.take_if_room();
        reserve
    }

    /// Takes the reserve again where there is plenty of room.
    pub fn take_if_room(&mut self) {
        if self.held || self.bytes == 0 {
            return;
        }
        let room = self.disk.space(&self.dir).map(|space| space.free.saturating_sub(LOW_BYTES_MAX.min(space.total / 20)));
        if !room.is_ok_and(|room| room >= self.bytes) {
            return;
        }
        let path = self.dir.join(RESERVE);
        // One of another size, or one whose blocks were never had.
        let _ = self.disk.remove(&path);
        let taken = self.disk.create(&path).and_then(|file| file.allocate(0, self.bytes));
        match taken {
            Ok(()) => self.held = true,
            Err(_) => drop(self.disk.remove(&path)),
        }
    }

    /// Gives the reserve up if a flush of `wanted` bytes may not find room without it. Pages are powers of two: twice its bytes.
    pub fn release_for(&mut self, wanted: u64) {
        let needed = wanted.saturating_mul(2).saturating_add(256 * KIB);
        if self.held && self.disk.space(&self.dir).is_ok_and(|space| space.free < needed) {
            self.release();
        }
    }

    /// Gives the reserve up. False: there is none to give.
    pub fn release(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        // Some file systems free the blocks only once the directory is synced.
        held && self.disk.remove(&self.dir.join(RESERVE)).and_then(|()| self.disk.sync_dir(&self.dir)).is_ok()
    }
}
