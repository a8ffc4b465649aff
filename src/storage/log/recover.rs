//! Recovery: which bytes of the directory are the log, or why it must not be opened.
//!
//! A batch starts only after the sync of the one before, so at the first bad frame B a valid frame of a *later* batch proves that B
//! had been synced: refuse. Without one, everything from B on is the last batch, which no caller got an answer to: cut (L25).

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::files::{Listing, read_whole, segment_path};
use super::frame::{ALIGNMENT, Content, Frame, Place, START_BYTES_MAX, Start, decode, has_trace};
use super::head::Head;
use super::live::Stored;
use super::{Error, SEGMENT_BYTES_MAX};
use crate::env::{Disk, DiskFile};
use crate::mutant::{self, Mutant};

/// One segment that is part of the log.
pub(super) struct Segment {
    pub file: Arc<dyn DiskFile>,
    /// The greatest index of an entry in it, truncated or not.
    pub index_max: Option<u64>,
}

/// The content of the directory.
pub(super) struct Recovered {
    /// The log.
    pub head: Head,
    /// Its live entries, in order.
    pub stored: Vec<Stored>,
    /// The segments that hold it, oldest to newest.
    pub segments: BTreeMap<u64, Segment>,
    /// The newest segment's end; 0 without a segment.
    pub end: u32,
    /// Where the newest segment's zeros begin, at or behind its end: written or not, nobody knows.
    pub blank_from: u64,
    /// Whether the newest segment can take more frames; else a new one is begun.
    pub can_append: bool,
    /// Whether the last batch is followed by a later one, so that corruption in it would be seen.
    pub covered: bool,
    /// Segment files that are not part of the log. To be retired only after a newer segment is synced.
    pub orphan_segments: Vec<u64>,
    /// Greater than every id seen.
    pub next_id: u64,
}

/// Finds the log. Reads only. Errors: [`Error::Corrupt`], or the disk's.
pub(super) fn recover(disk: &dyn Disk, dir: &Path, listing: &Listing) -> Result<Recovered, Error> {
    let mut chain = Chain::find(disk, dir, &listing.segments)?;
    let next_id = listing.segments.last().map_or(1, |id| id + 1);
    let torn_above = chain.segments.back().map(|segment| segment.id) != listing.segments.last().copied();
    let mut replay = Replay::default();
    let (mut end, mut blank_from, mut can_append) = (0, 0, false);
    // One for all: memory that was touched once costs nothing the second time.
    let mut buffer = BytesMut::new();
    while let Some(segment) = chain.segments.pop_front() {
        let path = segment_path(dir, segment.id);
        let next_start = chain.segments.front().map(|next| next.start.predecessor_end);
        let bytes = read_whole(&*segment.file, &path, SEGMENT_BYTES_MAX, buffer)?;
        end = replay.segment(&segment, &bytes, next_start, &path)?;
        if next_start.is_none() {
            can_append = !is_cut(&bytes, segment.id, end, &path)? && !torn_above;
            blank_from = zeros_from(&bytes).max(end).into();
        }
        replay.segments.insert(segment.id, Segment { file: segment.file, index_max: replay.index_max.take() });
        buffer = bytes.try_into_mut().unwrap_or_default();
    }
    if replay.missing.last.is_some() {
        let first = replay.segments.keys().next().copied().unwrap_or_default();
        return Err(Error::corrupt(
            &segment_path(dir, first),
            0,
            "the segments before this one are missing, and their entries are live",
        ));
    }
    let orphan_segments = listing.segments.iter().copied().filter(|id| !replay.segments.contains_key(id)).collect();
    let Replay { head, stored, segments, covered, .. } = replay;
    Ok(Recovered { head, stored: stored.into(), segments, end, blank_from, can_append, covered, orphan_segments, next_id })
}

struct Link {
    id: u64,
    file: Arc<dyn DiskFile>,
    start: Start,
}

/// The segments of the log, oldest first: the newest one that has a first frame, and back along `predecessor`.
#[derive(Default)]
struct Chain {
    segments: VecDeque<Link>,
}

impl Chain {
    fn find(disk: &dyn Disk, dir: &Path, ids: &[u64]) -> Result<Self, Error> {
        let mut chain = Self::default();
        let mut expected = None;
        for &id in ids.iter().rev() {
            if expected.is_some_and(|expected| expected != id) {
                continue;
            }
            let path = segment_path(dir, id);
            let file = disk.open(&path).map_err(|error| Error::io("open", &path, &error))?;
            match decode(&read_start(&*file, &path)?, Place { segment: id, offset: 0 }) {
                Some(Frame { content: Content::Start(start), .. }) => {
                    expected = Some(start.predecessor);
                    chain.segments.push_front(Link { id, file, start });
                }
                // The newer segment was written after this one was synced, and the first frame after nothing else.
                _ if expected.is_some() || holds_frames(&*file, id, &path)? => {
                    return Err(Error::corrupt(&path, 0, "the first frame of a segment was synced and does not verify"));
                }
                // A segment that never got its first frame, so nothing was written after the one before.
                _ => {}
            }
        }
        Ok(chain)
    }
}

