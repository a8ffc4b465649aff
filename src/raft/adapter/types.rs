//! openraft's types for our cluster, and their forms on the wire and in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::errors::{NetworkError, RPCError, Unreachable};
use tonic::{Code, Status};

use crate::codec;
use crate::limits::{ADDRESS_BYTES_MAX, NODES_MAX, PEER_MESSAGE_BYTES_MAX};
use crate::types::{InstanceId, LogId, Member, NodeId, Outcome, bounded};
use crate::wire::{self, peer::v1 as peer};

/// An encoded entry of the machine: encoded once by the proposer, decoded once per node, in apply. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry of {} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One node in the membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNode {
    /// Where its peers reach it, `host:port`.
    pub peer_address: String,
    /// Where clients reach it, `host:port`.
    pub client_address: String,
    /// Where it answers over HTTP, `host:port`; empty in memberships of before it was kept.
    pub admin_address: String,
    /// Its data directory: a wiped one has another id and is refused.
    pub instance: InstanceId,
}

impl PeerNode {
    /// A member with its data directory.
    pub fn new(member: &Member, instance: InstanceId) -> Self {
        let Member { id: _, client_address, peer_address, admin_address, voter: _ } = member.clone();
        Self { peer_address, client_address, admin_address, instance }
    }
}

/// Tokio, with openraft's randomness from a seed. It panics where it draws or spawns outside [`Runtime::scope`]: openraft does so in
/// `Raft::new` and the tasks below that, and in `stream_append`, which we do not call.
pub type Runtime = openraft_rt::deterministic_rng::DeterministicRng<openraft_rt_tokio::TokioRuntime>;

openraft::declare_raft_types!(
    /// The types of one quorate cluster.
    pub Types:
        D = Payload,
        R = Outcome,
        NodeId = NodeId,
        Node = PeerNode,
        AsyncRuntime = Runtime,
);

pub type Leader = openraft::impls::leader_id_adv::LeaderId<u64, NodeId>;
pub type RaftLogId = openraft::LogId<Leader>;
pub type Vote = openraft::impls::Vote<Leader>;
pub type RaftPayload = EntryPayload<Payload, NodeId, PeerNode>;
pub type Entry = openraft::Entry<Leader, RaftPayload>;
pub type Membership = openraft::Membership<NodeId, PeerNode>;
pub type StoredMembership = openraft::StoredMembership<Leader, NodeId, PeerNode>;

pub fn log_id_from(id: &RaftLogId) -> LogId {
    LogId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

pub fn log_id_to(id: LogId) -> RaftLogId {
    RaftLogId { leader_id: Leader { term: id.term, node_id: id.node }, index: id.index }
}

pub fn log_id_to_wire(id: &RaftLogId) -> peer::LogId {
    peer::LogId { term: id.leader_id.term, node: id.leader_id.node_id.0, index: id.index }
}

/// Errors: a number that is out of range.
pub fn log_id_from_wire(id: &peer::LogId) -> io::Result<RaftLogId> {
    Ok(log_id_to(LogId { term: id.term, node: NodeId(id.node), index: id.index }.bounded()?))
}

pub fn vote_to_wire(vote: &Vote) -> peer::Vote {
    let leader = vote.leader_id();
    peer::Vote { term: leader.term, node: leader.node_id.0, committed: vote.committed }
}

/// Errors: it is missing, or a number is out of range.
pub fn vote_from_wire(vote: Option<&peer::Vote>) -> io::Result<Vote> {
    let vote = vote.ok_or_else(|| invalid("vote is missing"))?;
    bounded("vote.term", vote.term)?;
    bounded("vote.node", vote.node)?;
    Ok(Vote { leader_id: Leader { term: vote.term, node_id: NodeId(vote.node) }, committed: vote.committed })
}

pub fn vote_to_bytes(vote: &Vote) -> Bytes {
    wire::to_bytes(&vote_to_wire(vote))
}

pub fn vote_from_bytes(bytes: &[u8]) -> io::Result<Vote> {
    vote_from_wire(Some(&wire::from_bytes(bytes)?))
}

pub fn membership_to_wire(membership: &Membership) -> peer::Membership {
    let configs = membership.get_joint_config().iter();
    let members = membership.nodes().map(|(id, node)| peer::membership::Member {
        id: id.0,
        peer_address: node.peer_address.clone(),
        client_address: node.client_address.clone(),
        admin_address: node.admin_address.clone(),
        instance: Bytes::copy_from_slice(node.instance.as_bytes()),
    });
    peer::Membership {
        configs: configs.map(|voters| peer::membership::Config { voters: voters.iter().map(|id| id.0).collect() }).collect(),
        members: members.collect(),
    }
}

/// Errors: more members than [`NODES_MAX`], an id that is out of range, a long address, an instance that is not 16 bytes, a voter that is no member.
pub fn membership_from_wire(message: &peer::Membership) -> io::Result<Membership> {
    if message.members.len() > NODES_MAX || message.configs.len() > 2 {
        return Err(invalid(format!("membership is too large members={} limit={NODES_MAX}", message.members.len())));
    }
    let mut nodes = BTreeMap::new();
    for id in message.configs.iter().flat_map(|config| &config.voters) {
        bounded("membership.voter", *id)?;
    }
    for member in &message.members {
        bounded("membership.member", member.id)?;
        let longest = member.peer_address.len().max(member.client_address.len()).max(member.admin_address.len());
        if longest > ADDRESS_BYTES_MAX {
            return Err(invalid(format!("membership address is too long bytes={longest} limit={ADDRESS_BYTES_MAX}")));
        }
        let instance = InstanceId::from_slice(&member.instance);
        let instance =
            instance.ok_or_else(|| invalid(format!("membership instance must have 16 bytes bytes={}", member.instance.len())))?;
        let node = PeerNode {
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            admin_address: member.admin_address.clone(),
            instance,
        };
        nodes.insert(NodeId(member.id), node);
    }
    let configs: Vec<BTreeSet<NodeId>> =
        message.configs.iter().map(|config| config.voters.iter().map(|id| NodeId(*id)).collect()).collect();
    // A node that was never initialized has no voters at all; openraft accepts that only as its default.
    if configs.iter().all(BTreeSet::is_empty) && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|error| invalid(error.to_string()))
}

