//! Starting, serving and stopping a node.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::maybe_done;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

use super::config::Config;
use super::context::{Access, ServerContext};
use super::dispatch::{Calls, Dispatcher};
use super::edge::Named;
use super::gate::Gate;
use super::metrics::Wire;
use super::operations::OperationsService;
use super::peer_requests::{LateServer, ServerGuard};
use super::security::{self, Reload, Security};
use super::service::SessionsService;
use super::status::Reporter;
use super::{Error, StartError, admin, health, http, shares, sweeper};
use crate::env::Env;
use crate::limits::{
    ADMIN_CONNECTIONS_MAX, CLIENT_CONNECTIONS_MAX, MIB, PEER_CONNECTIONS_MAX, PEER_MESSAGE_BYTES_MAX, WRITE_MESSAGE_BYTES_MAX,
    intervals,
};
use crate::mutant::{self, Mutant};
use crate::net::{Incoming, Net, Port, Speaks, TcpNet, Traffic, listen};
use crate::raft::{self, Node};
use crate::storage::{log, state};
use crate::tls::{Acceptor, TlsConnector};
use crate::types::{ClusterId, NodeId};
use crate::wire;
use crate::wire::v1::operations_server::OperationsServer;
use crate::wire::v1::sessions_server::SessionsServer;

/// HTTP/2 keep-alive of the client port: a client that died without a reset is found out after both.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Flow-control windows that let a large write pass without waiting for the other side.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Calls and streams open at once on one connection.
const CONNECTION_STREAMS_MAX: u32 = 1024;
/// How long a stopping node, which leads no more, lets open operations end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How long connections may take to end after that.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The options of a node.
pub struct Options {
    /// The whole cluster.
    pub config: Config,
    /// Which member this is.
    pub node: NodeId,
    /// Its data directory, made if it is missing.
    pub data_dir: PathBuf,
    /// Whether to form a new cluster, if every configured member is there and empty. A flag left on does nothing afterwards.
    pub bootstrap: bool,
    /// The outside world.
    pub env: Env,
}

/// A segment of a node that takes little of the disk: the largest entry fits.
const SMALL_SEGMENT_BYTES: u64 = PEER_MESSAGE_BYTES_MAX + MIB;
/// Its segments in reserve.
const SMALL_SPARES: usize = 1;
/// The reserve for a disk that fills up: two flushes that are due by their size.
const SMALL_RESERVE_BYTES: u64 = 32 * MIB;
/// The room a small node takes on the disk at once, in bytes: the log's first segment, the spare ones, and the reserve.
#[doc(hidden)]
pub const SMALL_BYTES: u64 = (1 + SMALL_SPARES as u64) * SMALL_SEGMENT_BYTES + SMALL_RESERVE_BYTES;

/// Settings that operators don't have, and tests do.
#[doc(hidden)]
#[derive(Clone)]
pub struct Tuning {
    /// Bytes of log kept behind the last flush.
    pub log_kept: raft::LogKept,
    /// Whether elections begin early, as [`raft::Options::early_elections`].
    pub early_elections: bool,
    /// The log's layout on the disk.
    pub log: log::Options,
    /// The state's layout on the disk.
    pub state: state::Options,
    /// Called for every entry that is applied; only by tests.
    pub observer: Option<raft::Observer>,
    /// How what is on its disk is read over time.
    pub scrub: raft::ScrubOptions,
}

impl Tuning {
    /// The operator's settings, and our own for the rest.
    pub fn of(config: &Config) -> Self {
        let cache_bytes = config.storage.cache.as_u64() as usize;
        let state = state::Options { cache_bytes, ..state::Options::default() };
        let scrub = raft::ScrubOptions {
            interval: config.storage.scrub_interval.min(intervals().scrub_at_least),
            delay: intervals().scrub_delay.min(config.storage.scrub_interval),
            bytes_per_second: config.storage.scrub_rate.as_u64(),
        };
        Self {
            log_kept: raft::LogKept { bytes: config.storage.log_kept.as_u64(), age: config.storage.log_kept_for },
            early_elections: true,
            log: log::Options::default(),
            state,
            scrub,
            observer: None,
        }
    }

