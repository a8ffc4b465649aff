//! The cluster of [`quorate::testing`], spoken to on the wire, node by node.

use std::ops::Deref;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate::client::MemberChange;
use quorate::testing;
use quorate::testing::cluster::Builder;
use quorate::testing::disk::{Crash, SimDisk};
use quorate::types::{
    Blob, Change, ClientId, Consistency, Counters, Expected, Expiry, Load, Loaded, NodeId, Nonce, Outcome, Refusal, Request,
    Sequence, SessionId, Verdict, Write,
};
use quorate::wire::peer::v1::{self as peer, peer_client::PeerClient};
use quorate::wire::{self, v1, v1::sessions_client::SessionsClient};
use tonic::transport::{Channel, Endpoint};

/// Nothing in these tests may take longer.
pub const PATIENCE: Duration = testing::cluster::PATIENCE;

/// What the first of several attempts gets, in milliseconds, doubled for each after it.
const FIRST_ATTEMPT_MS: u32 = 1000;

/// Small segments, as making and reading large ones takes most of a node's start.
const SEGMENT_BYTES: u64 = 1 << 20;

/// The generated client of one node.
pub fn raw_of(cluster: &testing::Cluster, id: NodeId) -> SessionsClient<Channel> {
    let address = &cluster.config().member(id).expect("a member").client;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address").tcp_nodelay(true);
    let limit = 64 << 20;
    SessionsClient::new(endpoint.connect_lazy()).max_decoding_message_size(limit).max_encoding_message_size(limit)
}

/// The generated client of the peer port of a node, which need not be a member yet.
pub fn peer_of(cluster: &testing::Cluster, id: NodeId) -> PeerClient<Channel> {
    let address = &cluster.config().member(id).expect("prepared").peer;
    PeerClient::new(Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy())
}

/// A cluster whose nodes are spoken to one by one, on the wire. What fails to start or to end fails the test.
pub struct Cluster(testing::Cluster);

impl Deref for Cluster {
    type Target = testing::Cluster;

    fn deref(&self) -> &testing::Cluster {
        &self.0
    }
}

impl Cluster {
    /// Starts so many nodes with ids from 1, for writes below [`SEGMENT_BYTES`], and waits until one leads and commits.
    pub async fn start(nodes: u64) -> Self {
        Self::of(testing::Cluster::builder().nodes(nodes).segment_bytes(SEGMENT_BYTES)).await
    }

    /// The same for writes of any size that is allowed.
    pub async fn start_for_large_writes(nodes: u64) -> Self {
        Self::of(testing::Cluster::builder().nodes(nodes)).await
    }

    /// The same of any cluster.
    pub async fn of(builder: Builder) -> Self {
        let cluster = Self(builder.start().await.expect("the cluster starts"));
        cluster.caller(1).await;
        cluster
    }

    /// A cluster of which no node is started yet.
    pub fn prepare(nodes: u64) -> Self {
        Self(testing::Cluster::builder().nodes(nodes).segment_bytes(SEGMENT_BYTES).build().expect("a valid configuration"))
    }

    /// Starts a node, for the first time or again.
    pub async fn start_node(&mut self, id: u64) {
        self.try_start_node(id).await.expect("the node starts");
    }

    /// The same where it may fail.
    pub async fn try_start_node(&mut self, id: u64) -> Result<(), testing::cluster::Error> {
        self.0.restart(id).await
    }

    /// Starts a further node and makes it a member without a vote; gives its id.
    pub async fn add_learner(&mut self) -> u64 {
        let id = self.0.prepare_node().expect("a free port");
        self.0.restart(id).await.expect("it waits to be added");
        let change = MemberChange::Add(self.0.member(id).expect("prepared"));
        self.0.client().change_members(change, false, PATIENCE).await.expect("it is added");
        id.0
    }

    /// A crash of the process.
    pub async fn kill(&mut self, id: u64) {
        self.0.kill(id).await.expect("it runs");
    }

