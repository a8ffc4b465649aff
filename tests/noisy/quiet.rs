//! The tenant that wants little, and how long it waits for it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate::client::{Client, Content, WriteOptions};
use tokio::task::JoinSet;

use crate::noisy::cluster::{Cluster, Tenant};

/// Callers at once, each with another client.
const CALLERS: usize = 4;
/// A call that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two turns of one caller.
const PAUSE: Duration = Duration::from_millis(10);
const VALUE_BYTES: usize = 4096;
/// As many errors are kept as tell what is wrong.
const ERRORS_MAX: usize = 10;

/// See the module.
pub struct Quiet(Vec<Client>);

/// How long calls took, and what failed.
#[derive(Debug, Default)]
pub struct Measured {
    saves: Vec<Duration>,
    loads: Vec<Duration>,
    pub errors: Vec<String>,
}

/// Of one kind of call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl Times {
    fn of(taken: &[Duration]) -> Self {
        let mut taken = taken.to_vec();
        taken.sort_unstable();
        let at = |share: f64| taken.get(((taken.len() as f64 * share) as usize).min(taken.len().saturating_sub(1))).copied();
        Self { p50: at(0.5).unwrap_or_default(), p99: at(0.99).unwrap_or_default(), max: taken.last().copied().unwrap_or_default() }
    }
}

impl Measured {
    pub fn saves(&self) -> Times {
        Times::of(&self.saves)
    }

    pub fn loads(&self) -> Times {
        Times::of(&self.loads)
    }

    pub fn add(&mut self, other: Self) {
        self.saves.extend(other.saves);
        self.loads.extend(other.loads);
        self.errors.extend(other.errors);
        self.errors.truncate(ERRORS_MAX);
    }

    pub fn line(&self, when: &str) -> String {
        let (saves, loads) = (self.saves(), self.loads());
        format!(
            "{when}: {} saves p50 {:.1?} p99 {:.1?} max {:.1?}, {} loads p50 {:.1?} p99 {:.1?} max {:.1?}, errors {}",
            self.saves.len(),
            saves.p50,
            saves.p99,
            saves.max,
            self.loads.len(),
            loads.p50,
            loads.p99,
            loads.max,
            self.errors.len()
        )
    }
}

impl Quiet {
    pub async fn new(cluster: &Cluster) -> Self {
        // Patient: what is shown is how long it takes.
        let client =
            || cluster.builder(Tenant::Quiet).write_deadline(PATIENCE).read_deadline(PATIENCE).build().expect("well formed");
        let clients: Vec<Client> = (0..CALLERS).map(|_| client()).collect();
        // The first call opens connections: its time is nobody's.
        for (caller, client) in clients.iter().enumerate() {
            turn(client, caller, 0, &mut Measured::default()).await;
        }
        Self(clients)
    }

    /// Saves and loads for so long.
    pub async fn run(&self, lasting: Duration) -> Measured {
        let mut callers = JoinSet::new();
        for (caller, client) in self.0.iter().cloned().enumerate() {
            callers.spawn(async move {
                let (began, mut measured) = (Instant::now(), Measured::default());
                for number in 0.. {
                    if began.elapsed() >= lasting {
                        break;
                    }
                    turn(&client, caller, number, &mut measured).await;
                    tokio::time::sleep(PAUSE).await;
                }
                measured
            });
        }
        let mut all = Measured::default();
        while let Some(measured) = callers.join_next().await {
            all.add(measured.expect("no caller panics"));
        }
        all
    }

    pub async fn close(self) {
        for client in self.0 {
            client.close().await;
        }
    }
}

async fn turn(client: &Client, caller: usize, number: usize, measured: &mut Measured) {
    let id = format!("quiet/{caller}/{}", number % 16);
    let value = Content::Value(Bytes::from(vec![number as u8; VALUE_BYTES]));
    let began = Instant::now();
    match client.save(&id, value, WriteOptions::default()).await {
        Ok(_) => measured.saves.push(began.elapsed()),
        Err(error) => measured.errors.push(format!("save after {:?}: {error}", began.elapsed())),
    }
    let began = Instant::now();
    match client.load(&id).await {
        Ok(_) => measured.loads.push(began.elapsed()),
        Err(error) => measured.errors.push(format!("load after {:?}: {error}", began.elapsed())),
    }
    measured.errors.truncate(ERRORS_MAX);
}
