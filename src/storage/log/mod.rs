//! The log: vote, entries, truncations and purges in one ordered, checksummed stream (L21 to L25 of `quorate::docs::invariants`).
//!
//! It promises: what a callback reported as done is there after any crash; what [`Log::open`] shows is on disk; bytes that were
//! synced and then corrupted are refused, never skipped. It leaves to others what payload and vote mean, and when to purge.
//!
//! ```text
//! append, save_vote, truncate_after, purge, sync --> queue --> writer (one thread): one write, one sync --> callbacks
//!      |                                                                                  |
//!      +--> live entries, newest in memory  <-- read, log_id, position                    +--> covers, when_covered
//! ```
//!
//! Callbacks run on the writer's thread, or on the caller's if the answer is known: they must be short and never wait for the log.

mod error;
mod files;
mod frame;
mod head;
mod inspect;
mod live;
mod recover;
mod shared;
mod syncs;
mod writer;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::error::Error;
use self::files::{Pool, SpareAllocator, segment_path};
use self::frame::{Content, HEADER_BYTES, START_BYTES_MAX, VOTE_BYTES_MAX, decode_at, frame_bytes};
pub use self::inspect::{Inspection, inspect};
use self::live::{Live, Stored};
use self::shared::{Locked, Op, State};
pub use self::syncs::Syncs;
use self::writer::Writer;
use crate::env::{Env, Worker};
use crate::limits::{MIB, PEER_MESSAGE_BYTES_MAX};
use crate::types::LogId;

/// Longest segment a log may have, in bytes; a file above it is refused unread.
const SEGMENT_BYTES_MAX: u64 = 1024 * MIB;
/// Shortest segment, in bytes: a first frame and something to say.
const SEGMENT_BYTES_MIN: u64 = 4096;

/// One entry.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its position.
    pub log_id: LogId,
    /// Its bytes, opaque. At most [`PEER_MESSAGE_BYTES_MAX`], and it must fit in a segment.
    pub payload: Bytes,
}

/// An entry may hold what users entrusted to us: only its size is printed.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({:?}, {} bytes)", self.log_id, self.payload.len())
    }
}

/// The positions of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The latest vote.
    pub vote: Option<Bytes>,
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// The last entry; the last purged one if none is live.
    pub last: Option<LogId>,
}

/// Called once, when the work is synced or never will be.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// How a log lies on disk and in memory.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a segment, 4 KiB to 1 GiB. Change it at will: old segments keep theirs.
    pub segment_bytes: u64,
    /// Bytes of payloads kept in memory, besides what is not synced yet.
    pub tail_bytes: u64,
    /// Segment files kept in reserve.
    pub spare_segments: usize,
    /// Soft bound of one write, in bytes; a larger entry travels alone.
    pub batch_bytes: u64,
    /// How long the log is idle before a marker covers its last batch.
    pub idle_after: Duration,
    /// How long to wait before a write is tried again that found the disk full.
    pub full_retry: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * MIB,
            tail_bytes: 4 * MIB,
            spare_segments: 2,
            batch_bytes: 8 * MIB,
            idle_after: Duration::from_millis(50),
            full_retry: Duration::from_millis(250),
        }
    }
}

impl Options {
    /// Largest payload of an entry, in bytes.
    pub fn payload_bytes_max(&self) -> u64 {
        let fits = self.segment_bytes.saturating_sub(u64::from(START_BYTES_MAX) + u64::from(frame_bytes(0)) + 8);
        fits.min(PEER_MESSAGE_BYTES_MAX)
    }

    fn validate(&self) -> Result<(), Error> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Err(Error::Options("segment_bytes must be between 4 KiB and 1 GiB"));
        }
        if self.batch_bytes == 0 {
            return Err(Error::Options("batch_bytes must not be 0"));
        }
        Ok(())
    }
}

/// A cheap handle; the log closes with the last one, without waiting for what is queued: its callbacks are dropped.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    shared: Arc<Locked>,
    dir: PathBuf,
    options: Options,
    writer: Worker,
    /// Kept for its drop.
    _maker: Worker,
}

