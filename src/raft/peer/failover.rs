//! The successor of a lost leader, and the caller of an election after a restart (`quorate::docs::membership`). Pure.
//!
//! A wrong verdict costs an election, never safety: the node that is named here still needs the votes of a majority, and reads never rely
//! on a lease.
//!
//! ```text
//! presence stream to the leader ends
//!   └─ reconnect within 20 ms refused, or another boot id ──┐
//! nothing heard of the leader for an election timeout ──────┴─> ask the other voters LostLeader { vote }
//!         each: yes, if that is its current vote and it has lost that leader in one of these ways too, with its last log id
//!         a majority of yes ──> the greatest (last log id, node id) takes over at once, the others after 150 ms × rank
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{LogId, NodeId};

/// Delay per rank before the next candidate campaigns.
pub const RANK_DELAY: Duration = Duration::from_millis(150);

/// A voter's knowledge of the others, and the question it wants to decide.
#[derive(Clone, Debug)]
pub struct Input {
    /// Why it decides.
    pub cause: Cause,
    /// This node.
    pub me: NodeId,
    /// Its last log id.
    pub last_log: Option<LogId>,
    /// Whether its disk is full: one that has room goes first, and this one only if no other can.
    pub full: bool,
    /// All voters, this node included, each with its answer. `None`: it has not answered (yet).
    pub voters: BTreeMap<NodeId, Option<Answer>>,
    /// Since this node's last take-over, if it tried one.
    pub since_last: Option<Duration>,
    /// At most one take-over per this time.
    pub election_timeout: Duration,
}

/// Why a node decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its connections to the leader are gone, or silent for too long. The leader's own answer never counts.
    LostLeader {
        /// The leader that is gone.
        leader: NodeId,
    },
    /// This node has just started and knows no leader.
    Started,
}

/// Another voter's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The voter lost that leader too, under the same vote; or, after a start, knows none.
    Yes {
        /// Its last log id.
        last_log: Option<LogId>,
    },
    /// The voter still hears the leader, or another one.
    No,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Too few have answered; more may come.
    Wait,
    /// Take over (or call an election) after so long, unless a leader is known by then.
    TakeOver {
        /// 0 for the first in rank.
        after: Duration,
    },
    /// Leave it to an ordinary election.
    Leave,
}

/// Decides. This node's own answer is taken to be yes.
pub fn decide(input: &Input) -> Decision {
    if !input.voters.contains_key(&input.me) || input.since_last.is_some_and(|since| since < input.election_timeout) {
        return Decision::Leave;
    }
    let gone = match input.cause {
        Cause::LostLeader { leader } => Some(leader),
        Cause::Started => None,
    };
    let mut yes = vec![(input.last_log, input.me)];
    let mut silent = 0;
    for (node, answer) in &input.voters {
        if *node == input.me || Some(*node) == gone {
            continue;
        }
        match answer {
            Some(Answer::Yes { last_log }) => yes.push((*last_log, *node)),
            // After a start, one that knows a leader ends it: that leader will be heard of.
            Some(Answer::No) if input.cause == Cause::Started => return Decision::Leave,
            Some(Answer::No) => {}
            None => silent += 1,
        }
    }
    let majority = input.voters.len() / 2 + 1;
    if yes.len() < majority {
        return if yes.len() + silent >= majority { Decision::Wait } else { Decision::Leave };
    }
    let before_me = yes.iter().filter(|other| **other > (input.last_log, input.me)).count();
    let behind_all = if input.full { input.voters.len() } else { 0 };
    Decision::TakeOver { after: RANK_DELAY * (before_me + behind_all) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(index: u64) -> Option<LogId> {
        Some(LogId { term: 1, node: NodeId(1), index })
    }

    fn yes(index: u64) -> Option<Answer> {
        Some(Answer::Yes { last_log: log(index) })
    }

    fn lost(me: u64, index: u64, answers: &[(u64, Option<Answer>)]) -> Input {
        let mut voters: BTreeMap<NodeId, Option<Answer>> = answers.iter().map(|(id, answer)| (NodeId(*id), *answer)).collect();
        voters.insert(NodeId(me), None);
        let election_timeout = Duration::from_secs(1);
        let cause = Cause::LostLeader { leader: NodeId(1) };
        Input { cause, me: NodeId(me), last_log: log(index), full: false, voters, since_last: None, election_timeout }
    }

    #[test]
    fn the_longer_log_takes_over_at_once_and_the_other_waits_its_rank() {
        assert_eq!(decide(&lost(2, 7, &[(1, None), (3, yes(5))])), Decision::TakeOver { after: Duration::ZERO });
        assert_eq!(decide(&lost(3, 5, &[(1, None), (2, yes(7))])), Decision::TakeOver { after: RANK_DELAY });
    }

    #[test]
    fn equal_logs_are_ranked_by_node_id() {
        assert_eq!(decide(&lost(2, 7, &[(1, None), (3, yes(7))])), Decision::TakeOver { after: RANK_DELAY });
        assert_eq!(decide(&lost(3, 7, &[(1, None), (2, yes(7))])), Decision::TakeOver { after: Duration::ZERO });
    }

    #[test]
    fn one_with_a_full_disk_lets_all_others_go_first_and_still_goes() {
        let full = Input { full: true, ..lost(2, 7, &[(1, None), (3, yes(5))]) };
        assert_eq!(decide(&full), Decision::TakeOver { after: RANK_DELAY * 3 });
    }

    #[test]
    fn one_that_still_hears_the_leader_of_three_leaves_it_alone() {
        assert_eq!(decide(&lost(2, 7, &[(1, None), (3, Some(Answer::No))])), Decision::Leave);
    }

    #[test]
    fn the_lost_leader_never_counts() {
        assert_eq!(decide(&lost(2, 7, &[(1, yes(9)), (3, Some(Answer::No))])), Decision::Leave);
    }

    #[test]
    fn of_five_two_yes_wait_for_a_third() {
        let input = lost(2, 7, &[(1, None), (3, yes(7)), (4, None), (5, Some(Answer::No))]);
        assert_eq!(decide(&input), Decision::Wait);
    }

    #[test]
    fn at_most_one_take_over_per_election_timeout() {
        let mut input = lost(2, 7, &[(1, None), (3, yes(5))]);
        input.since_last = Some(Duration::from_millis(999));
        assert_eq!(decide(&input), Decision::Leave);
        input.since_last = Some(Duration::from_secs(1));
        assert_eq!(decide(&input), Decision::TakeOver { after: Duration::ZERO });
    }

    #[test]
    fn after_a_start_a_majority_must_know_no_leader_and_one_that_does_ends_it() {
        let started = |answers: &[(u64, Option<Answer>)]| Input { cause: Cause::Started, ..lost(2, 7, answers) };
        assert_eq!(decide(&started(&[(1, yes(7)), (3, None)])), Decision::TakeOver { after: Duration::ZERO });
        assert_eq!(decide(&started(&[(1, None), (3, None)])), Decision::Wait);
        assert_eq!(decide(&started(&[(1, yes(7)), (3, Some(Answer::No))])), Decision::Leave);
    }

    #[test]
    fn a_node_that_is_no_voter_never_takes_over() {
        let mut input = lost(2, 7, &[(1, None), (3, yes(5)), (4, yes(5))]);
        input.voters.remove(&NodeId(2));
        assert_eq!(decide(&input), Decision::Leave);
    }
}
