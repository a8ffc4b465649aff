//! `quorate session prune`: deletes the sessions of a prefix that nobody has written for long.

use std::time::Duration;

use quorate::client::{Client, Error, ErrorKind, Written};
use quorate::types::{Expected, ListPage, SessionId};
use serde_json::json;

use super::many::{Ended, Many};
use super::pages::{Deletes, Pages, Stop, ended};
use super::{close, connect, is_interrupted, print, write_failure};
use crate::args::{self, Output};
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;

/// Deletes what is idle, each only as it was listed.
pub async fn run(args: args::Prune) -> Result<(), Failure> {
    if args.prefix.is_empty() {
        return Err(Failure::usage("an empty prefix is every session; nothing was deleted; name one"));
    }
    let client = connect(&args.cluster)?;
    let result = match args.dry_run {
        true => would_delete(&client, &args).await,
        false => prune(&client, &args).await,
    };
    close(&client, is_interrupted(&result)).await;
    result
}

/// Sessions that were written last at or before this time, in milliseconds, are idle; `None`: none can be.
///
/// The time is that of the page's own view: neither this machine's clock nor a later view's, by which a session could look older than it
/// was when it was seen. Errors: the node does not say it.
fn idle_until_ms(machine_time_ms: Option<u64>, idle_for: Duration) -> Result<Option<u64>, Failure> {
    let Some(now_ms) = machine_time_ms else {
        return Err(Failure::failed(
            "the node that listed the sessions is of a release that does not say the cluster's time: upgrade it",
        ));
    };
    Ok(u64::try_from(idle_for.as_millis()).ok().and_then(|idle_ms| now_ms.checked_sub(idle_ms)))
}

/// The idle sessions of a page, and what each must still be.
fn idle(page: ListPage, idle_for: Duration) -> Result<impl Iterator<Item = (SessionId, Expected)>, Failure> {
    let until_ms = idle_until_ms(page.machine_time_ms, idle_for)?;
    let sessions = page.sessions.into_iter();
    Ok(sessions.filter(move |listed| until_ms.is_some_and(|until_ms| listed.info.updated_ms <= until_ms)).map(|listed| {
        let expected = Expected::At { version: listed.info.version, create_revision: Some(listed.info.create_revision) };
        (listed.id, expected)
    }))
}

/// Prints the ids that are idle now, one a line.
async fn would_delete(client: &Client, args: &args::Prune) -> Result<(), Failure> {
    let (mut pages, mut seen, mut count) = (Pages::new(client, &args.prefix), 0, 0);
    while let Some(page) = pages.next().await? {
        seen += page.sessions.len();
        let ids: Vec<SessionId> = idle(page, args.idle_for)?.map(|(id, _)| id).collect();
        count += ids.len();
        if args.output == Output::Table {
            output::bytes(print::id_lines(ids.iter().map(SessionId::as_str)).as_bytes())?;
        }
    }
    match args.output {
        Output::Json => output::json(&json!({ "seen": seen, "would_delete": count, "deleted": 0 }))?,
        Output::Table => print::note(&format!("nothing was deleted; without --dry-run: sessions={count} of={seen}")),
    }
    Ok(())
}

/// Deletes, as far as they are known.
#[derive(Default)]
struct Count {
    seen: u64,
    idle: u64,
    deleted: u64,
    /// Written or created again meanwhile, and kept.
    changed: u64,
    absent: u64,
    /// The first failure: nothing is begun after it.
    failure: Option<Failure>,
}

impl Count {
    fn add(&mut self, ended: Ended<Result<Option<Written>, Error>>) {
        match ended.result {
            Ok(Some(_)) => self.deleted += 1,
            Ok(None) => self.absent += 1,
            Err(error) => match error.kind() {
                ErrorKind::Conflict { actual } if actual.0 == 0 => self.absent += 1,
                ErrorKind::Conflict { .. } => self.changed += 1,
                _ => self.failure = self.failure.take().or_else(|| Some(write_failure(error))),
            },
        }
    }
}

async fn prune(client: &Client, args: &args::Prune) -> Result<(), Failure> {
    let progress = Progress::count("pruning", 0);
    let mut many = Many::new(Some(args.rate))?;
    let mut count = Count::default();
    let begun = delete_idle(client, args, &mut many, &mut count, &progress).await;
    let drained = many.drain(|ended| count.add(ended)).await;
    drop(progress);
    let Count { seen, idle, deleted, changed, absent, failure } = count;
    let unknown = many.open();
    let done = format!("deleted={deleted} changed={changed} absent={absent} idle={idle} of={seen}");
    output::changed(args.output, &done, || {
        json!({
            "seen": seen,
            "idle": idle,
            "deleted": deleted,
            "changed": changed,
            "absent": absent,
            "unknown": unknown,
        })
    })?;
    ended(failure, begun, drained, deleted, unknown)
}

async fn delete_idle(
    client: &Client,
    args: &args::Prune,
    many: &mut Deletes,
    count: &mut Count,
    progress: &Progress,
) -> Result<(), Stop> {
    let mut pages = Pages::new(client, &args.prefix);
    while let Some(page) = many.unless_interrupted(pages.next()).await?.map_err(Stop::Failed)? {
        count.seen += page.sessions.len() as u64;
        let idle: Vec<_> = idle(page, args.idle_for).map_err(Stop::Failed)?.collect();
        count.idle += idle.len() as u64;
        for (id, expected) in idle {
            while let Some(ended) = many.room(id.as_str(), 0).await? {
                count.add(ended);
                progress.set_of(count.deleted + count.changed + count.absent, count.idle);
            }
            if count.failure.is_some() {
                return Ok(());
            }
            let (client, deleted) = (client.clone(), id.clone());
            many.begin(id.as_str(), 0, async move { client.delete(deleted.as_str(), Some(expected)).await });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_judged_by_the_time_of_the_page_and_by_no_other() {
        let day = Duration::from_secs(24 * 3600);
        let until = |now_ms, idle_for| idle_until_ms(now_ms, idle_for).ok().flatten();
        assert_eq!(until(Some(86_400_007), day), Some(7));
        assert_eq!(until(Some(86_400_000), day), Some(0));
        assert_eq!(until(Some(86_399_999), day), None, "nothing is older than the time there was");
        assert_eq!(until(Some(0), Duration::MAX), None);
        let failure = idle_until_ms(None, day).expect_err("no clock of ours takes its place");
        assert!(failure.message.contains("upgrade it"), "{}", failure.message);
    }
}
