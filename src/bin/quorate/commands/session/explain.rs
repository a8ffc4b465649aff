//! What an error of the client means for the one who typed the command: the exit code, whether anything changed, what to do.

use quorate::client::{Error, ErrorKind};

use crate::failure::{Code, Failure};

/// What became of a write, and what to do now.
pub fn write_failure(error: Error) -> Failure {
    let (code, what_now) = match error.kind() {
        ErrorKind::Invalid => (Code::Usage, "nothing changed; fix the call".to_owned()),
        ErrorKind::Conflict { actual } => {
            let message =
                format!("the stored version is not the expected one; nothing changed; read it again, then decide actual={actual}");
            return Failure { code: Code::Conflict, message };
        }
        ErrorKind::Refused { .. } => (Code::Unavailable, "nothing changed; try again".to_owned()),
        ErrorKind::Indeterminate => {
            (Code::Unavailable, "it may or may not have happened; read the session, then decide whether to write again".to_owned())
        }
        _ => (Code::Failed, what_now(&error)),
    };
    Failure { code, message: format!("{error}; {what_now}") }
}

/// Why there is no answer to a read, and what to do now.
pub fn read_failure(error: Error) -> Failure {
    let (code, what_now) = match error.kind() {
        ErrorKind::Invalid => (Code::Usage, "fix the call".to_owned()),
        ErrorKind::Refused { .. } | ErrorKind::Indeterminate => {
            (Code::Unavailable, "check --endpoints and `quorate status`, or try again".to_owned())
        }
        _ => (Code::Failed, what_now(&error)),
    };
    Failure { code, message: format!("{error}; {what_now}") }
}

fn what_now(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Corrupt => "nothing changed; that node's data is damaged: see its log".into(),
        ErrorKind::Unauthenticated => "nothing changed; no or wrong credentials".into(),
        ErrorKind::Denied => "nothing changed; these credentials do not allow it".into(),
        _ => "see the log of the nodes".into(),
    }
}
