//! Pure decisions about one call: whether it is well formed, where it goes, what a refusal of an attempt means for it.

use std::time::Duration;

use super::call::{Call, Operation, Origin};
use crate::limits::{
    IN_FLIGHT_BYTES_MAX, PARKED_FOR_MAX, READ_DEADLINE_DEFAULT, SESSION_CHUNKS_MAX, WRITE_BYTES_MAX, WRITE_DEADLINE_DEFAULT,
    WRITE_DEADLINE_MAX,
};
use crate::types::{Applied, ClusterId, LeaderHint, NodeId, Refusal, RefusalKind, Write};
use crate::wire::{self, v1};

/// When to try again after an overload.
pub const RETRY_AFTER: Duration = Duration::from_millis(50);
/// When to try again while a disk is low: an operator has to make room.
pub const DISK_LOW_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A request that is well formed.
#[derive(Debug)]
pub struct Validated {
    pub operation: Operation,
    pub cluster_id: Option<ClusterId>,
    /// The newest cluster version whose outcomes the caller knows.
    pub knows: u16,
    /// The time left until the caller's deadline.
    pub timeout: Duration,
}

/// The refusal of an operation for which there is no room in flight. Nothing changed.
pub fn too_many_bytes() -> Refusal {
    let kind = RefusalKind::Overloaded { retry_after: RETRY_AFTER };
    Refusal::not_applied(kind, format!("too many bytes wait limit={IN_FLIGHT_BYTES_MAX}"))
}

/// Checks all that can be checked of a request alone, checksums too. Errors: `Invalid`, naming the field; nothing changed.
pub fn validate(request: v1::SubmitRequest) -> Result<Validated, Refusal> {
    use v1::submit_request::Operation as Message;
    let cluster_id = wire::cluster_id_from(&request.cluster_id)?;
    let knows = wire::version_from(request.cluster_version);
    let operation = match request.operation {
        // So it is with an operation of a later release as well.
        None => return Err(wire::no_operation()),
        Some(Message::Write(write)) => Operation::Write(validate_write(wire::write_from(write)?)?),
        Some(Message::Load(load)) => Operation::Load(wire::load_from(load)?),
        Some(Message::List(list)) => Operation::List(wire::list_from(list)?),
        Some(Message::LoadMany(many)) => Operation::LoadMany(wire::load_many_from(many)?),
    };
    if cluster_id.is_none() && operation.needs_cluster() {
        return Err(Refusal::invalid("field is missing where a client or a known version is named field=cluster_id"));
    }
    let timeout = match (request.timeout_ms, operation.is_write()) {
        (0, true) => WRITE_DEADLINE_DEFAULT,
        (0, false) => READ_DEADLINE_DEFAULT,
        (ms, _) => Duration::from_millis(ms.into()).min(WRITE_DEADLINE_MAX),
    };
    Ok(Validated { operation, cluster_id, knows, timeout })
}

fn validate_write(write: Write) -> Result<Write, Refusal> {
    if write.has_content() {
        let (bytes, chunks) = (write.stored_bytes(), write.chunk_count());
        if bytes > WRITE_BYTES_MAX {
            return Err(Refusal::invalid(format!("write is too large write_bytes={bytes} limit={WRITE_BYTES_MAX}")));
        }
        if chunks > SESSION_CHUNKS_MAX {
            return Err(Refusal::invalid(format!("write has too many chunks chunks={chunks} limit={SESSION_CHUNKS_MAX}")));
        }
        wire::verify_blobs(&write)?;
    }
    Ok(write)
}

/// The facts that decide where a call goes.
#[derive(Clone, Debug)]
pub struct Situation {
    pub now: Duration,
    /// `None` before the cluster was bootstrapped.
    pub cluster_id: Option<ClusterId>,
    /// The refusal of stale reads: this node is in no cluster.
    pub outside: Option<Refusal>,
    /// Of everything: one has it as a member, and it won't be led here.
    pub is_estranged: bool,
    pub leads: bool,
    /// The cluster version in force, as this node has applied it.
    pub in_force: u16,
    /// The leader, if known.
    pub leader: Option<LeaderHint>,
    /// The newest cluster version that the leader reads, if it has said so in its term.
    pub leader_reads: Option<u16>,
    /// The voters whose disks saves wait for, since too few have room; `None` where this node does not lead.
    pub saves_wait_for: Option<String>,
    /// This node leads by its term, and no majority answers it: nothing can be settled here, and clients had better ask the others.
    pub lacks_quorum: bool,
    /// This node's disk hangs, and another leads.
    pub hung: bool,
    /// No new work: the node hands over and ends.
    pub stopping: bool,
}

/// Where a call goes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this node's own Raft.
    Here,
    /// To the leader.
    Forward(NodeId),
    /// The call waits for a leader.
    Park,
    /// Nothing was proposed.
    Refuse(Refusal),
}

