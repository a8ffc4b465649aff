//! `quorate member` and `quorate leader`: who belongs to the cluster, and who leads it.

use std::time::{Duration, Instant};

use quorate::client::{Client, Error, ErrorKind, Member, MemberChange, Members, NodeId, Role, StatusOptions};
use serde_json::{Value, json};

use crate::args::{self, Output};
use crate::commands::session::{ask_failure, connect};
use crate::failure::{Code, Failure};
use crate::output;
use crate::progress::Progress;

/// How long a change may take, where nobody says.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often the position of a node that catches up is read.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The lag of a node that has caught up: no more than what is under way.
const LAG_MAX: u64 = 1000;

/// Runs one of them.
pub async fn run(command: args::Member) -> Result<(), Failure> {
    match command {
        args::Member::List(args) => list(args).await,
        args::Member::Add(args) => add(args).await,
        args::Member::Promote(args) => {
            let change = MemberChange::Promote(NodeId(args.id));
            one(&args.ask.cluster, change, args.force, args.ask.output).await
        }
        args::Member::Remove(args) => {
            let change = MemberChange::Remove(NodeId(args.id));
            one(&args.ask.cluster, change, args.force, args.ask.output).await
        }
        args::Member::Replace(args) => replace(args).await,
        args::Member::Update(args) => {
            let change = MemberChange::Update(member(args.id, &args.addresses));
            one(&args.ask.cluster, change, false, args.ask.output).await
        }
    }
}

/// `quorate leader transfer`.
pub async fn lead(command: args::Leader) -> Result<(), Failure> {
    let args::Leader::Transfer(args) = command;
    let client = connect(&args.ask.cluster)?;
    let handed = client.transfer_leadership(args.to.map(NodeId), args.ask.cluster.timeout.unwrap_or(TIMEOUT)).await;
    client.close().await;
    let leader = handed.map_err(failure)?;
    let done = format!("node {leader} leads");
    output::changed(args.ask.output, &done, || json!({ "leader": leader.0 }))
}

/// The failure of a change, with its effect and the next step.
pub fn failure(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Invalid => Failure { code: Code::Usage, message: error.to_string() },
        ErrorKind::Indeterminate => Failure {
            code: Code::Unavailable,
            message: format!("it may or may not have happened; type it again, that is safe: {error}"),
        },
        _ => ask_failure(error),
    }
}

fn member(id: u64, addresses: &args::Addresses) -> Member {
    let mut member = Member::new(id);
    member.client_address.clone_from(&addresses.client);
    member.peer_address.clone_from(&addresses.peer);
    member.admin_address.clone_from(&addresses.admin);
    member
}

async fn list(args: args::MemberList) -> Result<(), Failure> {
    let client = connect(&args.ask.cluster)?;
    let members = client.members().await;
    client.close().await;
    print(&members.map_err(ask_failure)?, args.ask.output)
}

async fn one(cluster: &args::Cluster, change: MemberChange, force: bool, how: Output) -> Result<(), Failure> {
    let client = connect(cluster)?;
    let members = client.change_members(change, force, cluster.timeout.unwrap_or(TIMEOUT)).await;
    client.close().await;
    changed(&members.map_err(failure)?, how)
}

async fn add(args: args::Add) -> Result<(), Failure> {
    let client = connect(&args.ask.cluster)?;
    let added = async {
        let change = MemberChange::Add(member(args.id, &args.addresses));
        let members = client.change_members(change, false, args.ask.cluster.timeout.unwrap_or(TIMEOUT)).await.map_err(failure)?;
        if !args.wait.is_zero() {
            caught_up(&client, NodeId(args.id), args.wait).await?;
        }
        Ok(members)
    };
    let added: Result<Members, Failure> = added.await;
    client.close().await;
    changed(&added?, args.ask.output)
}

