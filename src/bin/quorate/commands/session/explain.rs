//! A client's error for the person who typed the command: the exit code, whether anything changed, what to do.

use quorate::client::{EndpointFailure, Error, ErrorKind};

use crate::failure::{Code, Failure};
use crate::output;

/// Endpoints that get a line each.
const LINES_MAX: usize = 8;

/// The failure of a write, with its effect and the next step.
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
    Failure { code, message: sentence(what, &error, what_now) }
}

/// Why there is no answer to a read of sessions, and what to do now.
pub fn read_failure(error: Error) -> Failure {
    let someone_answers = error.endpoints().iter().any(|endpoint| endpoint.answered);
    let what_now = if someone_answers {
        "`--stale` reads what a node has; see `quorate status`, or try again"
    } else {
        "check --endpoints, see `quorate status`, or try again"
    };
    unanswered(&error, what_now)
}

/// Why there is no answer to what was asked of the nodes themselves, and what to do now.
pub fn ask_failure(error: Error) -> Failure {
    unanswered(&error, "check --endpoints, or try again")
}

fn unanswered(error: &Error, what_now: &str) -> Failure {
    match error.kind() {
        ErrorKind::Refused { .. } | ErrorKind::Indeterminate => {
            Failure { code: Code::Unavailable, message: sentence("no answer", error, what_now) }
        }
        _ => other(error),
    }
}

/// The failures common to reads and writes. Nothing changed by any of them.
fn other(error: &Error) -> Failure {
    let (code, what, what_now) = match error.kind() {
        ErrorKind::Invalid => (Code::Usage, "wrong as written, nothing changed", "fix the call"),
        // Its checksums hold, or a node would have refused it.
        ErrorKind::Corrupt if error.reason().is_none() => (
            Code::Failed,
            "the content has a form that this program does not know, nothing changed",
            "read it with the client that wrote it",
        ),
        ErrorKind::Corrupt => (Code::Failed, "the stored bytes are damaged, nothing changed", "see that node's log"),
        ErrorKind::Unauthenticated => (
            Code::Failed,
            "no or wrong credentials, nothing changed",
            "a token is passed by --token-file (QUORATE_TOKEN_FILE) or QUORATE_TOKEN, a certificate by --cert and --key",
        ),
        ErrorKind::Denied => (Code::Failed, "these credentials do not allow it, nothing changed", "use others"),
        ErrorKind::Leased { .. } => (
            Code::Failed,
            "the session is leased, nothing changed",
            "wait, or see `quorate lease show` and `quorate lease release --help`",
        ),
        ErrorKind::Fenced => (Code::Failed, "the turn is over, nothing changed", "take another turn"),
        _ => (Code::Failed, "failed", "see the log of the nodes"),
    };
    Failure { code, message: format!("{what}: {}; {what_now}", cause(error)) }
}

/// One line, and one more for each endpoint where there are several. Advice is left out where a reason says already what to do.
fn sentence(what: &str, error: &Error, what_now: &str) -> String {
    let endpoints = error.endpoints();
    let is_settings = endpoints.iter().any(|endpoint| endpoint.settings);
    let tail = if is_settings { String::new() } else { format!("; {what_now}") };
    let line = |endpoint: &EndpointFailure| format!("{}: {}", output::printable(&endpoint.address), endpoint.reason);
    match endpoints {
        [] => format!("{what}: {}{tail}", cause(error)),
        [endpoint] => format!("{what}: {}{tail}", line(endpoint)),
        all => {
            let answered = all.iter().filter(|endpoint| endpoint.answered).count();
            let answer = if answered == 1 { "answers" } else { "answer" };
            let summary = match answered {
                0 => format!("none of {} endpoints answers", all.len()),
                some if 2 * some <= all.len() => format!("{some} of {} endpoints {answer}: no majority", all.len()),
                some => format!("{some} of {} endpoints {answer}", all.len()),
            };
            let mut lines: Vec<String> = all.iter().take(LINES_MAX).map(line).collect();
            if all.len() > LINES_MAX {
                lines.push(format!("and {} more", all.len() - LINES_MAX));
            }
            format!("{what}: {summary}{tail}\n{}", lines.join("\n"))
        }
    }
}

/// The cause of an error; without one, the error itself.
fn cause(error: &Error) -> String {
    error.reason().map_or_else(|| error.to_string(), str::to_owned)
}
