//! The leadership, as far as this node can know it.
//!
//! ```text
//! appends heard ──────┐
//! leader lost, found ─┤
//! own disk hangs ─────┼─> LeadershipState ──> publish: Leadership, to everyone who asks
//! quorum ─────────────┘
//! ```
//!
//! Each input is written by one named method, and read by the rules below only.

pub mod publish;
pub mod quorum;

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use tokio::sync::watch;

use self::quorum::Quorum;
use super::Leadership;
use super::adapter::state_machine::{AppliedState, Raft};
use super::adapter::types::{Leader, PeerNode, StoredMembership, Vote};
use crate::env::Clock;
use crate::mutant::{self, Mutant};
use crate::storage::state::State;
use crate::types::{LeaderHint, NodeId, Refusal, RefusalKind};

/// The leadership, as this node knows it.
pub struct LeadershipState {
    me: NodeId,
    raft: Raft,
    state: Arc<State<AppliedState>>,
    quorum: Quorum,
    /// The last leader's vote this process heard an append of. A vote merely read from disk is no sign of life.
    heard: watch::Sender<Option<Vote>>,
    /// The vote of the leader this node has lost its connections to.
    lost: watch::Sender<Option<Vote>>,
    /// Whether this node's disk hangs and another leads.
    hung: watch::Sender<bool>,
    published: watch::Sender<Leadership>,
}

/// Inputs that wake the task that publishes the leader.
struct Inputs {
    heard: watch::Receiver<Option<Vote>>,
    lost: watch::Receiver<Option<Vote>>,
    hung: watch::Receiver<bool>,
}

impl Inputs {
    /// Waits until something was noted. Cancel safe.
    async fn changed(&mut self) {
        tokio::select! {
            _ = self.heard.changed() => {}
            _ = self.lost.changed() => {}
            _ = self.hung.changed() => {}
        }
    }
}

impl LeadershipState {
    /// `patience`: the longest election timeout.
    pub fn new(me: NodeId, raft: Raft, state: Arc<State<AppliedState>>, clock: Arc<dyn Clock>, patience: Duration) -> Self {
        Self {
            me,
            raft,
            state,
            quorum: Quorum::new(clock, patience),
            heard: watch::Sender::new(None),
            lost: watch::Sender::new(None),
            hung: watch::Sender::new(false),
            published: watch::Sender::new(Leadership::default()),
        }
    }

    /// An append of the leader of this vote arrived, and Raft took it.
    pub fn heard_append(&self, vote: Vote) {
        self.quorum.heard();
        self.heard.send_if_modified(|heard| heard.replace(vote) != Some(vote));
    }

    /// The connections to the leader of this vote have ended, and it is gone.
    pub fn lost_leader(&self, vote: Vote) {
        self.lost.send_replace(Some(vote));
    }

    /// The process of this node is alive after all.
    pub fn found_again(&self, id: NodeId) {
        self.lost.send_if_modified(|lost| lost.take_if(|vote| vote.leader_id().node_id == id).is_some());
    }

    /// Whether this node's disk hangs and another leads.
    pub fn set_hung(&self, hung: bool) {
        self.hung.send_replace(hung);
    }

    /// The majority behind the leader, as this node knows it.
    pub fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    /// The leadership as last published.
    pub fn published(&self) -> Leadership {
        self.published.borrow().clone()
    }

    /// The published leadership, as it changes.
    pub fn subscribe(&self) -> watch::Receiver<Leadership> {
        self.published.subscribe()
    }

    /// Whether this node leads, as last published.
    pub fn is_self(&self) -> bool {
        self.published.borrow().is_self
    }

    /// The current term, as last published.
    pub fn term(&self) -> u64 {
        self.published.borrow().term
    }

    /// Waits until the leader of this vote is lost, or no leader is known. Cancel safe.
    pub async fn wait_lost(&self, vote: Vote) -> bool {
        let (mut lost, mut published) = (self.lost.subscribe(), self.subscribe());
        tokio::select! {
            lost = lost.wait_for(|lost| *lost == Some(vote)) => lost.is_ok(),
            silent = published.wait_for(|published| published.leader.is_none()) => silent.is_ok(),
        }
    }

    /// Publishes who leads, where that is new.
    fn publish(&self, known: Leadership) {
        self.published.send_if_modified(|old| {
            let changed = *old != known;
            *old = known;
            changed
        });
    }

    fn inputs(&self) -> Inputs {
        Inputs { heard: self.heard.subscribe(), lost: self.lost.subscribe(), hung: self.hung.subscribe() }
    }

