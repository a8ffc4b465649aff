//! Layers, views and flushes.

use std::sync::mpsc;
use std::time::Duration;

use quorate::env::{Env, Step};
use quorate::storage::state::{Error, Options};

use crate::state::rig::{Model, Rig, bytes, collect, id, names, options};
use crate::support::bytes::places;

#[test]
fn a_new_state_is_empty_and_so_is_it_when_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let rig = Rig::open(dir.path()).unwrap();
        assert_eq!((rig.state.applied(), rig.state.flushed()), (None, None));
        assert_eq!(rig.check(), Model::new());
        assert_eq!(names(dir.path()), ["00000001.redb", "CURRENT"]);
    }
}

#[test]
fn a_read_merges_unflushed_over_frozen_over_the_file() {
    let (_dir, rig) = Rig::fresh();
    rig.apply(1, &[(1, "a", Some(b"1")), (1, "b", Some(b"1")), (1, "c", Some(b"1")), (2, "a", Some(b"1"))]);
    assert!(matches!(rig.flush(), Some(Ok(()))));
    rig.apply(2, &[(1, "a", None), (1, "b", Some(b"2")), (1, "d", Some(b"2"))]);
    rig.clock.advance(Duration::from_secs(2));
    assert_eq!(rig.flusher.run(), Step::Idle, "frozen, and waiting for the log");
    rig.apply(3, &[(1, "a", Some(b"3")), (1, "d", None), (1, "", Some(b"3"))]);

    let model = rig.check();
    rig.check_by_key();
    let want = [((1, ""), "3"), ((1, "a"), "3"), ((1, "b"), "2"), ((1, "c"), "1"), ((2, "a"), "1")];
    assert_eq!(model, want.map(|((table, key), value)| ((table, bytes(key)), bytes(value))).into());
    let pinned = rig.state.view(|_, _, pinner| pinner.pin(&[(1, bytes("b"), bytes("d")), (2, bytes(""), bytes("a"))]));
    assert_eq!(pinned.read().unwrap(), [(1, bytes("b"), bytes("2")), (1, bytes("c"), bytes("1"))], "ranges are half-open");
    let keys = [(1, bytes("d")), (1, bytes("a")), (1, bytes("c")), (9, bytes("a"))];
    let pinned = rig.state.view(|_, _, pinner| pinner.pin_keys(&keys));
    assert_eq!(pinned.read().unwrap(), [(1, bytes("a"), bytes("3")), (1, bytes("c"), bytes("1"))]);
    let pinned = pinned.by_key();
    let found = keys.map(|(table, key)| pinned.get(table, &key).unwrap());
    assert_eq!(found, [None, Some(bytes("3")), Some(bytes("1")), None], "a deleted row is none, wherever its value lies");
    let pinned = rig.state.view(|_, _, pinner| pinner.pin(&[(1, bytes("z"), bytes("a"))]));
    assert_eq!(pinned.read().unwrap(), [], "an inverted range is empty");
}

#[test]
fn values_of_any_size_and_keys_that_are_prefixes_survive_reopening_and_replacing() {
    let dir = tempfile::tempdir().unwrap();
    let value = |len: usize, seed: u8| (0..len).map(|at| (at % 251) as u8 ^ seed).collect::<Vec<_>>();
    let sizes = [0, 1, 3_899, 3_900, 3_901, 16_100, 20_001, 65_300, 65_301, 200_000, 16 << 20];
    let mut want = Model::new();
    for (round, shift) in [(1u64, 0), (2, 5), (3, 8)] {
        let rig = Rig::open(dir.path()).unwrap();
        for (at, key) in ["", "a", "a\0", "a\0\0", "a\0\0\u{1}", "b", "ba", "c", "d", "e", "f"].into_iter().enumerate() {
            let size = sizes[(at + shift) % sizes.len()];
            rig.apply(round * 100 + at as u64, &[(7, key, Some(&value(size, round as u8)))]);
        }
        assert!(matches!(rig.flush(), Some(Ok(()))));
        want = rig.check();
    }
    let rig = Rig::open(dir.path()).unwrap();
    rig.check_by_key();
    assert_eq!(rig.check(), want);
    let live: usize = want.iter().map(|((_, key), value)| key.len() + value.len()).sum();
    let counted = rig.state.bytes().live_bytes as usize;
    assert!(
        (live..live + live / 100 + 1000).contains(&counted),
        "live {live} counted {counted}: parts of replaced values are gone"
    );
    for (at, key) in want.keys().map(|(_, key)| String::from_utf8(key.to_vec()).unwrap()).enumerate() {
        rig.apply(1000 + at as u64, &[(7, &key, None)]);
    }
    assert!(matches!(rig.flush(), Some(Ok(()))));
    assert_eq!((rig.check(), rig.state.bytes().live_bytes), (Model::new(), 0));
}

