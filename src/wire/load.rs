//! A load's answer in frames: [`LoadFrames`] splits it, [`LoadAssembler`] puts it together again, bounded.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::convert::{blob_from_parts, codec_from, codec_to, info_from, info_to, item_count, missing, out_of_range, required};
use super::v1;
use crate::limits::{
    FRAME_BYTES_MAX, LABEL_BYTES_MAX, LOAD_MANY_BYTES_MAX, LOAD_MANY_IDS_MAX, SESSION_CHUNKS_MAX, SESSION_STORED_BYTES_MAX,
};
use crate::types::{Blob, Chunk, Codec, Loaded, LoadedContent, Refusal, RefusalKind, Revision, Version};

/// The bytes a piece takes besides its data; an upper bound of its encoding.
const PIECE_OVERHEAD_BYTES: usize = 96;
/// The bytes the start of a load takes; an upper bound of its encoding.
const START_BYTES: usize = 512 + LABEL_BYTES_MAX;

/// The frames of one answer, each at most [`FRAME_BYTES_MAX`] encoded; at least one. Data is shared, not copied.
pub struct LoadFrames {
    start: Option<v1::LoadStart>,
    /// Blobs still to send, the next one last; what is left of it.
    blobs: Vec<(Option<v1::load_piece::Begin>, Bytes)>,
    /// Bytes of those that are here yet: a blob is until its last piece was given, since all its pieces share its memory.
    held_bytes: u64,
    /// Of the blob that was begun, the whole of it.
    begun_bytes: u64,
    done: bool,
}

impl LoadFrames {
    /// Frames of what a read saw at `revision`; `age_ms` only for a stale read: how old what it shows may be.
    pub fn new(revision: Revision, loaded: Loaded, age_ms: Option<u64>) -> Self {
        use v1::load_start::Loaded as Message;
        let (message, content) = match loaded {
            Loaded::NotFound { tombstone } => (Message::NotFound(tombstone.0), None),
            Loaded::NotModified => (Message::NotModified(v1::Empty {}), None),
            Loaded::Tail(content) => (Message::Tail(info_to(&content.info)), Some(content)),
            Loaded::Full(content) => (Message::Full(info_to(&content.info)), Some(content)),
            Loaded::Suffix { first_item, content } => {
                (Message::Suffix(v1::Suffix { info: Some(info_to(&content.info)), first_item }), Some(content))
            }
        };
        let mut blobs = content.map(pieces).unwrap_or_default();
        blobs.reverse();
        let held_bytes = blobs.iter().map(|(_, data)| data.len() as u64).sum();
        let start = v1::LoadStart { revision: revision.0, loaded: Some(message), age_ms };
        Self { start: Some(start), blobs, held_bytes, begun_bytes: 0, done: false }
    }

    /// Bytes of content that are still in memory for the frames to come.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }
}

fn pieces(content: LoadedContent) -> Vec<(Option<v1::load_piece::Begin>, Bytes)> {
    use v1::load_piece::Begin;
    let begin = |blob: &Blob| v1::BlobStart {
        codec: codec_to(blob.codec),
        raw_bytes: blob.raw_bytes,
        crc32c: blob.crc32c,
        stored_bytes: blob.stored_bytes(),
    };
    let head = content.head.map(|head| (Some(Begin::Head(begin(&head))), head.data));
    let chunks = content.chunks.into_iter().map(|chunk| {
        let start = v1::ChunkStart { item_count: chunk.item_count, blob: Some(begin(&chunk.blob)) };
        (Some(Begin::Chunk(start)), chunk.blob.data)
    });
    head.into_iter().chain(chunks).collect()
}

impl Iterator for LoadFrames {
    type Item = v1::LoadFrame;

    fn next(&mut self) -> Option<v1::LoadFrame> {
        (!self.done).then(|| self.frame(&mut { FRAME_BYTES_MAX }))
    }
}

