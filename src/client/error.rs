//! The one error of the client: by what to do next.

use std::fmt;
use std::time::Duration;

use super::failures::{EndpointFailure, Failures, listed};
use crate::types::{Holder, Refusal, RefusalKind, Revision, TooLarge, Verdict, Version};

/// How long to wait after a refusal that names no delay.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_millis(100);

/// The least wait where the cluster has no room: an operator has to make some.
pub(super) const FULL_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long to wait before another attempt to write a session that is leased: turns take seconds at least, and nobody is queued.
const LEASED_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why a call failed, by what to do next.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The call is wrong as written, e.g. an id or a session above its bound. Nothing changed. Fix the call.
    Invalid,
    /// The stored version is not the expected one. Nothing changed. Load again, then decide.
    Conflict {
        /// The stored version; 0 if there is no session.
        actual: Version,
    },
    /// Refused before anything happened: no leader, no connection, overload, a full disk. Nothing changed. Try again after the delay.
    Refused {
        /// When to try again.
        retry_after: Duration,
    },
    /// The operation may or may not have happened: the client retried with the same request id until the deadline. Load again and decide;
    /// saving again is a new operation.
    Indeterminate,
    /// The bytes to be read fail their checksum wherever they were asked for until the deadline, or are no session of this client. Nothing
    /// changed. Page a human.
    Corrupt,
    /// No or bad credentials. Nothing changed.
    Unauthenticated,
    /// These credentials do not allow it. Nothing changed.
    Denied,
    /// The call belongs to a later cluster version than the one in force. Nothing changed. Upgrade every node; the version then rises by
    /// itself.
    Unsupported,
    /// Items can't be appended to this session: it is not known to be a transcript. Nothing changed. Save it whole.
    WrongForm,
    /// Another holder has the lease of the session: the session is in its turn, and every other write waits. Nothing changed. Try again after
    /// the delay, as another write, or have the lease taken from it.
    Leased {
        /// When to try again. The lease may be renewed, or released before.
        retry_after: Duration,
    },
    /// The turn that the write belongs to is over: its lease has ended, or another has it. Nothing changed, and nothing that is written
    /// through this turn will. Take another turn, load, and decide.
    Fenced,
}

/// A failed call. Its text is for people and not API; match on [`Error::kind`].
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    revision: Option<Revision>,
    operation: Option<usize>,
    endpoints: Vec<EndpointFailure>,
    refusal: Option<Refusal>,
}

impl Error {
    /// The kind, by what to do next.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Where the cluster evaluated the call, if it did: of a conflict, the place in the order of writes it was judged at.
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// Of a transaction: the position, from 0, of the operation that it failed by, if it failed by one.
    pub fn operation(&self) -> Option<usize> {
        self.operation
    }

    /// Of a call that no endpoint did: which of them failed how, the last time each was tried. Empty where one node's word settled it.
    pub fn endpoints(&self) -> &[EndpointFailure] {
        &self.endpoints
    }