    /// Takes little of the disk at once, see [`SMALL_BYTES`]. Sizes may change at every start: what lies there stays readable.
    pub fn small(mut self) -> Self {
        self.log = log::Options { segment_bytes: SMALL_SEGMENT_BYTES, spare_segments: SMALL_SPARES, ..self.log };
        self.state.reserve_bytes = SMALL_RESERVE_BYTES;
        self
    }

    /// With log segments of so many bytes and none in reserve, as a test's disk is memory.
    pub fn with_segments(mut self, segment_bytes: u64) -> Self {
        self.log = log::Options { segment_bytes, spare_segments: 0, ..log::Options::default() };
        self
    }
}

/// A started node: it listens, and serves once [`Server::run`] is polled.
pub struct Server {
    node: Node,
    context: ServerContext,
    dispatcher: Dispatcher,
    reporter: Reporter,
    security: Security,
    client_port: Incoming,
    admin_port: Incoming,
    stop: watch::Sender<bool>,
    server_guard: ServerGuard,
}

impl Server {
    /// Opens the data directory and the ports, over TCP. It does not wait for a leader.
    ///
    /// Errors: one line that says how to fix it. Not cancel safe: drop the future only to give the node up.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        Self::start_on(options, Arc::new(TcpNet::default())).await
    }

    /// As [`Server::start`], but with this tuning, and the peers named are reached at these addresses, `host:port`: through proxies that a
    /// test put there.
    #[doc(hidden)]
    pub async fn start_via(options: Options, tuning: Tuning, via: BTreeMap<NodeId, String>) -> Result<Self, StartError> {
        let of = |(node, address): (NodeId, String)| {
            let member = options.config.member(node).map_err(|error| StartError(error.to_string()))?;
            Ok((member.peer.clone(), address))
        };
        let via = via.into_iter().map(of).collect::<Result<_, StartError>>()?;
        Self::start_tuned(options, Arc::new(TcpNet { via }), tuning).await
    }

    /// Starts a node on any network. Errors: as [`Server::start`].
    pub async fn start_on(options: Options, net: Arc<dyn Net>) -> Result<Self, StartError> {
        let tuning = Tuning::of(&options.config);
        Self::start_tuned(options, net, tuning).await
    }

    /// As [`Server::start`], with what only a test tunes, and with peers that are reached at other addresses, by their own.
    pub(crate) async fn start_for_test(
        options: Options,
        tuning: Tuning,
        via: BTreeMap<String, String>,
    ) -> Result<Self, StartError> {
        Self::start_tuned(options, Arc::new(TcpNet { via }), tuning).await
    }

    /// Starts a node with sizes that no configuration allows, for tests. Errors: as [`Server::start`].
    #[doc(hidden)]
    pub async fn start_tuned(options: Options, net: Arc<dyn Net>, tuning: Tuning) -> Result<Self, StartError> {
        let Options { config, node, data_dir, bootstrap, env } = options;
        let member = config.member(node).map_err(|error| StartError(error.to_string()))?;
        let clock = env.clock.clone();
        let security = Security::load(&config, node, clock.clone()).map_err(StartError)?;
        let tls = security.ports.as_ref().map(|ports| ports.connector.clone());
        let wire = Wire::default();
        let late_server = Arc::new(LateServer::default());
        let inputs = raft_options(
            &config,
            tuning,
            RaftInputs { node, data_dir, bootstrap, env, net: net.clone(), tls, peer_requests: late_server.clone() },
        );
        // What is damaged is rebuilt here: meanwhile nobody must be kept waiting at an open port.
        let opened = raft::open(inputs).await.map_err(|error| StartError(error.to_string()))?;
        let [client, peer, admin] = ports(&wire, &security);
        let [at_client, at_peer, at_admin] = member.listens();
        let client_port = listen(&*net, node, client, at_client).await.map_err(StartError)?;
        let admin_port = listen(&*net, node, admin, at_admin).await.map_err(StartError)?;
        let incoming = listen(&*net, node, peer, at_peer).await.map_err(StartError)?;
        if security.guard.is_open() && !crate::types::is_loopback(at_client.1) {
            tracing::warn!(
                address = at_client.1,
                "no tokens: every caller that can connect to the client port may do everything; see [auth]"
            );
        }
        let node = opened.start(incoming).await.map_err(|error| StartError(error.to_string()))?;
        let access = Access { guard: security.guard.clone(), state: security.state.clone() };
        let calls = Calls::new(node.clone(), clock.clone(), wire, config.observe.slow_operation);
        let context = ServerContext::new(access, clock, calls);
        let dispatcher = Dispatcher::new(context.clone());
        let reporter = Reporter::new(context.clone(), &config.name);
        let (stop, stopped) = watch::channel(false);
        let server_guard = late_server.set(context.clone(), dispatcher.clone(), reporter.clone(), stopped);
        Ok(Self { node, context, dispatcher, reporter, security, client_port, admin_port, stop, server_guard })
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.node.id()
    }

    /// The cluster; `None` before it was formed.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.node.cluster_id()
    }

    /// The consensus below, for tests and tools.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// How it is asked to read its certificates and tokens at once, while it runs.
    pub fn reload(&self) -> Reload {
        self.security.reload()
    }

    /// Serves until `shutdown` completes; then refuses new calls, lets open ones end, hands the leadership over, flushes and returns.
    ///
    /// Errors: the node had to stop by itself. Dropping the future is a crash: nothing acknowledged is lost.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { node, context, dispatcher, reporter, security, client_port, admin_port, stop, server_guard } = self;
        let (end, ended) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut core = JoinSet::new();
        core.spawn(dispatcher.clone().run(ended));
        let (health_reporter, health_service) = tonic_health::server::health_reporter();
        tasks.spawn(health::run(context.clone(), health_reporter, stop.subscribe()));
        tasks.spawn(reporter.clone().run(stop.subscribe()));
        tasks.spawn(security.run(node.clone(), stop.subscribe()));
        tasks.spawn(context.receiving().clone().run(stop.subscribe()));
        tasks.spawn(sweeper::run(node.clone(), stop.subscribe()));
        tasks.spawn(shares::run(node.clone(), context.guard().clone(), stop.subscribe()));
        tasks.spawn(super::watch::run(context.clone(), stop.subscribe()));
        tasks.spawn(http::serve(
            admin_port,
            admin::router(context.clone(), dispatcher.clone(), reporter.clone()),
            stop.subscribe(),
        ));
        let operations = OperationsService::new(node.clone(), context.guard().clone());
        let service = SessionsService::new(context.clone(), dispatcher, reporter, stop.subscribe());
        // It may end while calls drain, and is waited for again below.
        let gate =
            |routes| Gate::new(routes, context.guard().clone(), context.receiving().clone(), context.calls().in_flight().clone());
        let serving = serve_clients(client_port, service, operations, health_service, gate, stop.subscribe());
        let mut serving = Box::pin(maybe_done(serving));
        let failure = tokio::select! {
            () = shutdown => None,
            reason = node.wait_failed() => Some(Error { message: reason, removed: node.was_removed() }),
            () = &mut serving => {
                let result = serving.as_mut().output_mut();
                Some(result.and_then(|result| result.clone().err()).unwrap_or_else(|| Error::new("the client port closed")))
            }
            Some(_) = core.join_next() => Some(Error::new("the dispatcher ended")),
        };
        if failure.is_none() {
            // While it still takes calls: what comes meanwhile is sent on to the next leader, and nobody waits for what drains.
            node.give_up_leadership().await;
        }
        context.calls().stop_admitting();
        stop.send_replace(true);
        if failure.is_none() {
            drain(context.calls(), &mut serving).await;
        }
        if mutant::is(Mutant::FinishedServerPolled) {
            // Without its output it panics when it is waited for again.
            drop(serving.as_mut().take_output());
        }
        node.shutdown().await;
        end.send_replace(true);
        let joined = async {
            while core.join_next().await.is_some() {}
            while tasks.join_next().await.is_some() {}
        };
        // A client that keeps its connection open does not keep the node from ending.
        let closing = async { tokio::join!(joined, serving) };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
        drop(server_guard);
        failure.map_or(Ok(()), Err)
    }
}

