//! The members of the cluster, and changes of them: one endpoint after the other is asked until the leader has answered.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::ask::{Worth, best_answer};
use super::config::Config;
use super::credentials::Link;
use super::driver::connection::Broken;
use super::failures::Failures;
use super::{Error, ErrorKind};
use crate::types::{Applied, ClusterId, NodeId, Refusal, RefusalKind, Revision};
use crate::wire::v1;
use crate::wire::v1::operations_client::OperationsClient;

/// How long one node may take to say who the members are.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after every endpoint was asked in vain.
const PAUSE: Duration = Duration::from_millis(100);
/// Hints followed one after the other, before the endpoints are asked again: two nodes may each name the other.
const HINTS_AT_ONCE: u32 = 3;
/// A node answers a little before the time it was given is over.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Where clients reach it, `host:port`.
    pub client_address: String,
    /// Where its peers reach it, `host:port`.
    pub peer_address: String,
    /// Where it answers over HTTP, `host:port`; empty where nobody has said.
    pub admin_address: String,
    /// Whether it votes.
    pub voter: bool,
}

/// The members of the cluster, as the node that answered has applied them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// `None` before the cluster is formed.
    pub cluster_id: Option<ClusterId>,
    /// In order of ids.
    pub members: Vec<Member>,
    /// The entry that says so; 0 before there is one.
    pub revision: Revision,
    /// The largest id any node of this cluster ever had: a new node's must be above.
    pub largest_id: NodeId,
    /// Voters of the configuration that is being left, while a change is under way.
    pub leaving: Vec<NodeId>,
}

/// A change of who belongs to the cluster. Each may be asked for again: one that has happened is done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberChange {
    /// A node that runs at these addresses and has no data becomes a member without a vote. Its id must be a new one.
    Add(Member),
    /// A member that has caught up gets a vote.
    Promote(NodeId),
    /// A member leaves; a leader hands over first.
    Remove(NodeId),
    /// A member that has caught up takes another one's place, in one step.
    Replace {
        /// Leaves.
        old: NodeId,
        /// Gets the vote.
        new: NodeId,
    },
    /// A member that runs with its data at these addresses is reached there from now on.
    Update(Member),
}

pub(super) async fn members(config: &Config) -> Result<Members, Error> {
    let ask = |link| async { OperationsClient::new(link).members(v1::MembersRequest {}).await };
    let (response, _) = best_answer(config, ASK_TIMEOUT, ask, worth).await?;
    if is_unknown(&response) {
        let text = "no node that answers has applied the membership yet";
        return Err(Error::from_refusal(Refusal::not_applied(RefusalKind::Unavailable, text)));
    }
    Ok(members_from(response))
}

/// Whether a node of a cluster names nobody: it has applied nothing yet. Newer ones refuse to answer then.
fn is_unknown(answer: &v1::MembersResponse) -> bool {
    !answer.cluster_id.is_empty() && answer.members.is_empty()
}

/// The members of a node that is cut off may be old ones.
fn worth(answer: &v1::MembersResponse) -> Worth {
    if is_unknown(answer) {
        return Worth::default();
    }
    Worth::of(!answer.cluster_id.is_empty(), answer.is_led, answer.revision)
}

pub(super) async fn change(config: &Config, change: MemberChange, force: bool, within: Duration) -> Result<Members, Error> {
    let change = Some(change_to(change));
    let response = at_the_leader(config, within, async |mut client, timeout_ms| {
        let request = v1::ChangeMembersRequest { timeout_ms, force, change: change.clone() };
        client.change_members(request).await.map(tonic::Response::into_inner)
    });
    response.await.map(members_from)
}

pub(super) async fn transfer_leadership(config: &Config, to: Option<NodeId>, within: Duration) -> Result<NodeId, Error> {
    let to = to.map_or(0, |to| to.0);
    let response = at_the_leader(config, within, async |mut client, timeout_ms| {
        client.hand_over(v1::HandOverRequest { to, timeout_ms }).await.map(tonic::Response::into_inner)
    });
    response.await.map(|response| NodeId(response.leader))
}

pub(super) type Operations = OperationsClient<Link>;

