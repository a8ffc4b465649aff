//! A noisy tenant beside a quiet one, on real processes with certificates and tokens: what one token can do to another.
//!
//! `scripts/chaos/noisy.sh` runs this program for minutes and judges how long the quiet one's calls take; `cargo test` runs a short one, which
//! judges no time.
//!
//! ```text
//! quiet ─── saves and loads, one after the other ──────────────────────────┐
//! noisy ─┬─ opens clients, saves ever new sessions, deletes them ──────────┤
//!        ├─ saves values of 15 MiB ────────────────────────────────────────┼─> three nodes
//!        ├─ loads them and takes nothing ──────────────────────────────────┤
//!        └─ opens connections to every port and sends a byte now and then ─┘
//! ```

mod cluster;
mod noise;
mod quiet;

use std::sync::Arc;
use std::time::Duration;

use cluster::Cluster;
use noise::{Noise, Scale};
use quiet::{Measured, Quiet};

/// The quiet tenant's calls may take so many times as long as when it is alone, at the 99th percentile.
const SLOWER_MAX: f64 = 3.0;
/// The noisy tenant has done everything after so long at the latest.
const PATIENCE: Duration = Duration::from_secs(60);

fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    // A closed terminal ends no run.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The quiet tenant alone, then beside the noisy one. Gives what went wrong; only at full scale do times count.
async fn run(alone: Duration, beside: Duration, scale: Scale) -> Vec<String> {
    let cluster = Arc::new(Cluster::start().await);
    let quiet = Quiet::new(&cluster).await;
    say(&format!("alone for {alone:?}"));
    let first = quiet.run(alone).await;
    say(&first.line("alone"));
    let before = cluster.leader().await;
    let noise = Noise::start(&cluster, scale);
    say(&format!("beside the noisy tenant for {beside:?}"));
    let mut second = Measured::default();
    let began = tokio::time::Instant::now();
    // On a busy machine the noisy tenant takes longer to do all it can.
    while began.elapsed() < beside || !noise.missing().is_empty() && began.elapsed() < PATIENCE {
        let part = quiet.run((beside / 20).max(Duration::from_secs(1))).await;
        say(&part.line(&format!("{:>4} s", began.elapsed().as_secs())));
        say(&format!("       {}", noise.line()));
        second.add(part);
    }
    let made = noise.stop().await;
    let after = cluster.leader().await;
    say(&second.line("beside"));
    let mut wrong = Vec::new();
    for measured in [&first, &second] {
        wrong.extend(measured.errors.iter().map(|error| format!("the quiet tenant: {error}")));
    }
    // A busy machine loses a leader by itself.
    if scale.is_full() && before != after {
        wrong.push(format!("another leader, or another term: {before:?} before, {after:?} after"));
    }
    wrong.extend(made.missing().into_iter().map(|what| format!("the noisy tenant never {what}: nothing is shown")));
    for (what, before, after) in [("saves", first.saves(), second.saves()), ("loads", first.loads(), second.loads())] {
        let ratio = after.p99.as_secs_f64() / before.p99.as_secs_f64();
        say(&format!("{what}: p99 {:?} alone, {:?} beside, {ratio:.2} times as long", before.p99, after.p99));
        if scale.is_full() && ratio > SLOWER_MAX {
            wrong.push(format!("{what} took {ratio:.2} times as long at p99, more than {SLOWER_MAX}"));
        }
    }
    quiet.close().await;
    wrong
}

/// With seconds in `QUORATE_NOISY` the program of `scripts/chaos/noisy.sh`, which ends the process; else a short run, for `cargo test`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_tenant_is_served_beside_a_noisy_one() {
    let Ok(words) = std::env::var("QUORATE_NOISY") else {
        let wrong = run(Duration::from_secs(2), Duration::from_secs(4), Scale::SHORT).await;
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        return;
    };
    let seconds: Vec<u64> = words.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [alone, beside] = seconds[..] else {
        say("noisy: two numbers of seconds are needed: alone, beside");
        std::process::exit(2);
    };
    let wrong = run(Duration::from_secs(alone), Duration::from_secs(beside), Scale::FULL).await;
    wrong.iter().for_each(|wrong| say(&format!("WRONG: {wrong}")));
    say(if wrong.is_empty() { "noisy: passed" } else { "noisy: FAILED" });
    std::process::exit(i32::from(!wrong.is_empty()));
}
