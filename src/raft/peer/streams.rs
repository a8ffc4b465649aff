//! Presence: each node holds a stream to every other member, over which both report the leader, the ends of their logs and their clocks.
//! [`super::peer_table`] keeps a peer's reports; when the stream to the leader ends, [`super::takeover`] acts.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::{self, Either};
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::divergence::{self, Findings};
use super::peer_table::{PeerTable, Seen};
use super::peers::Purpose;
use super::takeover::Takeover;
use crate::env::{Spawner, Stop};
use crate::limits::{NODES_MAX, intervals};
use crate::machine::newest_version;
use crate::raft::CLUSTER_VERSION_MIN;
use crate::raft::adapter::types::{
    PeerNode, log_id_from, log_id_from_wire, log_id_to, log_id_to_wire, vote_from_wire, vote_to_wire,
};
use crate::raft::context::NodeContext;
use crate::raft::leadership::quorum::Word;
use crate::raft::members::removed::says_removed;
use crate::raft::rebuild;
use crate::raft::upkeep::room::Room;
use crate::types::{LogId, NodeId, OutOfRange, bounded};
use crate::wire::peer::v1 as peer;

/// How often a message is sent, besides every change of the leadership.
const INTERVAL: Duration = Duration::from_millis(250);
/// Pause between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(50);
/// Digests taken of one message.
const DIGESTS_MAX: usize = 8;
/// Bound of opening a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

type Messages = Pin<Box<dyn Stream<Item = Result<peer::PresenceMessage, Status>> + Send>>;

/// The streams of one node.
pub struct Streams {
    context: Arc<NodeContext>,
    room: Arc<Room>,
    table: Arc<PeerTable>,
    takeover: Arc<Takeover>,
    spawner: Spawner,
}

impl Streams {
    pub fn new(
        context: Arc<NodeContext>,
        room: Arc<Room>,
        table: Arc<PeerTable>,
        takeover: Arc<Takeover>,
        spawner: Spawner,
    ) -> Self {
        Self { context, room, table, takeover, spawner }
    }

    /// Holds a stream to every other member, as the membership changes.
    pub async fn run(self: Arc<Self>, stop: Stop) {
        let mut tasks = JoinSet::new();
        stop.or(self.clone().keep_streams(&mut tasks)).await;
        tasks.shutdown().await;
    }

