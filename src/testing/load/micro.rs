//! One kind of operation at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::{Cas, Corpus, Failure, Rng, Step, Target, Turn, Turns, Work};

/// How often an update is made again before it is a failure.
const CONFLICTS_MAX: u64 = 1000;
/// Calls at once while keys are filled.
const FILLERS: u64 = 64;

/// The prefix of every key, so that the rest of a measurement can be found.
pub const PREFIX: &str = "bench/";

/// The key of a number.
pub fn key(number: u64) -> String {
    format!("{PREFIX}{number:08}")
}

/// Stores a first value under each of `keys` keys. Errors: the first failure.
pub async fn fill<T: Target>(targets: &[Arc<T>], keys: u64, value_bytes: usize, corpus: &Corpus, seed: u64) -> Result<(), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let fillers: Vec<_> = (0..FILLERS.min(keys))
        .map(|filler| {
            let (target, next, corpus) = (pick(targets, filler as usize), next.clone(), corpus.clone());
            let mut rng = Rng::new(seed).fork(filler);
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= keys {
                        return Ok::<(), Failure>(());
                    }
                    target.save(&key(number), corpus.cut(&mut rng, value_bytes)).await?;
                }
            })
        })
        .collect();
    for filler in fillers {
        filler.await.map_err(Failure::unchanged)??;
    }
    Ok(())
}

fn pick<T>(targets: &[Arc<T>], number: usize) -> Arc<T> {
    targets[number % targets.len()].clone()
}

/// A caller on its target.
pub struct Caller<T> {
    target: Arc<T>,
    rng: Rng,
}

/// W1 and W5: unconditional saves to random keys.
pub struct Saves<T> {
    /// Shared out among callers.
    pub targets: Vec<Arc<T>>,
    /// How many keys.
    pub keys: u64,
    /// Size of each value.
    pub value_bytes: usize,
    /// The source of values.
    pub corpus: Corpus,
}

impl<T: Target> Work for Saves<T> {
    type Caller = Caller<T>;

    fn caller(&self, number: usize, rng: Rng) -> Caller<T> {
        Caller { target: pick(&self.targets, number), rng }
    }

    async fn step(&self, Caller { target, rng }: &mut Caller<T>) -> Result<Step, Failure> {
        let key = key(rng.below(self.keys));
        target.save(&key, self.corpus.cut(rng, self.value_bytes)).await?;
        Ok(Step::default())
    }
}

/// W3: linearizable loads of random keys, which must be filled.
pub struct Loads<T> {
    /// Shared out among callers.
    pub targets: Vec<Arc<T>>,
    /// How many keys.
    pub keys: u64,
}

impl<T: Target> Work for Loads<T> {
    type Caller = Caller<T>;

    fn caller(&self, number: usize, rng: Rng) -> Caller<T> {
        Caller { target: pick(&self.targets, number), rng }
    }

    async fn step(&self, Caller { target, rng }: &mut Caller<T>) -> Result<Step, Failure> {
        let key = key(rng.below(self.keys));
        match target.load(&key).await? {
            Some(_) => Ok(Step::default()),
            None => Err(Failure::unchanged(format!("a filled key is not found key={key}"))),
        }
    }
}

/// W2: load, then save if nobody else did; again after a conflict.
pub struct Updates<T>(pub Saves<T>);

impl<T: Target> Work for Updates<T> {
    type Caller = Caller<T>;

    fn caller(&self, number: usize, rng: Rng) -> Caller<T> {
        self.0.caller(number, rng)
    }

    async fn step(&self, Caller { target, rng }: &mut Caller<T>) -> Result<Step, Failure> {
        let key = key(rng.below(self.0.keys));
        for conflicts in 0..CONFLICTS_MAX {
            let version = target.load(&key).await?.map_or(0, |(version, _)| version);
            if let Cas::Saved(_) = target.save_if(&key, self.0.corpus.cut(rng, self.0.value_bytes), version).await? {
                return Ok(Step { conflicts });
            }
        }
        Err(Failure::unchanged(format!("every attempt lost against others attempts={CONFLICTS_MAX}")))
    }
}

/// W2cas: conditional saves alone. Each caller has its own keys and remembers their versions.
pub struct Cases<T> {
    /// The saves.
    pub saves: Saves<T>,
    /// How many callers share the keys; not above their number.
    pub callers: u64,
}

impl<T: Target> Work for Cases<T> {
    type Caller = (u64, Caller<T>, HashMap<String, u64>);

    fn caller(&self, number: usize, rng: Rng) -> Self::Caller {
        (number as u64, self.saves.caller(number, rng), HashMap::new())
    }

    async fn step(&self, (number, caller, versions): &mut Self::Caller) -> Result<Step, Failure> {
        let Caller { target, rng } = caller;
        let own = (self.saves.keys / self.callers).max(1);
        let key = key(*number + self.callers * rng.below(own));
        let known = match versions.remove(&key) {
            Some(version) => version,
            None => target.load(&key).await?.map_or(0, |(version, _)| version),
        };
        let value = self.saves.corpus.cut(rng, self.saves.value_bytes);
        match target.save_if(&key, value, known).await? {
            Cas::Saved(version) => {
                versions.insert(key, version);
                Ok(Step::default())
            }
            Cas::Conflict(_) => Err(Failure::unchanged(format!("nobody else saves this key, yet there is a conflict key={key}"))),
        }
    }
}

