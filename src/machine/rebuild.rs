//! The machine from its rows, at start and when a snapshot is installed; the client table is among them (L5).

use bytes::Bytes;

use super::changes::Changes;
use super::invariants::Broken;
use super::rows::{self, Problem};
use super::session::{Session, Tombstone};
use super::{Machine, rules};
use crate::codec::{self, Encode};
use crate::mutant::{self, Mutant};
use crate::types::{Lease, LogId, Outcome, bounded};

/// Why rows make no machine: their source failed, or one of them is wrong.
pub enum BuildError<E> {
    /// The error of the source.
    Source(E),
    /// The wrong row.
    Row(rows::Error),
}

impl<E> From<rows::Error> for BuildError<E> {
    fn from(error: rows::Error) -> Self {
        Self::Row(error)
    }
}

impl Machine {
    /// Rebuilds the machine from rows in order of (table, key): those of [`rows::METADATA_TABLES`]; others are ignored.
    ///
    /// Without rows it is [`Machine::new`]. Digests of the past are not kept in rows. The machine keeps every invariant.
    /// Errors: the iterator's own, or [`rows::Error`]: a row is damaged, contradicts another, or breaks an invariant; this node must
    /// not serve from them.
    pub fn from_rows<E: From<rows::Error>>(rows: impl Iterator<Item = Result<(u8, Bytes, Bytes), E>>) -> Result<Self, E> {
        let mut machine = Self::new();
        for row in rows {
            let (table, key, value) = row?;
            machine.take_row(table, &key, &value)?;
        }
        machine.check_created().map_err(|broken| broken_by(rows::SESSIONS, broken))?;
        machine.check_fences().map_err(|broken| broken_by(rows::LEASES, broken))?;
        machine.check_bounds().map_err(|broken| broken_by(rows::GLOBAL, broken))?;
        // From here on deletions are known, and no earlier (L42).
        let newest = machine.tables.sessions.iter().map(|(id, kept)| (id, kept.value.mod_revision));
        machine.tables.changes = Changes::from_sessions(newest, machine.revision());
        Ok(machine)
    }

    fn take_row(&mut self, table: u8, key: &Bytes, value: &Bytes) -> Result<(), rows::Error> {
        let contradiction = rows::Error { table, problem: Problem::Contradiction };
        if let Some(format) = value.first().filter(|format| u16::from(**format) > self.cluster_version && table != rows::GLOBAL) {
            let problem = codec::Problem::Format { format: *format, newest: self.cluster_version };
            return Err(rows::Error { table, problem: Problem::Value(codec::Error { field: "format", problem }) });
        }
        match table {
            rows::GLOBAL => self.take_global(key, value),
            rows::SESSIONS => {
                let id = rows::decode_session_key(table, key)?;
                let session: Session = rows::decode(table, value)?;
                if self.tables.sessions.contains_key(&id) {
                    return Err(contradiction);
                }
                in_range(
                    table,
                    &[
                        ("session.version", session.version.0),
                        ("session.mod_revision", session.mod_revision.0),
                        ("session.next_chunk", session.next_chunk),
                        ("session.created_ms", session.created_ms),
                        ("session.updated_ms", session.updated_ms),
                        ("session.deadline_ms", session.deadline_ms.unwrap_or_default()),
                    ],
                )?;
                self.check_session(&id, &session).map_err(|broken| broken_by(table, broken))?;
                canonical(table, &session, value)?;
                self.tables.load_session(&id, session, (key, value));
                Ok(())
            }
            rows::CLIENTS => {
                let client = rows::decode_client_key(key)?;
                let header: rows::ClientHeader = rows::decode(table, value)?;
                in_range(table, &[("client", client.0), ("client.deadline_ms", header.deadline_ms)])?;
                if self.tables.nonces.contains_key(&header.nonce) || self.tables.clients.contains_key(&client) {
                    return Err(contradiction);
                }
                self.check_client(client).map_err(|broken| broken_by(table, broken))?;
                canonical(table, &header, value)?;
                self.tables.load_client(client, header, (key, value));
                Ok(())
            }
            rows::OUTCOMES if mutant::is(Mutant::DedupNotInSnapshot) => Ok(()),
            rows::OUTCOMES => {
                let (client, sequence) = rows::decode_outcome_key(key)?;
                let outcome: Outcome = rows::decode(table, value)?;
                in_range(table, &[("outcome.revision", outcome.revision.0)])?;
                let row = self.tables.clients.get(&client).ok_or_else(|| contradiction.clone())?;
                if row.outcomes.contains_key(&sequence) {
                    return Err(contradiction);
                }
                self.check_outcome(client, &row.header, sequence, &outcome).map_err(|broken| broken_by(table, broken))?;
                canonical(table, &outcome, value)?;
                self.tables.load_outcome(client, sequence, outcome, (key, value));
                let weight = self.tables.clients.get(&client).map_or(0, |row| row.weight);
                self.check_weight(client, weight).map_err(|broken| broken_by(table, broken))
            }
            rows::TOMBSTONES => self.take_tombstone(key, value),
            rows::LEASES => self.take_lease(key, value),
            rows::HEADS | rows::CHUNKS => Ok(()),
            _ => Err(rows::Error { table, problem: Problem::Table }),
        }
    }

