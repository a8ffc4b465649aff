//! The cost of the last messages of a long session, beside that of all of it.

use std::time::{Duration, Instant};

use quorate::client::{Client, Error, Part};
use quorate::testing::load::{Corpus, Rng, Run, Transcripts, Turns};
use serde_json::json;

use super::deltas::turn;
use super::gauge::Gauge;
use super::report::{Row, millis};
use super::work::{close, failed};
use super::{Bench, Shown};
use crate::failure::Failure;

/// Turns of two messages, one chunk each: 1000 of 16 000 bytes are nearly the 16 MiB a session may have, and are not repacked yet.
const TURNS: usize = 1_000;
const TURN_BYTES: usize = 16_000;
const LAST: usize = 20;
const WHOLE_LOADS: u32 = 10;
const PART_LOADS: u32 = 200;
const BYTES_RATIO_MAX: f64 = 1.2;
const TIMES_FASTER_MIN: f64 = 20.0;

impl Bench {
    /// Bytes and time of the last messages of a session of 16 MB whose content does not compress.
    pub(super) async fn last_messages(&mut self, gauge: &Gauge, row: &mut Row) -> Result<(), Failure> {
        let _shown = Shown::start("the last messages of a session of 16 MB".to_owned(), Duration::ZERO);
        self.run += 1;
        let (writer, key) = (self.clients(1)?, format!("bench/parts/{}", self.run));
        let (corpus, mut rng) = (Corpus::incompressible(self.args.seed, super::CORPUS_BYTES), Rng::new(self.args.seed));
        let store = Transcripts(writer[0].clone());
        for _ in 0..TURNS {
            let base = store.begin(&key).await.map_err(|failure| failed(&failure))?;
            let turn = turn(&corpus, &mut rng, TURN_BYTES, false);
            store.finish(&key, base, &turn).await.map_err(|failure| failed(&failure))?;
        }
        let readers = self.clients(1)?;
        let before = self.counters(gauge).await?;
        let part = timed(&readers[0], &key, Part::Last(LAST as u64), PART_LOADS).await?;
        let moved = self.counters(gauge).await?.since(&before).client_bytes as f64 / f64::from(PART_LOADS);
        // A part is asked for whole: it enters no memory, so every load is a cold one, on a connection that is there.
        let whole = timed(&readers[0], &key, Part::Whole, WHOLE_LOADS).await?;
        close(writer).await;
        close(readers).await;
        let chunks = (LAST / 2 * TURN_BYTES + LAST * 4) as f64;
        let (part, whole) = (millis(part.quantile(0.5)), millis(whole.quantile(0.5)));
        let (ratio, times) = (moved / chunks, whole / part);
        let found = format!("{ratio:.3} of {chunks:.0} (limit {BYTES_RATIO_MAX})");
        row.check("bytes of the last 20 messages of 16 MB, both ways, of their chunks'", ratio <= BYTES_RATIO_MAX, found);
        let found = format!("{times:.0} times: {part:.2} ms, all of it {whole:.1} ms (limit {TIMES_FASTER_MIN})");
        row.check("time of the last 20 messages of 16 MB, by that of a cold load", times >= TIMES_FASTER_MIN, found);
        row.details.insert("last_20".into(), json!({ "bytes_ratio": ratio, "part_ms": part, "whole_ms": whole }));
        Ok(())
    }
}

/// How long each of so many loads takes, after one that is not counted.
async fn timed(client: &Client, key: &str, part: Part, loads: u32) -> Result<Run, Failure> {
    let failed = |error: Error| Failure::failed(format!("the cluster does not answer a load: {error}"));
    let mut run = Run::empty();
    for at in 0..=loads {
        let began = Instant::now();
        let loaded = client.load_part(key, part).await.map_err(failed)?;
        if loaded.is_none_or(|loaded| loaded.info.items != 2 * TURNS as u64) {
            return Err(Failure::failed("a session that was just saved is not there as it was saved"));
        }
        if at > 0 {
            run.record(began.elapsed());
        }
    }
    Ok(run)
}
