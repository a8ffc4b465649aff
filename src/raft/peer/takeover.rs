//! Takes over from a leader that is gone, and calls an election after a start. [`super::failover`] decides; this module asks and acts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use openraft::raft::TransferLeaderRequest;

use super::failover::{self, Answer, Cause, Decision};
use super::peer_table::PeerTable;
use super::peers::Purpose;
use crate::env::{Locked as _, Spawner, Stop};
use crate::raft::adapter::types::{PeerNode, Vote, log_id_from, log_id_from_wire, log_id_to, log_id_to_wire, vote_to_wire};
use crate::raft::context::NodeContext;
use crate::raft::upkeep::room::Room;
use crate::types::{LogId, NodeId};
use crate::wire::peer::v1 as peer;

/// Within so long a reconnect to a leader must be refused, or show another boot id, for it to count as gone.
const VERDICT_TIMEOUT: Duration = Duration::from_millis(20);
/// How long a question for a lost leader is held until this node's own verdict.
const HOLD: Duration = Duration::from_millis(100);
/// How long answers to that question are waited for.
const ASK_TIMEOUT: Duration = Duration::from_millis(300);

/// The steps of this node when a leader is missing.
pub struct Takeover {
    context: Arc<NodeContext>,
    room: Arc<Room>,
    table: Arc<PeerTable>,
    election_timeout: Duration,
    early_elections: bool,
    spawner: Spawner,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Nodes that asked about a lost leader: the question is an answer too.
    asked: BTreeMap<NodeId, (Vote, Option<LogId>)>,
    last_take_over: Option<Duration>,
}

impl Takeover {
    pub fn new(
        context: Arc<NodeContext>,
        room: Arc<Room>,
        table: Arc<PeerTable>,
        election_timeout: Duration,
        early_elections: bool,
        spawner: Spawner,
    ) -> Self {
        Self { context, room, table, election_timeout, early_elections, spawner, known: Mutex::default() }
    }

    /// A stream to a peer ended: is it gone, and did it lead?
    pub async fn stream_ended(self: &Arc<Self>, id: NodeId, node: &PeerNode, boot_id: u64) {
        let vote = self.context.vote();
        let led = vote.is_committed() && vote.leader_id().node_id == id && self.context.me() != id;
        if !led || !self.is_gone(node, boot_id).await {
            return;
        }
        tracing::info!(leader = %id, "lost the leader");
        self.context.leadership.lost_leader(vote);
        let asking = self.clone().lost_leader(id, vote);
        self.spawner.spawn(|stop| stop.or(asking));
    }

    async fn is_gone(&self, node: &PeerNode, boot_id: u64) -> bool {
        let Ok(mut client) = self.context.peers.client(node, Purpose::Control) else { return false };
        let request = peer::HelloRequest {
            name: self.context.facts.name.clone(),
            configuration_hash: self.context.facts.configuration_hash,
            from: self.context.me().0,
        };
        match tokio::time::timeout(VERDICT_TIMEOUT, client.hello(request)).await {
            Ok(Ok(answer)) => answer.into_inner().boot_id != boot_id,
            Ok(Err(_)) => true,
            // Neither refused nor answered: the network, not the process. Ordinary elections take care of that.
            Err(_) => false,
        }
    }

    /// Another voter asks whether this node lost the leader of `vote` too. Holds the answer until there is a verdict, or [`HOLD`].
    pub async fn is_lost(&self, from: NodeId, vote: Vote, last_log: Option<LogId>) -> bool {
        self.known.locked().asked.insert(from, (vote, last_log));
        self.table.notify();
        if self.context.vote() != vote {
            return false;
        }
        let verdict = self.context.leadership.wait_lost(vote);
        tokio::time::timeout(HOLD, verdict).await == Ok(true) && self.context.vote() == vote
    }

    /// A leader whose connections stand and that is silent for too long: its host or network may be gone, and to find that out by the
    /// connections takes longer.
    pub async fn watch_silence(self: Arc<Self>, stop: Stop) {
        stop.or(async {
            let mut leadership = self.context.leadership.subscribe();
            loop {
                let counts = leadership.borrow_and_update().leader.is_some();
                let vote = self.context.vote();
                let leader = vote.leader_id().node_id;
                // About one whose connections ended others were asked then.
                let is_silent = !counts && leader != self.context.me() && self.context.leadership.leader_by_term() == Some(leader);
                if is_silent && vote.is_committed() {
                    tracing::info!(%leader, "the leader is silent");
                    self.clone().lost_leader(leader, vote).await;
                }
                if leadership.changed().await.is_err() {
                    return;
                }
            }
        })
        .await;
    }

