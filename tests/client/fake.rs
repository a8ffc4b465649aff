//! A cluster in memory behind the real protocol: nodes that share one state, each with a script of faults.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quorate::machine::{Command, Effects, Entry, Machine, Plan, rows};
use quorate::types::{
    Blob, Change, Counters, LeaderHint, Load, Loaded, LoadedContent, LogId, NodeId, Nonce, Outcome, Refusal, RefusalKind, Revision,
    Sequence, SessionId, Verdict, Write,
};
use quorate::wire::v1::sessions_server::{Sessions, SessionsServer};
use quorate::wire::{self, v1};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// What a node does with the next operation of a user that reaches it.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Applies it, then ends the stream without an answer.
    LoseReply,
    /// Ends the stream without applying it.
    LoseRequest,
    /// Applies it, then ends the stream in good order, as a server does that has no more to say.
    EndInOrder,
    /// Applies it, then ends the stream after the first message of the answer.
    CutAnswer,
    /// Refuses it.
    Refuse(Refusal),
    /// Answers an operation nobody asked for, then does as it should.
    StrangeTag,
    /// Never answers and applies nothing.
    Swallow,
    /// Applies and answers it when the cluster's gate opens.
    Hold,
    /// Answers with this outcome and applies nothing.
    Answer(Verdict),
}

/// A write that reached a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub node: u64,
    pub client: u64,
    pub sequence: u64,
    pub acknowledged_below: u64,
    pub unary: bool,
}

#[derive(Default)]
struct State {
    cluster: [u8; 16],
    machine: Machine,
    rows: BTreeMap<(u8, Bytes), Bytes>,
    stamp_ms: u64,
    seen: Vec<Seen>,
    /// Of each write of content: full or delta, its items, its stored bytes.
    changes: Vec<(bool, u64, u64)>,
    loads: Vec<(u64, Load)>,
    answers: Vec<&'static str>,
    swallowed: Vec<Write>,
    applied: u64,
    kept_alive: u64,
    leader: Option<v1::Leader>,
    /// Its release is one before parts of loads.
    is_older: bool,
    /// The cluster version that answers say is in force; 0: they do not say. Its machine stays at version 1.
    in_force: u32,
}

/// What all nodes share.
pub struct Cluster {
    state: Mutex<State>,
    /// Operations of users that reached a node so far.
    arrived: watch::Sender<usize>,
    gate: watch::Sender<bool>,
}

impl Cluster {
    /// Without a node.
    pub fn new() -> Arc<Self> {
        let state = State { cluster: [7; 16], ..State::default() };
        Arc::new(Self { state: Mutex::new(state), arrived: watch::Sender::new(0), gate: watch::Sender::new(false) })
    }

    /// With `count` nodes on free ports.
    pub async fn start(count: u64) -> (Arc<Self>, Vec<Node>) {
        let (cluster, mut nodes) = (Self::new(), Vec::new());
        for id in 1..=count {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            nodes.push(Node::serve(cluster.clone(), id, listener));
        }
        (cluster, nodes)
    }

    /// Waits until so many operations of users have reached a node.
    pub async fn arrived(&self, count: usize) {
        self.arrived.subscribe().wait_for(|arrived| *arrived >= count).await.expect("the cluster lives");
    }

    /// How many have.
    pub fn arrivals(&self) -> usize {
        *self.arrived.borrow()
    }

    /// Lets everything held go on.
    pub fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    pub fn loads(&self) -> usize {
        self.lock().loads.len()
    }

    /// Writes that changed something, or were judged and recorded.
    pub fn applied(&self) -> u64 {
        self.lock().applied
    }

    /// From now on every other node names this one in its answers.
    pub fn elect(&self, node: &Node) {
        self.lock().leader = Some(v1::Leader { node: node.id, address: node.address() });
    }

    /// As nodes of a release before parts of loads: they pass over what they do not know in a message.
    pub fn become_older(&self) {
        self.lock().is_older = true;
    }

    /// From now on answers say that this cluster version is in force.
    pub fn say_in_force(&self, version: u32) {
        self.lock().in_force = version;
    }

