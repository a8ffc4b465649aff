//! Refusals as messages and as gRPC statuses: the one table of both directions.
//!
//! ```text
//! kind                            code                  reason in ErrorInfo      retry
//! Invalid                         INVALID_ARGUMENT      INVALID                  fix the call
//! WrongCluster                    FAILED_PRECONDITION   WRONG_CLUSTER            forget the client
//! NotLeader (leader id, address)  UNAVAILABLE           NOT_LEADER               there, at once
//! NoLeader                        UNAVAILABLE           NO_LEADER                back off
//! Overloaded, DiskLow             RESOURCE_EXHAUSTED    OVERLOADED, DISK_LOW     after RetryInfo
//! DeadlineExceeded                DEADLINE_EXCEEDED     DEADLINE_EXCEEDED        -
//! Unavailable                     UNAVAILABLE           UNAVAILABLE              another node
//! Corrupt                         DATA_LOSS             CORRUPT                  another node
//! Unauthenticated, Denied         UNAUTHENTICATED, PERMISSION_DENIED             give up
//! Unsupported                     FAILED_PRECONDITION   UNSUPPORTED              after the upgrade
//! ```
//!
//! `applied: no` in the metadata of our own `ErrorInfo` is the only thing that proves an attempt changed nothing. Whatever lacks it, a
//! status made by a proxy or by the transport too, may have changed something.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::v1;
use crate::limits::ADDRESS_BYTES_MAX;
use crate::types::{Applied, LeaderHint, NodeId, Refusal, RefusalKind};

const DOMAIN: &str = "quorate";
const APPLIED: &str = "applied";
const LEADER_ID: &str = "leader_id";
const LEADER_ADDRESS: &str = "leader_address";
/// Longest message kept of a refusal, in bytes.
const MESSAGE_BYTES_MAX: usize = 512;
/// Longest delay a refusal may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The message of a refusal.
pub fn refusal_to(refusal: &Refusal) -> v1::Refusal {
    v1::Refusal {
        reason: reason(&refusal.kind).into(),
        not_applied: refusal.applied == Applied::No,
        message: truncated(&refusal.message),
        retry_after_ms: retry_after(&refusal.kind).map_or(0, |delay| delay.as_millis() as u64),
        leader: leader(&refusal.kind).map(|hint| v1::Leader { node: hint.node.0, address: hint.address.clone() }),
    }
}

/// The text, of every release, about a request that names no operation, or one that only a later release knows.
const NO_OPERATION: &str = "field is missing field=operation";

/// The refusal of a request that names no operation which this release knows.
pub fn no_operation() -> Refusal {
    Refusal::invalid(NO_OPERATION)
}

/// Whether a node refused the request since it knows no such operation. For a sender of one: the node is of an earlier release.
#[cfg_attr(not(feature = "client"), allow(dead_code, reason = "clients ask it"))]
pub(crate) fn is_no_operation(refusal: &Refusal) -> bool {
    refusal.kind == RefusalKind::Invalid && refusal.message == NO_OPERATION
}

/// The refusal of a message. It never fails: a reason this build does not know is `Unavailable`, a hint that is none `NoLeader`.
pub fn refusal_from(refusal: v1::Refusal) -> Refusal {
    let reason = v1::RefusalReason::try_from(refusal.reason).unwrap_or(v1::RefusalReason::Unspecified);
    let hint = refusal.leader.and_then(|leader| leader_hint(leader.node, &leader.address));
    Refusal {
        kind: kind(reason, hint, Duration::from_millis(refusal.retry_after_ms)),
        applied: if refusal.not_applied { Applied::No } else { Applied::Unknown },
        message: truncated(&refusal.message),
    }
}

/// A refusal as a gRPC status, with `ErrorInfo` and, where there is a delay, `RetryInfo`.
pub fn status_from_refusal(refusal: &Refusal) -> Status {
    let mut metadata = HashMap::new();
    if refusal.applied == Applied::No {
        metadata.insert(APPLIED.to_owned(), "no".to_owned());
    }
    if let Some(hint) = leader(&refusal.kind) {
        metadata.insert(LEADER_ID.to_owned(), hint.node.to_string());
        metadata.insert(LEADER_ADDRESS.to_owned(), hint.address.clone());
    }
    let mut details = ErrorDetails::with_error_info(short_name(reason(&refusal.kind)), DOMAIN, metadata);
    if let Some(delay) = retry_after(&refusal.kind) {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code(&refusal.kind), truncated(&refusal.message), details)
}

/// The transport could not read a call, for which it made this status: the same with our details. Nothing changed.
pub fn unread(status: &Status) -> Status {
    let message = format!("the call can't be read, or is too large: {}", status.message());
    let metadata = HashMap::from([(APPLIED.to_owned(), "no".to_owned())]);
    let details = ErrorDetails::with_error_info(short_name(v1::RefusalReason::Invalid), DOMAIN, metadata);
    Status::with_error_details(status.code(), truncated(&message), details)
}

