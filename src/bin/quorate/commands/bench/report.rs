//! The results, as a table or as JSON.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use quorate::env::ProcessUsage;
use quorate::testing::load::{Run, Spread};
use serde_json::{Map, Value, json};

use super::both;
use super::gauge::{Counters, Reading};
use crate::args::{self, Output};
use crate::failure::Failure;
use crate::output;

/// All of it.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

/// One workload at one number of callers.
#[derive(Debug)]
pub struct Row {
    name: String,
    callers: usize,
    seconds: f64,
    rate: Option<f64>,
    incompressible: bool,
    seed: u64,
    runs: Vec<(Run, Reading, Reading)>,
    /// Of all nodes together, a while after the load.
    pub memory_bytes: Option<u64>,
    /// Results that only this workload has.
    pub details: Map<String, Value>,
    said: Vec<String>,
    checks: Vec<Check>,
}

#[derive(Debug)]
struct Check {
    what: String,
    ok: bool,
    found: String,
}

impl Report {
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub fn last(&mut self) -> Option<&mut Row> {
        self.rows.last_mut()
    }

    /// Forgets a row that was begun and of which no run has ended.
    pub fn drop_unmeasured(&mut self) {
        self.rows.retain(|row| !row.runs.is_empty() || !row.details.is_empty() || !row.checks.is_empty());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Errors: stdout is closed.
    pub fn print(&self, form: Output) -> Result<(), Failure> {
        match form {
            Output::Json => {
                let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
                output::json(&json!({ "version": env!("CARGO_PKG_VERSION"), "rows": rows }))?;
            }
            Output::Table => output::line(&self.table())?,
        }
        Ok(())
    }

    /// Errors: a check failed; names the first.
    pub fn verdict(&self) -> Result<(), Failure> {
        let mut checks = self.rows.iter().flat_map(|row| &row.checks);
        match checks.find(|check| !check.ok) {
            None => Ok(()),
            Some(check) => Err(Failure::failed(format!("missed: {}: {}", check.what, check.found))),
        }
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        let header =
            ["WORKLOAD", "CALLERS", "OPS/S", "(MIN-MAX)", "P50", "P99", "P99.9", "MAX", "CPU/OP", "MEMORY", "DISK/OP", "LOG/OP"];
        table.set_header(header.into_iter().chain(["PEERS/OP", "CLIENTS/OP", "DELTAS"]));
        for row in self.rows.iter().filter(|row| !row.runs.is_empty()) {
            table.add_row(row.cells());
        }
        for column in 1..15 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let has_runs = self.rows.iter().any(|row| !row.runs.is_empty());
        let mut text = if has_runs { table.trim_fmt() } else { String::new() };
        for row in &self.rows {
            for line in row.lines() {
                text.push('\n');
                text.push_str(&line);
            }
        }
        text.trim_start().to_owned()
    }
}

impl Row {
    pub fn new(name: &str, callers: usize, args: &args::Bench) -> Self {
        Self {
            name: name.to_owned(),
            callers,
            seconds: args.seconds.as_secs_f64(),
            rate: args.rate,
            incompressible: args.incompressible,
            seed: args.seed,
            runs: Vec::new(),
            memory_bytes: None,
            details: Map::new(),
            said: Vec::new(),
            checks: Vec::new(),
        }
    }

    pub fn measured(&mut self, run: Run, before: Reading, after: Reading) {
        self.runs.push((run, before, after));
    }

    /// A line below the table.
    pub fn say(&mut self, line: String) {
        self.said.push(line);
    }

    /// Something that must hold, and what was found.
    pub fn check(&mut self, what: impl Into<String>, ok: bool, found: impl Into<String>) {
        self.checks.push(Check { what: what.into(), ok, found: found.into() });
    }

    fn spread(&self, figure: impl Fn(&Run) -> f64) -> Option<Spread> {
        Spread::of(self.runs.iter().map(|(run, ..)| figure(run)))
    }

    /// Per operation, of what two readings differ by; of the runs where it is known.
    fn per_operation(&self, figure: impl Fn(&Reading, &Reading) -> Option<f64>) -> Option<Spread> {
        let of = |(run, before, after): &(Run, Reading, Reading)| {
            (run.ended > 0).then(|| figure(before, after)).flatten().map(|figure| figure / run.ended as f64)
        };
        Spread::of(self.runs.iter().filter_map(of))
    }

    fn counted(&self, figure: impl Fn(&Counters) -> u64) -> Option<Spread> {
        self.per_operation(|before, after| {
            let (before, after) = both(before.counters, after.counters)?;
            Some(figure(&after.since(&before)) as f64)
        })
    }

    fn cpu_ms(&self, of: impl Fn(&Reading) -> Option<ProcessUsage>) -> Option<Spread> {
        self.per_operation(|before, after| {
            let (before, after) = both(of(before), of(after))?;
            Some(after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1000.0)
        })
    }

    fn disk_bytes(&self) -> Option<Spread> {
        self.per_operation(|before, after| {
            let (before, after) = both(before.usage, after.usage)?;
            Some(after.disk_bytes.saturating_sub(before.disk_bytes) as f64)
        })
    }