#[test]
fn reopening_gives_exactly_what_was_flushed() {
    let (dir, rig) = Rig::fresh();
    rig.apply(5, &[(1, "a", Some(b"5"))]);
    assert!(matches!(rig.flush(), Some(Ok(()))));
    let flushed = rig.check();
    rig.apply(6, &[(1, "a", Some(b"6")), (1, "b", Some(b"6"))]);
    drop(rig);
    let rig = Rig::open(dir.path()).unwrap();
    assert_eq!((rig.state.applied(), rig.state.flushed()), (Some(id(5)), Some(id(5))));
    assert_eq!(rig.check(), flushed);
}

#[test]
fn an_entry_without_rows_is_flushed_too() {
    let (dir, rig) = Rig::fresh();
    rig.apply(5, &[]);
    assert_eq!(rig.flusher.run(), Step::After(Duration::from_secs(2)));
    assert!(matches!(rig.flush(), Some(Ok(()))));
    drop(rig);
    assert_eq!(Rig::open(dir.path()).unwrap().state.applied(), Some(id(5)));
}

#[test]
fn the_state_is_never_flushed_ahead_of_the_log() {
    let (_dir, rig) = Rig::fresh();
    rig.apply(5, &[(1, "a", Some(b"5"))]);
    let (sender, answers) = mpsc::channel();
    rig.state.flush(Box::new(move |result| sender.send(result).unwrap()));
    rig.log.cover(4);
    assert_eq!(rig.flusher.run(), Step::Idle);
    rig.apply(6, &[(1, "a", Some(b"6"))]);
    rig.clock.advance(Duration::from_secs(60));
    assert_eq!(rig.flusher.run(), Step::Idle, "however long it takes");
    assert_eq!(rig.state.flushed(), None);
    assert!(answers.try_recv().is_err());
    rig.log.cover(5);
    rig.flusher.run();
    assert_eq!(rig.state.flushed(), Some(id(5)), "what was frozen, not what came since");
    assert!(matches!(answers.try_recv(), Ok(Ok(()))));
    assert_eq!(rig.check()[&(1, bytes("a"))], "6");
}

#[test]
fn a_flush_comes_by_time_by_bytes_and_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { unflushed_bytes_soft: 1000, ..options() };
    let rig = Rig::open_on(Env::real(), dir.path(), small).unwrap();
    rig.log.cover(100);
    assert_eq!(rig.flusher.run(), Step::Idle, "nothing is due ever");
    rig.apply(1, &[(1, "a", Some(b"1"))]);
    rig.clock.advance(Duration::from_millis(1500));
    rig.apply(2, &[(1, "b", Some(b"1"))]);
    assert_eq!(rig.flusher.run(), Step::After(Duration::from_millis(500)), "counted from the first change");
    rig.clock.advance(Duration::from_millis(500));
    assert_eq!(rig.flusher.run(), Step::Idle);
    assert_eq!(rig.state.flushed(), Some(id(2)));
    rig.apply(3, &[(1, "c", Some(&[0; 2000]))]);
    assert_eq!(rig.state.bytes().unflushed_bytes, 2000 + 1 + 96);
    assert_eq!(rig.flusher.run(), Step::Idle);
    assert_eq!((rig.state.flushed(), rig.state.bytes().unflushed_bytes), (Some(id(3)), 0));
}

