//! `quorate snapshot`: backups of a cluster, and new clusters out of them.

mod restore;
mod save;
mod show;
pub mod target;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use quorate::server::backup::{self, Header, Source, Summary};

use crate::args::Snapshot;
use crate::failure::Failure;
use crate::progress::Progress;

const READ_BUFFER_BYTES: usize = 1 << 20;

/// Runs one of them.
pub async fn run(command: Snapshot) -> Result<(), Failure> {
    match command {
        Snapshot::Save(args) => save::run(args).await,
        Snapshot::Inspect(args) => {
            let verified = verify(&args.file)?;
            show::verified(&args.file, &verified, args.output)
        }
        Snapshot::Restore(args) => restore::run(&args),
    }
}

/// A backup that was read to its end and is whole.
pub struct Verified {
    /// Its origin and time.
    pub header: Header,
    /// Its content.
    pub summary: Summary,
    /// A checksum over all of it.
    pub source: Source,
    /// The file's length.
    pub bytes: u64,
}

fn verify(path: &Path) -> Result<Verified, Failure> {
    let (file, bytes) = open(path)?;
    verify_file(path, file, bytes)
}

fn verify_file(path: &Path, file: BufReader<File>, bytes: u64) -> Result<Verified, Failure> {
    let progress = Progress::bytes("verifying", bytes);
    let (header, summary, source) = backup::verify(file, |done| progress.set(done))
        .map_err(|error| Failure::failed(format!("{error} file={}", path.display())))?;
    Ok(Verified { header, summary, source, bytes })
}

fn open(path: &Path) -> Result<(BufReader<File>, u64), Failure> {
    let unreadable = |error| Failure::usage(format!("can't read the backup: {error} file={}", path.display()));
    buffered(File::open(path).map_err(unreadable)?).map_err(unreadable)
}

/// With its length.
fn buffered(file: File) -> std::io::Result<(BufReader<File>, u64)> {
    let bytes = file.metadata()?.len();
    Ok((BufReader::with_capacity(READ_BUFFER_BYTES, file), bytes))
}
