//! Every crash point: after each call that changes the disk, under every way a power cut may look.

use quorate::testing::disk::{Crash, SimDisk};

use crate::storage_log::driver::{Action, Driver, Model, workload};

const CRASHES: [Crash; 7] = [
    Crash::Lost,
    Crash::Kept,
    Crash::Prefix,
    Crash::Torn { sector: 512 },
    Crash::Torn { sector: 4096 },
    Crash::Reordered { sector: 512 },
    Crash::Reordered { sector: 4096 },
];

fn seeds_of(crash: Crash) -> u64 {
    match crash {
        Crash::Lost | Crash::Kept => 1,
        Crash::Prefix | Crash::Torn { .. } => 2,
        Crash::Reordered { .. } => 4,
    }
}

/// Runs the workload until the power goes off after so many changing calls.
fn run_until(disk: &SimDisk, model: Model, term: u64, actions: &[Action], halt: u64) -> Option<Driver> {
    disk.halt_after(halt);
    // It may go off while the log is opened; then nothing was submitted.
    let mut driver = Driver::open(disk, model, term).ok()?;
    for action in actions {
        driver.act(action);
        if disk.is_halted() {
            break;
        }
    }
    Some(driver)
}

/// Opens the log on what the power cut left: the model it is in, or a panic that says why there is none.
fn recover(before: &Option<Driver>, fallback: &Model, after: &SimDisk, what: &str) -> Model {
    let opened = Driver::open(&after.kill(), Model::default(), 0).unwrap_or_else(|error| panic!("{what}: {error}"));
    let recovered = Model::of(&opened.log).unwrap_or_else(|error| panic!("{what}: {error}"));
    match before {
        Some(driver) => drop(driver.recovered_state(&recovered, what)),
        None => assert_eq!(&recovered, fallback, "{what}"),
    }
    recovered
}

fn every_crash_point_of(seed: u64, count: usize) {
    let actions = workload(seed, count);
    let dry = SimDisk::new();
    run_until(&dry, Model::default(), 1, &actions, u64::MAX).expect("nothing fails");
    let operations = dry.operations();
    assert!(operations > count as u64 / 2, "the workload reaches the disk operations={operations}");
    for halt in 0..=operations {
        let disk = SimDisk::new();
        let driver = run_until(&disk, Model::default(), 1, &actions, halt);
        for crash in CRASHES {
            for crash_seed in 0..seeds_of(crash) {
                let what = format!("seed={seed} halt={halt} crash={crash:?} crash_seed={crash_seed}");
                let after = disk.crash(crash, crash_seed);
                let model = recover(&driver, &Model::default(), &after, &what);
                crash_again(&after, model, seed ^ halt << 8 ^ crash_seed, &what);
            }
        }
    }
}

/// The log goes on where it was recovered, and survives two more power cuts, the first of them soon.
fn crash_again(disk: &SimDisk, model: Model, seed: u64, what: &str) {
    let (mut disk, mut model) = (disk.clone(), model);
    for round in 0..2 {
        let what = format!("{what}, again round={round}");
        let actions = workload(seed ^ round, 12);
        let driver = run_until(&disk, model.clone(), 100 * (round + 2), &actions, 1 + (seed >> (3 * round)) % 16);
        let after = disk.crash(CRASHES[((seed ^ round) % 7) as usize], seed);
        model = recover(&driver, &model, &after, &what);
        disk = after;
    }
    let mut driver = Driver::open(&disk, model, 1000).unwrap_or_else(|error| panic!("{what}: {error}"));
    for action in workload(seed, 6) {
        driver.act(&action);
    }
    driver.act(&Action::Sync);
    driver.act(&Action::Run);
    assert_eq!(Model::of(&driver.log).as_ref(), Ok(driver.model()), "{what}");
    recover(&Some(driver), &Model::default(), &disk.crash(Crash::Lost, 0), what);
}

#[test]
fn what_was_acknowledged_survives_every_crash_point_of_workload_1() {
    every_crash_point_of(1, 60);
}

#[test]
fn what_was_acknowledged_survives_every_crash_point_of_workload_2() {
    every_crash_point_of(2, 60);
}

#[test]
fn what_was_acknowledged_survives_every_crash_point_of_workload_3() {
    every_crash_point_of(3, 60);
}

/// A process dies and starts again, and tells others what it found; then the power goes: it must still be there.
#[test]
fn what_open_shows_after_a_kill_survives_a_power_cut() {
    let actions = workload(4, 90);
    let dry = SimDisk::new();
    run_until(&dry, Model::default(), 1, &actions, u64::MAX).expect("nothing fails");
    for halt in 0..=dry.operations() {
        let disk = SimDisk::new();
        run_until(&disk, Model::default(), 1, &actions, halt);
        let restarted = disk.kill();
        let driver = Driver::open(&restarted, Model::default(), 0).expect("nothing was lost");
        let shown = Model::of(&driver.log).expect("nothing is damaged");
        let after = restarted.crash(Crash::Lost, 0);
        let driver = Driver::open(&after, Model::default(), 0).unwrap_or_else(|error| panic!("halt={halt}: {error}"));
        assert_eq!(Model::of(&driver.log), Ok(shown), "halt={halt}");
    }
}