/// First byte of a log payload that carries no command. A machine's entry begins with its format byte, which is neither.
const BLANK: u8 = 0;
const MEMBERSHIP: u8 = 0xff;

/// The bytes of an entry as they lie in the log and travel between peers. A command's are those its proposer encoded.
pub fn payload_to_bytes(payload: &RaftPayload) -> Bytes {
    match payload {
        EntryPayload::Blank => Bytes::from_static(&[BLANK]),
        EntryPayload::Normal(Payload(bytes)) => bytes.clone(),
        EntryPayload::Membership(membership) => {
            let message = wire::to_bytes(&membership_to_wire(membership));
            let mut bytes = Vec::with_capacity(message.len() + 1);
            bytes.push(MEMBERSHIP);
            bytes.extend_from_slice(&message);
            bytes.into()
        }
    }
}

/// Errors: empty, too long, a membership that does not decode, or a time that is out of range. The rest of a command is looked at only when
/// it is applied.
pub fn payload_from_bytes(bytes: Bytes) -> io::Result<RaftPayload> {
    if bytes.len() as u64 > PEER_MESSAGE_BYTES_MAX {
        return Err(invalid(format!("entry is too large bytes={} limit={PEER_MESSAGE_BYTES_MAX}", bytes.len())));
    }
    match bytes.first() {
        None => Err(invalid("entry is empty")),
        Some(&BLANK) if bytes.len() == 1 => Ok(EntryPayload::Blank),
        Some(&BLANK) => Err(invalid(format!("blank entry has a payload bytes={}", bytes.len()))),
        Some(&MEMBERSHIP) => Ok(EntryPayload::Membership(membership_from_wire(&wire::from_bytes(&bytes[1..])?)?)),
        Some(_) => {
            codec::check_stamp(&bytes)?;
            Ok(EntryPayload::Normal(Payload(bytes)))
        }
    }
}

/// The members of a replicated membership.
pub fn members_of(membership: &StoredMembership) -> Vec<Member> {
    let voters: Vec<NodeId> = membership.voter_ids().collect();
    let member = |(id, node): (&NodeId, &PeerNode)| Member {
        id: *id,
        peer_address: node.peer_address.clone(),
        client_address: node.client_address.clone(),
        admin_address: node.admin_address.clone(),
        voter: voters.contains(id),
    };
    membership.nodes().map(member).collect()
}

/// Why a call of openraft's to a peer came to nothing.
pub type RpcError = RPCError<Types>;

/// Tried again at once.
pub fn network_error(error: &(impl std::error::Error + 'static)) -> RpcError {
    RPCError::Network(NetworkError::new(error))
}

/// A peer's answer as openraft's error: an unreachable peer backs off, anything else is tried again.
pub fn rpc_error(status: &Status) -> RpcError {
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded | Code::Internal | Code::Unknown => network_error(status),
        // Refused connections, refused routes, a peer that is stopping: trying again at once is of no use.
        _ => RPCError::Unreachable(Unreachable::new(status)),
    }
}

