//! The one writer: takes what is queued, writes it as one batch, syncs once, calls back; only then the next batch begins (L23).
//!
//! ```text
//! queue --take what fits--> batch --write, sync--> complete --callbacks--> segments behind the purge are retired
//!            |                 ^
//!            | nothing fits    | the disk is full: the same batch at the same position, later
//!            v                 |
//!        new segment: its first frame is a separate batch, synced before anything follows
//! ```

use std::io::IoSlice;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::files::{Pool, segment_path};
use super::frame::{Content, Encoded, HEADER_BYTES, Place, Start, encode, frame_bytes};
use super::head::Head;
use super::recover::{Recovered, Segment};
use super::shared::{Locked, Op};
use super::{Error, Options};
use crate::env::{Clock, DiskFile, Step};
use crate::limits::KIB;
use crate::mutant::{self, Mutant};

/// The writer's worker: takes queued operations and makes them durable, one batch a step.
pub(super) struct Writer {
    shared: Arc<Locked>,
    pool: Arc<Pool>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    options: Options,
    /// The segment written to; its file is `None` until the first one is made.
    segment: u64,
    file: Option<Arc<dyn DiskFile>>,
    segment_bytes: u64,
    /// Where the next batch goes. Everything before it is synced.
    end: u32,
    /// Where the segment's blocks begin that were never written. Syncing the first bytes of such a block takes more than twice as long.
    blank_from: u64,
    /// The log up to `end`.
    head: Head,
    /// The next batch needs a new segment.
    rolls: bool,
    next_id: u64,
    /// A segment that has its file and not yet its first frame, and where it is blank.
    starting: Option<(u64, Arc<dyn DiskFile>, u64)>,
    /// A batch that is not synced yet.
    pending: Option<Batch>,
    /// Whether the last batch is followed by a later one.
    covered: bool,
    written_at: Duration,
    orphan_segments: Vec<u64>,
    /// Whether the last step found no room.
    full: bool,
}

#[derive(Default)]
struct Batch {
    frames: Vec<Encoded>,
    ops: Vec<Op>,
    /// Where each op's frame lies; none for [`Op::Done`].
    offsets: Vec<u32>,
    bytes: u32,
}

impl Writer {
    pub fn new(
        shared: Arc<Locked>,
        pool: Arc<Pool>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: Options,
        found: &Recovered,
    ) -> Self {
        let newest = found.segments.last_key_value();
        let file = newest.map(|(_, segment)| segment.file.clone());
        // The segment may be of another length than new ones are.
        let segment_bytes = file.as_ref().and_then(|file| file.len().ok()).unwrap_or_default();
        Self {
            shared,
            pool,
            written_at: clock.now(),
            clock,
            dir: dir.to_owned(),
            options,
            segment: newest.map_or(0, |(id, _)| *id),
            file,
            segment_bytes,
            end: found.end,
            blank_from: found.blank_from,
            head: found.head.clone(),
            rolls: !found.can_append,
            next_id: found.next_id,
            starting: None,
            pending: None,
            covered: found.covered,
            orphan_segments: found.orphan_segments.clone(),
            full: false,
        }
    }

    /// One batch at most. A full disk is tried again later; every other failure ends the log (L22).
    pub fn step(&mut self) -> Step {
        if self.shared.locked().failed.is_some() {
            return Step::Stop;
        }
        match self.go_on() {
            Ok(step) => {
                self.note_full(false);
                step
            }
            Err(error) if error.is_full() => {
                self.note_full(true);
                tracing::debug!("the disk has no room for the log, trying again");
                Step::After(self.options.full_retry)
            }
            Err(error) => {
                let taken = self.pending.take().map_or_else(Vec::new, |batch| batch.ops);
                self.shared.fail(&error, taken);
                Step::Stop
            }
        }
    }

    fn note_full(&mut self, full: bool) {
        if self.full != full {
            self.full = full;
            self.shared.locked().full = full;
        }
    }

    fn go_on(&mut self) -> Result<Step, Error> {
        if self.rolls {
            self.roll()?;
        }
        if self.pending.is_none() {
            self.pending = self.take_batch();
        }
        if self.rolls {
            return Ok(Step::Again);
        }
        if self.pending.is_none() {
            let idle_for = self.clock.now().saturating_sub(self.written_at);
            if self.covered {
                return Ok(Step::Idle);
            }
            if idle_for < self.options.idle_after {
                return Ok(Step::After(self.options.idle_after - idle_for));
            }
            self.pending = self.marker();
            if self.rolls {
                return Ok(Step::Again);
            }
        }
        if let Some(batch) = &self.pending {
            self.write(batch)?;
        }
        if let Some(batch) = self.pending.take() {
            self.complete(batch)?;
        }
        Ok(Step::Again)
    }

