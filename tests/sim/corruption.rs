//! Corruption in the state file of a node that is off: bits of one row that counts, wherever the file holds it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate::env::{Disk as _, Env};
use quorate::storage::state::StoppedState;
use quorate::testing::disk::{Crash, SimDisk};
use quorate::testing::inline::SeededRandom;

use crate::support::bytes::places;

/// So much of a row is looked for in the file: below the smallest part of one.
const PATTERN_BYTES_MAX: usize = 200;
/// Fewer bytes, or fewer that differ, may stand in the file by chance, where they are nobody's.
const PATTERN_BYTES_MIN: usize = 16;
const DIFFERENT_MIN: usize = 8;

/// The state as it is on a disk, opened on a copy of it.
fn open(disk: &SimDisk, dir: &Path) -> Option<Result<StoppedState, String>> {
    let copy = disk.crash(Crash::Kept, 0);
    if !copy.exists(&dir.join("CURRENT")).unwrap_or(false) {
        return None;
    }
    let env = Env { disk: Arc::new(copy), ..Env::real() };
    Some(StoppedState::open(&env, dir).map_err(|error| error.to_string()))
}

/// What is damaged in the state on a disk; nothing, also where there is no state.
pub fn find(disk: &SimDisk, dir: &Path) -> Option<String> {
    let stopped = match open(disk, dir)? {
        Ok(stopped) => stopped,
        Err(error) => return Some(error),
    };
    let tables: Vec<u8> = (0..u8::MAX).collect();
    stopped.rows().table_range(&tables).find_map(|row| row.err()).map(|error| error.to_string())
}

/// Values of rows that can be found in the file again.
fn candidates(disk: &SimDisk, dir: &Path) -> Vec<Bytes> {
    let Some(Ok(stopped)) = open(disk, dir) else { return Vec::new() };
    let tables: Vec<u8> = (0..u8::MAX).collect();
    let rows = stopped.rows().table_range(&tables).map_while(Result::ok);
    let patterns = rows.map(|(_, _, value)| value.slice(..value.len().min(PATTERN_BYTES_MAX)));
    let is_rare =
        |pattern: &Bytes| pattern.len() >= PATTERN_BYTES_MIN && pattern.iter().collect::<BTreeSet<_>>().len() >= DIFFERENT_MIN;
    patterns.filter(is_rare).collect()
}

fn state_file(disk: &SimDisk, dir: &Path) -> Vec<PathBuf> {
    let names = disk.list(dir).unwrap_or_default();
    names.iter().filter(|name| name.ends_with(".redb")).map(|name| dir.join(name)).collect()
}

/// Flips a bit of one row in the state on a disk that is off, whole and synced, so that every reader of the row can see it; says where.
/// `None`: there is no such row.
///
/// Pages that count no more may hold the row too: it is corrupted there as well, and nothing sees that.
pub fn strike(disk: &SimDisk, dir: &Path, random: &SeededRandom) -> Option<String> {
    let rows = candidates(disk, dir);
    let pattern = rows.get(random.below(rows.len().max(1) as u64) as usize)?;
    let at_byte = random.below(pattern.len() as u64);
    let mask = 1 << random.below(8);
    let mut flipped = 0;
    for file in state_file(disk, dir) {
        let bytes = disk.contents(&file)?;
        for at in places(&bytes, pattern) {
            disk.damage(&file, at as u64 + at_byte, mask);
            flipped += 1;
        }
    }
    (flipped > 0).then(|| format!("bytes={} places={flipped}", pattern.len()))
}
