//! Repacking: some consecutive chunks of a session are replaced by others with the same items.

use super::{Chunk, Revision, SessionId};

/// Chunks of a session replaced by fewer ones with the same items; its content stays, and with it its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repack {
    /// The session.
    pub id: SessionId,
    /// The log index that created it.
    pub create_revision: Revision,
    /// Its [`first_chunk`](super::SessionInfo::first_chunk). Those that the last repack made are replaced together with the ones from here on ...
    pub first_chunk: u64,
    /// ... to the one before this number, which is its first chunk from then on.
    pub until_chunk: u64,
    /// The sum of the chunks to be replaced, from the session's first item on. The leader compares it with their rows before it proposes.
    pub old: ChunkSum,
    /// The chunks in their place, at least one, and fewer.
    pub chunks: Vec<Chunk>,
}

/// The sum of what consecutive chunks hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkSum {
    /// Their items.
    pub items: u64,
    /// Their bytes after unpacking.
    pub raw_bytes: u64,
    /// Their bytes as stored.
    pub stored_bytes: u64,
    /// The wrapping sum of their [`chunk_hash`]es.
    pub hash: u64,
}

impl ChunkSum {
    /// Of chunks in their order, the first of which begins with the session's first item.
    pub fn of<'c>(chunks: impl IntoIterator<Item = &'c Chunk>) -> Self {
        let mut sum = Self::default();
        chunks.into_iter().for_each(|chunk| sum.add(sum.items, chunk));
        sum
    }

    /// Adds a chunk that begins with this item of its session.
    pub fn add(&mut self, first_item: u64, chunk: &Chunk) {
        self.items = self.items.saturating_add(chunk.item_count);
        self.raw_bytes = self.raw_bytes.saturating_add(chunk.blob.raw_bytes);
        self.stored_bytes = self.stored_bytes.saturating_add(chunk.blob.stored_bytes());
        self.hash = self.hash.wrapping_add(chunk_hash(first_item, chunk));
    }
}

/// The share of a chunk in the hash of its session's content: a mix over its first item, its number of items, its raw bytes and its
/// checksum, from 0.
pub fn chunk_hash(first_item: u64, chunk: &Chunk) -> u64 {
    let parts = [first_item, chunk.item_count, chunk.blob.raw_bytes, u64::from(chunk.blob.crc32c)];
    parts.into_iter().fold(0, mix)
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Folds one number into a hash; order matters.
pub fn mix(hash: u64, value: u64) -> u64 {
    let folded = (hash.rotate_left(23) ^ value).wrapping_mul(MULTIPLIER);
    folded ^ (folded >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Blob;

    /// A client in another language computes the same: numbers to compare with.
    #[test]
    fn the_sum_of_chunks_is_as_it_is_written_down() {
        let chunk = |item_count, data: &'static [u8]| Chunk { item_count, blob: Blob::plain(data.into()) };
        let (first, second) = (chunk(2, b"one two"), chunk(1, b"three"));
        let sum = ChunkSum::of([&first, &second]);
        let hash = chunk_hash(0, &first).wrapping_add(chunk_hash(2, &second));
        assert_eq!(sum, ChunkSum { items: 3, raw_bytes: 12, stored_bytes: 12, hash });
        assert_eq!(mix(0, 1), 0x9e37_79b9_7f4a_7c15 ^ (0x9e37_79b9_7f4a_7c15 >> 29));
        assert_ne!(ChunkSum::of([&second, &first]).hash, hash, "items in another order are others");
    }
}
