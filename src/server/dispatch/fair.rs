//! A fair queue: calls that wait for a round of Raft are taken in turn by token, by bytes, so that a busy token delays only itself.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each operation begins, in virtual bytes, at the end of the one before it in
//! its flow or at the clock of the queue, whichever is later; the smallest beginning goes next. A flow keeps its order:
//! the small operations of one token, or its large ones, for which the small ones need not wait. Without tokens all are one flow.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// So long after one token followed another both are expected to come again.
const CONTESTED_FOR: Duration = Duration::from_secs(10);

/// Operations that keep their order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// The token's name; `None`: no tokens file.
    pub token: Option<Arc<str>>,
    /// Whether each operation is larger than a round.
    pub is_large: bool,
}

/// Notices whether several tokens call.
#[derive(Default)]
pub struct Contest {
    /// The token of the latest operation.
    last: Option<Arc<str>>,
    until: Duration,
}

impl Contest {
    /// Notes an operation that has come. `now`: by the node's monotonic clock.
    pub fn note(&mut self, token: Option<&Arc<str>>, now: Duration) {
        if self.last.as_ref() == token {
            return;
        }
        if self.last.is_some() {
            self.until = now.saturating_add(CONTESTED_FOR);
        }
        self.last = token.cloned();
    }

    /// Whether one token followed another in the last ten seconds.
    pub fn is_on(&self, now: Duration) -> bool {
        now < self.until
    }
}

/// The queue.
pub struct Fair<T> {
    flows: BTreeMap<Flow, FlowQueue<T>>,
    /// Where the last one that was taken began.
    now_bytes: u64,
    len: usize,
}

struct FlowQueue<T> {
    waiting: VecDeque<Entry<T>>,
    /// Of all of them.
    bytes: u64,
    /// Where its last one ends.
    end_bytes: u64,
}

struct Entry<T> {
    begin_bytes: u64,
    bytes: u64,
    item: T,
}

/// How much one round takes.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub operations_max: usize,
    /// Beyond the first operation.
    pub bytes_max: u64,
    /// Whether operations above `bytes_max` may have to wait.
    pub is_contested: bool,
}

/// The waiting operations of flows that may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    pub len: usize,
    pub bytes: u64,
}

impl<T> Default for Fair<T> {
    fn default() -> Self {
        Self { flows: BTreeMap::new(), now_bytes: 0, len: 0 }
    }
}

impl<T> Fair<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sums up the flows whose first operation may go.
    pub fn ready(&self, round: Round, must_wait: impl Fn(&T) -> bool) -> Ready {
        let may_go = |queue: &&FlowQueue<T>| queue.waiting.front().is_some_and(|entry| round.may_go(entry, &must_wait));
        self.flows.values().filter(may_go).fold(Ready::default(), |ready, queue| Ready {
            len: ready.len + queue.waiting.len(),
            bytes: ready.bytes.saturating_add(queue.bytes),
        })
    }

    /// All that wait, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.flows.values().flat_map(|queue| queue.waiting.iter().map(|entry| &entry.item))
    }

    /// Puts one at the end of its flow.
    pub fn push(&mut self, flow: Flow, bytes: u64, item: T) {
        let queue = self.flows.entry(flow).or_insert(FlowQueue { waiting: VecDeque::new(), bytes: 0, end_bytes: 0 });
        let begin_bytes = queue.end_bytes.max(self.now_bytes);
        queue.end_bytes = begin_bytes.saturating_add(bytes);
        queue.waiting.push_back(Entry { begin_bytes, bytes, item });
        queue.bytes = queue.bytes.saturating_add(bytes);
        self.len += 1;
    }

    /// Takes the next operations. While several tokens call, one above a round's bytes waits as long as it `must_wait`: an operation
    /// under way can't be overtaken, so few large ones should be.
    pub fn take(&mut self, round: Round, must_wait: impl Fn(&T) -> bool) -> Vec<T> {
        let (mut taken, mut bytes) = (Vec::with_capacity(self.len.min(round.operations_max)), 0_u64);
        while taken.len() < round.operations_max {
            let may_go = |queue: &&mut FlowQueue<T>| queue.waiting.front().is_some_and(|entry| round.may_go(entry, &must_wait));
            let begins = |queue: &&mut FlowQueue<T>| queue.waiting.front().map_or(u64::MAX, |entry| entry.begin_bytes);
            let Some(queue) = self.flows.values_mut().filter(may_go).min_by_key(begins) else { break };
            bytes = bytes.saturating_add(queue.waiting.front().map_or(0, |entry| entry.bytes));
            if !taken.is_empty() && bytes > round.bytes_max {
                break;
            }
            let Some(Entry { begin_bytes, bytes, item }) = queue.waiting.pop_front() else { break };
            self.now_bytes = self.now_bytes.max(begin_bytes);
            queue.bytes = queue.bytes.saturating_sub(bytes);
            self.len -= 1;
            taken.push(item);
        }
        self.forget();
        taken
    }

    /// Takes all out, each flow in its order.
    pub fn drain(&mut self) -> Vec<T> {
        let flows = std::mem::take(&mut self.flows);
        (self.now_bytes, self.len) = (0, 0);
        flows.into_values().flat_map(|queue| queue.waiting).map(|entry| entry.item).collect()
    }

    /// A flow that waits for nothing and is owed nothing begins as if it had never been.
    fn forget(&mut self) {
        let now_bytes = self.now_bytes;
        self.flows.retain(|_, queue| !queue.waiting.is_empty() || queue.end_bytes > now_bytes);
        if self.len == 0 {
            self.flows.clear();
            self.now_bytes = 0;
        }
    }
}

