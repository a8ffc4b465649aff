//! A data directory out of a backup, or out of what one node still has: a member of a new cluster that begins with the old one's sessions (laws L38, L46).
//!
//! Kept are sessions, tombstones, machine time, cluster version and every create_revision. Dropped are the client table and the leases: the
//! new cluster id makes every client, base, cache and fence of the old cluster unknown. The log begins far above the last entry of the backup,
//! and of all that was applied after it or is applied by the old cluster yet, so no revision, fence, client id or create_revision comes twice. The node counts as initialized; the vote's term is that of the last entry.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use bytes::Bytes;

use crate::env::Env;
use crate::machine::rows;
use crate::mutant::{self, Mutant};
use crate::raft::adapter::state_machine::{MEMBERSHIP_KEY, RAFT_TABLE, stored_membership_to};
use crate::raft::adapter::types::{Membership, PeerNode, StoredMembership, Vote, log_id_to, vote_to_bytes};
use crate::storage::backup::{self, Reader};
use crate::storage::directory;
use crate::storage::identity::Identity;
use crate::storage::lock::Lock;
use crate::storage::log::{self, Log};
use crate::storage::state;
use crate::types::{ClusterId, InstanceId, LogId, Member, NodeId};

/// Revisions left out between the old cluster's and the new one's: more than the old one gives in its life. At 10 000 a second it is three
/// years.
pub const REVISIONS_SKIPPED: u64 = 1 << 40;

/// Which node of which cluster the directory becomes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The new cluster's id, the same on all its members.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// All members, each a voter.
    pub members: Vec<Member>,
    /// The node's data directory; missing or empty.
    pub data_dir: PathBuf,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backup is damaged.
    #[error("{0}")]
    Backup(backup::Error),
    /// The directory holds something, or another process has it. Nothing was changed.
    #[error("{0}")]
    Directory(String),
    /// The disk failed half way: remove the directory before the next attempt. Without its identity no node starts from it.
    #[error("{0}")]
    Disk(String),
}

impl From<state::Error> for Error {
    fn from(error: state::Error) -> Self {
        Self::Disk(format!("the state was not written: {error}"))
    }
}

/// The instance of a restored node: every member must know those of all others before any of them runs, so it follows from the new
/// cluster's id, which is drawn for each restore. Two nodes, or two restores, never share one.
pub fn restored_instance(cluster: ClusterId, node: NodeId) -> InstanceId {
    let mut bytes = cluster.0;
    for (byte, mixed) in bytes[8..].iter_mut().zip(node.0.to_be_bytes()) {
        *byte ^= mixed;
    }
    InstanceId(bytes)
}

/// Errors: the directory has something in it, or lies in a node's own directory. A missing one is fine.
pub fn require_empty(env: &Env, dir: &Path) -> Result<(), Error> {
    let refused = |what: String| Err(Error::Directory(format!("{what}; nothing was changed path={}", dir.display())));
    if let Some(own) = dir.parent().and_then(|parent| directory::own_of(&env.disk, parent)) {
        let (own_dir, parent) = (own.dir.display(), own.dir.parent().unwrap_or(Path::new(".")).display());
        return refused(format!(
            "the data directory would lie in {own}: name its parent, or another one own={own_dir} parent={parent}"
        ));
    }
    match env.disk.exists(dir).and_then(|there| if there { env.disk.list(dir) } else { Ok(Vec::new()) }) {
        Ok(names) => match names.iter().find(|name| !["LOCK", "lost+found"].contains(&name.as_str())) {
            Some(name) => refused(format!("the data directory is not empty: it has {name:?}; name another one or move it away")),
            None => Ok(()),
        },
        Err(error) => refused(format!("the data directory can't be read: {error}")),
    }
}

/// Writes the directory of one node from a backup that was verified. Blocking; `progress` gets the bytes read.
///
/// The identity comes last, so a directory that was written in part is refused at start. Errors: see [`Error`].
pub fn restore<R: Read>(env: &Env, reader: Reader<R>, target: &Target, progress: impl FnMut(u64)) -> Result<(), Error> {
    require_empty(env, &target.data_dir)?;
    let applied = reader.applied().map_err(Error::Backup)?;
    write(env, target, applied, rows_of(reader, progress))
}

