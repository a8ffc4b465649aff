//! The tenant that takes what it can get, by one token with one prefix.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate::client::{Client, Content, WriteOptions};
use quorate::env::SystemClock;
use quorate::testing::inline::SeededRandom;
use quorate::tls::{Roots, Starts, TcpDial, TlsConnector};
use quorate::types::{Load, SessionId};
use quorate::wire::v1::{SubmitRequest, SubmitResponse, sessions_client::SessionsClient, submit_request::Operation};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use crate::noisy::cluster::{Cluster, Tenant};

/// Tasks that fill tables, and what each client of theirs saves before another is opened.
const FILLERS: u64 = 8;
const SAVED_BY_ONE_CLIENT: u64 = 20;
/// Tasks that save large values.
const WRITERS: u64 = 6;
/// Loads at once of each node that nobody reads.
const READERS: u64 = 10;
/// How long a reader reads nothing before it begins again.
const READS_NOTHING: Duration = Duration::from_secs(20);
const DRIP_PAUSE: Duration = Duration::from_secs(1);
/// After something was refused: it is tried again, not hammered on.
const PAUSE: Duration = Duration::from_millis(100);

/// How much it takes.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Bytes of a large value.
    pub large_bytes: usize,
    /// Connections at once to each port that say next to nothing.
    pub drips: u64,
}

impl Scale {
    /// All that one token may.
    pub const FULL: Self = Self { large_bytes: 15 << 20, drips: 100 };
    /// For a build without optimizations, beside other tests.
    pub const SHORT: Self = Self { large_bytes: 1 << 20, drips: 10 };

    pub fn is_full(self) -> bool {
        self.large_bytes == Self::FULL.large_bytes
    }
}

/// What was done so far.
#[derive(Debug, Default)]
pub struct Made {
    clients: AtomicU64,
    saves: AtomicU64,
    deletes: AtomicU64,
    large: AtomicU64,
    loads: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
}

impl Made {
    fn line(&self) -> String {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        format!(
            "noise: clients {} saves {} deletes {} large {} loads held {} connections {} refused {}",
            count(&self.clients),
            count(&self.saves),
            count(&self.deletes),
            count(&self.large),
            count(&self.loads),
            count(&self.connections),
            count(&self.refused)
        )
    }

    /// What was never done: then nothing is shown of it.
    pub fn missing(&self) -> Vec<&'static str> {
        let all = [
            (&self.clients, "opened a client"),
            (&self.saves, "saved"),
            (&self.large, "saved a large value"),
            (&self.loads, "held a load"),
            (&self.connections, "held a connection"),
        ];
        all.iter().filter(|(made, _)| made.load(Ordering::Relaxed) == 0).map(|(_, what)| *what).collect()
    }
}

impl Made {
    /// Holds what was loaded and reads nothing; waits a little where it was refused. Whether that connection is of no more use.
    async fn loaded(&self, held: Result<Streaming<SubmitResponse>, Status>) -> bool {
        match held {
            Ok(held) => {
                self.loads.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(READS_NOTHING).await;
                drop(held);
                false
            }
            Err(status) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
                status.code() != Code::ResourceExhausted
            }
        }
    }
}

fn note<T, E>(result: Result<T, E>, made: &AtomicU64, refused: &AtomicU64) -> bool {
    let counted = if result.is_ok() { made } else { refused };
    counted.fetch_add(1, Ordering::Relaxed);
    result.is_ok()
}

/// See the module. It ends when it is stopped or dropped.
pub struct Noise {
    tasks: JoinSet<()>,
    made: Arc<Made>,
}

impl Noise {
    pub fn start(cluster: &Arc<Cluster>, scale: Scale) -> Self {
        let made = Arc::new(Made::default());
        let mut tasks = JoinSet::new();
        for number in 0..FILLERS {
            tasks.spawn(fill(cluster.clone(), made.clone(), number));
        }
        for number in 0..WRITERS {
            tasks.spawn(write(cluster.clone(), made.clone(), number, scale.large_bytes));
        }
        for [client, peer, admin] in cluster.nodes.all().map(|node| cluster.nodes.ports(node)) {
            for number in 0..READERS {
                tasks.spawn(read_nothing(cluster.clone(), made.clone(), client, number));
            }
            for port in [client, peer, admin] {
                for _ in 0..scale.drips {
                    tasks.spawn(drip(made.clone(), port));
                }
            }
        }
        Self { tasks, made }
    }