impl LoadFrames {
    /// The next frame, of at most so many bytes, which are taken off: at least [`START_BYTES`] and a piece.
    fn frame(&mut self, room: &mut usize) -> v1::LoadFrame {
        let start = self.start.take();
        *room -= if start.is_some() { START_BYTES } else { 0 };
        let mut pieces = Vec::new();
        while *room > PIECE_OVERHEAD_BYTES
            && let Some((begin, mut data)) = self.blobs.pop()
        {
            if begin.is_some() {
                self.begun_bytes = data.len() as u64;
            }
            let now = data.split_to(data.len().min(*room - PIECE_OVERHEAD_BYTES));
            *room -= PIECE_OVERHEAD_BYTES + now.len();
            pieces.push(v1::LoadPiece { begin, data: now });
            if data.is_empty() {
                self.held_bytes -= self.begun_bytes;
            } else {
                self.blobs.push((None, data));
            }
        }
        self.done = self.blobs.is_empty();
        v1::LoadFrame { start, pieces, last: self.done }
    }
}

/// The frames of answers to loads of several sessions, each at most [`FRAME_BYTES_MAX`] encoded; at least one.
pub struct ManyFrames {
    /// Answers of which something is still to be sent.
    loads: VecDeque<LoadFrames>,
    done: bool,
}

impl ManyFrames {
    /// Frames of what one instant held of each session; `age_ms` as of one load.
    pub fn new(revision: Revision, loaded: Vec<Loaded>, age_ms: Option<u64>) -> Self {
        let loads = loaded.into_iter().map(|loaded| LoadFrames::new(revision, loaded, age_ms)).collect();
        Self { loads, done: false }
    }

    /// Bytes of content that are still in memory for the frames to come.
    pub fn held_bytes(&self) -> u64 {
        self.loads.iter().map(LoadFrames::held_bytes).sum()
    }
}

impl Iterator for ManyFrames {
    type Item = v1::LoadManyFrame;

    fn next(&mut self) -> Option<v1::LoadManyFrame> {
        if self.done {
            return None;
        }
        let (mut room, mut loads) = (FRAME_BYTES_MAX, Vec::new());
        while room > START_BYTES + 2 * PIECE_OVERHEAD_BYTES
            && let Some(load) = self.loads.front_mut()
        {
            // What it takes to lie in this frame.
            room -= PIECE_OVERHEAD_BYTES;
            let frame = load.frame(&mut room);
            if frame.last {
                self.loads.pop_front();
            }
            loads.push(frame);
        }
        self.done = self.loads.is_empty();
        Some(v1::LoadManyFrame { loads, last: self.done })
    }
}

/// The start of a blob whose data is still arriving.
struct Partial {
    /// Items, if it is a chunk; `None` for the head.
    item_count: Option<u64>,
    codec: Codec,
    raw_bytes: u64,
    crc32c: u32,
    stored_bytes: usize,
    data: Arriving,
}

/// Data in one piece is kept as it came; only a second piece makes a copy.
enum Arriving {
    Whole(Bytes),
    Pieces(BytesMut),
}

impl Arriving {
    fn len(&self) -> usize {
        match self {
            Arriving::Whole(data) => data.len(),
            Arriving::Pieces(data) => data.len(),
        }
    }

    fn push(&mut self, more: Bytes, expected: usize) {
        match self {
            Arriving::Whole(data) if data.is_empty() => *data = more,
            Arriving::Whole(data) => {
                let mut pieces = BytesMut::with_capacity(expected);
                pieces.extend_from_slice(data);
                pieces.extend_from_slice(&more);
                *self = Arriving::Pieces(pieces);
            }
            Arriving::Pieces(data) => data.extend_from_slice(&more),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Arriving::Whole(data) => data,
            Arriving::Pieces(data) => data.freeze(),
        }
    }
}

/// Puts the frames of one load together. It holds at most one session's stored bytes; every blob's checksum is checked.
///
/// After an error it is of no further use: the load failed, nothing changed, ask another node.
#[derive(Default)]
pub struct LoadAssembler {
    start: Option<v1::LoadStart>,
    partial: Option<Partial>,
    chunks: Vec<Chunk>,
    head: Option<Blob>,
    bytes: u64,
}

