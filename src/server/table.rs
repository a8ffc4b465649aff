//! The open operations of a node: those handed to Raft or sent to the leader, and not yet settled.
//!
//! An operation is settled once: the taker of its answerer gives the answer. One that outlives its deadline is answered by
//! [`Table::expire`]'s caller, and its place stays until Raft or the leader is done with it, so that its bytes stay counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::call::{Call, Operation};
use crate::raft::Charge;
use crate::wire::v1;

/// One forward stream of this process.
pub type LinkId = u64;

/// An open operation.
pub struct Open {
    /// `None`: it is answered.
    call: Option<Box<Call>>,
    /// What an answered one counts for, until nothing holds it any more.
    charge: Charge,
    /// The forward stream it was sent on; `None`: handed to this node's Raft.
    link: Option<LinkId>,
    /// Frames of a load that is arriving.
    pub frames: Vec<v1::submit_response::Answer>,
    pub frame_bytes: u64,
}

impl Open {
    /// The call again; `None` if it was answered meanwhile.
    pub fn into_call(self) -> Option<Box<Call>> {
        self.call
    }
}

/// The open operations, by a key that is never used twice. The key is also the tag on a forward stream.
#[derive(Default)]
pub struct Table {
    next: u64,
    open: BTreeMap<u64, Open>,
    links: BTreeSet<LinkId>,
    /// No operation that is still to be answered has an earlier deadline.
    earliest: Option<Duration>,
}

impl Table {
    /// Enters an operation before it is handed to this node's Raft.
    pub fn enter(&mut self, call: Box<Call>) -> u64 {
        self.insert(call, None)
    }

    /// Enters an operation before it is sent on a stream. Errors: the stream is broken, nothing was sent; the call comes back.
    pub fn enter_link(&mut self, call: Box<Call>, link: LinkId) -> Result<u64, Box<Call>> {
        if !self.links.contains(&link) {
            return Err(call);
        }
        Ok(self.insert(call, Some(link)))
    }

    fn insert(&mut self, call: Box<Call>, link: Option<LinkId>) -> u64 {
        let key = self.next;
        self.next += 1;
        self.earliest = Some(self.earliest.map_or(call.deadline, |earliest| earliest.min(call.deadline)));
        let before =
            self.open.insert(key, Open { call: Some(call), charge: Charge::default(), link, frames: Vec::new(), frame_bytes: 0 });
        assert!(before.is_none(), "a key was used twice key={key}");
        key
    }

    /// Takes an operation out.
    pub fn take(&mut self, key: u64) -> Option<Open> {
        self.open.remove(&key)
    }

    /// An operation that was sent on a stream, while its answer arrives.
    pub fn arriving(&mut self, key: u64, link: LinkId) -> Option<&mut Open> {
        self.open.get_mut(&key).filter(|open| open.link == Some(link))
    }

    /// A stream is open.
    pub fn link_opened(&mut self, link: LinkId) {
        self.links.insert(link);
    }

    /// A stream is broken; all that was sent on it, oldest first.
    pub fn link_broke(&mut self, link: LinkId) -> Vec<Open> {
        self.links.remove(&link);
        let keys: Vec<u64> = self.open.iter().filter(|(_, open)| open.link == Some(link)).map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|key| self.open.remove(&key)).collect()
    }

    /// Takes out the operations whose deadline has passed and that are still to be answered. Their bytes stay counted.
    pub fn expire(&mut self, now: Duration) -> Vec<Box<Call>> {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return Vec::new();
        }
        let mut expired = Vec::new();
        self.earliest = None;
        for open in self.open.values_mut() {
            let Some(deadline) = open.call.as_ref().map(|call| call.deadline) else { continue };
            if deadline > now {
                self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
            } else if let Some(mut call) = open.call.take() {
                open.charge = std::mem::take(&mut call.charge);
                expired.push(call);
            }
        }
        expired
    }

    /// Takes out what was handed to this node's Raft and is `wanted`, oldest first.
    pub fn take_local(&mut self, wanted: impl Fn(&Operation) -> bool) -> Vec<Open> {
        let is_wanted = |open: &Open| open.link.is_none() && open.call.as_ref().is_some_and(|call| wanted(&call.operation));
        let keys: Vec<u64> = self.open.iter().filter(|(_, open)| is_wanted(open)).map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|key| self.open.remove(&key)).collect()
    }

    /// Takes all out, oldest first.
    pub fn drain(&mut self) -> Vec<Open> {
        self.links.clear();
        std::mem::take(&mut self.open).into_values().collect()
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::super::auth::Caller;
    use super::super::call::{Answer, Answerer, Origin};
    use super::*;
    use crate::types::{Consistency, Load, SessionId};

    fn call(deadline_ms: u64) -> (Box<Call>, mpsc::Receiver<Answer>) {
        let (sender, answers) = mpsc::channel(1);
        let operation =
            Operation::Load(Load { id: SessionId::new("s").expect("short"), have: None, consistency: Consistency::Linearizable });
        let call = Call {
            operation,
            origin: Origin::Client,
            caller: Caller::anyone(),
            connection: None,
            cluster_id: None,
            started: Duration::ZERO,
            deadline: Duration::from_millis(deadline_ms),
            handed: None,
            parked_until: None,
            epoch: 0,
            refusal: None,
            answerer: Some(Answerer::new(1, sender.try_reserve_owned().ok().expect("room"))),
            charge: crate::raft::Charge::default(),
            share: None,
        };
        (Box::new(call), answers)
    }

    #[test]
    fn an_operation_past_its_deadline_is_answered_once_and_stays_until_it_is_done() {
        let mut table = Table::default();
        let key = table.enter(call(100).0);
        table.enter(call(200).0);
        assert!(table.expire(Duration::from_millis(99)).is_empty());
        assert_eq!(table.expire(Duration::from_millis(100)).len(), 1);
        assert!(table.expire(Duration::from_millis(150)).is_empty());
        assert_eq!(table.len(), 2);
        assert!(table.take(key).expect("it stays").into_call().is_none(), "it was answered");
        assert_eq!(table.expire(Duration::from_millis(200)).len(), 1);
    }

    #[test]
    fn what_waits_for_this_nodes_raft_is_kept_apart_from_what_was_sent_on() {
        let mut table = Table::default();
        table.link_opened(7);
        let here = table.enter(call(1).0);
        let sent = table.enter_link(call(1).0, 7).ok().expect("an open stream");
        assert!(table.take_local(Operation::is_write).is_empty(), "it is a load");
        assert_eq!(table.take_local(|_| true).len(), 1);
        assert!(table.take(here).is_none());
        assert!(table.take(sent).is_some());
    }

    #[test]
    fn a_broken_stream_gives_back_what_was_sent_on_it_and_takes_nothing_more() {
        let mut table = Table::default();
        table.link_opened(7);
        table.link_opened(8);
        table.enter(call(1).0);
        let lost = table.enter_link(call(1).0, 7).ok().expect("an open stream");
        let kept = table.enter_link(call(1).0, 8).ok().expect("an open stream");
        assert_eq!(table.link_broke(7).len(), 1);
        assert!(table.take(lost).is_none());
        assert!(table.arriving(kept, 8).is_some());
        assert!(table.arriving(kept, 7).is_none(), "an answer counts only on the stream it was asked on");
        assert!(table.enter_link(call(1).0, 7).is_err());
    }
}
