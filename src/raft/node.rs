//! A running node, as the server uses it.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::{Semaphore, watch};
use tonic::transport::Channel;

use super::adapter::types::{PeerNode, members_of};
use super::backup::Backup;
use super::byte_permit::ReadBudget;
use super::context::NodeContext;
use super::members::outside::Outside;
use super::members::{self, MemberChanges};
use super::peer::peer_table::PeerTable;
use super::peer::peers::Purpose;
use super::peer::transfer::{Failed, transfer_leadership};
use super::propose::{propose, stamp};
use super::read::{self, Read, Reads};
use super::repack;
use super::upkeep::purge::Eraser;
use super::upkeep::room::Room;
use super::upkeep::{scrub, upgrade};
use super::{CLUSTER_VERSION_MIN, Leadership, Reply};
use crate::env::Tasks;
use crate::machine::{Command, Counts, Machine, Metered, OpenedClient, PrefixUsage, Rules, newest_version};
use crate::types::{ClientId, ClusterId, Load, Member, MemberChange, Members, NodeId, NodeStatus, Refusal, RefusalKind, Role};
use crate::wire::peer::v1::Route;

/// How long a stopping node waits for its tasks: those that end at once, and batches that Raft, which has stopped, answers.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stopping node waits for its last flush.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach one member's peer port.
pub struct Peer {
    /// A lazy channel.
    pub channel: Channel,
    /// The route that each call carries.
    pub route: Route,
}

/// A handle to the running node. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Parts>);

/// The parts that a handle reaches.
pub(super) struct Parts {
    pub context: Arc<NodeContext>,
    pub table: Arc<PeerTable>,
    pub members: Arc<MemberChanges>,
    pub room: Arc<Room>,
    pub outside: Arc<Outside>,
    pub reads: Arc<Reads>,
    pub scrub: Arc<scrub::Progress>,
    pub eraser: Eraser,
    /// One backup at a time: each pins a state.
    pub backups: Arc<Semaphore>,
    /// All of the node's, and what they and this handle spawn.
    pub tasks: Tasks,
}

