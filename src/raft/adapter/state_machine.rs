//! The machine and its rows as openraft's state machine.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use openraft::EntryPayload;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta};
use tokio::sync::oneshot;

use super::round::{Applicable, ROWS_SOFT, Round};
use super::types::{
    Entry as RaftEntry, Leader, Membership, PeerNode, RaftLogId, StoredMembership, Types, log_id_from, log_id_from_wire, log_id_to,
    log_id_to_wire, membership_from_wire, membership_to_wire,
};
use crate::codec;
use crate::env::Blocking;
use crate::limits::FRAME_BYTES_MAX;
use crate::machine::{BuildError, Command, Effects, Entry, Machine, RowChange, newest_version, rows};
use crate::mutant::{self, Mutant};
use crate::storage::state::{self, Received, Rows, State};
use crate::types::{LogId, NodeId, Outcome, Revision, Verdict, bounded};
use crate::wire::{self, peer::v1 as peer};

/// The table of Raft's own row: the membership in force, which every snapshot carries (L36). The machine's tables have smaller numbers.
pub const RAFT_TABLE: u8 = 200;
pub const MEMBERSHIP_KEY: &[u8] = b"membership";
/// The largest id of any member that ever was (L35), as 8 bytes, the largest first. Missing in a state of before it was kept.
const LARGEST_NODE_KEY: &[u8] = b"largest_node";
const _: () = assert!(RAFT_TABLE > rows::HEADS && RAFT_TABLE > rows::CHUNKS);

/// openraft on our log and our state.
pub type Raft = openraft::Raft<Types, StateMachine>;

/// The state under the view lock: everything `apply` changes in memory.
pub struct AppliedState {
    /// The machine.
    pub machine: Machine,
    /// The last membership applied.
    pub membership: StoredMembership,
    /// The largest id that any member of any membership applied had.
    pub largest_node: NodeId,
}

impl AppliedState {
    /// Rebuilds from rows. Errors: a row that does not decode, naming it.
    pub fn from_rows(rows: Rows<'_>) -> Result<Self, state::Error> {
        let (membership, largest_node) = raft_rows(&rows)?;
        let machine = machine_from(&rows)?;
        Ok(Self { machine, membership, largest_node })
    }

    /// Applies one entry. One of Raft's own has an outcome that says only where it stands; nobody acts on its version.
    fn apply(&mut self, log_id: LogId, entry: &Applicable, batch: &mut state::Batch, effects: &mut Effects) -> Outcome {
        let membership = match entry {
            Applicable::Command(entry) => return self.machine.apply(log_id, entry, effects),
            Applicable::Own(membership) => membership,
        };
        self.machine.skip(log_id, effects);
        if let Some(membership) = membership {
            batch.put(RAFT_TABLE, Bytes::from_static(MEMBERSHIP_KEY), stored_membership_to(membership));
            let largest = self.largest_node.max(largest_of(membership));
            batch.put(RAFT_TABLE, Bytes::from_static(LARGEST_NODE_KEY), Bytes::copy_from_slice(&largest.0.to_be_bytes()));
            (self.membership, self.largest_node) = (membership.clone(), largest);
        }
        let verdict = Verdict::ClusterVersion { version: self.machine.cluster_version() };
        Outcome { revision: Revision(log_id.index), verdict }
    }

    /// The rows of a flush that are made with it, and what the flush is known by.
    pub fn completion() -> state::Completion<Self> {
        let rows = |state: &mut Self, batch: &mut state::Batch| {
            let mut effects = Effects::default();
            state.machine.complete(&mut effects);
            put_rows(batch, effects.rows);
        };
        state::Completion { rows, mark: |state| state.machine.digest() }
    }

    /// Whether that node was a member once and is none any more.
    pub fn is_removed(&self, id: NodeId) -> bool {
        id <= self.largest_node && self.membership.get_node(&id).is_none()
    }
}

/// The largest id among its members.
fn largest_of(membership: &StoredMembership) -> NodeId {
    membership.nodes().map(|(id, _)| *id).max().unwrap_or_default()
}

/// The content of a row that belongs to Raft.
pub enum RaftRow {
    Membership(StoredMembership),
    LargestNode(NodeId),
}

/// Reads one. Errors: it is none that this program writes.
pub fn raft_row(key: &[u8], value: &[u8]) -> io::Result<RaftRow> {
    match key {
        MEMBERSHIP_KEY => Ok(RaftRow::Membership(stored_membership_from(value)?)),
        LARGEST_NODE_KEY => {
            let bytes = value.try_into().map_err(|_| super::types::invalid("the largest node id must have 8 bytes"))?;
            Ok(RaftRow::LargestNode(NodeId(bounded("largest_node", u64::from_be_bytes(bytes))?)))
        }
        _ => Err(super::types::invalid("a row of raft's own has an unknown key")),
    }
}

