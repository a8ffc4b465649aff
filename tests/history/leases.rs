//! Small histories of leases, one for each verdict.

use std::time::Duration;

use quorate::testing::history::{Kind, LeaseNote, Says, Violation, leases};

/// Places in the order of writes, and what is said there.
type History<'a> = &'a [(u64, Says)];

fn granted(fence: u64) -> (u64, Says) {
    (fence, Says::Granted { fence, steal: false })
}

fn stolen(fence: u64) -> (u64, Says) {
    (fence, Says::Granted { fence, steal: true })
}

fn ended(fence: u64) -> Says {
    Says::Ended { fence }
}

fn wrote(fence: u64) -> Says {
    Says::Wrote { fence: Some(fence) }
}

const WROTE: Says = Says::Wrote { fence: None };

fn fenced(fence: u64) -> Says {
    Says::Fenced { fence }
}

fn notes(history: History<'_>) -> Vec<LeaseNote> {
    history.iter().map(|(revision, says)| LeaseNote::of_log(0, *revision, *says)).collect()
}

#[test]
fn leases_of_a_correct_store_pass() {
    let good: &[History<'_>] = &[
        &[(4, WROTE), granted(5), (6, wrote(5)), (7, Says::Held), (8, ended(5)), (9, WROTE)],
        // Taken away: the older one is refused from then on.
        &[granted(5), (6, wrote(5)), stolen(7), (8, fenced(5)), (9, wrote(7))],
        // Its time had passed when entry 8 came, which is judged after that.
        &[granted(5), (8, WROTE), (8, ended(5)), (9, fenced(5)), granted(10), (11, wrote(10))],
        &[granted(5), (8, fenced(5)), (8, ended(5))],
        // Log and caller say the same.
        &[granted(5), granted(5), (6, wrote(5)), (6, wrote(5)), (7, ended(5)), (7, ended(5)), stolen(9), stolen(9)],
        // Taken where none was.
        &[stolen(5), (6, ended(5)), stolen(7), (8, wrote(7))],
    ];
    for history in good {
        assert_eq!(leases(&notes(history)), Vec::<Violation>::new(), "{history:?}");
    }
}

#[test]
fn each_violation_of_a_lease_is_found_and_named() {
    use Kind::*;
    let bad: &[(Kind, History<'_>)] = &[
        (TwoHolders, &[granted(5), granted(7)]),
        (OldFence, &[granted(5), stolen(7), (8, wrote(5))]),
        (OldFence, &[granted(5), (7, ended(5)), (8, wrote(5))]),
        (OldFence, &[granted(5), (7, ended(5)), (7, wrote(5))]),
        (OldFence, &[granted(5), (7, ended(5)), granted(8), (9, wrote(5))]),
        (OldFence, &[(4, wrote(3))]),
        (Unfenced, &[granted(5), (6, WROTE)]),
        (Unfenced, &[granted(5), (6, ended(5)), stolen(7), (8, WROTE)]),
        (FenceGoesBack, &[(5, Says::Granted { fence: 9, steal: false }), (6, ended(9)), granted(7)]),
        (SpuriousFence, &[granted(5), (6, fenced(5))]),
        (SpuriousFence, &[granted(5), (6, ended(5)), (7, Says::Held)]),
        (SpuriousFence, &[(7, Says::Held)]),
        (Disorder, &[granted(5), (6, ended(4))]),
    ];
    for (kind, history) in bad {
        let found = leases(&notes(history));
        assert!(found.iter().any(|violation| violation.kind == *kind), "{kind:?} {history:?}: {found:?}");
    }
}

#[test]
fn leases_of_two_sessions_are_two_matters() {
    let of = |key, (revision, says)| LeaseNote::of_log(key, revision, says);
    let notes = [of(0, granted(5)), of(1, granted(6)), of(0, (7, wrote(5))), of(1, (8, wrote(6))), of(1, (9, wrote(5)))];
    assert_eq!(leases(&notes[..4]), Vec::<Violation>::new());
    assert_eq!(leases(&notes).iter().map(|found| found.kind).collect::<Vec<_>>(), [Kind::OldFence]);
}

/// An answer that was given before the call ahead of it in the order began.
#[test]
fn the_order_of_answers_fits_their_times() {
    let at = |(revision, says), from, until| {
        let (invoked, returned) = (Duration::from_millis(from), Duration::from_millis(until));
        LeaseNote { invoked, returned, ..LeaseNote::of_log(0, revision, says) }
    };
    let fits = [at(granted(5), 0, 10), at((6, wrote(5)), 5, 20), at(stolen(7), 4, 30)];
    assert_eq!(leases(&fits), Vec::<Violation>::new());
    let late = [at(granted(5), 20, 30), at((6, wrote(5)), 5, 10)];
    assert_eq!(leases(&late).iter().map(|found| found.kind).collect::<Vec<_>>(), [Kind::Disorder]);
}