impl Node {
    pub(super) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.0.context.me()
    }

    /// The cluster; `None` before bootstrap.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.0.context.peers.cluster_id()
    }

    /// The refusal of whatever speaks for a cluster, where this node is in none.
    pub fn outside(&self) -> Option<Refusal> {
        let (why, _) = self.0.outside.why()?;
        Some(Refusal::not_applied(RefusalKind::Unavailable, why))
    }

    /// Why this node is in no cluster, though one has it as a member.
    pub fn estranged(&self) -> Option<String> {
        self.0.outside.why().filter(|(_, is_member)| *is_member).map(|(why, _)| why)
    }

    /// Members that are reached elsewhere than the membership has them, in words.
    pub fn found_elsewhere(&self) -> Vec<String> {
        let membership = self.0.context.membership();
        let others = membership.nodes().filter(|(_, node)| !node.peer_address.is_empty());
        let elsewhere = |(id, node): (&NodeId, &PeerNode)| {
            let at = self.0.context.peers.address(node);
            (at != node.peer_address).then(|| format!("node={id} at={at} members_have={}", node.peer_address))
        };
        others.filter_map(elsewhere).collect()
    }

    /// The leadership, as it changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.context.leadership.subscribe()
    }

    /// Proposes all in one batch, in order, stamped with one time; but each repack by itself, once its rows were compared. Each reply is called exactly once, from another task.
    pub fn propose(&self, mut batch: Vec<(Command, Reply)>) {
        for repack in repack::take_from(&mut batch) {
            let reads = self.0.reads.clone();
            self.0.tasks.spawn(|_| async move { repack::propose_repack(&reads, repack).await });
        }
        if batch.is_empty() {
            return;
        }
        let context = self.0.context.clone();
        self.0.tasks.spawn(|_| async move { propose(&context, batch).await });
    }

    /// One read index for all linearizable reads of the batch, one view each. Each reply is called exactly once, from another thread.
    pub fn read(&self, batch: Vec<Read>) {
        let reads = self.0.reads.clone();
        self.0.tasks.spawn(|_| async move { read::answer(&reads, batch).await });
    }

    /// Content that was read and waits for its readers.
    pub fn loaded(&self) -> &ReadBudget {
        &self.0.reads.loaded
    }

    /// The members: the replicated ones, or before bootstrap the configured ones.
    pub fn members(&self) -> Vec<Member> {
        let members = members_of(&self.0.context.membership());
        if members.iter().any(|member| member.voter) { members } else { self.0.context.facts.configured.clone() }
    }

    /// The members, as this node has applied them; none before bootstrap.
    pub fn applied_members(&self) -> Members {
        members::applied(&self.0.context)
    }

    /// The members, once this node has applied an entry; `None`: it has not within `timeout`. Cancel safe.
    pub async fn applied_members_within(&self, timeout: Duration) -> Option<Members> {
        let wait = self.0.context.raft.wait(Some(timeout));
        wait.applied_index_at_least(Some(0), "members").await.ok()?;
        Some(self.applied_members()).filter(|applied| !applied.members.is_empty())
    }

    /// Changes who belongs to the cluster, on the leader; gives the members after it. Dropping the future leaves a change that was
    /// proposed to happen.
    ///
    /// Errors: this node does not lead, or the change may not be, or was not made within `timeout`. Asking again is always safe.
    pub async fn change_members(&self, asked: &MemberChange, force: bool, timeout: Duration) -> Result<Members, Refusal> {
        self.0.members.change(asked, force, timeout).await
    }

    /// Hands the leadership over to another voter, by default the one whose log is the longest; gives who leads then. Dropping the
    /// future does not stop it.
    ///
    /// Errors: this node does not lead, no voter can take over, or none did within 4 s: then one still may.
    pub async fn transfer_leadership(&self, to: Option<NodeId>) -> Result<NodeId, Refusal> {
        if !self.0.context.leadership.is_self() {
            return Err(self.0.context.leadership.not_leader());
        }
        if to == Some(self.0.context.me()) {
            return Ok(self.0.context.me());
        }
        transfer_leadership(&self.0.context, &self.0.table, &self.0.room, to).await.map_err(Failed::refusal)
    }

    /// Raises the cluster version by one although members hold it; gives the version in force then, which is that of before where no member
    /// knows a later one. Dropping the future does not stop it.
    ///
    /// Errors: this node does not lead, a member does not read the next version or has not said so, or it was not applied.
    pub async fn finish_upgrade(&self) -> Result<u16, Refusal> {
        upgrade::finish(&self.0.context, &self.0.table).await
    }

    /// The voters of each configuration in force, for our tests.
    #[doc(hidden)]
    pub fn voter_sets(&self) -> Vec<std::collections::BTreeSet<NodeId>> {
        self.0.context.membership().membership().get_joint_config().clone()
    }

    /// This node calls no election when its timeout is over, for tests of what makes a leader without.
    #[doc(hidden)]
    pub fn never_time_out(&self) {
        self.0.context.raft.runtime_config().elect(false);
    }

    /// Waits until this node hears nothing of a peer any more, for our tests. Cancel safe.
    #[doc(hidden)]
    pub async fn wait_disconnected(&self, peer: NodeId) {
        self.0.table.disconnected(peer).await;
    }

    /// Whether this node stops because it is no member any more.
    pub fn was_removed(&self) -> bool {
        self.0.context.failure.was_removed()
    }

    /// The node's memory of its past.
    pub fn events(&self) -> &crate::events::Events {
        &self.0.context.events
    }

    /// A backup that contains everything up to the entry `at_least`, waited for at most `timeout`. Cancel safe.
    ///
    /// Errors: another one is being made, the entry did not come in time, nothing was ever applied, or the disk failed.
    pub async fn backup(&self, at_least: u64, timeout: Duration) -> Result<Backup, Refusal> {
        Backup::begin(self.0.context.clone(), &self.0.backups, at_least, timeout).await
    }

    /// Erases deleted data from this node's disk. Reports the rows done, of how many. Gives the last
    /// entry that is gone.
    ///
    /// Errors: one is under way, or it failed; nothing stored is lost. Dropping the future does not stop the last step.
    pub async fn erase(&self, progress: impl FnMut(u64, u64) + Send + 'static) -> Result<u64, Refusal> {
        self.0.eraser.erase(progress).await
    }

    /// The way to a member's peer port; `None` if it is no member.
    pub fn peer(&self, node: NodeId) -> Option<Peer> {
        let member = self.0.context.member(node)?;
        let channel = self.0.context.peers.channel(&self.0.context.peers.address(&member), Purpose::Forward).ok()?;
        Some(Peer { channel, route: self.0.context.peers.route(node, member.instance) })
    }

    /// Lets `f` ask this node's machine who holds what, and say whose a client is. It must be short: nothing is applied meanwhile.
    pub fn metered<R>(&self, f: impl FnOnce(&mut Metered<'_>) -> R) -> R {
        self.0.context.state.adjust(|state| f(&mut state.machine.metered()))
    }

    /// About how many stored bytes the answer to these loads has, by this node's applied state.
    pub fn expected_bytes(&self, loads: &[Load]) -> u64 {
        self.0.context.state.view(|state, _, _| loads.iter().map(|load| state.machine.expected_bytes(load)).sum())
    }

    /// The cluster version in force, as this node has applied it.
    pub fn cluster_version(&self) -> u16 {
        self.0.context.state.view(|state, _, _| state.machine.cluster_version())
    }

    /// The newest cluster version that a peer reads, if it said so in this term.
    pub fn newest_version_of(&self, peer: NodeId, term: u64) -> Option<u16> {
        self.0.table.newest_version_of(peer, term)
    }

    /// Shows `f` this node's machine as of one instant, with the time that deadlines are measured by. It must be short: nothing is applied
    /// meanwhile.
    pub fn look<R>(&self, f: impl FnOnce(&Machine, u64) -> R) -> R {
        let context = &self.0.context;
        context.state.view(|state, _, _| f(&state.machine, read::cluster_now_ms(context, state)))
    }

    /// How old this node's state may be: everything acknowledged so many milliseconds before is in it; `None`: that is unknown.
    pub fn stale_ms(&self) -> Option<u64> {
        self.0.context.leadership.stale_ms()
    }

    /// Whether this node applied the entry at `index` within `timeout`. Cancel safe.
    pub async fn applied_within(&self, index: u64, timeout: Duration) -> bool {
        let wait = self.0.context.raft.wait(Some(timeout));
        wait.applied_index_at_least(Some(index), "a watch").await.is_ok()
    }

    /// How much this node's machine holds, and what may be held.
    pub fn counts(&self) -> (Counts, &'static Rules) {
        self.0.context.state.view(|state, _, _| (state.machine.counts(), state.machine.rules()))
    }

    /// The usage under these prefixes, as by [`crate::machine::Machine::prefix_usage`].
    pub fn prefix_usage<'a>(&self, prefixes: impl IntoIterator<Item = &'a str>) -> Option<PrefixUsage> {
        self.0.context.state.view(|state, _, _| state.machine.prefix_usage(prefixes))
    }

    /// The generation of the counted prefixes; 0: never set.
    pub fn prefixes_generation(&self) -> u64 {
        self.0.context.state.view(|state, _, _| state.machine.prefixes_generation())
    }

    /// At most `limit` clients, in order of their ids, beyond `after`.
    pub fn clients_after(&self, after: Option<ClientId>, limit: usize) -> Vec<OpenedClient> {
        self.0.context.state.view(|state, _, _| state.machine.clients_after(after, limit))
    }

    /// Errors: this node does not lead, with who does.
    pub fn require_lead(&self) -> Result<(), Refusal> {
        if self.0.context.leadership.is_self() { Ok(()) } else { Err(self.0.context.leadership.not_leader()) }
    }

    /// Free and total bytes of the file system the data lies on, as last looked at; 0: not yet.
    pub fn disk(&self) -> (u64, u64) {
        self.0.room.space()
    }

    /// The status of this node, without what only the server knows.
    pub fn status(&self) -> NodeStatus {
        let context = &self.0.context;
        let leader = context.leadership.live_leader();
        let (role, term, committed) = {
            let metrics = context.raft.metrics();
            let metrics = metrics.borrow_watched();
            let role = match metrics.state {
                ServerState::Leader if leader == Some(context.me()) => Role::Leader,
                // It would lead if a majority let it.
                ServerState::Leader | ServerState::Candidate => Role::Candidate,
                ServerState::Follower => Role::Follower,
                ServerState::Learner | ServerState::Shutdown => Role::Learner,
            };
            (role, metrics.current_term, metrics.local_committed.as_ref().map(|id| id.index))
        };
        let position = context.log.position();
        let (digest, counts, machine_time_ms, cluster_version, applied) = context.state.view(|state, applied, _| {
            let machine = &state.machine;
            (machine.digest(), machine.counts(), machine.now_ms(), machine.cluster_version(), applied.map(|id| id.index))
        });
        let (disk_free_bytes, disk_total_bytes) = self.disk();
        let (syncs, scrubbed) = (context.log.syncs(context.env.clock.now()), self.0.scrub.now());
        NodeStatus {
            id: context.me(),
            reachable: true,
            role,
            term,
            leader,
            last_log: position.last.map(|id| id.index),
            committed,
            applied,
            flushed: context.state.flushed().map(|id| id.index),
            purged: position.purged.map(|id| id.index),
            digest: applied.map(|_| digest),
            digest_index: applied,
            sessions: counts.sessions,
            clients: counts.clients,
            log_bytes: context.log.bytes(),
            state_bytes: context.state.bytes().file_bytes,
            machine_time_ms,
            cluster_version: cluster_version.into(),
            clock_offset_ms: context.clocks.offset_ms(&context.voters()),
            disk_free_bytes,
            disk_total_bytes,
            configuration_hash: context.facts.configuration_hash,
            cluster_version_min: CLUSTER_VERSION_MIN.into(),
            cluster_version_max: newest_version().into(),
            cluster_version_held: context.facts.cluster_version_held.unwrap_or_default().into(),
            syncs: syncs.count,
            sync_total: syncs.total,
            sync_slowest: syncs.slowest,
            scrub_passes: scrubbed.passes,
            scrub_bytes: scrubbed.bytes,
            scrubbed_ms: scrubbed.ended_ms,
            ..NodeStatus::default()
        }
    }

    /// Peers whose state differs from this node's.
    pub fn differing(&self) -> Vec<NodeId> {
        self.0.table.differing()
    }

    /// How far machine time is ahead of the voters' median.
    pub fn machine_ahead_ms(&self) -> u64 {
        let context = &self.0.context;
        let machine_time_ms = context.state.view(|state, _, _| state.machine.now_ms());
        context.clocks.machine_ahead_ms(machine_time_ms, &context.voters())
    }

    /// Bytes written to the log since the node was started.
    pub fn log_written_bytes(&self) -> u64 {
        self.0.context.log.written_bytes()
    }

    /// On the leader: how many entries of its log each other member lacks; of those only that it has heard of since it leads.
    pub fn behind(&self) -> Vec<(NodeId, u64)> {
        let context = &self.0.context;
        let metrics = context.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last_log = context.log.position().last.map_or(0, |id| id.index);
        let others = metrics.replication.iter().flatten().filter(|(id, _)| **id != context.me());
        others.filter_map(|(id, matched)| Some((*id, last_log.saturating_sub(matched.as_ref()?.index)))).collect()
    }

    /// The digest of the state after the entry at `index`; waits for it to be applied, at most `timeout`.
    ///
    /// `None`: it did not come in time, or is not kept any more. Cancel safe.
    pub async fn digest_at(&self, index: u64, timeout: Duration) -> Option<u64> {
        let wait = self.0.context.raft.wait(Some(timeout));
        wait.applied_index_at_least(Some(index), "digest").await.ok()?;
        self.0.context.state.view(|state, _, _| state.machine.digest_at(index))
    }

    /// How long until a sweep has something to drop, by the stamp this node would propose; `None`: nothing ever will.
    pub fn due_in(&self) -> Option<Duration> {
        let due = self.0.context.state.view(|state, _, _| state.machine.due_at_ms())?;
        Some(Duration::from_millis(due.saturating_sub(stamp(&self.0.context))))
    }

    /// Whether this node's own disk is low: it then takes no content while the members with room are enough.
    pub fn disk_low(&self) -> bool {
        self.0.room.is_low()
    }

    /// The voters whose full disks keep this node, if it leads, from taking saves, for people; `None`: a majority has room.
    pub fn saves_wait_for(&self) -> Option<String> {
        self.0.room.verdict().waits_for()
    }

    /// The slowest sync of the log that ended after `since`, by the monotonic clock; zero if none was slow.
    pub fn slowest_sync_since(&self, since: Duration) -> Duration {
        self.0.context.log.slowest_sync_since(since)
    }

    /// Why this node must stop, once it must.
    pub fn failed(&self) -> Option<String> {
        self.0.context.failure.reason()
    }

    /// Waits until this node must stop; gives the reason. Cancel safe.
    pub async fn wait_failed(&self) -> String {
        self.0.context.failure.wait().await
    }

    /// Hands the leadership over, if this node has it and another takes it; takes no longer than a hand-over may. For a node that is to
    /// stop, and still answers meanwhile. Dropping the future does not stop it.
    pub async fn give_up_leadership(&self) {
        if self.0.context.leadership.is_self()
            && let Err(failed) = transfer_leadership(&self.0.context, &self.0.table, &self.0.room, None).await
        {
            tracing::warn!(why = failed.why, "the leadership was not handed over");
        }
    }

    /// Hands leadership over, flushes, stops. Acknowledged writes are durable with or without this call.
    pub async fn shutdown(&self) {
        self.give_up_leadership().await;
        if let Err(error) = self.0.context.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.0.tasks.stop()).await.is_err() {
            tracing::warn!("some of the node's tasks have not ended; they wait for a disk");
        }
        self.0.context.events.note("stopped", "");
        let events = self.0.context.events.clone();
        self.0.context.blocking.call(move || events.save()).await;
        match tokio::time::timeout(FLUSH_TIMEOUT, self.0.context.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last flush failed; the log has everything"),
            Err(_) => tracing::warn!("the last flush took too long; the log has everything"),
        }
    }
}
