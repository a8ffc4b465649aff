//! Three etcd nodes, and calls to their leader by gRPC.
//!
//! `ETCD_BIN` names another binary. Defaults, but for `--quota-backend-bytes`: the default of 2 GiB refuses writes within a minute of
//! whole transcripts; 8 GiB is the largest its documentation names. History is kept, as by default.

#[path = "etcd_messages.rs"]
mod messages;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use quorate::testing::load::{Cas, Failure};

use super::program;
use crate::Error;
use crate::run_dir::RunDir;
use crate::servers::{Launch, Servers, free_ports, ready};
use messages::{
    Compare, Operation, PutRequest, PutResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse, TxnRequest,
    TxnResponse,
};

const NODES: usize = 3;
/// Connections to the leader that all callers share.
const CONNECTIONS: usize = 4;
const QUOTA_BYTES: u64 = 8 << 30;
const LOAD: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// A started cluster.
pub struct Etcd {
    /// Its processes.
    pub servers: Servers,
    ports: Vec<u16>,
}

impl Etcd {
    /// Starts a new cluster. Errors: the binary is missing, or there is no leader in time.
    pub async fn start(run: &Arc<RunDir>) -> Result<Self, Error> {
        let binary = program("ETCD_BIN", &["etcd"], "etcd-server")?;
        let dir = run.directory("etcd")?;
        let ports = free_ports(2 * NODES)?;
        let (clients, peers) = ports.split_at(NODES);
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let members: Vec<String> = peers.iter().enumerate().map(|(index, port)| format!("e{index}={}", url(port))).collect();
        let launch = |index: usize| {
            let name = format!("etcd{index}");
            let mut arguments: Vec<String> =
                ["--initial-cluster-state", "new", "--logger", "zap", "--log-outputs", "stderr"].map(Into::into).into();
            let options = [
                ("--name", format!("e{index}")),
                ("--data-dir", dir.join(&name).display().to_string()),
                ("--listen-client-urls", url(&clients[index])),
                ("--advertise-client-urls", url(&clients[index])),
                ("--listen-peer-urls", url(&peers[index])),
                ("--initial-advertise-peer-urls", url(&peers[index])),
                ("--initial-cluster", members.join(",")),
                ("--quota-backend-bytes", QUOTA_BYTES.to_string()),
            ];
            arguments.extend(options.into_iter().flat_map(|(key, value)| [key.to_owned(), value]));
            Launch::new(name, &binary, arguments)
        };
        let servers = Servers::start(run, dir.clone(), (0..NODES).map(launch).collect())?;
        let mut etcd = Self { servers, ports: clients.to_vec() };
        let ports = etcd.ports.clone();
        ready(&mut etcd.servers, || leader(&ports)).await?;
        Ok(etcd)
    }

    /// What the leader says its version is.
    pub async fn version(&self) -> Result<String, Error> {
        let port = leader(&self.ports).await?;
        Ok(status(port).await?.0.version)
    }

    /// Connections straight to the leader.
    pub async fn client(&self) -> Result<EtcdClient, Error> {
        EtcdClient::to(&[leader(&self.ports).await?; CONNECTIONS])
    }

    /// Connections to any node, one each.
    pub fn client_of_any(&self) -> Result<EtcdClient, Error> {
        EtcdClient::to(&self.ports)
    }
}

async fn status(port: u16) -> Result<(StatusResponse, u64), Error> {
    let client = EtcdClient::to(&[port])?;
    let answer: StatusResponse = client.call(STATUS, StatusRequest {}).await.map_err(|failed| failed.to_string())?;
    let member = answer.header.as_ref().map_or(0, |header| header.member_id);
    Ok((answer, member))
}

/// The client port of the node that leads.
async fn leader(ports: &[u16]) -> Result<u16, Error> {
    for &port in ports {
        let (answer, member) = status(port).await?;
        if answer.leader != 0 && answer.leader == member {
            return Ok(port);
        }
    }
    Err("etcd has no leader".into())
}

/// Some connections, used in turn.
#[derive(Clone)]
pub struct EtcdClient {
    channels: Arc<[Channel]>,
    next: Arc<AtomicUsize>,
}

impl EtcdClient {
    fn to(ports: &[u16]) -> Result<Self, Error> {
        let channel = |port: &u16| -> Result<Channel, Error> {
            let endpoint = Endpoint::try_from(format!("http://127.0.0.1:{port}"))?;
            Ok(endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(2)).connect_lazy())
        };
        Ok(Self { channels: ports.iter().map(channel).collect::<Result<_, _>>()?, next: Arc::default() })
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Failure>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        let mut grpc = Grpc::new(self.channels[index].clone());
        grpc.ready().await.map_err(Failure::unknown)?;
        let codec = tonic_prost::ProstCodec::default();
        let answer = grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await;
        Ok(answer.map_err(Failure::unknown)?.into_inner())
    }

    /// Stores `value`; gives its revision.
    pub async fn save(&self, key: &str, value: Bytes) -> Result<u64, Failure> {
        let put = PutRequest { key: key.to_owned().into(), value };
        let answer: PutResponse = self.call(PUT, put).await?;
        Ok(answer.header.unwrap_or_default().revision.unsigned_abs())
    }

    /// Stores `value` if the key's last change is `expected`; 0: if there is no key.
    pub async fn save_if(&self, key: &str, value: Bytes, expected: u64) -> Result<Cas, Failure> {
        let key: Bytes = key.to_owned().into();
        let txn = TxnRequest {
            compare: vec![Compare::last_change(key.clone(), expected)],
            success: vec![Operation::put(PutRequest { key: key.clone(), value })],
            failure: vec![Operation::range(RangeRequest { key, keys_only: true })],
        };
        let answer: TxnResponse = self.call(TXN, txn).await?;
        if answer.succeeded {
            return Ok(Cas::Saved(answer.header.unwrap_or_default().revision.unsigned_abs()));
        }
        let found = answer.responses.into_iter().find_map(|response| response.range?.kvs.into_iter().next());
        Ok(Cas::Conflict(found.map_or(0, |pair| pair.mod_revision.unsigned_abs())))
    }

    /// The value and the revision of its last change; linearizable, as by default.
    pub async fn load(&self, key: &str) -> Result<Option<(u64, Bytes)>, Failure> {
        let range = RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
        let answer: RangeResponse = self.call(LOAD, range).await?;
        Ok(answer.kvs.into_iter().next().map(|pair| (pair.mod_revision.unsigned_abs(), pair.value)))
    }
}
