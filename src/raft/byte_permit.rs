//! Bytes counted for as long as something is held: writes in flight, content that waits for its reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{LISTED_BYTES, LOADED_BYTES_MAX, LOADED_RESERVE_BYTES, SMALL_ANSWER_BYTES};
use crate::types::{Blob, Lease, ListPage, Listed, Loaded, LoadedContent};

/// Bytes counted in a shared counter for as long as this lives.
#[derive(Debug, Default)]
pub struct BytePermit {
    counter: Option<Arc<AtomicU64>>,
    /// Others that count the same.
    also: [Option<Arc<AtomicU64>>; 2],
    bytes: u64,
}

impl BytePermit {
    /// Counts `bytes`, unless the counter then exceeds `limit`. A single one always fits into an empty counter.
    pub fn within(counter: &Arc<AtomicU64>, bytes: u64, limit: u64) -> Option<Self> {
        let before = counter.fetch_add(bytes, Ordering::Relaxed);
        let permit = Self { counter: Some(counter.clone()), also: [None, None], bytes };
        (before == 0 || before.saturating_add(bytes) <= limit).then_some(permit)
    }

    /// Counts `bytes`, whatever is counted already.
    pub fn always(counter: &Arc<AtomicU64>, bytes: u64) -> Self {
        counter.fetch_add(bytes, Ordering::Relaxed);
        Self { counter: Some(counter.clone()), also: [None, None], bytes }
    }

    /// Counts the same in a second counter, which has it already, for as long as it lives.
    pub fn with(mut self, counted: &Arc<AtomicU64>) -> Self {
        self.count_in(counted.clone());
        self
    }

    /// Counts it in a share too, at most in two; whether that does not exceed `limit` then. A single one always fits into an empty share.
    pub fn share(&mut self, share: Arc<AtomicU64>, limit: u64) -> bool {
        let before = share.fetch_add(self.bytes, Ordering::Relaxed);
        self.count_in(share);
        before == 0 || before.saturating_add(self.bytes) <= limit
    }

    fn count_in(&mut self, counter: Arc<AtomicU64>) {
        let free = self.also.iter_mut().find(|also| also.is_none()).expect("nothing is counted for more than two beside the whole");
        *free = Some(counter);
    }

    /// Counts so much only from now on, where that is less: the rest is gone.
    pub fn shrink_to(&mut self, bytes: u64) {
        let gone = self.bytes.saturating_sub(bytes);
        if gone > 0 {
            self.give_back(gone);
            self.bytes = bytes;
        }
    }