    fn loopback_bytes(&self) -> Option<Spread> {
        self.per_operation(|before, after| {
            let (before, after) = both(before.loopback_bytes, after.loopback_bytes)?;
            Some(after.saturating_sub(before) as f64)
        })
    }

    /// Share of saves that sent only what was new, and the number of all saves, of all runs.
    pub fn delta_share(&self) -> Option<(f64, u64)> {
        let mut sum = Counters::default();
        for (_, before, after) in &self.runs {
            let (before, after) = both(before.counters, after.counters)?;
            let since = after.since(&before);
            (sum.deltas, sum.fulls) = (sum.deltas + since.deltas, sum.fulls + since.fulls);
        }
        Some((sum.delta_share()?, sum.deltas + sum.fulls))
    }

    fn failures(&self) -> (u64, Option<&str>) {
        let first = self.runs.iter().find_map(|(run, ..)| run.first_failure.as_deref());
        (self.runs.iter().map(|(run, ..)| run.failures).sum(), first)
    }

    fn unserved(&self) -> u64 {
        self.runs.iter().map(|(run, ..)| run.unserved).sum()
    }

    fn cells(&self) -> Vec<String> {
        let ms = |share: f64| spread_text(self.spread(|run| millis(run.quantile(share))), |ms| format!("{ms:.2} ms"));
        let bytes = |spread: Option<Spread>| spread_text(spread, |bytes| output::size(bytes as u64));
        let rate = self.spread(Run::per_second);
        vec![
            self.name.clone(),
            self.callers.to_string(),
            spread_text(rate, |rate| format!("{rate:.0}")),
            rate.map_or_else(|| "-".into(), |rate| format!("{:.0}-{:.0}", rate.min, rate.max)),
            ms(0.5),
            ms(0.99),
            ms(0.999),
            spread_text(self.spread(|run| millis(run.max())), |ms| format!("{ms:.1} ms")),
            spread_text(self.cpu_ms(|reading| reading.usage), |ms| format!("{ms:.4} ms")),
            self.memory_bytes.map_or_else(|| "-".into(), output::size),
            bytes(self.disk_bytes()),
            bytes(self.counted(|counters| counters.log_bytes)),
            bytes(self.counted(|counters| counters.peer_bytes)),
            bytes(self.counted(|counters| counters.client_bytes)),
            self.delta_share().map_or_else(|| "-".into(), |(share, _)| format!("{:.1} %", 100.0 * share)),
        ]
    }

    fn lines(&self) -> Vec<String> {
        let name = format!("{}, {} callers", self.name, self.callers);
        let mut lines = self.said.clone();
        let (failures, first) = self.failures();
        if let Some(first) = first {
            lines.push(format!("{name}: {failures} operations failed; the first: {}", output::printable(first)));
        }
        if self.unserved() > 0 {
            lines.push(format!("{name}: {} calls were due and never made: the rate is above what is possible", self.unserved()));
        }
        for check in &self.checks {
            lines.push(format!("{}  {}: {}", if check.ok { "ok    " } else { "MISSED" }, check.what, check.found));
        }
        lines
    }

    fn json(&self) -> Value {
        let (failures, first_failure) = self.failures();
        let latency = |share: f64| spread_json(self.spread(|run| millis(run.quantile(share))));
        json!({
            "workload": self.name,
            "callers": self.callers,
            "runs": self.runs.len(),
            "seconds": self.seconds,
            "rate": self.rate,
            "incompressible": self.incompressible,
            "seed": self.seed,
            "operations": self.runs.iter().map(|(run, ..)| run.operations).sum::<u64>(),
            "conflicts": self.runs.iter().map(|(run, ..)| run.conflicts).sum::<u64>(),
            "failures": failures,
            "first_failure": first_failure,
            "unserved": self.unserved(),
            "operations_per_second": spread_json(self.spread(Run::per_second)),
            "latency_ms": {
                "p50": latency(0.5),
                "p99": latency(0.99),
                "p99_9": latency(0.999),
                "max": spread_json(self.spread(|run| millis(run.max()))),
            },
            "per_operation": {
                "cpu_ms": spread_json(self.cpu_ms(|reading| reading.usage)),
                "client_cpu_ms": spread_json(self.cpu_ms(|reading| reading.client)),
                "disk_bytes": spread_json(self.disk_bytes()),
                "log_bytes": spread_json(self.counted(|counters| counters.log_bytes)),
                "peer_wire_bytes": spread_json(self.counted(|counters| counters.peer_bytes)),
                "client_wire_bytes": spread_json(self.counted(|counters| counters.client_bytes)),
                "loopback_bytes": spread_json(self.loopback_bytes()),
            },
            "delta_share": self.delta_share().map(|(share, _)| share),
            "memory_bytes": self.memory_bytes,
            "details": self.details,
            "checks": self.checks.iter().map(|check| json!({ "what": check.what, "ok": check.ok, "found": check.found })).collect::<Vec<_>>(),
        })
    }
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The median, or that it is not known.
fn spread_text(spread: Option<Spread>, form: impl Fn(f64) -> String) -> String {
    spread.map_or_else(|| "-".into(), |spread| form(spread.median))
}

pub fn spread_json(spread: Option<Spread>) -> Value {
    spread.map_or(Value::Null, |Spread { min, median, max }| json!({ "min": min, "median": median, "max": max }))
}
