//! `quorate session rm`: one session, several, or all of a prefix.

use quorate::client::{Client, Error, Part, TurnOptions, Wait, Written};
use quorate::limits::LEASE_TTL_MIN;
use serde_json::json;

use super::many::{Ended, Many};
use super::pages::{Deletes, Pages, Stop, ended};
use super::{close, connect, expected, is_interrupted, print, read_failure, read_id, write_failure};
use crate::args::{self, Output};
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;

/// The holder of a lease that is taken to delete.
const HOLDER: &str = "quorate session rm --steal";

/// Deletes what is named. Of several, what can't be deleted ends it, with a count of what was.
pub async fn run(args: args::Rm) -> Result<(), Failure> {
    if args.prefix.as_deref() == Some("") {
        return Err(Failure::usage("an empty prefix is every session; nothing was deleted; name one"));
    }
    let ids = args.ids.iter().map(|id| read_id(id)).chain(args.named.clone().map(Ok)).collect::<Result<Vec<_>, _>>()?;
    if args.expect.is_some() && ids.len() != 1 {
        return Err(Failure::usage("--expect is the version of one session; nothing was deleted; name one"));
    }
    if args.steal && ids.len() != 1 {
        return Err(Failure::usage("--steal takes the lease of one session; nothing was deleted; name one"));
    }
    let client = connect(&args.ask.cluster)?;
    let result = match (&ids[..], &args.prefix, args.dry_run) {
        (_, _, true) => would_delete(&client, &ids, &args).await,
        ([id], None, false) => one(&client, id, &args).await,
        _ => several(&client, &ids, &args).await,
    };
    close(&client, is_interrupted(&result)).await;
    result
}

async fn one(client: &Client, id: &str, args: &args::Rm) -> Result<(), Failure> {
    let deleted = match args.steal {
        true => under_a_lease(client, id, args).await,
        false => client.delete(id, args.expect.map(expected)).await,
    };
    let deleted = deleted.map_err(write_failure)?;
    let done = match &deleted {
        Some(deleted) => format!("deleted version={} revision={}", deleted.version, deleted.revision),
        None => "nothing to delete".to_owned(),
    };
    let printed = match (deleted, args.ask.output) {
        (Some(deleted), Output::Json) => output::json(&print::written_json(id, &deleted)),
        (None, Output::Json) => output::json(&json!({ "id": id, "version": null, "revision": null })),
        (_, Output::Table) => output::line(&done),
    };
    output::after(&done, printed.map_err(Failure::from))
}

/// Takes the lease of a session from its holder, deletes under it, and gives it back.
async fn under_a_lease(client: &Client, id: &str, args: &args::Rm) -> Result<Option<Written>, Error> {
    let options = TurnOptions { holder: HOLDER.to_owned(), ttl: LEASE_TTL_MIN, wait: Wait::Interrupt };
    let turn = client.turn(id, options).await?;
    let deleted = turn.delete(args.expect.map(expected)).await;
    // Where it can't be given back, it ends by itself within seconds.
    let _ = turn.release().await;
    deleted
}

/// Prints the ids that are there, one a line.
async fn would_delete(client: &Client, ids: &[String], args: &args::Rm) -> Result<(), Failure> {
    let mut found = Vec::new();
    for id in ids {
        if client.load_part(id, Part::Info).await.map_err(read_failure)?.is_some() {
            found.push(id.clone());
        }
    }
    let mut count = 0;
    let mut tell = |ids: &[String]| -> Result<(), Failure> {
        count += ids.len();
        match args.ask.output {
            Output::Table => Ok(output::bytes(print::id_lines(ids.iter().map(String::as_str)).as_bytes())?),
            Output::Json => Ok(()),
        }
    };
    tell(&found)?;
    if let Some(prefix) = &args.prefix {
        let mut pages = Pages::new(client, prefix);
        loop {
            let page = pages.next_ids().await?;
            if page.is_empty() {
                break;
            }
            tell(&page)?;
        }
    }
    match args.ask.output {
        Output::Json => output::json(&json!({ "would_delete": count, "deleted": 0 }))?,
        Output::Table => print::note(&format!("nothing was deleted; without --dry-run: sessions={count}")),
    }
    Ok(())
}

/// Deletes of several sessions, as far as they are known.
#[derive(Default)]
struct Count {
    deleted: u64,
    absent: u64,
    /// The first failure: nothing is begun after it.
    failure: Option<Failure>,
}

impl Count {
    fn add(&mut self, ended: Ended<Result<Option<Written>, Error>>) {
        match ended.result {
            Ok(Some(_)) => self.deleted += 1,
            Ok(None) => self.absent += 1,
            Err(error) => self.failure = self.failure.take().or_else(|| Some(write_failure(error))),
        }
    }
}

async fn several(client: &Client, ids: &[String], args: &args::Rm) -> Result<(), Failure> {
    let progress = Progress::count("deleting", ids.len() as u64);
    let mut many = Many::new(args.rate)?;
    let mut count = Count::default();
    let begun = delete_all(client, ids, args, &mut many, &mut count, &progress).await;
    let drained = many.drain(|ended| count.add(ended)).await;
    drop(progress);
    let Count { deleted, absent, failure } = count;
    let unknown = many.open();
    let done = format!("deleted={deleted} absent={absent}");
    output::changed(args.ask.output, &done, || json!({ "deleted": deleted, "absent": absent, "unknown": unknown }))?;
    ended(failure, begun, drained, deleted, unknown)
}

async fn delete_all(
    client: &Client,
    ids: &[String],
    args: &args::Rm,
    many: &mut Deletes,
    count: &mut Count,
    progress: &Progress,
) -> Result<(), Stop> {
    let mut pages = args.prefix.as_deref().map(|prefix| Pages::new(client, prefix));
    let (mut page, mut found) = (ids.to_vec(), 0);
    loop {
        found += page.len() as u64;
        for id in &page {
            while let Some(ended) = many.room(id, 0).await? {
                count.add(ended);
                progress.set_of(count.deleted + count.absent, found);
            }
            if count.failure.is_some() {
                return Ok(());
            }
            let (client, deleted) = (client.clone(), id.clone());
            many.begin(id, 0, async move { client.delete(&deleted, None).await });
        }
        let Some(pages) = &mut pages else { return Ok(()) };
        page = many.unless_interrupted(pages.next_ids()).await?.map_err(Stop::Failed)?;
        if page.is_empty() {
            return Ok(());
        }
    }
}
