//! Every crash point of flush and install, a full disk, a failing disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorate::env::{Disk, Env, Step};
use quorate::storage::state::{Error, Options};
use quorate::testing::disk::{Crash, Full, SimDisk};

use crate::state::rig::{Model, Rig, bytes, frames, id, options};

const DIR: &str = "/state";
const CRASHES: [Crash; 5] =
    [Crash::Lost, Crash::Kept, Crash::Prefix, Crash::Torn { sector: 512 }, Crash::Reordered { sector: 4096 }];
/// More changes of names than this wait for no sync at once; all their sets are tried.
const NAMES_MAX: usize = 6;

fn open(disk: &SimDisk) -> Result<Rig, Error> {
    Rig::open_on(
        Env { disk: Arc::new(disk.clone()), ..Env::real() },
        Path::new(DIR),
        Options { cache_bytes: 64 << 10, ..options() },
    )
}

/// What every entry leaves, and how far things are known to have come.
#[derive(Default)]
struct Story {
    after: BTreeMap<Option<u64>, Model>,
    /// A flush up to here was acknowledged.
    acknowledged: Option<u64>,
    covered: Option<u64>,
    received: Option<Vec<Bytes>>,
}

impl Story {
    fn new() -> Self {
        Story { after: [(None, Model::new())].into(), ..Story::default() }
    }

    fn entry(&mut self, rig: &Rig, index: u64) {
        let value = index.to_string().repeat(1 + 2000 * (index as usize % 3));
        let gone = format!("key{}", index.saturating_sub(3));
        rig.apply(
            index,
            &[(1, &format!("key{index}"), Some(value.as_bytes())), (1, "same", Some(value.as_bytes())), (1, &gone, None)],
        );
        self.after.insert(Some(index), rig.state.view(|model, _, _| model.clone()));
    }

    fn flush(&mut self, rig: &Rig) -> Result<(), Error> {
        let index = rig.state.applied().map(|id| id.index);
        self.covered = self.covered.max(index);
        match rig.flush() {
            Some(Ok(())) => self.acknowledged = index,
            Some(Err(error)) => return Err(error),
            None => return Err(Error::Superseded),
        }
        Ok(())
    }

    /// Three flushes and an end without one.
    fn flushes(&mut self, disk: &SimDisk) -> Result<(), Error> {
        let rig = open(disk)?;
        for index in 1..=9 {
            self.entry(&rig, index);
            if index % 3 == 0 {
                self.flush(&rig)?;
            }
        }
        self.entry(&rig, 10);
        Ok(())
    }

    /// A flush, an install, a flush on top.
    fn install(&mut self, disk: &SimDisk) -> Result<(), Error> {
        let rig = open(disk)?;
        self.entry(&rig, 1);
        self.flush(&rig)?;
        self.entry(&rig, 2);
        let received = rig.receive(self.received.as_ref().unwrap(), id(40))?;
        let was = self.covered;
        self.covered = Some(40);
        rig.state.install(received).inspect_err(|error| {
            if !error.is_final() {
                self.covered = was;
            }
        })?;
        self.acknowledged = Some(40);
        self.entry(&rig, 41);
        self.flush(&rig)
    }

    /// A flush, the same rows in another file beside what is not flushed, a flush on top.
    fn rewrite(&mut self, disk: &SimDisk) -> Result<(), Error> {
        let rig = open(disk)?;
        for index in [1, 2, 3, 4] {
            self.entry(&rig, index);
        }
        self.flush(&rig)?;
        self.entry(&rig, 5);
        let mut shown = Vec::new();
        rig.state.rewrite(|done, total| shown.push((done, total)))?;
        assert!(shown.last().is_some_and(|(done, total)| done == total), "{shown:?}");
        assert_eq!(rig.check(), self.after[&Some(5)], "what is not flushed lies on top");
        self.entry(&rig, 6);
        self.flush(&rig)
    }

    /// Snapshots are built and sent while flushes go on: what they say is of one instant, whatever comes later.
    fn sends(&mut self, disk: &SimDisk) -> Result<(), Error> {
        let rig = open(disk)?;
        for index in [1, 2] {
            self.entry(&rig, index);
            self.flush(&rig)?;
        }
        let want = self.after[&Some(2)].clone();
        let snapshot = rig.state.snapshot()?;
        for index in [3, 4] {
            self.entry(&rig, index);
            self.flush(&rig)?;
        }
        let target = Rig::open_on(
            Env { disk: Arc::new(SimDisk::new()), ..Env::real() },
            Path::new(DIR),
            Options { cache_bytes: 64 << 10, ..options() },
        )?;
        target.state.install(target.receive(&frames(snapshot, 2000), id(2))?)?;
        assert_eq!(target.check(), want, "the snapshot is of the flush before it");
        self.entry(&rig, 5);
        self.flush(&rig)
    }

