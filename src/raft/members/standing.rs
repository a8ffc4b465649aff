//! Whether a node that calls belongs to the cluster, as far as this one knows.
//!
//! ```text
//! the membership in force, or the one applied, has it ──> a member: every call is looked at
//! its id was used, and neither has it ──────────────────> removed: it may finish what this node's own vote says, and nothing else
//! neither, and its id is a new one ─────────────────────> unheard: the members this node reaches are believed
//!    one of them has it among its own members ──────────────> it joined while this node was away
//!    they are a majority, and none has it ──────────────────> it never was a member: refused
//!    they are fewer ────────────────────────────────────────> this node can't know, and continues as if it had joined
//! ```
//!
//! Why a majority settles it: the entry that made it a member was taken by a majority of the voters this node knows, or of voters that
//! were made so by such an entry. One that is reached has it then, and says so. Refusing where fewer are reached would stop a cluster: a
//! node that was away must follow, and vote for, members it has not heard of (Raft dissertation §4.1).

use std::collections::BTreeSet;

use crate::raft::context::NodeContext;
use crate::types::NodeId;

/// A caller's standing by this node's own membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A member, or this node does not know the members yet.
    Member,
    /// A former member.
    Removed,
    /// Its id was never used, as far as this node has heard.
    Unheard,
}

/// An id's standing by the members that this node reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// One of them has it among the members.
    Joined,
    /// A majority answers, and none of them has it.
    Never,
    /// Too few of them say anything.
    Unclear,
}

/// A caller's standing by this node's own membership.
pub fn standing(context: &NodeContext, id: NodeId) -> Standing {
    let in_force = context.membership();
    // The rule: no lock of the state is needed for it.
    if in_force.get_node(&id).is_some() {
        return Standing::Member;
    }
    let nobody = in_force.nodes().next().is_none();
    context.state.view(|state, _, _| {
        if state.membership.get_node(&id).is_some() || nobody && state.membership.nodes().next().is_none() {
            Standing::Member
        } else if state.is_removed(id) {
            Standing::Removed
        } else {
            Standing::Unheard
        }
    })
}

/// Judges by what members say who the members are. `configs`: the voters this node knows; `said`: who says so, and of whom. Pure.
pub fn word<'a>(me: NodeId, id: NodeId, configs: &[BTreeSet<NodeId>], said: impl Iterator<Item = (NodeId, &'a [NodeId])>) -> Word {
    let mut reached = BTreeSet::from([me]);
    for (from, members) in said {
        if members.contains(&id) {
            return Word::Joined;
        }
        // A release that does not say who the members are leaves it open.
        if !members.is_empty() {
            reached.insert(from);
        }
    }
    let is_majority = configs.iter().all(|config| 2 * config.intersection(&reached).count() > config.len());
    if is_majority && !configs.is_empty() { Word::Never } else { Word::Unclear }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn judged(configs: &[&[u64]], said: &[(u64, &[u64])]) -> Word {
        let configs: Vec<BTreeSet<NodeId>> = configs.iter().map(|config| ids(config).into_iter().collect()).collect();
        let said: Vec<(NodeId, Vec<NodeId>)> = said.iter().map(|(from, members)| (NodeId(*from), ids(members))).collect();
        word(NodeId(3), NodeId(9), &configs, said.iter().map(|(from, members)| (*from, &members[..])))
    }

    #[test]
    fn an_id_that_a_majority_has_not_heard_of_never_was_a_members() {
        assert_eq!(judged(&[&[1, 2, 3]], &[(1, &[1, 2, 3])]), Word::Never);
        assert_eq!(judged(&[&[3]], &[]), Word::Never, "this node is the majority");
        assert_eq!(judged(&[&[1, 2, 3, 4, 5]], &[(1, &[1, 2, 3, 4, 5])]), Word::Unclear, "two of five");
        assert_eq!(judged(&[&[1, 2, 3], &[3, 4, 5]], &[(1, &[1, 2, 3])]), Word::Unclear, "a majority of one configuration only");
        assert_eq!(judged(&[&[1, 2, 3], &[3, 4, 5]], &[(1, &[1, 2, 3]), (4, &[3, 4, 5])]), Word::Never);
    }

    #[test]
    fn an_id_that_one_member_has_among_the_members_joined_while_this_node_was_away() {
        assert_eq!(judged(&[&[1, 2, 3]], &[(1, &[1, 2, 3]), (2, &[1, 2, 3, 9])]), Word::Joined);
    }

    #[test]
    fn a_node_that_reaches_nobody_and_one_whose_peers_do_not_say_can_not_know() {
        assert_eq!(judged(&[&[1, 2, 3]], &[]), Word::Unclear);
        assert_eq!(judged(&[&[1, 2, 3]], &[(1, &[]), (2, &[])]), Word::Unclear, "an earlier release");
        assert_eq!(judged(&[], &[(1, &[1, 2, 3])]), Word::Unclear);
    }
}
