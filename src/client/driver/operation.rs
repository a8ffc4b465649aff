//! One operation on its way: what was asked, whom to answer, how it fared.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::connection::StreamId;
use super::retry::History;
use super::window::RequestWindow;
use crate::client::{Error, ErrorKind};
use crate::mutant::{self, Mutant};
use crate::types::{
    Change, ClusterId, List, ListPage, Load, LoadMany, Nonce, Outcome, Refusal, RefusalKind, Request, SessionId, Verdict, Write,
};
use crate::wire::{self, Assembled, AssembledMany, LoadAssembler, ManyAssembler, v1};

/// Names an operation within a driver; a later one is greater.
pub(crate) type Key = u64;
/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Makes the full change of a save; runs beside the driver.
pub(crate) type MakeChange = Box<dyn FnOnce() -> Result<Change, Error> + Send>;

/// The part of a save that knows the base of its delta. All calls are short.
pub(crate) trait Planned: Send {
    /// The cluster of the base; `None` without a base.
    fn cluster(&self) -> Option<ClusterId>;
    /// Builds the full change that replaces a delta whose base the server rejected, or (`elsewhere`) whose base belongs to another cluster.
    /// It is sent under the same request. `None` if that could lose what others stored: the save is a conflict.
    fn full_change(&mut self, elsewhere: bool) -> Option<MakeChange>;
    /// This full change is sent from now on.
    fn on_full_change(&mut self, change: &Change);
    /// The write to send after a conflict, under another request.
    fn fallback(&mut self) -> Option<Write>;
    /// The driver has the save.
    fn on_accepted(&mut self);
    /// The save ended, with the cluster that answered.
    fn on_finished(&mut self, end: Result<(&Outcome, Option<ClusterId>), ErrorKind>);
}

/// A call as its caller enqueues it.
pub(crate) struct Call {
    /// By the client's clock.
    pub deadline: Duration,
    pub body: Body,
    /// Its share of the bytes the client may hold; given back when the operation ends.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// The operation and its answerer.
pub(crate) enum Body {
    /// A write of the user; its request identity is set with each attempt.
    Write {
        write: Write,
        /// Of a save that continues from what is known.
        plan: Option<Box<dyn Planned>>,
        reply: Reply<Outcome>,
    },
    Load {
        load: Load,
        /// Cluster that the content known already came from.
        cluster: Option<ClusterId>,
        assembler: Box<LoadAssembler>,
        /// With the cluster that answered.
        reply: Reply<(Assembled, Option<ClusterId>)>,
    },
    LoadMany {
        many: LoadMany,
        /// As of a load; one for all that is known.
        cluster: Option<ClusterId>,
        assembler: Box<ManyAssembler>,
        /// With the cluster that answered.
        reply: Reply<(AssembledMany, Option<ClusterId>)>,
    },
    List {
        list: List,
        reply: Reply<ListPage>,
    },
    /// Our own: opens the client with this nonce.
    Open {
        nonce: Nonce,
    },
    /// Our own.
    KeepAlive,
    /// Our own: takes the sequence of a write that was given up, and changes nothing.
    Settle {
        write: Write,
    },
    /// Our own, the last.
    CloseClient,
    /// Not sent: settles what is open, closes the client and ends the driver.
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// How an attempt was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Stream(StreamId),
    Alone(usize),
}

impl Via {
    pub fn target(self) -> usize {
        match self {
            Via::Stream(line) => line.target,
            Via::Alone(target) => target,
        }
    }
}

/// An attempt without an answer so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub tag: u64,
    pub via: Via,
    /// The cluster it was sent to, where that was known.
    pub cluster: Option<ClusterId>,
}

/// Why an operation can't be sent as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsendable {
    /// The base of the write belongs to another cluster.
    OtherCluster,
    /// The operation needs a client that is not open, or not any more.
    NotOpen,
    /// The cluster is not known to be at the version that the write needs (L43): a node that does not know all of it would leave something out.
    NotInForce {
        /// The version it needs.
        needs: u16,
    },
}

