//! Content ↔ chunks and head: how this client packs what the server never looks into.
//!
//! ```text
//! chunk  = item*            item = length (u32, little endian), bytes
//! head   = tag (1 byte), bytes     tag 0: a plain value, 1: the JSON head of a transcript
//! ```
//!
//! Bytes from [`COMPRESS_FROM_BYTES`] on are packed with zstd, if that saves a tenth.

use std::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};
use zstd::zstd_safe::CParameter;

use super::view::Append;
use crate::client::Error;
use crate::limits::{KIB, MIB, REPACKED_CHUNK_BYTES, SESSION_ITEMS_MAX, SESSION_RAW_BYTES_MAX, SESSION_STORED_BYTES_MAX};
use crate::types::{Addition, Base, Blob, Change, Chunk, Codec, Counters, Form, SessionInfo};

/// Raw bytes from which compression pays: what a chunk takes is written to a log and a state file on every node.
const COMPRESS_FROM_BYTES: usize = 1536;
/// Of little, level 1 makes 1 % more than level 3 does, in half the time (decision 0053).
const LITTLE_BYTES: usize = 16 * KIB as usize;
const ZSTD_LEVEL_OF_LITTLE: i32 = 1;
const ZSTD_LEVEL: i32 = 3;
const LENGTH_BYTES: usize = 4;
const TAG_BYTES: u64 = 1;
const TAG_VALUE: u8 = 0;
const TAG_TRANSCRIPT: u8 = 1;

