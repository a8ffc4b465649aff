//! Errors of the state, by what the caller does next.

use std::fmt;
use std::io;

use bytes::Bytes;

use crate::env::is_full;

/// Why a call on the state failed.
#[derive(Clone)]
#[non_exhaustive]
pub enum Error {
    /// Stored bytes are not what was written. Nothing was changed; it is never "not found". The node must stop serving until rebuilt.
    Corrupt {
        /// The file, by its name in the state's directory.
        file: String,
        /// The row's table, where one row is known to be damaged.
        table: Option<u8>,
        /// The row's key; printed only as a checksum, since keys may be credentials.
        key: Option<Bytes>,
        /// The problem.
        what: String,
    },
    /// The file system is full. Nothing was changed that counts; it heals by itself once there is room.
    NoSpace {
        /// The writer that needed room.
        what: String,
    },
    /// The disk failed. From the flusher and an install this is final: what is on disk is not known, and the process must end.
    Io {
        /// The operating system's kind.
        kind: io::ErrorKind,
        /// The operation that failed, and how.
        what: String,
    },
    /// The view's file was closed under it, after the disk had been full. Nothing was changed. Take a new view and read again.
    Superseded,
    /// The rows are a later release's. Nothing was changed; that release reads them.
    Newer {
        /// The format this release does not read, and what to do.
        what: String,
    },
    /// A snapshot stream is not one, or does not fit. Nothing was changed; ask for another.
    Invalid {
        /// The problem.
        what: String,
    },
}

impl Error {
    /// Damage in a row that only its reader can see, e.g. a value that does not decode.
    pub fn corrupt_row(table: u8, key: Bytes, what: impl Into<String>) -> Self {
        Error::Corrupt { file: "rows".into(), table: Some(table), key: Some(key), what: what.into() }
    }

    /// Damage that only a reader of many rows can see.
    pub fn damaged(what: impl Into<String>) -> Self {
        Self::corrupt("rows", what)
    }

    /// Damage of a file as a whole.
    pub(super) fn corrupt(file: &str, what: impl Into<String>) -> Self {
        Error::Corrupt { file: file.into(), table: None, key: None, what: what.into() }
    }

    /// A stream or its rows that make no state.
    pub fn invalid(what: impl Into<String>) -> Self {
        Error::Invalid { what: what.into() }
    }

    /// Rows that a later release wrote.
    pub fn newer(what: impl Into<String>) -> Self {
        Error::Newer { what: what.into() }
    }

    /// An error of a file operation that is not a sync.
    pub(super) fn io(what: &str, error: &io::Error) -> Self {
        if is_full(error.kind()) {
            return Error::NoSpace { what: what.into() };
        }
        Error::Io { kind: error.kind(), what: format!("{what}: {error}") }
    }

    /// An error of a sync, after which nothing is known, even if the disk was only full.
    pub(super) fn sync(what: &str, error: &io::Error) -> Self {
        Error::Io { kind: error.kind(), what: format!("{what}: {error}") }
    }

    /// Whether the node must stop: the disk or its content can no longer be trusted.
    pub fn is_final(&self) -> bool {
        matches!(self, Error::Corrupt { .. } | Error::Io { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Corrupt { file, table, key, what } => {
                write!(f, "stored state is damaged: {what} file={file}")?;
                if let Some(table) = table {
                    write!(f, " table={table}")?;
                }
                match key {
                    Some(key) => write!(f, " key_crc32c={:08x} key_bytes={}", crc32c::crc32c(key), key.len()),
                    None => Ok(()),
                }
            }
            Error::NoSpace { what } => write!(f, "no space left on the disk: {what}"),
            Error::Io { kind, what } => write!(f, "the disk failed: {what} kind={kind}"),
            Error::Superseded => f.write_str("the view's file was reopened, take a new view"),
            Error::Newer { what } => f.write_str(what),
            Error::Invalid { what } => write!(f, "not a snapshot that can be installed: {what}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for Error {}