    /// Asks the other voters, and takes over if it is this node's turn.
    async fn lost_leader(self: Arc<Self>, leader: NodeId, vote: Vote) {
        let voters = self.context.voters();
        let mut answers: BTreeMap<NodeId, Option<Answer>> = voters.iter().map(|id| (*id, None)).collect();
        let others = voters.iter().copied().filter(|id| *id != leader && *id != self.context.me());
        let mut asking: FuturesUnordered<_> = others.map(|id| self.ask(id, vote)).collect();
        let deadline = tokio::time::sleep(ASK_TIMEOUT);
        tokio::pin!(deadline);
        loop {
            let changed = self.table.changed();
            for (id, (asked, last_log)) in &self.known.locked().asked {
                if let Some(answer) = answers.get_mut(id).filter(|_| *asked == vote) {
                    *answer = Some(Answer::Yes { last_log: *last_log });
                }
            }
            match self.decide(Cause::LostLeader { leader }, &answers) {
                Decision::Wait => {}
                Decision::Leave => return,
                Decision::TakeOver { after } => return self.take_over(vote, after).await,
            }
            tokio::select! {
                Some((id, answer)) = asking.next() => drop(answers.insert(id, answer)),
                () = changed => {}
                () = &mut deadline => return,
            }
        }
    }

    async fn ask(&self, id: NodeId, vote: Vote) -> (NodeId, Option<Answer>) {
        let answer = async {
            let node = self.context.member(id)?;
            let request = peer::LostLeaderRequest {
                route: Some(self.context.peers.route(id, node.instance)),
                vote: Some(vote_to_wire(&vote)),
                last_log: self.context.last_log().map(log_id_to).as_ref().map(log_id_to_wire),
            };
            let mut client = self.context.peers.client(&node, Purpose::Control).ok()?;
            let answer = client.lost_leader(request).await.ok()?.into_inner();
            let last_log = answer.last_log.as_ref().map(log_id_from_wire).transpose().ok()?;
            let last_log = last_log.as_ref().map(log_id_from);
            Some(if answer.lost { Answer::Yes { last_log } } else { Answer::No })
        };
        (id, tokio::time::timeout(ASK_TIMEOUT, answer).await.ok().flatten())
    }

    fn decide(&self, cause: Cause, answers: &BTreeMap<NodeId, Option<Answer>>) -> Decision {
        if !self.early_elections {
            return Decision::Leave;
        }
        let now = self.context.env.clock.now();
        failover::decide(&failover::Input {
            cause,
            me: self.context.me(),
            last_log: self.context.last_log(),
            full: self.room.is_low(),
            voters: answers.clone(),
            since_last: self.known.locked().last_take_over.map(|last| now.saturating_sub(last)),
            election_timeout: self.election_timeout,
        })
    }

    /// Campaigns despite the others' leases, by a transfer of leadership to itself, unless a voter leads by then.
    async fn take_over(&self, vote: Vote, after: Duration) {
        tokio::time::sleep(after).await;
        if self.context.vote() != vote || self.context.leadership.live_leader().is_some() {
            return;
        }
        self.known.locked().last_take_over = Some(self.context.env.clock.now());
        let last_log = self.context.last_log().map(log_id_to);
        tracing::info!(term = vote.leader_id().term, "taking over from a lost leader");
        let request = TransferLeaderRequest::new(vote, self.context.me(), last_log);
        if let Err(error) = self.context.raft.handle_transfer_leader(request).await {
            tracing::warn!(%error, "could not take over");
        }
    }

    /// After a start: if a majority knows no leader, one of them calls an election at once instead of waiting out a timeout.
    pub async fn elect_after_start(self: Arc<Self>, stop: Stop) {
        stop.or(async {
            let deadline = tokio::time::sleep(self.election_timeout);
            tokio::pin!(deadline);
            loop {
                let changed = self.table.changed();
                let vote = self.context.vote();
                let answers = self.started_answers();
                match self.decide(Cause::Started, &answers) {
                    Decision::Leave if answers.is_empty() => {}
                    Decision::Leave => return,
                    Decision::Wait => {}
                    Decision::TakeOver { after } => {
                        tokio::time::sleep(after).await;
                        if self.context.vote() == vote && self.context.leadership.leader_by_term().is_none() {
                            self.known.locked().last_take_over = Some(self.context.env.clock.now());
                            tracing::info!("no leader after a start: calling an election");
                            let _ = self.context.raft.trigger().elect(true).await;
                        }
                        return;
                    }
                }
                tokio::select! {
                    () = changed => {}
                    () = &mut deadline => return,
                }
            }
        })
        .await;
    }

    fn started_answers(&self) -> BTreeMap<NodeId, Option<Answer>> {
        let answer = |id: &NodeId| {
            let (leader, last_log) = self.table.leader_and_log_of(*id)?;
            Some(leader.map_or(Answer::Yes { last_log }, |_| Answer::No))
        };
        self.context.voters().into_iter().map(|id| (id, answer(&id))).collect()
    }
}
