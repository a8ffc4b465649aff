//! Rebuilding a node whose state is damaged, or differs from a majority's (L37): from the leader's state, before Raft starts.
//!
//! ```text
//! damage or divergence while serving ─> mark, process ends ─> start ─┐
//! a row that can't be read at start ─────────────────────────────────┴─> ask the members ─> the leader proposes an empty entry behind
//!   everything this node's log holds, applies it, sends a snapshot ─> new state file ─> CURRENT moved ─> mark removed ─> Raft starts
//! ```
//!
//! Log and vote are kept: this node may have promised them. The snapshot ends behind the last entry of this log and holds committed entries
//! only: every acknowledged entry of this log is in it. openraft purges the entries that the log then lacks at its start. Until then the
//! node serves nothing: its ports are closed, and its clients go elsewhere.

mod leader;
mod mark;
mod serve;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::Status;

use super::adapter::snapshot_in;
use super::adapter::state_machine::{AppliedState, membership_from_start, raft_rows};
use super::adapter::types::{log_id_from, log_id_from_wire, members_of};
use super::context::NodeContext;
use super::members::removed::says_removed;
use super::peer::peers::{Peers, Purpose};
use crate::env::{Blocking, Env};
use crate::machine::{Machine, rows};
use crate::storage::state;
use crate::types::{ClusterId, InstanceId, LogId, Member, NodeId};
use crate::wire::peer::v1 as peer;

pub use mark::{Mark, clear, is_marked, mark, read_mark};
pub use serve::serve;

/// Pause between two rounds of asking ...
const ROUND: Duration = Duration::from_millis(250);
/// ... of which there are so many, some ten elections long ...
const ROUNDS_SOON: u32 = 40;
/// ... and from then on.
const ROUND_LATER: Duration = Duration::from_secs(5);
/// Bound of asking who is there.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the leader may take to propose, apply and flush before it sends.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// Of how many members at most what others say of them is believed.
const MEMBERS_MAX: usize = 2 * crate::limits::NODES_MAX;
/// How often what is missing is logged, in rounds of the first kind, and of the second.
const ROUNDS_PER_LOG: [u32; 2] = [40, 12];

/// A node to be rebuilt. Nothing of it runs.
pub struct Rebuild {
    pub env: Env,
    pub blocking: Blocking,
    pub peers: Peers,
    pub me: NodeId,
    /// This node's data directory.
    pub instance: InstanceId,
    pub cluster: ClusterId,
    pub name: String,
    pub configuration_hash: u64,
    /// Where its state lies.
    pub state_dir: PathBuf,
    pub options: state::Options,
    /// Where its log ends.
    pub last_index: u64,
    /// The members that may have the state: the configured ones, and those known when the mark was made or by the damaged state. A member
    /// that does not lead names the leader.
    pub members: Vec<(NodeId, String)>,
}

/// Members read from the damaged state's membership row; empty if that row is damaged too. Blocks on the disk.
pub fn members_in(env: &Env, state_dir: &Path) -> Vec<(NodeId, String)> {
    let found = state::StoppedState::open(env, state_dir).and_then(|stopped| raft_rows(&stopped.rows()));
    let membership = found.map(|(membership, _)| membership).unwrap_or_default();
    membership.nodes().map(|(id, node)| (*id, node.peer_address.clone())).collect()
}

/// The members to ask, each once. Marked addresses override configured ones, which may be older.
pub fn members_to_ask(me: NodeId, marked: &[(NodeId, String)], configured: &[Member]) -> Vec<(NodeId, String)> {
    let configured = configured.iter().map(|member| (member.id, member.peer_address.clone()));
    let all: BTreeMap<NodeId, String> = configured.chain(marked.iter().cloned()).collect();
    all.into_iter().filter(|(id, _)| *id != me).collect()
}

