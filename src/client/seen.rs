//! The largest revision that a client has seen, so that a watch never shows it an older state than it knows.

use std::sync::{Mutex, PoisonError};

use crate::types::{ClusterId, Position, Revision};
use crate::wire::v1;

/// The largest revision seen of the cluster that answered last.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Option<Position>>);

impl Seen {
    /// Takes the revision of an answer.
    pub fn note_answer(&self, cluster_id: Option<ClusterId>, answer: &Option<v1::submit_response::Answer>) {
        let at_start = |frame: &v1::LoadFrame| frame.start.as_ref().map(|start| start.revision);
        let revision = match answer {
            Some(v1::submit_response::Answer::Outcome(outcome)) => Some(outcome.revision),
            Some(v1::submit_response::Answer::Load(frame)) => at_start(frame),
            Some(v1::submit_response::Answer::LoadMany(frame)) => frame.loads.first().and_then(at_start),
            Some(v1::submit_response::Answer::List(page)) => Some(page.revision),
            Some(v1::submit_response::Answer::Refusal(_)) | None => None,
        };
        if let Some((cluster_id, revision)) = cluster_id.zip(revision) {
            self.note(Position { cluster_id, revision: Revision(revision) });
        }
    }

    /// Takes one. Of another cluster than before it is the only one.
    pub fn note(&self, position: Position) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.filter(|before| before.cluster_id == position.cluster_id && before.revision > position.revision);
        *seen = Some(before.unwrap_or(position));
    }

    pub fn get(&self) -> Option<Position> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_the_last_cluster_counts() {
        let at = |cluster, revision| Position { cluster_id: ClusterId([cluster; 16]), revision: Revision(revision) };
        let seen = Seen::default();
        for (noted, expected) in [(at(1, 5), at(1, 5)), (at(1, 3), at(1, 5)), (at(1, 9), at(1, 9)), (at(2, 1), at(2, 1))] {
            seen.note(noted);
            assert_eq!(seen.get(), Some(expected));
        }
        seen.note_answer(
            Some(ClusterId([2; 16])),
            &Some(v1::submit_response::Answer::List(v1::ListPage { revision: 7, ..Default::default() })),
        );
        assert_eq!(seen.get(), Some(at(2, 7)));
    }
}