    fn give_back(&self, bytes: u64) {
        for counter in self.counter.iter().chain(self.also.iter().flatten()) {
            counter.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// The bytes it counts.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for BytePermit {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

/// Content that was read and waits for its reader, over all readers of a node. Cheap to clone.
#[derive(Clone, Default)]
pub struct ReadBudget(Arc<AtomicU64>);

impl ReadBudget {
    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether an answer of so many bytes may be read now: small ones have a reserve.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let reserve = if bytes <= SMALL_ANSWER_BYTES { LOADED_RESERVE_BYTES } else { 0 };
        self.bytes() <= LOADED_BYTES_MAX + reserve
    }

    /// Whether nothing more may be read until some bytes are gone. Reads under way then exceed [`LOADED_BYTES_MAX`] by at most one answer
    /// for each thread that reads.
    pub fn is_full(&self) -> bool {
        self.bytes() > LOADED_BYTES_MAX
    }

    /// Counts so many bytes more.
    pub fn charge(&self, bytes: u64) -> BytePermit {
        BytePermit::always(&self.0, bytes)
    }

    /// Counts an answer that has so many bytes of content.
    pub(super) fn charge_loaded(&self, bytes: u64) -> BytePermit {
        match bytes {
            0 => BytePermit::default(),
            bytes => self.charge(bytes),
        }
    }

    /// Counts a page.
    pub(super) fn charge_page(&self, page: &ListPage) -> BytePermit {
        let holder = |lease: &Lease| lease.holder.as_str().len();
        let text =
            |Listed { id, info }: &Listed| id.as_str().len() + info.label.as_str().len() + info.lease.as_ref().map_or(0, holder);
        let sessions = page.sessions.iter().map(text);
        let leases = page.leases.iter().map(|(id, lease)| id.as_str().len() + holder(lease));
        self.charge(sessions.chain(leases).map(|text| text as u64 + LISTED_BYTES).sum())
    }
}

/// The bytes of content in an answer.
pub(super) fn loaded_bytes(loaded: &Loaded) -> u64 {
    match loaded {
        Loaded::NotFound { .. } | Loaded::NotModified => 0,
        Loaded::Tail(content) | Loaded::Full(content) | Loaded::Suffix { content, .. } => content_bytes(content),
    }
}

fn content_bytes(content: &LoadedContent) -> u64 {
    let chunks = content.chunks.iter().map(|chunk| chunk.blob.stored_bytes()).sum::<u64>();
    chunks + content.head.as_ref().map_or(0, Blob::stored_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_above_the_limit_is_refused_and_counts_nothing() {
        let counter = Arc::new(AtomicU64::new(0));
        let first = BytePermit::within(&counter, 60, 100).expect("room for it");
        assert!(BytePermit::within(&counter, 60, 100).is_none());
        assert_eq!(counter.load(Ordering::Relaxed), 60);
        drop(first);
        assert_eq!(counter.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_single_permit_above_the_limit_fits_into_an_empty_counter() {
        let counter = Arc::new(AtomicU64::new(0));
        let large = BytePermit::within(&counter, 1000, 100).expect("nothing else is in flight");
        assert_eq!(large.bytes(), 1000);
        assert!(BytePermit::within(&counter, 1, 100).is_none());
    }

    #[test]
    fn a_share_is_counted_beside_the_whole_and_given_back_with_it() {
        let (budget, share) = (ReadBudget::default(), Arc::new(AtomicU64::new(0)));
        let (mut first, mut second) = (budget.charge(60), budget.charge(60));
        assert!(first.share(share.clone(), 100) && !second.share(share.clone(), 100));
        drop(second);
        assert_eq!((budget.bytes(), share.load(Ordering::Relaxed)), (60, 60));
        drop(first);
        assert_eq!((budget.bytes(), share.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn what_is_gone_early_is_given_back_in_the_whole_and_in_both_shares_and_once() {
        let (budget, token, connection) = (ReadBudget::default(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let now = || [budget.bytes(), token.load(Ordering::Relaxed), connection.load(Ordering::Relaxed)];
        let mut permit = budget.charge(60);
        assert!(permit.share(token.clone(), 100) && permit.share(connection.clone(), 100));
        permit.shrink_to(90);
        assert_eq!((now(), permit.bytes()), ([60; 3], 60), "it never counts more");
        permit.shrink_to(20);
        assert_eq!((now(), permit.bytes()), ([20; 3], 20));
        drop(permit);
        assert_eq!(now(), [0; 3]);
    }

    #[test]
    fn the_budget_is_full_only_above_its_limit_and_until_enough_is_gone() {
        let budget = ReadBudget::default();
        let half = budget.charge(LOADED_BYTES_MAX / 2);
        let rest = budget.charge(LOADED_BYTES_MAX / 2);
        assert!(!budget.is_full());
        let more = budget.charge(1);
        assert!(budget.is_full() && !budget.has_room_for(SMALL_ANSWER_BYTES + 1));
        assert!(budget.has_room_for(SMALL_ANSWER_BYTES), "small answers have a reserve");
        let reserve = budget.charge(LOADED_RESERVE_BYTES);
        assert!(!budget.has_room_for(0));
        drop(reserve);
        drop((half, more));
        assert!(!budget.is_full());
        drop(rest);
        assert_eq!(budget.bytes(), 0);
    }
}
