//! Raising the cluster version: the leader proposes the next one once every member has said, in the leader's own term, that it reads
//! it (L17), and no member's operator holds it. So a rolling upgrade neither stops a node nor makes replicas diverge.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::env::Stop;
use crate::machine::{Command, newest_version};
use crate::raft::context::NodeContext;
use crate::raft::peer::peer_table::PeerTable;
use crate::raft::propose::propose;
use crate::types::{NodeId, Outcome, Refusal, RefusalKind, Verdict};

/// How often the leader looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// The versions that one member names.
#[derive(Clone, Copy, Debug)]
struct Versions {
    member: NodeId,
    /// The newest that it reads; `None`: it has not said.
    newest: Option<u16>,
    /// The one above which its operator does not let the cluster rise; `None`: there is none.
    held: Option<u16>,
}

/// Why the version does not rise.
#[derive(Debug, PartialEq, Eq)]
enum Why {
    /// No member knows a later one.
    Newest,
    /// These members do not read the next one, or have not said so.
    NotRead(Vec<NodeId>),
    /// The operators of these members hold it.
    Held(Vec<NodeId>),
}

/// The version to propose. Pure.
fn next(in_force: u16, members: &[Versions]) -> Result<u16, Why> {
    let next = in_force.saturating_add(1);
    if members.iter().filter_map(|versions| versions.newest).all(|newest| newest < next) {
        return Err(Why::Newest);
    }
    let those = |is_meant: fn(&Versions, u16) -> bool| {
        let meant = members.iter().filter(|versions| is_meant(versions, next));
        Some(meant.map(|versions| versions.member).collect::<Vec<_>>()).filter(|meant| !meant.is_empty())
    };
    if let Some(members) = those(|versions, next| versions.newest.is_none_or(|newest| newest < next)) {
        return Err(Why::NotRead(members));
    }
    match those(|versions, next| versions.held.is_some_and(|held| held < next)) {
        Some(members) => Err(Why::Held(members)),
        None => Ok(next),
    }
}

/// The next version, by what this node, which leads, and its peers have said in its term.
fn look(context: &NodeContext, table: &PeerTable) -> Result<u16, Why> {
    let in_force = context.state.view(|state, _, _| state.machine.cluster_version());
    let term = context.leadership.published().term;
    let versions = |member: NodeId| match member == context.me() {
        true => Versions { member, newest: Some(newest_version()), held: context.facts.cluster_version_held },
        false => Versions { member, newest: table.newest_version_of(member, term), held: table.held_version_of(member, term) },
    };
    next(in_force, &context.membership().nodes().map(|(id, _)| versions(*id)).collect::<Vec<_>>())
}

/// Runs on every node; acts on the leader.
pub async fn run(context: Arc<NodeContext>, table: Arc<PeerTable>, stop: Stop) {
    stop.or(async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if !context.leadership.published().is_self {
                continue;
            }
            let Ok(version) = look(&context, &table) else { continue };
            tracing::info!(version, "every member reads the next cluster version: proposing it");
            if let Err(refusal) = raise(&context, version).await {
                tracing::info!(%refusal, "the cluster version was not raised; it will be tried again");
            }
        }
    })
    .await;
}

/// Raises it by one although operators hold it. Errors: this node does not lead, or not every member reads it.
pub async fn finish(context: &NodeContext, table: &PeerTable) -> Result<u16, Refusal> {
    if !context.leadership.published().is_self {
        return Err(context.leadership.not_leader());
    }
    let in_force = context.state.view(|state, _, _| state.machine.cluster_version());
    match look(context, table) {
        Err(Why::Newest) => Ok(in_force),
        Err(Why::NotRead(members)) => {
            let message = format!(
                "the cluster version can't rise, nothing changed: upgrade these nodes first, and wait until each is heard \
                 in_force={in_force} next={} nodes={}",
                in_force + 1,
                NodeId::listed(members)
            );
            Err(Refusal::invalid(message))
        }
        Err(Why::Held(_)) => raise(context, in_force + 1).await,
        Ok(version) => raise(context, version).await,
    }
}

async fn raise(context: &NodeContext, version: u16) -> Result<u16, Refusal> {
    let (sender, answer) = oneshot::channel();
    // Whose future was dropped does not hear it.
    let reply = Box::new(move |result| drop(sender.send(result)));
    propose(context, vec![(Command::SetClusterVersion { version }, reply)]).await;
    match answer.await {
        Ok(Ok(Outcome { verdict: Verdict::ClusterVersion { version }, .. })) => Ok(version),
        Ok(Err(refusal)) => Err(refusal),
        Ok(Ok(_)) | Err(_) => Err(Refusal::unknown(RefusalKind::Unavailable, "the raise of the cluster version was not answered")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members<const N: usize>(versions: [(Option<u16>, Option<u16>); N]) -> [Versions; N] {
        let mut ids = 1..;
        versions.map(|(newest, held)| Versions { member: NodeId(ids.next().expect("endless")), newest, held })
    }

    #[test]
    fn the_next_version_needs_every_member() {
        let reads = |newest: [Option<u16>; 3]| members(newest.map(|newest| (newest, None)));
        assert_eq!(next(1, &reads([Some(2), Some(2), Some(3)])), Ok(2));
        assert_eq!(next(1, &reads([Some(2), Some(1), Some(2)])), Err(Why::NotRead(vec![NodeId(2)])));
        let silent = next(1, &reads([Some(2), None, Some(2)]));
        assert_eq!(silent, Err(Why::NotRead(vec![NodeId(2)])), "one that has not said counts as one that does not");
        assert_eq!(next(2, &reads([Some(2), None, Some(2)])), Err(Why::Newest));
    }

    #[test]
    fn one_operator_that_holds_it_is_enough() {
        let held = members([(Some(2), None), (Some(2), Some(1)), (Some(2), Some(2))]);
        assert_eq!(next(1, &held), Err(Why::Held(vec![NodeId(2)])));
        assert_eq!(next(1, &members([(Some(2), Some(2)), (Some(3), Some(7))])), Ok(2));
        assert_eq!(
            next(1, &members([(Some(2), Some(1)), (None, None)])),
            Err(Why::NotRead(vec![NodeId(2)])),
            "it can't be finished"
        );
    }
}
