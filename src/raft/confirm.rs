//! Whether this node still leads, asked of the voters over separate streams (Raft dissertation §6.4; L18).
//!
//! ```text
//! reads ── a round: who leads for us? ──┬──> this node's own vote ───────────────┐
//!                                       ├──> peer: is that my log's vote? ── yes ┼── a majority of every configuration: confirmed
//!                                       └──> the other peers, if that is slow ── ┘
//! ```
//!
//! A round that many reads share asks only as many peers as make a majority with this node, since each question costs both sides as much as
//! a read. The others are asked once those are slow, and the peers that confirm such a round are asked first from then on. A round for few
//! reads asks all at once: the first to answer decides how long it takes.
//!
//! A confirmed round means that no other leader committed anything before the round began: a majority's votes, looked at after that,
//! were this leader's, and a later leader needs one of them to have moved on before. The view a read is then answered from holds
//! everything acknowledged before: what this leader acknowledged it had applied, and what earlier ones did lies before its first entry,
//! which is required to be applied. A peer looks at the vote as it was handed to its log: that is never later than its promise.
//! No clock is involved, and no follower's disk is waited for. Whatever is unclear is no confirmation, and openraft is asked instead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::adapter::types::{Leader, PeerNode, vote_from_bytes, vote_from_wire, vote_to_wire};
use super::context::NodeContext;
use super::peer::peers::Purpose;
use crate::env::{Locked as _, Stop};
use crate::types::NodeId;
use crate::wire::peer::v1 as peer;

/// How long a round is waited for before openraft is asked.
const WAIT: Duration = Duration::from_millis(100);
/// How long the peers that were asked first may take before the others are asked too.
const WAIT_FOR_FEW: Duration = Duration::from_millis(2);
/// A round asks few peers if it is for so many reads.
const MANY_READS: usize = 8;
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
    /// The peers that confirmed the latest round for which all were asked.
    quick: BTreeSet<NodeId>,
}

struct Round {
    voters: Voters,
    confirmed: BTreeSet<NodeId>,
    /// The question, and the peers that it is still to be sent to.
    request: peer::ConfirmRequest,
    unasked: Vec<NodeId>,
    /// Whether it was too slow for a few peers.
    asks_all: bool,
    done: oneshot::Sender<()>,
}

/// A round that was begun.
struct Begun {
    leader: Leader,
    number: u64,
    confirmed: oneshot::Receiver<()>,
}

/// One configuration, or two while the membership changes.
struct Voters(Vec<BTreeSet<NodeId>>);

impl Voters {
    /// Whether these are a majority of every configuration.
    fn is_quorum(&self, some: &BTreeSet<NodeId>) -> bool {
        !self.0.is_empty() && self.0.iter().all(|config| 2 * config.intersection(some).count() > config.len())
    }

    fn has(&self, id: NodeId) -> bool {
        self.0.iter().any(|config| config.contains(&id))
    }
}

impl Confirmer {
    pub fn new(context: Arc<NodeContext>) -> Self {
        Self { context, rounds: Mutex::default() }
    }

    /// Whether it is certain that, when this was called, no other leader had committed anything, and that this node has applied
    /// everything acknowledged by then. `reads`: for so many. Cancel safe.
    pub async fn confirm(&self, reads: usize) -> bool {
        let context = &self.context;
        let began = context.env.clock.now();
        let Some(Begun { leader, number, mut confirmed }) = self.begin(reads) else { return false };
        let is_confirmed = match tokio::time::timeout(WAIT_FOR_FEW, &mut confirmed).await {
            Ok(ended) => ended.is_ok(),
            Err(_) => {
                self.rounds.locked().ask_all(number);
                matches!(tokio::time::timeout(WAIT - WAIT_FOR_FEW, confirmed).await, Ok(Ok(())))
            }
        };
        if is_confirmed {
            context.leadership.quorum().confirmed_since(leader, began);
        }
        is_confirmed
    }

