//! Files that commands write: each is either whole or not there, for its owner alone, and nothing that exists is touched.

use std::io;
use std::io::Write as _;
use std::path::Path;

use quorate::env::{NewFile, remove_left_overs};

use crate::failure::Failure;

/// For the owner alone: a backup and an export hold sessions, other files hold keys.
pub const PRIVATE: u32 = 0o600;

/// Begins a file that is to be `target`, with this mode less the umask. Errors: there is something of this name, or the directory can't be written; nothing changed.
pub fn create(target: &Path, mode: u32) -> Result<NewFile, Failure> {
    require_free(target)?;
    sweep(target);
    NewFile::create(target, mode).map_err(|error| unwritten(&error))
}

/// Removes what interrupted runs for `target` left, and says so.
pub fn sweep(target: &Path) {
    for left in remove_left_overs(target) {
        // With stderr gone nobody is left to tell.
        let _ = writeln!(io::stderr(), "removed the rest of an interrupted run file={}", left.display());
    }
}

/// Errors: there is something of this name, if only a link that leads nowhere.
pub fn require_free(target: &Path) -> Result<(), Failure> {
    match target.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(_) => {
            let text = "there is a file of this name already; nothing was written; name another one";
            Err(Failure::usage(format!("{text} file={}", target.display())))
        }
    }
}

/// Gives it its name. Errors: there is one of this name by now, or the disk failed; then nothing of it is left.
pub fn publish(file: NewFile) -> Result<(), Failure> {
    file.publish().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::usage(format!("{error}; nothing was written; name another one")),
        _ => unwritten(&error),
    })
}

/// The file and the reason are in the error.
pub fn unwritten(error: &io::Error) -> Failure {
    Failure::failed(format!("can't write the file, nothing of it is left: {error}"))
}

/// Where an export goes: stdout, as `-`, or a new file.
pub enum Sink {
    Stdout(io::StdoutLock<'static>),
    File(NewFile),
}

impl Sink {
    /// Errors: as of [`create`].
    pub fn open(target: &Path) -> Result<Self, Failure> {
        match target.as_os_str() == "-" {
            true => Ok(Self::Stdout(io::stdout().lock())),
            false => create(target, PRIVATE).map(Self::File),
        }
    }

    /// All was written. Errors: of a file, as of [`publish`].
    pub fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Stdout(mut out) => Ok(out.flush()?),
            Self::File(file) => publish(file),
        }
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(file) => file.flush(),
        }
    }
}
