//! The content rows of a load: which are pinned in its view, and how they are read afterwards, off the async threads.

use bytes::Bytes;

use crate::limits::SMALL_ANSWER_BYTES;
use crate::machine::rows::{self, Birth, ChunkRow};
use crate::machine::{Places, Plan, Walk};
use crate::storage::state::{Error, Pinned, Pinner};
use crate::types::{Blob, Chunk, Loaded, LoadedContent, SessionInfo};

/// The content that a load is still to read, of the instant it was planned in.
pub struct Wanted {
    info: SessionInfo,
    head: bool,
    places: Places,
    chunks: Chunks,
    pinned: Pinned,
}

/// The chunks to read.
enum Chunks {
    /// All that are pinned.
    All { is_tail: bool },
    /// Those that a walk finds.
    Walked(Walk),
}

impl Wanted {
    /// The rows that a plan needs, pinned; or the answer that needs none.
    pub fn of(plan: Plan, pinner: &Pinner<'_>) -> Result<Self, Loaded> {
        let (info, head, places, range, chunks) = match plan {
            Plan::NotFound { tombstone } => return Err(Loaded::NotFound { tombstone }),
            Plan::NotModified => return Err(Loaded::NotModified),
            Plan::Read { info, tail, places, chunks, head } => (info, head, places, chunks, Chunks::All { is_tail: tail }),
            Plan::Part { info, walk, head } if !head && walk.is_done() => {
                let content = LoadedContent { info, chunks: Vec::new(), head: None };
                return Err(Loaded::Suffix { first_item: walk.first_item(), content });
            }
            Plan::Part { info, walk, head } => (info, head, walk.places().clone(), walk.chunks(), Chunks::Walked(walk)),
        };
        let keys = places.keys(&range).into_iter();
        let mut ranges: Vec<_> = keys.map(|keys| (rows::CHUNKS, keys.start, keys.end)).collect();
        if head {
            let key = rows::head_key(birth(&info));
            ranges.push((rows::HEADS, key.clone(), after(&key)));
        }
        Ok(Self { info, head, places, chunks, pinned: pinner.pin(&ranges) })
    }

    /// The bytes there must be room for before it is read. A part's are known only afterwards: they are taken for few.
    pub fn expected_bytes(&self) -> u64 {
        match self.chunks {
            Chunks::All { .. } => self.info.stored_bytes,
            Chunks::Walked(_) => self.info.stored_bytes.min(SMALL_ANSWER_BYTES),
        }
    }

    /// Reads it. May wait for the disk. Errors: of the state, which has ended if they are final; a row that is missing or damaged.
    pub fn read(self) -> Result<Loaded, Error> {
        let Self { info, head, places, chunks, pinned } = self;
        match chunks {
            Chunks::All { is_tail: true } => Ok(Loaded::Tail(read_all(&pinned, head, info, &places)?)),
            Chunks::All { is_tail: false } => Ok(Loaded::Full(read_all(&pinned, head, info, &places)?)),
            Chunks::Walked(walk) => read_walked(pinned, head, info, walk),
        }
    }
}

/// The smallest key greater than `key`.
fn after(key: &Bytes) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

fn read_all(pinned: &Pinned, wants_head: bool, info: SessionInfo, places: &Places) -> Result<LoadedContent, Error> {
    let (mut chunks, mut behind) = (Vec::new(), Vec::new());
    let mut head: Option<Blob> = None;
    for (table, key, value) in pinned.read()? {
        if table == rows::CHUNKS {
            let chunk = decoded(table, key.clone(), rows::decode_chunk(&value))?.chunk;
            if places.is_packed(&key) { chunks.push(chunk) } else { behind.push(chunk) }
        } else {
            head = Some(decoded(table, key, rows::decode_head(&value))?);
        }
    }
    if wants_head && head.is_none() {
        return Err(missing_head(birth(&info)));
    }
    chunks.append(&mut behind);
    Ok(LoadedContent { info, chunks, head })
}

/// One row after the other, so that none is read in vain: at most all of the session, as by [`read_all`].
fn read_walked(pinned: Pinned, wants_head: bool, info: SessionInfo, mut walk: Walk) -> Result<Loaded, Error> {
    let pinned = pinned.by_key();
    let mut chunks: Vec<Chunk> = Vec::new();
    while let Some(position) = walk.next_chunk() {
        let key = walk.places().key(position);
        let damaged = |what: &str| Error::corrupt_row(rows::CHUNKS, key.clone(), what.to_owned());
        let value = pinned.get(rows::CHUNKS, &key)?.ok_or_else(|| damaged("a session's chunk is missing"))?;
        let ChunkRow { chunk, first_item } = decoded(rows::CHUNKS, key.clone(), rows::decode_chunk(&value))?;
        if walk.step(chunk.item_count, first_item).ok_or_else(|| damaged("a chunk has other items than its session"))? {
            chunks.push(chunk);
        }
    }
    if !walk.is_done() {
        let key = walk.places().key(walk.chunks().start);
        return Err(Error::corrupt_row(rows::CHUNKS, key, "a session's chunks have fewer items than it"));
    }
    if walk.is_backwards() {
        chunks.reverse();
    }
    let head = match wants_head {
        false => None,
        true => {
            let key = rows::head_key(birth(&info));
            let value = pinned.get(rows::HEADS, &key)?.ok_or_else(|| missing_head(birth(&info)))?;
            Some(decoded(rows::HEADS, key, rows::decode_head(&value))?)
        }
    };
    Ok(Loaded::Suffix { first_item: walk.first_item(), content: LoadedContent { info, chunks, head } })
}

fn decoded<T>(table: u8, key: Bytes, row: Result<T, rows::Error>) -> Result<T, Error> {
    row.map_err(|error| Error::corrupt_row(table, key, error.to_string()))
}

fn birth(info: &SessionInfo) -> Birth {
    Birth::of(info.create_revision, info.next_chunk)
}

fn missing_head(birth: Birth) -> Error {
    Error::corrupt_row(rows::HEADS, rows::head_key(birth), "a session's head is missing")
}