    pub fn line(&self) -> String {
        self.made.line()
    }

    pub fn missing(&self) -> Vec<&'static str> {
        self.made.missing()
    }

    pub async fn stop(mut self) -> Arc<Made> {
        self.tasks.shutdown().await;
        self.made
    }
}

fn client(cluster: &Cluster) -> Client {
    let builder = cluster.builder(Tenant::Noisy);
    builder.write_deadline(Duration::from_secs(5)).read_deadline(Duration::from_secs(5)).build().expect("well formed")
}

/// Clients that are never closed, ids that are never used again, deleted ones among them.
async fn fill(cluster: Arc<Cluster>, made: Arc<Made>, filler: u64) {
    for round in 0u64.. {
        let client = client(&cluster);
        made.clients.fetch_add(1, Ordering::Relaxed);
        for number in 0..SAVED_BY_ONE_CLIENT {
            let id = format!("noisy/{filler}/{round}/{number}");
            let value = Content::Value(Bytes::from_static(b"x"));
            if !note(client.save(&id, value, WriteOptions::default()).await, &made.saves, &made.refused) {
                tokio::time::sleep(PAUSE).await;
            } else if number % 2 == 0 {
                note(client.delete(&id, None).await, &made.deletes, &made.refused);
            }
        }
    }
}

fn large_id(number: u64) -> String {
    format!("noisy/large/{number}")
}

/// Values that nothing makes smaller, one after the other.
async fn write(cluster: Arc<Cluster>, made: Arc<Made>, number: u64, bytes: usize) {
    use quorate::env::Random as _;
    let (client, random) = (client(&cluster), SeededRandom::new(number));
    let mut value = vec![0; bytes];
    random.fill(&mut value);
    for round in 0u64.. {
        // Another one each time: what has not changed is not sent.
        value[..8].copy_from_slice(&round.to_le_bytes());
        let content = Content::Value(Bytes::copy_from_slice(&value));
        let saved = client.save(&large_id(number), content, WriteOptions::default()).await;
        if !note(saved, &made.large, &made.refused) {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Asks one node for large values and takes nothing of them.
async fn read_nothing(cluster: Arc<Cluster>, made: Arc<Made>, port: u16, number: u64) {
    loop {
        let Ok(mut client) = connect(&cluster, port).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // One that was cut off connects again.
        while !made.loaded(hold(&cluster, &mut client, number).await).await {}
    }
}

/// A connection that takes no more than it must.
async fn connect(cluster: &Cluster, port: u16) -> Result<SessionsClient<Channel>, Status> {
    let failed = |error: String| Status::unavailable(error);
    let pem = std::fs::read(cluster.ca()).map_err(|error| failed(error.to_string()))?;
    let roots = Roots::from_pem(&pem).map_err(|error| failed(error.to_string()))?;
    let connecting = TlsConnector::new(&roots, None, Arc::new(SystemClock::new())).map_err(|error| failed(error.to_string()))?;
    let dial = TcpDial::new(Some(connecting), Duration::from_secs(5), Starts::default());
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).map_err(|error| failed(error.to_string()))?;
    let channel = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let channel = channel.connect_with_connector(dial).await.map_err(|error| failed(error.to_string()))?;
    Ok(SessionsClient::new(channel))
}

/// A load that was answered, none of whose frames was read.
async fn hold(cluster: &Cluster, client: &mut SessionsClient<Channel>, number: u64) -> Result<Streaming<SubmitResponse>, Status> {
    let failed = |error: String| Status::unavailable(error);
    let id = SessionId::new(&large_id(number % WRITERS)).map_err(|error| failed(error.to_string()))?;
    let load = Load::whole(id);
    let operation = Some(Operation::Load(quorate::wire::load_to(&load)));
    let mut request = Request::new(SubmitRequest { tag: 1, timeout_ms: 5_000, operation, ..Default::default() });
    let token = format!("Bearer {}", cluster.token(Tenant::Noisy));
    request.metadata_mut().insert("authorization", MetadataValue::try_from(token).map_err(|error| failed(error.to_string()))?);
    Ok(client.load(request).await?.into_inner())
}

/// A connection without a credential that says a byte now and then.
async fn drip(made: Arc<Made>, port: u16) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
            made.connections.fetch_add(1, Ordering::Relaxed);
            while stream.write_all(b"P").await.is_ok() {
                tokio::time::sleep(DRIP_PAUSE).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
