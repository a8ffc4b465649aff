//! The leader's address, in the refusal of a member that does not lead: a node whose state is damaged may know no member that joined
//! after its configuration was written.

use tonic::Status;
use tonic::metadata::MetadataValue;

use crate::raft::context::NodeContext;
use crate::types::NodeId;

/// In the metadata of a refusal: the leader's id and peer address.
const LEADER: &str = "quorate-leader";

/// The refusal of a member that does not lead; it names who does, if that is known.
pub(super) fn not_leading(context: &NodeContext) -> Status {
    let leader = context.leadership.live_leader().filter(|leader| *leader != context.me());
    name(leader.and_then(|leader| Some((leader, context.member(leader)?.peer_address))))
}

fn name(leader: Option<(NodeId, String)>) -> Status {
    let mut status = Status::failed_precondition("this node does not lead");
    // An address that metadata can't carry is not sent.
    if let Some(value) = leader.and_then(|(id, address)| MetadataValue::try_from(format!("{id} {address}")).ok()) {
        status.metadata_mut().insert(LEADER, value);
    }
    status
}

/// The leader that a refusal names, and its peer address.
pub(super) fn named(status: &Status) -> Option<(NodeId, String)> {
    let (id, address) = status.metadata().get(LEADER)?.to_str().ok()?.split_once(' ')?;
    Some((NodeId(id.parse().ok()?), address.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_leader_if_there_is_one() {
        let leader = (NodeId(4), "n4:7461".to_owned());
        assert_eq!(named(&name(Some(leader.clone()))), Some(leader));
        assert_eq!(named(&name(None)), None);
        assert_eq!(named(&name(Some((NodeId(4), "a\nb".to_owned())))), None);
    }
}