    /// A crash of several processes, one after the other.
    pub async fn kill_each(&mut self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            self.kill(id).await;
        }
    }

    /// Starts several nodes, one after the other.
    pub async fn start_each(&mut self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            self.start_node(id).await;
        }
    }

    /// A crash of the machine; nothing that was not synced is left.
    pub async fn power_loss(&mut self, id: u64) {
        self.0.power_loss(id, Crash::Lost, 0).await.expect("it runs");
    }

    /// A graceful stop; waits until it has ended.
    pub async fn stop(&mut self, id: u64) {
        self.0.stop(id).await.expect("it ends in order and in time");
    }

    /// Waits until a node has stopped by itself, and ends it; gives its reason.
    pub async fn ended(&mut self, id: u64) -> String {
        self.0.ended(id).await.expect("it stops by itself")
    }

    /// Ends a node that may run or not, with its disk as it is; a disk that was halted works again.
    pub async fn kill_in_any_state(&mut self, id: u64) {
        self.0.kill_in_any_state(id).await;
    }

    /// Puts an empty disk in place of the one of a node that does not run.
    pub fn wipe(&mut self, id: u64) {
        self.0.wipe(id).expect("it is off");
    }

    /// The disk of a node.
    pub fn sim_disk(&self, id: u64) -> SimDisk {
        self.disk(id).expect("the disk is simulated")
    }

    /// A connection to one node's port for clients.
    pub fn channel(&self, id: u64) -> Channel {
        let address = &self.config().member(id.into()).expect("a member").client;
        Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy()
    }

    /// The generated client of one node.
    pub fn raw(&self, id: u64) -> SessionsClient<Channel> {
        raw_of(&self.0, id.into())
    }

    /// The generated client of one node's peer port.
    pub fn peer(&self, id: u64) -> PeerClient<Channel> {
        peer_of(&self.0, id.into())
    }

    /// What the requests of one node to the other carry.
    pub async fn route(&self, from: u64, to: u64) -> peer::Route {
        let hello = self.hello(to).await;
        peer::Route { cluster_id: hello.cluster_id, from, to, to_instance: hello.instance }
    }

    /// Who a node is, as it answers every caller.
    pub async fn hello(&self, id: u64) -> peer::HelloResponse {
        self.peer(id).hello(peer::HelloRequest::default()).await.expect("every caller is answered").into_inner()
    }

    /// An open client that talks to one node.
    pub async fn caller(&self, id: u64) -> Caller {
        Caller::open(self.raw(id)).await
    }

    /// Who leads, as one node sees it; waits until it sees someone.
    pub async fn leader(&self, seen_by: u64) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.raw(seen_by).status(v1::StatusRequest { local: true, ..Default::default() }).await;
            if let Some(leader) = status.ok().and_then(|status| status.into_inner().nodes.first().and_then(|node| node.leader)) {
                return leader;
            }
            assert!(Instant::now() < deadline, "no leader");
        }
    }

    /// Who leads, and a node that does not.
    pub async fn leader_and_follower(&self) -> (u64, u64) {
        let (leader, [follower, _]) = self.roles().await;
        (leader, follower)
    }

    /// Who leads of three, and the others.
    pub async fn roles(&self) -> (u64, [u64; 2]) {
        let leader = self.leader(1).await;
        (leader, [1, 2, 3].into_iter().filter(|node| *node != leader).collect::<Vec<_>>().try_into().expect("three nodes"))
    }

    /// `GET` on the admin port of a node: the whole answer.
    pub async fn get(&self, id: u64, path: &str) -> String {
        self.get_as(id, path, "localhost").await
    }

    /// The same under this name.
    pub async fn get_as(&self, id: u64, path: &str, host: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let address = &self.config().member(id.into()).expect("a member").admin;
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("the admin port listens");
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        answer
    }
}

/// A client with a row in the client table, and one node to talk to.
pub struct Caller {
    pub raw: SessionsClient<Channel>,
    pub cluster_id: Bytes,
    client: ClientId,
    nonce: Nonce,
    sequence: u64,
}

impl Caller {
    /// Opens a client, waiting for a leader.
    pub async fn open(mut raw: SessionsClient<Channel>) -> Self {
        let mut nonce = [0; 16];
        quorate::env::Random::fill(&quorate::env::SystemRandom, &mut nonce);
        let nonce = Nonce(nonce);
        let deadline = Instant::now() + PATIENCE;
        let request = submit(1, &[], v1::submit_request::Operation::Write(wire::write_to(&Write::OpenClient { nonce })));
        loop {
            let status = match raw.write(request.clone()).await {
                Ok(response) => {
                    let response = response.into_inner();
                    let Verdict::ClientOpened { client } = outcome(&response).verdict else { panic!("not opened: {response:?}") };
                    return Self { raw, cluster_id: response.cluster_id, client, nonce, sequence: 0 };
                }
                Err(status) => status,
            };
            assert!(Instant::now() < deadline, "no leader: {status:?}");
        }
    }

    /// The same client, talking to another node.
    pub fn at(mut self, raw: SessionsClient<Channel>) -> Self {
        self.raw = raw;
        self
    }

    /// A request identity that was never used.
    pub fn request(&mut self) -> Request {
        self.sequence += 1;
        let sequence = Sequence(self.sequence);
        Request { client: self.client, nonce: self.nonce, sequence, acknowledged_below: sequence }
    }

    /// A blind save of a plain value.
    pub fn save_of(&mut self, id: &str, value: impl Into<Bytes>) -> Write {
        let change = Change::Full { chunks: vec![], head: Blob::plain(value.into()), counters: Counters::default() };
        Write::Save { request: self.request(), id: session(id), change, attributes: Expiry::Keep.into(), fence: None }
    }

    /// A conditional save of a plain value.
    pub fn cas_of(&mut self, id: &str, expected: Expected, value: &'static str) -> Write {
        let change = Change::Full { chunks: vec![], head: Blob::plain(value.into()), counters: Counters::default() };
        let (request, expiry) = (self.request(), Expiry::Keep);
        Write::SaveIfVersion {
            request,
            id: session(id),
            expected,
            change,
            on_conflict: quorate::types::OnConflict::Reject,
            attributes: expiry.into(),
            fence: None,
        }
    }

