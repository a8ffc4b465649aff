//! The cost of growing sessions: bytes in the log, latency of a small turn on a large session, bytes of a load of known content.

use std::time::{Duration, Instant};

use quorate::testing::load::{Agents, Corpus, Rng, Run, Saving, Transcripts, Turn, Turns};
use serde_json::json;

use super::gauge::{Counters, Gauge};
use super::report::{Row, millis};
use super::work::{close, failed};
use super::{Bench, Shown};
use crate::args::Workload;
use crate::failure::Failure;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// The long session: so many turns, so large at the end.
const TURNS: usize = 200;
const SESSION_BYTES: usize = 4 * MIB;
const DELTA_BYTES: usize = 10 * KIB;
/// Deltas measured on each size of session: p99 is the tenth from the end.
const DELTAS: usize = 1000;
/// Deltas on one session, so that it stays about as large as it is meant to be.
const DELTAS_PER_SESSION: usize = 20;
const LOADS: u64 = 1000;

/// Log bytes of one node, per byte of the final session.
const PLAIN_LOG_MAX: f64 = 1.3;
const PACKED_LOG_MAX: f64 = 0.35;
const LATENCY_RATIO_MAX: f64 = 1.3;
/// The cost of the port, which passes whole states.
const PORT_MS_PER_MB: f64 = 0.5;
const WARM_LOAD_BYTES_MAX: f64 = 300.0;

impl Bench {
    /// Measures and checks each figure.
    pub(super) async fn deltas(&mut self) -> Result<(), Failure> {
        let gauge = self.gauge().await?;
        let nodes = gauge.admin.len();
        let mut row = Row::new(&Workload::Deltas.name(), 1, &self.args);
        let noise = Corpus::incompressible(self.args.seed, super::CORPUS_BYTES);
        if nodes > 0 {
            for (corpus, limit, what) in [
                (noise, PLAIN_LOG_MAX, "log bytes per byte of a session of 4 MB after 200 turns, uncompressed"),
                (self.text(), PACKED_LOG_MAX, "the same, text with zstd"),
            ] {
                let _shown = Shown::start(what.to_owned(), Duration::ZERO);
                let ratio = self.log_ratio(&gauge, &corpus).await? / nodes as f64;
                row.check(what, ratio <= limit, format!("{ratio:.3} (limit {limit})"));
                row.details.insert(format!("log_ratio_{}", if limit > 1.0 { "plain" } else { "zstd" }), json!(ratio));
            }
            let bytes = self.warm_load(&gauge).await?;
            row.check("bytes of a warm load of 4 MB, both ways", bytes <= WARM_LOAD_BYTES_MAX, format!("{bytes:.0} (limit 300)"));
            row.details.insert("warm_load_bytes".into(), json!(bytes));
            self.last_messages(&gauge, &mut row).await?;
        }
        for (what, port_ms, is_port) in
            [("typed API", 0.0, false), ("Bob's port", PORT_MS_PER_MB * SESSION_BYTES as f64 / 1e6, true)]
        {
            let _shown = Shown::start(format!("10 KiB on 10 KiB and on 4 MB, {what}"), Duration::ZERO);
            let clients = self.clients(1)?;
            let (small, large) = match is_port {
                false => self.latencies(&Transcripts(clients[0].clone())).await?,
                true => self.latencies(&Agents::of(&clients[0], Saving::IfVersion)).await?,
            };
            close(clients).await;
            let (small, large) = (millis(small.quantile(0.99)), millis(large.quantile(0.99)));
            let limit = LATENCY_RATIO_MAX * small + port_ms;
            let found = format!("{large:.2} ms, on 10 KiB {small:.2} ms (limit {limit:.2} ms)");
            row.check(format!("p99 of a turn of 10 KiB on a session of 4 MB, {what}"), large <= limit, found);
            row.details
                .insert(format!("p99_ms_{}", if is_port { "port" } else { "typed" }), json!({ "small": small, "large": large }));
        }
        self.report.add(row);
        Ok(())
    }

    pub(super) async fn counters(&self, gauge: &Gauge) -> Result<Counters, Failure> {
        gauge.read().await.counters.ok_or_else(|| Failure::failed("a node does not answer over HTTP, so bytes can't be counted"))
    }

