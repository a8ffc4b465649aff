//! Chaos with real processes: faults under load, and a verdict over every answer.
//!
//! `scripts/chaos/run.sh` runs this program with its own options; `cargo test` runs a short one.
//!
//! ```text
//! callers ── load, save, save_if_version, delete ──┐                        ┌─ history ── checkers ──┐
//! agents ─── turns through Bob's adapter ──────────┼─> nodes (processes) ───┤                        ├─> verdict, text, page
//! nemesis ── signals, nft, proxies, strace, disks ─┘    proxies between ────┴─ digests, liveness ────┘
//! ```

mod args;
mod audit;
mod cut;
mod disks;
mod figures;
mod load;
mod namespaces;
mod nemesis;
mod nodes;
mod page;
mod plan;
mod reach;
mod report;
mod strace;
mod turns;
mod verify;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use args::Options;
use audit::Audited;
use cut::Cut;
use disks::Disks;
use figures::Figures;
use load::{AGENTS, CALLERS, Caller, Shared};
use nemesis::{Fault, Nemesis, Status};
use nodes::Nodes;
use plan::{Deck, Kind};
use quorate::limits;
use quorate::testing::history::{self, Lister};
use quorate::testing::inline::SeededRandom;
use reach::Reach;
use report::{Report, Verdict};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use turns::{End, Turns};
use world::World;

/// Nodes of a new cluster serve within so long.
const START_MAX: Duration = Duration::from_secs(60);
/// Sessions of one page.
const LISTED: usize = 7;
/// Between two pages.
const LIST_PAUSE: Duration = Duration::from_millis(20);
/// Findings of the pages, at most.
const FINDINGS_MAX: usize = 20;
/// A caller's last call ends within so long.
const LAST_CALL_MAX: Duration = Duration::from_secs(90);

fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    // A closed terminal ends no run.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Runs on this thread, with which the nodes end. Errors: there was no run.
fn run(options: &Options) -> Result<Verdict, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let world = World::new(&options.dir)?;
        let verdict = tokio::select! {
            verdict = in_world(options, &world) => verdict,
            _ = interrupt.recv() => Err("interrupted".to_owned()),
            _ = terminate.recv() => Err("terminated".to_owned()),
        };
        // Nodes, proxies and mounts ended with the future.
        world.shrink();
        verdict
    })
}

async fn in_world(options: &Options, world: &World) -> Result<Verdict, String> {
    if options.short_intervals() {
        limits::shorten(limits::Shortened::ButTombstones);
    }
    audit::listen();
    let shared = Shared::new(options.call_max.is_some());
    let nodes = Nodes::new(&world.dir, options.nodes, options.seed, options.short_intervals())
        .map_err(|error| format!("can't make a cluster: {error}"))?;
    let disks = file_systems(options, world, &nodes)?;
    let cut = Cut::probe();
    say(&format!(
        "chaos: nodes={} seed={} dir={} packets are lost by {}",
        options.nodes,
        options.seed,
        world.dir.display(),
        cut.name()
    ));
    let endpoints = nodes.endpoints();
    let mut nemesis = Nemesis::new(nodes, cut, disks, options, &shared);
    nemesis.recover(START_MAX).await.ok_or_else(|| format!("no cluster within {START_MAX:?}; see {}", world.dir.display()))?;
    verify::prepare(&endpoints).await?;
    let turns = Arc::new(Turns::default());
    let (load, lister) = start_load(options, &endpoints, &shared, &turns);
    say(&format!("load began: {CALLERS} callers, {AGENTS} agents, {} of them pinned to one node each", reach::pinned(options)));
    let mut faults = Vec::new();
    match options.control {
        true => faults.extend(control(&mut nemesis).await?),
        false => inflict(options, &mut nemesis, &shared, &mut faults).await,
    }
    shared.stop.store(true, Ordering::Relaxed);
    let lasted = shared.began.elapsed();
    if tokio::time::timeout(LAST_CALL_MAX, load.join_all()).await.is_err() {
        shared.surprise(format!("a call did not end within {LAST_CALL_MAX:?}"));
    }
    say("faults have ended; checking");
    verify::at_the_end(&mut nemesis, &shared, &turns).await;
    let all = nemesis.nodes.all();
    nemesis.nodes.kill(&all);
    let written: Vec<_> =
        all.iter().map(|node| std::fs::read_to_string(nemesis.nodes.applied(*node)).unwrap_or_default()).collect();
    let audited = audit::judge(&written);
    audited.wrong.iter().take(FINDINGS_MAX).for_each(|wrong| shared.surprise(wrong.clone()));
    let pages = lister.pages();
    say(&format!("pages listed: {}", pages.len()));
    let wrong = history::listings(&shared.recorder.history(), &pages);
    wrong.into_iter().take(FINDINGS_MAX).for_each(|wrong| shared.surprise(wrong));
    conclude(options, world, &shared, &turns, &faults, (cut, lasted, &audited))
}