thread_local! {
    /// A context costs more to make than a small blob to pack.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// A head as it is stored, unpacked.
pub(crate) fn tagged(is_transcript: bool, head: &[u8]) -> Bytes {
    let mut tagged = BytesMut::with_capacity(1 + head.len());
    tagged.put_u8(if is_transcript { TAG_TRANSCRIPT } else { TAG_VALUE });
    tagged.extend_from_slice(head);
    tagged.freeze()
}

/// Whether a tagged head is a transcript's, and the head.
pub(crate) fn untagged(head: &Bytes) -> (bool, Bytes) {
    (head.first() == Some(&TAG_TRANSCRIPT), head.slice(head.len().min(1)..))
}

/// The form of content whose head is that, tagged.
pub(crate) fn form(head: &Bytes) -> Form {
    if untagged(head).0 { Form::Transcript } else { Form::Value }
}

/// The change that stores this, whatever was there; `head` is tagged.
///
/// Errors: `Invalid` above the bounds of a session.
pub(crate) fn full(items: &[Bytes], head: &Bytes, counters: Counters) -> Result<Change, Error> {
    check_bounds(items, head)?;
    let change = Change::Full { chunks: pack_items(items), head: pack(head.clone()), counters };
    check_stored(change.stored_bytes())?;
    Ok(change)
}

/// The change that appends to `base`; `head` is tagged.
///
/// Errors: `Invalid` above the bounds of a session.
pub(crate) fn delta(base: Base, append: Append) -> Result<Change, Error> {
    let Append { items, head, counters } = append;
    check_bounds(&items, head.as_ref().unwrap_or(&Bytes::new()))?;
    let change = Change::Delta { base, chunks: pack_items(&items), head: head.map(pack), counters };
    check_stored(change.stored_bytes())?;
    Ok(change)
}

/// The content of an append; `head` is tagged.
///
/// Errors: `Invalid` above the bounds of a session.
pub(crate) fn addition(items: &[Bytes], head: Option<Bytes>, counters: Counters) -> Result<Addition, Error> {
    check_bounds(items, head.as_ref().unwrap_or(&Bytes::new()))?;
    let addition = Addition { chunks: pack_items(items), head_if_created: head.map(pack), counters };
    check_stored(addition.stored_bytes())?;
    Ok(addition)
}

impl SessionInfo {
    /// Bytes of the content as it was given to this client: without the tag and the lengths it packs with them.
    pub fn content_bytes(&self) -> u64 {
        self.raw_bytes.saturating_sub(TAG_BYTES + self.items.saturating_mul(LENGTH_BYTES as u64))
    }
}

/// Sizes are the caller's: of both, what is `ours` is not counted.
fn too_large(when: &str, bytes: u64, limit: u64, ours: u64) -> Error {
    let (given, limit_mib) = (bytes.saturating_sub(ours), limit / MIB);
    // To the hundredth above: no size over the limit looks like the limit.
    let hundredths = (given * 100).div_ceil(MIB);
    let limit = limit.saturating_sub(ours);
    Error::invalid(format!(
        "the session is too large: {}.{:02} MiB {when}, of at most {limit_mib} MiB bytes={given} limit={limit}",
        hundredths / 100,
        hundredths % 100,
    ))
}

fn check_stored(now: u64) -> Result<(), Error> {
    if now > SESSION_STORED_BYTES_MAX {
        return Err(too_large("as it is stored, compressed", now, SESSION_STORED_BYTES_MAX, TAG_BYTES));
    }
    Ok(())
}

fn check_bounds(items: &[Bytes], head: &Bytes) -> Result<(), Error> {
    if items.len() as u64 > SESSION_ITEMS_MAX {
        return Err(Error::invalid(format!("the session has too many items items={} limit={SESSION_ITEMS_MAX}", items.len())));
    }
    let raw = items.iter().map(|item| (LENGTH_BYTES + item.len()) as u64).sum::<u64>() + head.len() as u64;
    if raw > SESSION_RAW_BYTES_MAX {
        let ours = TAG_BYTES + (LENGTH_BYTES * items.len()) as u64;
        return Err(too_large("before compression", raw, SESSION_RAW_BYTES_MAX, ours));
    }
    Ok(())
}

/// Items in chunks of about [`REPACKED_CHUNK_BYTES`] raw.
fn pack_items(items: &[Bytes]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut raw = BytesMut::new();
    let mut item_count = 0;
    for item in items {
        let length = u32::try_from(item.len()).expect("checked: an item is within the raw bytes of a session");
        if item_count > 0 && (raw.len() + LENGTH_BYTES + item.len()) as u64 > REPACKED_CHUNK_BYTES {
            chunks.push(Chunk { item_count, blob: pack(raw.split().freeze()) });
            item_count = 0;
        }
        raw.put_u32_le(length);
        raw.extend_from_slice(item);
        item_count += 1;
    }
    if item_count > 0 {
        chunks.push(Chunk { item_count, blob: pack(raw.freeze()) });
    }
    chunks
}

fn pack(raw: Bytes) -> Blob {
    match compress(&raw) {
        Some(packed) => {
            Blob { codec: Codec::Zstd, raw_bytes: raw.len() as u64, crc32c: crc32c::crc32c(&packed), data: packed.into() }
        }
        None => Blob::plain(raw),
    }
}

/// The packed bytes, where packing pays. Without a context, which only a lack of memory causes, bytes stay as they are.
fn compress(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() < COMPRESS_FROM_BYTES {
        return None;
    }
    let packed = COMPRESSOR.with_borrow_mut(|context| {
        if context.is_none() {
            *context = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        let context = context.as_mut()?;
        let level = if raw.len() <= LITTLE_BYTES { ZSTD_LEVEL_OF_LITTLE } else { ZSTD_LEVEL };
        context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
        context.compress(raw).ok()
    })?;
    (packed.len() <= raw.len() - raw.len() / 10).then_some(packed)
}

/// The items and the tagged head that were stored, from a load whose checksums hold; no head where the load has none.
///
/// Errors: `Corrupt`, where the bytes are not what [`full`] and [`delta`] make, or would unpack to more than a session may have.
pub(crate) fn unpack(chunks: Vec<Chunk>, head: Option<Blob>) -> Result<(Vec<Bytes>, Option<Bytes>), Error> {
    let head_raw = head.as_ref().map_or(0, |head| head.raw_bytes);
    let raw = chunks.iter().map(|chunk| chunk.blob.raw_bytes).fold(head_raw, u64::saturating_add);
    if raw > SESSION_RAW_BYTES_MAX {
        return Err(Error::corrupt(format!("loaded content is too large raw_bytes={raw} limit={SESSION_RAW_BYTES_MAX}")));
    }
    check_items(&chunks)?;
    let head = head.map(unpack_blob).transpose()?;
    match head.as_ref().map(|head| head.first().copied()) {
        None | Some(Some(TAG_TRANSCRIPT)) => {}
        Some(Some(TAG_VALUE)) if chunks.is_empty() => {}
        Some(None) => return Err(Error::corrupt("loaded head has no tag")),
        Some(Some(tag)) => {
            return Err(Error::corrupt(format!("loaded content has an unknown form tag={tag} chunks={}", chunks.len())));
        }
    }
    Ok((unpack_items(chunks)?, head))
}

/// Whether these bytes would be content if they were loaded: for the search for bytes that break the decoder.
pub fn is_readable(chunks: Vec<Chunk>, head: Option<Blob>) -> bool {
    unpack(chunks, head).is_ok()
}

/// Before anything is unpacked: an item takes more memory than the byte it may be packed into.
fn check_items(chunks: &[Chunk]) -> Result<(), Error> {
    let items = chunks.iter().fold(0u64, |all, chunk| all.saturating_add(chunk.item_count));
    if items > SESSION_ITEMS_MAX {
        return Err(Error::corrupt(format!("loaded content has too many items items={items} limit={SESSION_ITEMS_MAX}")));
    }
    let fits = |chunk: &&Chunk| chunk.item_count.saturating_mul(LENGTH_BYTES as u64) <= chunk.blob.raw_bytes;
    if let Some(Chunk { item_count, blob }) = chunks.iter().find(|chunk| !fits(chunk)) {
        let raw = blob.raw_bytes;
        return Err(Error::corrupt(format!("loaded chunk is too small for its items raw_bytes={raw} declared={item_count}")));
    }
    Ok(())
}

/// As many as are declared, and not one more is made.
fn unpack_items(chunks: Vec<Chunk>) -> Result<Vec<Bytes>, Error> {
    let mut items = Vec::new();
    for Chunk { item_count, blob } in chunks {
        let mut raw = unpack_blob(blob)?;
        for count in 0..item_count {
            if raw.is_empty() {
                return Err(Error::corrupt(format!(
                    "loaded chunk has fewer items than it declares items={count} declared={item_count}"
                )));
            }
            items.push(unpack_item(&mut raw)?);
        }
        if !raw.is_empty() {
            let left = raw.len();
            return Err(Error::corrupt(format!("loaded chunk continues behind its items bytes={left} declared={item_count}")));
        }
    }
    Ok(items)
}

fn unpack_item(raw: &mut Bytes) -> Result<Bytes, Error> {
    let cut = || Error::corrupt("loaded chunk ends within an item");
    let length = raw.first_chunk::<LENGTH_BYTES>().map(|bytes| u32::from_le_bytes(*bytes) as usize).ok_or_else(cut)?;
    if raw.len() - LENGTH_BYTES < length {
        return Err(cut());
    }
    let _ = raw.split_to(LENGTH_BYTES);
    Ok(raw.split_to(length))
}

fn unpack_blob(blob: Blob) -> Result<Bytes, Error> {
    match blob.codec {
        Codec::None => Ok(blob.data),
        Codec::Zstd => {
            let declared = usize::try_from(blob.raw_bytes).map_err(|_| Error::corrupt("loaded blob is too large"))?;
            let raw = decompress(&blob.data, declared).ok_or_else(|| Error::corrupt("loaded blob can not be unpacked"))?;
            if raw.len() != declared {
                return Err(Error::corrupt(format!("loaded blob has a wrong length bytes={} declared={declared}", raw.len())));
            }
            Ok(raw.into())
        }
    }
}

fn decompress(packed: &[u8], capacity: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|context| {
        if context.is_none() {
            *context = zstd::bulk::Decompressor::new().ok();
        }
        context.as_mut()?.decompress(packed, capacity).ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::client::ErrorKind;

    fn unpacked(change: Change) -> (Vec<Bytes>, Option<Bytes>) {
        let head = change.head().cloned();
        unpack(change.chunks().to_vec(), head).expect("packed by us")
    }

    fn items() -> impl Strategy<Value = Vec<Bytes>> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from);
        proptest::collection::vec((bytes, 1usize..200).prop_map(|(one, n)| Bytes::from(one.repeat(n))), 0..6)
    }

    proptest! {
        #[test]
        fn content_survives_packing(items in items(), head in proptest::collection::vec(any::<u8>(), 0..100)) {
            let head = tagged(true, &head);
            let change = full(&items, &head, Counters::default()).expect("within bounds");
            prop_assert!(change.blobs().all(Blob::is_intact));
            prop_assert_eq!(unpacked(change), (items.clone(), Some(head)));
            let append = Append { items: items.clone(), head: None, counters: Counters::default() };
            prop_assert_eq!(unpacked(delta(Base::Absent, append).expect("within bounds")), (items, None));
        }

        /// Bytes that another writer made up are an error or content, never a panic.
        #[test]
        fn hostile_bytes_are_content_or_corrupt(head in proptest::collection::vec(0u8..3, 0..9), item in proptest::collection::vec(any::<u8>(), 0..40), packed: bool, raw_bytes in 0u64..100) {
            let blob = |data: Vec<u8>| Blob { codec: if packed { Codec::Zstd } else { Codec::None }, raw_bytes, ..Blob::plain(data.into()) };
            let chunks = vec![Chunk { item_count: 1, blob: blob(item) }];
            if let Err(error) = unpack(chunks, Some(Blob::plain(head.into()))) {
                prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
            }
        }
    }

    #[test]
    fn text_is_packed_where_that_pays_and_noise_is_not() {
        let text = |bytes: usize| pack("all work and no play ".repeat(bytes / 21 + 1).into_bytes().into()).codec;
        assert_eq!(text(1000), Codec::None);
        assert_eq!(text(2000), Codec::Zstd);
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(8192)
        .collect();
        assert_eq!(pack(noise.into()).codec, Codec::None);
    }

    #[test]
    fn a_large_transcript_is_cut_into_chunks_of_a_mebibyte() {
        let items = vec![Bytes::from(vec![b'x'; 300 * 1024]); 10];
        let head = tagged(true, b"{}");
        let change = full(&items, &head, Counters::default()).expect("3 MiB");
        assert_eq!(change.chunks().len(), 4);
        assert_eq!(unpacked(change), (items, Some(head)));
    }

    #[test]
    fn what_is_above_a_bound_is_invalid() {
        let noise = tagged(false, &vec![7u8; SESSION_RAW_BYTES_MAX as usize]);
        assert_eq!(full(&[], &noise, Counters::default()).expect_err("one byte too many").kind(), ErrorKind::Invalid);
        let many = vec![Bytes::new(); SESSION_ITEMS_MAX as usize + 1];
        assert_eq!(full(&many, &Bytes::new(), Counters::default()).expect_err("too many items").kind(), ErrorKind::Invalid);
    }

    /// Items are counted before they are made: by what the chunks declare, and by what a session may have.
    #[test]
    fn no_more_items_are_unpacked_than_are_declared_and_allowed() {
        let zeros = |items: usize| pack(Bytes::from(vec![0; LENGTH_BYTES * items]));
        let refused = |chunks: Vec<Chunk>| {
            let error = unpack(chunks, None).expect_err("it is not as it says");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            error.to_string()
        };
        let chunk = |item_count, blob| Chunk { item_count, blob };
        assert_eq!(unpack(vec![chunk(1000, zeros(1000))], None).expect("as it says").0.len(), 1000);
        let text = refused(vec![chunk(1, zeros(1000))]);
        assert!(text.contains("continues behind its items bytes=3996 declared=1"), "{text}");
        let text = refused(vec![chunk(2, Blob::plain(Bytes::from_static(&[4, 0, 0, 0, 1, 2, 3, 4])))]);
        assert!(text.contains("fewer items than it declares items=1 declared=2"), "{text}");
        // Nothing of these is looked at: they are no packed bytes at all.
        let none = |raw_bytes| Blob { codec: Codec::Zstd, raw_bytes, ..Blob::plain(Bytes::from_static(b"none")) };
        let half = SESSION_ITEMS_MAX / 2 + 1;
        let text = refused(vec![chunk(half, none(4 * half)), chunk(half, none(4 * half))]);
        assert!(text.contains("too many items items=100002 limit=100000"), "{text}");
        let text = refused(vec![chunk(3, none(11))]);
        assert!(text.contains("too small for its items raw_bytes=11 declared=3"), "{text}");
    }

    #[test]
    fn sizes_are_shown_as_what_was_given() {
        let info = |raw_bytes, items| SessionInfo { raw_bytes, items, ..SessionInfo::default() }.content_bytes();
        assert_eq!((info(7, 0), info(1, 0), info(0, 0), info(21, 2)), (6, 0, 0, 12));
        let message = too_large("stored", 20_000_001, SESSION_STORED_BYTES_MAX, TAG_BYTES).to_string();
        assert_eq!(message, "the session is too large: 19.08 MiB stored, of at most 16 MiB bytes=20000000 limit=16777215");
    }

    #[test]
    fn a_blob_that_unpacks_to_more_than_it_declares_is_corrupt() {
        let mut blob = pack(Bytes::from(vec![b'x'; 10_000]));
        blob.raw_bytes = 100;
        assert_eq!(unpack_blob(blob).expect_err("a lie").kind(), ErrorKind::Corrupt);
    }
}
