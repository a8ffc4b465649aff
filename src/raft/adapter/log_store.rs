//! Our log as openraft's log storage. Nothing is reported before it is synced (L21); what a failed log did not take is an error (L22).

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};
use tokio::sync::oneshot;

use super::types::{
    Entry, RaftLogId, Types, Vote, log_id_from, log_id_to, payload_from_bytes, payload_to_bytes, vote_from_bytes, vote_to_bytes,
};
use crate::env::{Locked as _, is_full};
use crate::limits::APPEND_BYTES_SOFT;
use crate::mutant::{self, Mutant};
use crate::storage::identity::{self, Identity};
use crate::storage::log::{self, Log, Record};

/// How long a full disk is left alone before the identity is written again.
const FULL_RETRY: Duration = Duration::from_millis(250);

/// Log and vote of one node, with the identity that remembers whether there ever was any.
#[derive(Clone)]
pub struct LogStore {
    log: Log,
    identity: Arc<Mutex<Identity>>,
}

impl LogStore {
    pub fn new(log: Log, identity: Arc<Mutex<Identity>>) -> Self {
        Self { log, identity }
    }

    /// A record is about to be written. Gives whether it is the first of this node.
    fn begin(&self) -> bool {
        let mut identity = self.identity.locked();
        identity.begin();
        !identity.was_initialized()
    }

    /// Waits until a record is durable and then notes in the identity, durably and once, that this node took part; nobody hears of the
    /// record before. A node whose log vanished must not pass for a new one; one that lost power before it promised anything is still new.
    ///
    /// A full disk is waited for, as the log waits for it.
    async fn durable(&self, synced: oneshot::Receiver<Result<(), log::Error>>) -> io::Result<()> {
        synced.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        loop {
            let marked = self.identity.locked().mark_initialized();
            match marked {
                Err(identity::Error::Io { error, .. }) if is_full(error.kind()) => {
                    tracing::debug!("the disk has no room for the identity, trying again");
                    tokio::time::sleep(FULL_RETRY).await;
                }
                marked => return marked.map_err(io::Error::other),
            }
        }
    }

    /// Records of `from..until`, a prefix of at most about `bytes_max` bytes, never empty where there is one.
    fn read(&self, from: u64, until: u64, bytes_max: u64) -> io::Result<Vec<Entry>> {
        let records = self.log.read(from..until, bytes_max).map_err(io::Error::other)?;
        records.into_iter().map(entry_from).collect()
    }

    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let until = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => self.log.position().last.map_or(0, |last| last.index + 1),
        };
        (from, until)
    }
}

