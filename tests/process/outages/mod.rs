//! Outages with real processes: what every signal says, beside what is true. The table of `src/docs/operations.md`, "Signals in an
//! outage", is written by these tests (`scripts/outages.sh`) and compared with what they see.

mod scenes;
mod signals;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use quorate::client::WriteOptions;

use self::signals::{Looked, Row, look};
use crate::process::harness::{Cluster, PATIENCE};
use crate::process::value;

/// Tests run at once, and each writes its row.
static TABLE: Mutex<()> = Mutex::new(());

/// What is true in an outage, by what was done to the cluster.
pub struct Truth<'n> {
    /// The row's name.
    pub name: &'static str,
    /// Nodes that run and can be asked, with what the table calls them.
    pub looked: Vec<Looked<'n>>,
    /// Those of them for which no leader with a majority can be reached.
    pub without_leader: Vec<usize>,
    /// Whether saves are acknowledged.
    pub saves: bool,
    /// What readiness, doctor or a refusal must contain besides.
    pub says: &'static [&'static str],
}

impl<'n> Truth<'n> {
    /// Saves are acknowledged and every node has a leader.
    pub fn of(name: &'static str, looked: Vec<Looked<'n>>) -> Self {
        Self { name, looked, without_leader: Vec::new(), saves: true, says: &[] }
    }
}

fn table_file() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/operations.md"))
}

fn line(name: &str, saves: bool, row: &Row, alerts: &str) -> String {
    let saves = if saves { "taken" } else { "refused" };
    let Row { readyz, has_leader, status, page, stale, doctor, .. } = row;
    format!("| {name} | {saves} | {readyz} | {has_leader} | {status} | {page} | {stale} | {doctor} | {alerts} |")
}

/// The committed row of that name, if there is one.
fn committed(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(table_file()).expect("the page is there");
    text.lines().find(|line| line.starts_with(&format!("| {name} |"))).map(str::to_owned)
}

fn rewrite(name: &str, new: &str) {
    let _held = TABLE.lock().expect("no test panics with it");
    let text = std::fs::read_to_string(table_file()).expect("the page is there");
    let old = committed(name).unwrap_or_else(|| panic!("the table has no row | {name} | to write into"));
    std::fs::write(table_file(), text.replace(&old, new)).expect("a writable tree");
}

/// Why what is seen is not what is true.
fn lies(truth: &Truth, row: &Row, saves: bool) -> Vec<String> {
    let mut lies = Vec::new();
    let mut expect = |what: &str, is: bool| {
        if !is {
            lies.push(what.to_owned());
        }
    };
    let none = truth.without_leader.len() == truth.looked.len();
    let all = truth.without_leader.is_empty();
    expect("saves", saves == truth.saves);
    expect("has_leader is 0 exactly where no leader is", (none == (row.has_leader == "0")) && (all == (row.has_leader == "1")));
    expect("readiness falls where no leader is", none == (row.readyz.contains("leader") && !row.readyz.contains(": ready")));
    expect("status has exit code 4 exactly without a leader", none == (row.status == "exit 4"));
    expect("the page shows a leader exactly where one is", none == (row.page == "no leader"));
    expect("a stale age is near 0 only with a leader", none != row.stale.contains("an age near 0"));
    expect("doctor has an error where saves are refused", truth.saves || row.doctor.contains("error: "));
    if let Some(alerts) = &row.alerts {
        expect("QuorateNoLeader fires exactly without a leader", none == alerts.contains("QuorateNoLeader"));
    }
    for part in truth.says {
        expect(part, [&row.readyz, &row.doctor].iter().any(|said| said.contains(part)));
    }
    lies
}

/// Waits until the signals say what is true and what the page says they do.
pub async fn compare(cluster: &Cluster, count: usize, truth: &Truth<'_>) {
    let hasty = cluster.builder().write_deadline(Duration::from_secs(3)).build().expect("valid endpoints");
    let began = Instant::now();
    let rewrites = std::env::var_os("REWRITE").is_some();
    let mut before = None;
    loop {
        let saves = hasty.save("kept", value("again"), WriteOptions::default()).await.is_ok();
        let mut row = tokio::task::block_in_place(|| look(cluster, count, &truth.looked));
        if (1..=count).all(|node| cluster.small_disk(node).is_none()) {
            row.forget_the_machines_disk();
        }
        let lies = lies(truth, &row, saves);
        let known = committed(truth.name);
        // Without promtool nobody knows better than the page.
        let of_page = known.as_deref().and_then(|line| line.rsplit(" | ").next()?.strip_suffix(" |")).unwrap_or("");
        let seen = line(truth.name, saves, &row, row.alerts.as_deref().unwrap_or(of_page));
        let is_steady = before.as_ref() == Some(&seen);
        if lies.is_empty() && rewrites && is_steady {
            println!("{seen}");
            return rewrite(truth.name, &seen);
        }
        if lies.is_empty() && !rewrites && known.as_ref() == Some(&seen) {
            return;
        }
        before = Some(seen.clone());
        assert!(
            began.elapsed() < PATIENCE,
            "{}: not within {PATIENCE:?}\nnot true: {lies:?}\nseen: {seen}\npage: {}\n{}",
            truth.name,
            known.as_deref().unwrap_or("no such row"),
            cluster.logs()
        );
    }
}
