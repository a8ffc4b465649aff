//! The dispatcher: every operation passes it, from a stream, a single call, or a peer that forwards.
//!
//! ```text
//! submit: validate -> count bytes in flight -> arrived
//! the task: arrived -> route -> writes ─ batches ─> Raft ──┐
//!                        │      reads ── batches ─> Raft ──┤ end of an attempt: answer, or arrived again if it changed nothing and
//!                        │      leader ── forward stream ──┘         the leadership is to blame
//!                        └──> park (a leader is awaited, or the stream to it)
//! ```
//!
//! One operation costs no task and no timer: the task takes what has arrived since its last turn, and one coarse tick finds what is
//! past its deadline. Batches in flight are bounded, so operations gather while Raft is busy. Each call is answered exactly once.
//!
//! [`Calls`] holds what is between admission and answer, [`task::Task`] decides where each call goes, and the streams and batches below
//! it know only the former.

mod batches;
mod calls;
mod fair;
mod forward;
mod park;
mod task;

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::admission::{self, Validated};
use super::auth::{Caller, Need};
use super::call::{Answer, Answerer, Call, IncomingRequest, Origin};
use super::context::ServerContext;
use super::readers::Readers;
use super::shares::Share;
use crate::limits::IN_FLIGHT_BYTES_MAX;
use crate::raft::BytePermit;
use crate::types::{Refusal, RefusalKind};
use crate::wire::v1;
pub use calls::Calls;
use task::Task;

/// An admitted request, the share of its token, and the permit of its bytes.
type Admitted = (Validated, Option<Arc<Share>>, BytePermit);

/// The facts that every answer says beside itself.
#[derive(Default)]
struct Envelope {
    /// `None`: this node.
    leader: Mutex<Option<v1::Leader>>,
    /// The cluster version in force; 0 before the first operation.
    in_force: AtomicU16,
}

impl Envelope {
    fn leader(&self) -> Option<v1::Leader> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_leader(&self, leader: Option<v1::Leader>) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
    }

    fn set_in_force(&self, version: u16) {
        self.in_force.store(version, Ordering::Relaxed);
    }
}

/// Takes operations. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

struct Inner {
    context: ServerContext,
    envelope: Arc<Envelope>,
    cluster_id: OnceLock<Bytes>,
}

impl Dispatcher {
    pub fn new(context: ServerContext) -> Self {
        Self(Arc::new(Inner { context, envelope: Arc::default(), cluster_id: OnceLock::new() }))
    }

    fn calls(&self) -> &Calls {
        self.0.context.calls()
    }

    /// Takes an operation; its answer goes to `answerer`, perhaps before this returns. Never waits.
    pub fn submit(&self, incoming: IncomingRequest, origin: Origin, answerer: Answerer) {
        let started = self.calls().now();
        let IncomingRequest { request, caller, connection } = incoming;
        match self.admit(request, &caller, connection.as_ref()) {
            Err(refusal) => answerer.answer(Err(refusal)),
            Ok((validated, share, permit)) => {
                self.calls().arrive(Box::new(Call {
                    operation: validated.operation,
                    knows: validated.knows,
                    origin,
                    caller,
                    connection,
                    cluster_id: validated.cluster_id,
                    started,
                    deadline: started.saturating_add(validated.timeout),
                    dispatched: None,
                    parked_until: None,
                    epoch: 0,
                    refusal: None,
                    answerer: Some(answerer),
                    permit,
                    share,
                }));
            }
        }
    }

    fn admit(&self, request: v1::SubmitRequest, caller: &Caller, connection: Option<&Arc<AtomicU64>>) -> Result<Admitted, Refusal> {
        if self.calls().is_stopping() {
            return Err(Refusal::not_applied(RefusalKind::Unavailable, "the node is stopping"));
        }
        let validated = admission::validate(request)?;
        let share = self.0.context.guard().admit(caller, Need::of(&validated.operation))?;
        if !validated.operation.is_write() {
            self.calls().admit_read(&validated.operation, share.as_deref(), connection)?;
        }
        let bytes = validated.operation.bytes();
        let permit = match &share {
            Some(share) => share.charge(self.calls().in_flight(), bytes)?,
            None => BytePermit::within(self.calls().in_flight(), bytes, IN_FLIGHT_BYTES_MAX),
        };
        Ok((validated, share, permit.ok_or_else(admission::too_many_bytes)?))
    }

    /// The answer to one operation. Dropping the future loses the answer, not the operation.
    pub async fn ask(&self, incoming: IncomingRequest) -> Answer {
        let tag = incoming.request.tag;
        let (sender, mut answers) = mpsc::channel(1);
        let gone = || Refusal::unknown(RefusalKind::Unavailable, "the node stopped before the operation was answered");
        let Ok(room) = sender.try_reserve_owned() else { return Answer { tag, result: Err(gone()) } };
        self.submit(incoming, Origin::Client, Answerer::new(tag, room));
        answers.recv().await.unwrap_or_else(|| Answer { tag, result: Err(gone()) })
    }

    /// 16 bytes, or none before the cluster was bootstrapped.
    pub fn cluster_id(&self) -> Bytes {
        if let Some(id) = self.0.cluster_id.get() {
            return id.clone();
        }
        match self.calls().node().cluster_id() {
            None => Bytes::new(),
            // A node's cluster never changes once it serves: adopting ends before a leader can be.
            Some(id) if self.calls().node().leadership().borrow().leader.is_some() => {
                self.0.cluster_id.get_or_init(|| Bytes::copy_from_slice(id.as_bytes())).clone()
            }
            Some(id) => Bytes::copy_from_slice(id.as_bytes()),
        }
    }

    /// The leader, where that is another node.
    pub fn leader_hint(&self) -> Option<v1::Leader> {
        self.0.envelope.leader()
    }

    /// The cluster version in force, as of the last operation that was taken; 0 before the first.
    pub fn in_force(&self) -> u16 {
        self.0.envelope.in_force.load(Ordering::Relaxed)
    }

    /// The streams of answers to clients.
    pub fn readers(&self) -> &Readers {
        self.calls().readers()
    }

    /// Runs until `stop`; its spawner joins it. Calls in flight then are answered as Raft drops them.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        Task::new(self.calls().clone(), self.0.envelope.clone()).run(stop).await;
    }
}
