//! One PostgreSQL server with its defaults, and a pool of connections with prepared statements.

use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use rustix::process::Signal;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{NoTls, Statement};

use quorate::testing::load::{Cas, Failure};

use super::program;
use crate::Error;
use crate::run_dir::RunDir;
use crate::servers::{Launch, Servers, free_ports, ready};

/// Its default allows 100 connections; above these callers wait for a free one, as in any pool.
const CONNECTIONS_MAX: usize = 64;
/// Whom it runs as where the driver is root, which it refuses to be.
const USER: &str = "postgres";
const TABLE: &str = "create table sessions (id text primary key, version bigint not null, data bytea not null)";
const SAVE: &str = "insert into sessions values ($1, 1, $2) \
    on conflict (id) do update set version = sessions.version + 1, data = excluded.data returning version";
const CREATE: &str = "insert into sessions values ($1, 1, $2) on conflict (id) do nothing returning version";
const SAVE_IF: &str = "update sessions set version = version + 1, data = $2 where id = $1 and version = $3 returning version";
const VERSION: &str = "select version from sessions where id = $1";
const LOAD: &str = "select version, data from sessions where id = $1";

/// A started server.
pub struct Postgres {
    /// Its processes.
    pub servers: Servers,
    port: u16,
}

impl Postgres {
    /// Makes a new database and starts it. Errors: the binaries are missing, or it does not answer in time.
    pub async fn start(run: &Arc<RunDir>) -> Result<Self, Error> {
        // Debian keeps each version's binaries in a directory of its own, out of the path.
        let found: Vec<String> = (13..=20).rev().map(|version| format!("/usr/lib/postgresql/{version}/bin/postgres")).collect();
        let mut names: Vec<&str> = found.iter().map(String::as_str).collect();
        names.push("postgres");
        let binary = program("POSTGRES_BIN", &names, "postgresql")?;
        let user = rustix::process::geteuid().is_root().then_some(USER);
        let dir = run.directory("postgres")?;
        let data = dir.join("data");
        std::fs::create_dir(&data)?;
        if user.is_some() {
            let changed = Command::new("chown").arg(USER).arg(&data).status()?;
            changed.success().then_some(()).ok_or("PostgreSQL refuses to run as root, and there is no user postgres")?;
        }
        let mut create = Command::new("setpriv");
        create.args(user.iter().flat_map(|user| ["--reuid", user, "--regid", user, "--init-groups"])).arg("--");
        create.arg(binary.with_file_name("initdb")).arg("-D").arg(&data).args(["-U", "bench", "-A", "trust", "-E", "UTF8"]);
        let made = create.args(["--locale", "C"]).current_dir("/").output()?;
        if !made.status.success() {
            return Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        let port = free_ports(1)?[0];
        let settings = [format!("port={port}"), "listen_addresses=127.0.0.1".into(), "unix_socket_directories=".into()];
        let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
        arguments.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        // SIGQUIT: it ends its own processes and returns its shared memory.
        let launch = Launch { user, end: Signal::QUIT, ..Launch::new("postgres", binary, arguments) };
        let mut servers = Servers::start(run, dir, vec![launch])?;
        ready(&mut servers, async || {
            let connection = connect(port).await?;
            Ok(connection.batch_execute(TABLE).await?)
        })
        .await?;
        Ok(Self { servers, port })
    }

    /// What it says its version is.
    pub async fn version(&self) -> Result<String, Error> {
        let row = connect(self.port).await?.query_one("show server_version", &[]).await?;
        Ok(row.get::<_, String>(0).split(' ').next().unwrap_or_default().to_owned())
    }

    /// A pool for so many callers.
    pub async fn client(&self, callers: usize) -> Result<PostgresClient, Error> {
        let size = callers.clamp(1, CONNECTIONS_MAX);
        let mut idle = Vec::with_capacity(size);
        for _ in 0..size {
            idle.push(Connection::new(self.port).await?);
        }
        Ok(PostgresClient(Arc::new(Pool { free: Semaphore::new(size), idle: std::sync::Mutex::new(idle) })))
    }
}

async fn connect(port: u16) -> Result<tokio_postgres::Client, Error> {
    let (client, connection) =
        tokio_postgres::connect(&format!("host=127.0.0.1 port={port} user=bench dbname=postgres"), NoTls).await?;
    tokio::spawn(async move {
        // Its end shows in every call of its client.
        let _ = connection.await;
    });
    Ok(client)
}

struct Connection {
    client: tokio_postgres::Client,
    save: Statement,
    create: Statement,
    save_if: Statement,
    version: Statement,
    load: Statement,
}

impl Connection {
    async fn new(port: u16) -> Result<Self, Error> {
        let client = connect(port).await?;
        let save = client.prepare(SAVE).await?;
        let create = client.prepare(CREATE).await?;
        let save_if = client.prepare(SAVE_IF).await?;
        let version = client.prepare(VERSION).await?;
        let load = client.prepare(LOAD).await?;
        Ok(Self { client, save, create, save_if, version, load })
    }
}

struct Pool {
    free: Semaphore,
    idle: std::sync::Mutex<Vec<Connection>>,
}

/// Taken out of the pool; put back when dropped, before its permit is.
struct Lent<'p> {
    pool: &'p Pool,
    connection: Option<Connection>,
    _permit: SemaphorePermit<'p>,
}

