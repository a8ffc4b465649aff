//! Drives a log next to a model that knows every state it may be recovered in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate::storage::log::{Error, Log, Options, Record};
use quorate::testing::disk::SimDisk;
use quorate::testing::inline::{SeededRandom, SimEnv};
use quorate::types::{LogId, NodeId};

pub const DIR: &str = "/data/log";

/// What a test does next; sizes and distances are relative, so that every sequence of these is a workload.
#[derive(Clone, Debug)]
pub enum Action {
    /// Appends entries of these payload sizes in one call.
    Append(Vec<usize>),
    Vote(u8),
    /// Drops so many of the last entries.
    Truncate(u64),
    /// Purges so that so many entries stay.
    Purge(u64),
    /// Purges so far ahead of the last entry.
    PurgeAhead(u64),
    Sync,
    /// Begins another segment, and removes the files of those that are purged.
    Forget,
    /// Lets the writer work.
    Run,
    /// Lets time pass: markers, spare segments.
    Elapse,
}

/// The log as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub vote: Option<Bytes>,
    pub purged: Option<LogId>,
    pub entries: BTreeMap<u64, Record>,
}

impl Model {
    pub fn last(&self) -> Option<LogId> {
        self.entries.values().last().map(|record| record.log_id).or(self.purged)
    }

    fn next_index(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    /// What `log` shows, all of it, read in small steps.
    pub fn of(log: &Log) -> Result<Model, Error> {
        let position = log.position();
        let mut entries = BTreeMap::new();
        let mut next = log.first_index();
        let end = position.last.map_or(0, |last| last.index + 1);
        while next < end {
            let records = log.read(next..end, 2000)?;
            assert!(!records.is_empty(), "a stored range reads as something next={next} end={end}");
            for record in records {
                assert_eq!(record.log_id.index, next, "a read has no holes");
                assert_eq!(log.log_id(next), Some(record.log_id));
                entries.insert(next, record);
                next += 1;
            }
        }
        assert!(log.read(end..end + 5, 2000)?.is_empty(), "nothing is behind the last entry");
        Ok(Model { vote: position.vote, purged: position.purged, entries })
    }
}

pub fn options() -> Options {
    Options {
        segment_bytes: 16 * 1024,
        tail_bytes: 3000,
        batch_bytes: 8 * 1024,
        idle_after: Duration::from_millis(50),
        ..Options::default()
    }
}

/// A log, its model after every record, and how far it was acknowledged.
pub struct Driver {
    pub sim: SimEnv,
    pub log: Log,
    /// The model after so many records; more than one per call where a call makes several records.
    pub states: Vec<Model>,
    /// The greatest number of records that a callback said are synced.
    pub acknowledged: Arc<AtomicUsize>,
    term: u64,
}

impl Driver {
    /// Opens the log on a disk, expecting `model` in it.
    pub fn open(disk: &SimDisk, model: Model, term: u64) -> Result<Self, Error> {
        let sim = SimEnv::new(disk, term);
        let log = Log::open(&sim.env, Path::new(DIR), options())?;
        Ok(Self { sim, log, states: vec![model], acknowledged: Arc::default(), term })
    }

    pub fn model(&self) -> &Model {
        self.states.last().expect("there is one from the start")
    }

    /// A callback that notes that everything submitted so far is synced.
    pub fn note(&self) -> Box<dyn FnOnce(Result<(), Error>) + Send> {
        let (acknowledged, count) = (self.acknowledged.clone(), self.states.len() - 1);
        Box::new(move |result| {
            if result.is_ok() {
                acknowledged.fetch_max(count, Ordering::SeqCst);
            }
        })
    }

    fn push(&mut self, change: impl FnOnce(&mut Model)) {
        let mut model = self.model().clone();
        change(&mut model);
        self.states.push(model);
    }