    pub fn kept_alive(&self) -> u64 {
        self.lock().kept_alive
    }

    pub fn clients(&self) -> usize {
        self.lock().machine.counts().clients as usize
    }

    /// As after its expiry.
    pub fn forget_clients(&self) {
        self.lock().expire_clients();
    }

    /// As after a restore into a new cluster.
    pub fn become_another(&self) {
        let mut state = self.lock();
        state.cluster = [8; 16];
        state.expire_clients();
    }

    pub fn become_another_again(&self) {
        self.become_another();
        self.lock().cluster = [9; 16];
    }

    /// Of each write of content that arrived: whether it was a delta, the items and the stored bytes it brought.
    pub fn changes(&self) -> Vec<(bool, u64, u64)> {
        self.lock().changes.clone()
    }

    /// What each load was answered.
    pub fn answers(&self) -> Vec<&'static str> {
        self.lock().answers.clone()
    }

    /// Applies what was swallowed, as a leader that was paused does when it wakes; gives what became of each.
    pub fn apply_swallowed(&self) -> Vec<Verdict> {
        let mut state = self.lock();
        std::mem::take(&mut state.swallowed).into_iter().map(|write| state.step(write).verdict).collect()
    }

    /// Applies a write of nobody's, as if another client had sent it.
    pub fn apply(&self, mut write: Write) -> Outcome {
        let mut state = self.lock();
        let nonce = Nonce([9; 16]);
        let Verdict::ClientOpened { client } = state.step(Write::OpenClient { nonce }).verdict else { panic!("room for a client") };
        let sequence = Sequence(state.machine.applied().expect("opened").index);
        write.set_request(quorate::types::Request { client, nonce, sequence, acknowledged_below: sequence });
        state.step(write)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the state")
    }
}

impl State {
    fn step(&mut self, write: Write) -> Outcome {
        let index = self.machine.applied().map_or(1, |applied| applied.index + 1);
        let entry = Entry { stamp_ms: self.stamp_ms, command: Command::Client(write) };
        self.apply(index, &entry)
    }

    fn apply(&mut self, index: u64, entry: &Entry) -> Outcome {
        let mut effects = Effects::default();
        let outcome = self.machine.apply(LogId { index, ..LogId::default() }, entry, &mut effects);
        for change in effects.rows {
            match change.value {
                Some(value) => drop(self.rows.insert((change.table, change.key), value)),
                None => drop(self.rows.remove(&(change.table, change.key))),
            }
        }
        outcome
    }

    fn expire_clients(&mut self) {
        self.stamp_ms += 2 * 3600 * 1000;
        let index = self.machine.applied().map_or(1, |applied| applied.index + 1);
        self.apply(index, &Entry { stamp_ms: self.stamp_ms, command: Command::Sweep { limit: 1000 } });
    }

    fn write(&mut self, write: Write) -> Outcome {
        let is_users = write.request().is_some();
        for change in write.changes() {
            assert!(change.blobs().all(Blob::is_intact), "the client sends intact blobs");
            let items = change.chunks().iter().map(|chunk| chunk.item_count).sum();
            self.changes.push((matches!(change, Change::Delta { .. }), items, change.stored_bytes()));
        }
        let outcome = self.step(write);
        let is_new = self.machine.applied().is_some_and(|applied| applied.index == outcome.revision.0);
        match outcome.verdict {
            Verdict::WindowExceeded => panic!("the window is the client's to keep"),
            Verdict::ClientKept => self.kept_alive += 1,
            Verdict::BaseMismatch | Verdict::ClientUnknown | Verdict::Stale => {}
            _ if is_users && is_new => self.applied += 1,
            _ => {}
        }
        outcome
    }

