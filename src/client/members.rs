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
use crate::types::{Applied, MemberChange, Members, NodeId, Refusal, RefusalKind};
use crate::wire::v1::operations_client::OperationsClient;
use crate::wire::{self, v1};

/// How long one node may take to name the members.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after every endpoint was asked in vain.
const PAUSE: Duration = Duration::from_millis(100);
/// Hints followed one after the other, before the endpoints are asked again: two nodes may each name the other.
const HINTS_AT_ONCE: u32 = 3;
/// A node answers a little before the time it was given is over.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

pub(super) async fn members(config: &Config) -> Result<Members, Error> {
    let ask = |link| async { OperationsClient::new(link).members(v1::MembersRequest {}).await };
    let (response, _) = best_answer(config, ASK_TIMEOUT, ask, worth).await?;
    if is_unknown(&response) {
        let text = "no node that answers has applied the membership yet";
        return Err(Error::from_refusal(Refusal::not_applied(RefusalKind::Unavailable, text)));
    }
    Ok(wire::members_from(response))
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
    let change = Some(wire::member_change_to(change));
    let response = at_the_leader(config, within, async |mut client, timeout_ms| {
        let request = v1::ChangeMembersRequest { timeout_ms, force, change: change.clone() };
        client.change_members(request).await.map(tonic::Response::into_inner)
    });
    response.await.map(wire::members_from)
}

pub(super) async fn transfer_leadership(config: &Config, to: Option<NodeId>, within: Duration) -> Result<NodeId, Error> {
    let to = to.map_or(0, |to| to.0);
    let response = at_the_leader(config, within, async |mut client, timeout_ms| {
        client.hand_over(v1::HandOverRequest { to, timeout_ms }).await.map(tonic::Response::into_inner)
    });
    response.await.map(|response| NodeId(response.leader))
}

pub(super) async fn finish_upgrade(config: &Config, within: Duration) -> Result<u32, Error> {
    let response = at_the_leader(config, within, async |mut client, timeout_ms| {
        client.finish_upgrade(v1::FinishUpgradeRequest { timeout_ms }).await.map(tonic::Response::into_inner)
    });
    response.await.map(|response| response.cluster_version)
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