pub fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let node = |id: u8| PeerNode {
            peer_address: format!("127.0.0.1:{id}"),
            client_address: format!("127.0.0.1:1{id}"),
            admin_address: format!("127.0.0.1:2{id}"),
            instance: InstanceId([id; 16]),
        };
        let nodes: BTreeMap<NodeId, PeerNode> = (1..=4).map(|id| (NodeId(id.into()), node(id))).collect();
        let voters = |ids: [u64; 3]| ids.into_iter().map(NodeId).collect::<BTreeSet<_>>();
        Membership::new(vec![voters([1, 2, 3]), voters([2, 3, 4])], nodes).expect("every voter is a member")
    }

    #[test]
    fn every_payload_survives_its_bytes() {
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(Payload(Bytes::from_static(&[1, 2, 3]))),
            EntryPayload::Membership(membership()),
        ] {
            assert_eq!(payload_from_bytes(payload_to_bytes(&payload)).expect("its own bytes"), payload);
        }
    }

    /// The bytes are those of a membership of three members, as they were written before members had an address for HTTP.
    #[test]
    fn a_membership_of_before_admin_addresses_is_read() {
        let mut bytes = vec![MEMBERSHIP, 0x0a, 5, 0x0a, 3, 1, 2, 3];
        for id in 1..=3u8 {
            bytes.extend([0x12, 26, 0x08, id, 0x12, 1, b'p', 0x1a, 1, b'c', 0x22, 16]);
            bytes.extend([id; 16]);
        }
        let read = payload_from_bytes(Bytes::from(bytes)).expect("a format that was released");
        let EntryPayload::Membership(read) = read else { panic!("a membership") };
        assert_eq!(read.voter_ids().collect::<Vec<_>>(), [1, 2, 3].map(NodeId));
        let member = PeerNode {
            peer_address: "p".into(),
            client_address: "c".into(),
            admin_address: String::new(),
            instance: InstanceId([2; 16]),
        };
        assert_eq!(read.get_node(&NodeId(2)), Some(&member));
    }

    #[test]
    fn broken_payloads_are_errors() {
        let whole = payload_to_bytes(&EntryPayload::Membership(membership()));
        assert!(payload_from_bytes(Bytes::new()).is_err());
        assert!(payload_from_bytes(Bytes::from_static(&[BLANK, 1])).is_err());
        for cut in 2..whole.len() {
            // Some cuts are valid messages with fewer fields; none may panic, and none may pass for the whole.
            if let Ok(payload) = payload_from_bytes(whole.slice(..cut)) {
                assert_ne!(payload, EntryPayload::Membership(membership()));
            }
        }
    }

    /// Numbers that no cluster counts to are refused where they come in, by field and both sides; the largest allowed one passes.
    #[test]
    fn numbers_that_are_out_of_range_are_refused_by_name() {
        use crate::limits::NUMBER_MAX;
        let above = NUMBER_MAX + 1;
        let refused = |result: io::Result<()>, field: &str| {
            let error = result.expect_err(field).to_string();
            assert_eq!(error, format!("a number is out of range field={field} value={above} limit={NUMBER_MAX}"));
        };
        let vote = |term, node| vote_from_wire(Some(&peer::Vote { term, node, committed: true })).map(drop);
        refused(vote(above, 1), "vote.term");
        refused(vote(1, above), "vote.node");
        vote(NUMBER_MAX, NUMBER_MAX).expect("within");
        let id = |term, node, index| log_id_from_wire(&peer::LogId { term, node, index }).map(drop);
        refused(id(above, 1, 1), "log_id.term");
        refused(id(1, above, 1), "log_id.node");
        refused(id(1, 1, above), "log_id.index");
        id(NUMBER_MAX, NUMBER_MAX, NUMBER_MAX).expect("within");
        let member = |id| peer::membership::Member { id, instance: Bytes::from_static(&[7; 16]), ..Default::default() };
        let of = |voter, id| peer::Membership {
            configs: vec![peer::membership::Config { voters: vec![voter] }],
            members: vec![member(id)],
        };
        refused(membership_from_wire(&of(above, 1)).map(drop), "membership.voter");
        refused(membership_from_wire(&of(1, above)).map(drop), "membership.member");
        membership_from_wire(&of(1, 1)).expect("within");
        let entry = |stamp_ms, format| {
            let command = crate::machine::Command::Sweep { limit: 0 };
            payload_from_bytes(codec::encode(&crate::machine::Entry { stamp_ms, command }, format)).map(drop)
        };
        for format in [codec::FORMAT, codec::FORMAT_2] {
            refused(entry(above, format), "entry.stamp_ms");
            entry(NUMBER_MAX, format).expect("within");
        }
    }

    #[test]
    fn a_vote_survives_its_bytes() {
        let vote = Vote { leader_id: Leader { term: 7, node_id: NodeId(3) }, committed: true };
        assert_eq!(vote_from_bytes(&vote_to_bytes(&vote)).expect("its own bytes"), vote);
    }
}
