//! One operation on its way: what was asked, whom to answer, how it fared.

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::connection::StreamId;
use super::retry::History;
use crate::client::{Error, ErrorKind};
use crate::types::{Change, ClusterId, List, ListPage, Load, Nonce, Outcome, Refusal, RefusalKind, Request, SessionId, Write};
use crate::wire::{self, Assembled, LoadAssembler, v1};

/// Names an operation within a driver; a later one is greater.
pub(crate) type Key = u64;
/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Makes the whole content of a save; to be run beside the driver.
pub(crate) type Remake = Box<dyn FnOnce() -> Result<Change, Error> + Send>;

/// The part of a save that knows what it goes on from. All calls are short.
pub(crate) trait Planned: Send {
    /// The cluster its base is of, if it has one.
    fn cluster(&self) -> Option<ClusterId>;
    /// How to make the whole, to be sent under the same identity: the base is not current, or is another cluster's (`elsewhere`).
    /// `None` if that could lose what others stored: it is a conflict.
    fn remake(&mut self, elsewhere: bool) -> Option<Remake>;
    /// From now on this is sent.
    fn remade(&mut self, change: &Change);
    /// What to send after a conflict, as another write.
    fn instead(&mut self) -> Option<Write>;
    /// The driver has it.
    fn taken(&mut self);
    /// It ended, at the cluster that answered.
    fn ended(&mut self, end: Result<(&Outcome, Option<ClusterId>), ErrorKind>);
}

/// A call as the caller hands it over.
pub(crate) struct Call {
    /// By the client's clock.
    pub deadline: Duration,
    pub body: Body,
    /// Its share of the bytes the client may hold; given back when the operation ends.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// What was asked, and whom to answer.
pub(crate) enum Body {
    /// A write of the user; its request identity is set with each attempt.
    Write {
        write: Write,
        /// Of a save that goes on from what is known.
        plan: Option<Box<dyn Planned>>,
        reply: Reply<Outcome>,
    },
    Load {
        load: Load,
        /// The cluster that what it has is of.
        cluster: Option<ClusterId>,
        assembler: Box<LoadAssembler>,
        /// With the cluster that answered.
        reply: Reply<(Assembled, Option<ClusterId>)>,
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
    pub bytes: u64,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Operation {
    pub fn new(call: Call) -> Self {
        let bytes = match &call.body {
            Body::Write { write, .. } => write.change().map_or(0, |change| change.stored_bytes()),
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
        matches!(self.body, Body::Write { .. } | Body::Load { .. } | Body::List { .. })
    }

    /// The session a user's write or load is about.
    pub fn session(&self) -> Option<&SessionId> {
        match &self.body {
            Body::Write { write, .. } => write.session(),
            Body::Load { load, .. } => Some(&load.id),
            _ => None,
        }
    }

    /// A write whose caller went away: the next caller cannot know how it ended.
    pub fn is_abandoned(&self) -> bool {
        matches!(&self.body, Body::Write { reply, .. } if reply.is_closed())
    }

    /// The message of a user's operation.
    pub fn message(&self) -> Option<v1::submit_request::Operation> {
        match &self.body {
            Body::Write { write, .. } => Some(v1::submit_request::Operation::Write(wire::write_to(write))),
            Body::Load { load, .. } => Some(v1::submit_request::Operation::Load(wire::load_to(load))),
            Body::List { list, .. } => Some(v1::submit_request::Operation::List(wire::list_to(list))),
            _ => None,
        }
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

    /// What the caller gets when there is nothing more to try.
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
                    plan.ended(Err(error.kind()));
                }
                drop(reply.send(Err(error)));
            }
            Body::Load { reply, .. } => drop(reply.send(Err(error))),
            Body::List { reply, .. } => drop(reply.send(Err(error))),
            Body::Open { .. } | Body::KeepAlive | Body::Settle { .. } | Body::CloseClient => {}
            Body::Close { reply } => drop(reply.send(())),
        }
    }
}
