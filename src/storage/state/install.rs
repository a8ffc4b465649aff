//! Receiving a snapshot into a new file, and putting it in place of the state.
//!
//! The order of an install, of which every step keeps acknowledged data from being lost (L28):
//! new file received and synced, its machine built -> everything queued in the log synced -> flusher stopped -> `CURRENT` moved, directory
//! synced -> file, machine and `applied` swapped in one step, unflushed and frozen rows dropped with the old ones -> old file removed.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, mpsc};

use bytes::Bytes;

use super::current::{self, Current, UnkeptFile};
use super::engine::{Base, File, Head};
use super::error::Error;
use super::flusher::Phase;
use super::layers::Overlay;
use super::rows::{Row, Rows};
use super::snapshot::{Decoder, Snapshot};
use super::{HEALTHY, Options, State};
use crate::env::Env;
use crate::limits::FRAME_BYTES_MAX;
use crate::mutant::{self, Mutant};
use crate::types::LogId;

/// Received rows are committed once so many bytes have come together.
const COMMIT_BYTES: usize = 8 * 1024 * 1024;

/// A snapshot stream on its way into a new file, which is removed when this is dropped.
pub struct Receiver<M> {
    decoder: Decoder,
    rows: Vec<(u8, Bytes, Bytes)>,
    rows_bytes: usize,
    head: Head,
    incoming: Incoming,
    machine: PhantomData<fn() -> M>,
}

/// A complete snapshot, durable in a new file, with its machine. Not yet the state; the file is removed when this is dropped.
pub struct Received<M> {
    base: Arc<Base>,
    machine: M,
    incoming: Incoming,
}

/// Proof that everything queued in the log before an install is synced.
pub struct LogSynced(());

impl<M> Received<M> {
    /// The machine built from its rows.
    pub fn machine(&self) -> &M {
        &self.machine
    }
}

/// The new file. Fields drop in this order: the database is closed, then its file removed.
struct Incoming {
    file: Arc<File>,
    number: u64,
    file_guard: UnkeptFile,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.file_guard.is_kept() {
            self.file.close();
        }
    }
}

impl<M> Receiver<M> {
    fn create(env: &Env, dir: &Path, cache_bytes: usize, number: u64) -> Result<Self, Error> {
        let name = current::file_name(number);
        let file_guard = UnkeptFile::new(env.disk.clone(), dir.join(&name));
        let file = File::create(&*env.disk, dir, &name, cache_bytes)?;
        let incoming = Incoming { file, number, file_guard };
        Ok(Self {
            decoder: Decoder::default(),
            rows: Vec::new(),
            rows_bytes: 0,
            head: Head::default(),
            incoming,
            machine: PhantomData,
        })
    }

    /// Takes the next frame of the stream. Blocking. Errors: [`Error::Invalid`] and those of the disk; drop the receiver, nothing was changed.
    pub fn frame(&mut self, frame: &[u8]) -> Result<(), Error> {
        for row in self.decoder.frame(frame)? {
            self.rows_bytes += row.1.len() + row.2.len();
            self.rows.push(row);
            if self.rows_bytes >= COMMIT_BYTES {
                self.commit(None)?;
            }
        }
        Ok(())
    }

    /// Ends the stream: checks that it is complete and ends at `applied`, makes the file durable, builds the machine. Blocking.
    ///
    /// Errors: as of [`Receiver::frame`], and `build`'s. Nothing was changed, and the file is removed.
    pub fn finish(self, applied: LogId, build: impl FnOnce(Rows<'_>) -> Result<M, Error>) -> Result<Received<M>, Error> {
        let (base, incoming) = self.finish_file(applied)?;
        let machine = build(Rows(&base))?;
        Ok(Received { base, machine, incoming })
    }

    fn finish_file(mut self, applied: LogId) -> Result<(Arc<Base>, Incoming), Error> {
        let found = self.decoder.finish()?;
        if found != Some(applied) {
            return Err(Error::invalid(format!("the stream ends at another entry found={found:?} announced={applied}")));
        }
        self.commit(Some(applied))?;
        Ok((self.incoming.file.base()?, self.incoming))
    }

    fn commit(&mut self, applied: Option<LogId>) -> Result<(), Error> {
        let rows = self.rows.iter().map(|(table, key, value)| Row::put((*table, key, value)));
        self.head = self.incoming.file.commit(Head { applied, ..self.head }, rows)?;
        self.rows.clear();
        self.rows_bytes = 0;
        Ok(())
    }
}

impl<M> Received<M> {
    /// The last entry it contains.
    pub fn applied(&self) -> Option<LogId> {
        self.base.head.applied
    }

