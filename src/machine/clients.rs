//! The client table: who may write, and which answer a repeated request gets (Raft dissertation §6.3; laws L1, L2).

use super::Machine;
use super::rows::{ClientHeader, Effects};
use super::session::Moment;
use crate::mutant::{self, Mutant};
use crate::types::{ClientId, Nonce, Outcome, Request, Sequence, Verdict};

/// The first sequence a client may use.
const SEQUENCE_FIRST: Sequence = Sequence(1);

/// The decision about a request.
pub(super) enum Admission {
    /// The request is new: execute it, and record its outcome if that is an answer.
    Execute,
    /// Answer this and execute nothing: the recorded outcome, or why not.
    Answer(Outcome),
}

impl Machine {
    /// Judges client, nonce and sequence of a request, keeps the client alive, and closes what it says is closed. A wrong nonce is
    /// `ClientUnknown` (L1), a closed sequence `Stale` (L2): neither executes anything. Nor does one whose outcome may count for more than
    /// there is room for, among its client's or in all.
    pub(super) fn admit(&mut self, request: &Request, weight: u64, moment: Moment, effects: &mut Effects) -> Admission {
        let answer = |verdict| Admission::Answer(Outcome { revision: moment.revision, verdict });
        let Some(header) = self.touch(request.client, request.nonce, request.acknowledged_below, moment, effects) else {
            return answer(Verdict::ClientUnknown);
        };
        let open_until = header.acknowledged_below.0.saturating_add(self.rules.open_writes_max);
        if request.sequence < header.acknowledged_below && !mutant::is(Mutant::ClosedExecuted) {
            return answer(Verdict::Stale);
        }
        if request.sequence.0 >= open_until {
            if mutant::is(Mutant::WindowExceededRecorded) {
                let outcome = Outcome { revision: moment.revision, verdict: Verdict::WindowExceeded };
                self.tables.put_outcome(request.client, request.sequence, outcome);
            }
            return answer(Verdict::WindowExceeded);
        }
        let client = self.tables.clients.get(&request.client);
        if let Some(outcome) = client.and_then(|client| client.outcomes.get(&request.sequence)) {
            return Admission::Answer(outcome.value.clone());
        }
        let of_client = client.map_or(0, |client| client.weight).saturating_add(weight);
        if of_client > self.rules.open_writes_max || self.tables.outcomes.saturating_add(weight) > self.rules.outcomes_max {
            return answer(Verdict::Busy);
        }
        Admission::Execute
    }

    /// Moves a client's deadline and closes its sequences. `None`: there is no such client at machine time, or the nonce is wrong.
    fn touch(
        &mut self,
        client: ClientId,
        nonce: Nonce,
        acknowledged_below: Sequence,
        moment: Moment,
        effects: &mut Effects,
    ) -> Option<ClientHeader> {
        let old = self.live_client(client, nonce, moment)?;
        let header = ClientHeader {
            nonce,
            acknowledged_below: old.acknowledged_below.max(acknowledged_below),
            deadline_ms: moment.now_ms.saturating_add(self.rules.client_idle_ttl_ms),
        };
        // Writes that were proposed together say the same: a row as it is already needs no other.
        if header != old {
            self.tables.put_client(client, header, effects);
        }
        Some(header)
    }

    /// By machine time alone (L14), and only with its nonce (L1).
    fn live_client(&self, client: ClientId, nonce: Nonce, moment: Moment) -> Option<ClientHeader> {
        let header = self.tables.clients.get(&client)?.header;
        let is_same = header.nonce == nonce || mutant::is(Mutant::WrongNonce);
        (is_same && header.deadline_ms > moment.now_ms).then_some(header)
    }

    /// Opens a client. A repeated nonce gives the same client, so that a lost answer costs no row.
    pub(super) fn open_client(&mut self, nonce: Nonce, moment: Moment, effects: &mut Effects) -> Verdict {
        if let Some(client) = self.tables.nonces.get(&nonce).copied() {
            if self.touch(client, nonce, SEQUENCE_FIRST, moment, effects).is_some() {
                return Verdict::ClientOpened { client };
            }
            self.tables.remove_client(client, effects);
        }
        if self.tables.clients.len() as u64 >= self.rules.clients_max {
            return Verdict::TooManyClients;
        }
        let client = ClientId(moment.revision.0);
        let deadline_ms = moment.now_ms.saturating_add(self.rules.client_idle_ttl_ms);
        self.tables.put_client(client, ClientHeader { nonce, acknowledged_below: SEQUENCE_FIRST, deadline_ms }, effects);
        Verdict::ClientOpened { client }
    }

    pub(super) fn keep_alive(
        &mut self,
        client: ClientId,
        nonce: Nonce,
        acknowledged_below: Sequence,
        moment: Moment,
        effects: &mut Effects,
    ) -> Verdict {
        if mutant::is(Mutant::KeptClientExpires) && self.live_client(client, nonce, moment).is_some() {
            return Verdict::ClientKept;
        }
        match self.touch(client, nonce, acknowledged_below, moment, effects) {
            Some(_) => Verdict::ClientKept,
            None => Verdict::ClientUnknown,
        }
    }

    pub(super) fn close_client(&mut self, client: ClientId, nonce: Nonce, moment: Moment, effects: &mut Effects) -> Verdict {
        if self.live_client(client, nonce, moment).is_none() {
            return Verdict::ClientUnknown;
        }
        self.tables.remove_client(client, effects);
        Verdict::ClientClosed
    }
}