/// A whole answer to a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled {
    /// The last entry applied to what the read saw.
    pub revision: Revision,
    /// The answer.
    pub loaded: Loaded,
    /// For a stale read: everything acknowledged so many milliseconds before it is in it.
    pub age_ms: Option<u64>,
}

impl LoadAssembler {
    /// Takes the next frame; answers after the last one.
    ///
    /// Errors: `Invalid` if the frames make no answer, `Corrupt` if a checksum does not match.
    pub fn push(&mut self, frame: v1::LoadFrame) -> Result<Option<Assembled>, Refusal> {
        match (frame.start, &self.start) {
            (Some(start), None) => self.start = Some(start),
            (None, Some(_)) => {}
            (None, None) => return Err(missing("load.start")),
            (Some(_), Some(_)) => return Err(Refusal::invalid("load starts twice field=load.start")),
        }
        for piece in frame.pieces {
            self.piece(piece)?;
        }
        if !frame.last {
            return Ok(None);
        }
        self.finish_blob()?;
        self.finish().map(Some)
    }

    fn piece(&mut self, piece: v1::LoadPiece) -> Result<(), Refusal> {
        use v1::load_piece::Begin;
        match piece.begin {
            Some(Begin::Head(blob)) => self.begin(None, blob)?,
            Some(Begin::Chunk(chunk)) => {
                self.begin(Some(item_count(chunk.item_count)?), required("piece.chunk.blob", chunk.blob)?)?;
            }
            None => {}
        }
        let Some(partial) = &mut self.partial else { return Err(missing("piece.begin")) };
        let arrived = partial.data.len() + piece.data.len();
        if arrived > partial.stored_bytes {
            return Err(out_of_range("piece.data.bytes", arrived, 0, partial.stored_bytes));
        }
        partial.data.push(piece.data, partial.stored_bytes);
        Ok(())
    }

    fn begin(&mut self, item_count: Option<u64>, blob: v1::BlobStart) -> Result<(), Refusal> {
        self.finish_blob()?;
        if self.chunks.len() as u64 >= SESSION_CHUNKS_MAX && item_count.is_some() {
            return Err(out_of_range("load.chunks", self.chunks.len() + 1, 0, SESSION_CHUNKS_MAX));
        }
        if item_count.is_none() && self.head.is_some() {
            return Err(Refusal::invalid("load has two heads field=piece.head"));
        }
        self.bytes = self.bytes.saturating_add(blob.stored_bytes);
        if self.bytes > SESSION_STORED_BYTES_MAX {
            return Err(out_of_range("load.stored_bytes", self.bytes, 0, SESSION_STORED_BYTES_MAX));
        }
        self.partial = Some(Partial {
            item_count,
            codec: codec_from("piece", blob.codec)?,
            raw_bytes: blob.raw_bytes,
            crc32c: blob.crc32c,
            stored_bytes: blob.stored_bytes as usize,
            data: Arriving::Whole(Bytes::new()),
        });
        Ok(())
    }

