//! Whether a majority stands behind the leader, and up to when this node's state holds everything that was acknowledged.
//!
//! A leader that nobody answers continues leading by its term. It is no leader to anyone who asks: what it takes can't be committed, and
//! another may lead by now. The leader knows by the answers to its appends; it says so to the others, who also stop believing in one
//! they hear nothing of.
//!
//! ```text
//! other ── sent at T ──> leader: a majority confirmed it `age` ago, all that was acknowledged then lies at or below entry i
//! other <── to T: age, i ── leader        once i is applied here, this state holds everything acknowledged before T - age
//! ```
//!
//! The second statement holds however long messages are under way: its age is counted from before the question.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::env::{Clock, Locked as _};
use crate::raft::adapter::types::Leader;

/// Statements of leaders that wait for their entry to be applied.
const STATEMENTS_MAX: usize = 64;

/// The majority behind the leader, as this node knows it.
pub struct Quorum {
    clock: Arc<dyn Clock>,
    /// A leader that no majority confirmed for so long is none.
    patience: Duration,
    known: Mutex<Known>,
    /// Something became known that nothing else tells.
    changed: Notify,
}

#[derive(Default)]
struct Known {
    /// The term this node leads in, and since when.
    led: Option<(Leader, Duration)>,
    /// The term of this node's last round that a majority confirmed, and when that began.
    round: Option<(Leader, Duration)>,
    /// When the leader was last heard.
    heard: Option<Duration>,
    /// The leader that last said something of the majority behind it.
    word: Option<(Leader, Standing)>,
    statements: VecDeque<Statement>,
    /// This node's state holds everything acknowledged before.
    complete: Option<Duration>,
}

/// How a leader stands by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// A majority confirmed it then, by this node's clock.
    Confirmed(Duration),
    /// No majority does.
    Alone,
    /// A release that does not say it.
    Unsaid,
}

/// Everything acknowledged before `at` lies at or below the entry `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Statement {
    index: u64,
    at: Duration,
}

/// A leader's statement about its majority.
#[derive(Clone, Copy, Debug, Default)]
pub struct Word {
    /// How long ago a majority last confirmed it; `None` from a release that does not say.
    pub age: Option<Duration>,
    /// Everything acknowledged so long ago lies at or below this entry.
    pub complete: Option<(Duration, u64)>,
    /// When this node asked what this answers, in milliseconds of its clock; 0: it answers nothing.
    pub answers_ms: u64,
}

impl Quorum {
    /// `patience`: the longest election timeout.
    pub fn new(clock: Arc<dyn Clock>, patience: Duration) -> Self {
        Self { clock, patience, known: Mutex::default(), changed: Notify::new() }
    }

    /// How long a leader counts after a majority confirmed it.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// How long this node has led in this term: its election was a majority's word too.
    pub fn led_for(&self, leader: Leader) -> Duration {
        let now = self.clock.now();
        let mut known = self.known.locked();
        match known.led {
            Some((term, since)) if term == leader => now.saturating_sub(since),
            _ => {
                known.led = Some((leader, now));
                Duration::ZERO
            }
        }
    }

    /// A majority confirmed that this node led when it was that time.
    pub fn confirmed_since(&self, leader: Leader, at: Duration) {
        let mut known = self.known.locked();
        if known.round.is_none_or(|(of, before)| of != leader || before < at) {
            known.round = Some((leader, at));
        }
    }

    /// How long ago the last round of this term began that a majority confirmed.
    pub fn round_age(&self, leader: Leader) -> Option<Duration> {
        let (of, at) = self.known.locked().round?;
        (of == leader).then(|| self.clock.now().saturating_sub(at))
    }

    /// An append of the leader arrived.
    pub fn heard(&self) {
        let now = self.clock.now();
        let before = self.known.locked().heard.replace(now);
        if before.is_none_or(|before| now.saturating_sub(before) >= self.patience) {
            self.changed.notify_one();
        }
    }

    /// The leader that this node follows says something of itself.
    pub fn heard_word(&self, leader: Leader, word: Word) {
        self.heard();
        let standing = match word.age {
            Some(age) if age >= self.patience => Standing::Alone,
            Some(age) => Standing::Confirmed(self.clock.now().saturating_sub(age)),
            None => Standing::Unsaid,
        };
        let mut known = self.known.locked();
        let is_alone = |word: Option<(Leader, Standing)>| word == Some((leader, Standing::Alone));
        let before = known.word.replace((leader, standing));
        if is_alone(before) != is_alone(known.word) {
            self.changed.notify_one();
        }
        if let Some((age, index)) = word.complete.filter(|_| word.answers_ms > 0) {
            let asked = Duration::from_millis(word.answers_ms);
            known.state(Statement { index, at: asked.saturating_sub(age) });
        } else if word.age.is_none() {
            // Of a release that says no more, that it was heard is all there is.
            known.complete = known.complete.max(known.heard);
        }
    }

    /// How much longer the leader counts that this node follows; `None`: it does not.
    pub fn believed_for(&self, leader: Leader) -> Option<Duration> {
        let known = self.known.locked();
        let now = self.clock.now();
        let left = self.patience.saturating_sub(now.saturating_sub(known.heard?));
        let left = match known.word {
            Some((of, Standing::Alone)) if of == leader => Duration::ZERO,
            // Its appends arrive and its word does not: what it said last does not hold for ever.
            Some((of, Standing::Confirmed(at))) if of == leader => {
                left.min((2 * self.patience).saturating_sub(now.saturating_sub(at)))
            }
            _ => left,
        };
        (!left.is_zero()).then_some(left)
    }