pub(crate) struct Operation {
    pub body: Body,
    pub deadline: Duration,
    /// The identity of a write that has one by now.
    pub request: Option<Request>,
    pub attempt: Option<Attempt>,
    /// The one timer besides the deadline: a gate's or a wait's end.
    pub timer: Option<Duration>,
    /// Waits for an abandoned write of its session.
    pub gated: bool,
    pub history: History,
    /// Why the last attempt was refused.
    pub refusal: Option<Refusal>,
    /// Answers the driver had when the write first needed a later cluster version than the one known.
    pub answers_before: Option<u64>,
    pub bytes: u64,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Operation {
    pub fn new(call: Call) -> Self {
        let bytes = match &call.body {
            Body::Write { write, .. } => write.stored_bytes(),
            _ => 0,
        };
        Self {
            body: call.body,
            deadline: call.deadline,
            request: None,
            attempt: None,
            timer: None,
            gated: false,
            history: History::default(),
            refusal: None,
            answers_before: None,
            bytes,
            _permit: call.permit,
        }
    }

    /// A user's write: it has a sequence, and may end up indeterminate.
    pub fn is_write(&self) -> bool {
        matches!(self.body, Body::Write { .. })
    }

    /// A call of the user, not our own.
    pub fn is_users(&self) -> bool {
        matches!(self.body, Body::Write { .. } | Body::Load { .. } | Body::LoadMany { .. } | Body::List { .. })
    }

    fn write(&self) -> Option<&Write> {
        match &self.body {
            Body::Write { write, .. } => Some(write),
            _ => None,
        }
    }

    /// The write, with its place in the order of its sessions' calls. A renewal of leases has none: it changes no content, and neither waits
    /// for a write nor is waited for.
    fn ordered(&self) -> Option<&Write> {
        self.write().filter(|write| !matches!(write, Write::RenewLeases { .. }))
    }

    /// Whether it gives a lease back.
    pub fn ends_a_turn(&self) -> bool {
        matches!(self.write(), Some(Write::ReleaseLease { .. }))
    }

    /// The sessions a user's write may change.
    pub fn written(&self) -> impl Iterator<Item = &SessionId> {
        self.ordered().into_iter().flat_map(Write::written)
    }

    /// The sessions a user's write or loads are about.
    pub fn sessions(&self) -> impl Iterator<Item = &SessionId> {
        let loads = match &self.body {
            Body::Load { load, .. } => std::slice::from_ref(load),
            Body::LoadMany { many, .. } => many.loads(),
            _ => &[],
        };
        let named = self.ordered().into_iter().flat_map(Write::sessions).map(|(id, _)| id);
        named.chain(loads.iter().map(|load| &load.id))
    }

    /// A write whose caller went away: the next caller cannot know how it ended.
    pub fn is_abandoned(&self) -> bool {
        matches!(&self.body, Body::Write { reply, .. } if reply.is_closed())
    }

    /// Begins an attempt: the request to send, with what is closed by now.
    pub fn attempt(&mut self, tag: u64, via: Via, window: &RequestWindow, now: Duration) -> Result<v1::SubmitRequest, Unsendable> {
        assert!(self.attempt.is_none(), "an operation is sent while an attempt is open tag={tag}");
        let cluster = window.cluster();
        if !self.matches_cluster(cluster) {
            return Err(Unsendable::OtherCluster);
        }
        if let Body::Write { write, .. } = &mut self.body {
            if window.in_force() < 2 {
                write.undeclare();
            }
            let needs = write.cluster_version();
            if needs > window.in_force() && !mutant::is(Mutant::SentBeforeItIsInForce) {
                return Err(Unsendable::NotInForce { needs });
            }
        }
        if let (Body::Write { write, .. }, Some(request)) = (&mut self.body, &mut self.request) {
            *request = window.refresh(*request);
            write.set_request(*request);
        }
        let operation = self.message(window).ok_or(Unsendable::NotOpen)?;
        if let Body::Write { write, .. } | Body::Settle { write } = &self.body
            && let Some(request) = write.request()
        {
            tracing::trace!(client = request.client.0, sequence = request.sequence.0, "an attempt of a write begins");
        }
        self.attempt = Some(Attempt { tag, via, cluster });
        let remaining = self.deadline.saturating_sub(now);
        // A little less than what is left, so that a refusal at the deadline still arrives before it.
        let timeout = remaining - (remaining / 10).min(Duration::from_millis(100));
        Ok(v1::SubmitRequest {
            tag,
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1),
            cluster_id: cluster.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default(),
            cluster_version: wire::VERSION_KNOWN.into(),
            operation: Some(operation),
        })
    }

