//! The usage of this machine's processes, as Linux counts it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Clock ticks per second in `/proc`: fixed by the kernel's interface on every architecture Rust's std runs on.
const TICKS_PER_SECOND: u64 = 100;

/// The usage of one process since it was started, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// User and system time, counted in steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub memory_bytes: u64,
    /// Bytes it caused to be written to disk.
    pub disk_bytes: u64,
}

impl ProcessUsage {
    /// Of a process that runs. Errors: it has gone, or is another user's.
    pub fn of(pid: u32) -> io::Result<Self> {
        let dir = Path::new("/proc").join(pid.to_string());
        let read = |name: &str| std::fs::read_to_string(dir.join(name));
        let ticks = cpu_ticks(&read("stat")?).ok_or_else(|| strange(&dir, "stat"))?;
        let memory_kib = number_after(&read("status")?, "VmRSS:").ok_or_else(|| strange(&dir, "status"))?;
        let disk_bytes = number_after(&read("io")?, "write_bytes:").ok_or_else(|| strange(&dir, "io"))?;
        let cpu = Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND);
        Ok(Self { cpu, memory_bytes: memory_kib * 1024, disk_bytes })
    }

    /// Of several processes together. Errors: as [`ProcessUsage::of`].
    pub fn of_all(pids: impl IntoIterator<Item = u32>) -> io::Result<Self> {
        pids.into_iter().try_fold(Self::default(), |sum, pid| {
            let one = Self::of(pid)?;
            Ok(Self {
                cpu: sum.cpu + one.cpu,
                memory_bytes: sum.memory_bytes + one.memory_bytes,
                disk_bytes: sum.disk_bytes + one.disk_bytes,
            })
        })
    }
}

/// The usage of this process, as far as it may always ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnUsage {
    /// User and system time, counted in steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub memory_bytes: u64,
    /// Files and sockets that are open.
    pub open_files: u64,
    /// How many may be; `None`: without bound.
    pub open_files_max: Option<u64>,
}

impl OwnUsage {
    /// Now. Errors: `/proc` does not say.
    pub fn read() -> io::Result<Self> {
        use rustix::process::{Resource, getrlimit};
        let dir = Path::new("/proc/self");
        let read = |name: &str| std::fs::read_to_string(dir.join(name));
        let ticks = cpu_ticks(&read("stat")?).ok_or_else(|| strange(dir, "stat"))?;
        let memory_kib = number_after(&read("status")?, "VmRSS:").ok_or_else(|| strange(dir, "status"))?;
        // One of them is the directory that is being read.
        let open = std::fs::read_dir(dir.join("fd"))?.count().saturating_sub(1);
        Ok(Self {
            cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
            memory_bytes: memory_kib * 1024,
            open_files: open as u64,
            open_files_max: getrlimit(Resource::Nofile).current,
        })
    }
}

/// Lets this process open as many files and sockets as it may: shells give less than that, servers need more. How many that are;
/// `None`: without bound, or the system did not say.
pub fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // It may stay as it was, which is then what is reported.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current
}

/// Bytes that went over this machine's loopback since it was started, headers included, everybody's. Errors: `/proc` does not say.
pub fn loopback_bytes() -> io::Result<u64> {
    let path = PathBuf::from("/proc/net/dev");
    let table = std::fs::read_to_string(&path)?;
    number_after(&table, "lo:").ok_or_else(|| strange(&path, "lo"))
}

/// Bytes of all files below a directory as they take place on disk. Errors: a directory can't be read.
pub fn directory_bytes(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // A file may go while we look: then it takes nothing.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { directory_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

fn strange(path: &Path, what: &str) -> io::Error {
    io::Error::other(format!("{} has no {what} as it is known", path.display()))
}

/// The 14th and 15th field of `stat`. The second, a name in brackets, may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_to_use_memory_and_processor() {
        let before = ProcessUsage::of(std::process::id()).expect("it runs");
        assert!(before.memory_bytes > 100_000, "{before:?}");
        let mut sum = 0_u64;
        while ProcessUsage::of(std::process::id()).expect("it runs").cpu == before.cpu {
            sum = sum.wrapping_add(1);
        }
        assert!(sum > 0 && loopback_bytes().is_ok());
        assert!(ProcessUsage::of(u32::MAX).is_err(), "no such process");
    }

    #[test]
    fn a_file_that_is_open_is_counted_and_stays_below_the_limit() {
        let held: Vec<_> = (0..100).map(|_| std::fs::File::open("/proc/self/stat").expect("it is there")).collect();
        let used = OwnUsage::read().expect("it runs");
        assert!(used.open_files >= held.len() as u64 && used.memory_bytes > 100_000, "{used:?}");
        assert!(used.open_files_max.is_none_or(|max| max >= used.open_files), "{used:?}");
    }

    #[test]
    fn a_name_with_brackets_and_spaces_moves_no_field() {
        let stat = "7 (a) b (c) R 1 2 3 4 5 6 7 8 9 10 1200 34 0 0";
        assert_eq!(cpu_ticks(stat), Some(1234));
        assert_eq!(cpu_ticks("7 (a"), None);
        assert_eq!(number_after("a: 1\n  b:  22 kB\n", "b:"), Some(22));
        assert_eq!(number_after("b: x", "b:"), None);
    }

    #[test]
    fn a_directory_takes_what_its_files_take() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("deep")).expect("writable");
        std::fs::write(dir.path().join("deep").join("file"), vec![7; 100_000]).expect("writable");
        let bytes = directory_bytes(dir.path()).expect("readable");
        assert!((100_000..300_000).contains(&bytes), "{bytes}");
    }
}
