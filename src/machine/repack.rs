//! Repacking: rows of chunks never change under their number, so the new ones are numbered apart, under the repack's revision.

use super::Machine;
use super::rows::{self, Effects};
use super::session::Moment;
use super::write::{Found, delete_chunks, put_chunks};
use crate::mutant::{self, Mutant};
use crate::types::{ClientId, Repack, Sequence, Verdict};

impl Machine {
    /// Stores a content in fewer chunks (L49): neither version nor `mod_revision` moves, nor an idle deadline, and no watch shows it. The
    /// machine reads no row: the leader has compared `old` with them before it proposed.
    pub(super) fn repack(&mut self, repack: &Repack, moment: Moment, effects: &mut Effects) -> Verdict {
        let Found::Live(session) = self.find(&repack.id) else { return Verdict::NotRepacked };
        let Some(mut next) = session.repacked(repack, moment.revision) else { return Verdict::NotRepacked };
        if mutant::is(Mutant::RepackMovesTheVersion) {
            next.version = next.version.next();
        }
        let old = session.places();
        let first = if mutant::is(Mutant::PackedRowsLeft) { session.packed_chunks() } else { 0 };
        delete_chunks(&old, first..old.of_number(repack.until_chunk), effects);
        put_chunks(&repack.chunks, Some(0), |n| rows::chunk_key(moment.revision, n), effects);
        let verdict = Verdict::Repacked { first_chunk: next.first_chunk, chunks: next.chunk_count() };
        self.tables.touch_session(&repack.id, next);
        verdict
    }

    /// Whether a request was answered for good, and would be answered so again whatever it says.
    pub fn has_outcome(&self, client: ClientId, sequence: Sequence) -> bool {
        self.tables.clients.get(&client).is_some_and(|client| client.outcomes.contains_key(&sequence))
    }

    /// The rows of the chunks that a repack replaces, to be read and compared with what it says of them. `None`: the session or its chunks
    /// are others.
    pub fn plan_repack(&self, repack: &Repack) -> Option<super::Plan> {
        let Found::Live(session) = self.find(&repack.id) else { return None };
        let places = session.places();
        let chunks = 0..places.of_number(repack.until_chunk);
        session.is_meant_by(repack).then(|| super::Plan::Read { info: session.info(), tail: false, places, chunks, head: false })
    }
}