/// The membership among some rows, and the largest node id that ever was.
pub fn raft_rows(rows: &Rows<'_>) -> Result<(StoredMembership, NodeId), state::Error> {
    let (mut membership, mut largest) = (StoredMembership::default(), NodeId::default());
    for row in rows.table_range(&[RAFT_TABLE]) {
        let (table, key, value) = row?;
        match raft_row(&key, &value).map_err(|error| state::Error::corrupt_row(table, key, error.to_string()))? {
            RaftRow::Membership(stored) => membership = stored,
            RaftRow::LargestNode(_) if mutant::is(Mutant::LargestNodeForgotten) => {}
            RaftRow::LargestNode(id) => largest = id,
        }
    }
    Ok((membership.clone(), largest.max(largest_of(&membership))))
}

/// The machine of a state: its metadata. Errors: a row that can't be read or does not decode, naming it.
pub fn machine_from(rows: &Rows<'_>) -> Result<Machine, state::Error> {
    Machine::from_rows(rows.table_range(&rows::METADATA_TABLES).map(|row| row.map_err(BuildError::Source))).map_err(|error| match error {
        BuildError::Source(error) => error,
        // A later release's rows are no damage: nothing may be put in their place.
        BuildError::Row(rows::Error { problem: rows::Problem::ClusterVersion { version }, .. }) => state::Error::newer(format!(
            "the state is at a cluster version that this release does not read version={version} newest={}; install the release \
             that was here before; nothing was changed",
            newest_version()
        )),
        BuildError::Row(error) => state::Error::damaged(format!("{error} name={}", rows::table_name(error.table))),
    })
}

pub fn stored_membership_to(membership: &StoredMembership) -> Bytes {
    wire::to_bytes(&peer::SnapshotStart {
        membership_log: membership.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(membership.membership())),
        ..Default::default()
    })
}

pub fn stored_membership_from(bytes: &[u8]) -> io::Result<StoredMembership> {
    let message: peer::SnapshotStart = wire::from_bytes(bytes)?;
    membership_from_start(&message)
}

/// The membership a snapshot says it has.
pub fn membership_from_start(start: &peer::SnapshotStart) -> io::Result<StoredMembership> {
    let membership = match &start.membership {
        Some(message) => membership_from_wire(message)?,
        None => Membership::default(),
    };
    Ok(StoredMembership::new(start.membership_log.as_ref().map(log_id_from_wire).transpose()?, membership))
}

/// A snapshot on either side of its transfer.
pub enum SnapshotData {
    /// Rows to be read from this node's state.
    Send(state::Snapshot),
    /// Rows that arrived, in a new file, with the machine built from them.
    Received(Received<AppliedState>),
}

/// An entry that a node has just applied.
pub struct Applied<'a> {
    /// Its position.
    pub log_id: LogId,
    /// The command; `None`: an entry of Raft itself.
    pub entry: Option<&'a Entry>,
    /// Its outcome.
    pub outcome: &'a Outcome,
}