    /// The queued operations that fit into the segment. `None`: nothing is queued, or `rolls` is set since not even the first fits.
    fn take_batch(&mut self) -> Option<Batch> {
        let mut taken = 0;
        let mut ops;
        {
            let mut state = self.shared.locked();
            ops = Vec::with_capacity(state.queue.len());
            while let Some(op) = state.queue.front() {
                let bytes = op.content().as_ref().map_or(0, |content| u64::from(content_bytes(content)));
                if u64::from(self.end) + taken + bytes > self.segment_bytes {
                    self.rolls = ops.is_empty();
                    break;
                }
                if !ops.is_empty() && taken + bytes > self.options.batch_bytes {
                    break;
                }
                taken += bytes;
                ops.extend(state.queue.pop_front());
            }
        }
        let mut batch = Batch { frames: Vec::with_capacity(ops.len()), offsets: Vec::with_capacity(ops.len()), ..Batch::default() };
        ops.iter().for_each(|op| self.add(&mut batch, op.content().as_ref()));
        batch.ops = ops;
        (!batch.ops.is_empty()).then_some(batch)
    }

    fn marker(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        if u64::from(self.end) + u64::from(content_bytes(&Content::Idle)) > self.segment_bytes {
            self.rolls = true;
            return None;
        }
        self.add(&mut batch, Some(&Content::Idle));
        Some(batch)
    }

    fn add(&self, batch: &mut Batch, content: Option<&Content>) {
        let offset = self.end + batch.bytes;
        batch.offsets.push(offset);
        if let Some(content) = content {
            batch.frames.push(encode(content, Place { segment: self.segment, offset }, self.end));
            batch.bytes += content_bytes(content);
        }
    }

    /// One vectored write, zeros ahead of it where they are due, and one sync. Callable again with the same batch if the disk was full.
    fn write(&self, batch: &Batch) -> Result<(), Error> {
        if batch.frames.is_empty() {
            return Ok(());
        }
        let path = segment_path(&self.dir, self.segment);
        let file = self.file.as_ref().expect("a batch is planned only with a segment");
        let parts = batch.frames.iter().flat_map(|frame| [&frame.header[..], &frame.payload, frame.padding()]);
        let mut slices = Vec::with_capacity(3 * batch.frames.len());
        slices.extend(parts.filter(|part| !part.is_empty()).map(IoSlice::new));
        let began = self.clock.now();
        file.write_at(&slices, self.end.into()).map_err(|error| Error::io("write", &path, &error))?;
        for zeros in pages(self.zeros_behind(batch)) {
            let page = &ZEROS[..(zeros.end - zeros.start) as usize];
            file.write_at(&[IoSlice::new(page)], zeros.start).map_err(|error| Error::io("write", &path, &error))?;
        }
        file.sync().map_err(|error| Error::io("sync", &path, &error))?;
        let ended = self.clock.now();
        self.shared.locked().syncs.note(began, ended);
        Ok(())
    }

    /// The range to fill with zeros behind a batch. Zeros are no frame to any reader, and whether they reach the disk does not matter.
    fn zeros_behind(&self, batch: &Batch) -> Range<u64> {
        let end = u64::from(self.end) + u64::from(batch.bytes);
        let is_due = end > self.blank_from && batch.bytes < LARGE_BATCH_BYTES;
        end..if is_due { self.segment_bytes.min(end + AHEAD_BYTES) } else { end }
    }

    /// The batch is synced: says so to everyone.
    fn complete(&mut self, batch: Batch) -> Result<(), Error> {
        assert!(u64::from(self.end) + u64::from(batch.bytes) <= self.segment_bytes, "a batch never spans segments");
        let is_data = batch.ops.iter().any(|op| !matches!(op, Op::Done(_)));
        let wrote = !batch.frames.is_empty();
        if wrote {
            self.covered = !is_data;
            self.blank_from = self.blank_from.max(self.zeros_behind(&batch).end);
            self.end += batch.bytes;
            self.written_at = self.clock.now();
        }
        let mut ready = Vec::new();
        let mut forgets = false;
        let retired = {
            let shared = self.shared.clone();
            let mut state = shared.locked();
            state.written_bytes += u64::from(batch.bytes);
            for (op, offset) in batch.ops.into_iter().zip(batch.offsets) {
                match op {
                    Op::Entry(sequence, id, _) => {
                        self.head.append(id);
                        if let Some(segment) = state.segments.get_mut(&self.segment) {
                            segment.index_max = segment.index_max.max(Some(id.index));
                        }
                        if state.live.set_place(id.index, sequence, Place { segment: self.segment, offset }) {
                            state.covered_last = Some(id.index);
                        }
                    }
                    Op::Vote(vote) => self.head.vote = Some(vote),
                    Op::Truncate(keep) => self.head.truncate(keep),
                    Op::Purge(upto) => {
                        self.head.purge(upto);
                        state.covered_purged = state.covered_purged.max(Some(upto.index));
                    }
                    Op::Roll => self.rolls = true,
                    Op::Forget => forgets = true,
                    Op::Done(done) => ready.push(done),
                }
            }
            state.live.evict(self.options.tail_bytes);
            ready.extend(state.take_covered());
            // Only behind a batch of this segment: if its first frame is corrupted, the frames after it show that.
            if wrote { retired_segments(&mut state.segments, &self.head, self.segment) } else { Vec::new() }
        };
        ready.into_iter().for_each(|done| done(Ok(())));
        retired.into_iter().try_for_each(|id| self.pool.retire(id))?;
        if forgets { self.pool.forget() } else { Ok(()) }
    }

