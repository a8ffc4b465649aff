//! The scrubber: reads everything that lies in the state file over time, so that corruption is found before it is needed.
//!
//! A pass first reads all metadata rows of one flush point and compares their digest with the machine's at that point; then, session
//! by session, every content row, its checksums, and the session's chunks against its metadata; then the log, entry by entry. It reads
//! at most so many bytes a second, and pins a fresh flush point again and again, so that it pins none for long. Damage ends the node,
//! named; the next start rebuilds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::env::Stop;
use crate::machine::audit::{Audit, RowsDigest, content_of};
use crate::machine::rows;
use crate::raft::adapter::state_machine::{AppliedState, RAFT_TABLE};
use crate::raft::context::NodeContext;
use crate::storage::log::Log;
use crate::storage::state::{self, Rows, State};

/// Read at one go, in bytes, before the scrubber rests.
const SLICE_BYTES: u64 = 1 << 20;
/// A pass that a full disk or an install interrupted continues after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How often and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// From the start of one pass to the start of the next; zero: never.
    pub interval: Duration,
    /// Before the first pass.
    pub delay: Duration,
    /// Bytes read in a second, at most.
    pub bytes_per_second: u64,
}

/// How far it is, since the node was started.
#[derive(Debug, Default)]
pub struct Progress {
    passes: AtomicU64,
    bytes: AtomicU64,
    ended_ms: AtomicU64,
}

/// The scrubber's progress at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Whole passes.
    pub passes: u64,
    /// Bytes read.
    pub bytes: u64,
    /// When the last whole pass ended, by this node's clock, in milliseconds since the Unix epoch; 0: none did.
    pub ended_ms: u64,
}

impl Progress {
    pub fn now(&self) -> Scrubbed {
        Scrubbed {
            passes: self.passes.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            ended_ms: self.ended_ms.load(Ordering::Relaxed),
        }
    }
}

/// Where a pass is.
enum Next {
    Metadata,
    /// From this key on.
    Sessions(Bytes),
    /// From this index on.
    Log(u64),
    End,
}

/// Runs passes until it is to stop.
pub async fn run(context: Arc<NodeContext>, progress: Arc<Progress>, options: Options, stop: Stop) {
    stop.or(async {
        if options.interval.is_zero() {
            return;
        }
        tokio::time::sleep(options.delay).await;
        loop {
            let began = context.env.clock.now();
            pass(&context, &progress, options.bytes_per_second).await;
            let took = context.env.clock.now().saturating_sub(began);
            tokio::time::sleep(options.interval.saturating_sub(took).max(AGAIN_AFTER)).await;
        }
    })
    .await;
}

