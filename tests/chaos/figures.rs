//! What a history says in numbers.

use std::time::Duration;

use quorate::testing::history::{Answer, Op};

/// One second of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Second {
    /// Answered with what it asked for, or with a conflict.
    pub answered: u64,
    /// Refused: nothing changed.
    pub refused: u64,
    /// Not known whether it happened.
    pub ambiguous: u64,
    /// Half of the answered took at most this.
    pub median: Duration,
    /// The slowest.
    pub slowest: Duration,
}

/// Of a whole run.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// All that was asked.
    pub operations: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Everything answered: writes, reads and conflicts.
    pub answered: u64,
    /// Refused.
    pub refused: u64,
    /// Not known.
    pub ambiguous: u64,
    /// Second by second, by when the answer came.
    pub seconds: Vec<Second>,
    /// Times longer than [`GAP`] without an acknowledged write, from and to.
    pub gaps: Vec<(Duration, Duration)>,
    /// When each call began and ended, whatever in.
    calls: Vec<(Duration, Duration)>,
    /// Half of the answered took at most this, and 99 of a hundred.
    pub median: Duration,
    /// See `median`.
    pub p99: Duration,
}

/// A time without an acknowledged write that is worth showing.
pub const GAP: Duration = Duration::from_millis(250);

impl Figures {
    /// Of the operations that ended until `until`.
    pub fn of(ops: &[Op], until: Duration) -> Self {
        let mut figures = Self { seconds: vec![Second::default(); until.as_secs() as usize + 1], ..Self::default() };
        let mut latencies: Vec<Vec<Duration>> = vec![Vec::new(); figures.seconds.len()];
        let mut writes = Vec::new();
        for op in ops.iter().filter(|op| op.invoked <= until) {
            figures.operations += 1;
            // One that never returned ended with this run.
            if op.returned < Duration::MAX {
                figures.calls.push((op.invoked, op.returned));
            }
            let at = (op.returned.min(until).as_secs() as usize).min(figures.seconds.len() - 1);
            match op.answer {
                Answer::Refused => {
                    (figures.refused, figures.seconds[at].refused) = (figures.refused + 1, figures.seconds[at].refused + 1)
                }
                Answer::Unknown => {
                    (figures.ambiguous, figures.seconds[at].ambiguous) = (figures.ambiguous + 1, figures.seconds[at].ambiguous + 1)
                }
                answer => {
                    figures.answered += 1;
                    figures.seconds[at].answered += 1;
                    latencies[at].push(op.returned - op.invoked);
                    if matches!(answer, Answer::Written { .. }) {
                        figures.acknowledged += 1;
                        writes.push(op.returned.min(until));
                    }
                }
            }
        }
        for (second, latencies) in figures.seconds.iter_mut().zip(&mut latencies) {
            latencies.sort_unstable();
            (second.median, second.slowest) = (part(latencies, 50), part(latencies, 100));
        }
        let mut all: Vec<Duration> = latencies.into_iter().flatten().collect();
        all.sort_unstable();
        (figures.median, figures.p99) = (part(&all, 50), part(&all, 99));
        writes.sort_unstable();
        figures.gaps = writes.windows(2).map(|pair| (pair[0], pair[1])).filter(|(from, to)| *to - *from > GAP).collect();
        figures
    }

    /// The longest time without an acknowledged write; zero: none was worth showing.
    pub fn longest_gap(&self) -> Duration {
        self.gaps.iter().map(|(from, to)| *to - *from).max().unwrap_or_default()
    }

    /// How long the call took its caller that took longest, whatever it ended in.
    pub fn longest_call(&self) -> Duration {
        self.call_within(Duration::ZERO, Duration::MAX)
    }

    /// The same of the calls that were open between the two.
    pub fn call_within(&self, from: Duration, to: Duration) -> Duration {
        let open = self.calls.iter().filter(|(begin, end)| *end > from && *begin < to);
        open.map(|(begin, end)| *end - *begin).max().unwrap_or_default()
    }

    /// The longest time without an acknowledged write that began between the two.
    pub fn gap_within(&self, from: Duration, to: Duration) -> Duration {
        let touching = self.gaps.iter().filter(|(begin, end)| *end > from && *begin < to);
        touching.map(|(begin, end)| *end - *begin).max().unwrap_or_default()
    }
}

/// The value that so many of a hundred do not exceed, of sorted ones.
fn part(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

#[test]
fn seconds_gaps_and_shares_are_counted_from_a_history() {
    use quorate::testing::history::Ask;
    let ms = Duration::from_millis;
    let op = |invoked: u64, returned: u64, answer: Answer| Op {
        answer,
        returned: ms(returned),
        ..Op::invoke(0, 0, Ask::Delete, ms(invoked))
    };
    let written = Answer::Written { version: 1, revision: 1 };
    let mut ops = vec![op(0, 10, written), op(0, 30, written), op(900, 1500, written), op(1500, 1600, Answer::Refused)];
    ops.push(Op { returned: Duration::MAX, ..op(100, 0, Answer::Unknown) });
    let figures = Figures::of(&ops, ms(2000));
    assert_eq!((figures.operations, figures.acknowledged, figures.refused, figures.ambiguous), (5, 3, 1, 1));
    assert_eq!(figures.gaps, [(ms(30), ms(1500))]);
    assert_eq!((figures.seconds[0].answered, figures.seconds[1].answered, figures.seconds[1].slowest), (2, 1, ms(600)));
    assert_eq!((figures.median, figures.p99), (ms(30), ms(600)));
    assert_eq!((figures.gap_within(ms(0), ms(100)), figures.gap_within(ms(1600), ms(1700))), (ms(1470), ms(0)));
    assert_eq!(
        (figures.longest_call(), figures.call_within(ms(0), ms(100)), figures.call_within(ms(1500), ms(1600))),
        (ms(600), ms(30), ms(100))
    );
    assert_eq!((Figures::of(&[], ms(0)).longest_gap(), Figures::of(&[], ms(0)).longest_call()), (ms(0), ms(0)));
}
