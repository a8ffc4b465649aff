//! A new state made of given rows: what a restore leaves for the node's first start.

use std::path::Path;

use bytes::Bytes;

use super::Options;
use super::current::{self, Current};
use super::engine::{File, Head};
use super::error::Error;
use super::rows::Row;
use crate::env::Env;
use crate::types::LogId;

/// Rows are committed once so many bytes have come together.
const COMMIT_BYTES: usize = 8 * 1024 * 1024;

/// Makes the state in `dir`, which must not exist, of rows as of the entry `applied`, and makes it durable. Blocking.
///
/// Errors: the iterator's own, [`Error::NoSpace`], [`Error::Io`]. The directory may be there then, without the pointer that would make
/// it a state.
pub fn create<E: From<Error>>(
    env: &Env,
    dir: &Path,
    options: Options,
    applied: LogId,
    rows: impl Iterator<Item = Result<(u8, Bytes, Bytes), E>>,
) -> Result<(), E> {
    let disk = &*env.disk;
    if disk.exists(dir).map_err(|error| Error::io("look for a state", &error))? {
        return Err(Error::invalid(format!("there is a state already path={}", dir.display())).into());
    }
    disk.create_dir_all(dir).map_err(|error| Error::io("make the state directory", &error))?;
    let file = File::create(disk, dir, &current::file_name(1), options.cache_bytes)?;
    let mut head = Head::default();
    let mut together = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let row = row?;
        bytes += row.1.len() + row.2.len();
        together.push(row);
        if bytes >= COMMIT_BYTES {
            head = commit(&file, head, &together)?;
            together.clear();
            bytes = 0;
        }
    }
    commit(&file, Head { applied: Some(applied), ..head }, &together)?;
    // Closed in order, so that the first start finds nothing to repair.
    drop(file);
    Ok(current::write(disk, dir, Current::Open(1))?)
}

fn commit(file: &std::sync::Arc<File>, head: Head, rows: &[(u8, Bytes, Bytes)]) -> Result<Head, Error> {
    file.commit(head, rows.iter().map(|(table, key, value)| Row::put((*table, key, value))))
}
