//! What an error of the client means for the one who typed the command: the exit code, whether anything changed, what to do.

use std::error::Error as _;

use quorate::client::{Error, ErrorKind};

use crate::failure::{Code, Failure};

/// What became of a write, and what to do now.
pub fn write_failure(error: Error) -> Failure {
    let (code, what, what_now) = match error.kind() {
        ErrorKind::Conflict { actual } => {
            let message =
                format!("the stored version is not the expected one; nothing changed; read it again, then decide actual={actual}");
            return Failure { code: Code::Conflict, message };
        }
        ErrorKind::Refused { .. } => {
            (Code::Unavailable, "refused, nothing changed", "try again, and see `quorate status` if it stays so")
        }
        ErrorKind::Indeterminate => {
            (Code::Unavailable, "the write may or may not have happened", "read the session, then decide whether to write again")
        }
        _ => return other(&error),
    };
    Failure { code, message: format!("{what}: {}; {what_now}", cause(&error)) }
}

/// Why there is no answer to a read, and what to do now.
pub fn read_failure(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Refused { .. } | ErrorKind::Indeterminate => Failure {
            code: Code::Unavailable,
            message: format!("no answer: {}; check --endpoints, see `quorate status`, or try again", cause(&error)),
        },
        _ => other(&error),
    }
}

/// What means the same for reads and writes. Nothing changed by any of them.
fn other(error: &Error) -> Failure {
    let (code, what, what_now) = match error.kind() {
        ErrorKind::Invalid => (Code::Usage, "wrong as written, nothing changed", "fix the call"),
        ErrorKind::Corrupt => (Code::Failed, "the stored bytes are damaged, nothing changed", "see that node's log"),
        ErrorKind::Unauthenticated => (Code::Failed, "no or wrong credentials, nothing changed", "pass the right ones"),
        ErrorKind::Denied => (Code::Failed, "these credentials do not allow it, nothing changed", "use others"),
        _ => (Code::Failed, "failed", "see the log of the nodes"),
    };
    Failure { code, message: format!("{what}: {}; {what_now}", cause(error)) }
}

/// What lies behind an error; without that, the error itself.
fn cause(error: &Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}
