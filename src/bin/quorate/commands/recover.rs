//! `quorate recover`: a new cluster out of what one node still has.

use std::time::Duration;

use quorate::client::{ClusterStatus, Error, ErrorKind, StatusOptions};
use quorate::offline::{REVISIONS_SKIPPED, Report, Survivor};
use quorate::server::backup::{recover, source_of};
use quorate::types::NodeId;
use serde_json::{Value, json};

use crate::args::{self, Output};
use crate::commands::offline::end_if_the_engine_panics;
use crate::commands::session::connect;
use crate::commands::snapshot::target::{NewCluster, failure};
use crate::commands::status::leader_of;
use crate::failure::Failure;
use crate::output;

/// How long each member of the old cluster gets to show that it lives.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Says what is kept and what may be lost; writes only where that was accepted. Errors: the old cluster lives; a directory that must be
/// empty is not.
pub async fn run(args: &args::Recover) -> Result<(), Failure> {
    let new = NewCluster::of(&args.new)?;
    end_if_the_engine_panics();
    let opened = Survivor::open(&args.from);
    let mut survivor =
        opened.map_err(|error| Failure::failed(format!("{error}; nothing was changed from={}", args.from.display())))?;
    let report = survivor.report();
    let id = new.id(source_of(&survivor))?;
    if new.config.tls.is_some() && args.credentials.ca.is_none() {
        return Err(Failure::usage(
            "the cluster has certificates: give --ca, and a token with scope admin, so that nodes that live can be asked; nothing was written",
        ));
    }
    require_dead(&report, &args.credentials).await?;
    if !args.accept_loss {
        let mut fields = fields(&survivor, &report);
        if args.output == Output::Table {
            // The last line says it.
            fields.retain(|(name, _)| *name != "may_be_lost");
        }
        output::fields(&fields, 24, args.output)?;
        return Err(Failure::usage(format!(
            "nothing was written. {} To go on all the same, pass --accept-loss",
            what_may_be_lost(&report)
        )));
    }
    for node in &new.nodes {
        recover(&new.env, &mut survivor, &new.config, *node, id).map_err(|error| failure(&error))?;
    }
    let mut fields = fields(&survivor, &report);
    fields.push(("new_cluster_id", json!(id.to_string())));
    fields.push(("first_new_revision_above", json!(report.last.index + REVISIONS_SKIPPED)));
    match args.output {
        Output::Json => fields.push(("nodes", new.nodes_json())),
        Output::Table => {
            let dir = |node: &NodeId| format!("{} (node {node})", new.config.node_dir(*node).display());
            fields.push(("written", json!(new.nodes.iter().map(dir).collect::<Vec<_>>().join(", "))));
        }
    }
    let printed = output::fields(&fields, 24, args.output).and_then(|()| match args.output {
        Output::Json => Ok(()),
        Output::Table => Ok(output::line(
            "start each node: quorate serve --config FILE --node ID; never start one of the old directories again",
        )?),
    });
    output::after(&format!("all directories are written, the new cluster's id is {id}"), printed)
}

/// Asks every member of the old cluster: one that is cut off from the others does not know of them.
///
/// Errors: one is reached that knows a leader, or does not let us ask, or that we can't believe; or enough of them answer to elect one.
async fn require_dead(report: &Report, credentials: &args::Credentials) -> Result<(), Failure> {
    for member in &report.members {
        let address = &member.client_address;
        let one = args::Cluster { endpoints: vec![address.clone()], timeout: Some(ASK_TIMEOUT), credentials: credentials.clone() };
        let client = connect(&one)?;
        let answer = client.status(StatusOptions { timeout: ASK_TIMEOUT, ..StatusOptions::default() }).await;
        client.close().await;
        let sign = match answer {
            Ok(status) => sign_of_life(report, &status)
                .map(|sign| format!("the old cluster lives: {sign}; replace the nodes it has lost (`quorate member replace`)")),
            Err(error) => is_there(&error)
                .then(|| format!("a node of the old cluster lives and must be asked first: {}", at(&error, address))),
        };
        if let Some(sign) = sign {
            return Err(Failure::usage(format!("{sign}; nothing was written")));
        }
    }
    Ok(())
}

/// An error, with the address that was asked unless it names it itself.
fn at(error: &Error, address: &str) -> String {
    let text = error.to_string();
    if text.contains(address) { text } else { format!("{text} address={address}") }
}

