//! `quorate lease`: who has the turn of which session, and ending a lease.

use std::time::Duration;

use quorate::client::Client;
use quorate::limits::LIST_PAGE_MAX;
use quorate::types::{Fence, Lease, List, ListPage, Order, SessionId};
use serde_json::{Value, json};

use super::session::{connect, read_failure, session_id, stale, typed_id, write_failure};
use crate::args;
use crate::failure::{Code, Failure};
use crate::output;

/// Runs one of them.
pub async fn run(command: args::Lease) -> Result<(), Failure> {
    match command {
        args::Lease::Ls(args) => ls(args).await,
        args::Lease::Show(args) => show(args).await,
        args::Lease::Release(args) => release(args).await,
    }
}

/// A lease, with the machine time of the view that it is of.
struct Seen {
    id: SessionId,
    lease: Lease,
    now_ms: Option<u64>,
}

impl Seen {
    fn all(page: ListPage) -> impl Iterator<Item = Self> {
        let now_ms = page.machine_time_ms;
        page.leases.into_iter().map(move |(id, lease)| Self { id, lease, now_ms })
    }

    fn left_ms(&self) -> Option<u64> {
        Some(self.lease.deadline_ms.saturating_sub(self.now_ms?))
    }

    fn left(&self) -> String {
        let seconds = |ms: u64| humantime::format_duration(Duration::from_secs(ms.div_ceil(1000))).to_string();
        self.left_ms().map_or_else(|| "-".to_owned(), seconds)
    }

    fn json(&self) -> Value {
        let Lease { fence, holder, deadline_ms } = &self.lease;
        json!({
            "id": self.id.as_str(),
            "fence": fence.0,
            "holder": holder.as_str(),
            "deadline_ms": deadline_ms,
            "left_ms": self.left_ms(),
        })
    }
}

/// Pages through the listing; each page is of one instant, the whole of several.
async fn ls(args: args::LeaseLs) -> Result<(), Failure> {
    let client = connect(&args.cluster)?;
    let listed = all(&client, &args).await;
    client.close().await;
    let leases = listed?;
    let as_json = || json!({ "leases": leases.iter().map(Seen::json).collect::<Vec<_>>() });
    Ok(output::print(args.output, as_json, || as_table(&leases))?)
}

async fn all(client: &Client, args: &args::LeaseLs) -> Result<Vec<Seen>, Failure> {
    let (mut leases, mut after) = (Vec::new(), None);
    loop {
        let left = args.limit.unwrap_or(u64::MAX).saturating_sub(leases.len() as u64);
        if left == 0 {
            return Ok(leases);
        }
        let limit = left.min(u64::from(LIST_PAGE_MAX)) as u32;
        let page = page(client, &args.prefix, after, limit, args.stale).await?;
        if args.stale && leases.is_empty() {
            stale::tell(page.age_ms.map(Duration::from_millis));
        }
        let more = page.more;
        leases.extend(Seen::all(page));
        after = leases.last().map(|seen| seen.id.clone());
        if !more || after.is_none() {
            return Ok(leases);
        }
    }
}

async fn page(client: &Client, prefix: &str, after: Option<SessionId>, limit: u32, is_stale: bool) -> Result<ListPage, Failure> {
    let consistency = stale::consistency(is_stale);
    let list = List { prefix: prefix.to_owned(), after, limit, consistency, order: Order::Leases };
    client.list(list).await.map_err(read_failure)
}

fn as_table(leases: &[Seen]) -> String {
    let mut table = output::table(["FENCE", "LEFT", "HOLDER", "ID"]);
    for seen in leases {
        let (fence, holder) = (seen.lease.fence.0.to_string(), output::printable(seen.lease.holder.as_str()));
        table.add_row([fence, seen.left(), holder, output::printable(seen.id.as_str())]);
    }
    table.trim_fmt()
}

/// The lease of one session: of all ids that begin with its own, that is the first.
async fn of(client: &Client, id: &SessionId, is_stale: bool) -> Result<Option<Seen>, Failure> {
    let page = page(client, id.as_str(), None, 1, is_stale).await?;
    if is_stale {
        stale::tell(page.age_ms.map(Duration::from_millis));
    }
    Ok(Seen::all(page).next().filter(|seen| seen.id == *id))
}

async fn show(args: args::LeaseShow) -> Result<(), Failure> {
    let id = session_id(&typed_id(&args.id)?)?;
    let client = connect(&args.ask.cluster)?;
    let found = of(&client, &id, args.stale).await;
    client.close().await;
    match (found?, args.ask.output) {
        (Some(seen), args::Output::Json) => {
            let mut document = seen.json();
            document["found"] = json!(true);
            output::json(&document)?;
        }
        (Some(seen), args::Output::Table) => output::line(&as_lines(&seen))?,
        (None, how) => {
            if how == args::Output::Json {
                output::json(&json!({ "found": false, "id": id.as_str() }))?;
            }
            return Err(nobody(&id, "nobody has the turn of this session"));
        }
    }
    Ok(())
}

fn as_lines(seen: &Seen) -> String {
    let lines = [
        ("id", output::printable(seen.id.as_str())),
        ("fence", seen.lease.fence.0.to_string()),
        ("holder", output::printable(seen.lease.holder.as_str())),
        ("until", output::time(seen.lease.deadline_ms)),
        ("left", seen.left()),
    ];
    lines.iter().map(|(name, value)| format!("{name:<8} {value}")).collect::<Vec<_>>().join("\n")
}

fn nobody(id: &SessionId, what: &str) -> Failure {
    Failure { code: Code::NotFound, message: format!("{what} id={}", output::printable(id.as_str())) }
}

async fn release(args: args::LeaseRelease) -> Result<(), Failure> {
    let id = session_id(&typed_id(&args.id)?)?;
    let client = connect(&args.ask.cluster)?;
    let released = end(&client, &id, args.fence).await;
    client.close().await;
    let Some(fence) = released? else {
        return Err(nobody(&id, "nobody has the turn of this session, or it is not this lease; nothing changed"));
    };
    let done = format!("released fence={fence}");
    output::changed(args.ask.output, &done, || json!({ "id": id.as_str(), "fence": fence, "released": true }))
}

/// Ends a lease, and gives its number; `None`: there is none such.
async fn end(client: &Client, id: &SessionId, fence: Option<u64>) -> Result<Option<u64>, Failure> {
    let fence = match fence {
        Some(fence) => Some(fence),
        None => of(client, id, false).await?.map(|seen| seen.lease.fence.0),
    };
    let Some(fence) = fence else { return Ok(None) };
    let released = client.release_lease(id.as_str(), Fence(fence)).await.map_err(write_failure)?;
    Ok(released.then_some(fence))
}
