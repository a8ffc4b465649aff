//! Files that commands write for people: a backup, an export, a key, the file of tokens. Each is either whole or not there.
//!
//! Every run writes into a temporary file: a drawn name, made with `create_new` (so that no link is followed and no other
//! run's file is taken), mode 0600 from its first moment, locked as long as its writer lives. A whole file is synced and gets its name by
//! a link or a rename that replaces nothing. A killed writer's temporary file is known by its name and by its lock being free, and the
//! next run for the same file removes it.
//!
//! ```text
//! create FILE.<16 hex digits>.partial -> write, sync -> link to FILE (refused if it exists) -> unlink the temporary name -> sync directory
//! ```

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{SystemRandom, u64_from};

/// A temporary file's name ends so.
const SUFFIX: &str = ".partial";
/// Between the file's name and the suffix: a dot, and so many hex digits.
const DRAWN_DIGITS: usize = 16;
/// How often another name is drawn: the lock of a new file is taken a moment after it is made, and another run may have removed it.
const ATTEMPTS: u32 = 8;

/// A file that is being written. Dropped without [`NewFile::publish`], nothing of it is left.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
}

impl NewFile {
    /// Makes the temporary file that is to become `target`, with this mode less the umask. Blocking.
    ///
    /// Errors: `target` names no file; or as the operating system has it, with the temporary file's path.
    pub fn create(target: &Path, mode: u32) -> io::Result<Self> {
        let name = target.file_name().ok_or_else(|| named("this names no file", io::ErrorKind::InvalidInput, target))?;
        for _ in 0..ATTEMPTS {
            let mut drawn = name.to_owned();
            drawn.push(format!(".{:016x}{SUFFIX}", u64_from(&SystemRandom)));
            let temporary = target.with_file_name(drawn);
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&temporary);
            let file = file.map_err(|error| named(&error, error.kind(), &temporary))?;
            let new = Self { file, temporary, target: target.to_owned() };
            // Where locks do not work, no left-over is ever removed either.
            let _ = new.file.lock();
            if new.is_in_place() {
                return Ok(new);
            }
        }
        Err(named("another program removes temporary files here", io::ErrorKind::Other, target))
    }

    /// The name it has meanwhile.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// The written file, from its first byte, synced; other files of its name don't matter. Errors: with the temporary file's path.
    pub fn written(&mut self) -> io::Result<File> {
        let again = || {
            self.file.sync_all()?;
            let mut file = self.file.try_clone()?;
            file.rewind()?;
            Ok(file)
        };
        again().map_err(|error: io::Error| named(&error, error.kind(), &self.temporary))
    }

    /// Syncs it and gives it its name, durably. Errors: the name is taken, `AlreadyExists`, and that file was not touched; or the disk
    /// failed. Then nothing of it is left.
    pub fn publish(self) -> io::Result<()> {
        self.named_for_good(|temporary, target| match std::fs::hard_link(temporary, target) {
            Err(error) if has_no_links(&error) => rename_new(temporary, target),
            linked => linked,
        })
    }

    /// Gives the file its name in place of another file. Errors: with the temporary file's path.
    fn replace(self) -> io::Result<()> {
        self.named_for_good(|temporary, target| std::fs::rename(temporary, target))
    }

    fn named_for_good(self, name: impl FnOnce(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
        let temporary = |error: io::Error| named(&error, error.kind(), &self.temporary);
        self.file.sync_all().map_err(temporary)?;
        if !self.is_in_place() {
            return Err(named("another program has moved the temporary file away", io::ErrorKind::Other, &self.temporary));
        }
        name(&self.temporary, &self.target).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => named("there is a file of this name already", error.kind(), &self.target),
            _ => temporary(error),
        })?;
        // It is whole and has its name; what follows is only about the other name, and about a power cut.
        let target = self.target.clone();
        drop(self);
        sync_directory(&target).map_err(|error| named(&error, error.kind(), &target))
    }

    /// Whether the temporary name still leads to this file.
    fn is_in_place(&self) -> bool {
        let same = |there: Metadata| self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()));
        std::fs::symlink_metadata(&self.temporary).is_ok_and(same)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.is_in_place() {
            // Best effort: the next run for this file removes it.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| named(&error, error.kind(), &self.temporary))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes what killed runs for `target` left: temporary files that no living process has locked. Gives their paths. Best effort.
pub fn remove_left_overs(target: &Path) -> Vec<PathBuf> {
    let Some(name) = target.file_name() else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(directory_of(target)) else { return Vec::new() };
    let temporary = entries.flatten().filter(|entry| is_temporary_of(name, &entry.file_name()));
    let paths = temporary.map(|entry| target.with_file_name(entry.file_name()));
    paths.filter(|path| remove_left_over(path).unwrap_or(false)).collect()
}

fn is_temporary_of(name: &OsStr, found: &OsStr) -> bool {
    let found = found.as_encoded_bytes();
    let drawn = found.strip_prefix(name.as_encoded_bytes()).and_then(|rest| rest.strip_prefix(b"."));
    let drawn = drawn.and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
    drawn.is_some_and(|drawn| drawn.len() == DRAWN_DIGITS && drawn.iter().all(u8::is_ascii_hexdigit))
}

fn remove_left_over(path: &Path) -> io::Result<bool> {
    // Whatever else has such a name is not ours, and opening a pipe would wait.
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Ok(false);
    }
    let file = File::open(path)?;
    match file.try_lock() {
        Ok(()) => std::fs::remove_file(path).map(|()| true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A file that is read, changed and replaced as a whole: a reader sees the old text or the new one. Two that change one file wait for
/// each other.
///
/// Kept are its owner, its group and its mode; a symbolic link stays one, and the file that it leads to is replaced.
#[derive(Debug)]
pub struct Replacing {
    /// The target of a link.
    target: PathBuf,
    before: Option<(Vec<u8>, Metadata)>,
    /// Its directory, locked.
    _directory: File,
}

/// A synced file that is to replace another, and has not yet.
#[derive(Debug)]
pub struct Prepared(NewFile);

impl Replacing {
    /// Takes the lock and reads the file, of at most `limit` bytes; a missing one is empty. Waits for others that replace a file in the
    /// same directory. Blocking.
    ///
    /// Errors: it is no regular file, can't be read, or is larger.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let target = match std::fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && std::fs::symlink_metadata(path).is_ok() => {
                return Err(named("it is a link to a file that is not there", error.kind(), path));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            canonical => canonical.map_err(|error| named(&error, error.kind(), path))?,
        };
        let failed = |error: io::Error| named(&error, error.kind(), &target);
        let directory = File::open(directory_of(&target)).map_err(failed)?;
        // Where locks do not work, two that change one file at once are distinguished by what they have read.
        let _ = directory.lock();
        let before = match std::fs::metadata(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            found => {
                let found = found.map_err(failed)?;
                if !found.is_file() {
                    return Err(named("it is no regular file", io::ErrorKind::InvalidInput, &target));
                }
                Some((super::read_file(&target, limit).map_err(failed)?, found))
            }
        };
        Ok(Self { target, before, _directory: directory })
    }

    /// The replaced file's content; `None`: there is no such file.
    pub fn before(&self) -> Option<&[u8]> {
        self.before.as_ref().map(|(bytes, _)| &bytes[..])
    }

    /// Writes what is to be in it beside it, durably. A new file gets this mode. Errors: nothing changed; among them that its owner can't
    /// be kept, since another than that one may then not be able to read it.
    pub fn prepare(&self, text: &[u8], mode: u32) -> io::Result<Prepared> {
        // Readable by nobody else before it has its owner.
        let mut new = NewFile::create(&self.target, if self.before.is_some() { 0o600 } else { mode })?;
        new.write_all(text)?;
        if let Some((_, found)) = &self.before {
            keep_owner(&new, found)?;
        }
        new.written()?;
        Ok(Prepared(new))
    }

    /// Puts it in place. Errors: the file was changed meanwhile, or the disk failed; nothing changed.
    pub fn replace(self, prepared: Prepared) -> io::Result<()> {
        let Some((before, _)) = &self.before else { return prepared.0.publish() };
        let same = File::open(&self.target).and_then(|file| {
            let mut now = Vec::new();
            file.take(before.len() as u64 + 1).read_to_end(&mut now)?;
            Ok(now == *before)
        });
        if !same.map_err(|error| named(&error, error.kind(), &self.target))? {
            return Err(named("another program changes this file at the same time", io::ErrorKind::Other, &self.target));
        }
        prepared.0.replace()
    }
}

fn keep_owner(new: &NewFile, found: &Metadata) -> io::Result<()> {
    let own = new.file.metadata()?;
    let differs = (own.uid(), own.gid()) != (found.uid(), found.gid());
    if differs && let Err(error) = std::os::unix::fs::fchown(&new.file, Some(found.uid()), Some(found.gid())) {
        let what = format!("its owner {}:{} can't be kept: {error}; type this as root or as that user", found.uid(), found.gid());
        return Err(named(what, error.kind(), &new.target));
    }
    new.file.set_permissions(found.permissions()).map_err(|error| named(&error, error.kind(), &new.temporary))
}

/// File systems without hard links: FAT, some in user space. The kernel's protection of links refuses in the same way.
fn has_no_links(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let refusals = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::ACCESS, Errno::MLINK, Errno::INVAL];
    refusals.iter().any(|refusal| error.raw_os_error() == Some(refusal.raw_os_error()))
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

fn named(what: impl std::fmt::Display, kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{what} file={}", path.display()))
}

/// A directory with a drawn name beside `target`, for nobody else; it becomes `target` by [`std::fs::rename`]. Errors: with its path.
pub fn new_directory_beside(target: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut name = target.file_name().map_or_else(OsString::new, ToOwned::to_owned);
    name.push(format!(".{:016x}{SUFFIX}", u64_from(&SystemRandom)));
    let path = target.with_file_name(name);
    std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| named(&error, error.kind(), &path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).expect("a listing").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).expect("it is there")
    }

    fn new(target: &Path, text: &str) -> NewFile {
        let mut new = NewFile::create(target, 0o600).expect("a writable directory");
        new.write_all(text.as_bytes()).expect("there is room");
        new
    }

    #[test]
    fn two_runs_for_one_file_share_nothing_and_the_second_replaces_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("backup");
        let (mut slow, fast) = (new(&target, "slow"), new(&target, "fast"));
        assert_ne!(slow.temporary(), fast.temporary());
        assert_eq!(std::fs::metadata(fast.temporary()).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(remove_left_overs(&target), Vec::<PathBuf>::new(), "both live");
        fast.publish().expect("nobody has the name");
        slow.write_all(b", and more").expect("there is room");
        let mut read = String::new();
        slow.written().and_then(|mut file| file.read_to_string(&mut read)).expect("it was written");
        assert_eq!(read, "slow, and more");
        let refused = slow.publish().expect_err("the name is taken");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert!(refused.to_string().starts_with("there is a file of this name already file="), "{refused}");
        assert_eq!((text(&target).as_str(), names(dir.path())), ("fast", vec!["backup".to_owned()]));
    }

    /// Not even a link that leads nowhere is taken for free, and what one leads to is not touched.
    #[test]
    fn a_link_in_place_of_the_file_is_neither_followed_nor_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let (target, victim) = (dir.path().join("backup"), dir.path().join("victim"));
        for there in [true, false] {
            std::os::unix::fs::symlink(&victim, &target).expect("a link");
            if there {
                std::fs::write(&victim, "victim").expect("writable");
            }
            let refused = new(&target, "new").publish().expect_err("the name is taken");
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists, "{refused}");
            assert_eq!(victim.exists(), there);
            if there {
                assert_eq!(text(&victim), "victim");
                std::fs::remove_file(&victim).expect("it is there");
            }
            std::fs::remove_file(&target).expect("it is there");
        }
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn a_temporary_file_that_was_moved_away_is_not_published_and_one_in_its_place_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("backup");
        let new = new(&target, "ours");
        let temporary = new.temporary().to_owned();
        std::fs::rename(&temporary, dir.path().join("away")).expect("a rename");
        std::fs::write(&temporary, "theirs").expect("writable");
        new.publish().expect_err("it is another file");
        assert!(!target.exists());
        assert_eq!(text(&temporary), "theirs");
    }

    #[test]
    fn what_a_killed_run_left_is_removed_by_the_next_for_the_same_file_and_nothing_else_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("backup");
        let left = dir.path().join("backup.0123456789abcdef.partial");
        let others = [
            "backup.partial",
            "backup.0123456789abcde.partial",
            "backup2.0123456789abcdef.partial",
            "backup.0123456789abcdeg.partial",
        ];
        for other in others {
            std::fs::write(dir.path().join(other), "").expect("writable");
        }
        let link = dir.path().join("backup.fedcba9876543210.partial");
        std::os::unix::fs::symlink("backup.partial", &link).expect("a link");
        std::fs::write(&left, "half").expect("writable");
        assert_eq!(remove_left_overs(&target), [left]);
        assert_eq!(names(dir.path()).len(), others.len() + 1);
        assert_eq!(remove_left_overs(Path::new("/")), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_the_link_that_leads_to_it() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("deep")).expect("writable");
        let (file, link) = (dir.path().join("deep/tokens"), dir.path().join("tokens"));
        std::fs::write(&file, "old").expect("writable");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("it is ours");
        std::os::unix::fs::symlink("deep/tokens", &link).expect("a link");
        let replacing = Replacing::open(&link, 100).expect("it can be read");
        assert_eq!(replacing.before(), Some(&b"old"[..]));
        let prepared = replacing.prepare(b"new", 0o600).expect("there is room");
        assert_eq!(text(&link), "old", "not yet");
        replacing.replace(prepared).expect("nobody else changes it");
        assert!(std::fs::symlink_metadata(&link).expect("it is there").is_symlink());
        assert_eq!((text(&link).as_str(), names(&dir.path().join("deep"))), ("new", vec!["tokens".to_owned()]));
        assert_eq!(std::fs::metadata(&file).expect("it is there").permissions().mode() & 0o7777, 0o640);
        drop(Replacing::open(&link, 100).expect("it can be read").prepare(b"newer", 0o600).expect("there is room"));
        assert_eq!(
            (text(&link).as_str(), names(&dir.path().join("deep"))),
            ("new", vec!["tokens".to_owned()]),
            "it was not wanted"
        );
    }

    #[test]
    fn a_file_that_somebody_else_changes_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("tokens");
        for before in [None, Some("old")] {
            let replacing = Replacing::open(&file, 100).expect("it can be read");
            assert_eq!(replacing.before().map(<[u8]>::to_vec), before.map(|text| text.as_bytes().to_vec()));
            let prepared = replacing.prepare(b"ours", 0o600).expect("there is room");
            std::fs::write(&file, "theirs").expect("writable");
            replacing.replace(prepared).expect_err("it was changed");
            assert_eq!((text(&file).as_str(), names(dir.path())), ("theirs", vec!["tokens".to_owned()]));
            std::fs::write(&file, "old").expect("writable");
        }
        let refused = Replacing::open(dir.path(), 100).expect_err("a directory");
        assert!(refused.to_string().contains("no regular file"), "{refused}");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).expect("a link");
        assert!(Replacing::open(&link, 100).expect_err("it leads nowhere").to_string().contains("link"));
    }
}
