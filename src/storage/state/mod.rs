//! Rows durable in redb under an in-memory machine, all seen at one instant.
//!
//! Promises: a view sees machine, rows and `applied` of one instant (L19). The disk holds the exact state after one entry, never after one that
//! the log does not cover. Damage is an error that names the row, never a missing row. Leaves to others: what rows mean, the log, and
//! the order of entries. Calls marked blocking belong off the async threads. Only `raft` may use it.
//!
//! ```text
//! update ─> machine + unflushed + applied   one lock: the view
//!                      │ 16 MiB, 10 s, or asked for: freeze, wait for the log
//!                   frozen ── one durable transaction ──> base (redb, a read transaction shared by all views)
//! reads: unflushed over frozen over base
//! ```

mod create;
mod current;
mod engine;
mod error;
mod fault;
mod flusher;
mod install;
mod layers;
mod reserve;
mod rows;
mod snapshot;
mod stopped;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, RwLock, RwLockWriteGuard};
use std::time::Duration;

use crate::env::{Env, Worker, yield_thread};
use crate::limits::MIB;
use crate::mutant::{self, Mutant};
use crate::types::LogId;

pub use create::create;
pub use error::Error;
pub use fault::Done;
pub use install::{LogSynced, Received, Receiver, receive_in};
pub use layers::{Batch, Pinned, PinnedByKey, Pinner};
pub use rows::Rows;
pub(super) use snapshot::Decoder;
pub use snapshot::Snapshot;
pub use stopped::StoppedState;

use current::Current;
use engine::File;
use fault::Fault;
use flusher::Phase;
use layers::{Live, Overlay};
use reserve::Reserve;

const HEALTHY: &str = "no update or view panicked half way, or the process must not go on";

/// Sizes and times of one state.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Memory for redb's pages, in bytes.
    pub cache_bytes: usize,
    /// A flush begins at so many unflushed bytes.
    pub unflushed_bytes_soft: u64,
    /// A flush begins once so many bytes were put since the last, those put over each other too: what a crash makes a node apply again.
    pub put_bytes_max: u64,
    /// Updates wait above so many unflushed and frozen bytes.
    pub unflushed_bytes_hard: u64,
    /// A flush begins so long after the first unflushed change.
    pub flush_after: Duration,
    /// Room set aside on the disk, for flushes that find none; 0: none.
    pub reserve_bytes: u64,
    /// Tables whose unflushed rows are kept in hash tables: for point look-ups. A range over such a table walks all its unflushed rows.
    pub hashed_tables: &'static [u8],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 16 * MIB as usize,
            unflushed_bytes_soft: 16 * MIB,
            put_bytes_max: 128 * MIB,
            unflushed_bytes_hard: 64 * MIB,
            flush_after: Duration::from_secs(10),
            reserve_bytes: 64 * MIB,
            hashed_tables: &[],
        }
    }
}

impl Options {
    /// Whether so much is unflushed that a flush must begin.
    fn is_due<M>(&self, live: &Live<M>) -> bool {
        live.unflushed.bytes() + live.unmade_bytes >= self.unflushed_bytes_soft || live.put_bytes >= self.put_bytes_max
    }
}

/// The log, as the flusher sees it. Callbacks may come at once, on the caller's thread, and must not be lost.
pub trait Cover: Send + Sync + 'static {
    /// Calls `done` once the log is synced or purged to at least `index`.
    fn when_covered(&self, index: u64, done: Box<dyn FnOnce(Result<(), io::Error>) + Send>);

    /// Calls `done` once everything queued before is synced.
    fn sync(&self, done: Box<dyn FnOnce(Result<(), io::Error>) + Send>);
}

/// The part of a machine in a flush. Both functions are called with the view locked, when rows are frozen.
pub struct Completion<M> {
    /// Puts the rows that it had not made yet.
    pub rows: fn(&mut M, &mut Batch),
    /// The number noted with the flush, of the machine whose rows are all made.
    pub mark: fn(&M) -> u64,
}

/// Room a state takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Length of the file.
    pub file_bytes: u64,
    /// Bytes of keys and values stored in it, as of the last flush.
    pub live_bytes: u64,
    /// Bytes in memory that are not flushed yet.
    pub unflushed_bytes: u64,
}