    /// Whether what the operation continues from is of this cluster. A load continues from nothing instead.
    fn matches_cluster(&mut self, here: Option<ClusterId>) -> bool {
        match &mut self.body {
            Body::Load { load, cluster, .. } if cluster.is_some() && *cluster != here => {
                (load.have, *cluster) = (None, None);
                true
            }
            Body::LoadMany { many, cluster, .. } if cluster.is_some() && *cluster != here => {
                many.forget();
                *cluster = None;
                true
            }
            Body::Write { plan: Some(plan), .. } => plan.cluster().is_none_or(|cluster| Some(cluster) == here),
            _ => true,
        }
    }

    /// `None` where it is about a client that is not open.
    fn message(&self, window: &RequestWindow) -> Option<v1::submit_request::Operation> {
        let nonce = window.nonce();
        let own = match (&self.body, window.client()) {
            (Body::Write { write, .. }, _) => return Some(v1::submit_request::Operation::Write(wire::write_to(write))),
            (Body::Load { load, .. }, _) => return Some(v1::submit_request::Operation::Load(wire::load_to(load))),
            (Body::LoadMany { many, .. }, _) => return Some(v1::submit_request::Operation::LoadMany(wire::load_many_to(many))),
            (Body::List { list, .. }, _) => return Some(v1::submit_request::Operation::List(wire::list_to(list))),
            (Body::Open { nonce }, _) => Write::OpenClient { nonce: *nonce },
            (Body::KeepAlive, Some(client)) => {
                let is_planted = mutant::is(Mutant::KeepAliveCloses);
                let closed = if is_planted { window.next() } else { window.acknowledged_below() };
                Write::KeepAlive { client, nonce, acknowledged_below: closed }
            }
            (Body::CloseClient, Some(client)) => Write::CloseClient { client, nonce },
            (Body::Settle { write }, _) if write.request().is_some_and(|request| window.is_ours(request)) => write.clone(),
            _ => return None,
        };
        Some(v1::submit_request::Operation::Write(wire::write_to(&own)))
    }

    /// After a conflict: whether there is another write to send, which has taken this one's place.
    pub fn fall_back(&mut self) -> bool {
        let Body::Write { write, plan: Some(plan), .. } = &mut self.body else { return false };
        let Some(fallback) = plan.fallback() else { return false };
        self.bytes = fallback.stored_bytes();
        *write = fallback;
        true
    }

    /// Answers the caller of a user's write with its outcome. A caller that is gone wants none; the write happened all the same.
    pub fn succeed(self, outcome: Outcome, cluster: Option<ClusterId>) {
        let Body::Write { reply, plan, .. } = self.body else { return };
        if self.history.ambiguous {
            let is_conflict = matches!(outcome.verdict, Verdict::Conflict { .. });
            tracing::debug!(is_conflict, "an ambiguous write was settled by a retry");
        }
        if let Some(mut plan) = plan {
            plan.on_finished(Ok((&outcome, cluster)));
        }
        drop(reply.send(Ok(outcome)));
    }

    /// Whether what it ended in is about who could be reached, and not one node's judgement of it.
    pub fn is_about_endpoints(&self) -> bool {
        self.refusal.as_ref().is_none_or(|refusal| {
            matches!(
                refusal.kind,
                RefusalKind::Unavailable | RefusalKind::NoLeader | RefusalKind::NotLeader(_) | RefusalKind::DeadlineExceeded
            )
        })
    }