/// Called for every entry a node applies, in order; it must be short.
pub type Observer = Arc<dyn Fn(Applied<'_>) + Send + Sync>;

/// Flushes everything applied so far, durably. Cancel safe: the flush continues.
pub async fn flush(state: &State<AppliedState>) -> io::Result<()> {
    let (done, flushed) = oneshot::channel();
    state.flush(Box::new(move |result| drop(done.send(result))));
    flushed.await.map_err(io::Error::other)?.map_err(io::Error::other)
}

/// A snapshot at the last flush point.
pub async fn snapshot(
    state: &Arc<State<AppliedState>>,
    blocking: &Blocking,
) -> io::Result<Snapshot<Leader, NodeId, PeerNode, SnapshotData>> {
    let state = state.clone();
    let read = move || {
        let snapshot = state.snapshot()?;
        let membership = match mutant::is(Mutant::SnapshotWithoutMembership) {
            true => StoredMembership::default(),
            false => raft_rows(&snapshot.rows())?.0,
        };
        Ok::<_, state::Error>((snapshot, membership))
    };
    let (snapshot, last_membership) = blocking.call(read).await.map_err(io::Error::other)?;
    let meta = SnapshotMeta { last_log_id: snapshot.applied().map(log_id_to), last_membership };
    Ok(Snapshot { meta, snapshot: SnapshotData::Send(snapshot) })
}

/// The applied state of one node. Cheap to clone.
#[derive(Clone)]
pub struct StateMachine {
    state: Arc<State<AppliedState>>,
    blocking: Blocking,
    observer: Option<Observer>,
}

impl StateMachine {
    pub fn new(state: Arc<State<AppliedState>>, blocking: Blocking, observer: Option<Observer>) -> Self {
        Self { state, blocking, observer }
    }

    /// Decodes an entry, outside the lock. Errors: it is none that this release reads.
    fn decode(entry: RaftEntry, version: u16) -> io::Result<(Applicable, u64)> {
        Ok(match entry.payload {
            EntryPayload::Normal(payload) => {
                let command = codec::decode(&payload.0, version).map_err(io::Error::other)?;
                require_known(&command)?;
                (Applicable::Command(command), payload.0.len() as u64)
            }
            EntryPayload::Blank => (Applicable::Own(None), 0),
            EntryPayload::Membership(membership) => {
                (Applicable::Own(Some(StoredMembership::new(Some(entry.log_id), membership))), 0)
            }
        })
    }

    /// Applies entries of a round under one hold of the view lock, all unless they change many rows, and answers those who wait for them.
    fn apply_some(&self, round: &mut Round<Option<ApplyResponder<Types>>>) {
        let mut applied = Vec::new();
        self.state.update(|state, batch| {
            let mut effects = Effects::default();
            while effects.rows.len() < ROWS_SOFT
                && let Some((log_id, entry, waiting)) = round.pop()
            {
                let outcome = state.apply(log_id, &entry, batch, &mut effects);
                batch.set_applied(log_id);
                applied.push((log_id, entry, waiting, outcome));
            }
            put_rows(batch, effects.rows);
            batch.set_unmade_bytes(state.machine.unmade_bytes());
        });
        for (log_id, entry, waiting, outcome) in applied {
            if let Some(observer) = &self.observer {
                let entry = match &entry {
                    Applicable::Command(entry) => Some(entry),
                    Applicable::Own(_) => None,
                };
                observer(Applied { log_id, entry, outcome: &outcome });
            }
            if let Some(waiting) = waiting {
                waiting.send(outcome);
            }
        }
    }

    /// Streams a snapshot of another store into this one's form, as if it had come from a peer.
    fn receive_all(state: &State<AppliedState>, mut snapshot: state::Snapshot) -> Result<Received<AppliedState>, state::Error> {
        let applied = snapshot.applied().unwrap_or_default();
        let mut receiver = state.receive()?;
        while let Some(frame) = snapshot.next_frame(FRAME_BYTES_MAX)? {
            receiver.frame(&frame)?;
        }
        receiver.finish(applied, AppliedState::from_rows)
    }
}

/// An older release in the place of a newer one ends here, in order, and can be replaced again. The machine would panic.
fn require_known(entry: &Entry) -> io::Result<()> {
    match entry.command {
        Command::SetClusterVersion { version } if version > newest_version() => Err(io::Error::other(format!(
            "the log raises the cluster version beyond what this release knows version={version} newest={}; install the release that was \
             here before",
            newest_version()
        ))),
        _ => Ok(()),
    }
}

fn put_rows(batch: &mut state::Batch, rows: Vec<RowChange>) {
    for row in rows {
        match row.value {
            Some(value) if rows::is_put_once(row.table) => batch.put_first(row.table, row.key, value),
            Some(value) => batch.put(row.table, row.key, value),
            None => batch.delete(row.table, row.key),
        }
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, StoredMembership)> {
        Ok(self.state.view(|state, applied, _| (applied.map(log_id_to), state.membership.clone())))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        let mut entries = entries.fuse();
        let mut first = entries.next().await;
        while let Some(entry) = first.take() {
            let version = self.state.view(|state, _, _| state.machine.cluster_version());
            let mut round = Round::default();
            let mut next = Some(entry);
            let mut failed = None;
            while let Some(entry) = next.take() {
                match entry.and_then(|(entry, waiting)| Ok((log_id_from(&entry.log_id), Self::decode(entry, version)?, waiting))) {
                    Ok((log_id, (entry, bytes), waiting)) => round.push(log_id, entry, bytes, waiting),
                    // Those before it are applied and answered, whatever comes now.
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
                // What is not at hand is waited for once this round is applied.
                next = if round.has_room() { entries.next().now_or_never().flatten() } else { None };
            }
            while !round.is_empty() {
                if self.state.is_full() {
                    // The hard limit of unflushed rows: wait here, not on a lock, so that the async threads stay free.
                    flush(&self.state).await?;
                }
                self.apply_some(&mut round);
            }
            if let Some(error) = failed {
                return Err(error);
            }
            first = entries.next().await;
            if first.is_some() {
                // Answers to appends wait behind one round at most.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta<Leader, NodeId, PeerNode>, snapshot: SnapshotData) -> io::Result<()> {
        let state = self.state.clone();
        // Waited for here, not on a thread: the log needs one of its own to get there.
        let (sender, synced) = oneshot::channel();
        state.sync_log(move |result| drop(sender.send(result)));
        let ended = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the log has ended");
        let synced = synced.await.map_err(ended)?.map_err(io::Error::other)?;
        let install = move || {
            let received = match snapshot {
                SnapshotData::Received(received) => received,
                SnapshotData::Send(snapshot) => Self::receive_all(&state, snapshot)?,
            };
            state.install_synced(received, synced).inspect(|()| tracing::info!("installed a snapshot"))
        };
        self.blocking.call(install).await.map_err(io::Error::other)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<Leader, NodeId, PeerNode, SnapshotData>>> {
        // Before the first flush there is nothing to send.
        Ok(Some(snapshot(&self.state, &self.blocking).await?).filter(|snapshot| snapshot.meta.last_log_id.is_some()))
    }
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<Leader, NodeId, PeerNode, SnapshotData>> {
        flush(&self.state).await?;
        snapshot(&self.state, &self.blocking).await
    }
}