/// The refusal of a gRPC status. It never fails: without our `ErrorInfo` it is judged by its code, and [`Applied::Unknown`].
pub fn refusal_from_status(status: &Status) -> Refusal {
    let message = truncated(status.message());
    let Some(info) = status.get_details_error_info().filter(|info| info.domain == DOMAIN) else {
        return Refusal { kind: kind_of_code(status.code()), applied: Applied::Unknown, message };
    };
    let reason = v1::RefusalReason::from_str_name(&format!("REFUSAL_REASON_{}", info.reason));
    let node = info.metadata.get(LEADER_ID).and_then(|id| id.parse().ok());
    let hint = node.zip(info.metadata.get(LEADER_ADDRESS)).and_then(|(node, address)| leader_hint(node, address));
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default();
    let applied = if info.metadata.get(APPLIED).is_some_and(|value| value == "no") { Applied::No } else { Applied::Unknown };
    Refusal { kind: kind(reason.unwrap_or(v1::RefusalReason::Unspecified), hint, delay), applied, message }
}

/// Whether a node of ours made this status: not a proxy, nor the transport.
pub fn is_ours(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.domain == DOMAIN)
}

/// A hint worth following: an address that is not empty and not above its bound.
pub(crate) fn leader_hint(node: u64, address: &str) -> Option<LeaderHint> {
    let usable = !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX;
    usable.then(|| LeaderHint { node: NodeId(node), address: address.to_owned() })
}

fn leader(kind: &RefusalKind) -> Option<&LeaderHint> {
    match kind {
        RefusalKind::NotLeader(hint) => Some(hint),
        _ => None,
    }
}

fn retry_after(kind: &RefusalKind) -> Option<Duration> {
    match kind {
        RefusalKind::Overloaded { retry_after } | RefusalKind::DiskLow { retry_after } => Some((*retry_after).min(RETRY_AFTER_MAX)),
        _ => None,
    }
}

fn reason(kind: &RefusalKind) -> v1::RefusalReason {
    match kind {
        RefusalKind::Invalid => v1::RefusalReason::Invalid,
        RefusalKind::WrongCluster => v1::RefusalReason::WrongCluster,
        RefusalKind::NotLeader(_) => v1::RefusalReason::NotLeader,
        RefusalKind::NoLeader => v1::RefusalReason::NoLeader,
        RefusalKind::Overloaded { .. } => v1::RefusalReason::Overloaded,
        RefusalKind::DiskLow { .. } => v1::RefusalReason::DiskLow,
        RefusalKind::DeadlineExceeded => v1::RefusalReason::DeadlineExceeded,
        RefusalKind::Unavailable => v1::RefusalReason::Unavailable,
        RefusalKind::Corrupt => v1::RefusalReason::Corrupt,
        RefusalKind::Unauthenticated => v1::RefusalReason::Unauthenticated,
        RefusalKind::Denied => v1::RefusalReason::Denied,
        RefusalKind::Unsupported => v1::RefusalReason::Unsupported,
    }
}

fn kind(reason: v1::RefusalReason, hint: Option<LeaderHint>, delay: Duration) -> RefusalKind {
    let retry_after = delay.min(RETRY_AFTER_MAX);
    match reason {
        v1::RefusalReason::Invalid => RefusalKind::Invalid,
        v1::RefusalReason::WrongCluster => RefusalKind::WrongCluster,
        v1::RefusalReason::NotLeader => hint.map_or(RefusalKind::NoLeader, RefusalKind::NotLeader),
        v1::RefusalReason::NoLeader => RefusalKind::NoLeader,
        v1::RefusalReason::Overloaded => RefusalKind::Overloaded { retry_after },
        v1::RefusalReason::DiskLow => RefusalKind::DiskLow { retry_after },
        v1::RefusalReason::DeadlineExceeded => RefusalKind::DeadlineExceeded,
        v1::RefusalReason::Unavailable | v1::RefusalReason::Unspecified => RefusalKind::Unavailable,
        v1::RefusalReason::Corrupt => RefusalKind::Corrupt,
        v1::RefusalReason::Unauthenticated => RefusalKind::Unauthenticated,
        v1::RefusalReason::Denied => RefusalKind::Denied,
        v1::RefusalReason::Unsupported => RefusalKind::Unsupported,
    }
}

fn code(kind: &RefusalKind) -> Code {
    match kind {
        RefusalKind::Invalid => Code::InvalidArgument,
        RefusalKind::WrongCluster | RefusalKind::Unsupported => Code::FailedPrecondition,
        RefusalKind::NotLeader(_) | RefusalKind::NoLeader | RefusalKind::Unavailable => Code::Unavailable,
        RefusalKind::Overloaded { .. } | RefusalKind::DiskLow { .. } => Code::ResourceExhausted,
        RefusalKind::DeadlineExceeded => Code::DeadlineExceeded,
        RefusalKind::Corrupt => Code::DataLoss,
        RefusalKind::Unauthenticated => Code::Unauthenticated,
        RefusalKind::Denied => Code::PermissionDenied,
    }
}

