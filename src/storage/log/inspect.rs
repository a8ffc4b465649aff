//! The content of a log, read without opening it: nothing is written, no worker is started.

use std::path::Path;

use super::{Error, Position, files, recover};
use crate::env::Disk;

/// A log that verified from its first live segment to its end.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// Vote, purged, last.
    pub position: Position,
    /// Segments that hold it.
    pub segments: u64,
    /// Live entries.
    pub entries: u64,
    /// Their bytes as stored.
    pub bytes: u64,
}

/// Reads the log in `dir`, every frame of it. Blocking. Errors: [`Error::Corrupt`], with segment and offset; the disk's.
pub fn inspect(disk: &dyn Disk, dir: &Path) -> Result<Inspection, Error> {
    let listing = files::list(disk, dir)?;
    let found = recover::recover(disk, dir, &listing)?;
    Ok(Inspection {
        segments: found.segments.len() as u64,
        entries: found.stored.len() as u64,
        bytes: found.stored.iter().map(|stored| u64::from(stored.bytes)).sum(),
        position: Position { purged: found.head.purged, last: found.head.last_or_purged(), vote: found.head.vote },
    })
}
