//! A disk that refuses: full, it heals; broken, it is final.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate::storage::log::{Done, Error, Record};
use quorate::testing::disk::{Crash, Fault, Operation, SimDisk};
use quorate::types::{LogId, NodeId};

use crate::storage_log::driver::{Action, Driver, Model, options};

type Answers = Arc<Mutex<Vec<Result<(), Error>>>>;

fn answer_to(answers: &Answers) -> Done {
    let answers = answers.clone();
    Box::new(move |result| answers.lock().expect("one thread").push(result))
}

fn fault(operation: Operation, kind: ErrorKind, times: u64) -> Fault {
    Fault { operation, path_contains: ".seg".to_owned(), skip: 0, times, kind }
}

fn started() -> (SimDisk, Driver) {
    let disk = SimDisk::new();
    let mut driver = Driver::open(&disk, Model::default(), 1).expect("an empty disk");
    [Action::Append(vec![100]), Action::Run].iter().for_each(|action| driver.act(action));
    (disk, driver)
}

fn acknowledged(driver: &Driver) -> usize {
    driver.acknowledged.load(Ordering::SeqCst)
}

fn check_final(operation: Operation) {
    let (disk, mut driver) = started();
    let notified = Arc::new(AtomicUsize::new(0));
    let counter = notified.clone();
    driver.log.on_failure(Box::new(move |_| assert_eq!(counter.fetch_add(1, Ordering::SeqCst), 0)));
    disk.inject(fault(operation, ErrorKind::Other, 1));
    let answers = Answers::default();
    driver.log.when_covered(1, answer_to(&answers));
    driver.act(&Action::Append(vec![100]));
    driver.log.sync(answer_to(&answers));
    driver.act(&Action::Run);
    assert_eq!((acknowledged(&driver), notified.load(Ordering::SeqCst)), (1, 1));
    let after = driver.log.position();
    driver.log.save_vote(Bytes::from_static(b"late"), answer_to(&answers));
    driver.log.append(Vec::new(), answer_to(&answers));
    driver.log.when_covered(1, answer_to(&answers));
    driver.act(&Action::Run);
    driver.act(&Action::Elapse);
    let error = driver.log.failed().expect("it is final");
    assert_eq!(*answers.lock().expect("one thread"), vec![Err(error); 5]);
    assert_eq!(driver.log.position(), after, "a failed log takes nothing");
    driver.log.on_failure(Box::new(move |_| assert_eq!(notified.fetch_add(1, Ordering::SeqCst), 1)));
    let reopened = Driver::open(&disk.crash(Crash::Lost, 0), Model::default(), 0).expect("the first batch is synced");
    driver.recovered_state(&Model::of(&reopened.log).expect("nothing is damaged"), "after the fault");
}

#[test]
fn a_failed_sync_is_final_although_the_next_would_succeed() {
    check_final(Operation::Sync);
}

#[test]
fn a_failed_write_is_final() {
    check_final(Operation::Write);
}

/// Half of the batch is written each time; nobody hears of it until the whole is synced at the same place.
#[test]
fn a_full_disk_heals_by_writing_the_same_batch_again() {
    let (disk, mut driver) = started();
    disk.inject(fault(Operation::Write, ErrorKind::StorageFull, 3));
    driver.act(&Action::Append(vec![1000, 1000]));
    driver.act(&Action::Run);
    driver.act(&Action::Append(vec![10]));
    driver.act(&Action::Run);
    assert_eq!(acknowledged(&driver), 1, "nothing is reported while the disk is full");
    let early = Driver::open(&disk.crash(Crash::Kept, 0), Model::default(), 0).expect("half a batch is a tear");
    driver.recovered_state(&Model::of(&early.log).expect("nothing is damaged"), "after the fault");
    for _ in 0..4 {
        driver.sim.advance(options().full_retry);
    }
    assert_eq!((acknowledged(&driver), driver.log.failed()), (4, None));
    let reopened = Driver::open(&disk.crash(Crash::Lost, 0), Model::default(), 0).expect("all is synced");
    assert_eq!(Model::of(&reopened.log).as_ref(), Ok(driver.model()));
}