fn entry_from(record: Record) -> io::Result<Entry> {
    Ok(Entry { log_id: log_id_to(record.log_id.bounded()?), payload: payload_from_bytes(record.payload)? })
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (from, until) = self.bounds(&range);
        let mut entries = Vec::new();
        let mut next = from.max(self.log.first_index());
        while next < until {
            let some = self.read(next, until, APPEND_BYTES_SOFT)?;
            let Some(last) = some.last() else { break };
            next = last.log_id.index + 1;
            entries.extend(some);
        }
        Ok(entries)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // A chunk at a time: the default implementation would hold the whole range in memory.
        let (from, until) = self.bounds(&range);
        let store = self.clone();
        let chunks = futures_util::stream::unfold(from, move |next| {
            let store = store.clone();
            async move {
                if next >= until {
                    return None;
                }
                match store.read(next, until, APPEND_BYTES_SOFT) {
                    // A log that failed appends nothing more: its end would pass for the end of what openraft takes for appended, and
                    // thereby for applied.
                    Ok(entries) if entries.is_empty() && store.log.failed().is_some() => {
                        let error = store.log.failed().map(io::Error::other);
                        Some((error.into_iter().map(Err).collect(), until))
                    }
                    Ok(entries) => {
                        let after = entries.last().map_or(until, |last| last.log_id.index + 1);
                        Some((entries.into_iter().map(Ok).collect::<Vec<_>>(), after))
                    }
                    Err(error) => Some((vec![Err(error)], until)),
                }
            }
        });
        use futures_util::StreamExt as _;
        Box::pin(chunks.map(futures_util::stream::iter).flatten())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.log.position().vote.map(|vote| vote_from_bytes(&vote)).transpose()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        // openraft 0.10 has no other bound on the bytes of an append message; an empty answer would stall replication.
        let entries = self.read(start, end, APPEND_BYTES_SOFT)?;
        if entries.is_empty() && start < end {
            return Err(io::Error::other(format!("the log has nothing at {start}..{end} first_index={}", self.log.first_index())));
        }
        Ok(entries)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let position = self.log.position();
        Ok(LogState { last_purged_log_id: position.purged.map(log_id_to), last_log_id: position.last.map(log_id_to) })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.begin();
        let (done, synced) = oneshot::channel();
        self.log.save_vote(vote_to_bytes(vote), Box::new(move |result| drop(done.send(result))));
        if mutant::is(Mutant::VoteNotSynced) {
            return Ok(());
        }
        self.durable(synced).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = <Types as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let is_first = self.begin();
        let record = |entry: Entry| Record { log_id: log_id_from(&entry.log_id), payload: payload_to_bytes(&entry.payload) };
        let records = entries.into_iter().map(record).collect();
        if mutant::is(Mutant::AcknowledgeBeforeSync) {
            self.log.append(records, Box::new(drop));
            callback.io_completed(Ok(()));
            return Ok(());
        }
        if !is_first {
            self.log.append(records, Box::new(move |synced| callback.io_completed(synced.map_err(io::Error::other))));
            return Ok(());
        }
        let (done, synced) = oneshot::channel();
        self.log.append(records, Box::new(move |result| drop(done.send(result))));
        callback.io_completed(self.durable(synced).await);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<RaftLogId>) -> io::Result<()> {
        self.log.truncate_after(last_log_id.as_ref().map(log_id_from));
        Ok(())
    }

    async fn purge(&mut self, log_id: RaftLogId) -> io::Result<()> {
        self.log.purge(log_id_from(&log_id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use futures_util::StreamExt as _;

    use super::super::types::RaftPayload;
    use super::*;
    use crate::testing::disk::{Fault, Operation, SimDisk};
    use crate::testing::inline::SimEnv;
    use crate::types::{ClusterId, LogId, NodeId};

    /// A log that failed appends nothing, while openraft continues for a moment and applies what others committed: what is missing must not pass
    /// for applied.
    #[tokio::test]
    async fn entries_that_a_failed_log_did_not_take_are_an_error_and_no_early_end() {
        let disk = SimDisk::new();
        let sim = SimEnv::new(&disk, 1);
        let mut identity = Identity::load_or_create(&sim.env, Path::new("/"), NodeId(0)).expect("an identity");
        identity.adopt(ClusterId([1; 16])).expect("a fresh identity");
        let options = log::Options { segment_bytes: 1 << 20, ..log::Options::default() };
        let log = Log::open(&sim.env, Path::new("/log"), options).expect("a log");
        let mut store = LogStore::new(log.clone(), Arc::new(Mutex::new(identity)));
        let append = |indexes: std::ops::Range<u64>| {
            let log_id = |index| LogId { term: 1, node: NodeId(1), index };
            let record = |index| Record { log_id: log_id(index), payload: payload_to_bytes(&RaftPayload::Blank) };
            log.append(indexes.map(record).collect(), Box::new(|_| {}));
            sim.workers.run_named("log");
        };
        append(0..3);
        let fault = Fault {
            operation: Operation::Sync,
            path_contains: ".seg".to_owned(),
            skip: 0,
            times: 1,
            kind: std::io::ErrorKind::Other,
        };
        disk.inject(fault);
        append(3..4);
        assert!(log.failed().is_some());
        append(4..6);
        let entries: Vec<_> =
            store.entries_stream(1..6).await.map(|entry| entry.ok().map(|entry| entry.log_id.index)).collect().await;
        assert_eq!(entries, [Some(1), Some(2), Some(3), None], "4 and 5 are not there");
        let there: Vec<_> = store.entries_stream(1..4).await.map(|entry| entry.is_ok()).collect().await;
        assert_eq!(there, [true; 3]);
    }
}