/// W4: turns on sessions that grow: each caller has its own session, and begins a new one when that is full.
pub struct TurnLoop<S> {
    /// Shared out among callers.
    pub stores: Vec<Arc<S>>,
    /// Bytes of the first turn.
    pub first_bytes: usize,
    /// Bytes of each later turn.
    pub turn_bytes: usize,
    /// A session with so many bytes is full.
    pub session_bytes: usize,
    /// The source of messages.
    pub corpus: Corpus,
    /// Tells the sessions of one run from another's.
    pub run: u64,
}

/// A caller with its session.
pub struct Agent<S> {
    store: Arc<S>,
    rng: Rng,
    /// Another's, and the same caller's in a repetition, are called otherwise: no run continues from what one before it left.
    name: String,
    session: u64,
    bytes: usize,
}

impl<S: Turns> Work for TurnLoop<S> {
    type Caller = Agent<S>;

    /// Callers begin at different lengths, as if they had been at it for long: the mean size is that of any later moment.
    fn caller(&self, number: usize, mut rng: Rng) -> Agent<S> {
        let name = format!("{number}-{:08x}", rng.below(1 << 32));
        Agent { store: pick(&self.stores, number), rng, name, session: 0, bytes: 0 }
    }

    async fn step(&self, agent: &mut Agent<S>) -> Result<Step, Failure> {
        let Agent { store, rng, name, session, bytes } = agent;
        let key = format!("{PREFIX}turns/{}/{name}/{session}", self.run);
        let is_first = *bytes == 0;
        let size = match is_first {
            true => {
                self.first_bytes
                    + if *session == 0 { rng.below((self.session_bytes - self.first_bytes) as u64 + 1) as usize } else { 0 }
            }
            false => self.turn_bytes,
        };
        let turn = Turn { messages: messages(&self.corpus, rng, size, self.turn_bytes), usage: [size as u64 / 4, 100] };
        let base = store.begin(&key).await?;
        let finished = store.finish(&key, base, &turn).await?;
        *bytes += size;
        if *bytes >= self.session_bytes {
            (*session, *bytes) = (*session + 1, 0);
        }
        Ok(Step { conflicts: finished.conflicts })
    }
}

/// Messages of `bytes` in all, in JSON: a user's of an eighth of each turn, and the answer.
fn messages(corpus: &Corpus, rng: &mut Rng, bytes: usize, turn_bytes: usize) -> Vec<Bytes> {
    let mut messages = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let turn = left.min(turn_bytes);
        messages.push(message("user", &corpus.cut(rng, (turn / 8).saturating_sub(30))));
        messages.push(message("assistant", &corpus.cut(rng, (turn - turn / 8).saturating_sub(35))));
        left -= turn;
    }
    messages
}

/// A message in the form of Bob's. `text` must be plain in JSON, as a [`Corpus`] of text is.
pub fn message(role: &str, text: &[u8]) -> Bytes {
    [b"{\"role\":\"", role.as_bytes(), b"\",\"content\":\"", text, b"\"}"].concat().into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Memory, Plan, Progress, Run, Whole, drive};
    use super::*;

    fn saves(keys: u64) -> Saves<Memory> {
        Saves { targets: vec![Arc::default()], keys, value_bytes: 100, corpus: Corpus::text(1, 10_000) }
    }

    async fn run(work: impl Work) -> Run {
        let plan = Plan { warm_up: Duration::ZERO, window: Duration::ZERO, at_least: 100, ..Plan::closed(4) };
        drive(Arc::new(work), &plan, &Progress::default(), async || ()).await.run
    }

    #[tokio::test]
    async fn each_kind_of_work_works() {
        let filled = saves(50);
        fill(&filled.targets, 50, 100, &filled.corpus, 1).await.expect("stored");
        let loads = Loads { targets: filled.targets.clone(), keys: 50 };
        let runs =
            [run(filled).await, run(loads).await, run(Updates(saves(8))).await, run(Cases { saves: saves(50), callers: 4 }).await];
        for (at, run) in runs.iter().enumerate() {
            assert!(run.operations > 10 && run.failures == 0, "{at} {run:?}");
        }
    }

    #[tokio::test]
    async fn a_key_that_was_never_filled_is_a_failure() {
        let run = run(Loads { targets: vec![Arc::new(Memory::default())], keys: 5 }).await;
        assert_eq!(run.operations, 0);
        assert!(run.first_failure.is_some_and(|failure| failure.contains("not found")));
    }

    #[tokio::test]
    async fn sessions_grow_to_their_size_and_then_begin_again() {
        let memory = Arc::new(Memory::default());
        let work = TurnLoop {
            stores: vec![Arc::new(Whole(memory.clone()))],
            first_bytes: 8 << 10,
            turn_bytes: 2 << 10,
            session_bytes: 20 << 10,
            corpus: Corpus::text(1, 100_000),
            run: 1,
        };
        // A repetition begins again as well.
        for seed in [1, 2] {
            let mut caller = work.caller(0, Rng::new(seed));
            while caller.session < 2 {
                work.step(&mut caller).await.expect("a turn");
            }
            let key = format!("{PREFIX}turns/1/{}/1", caller.name);
            let (version, document) = memory.load(&key).await.expect("loads").expect("the second session");
            assert_eq!(version, 7);
            assert!((19 << 10..21 << 10).contains(&document.len()), "{}", document.len());
        }
    }
}
