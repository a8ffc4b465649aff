//! First figures: saves and loads of 1 KiB against three processes on loopback, with sync on.
//!
//! ```text
//! cargo bench --bench cluster                  # all
//! cargo bench --bench cluster -- --seconds 3   # shorter windows
//! ```
//!
//! Closed loop, callers sharing one client; payloads compress like text. CPU is user and system time of the three server processes,
//! from /proc. Figures of one run on one machine: compare within a run only.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use quorate::client::{Client, Content, WriteOptions};

#[path = "../tests/process/harness.rs"]
#[allow(dead_code)]
mod harness;

use harness::Cluster;

const KEYS: u64 = 10_000;
const WARM_UP: Duration = Duration::from_secs(2);
const WORDS: [&str; 12] =
    ["session", "the", "agent", "called", "a", "tool", "and", "returned", "result", "with", "context", "tokens"];

/// A kibibyte that compresses like text.
fn text(seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::with_capacity(1100);
    while text.len() < 1024 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text += WORDS[(state % 12) as usize];
        text.push(if state.is_multiple_of(7) { '.' } else { ' ' });
        if state.is_multiple_of(5) {
            text += &(state % 100_000).to_string();
        }
    }
    text.truncate(1024);
    text.into()
}

#[derive(Clone, Copy)]
enum Work {
    Save,
    Load,
}

struct Figures {
    operations: u64,
    seconds: f64,
    latency: Histogram<u64>,
    cpu_ms: f64,
}

/// User and system time of a process, in milliseconds; resident memory, in MiB.
fn usage(pid: u32) -> (f64, f64) {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).expect("a running process");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields after the name").split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime");
    let pages: f64 = fields[21].parse().expect("rss");
    (ticks * 10.0, pages * 4096.0 / (1024.0 * 1024.0))
}

fn cpu_ms(cluster: &Cluster) -> f64 {
    cluster.pids().into_iter().map(|pid| usage(pid).0).sum()
}

async fn measure(cluster: &Cluster, client: &Client, work: Work, callers: u64, window: Duration) -> Figures {
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now() + WARM_UP;
    let end = start + window;
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (client, next) = (client.clone(), next.clone());
            tokio::spawn(async move {
                let mut latency = Histogram::<u64>::new(3).expect("three digits");
                loop {
                    let number = next.fetch_add(7919, Ordering::Relaxed);
                    let key = format!("bench {}", number % KEYS);
                    let began = Instant::now();
                    match work {
                        Work::Save => {
                            let content = Content::Value(text(number));
                            client.save(&key, content, WriteOptions::default()).await.expect("a save");
                        }
                        Work::Load => {
                            client.load(&key).await.expect("a load").expect("a session");
                        }
                    }
                    if began >= end {
                        return latency;
                    }
                    if began >= start {
                        latency.record(began.elapsed().as_micros() as u64).expect("in range");
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep_until(start.into()).await;
    let before = cpu_ms(cluster);
    tokio::time::sleep_until(end.into()).await;
    let cpu_ms = cpu_ms(cluster) - before;
    let mut latency = Histogram::<u64>::new(3).expect("three digits");
    for task in tasks {
        latency.add(task.await.expect("no panic")).expect("same shape");
    }
    Figures { operations: latency.len(), seconds: window.as_secs_f64(), latency, cpu_ms }
}

async fn fill(client: &Client) {
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                for number in (task..KEYS).step_by(64) {
                    let content = Content::Value(text(number));
                    client.save(&format!("bench {number}"), content, WriteOptions::default()).await.expect("a save");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let seconds = arguments
        .iter()
        .position(|argument| argument == "--seconds")
        .and_then(|at| arguments.get(at + 1)?.parse().ok())
        .unwrap_or(10);
    let window = Duration::from_secs(seconds);
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    println!("three processes on loopback, sync on, 1 KiB, {KEYS} keys, windows of {seconds} s");
    fill(&client).await;
    println!(
        "{:<6}{:>9}{:>12}{:>10}{:>10}{:>10}{:>14}{:>12}",
        "", "callers", "ops/s", "p50 ms", "p99 ms", "max ms", "cpu-ms/op", "memory MiB"
    );
    for (name, work) in [("save", Work::Save), ("load", Work::Load)] {
        for callers in [1, 64, 256] {
            let figures = measure(&cluster, &client, work, callers, window).await;
            let memory: f64 = cluster.pids().into_iter().map(|pid| usage(pid).1).sum();
            let ms = |quantile: f64| figures.latency.value_at_quantile(quantile) as f64 / 1000.0;
            println!(
                "{name:<6}{callers:>9}{:>12.0}{:>10.2}{:>10.2}{:>10.2}{:>14.3}{memory:>12.0}",
                figures.operations as f64 / figures.seconds,
                ms(0.5),
                ms(0.99),
                ms(1.0),
                figures.cpu_ms / figures.operations.max(1) as f64,
            );
        }
    }
}