impl Round {
    fn may_go<T>(self, entry: &Entry<T>, must_wait: impl Fn(&T) -> bool) -> bool {
        !(self.is_contested && entry.bytes > self.bytes_max && must_wait(&entry.item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(operations_max: usize) -> Round {
        Round { operations_max, bytes_max: 256, is_contested: true }
    }

    fn flow(name: &str) -> Flow {
        Flow { token: Some(name.into()), is_large: false }
    }

    fn all(queue: &mut Fair<String>) -> Vec<String> {
        let mut all = Vec::new();
        while !queue.is_empty() {
            all.extend(queue.take(round(1), |_| false));
        }
        all
    }

    /// Six large writes of one tenant are there first; the small one of another waits for one of them at most.
    #[test]
    fn a_small_operation_of_another_token_passes_all_but_the_first_large_one() {
        let mut queue = Fair::default();
        for n in 0..6 {
            queue.push(flow("large"), 15_000_000, format!("large {n}"));
        }
        for n in 0..3 {
            queue.push(flow("small"), 600, format!("small {n}"));
        }
        let order = all(&mut queue);
        assert_eq!(order[..5], ["large 0", "small 0", "small 1", "small 2", "large 1"], "{order:?}");
        assert_eq!((order.len(), queue.is_empty()), (9, true));
    }

    #[test]
    fn without_tokens_and_within_one_the_order_is_kept() {
        for owner in [Flow { token: None, is_large: false }, flow("a")] {
            let mut queue = Fair::default();
            for n in 0..100_u64 {
                queue.push(owner.clone(), (n * 7919) % 1000, n.to_string());
            }
            let first = queue.take(Round { is_contested: false, ..round(10) }, |_| true);
            assert!(!first.is_empty(), "one that is alone is never held back");
            let order: Vec<String> = first.into_iter().chain(all(&mut queue)).collect();
            assert_eq!(order, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn two_tokens_get_the_same_bytes_whatever_their_operations_weigh() {
        let mut queue = Fair::default();
        for n in 0..1000 {
            queue.push(flow("a"), 100, format!("a {n}"));
            if n < 100 {
                queue.push(flow("b"), 1000, format!("b {n}"));
            }
        }
        let order = all(&mut queue);
        let of_a = order[..550].iter().filter(|item| item.starts_with('a')).count();
        assert!((495..=505).contains(&of_a), "{of_a} of 550 are a's, and fifty of b's weigh as much");
    }

    /// One that was away has saved nothing up: it gets its turn, not what it missed.
    #[test]
    fn a_flow_that_comes_late_does_not_catch_up() {
        let mut queue = Fair::default();
        for n in 0..20 {
            queue.push(flow("a"), 100, format!("a {n}"));
        }
        let taken: Vec<_> = (0..10).flat_map(|_| queue.take(round(1), |_| false)).collect();
        assert_eq!(taken.len(), 10);
        for n in 0..10 {
            queue.push(flow("b"), 100, format!("b {n}"));
        }
        let next: Vec<_> = (0..6).flat_map(|_| queue.take(round(1), |_| false)).collect();
        assert_eq!(next.iter().filter(|item| item.starts_with('b')).count(), 3, "{next:?}");
    }

    #[test]
    fn a_round_is_bounded_by_operations_and_beyond_the_first_by_bytes() {
        let mut queue = Fair::default();
        for n in 0..4 {
            queue.push(flow("a"), 100, n.to_string());
        }
        assert_eq!(queue.take(round(10), |_| false), ["0", "1"], "a third would be beyond 256 bytes");
        assert_eq!(queue.take(round(1), |_| false), ["2"]);
        assert_eq!((queue.drain(), queue.is_empty()), (vec!["3".to_owned()], true));
    }

    #[test]
    fn a_large_one_waits_only_while_it_must_and_another_token_calls() {
        let mut queue = Fair::default();
        let large = Flow { is_large: true, ..flow("a") };
        queue.push(large.clone(), 10_000, "large".to_owned());
        queue.push(flow("a"), 20, "small of a".to_owned());
        queue.push(flow("b"), 10, "small".to_owned());
        let is_large = |item: &String| item == "large";
        assert_eq!(queue.ready(round(10), is_large), Ready { len: 2, bytes: 30 }, "what must wait fills no round");
        assert_eq!(queue.take(round(10), is_large), ["small of a", "small"]);
        assert_eq!(queue.ready(round(10), is_large), Ready::default());
        assert_eq!(queue.take(round(10), is_large), [""; 0]);
        assert_eq!(queue.ready(round(10), |_| false), Ready { len: 1, bytes: 10_000 });
        assert_eq!(queue.take(round(10), |_| false), ["large"]);
        queue.push(large, 10_000, "alone".to_owned());
        assert_eq!(queue.take(Round { is_contested: false, ..round(10) }, |_| true), ["alone"]);
    }

    #[test]
    fn tokens_contend_for_ten_seconds_after_one_followed_another() {
        let mut contest = Contest::default();
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        let at = Duration::from_secs;
        contest.note(Some(&a), at(100));
        contest.note(Some(&a), at(101));
        assert!(!contest.is_on(at(101)), "one that is alone is never held back");
        contest.note(Some(&b), at(102));
        assert!(contest.is_on(at(102)) && contest.is_on(at(111)) && !contest.is_on(at(112)));
        contest.note(Some(&b), at(112));
        assert!(!contest.is_on(at(112)));
        contest.note(None, at(113));
        assert!(contest.is_on(at(113)));
        contest.note(None, at(124));
        assert!(!contest.is_on(at(124)));
    }
}
