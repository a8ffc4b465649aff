//! `quorate offline`: the files of a stopped node, read only.

use std::io::Write;

use quorate::client::Session;
use quorate::limits::LIST_PAGE_MAX;
use quorate::offline::{Error, StoppedNode};
use quorate::types::{Load, Revision};
use serde_json::{Value, json};

use crate::args;
use crate::commands::session::{read_failure, refuse, session_json, unless_refused};
use crate::failure::Failure;
use crate::files::Sink;
use crate::output;
use crate::progress::Progress;

/// Runs one of them. Errors: a node runs on the directory, or something in it is damaged; the message names it.
pub fn run(command: &args::Offline) -> Result<(), Failure> {
    end_if_the_engine_panics();
    match command {
        args::Offline::Inspect(args) => {
            output::fields(&fields(&StoppedNode::open(&args.data_dir).map_err(failure)?), 14, args.output)
        }
        args::Offline::Verify(args) => verify(args),
        args::Offline::Export(args) => export(args),
    }
}

/// The engine of the state file panics on some damage of its pages: that is damage of the file, and said as such, instead of a panic
/// and an abort.
pub fn end_if_the_engine_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map_or("", |place| place.file());
        let Some(what) = engine_gave_up(file, panic.payload_as_str().unwrap_or("it does not say why")) else {
            return before(panic);
        };
        // With stderr gone nobody is left to tell.
        let _ = writeln!(std::io::stderr(), "error: {what}");
        std::process::exit(1);
    }));
}

/// The meaning of a panic from this source file; `None`: the panic is one of ours.
fn engine_gave_up(file: &str, why: &str) -> Option<String> {
    let why = output::printable(&why.replace('\n', " "));
    file.contains("/redb-").then(|| format!("state: the file is damaged: its engine gave up reading it: {why}"))
}

fn failure(error: Error) -> Failure {
    Failure::failed(error)
}

fn fields(offline: &StoppedNode) -> Vec<(&'static str, Value)> {
    let (identity, log, counts) = (offline.identity(), offline.log(), offline.counts());
    vec![
        ("node", json!(identity.node().0)),
        ("cluster_id", json!(identity.cluster().map(|id| id.to_string()))),
        ("initialized", json!(identity.was_initialized())),
        ("applied", json!(offline.applied())),
        ("last_log", json!(log.position.last.map(|last| last.index))),
        ("purged", json!(log.position.purged.map(|purged| purged.index))),
        ("log_entries", json!(log.entries)),
        ("log_bytes", json!(log.bytes)),
        ("log_segments", json!(log.segments)),
        ("state_bytes", json!(offline.state_bytes())),
        ("sessions", json!(counts.sessions)),
        ("tombstones", json!(counts.tombstones)),
        ("clients", json!(counts.clients)),
    ]
}

fn verify(args: &args::Look) -> Result<(), Failure> {
    let offline = StoppedNode::open(&args.data_dir).map_err(failure)?;
    let progress = Progress::count("verifying rows", offline.rows());
    let summary = offline.verify(|done| progress.set(done)).map_err(failure)?;
    drop(progress);
    let mut fields = fields(&offline);
    fields.extend([
        ("rows", json!(summary.rows)),
        ("chunks", json!(summary.totals.chunks)),
        ("content_bytes", json!(summary.totals.stored_bytes)),
        ("damage", json!("none")),
    ]);
    output::fields(&fields, 14, args.output)
}

fn export(args: &args::OfflineExport) -> Result<(), Failure> {
    let offline = StoppedNode::open(&args.data_dir).map_err(failure)?;
    let mut out = Sink::open(&args.file)?;
    let progress = Progress::count("exporting", offline.counts().sessions);
    let revision = Revision(offline.applied().unwrap_or(0));
    let (mut after, mut done, mut refused): (Option<String>, u64, u64) = (None, 0, 0);
    loop {
        let (sessions, more) = offline.list(&args.prefix, after.as_deref(), LIST_PAGE_MAX);
        for listed in &sessions {
            let load = Load::whole(listed.id.clone());
            let Some(content) = offline.load(load).map_err(failure)? else { continue };
            let session = match Session::from_stored(content, revision) {
                Ok(session) => session,
                Err(error) => {
                    refused += 1;
                    refuse(listed.id.as_str(), &read_failure(error));
                    continue;
                }
            };
            let line = session_json(listed.id.as_str(), &session) + "\n";
            out.write_all(line.as_bytes())?;
            done += 1;
            progress.set(done);
        }
        after = sessions.last().map(|listed| listed.id.as_str().to_owned());
        if !more || after.is_none() {
            break;
        }
    }
    out.finish()?;
    unless_refused(refused)
}

#[cfg(test)]
mod tests {
    use super::engine_gave_up;

    #[test]
    fn a_panic_of_the_engine_is_damage_of_its_file_and_one_of_ours_stays_a_panic() {
        let said = engine_gave_up("/home/u/.cargo/registry/src/index/redb-4.6.0/src/tree_store/page.rs", "a bound\nis wrong");
        let expected = "state: the file is damaged: its engine gave up reading it: a bound is wrong";
        assert_eq!(said.as_deref(), Some(expected));
        assert_eq!(engine_gave_up("src/offline/stopped_node.rs", "a bound is wrong"), None);
    }
}
