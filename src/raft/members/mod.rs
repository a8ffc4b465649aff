//! The members of the cluster, and how they change (`quorate::docs::membership`).
//!
//! ```text
//! add      Hello (who is there?) -> Adopt (take this cluster's id) -> a member without a vote, which catches up
//! promote  caught up -> a vote                     remove   a leader hands over first
//! replace  both in one step                        update   Hello (the same data?) -> other addresses
//! ```
//!
//! Everything is proposed on a membership that is committed, applied and not under way to another, and only while it still is the last
//! one, so two operators never overwrite each other. Each change may be asked for again: one that has happened is done.
//!
//! A node id is never used twice. The state keeps the largest one any member ever had, a new node's must be above, and so every node
//! can tell, from what it has applied, one that was removed from one it has not heard of yet.

mod address_update;
pub(super) mod bootstrap;
mod decide;
mod finish_joint;
mod found;
pub(super) mod outside;
pub(super) mod removed;
pub(super) mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError};
use openraft::raft::Precondition;
use tokio::time::{Instant, timeout_at};

use self::decide::{ResolvedChange, Situation, Step};
use super::CLUSTER_VERSION_MIN;
use super::adapter::types::{PeerNode, RaftLogId, StoredMembership, members_of};
use super::context::NodeContext;
use super::peer::peer_table::PeerTable;
use super::peer::transfer::transfer_leadership;
use super::upkeep::room::Room;
use crate::mutant::{self, Mutant};
use crate::types::{ClusterId, InstanceId, Member, MemberChange, Members, NodeId, Refusal, RefusalKind, Revision};
use crate::wire::peer::v1 as peer;

pub use address_update::{receive as receive_moved, run as announce_moved};
pub use finish_joint::run as finish_joint;
pub use found::run as find_moved;

/// How often an awaited condition is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// When to ask again while another change is under way.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How often a node is asked who it is before it counts as not there, and the pause between.
const ATTEMPTS: u32 = 6;
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The members by what this node has applied.
pub fn applied(context: &NodeContext) -> Members {
    let (membership, largest) = context.state.view(|state, _, _| (state.membership.clone(), state.largest_node));
    let configs = membership.membership().get_joint_config();
    let staying: BTreeSet<NodeId> = configs.last().cloned().unwrap_or_default();
    let leaving = membership.voter_ids().filter(|id| !staying.contains(id)).collect();
    let revision = Revision(membership.log_id().map_or(0, |id| id.index));
    let cluster_id = context.peers.cluster_id();
    Members { cluster_id, members: members_of(&membership), revision, largest_id: largest, leaving }
}

/// Changes who belongs to the cluster, one change at a time.
pub struct MemberChanges {
    context: Arc<NodeContext>,
    table: Arc<PeerTable>,
    room: Arc<Room>,
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl MemberChanges {
    /// No change is under way.
    pub fn new(context: Arc<NodeContext>, table: Arc<PeerTable>, room: Arc<Room>) -> Self {
        Self { context, table, room, one_at_a_time: tokio::sync::Mutex::default() }
    }

    /// Makes a change, on the leader; gives the members after it.
    ///
    /// Errors: not the leader; the change is refused; not within `timeout`. A refusal marked `applied: no` changed nothing; after any other the
    /// change may have happened, and may be asked for again. Dropping the future leaves a proposed change to happen.
    pub async fn change(&self, asked: &MemberChange, force: bool, timeout: Duration) -> Result<Members, Refusal> {
        let busy = |_| {
            let kind = RefusalKind::Overloaded { retry_after: RETRY_AFTER };
            Refusal::not_applied(kind, "another change of the members is under way; nothing was changed")
        };
        let _only = self.one_at_a_time.try_lock().map_err(busy)?;
        let deadline = Instant::now() + timeout;
        let Self { context, table, room, .. } = self;
        Changing { context, table, room, force, deadline }.make(asked).await
    }
}

struct Changing<'a> {
    context: &'a Arc<NodeContext>,
    table: &'a PeerTable,
    room: &'a Room,
    force: bool,
    deadline: Instant,
}

