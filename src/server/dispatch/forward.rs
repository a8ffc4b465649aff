//! Forward streams: how a node that does not lead hands its clients' operations to the leader, once.
//!
//! Two streams are kept to the leader, one for large operations, so that those never hold up small ones. A stream is opened with a
//! message that carries its route only, and is used when the leader has answered that: until then nothing was sent, and calls stay
//! parked. Once an operation is on its way, a stream that breaks leaves a write unknown; a read may be tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::calls::Calls;
use crate::limits::{
    ENTRY_OVERHEAD_BYTES_MAX, FORWARD_QUEUE_MAX, LARGE_OPERATION_BYTES, LISTED_BYTES, SESSION_STORED_BYTES_MAX,
    WRITE_MESSAGE_BYTES_MAX,
};
use crate::machine::newest_version;
use crate::mutant::{self, Mutant};
use crate::raft::{BytePermit, Peer, no_room};
use crate::server::call::{Call, Dispatched, Operation, Response};
use crate::server::frames;
use crate::server::in_flight::LinkId;
use crate::types::{NodeId, Refusal, RefusalKind};
use crate::wire::peer::v1::{ForwardRequest, peer_client::PeerClient};
use crate::wire::{self, v1};

/// How long a leader may take to accept a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// After a stream could not be opened: how long until the next try.
const REOPEN_AFTER: Duration = Duration::from_millis(50);
/// Large operations queued on their stream.
const LARGE_QUEUE_MAX: usize = 16;

/// The calls that a stream carries, by size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Small,
    Large,
}

/// A change of a stream.
pub enum Event {
    /// The stream may be used.
    Opened { id: LinkId, requests: mpsc::Sender<ForwardRequest> },
    /// The stream is gone, or was never there.
    Closed { id: LinkId },
}

/// Whether a call is on its way.
pub enum Sent {
    /// The call is in the in-flight table; its attempt ends with an answer or with the stream.
    Yes,
    /// Nothing was sent: the stream is not open yet, or full.
    NotYet(Box<Call>),
}

struct Link {
    id: LinkId,
    /// `None` until the leader has accepted it.
    requests: Option<mpsc::Sender<ForwardRequest>>,
}

/// The streams to the present leader. Owned by the dispatcher's task; dropping it ends them.
pub struct Links {
    calls: Calls,
    links: BTreeMap<(NodeId, Class), Link>,
    next: LinkId,
    tasks: JoinSet<()>,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
}

impl Links {
    pub fn new(calls: Calls) -> Self {
        Self { calls, links: BTreeMap::new(), next: 0, tasks: JoinSet::new(), events: mpsc::channel(16) }
    }

