//! The load: clients that save, load and delete all the time, and remember what they were answered.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate::client::{Client, Content, WriteOptions};
use quorate::testing::history::{self, Answer, Ask, Op, Recorder, Surprise};
use quorate::testing::inline::SeededRandom;
use tokio::time::Instant;

use crate::chaos::reach::Reach;

/// Sessions that all callers share.
pub const KEYS: usize = 24;
/// Callers at once.
pub const CALLERS: usize = 8;
/// Agents whose turns race on one session.
pub const AGENTS: usize = 4;
/// A caller pauses between two calls for less than this.
const PAUSE_MS_MAX: u64 = 24;

/// What all parts of a run share.
pub struct Shared {
    /// When the run began; all times count from here.
    pub began: Instant,
    /// Every operation.
    pub recorder: Recorder,
    /// Callers end.
    pub stop: AtomicBool,
    /// Errors that no fault here explains.
    pub surprises: Mutex<Vec<String>>,
    /// Callers have the client's own deadlines, and none walks away.
    pub is_patient: bool,
    values: AtomicU64,
}

impl Shared {
    /// A run begins.
    pub fn new(is_patient: bool) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            recorder: Recorder::default(),
            stop: AtomicBool::new(false),
            surprises: Mutex::default(),
            is_patient,
            values: AtomicU64::new(0),
        })
    }

    /// Something that must not happen, whatever was installed.
    pub fn surprise(&self, what: String) {
        let mut surprises = self.surprises.lock().expect("nobody panics with it");
        // The first ones tell; a broken run would fill the memory.
        if surprises.len() < 1000 {
            surprises.push(what);
        }
    }
}

/// One caller, with one call at a time.
pub struct Caller {
    id: usize,
    shared: Arc<Shared>,
    reach: Reach,
    random: SeededRandom,
    client: Client,
    /// The version seen last of each key; 0: none.
    seen: Vec<u64>,
}

impl Caller {
    /// The caller with this number.
    pub fn new(id: usize, seed: u64, reach: Reach, shared: &Arc<Shared>) -> Self {
        let random = SeededRandom::new(seed.wrapping_mul(7919).wrapping_add(id as u64));
        let client = connect(&reach, &random, shared.is_patient);
        Self { id, shared: shared.clone(), reach, random, client, seen: vec![0; KEYS] }
    }

    /// Works until it is stopped.
    pub async fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let key = self.random.below(KEYS as u64) as usize;
            let ask = self.choose(key);
            // A caller may go away at any moment; what it handed over goes on.
            let walks_away = self.random.below(32) == 0 && !self.shared.is_patient;
            let patience = if walks_away { self.random.below(300) } else { 60_000 };
            self.call(key, ask, 0, Duration::from_millis(patience)).await;
            if self.random.below(200) == 0 {
                self.client = connect(&self.reach, &self.random, self.shared.is_patient);
            }
            tokio::time::sleep(Duration::from_millis(self.random.below(PAUSE_MS_MAX))).await;
        }
    }

    /// Writes large values to a key of its own, one after the other, until it is stopped.
    pub async fn fill(mut self, key: usize, bytes: usize, stop: Arc<AtomicBool>) {
        self.seen.resize(key + 1, 0);
        while !stop.load(Ordering::Relaxed) && !self.shared.stop.load(Ordering::Relaxed) {
            let ask = Ask::Save { value: self.value() };
            self.call(key, ask, bytes, Duration::from_secs(60)).await;
        }
    }

    /// Saves and loads a key once each; whether both were answered well.
    pub async fn prove(&mut self, key: usize) -> bool {
        self.seen.resize(self.seen.len().max(key + 1), 0);
        let patience = Duration::from_secs(60);
        let ask = Ask::Save { value: self.value() };
        let saved = self.call(key, ask, 0, patience).await;
        let loaded = self.call(key, Ask::Load, 0, patience).await;
        matches!(saved, Answer::Written { .. }) && matches!(loaded, Answer::Found { .. })
    }

    /// Reads a key that must be readable.
    pub async fn read(&mut self, key: usize) {
        self.seen.resize(self.seen.len().max(key + 1), 0);
        if self.call(key, Ask::Load, 0, Duration::from_secs(60)).await == Answer::Refused {
            self.shared.surprise(format!("k{key} can't be read after healing"));
        }
    }

    fn value(&self) -> u64 {
        history::value(self.id, self.shared.values.fetch_add(1, Ordering::Relaxed))
    }

    fn choose(&self, key: usize) -> Ask {
        match self.random.below(20) {
            0..8 => Ask::Load,
            8..13 => Ask::Save { value: self.value() },
            13..19 => {
                // Mostly what was seen last; sometimes what cannot be right.
                let expected = if self.random.below(8) == 0 { self.random.below(5) } else { self.seen[key] };
                Ask::SaveIf { expected, value: self.value() }
            }
            // Where nothing is known to be there a delete would seldom do anything.
            _ if self.seen[key] == 0 => Ask::Save { value: self.value() },
            _ => Ask::Delete,
        }
    }

    async fn call(&mut self, key: usize, ask: Ask, bytes: usize, patience: Duration) -> Answer {
        let op = Op::invoke(self.id, key, ask, self.shared.began.elapsed());
        let at = self.shared.recorder.invoke(op);
        let answered = tokio::time::timeout(patience, self.perform(key, ask, bytes)).await;
        // A read that nobody waited for had no effect.
        let answer = answered.unwrap_or(if ask.is_read() { Answer::Refused } else { Answer::Unknown });
        self.shared.recorder.complete(at, answer, self.shared.began.elapsed());
        match answer {
            Answer::Found { version, .. } => self.seen[key] = version,
            Answer::Written { version, .. } if ask != Ask::Delete => self.seen[key] = version,
            Answer::Conflict { actual, .. } => self.seen[key] = actual,
            Answer::NotFound { .. } | Answer::NothingThere | Answer::Written { .. } => self.seen[key] = 0,
            Answer::Refused | Answer::Unknown => {}
        }
        answer
    }

    async fn perform(&self, key: usize, ask: Ask, bytes: usize) -> Answer {
        let (id, content) = (format!("k{key}"), |value| content(value, bytes));
        match history::perform(
            &self.client,
            history::Called { id: &id, beside: None },
            ask,
            WriteOptions::default(),
            content,
            |bytes| value_of(bytes),
        )
        .await
        {
            Ok(answer) => answer,
            Err(Surprise::Content(version)) => {
                self.shared.surprise(format!("{id} holds bytes that nobody stored: version={version}"));
                Answer::Refused
            }
            Err(Surprise::Error(error)) => {
                self.shared.surprise(format!("a client was answered {:?}: {error}", error.kind()));
                Answer::Unknown
            }
        }
    }
}

