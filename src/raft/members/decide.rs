//! Whether a change of the members may be proposed, and which one. Pure.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;

use crate::mutant::{self, Mutant};
use crate::raft::adapter::types::PeerNode;
use crate::types::NodeId;

/// A learner that lacks at most so many entries has caught up: what a voter that was away for a moment lacks too.
pub const LAG_MAX: u64 = 1000;
/// No id beyond: a JSON number holds no more digits in many readers.
pub const NODE_ID_MAX: u64 = 1 << 53;

/// A requested change, with the answers of everything that had to be asked about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolvedChange {
    /// A node without a vote.
    Add(NodeId, PeerNode),
    /// A vote for a member.
    Promote(NodeId),
    /// No member any more.
    Remove(NodeId),
    /// The one leaves as the other gets its vote, in one step.
    Replace {
        /// Leaves.
        old: NodeId,
        /// Stays.
        new: NodeId,
    },
    /// Other addresses, the same data: of one member, and of those whose addresses it takes, which have moved too.
    Update(BTreeMap<NodeId, PeerNode>),
}

/// The leader's knowledge. The membership is committed and applied, and no change is under way.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The leader.
    pub me: NodeId,
    /// All members.
    pub nodes: BTreeMap<NodeId, PeerNode>,
    /// Those of them with a vote.
    pub voters: BTreeSet<NodeId>,
    /// Those that answer, the leader among them.
    pub alive: BTreeSet<NodeId>,
    /// How many entries each member lacks, where that is known.
    pub lag: BTreeMap<NodeId, u64>,
    /// The largest id that any node of this cluster ever had.
    pub largest: NodeId,
    /// Whether to propose what the members that answer can't commit.
    pub force: bool,
}

/// The next step of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Propose this.
    Propose(ChangeMembers<NodeId, PeerNode>),
    /// The members are already as requested.
    Done,
    /// The leader is to leave: it hands over, and the next one does it.
    Transfer,
    /// The member has not caught up yet: it lacks so many entries, or it is not known how many.
    Behind(NodeId, Option<u64>),
    /// No.
    Refuse(String),
}

/// Decides.
pub fn decide(change: &ResolvedChange, now: &Situation) -> Step {
    match change {
        ResolvedChange::Add(id, node) => add(*id, node, now),
        ResolvedChange::Promote(id) => promote(*id, now),
        ResolvedChange::Remove(id) => remove(*id, now),
        ResolvedChange::Replace { old, new } => replace(*old, *new, now),
        ResolvedChange::Update(nodes) => update(nodes, now),
    }
}

fn refuse(what: impl Into<String>) -> Step {
    Step::Refuse(what.into())
}

fn add(id: NodeId, node: &PeerNode, now: &Situation) -> Step {
    match now.nodes.get(&id) {
        Some(known) if known == node => return Step::Done,
        Some(known) if known.instance == node.instance => {
            return refuse(format!(
                "node {id} is a member already, at other addresses; to change those: quorate member update {id}"
            ));
        }
        Some(_) => return refuse(format!("node {id} is a member already, with another data directory: a new node needs a new id")),
        None => {}
    }
    // Or a vote could count twice (L35).
    if (id <= now.largest && !mutant::is(Mutant::NodeIdReused)) || id.0 > NODE_ID_MAX {
        return refuse(format!(
            "a node id is never used twice, so that no vote counts twice: a new node's id must be above {} id={id} limit={NODE_ID_MAX}",
            now.largest
        ));
    }
    if now.nodes.len() >= crate::limits::NODES_MAX {
        return refuse(format!("the cluster has as many members as it may have members={}", now.nodes.len()));
    }
    if let Some((other, address)) = taken(id, node, now) {
        return refuse(format!("the address is that of node {other} address={address}"));
    }
    Step::Propose(ChangeMembers::AddNodes(BTreeMap::from([(id, node.clone())])))
}

/// A member that would lose an address to one of these, and is none of them.
pub fn displaced(nodes: &BTreeMap<NodeId, PeerNode>, now: &Situation) -> Option<NodeId> {
    let others: BTreeMap<_, _> =
        now.nodes.iter().filter(|(id, _)| !nodes.contains_key(id)).map(|(id, node)| (*id, node.clone())).collect();
    let others = Situation { nodes: others, ..now.clone() };
    nodes.iter().find_map(|(id, node)| taken(*id, node, &others)).map(|(other, _)| other)
}

/// An address that is another member's.
fn taken<'a>(id: NodeId, node: &'a PeerNode, now: &Situation) -> Option<(NodeId, &'a str)> {
    let addresses = |node: &PeerNode| [node.peer_address.clone(), node.client_address.clone()];
    let mut others = now.nodes.iter().filter(|(other, _)| **other != id);
    others.find_map(|(other, known)| {
        let known = addresses(known);
        [&node.peer_address, &node.client_address].into_iter().find(|mine| known.contains(mine)).map(|mine| (*other, mine.as_str()))
    })
}

