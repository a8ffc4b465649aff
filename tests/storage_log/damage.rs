//! Corruption: synced bytes that change are refused or did not matter; they are never skipped.

use std::path::{Path, PathBuf};

use quorate::env::Disk;
use quorate::storage::log::Error;
use quorate::testing::disk::{Crash, SimDisk};

use crate::storage_log::driver::{Action, DIR, Driver, Model, workload};
use crate::support::bytes::places;

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIR)).expect("the directory is there");
    names.iter().filter(|name| name.ends_with(".seg")).map(|name| Path::new(DIR).join(name)).collect()
}

fn length_used(disk: &SimDisk, path: &Path) -> u64 {
    let bytes = disk.contents(path).expect("it was listed");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

fn written(actions: &[Action]) -> (SimDisk, Driver) {
    let disk = SimDisk::new();
    let mut driver = Driver::open(&disk, Model::default(), 1).expect("an empty disk");
    actions.iter().for_each(|action| driver.act(action));
    (disk, driver)
}

/// A marker follows the last batch here, so every frame that matters is covered.
#[test]
fn a_flipped_bit_behind_the_marker_is_refused_by_name_or_changes_nothing() {
    let mut actions: Vec<Action> = workload(7, 60).into_iter().filter(|action| !matches!(action, Action::Elapse)).collect();
    actions.extend([Action::Run, Action::Elapse]);
    let (disk, driver) = written(&actions);
    let mut refused = 0;
    for path in segments(&disk) {
        for offset in (0..length_used(&disk, &path)).step_by(23) {
            let corrupt = disk.crash(Crash::Kept, 0);
            corrupt.damage(&path, offset, 0x10);
            match Driver::open(&corrupt, Model::default(), 0) {
                Ok(reopened) => {
                    let what = format!("{} offset={offset}", path.display());
                    assert_eq!(Model::of(&reopened.log).as_ref(), Ok(driver.model()), "{what}");
                }
                Err(Error::Corrupt { file, offset: named, .. }) => {
                    assert_eq!(Path::new(&file), path);
                    assert!(named <= offset && offset < named + 7000, "the frame is named offset={offset} named={named}");
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(refused > 100, "most of the bytes matter refused={refused}");
}

/// Nothing follows the last batch: its corruption can't be distinguished from a tear, and it alone is cut.
#[test]
fn a_flipped_bit_in_the_uncovered_last_batch_cuts_that_batch_only_and_the_log_goes_on_elsewhere() {
    let (disk, driver) = written(&[Action::Append(vec![100]), Action::Run, Action::Append(vec![100, 200]), Action::Run]);
    let path = segments(&disk).pop().expect("one was written");
    let before = driver.states[1].clone();
    let last_batch = length_used(&disk, &path) - 2 * 56 - 300 - 8;
    let corrupt = disk.crash(Crash::Kept, 0);
    corrupt.damage(&path, last_batch + 60, 0x10);
    let mut reopened = Driver::open(&corrupt, before.clone(), 2).expect("it was never covered");
    assert_eq!(Model::of(&reopened.log), Ok(before));
    [Action::Run, Action::Append(vec![10]), Action::Run].iter().for_each(|action| reopened.act(action));
    assert_eq!(segments(&corrupt).len(), 2, "after a cut the log goes on in a new segment");
    let again = Driver::open(&corrupt.crash(Crash::Lost, 0), Model::default(), 0).expect("all is synced");
    assert_eq!(Model::of(&again.log).as_ref(), Ok(reopened.model()));
}

#[test]
fn the_error_names_segment_and_offset_and_says_what_to_do() {
    let (disk, _driver) = written(&[Action::Append(vec![100]), Action::Run, Action::Elapse]);
    let path = segments(&disk).pop().expect("one was written");
    let corrupt = disk.crash(Crash::Kept, 0);
    corrupt.damage(&path, 200, 1);
    let text = Driver::open(&corrupt, Model::default(), 0).err().expect("it is refused").to_string();
    assert!(text.contains("00001.seg") && text.contains("offset=1") && text.contains("replace this node"), "{text}");
}

#[test]
fn a_missing_segment_in_the_middle_or_at_the_start_is_refused_while_its_entries_are_live() {
    let actions: Vec<Action> = (0..20).flat_map(|_| [Action::Append(vec![2500]), Action::Run]).collect();
    let (disk, _driver) = written(&actions);
    let paths = segments(&disk);
    assert!(paths.len() >= 3, "{paths:?}");
    for missing in &paths[..2] {
        let holed = disk.crash(Crash::Kept, 0);
        holed.remove(missing).expect("it was listed");
        let error = Driver::open(&holed, Model::default(), 0).err().expect("entries are missing");
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}

/// Corruption while the node runs: the entry is refused, and not as "there is none".
#[test]
fn a_read_of_a_damaged_entry_is_corrupt() {
    let actions: Vec<Action> = (0..4).flat_map(|_| [Action::Append(vec![2000]), Action::Run]).collect();
    let (disk, driver) = written(&actions);
    disk.damage(&segments(&disk)[0], 1000, 1);
    let error = driver.log.read(0..4, 10_000).expect_err("the first entry is corrupt");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(driver.log.read(3..4, 10_000).expect("the last is in memory").len(), 1);
}

/// A new segment's first frame is alone until something follows it. Until then its corruption can't be distinguished from a tear, so the segment
/// before must stay, purged or not.
#[test]
fn an_old_segment_stays_until_something_follows_the_first_frame_of_the_new_one() {
    let (disk, driver) = written(&[
        Action::Append(vec![100]),
        Action::Vote(9),
        Action::Purge(0),
        Action::Run,
        Action::Append(vec![100, 200]),
        Action::Run,
    ]);
    let before = driver.states[3].clone();
    let torn = disk.crash(Crash::Kept, 0);
    let old = segments(&torn).pop().expect("one was written");
    let last_batch = length_used(&torn, &old) - 2 * 56 - 300 - 8;
    torn.damage(&old, last_batch + 60, 0x10);
    let mut reopened = Driver::open(&torn, before.clone(), 2).expect("the last batch is cut");
    [Action::Run, Action::Sync, Action::Run].iter().for_each(|action| reopened.act(action));
    let new = segments(&torn).pop().expect("one was begun");
    assert_ne!(new, old);
    let corrupt = torn.crash(Crash::Kept, 0);
    corrupt.damage(&new, 30, 1);
    let again = Driver::open(&corrupt, Model::default(), 0).expect("a torn new segment is none");
    assert_eq!(Model::of(&again.log), Ok(before));
}

/// Segments go round: the same few files hold the log whatever is appended, and old bytes in them never show.
#[test]
fn purged_segments_are_used_again_and_their_old_frames_never_parse() {
    let disk = SimDisk::new();
    let mut driver = Driver::open(&disk, Model::default(), 1).expect("an empty disk");
    for _ in 0..200 {
        [Action::Append(vec![2500, 10]), Action::Run, Action::Purge(3), Action::Run].iter().for_each(|action| driver.act(action));
    }
    let names = disk.list(Path::new(DIR)).expect("the directory is there");
    assert!(names.len() <= 5, "{names:?}");
    let newest = names.iter().rfind(|name| name.ends_with(".seg")).expect("one is written to");
    assert!(newest.as_str() > "00000000000000000030.seg", "ids never repeat: {names:?}");
    for crash in [Crash::Lost, Crash::Kept] {
        let reopened = Driver::open(&disk.crash(crash, 0), Model::default(), 0).expect("all is synced");
        assert_eq!(Model::of(&reopened.log).as_ref(), Ok(driver.model()));
    }
}

/// Retired segments lie around to be used again. Forgotten, nothing of what was purged is in any file, and the log goes on.
#[test]
fn what_was_purged_is_in_no_file_once_it_is_forgotten() {
    let disk = SimDisk::new();
    let mut driver = Driver::open(&disk, Model::default(), 1).expect("an empty disk");
    let erased = b"to be erased";
    let holds = || {
        let names = disk.list(Path::new(DIR)).expect("the directory is there");
        let contents = names.iter().filter_map(|name| disk.contents(&Path::new(DIR).join(name)));
        contents.filter(|bytes| !places(bytes, erased).is_empty()).count()
    };
    for _ in 0..20 {
        driver.append_payload(bytes::Bytes::from_static(erased));
        driver.act(&Action::Append(vec![2500]));
        driver.act(&Action::Run);
    }
    assert!(holds() > 2, "several segments");
    [Action::Purge(0), Action::Run].iter().for_each(|action| driver.act(action));
    assert!(holds() > 0, "in the segment written to, and in those to be used again");
    // Twice: what a purge left in the segment that it was written to.
    for _ in 0..2 {
        [Action::Forget, Action::Run, Action::Sync, Action::Run].iter().for_each(|action| driver.act(action));
    }
    assert_eq!(holds(), 0);
    [Action::Append(vec![2500, 10]), Action::Run].iter().for_each(|action| driver.act(action));
    let reopened = Driver::open(&disk.crash(Crash::Lost, 0), Model::default(), 0).expect("all is synced");
    assert_eq!(Model::of(&reopened.log).as_ref(), Ok(driver.model()));
}

/// A payload that is a copy of the segment's own bytes, frames and all, is a payload.
#[test]
fn a_payload_that_holds_frames_is_not_taken_for_frames() {
    let (disk, mut driver) = written(&[Action::Append(vec![100, 100]), Action::Run]);
    let copy = disk.contents(&segments(&disk)[0]).expect("it was listed")[..600].to_vec();
    let next = driver.model().last().map_or(0, |last| last.index + 1);
    let log_id = quorate::types::LogId { index: next, ..driver.model().last().expect("two were appended") };
    let record = quorate::storage::log::Record { log_id, payload: copy.into() };
    driver.log.append(vec![record.clone()], Box::new(|result| result.expect("no fault is set")));
    driver.act(&Action::Run);
    let reopened = Driver::open(&disk.crash(Crash::Lost, 0), Model::default(), 0).expect("all is synced");
    assert_eq!(reopened.log.read(next..next + 1, 10_000), Ok(vec![record]));
}