    /// The leader by its term, if this process knows it to be alive: it is this node, or was heard under the current vote and not lost
    /// since. Whether a majority stands behind it is not asked: for elections and hand-overs only.
    pub fn leader_by_term(&self) -> Option<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state == ServerState::Leader {
            // With a disk that hangs it may not have been able to note that another leads.
            return (!*self.hung.borrow()).then_some(self.me);
        }
        let vote = metrics.vote;
        let heard = *self.heard.borrow() == Some(vote);
        let lost = *self.lost.borrow() == Some(vote);
        (vote.is_committed() && heard && !lost).then(|| vote.leader_id().node_id)
    }

    /// The leader to everyone who asks: the one by its term, if it has a majority behind it as far as this node can know.
    pub fn live_leader(&self) -> Option<NodeId> {
        self.leader_for_now().map(|(leader, _)| leader)
    }

    /// The live leader, and for how long it counts as one if nothing more is heard.
    pub fn leader_for_now(&self) -> Option<(NodeId, Duration)> {
        let leader = self.leader_by_term()?;
        let left = if leader == self.me {
            let left = self.quorum.patience().saturating_sub(self.quorum_age()?);
            (!left.is_zero()).then_some(left)
        } else {
            let followed = self.raft.metrics().borrow_watched().vote.leader_id;
            self.quorum.believed_for(followed)
        };
        left.map(|left| (leader, left))
    }

    /// How long ago a majority of the voters last confirmed that this node leads; `None`: it does not, by its term.
    pub fn quorum_age(&self) -> Option<Duration> {
        let (leader, acknowledged) = self.led()?;
        // The election was a majority's word too.
        let elected = self.quorum.led_for(leader);
        Some(acknowledged.map_or(elected, |age| age.min(elected)))
    }

    /// This node's term while it leads, and how long ago what a majority has answered since was sent: an append, or a round of
    /// [`super::confirm`], which waits for nobody's disk.
    fn led(&self) -> Option<(Leader, Option<Duration>)> {
        let (leader, appended) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.state != ServerState::Leader {
                return None;
            }
            let leader = metrics.vote.leader_id;
            let configs = metrics.membership_config.membership().get_joint_config();
            let is_all = configs.iter().all(|config| config.iter().eq([&self.me]));
            if is_all || mutant::is(Mutant::LeaderWithoutQuorum) {
                return Some((leader, Some(Duration::ZERO)));
            }
            (leader, metrics.last_quorum_acked.map(|at| at.into_inner().elapsed()))
        };
        let age = appended.into_iter().chain(self.quorum.round_age(leader)).min();
        Some((leader, age))
    }

    /// While this node leads: how long ago a majority last confirmed it since it had everything that earlier leaders acknowledged, and
    /// the last entry it has applied; everything acknowledged by then lies at or below that.
    pub fn complete(&self) -> Option<(Duration, u64)> {
        let (leader, acknowledged) = self.led()?;
        // After that: it holds what was acknowledged by then.
        let applied = self.state.applied()?;
        let has_begun = applied.term == leader.term && applied.node == leader.node_id;
        Some((acknowledged?, applied.index)).filter(|_| has_begun)
    }

    /// How old this node's state may be, in milliseconds: everything acknowledged before is in it. `None`: that is unknown.
    pub fn stale_ms(&self) -> Option<u64> {
        if let Some((age, _)) = self.complete() {
            self.quorum.on_confirmed(age);
        }
        let age = self.quorum.age(self.state.applied().map_or(0, |applied| applied.index))?;
        // Rounded up: never reported younger than it is.
        Some(
            u64::try_from(age.as_millis())
                .unwrap_or(u64::MAX)
                .saturating_add(u64::from(!age.subsec_nanos().is_multiple_of(1_000_000))),
        )
    }

    /// Where a node's clients go, as a hint.
    pub fn hint(&self, node: NodeId) -> Option<LeaderHint> {
        let membership: Arc<StoredMembership> = self.raft.metrics().borrow_watched().membership_config.clone();
        let member: &PeerNode = membership.get_node(&node)?;
        Some(LeaderHint { node, address: member.client_address.clone() })
    }

    /// The refusal of a call this node cannot serve because it does not lead. Nothing was appended.
    pub fn not_leader(&self) -> Refusal {
        match self.live_leader().filter(|leader| *leader != self.me).and_then(|leader| self.hint(leader)) {
            Some(hint) => {
                Refusal::not_applied(RefusalKind::NotLeader(hint.clone()), format!("this node does not lead leader={}", hint.node))
            }
            None => Refusal::not_applied(RefusalKind::NoLeader, "no leader is known"),
        }
    }
}
