//! This process's row of the replicated client table: its id, its nonce, and which of its writes are open (Raft dissertation §6.3).
//!
//! The driver owns the one table, so taking a sequence, entering it in the open set and computing `acknowledged_below` are one step: a
//! sequence can never be called closed while a write that has it is still to be sent (L6).

use std::collections::BTreeSet;

use crate::limits::OPEN_WRITES_MAX;
use crate::types::{ClientId, ClusterId, Nonce, Request, Sequence};

/// The sequences of one client: open ones, closed ones, and the next.
#[derive(Debug)]
pub(crate) struct RequestWindow {
    cluster: Option<ClusterId>,
    nonce: Nonce,
    client: Option<ClientId>,
    /// The newest cluster version that an answer of the cluster said is in force.
    in_force: u16,
    next: u64,
    /// Sequences taken and not closed.
    open: BTreeSet<u64>,
}

impl RequestWindow {
    /// No client yet; it is to be opened with `nonce`.
    pub fn new(nonce: Nonce) -> Self {
        Self { cluster: None, nonce, client: None, in_force: 1, next: 1, open: BTreeSet::new() }
    }

    /// The cluster all this is valid for, once a node said so.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// A node said which cluster it is. The first one counts; a caller that finds another one [forgets](Self::forget_cluster) first.
    pub fn learn(&mut self, cluster: ClusterId) {
        self.cluster.get_or_insert(cluster);
    }

    /// The newest cluster version that the cluster is known to be at. It never goes back.
    pub fn in_force(&self) -> u16 {
        self.in_force
    }

    /// An answer of this cluster said which version is in force.
    pub fn hear(&mut self, version: u16) {
        self.in_force = self.in_force.max(version);
    }

    /// The nonce to open, keep and close the client with.
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    /// The open client.
    pub fn client(&self) -> Option<ClientId> {
        self.client
    }

    /// The client is open.
    pub fn on_opened(&mut self, client: ClientId) {
        self.client = Some(client);
    }

    /// Takes the next sequence. `None` while no client is open, or while the window is full.
    pub fn take(&mut self) -> Option<Request> {
        let client = self.client?;
        if self.next >= self.acknowledged_below().0 + OPEN_WRITES_MAX {
            return None;
        }
        let sequence = Sequence(self.next);
        self.open.insert(self.next);
        self.next += 1;
        let request = Request { client, nonce: self.nonce, sequence, acknowledged_below: self.acknowledged_below() };
        assert!(request.acknowledged_below <= sequence, "an open sequence was called closed sequence={sequence}");
        Some(request)
    }

    /// Every sequence below is closed.
    pub fn acknowledged_below(&self) -> Sequence {
        Sequence(self.open.first().copied().unwrap_or(self.next))
    }

    /// Whether every sequence below that of an open request is closed: closing this one lets `acknowledged_below` pass it.
    pub fn is_oldest(&self, request: &Request) -> bool {
        !self.is_ours(request) || self.acknowledged_below() == request.sequence
    }

    /// The sequence that is taken next.
    pub fn next(&self) -> Sequence {
        Sequence(self.next)
    }

    /// The request for another attempt, with the sequences closed by now. A request of an earlier client stays as it is.
    pub fn refresh(&self, request: Request) -> Request {
        let ours = self.is_ours(&request);
        Request { acknowledged_below: if ours { self.acknowledged_below() } else { request.acknowledged_below }, ..request }
    }

    /// The final outcome of a request was received, or its caller learned that there is none.
    pub fn close(&mut self, request: &Request) {
        if self.is_ours(request) {
            let was_open = self.open.remove(&request.sequence.0);
            assert!(was_open, "a sequence was closed twice sequence={}", request.sequence);
        }
    }

    /// The cluster does not know this client: the next one is opened with `nonce`. Nothing happens if it is not ours any more.
    pub fn forget(&mut self, client: ClientId, nonce: Nonce) {
        if self.client == Some(client) {
            *self = Self { cluster: self.cluster, in_force: self.in_force, ..Self::new(nonce) };
        }
    }

    /// This is another cluster: nothing of the old one means anything here.
    pub fn forget_cluster(&mut self, nonce: Nonce) {
        *self = Self::new(nonce);
    }

    /// Whether it is of the client that is open now.
    pub fn is_ours(&self, request: &Request) -> bool {
        self.client == Some(request.client) && self.nonce == request.nonce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> RequestWindow {
        let mut table = RequestWindow::new(Nonce([1; 16]));
        table.on_opened(ClientId(40));
        table
    }

    #[test]
    fn no_sequence_is_taken_before_the_client_is_open() {
        assert_eq!(RequestWindow::new(Nonce([1; 16])).take(), None);
        assert_eq!(open().take().expect("open").sequence, Sequence(1));
    }

    #[test]
    fn acknowledged_below_is_the_smallest_open_sequence() {
        let mut table = open();
        let requests: Vec<_> = (0..3).map(|_| table.take().expect("room")).collect();
        assert_eq!(table.acknowledged_below(), Sequence(1));
        table.close(&requests[1]);
        assert_eq!(table.acknowledged_below(), Sequence(1));
        table.close(&requests[0]);
        assert_eq!(table.acknowledged_below(), Sequence(3));
        assert_eq!(table.refresh(requests[2]).acknowledged_below, Sequence(3));
        table.close(&requests[2]);
        assert_eq!(table.acknowledged_below(), Sequence(4));
    }

    #[test]
    fn the_window_fills_at_its_bound_and_opens_with_the_oldest() {
        let mut table = open();
        let requests: Vec<_> = (0..OPEN_WRITES_MAX).map(|_| table.take().expect("room")).collect();
        assert_eq!(table.take(), None);
        table.close(&requests[5]);
        assert_eq!(table.take(), None, "the oldest is still open");
        table.close(&requests[0]);
        assert_eq!(table.take().expect("room again").sequence, Sequence(OPEN_WRITES_MAX + 1));
    }

    #[test]
    fn a_forgotten_client_starts_again_and_its_old_requests_touch_nothing() {
        let mut table = open();
        let old = table.take().expect("room");
        table.hear(2);
        table.hear(1);
        table.forget(ClientId(40), Nonce([2; 16]));
        assert_eq!((table.client(), table.nonce()), (None, Nonce([2; 16])));
        assert_eq!(table.in_force(), 2, "the cluster is the same");
        table.on_opened(ClientId(90));
        let new = table.take().expect("room");
        assert_eq!((new.client, new.sequence), (ClientId(90), Sequence(1)));
        table.close(&old);
        assert_eq!(table.acknowledged_below(), Sequence(1));
        table.forget(ClientId(40), Nonce([3; 16]));
        assert_eq!(table.client(), Some(ClientId(90)));
        table.forget_cluster(Nonce([4; 16]));
        assert_eq!(table.in_force(), 1, "another cluster may be at version 1");
    }
}
