//! Whole clusters of production nodes and clients in one thread, with virtual time and everything from one seed.
//!
//! One process per seed: tokio's process-wide ids would leak from one simulation into the next, and a panic is that seed's alone. The
//! binary runs itself: with `SIM_SEED` it simulates that seed, and prints what happened if `SIM_TRACE` is set too.

#[cfg(not(tokio_unstable))]
compile_error!("without --cfg tokio_unstable, which .cargo/config.toml sets and RUSTFLAGS overrides, no seed can be replayed");

pub mod attempts;
mod audit;
mod corruption;
mod coverage;
mod eras;
mod invariants;
mod leases;
mod listing;
mod lying;
mod minority;
mod nemesis;
mod net;
mod node;
mod operator;
mod params;
mod truth;
mod turns;
mod workload;
mod world;

use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Run with every `cargo test`; `scripts/sim.sh` runs others.
///
/// 20 and 40 found that a node stopped with calls open polled its finished server again; either takes as long as these together.
const SEEDS: [u64; 3] = [2, 13, 27];
/// Seeds that cut the power of enough nodes at once to show that their disks lied.
const LYING: [u64; 6] = [1, 2, 3, 4, 5, 6];
/// How long faults go on, in seconds of virtual time; `SIM_SECS` says otherwise. The gate takes 30, in an optimized build.
const SECONDS: u64 = 10;
/// The same where one seed runs twice; the gate repeats ten of them.
const SECONDS_TWICE: u64 = 5;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Ends the process at the first panic of any task: tokio would catch it, and production aborts.
fn die_of_panics(seed: u64) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        eprintln!("VIOLATION seed={seed}: a panic\n{}", replay(seed));
        std::process::exit(101);
    }));
}

/// Milliseconds of a core that this thread took; 0 where that is unknown.
fn cpu_ms() -> u64 {
    let nanos = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    nanos.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).map_or(0, |nanos| nanos / 1_000_000)
}

fn replay(seed: u64) -> String {
    format!("replay: SIM_SEED={seed} SIM_TRACE=1 cargo test --test faults sim::every_seed_holds -- --nocapture")
}

fn simulate(seed: u64) {
    die_of_panics(seed);
    coverage::start();
    let dir = tempfile::tempdir().expect("a directory for locks");
    let began = std::time::Instant::now();
    let seconds = number("SIM_SECS").unwrap_or(SECONDS);
    let report = world::run(seed, Duration::from_secs(seconds), dir.path());
    if std::env::var_os("SIM_TRACE").is_some() {
        report.lines.iter().for_each(|line| println!("{line}"));
    }
    println!(
        "seed={seed} trace={:016x} nodes={} virtual_ms={} operations={} acknowledged={} unknown={} installs={} faults={:?} saw={:?} \
         wall_ms={} cpu_ms={}",
        report.trace,
        report.nodes,
        report.virtual_time.as_millis(),
        report.operations,
        report.acknowledged,
        report.unknown,
        report.installs,
        report.faults,
        report.saw,
        began.elapsed().as_millis(),
        cpu_ms()
    );
    if !report.violations.is_empty() {
        report.violations.iter().take(10).for_each(|violation| eprintln!("VIOLATION seed={seed}: {violation}"));
        eprintln!("{}", replay(seed));
        drop(dir);
        std::process::exit(101);
    }
}

fn child(seed: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary is a file"));
    command.args(["--exact", "sim::every_seed_holds", "--nocapture"]).env("SIM_SEED", seed.to_string());
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Two at a time, whatever the harness runs at once.
fn outputs(seeds: &[u64], change: impl Fn(&mut Command) -> &mut Command + Sync) -> Vec<(u64, Output)> {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let run = |seed: &u64| (*seed, change(&mut child(*seed)).output().expect("this binary runs"));
    let (left, right) = seeds.split_at(seeds.len() / 2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| right.iter().map(run).collect::<Vec<_>>());
        let mut all: Vec<_> = left.iter().map(run).collect();
        all.extend(other.join().expect("children fail, not we"));
        all
    })
}

#[test]
fn every_seed_holds() {
    if let Some(seed) = number("SIM_SEED") {
        return simulate(seed);
    }
    for (seed, output) in outputs(&SEEDS, |command| command) {
        let text = text(&output);
        assert!(output.status.success() && text.contains(&format!("seed={seed} trace=")), "{text}");
    }
}

#[test]
fn a_seed_gives_the_same_trace_twice() {
    let line = |output: &Output| {
        let text = text(output);
        let line = text.lines().find(|line| line.contains("trace=")).map(|line| line.split(" wall_ms").next().map(str::to_owned));
        line.flatten().unwrap_or(text)
    };
    let both = outputs(&[SEEDS[0]; 2], |command| command.env("SIM_SECS", SECONDS_TWICE.to_string()));
    assert!(line(&both[0].1).contains("seed=2 trace="), "{}", line(&both[0].1));
    assert_eq!(line(&both[0].1), line(&both[1].1));
}

/// The control: on disks that lie about the syncs of the log, something acknowledged is lost, and that is seen.
#[test]
fn a_disk_that_only_says_it_syncs_is_caught() {
    // Which seeds show it moves with every change of the schedule; that none does would mean that the check is blind.
    let is_caught =
        |(seed, output): &(u64, Output)| !output.status.success() && text(output).contains(&format!("VIOLATION seed={seed}"));
    let mut texts = Vec::new();
    for seeds in LYING.chunks(2) {
        let both = outputs(seeds, |command| command.env("SIM_LYING_DISK", "1"));
        if both.iter().any(is_caught) {
            return;
        }
        texts.extend(both.iter().map(|(_, output)| text(output)));
    }
    panic!("no seed caught it: {texts:?}");
}