impl std::ops::Deref for Lent<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("it is taken when dropped only")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let connection = self.connection.take();
        self.pool.idle.lock().expect("no panic while it is held").extend(connection);
    }
}

/// A pool, cheap to clone.
#[derive(Clone)]
pub struct PostgresClient(Arc<Pool>);

impl PostgresClient {
    async fn lend(&self) -> Lent<'_> {
        let permit = self.0.free.acquire().await.expect("it is never closed");
        let connection = self.0.idle.lock().expect("no panic while it is held").pop();
        Lent { pool: &self.0, connection, _permit: permit }
    }

    /// Stores `value`; gives its version.
    pub async fn save(&self, key: &str, value: Bytes) -> Result<u64, Failure> {
        let lent = self.lend().await;
        let row = lent.client.query_one(&lent.save, &[&key, &value.as_ref()]).await.map_err(Failure::unknown)?;
        Ok(row.get::<_, i64>(0).unsigned_abs())
    }

    /// Stores `value` if the row's version is `expected`; 0: if there is no row.
    pub async fn save_if(&self, key: &str, value: Bytes, expected: u64) -> Result<Cas, Failure> {
        let lent = self.lend().await;
        let version = i64::try_from(expected).unwrap_or(i64::MAX);
        let row = if expected == 0 {
            lent.client.query_opt(&lent.create, &[&key, &value.as_ref()]).await.map_err(Failure::unknown)?
        } else {
            lent.client.query_opt(&lent.save_if, &[&key, &value.as_ref(), &version]).await.map_err(Failure::unknown)?
        };
        if let Some(row) = row {
            return Ok(Cas::Saved(row.get::<_, i64>(0).unsigned_abs()));
        }
        let row = lent.client.query_opt(&lent.version, &[&key]).await.map_err(Failure::unknown)?;
        Ok(Cas::Conflict(row.map_or(0, |row| row.get::<_, i64>(0).unsigned_abs())))
    }

    /// The value and its version.
    pub async fn load(&self, key: &str) -> Result<Option<(u64, Bytes)>, Failure> {
        let lent = self.lend().await;
        let row = lent.client.query_opt(&lent.load, &[&key]).await.map_err(Failure::unknown)?;
        Ok(row.map(|row| (row.get::<_, i64>(0).unsigned_abs(), Bytes::copy_from_slice(row.get::<_, &[u8]>(1)))))
    }
}