/// With root a file system for each node. Where there can be none, the faults that need it will be reported as skipped; a control has nothing
/// to show then. Errors: that.
fn file_systems(options: &Options, world: &World, nodes: &Nodes) -> Result<Option<Disks>, String> {
    if !options.root {
        return Ok(None);
    }
    match Disks::mount(&world.dir, &nodes.all()) {
        Ok(disks) => Ok(Some(disks)),
        Err(why) if options.control => Err(format!("the control can't be installed: {why}")),
        Err(why) => {
            say(&format!("no file system for each node: {why}"));
            Ok(None)
        }
    }
}

fn start_load(options: &Options, endpoints: &[String], shared: &Arc<Shared>, turns: &Arc<Turns>) -> (JoinSet<()>, Lister) {
    let mut load = JoinSet::new();
    for id in 0..CALLERS {
        load.spawn(Caller::new(id, options.seed, Reach::of(id, options, endpoints), shared).run());
    }
    for number in 0..AGENTS {
        load.spawn(turns::agent(number, Reach::of(number, options, endpoints), shared.clone(), turns.clone()));
    }
    let lister = Lister::new(verify::client(endpoints), LISTED, shared.began);
    let (mut listing, shared) = (lister.clone(), shared.clone());
    load.spawn(async move {
        while !shared.stop.load(Ordering::Relaxed) {
            // Through a fault a page may be refused.
            let _ = listing.step().await;
            tokio::time::sleep(LIST_PAUSE).await;
        }
    });
    (load, lister)
}

/// One fault after the other, until it is time or there were enough.
async fn inflict(options: &Options, nemesis: &mut Nemesis, shared: &Shared, faults: &mut Vec<Fault>) {
    let random = SeededRandom::new(options.seed);
    let mut deck = Deck::new(&options.kinds, options.root);
    let installed = |faults: &[Fault]| faults.iter().filter(|fault| matches!(fault.status, Status::Installed(_))).count();
    while shared.began.elapsed() < options.duration && installed(faults) < options.faults_max {
        let Some(kind) = deck.deal(&random) else {
            say("no fault of those asked for can be installed here");
            return;
        };
        let fault = nemesis.inflict(kind).await;
        say(&fault.line());
        if matches!(fault.status, Status::Skipped(_)) {
            deck.withdraw(kind);
        }
        let unserved = fault.served.is_none();
        faults.push(fault);
        // What does not heal gets no more faults: the state is worth more.
        if unserved {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100 + random.below(500))).await;
    }
}

/// A power loss after syncs that were none: what it takes, the checkers must miss.
async fn control(nemesis: &mut Nemesis) -> Result<Vec<Fault>, String> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let lies = nemesis.lie().map_err(|status| format!("the control can't be installed: {status:?}"))?;
    for lie in &lies {
        if !lie.took_effect(Duration::from_secs(20)).await {
            return Err("the control can't be installed: no sync was treated".to_owned());
        }
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let fault = nemesis.inflict(Kind::PowerLoss).await;
    say(&fault.line());
    Ok(vec![fault])
}