/// Waits for open operations to end, while their answers are still being sent.
async fn drain(calls: &Calls, serving: &mut (impl Future<Output = ()> + Unpin)) {
    let deadline = calls.now().saturating_add(DRAIN_TIMEOUT);
    let mut serving = Some(serving);
    while calls.has_open() && calls.now() < deadline {
        match &mut serving {
            None => tokio::time::sleep(DRAIN_POLL_INTERVAL).await,
            Some(running) => tokio::select! {
                () = &mut **running => serving = None,
                () = tokio::time::sleep(DRAIN_POLL_INTERVAL) => {}
            },
        }
    }
}

/// All that Raft is given besides the configuration.
struct RaftInputs {
    node: NodeId,
    data_dir: PathBuf,
    bootstrap: bool,
    env: Env,
    net: Arc<dyn Net>,
    tls: Option<TlsConnector>,
    peer_requests: Arc<LateServer>,
}

/// The three ports: how many connections each takes, and whom it lets in.
fn ports(wire: &Wire, security: &Security) -> [Port; 3] {
    let port = |key, connections_max, traffic: &Arc<Traffic>, at: usize, acceptor: fn(&security::Ports) -> &Acceptor| {
        let tls = security.ports.as_ref().map(|ports| (acceptor(ports).clone(), security.state.refused[at].clone()));
        let speaks = if key == "admin" { Speaks::Http1 } else { Speaks::Http2 };
        Port { key, speaks, connections_max, traffic: traffic.clone(), tls }
    };
    [
        port("client", CLIENT_CONNECTIONS_MAX, &wire.client, 0, |ports| &ports.client),
        port("peer", PEER_CONNECTIONS_MAX, &wire.peer, 1, |ports| &ports.peer),
        port("admin", ADMIN_CONNECTIONS_MAX, &wire.admin, 2, |ports| &ports.admin),
    ]
}

