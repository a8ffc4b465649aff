//! `quorate admin purge`: what was deleted leaves the disks, node by node.

use std::time::Duration;

use quorate::client::{Client, Member, NodeId, PurgeProgress, Revision, Role, StatusOptions};
use serde_json::json;

use crate::args::{self, Output};
use crate::commands::session::{ask_failure, connect};
use crate::failure::{Code, Failure};
use crate::output;
use crate::progress::Progress;

/// How long a leader may take to hand over.
const HAND_OVER: Duration = Duration::from_secs(30);

/// Asks one node after the other, the leader last. Errors: one of them did not end it; those before it are named.
pub async fn run(args: args::Purge) -> Result<(), Failure> {
    let client = connect(&args.ask.cluster)?;
    let purged = purge_all(&client, &args).await;
    client.close().await;
    let purged = purged?;
    match args.ask.output {
        Output::Json => {
            let nodes: Vec<_> = purged.iter().map(|(node, revision)| json!({ "node": node.0, "revision": revision.0 })).collect();
            output::json(&json!({ "nodes": nodes }))?;
        }
        Output::Table => purged.iter().try_for_each(|(node, revision)| output::line(&sentence(*node, *revision)))?,
    }
    Ok(())
}

fn sentence(node: NodeId, revision: Revision) -> String {
    format!("node {node}: nothing that was deleted or replaced before revision {revision} is on its disk")
}

async fn purge_all(client: &Client, args: &args::Purge) -> Result<Vec<(NodeId, Revision)>, Failure> {
    let mut members = client.members().await.map_err(ask_failure)?.members;
    if let Some(only) = args.node {
        members.retain(|member| member.id.0 == only);
        if members.is_empty() {
            return Err(Failure::usage(format!("no member has this id; see `quorate member list` node={only}")));
        }
    }
    let leader = leader(client).await;
    members.sort_by_key(|member| Some(member.id) == leader);
    let is_alone = args.node.is_none() && members.len() == 1;
    let mut purged = Vec::new();
    for member in members {
        let hands_over = Some(member.id) == leader && !is_alone;
        let result = purge_one(client, args, &member, hands_over).await;
        let revision = result.map_err(|failure| with_those_done(failure, &member, &purged))?;
        purged.push((member.id, revision));
    }
    Ok(purged)
}

async fn leader(client: &Client) -> Option<NodeId> {
    let status = client.status(StatusOptions::default()).await.ok()?;
    status.nodes.into_iter().find(|node| node.role == Role::Leader).map(|node| node.id)
}

async fn purge_one(client: &Client, args: &args::Purge, member: &Member, hands_over: bool) -> Result<Revision, Failure> {
    if hands_over {
        // Its updates wait while its state moves: those of another leader do not. Nobody to hand over to is no reason to stop.
        let _ = client.transfer_leadership(None, args.ask.cluster.timeout.unwrap_or(HAND_OVER)).await;
    }
    let cluster = args::Cluster { endpoints: vec![member.client_address.clone()], ..args.ask.cluster.clone() };
    let node = connect(&cluster)?;
    let revision = follow(&node, member.id).await;
    node.close().await;
    revision
}

async fn follow(node: &Client, id: NodeId) -> Result<Revision, Failure> {
    let mut purge = node.purge().await.map_err(ask_failure)?;
    let progress = Progress::count("rows", 0);
    loop {
        match purge.next().await.map_err(ask_failure)? {
            PurgeProgress::Rows { done, total } => progress.set_of(done, total),
            PurgeProgress::Done(revision) => return Ok(revision),
            other => {
                return Err(Failure {
                    code: Code::Unavailable,
                    message: format!("node {id} answers in a way that this release does not know: {other:?}"),
                });
            }
        }
    }
}

fn with_those_done(failure: Failure, member: &Member, purged: &[(NodeId, Revision)]) -> Failure {
    let done: Vec<String> = purged.iter().map(|(node, _)| node.to_string()).collect();
    let done = if done.is_empty() { "none".to_owned() } else { done.join(", ") };
    let message = format!("node {} was not purged, done: {done}; type it again: {}", member.id, failure.message);
    Failure { message, ..failure }
}
