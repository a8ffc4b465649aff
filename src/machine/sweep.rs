//! Dropping what has expired. It was invisible before (L14); a sweep only frees the room.

use super::Machine;
use super::rows::Effects;
use super::session::Moment;
use super::tables::Due;
use crate::mutant::{self, Mutant};
use crate::types::Swept;

impl Machine {
    /// Drops expired sessions, clients, tombstones and leases in order of their deadlines, at most `limit` records and a bounded number of
    /// rows: a burst of sessions that share a deadline must not hold up `apply` and cost the leader its lease.
    pub(super) fn sweep(&mut self, limit: u32, moment: Moment, effects: &mut Effects) -> Swept {
        self.tables.move_clients();
        let mut swept = Swept::default();
        let mut rows_left = self.rules.sweep_rows_max;
        for _ in 0..limit.min(self.rules.sweep_count_max) {
            let Some((deadline_ms, due)) = self.tables.due.first().cloned() else {
                break;
            };
            let cost = self.rows_of(&due);
            let early_ms = if matches!(due, Due::Tombstone(_)) && mutant::is(Mutant::TombstoneSweptEarly) { 1900 } else { 0 };
            if deadline_ms > moment.now_ms + early_ms || cost > rows_left {
                break;
            }
            rows_left -= cost;
            self.drop_due(&due, moment, &mut swept, effects);
        }
        swept
    }

    /// Rows that dropping a record touches, at most.
    fn rows_of(&self, due: &Due) -> u64 {
        match due {
            // Chunks; head, metadata and tombstone.
            Due::Session(id) => self.tables.sessions.get(id).map_or(0, |session| session.value.chunk_count() + 3),
            Due::Client(client) => self.tables.clients.get(client).map_or(0, |client| client.outcomes.len() as u64 + 1),
            Due::Tombstone(_) | Due::Lease(_) => 1,
        }
    }

    fn drop_due(&mut self, due: &Due, moment: Moment, swept: &mut Swept, effects: &mut Effects) {
        match due {
            Due::Session(id) => {
                let tombstone = self.tables.sessions.get(id).map(|session| session.value.tombstone_of_expired(self.rules));
                // The tombstone counts from the deadline, not from the sweep; a late sweep may find it gone already.
                self.remove(id, tombstone, moment, effects);
                swept.sessions += 1;
            }
            Due::Client(client) => {
                self.tables.remove_client(*client, effects);
                swept.clients += 1;
            }
            Due::Tombstone(id) => {
                self.tables.remove_tombstone(id, effects);
                swept.tombstones += 1;
            }
            Due::Lease(id) => {
                self.tables.remove_lease(id, effects);
                swept.leases += 1;
            }
        }
    }
}
