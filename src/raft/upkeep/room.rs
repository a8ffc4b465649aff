//! Room on disks: one member's full disk stays that member's condition (decision 0054).
//!
//! Each node watches its own disk and tells it over its presence streams. The leader decides by [`decide`] whether the voters with room
//! are a majority: then saves go on, and it tells the full members that they are spared. A full member that is spared refuses what has
//! content, lags, and catches up once it has room. Where no majority has room nobody is spared, and saves are refused instead.
//!
//! ```text
//! own disk, peers' words ──decide──> Verdict ──> admission: saves taken or refused, and for whose disks
//!                                       ├──────> presence: `spares_full`, to every member ──> Room::holds_off on the full one
//!                                       └──────> a leader that is full itself hands over to a voter with room
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tonic::Status;

use crate::codec;
use crate::env::Space;
use crate::machine::{Command, newest_version};
use crate::mutant::{self, Mutant};
use crate::raft::adapter::types::{Entry, RaftPayload, Vote};
use crate::types::NodeId;

/// Below the smaller of this many bytes free ...
const LOW_BYTES: u64 = 1 << 30;
/// ... and this share of the file system, the disk is low.
const LOW_SHARE: u64 = 20;
/// Room is back once there is more than that by this share of it: what a member catches up with must not fill it at once.
const SLACK_SHARE: u64 = 4;

/// The state of one member's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// The member says that it has room.
    Roomy,
    /// The member says that it is short of room.
    Full,
    /// The member says nothing: counts as one without room, and is never spared.
    Silent,
}

/// The verdict on the disks of all members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether saves must wait: some disk is full, and the voters with room are no majority.
    pub saves_wait: bool,
    /// Whether members with a full disk are to take no content: the others are enough.
    pub spares: bool,
    /// Whether this node, if it leads, should let a voter with room lead.
    pub hands_over: bool,
    /// Members with a full disk, learners too.
    pub full: BTreeSet<NodeId>,
    /// Voters that say nothing.
    pub silent: BTreeSet<NodeId>,
}

/// Decides, from the voters of every configuration in force and the disks of all members, this node's own included. Pure.
///
/// A majority of *each* configuration must have room: what only one of them could store would not commit.
pub fn decide(me: NodeId, configs: &[BTreeSet<NodeId>], disks: &BTreeMap<NodeId, Disk>) -> Verdict {
    let disk = |id: &NodeId| disks.get(id).copied().unwrap_or(Disk::Silent);
    let full: BTreeSet<NodeId> = disks.iter().filter(|(_, disk)| **disk == Disk::Full).map(|(id, _)| *id).collect();
    let voters: BTreeSet<NodeId> = configs.iter().flatten().copied().collect();
    let silent = voters.iter().filter(|id| disk(id) == Disk::Silent).copied().collect();
    let enough = |voters: &BTreeSet<NodeId>| voters.iter().filter(|id| disk(id) == Disk::Roomy).count() > voters.len() / 2;
    let enough = !configs.is_empty() && configs.iter().all(enough);
    if mutant::is(Mutant::OneFullDiskRefusesAll) {
        return Verdict { saves_wait: !full.is_empty(), full, silent, ..Verdict::default() };
    }
    Verdict {
        saves_wait: !enough && full.iter().any(|id| voters.contains(id)),
        spares: enough && !full.is_empty(),
        hands_over: enough && full.contains(&me),
        full,
        silent,
    }
}

impl Verdict {
    /// The members whose full disks keep saves from being taken, for people; `None`: saves are taken.
    pub fn waits_for(&self) -> Option<String> {
        if !self.saves_wait {
            return None;
        }
        let silent = if self.silent.is_empty() { String::new() } else { format!(" unknown={}", NodeId::listed(&self.silent)) };
        Some(format!("full={}{silent}", NodeId::listed(&self.full)))
    }
}

/// Whether so little room is left that a member must take no content. Pure.
fn is_low(space: Space, was_low: bool) -> bool {
    let bound = LOW_BYTES.min(space.total / LOW_SHARE);
    space.free < if was_low { bound + bound / SLACK_SHARE } else { bound }
}

/// A leader's word that others are enough.
#[derive(Clone, Copy, Debug)]
struct Word {
    leader: NodeId,
    term: u64,
    at: Duration,
}

