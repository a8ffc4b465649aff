//! `quorate session watch`: one line for each change, until it is stopped.

use quorate::client::{Client, Position, Selector, SessionChange, WatchFrame, WatchOptions};
use quorate::types::{ClusterId, Revision, SessionId};
use serde_json::json;

use super::{connect, print, read_failure, session_id};
use crate::args::{self, Output};
use crate::failure::Failure;
use crate::output;

/// Watches until a signal, or until the watch ends.
pub async fn run(args: args::Watch) -> Result<(), Failure> {
    let sessions = match args.prefix {
        Some(prefix) => Selector::Prefix(prefix),
        None => Selector::Ids(args.ids.iter().map(|id| session_id(id)).collect::<Result<Vec<SessionId>, Failure>>()?),
    };
    let from = args.from.as_deref().map(position).transpose()?;
    let client = connect(&args.cluster)?;
    let result = print_changes(&client, WatchOptions { sessions, from, initial: args.initial }, args.output).await;
    client.close().await;
    result
}

/// `CLUSTER:REVISION`, as the lines of a watch end with.
fn position(text: &str) -> Result<Position, Failure> {
    let parsed = text.split_once(':').and_then(|(cluster, revision)| {
        Some(Position { cluster_id: ClusterId::from_hex(cluster)?, revision: Revision(revision.parse().ok()?) })
    });
    parsed.ok_or_else(|| {
        Failure::usage(format!("--from takes CLUSTER:REVISION, 32 hex digits and a number: {}", output::printable(text)))
    })
}

async fn print_changes(client: &Client, options: WatchOptions, output: Output) -> Result<(), Failure> {
    let mut watching = client.watch(options).map_err(read_failure)?;
    while let Some(frame) = watching.next().await {
        match frame {
            Ok(frame) => print_frame(&frame, output)?,
            Err(error) => {
                let is_over = !matches!(error.kind(), quorate::client::ErrorKind::Refused { .. });
                if is_over {
                    return Err(read_failure(error));
                }
                print::note(&format!("no node answers for 30 s; the watch continues, and nothing will be missing: {error}"));
            }
        }
    }
    Err(Failure::failed("the watch ended; begin it again with --from and the last place it printed"))
}

fn print_frame(frame: &WatchFrame, output: Output) -> Result<(), Failure> {
    if frame.resync && output != Output::Json {
        print::note("resync: all sessions follow; those that do not come are gone");
    }
    for change in &frame.changes {
        let text = match (change, output) {
            (SessionChange::Saved { id, info }, Output::Json) => {
                let mut document = print::info_json(info);
                document.insert("id".into(), json!(id.as_str()));
                document.insert("change".into(), json!("saved"));
                serde_json::Value::Object(document).to_string()
            }
            (SessionChange::Gone { id }, Output::Json) => json!({ "change": "gone", "id": id.as_str() }).to_string(),
            (SessionChange::Saved { id, info }, _) => {
                format!("saved version={} revision={} {}", info.version, info.mod_revision, output::printable(id.as_str()))
            }
            (SessionChange::Gone { id }, _) => format!("gone {}", output::printable(id.as_str())),
        };
        output::line(&text)?;
    }
    if output == Output::Json {
        let WatchFrame { cluster_id, revision, complete, resync, walked, age_ms, .. } = frame;
        let from = revision.map(|revision| format!("{cluster_id}:{revision}"));
        let end = json!({
            "change": "frame", "from": from, "complete": complete, "resync": resync, "walked": walked, "age_ms": age_ms,
        });
        output::line(&end.to_string())?;
    }
    Ok(())
}