impl Log {
    /// Recovers the log in `dir`, which is made if it is missing, syncs the end of it, and starts its workers `log` and `log-spare`.
    ///
    /// Errors: [`Error::Corrupt`], if synced bytes are damaged; the disk's; invalid options. The directory may have lost spare files
    /// then, never anything of the log.
    pub fn open(env: &Env, dir: &Path, options: Options) -> Result<Log, Error> {
        options.validate()?;
        env.disk.create_dir_all(dir).map_err(|error| Error::io("make its directory", dir, &error))?;
        let listing = files::list(&*env.disk, dir)?;
        let found = recover::recover(&*env.disk, dir, &listing)?;
        if !found.can_append && !found.segments.is_empty() {
            tracing::info!(end = found.end, "the log ends in a torn batch, which is cut");
        }
        // A killed process leaves frames that only the page cache has. Nobody may hear of them before they are on disk.
        if let Some((id, segment)) = found.segments.last_key_value() {
            segment.file.sync().map_err(|error| Error::io("sync", &segment_path(dir, *id), &error))?;
        }
        env.disk.sync_dir(dir).map_err(|error| Error::io("sync", dir, &error))?;
        let pool = Arc::new(Pool::new(env.disk.clone(), dir.to_owned(), options.segment_bytes, options.spare_segments));
        pool.adopt(&listing)?;
        let shared = Locked::new(State {
            covered_last: found.head.last.map(|last| last.index),
            covered_purged: found.head.purged.map(|purged| purged.index),
            ..State::default()
        });
        let mut writer = Writer::new(shared.clone(), pool.clone(), env.clock.clone(), dir, options.clone(), &found);
        {
            let mut state = shared.locked();
            state.live = Live::recovered(found.head, found.stored);
            state.segments = found.segments;
        }
        let failed = |error: std::io::Error| Error::io("start its worker", dir, &error);
        let mut maker = SpareAllocator::new(pool.clone());
        let maker = env.workers.start("log-spare", Box::new(move || maker.step())).map_err(failed)?;
        // Set once, right here.
        let _ = pool.maker.set(maker.waker());
        let writer = env.workers.start("log", Box::new(move || writer.step())).map_err(failed)?;
        Ok(Log(Arc::new(Inner { shared, dir: dir.to_owned(), options, writer, _maker: maker })))
    }

    /// The log as appended: readable, perhaps not yet synced.
    pub fn position(&self) -> Position {
        let state = self.0.shared.locked();
        let head = state.live.head();
        Position { vote: head.vote.clone(), purged: head.purged, last: head.last_or_purged() }
    }

    /// Appends entries without a hole behind the last. They are readable when this returns; `done` is called once they are synced.
    ///
    /// Errors, to `done`: [`Error::TooLarge`], and then nothing was appended; or the one that ended the log. Panics if the indexes do
    /// not follow the last one: that is the caller's mistake. The caller bounds the entries that wait here.
    pub fn append(&self, records: Vec<Record>, done: Done) {
        let limit = self.0.options.payload_bytes_max();
        if let Some(bytes) = records.iter().map(|record| record.payload.len() as u64).find(|bytes| *bytes > limit) {
            return done(Err(Error::TooLarge { bytes, limit }));
        }
        self.submit(done, |state| {
            for record in records {
                let sequence = state.sequence;
                state.sequence += 1;
                state.queue.push_back(Op::Entry(sequence, record.log_id, record.payload.clone()));
                state.live.append(record, sequence);
            }
        });
    }

    /// Replaces the vote. `done` is called once it is synced; nobody may hear of the vote before.
    ///
    /// Errors, to `done`: [`Error::TooLarge`] above 256 bytes, and then nothing changed; or the one that ended the log.
    pub fn save_vote(&self, vote: Bytes, done: Done) {
        if vote.len() > VOTE_BYTES_MAX {
            return done(Err(Error::TooLarge { bytes: vote.len() as u64, limit: VOTE_BYTES_MAX as u64 }));
        }
        self.submit(done, |state| {
            state.live.set_vote(vote.clone());
            state.queue.push_back(Op::Vote(vote));
        });
    }

    /// Drops everything after `last`; all live entries, without one. Synced with, and before, whatever follows.
    pub fn truncate_after(&self, last: Option<LogId>) {
        self.change(|state| {
            state.live.truncate(last);
            let kept = state.live.head().last;
            state.covered_last = state.covered_last.min(kept.map(|kept| kept.index));
            state.queue.push_back(Op::Truncate(kept));
        });
    }

