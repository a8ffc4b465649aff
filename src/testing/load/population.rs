//! `agent-sessions` v1: how large agents' sessions are and how they grow. Sizes are bytes of JSON.
//!
//! Four classes of sessions, log-normal sizes with heavy tails, after published trajectories and users' own reports: half of all
//! sessions stay below 20 KB, one in a hundred grows beyond 3 MB, and tools' output is most of the bytes.

use bytes::Bytes;

use super::{Corpus, Rng, Turn};

/// JSON around the text of a message: role, names, quotes.
const ENVELOPE_BYTES: f64 = 95.0;
/// More around a message that calls a tool.
const CALL_BYTES: f64 = 110.0;
/// The growth of text by escaping; tools' output is JSON within JSON.
const ESCAPED: f64 = 1.06;
const ESCAPED_TWICE: f64 = 1.12;
/// Most a tool's output has.
const RESULT_BYTES_MAX: f64 = 1_000_000.0;
const STEPS_MAX: f64 = 12.0;
const CALLS_MAX: u64 = 8;

/// The kind of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Questions and answers: 40 % of sessions.
    Chat,
    /// Some tools: 25 %.
    Assistant,
    /// Many turns with many tools: 10 %.
    Coding,
    /// One long turn on behalf of another agent: 25 %.
    Subagent,
}

/// Sizes of the messages of one turn, in JSON bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TurnSizes {
    /// The user's message.
    pub user: f64,
    /// Each call of a tool, with the text before it, and its result.
    pub calls: Vec<(f64, f64)>,
    /// The last answer.
    pub answer: f64,
}

impl TurnSizes {
    /// All of it.
    pub fn bytes(&self) -> f64 {
        self.user + self.calls.iter().map(|(call, result)| call + result).sum::<f64>() + self.answer
    }
}

impl Class {
    /// The class of a new session.
    pub fn draw(rng: &mut Rng) -> Self {
        match rng.unit() {
            share if share < 0.40 => Class::Chat,
            share if share < 0.65 => Class::Assistant,
            share if share < 0.75 => Class::Coding,
            _ => Class::Subagent,
        }
    }

    /// How many turns a session has.
    pub fn turns(self, rng: &mut Rng) -> u64 {
        match self {
            Class::Chat => 1 + (rng.exponential(3.62) as u64).min(200),
            Class::Assistant => rng.log_normal(8.0, 0.9).round().clamp(1.0, 300.0) as u64,
            Class::Coding => rng.log_normal(25.0, 1.0).round().clamp(1.0, 400.0) as u64,
            Class::Subagent => 1,
        }
    }

    /// How large one turn is.
    pub fn turn(self, rng: &mut Rng) -> TurnSizes {
        let (user, steps) = match self {
            Class::Chat => (120.0, None),
            Class::Assistant => (250.0, Some((2.5, 0.7))),
            Class::Coding => (400.0, Some((6.0, 0.6))),
            Class::Subagent => (900.0, Some((7.0, 0.5))),
        };
        let user = rng.log_normal(user, 1.2) * ESCAPED + ENVELOPE_BYTES;
        let steps = steps.map_or(1.0, |(median, sigma)| rng.log_normal(median, sigma).round().clamp(1.0, STEPS_MAX));
        let calls = (0..CALLS_MAX.min(steps as u64 - 1)).map(|_| {
            let call = (rng.log_normal(300.0, 0.6) + rng.log_normal(350.0, 0.9)) * ESCAPED + ENVELOPE_BYTES + CALL_BYTES;
            (call, result(rng) * ESCAPED_TWICE + ENVELOPE_BYTES)
        });
        let calls = calls.collect();
        TurnSizes { user, calls, answer: rng.log_normal(900.0, 0.8) * ESCAPED + ENVELOPE_BYTES }
    }
}

fn result(rng: &mut Rng) -> f64 {
    let bytes = match rng.unit() {
        share if share < 0.70 => rng.log_normal(590.0, 1.38),
        share if share < 0.98 => rng.log_normal(3000.0, 1.3),
        _ => rng.log_normal(60_000.0, 1.0),
    };
    bytes.min(RESULT_BYTES_MAX)
}