fn read_start(file: &dyn DiskFile, path: &Path) -> Result<Bytes, Error> {
    let failed = |error| Error::io("read", path, &error);
    let mut bytes = vec![0; file.len().map_err(failed)?.min(START_BYTES_MAX.into()) as usize];
    file.read_at(&mut bytes, 0).map_err(failed)?;
    Ok(bytes.into())
}

fn holds_frames(file: &dyn DiskFile, segment: u64, path: &Path) -> Result<bool, Error> {
    Ok(last_batch_start(&read_whole(file, path, SEGMENT_BYTES_MAX, BytesMut::new())?, segment, 0).is_some())
}

/// The greatest `batch_start` of the valid frames from `offset` on.
fn last_batch_start(bytes: &Bytes, segment: u64, offset: u32) -> Option<u32> {
    let candidates = (offset..zeros_from(bytes)).step_by(ALIGNMENT);
    candidates.filter_map(|offset| decode(bytes, Place { segment, offset })).map(|frame| frame.batch_start).max()
}

/// Where the zeros at the end begin, or before: no frame begins with zeros.
fn zeros_from(bytes: &[u8]) -> u32 {
    const ZEROS: [u8; 4096] = [0; 4096];
    let rest = bytes.rchunks(ZEROS.len()).skip_while(|block| **block == ZEROS[..block.len()]);
    rest.map(<[u8]>::len).sum::<usize>() as u32
}

/// Whether anything of a torn batch lies at or after `end`. Errors: a later batch lies there, so what is at `end` had been synced.
fn is_cut(bytes: &Bytes, segment: u64, end: u32, path: &Path) -> Result<bool, Error> {
    let was_synced = last_batch_start(bytes, segment, end).is_some_and(|start| start > end);
    if was_synced && !mutant::is(Mutant::CutSyncedFrame) {
        return Err(Error::corrupt(path, end.into(), "a frame was synced, since a later batch follows it, and does not verify"));
    }
    Ok((end..zeros_from(bytes)).step_by(ALIGNMENT).any(|offset| has_trace(bytes, segment, offset)))
}

/// The log as far as it was read.
#[derive(Default)]
struct Replay {
    head: Head,
    /// Live at the start of the oldest segment and not in any: purges and truncations to come must end them.
    missing: Head,
    stored: VecDeque<Stored>,
    segments: BTreeMap<u64, Segment>,
    index_max: Option<u64>,
    covered: bool,
}

impl Replay {
    /// Reads one segment up to its end, which the next segment knows if there is one; returns it.
    fn segment(&mut self, link: &Link, bytes: &Bytes, end: Option<u32>, path: &Path) -> Result<u32, Error> {
        if self.segments.is_empty() {
            self.head = link.start.head.clone();
            self.missing = link.start.head.clone();
        } else if self.head != link.start.head {
            return Err(Error::corrupt(path, 0, "a segment does not go on where its predecessor ends"));
        }
        let (mut at, mut batch_start) = (0, 0);
        while end != Some(at) {
            let frame = decode(bytes, Place { segment: link.id, offset: at });
            let Some(frame) = frame.filter(|frame| frame.batch_start == batch_start || frame.batch_start == at) else {
                return match end {
                    Some(_) => Err(Error::corrupt(
                        path,
                        at.into(),
                        "a frame was synced, since a later segment follows, and does not verify",
                    )),
                    None => Ok(at),
                };
            };
            batch_start = frame.batch_start;
            self.apply(&frame, Place { segment: link.id, offset: at }).map_err(|what| Error::corrupt(path, at.into(), what))?;
            at += frame.bytes;
        }
        Ok(at)
    }

    fn apply(&mut self, frame: &Frame, place: Place) -> Result<(), Cow<'static, str>> {
        frame.content.bounded().map_err(|error| error.to_string())?;
        self.covered = matches!(frame.content, Content::Idle | Content::Start(_));
        match &frame.content {
            Content::Start(_) if place.offset != 0 => return Err("a segment starts within a segment".into()),
            Content::Start(_) | Content::Idle => {}
            // A copy: a slice would keep the whole segment in memory.
            Content::Vote(vote) => self.head.vote = Some(Bytes::copy_from_slice(vote)),
            Content::Entry(id, _) => {
                if !self.head.takes(id.index) {
                    return Err("an entry does not follow the one before it".into());
                }
                self.head.append(*id);
                self.index_max = self.index_max.max(Some(id.index));
                self.stored.push_back(Stored { id: *id, place, bytes: frame.bytes });
            }
            Content::Truncate(keep) => {
                self.head.truncate(*keep);
                self.missing.truncate(*keep);
            }
            Content::Purge(upto) => {
                self.head.purge(*upto);
                self.missing.purge(*upto);
            }
        }
        while self.stored.back().is_some_and(|stored| !self.head.holds(stored.id.index)) {
            self.stored.pop_back();
        }
        while self.stored.front().is_some_and(|stored| !self.head.holds(stored.id.index)) {
            self.stored.pop_front();
        }
        Ok(())
    }
}
