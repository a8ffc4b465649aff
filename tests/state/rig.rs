//! A state whose machine is the map of all its rows, so that every view can be checked against it; with a log that covers on command
//! and a flusher that steps on command.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate::env::{Env, Step, ThreadWorkers, Worker, Workers};
use quorate::storage::state::{Cover, Error, Options, Pinned, Received, Rows, Snapshot, State};
use quorate::testing::disk::SimDisk;
use quorate::testing::inline::ManualClock;
use quorate::types::{LogId, NodeId};

/// All rows, by table and key.
pub type Model = BTreeMap<(u8, Bytes), Bytes>;

pub type Callback = Box<dyn FnOnce(Result<(), io::Error>) + Send>;

/// A log that is synced up to what the test says.
#[derive(Default)]
pub struct FakeLog(Mutex<(Option<u64>, Waiting)>, Mutex<Option<Vec<Callback>>>);

type Waiting = Vec<(u64, Callback)>;

impl FakeLog {
    pub fn cover(&self, index: u64) {
        let ready: Vec<_> = {
            let mut inner = self.0.lock().unwrap();
            inner.0 = inner.0.max(Some(index));
            inner.1.extract_if(.., |(wanted, _)| *wanted <= index).collect()
        };
        ready.into_iter().for_each(|(_, done)| done(Ok(())));
    }

    pub fn covered(&self) -> Option<u64> {
        self.0.lock().unwrap().0
    }

    /// From now on no sync ends until [`FakeLog::end_syncs`].
    pub fn hold_syncs(&self) {
        *self.1.lock().unwrap() = Some(Vec::new());
    }

    pub fn end_syncs(&self, result: impl Fn() -> Result<(), io::Error>) {
        let held = self.1.lock().unwrap().take().unwrap_or_default();
        held.into_iter().for_each(|done| done(result()));
    }

    pub fn fail(&self) {
        let waiting = std::mem::take(&mut self.0.lock().unwrap().1);
        waiting.into_iter().for_each(|(_, done)| done(Err(io::Error::other("the log's sync failed"))));
    }
}

impl Cover for FakeLog {
    fn when_covered(&self, index: u64, done: Callback) {
        if self.covered() < Some(index) {
            return self.0.lock().unwrap().1.push((index, done));
        }
        done(Ok(()));
    }

    fn sync(&self, done: Callback) {
        if let Some(held) = &mut *self.1.lock().unwrap() {
            return held.push(done);
        }
        done(Ok(()));
    }
}

type StepFn = Box<dyn FnMut() -> Step + Send>;

/// Keeps the flusher's step for the test to call.
#[derive(Clone, Default)]
pub struct ByHand(Arc<Mutex<Option<StepFn>>>);

impl ByHand {
    /// Steps until there is nothing to do at once.
    pub fn run(&self) -> Step {
        loop {
            let step = self.0.lock().unwrap().as_mut().expect("a flusher was started")();
            if step != Step::Again {
                return step;
            }
        }
    }
}