impl Changing<'_> {
    async fn make(&self, asked: &MemberChange) -> Result<Members, Refusal> {
        let invalid = |why: String| Refusal::not_applied(RefusalKind::Invalid, format!("{why}; nothing was changed"));
        loop {
            let (situation, membership) = self.situation().await?;
            let change = self.resolve(asked, &situation).await?;
            match decide::decide(&change, &situation) {
                Step::Done => return Ok(applied(self.context)),
                Step::Refuse(why) => return Err(invalid(why)),
                Step::Behind(id, lag) => {
                    let lag = lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string());
                    self.wait(&format!("node {id} has not caught up entries_behind={lag}")).await?;
                }
                Step::Transfer => {
                    let handed = transfer_leadership(self.context, self.table, self.room, None).await;
                    handed.map_err(|failed| {
                        Refusal::not_applied(RefusalKind::Unavailable, format!("the leader is to leave: {}", failed.why))
                    })?;
                    return Err(self.context.leadership.not_leader());
                }
                Step::Propose(changes) => {
                    if let ResolvedChange::Add(_, node) = &change {
                        self.adopt(asked, node).await?;
                    }
                    if self.propose(changes, &membership).await? {
                        return Ok(applied(self.context));
                    }
                }
            }
        }
    }

    /// Waits one poll interval. Errors: the deadline comes first; waiting changed nothing.
    async fn wait(&self, what: &str) -> Result<(), Refusal> {
        if Instant::now() + POLL_INTERVAL >= self.deadline {
            let message = format!("{what}; nothing was changed");
            return Err(Refusal::not_applied(RefusalKind::DeadlineExceeded, message));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        Ok(())
    }

    /// The leader's knowledge, once the last membership is applied and no change is under way.
    async fn situation(&self) -> Result<(Situation, StoredMembership), Refusal> {
        let context = self.context;
        loop {
            let metrics = context.raft.metrics().borrow_watched().clone();
            let replication = match (&metrics.replication, metrics.state) {
                (Some(replication), openraft::ServerState::Leader) => replication,
                _ => return Err(context.leadership.not_leader()),
            };
            if context.leadership.live_leader() != Some(context.me()) {
                return Err(context.leadership.not_leader());
            }
            let (applied, largest) = context.state.view(|state, _, _| (state.membership.clone(), state.largest_node));
            let last = &metrics.membership_config;
            if applied.log_id() != last.log_id() || applied.membership().get_joint_config().len() != 1 {
                self.wait("another change of the members is under way").await?;
                continue;
            }
            let nodes: BTreeMap<NodeId, PeerNode> = applied.nodes().map(|(id, node)| (*id, node.clone())).collect();
            let last_log = metrics.last_log_index.unwrap_or(0);
            let lag = |(id, matched): (&NodeId, &Option<RaftLogId>)| {
                matched.as_ref().map(|matched| (*id, last_log.saturating_sub(matched.index)))
            };
            let situation = Situation {
                me: context.me(),
                voters: applied.voter_ids().collect(),
                alive: nodes.keys().copied().filter(|id| *id == context.me() || self.table.is_connected(*id)).collect(),
                lag: replication.iter().filter_map(lag).collect(),
                nodes,
                largest,
                force: self.force,
            };
            return Ok((situation, applied));
        }
    }

    /// Asks the node that is meant who it is.
    async fn resolve(&self, asked: &MemberChange, now: &Situation) -> Result<ResolvedChange, Refusal> {
        Ok(match asked {
            MemberChange::Promote(id) => ResolvedChange::Promote(*id),
            MemberChange::Remove(id) => ResolvedChange::Remove(*id),
            MemberChange::Replace { old, new } => ResolvedChange::Replace { old: *old, new: *new },
            MemberChange::Add(member) => {
                let known = now.nodes.get(&member.id).map(|node| node.instance);
                ResolvedChange::Add(member.id, self.ask(member, known).await?)
            }
            MemberChange::Update(member) => {
                let known = now.nodes.get(&member.id).map(|node| node.instance);
                let mut nodes = BTreeMap::from([(member.id, self.ask(member, known).await?)]);
                self.follow(&mut nodes, now).await;
                ResolvedChange::Update(nodes)
            }
        })
    }

    /// Adds those whose addresses these have taken, if they answer, with their data, where this node's configuration has them: they have
    /// moved as well, and each alone could never be recorded. Of one that is not found there the address is still its own.
    async fn follow(&self, nodes: &mut BTreeMap<NodeId, PeerNode>, now: &Situation) {
        while let Some(other) = decide::displaced(nodes, now) {
            let Some(configured) = self.context.facts.configured.iter().find(|member| member.id == other) else { return };
            let known = now.nodes.get(&other).map(|node| node.instance);
            let Ok(node) = self.ask(configured, known).await else { return };
            nodes.insert(other, node);
        }
    }

    async fn ask(&self, member: &Member, known: Option<InstanceId>) -> Result<PeerNode, Refusal> {
        let context = self.context;
        let asked = timeout_at(self.deadline, patiently(context, member)).await;
        let in_force = context.state.view(|state, _, _| state.machine.cluster_version());
        let unavailable = |why: String| {
            let address = &member.peer_address;
            Refusal::not_applied(RefusalKind::Invalid, format!("node {} {why} peer={address}; nothing was changed", member.id))
        };
        let hello = asked.map_err(|_| unavailable("does not answer in time".into()))?;
        let hello = hello.map_err(|why| unavailable(format!("does not answer: {why}; start it first, with --join")))?;
        let expected = Expected { id: member.id, name: &context.facts.name, cluster: context.peers.cluster_id(), known, in_force };
        let instance = expected.judge(&hello).map_err(unavailable)?;
        Ok(PeerNode::new(member, instance))
    }

    /// Gives a new node this cluster's id. Sends back the hash the node reported: its config lists the node, ours may not.
    async fn adopt(&self, asked: &MemberChange, node: &PeerNode) -> Result<(), Refusal> {
        let MemberChange::Add(member) = asked else { return Ok(()) };
        let refused = |why: &str| {
            Refusal::not_applied(RefusalKind::Unavailable, format!("node {} did not join: {why}; nothing was changed", member.id))
        };
        let cluster = self.context.peers.cluster_id().ok_or_else(|| refused("there is no cluster"))?;
        let hello = patiently(self.context, member).await.map_err(|why| refused(&why))?;
        let offered = bootstrap::offer(self.context, member, node.instance, cluster, hello.configuration_hash);
        offered.await.map_err(|status| refused(status.message()))
    }

    /// Whether it was committed and applied; otherwise the members have changed meanwhile, and it is to be decided again.
    async fn propose(&self, changes: ChangeMembers<NodeId, PeerNode>, on: &StoredMembership) -> Result<bool, Refusal> {
        let context = self.context;
        let unknown = |why: String| {
            let message = format!("{why}; it may have happened: look at `quorate member list`, or ask for it again");
            Refusal::unknown(RefusalKind::Unavailable, message)
        };
        let last = Precondition::LastMembershipLogId { last_membership_log_id: *on.log_id() };
        let text = changes.to_string();
        tracing::info!(change = %text, "proposing a change of the members");
        let changed = timeout_at(self.deadline, context.raft.change_membership_if(changes, false, [last])).await;
        let written = match changed {
            Err(_) => return Err(unknown("no majority took the change in time".into())),
            Ok(Ok(written)) => written,
            Ok(Err(error)) => match error.into_api_error() {
                Some(ClientWriteError::PreconditionFailed(_)) => return Ok(false),
                Some(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                )) => {
                    self.wait("another change of the members is under way").await?;
                    return Ok(false);
                }
                Some(error) => return Err(unknown(error.to_string())),
                None => return Err(unknown("this node is stopping".into())),
            },
        };
        let wait = context.raft.wait(Some(self.deadline.saturating_duration_since(Instant::now())));
        let applied = wait.applied_index_at_least(Some(written.log_id.index), "members").await;
        applied.map_err(|error| unknown(error.to_string()))?;
        Ok(true)
    }
}

