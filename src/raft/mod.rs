//! Not part of the interface: any release may change it.
//!
//! Raft: consensus on one log, the state it makes, and both ends of the protocol between peers.
//!
//! This module owns openraft; nothing else names it. It proposes encoded commands, applies what is committed to the machine and
//! its rows under one view lock, and answers reads from one view after a read index. It knows nothing of clients' connections:
//! [`PeerRequests`] is what the peer port asks of the server.
//!
//! ```text
//! propose ─ encode, stamp ─> openraft ─> log_store (append, sync) ─> network ─> peers
//!                                │ committed
//!                                v
//!                          state_machine: decode ─> [view lock] machine.apply + rows ─> outcome
//! read ─ confirm ─> [view lock] plan + pin ─> rows ─> answer
//! ```
//!
//! | where | what |
//! |---|---|
//! | `node`, `propose`, `read`, `confirm`, `backup` | what the server asks of a node |
//! | `start`, `data_dir`, `context`, `failure` | what a node is made of, how it starts, why it stops |
//! | `leadership` | who leads, and whether a majority stands behind it |
//! | `adapter` | openraft's traits on our log, our state and our peer port |
//! | `peer` | the other nodes: connections, the peer port, presence, clocks, take-over, transfer |
//! | `members` | how a cluster begins, who belongs to it, how that changes |
//! | `upkeep` | disk, log, version, scrubbing |
//! | `rebuild` | a state that is damaged is replaced by the leader's |

#[doc(hidden)]
pub mod adapter;
mod backup;
mod byte_permit;
mod confirm;
mod content;
mod context;
mod data_dir;
mod failure;
mod leadership;
pub mod members;
mod node;
mod peer;
mod propose;
mod read;
mod rebuild;
mod repack;
mod start;
mod upkeep;

#[doc(hidden)]
pub use adapter::fuzz_codecs;
#[doc(hidden)]
pub use adapter::state_machine::{Applied, Observer};
pub use backup::Backup;
pub use byte_permit::{BytePermit, ReadBudget};
pub use members::bootstrap::reason;
pub use node::{Node, Peer};
pub use peer::failover;
pub use read::{Read, ReplyList, ReplyLoad, ReplyMany, no_room};
pub use rebuild::{is_marked, mark as mark_for_rebuild};
pub use start::{Opened, Options, StartError, open};
pub use upkeep::ahead::AHEAD_MS_MAX;
pub use upkeep::purge::LogKept;
pub use upkeep::scrub::Options as ScrubOptions;

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;

use crate::types::{LeaderHint, NodeId, Outcome, Refusal};
use crate::wire::peer::v1::ForwardRequest;
use crate::wire::v1;

/// The oldest cluster version this program can read and write; [`crate::machine::newest_version`] is the newest.
pub const CLUSTER_VERSION_MIN: u16 = 1;

/// The leadership, as far as this node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The current term.
    pub term: u64,
    /// The leader, if one is known to be alive and to have a majority behind it.
    pub leader: Option<LeaderHint>,
    /// Whether it is this node.
    pub is_self: bool,
    /// Whether this node leads by its term and no majority answers it: then it is no leader, and nothing it has open can be settled here.
    pub lacks_quorum: bool,
    /// Whether this node's disk hangs and another leads: what it still has open is not settled before the disk is back.
    pub hung: bool,
}

/// Takes the answer to one proposal; called exactly once.
pub type Reply = Box<dyn FnOnce(Result<Outcome, Refusal>) + Send>;

/// The node that forwards calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarder {
    /// Which one, as it says.
    pub node: NodeId,
    /// Whether its connection proved that it is a member.
    pub authenticated: bool,
    /// Whether it is known to be of a release that sends the hash of a caller's token.
    pub sends_hashes: bool,
}

/// Answers what the peer port can't: operations that peers forward, and the status of this node's server.
#[tonic::async_trait]
pub trait PeerRequests: Send + Sync + 'static {
    /// Answers the operations that a peer forwards, until the peer is no member any more. `first` was read already, and its route checked.
    fn forward(
        &self,
        from: Forwarder,
        requests: Pin<Box<dyn Stream<Item = Result<ForwardRequest, tonic::Status>> + Send>>,
        first: ForwardRequest,
    ) -> Pin<Box<dyn Stream<Item = Result<v1::SubmitResponse, tonic::Status>> + Send>>;

    /// The status of this node, with the digest at `digest_at`: 0 means at `applied`, another index is waited for within `timeout`. It has
    /// at most `samples` samples.
    async fn status(&self, digest_at: u64, timeout: Duration, samples: u32) -> v1::NodeStatus;
}