    /// Drops everything up to and including `upto`. Ahead of the last entry (after a snapshot) it leaves an empty log that continues
    /// behind `upto`. Behind an earlier purge it changes nothing.
    pub fn purge(&self, upto: LogId) {
        self.change(|state| {
            state.live.purge(upto);
            state.queue.push_back(Op::Purge(upto));
        });
    }

    /// Begins another segment behind what is queued: a purge up to the last entry so far then leaves none of its files.
    /// `done` is called once that is decided; the segment is made with the next write.
    pub fn roll(&self, done: Done) {
        self.submit(done, |state| state.queue.push_back(Op::Roll));
    }

    /// Removes the files of purged segments that are kept to be segments again, with what was written in them. They are gone once
    /// anything queued after `done` was called is done.
    pub fn forget(&self, done: Done) {
        self.submit(done, |state| state.queue.push_back(Op::Forget));
    }

    /// Calls `done` once everything queued before is synced.
    pub fn sync(&self, done: Done) {
        self.submit(done, |_| {});
    }

    fn submit(&self, done: Done, change: impl FnOnce(&mut State)) {
        let mut state = self.0.shared.locked();
        if let Some(error) = state.failed.clone() {
            drop(state);
            return done(Err(error));
        }
        change(&mut state);
        state.queue.push_back(Op::Done(done));
        drop(state);
        self.0.writer.wake();
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.shared.locked();
        if state.failed.is_none() {
            change(&mut state);
            drop(state);
            self.0.writer.wake();
        }
    }

    /// The stored entries of a prefix of `indexes`: at least one if the first of them is live, and no more than about `bytes_max`.
    ///
    /// Empty if the first is not live (purged, or not yet there): clamp the range by [`Log::first_index`] before. May read files.
    /// Errors: [`Error::Corrupt`], if an entry does not verify, and then this node must stop serving; or the disk's.
    pub fn read(&self, indexes: Range<u64>, bytes_max: u64) -> Result<Vec<Record>, Error> {
        loop {
            let run = {
                let state = self.0.shared.locked();
                let records = in_memory(&state.live, indexes.clone(), bytes_max);
                if !records.is_empty() {
                    return Ok(records);
                }
                let Some(run) = next_run(&state, indexes.clone(), bytes_max) else { return Ok(Vec::new()) };
                run
            };
            match self.read_run(&run) {
                Ok(records) => return Ok(records),
                // Purged meanwhile, the segment may have become another one: then look again, and otherwise believe it.
                Err(error) if self.holds(&run) => return Err(error),
                Err(_) => {}
            }
        }
    }

    fn holds(&self, run: &Run) -> bool {
        let state = self.0.shared.locked();
        run.entries.iter().all(|entry| {
            let now = state.live.stored(entry.id.index);
            now.is_some_and(|now| now.place.segment == entry.place.segment && now.place.offset == entry.place.offset)
        })
    }

    fn read_run(&self, run: &Run) -> Result<Vec<Record>, Error> {
        let (Some(first), Some(last)) = (run.entries.first(), run.entries.last()) else { return Ok(Vec::new()) };
        let path = segment_path(&self.0.dir, first.place.segment);
        let start = first.place.offset;
        let mut bytes = vec![0; (last.place.offset + last.bytes - start) as usize];
        run.file.read_at(&mut bytes, start.into()).map_err(|error| Error::io("read", &path, &error))?;
        let bytes = Bytes::from(bytes);
        let mut records = Vec::with_capacity(run.entries.len());
        for Stored { id, place, .. } in &run.entries {
            let frame = decode_at(&bytes.slice((place.offset - start) as usize..), *place);
            match frame.map(|frame| frame.content) {
                Some(Content::Entry(log_id, payload)) if log_id == *id => records.push(Record { log_id, payload }),
                _ => return Err(Error::corrupt(&path, place.offset.into(), "an entry does not verify")),
            }
        }
        Ok(records)
    }

    /// The log id of a live entry, or of the last purged one.
    pub fn log_id(&self, index: u64) -> Option<LogId> {
        self.0.shared.locked().live.log_id(index)
    }

