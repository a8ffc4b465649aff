//! The last statements of this node's peers, and the peers to which its streams are open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tonic::Status;

use super::divergence::{self, Findings};
use crate::env::Locked as _;
use crate::limits::NODES_MAX;
use crate::raft::context::NodeContext;
use crate::raft::members::removed::removed;
use crate::raft::members::standing::{self, Standing};
use crate::raft::upkeep::room::{Disk, FRESH};
use crate::types::{LogId, NodeId};

/// Peers whose last message is kept: the members, and some that joined while this node was away.
const PEERS_MAX: usize = 4 * NODES_MAX;

/// This node's knowledge of its peers.
pub struct PeerTable {
    context: Arc<NodeContext>,
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Default)]
struct Known {
    peers: BTreeMap<NodeId, Seen>,
    /// Peers this node's own stream to is open.
    connected: BTreeSet<NodeId>,
    digests: divergence::Watch,
}

/// The last message of one peer.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub boot_id: u64,
    pub leader: Option<NodeId>,
    pub last_log: Option<LogId>,
    pub disk_low: bool,
    pub newest_version: u16,
    /// The cluster version above which its operator does not let the cluster rise; `None`: there is none.
    pub held_version: Option<u16>,
    /// Its own term.
    pub vote_term: u64,
    /// This node's term when it heard.
    pub term: u64,
    /// When, by this node's monotonic clock.
    pub at: Duration,
    /// The members by its word; empty if it knows none.
    pub members: Vec<NodeId>,
}

impl PeerTable {
    pub fn new(context: Arc<NodeContext>) -> Self {
        Self { context, known: Mutex::default(), changed: Notify::new() }
    }

    /// A peer sent a message, with the digests of its state after some entries, of which index 0 says nothing. Gives what comparing them
    /// with this node's own brought.
    pub fn record(&self, from: NodeId, seen: Seen, digests: impl Iterator<Item = (u64, u64)>) -> Findings {
        let voters = self.context.voters();
        let mut known = self.known.locked();
        if known.peers.len() < PEERS_MAX || known.peers.contains_key(&from) {
            known.peers.insert(from, seen);
        }
        for (index, digest) in digests {
            known.digests.on_digest(from, index, digest);
        }
        self.context.state.view(|state, _, _| known.digests.compare(&voters, |index| state.machine.digest_at(index)))
    }

    /// Whether this node's stream to a peer is open.
    pub fn set_connected(&self, id: NodeId, is_connected: bool) {
        let mut known = self.known.locked();
        if is_connected {
            known.connected.insert(id);
        } else {
            known.connected.remove(&id);
        }
    }

    /// The membership has changed: streams are kept to these peers, and these are the other members.
    pub fn keep_only(&self, is_kept: impl Fn(NodeId) -> bool, is_member: impl Fn(NodeId) -> bool) {
        let mut known = self.known.locked();
        known.connected.retain(|id| is_kept(*id));
        known.digests.keep_only(is_member);
    }

    /// Wakes all that wait for a change.
    pub fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Ready once something has changed after this call. Cancel safe.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Whether a peer's last message was of this process.
    pub fn is_process(&self, id: NodeId, boot_id: u64) -> bool {
        self.known.locked().peers.get(&id).is_some_and(|seen| seen.boot_id == boot_id)
    }

    /// The leader that a peer last spoke of, and the end of its log; `None`: it has said nothing.
    pub fn leader_and_log_of(&self, id: NodeId) -> Option<(Option<NodeId>, Option<LogId>)> {
        self.known.locked().peers.get(&id).map(|seen| (seen.leader, seen.last_log))
    }

    /// Peers whose state differed from this node's when last compared.
    pub fn differing(&self) -> Vec<NodeId> {
        self.known.locked().digests.differing()
    }

    /// The newest cluster version a peer reads, if it said so in this term.
    pub fn newest_version_of(&self, id: NodeId, term: u64) -> Option<u16> {
        self.in_term(id, term, |seen| seen.newest_version)
    }

    /// The cluster version above which a peer's operator does not let the cluster rise, by its last word in this term.
    pub fn held_version_of(&self, id: NodeId, term: u64) -> Option<u16> {
        self.in_term(id, term, |seen| seen.held_version)?
    }

    fn in_term<T>(&self, id: NodeId, term: u64, what: impl FnOnce(&Seen) -> T) -> Option<T> {
        self.known.locked().peers.get(&id).filter(|seen| seen.term == term).map(what)
    }

    /// Whether this node's stream to a peer is open.
    pub fn is_connected(&self, id: NodeId) -> bool {
        self.known.locked().connected.contains(&id)
    }

    /// Waits until this node's stream to a peer is closed. Cancel safe.
    pub async fn disconnected(&self, id: NodeId) {
        loop {
            let changed = self.changed();
            if !self.is_connected(id) {
                return;
            }
            changed.await;
        }
    }

    /// Whether a caller belongs to the cluster, by this node's membership, or by what the members it reaches say of one that it has not
    /// heard of. Errors: the answer to one that was removed, or that never was a member.
    pub fn standing_of(&self, id: NodeId) -> Result<(), Status> {
        match standing::standing(&self.context, id) {
            Standing::Member => Ok(()),
            Standing::Removed => Err(removed()),
            Standing::Unheard if self.word_on(id) == standing::Word::Never => {
                let problem = format!("the caller is no member, and none of a majority of the members knows it node={id}");
                Err(Status::permission_denied(problem))
            }
            Standing::Unheard => Ok(()),
        }
    }

    fn word_on(&self, id: NodeId) -> standing::Word {
        let membership = self.context.membership();
        let known = self.known.locked();
        let said = known.peers.iter().filter(|(from, _)| known.connected.contains(from) && membership.get_node(from).is_some());
        let said = said.map(|(from, seen)| (*from, &seen.members[..]));
        standing::word(self.context.me(), id, membership.membership().get_joint_config(), said)
    }

    /// Whether a peer is of a release that sends the hash of a caller's token: the first that says who the members are.
    pub fn sends_hashes(&self, id: NodeId) -> bool {
        self.known.locked().peers.get(&id).is_some_and(|seen| !seen.members.is_empty())
    }

    /// Whether a peer that is connected says that another than this node leads, in a later term than this node's own.
    pub fn leader_elsewhere(&self) -> bool {
        let mine = self.context.vote().leader_id().term;
        let known = self.known.locked();
        let elsewhere = |(id, seen): (&NodeId, &Seen)| {
            known.connected.contains(id) && seen.leader.is_some_and(|leader| leader != self.context.me()) && seen.vote_term > mine
        };
        known.peers.iter().any(elsewhere)
    }

    /// The state of the peers' disks. A peer that is gone, or silent for long, is not in it.
    pub fn disks(&self) -> BTreeMap<NodeId, Disk> {
        let now = self.context.env.clock.now();
        let known = self.known.locked();
        let disk = |(id, seen): (&NodeId, &Seen)| {
            let is_there = known.connected.contains(id) && now.saturating_sub(seen.at) <= FRESH;
            let disk = if seen.disk_low { Disk::Full } else { Disk::Roomy };
            (*id, if is_there { disk } else { Disk::Silent })
        };
        known.peers.iter().map(disk).collect()
    }
}