/// Asks a few times: a node that was just started may need a moment.
async fn patiently(context: &NodeContext, member: &Member) -> Result<peer::HelloResponse, String> {
    let mut attempts = 1;
    loop {
        match bootstrap::ask(context, member).await {
            Err(_) if attempts < ATTEMPTS => attempts += 1,
            answer => return answer,
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The node that is to answer at an address.
struct Expected<'a> {
    id: NodeId,
    name: &'a str,
    cluster: Option<ClusterId>,
    /// The data directory of the member of this id, if there is one.
    known: Option<InstanceId>,
    in_force: u16,
}

impl Expected<'_> {
    /// The instance of the node that answered. Errors: why it can be no member, as the rest of a sentence about it.
    fn judge(&self, hello: &peer::HelloResponse) -> Result<InstanceId, String> {
        if hello.node != self.id.0 {
            return Err(format!("is asked for, and node {} answers", hello.node));
        }
        if hello.name != self.name {
            return Err(format!("belongs to a cluster named {:?}, not {:?}", hello.name, self.name));
        }
        let instance = InstanceId::from_slice(&hello.instance).ok_or("sent no instance")?;
        let theirs = ClusterId::from_slice(&hello.cluster_id);
        let is_known = theirs == self.cluster && self.known == Some(instance);
        // It belongs to another cluster, or to an earlier life of this one (L34).
        if hello.initialized && !is_known && !mutant::is(Mutant::JoinWithData) {
            return Err("has data already: only one with an empty data directory can join".into());
        }
        let reads = hello.cluster_version_min..=hello.cluster_version_max;
        if !reads.contains(&u32::from(self.in_force)) {
            return Err(format!(
                "reads the cluster versions {} to {}, and {} is in force: run the release that the others run oldest_here={CLUSTER_VERSION_MIN}",
                reads.start(),
                reads.end(),
                self.in_force
            ));
        }
        Ok(instance)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const OURS: ClusterId = ClusterId([1; 16]);

    fn expected(known: Option<InstanceId>) -> Expected<'static> {
        Expected { id: NodeId(4), name: "q", cluster: Some(OURS), known, in_force: 1 }
    }

    fn hello() -> peer::HelloResponse {
        peer::HelloResponse {
            name: "q".into(),
            node: 4,
            instance: Bytes::from_static(&[4; 16]),
            cluster_version_min: 1,
            cluster_version_max: 1,
            ..Default::default()
        }
    }

    #[test]
    fn an_empty_node_joins_also_if_it_was_offered_a_cluster_before() {
        assert_eq!(expected(None).judge(&hello()), Ok(InstanceId([4; 16])));
        let offered = peer::HelloResponse { cluster_id: Bytes::from_static(&[9; 16]), ..hello() };
        assert_eq!(expected(None).judge(&offered), Ok(InstanceId([4; 16])), "it has no data: it takes another id");
    }

    #[test]
    fn a_node_with_data_is_the_member_of_that_data_or_none() {
        let with_data = |cluster: &'static [u8; 16]| peer::HelloResponse {
            initialized: true,
            cluster_id: Bytes::from_static(cluster),
            ..hello()
        };
        assert!(expected(None).judge(&with_data(&[1; 16])).is_err(), "of this cluster, and no member: it was removed");
        assert!(expected(Some(InstanceId([4; 16]))).judge(&with_data(&[9; 16])).is_err(), "of another cluster");
        assert!(expected(Some(InstanceId([5; 16]))).judge(&with_data(&[1; 16])).is_err(), "another disk");
        assert_eq!(expected(Some(InstanceId([4; 16]))).judge(&with_data(&[1; 16])), Ok(InstanceId([4; 16])));
    }

    #[test]
    fn a_node_that_is_another_is_named() {
        for (wrong, word) in [
            (peer::HelloResponse { node: 5, ..hello() }, "node 5"),
            (peer::HelloResponse { name: "other".into(), ..hello() }, "other"),
            (peer::HelloResponse { instance: Bytes::new(), ..hello() }, "instance"),
            (peer::HelloResponse { cluster_version_min: 2, cluster_version_max: 3, ..hello() }, "2 to 3"),
        ] {
            let why = expected(None).judge(&wrong).expect_err("another");
            assert!(why.contains(word), "{why}");
        }
    }
}
