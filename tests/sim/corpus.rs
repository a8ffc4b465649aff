//! The checker against histories whose verdict is known: a checker that finds nothing proves nothing.

use std::time::Duration;

use super::check::check;
use super::history::{Answer, Ask, Op};

const LOAD: Ask = Ask::Load;

fn save(value: u64) -> Ask {
    Ask::Save { value }
}

fn save_if(expected: u64, value: u64) -> Ask {
    Ask::SaveIf { expected, value }
}

fn found(version: u64, value: u64, revision: u64) -> Answer {
    Answer::Found { version, value, revision }
}

fn missing(tombstone: u64, revision: u64) -> Answer {
    Answer::NotFound { tombstone, revision }
}

fn written(version: u64, revision: u64) -> Answer {
    Answer::Written { version, revision }
}

fn conflict(actual: u64, revision: u64) -> Answer {
    Answer::Conflict { actual, revision }
}

/// Operations with their start and end.
type History<'a> = &'a [(u64, u64, Ask, Answer)];

fn violations(ops: History<'_>) -> Vec<String> {
    let op = |(invoked, returned, ask, answer): &(u64, u64, Ask, Answer)| Op {
        client: 0,
        key: 0,
        ask: *ask,
        answer: *answer,
        invoked: Duration::from_millis(*invoked),
        returned: Duration::from_millis(*returned),
    };
    check(&ops.iter().map(op).collect::<Vec<_>>())
}

#[test]
fn histories_of_a_correct_store_pass() {
    let unknown = Answer::Unknown;
    let good: &[History<'_>] = &[
        &[(0, 1, LOAD, missing(0, 3)), (2, 3, save(1), written(1, 5)), (4, 5, LOAD, found(1, 1, 5))],
        // A delete counts; what comes after it goes on counting.
        &[
            (0, 1, save(1), written(1, 5)),
            (2, 3, Ask::Delete, written(2, 6)),
            (4, 5, LOAD, missing(2, 6)),
            (6, 7, save_if(0, 2), written(3, 9)),
        ],
        // A lost answer, found again by its value; another by a gap; another never.
        &[(0, 1, save(1), unknown), (2, 3, LOAD, found(1, 1, 5))],
        &[(0, 1, save(1), unknown), (0, 9, save(2), written(2, 7)), (2, 3, LOAD, missing(0, 3))],
        &[(0, 1, save(1), unknown), (2, 3, save(2), written(1, 7))],
        // It takes effect long after its caller gave up.
        &[(0, 1, save(1), unknown), (2, 3, LOAD, missing(0, 4)), (4, 5, LOAD, found(1, 1, 9))],
        &[(0, 1, save(1), written(1, 4)), (2, 3, save_if(3, 2), conflict(1, 5)), (4, 5, save_if(1, 3), written(2, 6))],
        &[(0, 1, save(1), written(1, 4)), (2, 3, Ask::Delete, unknown), (4, 5, Ask::Delete, Answer::NothingThere)],
        // At once, in either order.
        &[(0, 9, save(1), written(2, 6)), (0, 9, save(2), written(1, 5)), (0, 9, LOAD, found(1, 2, 5))],
    ];
    for history in good {
        assert_eq!(violations(history), Vec::<String>::new(), "{history:?}");
    }
}

#[test]
fn each_violation_is_found_and_named() {
    let bad: &[(&str, History<'_>)] = &[
        ("two operations with one version", &[(0, 9, save(1), written(1, 4)), (0, 9, save(2), written(1, 5))]),
        (
            "one operation with two versions",
            &[(0, 1, save(1), written(1, 4)), (0, 9, save(2), written(2, 5)), (2, 3, LOAD, found(3, 1, 9))],
        ),
        ("phantom value", &[(0, 1, LOAD, found(1, 77, 4))]),
        ("effect of a write that had none", &[(0, 1, save(1), Answer::Refused), (2, 3, LOAD, found(1, 1, 4))]),
        ("spurious conflict", &[(0, 1, save(1), written(1, 4)), (2, 3, save_if(1, 2), conflict(1, 5))]),
        ("stale read", &[(0, 1, save(1), written(1, 4)), (2, 3, save(2), written(2, 5)), (4, 5, LOAD, found(1, 1, 4))]),
        ("stale read, lost write", &[(0, 1, save(1), written(1, 4)), (2, 3, LOAD, missing(0, 3))]),
        ("lost session", &[(0, 1, save(1), written(1, 4)), (2, 3, LOAD, missing(1, 5))]),
        ("a version that had passed", &[(0, 1, save(1), written(1, 4)), (2, 3, LOAD, missing(0, 5))]),
        ("a write that had to fail", &[(0, 1, save(1), written(1, 4)), (2, 3, save_if(0, 2), written(2, 5))]),
        ("applied twice", &[(0, 1, save(1), written(1, 4)), (2, 3, save(2), written(3, 5))]),
        ("applied twice", &[(0, 1, save(1), Answer::Unknown), (2, 3, save(2), written(3, 5))]),
        // The future: what was written at revision 8 was read at 6.
        ("written by nobody", &[(0, 1, save(1), written(1, 4)), (2, 9, save(2), written(2, 8)), (3, 5, LOAD, found(2, 2, 6))]),
        ("two writes with one revision", &[(0, 1, save(1), written(1, 4)), (2, 3, save(2), written(2, 4))]),
        (
            "a delete found nothing",
            &[(0, 1, save(1), written(1, 4)), (2, 3, Ask::Delete, Answer::NothingThere), (4, 5, LOAD, found(1, 1, 4))],
        ),
    ];
    for (name, history) in bad {
        let found = violations(history);
        assert!(found.iter().any(|violation| violation.contains(name)), "{name}: {found:?}");
    }
}
