//! One Redis server that syncs every write (`appendfsync always`), else with its defaults, and a connection per caller.
//!
//! A session is a hash of version and data. A plain save is a script too, so that every store keeps the same: a version that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use quorate::testing::load::{Cas, Failure};

use super::program;
use crate::Error;
use crate::run_dir::RunDir;
use crate::servers::{Launch, Servers, free_ports, ready};

/// Redis syncs once for all that it finds on all its connections, and reads only some kibibytes of each: one connection for everybody
/// would cost it a sync per dozen saves.
const CONNECTIONS_MAX: usize = 64;
const SAVE: &str = "redis.call('HSET', KEYS[1], 'd', ARGV[1]) return redis.call('HINCRBY', KEYS[1], 'v', 1)";
/// The new version, or the present one as a negative number less one.
const SAVE_IF: &str = "local v = tonumber(redis.call('HGET', KEYS[1], 'v') or '0') \
    if v ~= tonumber(ARGV[2]) then return -v - 1 end \
    redis.call('HSET', KEYS[1], 'd', ARGV[1], 'v', v + 1) return v + 1";

/// A started server.
pub struct Redis {
    /// Its process.
    pub servers: Servers,
    port: u16,
}

impl Redis {
    /// Starts a new server. Errors: the binary is missing, or it does not answer in time.
    pub async fn start(run: &Arc<RunDir>) -> Result<Self, Error> {
        let binary = program("REDIS_BIN", &["redis-server"], "redis-server")?;
        let port = free_ports(1)?[0];
        let dir = run.directory("redis")?;
        let options = [
            ("--port", port.to_string()),
            ("--bind", "127.0.0.1".to_owned()),
            ("--dir", dir.display().to_string()),
            ("--appendonly", "yes".to_owned()),
            ("--appendfsync", "always".to_owned()),
        ];
        let arguments = options.into_iter().flat_map(|(key, value)| [key.to_owned(), value]).collect();
        let mut servers = Servers::start(run, dir, vec![Launch::new("redis", binary, arguments)])?;
        ready(&mut servers, async || {
            let mut connection = connect(port).await?;
            Ok(redis::cmd("PING").query_async::<()>(&mut connection).await?)
        })
        .await?;
        Ok(Self { servers, port })
    }

    /// What it says its version is.
    pub async fn version(&self) -> Result<String, Error> {
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connect(self.port).await?).await?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(version.ok_or("Redis does not say its version")?.to_owned())
    }

    /// Connections for so many callers.
    pub async fn client(&self, callers: usize) -> Result<RedisClient, Error> {
        let mut connection = connect(self.port).await?;
        let mut load =
            async |script: &str| redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async::<String>(&mut connection).await;
        let (save, save_if) = (load(SAVE).await?.into(), load(SAVE_IF).await?.into());
        let mut connections = vec![connection];
        while connections.len() < callers.min(CONNECTIONS_MAX) {
            connections.push(connect(self.port).await?);
        }
        Ok(RedisClient { connections: connections.into(), next: Arc::default(), save, save_if })
    }
}

async fn connect(port: u16) -> Result<MultiplexedConnection, Error> {
    // No answer is late here: how long it took is what is measured.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/"))?;
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

/// Some connections, used in turn.
#[derive(Clone)]
pub struct RedisClient {
    connections: Arc<[MultiplexedConnection]>,
    next: Arc<AtomicUsize>,
    save: Arc<str>,
    save_if: Arc<str>,
}

impl RedisClient {
    fn connection(&self) -> MultiplexedConnection {
        self.connections[self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len()].clone()
    }

    /// Stores `value`; gives its version.
    pub async fn save(&self, key: &str, value: Bytes) -> Result<u64, Failure> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&*self.save).arg(1).arg(key).arg(value.as_ref());
        command.query_async(&mut self.connection()).await.map_err(Failure::unknown)
    }

    /// Stores `value` if the version is `expected`; 0: if there is no key.
    pub async fn save_if(&self, key: &str, value: Bytes, expected: u64) -> Result<Cas, Failure> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&*self.save_if).arg(1).arg(key).arg(value.as_ref()).arg(expected);
        let version: i64 = command.query_async(&mut self.connection()).await.map_err(Failure::unknown)?;
        Ok(if version > 0 { Cas::Saved(version.unsigned_abs()) } else { Cas::Conflict((version + 1).unsigned_abs()) })
    }

    /// The value and its version.
    pub async fn load(&self, key: &str) -> Result<Option<(u64, Bytes)>, Failure> {
        let mut command = redis::cmd("HMGET");
        command.arg(key).arg("v").arg("d");
        let (version, data): (Option<u64>, Option<Vec<u8>>) =
            command.query_async(&mut self.connection()).await.map_err(Failure::unknown)?;
        Ok(version.zip(data).map(|(version, data)| (version, data.into())))
    }
}