    /// The error for the caller when no attempt is left.
    pub fn failure(&mut self) -> Error {
        let pending = self.attempt.is_some() && self.is_write();
        if pending || self.history.ambiguous {
            return Error::indeterminate(self.refusal.take());
        }
        let why =
            if self.attempt.is_some() { "no answer within the deadline" } else { "no endpoint took the call within the deadline" };
        let never = || Refusal::not_applied(RefusalKind::Unavailable, why);
        Error::from_refusal(self.refusal.take().unwrap_or_else(never))
    }

    /// Answers the caller with a failure. A caller that is gone wants none.
    pub fn fail(self, error: Error) {
        match self.body {
            Body::Write { reply, plan, .. } => {
                if let Some(mut plan) = plan {
                    plan.on_finished(Err(error.kind()));
                }
                drop(reply.send(Err(error)));
            }
            Body::Load { reply, .. } => drop(reply.send(Err(error))),
            Body::LoadMany { reply, .. } => drop(reply.send(Err(error))),
            Body::List { reply, .. } => drop(reply.send(Err(error))),
            Body::Open { .. } | Body::KeepAlive | Body::Settle { .. } | Body::CloseClient => {}
            Body::Close { reply } => drop(reply.send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClientId, ContentVersion, Expected, Revision, Sequence, Version};

    const NONCE: Nonce = Nonce([1; 16]);
    const CLUSTER: [u8; 16] = [7; 16];

    fn operation(body: Body) -> Operation {
        Operation::new(Call { deadline: Duration::from_secs(10), body, permit: None })
    }

    fn settle(nonce: Nonce) -> Body {
        let request = Request { client: ClientId(40), nonce, sequence: Sequence(1), acknowledged_below: Sequence(1) };
        let id = SessionId::new("s").expect("valid");
        Body::Settle { write: Write::Delete { request, id, expected: Some(Expected::Absent), fence: None } }
    }

    /// An operation about a client is sent while that one is open only, and one with a base of another cluster is not sent there.
    #[test]
    fn what_is_sent_fits_the_client_and_the_cluster() {
        let closed = RequestWindow::new(NONCE);
        let mut open = RequestWindow::new(NONCE);
        open.on_opened(ClientId(40));
        let cases: [(&str, Body, bool, bool); 5] = [
            ("open", Body::Open { nonce: NONCE }, true, true),
            ("keep alive", Body::KeepAlive, false, true),
            ("close", Body::CloseClient, false, true),
            ("settle", settle(NONCE), false, true),
            ("settle of an earlier client", settle(Nonce([2; 16])), false, false),
        ];
        for (name, body, while_closed, while_open) in cases {
            let mut operation = operation(body);
            for (window, is_sent) in [(&closed, while_closed), (&open, while_open)] {
                let attempt = operation.attempt(1, Via::Alone(0), window, Duration::ZERO);
                assert_eq!(attempt.map(drop), if is_sent { Ok(()) } else { Err(Unsendable::NotOpen) }, "{name}");
                assert_eq!(operation.attempt.take().is_some(), is_sent, "{name}");
            }
        }
    }

    #[test]
    fn a_load_asks_another_cluster_for_everything() {
        let other = ClusterId::from_slice(&[8; 16]).expect("an id");
        let mut window = RequestWindow::new(NONCE);
        window.learn(ClusterId::from_slice(&CLUSTER).expect("an id"));
        let have = ContentVersion { create_revision: Revision(1), version: Version(1), items: 0, next_chunk: 0 };
        let load = Load { have: Some(have), ..Load::whole(SessionId::new("s").expect("valid")) };
        let (reply, _answer) = oneshot::channel();
        let mut operation = operation(Body::Load { load, cluster: Some(other), assembler: Box::default(), reply });
        let request = operation.attempt(1, Via::Alone(0), &window, Duration::from_secs(9)).expect("sent");
        assert_eq!((request.cluster_id, request.timeout_ms), (Bytes::copy_from_slice(&CLUSTER), 900));
        assert!(matches!(&operation.body, Body::Load { load, cluster: None, .. } if load.have.is_none()));
    }
}
