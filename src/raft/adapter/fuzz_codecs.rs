//! The decoders of what openraft's own entries, votes and snapshots are in the log and in the state, each with its encoder: for the search
//! for bytes that break one. Nothing else calls it.

use bytes::Bytes;

use super::state_machine::{stored_membership_from, stored_membership_to};
use super::types::{payload_from_bytes, payload_to_bytes, vote_from_bytes, vote_to_bytes};

/// An entry's payload, decoded and encoded again; none: it is refused.
pub fn payload(bytes: &[u8]) -> Option<Bytes> {
    payload_from_bytes(Bytes::copy_from_slice(bytes)).ok().map(|payload| payload_to_bytes(&payload))
}

/// A vote.
pub fn vote(bytes: &[u8]) -> Option<Bytes> {
    vote_from_bytes(bytes).ok().map(|vote| vote_to_bytes(&vote))
}

/// The membership that a state or a snapshot carries.
pub fn membership(bytes: &[u8]) -> Option<Bytes> {
    stored_membership_from(bytes).ok().map(|membership| stored_membership_to(&membership))
}