    /// Bytes written to all logs by a session that grows turn by turn, per byte it has at the end.
    async fn log_ratio(&mut self, gauge: &Gauge, corpus: &Corpus) -> Result<f64, Failure> {
        self.run += 1;
        let clients = self.clients(1)?;
        let store = Transcripts(clients[0].clone());
        let key = format!("bench/deltas/{}", self.run);
        let before = self.counters(gauge).await?;
        let mut rng = Rng::new(self.args.seed);
        for _ in 0..TURNS {
            let base = store.begin(&key).await.map_err(|failure| failed(&failure))?;
            let turn = turn(corpus, &mut rng, SESSION_BYTES / TURNS, false);
            store.finish(&key, base, &turn).await.map_err(|failure| failed(&failure))?;
        }
        let written = self.counters(gauge).await?.since(&before).log_bytes;
        close(clients).await;
        Ok(written as f64 / SESSION_BYTES as f64)
    }

    /// Bytes on the wire, both ways, of one load of a session that has not changed since the last.
    async fn warm_load(&mut self, gauge: &Gauge) -> Result<f64, Failure> {
        self.run += 1;
        let clients = self.clients(1)?;
        let store = Transcripts(clients[0].clone());
        let key = format!("bench/deltas/{}", self.run);
        self.grown(&store, &key, SESSION_BYTES).await?;
        store.begin(&key).await.map_err(|failure| failed(&failure))?;
        let before = self.counters(gauge).await?;
        for _ in 0..LOADS {
            store.begin(&key).await.map_err(|failure| failed(&failure))?;
        }
        let moved = self.counters(gauge).await?.since(&before).client_bytes;
        close(clients).await;
        Ok(moved as f64 / LOADS as f64)
    }

    /// A session of about so many bytes, as text.
    async fn grown<S: Turns>(&self, store: &S, key: &str, bytes: usize) -> Result<(), Failure> {
        let (corpus, mut rng) = (self.text(), Rng::new(self.args.seed));
        let mut left = bytes;
        while left > 0 {
            let part = left.min(MIB);
            let base = store.begin(key).await.map_err(|failure| failed(&failure))?;
            let messages =
                (0..part.div_ceil(DELTA_BYTES)).flat_map(|_| turn(&corpus, &mut rng, DELTA_BYTES, true).messages).collect();
            store.finish(key, base, &Turn { messages, usage: [1, 1] }).await.map_err(|failure| failed(&failure))?;
            left -= part;
        }
        Ok(())
    }

    /// How long saves of a turn of 10 KiB take on small sessions and on large ones, in alternation. Loads are not in it.
    async fn latencies<S: Turns>(&mut self, store: &S) -> Result<(Run, Run), Failure> {
        let corpus = self.text();
        let mut rng = Rng::new(self.args.seed);
        let mut runs = [Run::empty(), Run::empty()];
        for _ in 0..DELTAS / DELTAS_PER_SESSION {
            self.run += 1;
            self.grown(store, &format!("bench/deltas/{}/1", self.run), SESSION_BYTES).await?;
            for at in 0..DELTAS_PER_SESSION {
                for (size, run) in runs.iter_mut().enumerate() {
                    // A small session stays small.
                    let key = match size {
                        0 => format!("bench/deltas/{}/{size}/{at}", self.run),
                        _ => format!("bench/deltas/{}/{size}", self.run),
                    };
                    if size == 0 {
                        self.grown(store, &key, DELTA_BYTES).await?;
                    }
                    let turn = turn(&corpus, &mut rng, DELTA_BYTES, true);
                    let base = store.begin(&key).await.map_err(|failure| failed(&failure))?;
                    let began = Instant::now();
                    store.finish(&key, base, &turn).await.map_err(|failure| failed(&failure))?;
                    run.record(began.elapsed());
                }
            }
        }
        let [small, large] = runs;
        Ok((small, large))
    }
}

/// Two messages of so many bytes together; as JSON, or as bare bytes.
pub(super) fn turn(corpus: &Corpus, rng: &mut Rng, bytes: usize, is_json: bool) -> Turn {
    let messages = [bytes / 8, bytes - bytes / 8].into_iter().map(|bytes| match is_json {
        true => quorate::testing::load::message("assistant", &corpus.cut(rng, bytes.saturating_sub(35))),
        false => corpus.cut(rng, bytes),
    });
    Turn { messages: messages.collect(), usage: [bytes as u64 / 4, 100] }
}
