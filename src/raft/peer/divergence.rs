//! Whether the replicas are in one state (L37): each says the digest of its state after some entries, each compares.
//!
//! A node stops only when a majority of all voters agrees on another digest than its own at one entry. Where no majority agrees, all
//! raise an alarm and none stops: nobody knows who is right, and stopping the wrong ones would lose what was acknowledged.

use std::collections::BTreeMap;

use crate::limits::{DIGESTS_KEPT, intervals};
use crate::mutant::{self, Mutant};
use crate::types::NodeId;

/// Entries of which it is remembered what the peers said.
const INDEXES_KEPT: usize = 64;
/// Peers under load are rarely seen at the same multiple of [`Intervals::digest_entries`](crate::limits::Intervals::digest_entries); of
/// so many times that they all are.
const STRIDES: [u64; 3] = [1, 16, 256];
const _: () = assert!(STRIDES[2] < DIGESTS_KEPT as u64, "the digest after the last multiple is still kept");

/// The entries to tell the digests of, where `applied` is the last one. Ascending, each once, none is 0.
pub fn digest_indexes(applied: u64) -> Vec<u64> {
    let strides = STRIDES.iter().map(|stride| stride * intervals().digest_entries);
    let mut indexes: Vec<u64> = strides.map(|stride| applied - applied % stride).chain([applied]).collect();
    indexes.retain(|index| *index != 0);
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

/// This node's verdict on the digests of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody says anything else.
    Agrees,
    /// A voter's digest differs, and no majority of all voters agrees on one.
    Alarm,
    /// A majority of all voters agrees on another digest: this node's state is wrong.
    Wrong,
}

/// Judges what the peers say of one entry. Pure.
pub fn judge(mine: u64, voters: &[NodeId], said: &BTreeMap<NodeId, u64>) -> Verdict {
    let mut others: BTreeMap<u64, usize> = BTreeMap::new();
    for digest in voters.iter().filter_map(|voter| said.get(voter)).filter(|digest| **digest != mine) {
        *others.entry(*digest).or_default() += 1;
    }
    if mutant::is(Mutant::DigestNotCompared) {
        return Verdict::Agrees;
    }
    if others.values().any(|count| *count > voters.len() / 2) {
        Verdict::Wrong
    } else if said.values().any(|digest| *digest != mine) {
        Verdict::Alarm
    } else {
        Verdict::Agrees
    }
}

/// The peers' digests, and the peers that differ from this node.
#[derive(Debug, Default)]
pub struct Watch {
    said: BTreeMap<u64, BTreeMap<NodeId, u64>>,
    /// With the last entry at which they did.
    differ: BTreeMap<NodeId, u64>,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Peers that agreed until now, or were not compared, and differ after this entry.
    pub newly: Vec<(NodeId, u64)>,
    /// Some differed, and none does any more.
    pub healed: bool,
    /// This node is wrong, by what a majority of all voters says of this entry.
    pub wrong: Option<u64>,
}

impl Watch {
    /// Peers that were in another state when last compared.
    pub fn differing(&self) -> Vec<NodeId> {
        self.differ.keys().copied().collect()
    }

    /// A peer says the digest of its state after an entry.
    pub fn on_digest(&mut self, from: NodeId, index: u64, digest: u64) {
        if index == 0 {
            return;
        }
        self.said.entry(index).or_default().insert(from, digest);
        while self.said.len() > INDEXES_KEPT {
            self.said.pop_first();
        }
    }

    /// Only members count.
    pub fn keep_only(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.differ.retain(|peer, _| is_member(*peer));
        self.said.values_mut().for_each(|said| said.retain(|peer, _| is_member(*peer)));
    }

