//! Writes that were given up: their callers heard that nobody knows how they ended, and until the cluster has it from this client, each
//! may still happen, over what others stored meanwhile. This says what to send for them (L9). Pure.

use std::collections::BTreeMap;

use super::window::RequestWindow;
use crate::types::{Expected, Request, Sequence, SessionId, Write};

/// The next message for a write that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Say {
    /// That every sequence below is closed.
    Closed(Sequence),
    /// A write that changes nothing, under the sequence of one that can't be called closed yet, since an older one is open: what is
    /// executed first under a sequence is all that ever happens under it.
    Settle(Write),
}

/// The writes that were given up and may still happen. At most one more than may be open.
#[derive(Debug, Default)]
pub(crate) struct GivenUp(BTreeMap<Sequence, (Request, SessionId)>);

impl GivenUp {
    /// This write of the client in `table` was given up.
    pub fn note(&mut self, request: Request, id: SessionId, table: &RequestWindow) {
        self.forget_others(table);
        self.0.insert(request.sequence, (request, id));
        // Of those that one word closes the last stands for all.
        let below = self.0.range(..table.acknowledged_below()).next_back().map(|(sequence, _)| *sequence);
        if let Some(last) = below {
            self.0 = self.0.split_off(&last);
        }
    }

    /// Whether nothing that was given up can still happen, as far as this client knows.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next message; `None`: nothing is to be sent.
    pub fn next(&mut self, table: &RequestWindow) -> Option<Say> {
        self.forget_others(table);
        let (sequence, (request, id)) = self.0.first_key_value()?;
        let closed = table.acknowledged_below();
        Some(if *sequence < closed {
            Say::Closed(closed)
        } else {
            let request = Request { acknowledged_below: closed, ..*request };
            Say::Settle(Write::Delete { request, id: id.clone(), expected: Some(Expected::Absent), fence: None })
        })
    }

    /// The cluster has it.
    pub fn on_answer(&mut self, said: &Say) {
        match said {
            Say::Closed(below) => self.0 = self.0.split_off(below),
            Say::Settle(write) => drop(write.request().and_then(|request| self.0.remove(&request.sequence))),
        }
    }

    /// Another client is open, or none: what an earlier one gave up can't be closed by it.
    fn forget_others(&mut self, table: &RequestWindow) {
        self.0.retain(|_, (request, _)| table.is_ours(request));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClientId, Nonce};

    fn id(text: &str) -> SessionId {
        SessionId::new(text).expect("valid")
    }

    /// A table with so many open writes.
    fn open(count: usize) -> (RequestWindow, Vec<Request>) {
        let mut table = RequestWindow::new(Nonce([1; 16]));
        table.on_opened(ClientId(40));
        let requests = (0..count).map(|_| table.take().expect("room")).collect();
        (table, requests)
    }

    fn settle(request: Request, session: &str, closed: Sequence) -> Say {
        let request = Request { acknowledged_below: closed, ..request };
        Say::Settle(Write::Delete { request, id: id(session), expected: Some(Expected::Absent), fence: None })
    }

    #[test]
    fn one_word_closes_all_below_what_is_open() {
        let (mut table, requests) = open(4);
        let mut given_up = GivenUp::default();
        for request in &requests[..3] {
            table.close(request);
            given_up.note(*request, id("s"), &table);
        }
        assert_eq!(given_up.0.len(), 1, "the last stands for all");
        let said = given_up.next(&table).expect("not heard yet");
        assert_eq!(said, Say::Closed(requests[3].sequence));
        assert_eq!(given_up.next(&table), Some(said.clone()), "until it is heard");
        given_up.on_answer(&said);
        assert_eq!((given_up.next(&table), given_up.is_empty()), (None, true));
    }

    #[test]
    fn one_above_an_open_write_is_settled_by_itself() {
        let (mut table, requests) = open(4);
        let mut given_up = GivenUp::default();
        for (request, session) in [(1, "b"), (2, "c")] {
            table.close(&requests[request]);
            given_up.note(requests[request], id(session), &table);
        }
        for (request, session) in [(1, "b"), (2, "c")] {
            let said = given_up.next(&table).expect("not heard yet");
            assert_eq!(said, settle(requests[request], session, requests[0].sequence));
            given_up.on_answer(&said);
        }
        assert!(given_up.is_empty());
    }

    #[test]
    fn what_was_open_is_closed_with_the_rest_and_another_client_closes_nothing() {
        let (mut table, requests) = open(3);
        let mut given_up = GivenUp::default();
        table.close(&requests[1]);
        given_up.note(requests[1], id("b"), &table);
        table.close(&requests[0]);
        given_up.note(requests[0], id("a"), &table);
        assert_eq!(given_up.next(&table), Some(Say::Closed(requests[2].sequence)));
        table.forget(ClientId(40), Nonce([2; 16]));
        assert_eq!((given_up.next(&table), given_up.is_empty()), (None, true));
    }
}