fn conclude(
    options: &Options,
    world: &World,
    shared: &Shared,
    turns: &Turns,
    faults: &[Fault],
    (cut, lasted, audited): (Cut, Duration, &Audited),
) -> Result<Verdict, String> {
    let ops = shared.recorder.history();
    let mut findings = shared.surprises.lock().expect("nobody panics with it").clone();
    findings.extend(verify::check(&ops));
    let figures = Figures::of(&ops, lasted);
    let turns = turns.all();
    let count = |end: End| turns.iter().filter(|turn| turn.end == end).count();
    if let Some(max) = options.call_max {
        findings.extend(verify::check_calls(&figures, count(End::Unknown), max));
    }
    let commit = std::env::var("QUORATE_CHAOS_COMMIT").unwrap_or_else(|_| "unknown".to_owned());
    let report = Report {
        options,
        commit: &commit,
        cut: cut.name(),
        faults,
        figures: &figures,
        turns: (turns.len(), count(End::Kept), count(End::Unknown)),
        findings: &findings,
        audited,
        pinned: (reach::pinned(options), reach::acknowledged(&ops, options)),
        lasted,
    };
    let text = report.text();
    say(&text);
    let failed = |error: std::io::Error| format!("can't write the report: {error}");
    let file = std::fs::File::create(world.path("history.jsonl")).map_err(failed)?;
    history::write(&ops, &mut std::io::BufWriter::new(file)).map_err(failed)?;
    std::fs::write(world.path("report.txt"), &text).map_err(failed)?;
    std::fs::write(world.path("report.html"), page::page(&report)).map_err(failed)?;
    say(&format!("report: {}", world.path("report.html").display()));
    say(&report.summary());
    Ok(match (options.control, report.verdict()) {
        (false, verdict) => verdict,
        (true, Verdict::Failed) => {
            say("control: lying disks were found out, as they must be");
            Verdict::Passed
        }
        (true, _) => {
            say("control: LYING DISKS WERE NOT FOUND OUT");
            Verdict::Failed
        }
    })
}

fn default_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos")
}

/// With options in `QUORATE_CHAOS` the program of `scripts/chaos/run.sh`, which ends the process; else three faults, for `cargo test`.
#[test]
fn real_processes_serve_right_answers_under_faults() {
    let Ok(words) = std::env::var("QUORATE_CHAOS") else {
        let verdict = run(&Options::small(default_dir().join("small")));
        assert_eq!(verdict, Ok(Verdict::Passed));
        return;
    };
    let code = match Options::parse(words.split_whitespace(), default_dir()) {
        Err(why) => {
            say(&format!("chaos: {why}"));
            2
        }
        Ok(options) => namespaces::enter(&options).and_then(|()| run(&options)).map_or_else(
            |why| {
                say(&format!("chaos: no verdict: {why}"));
                3
            },
            Verdict::code,
        ),
    };
    std::process::exit(code);
}

/// A runner that is asked to end, or killed with -9, one of its nodes stopped at that moment: every process is gone, and the next run
/// says what it found.
#[tokio::test]
async fn a_killed_runner_leaves_no_process_and_the_next_run_says_what_it_cleaned() {
    for (signal, own_namespaces) in [(Signal::KILL, true), (Signal::KILL, false), (Signal::TERM, true), (Signal::INT, false)] {
        let dir = default_dir().join(format!("killed-{}-{own_namespaces}", signal.as_raw()));
        let _ = std::fs::remove_dir_all(&dir);
        let mut runner = std::process::Command::new(std::env::current_exe().expect("this program"));
        runner.args(["--exact", "chaos::real_processes_serve_right_answers_under_faults", "--nocapture"]);
        runner.env("QUORATE_CHAOS", format!("--nemesis pause-one --dir {}", dir.display()));
        if !own_namespaces {
            runner.env(namespaces::OWN_NET, "0");
        }
        let mut runner = runner.stdout(std::process::Stdio::null()).spawn().expect("this program");
        let stopped = || world::processes_of(&dir).iter().any(|(pid, _)| world::is_stopped(*pid));
        wait_until("a node is stopped", stopped).await;
        let pid = Pid::from_raw(runner.id() as i32).expect("a process");
        kill_process(pid, signal).expect("a child of ours");
        let status = runner.wait().expect("a child of ours");
        if signal != Signal::KILL || own_namespaces || world::works("setpriv", &["--pdeathsig", "KILL", "true"]) {
            wait_until("no process is left", || world::processes_of(&dir).is_empty()).await;
        }
        let mut found = world::clean(&dir).expect("readable");
        if signal == Signal::KILL {
            // A runner inside holds its directory until the kernel has ended it, too.
            let began = std::time::Instant::now();
            while found.is_empty() && began.elapsed() < Duration::from_secs(60) {
                tokio::task::yield_now().await;
                found = world::clean(&dir).expect("readable");
            }
            assert!(found.iter().any(|line| line.contains("not ended in good order")), "{found:?}");
            assert!(found.iter().any(|line| line.contains("data was left, removed")), "{found:?}");
            wait_until("no process is left", || world::processes_of(&dir).is_empty()).await;
        } else {
            // It cleaned up itself, and claims nothing.
            assert_eq!((found, status.code()), (Vec::new(), Some(3)), "{signal:?}");
        }
        assert_eq!(world::clean(&dir).expect("readable"), [""; 0], "once is enough");
    }
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(120), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
