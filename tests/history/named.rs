//! Small histories in Rust, one for each verdict.

use std::time::Duration;

use quorate::testing::history::{Answer, Ask, Kind, Op, Violation, exact, verdict};

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

fn ops(history: History<'_>) -> Vec<Op> {
    let op = |(client, (invoked, returned, ask, answer)): (usize, &(u64, u64, Ask, Answer))| Op {
        answer: *answer,
        returned: Duration::from_millis(*returned),
        ..Op::invoke(client, 0, *ask, Duration::from_millis(*invoked))
    };
    history.iter().enumerate().map(op).collect()
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
        assert_eq!(verdict(&ops(history)), Vec::<Violation>::new(), "{history:?}");
    }
}

#[test]
fn each_violation_is_found_and_named() {
    use Kind::*;
    let bad: &[(Kind, History<'_>)] = &[
        (OneVersionTwice, &[(0, 9, save(1), written(1, 4)), (0, 9, save(2), written(1, 5))]),
        (AppliedTwice, &[(0, 1, save(1), written(1, 4)), (0, 9, save(2), written(2, 5)), (2, 3, LOAD, found(3, 1, 9))]),
        (PhantomValue, &[(0, 1, LOAD, found(1, 77, 4))]),
        (EffectOfRefused, &[(0, 1, save(1), Answer::Refused), (2, 3, LOAD, found(1, 1, 4))]),
        (SpuriousConflict, &[(0, 1, save(1), written(1, 4)), (2, 3, save_if(1, 2), conflict(1, 5))]),
        (StaleRead, &[(0, 1, save(1), written(1, 4)), (2, 3, save(2), written(2, 5)), (4, 5, LOAD, found(1, 1, 4))]),
        (StaleRead, &[(0, 1, save(1), written(1, 4)), (2, 3, LOAD, missing(0, 3))]),
        (LostWrite, &[(0, 1, save(1), written(1, 4)), (2, 3, LOAD, missing(1, 5))]),
        (LostWrite, &[(0, 1, save(1), written(1, 4)), (2, 3, LOAD, missing(0, 5))]),
        (EffectOfRefused, &[(0, 1, save(1), written(1, 4)), (2, 3, save_if(0, 2), written(2, 5))]),
        (AppliedTwice, &[(0, 1, save(1), written(1, 4)), (2, 3, save(2), written(3, 5))]),
        (AppliedTwice, &[(0, 1, save(1), Answer::Unknown), (2, 3, save(2), written(3, 5))]),
        // The future: what was written at revision 8 was read at 6.
        (Disorder, &[(0, 1, save(1), written(1, 4)), (2, 9, save(2), written(2, 8)), (3, 5, LOAD, found(2, 2, 6))]),
        (Disorder, &[(0, 1, save(1), written(1, 4)), (2, 3, save(2), written(2, 4))]),
        (StaleRead, &[(0, 1, save(1), written(1, 4)), (2, 3, Ask::Delete, Answer::NothingThere), (4, 5, LOAD, found(1, 1, 4))]),
    ];
    for (kind, history) in bad {
        let found = exact(&ops(history));
        assert!(found.iter().any(|violation| violation.kind == *kind), "{kind:?} {history:?}: {found:?}");
    }
}
