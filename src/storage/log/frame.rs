//! One frame of the log: bytes to be written, and bytes read back with a verdict that needs no other frame.
//!
//! ```text
//! 0 magic u32 | 4 crc32c u32 | 8 kind u8, 3 zero | 12 payload bytes u32 | 16 segment u64 | 24 offset u32 | 28 batch_start u32
//! 32 term u64 | 40 node u64 | 48 index u64 | 56 payload ... | zeros up to a multiple of 8
//! ```
//!
//! All numbers are little-endian. The crc covers everything from byte 8 to the end of the payload, and with it the frame's own
//! place: bytes of a recycled segment, or of a payload that looks like a frame, never parse (L23).

use bytes::Bytes;

use super::head::Head;
use crate::mutant::{self, Mutant};
use crate::types::{LogId, NodeId, OutOfRange};

/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 56;
/// Frames start at multiples of this.
pub(super) const ALIGNMENT: usize = 8;
/// Longest vote, in bytes.
pub(super) const VOTE_BYTES_MAX: usize = 256;
/// Longest frame that starts a segment.
pub(super) const START_BYTES_MAX: u32 = frame_bytes(START_FIXED_BYTES + VOTE_BYTES_MAX);

const MAGIC: u32 = u32::from_le_bytes(*b"QLG1");
const START_FIXED_BYTES: usize = 8 + 4 + 1 + 25 + 25 + 8 + 2;

/// The content of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The first frame of a segment: what the log was before it.
    Start(Start),
    /// One entry.
    Entry(LogId, Bytes),
    /// The vote, opaque.
    Vote(Bytes),
    /// Everything after this entry is gone; all, without one.
    Truncate(Option<LogId>),
    /// Everything up to and including this entry is gone.
    Purge(LogId),
    /// Says nothing; proves that the batch before it was synced.
    Idle,
}

impl Content {
    /// Whether its numbers may be what they say: a checksum only says that they were written so. Errors: the first that is out of range.
    pub fn bounded(&self) -> Result<(), OutOfRange> {
        let ids = match self {
            Self::Start(Start { head, .. }) => [head.purged, head.last],
            Self::Entry(id, _) | Self::Truncate(Some(id)) | Self::Purge(id) => [Some(*id), None],
            Self::Vote(_) | Self::Truncate(None) | Self::Idle => [None, None],
        };
        ids.into_iter().flatten().try_for_each(|id| id.bounded().map(drop))
    }
}

/// The state of the log at the start of a segment, and where the segment before it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The segment before; 0: there is none.
    pub predecessor: u64,
    /// Its first byte that does not belong to the log.
    pub predecessor_end: u32,
    /// The log up to there.
    pub head: Head,
}

/// A frame that verified.
#[derive(Debug)]
pub(super) struct Frame {
    /// Offset of the first frame of its batch; everything before that was synced before this frame was written.
    pub batch_start: u32,
    /// Bytes up to the next frame.
    pub bytes: u32,
    /// Its content.
    pub content: Content,
}

/// Where a frame lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Segment id.
    pub segment: u64,
    /// Offset in it.
    pub offset: u32,
}

/// Bytes a frame with such a payload takes.
pub(super) const fn frame_bytes(payload_bytes: usize) -> u32 {
    (HEADER_BYTES + payload_bytes).next_multiple_of(ALIGNMENT) as u32
}

/// A frame ready to be written: header, payload, and zeros to fill up.
pub(super) struct Encoded {
    /// Everything before the payload.
    pub header: [u8; HEADER_BYTES],
    /// The payload, shared with the appender.
    pub payload: Bytes,
}

impl Encoded {
    /// Zeros after the payload.
    pub fn padding(&self) -> &'static [u8] {
        const ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];
        let end = HEADER_BYTES + self.payload.len();
        &ZEROS[..end.next_multiple_of(ALIGNMENT) - end]
    }
}