fn promote(id: NodeId, now: &Situation) -> Step {
    if now.voters.contains(&id) {
        return Step::Done;
    }
    if !now.nodes.contains_key(&id) {
        return refuse(unknown(id, now));
    }
    if let Some(behind) = behind(id, now) {
        return behind;
    }
    let voters: BTreeSet<NodeId> = now.voters.iter().copied().chain([id]).collect();
    if let Some(lost) = lost_quorum(&format!("with a vote for node {id}"), &voters, now) {
        return refuse(lost);
    }
    Step::Propose(ChangeMembers::AddVoterIds(BTreeSet::from([id])))
}

fn remove(id: NodeId, now: &Situation) -> Step {
    if !now.nodes.contains_key(&id) {
        return if id <= now.largest { Step::Done } else { refuse(unknown(id, now)) };
    }
    if !now.voters.contains(&id) {
        return Step::Propose(ChangeMembers::RemoveNodes(BTreeSet::from([id])));
    }
    let voters: BTreeSet<NodeId> = now.voters.iter().copied().filter(|voter| *voter != id).collect();
    if voters.is_empty() {
        return refuse(format!("node {id} is the only voter: without it there is no cluster"));
    }
    if let Some(lost) = lost_quorum(&format!("without node {id}"), &voters, now) {
        return refuse(lost);
    }
    if id == now.me {
        return Step::Transfer;
    }
    Step::Propose(ChangeMembers::RemoveVoters(BTreeSet::from([id])))
}

fn replace(old: NodeId, new: NodeId, now: &Situation) -> Step {
    if old == new {
        return refuse(format!("a node can't take its own place: a new disk needs a new id id={old}"));
    }
    if now.voters.contains(&new) && !now.nodes.contains_key(&old) && old <= now.largest {
        return Step::Done;
    }
    if let Some(missing) = [old, new].into_iter().find(|id| !now.nodes.contains_key(id)) {
        return refuse(unknown(missing, now));
    }
    if !now.voters.contains(&old) {
        return refuse(format!("node {old} has no vote to give away: quorate member remove {old}"));
    }
    if now.voters.contains(&new) {
        return refuse(format!(
            "node {new} has a vote already and can't take that of node {old} too; with one voter less: quorate member remove {old}"
        ));
    }
    if let Some(behind) = behind(new, now) {
        return behind;
    }
    let voters: BTreeSet<NodeId> = now.voters.iter().copied().filter(|voter| *voter != old).chain([new]).collect();
    if let Some(lost) = lost_quorum(&format!("with node {new} in place of node {old}"), &voters, now) {
        return refuse(lost);
    }
    if old == now.me {
        return Step::Transfer;
    }
    let vote = ChangeMembers::AddVoterIds(BTreeSet::from([new]));
    Step::Propose(ChangeMembers::Batch(vec![vote, ChangeMembers::RemoveVoters(BTreeSet::from([old]))]))
}

/// In one step: between two, a member would be where another one is.
fn update(nodes: &BTreeMap<NodeId, PeerNode>, now: &Situation) -> Step {
    let mut after = now.clone();
    for (id, node) in nodes {
        match after.nodes.insert(*id, node.clone()) {
            None => return refuse(unknown(*id, now)),
            Some(known) if known.instance != node.instance => {
                return refuse(format!(
                    "the node that answers there has other data than node {id}: a new disk needs a new id, see quorate member replace"
                ));
            }
            Some(_) => {}
        }
    }
    if after.nodes == now.nodes {
        return Step::Done;
    }
    match nodes.iter().find_map(|(id, node)| taken(*id, node, &after)) {
        Some((other, address)) => refuse(format!("the address is that of node {other} address={address}")),
        None => Step::Propose(ChangeMembers::SetNodes(nodes.clone())),
    }
}

fn unknown(id: NodeId, now: &Situation) -> String {
    format!("node {id} is no member members={}", NodeId::listed(now.nodes.keys()))
}

fn behind(id: NodeId, now: &Situation) -> Option<Step> {
    let lag = now.lag.get(&id).copied();
    let caught_up = id == now.me || lag.is_some_and(|lag| lag <= LAG_MAX);
    (!caught_up).then_some(Step::Behind(id, lag))
}