    fn load(&mut self, load: &Load) -> Loaded {
        let loaded = match self.machine.plan(load) {
            Plan::NotFound { tombstone } => Loaded::NotFound { tombstone },
            Plan::NotModified => Loaded::NotModified,
            Plan::Part { info, mut walk, head } => {
                let birth = rows::Birth::of(info.create_revision, info.next_chunk);
                let row = |table, key: Bytes| self.rows.get(&(table, key)).expect("a row of content");
                let mut chunks = VecDeque::new();
                while let Some(n) = walk.next_chunk() {
                    let stored = rows::decode_chunk(row(rows::CHUNKS, walk.places().key(n))).expect("a chunk");
                    let rows::ChunkRow { chunk, first_item } = stored;
                    match (walk.step(chunk.item_count, first_item).expect("no more items than the session"), walk.is_backwards()) {
                        (false, _) => {}
                        (true, true) => chunks.push_front(chunk),
                        (true, false) => chunks.push_back(chunk),
                    }
                }
                let head = head.then(|| rows::decode_head(row(rows::HEADS, rows::head_key(birth))).expect("a head"));
                Loaded::Suffix { first_item: walk.first_item(), content: LoadedContent { info, chunks: chunks.into(), head } }
            }
            Plan::Read { info, tail, places, chunks, head } => {
                let birth = rows::Birth::of(info.create_revision, info.next_chunk);
                let row = |table, key: Bytes| self.rows.get(&(table, key)).expect("a row of content");
                let chunk = |n| rows::decode_chunk(row(rows::CHUNKS, places.key(n))).expect("a chunk").chunk;
                let chunks = chunks.map(chunk).collect();
                let head = head.then(|| rows::decode_head(row(rows::HEADS, rows::head_key(birth))).expect("a head"));
                let content = LoadedContent { info, chunks, head };
                if tail { Loaded::Tail(content) } else { Loaded::Full(content) }
            }
        };
        self.answers.push(match &loaded {
            Loaded::NotFound { .. } => "not found",
            Loaded::NotModified => "not modified",
            Loaded::Tail(_) => "tail",
            Loaded::Full(_) => "full",
            Loaded::Suffix { .. } => "suffix",
        });
        loaded
    }

    fn list(&self, list: &quorate::types::List) -> quorate::types::ListPage {
        let (sessions, more) = self.machine.list(&list.prefix, list.after.as_ref().map(SessionId::as_str), list.limit);
        let mut page = quorate::types::ListPage::default();
        (page.revision, page.sessions, page.more) = (self.revision(), sessions, more);
        page
    }

    fn revision(&self) -> Revision {
        Revision(self.machine.applied().map_or(0, |applied| applied.index))
    }
}

/// One node.
pub struct Node {
    pub id: u64,
    pub address: SocketAddr,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    pub fn serve(cluster: Arc<Cluster>, id: u64, listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("bound");
        let faults = Arc::new(Mutex::new(VecDeque::new()));
        let service = SessionsServer::new(Service { cluster, id, faults: faults.clone() })
            .max_decoding_message_size(20 << 20)
            .max_encoding_message_size(20 << 20);
        let server = tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { server.await.expect("serving") });
        Self { id, address, faults, task }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Adds to the script.
    pub fn then(&self, fault: Fault) -> &Self {
        self.faults.lock().expect("no panic").push_back(fault);
        self
    }

    /// Adds the same to the script, as often as any call is tried.
    pub fn then_always(&self, fault: Fault) {
        self.faults.lock().expect("no panic").extend(std::iter::repeat_n(fault, 1000));
    }

    /// Ends the script.
    pub fn forget_faults(&self) {
        self.faults.lock().expect("no panic").clear();
    }

