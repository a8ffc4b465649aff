//! `quorate snapshot save`: from a node into a file that is either whole or not there.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate::client::{Client, List, Revision};

use super::{show, verify};
use crate::args;
use crate::commands::session::{connect, read_failure};
use crate::failure::Failure;
use crate::progress::Progress;

/// How long a node may take to catch up with what the backup must hold.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// Saves, syncs, verifies what lies on the disk, and gives it its name. Errors: there is no new file of that name.
pub async fn run(args: args::Save) -> Result<(), Failure> {
    let exists = || Failure::usage(format!("there is a file of this name already; name another one file={}", args.file.display()));
    if args.file.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let partial = partial_of(&args.file)?;
    let client = connect(&args.cluster)?;
    let received = receive(&client, &args, &partial).await;
    client.close().await;
    // Read back before it gets its name: what counts is what the disk has.
    let verified = received.and_then(|()| verify(&partial)).and_then(|verified| {
        if args.file.symlink_metadata().is_ok() {
            return Err(exists());
        }
        publish(&partial, &args.file).map_err(|error| unwritten(&args.file, &error))?;
        Ok(verified)
    });
    if verified.is_err() {
        // What cannot be removed now is overwritten by the next attempt.
        let _ = fs::remove_file(&partial);
    }
    show::verified(&args.file, &verified?, args.output)
}

fn partial_of(file: &Path) -> Result<PathBuf, Failure> {
    let name = file.file_name().ok_or_else(|| Failure::usage(format!("this names no file file={}", file.display())))?;
    let mut name = name.to_owned();
    name.push(".partial");
    Ok(file.with_file_name(name))
}

async fn receive(client: &Client, args: &args::Save, partial: &Path) -> Result<(), Failure> {
    let at_least = if args.stale { Revision(0) } else { acknowledged(client).await? };
    let timeout = args.cluster.timeout.unwrap_or(CATCH_UP_TIMEOUT);
    let mut backup = client.backup(at_least, timeout).await.map_err(read_failure)?;
    let failed = |error: std::io::Error| unwritten(partial, &error);
    let mut file = File::create(partial).map_err(failed)?;
    let progress = Progress::count("rows", 0);
    while let Some(piece) = backup.next().await.map_err(read_failure)? {
        file.write_all(&piece.data).map_err(failed)?;
        progress.set_of(piece.rows_done, piece.rows_total);
    }
    file.sync_all().map_err(failed)
}

/// A revision that no acknowledged write lies behind.
async fn acknowledged(client: &Client) -> Result<Revision, Failure> {
    let one = List { limit: 1, ..List::default() };
    Ok(client.list(one).await.map_err(read_failure)?.revision)
}

fn publish(partial: &Path, file: &Path) -> std::io::Result<()> {
    fs::rename(partial, file)?;
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("the backup can't be written: {error} file={}", path.display()))
}
