//! The members of a cluster, and the changes of them.

use super::super::v1;
use super::{cluster_id_to, required};
use crate::types::{ClusterId, Member, MemberChange, Members, NodeId, Refusal, Revision, validate_address};

/// The message of a member.
fn member_to(member: Member) -> v1::Member {
    let Member { id, client_address, peer_address, admin_address, voter } = member;
    v1::Member { id: id.0, client: client_address, peer: peer_address, admin: admin_address, voter }
}

fn member_from(member: v1::Member) -> Member {
    let v1::Member { id, client, peer, admin, voter } = member;
    Member { id: NodeId(id), client_address: client, peer_address: peer, admin_address: admin, voter }
}

/// The message of the members; whether the node has a leader is left out.
pub fn members_to(members: Members) -> v1::MembersResponse {
    let Members { cluster_id, members, revision, largest_id, leaving } = members;
    v1::MembersResponse {
        cluster_id: cluster_id_to(cluster_id),
        members: members.into_iter().map(member_to).collect(),
        revision: revision.0,
        largest_id: largest_id.0,
        leaving: leaving.into_iter().map(|id| id.0).collect(),
        is_led: false,
    }
}

/// The members in a message: for people, so nothing of it is refused.
pub fn members_from(response: v1::MembersResponse) -> Members {
    Members {
        cluster_id: ClusterId::from_slice(&response.cluster_id),
        members: response.members.into_iter().map(member_from).collect(),
        revision: Revision(response.revision),
        largest_id: NodeId(response.largest_id),
        leaving: response.leaving.into_iter().map(NodeId).collect(),
    }
}

/// The message of a change.
pub fn member_change_to(change: MemberChange) -> v1::change_members_request::Change {
    use v1::change_members_request::{Change, Replace};
    match change {
        MemberChange::Add(member) => Change::Add(member_to(member)),
        MemberChange::Promote(id) => Change::Promote(id.0),
        MemberChange::Remove(id) => Change::Remove(id.0),
        MemberChange::Replace { old, new } => Change::Replace(Replace { old: old.0, new: new.0 }),
        MemberChange::Update(member) => Change::Update(member_to(member)),
    }
}

/// A validated change. Errors: `Invalid`, naming the field.
pub fn member_change_from(change: Option<v1::change_members_request::Change>) -> Result<MemberChange, Refusal> {
    use v1::change_members_request::{Change, Replace};
    let id = |field: &str, id: u64| match id {
        0 => Err(Refusal::invalid(format!("a node id is at least 1 field={field}"))),
        id => Ok(NodeId(id)),
    };
    let member = |member: v1::Member| {
        id("id", member.id)?;
        for (field, address) in [("client", &member.client), ("peer", &member.peer), ("admin", &member.admin)] {
            validate_address(address).map_err(|why| Refusal::invalid(format!("address {why} field={field} value={address:?}")))?;
        }
        Ok::<_, Refusal>(Member { voter: false, ..member_from(member) })
    };
    Ok(match required("change", change)? {
        Change::Add(message) => MemberChange::Add(member(message)?),
        Change::Promote(node) => MemberChange::Promote(id("promote", node)?),
        Change::Remove(node) => MemberChange::Remove(id("remove", node)?),
        Change::Replace(Replace { old, new }) => MemberChange::Replace { old: id("old", old)?, new: id("new", new)? },
        Change::Update(message) => MemberChange::Update(member(message)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        let at = |port: u16| format!("h:{port}");
        Member { id: NodeId(id), client_address: at(1), peer_address: at(2), admin_address: at(3), voter: false }
    }

    #[test]
    fn members_and_changes_of_them_survive_the_wire() {
        let members = Members {
            cluster_id: Some(ClusterId([7; 16])),
            members: vec![member(1), Member { voter: true, ..member(2) }],
            revision: Revision(9),
            largest_id: NodeId(4),
            leaving: vec![NodeId(2)],
        };
        assert_eq!(members_from(members_to(members.clone())), members);
        assert_eq!(members_from(members_to(Members::default())), Members::default());
        let (old, new) = (NodeId(1), NodeId(2));
        for change in [
            MemberChange::Add(member(3)),
            MemberChange::Promote(new),
            MemberChange::Remove(old),
            MemberChange::Replace { old, new },
            MemberChange::Update(member(2)),
        ] {
            assert_eq!(member_change_from(Some(member_change_to(change.clone()))), Ok(change));
        }
    }

    #[test]
    fn a_change_that_names_no_node_or_no_address_is_refused_by_its_field() {
        let nowhere = Member { client_address: "nowhere".into(), ..member(3) };
        for (change, words) in [
            (None, "field=change"),
            (Some(MemberChange::Add(member(0))), "field=id"),
            (Some(MemberChange::Promote(NodeId(0))), "field=promote"),
            (Some(MemberChange::Replace { old: NodeId(1), new: NodeId(0) }), "field=new"),
            (Some(MemberChange::Update(nowhere)), "field=client value=\"nowhere\""),
        ] {
            let refusal = member_change_from(change.map(member_change_to)).expect_err(words);
            assert!(refusal.message.contains(words), "{refusal:?}");
        }
    }
}
