//! The attempts of a node in flight: proposed to Raft or sent to the leader.
//!
//! A call is answered once: by the owner of its answerer. One that outlives its deadline is answered by the caller of
//! [`InFlightTable::expire`]; its entry stays until Raft or the leader is done with it, so that its bytes stay counted.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use super::call::{Call, Operation};
use crate::raft::BytePermit;
use crate::wire::v1;

/// Room that the table keeps while it is empty, in attempts; it needs more only while more are in flight.
const CAPACITY_KEPT: usize = 4096;

/// One forward stream of this process.
pub type LinkId = u64;

/// One attempt of a call.
pub struct InFlight {
    /// `None`: it is answered.
    call: Option<Box<Call>>,
    /// Counts the bytes of a call that is answered, until Raft or the leader is done with it.
    permit: BytePermit,
    /// The forward stream it was sent on; `None`: proposed or read here.
    link: Option<LinkId>,
    /// Frames of a load that is arriving.
    pub frames: Vec<v1::submit_response::Answer>,
    pub frame_bytes: u64,
}

impl InFlight {
    /// The call again; `None` if it was answered meanwhile.
    pub fn into_call(self) -> Option<Box<Call>> {
        self.call
    }
}

/// The attempts in flight, by a key that is never used twice. The key is also the tag on a forward stream.
#[derive(Default)]
pub struct InFlightTable {
    next: u64,
    /// Each operation enters and leaves it once, so it has no order: what wants one sorts the keys.
    open: HashMap<u64, InFlight, BuildHasherDefault<KeyHasher>>,
    links: BTreeSet<LinkId>,
    /// No call that is still to be answered has an earlier deadline.
    earliest: Option<Duration>,
}

/// Spreads keys that are counted up. Nobody outside chooses one.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0 ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, key: u64) {
        // By the golden ratio (Knuth, The Art of Computer Programming, volume 3, 6.4).
        self.0 = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl InFlightTable {
    /// Enters a call before it is given to this node's Raft.
    pub fn enter(&mut self, call: Box<Call>) -> u64 {
        self.insert(call, None)
    }

    /// Enters a call before it is sent on a stream. Errors: the stream is broken, nothing was sent; the call comes back.
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
        let before = self
            .open
            .insert(key, InFlight { call: Some(call), permit: BytePermit::default(), link, frames: Vec::new(), frame_bytes: 0 });
        assert!(before.is_none(), "a key was used twice key={key}");
        key
    }

    /// Takes an attempt out.
    pub fn take(&mut self, key: u64) -> Option<InFlight> {
        let taken = self.open.remove(&key);
        if self.open.is_empty() && self.open.capacity() > CAPACITY_KEPT {
            self.open.shrink_to(CAPACITY_KEPT);
        }
        taken
    }

    /// An attempt that was sent on this stream, while its answer arrives.
    pub fn arriving(&mut self, key: u64, link: LinkId) -> Option<&mut InFlight> {
        self.open.get_mut(&key).filter(|open| open.link == Some(link))
    }

    /// A stream is open.
    pub fn on_link_opened(&mut self, link: LinkId) {
        self.links.insert(link);
    }

    /// A stream is broken: takes out the attempts that were sent on it, oldest first.
    pub fn on_link_broken(&mut self, link: LinkId) -> Vec<InFlight> {
        self.links.remove(&link);
        self.take_all(|open| open.link == Some(link))
    }

    /// Takes out the `wanted`, oldest first.
    fn take_all(&mut self, wanted: impl Fn(&InFlight) -> bool) -> Vec<InFlight> {
        let mut keys: Vec<u64> = self.open.iter().filter(|(_, open)| wanted(open)).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.into_iter().filter_map(|key| self.open.remove(&key)).collect()
    }

    /// Takes out the calls whose deadline has passed and that are still to be answered. Their bytes stay counted.
    pub fn expire(&mut self, now: Duration) -> Vec<Box<Call>> {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return Vec::new();
        }
        let mut expired = Vec::new();
        self.earliest = None;
        for (key, open) in &mut self.open {
            let Some(deadline) = open.call.as_ref().map(|call| call.deadline) else { continue };
            if deadline > now {
                self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
            } else if let Some(mut call) = open.call.take() {
                open.permit = std::mem::take(&mut call.permit);
                expired.push((*key, call));
            }
        }
        expired.sort_unstable_by_key(|(key, _)| *key);
        expired.into_iter().map(|(_, call)| call).collect()
    }

    /// Takes out the `wanted` of those given to this node's Raft, oldest first.
    pub fn take_local(&mut self, wanted: impl Fn(&Operation) -> bool) -> Vec<InFlight> {
        self.take_all(|open| open.link.is_none() && open.call.as_ref().is_some_and(|call| wanted(&call.operation)))
    }

    /// Takes all out, oldest first.
    pub fn drain(&mut self) -> Vec<InFlight> {
        self.links.clear();
        self.take_all(|_| true)
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
    use crate::types::{Load, SessionId};

    fn call(deadline_ms: u64) -> (Box<Call>, mpsc::Receiver<Answer>) {
        let (sender, answers) = mpsc::channel(1);
        let operation = Operation::Load(Load::whole(SessionId::new("s").expect("short")));
        let call = Call {
            operation,
            knows: 1,
            origin: Origin::Client,
            caller: Caller::anyone(),
            connection: None,
            cluster_id: None,
            started: Duration::ZERO,
            deadline: Duration::from_millis(deadline_ms),
            dispatched: None,
            parked_until: None,
            epoch: 0,
            refusal: None,
            answerer: Some(Answerer::new(1, sender.try_reserve_owned().ok().expect("room"))),
            permit: crate::raft::BytePermit::default(),
            share: None,
        };
        (Box::new(call), answers)
    }

    #[test]
    fn an_operation_past_its_deadline_is_answered_once_and_stays_until_it_is_done() {
        let mut table = InFlightTable::default();
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
        let mut table = InFlightTable::default();
        table.on_link_opened(7);
        let here = table.enter(call(1).0);
        let sent = table.enter_link(call(1).0, 7).ok().expect("an open stream");
        assert!(table.take_local(Operation::is_write).is_empty(), "it is a load");
        assert_eq!(table.take_local(|_| true).len(), 1);
        assert!(table.take(here).is_none());
        assert!(table.take(sent).is_some());
    }

    #[test]
    fn a_broken_stream_gives_back_what_was_sent_on_it_and_takes_nothing_more() {
        let mut table = InFlightTable::default();
        table.on_link_opened(7);
        table.on_link_opened(8);
        table.enter(call(1).0);
        let lost = table.enter_link(call(1).0, 7).ok().expect("an open stream");
        let kept = table.enter_link(call(1).0, 8).ok().expect("an open stream");
        assert_eq!(table.on_link_broken(7).len(), 1);
        assert!(table.take(lost).is_none());
        assert!(table.arriving(kept, 8).is_some());
        assert!(table.arriving(kept, 7).is_none(), "an answer counts only on the stream it was asked on");
        assert!(table.enter_link(call(1).0, 7).is_err());
    }
}
