//! The machine from its rows, at start and when a snapshot is installed.

use bytes::Bytes;

use super::invariants::Broken;
use super::rows::{self, Effects, Problem};
use super::session::Session;
use super::{Machine, rules};
use crate::codec::{self, Encode};
use crate::mutant::{self, Mutant};

impl Machine {
    /// Rebuilds the machine from rows in order of (table, key): those of [`rows::METADATA_TABLES`]; others are passed over.
    ///
    /// Without rows it is [`Machine::new`]. Digests of the past are not kept in rows. What it gives keeps every invariant.
    /// Errors: the iterator's own, or [`rows::Error`]: a row is damaged, contradicts another, or breaks an invariant; this node must
    /// not serve from them.
    pub fn from_rows<E: From<rows::Error>>(rows: impl Iterator<Item = Result<(u8, Bytes, Bytes), E>>) -> Result<Self, E> {
        let mut machine = Self::new();
        // The tables report each row they take; nobody needs that here.
        let mut effects = Effects::default();
        for row in rows {
            let (table, key, value) = row?;
            machine.take_row(table, &key, &value, &mut effects)?;
            effects.rows.clear();
        }
        machine.check_created().map_err(|broken| broken_by(rows::SESSIONS, broken))?;
        machine.check_bounds().map_err(|broken| broken_by(rows::GLOBAL, broken))?;
        Ok(machine)
    }

    fn take_row(&mut self, table: u8, key: &Bytes, value: &Bytes, effects: &mut Effects) -> Result<(), rows::Error> {
        let contradiction = rows::Error { table, problem: Problem::Contradiction };
        match table {
            rows::GLOBAL => self.take_global(key, value),
            rows::SESSIONS => {
                let id = rows::decode_session_key(table, key)?;
                let session: Session = rows::decode(table, value)?;
                if self.tables.sessions.contains_key(&id) {
                    return Err(contradiction);
                }
                self.check_session(&id, &session).map_err(|broken| broken_by(table, broken))?;
                canonical(table, &session, value)?;
                // A row is as this version encodes it: doing that again would only take time.
                self.tables.keep_session(&id, session, (key, value));
                Ok(())
            }
            rows::CLIENTS => {
                let client = rows::decode_client_key(key)?;
                let header: rows::ClientHeader = rows::decode(table, value)?;
                if self.tables.nonces.contains_key(&header.nonce) || self.tables.clients.contains_key(&client) {
                    return Err(contradiction);
                }
                self.check_client(client).map_err(|broken| broken_by(table, broken))?;
                canonical(table, &header, value)?;
                self.tables.put_client(client, header, effects);
                Ok(())
            }
            rows::OUTCOMES if mutant::is(Mutant::DedupNotInSnapshot) => Ok(()),
            rows::OUTCOMES => {
                let (client, sequence) = rows::decode_outcome_key(key)?;
                let outcome = rows::decode(table, value)?;
                let row = self.tables.clients.get(&client).ok_or_else(|| contradiction.clone())?;
                if row.outcomes.contains_key(&sequence) {
                    return Err(contradiction);
                }
                self.check_outcome(client, &row.header, sequence, &outcome).map_err(|broken| broken_by(table, broken))?;
                canonical(table, &outcome, value)?;
                self.tables.put_outcome(client, sequence, outcome, effects);
                Ok(())
            }
            rows::TOMBSTONES => {
                let id = rows::decode_session_key(table, key)?;
                let tombstone = rows::decode(table, value)?;
                canonical(table, &tombstone, value)?;
                if self.tables.sessions.contains_key(&id) || self.tables.tombstones.contains_key(&id) {
                    return Err(contradiction);
                }
                self.tables.put_tombstone(&id, tombstone, effects);
                Ok(())
            }
            rows::HEADS | rows::CHUNKS => Ok(()),
            _ => Err(rows::Error { table, problem: Problem::Table }),
        }
    }

    fn take_global(&mut self, key: &Bytes, value: &Bytes) -> Result<(), rows::Error> {
        if *key != rows::global_key() {
            return Err(rows::Error { table: rows::GLOBAL, problem: Problem::Key });
        }
        let global = rows::decode_global(value)?;
        let version = global.cluster_version;
        let known = rules(version).ok_or(rows::Error { table: rows::GLOBAL, problem: Problem::ClusterVersion { version } })?;
        (self.applied, self.now_ms) = (global.applied, global.now_ms);
        (self.cluster_version, self.rules) = (version, known);
        Ok(())
    }
}

fn broken_by(table: u8, broken: Broken) -> rows::Error {
    rows::Error { table, problem: Problem::Invariant(broken) }
}

/// Numbers have shorter and longer encodings of one value, nothing else has: a row that decodes is ours iff it is as short as ours.
fn canonical<T: Encode>(table: u8, value: &T, row: &Bytes) -> Result<(), rows::Error> {
    let (found, canonical) = (row.len(), codec::row_bytes(value));
    let problem = Problem::NotCanonical { found, canonical };
    (found == canonical).then_some(()).ok_or(rows::Error { table, problem })
}