impl Rebuild {
    /// Asks until a leader has sent its state and it is in place; gives its last entry, or nothing if this node is no member any more.
    /// Cancel safe: what came in part is removed.
    pub async fn run(&self) -> Option<LogId> {
        let mut members: BTreeMap<NodeId, String> = self.members.iter().cloned().collect();
        let mut round = 0u32;
        loop {
            let mut reasons = Vec::new();
            for (id, address) in members.clone() {
                let status = match self.ask(id, &address).await {
                    Ok(applied) => return Some(applied),
                    Err(status) if says_removed(&status) => return None,
                    Err(status) => status,
                };
                if let Some((leader, address)) = leader::named(&status).filter(|(leader, _)| *leader != self.me)
                    && (members.len() < MEMBERS_MAX || members.contains_key(&leader))
                {
                    members.insert(leader, address);
                }
                reasons.push(format!("node {id}: {}", status.message()));
            }
            let is_soon = round < ROUNDS_SOON;
            if round.is_multiple_of(ROUNDS_PER_LOG[usize::from(!is_soon)]) {
                tracing::warn!(reasons = reasons.join("; "), "no member sends its state yet; asking on");
            }
            round = round.wrapping_add(1);
            tokio::time::sleep(if is_soon { ROUND } else { ROUND_LATER }).await;
        }
    }

    async fn ask(&self, id: NodeId, address: &str) -> Result<LogId, Status> {
        let unreachable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        let mut control = self.peers.client_at(address, Purpose::Control).map_err(unreachable)?;
        let hello = peer::HelloRequest { name: self.name.clone(), configuration_hash: self.configuration_hash, from: self.me.0 };
        let late = |_| Status::deadline_exceeded("no answer in time");
        let hello = tokio::time::timeout(HELLO_TIMEOUT, control.hello(hello)).await.map_err(late)??.into_inner();
        let instance = InstanceId::from_slice(&hello.instance);
        let (true, Some(instance)) =
            (hello.node == id.0 && ClusterId::from_slice(&hello.cluster_id) == Some(self.cluster), instance)
        else {
            return Err(Status::failed_precondition("the node that answers there is not this member of this cluster"));
        };
        let request = peer::RebuildRequest {
            route: Some(self.peers.route(id, instance)),
            from_instance: Bytes::copy_from_slice(self.instance.as_bytes()),
            last_index: self.last_index,
        };
        let mut client = self.peers.client_at(address, Purpose::Snapshot).map_err(unreachable)?;
        let frames = tokio::time::timeout(BEGIN_TIMEOUT, client.rebuild(request)).await.map_err(late)??.into_inner();
        tracing::info!(from = %id, "a member sends its state");
        self.receive(frames).await
    }

    async fn receive(&self, mut frames: tonic::Streaming<peer::SnapshotFrame>) -> Result<LogId, Status> {
        let start = snapshot_in::start(&mut frames).await?;
        let applied = start
            .last_log
            .as_ref()
            .map(log_id_from_wire)
            .transpose()
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let applied = applied.map(|id| log_id_from(&id)).ok_or_else(|| Status::invalid_argument("snapshot has no last log id"))?;
        if applied.index <= self.last_index {
            let text = format!("the snapshot does not end behind this log found={} last={}", applied.index, self.last_index);
            return Err(Status::failed_precondition(text));
        }
        let membership = membership_from_start(&start).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (env, dir, options) = (self.env.clone(), self.state_dir.clone(), self.options);
        let begin = move || state::receive_in::<AppliedState>(&env, &dir, options);
        let receiver = self.blocking.call(begin).await.map_err(snapshot_in::refused)?;
        let receiver = snapshot_in::rows(&self.blocking, receiver, &mut frames).await?;
        let (env, dir) = (self.env.clone(), self.state_dir.clone());
        let put = move || {
            let received = receiver.finish(applied, AppliedState::from_rows)?;
            if received.machine().membership != membership {
                return Err(state::Error::invalid("the snapshot's membership is not that of its rows"));
            }
            received.put_in_place(&env, &dir)
        };
        self.blocking.call(put).await.map_err(snapshot_in::refused)?;
        Ok(applied)
    }
}

