//! The stores that are measured, each as its users would run it, and one client for all of them.

mod etcd;
mod postgres;
mod quorate;
mod redis;

use std::path::PathBuf;
use std::sync::Arc;

use ::quorate::client::bob::ConcurrentSave;
use ::quorate::testing::load::{Agents, Cas, Failure, Finished, Saving, Target, Transcript, Turn, Turns, Values, Whole};
use bob_core::types::SessionState;
use bytes::Bytes;

use crate::Error;
use crate::run_dir::RunDir;
use crate::servers::Servers;

pub use quorate::Quorate;

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// Three processes of ours.
    Quorate,
    /// Three nodes.
    Etcd,
    /// One server, nothing replicated.
    #[value(alias = "pg", alias = "postgresql")]
    Postgres,
    /// One server that syncs every write, nothing replicated.
    Redis,
}

impl Kind {
    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quorate => "quorate",
            Self::Etcd => "etcd",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }
}

/// A store that runs.
pub enum Store {
    /// See [`Kind`].
    Quorate(Quorate),
    /// See [`Kind`].
    Etcd(etcd::Etcd),
    /// See [`Kind`].
    Postgres(postgres::Postgres),
    /// See [`Kind`].
    Redis(redis::Redis),
}

impl Store {
    /// Starts a new one, empty. Errors: a package is missing, or it does not answer in time.
    pub async fn start(kind: Kind, run: &Arc<RunDir>) -> Result<Self, Error> {
        let started = match kind {
            Kind::Quorate => Quorate::start(run).await.map(Self::Quorate),
            Kind::Etcd => etcd::Etcd::start(run).await.map(Self::Etcd),
            Kind::Postgres => postgres::Postgres::start(run).await.map(Self::Postgres),
            Kind::Redis => redis::Redis::start(run).await.map(Self::Redis),
        };
        started.map_err(|error| format!("{}: {error}", kind.name()).into())
    }

    /// Which it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Quorate(_) => Kind::Quorate,
            Self::Etcd(_) => Kind::Etcd,
            Self::Postgres(_) => Kind::Postgres,
            Self::Redis(_) => Kind::Redis,
        }
    }

    /// Its version, in its own words.
    pub async fn version(&self) -> Result<String, Error> {
        match self {
            Self::Quorate(quorate) => quorate.version(),
            Self::Etcd(etcd) => etcd.version().await,
            Self::Postgres(postgres) => postgres.version().await,
            Self::Redis(redis) => redis.version().await,
        }
    }

    /// Its processes.
    pub fn servers(&mut self) -> &mut Servers {
        match self {
            Self::Quorate(store) => &mut store.servers,
            Self::Etcd(store) => &mut store.servers,
            Self::Postgres(store) => &mut store.servers,
            Self::Redis(store) => &mut store.servers,
        }
    }

    /// A client for so many callers, connected as it would be in use: to the leader, where there is one.
    pub async fn client(&self, callers: usize) -> Result<AnyClient, Error> {
        Ok(match self {
            Self::Quorate(store) => AnyClient::Quorate(Values(store.client()?)),
            Self::Etcd(store) => AnyClient::Etcd(store.client().await?),
            Self::Postgres(store) => AnyClient::Postgres(store.client(callers).await?),
            Self::Redis(store) => AnyClient::Redis(store.client(callers).await?),
        })
    }

    /// Loads one key through connections of its own, to whichever node answers. Errors: none does yet.
    pub async fn first_load(&self, key: &str) -> Result<Option<Bytes>, Error> {
        let client = match self {
            Self::Etcd(store) => AnyClient::Etcd(store.client_of_any()?),
            other => other.client(1).await?,
        };
        let found = client.load(key).await.map_err(|failure| failure.to_string())?;
        Ok(found.map(|(_, value)| value))
    }
}

/// A client of any store.
#[derive(Clone)]
pub enum AnyClient {
    /// See [`Kind`].
    Quorate(Values),
    /// See [`Kind`].
    Etcd(etcd::EtcdClient),
    /// See [`Kind`].
    Postgres(postgres::PostgresClient),
    /// See [`Kind`].
    Redis(redis::RedisClient),
}