impl Workers for ByHand {
    fn start(&self, name: &str, step: StepFn) -> io::Result<Worker> {
        *self.0.lock().unwrap() = Some(step);
        ThreadWorkers.start(name, Box::new(|| Step::Stop))
    }

    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

pub struct Rig {
    pub state: Arc<State<Model>>,
    pub log: Arc<FakeLog>,
    pub flusher: ByHand,
    pub clock: ManualClock,
}

pub fn id(index: u64) -> LogId {
    LogId { term: 1, node: NodeId(1), index }
}

pub fn bytes(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

/// The machine from its rows.
pub fn build(rows: Rows<'_>) -> Result<Model, Error> {
    let tables: Vec<u8> = (0..=255).rev().collect();
    rows.table_range(&tables).map(|row| row.map(|(table, key, value)| ((table, key), value))).collect()
}

pub fn options() -> Options {
    Options { cache_bytes: 1 << 20, reserve_bytes: 0, flush_after: Duration::from_secs(2), ..Options::default() }
}

impl Rig {
    /// In a new directory, which stays as long as the first value.
    pub fn fresh() -> (tempfile::TempDir, Self) {
        let dir = tempfile::tempdir().unwrap();
        let rig = Self::open(dir.path()).unwrap();
        (dir, rig)
    }

    pub fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_on(Env::real(), dir, options())
    }

    pub fn open_on(env: Env, dir: &Path, options: Options) -> Result<Self, Error> {
        let (log, flusher, clock) = (Arc::new(FakeLog::default()), ByHand::default(), ManualClock::default());
        let env = Env { workers: Arc::new(flusher.clone()), clock: Arc::new(clock.clone()), ..env };
        let state = State::open(&env, dir, options, log.clone(), build)?;
        Ok(Self { state, log, flusher, clock })
    }

    /// On a simulated disk, with the flusher in a thread and a log that has everything.
    pub fn threaded(dir: &Path) -> Result<Self, Error> {
        let (log, env) = (Arc::new(FakeLog::default()), Env { disk: Arc::new(SimDisk::new()), ..Env::real() });
        log.cover(u64::MAX);
        let state = State::open(&env, dir, options(), log.clone(), build)?;
        Ok(Self { state, log, flusher: ByHand::default(), clock: ManualClock::default() })
    }

    /// Waits until everything applied is durable, where the flusher is a thread.
    pub fn flush_and_wait(&self) {
        let (sender, flushed) = std::sync::mpsc::sync_channel(1);
        self.state.flush(Box::new(move |result| sender.send(result).unwrap()));
        flushed.recv().unwrap().unwrap();
    }

    /// One entry that puts and deletes.
    pub fn apply(&self, index: u64, rows: &[(u8, &str, Option<&[u8]>)]) {
        self.state.update(|model, batch| {
            for (table, key, value) in rows {
                let key = bytes(key);
                match value {
                    Some(value) => {
                        model.insert((*table, key.clone()), bytes(value));
                        batch.put(*table, key, bytes(value));
                    }
                    None => {
                        model.remove(&(*table, key.clone()));
                        batch.delete(*table, key);
                    }
                }
            }
            batch.set_applied(id(index));
        });
    }

    /// Covers everything, flushes, and answers what the waiter got.
    pub fn flush(&self) -> Option<Result<(), Error>> {
        self.log.cover(self.state.applied().map_or(0, |id| id.index));
        let answer = Arc::new(Mutex::new(None));
        let slot = answer.clone();
        self.state.flush(Box::new(move |result| *slot.lock().unwrap() = Some(result)));
        self.flusher.run();
        answer.lock().unwrap().take()
    }

    pub fn pin_all(&self) -> (Model, Option<LogId>, Pinned) {
        self.state.view(|model, applied, pinner| (model.clone(), applied, pinner.pin(&everything())))
    }

    /// Reads all rows and compares them with the machine of the same instant.
    pub fn check(&self) -> Model {
        let (model, _, pinned) = self.pin_all();
        assert_eq!(collect(&pinned).unwrap(), model);
        model
    }

    /// The same one by one; and of each the next possible key, which mostly is not there.
    pub fn check_by_key(&self) {
        let (model, _, pinned) = self.pin_all();
        let pinned = pinned.by_key();
        for ((table, key), value) in &model {
            assert_eq!(pinned.get(*table, key).unwrap().as_ref(), Some(value), "table={table} key={key:?}");
            let next = bytes([key, &[0][..]].concat());
            assert_eq!(pinned.get(*table, &next).unwrap(), model.get(&(*table, next)).cloned(), "table={table} after {key:?}");
        }
    }

    pub fn receive(&self, frames: &[Bytes], applied: LogId) -> Result<Received<Model>, Error> {
        let mut receiver = self.state.receive()?;
        frames.iter().try_for_each(|frame| receiver.frame(frame))?;
        receiver.finish(applied, build)
    }
}

/// Every key the tests use, in every table they use.
pub fn everything() -> Vec<(u8, Bytes, Bytes)> {
    (0..=255).map(|table| (table, Bytes::new(), bytes([0xff; 8]))).collect()
}

pub fn collect(pinned: &Pinned) -> Result<Model, Error> {
    Ok(pinned.read()?.into_iter().map(|(table, key, value)| ((table, key), value)).collect())
}

pub fn frames(mut snapshot: Snapshot, bytes_max: usize) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while let Some(frame) = snapshot.next_frame(bytes_max).unwrap() {
        assert!(frame.len() <= bytes_max);
        frames.push(frame);
    }
    frames
}

/// Names in a state's directory.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