#[test]
fn an_update_above_the_hard_limit_waits_for_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { unflushed_bytes_soft: 1000, unflushed_bytes_hard: 2000, ..options() };
    let rig = Rig::open_on(Env::real(), dir.path(), small).unwrap();
    rig.apply(1, &[(1, "a", Some(&[1; 4000]))]);
    let (sender, done) = mpsc::channel();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            rig.apply(2, &[(1, "b", Some(b"2"))]);
            sender.send(()).unwrap();
        });
        rig.flusher.run();
        assert!(done.recv_timeout(Duration::from_millis(50)).is_err(), "frozen rows count as well");
        assert_eq!(rig.state.applied(), Some(id(1)));
        rig.log.cover(1);
        rig.flusher.run();
        done.recv_timeout(Duration::from_secs(30)).expect("the flush made room");
    });
    assert_eq!(rig.state.applied(), Some(id(2)));
}

#[test]
fn a_log_that_fails_ends_the_state_and_tells_everybody() {
    let (_dir, rig) = Rig::fresh();
    let (sender, answers) = mpsc::channel();
    let (waiter, hook, late) = (sender.clone(), sender.clone(), sender);
    rig.apply(1, &[(1, "a", Some(b"1"))]);
    rig.state.flush(Box::new(move |result| waiter.send(("waiter", result.unwrap_err())).unwrap()));
    rig.state.on_failure(Box::new(move |error| hook.send(("hook", error)).unwrap()));
    rig.flusher.run();
    rig.log.fail();
    assert_eq!(rig.flusher.run(), Step::Stop);
    rig.state.on_failure(Box::new(move |error| late.send(("late", error)).unwrap()));
    let answers: Vec<_> = answers.try_iter().collect();
    assert_eq!(answers.iter().map(|(who, _)| *who).collect::<Vec<_>>(), ["hook", "waiter", "late"]);
    assert!(answers.iter().all(|(_, error)| matches!(error, Error::Io { .. })));
    assert!(rig.state.failed().is_some());
    assert_eq!(rig.state.flushed(), None);
}

#[test]
fn every_view_sees_one_instant_while_entries_apply_and_flush() {
    let (dir, rig) = Rig::fresh();
    rig.log.cover(u64::MAX);
    const ENTRIES: u64 = 300;
    std::thread::scope(|threads| {
        let reader = threads.spawn(|| {
            let mut views = 0;
            loop {
                let (model, applied, pinned) = rig.pin_all();
                // Read late: flushes publish in between.
                std::thread::yield_now();
                assert_eq!(collect(&pinned).unwrap(), model);
                assert_eq!(
                    model.get(&(0, bytes("index"))).map(|index| index.to_vec()),
                    applied.map(|id| id.index.to_string().into_bytes())
                );
                views += 1;
                if applied == Some(id(ENTRIES)) {
                    return views;
                }
            }
        });
        threads.spawn(|| {
            while rig.state.flushed() != Some(id(ENTRIES)) {
                rig.clock.advance(Duration::from_secs(2));
                rig.flusher.run();
            }
        });
        for index in 1..=ENTRIES {
            let text = index.to_string();
            let key = format!("key{}", index % 17);
            let value = (index % 5 != 0).then_some(text.as_bytes());
            rig.apply(index, &[(0, "index", Some(text.as_bytes())), (1, &key, value)]);
        }
        assert!(reader.join().unwrap() > 0);
    });
    let model = rig.check();
    drop(rig);
    assert_eq!(Rig::open(dir.path()).unwrap().check(), model);
}