impl AnyClient {
    /// The same for agents' turns: ours through the adapter for Bob, which sends what is new; the others store whole documents.
    pub fn turns(self) -> AnyTurns {
        match self {
            Self::Quorate(Values(client)) => {
                let store = client.session_store().concurrent_save(ConcurrentSave::Rebase);
                AnyTurns::Quorate(Agents { store: Arc::new(store), saving: Saving::IfVersion })
            }
            other => AnyTurns::Whole(Whole(Arc::new(other))),
        }
    }
}

impl Target for AnyClient {
    async fn save(&self, key: &str, value: Bytes) -> Result<u64, Failure> {
        match self {
            Self::Quorate(client) => client.save(key, value).await,
            Self::Etcd(client) => client.save(key, value).await,
            Self::Postgres(client) => client.save(key, value).await,
            Self::Redis(client) => client.save(key, value).await,
        }
    }

    async fn save_if(&self, key: &str, value: Bytes, expected: u64) -> Result<Cas, Failure> {
        match self {
            Self::Quorate(client) => client.save_if(key, value, expected).await,
            Self::Etcd(client) => client.save_if(key, value, expected).await,
            Self::Postgres(client) => client.save_if(key, value, expected).await,
            Self::Redis(client) => client.save_if(key, value, expected).await,
        }
    }

    async fn load(&self, key: &str) -> Result<Option<(u64, Bytes)>, Failure> {
        match self {
            Self::Quorate(client) => client.load(key).await,
            Self::Etcd(client) => client.load(key).await,
            Self::Postgres(client) => client.load(key).await,
            Self::Redis(client) => client.load(key).await,
        }
    }
}

/// Agents' turns on any store.
pub enum AnyTurns {
    /// Through the adapter for Bob.
    Quorate(Agents),
    /// Whole documents.
    Whole(Whole<AnyClient>),
}

/// A session as it was when a turn began.
pub enum AnyBase {
    /// Bob's.
    State(SessionState),
    /// A version and a document.
    Document((u64, Bytes)),
}

impl Turns for AnyTurns {
    type Base = AnyBase;

    async fn begin(&self, key: &str) -> Result<AnyBase, Failure> {
        match self {
            Self::Quorate(agents) => agents.begin(key).await.map(AnyBase::State),
            Self::Whole(whole) => whole.begin(key).await.map(AnyBase::Document),
        }
    }

    async fn finish(&self, key: &str, base: AnyBase, turn: &Turn) -> Result<Finished, Failure> {
        match (self, base) {
            (Self::Quorate(agents), AnyBase::State(base)) => agents.finish(key, base, turn).await,
            (Self::Whole(whole), AnyBase::Document(base)) => whole.finish(key, base, turn).await,
            _ => Err(Failure::unchanged("a turn was begun on another store")),
        }
    }

    async fn reset(&self, key: &str) -> Result<(), Failure> {
        match self {
            Self::Quorate(agents) => agents.reset(key).await,
            Self::Whole(whole) => whole.reset(key).await,
        }
    }

    async fn transcript(&self, key: &str) -> Result<Transcript, Failure> {
        match self {
            Self::Quorate(agents) => agents.transcript(key).await,
            Self::Whole(whole) => whole.transcript(key).await,
        }
    }
}

/// A program: the one that `variable` names, else the first of `names` that is there, a path or a name in the search path. Errors:
/// there is none, naming the Debian package that has it.
fn program(variable: &str, names: &[&str], package: &str) -> Result<PathBuf, Error> {
    if let Some(named) = std::env::var_os(variable) {
        let named = PathBuf::from(named);
        return named
            .is_file()
            .then_some(named.clone())
            .ok_or_else(|| format!("{variable} names no file: {}", named.display()).into());
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&search).collect();
    let found = names.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name))).find(|path| path.is_file());
    let missing =
        || format!("no {} here: install the Debian package {package}, or name the binary in {variable}", names[names.len() - 1]);
    found.ok_or_else(|| missing().into())
}