/// One pass. Ends early only with the node.
async fn pass(context: &Arc<NodeContext>, progress: &Progress, bytes_per_second: u64) {
    let mut next = Next::Metadata;
    while !matches!(next, Next::End) {
        let (state, log) = (context.state.clone(), context.log.clone());
        let began = context.env.clock.now();
        let (returned, read) = context
            .blocking
            .call(move || {
                let read = step(&state, &log, &next);
                (next, read)
            })
            .await;
        match read {
            Ok((bytes, after)) => {
                next = after;
                progress.bytes.fetch_add(bytes, Ordering::Relaxed);
                let took = context.env.clock.now().saturating_sub(began);
                let due = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
                tokio::time::sleep(due.saturating_sub(took)).await;
            }
            Err(Found::State(error)) if error.is_final() => return context.state.fail(error),
            Err(Found::State(error)) => {
                tracing::debug!(%error, "the scrubber was interrupted and continues");
                next = returned;
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            Err(Found::Log(error)) => {
                context.events.note("damaged", error.clone());
                return context.failure.fail(format!("the log is damaged: {error}"));
            }
        }
    }
    progress.passes.fetch_add(1, Ordering::Relaxed);
    progress.ended_ms.store(context.env.clock.wall_ms(), Ordering::Relaxed);
    tracing::info!(bytes = progress.now().bytes, "everything on disk was read and is whole");
}

enum Found {
    State(state::Error),
    Log(String),
}

impl From<state::Error> for Found {
    fn from(error: state::Error) -> Self {
        Self::State(error)
    }
}

/// Reads one slice; gives the bytes read and where to go on. Blocking.
fn step(state: &State<AppliedState>, log: &Log, next: &Next) -> Result<(u64, Next), Found> {
    match next {
        Next::Metadata => {
            let (snapshot, mark) = state.marked_snapshot();
            let bytes = metadata(&snapshot.rows(), mark)?;
            Ok((bytes, Next::Sessions(Bytes::new())))
        }
        Next::Sessions(from) => {
            let (bytes, after) = sessions(&state.snapshot()?.rows(), from)?;
            Ok((bytes, after.map_or_else(|| Next::Log(log.first_index()), Next::Sessions)))
        }
        Next::Log(from) => {
            let from = (*from).max(log.first_index());
            let until = log.position().last.map_or(0, |last| last.index + 1);
            if from >= until {
                return Ok((0, Next::End));
            }
            let records = log.read(from..until, SLICE_BYTES).map_err(|error| Found::Log(error.to_string()))?;
            let bytes = records.iter().map(|record| record.payload.len() as u64).sum();
            Ok((bytes, records.last().map_or(Next::End, |last| Next::Log(last.log_id.index + 1))))
        }
        Next::End => Ok((0, Next::End)),
    }
}

/// All rows the machine is rebuilt from, and the membership; `mark` is its digest at this point. Gives the bytes read.
fn metadata(rows: &Rows<'_>, mark: Option<u64>) -> Result<u64, state::Error> {
    let mut digest = RowsDigest::default();
    let mut bytes = 0;
    for row in rows.table_range(&[&rows::METADATA_TABLES[..], &[RAFT_TABLE]].concat()) {
        let (table, key, value) = row?;
        bytes += (key.len() + value.len()) as u64;
        digest.row(table, &key, &value).map_err(|error| state::Error::corrupt_row(table, key, error.to_string()))?;
    }
    let found = digest.finish();
    match mark {
        Some(expected) if expected != found => Err(state::Error::damaged(format!(
            "the rows are not those of the state in memory digest={found:016x} expected={expected:016x} applied={:?}",
            rows.applied().map(|applied| applied.index)
        ))),
        _ => Ok(bytes),
    }
}

/// The content of sessions from the key `from` on, about [`SLICE_BYTES`] of it. Gives the bytes read, and the key to continue from.
fn sessions(rows: &Rows<'_>, from: &[u8]) -> Result<(u64, Option<Bytes>), state::Error> {
    let mut bytes = 0;
    for row in rows.from(rows::SESSIONS, from) {
        let (table, key, value) = row?;
        if bytes >= SLICE_BYTES {
            return Ok((bytes, Some(key)));
        }
        let damaged = |error: String| state::Error::corrupt_row(table, key.clone(), error);
        let (birth, places) = content_of(&value).map_err(|error| damaged(error.to_string()))?;
        let mut audit = Audit::default();
        let head = rows::head_key(birth);
        let after = Bytes::from([&head[..], &[0]].concat());
        let keys = places.keys(&places.all());
        let chunks = keys.iter().flat_map(|keys| rows.range(rows::CHUNKS, &keys.start, &keys.end));
        let content = rows.range(rows::HEADS, &head, &after).chain(chunks);
        for row in content {
            let (table, key, value) = row?;
            bytes += (key.len() + value.len()) as u64;
            audit.row(table, &key, &value).map_err(|error| state::Error::corrupt_row(table, key.clone(), error.to_string()))?;
        }
        audit.finish_one(&value).map_err(|error| damaged(error.to_string()))?;
        bytes += (key.len() + value.len()) as u64;
    }
    Ok((bytes, None))
}
