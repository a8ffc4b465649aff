//! Where a run happens: its directory, its lock, and what runs before it left behind.
//!
//! Nodes end with the runner, whatever happens to it: `run.sh` puts both into namespaces of their own where it can, which the kernel
//! ends with their first process, mounts and stopped processes too; elsewhere `setpriv` has the kernel kill each node when its parent
//! dies. What is left then is files, and what this module finds and removes at the next start.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

/// A directory of one run, locked while it runs.
pub struct World {
    /// The directory.
    pub dir: PathBuf,
    _lock: File,
}

/// Reports and histories of so many runs are kept.
const KEPT: usize = 8;
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

impl World {
    /// Makes the directory of a new run below `base`. Errors: no real disk, no permission.
    pub fn new(base: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("can't make a directory for the run: {error} path={}", base.display());
        fs::create_dir_all(base).map_err(failed)?;
        let base = base.canonicalize().map_err(failed)?;
        let kind = rustix::fs::statfs(&base).map_err(|error| failed(error.into()))?.f_type as u64;
        if kind == TMPFS || kind == RAMFS {
            return Err(format!("{} is in memory: what a disk keeps can't be shown there; name another --dir", base.display()));
        }
        let number = 1 + fs::read_dir(&base).map_err(failed)?.count();
        let dir = base.join(format!("run-{}-{number}", now_ms()));
        fs::create_dir_all(dir.join("data")).map_err(failed)?;
        let lock = File::create(dir.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| format!("can't lock {}: {error}", dir.display()))?;
        Ok(Self { dir, _lock: lock })
    }

    /// A file of the run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Removes what is large; history, report and logs stay.
    pub fn shrink(&self) {
        let _ = fs::remove_dir_all(self.path("data"));
        for node in 1..=5 {
            let _ = fs::remove_file(self.path(&format!("{node}.img")));
            let _ = fs::remove_file(self.path(&format!("applied-{node}")));
        }
        let _ = fs::rename(self.path("lock"), self.path("ended"));
    }
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

/// Ends and removes what runs left whose runner is gone, and says what it found, in lines. Their reports stay.
pub fn clean(base: &Path) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    let Ok(base) = base.canonicalize() else { return Ok(found) };
    let mut ended = Vec::new();
    for entry in fs::read_dir(base)? {
        let dir = entry?.path();
        // Whatever else lies there is not ours.
        if !dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("run-")) {
            continue;
        }
        let Ok(lock) = File::open(dir.join("lock")) else {
            ended.push(dir);
            continue;
        };
        // Held: it runs.
        if lock.try_lock().is_err() {
            continue;
        }
        found.push(format!("{} was not ended in good order", dir.display()));
        for (pid, command) in processes_of(&dir) {
            let killed = Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok());
            found.push(format!("  a process was left, killed={killed} pid={pid} {command}"));
        }
        for mount in mounts_below(&dir) {
            let unmounted =
                Command::new("umount").args(["-l".as_ref(), mount.as_os_str()]).status().is_ok_and(|status| status.success());
            found.push(format!("  a mount was left, unmounted={unmounted} path={}", mount.display()));
        }
        let data = dir.join("data");
        if data.exists() {
            fs::remove_dir_all(&data)?;
            found.push(format!("  data was left, removed path={}", data.display()));
        }
        for node in 1..=5 {
            if fs::remove_file(dir.join(format!("{node}.img"))).is_ok() {
                found.push(format!("  the image of a disk was left, removed node={node}"));
            }
        }
        fs::rename(dir.join("lock"), dir.join("ended"))?;
    }
    // The names begin with the time.
    ended.sort();
    for dir in ended.iter().rev().skip(KEPT) {
        fs::remove_dir_all(dir)?;
    }
    Ok(found)
}

/// Processes whose command line names the directory.
pub fn processes_of(dir: &Path) -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let named = |pid: i32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        command.contains(&format!("{}/", dir.display())).then_some((pid, command))
    };
    pids.filter_map(named).collect()
}

/// Whether the system says that a process stands still.
pub fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(dir)).collect()
}

/// Whether a program is there and runs with these arguments.
pub fn works(program: &str, args: &[&str]) -> bool {
    use std::process::Stdio;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