/// Whether a node answers: also one that refuses the credentials, or whose certificate is not trusted.
fn is_there(error: &Error) -> bool {
    let answers = error.endpoints().iter().any(|endpoint| endpoint.answered || endpoint.settings);
    answers || matches!(error.kind(), ErrorKind::Unauthenticated | ErrorKind::Denied)
}

/// Why a cluster is not lost: it has a leader, or is between two.
fn sign_of_life(report: &Report, status: &ClusterStatus) -> Option<String> {
    if let Some(leader) = leader_of(status) {
        return Some(format!("node {leader} leads it"));
    }
    let voters: Vec<NodeId> = report.members.iter().filter(|member| member.voter).map(|member| member.id).collect();
    let answering = status.nodes.iter().filter(|node| node.reachable && voters.contains(&node.id)).count();
    (answering * 2 > voters.len()).then(|| format!("{answering} of its {} voters answer, and can elect a leader", voters.len()))
}

fn what_may_be_lost(report: &Report) -> String {
    let (flushed, last) = (report.flushed.index, report.last.index);
    let lost = format!("Every write that only the lost nodes had is lost: all that were acknowledged above revision {last}.");
    match last.checked_sub(flushed) {
        None | Some(0) => lost,
        Some(1) => format!("{lost} Revision {last} is kept, though it may never have been acknowledged."),
        Some(_) => {
            let first = flushed + 1;
            format!("{lost} Revisions {first} to {last} are kept, though some of them may never have been acknowledged.")
        }
    }
}

fn fields(survivor: &Survivor, report: &Report) -> Vec<(&'static str, Value)> {
    let identity = survivor.identity();
    let members = report.members.iter().map(|member| member.id.0);
    vec![
        ("node", json!(identity.node().0)),
        ("cluster_id", json!(identity.cluster().map(|id| id.to_string()))),
        ("members", json!(members.collect::<Vec<_>>())),
        ("committed_at_least", json!(report.flushed.index)),
        ("last_log", json!(report.last.index)),
        ("last_log_term", json!(report.last.term)),
        ("sessions", json!(report.counts.sessions)),
        ("tombstones", json!(report.counts.tombstones)),
        ("may_be_lost", json!(what_may_be_lost(report))),
    ]
}

#[cfg(test)]
mod tests {
    use quorate::client::{NodeStatus, Role};
    use quorate::types::{LogId, Member};

    use super::*;

    fn sign(nodes: &[(u64, bool)], leads: bool) -> Option<String> {
        let member = |id: u64| {
            let mut member = Member::new(id);
            member.voter = id < 4;
            member
        };
        let report = Report {
            flushed: LogId::default(),
            last: LogId::default(),
            members: (1..=4).map(member).collect(),
            counts: Default::default(),
        };
        let role = if leads { Role::Leader } else { Role::Candidate };
        let node = |(id, reachable): &(u64, bool)| {
            let mut node = NodeStatus::new(*id);
            (node.reachable, node.role) = (*reachable, role);
            node
        };
        sign_of_life(&report, &ClusterStatus::new(nodes.iter().map(node).collect()))
    }

    #[test]
    fn what_may_be_lost_names_no_revisions_that_there_are_not() {
        let kept_by = |flushed, last| {
            let at = |index| LogId { index, ..LogId::default() };
            what_may_be_lost(&Report { flushed: at(flushed), last: at(last), members: Vec::new(), counts: Default::default() })
        };
        assert!(kept_by(1, 1).ends_with("all that were acknowledged above revision 1."), "{}", kept_by(1, 1));
        assert!(
            kept_by(1, 2).ends_with("revision 2. Revision 2 is kept, though it may never have been acknowledged."),
            "{}",
            kept_by(1, 2)
        );
        assert!(kept_by(1, 9).contains("Revisions 2 to 9 are kept"), "{}", kept_by(1, 9));
    }

    #[test]
    fn a_cluster_between_two_leaders_is_not_lost() {
        assert_eq!(sign(&[(1, true), (2, false)], true).as_deref(), Some("node 1 leads it"));
        let between = "2 of its 3 voters answer, and can elect a leader";
        assert_eq!(sign(&[(1, true), (2, true), (3, false)], false).as_deref(), Some(between));
        assert_eq!(sign(&[(1, true), (2, false), (3, false), (4, true)], false), None, "one that has no vote elects nobody");
    }
}
