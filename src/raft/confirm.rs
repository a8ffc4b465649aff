//! Whether this node still leads, asked of the voters over separate streams (Raft dissertation §6.4; L18).
//!
//! ```text
//! reads ── a round: who leads for us? ──┬──> this node's own vote ───────────────┐
//!                                       ├──> peer: is that my log's vote? ── yes ┼── a majority of every configuration: confirmed
//!                                       └──> peer: …                             ┘
//! ```
//!
//! A confirmed round means that no other leader committed anything before the round began: a majority's votes, looked at after that,
//! were this leader's, and a later leader needs one of them to have moved on before. The view a read is then answered from holds
//! everything acknowledged before: what this leader acknowledged it had applied, and what earlier ones did lies before its first entry,
//! which is required to be applied. A peer looks at the vote as it was handed to its log: that is never later than its promise.
//! No clock is involved, and no follower's disk is waited for. Whatever is unclear is no confirmation, and openraft is asked instead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::adapter::types::{Leader, PeerNode, vote_from_bytes, vote_from_wire, vote_to_wire};
use super::context::NodeContext;
use super::peer::peers::Purpose;
use crate::env::Stop;
use crate::types::NodeId;
use crate::wire::peer::v1 as peer;

/// How long a round is waited for before openraft is asked.
const WAIT: Duration = Duration::from_millis(100);
/// Pause between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(50);
/// Rounds not sent yet on one stream; a peer that takes no more is left out.
const QUEUE_MAX: usize = 64;

/// The rounds of one node.
pub struct Confirmer {
    context: Arc<NodeContext>,
    rounds: Mutex<Rounds>,
}

#[derive(Default)]
struct Rounds {
    next: u64,
    open: BTreeMap<u64, Round>,
    streams: BTreeMap<NodeId, mpsc::Sender<peer::ConfirmRequest>>,
}

struct Round {
    voters: Voters,
    confirmed: BTreeSet<NodeId>,
    done: oneshot::Sender<()>,
}

/// One configuration, or two while the membership changes.
struct Voters(Vec<BTreeSet<NodeId>>);

impl Voters {
    /// Whether these are a majority of every configuration.
    fn is_quorum(&self, some: &BTreeSet<NodeId>) -> bool {
        !self.0.is_empty() && self.0.iter().all(|config| 2 * config.intersection(some).count() > config.len())
    }
}

impl Confirmer {
    pub fn new(context: Arc<NodeContext>) -> Self {
        Self { context, rounds: Mutex::default() }
    }

    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is certain that, when this was called, no other leader had committed anything, and that this node has applied
    /// everything acknowledged by then. Cancel safe.
    pub async fn confirm(&self) -> bool {
        let context = &self.context;
        let began = context.env.clock.now();
        let Some((leader, confirmed)) = self.begin() else { return false };
        let is_confirmed = matches!(tokio::time::timeout(WAIT, confirmed).await, Ok(Ok(())));
        if is_confirmed {
            context.leadership.quorum().confirmed_since(leader, began);
        }
        is_confirmed
    }

    fn begin(&self) -> Option<(Leader, oneshot::Receiver<()>)> {
        let context = &self.context;
        let (vote, voters) = {
            let metrics = context.raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.state != ServerState::Leader {
                return None;
            }
            (metrics.vote, Voters(metrics.membership_config.membership().get_joint_config().clone()))
        };
        let applied = context.applied()?;
        let leader = vote.leader_id;
        let has_begun = applied.term == leader.term && applied.node == leader.node_id;
        if !has_begun || voted_for(context) != Some(leader) {
            return None;
        }
        let (done, confirmed) = oneshot::channel();
        let mut rounds = self.rounds();
        rounds.open.retain(|_, round| !round.done.is_closed());
        rounds.next += 1;
        let number = rounds.next;
        let request = peer::ConfirmRequest { route: None, round: number, vote: Some(vote_to_wire(&vote)) };
        for stream in rounds.streams.values() {
            // A stream that takes no more, or has ended, leaves its peer out.
            let _ = stream.try_send(request.clone());
        }
        rounds.open.insert(number, Round { voters, confirmed: BTreeSet::new(), done });
        rounds.on_confirmed(context.me(), number);
        Some((leader, confirmed))
    }

    /// Keeps a stream to every other member, as the membership changes.
    pub async fn run(self: Arc<Self>, stop: Stop) {
        let mut tasks = JoinSet::new();
        stop.or(self.clone().keep_streams(&mut tasks)).await;
        tasks.shutdown().await;
    }

