//! One operation on its way through a node: what it asks, until when, and where its answer goes.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::mpsc::OwnedPermit;

use super::auth::Caller;
use super::shares::Share;
use crate::limits::OPERATION_BYTES;
use crate::mutant::{self, Mutant};
use crate::raft::BytePermit;
use crate::types::{
    ClusterId, Consistency, List, ListPage, Load, LoadMany, Loaded, Outcome, Refusal, RefusalKind, Revision, Verdict, Write,
};
use crate::wire::v1;

/// An operation's name in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Save,
    SaveIfVersion,
    Append,
    Touch,
    Delete,
    Repack,
    Transaction,
    AcquireLease,
    RenewLeases,
    ReleaseLease,
    /// Opening, keeping and closing clients.
    Client,
    Load,
    List,
    LoadMany,
}

impl Kind {
    /// Its word in metrics and logs.
    pub fn name(self) -> &'static str {
        KINDS[self as usize]
    }

    /// Whether it may change anything.
    pub fn is_write(self) -> bool {
        !matches!(self, Self::Load | Self::List | Self::LoadMany)
    }
}

/// Their words, in the order of [`Kind`].
pub(super) const KINDS: [&str; 14] = [
    "save",
    "save_if_version",
    "append",
    "touch",
    "delete",
    "repack",
    "transaction",
    "acquire_lease",
    "renew_leases",
    "release_lease",
    "client",
    "load",
    "list",
    "load_many",
];

/// A validated operation.
#[derive(Clone, Debug)]
pub enum Operation {
    Write(Write),
    Load(Load),
    List(List),
    LoadMany(LoadMany),
}

impl Operation {
    /// Its name in metrics.
    pub fn kind(&self) -> Kind {
        match self {
            Operation::Write(Write::Save { .. }) => Kind::Save,
            Operation::Write(Write::SaveIfVersion { .. }) => Kind::SaveIfVersion,
            Operation::Write(Write::Append { .. }) => Kind::Append,
            Operation::Write(Write::Touch { .. }) => Kind::Touch,
            Operation::Write(Write::Delete { .. }) => Kind::Delete,
            Operation::Write(Write::AcquireLease { .. }) => Kind::AcquireLease,
            Operation::Write(Write::RenewLeases { .. }) => Kind::RenewLeases,
            Operation::Write(Write::ReleaseLease { .. }) => Kind::ReleaseLease,
            Operation::Write(Write::Repack { .. }) => Kind::Repack,
            Operation::Write(Write::Transaction { .. }) => Kind::Transaction,
            Operation::Write(Write::OpenClient { .. } | Write::KeepAlive { .. } | Write::CloseClient { .. }) => Kind::Client,
            Operation::Load(_) => Kind::Load,
            Operation::List(_) => Kind::List,
            Operation::LoadMany(_) => Kind::LoadMany,
        }
    }

    /// Whether it may change anything.
    pub fn is_write(&self) -> bool {
        matches!(self, Operation::Write(_))
    }

    /// Whether it stores content, which a full disk forbids; deletes and the client table go on.
    pub fn is_save(&self) -> bool {
        matches!(self, Operation::Write(write) if write.has_content())
    }

    /// Whether any living node may answer it.
    pub fn is_stale_read(&self) -> bool {
        let consistency = match self {
            Operation::Write(_) => return false,
            Operation::Load(load) => load.consistency,
            Operation::List(list) => list.consistency,
            Operation::LoadMany(many) => many.consistency(),
        };
        consistency == Consistency::Stale
    }

    /// The first cluster version that has it with all its fields.
    pub fn cluster_version(&self) -> u16 {
        match self {
            Operation::Write(write) => write.cluster_version(),
            Operation::Load(_) | Operation::List(_) | Operation::LoadMany(_) => 1,
        }
    }

    /// Its size in bytes, while it is in flight.
    pub fn bytes(&self) -> u64 {
        let content = match self {
            Operation::Write(write) => write.stored_bytes(),
            Operation::Load(_) | Operation::List(_) => 0,
            Operation::LoadMany(many) => many.loads().iter().map(|load| load.id.as_str().len() as u64).sum(),
        };
        content.saturating_add(OPERATION_BYTES)
    }

    /// Whether it names something that is valid in one cluster only: a client, or what the reader has.
    pub fn needs_cluster(&self) -> bool {
        match self {
            Operation::Write(write) => !matches!(write, Write::OpenClient { .. }),
            Operation::Load(load) => load.have.is_some(),
            Operation::List(_) => false,
            Operation::LoadMany(many) => many.loads().iter().any(|load| load.have.is_some()),
        }
    }
}

/// Where an operation entered this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a client: forwarded to the leader if that is another node.
    Client,
    /// From a peer, which forwarded it: never forwarded again.
    Peer,
}

/// A request as it arrived, with its caller.
pub struct IncomingRequest {
    pub request: v1::SubmitRequest,
    pub caller: Caller,
    /// Of a read by a client: what waits for the readers of its connection.
    pub connection: Option<Arc<AtomicU64>>,
}