    pub fn hint(&self) -> Refusal {
        let hint = LeaderHint { node: NodeId(self.id), address: self.address() };
        Refusal::not_applied(RefusalKind::NotLeader(hint), "not the leader")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Service {
    cluster: Arc<Cluster>,
    id: u64,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

/// What a stream does after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    GoesOn,
    Breaks,
    Ends,
}

type Answers = Vec<v1::SubmitResponse>;

impl Service {
    /// The answers, and what becomes of the stream.
    async fn handle(&self, request: v1::SubmitRequest, unary: bool) -> (Answers, Then) {
        use v1::submit_request::Operation;
        let answer = |answer| self.response(request.tag, answer);
        let named = wire::cluster_id_from(&request.cluster_id).expect("a valid cluster id");
        if named.is_some_and(|named| named.0 != self.cluster.lock().cluster) {
            let refusal = Refusal::not_applied(RefusalKind::WrongCluster, "another cluster");
            return (vec![answer(v1::submit_response::Answer::Refusal(wire::refusal_to(&refusal)))], Then::GoesOn);
        }
        let operation = request.operation.clone().expect("an operation");
        let users = match &operation {
            Operation::Write(write) => wire::write_from(write.clone()).expect("a valid write").request().is_some(),
            Operation::LoadMany(_) if self.cluster.lock().is_older => {
                let refusal = Refusal::invalid("field is missing field=operation");
                return (vec![answer(v1::submit_response::Answer::Refusal(wire::refusal_to(&refusal)))], Then::GoesOn);
            }
            Operation::Load(_) | Operation::List(_) | Operation::LoadMany(_) => true,
        };
        let fault = if users { self.arrive(&operation, unary) } else { None };
        let mut answers = Vec::new();
        match &fault {
            Some(Fault::Refuse(refusal)) => {
                return (vec![answer(v1::submit_response::Answer::Refusal(wire::refusal_to(refusal)))], Then::GoesOn);
            }
            Some(Fault::Answer(verdict)) => {
                let outcome = wire::outcome_to(&Outcome { revision: Revision(1), verdict: verdict.clone() });
                return (vec![answer(v1::submit_response::Answer::Outcome(outcome))], Then::GoesOn);
            }
            Some(Fault::LoseRequest) => return (answers, Then::Breaks),
            Some(Fault::Swallow) => {
                if let Operation::Write(write) = operation {
                    self.cluster.lock().swallowed.push(wire::write_from(write).expect("a valid write"));
                }
                return (answers, Then::GoesOn);
            }
            Some(Fault::Hold) => {
                self.cluster.gate.subscribe().wait_for(|open| *open).await.expect("the cluster lives");
            }
            Some(Fault::StrangeTag) => {
                let refusal = wire::refusal_to(&Refusal::invalid("for nobody"));
                answers.push(self.response(u64::MAX, v1::submit_response::Answer::Refusal(refusal)));
            }
            Some(Fault::LoseReply | Fault::EndInOrder | Fault::CutAnswer) | None => {}
        }
        answers.extend(self.execute(operation).into_iter().map(answer));
        match fault {
            Some(Fault::LoseReply) => (Vec::new(), Then::Breaks),
            Some(Fault::EndInOrder) => (Vec::new(), Then::Ends),
            Some(Fault::CutAnswer) => {
                assert!(answers.len() > 1, "an answer of one message cannot be cut");
                answers.truncate(1);
                (answers, Then::Breaks)
            }
            _ => (answers, Then::GoesOn),
        }
    }

    fn response(&self, tag: u64, answer: v1::submit_response::Answer) -> v1::SubmitResponse {
        let state = self.cluster.lock();
        let cluster_id = Bytes::copy_from_slice(&state.cluster);
        let leader = state.leader.clone().filter(|leader| leader.node != self.id);
        v1::SubmitResponse { tag, cluster_id, leader, cluster_version: state.in_force, answer: Some(answer) }
    }

    fn arrive(&self, operation: &v1::submit_request::Operation, unary: bool) -> Option<Fault> {
        let mut state = self.cluster.lock();
        match operation {
            v1::submit_request::Operation::Write(write) => {
                let write = wire::write_from(write.clone()).expect("a valid write");
                let request = *write.request().expect("a user's write");
                state.seen.push(Seen {
                    node: self.id,
                    client: request.client.0,
                    sequence: request.sequence.0,
                    acknowledged_below: request.acknowledged_below.0,
                    unary,
                });
            }
            v1::submit_request::Operation::Load(load) => {
                let load = wire::load_from(load.clone()).expect("a valid load");
                state.loads.push((self.id, load));
            }
            v1::submit_request::Operation::LoadMany(many) => {
                let many = wire::load_many_from(many.clone()).expect("valid loads");
                state.loads.extend(many.loads().iter().map(|load| (self.id, load.clone())));
            }
            v1::submit_request::Operation::List(_) => {}
        }
        drop(state);
        let fault = self.faults.lock().expect("no panic").pop_front();
        self.cluster.arrived.send_modify(|arrived| *arrived += 1);
        fault
    }

    fn execute(&self, operation: v1::submit_request::Operation) -> Vec<v1::submit_response::Answer> {
        let mut state = self.cluster.lock();
        match operation {
            v1::submit_request::Operation::Write(write) => {
                let outcome = state.write(wire::write_from(write).expect("a valid write"));
                vec![v1::submit_response::Answer::Outcome(wire::outcome_to(&outcome))]
            }
            v1::submit_request::Operation::Load(load) => {
                let part = load.part.filter(|_| !state.is_older);
                let loaded = state.load(&wire::load_from(v1::LoadOperation { part, ..load }).expect("a valid load"));
                wire::LoadFrames::new(state.revision(), loaded, None).map(v1::submit_response::Answer::Load).collect()
            }
            v1::submit_request::Operation::LoadMany(many) => {
                let many = wire::load_many_from(many).expect("valid loads");
                let loaded = many.loads().iter().map(|load| state.load(load)).collect();
                wire::ManyFrames::new(state.revision(), loaded, None).map(v1::submit_response::Answer::LoadMany).collect()
            }
            v1::submit_request::Operation::List(list) => {
                let page = state.list(&wire::list_from(list).expect("a valid listing"));
                vec![v1::submit_response::Answer::List(wire::list_page_to(&page))]
            }
        }
    }
}

#[tonic::async_trait]
impl Sessions for Service {
    type SubmitStream = Pin<Box<dyn Stream<Item = Result<v1::SubmitResponse, Status>> + Send>>;
    type LoadStream = Self::SubmitStream;
    type WatchStream = tokio_stream::Empty<Result<v1::WatchFrame, Status>>;

    async fn submit(&self, request: Request<Streaming<v1::SubmitRequest>>) -> Result<Response<Self::SubmitStream>, Status> {
        let mut requests = request.into_inner();
        let (answers, stream) = mpsc::channel(4096);
        let service = self.clone();
        tokio::spawn(async move {
            let (end, mut ended) = watch::channel(false);
            let end = Arc::new(end);
            loop {
                let request = tokio::select! {
                    request = requests.message() => request,
                    _ = ended.changed() => return,
                };
                let Ok(Some(request)) = request else { return };
                let (service, answers, end) = (service.clone(), answers.clone(), end.clone());
                tokio::spawn(async move {
                    let (messages, then) = service.handle(request, false).await;
                    for message in messages {
                        // The client went away.
                        let _ = answers.send(Ok(message)).await;
                    }
                    if then == Then::Breaks {
                        let _ = answers.send(Err(Status::unavailable("the stream is cut"))).await;
                    }
                    if then != Then::GoesOn {
                        end.send_replace(true);
                    }
                });
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn write(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let (answers, _) = self.handle(request.into_inner(), true).await;
        let answer = answers.into_iter().next();
        answer.map(Response::new).ok_or_else(|| Status::unavailable("the call is cut"))
    }

    async fn load(&self, _: Request<v1::SubmitRequest>) -> Result<Response<Self::LoadStream>, Status> {
        Err(Status::unimplemented("the client streams its loads"))
    }

    async fn list(&self, _: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        Err(Status::unimplemented("the client streams its listings"))
    }

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("nobody watches here"))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let leader =
            v1::NodeStatus { id: self.id, reachable: true, role: v1::Role::Leader.into(), applied: Some(5), ..Default::default() };
        let other = v1::NodeStatus { id: self.id + 1, error: "connection refused".into(), ..Default::default() };
        let cluster_id = Bytes::copy_from_slice(&self.cluster.lock().cluster);
        Ok(Response::new(v1::StatusResponse { cluster_id, cluster_name: "fake".into(), nodes: vec![leader, other] }))
    }
}

/// Counters of a transcript in tests.
pub fn counters(values: &[u64]) -> Counters {
    Counters::new(values.to_vec()).expect("few")
}
