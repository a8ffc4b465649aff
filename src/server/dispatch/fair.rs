//! A fair queue: calls that wait for a round of Raft are taken in turn by token, by bytes, so that a busy token delays only itself.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each operation begins, in virtual bytes, at the end of the one before it in
//! its flow or at the clock of the queue, whichever is later; the smallest beginning goes next. A flow, one token's operations, keeps its
//! order; without tokens all are one flow.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// So long after one token followed another both are expected to come again.
const CONTESTED_FOR: Duration = Duration::from_secs(1);

/// The flow of an operation: its token's name; `None`: no tokens file.
pub type Flow = Option<Arc<str>>;

/// The queue.
pub struct Fair<T> {
    flows: BTreeMap<Flow, Line<T>>,
    /// Where the last one that was taken began.
    now_bytes: u64,
    len: usize,
    bytes: u64,
    /// The flow of the call that came last.
    last: Flow,
    contested_until: Duration,
}

struct Line<T> {
    waiting: VecDeque<Entry<T>>,
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
    /// By the node's monotonic clock.
    pub now: Duration,
}

impl<T> Default for Fair<T> {
    fn default() -> Self {
        Self { flows: BTreeMap::new(), now_bytes: 0, len: 0, bytes: 0, last: None, contested_until: Duration::ZERO }
    }
}

impl<T> Fair<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Of all that wait.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All that wait, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.flows.values().flat_map(|line| line.waiting.iter().map(|entry| &entry.item))
    }

    /// Puts one at the end of its flow.
    pub fn push(&mut self, flow: Flow, bytes: u64, item: T, now: Duration) {
        if self.last != flow {
            if self.last.is_some() {
                self.contested_until = now.saturating_add(CONTESTED_FOR);
            }
            self.last = flow.clone();
        }
        let line = self.flows.entry(flow).or_insert(Line { waiting: VecDeque::new(), end_bytes: 0 });
        let begin_bytes = line.end_bytes.max(self.now_bytes);
        line.end_bytes = begin_bytes.saturating_add(bytes);
        line.waiting.push_back(Entry { begin_bytes, bytes, item });
        self.len += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Takes what goes next. While several flows come, one that is above a round's bytes waits as long as its own flow is busy with such a
    /// one: what is under way can't be overtaken, so little of each should be.
    pub fn take(&mut self, round: Round, is_busy: impl Fn(&T) -> bool) -> Vec<T> {
        let is_contested = round.now < self.contested_until;
        let (mut taken, mut bytes) = (Vec::new(), 0_u64);
        while taken.len() < round.operations_max {
            let may_go = |entry: &Entry<T>| !(is_contested && entry.bytes > round.bytes_max && is_busy(&entry.item));
            let heads = self.flows.iter().filter_map(|(flow, line)| Some((flow, line.waiting.front()?)));
            let next = heads.filter(|(_, entry)| may_go(entry)).min_by_key(|(_, entry)| entry.begin_bytes);
            let Some((flow, entry)) = next.map(|(flow, entry)| (flow.clone(), entry)) else { break };
            bytes = bytes.saturating_add(entry.bytes);
            if !taken.is_empty() && bytes > round.bytes_max {
                break;
            }
            let Some(line) = self.flows.get_mut(&flow) else { break };
            let Some(Entry { begin_bytes, bytes, item }) = line.waiting.pop_front() else { break };
            self.now_bytes = self.now_bytes.max(begin_bytes);
            self.len -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
            taken.push(item);
        }
        self.forget();
        taken
    }

    /// Takes all out, each flow in its order.
    pub fn drain(&mut self) -> Vec<T> {
        let flows = std::mem::take(&mut self.flows);
        (self.now_bytes, self.len, self.bytes) = (0, 0, 0);
        flows.into_values().flat_map(|line| line.waiting).map(|entry| entry.item).collect()
    }

    /// A flow that waits for nothing and is owed nothing begins as if it had never been.
    fn forget(&mut self) {
        let now_bytes = self.now_bytes;
        self.flows.retain(|_, line| !line.waiting.is_empty() || line.end_bytes > now_bytes);
        if self.len == 0 {
            self.flows.clear();
            self.now_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn round(operations_max: usize) -> Round {
        Round { operations_max, bytes_max: 256, now: NOW }
    }

    fn flow(name: &str) -> Flow {
        Some(name.into())
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
            queue.push(flow("large"), 15_000_000, format!("large {n}"), NOW);
        }
        for n in 0..3 {
            queue.push(flow("small"), 600, format!("small {n}"), NOW);
        }
        let order = all(&mut queue);
        assert_eq!(order[..5], ["large 0", "small 0", "small 1", "small 2", "large 1"], "{order:?}");
        assert_eq!((order.len(), queue.len(), queue.bytes()), (9, 0, 0));
    }

    #[test]
    fn without_tokens_and_within_one_the_order_is_kept() {
        for owner in [None, flow("a")] {
            let mut queue = Fair::default();
            for n in 0..100_u64 {
                queue.push(owner.clone(), (n * 7919) % 1000, n.to_string(), NOW);
            }
            let first = queue.take(round(10), |_| true);
            assert!(!first.is_empty(), "one that is alone is never held back");
            let order: Vec<String> = first.into_iter().chain(all(&mut queue)).collect();
            assert_eq!(order, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn two_tokens_get_the_same_bytes_whatever_their_operations_weigh() {
        let mut queue = Fair::default();
        for n in 0..1000 {
            queue.push(flow("a"), 100, format!("a {n}"), NOW);
            if n < 100 {
                queue.push(flow("b"), 1000, format!("b {n}"), NOW);
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
            queue.push(flow("a"), 100, format!("a {n}"), NOW);
        }
        let taken: Vec<_> = (0..10).flat_map(|_| queue.take(round(1), |_| false)).collect();
        assert_eq!(taken.len(), 10);
        for n in 0..10 {
            queue.push(flow("b"), 100, format!("b {n}"), NOW);
        }
        let next: Vec<_> = (0..6).flat_map(|_| queue.take(round(1), |_| false)).collect();
        assert_eq!(next.iter().filter(|item| item.starts_with('b')).count(), 3, "{next:?}");
    }

    #[test]
    fn a_round_is_bounded_by_operations_and_beyond_the_first_by_bytes() {
        let mut queue = Fair::default();
        for n in 0..4 {
            queue.push(flow("a"), 100, n.to_string(), NOW);
        }
        assert_eq!(queue.take(round(10), |_| false), ["0", "1"], "a third would be beyond 256 bytes");
        assert_eq!(queue.take(round(1), |_| false), ["2"]);
        assert_eq!((queue.drain(), queue.is_empty(), queue.bytes()), (vec!["3".to_owned()], true, 0));
    }

    #[test]
    fn a_large_one_waits_for_its_own_flow_only_while_another_comes() {
        let mut queue = Fair::default();
        queue.push(flow("a"), 10_000, "large".to_owned(), NOW);
        queue.push(flow("b"), 10, "small".to_owned(), NOW);
        assert_eq!(queue.take(round(10), |item| item == "large"), ["small"]);
        assert_eq!(queue.take(round(10), |item| item == "large"), [""; 0], "its flow is busy with such a one");
        assert_eq!(queue.take(round(10), |_| false), ["large"]);
        queue.push(flow("b"), 10_000, "alone".to_owned(), NOW + 3 * CONTESTED_FOR);
        let later = Round { now: NOW + 5 * CONTESTED_FOR, ..round(10) };
        assert_eq!(queue.take(later, |_| true), ["alone"]);
    }
}
