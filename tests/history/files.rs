//! Histories as files: good ones pass, bad ones are named, broken ones are refused with their line.
//!
//! `corpus/bad/KIND*.jsonl` holds a violation of that kind.

use std::path::{Path, PathBuf};

use quorate::testing::history::{Kind, Op, edn, porcupine, read, verdict, write};

fn files(of: &str) -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/history/corpus").join(of);
    let entries = std::fs::read_dir(dir).expect("the corpus");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let name = |path: &PathBuf| path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).expect("text"))).collect()
}

fn whole(name: &str, text: &str) -> Vec<Op> {
    read(text.as_bytes()).unwrap_or_else(|broken| panic!("{name}: {broken}"))
}

const KINDS: [(&str, Kind); 9] = [
    ("one_version_twice", Kind::OneVersionTwice),
    ("applied_twice", Kind::AppliedTwice),
    ("phantom_value", Kind::PhantomValue),
    ("effect_of_refused", Kind::EffectOfRefused),
    ("spurious_conflict", Kind::SpuriousConflict),
    ("stale_read", Kind::StaleRead),
    ("lost_write", Kind::LostWrite),
    ("unexplained", Kind::Unexplained),
    ("disorder", Kind::Disorder),
];

#[test]
fn good_files_pass() {
    let files = files("good");
    assert!(files.len() >= 8, "{}", files.len());
    for (name, text) in files {
        let found = verdict(&whole(&name, &text));
        assert!(found.is_empty(), "{name}: {found:?}");
    }
}

#[test]
fn bad_files_are_convicted_of_what_they_are_named_for() {
    let files = files("bad");
    for (kind, _) in KINDS {
        assert!(files.iter().any(|(name, _)| name.starts_with(kind)), "no file for {kind}");
    }
    for (name, text) in files {
        let (_, kind) = KINDS.iter().find(|(kind, _)| name.starts_with(kind)).unwrap_or_else(|| panic!("{name} names no kind"));
        let found = verdict(&whole(&name, &text));
        assert!(found.iter().any(|violation| violation.kind == *kind), "{name}: {found:?}");
    }
}

/// The last line of a broken file says which line is refused, and why.
#[test]
fn broken_files_are_refused_with_their_line() {
    let files = files("broken");
    assert!(files.len() >= 10, "{}", files.len());
    for (name, text) in files {
        let (history, expected) = text.split_once("=> ").unwrap_or_else(|| panic!("{name} does not say what is wrong"));
        let broken = read(history.as_bytes()).expect_err(&name).to_string();
        assert_eq!(broken, expected.trim_end(), "{name}");
    }
}

#[test]
fn a_history_cut_anywhere_is_refused() {
    for (name, text) in files("good") {
        for end in 0..text.len() {
            assert!(read(text.as_bytes().get(..end).expect("a prefix")).is_err(), "{name} cut at {end}");
        }
    }
}

#[test]
fn a_file_that_was_read_is_written_the_same() {
    for (name, text) in files("good").into_iter().chain(files("bad")) {
        let mut again = Vec::new();
        write(&whole(&name, &text), &mut again).expect("memory");
        assert_eq!(read(again.as_slice()).expect("its own file"), whole(&name, &text), "{name}");
    }
}

#[test]
fn other_checkers_get_one_event_per_line_and_no_process_twice_after_an_unknown_answer() {
    let (_, text) = files("good").into_iter().find(|(name, _)| name == "unknown_and_conflict").expect("in the corpus");
    let ops = whole("unknown_and_conflict", &text);
    let (mut jepsen, mut events) = (Vec::new(), Vec::new());
    edn(&ops, &mut jepsen).expect("memory");
    porcupine(&ops, &mut events).expect("memory");
    for (name, now) in [("unknown_and_conflict.edn", jepsen), ("unknown_and_conflict.porcupine", events)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/history/corpus").join(name);
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&path, &now).expect("a writable checkout");
        }
        assert_eq!(String::from_utf8(now).expect("text"), std::fs::read_to_string(path).expect("a golden file"));
    }
}