async fn signalled(mut stop: watch::Receiver<bool>) {
    // An error means that the server is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn serve_clients<H>(
    port: Incoming,
    service: SessionsService,
    operations: OperationsService,
    health: H,
    gate: impl FnOnce(Routes) -> Gate<Routes>,
    stop: watch::Receiver<bool>,
) -> Result<(), Error>
where
    H: tonic::codegen::Service<
            tonic::codegen::http::Request<tonic::body::Body>,
            Response = tonic::codegen::http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    H::Future: Send + 'static,
{
    let limit = WRITE_MESSAGE_BYTES_MAX as usize;
    let sessions = SessionsServer::new(service).max_decoding_message_size(limit).max_encoding_message_size(limit);
    let reflection = || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(wire::DESCRIPTOR);
    let broken = |error| Error::new(format!("the protocol's description is broken: {error}"));
    let (current, older) = (reflection().build_v1().map_err(broken)?, reflection().build_v1alpha().map_err(broken)?);
    let routes = Routes::new(Named(sessions))
        .add_service(Named(OperationsServer::new(operations)))
        .add_service(health)
        .add_service(current)
        // Python's client asks for this one only.
        .add_service(older);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .serve_with_incoming_shutdown(gate(routes.prepare()), port, signalled(stop))
        .await
        .map_err(|error| Error::new(format!("the client port failed: {error}")))
}

fn raft_options(config: &Config, tuning: Tuning, inputs: RaftInputs) -> raft::Options {
    raft::Options {
        env: inputs.env,
        net: inputs.net,
        tls: inputs.tls,
        node: inputs.node,
        data_dir: inputs.data_dir,
        name: config.name.clone(),
        configuration_hash: config.configuration_hash(),
        cluster_version_max: Some(config.cluster_version_max).filter(|held| *held > 0),
        members: super::backup::members_of(config),
        bootstrap: inputs.bootstrap,
        heartbeat: config.raft.heartbeat_interval,
        election_timeout_min: config.raft.election_timeout_min,
        election_timeout_max: config.raft.election_timeout_max,
        log_kept: tuning.log_kept,
        early_elections: tuning.early_elections,
        log: tuning.log,
        state: tuning.state,
        observer: tuning.observer,
        scrub: tuning.scrub,
        peer_requests: inputs.peer_requests,
    }
}