    /// A crash while what a crash left is opened is another crash point. Answers how many crashes there were.
    fn check_recovery(&self, crashed: &SimDisk, what: &str) -> usize {
        let dry = crashed.kill();
        drop(open(&dry));
        let mut crashes = 0;
        for at in 0..=dry.operations() {
            let again = crashed.kill();
            again.halt_after(at);
            drop(open(&again));
            let crash = in_turn(at);
            self.check(&again.crash(crash, at), &format!("{what}, then {crash:?} before operation {at} of the next start"));
            crashes += 1;
        }
        crashes
    }

    /// What is found after the process was killed is not lost by a power cut right after: the log may have been purged on its word.
    fn check_killed(&self, disk: &SimDisk, what: &str) {
        let disk = disk.kill();
        let rig = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        let flushed = rig.state.flushed();
        let found = CRASHES.map(|crash| disk.crash(crash, 7));
        drop(rig);
        for disk in found {
            let rig = open(&disk).unwrap_or_else(|error| panic!("{what}, then a power cut: {error}"));
            assert!(rig.state.applied() >= flushed, "{what}: flushed {flushed:?}, then found {:?}", rig.state.applied());
            assert_eq!(Some(&rig.check()), self.after.get(&rig.state.applied().map(|id| id.index)), "{what}");
        }
    }

    /// Whatever the crash left: a complete state of one entry, not behind what was acknowledged, not ahead of the log.
    fn check(&self, disk: &SimDisk, what: &str) {
        let rig = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        let applied = rig.state.applied().map(|id| id.index);
        assert!(self.acknowledged <= applied, "{what}: acknowledged {:?} found {applied:?}", self.acknowledged);
        assert!(applied <= self.covered, "{what}: ahead of the log {:?} found {applied:?}", self.covered);
        assert_eq!(Some(&rig.check()), self.after.get(&applied), "{what}");
        drop(rig);
    }

    /// That what a crash left goes on working, through another crash.
    fn check_goes_on(&self, disk: &SimDisk, what: &str) {
        let rig = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        rig.apply(100, &[(1, "after", Some(b"the crash"))]);
        assert!(matches!(rig.flush(), Some(Ok(()))), "{what}");
        let want = rig.check();
        let again = open(&disk.crash(CRASHES[0], 0)).unwrap_or_else(|error| panic!("{what}, then again: {error}"));
        assert_eq!(again.check(), want, "{what}, then again");
    }
}

/// The way in which a crash at a point is tried where all would take too long.
fn in_turn(at: u64) -> Crash {
    CRASHES[at as usize % CRASHES.len()]
}

/// The crashes at a point that are followed by one at each point of the next start. With `STATE_CRASHES=all`, as the gate has it in an
/// optimized build, that is each way at each point. Otherwise it is one, in turn, at each fourth: neighbours leave the next start the
/// same to do.
fn followed(at: u64) -> Vec<Crash> {
    match std::env::var("STATE_CRASHES") {
        Ok(wanted) if wanted == "all" => CRASHES.to_vec(),
        _ if at.is_multiple_of(4) => vec![in_turn(at)],
        _ => Vec::new(),
    }
}

/// Runs a story, crashing before each of its operations in each way. Answers how many crashes there were.
fn crash_everywhere(story: &dyn Fn() -> Story, run: &dyn Fn(&mut Story, &SimDisk) -> Result<(), Error>) -> usize {
    crash_at_each(story, run, &followed)
}

/// The same; `followed` says which crashes at a point are followed by another in the next start.
fn crash_at_each(
    story: &dyn Fn() -> Story,
    run: &dyn Fn(&mut Story, &SimDisk) -> Result<(), Error>,
    followed: &dyn Fn(u64) -> Vec<Crash>,
) -> usize {
    let (disk, mut whole) = (SimDisk::new(), story());
    run(&mut whole, &disk).unwrap();
    let operations = disk.operations();
    let mut crashes = 0;
    for at in 0..=operations {
        let (disk, mut story) = (SimDisk::new(), story());
        disk.halt_after(at);
        let _ = run(&mut story, &disk);
        story.check_killed(&disk, &format!("killed before operation {at} of {operations}"));
        for crash in CRASHES {
            let what = format!("crash before operation {at} of {operations}, {crash:?}");
            story.check(&disk.crash(crash, at), &what);
            story.check_goes_on(&disk.crash(crash, at), &what);
            crashes += 1;
        }
        // Changes of names come in few: every set of them is tried.
        let names = disk.unsynced_names();
        assert!(names <= NAMES_MAX, "{names} unsynced names before operation {at}");
        for set in 0..1_u64 << names {
            story.check(&disk.crash_with_names(set, at), &format!("crash before operation {at} of {operations}, names {set:b}"));
            crashes += 1;
        }
        for crash in followed(at) {
            let what = format!("crash before operation {at} of {operations}, {crash:?}");
            crashes += story.check_recovery(&disk.crash(crash, at), &what);
        }
    }
    println!("{crashes} crashes");
    crashes
}