/// Where a call goes, before anything was tried.
pub fn route(call: &Call, situation: &Situation) -> Route {
    let refuse = |kind, message: &str| Route::Refuse(Refusal::not_applied(kind, message));
    if situation.now >= call.deadline {
        return refuse(RefusalKind::DeadlineExceeded, "the deadline passed before the operation was proposed");
    }
    if let (Some(meant), Some(ours)) = (call.cluster_id, situation.cluster_id)
        && meant != ours
    {
        let message = format!("the call is meant for another cluster meant={meant} this={ours}");
        return Route::Refuse(Refusal::not_applied(RefusalKind::WrongCluster, message));
    }
    if situation.stopping {
        return refuse(RefusalKind::Unavailable, "the node is stopping");
    }
    if situation.hung {
        return refuse(RefusalKind::Unavailable, "the disk of this node hangs");
    }
    if let Some(refusal) = situation.outside.as_ref().filter(|_| situation.is_estranged || call.operation.is_stale_read()) {
        // What it has is nothing, which is no answer.
        return Route::Refuse(refusal.clone());
    }
    if call.operation.is_stale_read() {
        return Route::Here;
    }
    if situation.leads {
        if let Some(whose) = situation.saves_wait_for.as_ref().filter(|_| call.operation.is_save()) {
            let kind = RefusalKind::DiskLow { retry_after: DISK_LOW_RETRY_AFTER };
            let message = format!("too few voters have room on their disks {whose}; saves wait, reads and deletes go on");
            return refuse(kind, &message);
        }
        return Route::Here;
    }
    match (&situation.leader, call.origin) {
        (Some(leader), Origin::Client) => forward(leader.node, &call.operation, situation),
        (Some(leader), Origin::Peer) => refuse(RefusalKind::NotLeader(leader.clone()), "this node does not lead"),
        (None, _) if situation.lacks_quorum => Route::Refuse(lacks_quorum()),
        (None, Origin::Client) => Route::Park,
        (None, Origin::Peer) => Route::Refuse(no_quorum()),
    }
}

/// Forwards an operation to a leader that knows all of it (L43). One of an earlier release would leave out what it does not know, a fence for one:
/// that is so only while version 1 is in force, which has none.
fn forward(leader: NodeId, operation: &Operation, situation: &Situation) -> Route {
    let needs = operation.cluster_version();
    match situation.leader_reads {
        _ if needs <= situation.in_force => Route::Forward(leader),
        Some(reads) if needs <= reads => Route::Forward(leader),
        Some(_) => Route::Refuse(Refusal::unsupported(needs, situation.in_force)),
        None => Route::Park,
    }
}

/// The refusal of a call that found no leader.
pub fn no_quorum() -> Refusal {
    Refusal::not_applied(RefusalKind::NoLeader, "no quorum: no leader is known")
}

/// The refusal of a call by a leader that is cut off.
fn lacks_quorum() -> Refusal {
    Refusal::not_applied(RefusalKind::NoLeader, "no quorum: this node led, and no majority of the voters answers it")
}

/// Whether a refused attempt is worth another one by this node, once a leader is known: it definitely changed nothing, and the
/// reason lies with who leads. A call that was forwarded to us is left to the node that forwarded it.
pub fn may_try_again(origin: Origin, refusal: &Refusal) -> bool {
    let kind = matches!(refusal.kind, RefusalKind::NotLeader(_) | RefusalKind::NoLeader | RefusalKind::Unavailable);
    origin == Origin::Client && refusal.applied == Applied::No && kind
}

/// Until when a call may stay parked: bounded from the first time on, and by its deadline.
pub fn parked_until(first: Option<Duration>, now: Duration, deadline: Duration) -> Duration {
    first.unwrap_or_else(|| now.saturating_add(PARKED_FOR_MAX)).min(deadline)
}