    async fn keep_streams(self: Arc<Self>, tasks: &mut JoinSet<()>) {
        let mut held: BTreeMap<NodeId, (PeerNode, AbortHandle)> = BTreeMap::new();
        let mut metrics = self.context.raft.server_metrics();
        loop {
            let membership = metrics.borrow_and_update().membership_config.clone();
            let members: BTreeMap<NodeId, PeerNode> =
                membership.nodes().filter(|(id, _)| **id != self.context.me()).map(|(id, node)| (*id, node.clone())).collect();
            held.retain(|id, (node, task)| {
                let stays = members.get(id) == Some(node);
                if !stays {
                    task.abort();
                }
                stays
            });
            self.table.keep_only(|id| held.contains_key(&id), |id| members.contains_key(&id));
            for (id, node) in members {
                held.entry(id).or_insert_with(|| {
                    let task = tasks.spawn(self.clone().hold(id, node.clone()));
                    (node, task)
                });
            }
            // Those that were ended leave nothing behind.
            while tasks.try_join_next().is_some() {}
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Keeps a stream to one peer open.
    async fn hold(self: Arc<Self>, id: NodeId, node: PeerNode) {
        loop {
            let opened = self.open(id, &node).await;
            if opened.as_ref().is_err_and(says_removed) {
                return self.context.failure.fail_removed();
            }
            if let Ok((messages, queue)) = opened {
                self.table.set_connected(id, true);
                let boot_id = self.converse(id, messages, queue).await;
                self.table.set_connected(id, false);
                self.table.notify();
                self.takeover.stream_ended(id, &node, boot_id).await;
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    /// Opens a stream; gives what comes on it, and where to put what goes.
    async fn open(
        &self,
        id: NodeId,
        node: &PeerNode,
    ) -> Result<(Streaming<peer::PresenceMessage>, mpsc::Sender<peer::PresenceMessage>), Status> {
        let (sender, queue) = mpsc::channel(2);
        let mut first = message(&self.context, &self.room, &Read::default());
        first.route = Some(self.context.peers.route(id, node.instance));
        sender.try_send(first).map_err(|_| Status::internal("a new queue is full"))?;
        let unreachable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        let mut client = self.context.peers.client(node, Purpose::Control).map_err(unreachable)?;
        let opening = tokio::time::timeout(OPEN_TIMEOUT, client.presence(ReceiverStream::new(queue)));
        let messages = opening.await.map_err(|_| Status::deadline_exceeded("no answer in time"))??.into_inner();
        Ok((messages, sender))
    }

    /// Reads and sends until the stream ends; gives the peer's boot id.
    async fn converse(
        &self,
        id: NodeId,
        messages: Streaming<peer::PresenceMessage>,
        queue: mpsc::Sender<peer::PresenceMessage>,
    ) -> u64 {
        let read = Read::default();
        let listen = std::pin::pin!(self.listen(id, messages, &read));
        let send = |message| async { queue.send(message).await.is_ok() };
        let talk = std::pin::pin!(self.talk(&read, send));
        match future::select(listen, talk).await {
            Either::Left((boot_id, _)) => boot_id,
            // The peer reads no more, and may still have said something.
            Either::Right(((), listen)) => listen.await,
        }
    }

    /// Reads until the stream ends; gives the peer's boot id.
    async fn listen(&self, id: NodeId, mut messages: Streaming<peer::PresenceMessage>, read: &Read) -> u64 {
        let mut boot_id = 0;
        while let Some(message) = taken(messages.message().await) {
            if boot_id == 0 {
                boot_id = message.boot_id;
                // The process a verdict was made about is alive after all.
                if self.table.is_process(id, boot_id) {
                    self.context.leadership.found_again(id);
                }
            }
            read.note(message.sent_ms);
            self.record(id, &message);
        }
        boot_id
    }

    /// Sends this node's messages until nobody takes them.
    async fn talk<F: Future<Output = bool>>(&self, read: &Read, send: impl Fn(peer::PresenceMessage) -> F) {
        let mut leadership = self.context.leadership.subscribe();
        while send(message(&self.context, &self.room, read)).await {
            let _ = tokio::time::timeout(INTERVAL, leadership.changed()).await;
        }
    }

    fn record(&self, from: NodeId, message: &peer::PresenceMessage) {
        self.context.clocks.heard(from, message.wall_ms);
        let now = self.context.env.clock.now();
        if let Some(vote) = message.vote.as_ref().filter(|_| message.leader == Some(from.0)) {
            self.room.heard(from, vote.term, message.spares_full, now);
        }
        self.hear_leader(from, message);
        let seen = Seen {
            boot_id: message.boot_id,
            leader: message.leader.map(NodeId),
            last_log: message.last_log.as_ref().and_then(|id| Some(log_id_from(&log_id_from_wire(id).ok()?))),
            disk_low: message.disk_low,
            newest_version: u16::try_from(message.cluster_version_max).unwrap_or(u16::MAX),
            held_version: u16::try_from(message.cluster_version_held).ok().filter(|held| *held > 0),
            vote_term: message.vote.as_ref().map_or(0, |vote| vote.term),
            term: self.context.vote().leader_id.term,
            at: now,
            members: message.members.iter().take(NODES_MAX).copied().map(NodeId).collect(),
        };
        if message.cluster_version > newest_version().into() {
            let what = format!(
                "the cluster is at a version that this release does not read version={} newest={}; install the release that was here before",
                message.cluster_version,
                newest_version()
            );
            return self.context.failure.fail(what);
        }
        let digests = message.digests.iter().take(DIGESTS_MAX).map(|digest| (digest.index, digest.digest));
        let digests = std::iter::once((message.digest_index, message.digest)).chain(digests);
        let findings = self.table.record(from, seen, digests);
        self.act_on(findings);
        self.table.notify();
    }

    /// Takes in the statement of the leader that this node follows.
    fn hear_leader(&self, from: NodeId, message: &peer::PresenceMessage) {
        let Ok(vote) = vote_from_wire(message.vote.as_ref()) else { return };
        let leads = vote.is_committed() && vote.leader_id.node_id == from && message.leader == Some(from.0);
        if leads && self.context.vote() == vote {
            let word = Word {
                age: message.quorum_age_ms.map(Duration::from_millis),
                complete: message.complete.map(|complete| (Duration::from_millis(complete.age_ms), complete.index)),
                answers_ms: message.answers_ms,
            };
            self.context.leadership.quorum().heard_word(vote.leader_id, word);
        }
    }

    fn act_on(&self, findings: Findings) {
        for (peer, index) in findings.newly {
            self.context.events.note("diverged", format!("node={peer} index={index}"));
            tracing::error!(%peer, index, "the state of a peer differs from this node's after one entry");
        }
        if findings.healed {
            self.context.events.note("diverged", "healed: all states agree again");
            tracing::warn!("the states of all peers agree with this node's again");
        }
        if let Some(index) = findings.wrong {
            let what = format!("a majority of the voters is in another state than this node after one entry index={index}");
            rebuild::stop_to_rebuild(&self.context, what);
        }
    }

    /// Whether a peer reads what this cluster writes, and this node what the peer's does. Errors: what must be fixed.
    ///
    /// The leader raises the version only once every member reads the next one, so only a release that was put back is refused here.
    pub fn check_versions(&self, message: &peer::PresenceMessage) -> Result<(), String> {
        let in_force = self.context.state.view(|state, _, _| state.machine.cluster_version());
        versions(in_force, message)
    }

    /// The other side's stream to this node: answers with this node's messages.
    pub fn serve(
        self: Arc<Self>,
        from: NodeId,
        first: peer::PresenceMessage,
        mut messages: Streaming<peer::PresenceMessage>,
    ) -> Messages {
        let (sender, queue) = mpsc::channel(2);
        let read = Read::default();
        read.note(first.sent_ms);
        self.record(from, &first);
        let spawner = self.spawner.clone();
        let serve = async move {
            let send = |message| async { sender.send(Ok(message)).await.is_ok() };
            let talk = self.talk(&read, send);
            let hear = async {
                while let Some(message) = taken(messages.message().await) {
                    // One that was removed asks again, and is answered.
                    if self.table.standing_of(from).is_err() {
                        return;
                    }
                    read.note(message.sent_ms);
                    self.record(from, &message);
                }
            };
            tokio::select! { () = talk => {}, () = hear => {} }
        };
        spawner.spawn(|stop| stop.or(serve));
        Box::pin(ReceiverStream::new(queue))
    }
}

/// The next message of a stream; `None`: it has ended, or says what is none.
fn taken(message: Result<Option<peer::PresenceMessage>, Status>) -> Option<peer::PresenceMessage> {
    let message = message.ok().flatten()?;
    match in_range(&message) {
        Ok(()) => Some(message),
        Err(error) => {
            tracing::warn!(%error, "a peer's message is none, and its stream is ended");
            None
        }
    }
}

/// Whether all numbers of a message may be what they say. Pure. Errors: the first that is out of range.
pub fn in_range(message: &peer::PresenceMessage) -> Result<(), OutOfRange> {
    let check = |field, number: Option<u64>| bounded(field, number.unwrap_or_default());
    check("wall_ms", Some(message.wall_ms))?;
    check("vote.term", message.vote.as_ref().map(|vote| vote.term))?;
    check("vote.node", message.vote.as_ref().map(|vote| vote.node))?;
    check("leader", message.leader)?;
    if let Some(last) = &message.last_log {
        LogId { term: last.term, node: NodeId(last.node), index: last.index }.bounded()?;
    }
    check("digest_index", Some(message.digest_index))?;
    for digest in &message.digests {
        check("digests.index", Some(digest.index))?;
    }
    check("quorum_age_ms", message.quorum_age_ms)?;
    check("complete.index", message.complete.map(|complete| complete.index))?;
    check("complete.age_ms", message.complete.map(|complete| complete.age_ms))?;
    check("sent_ms", Some(message.sent_ms))?;
    check("answers_ms", Some(message.answers_ms))?;
    message.members.iter().try_for_each(|member| check("members", Some(*member)).map(drop))
}

/// Whether a peer with this message reads the version in force. Pure.
fn versions(in_force: u16, message: &peer::PresenceMessage) -> Result<(), String> {
    let read = message.cluster_version_min..=message.cluster_version_max;
    // A node that has not said is one that is starting.
    if message.cluster_version_max == 0 || read.contains(&in_force.into()) || message.cluster_version > in_force.into() {
        return Ok(());
    }
    Err(format!("the cluster is at a version that the caller does not read version={in_force} reads={read:?}"))
}

/// When the other side of a stream sent the last message that was read of it, by its own clock; 0: none was.
#[derive(Default)]
struct Read(AtomicU64);

impl Read {
    fn note(&self, sent_ms: u64) {
        self.0.store(sent_ms, Ordering::Relaxed);
    }
}

fn message(context: &NodeContext, room: &Room, read: &Read) -> peer::PresenceMessage {
    // Before anything else that the message says: all of it is at least as new as this.
    let answers_ms = read.0.load(Ordering::Relaxed);
    let complete = context.leadership.complete();
    let ms = |age: Duration| u64::try_from(age.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
    let (version, digests) = context.state.view(|state, applied, _| {
        let digest = |index| Some(peer::Digest { index, digest: state.machine.digest_at(index)? });
        let indexes = divergence::digest_indexes(applied.map_or(0, |applied| applied.index));
        (state.machine.cluster_version(), indexes.into_iter().filter_map(digest).collect::<Vec<_>>())
    });
    // What a release before the list reads.
    let first =
        digests.iter().rev().find(|digest| digest.index.is_multiple_of(intervals().digest_entries)).copied().unwrap_or_default();
    peer::PresenceMessage {
        route: None,
        boot_id: context.facts.boot_id,
        wall_ms: context.clocks.wall_ms(),
        vote: Some(vote_to_wire(&context.vote())),
        leader: context.leadership.leader_by_term().map(|id| id.0),
        last_log: context.last_log().map(log_id_to).as_ref().map(log_id_to_wire),
        cluster_version_min: CLUSTER_VERSION_MIN.into(),
        cluster_version_max: newest_version().into(),
        disk_low: room.is_low(),
        digest: first.digest,
        digest_index: first.index,
        digests,
        cluster_version: version.into(),
        cluster_version_held: context.facts.cluster_version_held.unwrap_or_default().into(),
        spares_full: room.verdict().spares,
        quorum_age_ms: context.leadership.quorum_age().map(ms),
        complete: complete.map(|(age, index)| peer::Complete { index, age_ms: ms(age) }),
        sent_ms: context.leadership.quorum().sent_ms(),
        answers_ms,
        members: context.membership().nodes().map(|(id, _)| id.0).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_a_number_out_of_range_is_none() {
        let above = crate::limits::NUMBER_MAX + 1;
        let vote = |term, node| Some(peer::Vote { term, node, committed: false });
        let none = peer::PresenceMessage::default();
        in_range(&none).expect("an empty one");
        let cases = [
            ("wall_ms", peer::PresenceMessage { wall_ms: above, ..none.clone() }),
            ("vote.term", peer::PresenceMessage { vote: vote(above, 1), ..none.clone() }),
            ("vote.node", peer::PresenceMessage { vote: vote(1, above), ..none.clone() }),
            ("leader", peer::PresenceMessage { leader: Some(above), ..none.clone() }),
            (
                "log_id.index",
                peer::PresenceMessage { last_log: Some(peer::LogId { term: 1, node: 1, index: above }), ..none.clone() },
            ),
            ("digest_index", peer::PresenceMessage { digest_index: above, ..none.clone() }),
            ("digests.index", peer::PresenceMessage { digests: vec![peer::Digest { index: above, digest: 0 }], ..none.clone() }),
            ("quorum_age_ms", peer::PresenceMessage { quorum_age_ms: Some(above), ..none.clone() }),
            (
                "complete.index",
                peer::PresenceMessage { complete: Some(peer::Complete { index: above, age_ms: 0 }), ..none.clone() },
            ),
            (
                "complete.age_ms",
                peer::PresenceMessage { complete: Some(peer::Complete { index: 0, age_ms: above }), ..none.clone() },
            ),
            ("sent_ms", peer::PresenceMessage { sent_ms: above, ..none.clone() }),
            ("answers_ms", peer::PresenceMessage { answers_ms: above, ..none.clone() }),
            ("members", peer::PresenceMessage { members: vec![above], ..none }),
        ];
        for (field, message) in cases {
            assert_eq!(in_range(&message), Err(OutOfRange { field, value: above }));
        }
    }

    #[test]
    fn a_release_that_does_not_read_the_version_in_force_is_refused() {
        let peer = |min, max, at| peer::PresenceMessage {
            cluster_version_min: min,
            cluster_version_max: max,
            cluster_version: at,
            ..Default::default()
        };
        assert!(versions(2, &peer(1, 2, 2)).is_ok());
        assert!(versions(2, &peer(1, 3, 1)).is_ok(), "it is behind and will catch up");
        assert!(versions(2, &peer(1, 1, 1)).is_err(), "an old release put back");
        assert!(versions(2, &peer(3, 4, 2)).is_err(), "one that forgot how to read it");
        assert!(versions(1, &peer(1, 2, 2)).is_ok(), "this node is the one behind");
        assert!(versions(2, &peer(0, 0, 0)).is_ok());
    }
}