    /// The last reason a node or the connection gave; the text of the error ends with it if it names one endpoint at most.
    pub fn reason(&self) -> Option<&str> {
        self.refusal.as_ref().map(|refusal| &*refusal.message)
    }

    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), revision: None, operation: None, endpoints: Vec::new(), refusal: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(super) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused { retry_after: RETRY_AFTER_DEFAULT }, message)
    }

    pub(super) fn indeterminate(source: Option<Refusal>) -> Self {
        Self::new(ErrorKind::Indeterminate, "the write may or may not have happened").caused_by(source)
    }

    pub(super) fn conflict(actual: Version, revision: Revision) -> Self {
        let error =
            Self::new(ErrorKind::Conflict { actual }, format!("the stored version is not the expected one actual={actual}"));
        Self { revision: Some(revision), ..error }
    }

    pub(super) fn leased(holder: &Holder, revision: Revision) -> Self {
        let message =
            format!("another holder has the session's lease, nothing changed: try again later holder={:?}", holder.as_str());
        Self { revision: Some(revision), ..Self::new(ErrorKind::Leased { retry_after: LEASED_RETRY_AFTER }, message) }
    }

    pub(super) fn fenced(revision: Option<Revision>) -> Self {
        let message = "the turn's lease has ended or is another's, nothing changed: take another turn";
        Self { revision, ..Self::new(ErrorKind::Fenced, message) }
    }

    /// The base of the write is not remembered, or not known to be stored.
    pub(super) fn forgotten(actual: Version) -> Self {
        Self::new(
            ErrorKind::Conflict { actual },
            "the version this save is based on is not known to be stored, nothing changed: load the session again",
        )
    }

    pub(super) fn too_large(what: TooLarge, revision: Revision) -> Self {
        let (what, now, limit) = what.parts();
        Self { revision: Some(revision), ..Self::invalid(format!("the write is too large {what}={now} limit={limit}")) }
    }

    /// Of an outcome by which nothing changed; of any other, which its call never gets: what it did is not known.
    pub(super) fn of_verdict(verdict: &Verdict, revision: Revision) -> Self {
        match verdict {
            Verdict::Conflict { actual, .. } => Self::conflict(*actual, revision),
            Verdict::TooLarge(what) => Self::too_large(*what, revision),
            Verdict::TooManyClients | Verdict::TooManySessions | Verdict::TooManyLeases => {
                Self::new(ErrorKind::Refused { retry_after: FULL_RETRY_AFTER }, "the cluster is full, nothing changed")
            }
            Verdict::WrongForm { form } => {
                let message = format!("items can't be appended, nothing changed: the session is no transcript form={form:?}");
                Self { revision: Some(revision), ..Self::new(ErrorKind::WrongForm, message) }
            }
            Verdict::Leased { holder, .. } => Self::leased(holder, revision),
            Verdict::Fenced { .. } => Self::fenced(Some(revision)),
            _ => Self::indeterminate(None),
        }
    }

    /// Of an operation of a transaction, which so did nothing.
    pub(super) fn in_operation(self, index: usize, id: &str) -> Self {
        let message = format!("the transaction was not done, operation {index} on {id:?} failed: {}", self.message);
        Self { message, operation: Some(index), ..self }
    }

    /// Of a refusal after which nothing has changed, all attempts taken together.
    pub(super) fn from_refusal(refusal: Refusal) -> Self {
        let kind = match &refusal.kind {
            RefusalKind::Invalid => ErrorKind::Invalid,
            RefusalKind::Unauthenticated => ErrorKind::Unauthenticated,
            RefusalKind::Denied => ErrorKind::Denied,
            RefusalKind::Unsupported => ErrorKind::Unsupported,
            RefusalKind::Corrupt => ErrorKind::Corrupt,
            RefusalKind::Overloaded { retry_after } | RefusalKind::DiskLow { retry_after } => {
                ErrorKind::Refused { retry_after: (*retry_after).max(RETRY_AFTER_DEFAULT) }
            }
            RefusalKind::WrongCluster
            | RefusalKind::NotLeader(_)
            | RefusalKind::NoLeader
            | RefusalKind::DeadlineExceeded
            | RefusalKind::Unavailable => ErrorKind::Refused { retry_after: RETRY_AFTER_DEFAULT },
        };
        let text = match kind {
            ErrorKind::Invalid => "the call is wrong as written",
            ErrorKind::Corrupt => "the stored bytes are damaged",
            ErrorKind::Unauthenticated => "the credentials are missing or wrong",
            ErrorKind::Denied => "the credentials do not allow this call",
            ErrorKind::Unsupported => "the cluster does not have this call yet, nothing changed",
            _ => "the call was refused, nothing changed",
        };
        Self::new(kind, text).caused_by(Some(refusal))
    }

    /// With what became of each endpoint, if that is what it is about.
    pub(super) fn with_endpoints(self, failures: &Failures) -> Self {
        match self.kind {
            ErrorKind::Refused { .. } | ErrorKind::Indeterminate => Self { endpoints: failures.all().to_vec(), ..self },
            _ => self,
        }
    }

    /// This error for another caller that waited for the same operation.
    pub(super) fn for_another(&self) -> Self {
        let message = match self.reason() {
            Some(reason) if self.endpoints.len() < 2 => format!("{}: {reason}", self.message),
            _ => self.message.clone(),
        };
        Self { endpoints: self.endpoints.clone(), ..Self::new(self.kind, message) }
    }

    fn caused_by(self, refusal: Option<Refusal>) -> Self {
        Self { refusal, ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match (self.reason(), &self.endpoints[..]) {
            (Some(reason), [] | [_]) => write!(f, ": {reason}"),
            (_, endpoints @ [_, _, ..]) => write!(f, ": {}", listed(endpoints)),
            (None, _) => Ok(()),
        }
    }
}

/// Its text is whole: there is no source to print after it.
impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    /// As printers of chains do.
    fn chain(error: &dyn std::error::Error) -> String {
        let sources = std::iter::successors(error.source(), |error| error.source());
        sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
    }

    #[test]
    fn a_chain_of_errors_names_the_reason_once() {
        let error = Error::from_refusal(Refusal::not_applied(RefusalKind::Denied, "token=a scope=read"));
        assert_eq!(error.reason(), Some("token=a scope=read"));
        assert_eq!(chain(&error), "the credentials do not allow this call: token=a scope=read");
    }
}