/// Where damage lies, for people: the table by its name, the session by its hash, the chunk by its number.
pub fn name_damage(machine: &Machine, error: &state::Error) -> String {
    let state::Error::Corrupt { table: Some(table), key: Some(key), .. } = error else { return error.to_string() };
    let birth = rows::birth_of(*table, key);
    let session = match *table {
        rows::SESSIONS | rows::TOMBSTONES => rows::decode_session_key(*table, key).ok(),
        rows::HEADS | rows::CHUNKS => birth.and_then(|birth| machine.born_as(birth)).cloned(),
        _ => None,
    };
    let mut text = format!("{error} name={}", rows::table_name(*table));
    if let Some(session) = session {
        text += &format!(" {session:?}");
    }
    if let (rows::HEADS | rows::CHUNKS, Some(birth)) = (*table, birth) {
        text += &format!(" {birth}");
    }
    match key.get(8..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(chunk) if *table == rows::CHUNKS => text + &format!(" chunk={}", u64::from_be_bytes(*chunk)),
        _ => text,
    }
}

/// The state's failure leads to a rebuild only if it is damage: a failed disk is not repaired by writing to it.
pub fn is_damage(error: &state::Error) -> bool {
    matches!(error, state::Error::Corrupt { .. })
}

/// This node's state is wrong or damaged: the process is to end, and the next start is to rebuild it from the leader's.
///
/// Raft continues until then; what it acknowledges is in the log, which is kept.
pub fn stop_to_rebuild(context: &Arc<NodeContext>, reason: String) {
    if !context.failure.begin_rebuild() {
        return;
    }
    let own = context.clone();
    let job = move || {
        let peers = members_of(&own.membership());
        if let Err(error) = mark(&own.env, &own.facts.data_dir, &reason, &peers) {
            // Without the mark the next start finds out by itself what is wrong.
            tracing::error!(%error, "the mark for a rebuild can't be written");
        }
        own.events.note("rebuild", "asked for: the next start takes the leader's state");
        own.failure.fail(format!("{reason}; the next start rebuilds this node from the leader"));
    };
    context.env.workers.run(Box::new(job));
}

/// The state of a running node has failed: it ends, to be rebuilt where a rebuild can repair that. Damage is named.
pub fn state_failed(context: &Arc<NodeContext>, error: &state::Error) {
    if !is_damage(error) {
        return context.failure.fail(format!("the state failed: {error}"));
    }
    let named = context.state.view(|state, _, _| name_damage(&state.machine, error));
    context.events.note("damaged", named.clone());
    stop_to_rebuild(context, named);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Revision;

    #[test]
    fn the_marks_addresses_go_before_the_configured_ones() {
        let member = |id: u64, address: &str| Member { peer_address: address.into(), ..Member::new(id) };
        let configured = [member(1, "a:1"), member(2, "a:2"), member(3, "a:3")];
        let marked = [(NodeId(3), "b:3".to_owned()), (NodeId(4), "b:4".to_owned())];
        let expected = [(NodeId(2), "a:2".to_owned()), (NodeId(3), "b:3".to_owned()), (NodeId(4), "b:4".to_owned())];
        assert_eq!(members_to_ask(NodeId(1), &marked, &configured), expected);
    }

    #[test]
    fn damage_is_named_by_table_session_and_chunk_and_never_by_the_id() {
        let machine = Machine::new();
        let key = rows::chunk_key(Revision(17), 3);
        let text = name_damage(&machine, &state::Error::corrupt_row(rows::CHUNKS, key, "the checksum does not match"));
        assert!(text.contains("the checksum does not match"), "{text}");
        assert!(text.ends_with("name=chunks create_revision=17 chunk=3"), "{text}");
        let key = Bytes::from_static(b"secret-id");
        let text = name_damage(&machine, &state::Error::corrupt_row(rows::SESSIONS, key, "it does not decode"));
        assert!(text.contains("name=sessions session:") && !text.contains("secret"), "{text}");
    }
}