    fn take_tombstone(&mut self, key: &Bytes, value: &Bytes) -> Result<(), rows::Error> {
        let table = rows::TOMBSTONES;
        let id = rows::decode_session_key(table, key)?;
        let tombstone: Tombstone = rows::decode(table, value)?;
        in_range(table, &[("tombstone.version", tombstone.version.0), ("tombstone.deadline_ms", tombstone.deadline_ms)])?;
        canonical(table, &tombstone, value)?;
        if self.tables.sessions.contains_key(&id) || self.tables.tombstones.contains_key(&id) {
            return Err(rows::Error { table, problem: Problem::Contradiction });
        }
        self.tables.load_tombstone(&id, tombstone, (key, value));
        Ok(())
    }

    fn take_lease(&mut self, key: &Bytes, value: &Bytes) -> Result<(), rows::Error> {
        let table = rows::LEASES;
        let id = rows::decode_session_key(table, key)?;
        let lease: Lease = rows::decode(table, value)?;
        in_range(table, &[("lease.fence", lease.fence.0), ("lease.deadline_ms", lease.deadline_ms)])?;
        if self.tables.leases.contains_key(&id) {
            return Err(rows::Error { table, problem: Problem::Contradiction });
        }
        self.check_lease(&id, &lease).map_err(|broken| broken_by(table, broken))?;
        canonical(table, &lease, value)?;
        self.tables.load_lease(&id, lease, (key, value));
        Ok(())
    }

    fn take_global(&mut self, key: &Bytes, value: &Bytes) -> Result<(), rows::Error> {
        if *key != rows::global_key() {
            return Err(rows::Error { table: rows::GLOBAL, problem: Problem::Key });
        }
        let global = rows::decode_global(value)?;
        let LogId { term, node, index } = global.applied.unwrap_or_default();
        in_range(
            rows::GLOBAL,
            &[("applied.term", term), ("applied.node", node.0), ("applied.index", index), ("now_ms", global.now_ms)],
        )?;
        let version = global.cluster_version;
        let known = rules(version).ok_or(rows::Error { table: rows::GLOBAL, problem: Problem::ClusterVersion { version } })?;
        (self.applied, self.now_ms) = (global.applied, global.now_ms);
        (self.cluster_version, self.rules) = (version, known);
        Ok(())
    }
}