    fn finish_blob(&mut self) -> Result<(), Refusal> {
        let Some(partial) = self.partial.take() else { return Ok(()) };
        let (arrived, expected) = (partial.data.len(), partial.stored_bytes);
        if arrived != expected {
            return Err(out_of_range("piece.data.bytes", arrived, expected, expected));
        }
        let blob = blob_from_parts("piece", partial.codec, partial.raw_bytes, partial.crc32c, partial.data.into_bytes())?;
        if !blob.is_intact() {
            let message = format!("loaded data does not match its checksum chunk={}", self.chunks.len());
            return Err(Refusal::not_applied(RefusalKind::Corrupt, message));
        }
        match partial.item_count {
            Some(item_count) => self.chunks.push(Chunk { item_count, blob }),
            None => self.head = Some(blob),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Assembled, Refusal> {
        use v1::load_start::Loaded as Message;
        let start = required("load.start", self.start.take())?;
        let items = self.chunks.iter().map(|chunk| chunk.item_count).fold(0, u64::saturating_add);
        let loaded = match required("load.start.loaded", start.loaded)? {
            Message::NotFound(tombstone) => Loaded::NotFound { tombstone: Version(tombstone) },
            Message::NotModified(_) => Loaded::NotModified,
            Message::Tail(info) => Loaded::Tail(self.content(info_from(info)?)),
            Message::Full(info) => {
                let content = self.content(info_from(info)?);
                if content.head.is_none() {
                    return Err(missing("load.head"));
                }
                if content.info.items != items {
                    return Err(out_of_range("load.items", items, content.info.items, content.info.items));
                }
                Loaded::Full(content)
            }
            Message::Suffix(v1::Suffix { info, first_item }) => {
                let content = self.content(info_from(required("load.suffix.info", info)?)?);
                let (end, all) = (first_item.saturating_add(items), content.info.items);
                if end > all {
                    return Err(out_of_range("load.suffix.items", end, 0, all));
                }
                Loaded::Suffix { first_item, content }
            }
        };
        Ok(Assembled { revision: Revision(start.revision), loaded, age_ms: start.age_ms })
    }

    fn content(&mut self, info: crate::types::SessionInfo) -> LoadedContent {
        LoadedContent { info, chunks: std::mem::take(&mut self.chunks), head: self.head.take() }
    }
}

/// Whole answers to loads of several sessions, all of one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssembledMany {
    /// The last entry applied to what they saw.
    pub revision: Revision,
    /// The answers, in the order of the loads.
    pub loaded: Vec<Loaded>,
    /// As of one load.
    pub age_ms: Option<u64>,
}

/// Puts the frames of such answers together, as [`LoadAssembler`] does those of one. It holds no more than those may have together, and one
/// session.
#[derive(Default)]
pub struct ManyAssembler {
    one: LoadAssembler,
    whole: Vec<Assembled>,
    /// Stored bytes of the whole ones.
    bytes: u64,
}

impl ManyAssembler {
    /// Takes the next frame; answers after the last one. Errors: as of [`LoadAssembler::push`]; `Invalid` also if the answers are too many or
    /// too large together, or not of one instant.
    pub fn push(&mut self, frame: v1::LoadManyFrame) -> Result<Option<AssembledMany>, Refusal> {
        for load in frame.loads {
            if self.whole.len() >= LOAD_MANY_IDS_MAX {
                return Err(out_of_range("load_many.loads", self.whole.len() + 1, 1, LOAD_MANY_IDS_MAX));
            }
            let whole = self.one.push(load)?;
            let bytes = self.bytes.saturating_add(self.one.bytes);
            if bytes > LOAD_MANY_BYTES_MAX {
                return Err(out_of_range("load_many.stored_bytes", bytes, 0, LOAD_MANY_BYTES_MAX));
            }
            if let Some(whole) = whole {
                self.whole.push(whole);
                self.bytes = bytes;
                self.one = LoadAssembler::default();
            }
        }
        match frame.last {
            false => Ok(None),
            true => self.finish().map(Some),
        }
    }

    fn finish(&mut self) -> Result<AssembledMany, Refusal> {
        if self.one.start.is_some() {
            return Err(missing("load_many.loads.last"));
        }
        let whole = std::mem::take(&mut self.whole);
        let Some(Assembled { revision, age_ms, .. }) = whole.first().cloned() else { return Err(missing("load_many.loads")) };
        if whole.iter().any(|one| (one.revision, one.age_ms) != (revision, age_ms)) {
            return Err(Refusal::invalid("sessions that were loaded together are not of one instant field=load.start.revision"));
        }
        Ok(AssembledMany { revision, loaded: whole.into_iter().map(|one| one.loaded).collect(), age_ms })
    }
}