    async fn keep_streams(self: Arc<Self>, tasks: &mut JoinSet<()>) {
        let context = &self.context;
        let mut metrics = context.raft.server_metrics();
        let mut known = BTreeMap::new();
        loop {
            let membership = metrics.borrow_and_update().membership_config.clone();
            let members: BTreeMap<NodeId, PeerNode> =
                membership.nodes().filter(|(id, _)| **id != context.me()).map(|(id, node)| (*id, node.clone())).collect();
            if members != known {
                tasks.shutdown().await;
                self.rounds().streams.clear();
                for (id, node) in &members {
                    tasks.spawn(hold(self.clone(), *id, node.clone()));
                }
                known = members;
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Rounds {
    fn on_confirmed(&mut self, by: NodeId, number: u64) {
        let Some(round) = self.open.get_mut(&number) else { return };
        round.confirmed.insert(by);
        if round.voters.is_quorum(&round.confirmed)
            && let Some(round) = self.open.remove(&number)
        {
            // The caller went away.
            let _ = round.done.send(());
        }
    }
}

/// The leader that this node's vote is for, as its log last stored it.
fn voted_for(context: &NodeContext) -> Option<Leader> {
    Some(vote_from_bytes(&context.log.position().vote?).ok()?.leader_id)
}

/// A peer's answer to one round.
pub fn answer(context: &NodeContext, request: &peer::ConfirmRequest) -> peer::ConfirmResponse {
    let asked = vote_from_wire(request.vote.as_ref()).ok().map(|vote| vote.leader_id);
    peer::ConfirmResponse { round: request.round, confirmed: asked.is_some() && asked == voted_for(context) }
}

/// Keeps a stream to one peer open.
async fn hold(confirmer: Arc<Confirmer>, id: NodeId, node: PeerNode) {
    loop {
        talk(&confirmer, id, &node).await;
        confirmer.rounds().streams.remove(&id);
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Opens a stream, and counts what is confirmed on it until it ends.
async fn talk(confirmer: &Confirmer, id: NodeId, node: &PeerNode) {
    let context = &confirmer.context;
    let (requests, queue) = mpsc::channel(QUEUE_MAX);
    let route = peer::ConfirmRequest { route: Some(context.peers.route(id, node.instance)), ..Default::default() };
    let Ok(mut client) = context.peers.client(node, Purpose::Heartbeat) else { return };
    if requests.try_send(route).is_err() {
        return;
    }
    let Ok(answers) = client.confirm(ReceiverStream::new(queue)).await else { return };
    let mut answers = answers.into_inner();
    confirmer.rounds().streams.insert(id, requests);
    while let Ok(Some(answer)) = answers.message().await {
        if answer.confirmed {
            confirmer.rounds().on_confirmed(id, answer.round);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn a_quorum_is_a_majority_of_every_configuration() {
        let three = Voters(vec![ids(&[1, 2, 3])]);
        assert!(!three.is_quorum(&ids(&[1])));
        assert!(!three.is_quorum(&ids(&[1, 4])), "one that is no voter counts for nothing");
        assert!(three.is_quorum(&ids(&[1, 3])));
        let changing = Voters(vec![ids(&[1, 2, 3]), ids(&[3, 4, 5])]);
        assert!(!changing.is_quorum(&ids(&[1, 2, 3])));
        assert!(changing.is_quorum(&ids(&[1, 3, 4])));
        assert!(!Voters(vec![]).is_quorum(&ids(&[1])), "without a configuration nobody leads");
        assert!(Voters(vec![ids(&[1])]).is_quorum(&ids(&[1])));
    }

    #[test]
    fn a_round_ends_with_its_quorum_and_not_by_another_rounds_answers() {
        let mut rounds = Rounds::default();
        let mut ends: Vec<_> = (1..=2)
            .map(|number| {
                let (done, end) = oneshot::channel();
                rounds.open.insert(number, Round { voters: Voters(vec![ids(&[1, 2, 3])]), confirmed: ids(&[1]), done });
                end
            })
            .collect();
        rounds.on_confirmed(NodeId(1), 1);
        assert!(ends[0].try_recv().is_err(), "the same voter counts once");
        rounds.on_confirmed(NodeId(2), 2);
        assert!(ends[0].try_recv().is_err(), "that was the other round");
        assert!(ends[1].try_recv().is_ok());
        rounds.on_confirmed(NodeId(3), 1);
        assert!(ends[0].try_recv().is_ok());
        assert!(rounds.open.is_empty());
    }
}