/// Why the voters that are left could not commit anything, if they could not.
fn lost_quorum(what: &str, voters: &BTreeSet<NodeId>, now: &Situation) -> Option<String> {
    let silent: Vec<String> = voters.difference(&now.alive).map(ToString::to_string).collect();
    let answering = voters.len() - silent.len();
    let needed = voters.len() / 2 + 1;
    let lost = answering < needed && !now.force && !mutant::is(Mutant::QuorumLossAccepted);
    lost.then(|| {
        format!(
            "{what} there are {} voters, of which {needed} must answer and {answering} do: nothing could be written any more; bring back \
             node {}, or pass --force",
            voters.len(),
            silent.join(" and node ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::InstanceId;

    fn node(id: u64) -> PeerNode {
        PeerNode {
            peer_address: format!("h{id}:1"),
            client_address: format!("h{id}:2"),
            admin_address: format!("h{id}:3"),
            instance: InstanceId([id as u8; 16]),
        }
    }

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    /// Voters 1, 2, 3 of which `alive` answer; learner 4, caught up; node 1 leads; node 5 was removed.
    fn situation(alive: &[u64]) -> Situation {
        Situation {
            me: NodeId(1),
            nodes: (1..=4).map(|id| (NodeId(id), node(id))).collect(),
            voters: ids(&[1, 2, 3]),
            alive: ids(alive),
            lag: (1..=4).map(|id| (NodeId(id), LAG_MAX)).collect(),
            largest: NodeId(5),
            force: false,
        }
    }

    fn refusal(change: &ResolvedChange, now: &Situation) -> String {
        match decide(change, now) {
            Step::Refuse(why) => why,
            other => panic!("{change:?} must be refused: {other:?}"),
        }
    }

    #[test]
    fn a_new_node_needs_an_id_above_every_one_that_ever_was() {
        let now = situation(&[1, 2, 3]);
        for id in [0, 5] {
            let why = refusal(&ResolvedChange::Add(NodeId(id), node(9)), &now);
            assert!(why.contains("above 5"), "{why}");
        }
        assert!(refusal(&ResolvedChange::Add(NodeId(NODE_ID_MAX + 1), node(9)), &now).contains("limit="));
        let Step::Propose(ChangeMembers::AddNodes(nodes)) = decide(&ResolvedChange::Add(NodeId(6), node(6)), &now) else {
            panic!("added")
        };
        assert_eq!(nodes, BTreeMap::from([(NodeId(6), node(6))]));
    }

    #[test]
    fn a_member_is_added_once_and_never_with_other_data_or_anothers_address() {
        let now = situation(&[1, 2, 3]);
        assert_eq!(decide(&ResolvedChange::Add(NodeId(4), node(4)), &now), Step::Done);
        let other_disk = PeerNode { instance: InstanceId([9; 16]), ..node(4) };
        assert!(refusal(&ResolvedChange::Add(NodeId(4), other_disk), &now).contains("a new id"));
        let moved = PeerNode { client_address: "h9:9".into(), ..node(4) };
        assert!(refusal(&ResolvedChange::Add(NodeId(4), moved), &now).contains("member update 4"));
        let stolen = PeerNode { client_address: "h2:1".into(), ..node(6) };
        assert!(refusal(&ResolvedChange::Add(NodeId(6), stolen), &now).contains("node 2"));
    }

    #[test]
    fn only_a_member_that_has_caught_up_gets_a_vote() {
        let mut now = situation(&[1, 2, 3, 4]);
        assert_eq!(decide(&ResolvedChange::Promote(NodeId(4)), &now), Step::Propose(ChangeMembers::AddVoterIds(ids(&[4]))));
        assert_eq!(decide(&ResolvedChange::Promote(NodeId(2)), &now), Step::Done);
        assert!(refusal(&ResolvedChange::Promote(NodeId(7)), &now).contains("no member"));
        now.lag.insert(NodeId(4), LAG_MAX + 1);
        assert_eq!(decide(&ResolvedChange::Promote(NodeId(4)), &now), Step::Behind(NodeId(4), Some(LAG_MAX + 1)));
        now.lag.remove(&NodeId(4));
        let replace = ResolvedChange::Replace { old: NodeId(3), new: NodeId(4) };
        assert_eq!(decide(&replace, &now), Step::Behind(NodeId(4), None));
    }

    #[test]
    fn what_loses_the_quorum_is_refused_with_the_arithmetic_unless_forced() {
        let one_dead = situation(&[1, 2]);
        let why = refusal(&ResolvedChange::Remove(NodeId(2)), &one_dead);
        assert!(why.contains("2 voters, of which 2 must answer and 1 do") && why.contains("bring back node 3"), "{why}");
        let forced = Situation { force: true, ..one_dead.clone() };
        assert_eq!(decide(&ResolvedChange::Remove(NodeId(2)), &forced), Step::Propose(ChangeMembers::RemoveVoters(ids(&[2]))));
        assert_eq!(decide(&ResolvedChange::Remove(NodeId(3)), &one_dead), Step::Propose(ChangeMembers::RemoveVoters(ids(&[3]))));
        // A vote for one more that is silent: 2 of 4.
        let why = refusal(&ResolvedChange::Promote(NodeId(4)), &one_dead);
        assert!(why.contains("4 voters, of which 3 must answer and 2 do"), "{why}");
        // The new one answers: 3 of 4.
        assert!(matches!(decide(&ResolvedChange::Promote(NodeId(4)), &situation(&[1, 2, 4])), Step::Propose(_)));
    }

    #[test]
    fn the_last_voter_is_never_removed() {
        let mut now = situation(&[1]);
        (now.voters, now.force) = (ids(&[1]), true);
        assert!(refusal(&ResolvedChange::Remove(NodeId(1)), &now).contains("only voter"));
    }

    #[test]
    fn a_dead_voter_is_replaced_in_one_step() {
        let now = situation(&[1, 2, 4]);
        let batch = vec![ChangeMembers::AddVoterIds(ids(&[4])), ChangeMembers::RemoveVoters(ids(&[3]))];
        let replace = ResolvedChange::Replace { old: NodeId(3), new: NodeId(4) };
        assert_eq!(decide(&replace, &now), Step::Propose(ChangeMembers::Batch(batch)));
        assert_eq!(decide(&ResolvedChange::Replace { old: NodeId(1), new: NodeId(4) }, &now), Step::Transfer);
        assert!(refusal(&ResolvedChange::Replace { old: NodeId(4), new: NodeId(4) }, &now).contains("own place"));
        // Two operators want the same spare for two places (seed 152441488026): the second would merely take a vote away.
        let why = refusal(&ResolvedChange::Replace { old: NodeId(2), new: NodeId(3) }, &now);
        assert!(why.contains("node 3 has a vote already") && why.contains("member remove 2"), "{why}");
        let mut after = now;
        after.nodes.remove(&NodeId(3));
        after.voters = ids(&[1, 2, 4]);
        assert_eq!(decide(&replace, &after), Step::Done, "asked again");
    }

    #[test]
    fn a_leader_that_is_to_leave_hands_over_and_a_learner_just_goes() {
        let now = situation(&[1, 2, 3]);
        assert_eq!(decide(&ResolvedChange::Remove(NodeId(1)), &now), Step::Transfer);
        assert_eq!(decide(&ResolvedChange::Remove(NodeId(4)), &now), Step::Propose(ChangeMembers::RemoveNodes(ids(&[4]))));
        assert_eq!(decide(&ResolvedChange::Remove(NodeId(5)), &now), Step::Done, "it was removed before");
        assert!(refusal(&ResolvedChange::Remove(NodeId(6)), &now).contains("no member"));
    }

    #[test]
    fn addresses_change_only_with_the_same_data() {
        let now = situation(&[1, 2, 3]);
        let moved = PeerNode { peer_address: "h9:1".into(), ..node(3) };
        let update = |id: u64, node: PeerNode| ResolvedChange::Update(BTreeMap::from([(NodeId(id), node)]));
        let step = decide(&update(3, moved.clone()), &now);
        assert_eq!(step, Step::Propose(ChangeMembers::SetNodes(BTreeMap::from([(NodeId(3), moved.clone())]))));
        assert_eq!(decide(&update(3, node(3)), &now), Step::Done);
        let why = refusal(&update(3, PeerNode { instance: InstanceId([9; 16]), ..moved.clone() }), &now);
        assert!(why.contains("other data"), "{why}");
        let swapped = PeerNode { peer_address: "h2:1".into(), ..node(3) };
        assert!(refusal(&update(3, swapped), &now).contains("node 2"));
        assert!(refusal(&update(7, moved), &now).contains("no member"));
    }

    #[test]
    fn members_that_swapped_their_addresses_move_in_one_step() {
        let now = situation(&[1, 2, 3]);
        let at = |id: u64, place: u64| (NodeId(id), PeerNode { instance: node(id).instance, ..node(place) });
        let one = BTreeMap::from([at(3, 2)]);
        assert_eq!(displaced(&one, &now), Some(NodeId(2)));
        let both = BTreeMap::from([at(3, 2), at(2, 3)]);
        assert_eq!(displaced(&both, &now), None);
        assert_eq!(decide(&ResolvedChange::Update(both.clone()), &now), Step::Propose(ChangeMembers::SetNodes(both)));
        // Three may go round; one that went where nobody was leaves the place to another.
        let round = BTreeMap::from([at(1, 2), at(2, 3), at(3, 1)]);
        assert_eq!(decide(&ResolvedChange::Update(round.clone()), &now), Step::Propose(ChangeMembers::SetNodes(round)));
        let why = refusal(&ResolvedChange::Update(BTreeMap::from([at(1, 3), at(2, 3)])), &now);
        assert!(why.contains("the address is that of node"), "{why}");
    }
}