    /// Whether the synced log reaches `index`: the last synced entry, or the synced purge. Entries that a truncation dropped do not
    /// count, from the call on.
    pub fn covers(&self, index: u64) -> bool {
        self.0.shared.locked().covers(index)
    }

    /// Calls `done` once the log covers `index`, at once if it does. Errors, to `done`: the one that ended the log.
    pub fn when_covered(&self, index: u64, done: Done) {
        let mut state = self.0.shared.locked();
        let answer = match &state.failed {
            Some(error) => Err(error.clone()),
            None if state.covers(index) => Ok(()),
            None => return state.waiters.push((index, done)),
        };
        drop(state);
        done(answer);
    }

    /// Bytes of the live entries as stored.
    pub fn bytes(&self) -> u64 {
        self.0.shared.locked().live.bytes()
    }

    /// Bytes written since it was opened, headers and padding included.
    pub fn written_bytes(&self) -> u64 {
        self.0.shared.locked().written_bytes
    }

    /// Whether the disk had no room for it when it was last tried: what is queued waits, and is tried again until there is some.
    pub fn waits_for_room(&self) -> bool {
        self.0.shared.locked().full
    }

    /// How long syncs take, as of `now` by the monotonic clock.
    pub fn syncs(&self, now: Duration) -> Syncs {
        self.0.shared.locked().syncs.now(now)
    }

    /// The slowest sync that ended after `since`; zero if none was slow.
    pub fn slowest_sync_since(&self, since: Duration) -> Duration {
        self.0.shared.locked().syncs.slowest_since(since)
    }

    /// Index of the first live entry, or of the next one if none is.
    pub fn first_index(&self) -> u64 {
        let state = self.0.shared.locked();
        let head = state.live.head();
        match head.last {
            Some(_) => head.first,
            None => head.purged.map_or(0, |purged| purged.index.saturating_add(1)),
        }
    }

    /// Where to purge so that at most `bytes_kept` of live entries remain; `None`: no more do already.
    pub fn purge_point(&self, bytes_kept: u64) -> Option<LogId> {
        self.0.shared.locked().live.purge_point(bytes_kept)
    }

    /// The error that ended the log: a failed sync, or a failed write other than on a full disk. It stays, and answers all later calls.
    pub fn failed(&self) -> Option<Error> {
        self.0.shared.locked().failed.clone()
    }

    /// Calls `tell` once when the log ends by a failure, at once if it has: the process is to exit.
    pub fn on_failure(&self, tell: Box<dyn FnOnce(Error) + Send>) {
        let mut state = self.0.shared.locked();
        match state.failed.clone() {
            None => state.on_failure.push(tell),
            Some(error) => {
                drop(state);
                tell(error);
            }
        }
    }
}

/// Entries that lie one behind the other in one segment.
struct Run {
    file: Arc<dyn crate::env::DiskFile>,
    entries: Vec<Stored>,
}

/// Gaps between entries that are worth reading over, in bytes: votes, markers, purges.
const GAP_BYTES_MAX: u32 = 4 * HEADER_BYTES as u32;

fn in_memory(live: &Live, indexes: Range<u64>, bytes_max: u64) -> Vec<Record> {
    let mut records = Vec::new();
    let mut bytes = 0;
    for record in indexes.map_while(|index| live.in_memory(index)) {
        bytes += record.payload.len() as u64;
        if bytes > bytes_max && !records.is_empty() {
            break;
        }
        records.push(record.clone());
    }
    records
}

fn next_run(state: &State, indexes: Range<u64>, bytes_max: u64) -> Option<Run> {
    let mut entries: Vec<Stored> = Vec::new();
    let mut bytes = 0;
    for entry in indexes.map_while(|index| state.live.stored(index)) {
        let follows = entries.last().is_none_or(|last| {
            let end = last.place.offset + last.bytes;
            last.place.segment == entry.place.segment && (end..=end + GAP_BYTES_MAX).contains(&entry.place.offset)
        });
        bytes += u64::from(entry.bytes);
        if !follows || (bytes > bytes_max && !entries.is_empty()) {
            break;
        }
        entries.push(entry);
    }
    let file = state.segments.get(&entries.first()?.place.segment)?.file.clone();
    Some(Run { file, entries })
}