    /// The next event. Cancel safe.
    pub async fn event(&mut self) -> Event {
        loop {
            tokio::select! {
                event = self.events.1.recv() => if let Some(event) = event { return event },
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    /// Ends the streams to all others, once what was sent on them is answered.
    pub fn keep_only(&mut self, leader: Option<NodeId>) {
        self.links.retain(|(node, _), _| Some(*node) == leader);
    }

    /// Opens both streams to a leader, where they are not.
    pub fn open(&mut self, leader: NodeId) {
        for class in [Class::Small, Class::Large] {
            if self.links.contains_key(&(leader, class)) {
                continue;
            }
            let Some(peer) = self.calls.node().peer(leader) else { return };
            let id = self.next;
            self.next += 1;
            let capacity = if class == Class::Small { FORWARD_QUEUE_MAX } else { LARGE_QUEUE_MAX };
            let stream = LinkTask { calls: self.calls.clone(), id, events: self.events.0.clone() };
            self.tasks.spawn(stream.run(peer, capacity));
            self.links.insert((leader, class), Link { id, requests: None });
        }
    }

    pub fn on_event(&mut self, event: Event) {
        match event {
            Event::Opened { id, requests } => {
                // A stream nobody wants any more ends by dropping its sender.
                if let Some(link) = self.links.values_mut().find(|link| link.id == id) {
                    link.requests = Some(requests);
                }
            }
            Event::Closed { id } => self.links.retain(|_, link| link.id != id),
        }
    }

    /// Sends a call to the leader, if its stream is open; otherwise sees to it that it will be.
    pub fn send(&mut self, leader: NodeId, mut call: Box<Call>) -> Sent {
        let class = if call.permit.bytes() > LARGE_OPERATION_BYTES { Class::Large } else { Class::Small };
        let Some(Link { id, requests: Some(requests) }) = self.links.get(&(leader, class)) else {
            self.open(leader);
            return Sent::NotYet(call);
        };
        let Ok(room) = requests.try_reserve() else { return Sent::NotYet(call) };
        let now = self.calls.now();
        let mut request = request(&call, now);
        let principal = call.caller.principal().to_owned();
        let token_sha256 = bytes::Bytes::copy_from_slice(call.caller.token_hash());
        let is_write = call.operation.is_write();
        call.dispatched = Some(Dispatched { at: now, forwarded: true });
        // Entered before it is sent: the answer must find it.
        match self.calls.table().enter_link(call, *id) {
            Err(call) => Sent::NotYet(call),
            Ok(key) => {
                request.tag = key;
                tracing::trace!(is_write, "a call is forwarded");
                room.send(ForwardRequest { request: Some(request), principal, token_sha256, ..Default::default() });
                Sent::Yes
            }
        }
    }
}

fn request(call: &Call, now: Duration) -> v1::SubmitRequest {
    use v1::submit_request::Operation as Message;
    let operation = match &call.operation {
        Operation::Write(write) => Message::Write(wire::write_to(write)),
        Operation::Load(load) => Message::Load(wire::load_to(load)),
        Operation::List(list) => Message::List(wire::list_to(list)),
        Operation::LoadMany(many) => Message::LoadMany(wire::load_many_to(many)),
    };
    let left = call.deadline.saturating_sub(now).as_millis();
    v1::SubmitRequest {
        tag: 0,
        timeout_ms: u32::try_from(left).unwrap_or(u32::MAX).max(1),
        cluster_id: call.cluster_id.map_or_else(bytes::Bytes::new, |id| bytes::Bytes::copy_from_slice(id.as_bytes())),
        // This node makes of an outcome what its own caller knows.
        cluster_version: newest_version().into(),
        operation: Some(operation),
    }
}

/// One stream: opens it, then passes on its answers until it ends.
struct LinkTask {
    calls: Calls,
    id: LinkId,
    events: mpsc::Sender<Event>,
}

impl LinkTask {
    async fn run(self, peer: Peer, capacity: usize) {
        let (requests, queue) = mpsc::channel(capacity + 1);
        let cluster_version_max = newest_version().into();
        let route = ForwardRequest { route: Some(peer.route), cluster_version_max, ..Default::default() };
        if requests.try_send(route).is_err() {
            return;
        }
        let limit = WRITE_MESSAGE_BYTES_MAX as usize;
        let mut client = PeerClient::new(peer.channel).max_decoding_message_size(limit).max_encoding_message_size(limit);
        let opened = tokio::time::timeout(OPEN_TIMEOUT, client.forward(ReceiverStream::new(queue))).await;
        match opened {
            Ok(Ok(response)) => {
                self.calls.table().on_link_opened(self.id);
                let why = match self.events.send(Event::Opened { id: self.id, requests }).await {
                    Ok(()) => self.answers(response.into_inner()).await,
                    Err(_) => "the node is stopping".to_owned(),
                };
                self.on_broken(&why);
            }
            // Nothing was sent. The leader may be starting: a short wait instead of a storm.
            Ok(Err(_)) | Err(_) => tokio::time::sleep(REOPEN_AFTER).await,
        }
        let _ = self.events.send(Event::Closed { id: self.id }).await;
    }

    async fn answers(&self, mut answers: tonic::Streaming<v1::SubmitResponse>) -> String {
        loop {
            match answers.message().await {
                Ok(Some(response)) => self.on_answer(response),
                Ok(None) => return "the leader ended the stream".to_owned(),
                Err(status) => return format!("the stream to the leader broke: {}", status.message()),
            }
        }
    }

    fn on_answer(&self, response: v1::SubmitResponse) {
        use v1::submit_response::Answer as Message;
        let key = response.tag;
        let mut table = self.calls.table();
        let Some(open) = table.arriving(key, self.id) else { return };
        let Some(answer) = response.answer else { return };
        let result = match answer {
            Message::Refusal(refusal) => Err(wire::refusal_from(refusal)),
            Message::Load(_) | Message::LoadMany(_) => {
                let last = frames::is_last(&answer);
                open.frame_bytes += frames::content_bytes(&answer);
                open.frames.push(answer);
                let too_large = open.frame_bytes > SESSION_STORED_BYTES_MAX + ENTRY_OVERHEAD_BYTES_MAX;
                if !last && !too_large {
                    return;
                }
                let budget = self.calls.node().loaded();
                match too_large {
                    true => Err(Refusal::not_applied(RefusalKind::Corrupt, "the leader's answer is larger than any may be")),
                    false if !budget.has_room_for(open.frame_bytes) => Err(no_room()),
                    false => {
                        let permit = budget.charge(open.frame_bytes);
                        Ok(Response::Relayed { answers: std::mem::take(&mut open.frames), permit })
                    }
                }
            }
            Message::List(page) => {
                let holder = |lease: &Option<v1::Lease>| lease.as_ref().map_or(0, |lease| lease.holder.len());
                let text = |listed: &v1::Listed| {
                    listed.id.len() + listed.info.as_ref().map_or(0, |info| info.label.len() + holder(&info.lease))
                };
                let sessions = page.sessions.iter().map(text);
                let leases = page.leases.iter().map(|leased| leased.id.len() + holder(&leased.lease));
                let bytes = sessions.chain(leases).map(|text| text as u64 + LISTED_BYTES).sum();
                let permit = self.calls.node().loaded().charge(bytes);
                Ok(Response::Relayed { answers: vec![Message::List(page)], permit })
            }
            other => Ok(Response::Relayed { answers: vec![other], permit: BytePermit::default() }),
        };
        drop(table);
        self.calls.end_attempt(key, result);
    }

    fn on_broken(&self, why: &str) {
        let open = self.calls.table().on_link_broken(self.id);
        if open.is_empty() {
            return;
        }
        tracing::warn!(operations = open.len(), %why, "a forward stream broke");
        self.calls.metrics().forward_broke();
        for in_flight in open {
            let refusal = Refusal::unknown_unless(mutant::is(Mutant::ForwardBrokenRefused), RefusalKind::Unavailable, why);
            self.calls.end_attempt_of(in_flight, Err(refusal));
        }
    }
}