/// The refusal of a read: nothing was changed, however the attempt ended.
pub fn refused_read(mut refusal: Refusal) -> Refusal {
    refusal.applied = Applied::No;
    refusal
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::auth::Caller;
    use super::super::call::Answerer;
    use super::*;
    use crate::types::{Blob, Change, ClientId, Consistency, Counters, Expiry, Fence, Load, Nonce, Request, Sequence, SessionId};

    fn save(data: Blob) -> Write {
        let request =
            Request { client: ClientId(1), nonce: Nonce([1; 16]), sequence: Sequence(1), acknowledged_below: Sequence(1) };
        let change = Change::Full { chunks: vec![], head: data, counters: Counters::default() };
        Write::Save { request, id: SessionId::new("s").expect("short"), change, attributes: Expiry::Keep.into(), fence: None }
    }

    fn request(write: &Write, cluster_id: &'static [u8]) -> v1::SubmitRequest {
        let operation = Some(v1::submit_request::Operation::Write(wire::write_to(write)));
        v1::SubmitRequest { tag: 1, cluster_id: Bytes::from_static(cluster_id), operation, ..Default::default() }
    }

    fn call(operation: Operation, origin: Origin) -> Call {
        let (sender, _answers) = tokio::sync::mpsc::channel(1);
        let answerer = Answerer::new(0, sender.try_reserve_owned().ok().expect("room"));
        let deadline = Duration::from_secs(10);
        Call {
            operation,
            knows: 1,
            origin,
            caller: Caller::anyone(),
            connection: None,
            cluster_id: Some(ClusterId([1; 16])),
            started: Duration::ZERO,
            deadline,
            dispatched: None,
            parked_until: None,
            epoch: 0,
            refusal: None,
            answerer: Some(answerer),
            permit: crate::raft::BytePermit::default(),
            share: None,
        }
    }

    fn load(consistency: Consistency) -> Operation {
        Operation::Load(Load { consistency, ..Load::whole(SessionId::new("s").expect("short")) })
    }

    fn follower() -> Situation {
        Situation {
            now: Duration::from_secs(1),
            cluster_id: Some(ClusterId([1; 16])),
            outside: None,
            is_estranged: false,
            leads: false,
            in_force: 1,
            leader: Some(LeaderHint { node: NodeId(2), address: "two:1".into() }),
            leader_reads: Some(1),
            saves_wait_for: None,
            lacks_quorum: false,
            hung: false,
            stopping: false,
        }
    }

    fn refused(route: Route) -> RefusalKind {
        match route {
            Route::Refuse(refusal) => {
                assert_eq!(refusal.applied, Applied::No, "nothing was tried");
                refusal.kind
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn a_write_with_a_wrong_checksum_is_refused_by_name() {
        let mut blob = Blob::plain(Bytes::from_static(b"data"));
        blob.crc32c ^= 1;
        let refusal = validate(request(&save(blob), &[1; 16])).expect_err("damaged");
        assert_eq!((refusal.kind, refusal.applied), (RefusalKind::Invalid, Applied::No));
        assert!(refusal.message.contains("checksum"), "{}", refusal.message);
    }

    #[test]
    fn a_write_above_the_limit_is_refused_with_both_sides() {
        let blob = Blob::plain(Bytes::from(vec![0; WRITE_BYTES_MAX as usize + 1]));
        let refusal = validate(request(&save(blob), &[1; 16])).expect_err("too large");
        assert_eq!(refusal.kind, RefusalKind::Invalid);
        assert!(refusal.message.contains(&WRITE_BYTES_MAX.to_string()), "{}", refusal.message);
    }

    #[test]
    fn a_call_that_names_a_client_must_name_its_cluster() {
        let write = save(Blob::plain(Bytes::new()));
        assert_eq!(validate(request(&write, &[])).expect_err("no cluster").kind, RefusalKind::Invalid);
        assert_eq!(validate(request(&write, &[1; 3])).expect_err("half a cluster").kind, RefusalKind::Invalid);
        assert_eq!(validate(request(&write, &[1; 16])).expect("whole").timeout, WRITE_DEADLINE_DEFAULT);
        let open = Write::OpenClient { nonce: Nonce([1; 16]) };
        assert!(validate(request(&open, &[])).is_ok(), "opening a client needs no cluster");
    }

    #[test]
    fn a_deadline_beyond_the_limit_is_shortened() {
        let mut long = request(&save(Blob::plain(Bytes::new())), &[1; 16]);
        long.timeout_ms = u32::MAX;
        assert_eq!(validate(long).expect("well formed").timeout, WRITE_DEADLINE_MAX);
    }

    #[test]
    fn a_follower_forwards_a_clients_call_and_refuses_a_forwarded_one_with_a_hint() {
        let read = || load(Consistency::Linearizable);
        assert_eq!(route(&call(read(), Origin::Client), &follower()), Route::Forward(NodeId(2)));
        let hint = follower().leader.expect("a leader");
        assert_eq!(refused(route(&call(read(), Origin::Peer), &follower())), RefusalKind::NotLeader(hint));
    }

    /// A leader of an earlier release would pass over the fence.
    #[test]
    fn what_a_leader_may_not_know_is_not_forwarded_to_it() {
        let request =
            Request { client: ClientId(1), nonce: Nonce([1; 16]), sequence: Sequence(1), acknowledged_below: Sequence(1) };
        let id = SessionId::new("s").expect("short");
        let fenced = || Operation::Write(Write::Delete { request, id: id.clone(), expected: None, fence: Some(Fence(1)) });
        let fenced = || call(fenced(), Origin::Client);
        let at = |in_force, leader_reads| Situation { in_force, leader_reads, ..follower() };
        assert_eq!(route(&fenced(), &at(2, None)), Route::Forward(NodeId(2)), "all members read what is in force");
        assert_eq!(route(&fenced(), &at(1, Some(2))), Route::Forward(NodeId(2)), "the leader judges");
        assert_eq!(refused(route(&fenced(), &at(1, Some(1)))), RefusalKind::Unsupported);
        assert_eq!(route(&fenced(), &at(1, None)), Route::Park);
        let plain = call(Operation::Write(save(Blob::plain(Bytes::new()))), Origin::Client);
        assert_eq!(route(&plain, &at(1, Some(1))), Route::Forward(NodeId(2)));
    }

    #[test]
    fn without_a_leader_a_clients_call_is_parked_and_a_forwarded_one_refused() {
        let lost = Situation { leader: None, ..follower() };
        assert_eq!(route(&call(load(Consistency::Linearizable), Origin::Client), &lost), Route::Park);
        assert_eq!(refused(route(&call(load(Consistency::Linearizable), Origin::Peer), &lost)), RefusalKind::NoLeader);
    }

    /// Parked there, they would only lose time: the others may have elected another.
    #[test]
    fn a_leader_without_a_majority_refuses_at_once_and_still_answers_stale_reads() {
        let alone = Situation { leader: None, lacks_quorum: true, ..follower() };
        for origin in [Origin::Client, Origin::Peer] {
            assert_eq!(refused(route(&call(load(Consistency::Linearizable), origin), &alone)), RefusalKind::NoLeader);
            let saved = Operation::Write(save(Blob::plain(Bytes::new())));
            assert_eq!(refused(route(&call(saved, origin), &alone)), RefusalKind::NoLeader);
        }
        assert_eq!(route(&call(load(Consistency::Stale), Origin::Client), &alone), Route::Here);
    }

    #[test]
    fn a_stale_read_is_answered_by_any_living_node() {
        let lost = Situation { leader: None, ..follower() };
        assert_eq!(route(&call(load(Consistency::Stale), Origin::Client), &lost), Route::Here);
    }

    #[test]
    fn a_call_past_its_deadline_or_for_another_cluster_is_refused_even_by_the_leader() {
        let leads = Situation { leads: true, ..follower() };
        let late = Situation { now: Duration::from_secs(10), ..leads.clone() };
        let read = || call(load(Consistency::Linearizable), Origin::Client);
        assert_eq!(refused(route(&read(), &late)), RefusalKind::DeadlineExceeded);
        let other = Situation { cluster_id: Some(ClusterId([2; 16])), ..leads.clone() };
        assert_eq!(refused(route(&read(), &other)), RefusalKind::WrongCluster);
        assert_eq!(route(&read(), &leads), Route::Here);
    }

    #[test]
    fn a_node_whose_disk_hangs_sends_everyone_elsewhere() {
        let hung = Situation { hung: true, leader: None, ..follower() };
        assert_eq!(refused(route(&call(load(Consistency::Linearizable), Origin::Client), &hung)), RefusalKind::Unavailable);
    }

    #[test]
    fn too_little_room_refuses_saves_by_name_and_lets_reads_and_deletes_pass() {
        let low = Situation { leads: true, saves_wait_for: Some("full=2,3".into()), ..follower() };
        let saved = call(Operation::Write(save(Blob::plain(Bytes::new()))), Origin::Client);
        let Route::Refuse(named) = route(&saved, &low) else { panic!("a save is refused") };
        assert!(named.message.contains("full=2,3"), "{named}");
        assert_eq!(refused(route(&saved, &low)), RefusalKind::DiskLow { retry_after: DISK_LOW_RETRY_AFTER });
        assert_eq!(route(&call(load(Consistency::Linearizable), Origin::Client), &low), Route::Here);
        let open = Operation::Write(Write::OpenClient { nonce: Nonce([1; 16]) });
        assert_eq!(route(&call(open, Origin::Client), &low), Route::Here);
    }

    #[test]
    fn only_a_refusal_that_changed_nothing_and_blames_the_leadership_is_tried_again() {
        assert!(may_try_again(Origin::Client, &no_quorum()));
        assert!(!may_try_again(Origin::Peer, &no_quorum()));
        assert!(!may_try_again(Origin::Client, &Refusal::unknown(RefusalKind::Unavailable, "")));
        assert!(!may_try_again(Origin::Client, &Refusal::invalid("")));
    }

    #[test]
    fn parking_ends_after_its_bound_from_the_first_time_and_never_after_the_deadline() {
        let (now, deadline) = (Duration::from_secs(1), Duration::from_secs(10));
        let first = parked_until(None, now, deadline);
        assert_eq!(first, now + PARKED_FOR_MAX);
        assert_eq!(parked_until(Some(first), now + Duration::from_millis(400), deadline), first);
        assert_eq!(parked_until(None, now, now), now);
    }
}