/// A new client, with deadlines short enough to be missed at times, or with the client's own. Where only one node is reached they are
/// short always: a node that is away holds up nobody for longer than others wait.
fn connect(reach: &Reach, random: &SeededRandom, is_patient: bool) -> Client {
    let mut builder = reach.builder(random.below(64) as usize);
    let choices = if reach.is_pinned() { 2 } else { 4 };
    let deadline = || Duration::from_millis([1000, 3000, 8000, 15_000][random.below(choices) as usize]);
    if !is_patient {
        builder = builder.write_deadline(deadline()).read_deadline(deadline()).connect_timeout(Duration::from_millis(500));
    }
    builder.build().expect("valid endpoints and deadlines")
}

/// The bytes of a value: its number, and so many that follow from it that none compresses well.
fn content(value: u64, bytes: usize) -> Content {
    let count = match bytes {
        0 if value.is_multiple_of(16) => 20_000,
        0 => 40 + (value % 400) as usize,
        bytes => bytes,
    };
    let mut all = Vec::with_capacity(count + 16);
    all.extend(value.to_le_bytes());
    all.extend((count as u64).to_le_bytes());
    let filler = SeededRandom::new(value);
    while all.len() < count + 16 {
        all.extend(filler.next().to_le_bytes());
    }
    all.truncate(count + 16);
    Content::Value(Bytes::from(all))
}

/// The value whose content this is, every byte of it.
fn value_of(bytes: &[u8]) -> Option<u64> {
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let (value, count) = (number(0)?, number(8)? as usize);
    let whole = bytes.len() == count.checked_add(16)? && count > 0;
    (whole && content(value, count) == Content::Value(Bytes::copy_from_slice(bytes))).then_some(value)
}

#[test]
fn a_value_is_known_by_every_byte_of_its_content() {
    for (value, bytes) in [(1, 0), (16, 0), (history::value(3, 9), 5000)] {
        let Content::Value(content) = content(value, bytes) else { panic!("a value") };
        assert_eq!(value_of(&content), Some(value));
        let mut wrong = content.to_vec();
        *wrong.last_mut().expect("not empty") ^= 1;
        assert_eq!(value_of(&wrong), None);
        assert_eq!(value_of(&content[..content.len() - 1]), None);
    }
    assert_eq!(value_of(&[]), None);
    assert_eq!(value_of(&[255; 20]), None);
}