/// Calls one node after the other, the named leader first, until one has done it or says why it may not be.
///
/// Errors: `Indeterminate` once an attempt may have changed something and none after it settled that.
pub(super) async fn at_the_leader<T>(
    config: &Config,
    within: Duration,
    mut call: impl AsyncFnMut(Operations, u32) -> Result<T, tonic::Status>,
) -> Result<T, Error> {
    let deadline = Instant::now() + within;
    let mut queue: VecDeque<String> = config.endpoints.iter().cloned().collect();
    let (mut ambiguous, mut hints) = (false, 0);
    let mut last = Refusal::not_applied(RefusalKind::Unavailable, "no endpoint answered");
    let mut failures = Failures::default();
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let Some(given) = remaining.checked_sub(ANSWER_MARGIN.min(within / 4)).filter(|given| !given.is_zero()) else {
            let error = if ambiguous { Error::indeterminate(Some(last)) } else { Error::from_refusal(last) };
            return Err(error.with_endpoints(&failures));
        };
        let Some(endpoint) = queue.pop_front() else {
            sleep(PAUSE.min(remaining)).await;
            queue.extend(config.endpoints.iter().cloned());
            continue;
        };
        let attempt = async {
            let client = OperationsClient::new(config.dial(&endpoint).connect().await?);
            let timeout_ms = u32::try_from(given.as_millis()).unwrap_or(u32::MAX).max(1);
            call(client, timeout_ms).await.map_err(|status| Broken::of_status(&endpoint, &status))
        };
        let late = |_| Err(Broken::late(&endpoint, remaining));
        let Broken { refusal, failure } = match timeout(remaining, attempt).await.unwrap_or_else(late) {
            Ok(answer) => return Ok(answer),
            Err(broken) => broken,
        };
        failures.note(failure);
        if failures.are_settings_of_all(config.endpoints.iter().map(String::as_str)) && !ambiguous {
            return Err(Error::from_refusal(refusal).with_endpoints(&failures));
        }
        ambiguous |= refusal.applied == Applied::Unknown;
        match &refusal.kind {
            RefusalKind::Invalid | RefusalKind::Denied | RefusalKind::Unauthenticated => {
                let kind = Error::from_refusal(refusal.clone()).kind();
                // What is refused now may be what an earlier attempt has done.
                return Err(if ambiguous { Error::indeterminate(Some(refusal)) } else { refused(kind, refusal) });
            }
            RefusalKind::NotLeader(hint) if hint.address != endpoint && hints < HINTS_AT_ONCE => {
                hints += 1;
                queue.push_front(hint.address.clone());
            }
            _ => hints = 0,
        }
        last = refusal;
    }
}

/// The refusal in its own words: it says what is wrong and that nothing changed.
fn refused(kind: ErrorKind, refusal: Refusal) -> Error {
    Error::new(kind, refusal.message)
}

fn change_to(change: MemberChange) -> v1::change_members_request::Change {
    use v1::change_members_request::{Change, Replace};
    match change {
        MemberChange::Add(member) => Change::Add(member_to(member)),
        MemberChange::Promote(id) => Change::Promote(id.0),
        MemberChange::Remove(id) => Change::Remove(id.0),
        MemberChange::Replace { old, new } => Change::Replace(Replace { old: old.0, new: new.0 }),
        MemberChange::Update(member) => Change::Update(member_to(member)),
    }
}

fn member_to(member: Member) -> v1::Member {
    let Member { id, client_address, peer_address, admin_address, voter } = member;
    v1::Member { id: id.0, client: client_address, peer: peer_address, admin: admin_address, voter }
}

fn members_from(response: v1::MembersResponse) -> Members {
    let member = |member: v1::Member| Member {
        id: NodeId(member.id),
        client_address: member.client,
        peer_address: member.peer,
        admin_address: member.admin,
        voter: member.voter,
    };
    Members {
        cluster_id: ClusterId::from_slice(&response.cluster_id),
        members: response.members.into_iter().map(member).collect(),
        revision: Revision(response.revision),
        largest_id: NodeId(response.largest_id),
        leaving: response.leaving.into_iter().map(NodeId).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node of an older release that has applied nothing answers with an empty list, and knows a leader.
    #[test]
    fn an_empty_list_is_worth_less_than_any_other() {
        let cluster_id = vec![1; 16];
        let empty = v1::MembersResponse { cluster_id: cluster_id.clone().into(), is_led: true, ..Default::default() };
        let known = v1::MembersResponse { members: vec![v1::Member::default()], is_led: false, ..empty.clone() };
        assert!(worth(&known) > worth(&empty) && !worth(&empty).is_all);
        assert!(is_unknown(&empty) && !is_unknown(&known));
        assert!(!is_unknown(&v1::MembersResponse::default()), "before the cluster is formed nobody is a member");
    }
}
