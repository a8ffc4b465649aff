//! The usage of the nodes so far: by the operating system's count and by their own.

use std::time::Duration;

use quorate::client::{Client, ErrorKind, StatusOptions};
use quorate::env::{ProcessUsage, loopback_bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::args;
use crate::commands::session::ask_failure;
use crate::failure::Failure;

/// A node that does not answer within it is not counted.
const TIMEOUT: Duration = Duration::from_secs(3);
const METRICS_BYTES_MAX: u64 = 1 << 20;

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    /// The processes, if they run here.
    pub pids: Vec<u32>,
    /// Where the nodes answer over HTTP.
    pub admin: Vec<String>,
}

/// The readings of one moment, of all nodes together.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// `None`: not known, or a node has gone.
    pub usage: Option<ProcessUsage>,
    /// This process's: the clients', and that of making the load.
    pub client: Option<ProcessUsage>,
    /// Everybody's.
    pub loopback_bytes: Option<u64>,
    /// `None`: not every node answered.
    pub counters: Option<Counters>,
}

/// The nodes' own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Both ways.
    pub client_bytes: u64,
    /// Both ways.
    pub peer_bytes: u64,
    /// Written to the logs, with headers.
    pub log_bytes: u64,
    /// Saves that sent what was new.
    pub deltas: u64,
    /// Saves that sent everything.
    pub fulls: u64,
}

impl Gauge {
    /// Of a cluster that is not ours: as the command line says; where all its nodes are on this machine, as they say themselves.
    pub async fn of(client: &Client, args: &args::Bench) -> Result<Self, Failure> {
        let mut pids = args.pids.clone();
        if pids.is_empty() {
            let nodes = match client.status(StatusOptions::default()).await {
                Ok(status) => status.nodes,
                // Its token is for sessions only.
                Err(error) if error.kind() == ErrorKind::Denied => return Ok(Self { pids, admin: args.admin.clone() }),
                Err(error) => return Err(ask_failure(error)),
            };
            if nodes.iter().all(|node| node.reachable && is_local(&node.client_address)) {
                pids = nodes.iter().filter_map(|node| u32::try_from(node.pid).ok()).collect();
            }
        }
        Ok(Self { pids, admin: args.admin.clone() })
    }

    /// Looks everywhere.
    pub async fn read(&self) -> Reading {
        let usage = match self.pids.is_empty() {
            true => None,
            false => ProcessUsage::of_all(self.pids.iter().copied()).ok(),
        };
        let client = ProcessUsage::of_all([std::process::id()]).ok();
        Reading { usage, client, loopback_bytes: loopback_bytes().ok(), counters: self.counters().await }
    }

    async fn counters(&self) -> Option<Counters> {
        if self.admin.is_empty() {
            return None;
        }
        let mut sum = Counters::default();
        for address in &self.admin {
            let text = tokio::time::timeout(TIMEOUT, metrics(address)).await.ok()?.ok()?;
            sum.add(&text);
        }
        Some(sum)
    }
}

fn is_local(address: &str) -> bool {
    address.starts_with("127.") || address.starts_with("[::1]") || address.starts_with("localhost:")
}

async fn metrics(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(METRICS_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

impl Counters {
    fn add(&mut self, text: &str) {
        for line in text.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let sum = match name {
                "quorate_wire_bytes_total{port=\"client\",direction=\"in\"}"
                | "quorate_wire_bytes_total{port=\"client\",direction=\"out\"}" => &mut self.client_bytes,
                "quorate_wire_bytes_total{port=\"peer\",direction=\"in\"}"
                | "quorate_wire_bytes_total{port=\"peer\",direction=\"out\"}" => &mut self.peer_bytes,
                "quorate_log_written_bytes_total" => &mut self.log_bytes,
                "quorate_saves_total{form=\"delta\"}" => &mut self.deltas,
                "quorate_saves_total{form=\"full\"}" => &mut self.fulls,
                _ => continue,
            };
            *sum += value as u64;
        }
    }

    /// The increase since `earlier`.
    pub fn since(&self, earlier: &Counters) -> Counters {
        Counters {
            client_bytes: self.client_bytes.saturating_sub(earlier.client_bytes),
            peer_bytes: self.peer_bytes.saturating_sub(earlier.peer_bytes),
            log_bytes: self.log_bytes.saturating_sub(earlier.log_bytes),
            deltas: self.deltas.saturating_sub(earlier.deltas),
            fulls: self.fulls.saturating_sub(earlier.fulls),
        }
    }

    /// From 0 to 1; `None` without saves.
    pub fn delta_share(&self) -> Option<f64> {
        let saves = self.deltas + self.fulls;
        (saves > 0).then(|| self.deltas as f64 / saves as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_among_others_and_add_up() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# TYPE quorate_saves_total counter\nquorate_saves_total{form=\"delta\"} 9\n\
            quorate_wire_bytes_total{port=\"client\",direction=\"in\"} 100\nquorate_wire_bytes_total{port=\"client\",direction=\"out\"} 20\n\
            quorate_wire_bytes_total{port=\"peer\",direction=\"in\"} 7\nquorate_log_written_bytes_total 5\nquorate_saves_total 77\n";
        let mut counters = Counters::default();
        counters.add(text);
        counters.add("quorate_saves_total{form=\"full\"} 1\n");
        assert_eq!(counters, Counters { client_bytes: 120, peer_bytes: 7, log_bytes: 5, deltas: 9, fulls: 1 });
        assert_eq!(counters.delta_share(), Some(0.9));
        let half = Counters { client_bytes: 20, deltas: 9, ..Counters::default() };
        assert_eq!(counters.since(&half), Counters { client_bytes: 100, deltas: 0, ..counters });
        assert_eq!(half.since(&counters).delta_share(), None);
    }

    #[test]
    fn only_loopback_is_local() {
        assert!(is_local("127.0.0.1:1") && is_local("[::1]:1") && !is_local("10.0.0.1:1"));
    }
}
