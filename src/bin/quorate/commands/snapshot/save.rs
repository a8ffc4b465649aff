//! `quorate snapshot save`: from a node into a file that is either whole or not there.

use std::io::Write;
use std::time::Duration;

use quorate::client::{Client, List, Revision};
use quorate::env::NewFile;

use super::{buffered, show, verify_file};
use crate::args;
use crate::commands::session::{ask_failure, connect, read_failure};
use crate::failure::Failure;
use crate::files;
use crate::output;
use crate::progress::Progress;

/// How long a node may take to catch up with what the backup must hold.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// Saves, syncs, verifies what lies on the disk, and gives it its name. Errors: there is no new file of that name.
pub async fn run(args: args::Save) -> Result<(), Failure> {
    files::require_free(&args.file)?;
    let client = connect(&args.ask.cluster)?;
    let received = receive(&client, &args).await;
    client.close().await;
    let mut file = received?;
    // Read back before it gets its name: what counts is what the disk has.
    let (written, bytes) = file.written().and_then(buffered).map_err(|error| files::unwritten(&error))?;
    let verified = verify_file(file.temporary(), written, bytes)?;
    files::publish(file)?;
    let done = format!("the backup is saved, whole and verified file={}", args.file.display());
    output::after(&done, show::verified(&args.file, &verified, args.ask.output))
}

async fn receive(client: &Client, args: &args::Save) -> Result<NewFile, Failure> {
    let at_least = if args.stale { Revision(0) } else { acknowledged(client).await? };
    let timeout = args.ask.cluster.timeout.unwrap_or(CATCH_UP_TIMEOUT);
    let mut backup = client.backup(at_least, timeout).await.map_err(ask_failure)?;
    let mut file = files::create(&args.file, files::PRIVATE)?;
    let progress = Progress::count("rows", 0);
    while let Some(piece) = backup.next().await.map_err(ask_failure)? {
        file.write_all(&piece.data).map_err(|error| files::unwritten(&error))?;
        progress.set_of(piece.rows_done, piece.rows_total);
    }
    Ok(file)
}

/// A revision that no acknowledged write lies behind.
async fn acknowledged(client: &Client) -> Result<Revision, Failure> {
    let one = List { limit: 1, ..List::default() };
    Ok(client.list(one).await.map_err(read_failure)?.revision)
}
