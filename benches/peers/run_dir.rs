//! Where one run keeps its data and logs, and what a run that was killed left behind.
//!
//! Every process is entered in the run's list before it can do anything, with the moment it started: a process id alone proves nothing
//! once the number has been used again. A directory whose lock nobody holds belongs to a dead run.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;

/// `f_type` of a file system in memory, where a sync costs nothing.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// One run's directory; removed when dropped.
pub struct RunDir {
    path: PathBuf,
    processes: File,
    directories: AtomicU32,
    _lock: File,
}

impl RunDir {
    /// Cleans what dead runs left in `parent`, saying what it found, and makes a new directory there.
    ///
    /// Errors: no such place, or one in memory.
    pub fn new(parent: &Path) -> Result<Self, Error> {
        fs::create_dir_all(parent)?;
        let parent = parent.canonicalize()?;
        if u64::try_from(rustix::fs::statfs(&parent)?.f_type) == Ok(TMPFS_MAGIC) {
            return Err(
                format!("{} is in memory: a sync costs nothing there; name a real disk with --dir", parent.display()).into()
            );
        }
        for entry in fs::read_dir(&parent)? {
            clean(&entry?.path());
        }
        let path = parent.join(format!("run-{}", std::process::id()));
        fs::create_dir(&path)?;
        let lock = File::create(path.join("lock"))?;
        lock.try_lock()?;
        let processes = File::create(path.join("processes"))?;
        Ok(Self { path, processes, directories: AtomicU32::new(0), _lock: lock })
    }

    /// A new directory in it for a store.
    pub fn directory(&self, store: &str) -> Result<PathBuf, Error> {
        let number = self.directories.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{store}-{number}"));
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// Enters a process that was started.
    pub fn enter(&self, pid: u32) -> Result<(), Error> {
        let started = start_of(pid).ok_or("a process ended at once")?;
        (&self.processes).write_all(format!("{pid} {started}\n").as_bytes())?;
        Ok(())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// When a process started, in the kernel's ticks since boot; `None` if it has ended.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()
}

/// A pid of ours as the operating system takes it.
pub fn pid(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

/// Ends what a dead run left in `dir` and removes it. What still runs, or is no run's, is left alone.
fn clean(dir: &Path) {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let Some(driver) = name.strip_prefix("run-").and_then(|number| number.parse().ok()) else { return };
    let is_held = match File::open(dir.join("lock")) {
        Ok(lock) => lock.try_lock().is_err(),
        // It is just being made, or half removed.
        Err(_) => start_of(driver).is_some(),
    };
    if is_held {
        return;
    }
    let list = fs::read_to_string(dir.join("processes")).unwrap_or_default();
    let left: Vec<u32> = list.lines().filter_map(still_runs).collect();
    for id in left.iter().copied().filter_map(pid) {
        // It may end by itself at this moment.
        let _ = kill_process(id, Signal::KILL);
    }
    let until = Instant::now() + Duration::from_secs(5);
    while list.lines().any(|line| still_runs(line).is_some()) && Instant::now() < until {
        std::thread::yield_now();
    }
    remove(dir);
    eprintln!("cleaned {}, left by a run that was killed: {} processes {left:?}", dir.display(), left.len());
}

/// The process of a line `pid start`, if it is still that one.
fn still_runs(line: &str) -> Option<u32> {
    let (id, started) = line.split_once(' ')?;
    let id: u32 = id.parse().ok()?;
    (start_of(id) == started.parse().ok()).then_some(id)
}

/// Removes a directory; a server that is just ending may still write into it.
pub fn remove(dir: &Path) {
    for _ in 0..20 {
        match fs::remove_dir_all(dir) {
            Ok(()) => return,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(_) => std::thread::yield_now(),
        }
    }
    eprintln!("could not remove {}", dir.display());
}