    /// One attempt of a caller that knows cluster versions up to this one; 0: it does not say.
    pub async fn attempt_knowing(&mut self, write: &Write, cluster_version: u32) -> Result<Outcome, Refusal> {
        let operation = v1::submit_request::Operation::Write(wire::write_to(write));
        let request = v1::SubmitRequest { cluster_version, ..submit(1, &self.cluster_id, operation) };
        let response = self.raw.write(request).await.map_err(|status| wire::refusal_from_status(&status))?;
        Ok(outcome(&response.into_inner()))
    }

    /// One attempt, with the server's default deadline.
    pub async fn attempt(&mut self, write: &Write) -> Result<Outcome, Refusal> {
        self.attempt_within(write, 0).await
    }

    /// One attempt with a deadline in milliseconds.
    pub async fn attempt_within(&mut self, write: &Write, timeout_ms: u32) -> Result<Outcome, Refusal> {
        let operation = v1::submit_request::Operation::Write(wire::write_to(write));
        let request = v1::SubmitRequest { timeout_ms, ..submit(1, &self.cluster_id, operation) };
        let response = self.raw.write(request).await.map_err(|status| wire::refusal_from_status(&status))?;
        Ok(outcome(&response.into_inner()))
    }

    /// Attempts with one request identity until an outcome comes. Each gets twice the time of the one before, so that a slow machine
    /// needs some more of them and none is too short for ever.
    pub async fn settle(&mut self, write: &Write) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let mut attempts = (1..).map(|n| FIRST_ATTEMPT_MS << n.min(4));
        loop {
            match self.attempt_within(write, attempts.next().expect("endless")).await {
                Ok(outcome) => return outcome,
                Err(refusal) => assert!(Instant::now() < deadline, "not settled: {refusal:?}"),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Saves a plain value blindly until an outcome comes.
    pub async fn saved(&mut self, id: &str, value: impl Into<Bytes>) -> Outcome {
        let save = self.save_of(id, value);
        self.settle(&save).await
    }

    /// A load with a deadline in milliseconds.
    pub async fn load_within(&mut self, id: &str, consistency: Consistency, timeout_ms: u32) -> Result<Loaded, Refusal> {
        let load = Load { consistency, ..Load::whole(session(id)) };
        let operation = v1::submit_request::Operation::Load(wire::load_to(&load));
        let request = v1::SubmitRequest { timeout_ms, ..submit(1, &self.cluster_id, operation) };
        let refused = |status: tonic::Status| wire::refusal_from_status(&status);
        let mut frames = self.raw.load(request).await.map_err(refused)?.into_inner();
        let mut assembler = wire::LoadAssembler::default();
        loop {
            let response = frames.message().await.map_err(refused)?.expect("the last frame says so");
            let Some(v1::submit_response::Answer::Load(frame)) = response.answer else { panic!("no frame: {response:?}") };
            if let Some(whole) = assembler.push(frame)? {
                return Ok(whole.loaded);
            }
        }
    }

    /// The plain value of a session, retried until some node answers; `None`: there is none.
    pub async fn value(&mut self, id: &str) -> Option<Bytes> {
        let deadline = Instant::now() + PATIENCE;
        let mut attempts = (1..).map(|n| FIRST_ATTEMPT_MS << n.min(4));
        loop {
            match self.load_within(id, Consistency::Linearizable, attempts.next().expect("endless")).await {
                Ok(Loaded::Full(content)) => return Some(content.head.expect("a plain value is a head").data),
                Ok(Loaded::NotFound { .. }) => return None,
                Ok(other) => panic!("an answer to another question: {other:?}"),
                Err(refusal) => assert!(Instant::now() < deadline, "not loaded: {refusal:?}"),
            }
        }
    }
}

/// A session's id.
pub fn session(id: &str) -> SessionId {
    SessionId::new(id).expect("short")
}

/// A request without a deadline of its own.
pub fn submit(tag: u64, cluster_id: &[u8], operation: v1::submit_request::Operation) -> v1::SubmitRequest {
    v1::SubmitRequest {
        tag,
        timeout_ms: 0,
        cluster_id: Bytes::copy_from_slice(cluster_id),
        cluster_version: wire::VERSION_KNOWN.into(),
        operation: Some(operation),
    }
}

fn outcome(response: &v1::SubmitResponse) -> Outcome {
    match &response.answer {
        Some(v1::submit_response::Answer::Outcome(outcome)) => wire::outcome_from(outcome.clone()).expect("well formed"),
        other => panic!("no outcome: {other:?}"),
    }
}

/// The version a save got.
pub fn version(outcome: &Outcome) -> u64 {
    match &outcome.verdict {
        Verdict::Saved(saved) => saved.content.version.0,
        other => panic!("not saved: {other:?}"),
    }
}