/// The frame for `content` at a place, in the batch that starts at `batch_start` of the same segment.
pub(super) fn encode(content: &Content, place: Place, batch_start: u32) -> Encoded {
    assert!(batch_start <= place.offset, "a batch starts at or before its frames batch_start={batch_start} place={place:?}");
    let none = LogId::default();
    let (kind, id, payload) = match content {
        Content::Start(start) => (1, none, encode_start(start)),
        Content::Entry(id, payload) => (2, *id, payload.clone()),
        Content::Vote(vote) => (3, none, vote.clone()),
        Content::Truncate(Some(id)) => (4, *id, Bytes::new()),
        Content::Truncate(None) => (5, none, Bytes::new()),
        Content::Purge(id) => (6, *id, Bytes::new()),
        Content::Idle => (7, none, Bytes::new()),
    };
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[8] = kind;
    header[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[16..24].copy_from_slice(&place.segment.to_le_bytes());
    header[24..28].copy_from_slice(&place.offset.to_le_bytes());
    header[28..32].copy_from_slice(&batch_start.to_le_bytes());
    header[32..40].copy_from_slice(&id.term.to_le_bytes());
    header[40..48].copy_from_slice(&id.node.0.to_le_bytes());
    header[48..56].copy_from_slice(&id.index.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[8..]), &payload);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    Encoded { header, payload }
}

/// Whether the bytes at `offset` of a segment claim to be a frame of this very place: perhaps torn, but once written here.
pub(super) fn has_trace(segment: &[u8], id: u64, offset: u32) -> bool {
    segment
        .get(offset as usize..)
        .is_some_and(|rest| u32_at(rest, 0) == Some(MAGIC) && u64_at(rest, 16) == Some(id) && u32_at(rest, 24) == Some(offset))
}

/// The frame at `offset` of a segment, if it verifies. `segment` holds the segment from its first byte.
pub(super) fn decode(segment: &Bytes, place: Place) -> Option<Frame> {
    if !has_trace(segment, place.segment, place.offset) {
        return None;
    }
    decode_at(&segment.slice(place.offset as usize..), place)
}

/// The frame at the start of `bytes`, which were read at `place`, if it verifies.
pub(super) fn decode_at(bytes: &Bytes, place: Place) -> Option<Frame> {
    if !(u32_at(bytes, 0)? == MAGIC && u64_at(bytes, 16)? == place.segment && u32_at(bytes, 24)? == place.offset) {
        return None;
    }
    let payload_bytes = u32_at(bytes, 12)? as usize;
    let end = HEADER_BYTES.checked_add(payload_bytes)?;
    let covered = bytes.get(8..end)?;
    if crc32c::crc32c(covered) != u32_at(bytes, 4)? && !mutant::is(Mutant::NoChecksum) {
        return None;
    }
    let batch_start = u32_at(bytes, 28)?;
    if batch_start > place.offset {
        return None;
    }
    let id = LogId { term: u64_at(bytes, 32)?, node: NodeId(u64_at(bytes, 40)?), index: u64_at(bytes, 48)? };
    let payload = bytes.slice(HEADER_BYTES..end);
    let content = match bytes.get(8)? {
        1 => Content::Start(decode_start(&payload)?),
        2 => Content::Entry(id, payload),
        3 => Content::Vote(payload),
        4 => Content::Truncate(Some(id)),
        5 => Content::Truncate(None),
        6 => Content::Purge(id),
        7 => Content::Idle,
        _ => return None,
    };
    Some(Frame { batch_start, bytes: frame_bytes(payload_bytes), content })
}

fn encode_start(start: &Start) -> Bytes {
    let mut out = Vec::with_capacity(START_FIXED_BYTES);
    out.extend_from_slice(&start.predecessor.to_le_bytes());
    out.extend_from_slice(&start.predecessor_end.to_le_bytes());
    out.push(u8::from(start.head.vote.is_some()));
    put_id(&mut out, start.head.purged);
    put_id(&mut out, start.head.last);
    out.extend_from_slice(&start.head.first.to_le_bytes());
    let vote = start.head.vote.as_deref().unwrap_or_default();
    out.extend_from_slice(&(vote.len() as u16).to_le_bytes());
    out.extend_from_slice(vote);
    out.into()
}

fn decode_start(payload: &Bytes) -> Option<Start> {
    let has_vote = *payload.get(12)? == 1;
    let vote_bytes = usize::from(u16::from_le_bytes(payload.get(71..73)?.try_into().ok()?));
    if payload.len() != START_FIXED_BYTES + vote_bytes {
        return None;
    }
    let head = Head {
        vote: has_vote.then(|| payload.slice(START_FIXED_BYTES..)),
        purged: get_id(payload, 13)?,
        last: get_id(payload, 38)?,
        first: u64_at(payload, 63)?,
    };
    let is_ordered = head.last.is_none_or(|last| head.first <= last.index)
        && (head.last.is_none() || head.purged.is_none_or(|purged| purged.index < head.first));
    if !is_ordered {
        return None;
    }
    Some(Start { predecessor: u64_at(payload, 0)?, predecessor_end: u32_at(payload, 8)?, head })
}

