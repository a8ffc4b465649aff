//! Proposing: commands are stamped with one time, encoded, and given to openraft; each caller gets its outcome.

use futures_util::StreamExt as _;
use openraft::errors::ClientWriteError;

use super::Reply;
use super::adapter::types::Payload;
use super::context::NodeContext;
use crate::codec;
use crate::machine::{Command, Entry, rules};
use crate::mutant::{self, Mutant};
use crate::types::{Refusal, RefusalKind, Write};

/// The time an entry proposed now would carry.
pub fn stamp(context: &NodeContext) -> u64 {
    let machine_ms = context.state.view(|state, _, _| state.machine.now_ms());
    let term = context.leadership.term();
    context.clocks.stamp_ms(term, machine_ms, &context.voters())
}

/// Proposes all in one batch, in order, stamped with one time. Each reply is called exactly once. Dropping the future drops the replies.
pub async fn propose(context: &NodeContext, batch: Vec<(Command, Reply)>) {
    let stamp_ms = stamp(context);
    // A new format is used only once this node has applied the change to it (L17).
    let (version, applied) = context.state.view(|state, _, _| (state.machine.cluster_version(), state.machine.applied()));
    let format = rules(version).expect("the version in force has rules").entry_format;
    let mut replies = Vec::with_capacity(batch.len());
    let mut payloads = Vec::with_capacity(batch.len());
    for (command, reply) in batch {
        let needed = command.cluster_version();
        if needed > version && !mutant::is(Mutant::LaterVerbProposed) {
            let is_current = applied.is_some_and(|applied| applied.term == context.leadership.term());
            reply(Err(unsupported(needed, version, is_current)));
            continue;
        }
        let has_no_clocks = || context.clocks.median_now_ms(&context.voters()).is_none();
        if let Some(refusal) = without_clocks(&command).filter(|_| has_no_clocks()) {
            reply(Err(refusal));
            continue;
        }
        if !codec::is_proposable(&command, version) {
            reply(Err(Refusal::invalid("the write is beyond what an entry may hold")));
            continue;
        }
        payloads.push(Payload(codec::encode(&Entry { stamp_ms, command }, format)));
        replies.push(reply);
    }
    let mut replies = replies.into_iter();
    let unknown = |why: String| Refusal::unknown(RefusalKind::Unavailable, why);
    match context.raft.client_write_many(payloads).await {
        Ok(mut results) => {
            while let Some(result) = results.next().await {
                let Some(reply) = replies.next() else { break };
                match result {
                    Ok(Ok(written)) => reply(Ok(written.response)),
                    // By its source this means "not appended" in this version of openraft; `tests/cluster/forwarded.rs` pins it.
                    Ok(Err(ClientWriteError::ForwardToLeader(_))) => reply(Err(context.leadership.not_leader())),
                    Ok(Err(error)) => reply(Err(unknown(format!("leadership changed while the write was under way: {error}")))),
                    Err(error) => {
                        let what = format!("this node stopped while the write was under way: {error}");
                        let is_planted = mutant::is(Mutant::StoppedRefused);
                        reply(Err(Refusal::unknown_unless(is_planted, RefusalKind::Unavailable, what)));
                    }
                }
            }
            replies.for_each(|reply| reply(Err(unknown("the batch ended early".to_owned()))));
        }
        Err(error) => replies.for_each(|reply| reply(Err(unknown(format!("this node is stopping: {error}"))))),
    }
}

/// The refusal of a command that is promised a time, by a leader that hears no majority of the voters' clocks: machine time then continues at half
/// speed (L15), and is no clock (L46).
fn without_clocks(command: &Command) -> Option<Refusal> {
    let Command::Client(Write::AcquireLease { .. } | Write::RenewLeases { .. }) = command else { return None };
    if mutant::is(Mutant::GrantedWithoutClocks) {
        return None;
    }
    let why = "this leader hears no majority of the voters' clocks and grants no lease until it does; nothing changed";
    Some(Refusal::not_applied(RefusalKind::Unavailable, why))
}

/// The refusal of a leader that has applied no entry of the current term yet: entries of earlier ones may be missing.
pub fn not_current() -> Refusal {
    Refusal::not_applied(RefusalKind::NoLeader, "this node leads and has not applied yet what was there before")
}

/// The refusal of a command of a later cluster version than the one in force (L43). A leader that has applied no entry of the current term yet
/// may not know the version in force: the command waits until it does.
fn unsupported(needed: u16, in_force: u16, is_current: bool) -> Refusal {
    if !is_current {
        return not_current();
    }
    Refusal::unsupported(needed, in_force)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LEASE_TTL_MIN;
    use crate::types::{Applied, ClientId, Fence, Holder, LeaseTtl, Nonce, Renewals, Request, Sequence, SessionId};

    /// A release, or a write under a lease, needs no time; nor does anything else.
    #[test]
    fn only_what_is_promised_a_time_is_refused_without_clocks() {
        let (client, sequence) = (ClientId(1), Sequence(1));
        let request = Request { client, nonce: Nonce([1; 16]), sequence, acknowledged_below: sequence };
        let (id, ttl) = (SessionId::new("a").expect("short"), LeaseTtl::new(LEASE_TTL_MIN).expect("within"));
        let leases = Renewals::new(vec![(id.clone(), Fence(1))]).expect("one");
        let holder = Holder::new("h").expect("short");
        for write in
            [Write::AcquireLease { request, id: id.clone(), holder, ttl, steal: true }, Write::RenewLeases { request, leases, ttl }]
        {
            let refusal = without_clocks(&Command::Client(write)).expect("refused");
            assert_eq!((refusal.kind, refusal.applied), (RefusalKind::Unavailable, Applied::No));
        }
        for command in [
            Command::Client(Write::ReleaseLease { request, id: id.clone(), fence: Fence(1) }),
            Command::Client(Write::Delete { request, id, expected: None, fence: Some(Fence(1)) }),
            Command::Sweep { limit: 1 },
        ] {
            assert_eq!(without_clocks(&command), None);
        }
    }
}