    pub fn act(&mut self, action: &Action) {
        match action {
            Action::Append(sizes) => self.append(sizes),
            Action::Vote(byte) => {
                let vote = Bytes::from(vec![*byte; 1 + usize::from(*byte % 64)]);
                self.push(|model| model.vote = Some(vote.clone()));
                self.log.save_vote(vote, self.note());
            }
            Action::Truncate(count) => {
                let keep = self.model().entries.values().rev().nth(*count as usize).map(|record| record.log_id);
                self.push(|model| model.entries.retain(|index, _| keep.is_some_and(|keep| *index <= keep.index)));
                self.log.truncate_after(keep.or(self.model().purged));
                // A caller truncates to append under a newer term.
                self.term += 1;
            }
            Action::Purge(kept) => {
                let upto = self.model().entries.values().rev().nth(*kept as usize).map(|record| record.log_id);
                if let Some(upto) = upto {
                    self.purge(upto);
                }
            }
            Action::PurgeAhead(ahead) => {
                let index = self.model().next_index() + ahead;
                self.purge(LogId { term: self.term, node: NodeId(2), index });
            }
            Action::Sync => self.log.sync(self.note()),
            Action::Forget => {
                self.log.roll(self.note());
                self.log.forget(self.note());
            }
            Action::Run => self.sim.workers.run_named("log"),
            Action::Elapse => self.sim.advance(Duration::from_millis(60)),
        }
    }

    fn append(&mut self, sizes: &[usize]) {
        let mut records = Vec::new();
        for size in sizes {
            let byte = (self.states.len() % 251) as u8;
            records.push(self.record(Bytes::from(vec![byte; *size])));
        }
        self.log.append(records, self.note());
    }

    /// Appends an entry with this payload.
    pub fn append_payload(&mut self, payload: Bytes) {
        let record = self.record(payload);
        self.log.append(vec![record], self.note());
    }

    fn record(&mut self, payload: Bytes) -> Record {
        let index = self.model().next_index();
        let record = Record { log_id: LogId { term: self.term, node: NodeId(1), index }, payload };
        self.push(|model| drop(model.entries.insert(index, record.clone())));
        record
    }

    fn purge(&mut self, upto: LogId) {
        self.push(|model| {
            model.purged = Some(upto);
            model.entries.retain(|index, _| *index > upto.index);
        });
        self.log.purge(upto);
    }

    /// Which state a recovered log is in; panics if it is none that it may be in.
    pub fn recovered_state(&self, recovered: &Model, what: &str) -> usize {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let found = (acknowledged..self.states.len()).find(|at| self.states[*at] == *recovered);
        found.unwrap_or_else(|| {
            let lost = self.states.iter().rposition(|state| state == recovered);
            panic!(
                "{what}: no state the log may be in acknowledged={acknowledged} submitted={} but it is state={lost:?}: vote={:?} purged={:?} \
                 last={:?}; acknowledged state: vote={:?} purged={:?} last={:?}",
                self.states.len() - 1,
                recovered.vote,
                recovered.purged,
                recovered.last(),
                self.states[acknowledged].vote,
                self.states[acknowledged].purged,
                self.states[acknowledged].last(),
            )
        })
    }
}

/// A workload of all kinds of actions.
pub fn workload(seed: u64, count: usize) -> Vec<Action> {
    let random = SeededRandom::new(seed);
    let action = || match random.below(20) {
        0..8 => Action::Append((0..1 + random.below(4)).map(|_| size(&random)).collect()),
        8 => Action::Vote(random.below(256) as u8),
        9 => Action::Truncate(random.below(5)),
        10 => Action::Purge(random.below(8)),
        11 => match random.below(4) {
            0 => Action::PurgeAhead(random.below(5)),
            1 => Action::Forget,
            _ => Action::Sync,
        },
        12..18 => Action::Run,
        _ => Action::Elapse,
    };
    (0..count).map(|_| action()).collect()
}

fn size(random: &SeededRandom) -> usize {
    match random.below(8) {
        0 => 0,
        1..4 => random.below(100) as usize,
        4..7 => random.below(1500) as usize,
        _ => random.below(6000) as usize,
    }
}