#[test]
fn a_crash_anywhere_in_creation_and_flushes_leaves_one_complete_state() {
    let crashes = crash_everywhere(&Story::new, &Story::flushes);
    assert!(crashes > 100, "{crashes}");
}

#[test]
fn a_crash_anywhere_while_a_snapshot_is_sent_leaves_one_complete_state() {
    let crashes = crash_everywhere(&Story::new, &Story::sends);
    assert!(crashes > 100, "{crashes}");
}

/// The state of entry 40 and its stream.
fn snapshot_of_40() -> (Model, Vec<Bytes>) {
    let rig = open(&SimDisk::new()).unwrap();
    rig.apply(40, &[(1, "a", Some(b"forty")), (2, "large", Some(&[4; 50_000])), (3, "", Some(b""))]);
    assert!(matches!(rig.flush(), Some(Ok(()))));
    (rig.check(), frames(rig.state.snapshot().unwrap(), 10_000))
}

#[test]
fn a_crash_anywhere_in_an_install_leaves_the_old_state_or_the_new_one() {
    let (model, frames) = snapshot_of_40();
    let story = || {
        let mut story = Story { received: Some(frames.clone()), ..Story::new() };
        story.after.insert(Some(40), model.clone());
        story
    };
    let crashes = crash_everywhere(&story, &Story::install);
    assert!(crashes > 100, "{crashes}");
}

#[test]
fn a_crash_anywhere_while_the_state_moves_to_another_file_leaves_all_that_was_flushed() {
    // The next start finds what an install leaves, whose second crashes are tried above; here they take more memory than there is.
    let crashes = crash_at_each(&Story::new, &Story::rewrite, &|_| Vec::new());
    assert!(crashes > 100, "{crashes}");
}

/// A state with something flushed, and the number of operations one more flush takes.
fn flushed_once(disk: &SimDisk) -> Rig {
    let rig = open(disk).unwrap();
    rig.apply(1, &[(1, "a", Some(&[1; 3000])), (1, "b", Some(b"1"))]);
    assert!(matches!(rig.flush(), Some(Ok(()))));
    rig.apply(2, &[(1, "a", Some(&[2; 300_000])), (1, "b", None), (1, "c", Some(b"2"))]);
    rig
}

fn full(from: u64) -> Option<Full> {
    Some(Full { from, while_there: None, hidden: false })
}

fn operations_of_a_flush() -> std::ops::Range<u64> {
    let disk = SimDisk::new();
    let rig = flushed_once(&disk);
    let from = disk.operations();
    assert!(matches!(rig.flush(), Some(Ok(()))));
    from..disk.operations()
}

#[test]
fn a_full_disk_keeps_reads_alive_loses_nothing_and_heals() {
    let mut refused = 0;
    for at in operations_of_a_flush() {
        let disk = SimDisk::new();
        let rig = flushed_once(&disk);
        let old = rig.state.view(|_, _, pinner| pinner.pin_keys(&[(1, bytes("b"))]));
        disk.fill(full(at));
        let answer = rig.flush();
        assert!(rig.state.failed().is_none(), "operation {at}: {:?}", rig.state.failed());
        let want = rig.check();
        match answer {
            None => {
                refused += 1;
                assert_eq!(rig.state.flushed(), Some(id(1)));
                assert!(matches!(rig.flusher.run(), Step::After(_)), "it is tried again later");
                rig.apply(3, &[(1, "d", Some(b"3"))]);
                assert!(
                    matches!(old.read(), Ok(_) | Err(Error::Superseded)),
                    "an old view reads its own instant, or says that it is gone"
                );
                // A crash now, too, finds the old state.
                let found = open(&disk.crash(CRASHES[4], at)).unwrap();
                assert!(found.state.applied() <= Some(id(2)));
                found.check();
            }
            Some(answer) => assert!(answer.is_ok()),
        }
        disk.fill(None);
        assert!(matches!(rig.flush(), Some(Ok(()))), "operation {at}");
        assert!(rig.check().len() >= want.len());
        let want = rig.check();
        drop(rig);
        let rig = open(&disk.crash(CRASHES[0], 0)).unwrap();
        assert_eq!(rig.check(), want);
    }
    assert!(refused > 0, "the disk was full when it mattered");
}