    /// Makes it the state of a directory nobody has open: the next [`State::open`] finds it and removes what was there. Blocking.
    ///
    /// The log of the node must be synced. Errors: of the disk; the directory then holds either state.
    pub fn put_in_place(mut self, env: &Env, dir: &Path) -> Result<(), Error> {
        // From here on the pointer may be moved; the file it may name stays.
        self.incoming.file_guard.keep();
        current::write(&*env.disk, dir, Current::Open(self.incoming.number))
    }
}

/// Makes a new file for an incoming snapshot beside a state that can't be opened, or must not be. Blocking. The node must not run.
///
/// Errors: those of the disk; nothing was changed.
pub fn receive_in<M>(env: &Env, dir: &Path, options: Options) -> Result<Receiver<M>, Error> {
    env.disk.create_dir_all(dir).map_err(|error| Error::io("create the state directory", &error))?;
    let number = current::last_number(&*env.disk, dir)? + 1;
    Receiver::create(env, dir, options.cache_bytes, number)
}

impl<M: Send + Sync + 'static> State<M> {
    /// Makes a new file for an incoming snapshot. Blocking. Errors: those of the disk; nothing was changed.
    pub fn receive(&self) -> Result<Receiver<M>, Error> {
        let inner = &self.inner;
        let number = inner.last_file.fetch_add(1, Ordering::Relaxed) + 1;
        Receiver::create(&inner.env, &inner.dir, inner.options.cache_bytes, number)
    }

    /// Puts a received snapshot in place of the state: file, machine and `applied` in one step. Blocking: it waits for the log too.
    ///
    /// No update may run meanwhile; views may, and see the old state or the new one. Errors: [`Error::Invalid`] (older than what is
    /// applied) and [`Error::NoSpace`]: nothing was changed; any other is final.
    pub fn install(&self, received: Received<M>) -> Result<(), Error> {
        let (sender, synced) = mpsc::sync_channel(1);
        self.sync_log(move |result| drop(sender.send(result)));
        let ended = || Error::Io { kind: std::io::ErrorKind::BrokenPipe, what: "the log has ended".into() };
        let synced = synced.recv().map_err(|_| ended()).inspect_err(|error| self.inner.fault.fail(error.clone()))?;
        self.install_synced(received, synced?)
    }

    /// Has the log synced up to everything queued so far, then calls `done` with what [`State::install_synced`] wants to see.
    ///
    /// Errors: of the log; they are final.
    pub fn sync_log(&self, done: impl FnOnce(Result<LogSynced, Error>) + Send + 'static) {
        if mutant::is(Mutant::InstallWithoutLogSync) {
            return done(Ok(LogSynced(())));
        }
        let inner = self.inner.clone();
        self.inner.cover.sync(Box::new(move |result| {
            let result = result.map_err(|error| Error::sync("the log failed", &error));
            done(result.inspect_err(|error| inner.fault.fail(error.clone())).map(|()| LogSynced(())));
        }));
    }