/// A turn of these sizes, whose user's message begins with `marker`, plain text.
pub fn turn(sizes: &TurnSizes, marker: &str, corpus: &Corpus, rng: &mut Rng) -> Turn {
    let mut messages = vec![filled(&["{\"role\":\"user\",\"content\":\"", marker, " "], sizes.user, &["\"}"], corpus, rng)];
    for (at, (call, result)) in sizes.calls.iter().enumerate() {
        let id = format!("call_{at}");
        let ask = ["{\"role\":\"assistant\",\"content\":\"", "", ""];
        let tool = ["\",\"tool_calls\":[{\"call_id\":\"", &id, "\",\"name\":\"search\",\"arguments\":{\"query\":\"all of it\"}}]}"];
        messages.push(filled(&ask, *call, &tool, corpus, rng));
        let answer = ["\",\"tool_call_id\":\"", &id, "\",\"tool_name\":\"search\"}"];
        messages.push(filled(&["{\"role\":\"tool\",\"content\":\""], *result, &answer, corpus, rng));
    }
    messages.push(filled(&["{\"role\":\"assistant\",\"content\":\""], sizes.answer, &["\"}"], corpus, rng));
    Turn { messages, usage: [sizes.bytes() as u64 / 4, sizes.answer as u64 / 4] }
}

/// JSON of about `bytes`, the rest of which is text.
fn filled(before: &[&str], bytes: f64, after: &[&str], corpus: &Corpus, rng: &mut Rng) -> Bytes {
    let (before, after) = (before.concat(), after.concat());
    let text = corpus.cut(rng, (bytes as usize).saturating_sub(before.len() + after.len()));
    [before.as_bytes(), &text, after.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSIONS: u64 = 60_000;

    fn assert_near(what: &str, actual: f64, expected: f64) {
        assert!((actual / expected - 1.0).abs() <= 0.10, "{what}: {actual} is not within 10 % of {expected}");
    }

    fn quantile(values: &mut [f64], share: f64) -> f64 {
        let at = (values.len() as f64 * share) as usize;
        *values.select_nth_unstable_by(at, f64::total_cmp).1
    }

    #[test]
    fn the_aggregate_is_the_published_one() {
        const KIB: f64 = 1024.0;
        let mut rng = Rng::new(20_261_122);
        let (mut finals, mut deltas, mut calls, mut saved) = (Vec::new(), Vec::new(), 0, 0.0);
        for _ in 0..SESSIONS {
            let class = Class::draw(&mut rng);
            let mut size = 60.0;
            for _ in 0..class.turns(&mut rng) {
                let turn = class.turn(&mut rng);
                calls += turn.calls.len();
                deltas.push(turn.bytes());
                size += turn.bytes();
                saved += size;
            }
            finals.push(size);
        }
        let sessions = SESSIONS as f64;
        assert_near("turns per session", deltas.len() as f64 / sessions, 9.1);
        assert_near("tool calls per session", calls as f64 / sessions, 28.7);
        assert_near("mean of a full save", saved / deltas.len() as f64, 0.99 * KIB * KIB);
        assert_near("mean of the final size", finals.iter().sum::<f64>() / sessions, 210.0 * KIB);
        assert_near("median of a delta", quantile(&mut deltas, 0.5), 10.6 * KIB);
        assert_near("p99 of a delta", quantile(&mut deltas, 0.99), 218.0 * KIB);
        assert_near("median of the final size", quantile(&mut finals, 0.5), 20.0 * KIB);
        assert_near("p99 of the final size", quantile(&mut finals, 0.99), 3.3 * KIB * KIB);
    }

    #[test]
    fn turns_are_as_large_as_their_sizes_and_are_json() {
        let (mut rng, corpus) = (Rng::new(1), Corpus::text(1, 1 << 20));
        let (mut wanted, mut made, mut tools) = (0.0, 0, 0);
        for _ in 0..300 {
            let sizes = Class::Coding.turn(&mut rng);
            let turn = turn(&sizes, "turn 1 of 2", &corpus, &mut rng);
            assert_eq!(turn.messages.len(), 2 + 2 * sizes.calls.len());
            wanted += sizes.bytes();
            made += turn.messages.iter().map(Bytes::len).sum::<usize>();
            for message in &turn.messages {
                let value: serde_json::Value = serde_json::from_slice(message).expect("JSON");
                tools += usize::from(value["role"] == "tool");
            }
        }
        assert!((made as f64 / wanted - 1.0).abs() < 0.02, "{made} {wanted}");
        assert!(tools > 300);
    }
}
