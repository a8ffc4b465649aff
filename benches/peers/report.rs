//! What was measured, for people and for programs.

use serde_json::{Map, Value, json};

use quorate::testing::load::Spread;

use crate::figures::{BARS, Bound, Cell, Measured, Metric, Verdict, compared, verdicts};
use crate::stores::Kind;

/// A whole run.
#[derive(Default)]
pub struct Report {
    /// What was asked for.
    pub cells: Vec<Cell>,
    /// How it was measured, in words.
    pub method: Vec<String>,
    /// The stores, with their versions.
    pub versions: Vec<(Kind, String)>,
    /// All runs.
    pub runs: Vec<Measured>,
    /// What went wrong without ending the run: calls that failed.
    pub failures: Vec<String>,
}

impl Report {
    /// Whether every bar was reached and no call failed; a run that checked nothing proves nothing.
    pub fn passed(&self) -> bool {
        let verdicts = verdicts(&self.runs, &self.cells);
        self.failures.is_empty() && !verdicts.is_empty() && verdicts.iter().all(Verdict::is_reached)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let run = |run: &Measured| {
            let figures: Map<String, Value> = run.figures.iter().map(|(metric, value)| (metric.key(), json!(value))).collect();
            json!({ "workload": run.cell.workload, "callers": run.cell.callers, "round": run.round + 1,
                "store": run.kind.name(), "figures": figures })
        };
        let verdict = |verdict: &Verdict| {
            let (relation, bound) = bound(verdict.bar.bound);
            json!({ "workload": verdict.bar.cell.workload, "callers": verdict.bar.cell.callers, "metric": verdict.bar.metric.key(),
                "ratio_to": verdict.bar.against.map(Kind::name), "relation": relation, "bar": bound,
                "median": verdict.figure.map(|figure| figure.median), "min": verdict.figure.map(|figure| figure.min),
                "max": verdict.figure.map(|figure| figure.max), "reached": verdict.is_reached() })
        };
        let versions: Map<String, Value> =
            self.versions.iter().map(|(kind, version)| (kind.name().to_owned(), json!(version))).collect();
        json!({ "versions": versions, "method": self.method, "failures": self.failures,
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
            "bars": verdicts(&self.runs, &self.cells).iter().map(verdict).collect::<Vec<_>>(), "passed": self.passed() })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let versions: Vec<String> = self.versions.iter().map(|(kind, version)| format!("{} {version}", kind.name())).collect();
        for &cell in &self.cells {
            let callers = if cell.callers == 0 { String::new() } else { format!(", {} callers", cell.callers) };
            text += &format!("\n{}{callers}: {}\n", cell.workload, versions.join(", "));
            text += &self.table(cell);
        }
        text += &format!("\n{}\n\n", self.method.join("\n"));
        for verdict in verdicts(&self.runs, &self.cells) {
            text += &line(&verdict);
        }
        text.extend(self.failures.iter().map(|failure| format!("FAILED CALLS  {failure}\n")));
        text
    }

    /// Medians, the first figure with its spread, and all ratios of the first figure to etcd.
    fn table(&self, cell: Cell) -> String {
        let runs = || self.runs.iter().filter(|run| run.cell == cell);
        let mut metrics: Vec<Metric> = runs().flat_map(|run| run.figures.keys().copied()).collect();
        metrics.sort_unstable();
        metrics.dedup();
        // First what the cell is there for.
        let main = BARS.iter().find(|bar| bar.cell == cell).map_or(Metric::Rate, |bar| bar.metric);
        metrics.sort_by_key(|metric| (*metric != main, *metric));
        let Some(&first) = metrics.first() else { return "nothing was measured\n".to_owned() };
        let mut head = vec!["".to_owned(), format!("{} (min–max)", first.name())];
        head.extend(metrics[1..].iter().map(|metric| metric.name().to_owned()));
        head.push(format!("{} to etcd", first.name()));
        let mut rows = vec![head];
        for (kind, _) in &self.versions {
            let figure = |metric, against| compared(&self.runs, cell, *kind, metric, against);
            let Some(main) = figure(first, None) else { continue };
            let mut row = vec![kind.name().to_owned(), spread(main, |value| first.text(value))];
            row.extend(metrics[1..].iter().map(|&metric| figure(metric, None).map_or("-".into(), |one| metric.text(one.median))));
            row.push(figure(first, Some(Kind::Etcd)).map_or("-".into(), |ratio| spread(ratio, |value| format!("{value:.2}"))));
            rows.push(row);
        }
        aligned(&rows)
    }
}

fn bound(bound: Bound) -> (&'static str, f64) {
    match bound {
        Bound::Least(least) => (">=", least),
        Bound::Most(most) => ("<=", most),
    }
}

fn line(verdict: &Verdict) -> String {
    let bar = verdict.bar;
    let what = match bar.against {
        Some(kind) => format!("{} to {}", bar.metric.name(), kind.name()),
        None => bar.metric.name().to_owned(),
    };
    let figure = verdict.figure.map_or("not measured".into(), |figure| spread(figure, |value| format!("{value:.3}")));
    let (relation, value) = bound(bar.bound);
    let word = if verdict.is_reached() { "reached" } else { "MISSED" };
    let callers = if bar.cell.callers == 0 { String::new() } else { format!(" x{}", bar.cell.callers) };
    format!("{word:<8} {:<28} {what:<22} {figure:<26} bar {relation} {value:.3}\n", format!("{}{callers}", bar.cell.workload))
}

fn spread(spread: Spread, text: impl Fn(f64) -> String) -> String {
    let (min, median, max) = (text(spread.min), text(spread.median), text(spread.max));
    if min == max { median } else { format!("{median} ({min}–{max})") }
}

/// The first column to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let cell = |(column, text): (usize, &String)| match column {
        0 => format!("  {text:<0$}", widths[0]),
        _ => format!("  {text:>0$}", widths[column]),
    };
    rows.iter().map(|row| row.iter().enumerate().map(cell).collect::<String>() + "\n").collect()
}
