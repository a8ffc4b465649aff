//! `bench --cleanup`: removes the sessions that measuring an existing cluster has left in it.

use quorate::client::Client;
use quorate::testing::load::PREFIX;
use quorate::types::{List, SessionId};
use serde_json::json;
use tokio::task::JoinSet;

use crate::args;
use crate::commands::session::{connect, read_failure};
use crate::failure::Failure;
use crate::output;

/// Deletes at once.
const DELETES_MAX: usize = 16;

/// Deletes all sessions whose ids begin as the benchmark's do, and says how many there were. Errors: a call failed; those that were
/// deleted stay so.
pub async fn run(args: &args::Bench) -> Result<(), Failure> {
    let cluster = args::Cluster { endpoints: args.endpoints.clone(), timeout: None, credentials: args.credentials.clone() };
    let client = connect(&cluster)?;
    let mut removed = 0;
    let result = remove(&client, &mut removed).await;
    client.close().await;
    output::print(args.output, || json!({ "removed": removed }), || format!("removed sessions={removed} prefix={PREFIX}"))?;
    result
}

async fn remove(client: &Client, removed: &mut u64) -> Result<(), Failure> {
    let mut after: Option<SessionId> = None;
    loop {
        let list = List { prefix: PREFIX.into(), after, ..List::default() };
        let page = client.list(list).await.map_err(read_failure)?;
        after = page.sessions.last().map(|listed| listed.id.clone());
        let mut deletes = JoinSet::new();
        for listed in page.sessions {
            if deletes.len() >= DELETES_MAX {
                *removed += ended(deletes.join_next().await)?;
            }
            let client = client.clone();
            deletes.spawn(async move { client.delete(listed.id.as_str(), None).await });
        }
        while !deletes.is_empty() {
            *removed += ended(deletes.join_next().await)?;
        }
        if !page.more || after.is_none() {
            return Ok(());
        }
    }
}

type Deleted = Result<Option<quorate::client::Written>, quorate::client::Error>;

/// How many were deleted by one call.
fn ended(joined: Option<Result<Deleted, tokio::task::JoinError>>) -> Result<u64, Failure> {
    match joined {
        None => Ok(0),
        Some(Ok(deleted)) => deleted.map(|deleted| u64::from(deleted.is_some())).map_err(read_failure),
        Some(Err(error)) => Err(Failure::failed(format!("a delete ended: {error}"))),
    }
}