/// The answer to an operation that was not refused.
#[derive(Debug)]
pub enum Response {
    /// From this node's machine.
    Outcome(Outcome),
    /// Content from this node's state. `age_ms` is set for a stale read; `permit` counts the content until it is sent.
    Loaded { revision: Revision, loaded: Loaded, age_ms: Option<u64>, permit: BytePermit },
    /// Content of several sessions from one instant of this node's state, as of one.
    LoadedMany { revision: Revision, loaded: Vec<Loaded>, age_ms: Option<u64>, permit: BytePermit },
    /// Sessions from this node's state; `permit` counts the page until it is sent.
    Listed { page: ListPage, permit: BytePermit },
    /// Frames from the leader, unchanged: several for a large load. `permit` counts them until they are sent.
    Relayed { answers: Vec<v1::submit_response::Answer>, permit: BytePermit },
}

impl Response {
    /// Whether a lease kept a write from its session.
    fn is_of_a_lease(&self) -> bool {
        use v1::outcome::Verdict as Message;
        match self {
            Response::Outcome(outcome) => matches!(outcome.verdict, Verdict::Leased { .. } | Verdict::Fenced { .. }),
            Response::Relayed { answers, .. } => answers.iter().any(|answer| match answer {
                v1::submit_response::Answer::Outcome(outcome) => {
                    matches!(outcome.verdict, Some(Message::Leased(_) | Message::Fenced(_)))
                }
                _ => false,
            }),
            Response::Loaded { .. } | Response::LoadedMany { .. } | Response::Listed { .. } => false,
        }
    }

    /// The answer for a caller that knows so many cluster versions: one that knows no leases can't understand their verdicts. Errors:
    /// `Denied`, which says the same of this attempt.
    pub fn known_by(self, knows: u16) -> Result<Self, Refusal> {
        if knows >= 2 || !self.is_of_a_lease() || mutant::is(Mutant::LeasedToAnOldClient) {
            return Ok(self);
        }
        let message = "another holds a lease of this session, and this client's release knows no leases: nothing changed; write once the \
                       lease has ended, or with a release that takes turns";
        Err(Refusal::not_applied(RefusalKind::Denied, message))
    }

    /// The permit of its content; `None`: it has none.
    pub fn permit(&mut self) -> Option<&mut BytePermit> {
        match self {
            Response::Outcome(_) => None,
            Response::Loaded { permit, .. }
            | Response::LoadedMany { permit, .. }
            | Response::Listed { permit, .. }
            | Response::Relayed { permit, .. } => Some(permit),
        }
    }
}

/// An answer to the operation a caller tagged.
#[derive(Debug)]
pub struct Answer {
    /// The caller's tag.
    pub tag: u64,
    /// The answer.
    pub result: Result<Response, Refusal>,
}

/// Where one answer goes: room for it is kept from the beginning, so giving it never waits.
pub struct Answerer {
    tag: u64,
    room: OwnedPermit<Answer>,
}

impl Answerer {
    pub fn new(tag: u64, room: OwnedPermit<Answer>) -> Self {
        Self { tag, room }
    }

    /// Gives the answer. A caller that is gone loses it, and retries elsewhere.
    pub fn answer(self, result: Result<Response, Refusal>) {
        self.room.send(Answer { tag: self.tag, result });
    }
}

/// An attempt of a call.
#[derive(Clone, Copy, Debug)]
pub struct Dispatched {
    /// By the node's monotonic clock.
    pub at: Duration,
    /// Sent to the leader, not given to this node's Raft.
    pub forwarded: bool,
}

/// An admitted operation.
pub struct Call {
    pub operation: Operation,
    /// The newest cluster version whose outcomes the caller knows.
    pub knows: u16,
    pub origin: Origin,
    /// Sent to the leader with a forwarded call.
    pub caller: Caller,
    /// Of a read by a client: what waits for the readers of its connection.
    pub connection: Option<Arc<AtomicU64>>,
    /// The cluster it is meant for; `None`: any.
    pub cluster_id: Option<ClusterId>,
    /// By the node's monotonic clock, as the other times here.
    pub started: Duration,
    pub deadline: Duration,
    /// The last attempt; `None`: there was none yet.
    pub dispatched: Option<Dispatched>,
    /// When a parked call is refused; set when it is parked first.
    pub parked_until: Option<Duration>,
    /// Which leadership it was tried under last; see [`super::dispatch`].
    pub epoch: u64,
    /// Why it was parked; the answer if no attempt succeeds.
    pub refusal: Option<Refusal>,
    /// `None` once it was answered.
    pub answerer: Option<Answerer>,
    /// Counts its bytes while it is in flight.
    pub permit: BytePermit,
    /// The share of its token; `None`: without a tokens file.
    pub share: Option<Arc<Share>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_finds_its_room_even_when_all_other_room_is_taken() {
        let (sender, mut answers) = tokio::sync::mpsc::channel(1);
        let answerer = Answerer::new(7, sender.clone().try_reserve_owned().expect("room"));
        assert!(sender.try_reserve_owned().is_err());
        answerer.answer(Err(Refusal::invalid("no")));
        let answer = answers.recv().await.expect("the answer");
        assert_eq!((answer.tag, answer.result.is_err()), (7, true));
    }
}
