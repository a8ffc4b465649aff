//! A file system for each node, with root: one that can be filled, and whose machine can lose power.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Sparse: it takes what is written.
const IMAGE_BYTES: u64 = 3 << 30;

/// Loop-mounted ext4, one for each node.
pub struct Disks {
    dir: PathBuf,
}

impl Disks {
    /// Makes and mounts them. Errors: which command failed.
    pub fn mount(dir: &Path, nodes: &[usize]) -> Result<Self, String> {
        let disks = Self { dir: dir.to_owned() };
        for node in nodes {
            let image = disks.image(*node);
            let made = fs::File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES));
            made.map_err(|error| format!("can't make {}: {error}", image.display()))?;
            fs::create_dir_all(disks.point(*node)).map_err(|error| error.to_string())?;
            run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), "-m".as_ref(), "0".as_ref(), image.as_os_str()])?;
            disks.mount_one(*node)?;
        }
        Ok(disks)
    }

    fn image(&self, node: usize) -> PathBuf {
        self.dir.join(format!("{node}.img"))
    }

    fn point(&self, node: usize) -> PathBuf {
        self.dir.join("data").join(node.to_string())
    }

    fn mount_one(&self, node: usize) -> Result<(), String> {
        let (image, point) = (self.image(node), self.point(node));
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), point.as_os_str()])
    }

    /// Power is gone: what was not synced never reaches the disk. The node's process must be killed before [`Disks::power_on`].
    ///
    /// `EXT4_IOC_SHUTDOWN` without a flush of the journal. Rust has no safe call for it; perl is part of every Debian.
    pub fn power_off(&self, node: usize) -> Result<(), String> {
        let script = "open(my $d, '<', $ARGV[0]) or die $!; my $f = pack('L', 2); ioctl($d, 0x8004587d, $f) or die $!;";
        run("perl", &["-e".as_ref(), script.as_ref(), self.point(node).as_os_str()])
    }

    /// The same disk in a machine that starts.
    pub fn power_on(&self, node: usize) -> Result<(), String> {
        run("umount", &[self.point(node).as_os_str()])?;
        self.mount_one(node)
    }

    /// Takes all room that is left. Gives the bytes left after it.
    pub fn fill(&self, node: usize) -> Result<u64, String> {
        let ballast = self.ballast(node);
        let free =
            |path: &Path| rustix::fs::statvfs(path).map(|stat| stat.f_bavail * stat.f_frsize).map_err(|error| error.to_string());
        let bytes = free(&self.point(node))?.saturating_sub(1 << 20);
        run("fallocate", &["-l".as_ref(), bytes.to_string().as_ref(), ballast.as_os_str()])?;
        free(&self.point(node))
    }

    /// Gives it back.
    pub fn empty(&self, node: usize) -> Result<(), String> {
        fs::remove_file(self.ballast(node)).map_err(|error| error.to_string())
    }

    fn ballast(&self, node: usize) -> PathBuf {
        self.point(node).join("ballast")
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for node in 1..=5 {
            if self.image(node).exists() {
                let _ = run("umount", &["-l".as_ref(), self.point(node).as_os_str()]);
            }
        }
    }
}

fn run(program: &str, args: &[&std::ffi::OsStr]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program} does not run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{program}: {}", said.lines().next().unwrap_or("failed")))
}
