//! The machine from its rows, at start and when a snapshot is installed.

use bytes::Bytes;

use super::rows::{self, Effects, Problem};
use super::session::Session;
use super::{Machine, rules};
use crate::mutant::{self, Mutant};

impl Machine {
    /// Rebuilds the machine from rows in order of (table, key): those of [`rows::METADATA_TABLES`]; others are passed over.
    ///
    /// Without rows it is [`Machine::new`]. Digests of the past are not kept in rows. Errors: the iterator's own, or
    /// [`rows::Error`]: a row is damaged or contradicts another; this node must not serve from them.
    pub fn from_rows<E: From<rows::Error>>(rows: impl Iterator<Item = Result<(u8, Bytes, Bytes), E>>) -> Result<Self, E> {
        let mut machine = Self::new();
        // The tables report each row they take; nobody needs that here.
        let mut effects = Effects::default();
        for row in rows {
            let (table, key, value) = row?;
            machine.take_row(table, &key, &value, &mut effects)?;
            effects.rows.clear();
        }
        Ok(machine)
    }

    fn take_row(&mut self, table: u8, key: &Bytes, value: &Bytes, effects: &mut Effects) -> Result<(), rows::Error> {
        let contradiction = rows::Error { table, problem: Problem::Contradiction };
        match table {
            rows::GLOBAL => self.take_global(key, value),
            rows::SESSIONS => {
                let id = rows::decode_session_key(table, key)?;
                let session: Session = rows::decode(table, value)?;
                if self.tables.sessions.contains_key(&id) || session.first_chunk > session.next_chunk {
                    return Err(contradiction);
                }
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
                self.tables.put_client(client, header, effects);
                Ok(())
            }
            rows::OUTCOMES if mutant::is(Mutant::DedupNotInSnapshot) => Ok(()),
            rows::OUTCOMES => {
                let (client, sequence) = rows::decode_outcome_key(key)?;
                let outcome = rows::decode(table, value)?;
                let row = self.tables.clients.get(&client);
                if row.is_none_or(|row| row.outcomes.contains_key(&sequence)) {
                    return Err(contradiction);
                }
                self.tables.put_outcome(client, sequence, outcome, effects);
                Ok(())
            }
            rows::TOMBSTONES => {
                let id = rows::decode_session_key(table, key)?;
                let tombstone = rows::decode(table, value)?;
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