#[test]
fn a_flush_that_finds_no_room_uses_the_reserve_and_takes_it_again_once_there_is_plenty() {
    let reserve = Path::new("/state/RESERVE");
    // Whether the flusher sees it coming, or runs into it.
    for hidden in [false, true] {
        let disk = SimDisk::new();
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let rig = Rig::open_on(env, Path::new(DIR), Options { reserve_bytes: 1 << 20, ..options() }).unwrap();
        assert!(disk.exists(reserve).unwrap());
        rig.apply(1, &[(1, "a", Some(&[1; 300_000]))]);
        disk.fill(Some(Full { from: 0, while_there: Some(reserve.to_owned()), hidden }));
        assert!(matches!(rig.flush(), Some(Ok(()))), "{hidden}");
        assert_eq!(rig.state.flushed(), Some(id(1)));
        assert_eq!(rig.check().len(), 1);
        disk.fill(None);
        rig.apply(2, &[(1, "a", None)]);
        assert!(matches!(rig.flush(), Some(Ok(()))));
        assert!(disk.exists(reserve).unwrap(), "it is taken again");
    }
}

#[test]
fn a_full_disk_refuses_a_receive_and_changes_nothing() {
    let (_, frames) = snapshot_of_40();
    let disk = SimDisk::new();
    let rig = flushed_once(&disk);
    let from = disk.operations();
    drop(rig.receive(&frames, id(40)).unwrap());
    let mut refused = 0;
    for at in from..disk.operations() {
        let disk = SimDisk::new();
        let rig = flushed_once(&disk);
        disk.fill(full(at));
        match rig.receive(&frames, id(40)) {
            Ok(received) => match rig.state.install(received) {
                Ok(()) => continue,
                Err(error) => assert!(matches!(error, Error::NoSpace { .. }), "{error}"),
            },
            Err(error) => assert!(matches!(error, Error::NoSpace { .. }), "{error}"),
        }
        refused += 1;
        assert!(rig.state.failed().is_none());
        assert_eq!(disk.list(Path::new(DIR)).unwrap(), ["00000001.redb", "CURRENT"]);
        assert_eq!((rig.check().len(), rig.state.applied()), (2, Some(id(2))));
    }
    assert!(refused > 0, "the disk was full when it mattered");
}

#[test]
fn an_io_error_anywhere_in_a_flush_is_final() {
    let operations = operations_of_a_flush();
    assert!(operations.end - operations.start > 5);
    for at in operations {
        let disk = SimDisk::new();
        let rig = flushed_once(&disk);
        disk.fail_at(at);
        assert!(matches!(rig.flush(), Some(Err(Error::Io { .. }))), "operation {at}");
        assert!(matches!(rig.state.failed(), Some(Error::Io { .. })), "operation {at}");
        assert_eq!(rig.state.flushed(), Some(id(1)), "operation {at}");
        assert_eq!(rig.flusher.run(), Step::Stop, "it is not tried again");
    }
}

#[test]
fn an_io_error_anywhere_in_an_install_leaves_a_complete_state() {
    let (model, frames) = snapshot_of_40();
    let install = |disk: &SimDisk| -> (Rig, Option<std::ops::Range<u64>>, Result<(), Error>) {
        let rig = flushed_once(disk);
        let before = disk.operations();
        let received = match rig.receive(&frames, id(40)) {
            Ok(received) => received,
            Err(error) => return (rig, None, Err(error)),
        };
        let from = disk.operations();
        let result = rig.state.install(received);
        assert!(before < from);
        (rig, Some(from..disk.operations()), result)
    };
    let operations = install(&SimDisk::new()).1.unwrap();
    let old = [1, 2];
    let mut failed = 0;
    for at in operations {
        let disk = SimDisk::new();
        disk.fail_at(at);
        let (rig, _, result) = install(&disk);
        match result {
            Ok(()) => assert_eq!(rig.check(), model, "operation {at}"),
            Err(error) => {
                failed += 1;
                assert!(matches!(error, Error::Io { .. }), "operation {at}: {error}");
                assert!(rig.state.failed().is_some(), "operation {at}");
                assert_eq!(rig.state.applied(), Some(id(2)), "operation {at}: nothing is swapped");
            }
        }
        let found = CRASHES.map(|crash| disk.crash(crash, at));
        drop(rig);
        for disk in found.into_iter().chain([disk.kill()]) {
            let rig = open(&disk).unwrap_or_else(|error| panic!("operation {at}: {error}"));
            let applied = rig.state.applied().map_or(0, |id| id.index);
            assert!(applied == 40 || old.contains(&applied), "operation {at}: {applied}");
            assert_eq!(rig.check() == model, applied == 40, "operation {at}");
        }
    }
    assert!(failed >= 5, "{failed}");
}
