//! Versions that start again. A tombstone counts a session's versions on until its end; a session that is created after that begins at 1.
//! The committed log says at which entry that was. The checkers of histories want versions that never start again: so each answer's is
//! counted on, from the end of the last tombstone at or before the answer's revision. That loses nothing: the same answers are judged, by
//! the same rules, and one that shows the versions of an era at a revision of another is as wrong as it was.

use std::collections::BTreeMap;

use quorate::testing::history::{Answer, Ask, Committed, Op, resolve};

use super::coverage::sometimes;

/// By session of single values: the entries at which a tombstone's end came, and the versions that all before them had made together.
#[derive(Clone, Debug, Default)]
pub struct Eras(BTreeMap<usize, Vec<(u64, u64)>>);

impl Eras {
    /// The tombstone of a session ended when the entry at `index` moved the time on; the last version it counted.
    pub fn end(&mut self, key: usize, index: u64, version: u64) {
        let eras = self.0.entry(key).or_default();
        let before = eras.last().map_or(0, |(_, versions)| *versions);
        eras.push((index, before + version));
        sometimes("tombstone ended");
    }

    /// Whether no version ever started again.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many versions a session had before the era it is in at this revision.
    pub fn before(&self, key: usize, revision: u64) -> u64 {
        let Some(eras) = self.0.get(&key) else { return 0 };
        let begun = eras.partition_point(|(index, _)| *index <= revision);
        begun.checked_sub(1).map_or(0, |last| eras[last].1)
    }

    /// A history with every answer's version counted on. An answer that has no revision has no version.
    pub fn counted_on(&self, history: &[Op]) -> Vec<Op> {
        let mut counted = history.to_vec();
        for op in &mut counted {
            let Some(before) = op.answer.revision().map(|revision| self.before(op.key, revision)) else { continue };
            match &mut op.answer {
                Answer::Found { version, .. } | Answer::Written { version, .. } | Answer::NotFound { tombstone: version, .. } => {
                    *version += before;
                }
                // There was no session, so it has no version.
                Answer::Conflict { actual: 0, .. } => {}
                Answer::Conflict { actual, .. } => *actual += before,
                Answer::NothingThere | Answer::Refused | Answer::Unknown => {}
            }
            expect(&mut op.ask, before);
        }
        counted
    }

    /// The same with the places that the log, whose versions are counted on, has for writes that nobody answered.
    pub fn resolved(&self, counted: &[Op], log: &[Committed]) -> Vec<Op> {
        let mut resolved = resolve(counted, log);
        for (before, op) in counted.iter().zip(&mut resolved) {
            if let (Answer::Unknown, Some(revision)) = (before.answer, op.answer.revision()) {
                expect(&mut op.ask, self.before(op.key, revision));
            }
        }
        resolved
    }
}

/// What a condition names is compared with the versions of the era in which it is judged, whichever its caller had in mind.
fn expect(ask: &mut Ask, before: u64) {
    if let Ask::SaveIf { expected, .. } = ask
        && *expected > 0
    {
        *expected += before;
    }
}

/// What both checkers and the log say of a history.
#[cfg(test)]
fn judged(eras: &Eras, history: &[Op], log: &[Committed]) -> Vec<String> {
    use quorate::testing::history::{audit, verdict};
    let counted = eras.counted_on(history);
    let found = verdict(&eras.resolved(&counted, log)).into_iter().chain(audit(&counted, log));
    found.map(|violation| violation.to_string()).collect()
}

#[test]
fn a_version_starts_again_after_the_end_of_its_tombstone_and_at_no_other_time() {
    use std::time::Duration;
    let at = Duration::from_millis;
    let committed = |version, revision, value| Committed { key: 0, version, revision, value, request: None, is_expiry: false };
    // Saved twice, deleted, the tombstone of version 3 ends at entry 8; saved again.
    let log = [
        committed(1, 5, Some(1)),
        committed(2, 6, Some(2)),
        committed(3, 7, None),
        committed(4, 9, Some(3)),
        committed(5, 10, Some(4)),
    ];
    let mut eras = Eras::default();
    eras.end(0, 8, 3);
    let op = |ask, answer, from| Op { answer, returned: at(from + 5), ..Op::invoke(0, 0, ask, at(from)) };
    let written = |version, revision| Answer::Written { version, revision };
    let history = vec![
        op(Ask::Save { value: 1 }, written(1, 5), 10),
        op(Ask::SaveIf { expected: 1, value: 2 }, written(2, 6), 20),
        op(Ask::Delete, written(3, 7), 30),
        op(Ask::Load, Answer::NotFound { tombstone: 3, revision: 7 }, 40),
        op(Ask::Load, Answer::NotFound { tombstone: 0, revision: 8 }, 50),
        op(Ask::SaveIf { expected: 0, value: 3 }, written(1, 9), 60),
        // Nobody answered; in the log it is version 2 of its era.
        op(Ask::SaveIf { expected: 1, value: 4 }, Answer::Unknown, 70),
        op(Ask::Load, Answer::Found { version: 2, value: 4, revision: 10 }, 80),
        op(Ask::SaveIf { expected: 1, value: 5 }, Answer::Conflict { actual: 2, revision: 11 }, 90),
    ];
    assert_eq!(judged(&eras, &history, &log), Vec::<String>::new());
    let wrong = |changed: usize, answer: Answer| {
        let mut history = history.clone();
        history[changed].answer = answer;
        assert!(!judged(&eras, &history, &log).is_empty(), "{answer:?}");
    };
    wrong(3, Answer::NotFound { tombstone: 0, revision: 7 });
    wrong(4, Answer::NotFound { tombstone: 3, revision: 8 });
    wrong(5, written(4, 9));
    wrong(7, Answer::Found { version: 5, value: 4, revision: 10 });
    wrong(7, Answer::Found { version: 2, value: 2, revision: 6 });
    wrong(8, Answer::Conflict { actual: 1, revision: 11 });
    // Where no tombstone has ended, versions go on.
    assert!(!judged(&Eras::default(), &history, &log).is_empty());
}