    /// Compares what was said with this node's digests, as far as it has them.
    pub fn compare(&mut self, voters: &[NodeId], mine: impl Fn(u64) -> Option<u64>) -> Findings {
        let mut findings = Findings::default();
        let before = self.differing();
        for (index, said) in &self.said {
            let Some(mine) = mine(*index) else { continue };
            for (peer, digest) in said {
                if *digest != mine {
                    let last = self.differ.entry(*peer).or_default();
                    *last = (*last).max(*index);
                } else if self.differ.get(peer).is_some_and(|last| last < index) {
                    self.differ.remove(peer);
                }
            }
            if judge(mine, voters, said) == Verdict::Wrong {
                findings.wrong = Some(*index);
            }
        }
        findings.newly = self.differ.iter().filter(|(peer, _)| !before.contains(peer)).map(|(peer, last)| (*peer, *last)).collect();
        findings.healed = !before.is_empty() && self.differ.is_empty();
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(digests: &[(u64, u64)]) -> BTreeMap<NodeId, u64> {
        digests.iter().map(|(node, digest)| (NodeId(*node), *digest)).collect()
    }

    fn voters(count: u64) -> Vec<NodeId> {
        (1..=count).map(NodeId).collect()
    }

    /// L37: a majority of all voters, of one mind; nobody who is silent counts, nor a learner.
    #[test]
    fn only_a_majority_of_all_voters_of_one_mind_makes_a_node_wrong() {
        type Said<'a> = &'a [(u64, u64)];
        let cases: [(u64, Said<'_>, Verdict); 11] = [
            (3, &[], Verdict::Agrees),
            (3, &[(2, 7), (3, 7)], Verdict::Agrees),
            (3, &[(2, 8), (3, 8)], Verdict::Wrong),
            (3, &[(2, 8)], Verdict::Alarm),
            (3, &[(2, 8), (3, 7)], Verdict::Alarm),
            (3, &[(2, 8), (3, 9)], Verdict::Alarm),
            (2, &[(2, 8)], Verdict::Alarm),
            (5, &[(2, 8), (3, 8)], Verdict::Alarm),
            (5, &[(2, 8), (3, 8), (4, 8), (5, 7)], Verdict::Wrong),
            (5, &[(2, 8), (3, 8), (4, 9), (5, 9)], Verdict::Alarm),
            (3, &[(2, 8), (4, 8), (5, 8)], Verdict::Alarm),
        ];
        for (count, digests, expected) in cases {
            assert_eq!(judge(7, &voters(count), &said(digests)), expected, "{count} voters, {digests:?}");
        }
    }

    #[test]
    fn what_peers_say_of_entries_to_come_is_compared_once_they_are_here() {
        let mut watch = Watch::default();
        watch.on_digest(NodeId(2), 64, 8);
        watch.on_digest(NodeId(3), 64, 8);
        assert_eq!(watch.compare(&voters(3), |_| None), Findings::default());
        let findings = watch.compare(&voters(3), |index| (index == 64).then_some(7));
        assert_eq!(findings.wrong, Some(64));
        assert_eq!(findings.newly, [(NodeId(2), 64), (NodeId(3), 64)]);
    }

    #[test]
    fn an_alarm_is_raised_once_and_ends_when_a_later_entry_agrees() {
        let mut watch = Watch::default();
        let mine = |_| Some(7);
        watch.on_digest(NodeId(2), 64, 8);
        assert_eq!(watch.compare(&voters(3), mine).newly, [(NodeId(2), 64)]);
        watch.on_digest(NodeId(2), 128, 8);
        assert_eq!(watch.compare(&voters(3), mine), Findings::default());
        watch.on_digest(NodeId(2), 192, 7);
        assert!(watch.compare(&voters(3), mine).healed);
        assert!(watch.differing().is_empty());
        assert_eq!(watch.compare(&voters(3), mine), Findings::default(), "what is past is not reported again");
    }

    #[test]
    fn what_is_reported_is_still_kept_by_everyone_else() {
        assert_eq!(digest_indexes(0), [] as [u64; 0]);
        assert_eq!(digest_indexes(1023), [1023]);
        assert_eq!(digest_indexes(1024), [1024]);
        // Earlier releases keep those after every 64th entry, and say those of 64, 1024 and 16384.
        assert_eq!(digest_indexes(20_000), [16_384, 19_456, 20_000]);
    }

    #[test]
    fn a_peer_that_says_much_takes_no_more_room() {
        let mut watch = Watch::default();
        (1..10_000).for_each(|index| watch.on_digest(NodeId(2), index, index));
        assert_eq!(watch.said.len(), INDEXES_KEPT);
    }
}