    /// Begins a new segment. Callable again if the disk was full.
    fn roll(&mut self) -> Result<(), Error> {
        assert!(self.pending.is_none(), "a batch never spans segments");
        let (id, file, blank_from) = match self.starting.take() {
            Some(starting) => starting,
            None => {
                let (file, blank_from) = self.pool.open_segment(self.next_id)?;
                self.next_id += 1;
                (self.next_id - 1, file, blank_from)
            }
        };
        self.starting = Some((id, file.clone(), blank_from));
        let start = Start { predecessor: self.segment, predecessor_end: self.end, head: self.head.clone() };
        let frame = encode(&Content::Start(start), Place { segment: id, offset: 0 }, 0);
        let bytes = frame_bytes(frame.payload.len());
        let path = segment_path(&self.dir, id);
        let slices = [IoSlice::new(&frame.header), IoSlice::new(&frame.payload), IoSlice::new(frame.padding())];
        file.write_at(&slices, 0).map_err(|error| Error::io("write", &path, &error))?;
        // Alone and first (L24): a later frame without this one would look like corruption, and where the log continues would be unknown.
        if !mutant::is(Mutant::FirstFrameNotAlone) {
            file.sync().map_err(|error| Error::io("sync", &path, &error))?;
        }
        self.starting = None;
        self.rolls = false;
        self.covered = true;
        self.segment = id;
        self.end = bytes;
        self.blank_from = blank_from.max(bytes.into());
        self.segment_bytes = self.options.segment_bytes;
        self.file = Some(file.clone());
        self.shared.locked().segments.insert(id, Segment { file, index_max: None });
        // Only now: the greatest id must always be on disk, or it would be given twice.
        std::mem::take(&mut self.orphan_segments).into_iter().try_for_each(|id| self.pool.retire(id))
    }
}

/// Zeros written behind a batch where the blocks are blank, so that the next batches find written ones.
const AHEAD_BYTES: u64 = 256 * KIB;
/// A batch from here on is written without: zeros would cost as much as they save.
const LARGE_BATCH_BYTES: u32 = 64 * KIB as u32;

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
const PAGE_BYTES: usize = 4096;

/// A range, cut at pages. Written in one piece it would become one large folio of the page cache, all of which Linux counts as written
/// whenever a byte of it is.
fn pages(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let next = |at: u64| (at / PAGE_BYTES as u64 + 1) * PAGE_BYTES as u64;
    let mut at = range.start;
    std::iter::from_fn(move || {
        let from = at;
        at = next(from).min(range.end);
        (from < range.end).then_some(from..at)
    })
}

/// Takes out the oldest segments whose entries are all purged, in order; never the one written to.
fn retired_segments(segments: &mut std::collections::BTreeMap<u64, Segment>, head: &Head, current: u64) -> Vec<u64> {
    let purged = head.purged.map(|purged| purged.index);
    let mut retired = Vec::new();
    while let Some(oldest) = segments.first_entry() {
        if *oldest.key() == current || oldest.get().index_max > purged {
            break;
        }
        retired.push(*oldest.key());
        oldest.remove();
    }
    retired
}

fn content_bytes(content: &Content) -> u32 {
    match content {
        Content::Entry(_, payload) | Content::Vote(payload) => frame_bytes(payload.len()),
        Content::Start(_) => unreachable!("a segment's first frame is never part of a batch"),
        Content::Truncate(_) | Content::Purge(_) | Content::Idle => HEADER_BYTES as u32,
    }
}

impl Op {
    fn content(&self) -> Option<Content> {
        match self {
            Op::Entry(_, id, payload) => Some(Content::Entry(*id, payload.clone())),
            Op::Vote(vote) => Some(Content::Vote(vote.clone())),
            Op::Truncate(keep) => Some(Content::Truncate(*keep)),
            Op::Purge(upto) => Some(Content::Purge(*upto)),
            Op::Forget => Some(Content::Idle),
            Op::Roll | Op::Done(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_pages_and_loses_nothing() {
        let all = |range: Range<u64>| pages(range).collect::<Vec<_>>();
        assert_eq!(all(100..9000), [100..4096, 4096..8192, 8192..9000]);
        assert_eq!(all(4096..8192), vec![4096..8192]);
        assert_eq!(all(5..5), Vec::<Range<u64>>::new());
    }
}