    /// A majority confirmed so long ago that this node leads, and its state holds all that was acknowledged by then.
    pub fn on_confirmed(&self, age: Duration) {
        let at = self.clock.now().saturating_sub(age);
        let mut known = self.known.locked();
        known.complete = known.complete.max(Some(at));
    }

    /// How old this node's state may be, with everything applied up to this entry; `None`: it is unknown.
    pub fn age(&self, applied: u64) -> Option<Duration> {
        let mut known = self.known.locked();
        known.complete_up_to(applied);
        Some(self.clock.now().saturating_sub(known.complete?))
    }

    /// The time to send, so that the answer can be distinguished from earlier ones.
    pub fn sent_ms(&self) -> u64 {
        u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Waits until something became known. Cancel safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Known {
    fn state(&mut self, statement: Statement) {
        if self.statements.len() == STATEMENTS_MAX {
            self.statements.pop_back();
        }
        self.statements.push_back(statement);
    }

    fn complete_up_to(&mut self, applied: u64) {
        let complete = &mut self.complete;
        self.statements.retain(|statement| {
            let holds = statement.index <= applied;
            if holds {
                *complete = (*complete).max(Some(statement.at));
            }
            !holds
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::inline::ManualClock;
    use crate::types::NodeId;

    const PATIENCE: Duration = Duration::from_secs(2);

    fn quorum() -> (ManualClock, Quorum) {
        let clock = ManualClock::default();
        pass(&clock, 10_000);
        (clock.clone(), Quorum::new(Arc::new(clock), PATIENCE))
    }

    fn pass(clock: &ManualClock, ms: u64) {
        clock.advance(Duration::from_millis(ms));
    }

    fn leader(term: u64) -> Leader {
        Leader { term, node_id: NodeId(1) }
    }

    fn word(age_ms: u64) -> Word {
        Word { age: Some(Duration::from_millis(age_ms)), ..Word::default() }
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_leader_that_is_not_heard_or_says_that_it_is_alone_counts_no_more() {
        let (clock, quorum) = quorum();
        assert_eq!(quorum.believed_for(leader(1)), None, "never heard");
        quorum.heard_word(leader(1), word(100));
        assert_eq!(quorum.believed_for(leader(1)), Some(PATIENCE));
        pass(&clock, 1999);
        assert_eq!(quorum.believed_for(leader(1)), Some(ms(1)));
        pass(&clock, 1);
        assert_eq!(quorum.believed_for(leader(1)), None, "silent");
        quorum.heard();
        assert_eq!(quorum.believed_for(leader(1)), Some(ms(1900)), "heard again; its last word is 2.1 s old");
        quorum.heard_word(leader(1), word(2000));
        quorum.heard();
        assert_eq!(quorum.believed_for(leader(1)), None, "by its own word, however often it is heard");
        assert_eq!(quorum.believed_for(leader(2)), Some(PATIENCE), "another one may have a majority");
        quorum.heard_word(leader(1), word(0));
        assert_eq!(quorum.believed_for(leader(1)), Some(PATIENCE), "it has one again");
        quorum.heard_word(leader(1), Word::default());
        assert_eq!(quorum.believed_for(leader(1)), Some(PATIENCE), "a release that does not say is believed");
        quorum.heard_word(leader(1), word(500));
        for _ in 0..6 {
            pass(&clock, 500);
            quorum.heard();
        }
        assert_eq!(quorum.believed_for(leader(1)), Some(ms(500)), "its appends alone are believed for a while");
        pass(&clock, 500);
        quorum.heard();
        assert_eq!(quorum.believed_for(leader(1)), None, "and then no more");
    }

    #[test]
    fn an_election_counts_as_a_majority_s_word_once() {
        let (clock, quorum) = quorum();
        assert_eq!(quorum.led_for(leader(1)), ms(0));
        pass(&clock, 700);
        assert_eq!(quorum.led_for(leader(1)), ms(700));
        assert_eq!(quorum.led_for(leader(2)), ms(0));
    }

    #[test]
    fn a_state_is_as_old_as_the_question_whose_answer_it_has_applied() {
        let (clock, quorum) = quorum();
        let said = |index, age_ms, answers_ms| Word { complete: Some((ms(age_ms), index)), answers_ms, ..word(0) };
        assert_eq!(quorum.age(100), None, "nothing was ever said");
        quorum.heard_word(leader(1), said(7, 100, 0));
        assert_eq!(quorum.age(100), None, "it may have been under way for ever");
        quorum.heard_word(leader(1), said(7, 100, 9_500));
        assert_eq!(quorum.age(6), None, "not applied yet");
        assert_eq!(quorum.age(7), Some(ms(600)));
        pass(&clock, 1000);
        quorum.heard_word(leader(1), said(9, 0, 11_000));
        assert_eq!(quorum.age(8), Some(ms(1600)), "as old as the last that is applied");
        // An answer that comes late makes nothing older.
        quorum.heard_word(leader(1), said(8, 0, 10_000));
        assert_eq!(quorum.age(9), Some(ms(0)));
        pass(&clock, 60_000);
        assert_eq!(quorum.age(9), Some(ms(60_000)), "heard or not: nothing new was confirmed");
    }

    #[test]
    fn what_waits_to_be_applied_is_bounded() {
        let (clock, quorum) = quorum();
        for index in 0..1000 {
            pass(&clock, 1);
            quorum.heard_word(leader(1), Word { complete: Some((ms(0), 1000 + index)), answers_ms: 10_000 + index, ..word(0) });
        }
        assert_eq!(quorum.known.locked().statements.len(), STATEMENTS_MAX);
        assert_eq!(quorum.age(2000), Some(ms(1)), "the newest is kept");
    }
}