/// Wakes the flusher, once there is one.
#[derive(Default)]
struct Wake(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl Wake {
    fn wake(&self) {
        if let Some(wake) = self.0.get() {
            wake();
        }
    }
}

/// The state that the flusher and the callers share. Locks are taken in this order: `phase`, `live`, those inside `fault`.
struct Inner<M> {
    env: Env,
    dir: PathBuf,
    options: Options,
    cover: Arc<dyn Cover>,
    phase: Mutex<Phase>,
    /// Used by the flusher only, under `phase`.
    reserve: Mutex<Reserve>,
    live: RwLock<Live<M>>,
    fault: Arc<Fault>,
    wake: Arc<Wake>,
    /// The greatest number a state file was given.
    last_file: AtomicU64,
    completion: OnceLock<Completion<M>>,
}

impl<M> Inner<M> {
    /// Where a planted bug gives up the lock between two steps that readers must see as one.
    fn split<'l>(&'l self, live: RwLockWriteGuard<'l, Live<M>>, planted: Mutant) -> RwLockWriteGuard<'l, Live<M>> {
        if !mutant::is(planted) {
            return live;
        }
        drop(live);
        yield_thread();
        self.live.write().expect(HEALTHY)
    }
}

/// A machine with its rows. See the module's words.
pub struct State<M> {
    inner: Arc<Inner<M>>,
    /// Dropped with the state; dropping waits for a write in progress.
    _flusher: Worker,
}

impl<M: Send + Sync + 'static> State<M> {
    /// Opens the state in `dir`, or creates an empty one, and builds the machine from its rows. Blocking.
    ///
    /// Errors: [`Error::Corrupt`]: rebuild this node from its peers; [`Error::Io`], [`Error::NoSpace`]: repair the disk; whatever `build`
    /// says. Nothing that counts was changed.
    pub fn open<E: From<Error>>(
        env: &Env,
        dir: &Path,
        options: Options,
        cover: Arc<dyn Cover>,
        build: impl FnOnce(Rows<'_>) -> Result<M, E>,
    ) -> Result<Arc<Self>, E> {
        assert!(options.unflushed_bytes_soft <= options.unflushed_bytes_hard, "updates would wait for a flush that never begins");
        let (base, last_file) = open_base(env, dir, options)?;
        let machine = build(Rows(&base))?;
        let applied = base.head.applied;
        let unflushed = Overlay::new(options.hashed_tables);
        let live = Live {
            machine,
            unflushed,
            unmade_bytes: 0,
            put_bytes: 0,
            frozen: None,
            base,
            base_mark: None,
            applied,
            flushed: applied,
            dirty_since: None,
        };
        let inner = Arc::new(Inner {
            env: env.clone(),
            dir: dir.to_owned(),
            options,
            cover,
            phase: Mutex::default(),
            reserve: Mutex::new(Reserve::open(
                env.disk.clone(),
                dir,
                if mutant::is(Mutant::NoReserve) { 0 } else { options.reserve_bytes },
            )),
            live: RwLock::new(live),
            fault: Arc::default(),
            wake: Arc::default(),
            last_file: AtomicU64::new(last_file),
            completion: OnceLock::new(),
        });
        let flusher = inner.clone();
        let worker =
            env.workers.start("flush", Box::new(move || flusher.step())).map_err(|error| Error::io("start the flusher", &error))?;
        let waker = worker.waker();
        let _ = inner.wake.0.set(Box::new(move || waker.wake()));
        // It may have begun to wait before it could be woken.
        inner.wake.wake();
        Ok(Arc::new(Self { inner, _flusher: worker }))
    }

    /// The last entry applied.
    pub fn applied(&self) -> Option<LogId> {
        self.inner.live.read().expect(HEALTHY).applied
    }

    /// The last entry whose rows are durable. The log may be purged up to it, never beyond.
    pub fn flushed(&self) -> Option<LogId> {
        self.inner.live.read().expect(HEALTHY).flushed
    }

    /// Applies entries: `f` changes the machine and says which rows change; all of it is seen at once. Blocking while more than
    /// the hard limit is unflushed; one batch may go above it.
    ///
    /// After a final failure it still applies, in memory only, so that nobody hangs while the process ends.
    pub fn update<R>(&self, f: impl FnOnce(&mut M, &mut Batch) -> R) -> R {
        self.inner.fault.wait_for_room(self.inner.options.unflushed_bytes_hard);
        let now = self.inner.env.clock.now();
        let (result, wake) = {
            let mut live = self.inner.live.write().expect(HEALTHY);
            let mut batch = Batch::default();
            let result = f(&mut live.machine, &mut batch);
            let was_clean = live.dirty_since.is_none();
            let was_due = self.inner.options.is_due(&live);
            live = self.inner.split(live, Mutant::HalfARoundIsSeen);
            live.absorb(batch, now);
            self.inner.fault.set_pending_bytes(live.pending_bytes());
            let began = was_clean && live.dirty_since.is_some();
            (result, began || (!was_due && self.inner.options.is_due(&live)))
        };
        if wake {
            self.inner.wake.wake();
        }
        result
    }

    /// Shows `f` one instant: the machine, the last entry applied, and rows to pin. Cheap: no disk is touched. Updates wait for `f`,
    /// which must not call this state.
    pub fn view<R>(&self, f: impl FnOnce(&M, Option<LogId>, &Pinner<'_>) -> R) -> R {
        let live = self.inner.live.read().expect(HEALTHY);
        let pinner = Pinner { unflushed: &live.unflushed, frozen: &live.frozen, base: &live.base, fault: &self.inner.fault };
        f(&live.machine, live.applied, &pinner)
    }

    /// Lets `f` change what the machine keeps beside what is stored; no row changes by it. As short as [`State::view`] must be.
    pub fn adjust<R>(&self, f: impl FnOnce(&mut M) -> R) -> R {
        f(&mut self.inner.live.write().expect(HEALTHY).machine)
    }

    /// Calls `done` once everything applied by now is durable, or with the final error. Never blocks; `done` may be
    /// called at once, or by the flusher between two steps, so it must not wait for anything.
    pub fn flush(&self, done: Done) {
        let applied = self.applied();
        self.inner.fault.wait_flushed(applied, done);
        self.inner.fault.notify_flushed(self.flushed());
        self.inner.wake.wake();
    }

    /// The content at the last flush, to stream from. Blocking calls only; it pins that content while it lives.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let base = self.inner.live.read().expect(HEALTHY).base.clone();
        Ok(Snapshot::new(base, self.inner.fault.clone()))
    }

    /// Has the machine complete every flush from now on, and leave its mark for [`State::marked_snapshot`]. To be called before the
    /// first update; later calls change nothing.
    pub fn complete_flushes(&self, completion: Completion<M>) {
        let _ = self.inner.completion.set(completion);
    }

    /// As [`State::snapshot`], with the mark of the machine these rows came from; without one if nothing was flushed since
    /// [`State::complete_flushes`] and more was applied.
    pub fn marked_snapshot(&self) -> (Snapshot, Option<u64>) {
        let live = self.inner.live.read().expect(HEALTHY);
        let unchanged = live.applied == live.base.head.applied && live.unflushed.is_empty() && live.frozen.is_none();
        let now = || self.inner.completion.get().filter(|_| unchanged).map(|completion| (completion.mark)(&live.machine));
        (Snapshot::new(live.base.clone(), self.inner.fault.clone()), live.base_mark.or_else(now))
    }

    /// Ends the state with an error that its reader found, e.g. a value that does not decode. Only the first error counts.
    pub fn fail(&self, error: Error) {
        assert!(error.is_final(), "a state does not end for an error that heals: {error}");
        self.inner.fault.fail(error);
    }

    /// Whether the hard limit of unflushed bytes is reached: the next update would block until a flush is through.
    pub fn is_full(&self) -> bool {
        self.inner.fault.pending_bytes() > self.inner.options.unflushed_bytes_hard
    }

    /// Room taken.
    pub fn bytes(&self) -> Sizes {
        let (base, unflushed_bytes) = {
            let live = self.inner.live.read().expect(HEALTHY);
            (live.base.clone(), live.pending_bytes())
        };
        Sizes { file_bytes: base.file.len(), live_bytes: base.head.bytes, unflushed_bytes }
    }

    /// The final error, if the state has ended.
    pub fn failed(&self) -> Option<Error> {
        self.inner.fault.failed()
    }

    /// Calls `f` with the first final error; at once if there already is one.
    pub fn on_failure(&self, f: Box<dyn FnOnce(Error) + Send>) {
        self.inner.fault.on_failure(f);
    }
}

fn open_base(env: &Env, dir: &Path, options: Options) -> Result<(Arc<engine::Base>, u64), Error> {
    let disk = &*env.disk;
    let (current, last) = current::open(disk, dir)?;
    let (file, last) = match current {
        Current::Open(number) => (File::open(disk, dir, &current::file_name(number), options.cache_bytes)?, last.max(number)),
        Current::Creating => {
            let file = File::create(disk, dir, &current::file_name(1), options.cache_bytes)?;
            current::write(disk, dir, Current::Open(1))?;
            (file, last.max(1))
        }
    };
    Ok((file.base()?, last))
}
