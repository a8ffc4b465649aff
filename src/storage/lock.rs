//! One process per data directory. The lock belongs to the operating system, which frees it when the process ends, however it ends;
//! a simulated disk keeps its own.

use std::io;
use std::path::{Path, PathBuf};

use crate::env::{Disk, LockGuard};

/// Why the directory is not ours. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process serves from this directory. Stop it first, or use another directory.
    #[error("another process uses this data directory; stop it first, do not remove the file file={file}")]
    Held {
        /// The lock file.
        file: PathBuf,
    },
    /// The file system refused.
    #[error("cannot lock the data directory: {error} file={file}")]
    Io {
        /// The lock file.
        file: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// Holds the directory until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    _held: LockGuard,
}

impl Lock {
    /// Takes `LOCK` in `dir`, which must exist. Does not wait.
    ///
    /// Errors: [`Error::Held`] by another handle, of this process too; [`Error::Io`].
    pub fn acquire(disk: &dyn Disk, dir: &Path) -> Result<Lock, Error> {
        let file = dir.join("LOCK");
        match disk.lock(&file) {
            Ok(Some(held)) => Ok(Lock { _held: held }),
            Ok(None) => Err(Error::Held { file }),
            Err(error) => Err(Error::Io { file, error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::RealDisk;

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Lock::acquire(&RealDisk, dir.path()).expect("nobody has it");
        let refused = Lock::acquire(&RealDisk, dir.path()).expect_err("held");
        assert!(matches!(refused, Error::Held { .. }), "{refused}");
        assert!(refused.to_string().contains("another process"), "{refused}");
        drop(first);
        Lock::acquire(&RealDisk, dir.path()).expect("free again");
    }
}