#[test]
fn without_room_for_a_new_segment_the_log_waits_and_goes_on_when_there_is() {
    let (disk, mut driver) = started();
    disk.set_capacity(Some(disk.used() + 5000));
    for _ in 0..10 {
        driver.act(&Action::Append(vec![2500]));
        driver.act(&Action::Run);
    }
    let stuck = acknowledged(&driver);
    assert!(stuck < 11, "the segment is full acknowledged={stuck}");
    driver.sim.advance(Duration::from_secs(1));
    assert_eq!((acknowledged(&driver), driver.log.failed()), (stuck, None));
    disk.set_capacity(None);
    driver.sim.advance(Duration::from_secs(1));
    assert_eq!(acknowledged(&driver), 11);
    let reopened = Driver::open(&disk.crash(Crash::Lost, 0), Model::default(), 0).expect("all is synced");
    assert_eq!(Model::of(&reopened.log).as_ref(), Ok(driver.model()));
}

#[test]
fn spare_segments_are_made_in_the_background_and_taken() {
    let (disk, mut driver) = started();
    for _ in 0..20 {
        driver.sim.advance(Duration::from_millis(100));
    }
    let used = disk.used();
    assert_eq!(used, 3 * options().segment_bytes, "one in use and two spare");
    for _ in 0..8 {
        driver.act(&Action::Append(vec![2500]));
        driver.act(&Action::Run);
    }
    assert_eq!((acknowledged(&driver), disk.used()), (9, used), "no new file was needed");
}

#[test]
fn a_payload_above_the_limit_is_refused_and_nothing_of_its_call_is_appended() {
    let (_disk, driver) = started();
    let limit = options().payload_bytes_max() as usize;
    let record = |index, bytes| Record { log_id: LogId { term: 1, node: NodeId(1), index }, payload: vec![1; bytes].into() };
    let answers = Answers::default();
    driver.log.append(vec![record(1, 1), record(2, limit + 1)], answer_to(&answers));
    let refused = Error::TooLarge { bytes: limit as u64 + 1, limit: limit as u64 };
    assert_eq!(*answers.lock().expect("one thread"), vec![Err(refused)]);
    assert_eq!(driver.log.position().last.map(|last| last.index), Some(0));
    driver.log.append(vec![record(1, limit)], answer_to(&answers));
    driver.sim.workers.run_named("log");
    assert_eq!(answers.lock().expect("one thread")[1..], [Ok(())], "the largest allowed one fits");
}

/// State made from an entry must not go to disk before that entry, even if another one at its index had been synced.
#[test]
fn an_entry_replaced_by_another_is_not_covered_until_the_other_is_synced() {
    let (_disk, mut driver) = started();
    [Action::Append(vec![10, 10]), Action::Run].iter().for_each(|action| driver.act(action));
    assert!(driver.log.covers(2) && !driver.log.covers(3));
    driver.act(&Action::Truncate(1));
    driver.act(&Action::Append(vec![20]));
    assert!(driver.log.covers(1) && !driver.log.covers(2));
    let answers = Answers::default();
    driver.log.when_covered(2, answer_to(&answers));
    assert!(answers.lock().expect("one thread").is_empty());
    driver.act(&Action::Run);
    assert!(driver.log.covers(2));
    assert_eq!(*answers.lock().expect("one thread"), vec![Ok(())]);
}

#[test]
fn a_synced_purge_ahead_of_the_log_covers_and_only_a_synced_one() {
    let (_disk, mut driver) = started();
    driver.act(&Action::PurgeAhead(9));
    let purged = driver.model().last().expect("the purge").index;
    assert!(!driver.log.covers(purged));
    driver.act(&Action::Run);
    assert!(driver.log.covers(purged) && !driver.log.covers(purged + 1));
    assert_eq!((driver.log.first_index(), driver.log.bytes()), (purged + 1, 0));
}

#[test]
fn the_purge_point_leaves_at_most_the_bytes_asked_for() {
    let (_disk, mut driver) = started();
    [Action::Append(vec![1000; 6]), Action::Run].iter().for_each(|action| driver.act(action));
    assert_eq!(driver.log.purge_point(u64::MAX), None);
    let point = driver.log.purge_point(3500).expect("there is more");
    driver.log.purge(point);
    assert!((2500..=3500).contains(&driver.log.bytes()), "bytes={}", driver.log.bytes());
    assert_eq!(driver.log.purge_point(0).map(|id| id.index), Some(6));
}