/// The verdict as the tasks of one node share it.
#[derive(Default)]
pub struct Room {
    verdict: Mutex<Arc<Verdict>>,
    spared: Mutex<Option<Word>>,
    /// Whether this node's file system is nearly full.
    low: AtomicBool,
    /// Free and total bytes of it, as last looked at.
    free: AtomicU64,
    total: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Room {
    /// The verdict on the disks of all members, as this node sees it; only a leader's counts.
    pub fn verdict(&self) -> Arc<Verdict> {
        locked(&self.verdict).clone()
    }

    /// Publishes a verdict; gives the one before, where it is another.
    pub fn publish(&self, verdict: &Verdict) -> Option<Arc<Verdict>> {
        let mut known = locked(&self.verdict);
        (**known != *verdict).then(|| std::mem::replace(&mut *known, Arc::new(verdict.clone())))
    }

    /// This node's file system has so much room. Gives whether it is low, where that has changed.
    pub fn note_space(&self, space: Space) -> Option<bool> {
        self.free.store(space.free, Ordering::Relaxed);
        self.total.store(space.total, Ordering::Relaxed);
        let was_low = self.is_low();
        let low = is_low(space, was_low);
        self.low.store(low, Ordering::Relaxed);
        (low != was_low).then_some(low)
    }

    /// Whether this node's own file system is nearly full.
    pub fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Free and total bytes of the file system the data lies on, as last looked at; 0: not yet.
    pub fn space(&self) -> (u64, u64) {
        (self.free.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Whether this node, while it leads, is to send no content to a member. It would be refused.
    pub fn is_spared(&self, member: NodeId) -> bool {
        let verdict = locked(&self.verdict);
        !mutant::is(Mutant::FullMemberAcknowledges) && verdict.spares && verdict.full.contains(&member)
    }

    /// A leader said whether full members are spared.
    pub fn heard(&self, leader: NodeId, term: u64, spares: bool, now: Duration) {
        let mut spared = locked(&self.spared);
        // One that was replaced may go on saying it; the vote says who is meant.
        if spares {
            *spared = Some(Word { leader, term, at: now });
        } else if spared.is_some_and(|word| word.leader == leader) {
            *spared = None;
        }
    }

    /// Whether this node takes no content from the leader of this vote: its disk is full, and the others are enough.
    pub fn holds_off(&self, vote: &Vote, now: Duration) -> bool {
        self.is_low() && self.is_spared_by(vote, now, FRESH)
    }

    /// Whether the leader of this vote has said that full members are spared, not long ago.
    fn is_spared_by(&self, vote: &Vote, now: Duration, fresh: Duration) -> bool {
        let leader = vote.leader_id();
        locked(&self.spared)
            .is_some_and(|word| word.leader == leader.node_id && word.term == leader.term && now.saturating_sub(word.at) <= fresh)
    }
}

/// Whether any of these entries has content to store. One that can't be read is taken for one.
pub fn have_content(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| match &entry.payload {
        RaftPayload::Normal(payload) => match codec::decode(&payload.0, newest_version()) {
            Ok(entry) => matches!(entry.command, Command::Client(write) if write.has_content()),
            Err(_) => true,
        },
        _ => false,
    })
}

/// Why a member does not take what a leader sends.
pub fn refused() -> Status {
    Status::resource_exhausted("the disk of this node is full: it takes no content until it has room")
}

/// How long a peer's word holds, about its disk or, of a leader, about others: it is said many times as often.
pub const FRESH: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::Disk::{Full, Roomy, Silent};
    use super::*;

    /// The voters of each configuration; the disks of 1, 2, 3 ... as node 1 sees them; whether saves wait, the full are spared, and node 1
    /// should hand over.
    type Case<'a> = (&'a [&'a [u64]], &'a [Disk], [bool; 3]);

    /// One full of three is never worse than one dead of three; what is unknown counts as no room; each configuration has its say.
    #[test]
    fn saves_go_on_while_the_voters_with_room_are_a_majority_of_every_configuration() {
        let ids = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect::<BTreeSet<_>>();
        let table: [Case<'_>; 17] = [
            (&[&[1, 2, 3]], &[Roomy, Roomy, Roomy], [false, false, false]),
            (&[&[1, 2, 3]], &[Roomy, Roomy, Full], [false, true, false]),
            (&[&[1, 2, 3]], &[Full, Roomy, Roomy], [false, true, true]),
            (&[&[1, 2, 3]], &[Roomy, Full, Full], [true, false, false]),
            (&[&[1, 2, 3]], &[Full, Full, Full], [true, false, false]),
            // One dead: no disk's matter. One dead and one full: the full one is needed, and must not be filled up.
            (&[&[1, 2, 3]], &[Roomy, Roomy, Silent], [false, false, false]),
            (&[&[1, 2, 3]], &[Roomy, Silent, Silent], [false, false, false]),
            (&[&[1, 2, 3]], &[Roomy, Full, Silent], [true, false, false]),
            (&[&[1, 2, 3]], &[Full, Roomy, Silent], [true, false, false]),
            // A learner is spared, and stops nobody, whatever the voters are short of.
            (&[&[1, 2, 3]], &[Roomy, Roomy, Roomy, Full], [false, true, false]),
            (&[&[1, 2, 3]], &[Roomy, Roomy, Silent, Full], [false, true, false]),
            (&[&[1, 2, 3]], &[Roomy, Silent, Silent, Full], [false, false, false]),
            (&[&[1, 2, 3, 4, 5]], &[Full, Full, Roomy, Roomy, Roomy], [false, true, true]),
            (&[&[1, 2, 3, 4]], &[Roomy, Roomy, Full, Full], [true, false, false]),
            // Within a change of members: the old voters or the new ones may lack what the others have.
            (&[&[1, 2, 3], &[1, 4, 5]], &[Roomy, Roomy, Full, Roomy, Full], [false, true, false]),
            (&[&[1, 2, 3], &[1, 4, 5]], &[Roomy, Roomy, Roomy, Full, Full], [true, false, false]),
            (&[], &[Full], [false, false, false]),
        ];
        for (configs, disks, [waits, spares, hands_over]) in table {
            let configs: Vec<_> = configs.iter().map(|config| ids(config)).collect();
            let named: BTreeMap<NodeId, Disk> = (1..).map(NodeId).zip(disks.iter().copied()).collect();
            let verdict = decide(NodeId(1), &configs, &named);
            let got = [verdict.saves_wait, verdict.spares, verdict.hands_over];
            assert_eq!(got, [waits, spares, hands_over], "voters={configs:?} disks={disks:?}");
            assert!(verdict.waits_for().is_some() == waits && !(waits && spares), "{verdict:?}");
        }
    }

    #[test]
    fn a_refusal_names_whose_disks_are_full_and_who_says_nothing() {
        let disks = [(1, Roomy), (2, Full), (3, Silent), (4, Full)].map(|(id, disk)| (NodeId(id), disk));
        let verdict = decide(NodeId(1), &[[1, 2, 3].map(NodeId).into()], &disks.into());
        assert_eq!(verdict.waits_for().as_deref(), Some("full=2,4 unknown=3"));
    }

    #[test]
    fn the_disk_is_low_below_the_smaller_of_a_gibibyte_and_a_twentieth_and_heals_with_some_slack() {
        let space = |free: u64, total: u64| Space { free, total };
        assert!(!is_low(space(LOW_BYTES, 100 * LOW_BYTES), false));
        assert!(is_low(space(LOW_BYTES - 1, 100 * LOW_BYTES), false));
        assert!(!is_low(space(50, 1000), false) && is_low(space(49, 1000), false));
        assert!(is_low(space(61, 1000), true) && !is_low(space(62, 1000), true));
    }

    #[test]
    fn a_leaders_word_holds_for_its_own_term_and_not_for_long() {
        let (room, now) = (Room::default(), Duration::from_secs(100));
        let vote =
            |term, node| Vote { leader_id: crate::raft::adapter::types::Leader { term, node_id: NodeId(node) }, committed: true };
        let spared = |term, node, seconds| room.is_spared_by(&vote(term, node), now + Duration::from_secs(seconds), FRESH);
        assert!(!spared(5, 1, 0), "nobody has said so");
        room.heard(NodeId(1), 5, true, now);
        assert!(spared(5, 1, 1) && !spared(5, 1, 6) && !spared(6, 2, 1) && !spared(6, 1, 1));
        room.heard(NodeId(2), 6, false, now);
        assert!(spared(5, 1, 1), "another's word");
        room.heard(NodeId(1), 5, false, now);
        assert!(!spared(5, 1, 1));
    }
}