/// Bytes of the state's only file, with one occurrence of `marker` changed by a bit.
fn corrupt(dir: &std::path::Path, marker: &[u8]) {
    let path = dir.join("00000001.redb");
    let mut file = std::fs::read(&path).unwrap();
    let all = places(&file, marker);
    assert!(!all.is_empty(), "the marker is in the file");
    // Copies in freed pages are changed too: only one of them counts, and nothing says which.
    all.iter().for_each(|at| file[*at] ^= 0x10);
    std::fs::write(&path, file).unwrap();
}

#[test]
fn a_flipped_bit_in_a_row_is_damage_and_not_a_missing_row() {
    let (dir, rig) = Rig::fresh();
    rig.apply(1, &[(1, "a", Some(b"fine")), (2, "secret-key", Some(&[b"marker-of-the-row", &[9u8; 30_000][..]].concat()))]);
    assert!(matches!(rig.flush(), Some(Ok(()))));
    drop(rig);
    corrupt(dir.path(), b"marker-of-the-row");
    let error = Rig::open(dir.path()).err().expect("building from damaged rows fails");
    assert!(matches!(&error, Error::Corrupt { table: Some(2), key: Some(key), .. } if key == "secret-key"), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"), "a key may be a credential");

    // A machine that does not hold this table opens, and finds the damage when it reads.
    let rig = {
        let env = Env { workers: std::sync::Arc::new(crate::state::rig::ByHand::default()), ..Env::real() };
        let log = std::sync::Arc::new(crate::state::rig::FakeLog::default());
        let build = |rows: quorate::storage::state::Rows<'_>| rows.table_range(&[1]).collect::<Result<Vec<_>, Error>>();
        quorate::storage::state::State::open(&env, dir.path(), options(), log, build).unwrap()
    };
    let (rows, good, bad) = rig
        .view(|rows, _, pinner| (rows.clone(), pinner.pin_keys(&[(1, bytes("a"))]), pinner.pin_keys(&[(2, bytes("secret-key"))])));
    assert_eq!(rows, [(1, bytes("a"), bytes("fine"))]);
    assert_eq!(good.read().unwrap(), rows);
    assert!(rig.failed().is_none());
    assert!(matches!(bad.read(), Err(Error::Corrupt { .. })));
    assert!(matches!(rig.failed(), Some(Error::Corrupt { .. })), "and that is final");
}

/// The follower that asked for the snapshot is refused; this node must not go on either, since its reads would find the same.
#[test]
fn damage_that_a_snapshot_finds_is_final_as_well() {
    let (dir, rig) = Rig::fresh();
    rig.apply(1, &[(1, "a", Some(b"fine")), (2, "b", Some(&[b"marker-of-the-row", &[9u8; 30_000][..]].concat()))]);
    assert!(matches!(rig.flush(), Some(Ok(()))));
    drop(rig);
    corrupt(dir.path(), b"marker-of-the-row");
    let env = Env { workers: std::sync::Arc::new(crate::state::rig::ByHand::default()), ..Env::real() };
    let log = std::sync::Arc::new(crate::state::rig::FakeLog::default());
    let build = |_: quorate::storage::state::Rows<'_>| Ok::<_, Error>(());
    let state = quorate::storage::state::State::open(&env, dir.path(), options(), log, build).unwrap();
    let mut snapshot = state.snapshot().unwrap();
    let refused = std::iter::from_fn(|| snapshot.next_frame(1 << 20).transpose()).find_map(Result::err);
    assert!(matches!(refused, Some(Error::Corrupt { table: Some(2), .. })), "{refused:?}");
    assert!(matches!(state.failed(), Some(Error::Corrupt { .. })), "and that is final");
}

#[test]
fn a_lost_or_damaged_pointer_or_file_is_damage_and_not_a_fresh_start() {
    let (dir, rig) = Rig::fresh();
    rig.apply(1, &[(1, "a", Some(b"1"))]);
    assert!(matches!(rig.flush(), Some(Ok(()))));
    drop(rig);
    let (current, file) = (dir.path().join("CURRENT"), dir.path().join("00000001.redb"));
    let refused = || matches!(Rig::open(dir.path()), Err(Error::Corrupt { .. }));
    let (pointer, content) = (std::fs::read(&current).unwrap(), std::fs::read(&file).unwrap());

    std::fs::remove_file(&current).unwrap();
    assert!(refused(), "no pointer beside a file");
    std::fs::write(&current, b"").unwrap();
    assert!(refused(), "an empty pointer");
    std::fs::write(&current, &pointer).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(refused(), "no file");
    std::fs::write(&file, b"").unwrap();
    assert!(refused(), "an empty file");
    std::fs::write(&file, &content).unwrap();
    assert_eq!(Rig::open(dir.path()).unwrap().check().len(), 1);
}

/// What was replaced or deleted lies in free pages; in another file it does not. Views of before read on.
#[test]
fn a_state_in_another_file_holds_nothing_that_was_deleted() {
    let (dir, rig) = Rig::fresh();
    let gone = b"to be erased ".repeat(20_000);
    rig.apply(1, &[(1, "gone", Some(&gone)), (1, "same", Some(&gone)), (1, "kept", Some(b"kept"))]);
    assert!(matches!(rig.flush(), Some(Ok(()))));
    let before = rig.pin_all().2;
    rig.apply(2, &[(1, "gone", None), (1, "same", Some(b"new"))]);
    assert!(matches!(rig.flush(), Some(Ok(()))));
    let holds = || {
        let files = names(dir.path()).into_iter().map(|name| std::fs::read(dir.path().join(name)).unwrap());
        files.filter(|bytes| !places(bytes, b"to be erased").is_empty()).count()
    };
    assert_eq!(holds(), 1, "free pages keep it");
    rig.state.rewrite(|_, _| {}).unwrap();
    assert_eq!(holds(), 0);
    assert_eq!(names(dir.path()), ["00000002.redb", "CURRENT"]);
    assert_eq!(collect(&before).unwrap()[&(1, bytes("gone"))], bytes(std::str::from_utf8(&gone).unwrap()));
    let want = rig.check();
    assert_eq!(want, [((1, bytes("kept")), bytes("kept")), ((1, bytes("same")), bytes("new"))].into());
    rig.apply(3, &[(1, "later", Some(b"3"))]);
    assert!(matches!(rig.flush(), Some(Ok(()))));
    drop((before, rig));
    assert_eq!(Rig::open(dir.path()).unwrap().check().len(), 3);
}

/// Why content is not read from a view that lives as long as a slow reader (decision 0074): whatever is written meanwhile takes pages
/// of its own, the file never gives them back, and what was frozen when the view was taken stays in memory.
#[test]
fn a_view_that_is_kept_costs_the_file_whatever_is_flushed_while_it_lives() {
    const FLUSHES: u64 = 24;
    let keys: Vec<String> = (0..64).map(|key| format!("key {key:02}")).collect();
    let grown = |keeps_view: bool| {
        let (_dir, rig) = Rig::fresh();
        let overwrite = |round: u64| {
            let value = vec![round as u8; 16 << 10];
            let rows: Vec<_> = keys.iter().map(|key| (1, key.as_str(), Some(&value[..]))).collect();
            rig.apply(round, &rows);
            assert!(matches!(rig.flush(), Some(Ok(()))));
        };
        (1..=3).for_each(overwrite);
        let before = rig.state.bytes().file_bytes;
        let view = keeps_view.then(|| rig.pin_all());
        (4..4 + FLUSHES).for_each(overwrite);
        if let Some((model, _, pinned)) = &view {
            assert_eq!(collect(pinned).unwrap(), *model, "it shows its instant still");
        }
        drop(view);
        overwrite(4 + FLUSHES);
        let sizes = rig.state.bytes();
        (sizes.file_bytes.saturating_sub(before), sizes.live_bytes)
    };
    let (without, live) = grown(false);
    let (with, _) = grown(true);
    assert!(without <= live, "{without} of {live}");
    assert!(with >= live * (FLUSHES - 4), "{with} of {live}");
}
