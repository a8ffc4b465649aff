//! The replicas' digest: a sum of one hash per record, so that it is kept up with each change and does not depend on order or layout.
//!
//! It finds divergence, not forgery. Its definition is part of the cluster version: every node of a version must compute the same.

use std::collections::VecDeque;

use crate::limits::{DIGESTS_KEPT, intervals};
pub(crate) use crate::types::mix;

/// Ends a byte string.
const END: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hash of a byte string, its length included.
pub(crate) fn bytes(start: u64, data: &[u8]) -> u64 {
    let (words, rest) = data.as_chunks::<8>();
    let hash = words.iter().fold(mix(start, data.len() as u64), |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(mix(hash, u64::from_le_bytes(last)), END)
}

/// The share of one record in the digest.
pub(crate) fn row(table: u8, key: &[u8], value: &[u8]) -> u64 {
    bytes(bytes(u64::from(table), key), value)
}

/// Whether the digest after this index is kept.
pub(crate) fn is_noted(index: u64) -> bool {
    index.is_multiple_of(intervals().digest_entries)
}

/// Digests of the past, for replicas that are not at the same index.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    kept: VecDeque<(u64, u64)>,
}

impl History {
    /// Keeps the digest after `index`.
    pub(crate) fn note(&mut self, index: u64, digest: u64) {
        if self.kept.len() == DIGESTS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((index, digest));
    }

    /// The digest kept after `index`.
    pub(crate) fn at(&self, index: u64) -> Option<u64> {
        let position = self.kept.binary_search_by_key(&index, |(kept, _)| *kept).ok()?;
        self.kept.get(position).map(|(_, digest)| *digest)
    }
}
