//! Bytes counted for as long as something is held: writes in flight, content that waits for its reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{LISTED_BYTES, LOADED_BYTES_MAX, LOADED_RESERVE_BYTES, SMALL_ANSWER_BYTES};
use crate::types::{Blob, ListPage, Loaded, LoadedContent};

/// Bytes counted in a shared counter for as long as this lives.
#[derive(Debug, Default)]
pub struct Charge {
    counter: Option<Arc<AtomicU64>>,
    /// A second one that counts the same.
    also: Option<Arc<AtomicU64>>,
    bytes: u64,
}

impl Charge {
    /// Counts `bytes`, unless the counter then exceeds `limit`. A single charge always fits into an empty counter.
    pub fn within(counter: &Arc<AtomicU64>, bytes: u64, limit: u64) -> Option<Self> {
        let before = counter.fetch_add(bytes, Ordering::Relaxed);
        let charge = Self { counter: Some(counter.clone()), also: None, bytes };
        (before == 0 || before.saturating_add(bytes) <= limit).then_some(charge)
    }

    /// Counts `bytes`, whatever is counted already.
    pub fn always(counter: &Arc<AtomicU64>, bytes: u64) -> Self {
        counter.fetch_add(bytes, Ordering::Relaxed);
        Self { counter: Some(counter.clone()), also: None, bytes }
    }

    /// Counts the same in a second counter, which has it already, for as long as it lives.
    pub fn with(mut self, counted: &Arc<AtomicU64>) -> Self {
        self.also = Some(counted.clone());
        self
    }

    /// Counts it in a share too, unless that then exceeds `limit`; whether it does not. A single charge always fits into an empty share.
    pub fn share(&mut self, share: &Arc<AtomicU64>, limit: u64) -> bool {
        let before = share.fetch_add(self.bytes, Ordering::Relaxed);
        self.also = Some(share.clone());
        before == 0 || before.saturating_add(self.bytes) <= limit
    }

    /// What it counts.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        for counter in self.counter.iter().chain(&self.also) {
            counter.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// Content that was read and waits for its reader, over all readers of a node. Cheap to clone.
#[derive(Clone, Default)]
pub struct LoadedRoom(Arc<AtomicU64>);

impl LoadedRoom {
    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether an answer of so many bytes may be read now: small ones have a reserve.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let reserve = if bytes <= SMALL_ANSWER_BYTES { LOADED_RESERVE_BYTES } else { 0 };
        self.bytes() <= LOADED_BYTES_MAX + reserve
    }

    /// Whether so much is held that nothing more is to be read before some of it is gone. What is read then exceeds
    /// [`LOADED_BYTES_MAX`] by at most one answer for each thread that reads.
    pub fn is_full(&self) -> bool {
        self.bytes() > LOADED_BYTES_MAX
    }

    /// Counts so many bytes more.
    pub fn charge(&self, bytes: u64) -> Charge {
        Charge::always(&self.0, bytes)
    }

    /// Counts an answer.
    pub(super) fn charge_loaded(&self, loaded: &Loaded) -> Charge {
        match loaded {
            Loaded::NotFound { .. } | Loaded::NotModified => Charge::default(),
            Loaded::Tail(content) | Loaded::Full(content) => self.charge(content_bytes(content)),
        }
    }

    /// Counts a page.
    pub(super) fn charge_page(&self, page: &ListPage) -> Charge {
        self.charge(page.sessions.iter().map(|session| session.id.as_str().len() as u64 + LISTED_BYTES).sum())
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
    fn a_charge_above_the_limit_is_refused_and_counts_nothing() {
        let counter = Arc::new(AtomicU64::new(0));
        let first = Charge::within(&counter, 60, 100).expect("room for it");
        assert!(Charge::within(&counter, 60, 100).is_none());
        assert_eq!(counter.load(Ordering::Relaxed), 60);
        drop(first);
        assert_eq!(counter.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_single_charge_above_the_limit_fits_into_an_empty_counter() {
        let counter = Arc::new(AtomicU64::new(0));
        let large = Charge::within(&counter, 1000, 100).expect("nothing else is in flight");
        assert_eq!(large.bytes(), 1000);
        assert!(Charge::within(&counter, 1, 100).is_none());
    }

    #[test]
    fn a_share_is_counted_beside_the_whole_and_given_back_with_it() {
        let (room, share) = (LoadedRoom::default(), Arc::new(AtomicU64::new(0)));
        let (mut first, mut second) = (room.charge(60), room.charge(60));
        assert!(first.share(&share, 100) && !second.share(&share, 100));
        drop(second);
        assert_eq!((room.bytes(), share.load(Ordering::Relaxed)), (60, 60));
        drop(first);
        assert_eq!((room.bytes(), share.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn room_is_full_only_above_its_limit_and_until_enough_is_gone() {
        let room = LoadedRoom::default();
        let half = room.charge(LOADED_BYTES_MAX / 2);
        let rest = room.charge(LOADED_BYTES_MAX / 2);
        assert!(!room.is_full());
        let more = room.charge(1);
        assert!(room.is_full() && !room.has_room_for(SMALL_ANSWER_BYTES + 1));
        assert!(room.has_room_for(SMALL_ANSWER_BYTES), "small answers have a reserve");
        let reserve = room.charge(LOADED_RESERVE_BYTES);
        assert!(!room.has_room_for(0));
        drop(reserve);
        drop((half, more));
        assert!(!room.is_full());
        drop(rest);
        assert_eq!(room.bytes(), 0);
    }
}
