//! Messages to and from [`crate::types`], one file for each kind of operation.
//!
//! Incoming messages are validated: an error is a [`Refusal`] of kind `Invalid` that names the field and both sides. Outgoing ones are our
//! own and convert without a check.

mod change;
mod members;
mod outcome;
mod read;
mod status;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transaction_tests;
mod watch;
mod write;

use std::fmt::Display;

use bytes::Bytes;

pub use members::{member_change_from, member_change_to, members_from, members_to};
pub use outcome::{outcome_from, outcome_to};
pub use read::{list_from, list_page_from, list_page_to, list_to, load_from, load_many_from, load_many_to, load_to};
pub use status::{node_status_from, node_status_to};
pub use watch::{watch_frame_from, watch_frame_to, watch_from, watch_to};
pub use write::{verify_blobs, write_from, write_to};

pub(super) use change::{blob_from_parts, codec_from, codec_to, item_count};
pub(super) use read::{info_from, info_to};

use crate::limits::{COUNTERS_MAX, NUMBER_MAX};
use crate::types::{ClusterId, Counters, Fence, Holder, Label, Nonce, Refusal, Sequence, SessionId};

/// Largest sequence the wire takes; far beyond any client's life, so that no sum with it overflows.
const SEQUENCE_MAX: u64 = u64::MAX >> 1;

/// The cluster a call names: `None` where it is empty, as calls without a client and a base may leave it.
///
/// Errors: `Invalid` for any other length than 0 or 16.
pub fn cluster_id_from(bytes: &[u8]) -> Result<Option<ClusterId>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    match ClusterId::from_slice(bytes) {
        Some(id) => Ok(Some(id)),
        None => Err(wrong_length("cluster_id", bytes.len())),
    }
}

/// 16 bytes, or none.
pub fn cluster_id_to(id: Option<ClusterId>) -> Bytes {
    id.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes()))
}

pub(super) fn missing(field: &str) -> Refusal {
    Refusal::invalid(format!("field is missing field={field}"))
}

pub(super) fn out_of_range(field: impl Display, value: impl Display, min: impl Display, max: impl Display) -> Refusal {
    Refusal::invalid(format!("field is out of range field={field} value={value} min={min} max={max}"))
}

pub(super) fn unknown_value(field: &str, value: i32) -> Refusal {
    Refusal::invalid(format!("field has an unknown value field={field} value={value}"))
}

fn wrong_length(field: &str, bytes: usize) -> Refusal {
    Refusal::invalid(format!("field has a wrong length field={field} bytes={bytes} expected=16"))
}

pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T, Refusal> {
    value.ok_or_else(|| missing(field))
}

/// `field` is written out only for an error.
fn in_range(field: impl Display, value: u64, min: u64, max: u64) -> Result<u64, Refusal> {
    if value < min || value > max {
        return Err(out_of_range(field, value, min, max));
    }
    Ok(value)
}

fn label_from(label: &str) -> Result<Label, Refusal> {
    Label::new(label).map_err(|error| Refusal::invalid(format!("{error} field=label")))
}

fn fence_from(field: &str, fence: u64) -> Result<Fence, Refusal> {
    in_range(field, fence, 1, NUMBER_MAX).map(Fence)
}

fn holder_from(field: &str, holder: &str) -> Result<Holder, Refusal> {
    Holder::new(holder).map_err(|error| Refusal::invalid(format!("{error} field={field}")))
}

fn session_id(field: &str, id: &str) -> Result<SessionId, Refusal> {
    SessionId::new(id).map_err(|error| Refusal::invalid(format!("{error} field={field}")))
}

fn nonce(bytes: &[u8]) -> Result<Nonce, Refusal> {
    Nonce::from_slice(bytes).ok_or_else(|| wrong_length("nonce", bytes.len()))
}

fn sequence(field: &str, value: u64, min: u64) -> Result<Sequence, Refusal> {
    in_range(field, value, min, SEQUENCE_MAX).map(Sequence)
}

pub(super) fn counters(values: Vec<u64>) -> Result<Counters, Refusal> {
    let count = values.len();
    Counters::new(values).ok_or_else(|| out_of_range("counters", count, 0, COUNTERS_MAX))
}