fn put_id(out: &mut Vec<u8>, id: Option<LogId>) {
    let LogId { term, node, index } = id.unwrap_or_default();
    out.push(u8::from(id.is_some()));
    for part in [term, node.0, index] {
        out.extend_from_slice(&part.to_le_bytes());
    }
}

/// The outer `None`: no such bytes.
#[allow(clippy::option_option, reason = "an absent log id differs from absent bytes")]
fn get_id(bytes: &[u8], at: usize) -> Option<Option<LogId>> {
    let id = LogId { term: u64_at(bytes, at + 1)?, node: NodeId(u64_at(bytes, at + 9)?), index: u64_at(bytes, at + 17)? };
    Some((*bytes.get(at)? == 1).then_some(id))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(content: &Content, place: Place) -> Bytes {
        let frame = encode(content, place, place.offset);
        let mut bytes = vec![0; place.offset as usize];
        bytes.extend_from_slice(&frame.header);
        bytes.extend_from_slice(&frame.payload);
        bytes.extend_from_slice(frame.padding());
        bytes.into()
    }

    fn samples() -> Vec<Content> {
        let id = LogId { term: 3, node: NodeId(2), index: 9 };
        let head = Head { vote: Some(Bytes::from_static(b"vote")), purged: Some(id), first: 10, last: None };
        vec![
            Content::Start(Start { predecessor: 4, predecessor_end: 77, head }),
            Content::Start(Start { predecessor: 0, predecessor_end: 0, head: Head::default() }),
            Content::Entry(id, Bytes::from_static(b"payload")),
            Content::Vote(Bytes::from_static(b"v")),
            Content::Truncate(Some(id)),
            Content::Truncate(None),
            Content::Purge(id),
            Content::Idle,
        ]
    }

    #[test]
    fn every_content_reads_back_and_only_at_its_own_place() {
        let place = Place { segment: 7, offset: 64 };
        for content in samples() {
            let bytes = written(&content, place);
            let frame = decode(&bytes, place).expect("it was written so");
            assert_eq!((frame.content, frame.bytes as usize), (content, bytes.len() - 64));
            assert!(decode(&bytes, Place { segment: 8, ..place }).is_none());
            assert!(decode_at(&bytes.slice(64..), Place { offset: 72, ..place }).is_none());
            assert!(decode_at(&bytes.slice(64..), Place { segment: 8, ..place }).is_none());
        }
    }

    /// A frame whose checksum is right all the same.
    #[test]
    fn a_number_that_is_out_of_range_is_refused_in_every_content() {
        let id = LogId { term: 3, node: NodeId(2), index: crate::limits::NUMBER_MAX + 1 };
        let head = |purged, last| {
            Content::Start(Start { predecessor: 0, predecessor_end: 0, head: Head { vote: None, purged, first: 0, last } })
        };
        let contents = [
            Content::Entry(id, Bytes::new()),
            Content::Truncate(Some(id)),
            Content::Purge(id),
            head(Some(id), None),
            head(None, Some(id)),
        ];
        for content in contents {
            let read = decode(&written(&content, Place { segment: 7, offset: 64 }), Place { segment: 7, offset: 64 })
                .expect("it verifies");
            let error = read.content.bounded().expect_err("one above");
            assert_eq!((error.field, error.value), ("log_id.index", id.index), "{content:?}");
        }
        samples().iter().for_each(|content| content.bounded().expect("within"));
    }

    #[test]
    fn a_flipped_bit_or_a_missing_byte_never_verifies() {
        let place = Place { segment: 7, offset: 0 };
        for content in samples() {
            let whole = written(&content, place);
            let end = HEADER_BYTES + encode(&content, place, 0).payload.len();
            for bit in 0..end * 8 {
                let mut bytes = whole.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&bytes.into(), place).is_none(), "content={content:?} bit={bit}");
            }
            for len in 0..end {
                assert!(decode(&whole.slice(..len), place).is_none());
            }
        }
    }
}