/// Writes the directory of one node, which [`require_empty`] has seen, from the rows of a state whose entries end at `applied`. Blocking.
pub(super) fn write(
    env: &Env,
    target: &Target,
    applied: LogId,
    rows: impl Iterator<Item = Result<Row, Error>>,
) -> Result<(), Error> {
    let (dir, applied) = (&target.data_dir, begins_behind(applied));
    let membership = membership(target, applied)?;
    let failed = |what: &str, error: &dyn fmt::Display| {
        Error::Disk(format!("{what}: {error}; remove the directory before the next attempt path={}", dir.display()))
    };
    env.disk.create_dir_all(dir).map_err(|error| failed("the directory was not made", &error))?;
    let lock = Lock::acquire(&*env.disk, dir).map_err(|error| Error::Directory(error.to_string()))?;
    state::create(env, &dir.join("state"), state::Options::default(), applied, kept_rows(rows, &membership, applied))?;
    begin_log(env, &dir.join("log"), applied).map_err(|error| failed("the log was not written", &error))?;
    let instance = restored_instance(target.cluster, target.node);
    Identity::create_restored(env, dir, target.node, target.cluster, instance)
        .map_err(|error| failed("the identity was not written", &error))?;
    drop(lock);
    Ok(())
}

/// The entry behind which the new log begins: no revision, fence, client id or create_revision of the old cluster comes again.
fn begins_behind(applied: LogId) -> LogId {
    let index = match () {
        () if mutant::is(Mutant::RevisionsRestart) => 1,
        () if mutant::is(Mutant::FenceAgainAfterARestore) => applied.index,
        () => applied.index + REVISIONS_SKIPPED,
    };
    LogId { index, ..applied }
}

fn membership(target: &Target, applied: LogId) -> Result<StoredMembership, Error> {
    let node = |member: &Member| PeerNode::new(member, restored_instance(target.cluster, member.id));
    let nodes: BTreeMap<NodeId, PeerNode> = target.members.iter().map(|member| (member.id, node(member))).collect();
    let voters: BTreeSet<NodeId> = nodes.keys().copied().collect();
    assert!(voters.contains(&target.node), "a node is restored as a member: {target:?}");
    let membership = Membership::new(vec![voters], nodes).map_err(|error| Error::Directory(error.to_string()))?;
    Ok(StoredMembership::new(Some(log_id_to(applied)), membership))
}

/// Table, key, value.
pub(super) type Row = (u8, Bytes, Bytes);

/// The rows of a backup, up to the first that is damaged.
fn rows_of<R: Read>(mut reader: Reader<R>, mut progress: impl FnMut(u64)) -> impl Iterator<Item = Result<Row, Error>> {
    std::iter::from_fn(move || {
        let row = reader.next()?.map_err(Error::Backup);
        progress(reader.offset());
        Some(row)
    })
}

/// All rows but those of clients and leases, with the new membership in place of the old, and as of the entry where the new log begins.
fn kept_rows(
    rows: impl Iterator<Item = Result<Row, Error>>,
    membership: &StoredMembership,
    begin: LogId,
) -> impl Iterator<Item = Result<Row, Error>> {
    let own = (RAFT_TABLE, Bytes::from_static(MEMBERSHIP_KEY), stored_membership_to(membership));
    let is_dropped = |table: u8| {
        let is_forgotten = table == rows::GLOBAL && mutant::is(Mutant::RevisionsRestart);
        [rows::CLIENTS, rows::OUTCOMES, rows::LEASES, RAFT_TABLE].contains(&table) || is_forgotten
    };
    let is_kept = move |row: &Result<Row, Error>| row.as_ref().map_or(true, |row| !is_dropped(row.0));
    let moved = move |row: Row| match row {
        (rows::GLOBAL, key, value) => {
            let global =
                rows::decode_global(&value).map_err(|error| Error::Disk(format!("the state can't be restored: {error}")))?;
            Ok((rows::GLOBAL, key, rows::encode_global(&rows::Global { applied: Some(begin), ..global })))
        }
        row => Ok(row),
    };
    rows.filter(is_kept).map(move |row| row.and_then(moved)).chain(std::iter::once(Ok(own)))
}

/// A log without entries that continues behind `applied`, with a vote that no leader of the old cluster's terms can undercut.
fn begin_log(env: &Env, dir: &Path, applied: LogId) -> Result<(), log::Error> {
    let log = Log::open(env, dir, log::Options::default())?;
    let vote = Vote { leader_id: log_id_to(applied).leader_id, committed: false };
    log.purge(applied);
    let (sender, synced) = mpsc::channel();
    log.save_vote(vote_to_bytes(&vote), Box::new(move |result| drop(sender.send(result))));
    // It closed without a word: its thread is gone.
    synced.recv().unwrap_or(Err(log::Error::Options("the log ended before it was synced")))
}
