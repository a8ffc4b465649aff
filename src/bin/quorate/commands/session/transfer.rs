//! `quorate session export`: sessions as JSON, one per line.

use std::io::Write;
use std::time::Duration;

use quorate::client::{Client, ErrorKind, LoadOptions};
use quorate::types::{List, SessionId};

use super::exact::session_json;
use super::many::Interrupted;
use super::{close, connect, missing, print, read_failure, stale};
use crate::args;
use crate::failure::{Code, Failure};
use crate::files::Sink;
use crate::output;
use crate::progress::Progress;
use crate::signals::Signals;

/// Writes sessions, one JSON document per line. Errors: stdout has whole lines so far; of a file, there is none of that name.
pub async fn export(args: args::Export) -> Result<(), Failure> {
    let mut signals = Signals::install().map_err(|error| Failure::failed(format!("can't listen for signals: {error}")))?;
    let client = connect(&args.cluster)?;
    let mut out = Sink::open(&args.file)?;
    let result = tokio::select! {
        result = export_to(&client, &args, &mut out) => Ok(result),
        () = signals.recv() => Err(Interrupted),
    };
    close(&client, result.is_err()).await;
    let is_stdout = args.file.as_os_str() == "-";
    let Ok(result) = result else {
        let text = if is_stdout { "interrupted: not all was written" } else { "interrupted: no file was made" };
        return Err(Failure { code: Code::Interrupted, message: format!("{text}; type it again file={}", args.file.display()) });
    };
    let Exported { sessions, refused, age } = result?;
    out.finish()?;
    if args.stale {
        stale::tell(age);
    }
    if !is_stdout {
        print::note(&format!("exported sessions={sessions} file={}", args.file.display()));
    }
    unless_refused(refused)
}

/// Errors: so many sessions could not be read.
pub fn unless_refused(refused: u64) -> Result<(), Failure> {
    match refused {
        0 => Ok(()),
        _ => Err(Failure::failed(format!("some were not exported, each is named above; all others are refused={refused}"))),
    }
}

/// One session that can't be read keeps no other from being written.
pub fn refuse(id: &str, why: &Failure) {
    print::note(&format!("not exported: {} id={}", why.message, output::printable(id)));
}

/// The results of all exports.
#[derive(Default)]
struct Exported {
    sessions: u64,
    refused: u64,
    /// Of stale reads, the oldest.
    age: Option<Duration>,
}

async fn export_to(client: &Client, args: &args::Export, out: &mut Sink) -> Result<Exported, Failure> {
    let options = LoadOptions { consistency: stale::consistency(args.stale) };
    let progress = Progress::count("exporting", 0);
    let mut exported = Exported::default();
    let mut one = async |id: &str, must_exist: bool| -> Result<(), Failure> {
        let read = match client.load_with(id, options).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                exported.refused += 1;
                refuse(id, &read_failure(error));
                return Ok(());
            }
            read => read.map_err(read_failure)?,
        };
        exported.age = exported.age.max(read.age);
        let Some(session) = read.session else {
            // One that was listed may be gone by now.
            return if must_exist { Err(missing(id)) } else { Ok(()) };
        };
        let line = session_json(id, &session) + "\n";
        out.write_all(line.as_bytes())?;
        exported.sessions += 1;
        progress.set_of(exported.sessions, exported.sessions);
        Ok(())
    };
    for id in &args.ids {
        one(id, true).await?;
    }
    let mut after: Option<SessionId> = None;
    while args.ids.is_empty() {
        let consistency = options.consistency;
        let list = List { prefix: args.prefix.clone(), after: after.take(), consistency, ..List::default() };
        let page = client.list(list).await.map_err(read_failure)?;
        for listed in &page.sessions {
            one(listed.id.as_str(), false).await?;
        }
        after = page.sessions.last().map(|listed| listed.id.clone());
        if !page.more || after.is_none() {
            break;
        }
    }
    out.flush()?;
    Ok(exported)
}
