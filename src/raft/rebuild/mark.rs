//! The mark on a data directory whose state must not be served again: one small file, `REBUILD`, that survives the process.
//!
//! ```text
//! <reason, one line>
//! member <id> <peer address>
//! ```
//! The file's presence is what counts; unparsable lines are ignored. An operator may remove it, at their own risk.

use std::io;
use std::path::Path;

use crate::env::{Disk, Env, replace_file};
use crate::types::{Member, NodeId};

const FILE: &str = "REBUILD";
/// The most that is read of the file.
const BYTES_MAX: u64 = 64 * 1024;

/// The content of a mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub reason: String,
    pub members: Vec<(NodeId, String)>,
}

/// Marks a data directory, durably. Blocks on the disk. Errors: of the disk; the mark may be there or not.
pub fn mark(env: &Env, dir: &Path, reason: &str, members: &[Member]) -> io::Result<()> {
    let mut text = reason.replace(['\n', '\r'], " ") + "\n";
    for member in members {
        text += &format!("member {} {}\n", member.id, member.peer_address);
    }
    replace_file(&*env.disk, dir, FILE, &text)
}

/// The mark, if there is one. Blocks on the disk. Errors: of the disk.
pub fn read_mark(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Mark>> {
    let path = dir.join(FILE);
    if !disk.exists(&path)? {
        return Ok(None);
    }
    let file = disk.open(&path)?;
    let mut bytes = vec![0; file.len()?.min(BYTES_MAX) as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(Some(parse(&bytes)))
}

/// Whether the state in a data directory is not to be served again. Blocks on the disk; what can't be looked at has no mark.
pub fn is_marked(env: &Env, dir: &Path) -> bool {
    env.disk.exists(&dir.join(FILE)).unwrap_or(false)
}

/// Removes the mark: the state is whole again. Blocks on the disk. Errors: of the disk; it may still be there.
pub fn clear(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let path = dir.join(FILE);
    if disk.exists(&path)? {
        disk.remove(&path)?;
        disk.sync_dir(dir)?;
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> Mark {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let reason = lines.next().unwrap_or_default().to_owned();
    let member = |line: &str| {
        let (id, address) = line.strip_prefix("member ")?.split_once(' ')?;
        Some((NodeId(id.parse().ok()?), address.to_owned()))
    };
    Mark { reason, members: lines.filter_map(member).collect() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::disk::{Crash, SimDisk};

    #[test]
    fn a_mark_reads_as_written_survives_a_power_loss_and_is_gone_once_cleared() {
        let disk = SimDisk::new();
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let dir = Path::new("/1");
        env.disk.create_dir_all(dir).unwrap();
        assert_eq!(read_mark(&*env.disk, dir).unwrap(), None);
        let member = Member { peer_address: "h:7461".into(), ..Member::new(2) };
        mark(&env, dir, "a row\nis damaged", &[member]).unwrap();
        mark(&env, dir, "it still is", &[]).unwrap();
        let after = disk.crash(Crash::Lost, 0);
        assert_eq!(read_mark(&after, dir).unwrap(), Some(Mark { reason: "it still is".into(), members: Vec::new() }));
        clear(&after, dir).unwrap();
        clear(&after, dir).unwrap();
        assert_eq!(read_mark(&after.crash(Crash::Lost, 0), dir).unwrap(), None);
    }

    #[test]
    fn whatever_is_in_it_is_a_mark() {
        assert_eq!(parse(b""), Mark::default());
        let mark = parse(b"why\nmember 2 h:1\nmember x h:2\nmember 3\n\xff\nmember 4 h:4");
        assert_eq!(mark.reason, "why");
        assert_eq!(mark.members, [(NodeId(2), "h:1".to_owned()), (NodeId(4), "h:4".to_owned())]);
    }
}