    fn begin(&self, reads: usize) -> Option<Begun> {
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
        let mut rounds = self.rounds.locked();
        rounds.open.retain(|_, round| !round.done.is_closed());
        rounds.next += 1;
        let number = rounds.next;
        let request = peer::ConfirmRequest { route: None, round: number, vote: Some(vote_to_wire(&vote)) };
        let unasked = rounds.ask_few(context.me(), &voters, &request);
        rounds.open.insert(number, Round { voters, confirmed: BTreeSet::new(), request, unasked, asks_all: false, done });
        if reads < MANY_READS {
            rounds.ask_all(number);
        }
        rounds.on_confirmed(context.me(), number);
        Some(Begun { leader, number, confirmed })
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
                self.rounds.locked().streams.clear();
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
    /// Asks as many peers as make a majority with `me`; gives the others.
    fn ask_few(&self, me: NodeId, voters: &Voters, request: &peer::ConfirmRequest) -> Vec<NodeId> {
        let is_quick = |id: &&NodeId| self.quick.contains(id);
        let in_order = self.streams.keys().filter(is_quick).chain(self.streams.keys().filter(|id| !is_quick(id)));
        let (mut asked, mut unasked) = (BTreeSet::from([me]), Vec::new());
        for id in in_order {
            if voters.is_quorum(&asked) || !voters.has(*id) {
                unasked.push(*id);
            } else if self.ask(*id, request) {
                asked.insert(*id);
            }
        }
        unasked
    }

    /// Asks the peers that a round has not asked yet.
    fn ask_all(&mut self, number: u64) {
        let Some(round) = self.open.get_mut(&number) else { return };
        round.asks_all = true;
        let (unasked, request) = (std::mem::take(&mut round.unasked), round.request.clone());
        for id in unasked {
            self.ask(id, &request);
        }
    }

    /// Whether it is sent. A stream that takes no more, or has ended, leaves its peer out.
    fn ask(&self, id: NodeId, request: &peer::ConfirmRequest) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.try_send(request.clone()).is_ok())
    }

    fn on_confirmed(&mut self, by: NodeId, number: u64) {
        let Some(round) = self.open.get_mut(&number) else { return };
        round.confirmed.insert(by);
        if round.voters.is_quorum(&round.confirmed)
            && let Some(round) = self.open.remove(&number)
        {
            if round.asks_all {
                self.quick = round.confirmed;
            }
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
        confirmer.rounds.locked().streams.remove(&id);
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
    confirmer.rounds.locked().streams.insert(id, requests);
    while let Ok(Some(answer)) = answers.message().await {
        if answer.confirmed {
            confirmer.rounds.locked().on_confirmed(id, answer.round);
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

    fn round(voters: Voters, unasked: Vec<NodeId>, done: oneshot::Sender<()>) -> Round {
        Round { voters, confirmed: ids(&[1]), request: peer::ConfirmRequest::default(), unasked, asks_all: false, done }
    }

    /// Node 1 among these; gives what each of the others is asked.
    fn peers(rounds: &mut Rounds, others: &[u64]) -> BTreeMap<u64, mpsc::Receiver<peer::ConfirmRequest>> {
        let open = |id: &u64| {
            let (sender, asked) = mpsc::channel(2);
            rounds.streams.insert(NodeId(*id), sender);
            (*id, asked)
        };
        others.iter().map(open).collect()
    }

    fn asked(peers: &mut BTreeMap<u64, mpsc::Receiver<peer::ConfirmRequest>>) -> Vec<u64> {
        peers.iter_mut().filter_map(|(id, asked)| asked.try_recv().is_ok().then_some(*id)).collect()
    }

    #[test]
    fn a_round_asks_a_bare_majority_first_and_never_fewer() {
        let request = peer::ConfirmRequest::default();
        for (configs, others, first) in [
            (vec![ids(&[1, 2, 3])], vec![2, 3], vec![2]),
            (vec![ids(&[1, 2, 3, 4, 5])], vec![2, 3, 4, 5], vec![2, 3]),
            // Learners have no vote, and each configuration needs its own majority.
            (vec![ids(&[1, 3, 4])], vec![2, 3, 4], vec![3]),
            (vec![ids(&[1, 2, 3]), ids(&[1, 4, 5])], vec![2, 3, 4, 5], vec![2, 3, 4]),
            // What can't be a majority is asked all the same.
            (vec![ids(&[1, 2, 3, 4, 5])], vec![2], vec![2]),
        ] {
            let mut rounds = Rounds::default();
            let mut peers = peers(&mut rounds, &others);
            let unasked = rounds.ask_few(NodeId(1), &Voters(configs), &request);
            assert_eq!(asked(&mut peers), first);
            let rest: BTreeSet<u64> = others.iter().copied().filter(|id| !first.contains(id)).collect();
            assert_eq!(unasked.iter().map(|id| id.0).collect::<BTreeSet<_>>(), rest);
        }
    }

    #[test]
    fn a_slow_round_asks_all_and_those_that_confirm_it_are_asked_first_then() {
        let mut rounds = Rounds::default();
        let mut peers = peers(&mut rounds, &[2, 3]);
        let voters = || Voters(vec![ids(&[1, 2, 3])]);
        let request = peer::ConfirmRequest::default();
        let unasked = rounds.ask_few(NodeId(1), &voters(), &request);
        assert_eq!(asked(&mut peers), [2]);
        let (done, mut end) = oneshot::channel();
        rounds.open.insert(1, round(voters(), unasked, done));
        rounds.ask_all(1);
        assert_eq!(asked(&mut peers), [3], "the first one is not asked twice");
        rounds.on_confirmed(NodeId(3), 1);
        assert!(end.try_recv().is_ok());
        rounds.ask_few(NodeId(1), &voters(), &request);
        assert_eq!(asked(&mut peers), [3]);
    }

    /// A stream that takes no more is as good as none.
    #[test]
    fn a_peer_that_can_not_be_asked_is_replaced_by_another() {
        let mut rounds = Rounds::default();
        let mut peers = peers(&mut rounds, &[2, 3]);
        peers.remove(&2);
        assert_eq!(rounds.ask_few(NodeId(1), &Voters(vec![ids(&[1, 2, 3])]), &peer::ConfirmRequest::default()), []);
        assert_eq!(asked(&mut peers), [3]);
    }

    #[test]
    fn a_round_ends_with_its_quorum_and_not_by_another_rounds_answers() {
        let mut rounds = Rounds::default();
        let mut ends: Vec<_> = (1..=2)
            .map(|number| {
                let (done, end) = oneshot::channel();
                rounds.open.insert(number, round(Voters(vec![ids(&[1, 2, 3])]), Vec::new(), done));
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