/// Checks the numbers of a row. The closed sequences of a client are its own choice, and only compared. Errors: the first number that no
/// machine counts to.
fn in_range(table: u8, numbers: &[(&'static str, u64)]) -> Result<(), rows::Error> {
    let all = numbers.iter().try_for_each(|(field, number)| bounded(field, *number).map(drop));
    all.map_err(|error| rows::Error { table, problem: Problem::OutOfRange(error) })
}

fn broken_by(table: u8, broken: Broken) -> rows::Error {
    rows::Error { table, problem: Problem::Invariant(broken) }
}

/// Numbers have shorter and longer encodings of one value, nothing else has: a row that decodes is ours iff it is as short as ours. Its
/// format was compared when it was decoded.
fn canonical<T: Encode>(table: u8, value: &T, row: &Bytes) -> Result<(), rows::Error> {
    let (found, canonical) = (row.len(), codec::row_bytes(value));
    let problem = Problem::NotCanonical { found, canonical };
    (found == canonical).then_some(()).ok_or(rows::Error { table, problem })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::NUMBER_MAX;
    use crate::machine::rows::{ClientHeader, Global};
    use crate::types::{ClientId, NodeId, Nonce, Revision, Sequence, SessionId, Verdict, Version};

    fn build(rows: Vec<(u8, Bytes, Bytes)>) -> Result<Machine, rows::Error> {
        Machine::from_rows(rows.into_iter().map(Ok))
    }

    fn global(change: impl Fn(&mut Global)) -> (u8, Bytes, Bytes) {
        let applied = Some(LogId { term: 1, node: NodeId(1), index: 9 });
        let mut global = Global { applied, now_ms: 5, cluster_version: 1 };
        change(&mut global);
        (rows::GLOBAL, rows::global_key(), rows::encode_global(&global))
    }

    fn session(change: impl Fn(&mut Session)) -> (u8, Bytes, Bytes) {
        let mut session =
            Session { create_revision: Revision(3), mod_revision: Revision(4), version: Version(1), ..Session::default() };
        change(&mut session);
        (rows::SESSIONS, rows::session_key(&SessionId::new("s").expect("short")), rows::encode(&session))
    }

    /// Of each row of the tables in memory, each number that a machine computes with.
    #[test]
    fn a_row_with_a_number_out_of_range_is_none_by_its_field() {
        let above = NUMBER_MAX + 1;
        let applied =
            |change: fn(&mut LogId, u64)| global(move |global| change(global.applied.as_mut().expect("set above"), NUMBER_MAX + 1));
        let client = |header: ClientHeader| (rows::CLIENTS, rows::client_key(ClientId(2)), rows::encode(&header));
        let header = ClientHeader { nonce: Nonce([1; 16]), acknowledged_below: Sequence(1), deadline_ms: 1 };
        let outcome = Outcome { revision: Revision(above), verdict: Verdict::TooManySessions };
        let tombstone = |tombstone: Tombstone| {
            (rows::TOMBSTONES, rows::session_key(&SessionId::new("t").expect("short")), rows::encode(&tombstone))
        };
        let plain = || global(|_| {});
        build(vec![plain(), session(|session| session.deadline_ms = Some(NUMBER_MAX)), client(header)]).expect("within");
        for (field, rows) in [
            ("applied.term", vec![applied(|id, above| id.term = above)]),
            ("applied.node", vec![applied(|id, above| id.node = NodeId(above))]),
            ("applied.index", vec![applied(|id, above| id.index = above)]),
            ("now_ms", vec![global(|global| global.now_ms = above)]),
            ("session.version", vec![plain(), session(|session| session.version = Version(above))]),
            ("session.mod_revision", vec![plain(), session(|session| session.mod_revision = Revision(above))]),
            ("session.next_chunk", vec![plain(), session(|session| session.next_chunk = above)]),
            ("session.created_ms", vec![plain(), session(|session| session.created_ms = above)]),
            ("session.updated_ms", vec![plain(), session(|session| session.updated_ms = above)]),
            ("session.deadline_ms", vec![plain(), session(|session| session.deadline_ms = Some(above))]),
            ("client.deadline_ms", vec![plain(), client(ClientHeader { deadline_ms: above, ..header })]),
            (
                "outcome.revision",
                vec![
                    plain(),
                    client(header),
                    (rows::OUTCOMES, rows::outcome_key(ClientId(2), Sequence(1)), rows::encode(&outcome)),
                ],
            ),
            ("tombstone.version", vec![plain(), tombstone(Tombstone { version: Version(above), deadline_ms: 1 })]),
            ("tombstone.deadline_ms", vec![plain(), tombstone(Tombstone { version: Version(1), deadline_ms: above })]),
        ] {
            let Err(error) = build(rows) else { panic!("{field} is taken") };
            let error = error.to_string();
            let expected = format!("a number is out of range field={field} value={above} limit={NUMBER_MAX}");
            assert!(error.ends_with(&expected), "{error}");
        }
    }
}
