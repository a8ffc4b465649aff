//! Why the log refuses.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use crate::env::is_full;

/// Why a call of the log failed, by what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Bytes that had been synced fail their checks. Nothing changed. This node must not continue with its log: remove it from the
    /// cluster and join it again, or put the disk's backup of the *whole* directory back only if it holds everything ever acknowledged.
    #[error(
        "the log is damaged: {what}; do not edit it: replace this node by one with a new id and an empty directory, and keep this one until \
         that is done segment={file} offset={offset}"
    )]
    Corrupt {
        /// The damaged file.
        file: String,
        /// The first byte that does not verify.
        offset: u64,
        /// The problem there.
        what: Cow<'static, str>,
    },
    /// The disk failed. Once a write or sync failed so, nothing is known of what was not yet reported: end the process.
    #[error("the log cannot {operation}: {message}; check the disk, then start the node again file={file}")]
    Io {
        /// The operation that failed.
        operation: &'static str,
        /// On which file.
        file: String,
        /// The system's kind.
        kind: io::ErrorKind,
        /// The system's words.
        message: String,
    },
    /// A payload or vote above its limit. Nothing changed. Refuse it earlier.
    #[error("too large for the log bytes={bytes} limit={limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The largest size.
        limit: u64,
    },
    /// The options cannot work. Nothing changed.
    #[error("invalid log options: {0}")]
    Options(&'static str),
}

impl Error {
    pub(super) fn io(operation: &'static str, file: &Path, error: &io::Error) -> Self {
        Self::Io { operation, file: file.display().to_string(), kind: error.kind(), message: error.to_string() }
    }

    pub(super) fn corrupt(file: &Path, offset: u64, what: impl Into<Cow<'static, str>>) -> Self {
        Self::Corrupt { file: file.display().to_string(), offset, what: what.into() }
    }

    /// Whether the disk is merely full: the same write succeeds once there is room.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Io { kind, operation, .. } if is_full(*kind) && *operation != "sync")
    }
}