/// For a status that is not ours: what its code alone says.
fn kind_of_code(code: Code) -> RefusalKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => RefusalKind::Invalid,
        Code::ResourceExhausted => RefusalKind::Overloaded { retry_after: Duration::ZERO },
        Code::DeadlineExceeded => RefusalKind::DeadlineExceeded,
        Code::DataLoss => RefusalKind::Corrupt,
        Code::Unauthenticated => RefusalKind::Unauthenticated,
        Code::PermissionDenied => RefusalKind::Denied,
        _ => RefusalKind::Unavailable,
    }
}

fn short_name(reason: v1::RefusalReason) -> &'static str {
    reason.as_str_name().trim_start_matches("REFUSAL_REASON_")
}

fn truncated(message: &str) -> String {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<RefusalKind> {
        let retry_after = Duration::from_millis(250);
        vec![
            RefusalKind::Invalid,
            RefusalKind::WrongCluster,
            RefusalKind::NotLeader(LeaderHint { node: NodeId(3), address: "127.0.0.1:7460".into() }),
            RefusalKind::NoLeader,
            RefusalKind::Overloaded { retry_after },
            RefusalKind::DiskLow { retry_after },
            RefusalKind::DeadlineExceeded,
            RefusalKind::Unavailable,
            RefusalKind::Corrupt,
            RefusalKind::Unauthenticated,
            RefusalKind::Denied,
            RefusalKind::Unsupported,
        ]
    }

    #[test]
    fn every_refusal_survives_both_forms() {
        for kind in every_kind() {
            for applied in [Applied::No, Applied::Unknown] {
                let refusal = Refusal { kind: kind.clone(), applied, message: "no leader is known term=7".into() };
                assert_eq!(refusal_from(refusal_to(&refusal)), refusal);
                assert_eq!(refusal_from_status(&status_from_refusal(&refusal)), refusal);
            }
        }
    }

    #[test]
    fn a_status_without_our_marker_may_have_changed_something() {
        for code in [Code::Unavailable, Code::InvalidArgument, Code::Cancelled, Code::Unknown, Code::Unimplemented] {
            assert_eq!(refusal_from_status(&Status::new(code, "from a proxy")).applied, Applied::Unknown);
        }
        let foreign = ErrorDetails::with_error_info("NO_LEADER", "example.com", [(APPLIED.to_owned(), "no".to_owned())]);
        let status = Status::with_error_details(Code::Unavailable, "not ours", foreign);
        assert_eq!(refusal_from_status(&status).applied, Applied::Unknown);
    }

    #[test]
    fn a_hint_without_an_address_is_no_leader_and_an_unknown_reason_is_unavailable() {
        let reason = v1::RefusalReason::NotLeader.into();
        let hint = Some(v1::Leader { node: 2, address: "x".repeat(ADDRESS_BYTES_MAX + 1) });
        for leader in [None, hint] {
            let refusal = refusal_from(v1::Refusal { reason, not_applied: true, leader, ..Default::default() });
            assert_eq!(refusal, Refusal::not_applied(RefusalKind::NoLeader, ""));
        }
        let unknown = refusal_from(v1::Refusal { reason: 99, ..Default::default() });
        assert_eq!(unknown, Refusal::unknown(RefusalKind::Unavailable, ""));
    }

    /// Clients take 8 KiB of headers, some no more, and lose the status or the connection above it.
    #[test]
    fn no_refusal_is_longer_than_what_a_client_takes_of_headers() {
        for kind in every_kind() {
            let kind = match kind {
                RefusalKind::NotLeader(hint) => {
                    RefusalKind::NotLeader(LeaderHint { address: "x".repeat(ADDRESS_BYTES_MAX), ..hint })
                }
                kind => kind,
            };
            // Each byte of it takes three in a header.
            let refusal = Refusal::not_applied(kind, "é\n".repeat(MESSAGE_BYTES_MAX));
            for status in [status_from_refusal(&refusal), unread(&Status::out_of_range("é\n".repeat(MESSAGE_BYTES_MAX)))] {
                let response = status.into_http::<()>();
                let bytes: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
                assert!(bytes < 4096, "{bytes}");
            }
        }
    }

    #[test]
    fn what_the_transport_could_not_read_changed_nothing() {
        let status = unread(&Status::out_of_range("decoded message length too large"));
        assert_eq!(status.code(), Code::OutOfRange);
        let refusal = refusal_from_status(&status);
        assert_eq!((refusal.kind, refusal.applied), (RefusalKind::Invalid, Applied::No));
    }

    #[test]
    fn hostile_messages_and_delays_are_cut_to_their_bounds() {
        let message = "é".repeat(MESSAGE_BYTES_MAX);
        let reason = v1::RefusalReason::Overloaded.into();
        let refusal = refusal_from(v1::Refusal { reason, message, retry_after_ms: u64::MAX, ..Default::default() });
        assert_eq!(refusal.message.len(), MESSAGE_BYTES_MAX);
        assert_eq!(refusal.kind, RefusalKind::Overloaded { retry_after: RETRY_AFTER_MAX });
    }
}
