//! The way of one client's requests to the leader, by the production client's own decisions: `client::router`, `client::retry`; and who
//! leads next, by `raft::failover`.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate::client::retry::{self, Decision, History, Situation};
use quorate::client::router::{Choice, Router};
use quorate::raft::failover::{self, Answer, Cause, Input};
use quorate::types::{Applied, LeaderHint, LogId, NodeId, Refusal, RefusalKind};

/// Nodes of the cluster.
pub const NODES: usize = 3;
/// What is left of a call's deadline: giving up is an event of its own.
const REMAINING: Duration = Duration::from_secs(60);

/// Which nodes are there, and which of them leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nodes {
    pub leader: usize,
    pub down: Option<usize>,
}

impl Nodes {
    /// The leader dies; of the others, `longer` has the longer log. Both decide by what they know, and exactly that one takes over.
    pub fn lose_leader(&mut self, longer: usize) {
        let other = (0..NODES).find(|node| *node != self.leader && *node != longer).expect("three nodes");
        let last = |node: usize| Some(LogId { term: 1, node: NodeId(1), index: if node == longer { 9 } else { 8 } });
        let decide = |me: usize, peer: usize, answer: Answer| {
            let id = |node: usize| NodeId(node as u64 + 1);
            let voters = BTreeMap::from([(id(me), None), (id(peer), Some(answer)), (id(self.leader), None)]);
            let cause = Cause::LostLeader { leader: id(self.leader) };
            let election_timeout = Duration::from_secs(1);
            failover::decide(&Input {
                cause,
                me: id(me),
                last_log: last(me),
                full: false,
                voters,
                since_last: None,
                election_timeout,
            })
        };
        let lost = |node: usize| Answer::Yes { last_log: last(node) };
        let at_once = failover::Decision::TakeOver { after: Duration::ZERO };
        assert_eq!(decide(longer, other, lost(other)), at_once, "who has everything committed takes over");
        assert_eq!(decide(other, longer, lost(longer)), failover::Decision::TakeOver { after: failover::RANK_DELAY });
        assert_eq!(
            decide(longer, other, Answer::No),
            failover::Decision::Leave,
            "one that still hears the leader is asked to wait"
        );
        (self.leader, self.down) = (longer, Some(self.leader));
    }
}

fn address(node: usize) -> String {
    format!("{node}:1")
}

/// One client's knowledge of where to go, and how its operation fared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    router: Router,
    history: History,
    now: Duration,
}

impl Route {
    /// Clients begin at different endpoints.
    pub fn new(first: usize) -> Self {
        let addresses: Vec<String> = (0..NODES).map(address).collect();
        Self { router: Router::new(&addresses, first as u64), history: History::default(), now: Duration::ZERO }
    }

    /// A new operation. Since the last one more time has passed than any endpoint is left alone for, so of what happened to it only the
    /// preferred endpoint is left.
    pub fn begin(&mut self, nodes: Nodes) {
        self.now += Duration::from_secs(3600);
        let preferred = match self.router.choose(self.now) {
            Choice::Use(at) => at,
            Choice::Wait(until) => panic!("an endpoint is left alone for an hour until={until:?}"),
        };
        *self = Self::new(preferred);
        self.reach(nodes);
    }

    /// The attempt under way may have been applied, or may yet be: its answer is lost. Another one goes to the leader.
    pub fn lose_answer(&mut self, nodes: Nodes, sent_to: usize) {
        self.refused(sent_to, &Refusal::unknown(RefusalKind::Unavailable, "the connection ended"));
        assert!(self.history.ambiguous, "what may have been applied is remembered to be unknown");
        self.reach(nodes);
    }

    pub fn answered(&mut self, nodes: Nodes) {
        self.router.on_answer(nodes.leader);
    }

    /// Follows decisions until an attempt reaches the leader. Nobody else can tell when each of these steps happens.
    fn reach(&mut self, nodes: Nodes) {
        for _ in 0..20 {
            match self.router.choose(self.now) {
                Choice::Wait(until) => self.now = until,
                Choice::Use(at) if at == nodes.leader => return,
                Choice::Use(at) if Some(at) == nodes.down => {
                    self.refused(at, &Refusal::not_applied(RefusalKind::Unavailable, "nobody listens"));
                }
                Choice::Use(at) => {
                    let hint = LeaderHint { node: NodeId(nodes.leader as u64 + 1), address: address(nodes.leader) };
                    self.refused(at, &Refusal::not_applied(RefusalKind::NotLeader(hint), "not the leader"));
                }
            }
        }
        panic!("the leader is not found nodes={nodes:?} route={self:?}");
    }

    /// As the driver acts on a refusal.
    fn refused(&mut self, at: usize, refusal: &Refusal) {
        self.history.ambiguous |= refusal.applied == Applied::Unknown;
        let situation = Situation { remaining: REMAINING, endpoints: self.router.count(), random: 0 };
        match retry::next(refusal, &mut self.history, situation) {
            Decision::Follow(hint) => {
                if !self.router.follow(&hint.address, self.now) {
                    self.rest(at, retry::jittered(Duration::ZERO, 0));
                }
            }
            Decision::Elsewhere => self.router.on_failure(at, self.now),
            Decision::After(wait) => self.rest(at, wait),
            other => panic!("no refusal here ends an operation: {other:?}"),
        }
    }

    fn rest(&mut self, at: usize, wait: Duration) {
        self.router.leave(at);
        self.now += wait;
    }
}