async fn replace(args: args::Replace) -> Result<(), Failure> {
    let client = connect(&args.ask.cluster)?;
    let timeout = args.ask.cluster.timeout.unwrap_or(TIMEOUT);
    let (old, new) = (NodeId(args.old), NodeId(args.new));
    let replaced = async {
        let members = client.members().await.map_err(ask_failure)?;
        let id = |member: &Member| member.id;
        if !members.members.iter().map(id).any(|member| member == old) && old > members.largest_id {
            return Err(Failure::usage(format!("node {old} is no member; nothing was changed")));
        }
        let has_vote = members.members.iter().any(|member| member.id == new && member.voter);
        if !has_vote {
            let change = MemberChange::Add(member(args.new, &args.addresses));
            client.change_members(change, false, timeout).await.map_err(failure)?;
            caught_up(&client, new, args.wait).await?;
        }
        client.change_members(MemberChange::Replace { old, new }, args.force, timeout).await.map_err(failure)
    };
    let replaced = replaced.await;
    client.close().await;
    changed(&replaced?, args.ask.output)
}

/// Waits until a member has nearly all that the leader has. Errors: not in time; the node continues by itself.
async fn caught_up(client: &Client, id: NodeId, within: Duration) -> Result<(), Failure> {
    let progress = Progress::count("entries", 0);
    let deadline = Instant::now() + within;
    let mut seen = "no node that leads was seen".to_owned();
    loop {
        let status = client.status(StatusOptions { timeout: POLL_INTERVAL * 10, ..StatusOptions::default() }).await;
        if let Ok(status) = status {
            let goal =
                status.nodes.iter().filter(|node| node.reachable && node.role == Role::Leader).filter_map(|node| node.last_log);
            let applied = status.nodes.iter().find(|node| node.id == id && node.reachable).and_then(|node| node.applied);
            if let Some(goal) = goal.max() {
                progress.set_of(applied.unwrap_or(0).min(goal), goal);
                if applied.is_some_and(|applied| applied + LAG_MAX >= goal) {
                    return Ok(());
                }
                seen = format!("it has applied {} of {goal} entries", applied.map_or_else(|| "none".into(), |at| at.to_string()));
            }
        }
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!(
                "node {id} is a member and has not caught up within {within:?}: {seen}; it continues by itself: see `quorate status`, and type \
                 this again"
            )));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// After a change.
fn changed(members: &Members, how: Output) -> Result<(), Failure> {
    output::after("the members were changed, see `quorate member list`", print(members, how))
}

fn print(members: &Members, how: Output) -> Result<(), Failure> {
    output::print(how, || document(members), || table(members))?;
    Ok(())
}

fn document(members: &Members) -> Value {
    json!({
        "cluster_id": members.cluster_id.map(|id| id.to_string()),
        "revision": members.revision.0,
        "largest_id": members.largest_id.0,
        "leaving": members.leaving.iter().map(|id| id.0).collect::<Vec<_>>(),
        "members": members.members.iter().map(|member| json!({
            "id": member.id.0,
            "voter": member.voter,
            "client": member.client_address,
            "peer": member.peer_address,
            "admin": member.admin_address,
        })).collect::<Vec<_>>(),
    })
}

fn table(members: &Members) -> String {
    let mut table = output::table(["NODE", "VOTE", "CLIENT", "PEER", "ADMIN"]);
    for member in &members.members {
        let vote = match (member.voter, members.leaving.contains(&member.id)) {
            (true, true) => "leaving",
            (true, false) => "yes",
            (false, _) => "no",
        };
        let addresses =
            [&member.client_address, &member.peer_address, &member.admin_address].map(|address| output::printable(address));
        table.add_row([vec![member.id.to_string(), vote.to_owned()], addresses.to_vec()].concat());
    }
    let voters = members.members.iter().filter(|member| member.voter).count();
    let tail = match voters {
        0 => "the cluster is not formed yet".to_owned(),
        voters => format!(
            "{voters} voters: {} must answer, {} may fail; a new node's id must be above {}",
            voters / 2 + 1,
            (voters - 1) / 2,
            members.largest_id
        ),
    };
    format!("{}\n{tail}", table.trim_fmt())
}