    /// Installs received rows once the log is synced: [`State::install`] after its wait. Blocking.
    pub fn install_synced(&self, mut received: Received<M>, _: LogSynced) -> Result<(), Error> {
        let inner = &self.inner;
        let before = self.applied();
        let applied = received.applied();
        if applied.map(|id| id.index) < before.map(|id| id.index) {
            return Err(Error::invalid(format!("it is older than what is applied found={applied:?} applied={before:?}")));
        }
        let mut phase = inner.phase.lock().expect(HEALTHY);
        if let Some(error) = inner.fault.failed() {
            return Err(error);
        }
        phase = self.point_to(phase, &mut received.incoming)?;
        let machine = received.machine;
        let old = {
            let mut live = inner.live.write().expect(HEALTHY);
            assert!(live.applied == before, "an entry was applied while a snapshot was installed: {before:?}, {:?}", live.applied);
            let machine =
                if mutant::is(Mutant::MachineNotSwapped) { machine } else { std::mem::replace(&mut live.machine, machine) };
            live.applied = applied;
            live = inner.split(live, Mutant::InstallInTwoSteps);
            let base = std::mem::replace(&mut live.base, received.base);
            let unflushed = Overlay::new(inner.options.hashed_tables);
            let rows = (std::mem::replace(&mut live.unflushed, unflushed), live.frozen.take());
            live.base_mark = None;
            live.flushed = applied;
            (live.put_bytes, live.unmade_bytes) = (0, 0);
            live.dirty_since = None;
            inner.fault.set_pending_bytes(0);
            (machine, base, rows)
        };
        // An answer still to come belongs to the old file's flush, and finds nobody.
        *phase = Phase::Idle;
        drop(phase);
        self.leave(&old.1.file);
        drop(old);
        inner.fault.notify_flushed(applied);
        inner.wake.wake();
        Ok(())
    }

    /// Writes all durable rows to a new file and continues with that: nothing that was deleted or replaced is left in it. Says how many of how
    /// many rows are written, each MiB or so. Blocking, for about as long as a snapshot takes to send; no flush happens meanwhile, and updates
    /// wait once the unflushed rows are at their hard limit.
    ///
    /// Errors: of the disk, [`Error::NoSpace`] among them (it takes as much room as the live rows): nothing was changed; but one that
    /// moving `CURRENT` met ends the state.
    pub fn rewrite(&self, mut progress: impl FnMut(u64, u64)) -> Result<(), Error> {
        let inner = &self.inner;
        // Held to the end: a flush would go to the old file, and be lost with it.
        let phase = inner.phase.lock().expect(HEALTHY);
        if let Some(error) = inner.fault.failed() {
            return Err(error);
        }
        let base = inner.live.read().expect(HEALTHY).base.clone();
        let Some(applied) = base.head.applied else { return Ok(()) };
        let mut receiver = self.receive()?;
        let mut rows = Snapshot::new(base.clone(), inner.fault.clone());
        while let Some(frame) = rows.next_frame(FRAME_BYTES_MAX)? {
            receiver.frame(&frame)?;
            progress(rows.done(), rows.total());
        }
        let (new, mut incoming) = receiver.finish_file(applied)?;
        assert!(new.head == base.head, "a state was written again as another one: {:?}, {:?}", base.head, new.head);
        let phase = self.point_to(phase, &mut incoming)?;
        // What is not flushed lies over the one as over the other.
        let old = std::mem::replace(&mut inner.live.write().expect(HEALTHY).base, new);
        drop((phase, base, rows));
        self.leave(&old.file);
        Ok(())
    }

    /// Moves `CURRENT` to a file that came in. Errors: if they are final the state ends, and the next start finds one of both files.
    fn point_to<'p>(&self, phase: MutexGuard<'p, Phase>, incoming: &mut Incoming) -> Result<MutexGuard<'p, Phase>, Error> {
        let inner = &self.inner;
        if let Err(error) = current::write(&*inner.env.disk, &inner.dir, Current::Open(incoming.number)) {
            // From here on the pointer may be moved; the file it may name stays.
            if error.is_final() {
                incoming.file_guard.keep();
                drop(phase);
                inner.fault.fail(error.clone());
            }
            return Err(error);
        }
        incoming.file_guard.keep();
        Ok(phase)
    }

    /// Done with a file that `CURRENT` no longer names. Views that hold it read on.
    fn leave(&self, file: &File) {
        file.stop_writes();
        // What cannot be removed now is removed by the next open.
        let _ = self.inner.env.disk.remove(&self.inner.dir.join(file.name()));
    }
}
