//! The live entries: where each lies, and the newest ones themselves. Pure; 32 bytes per entry besides the tail.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Record;
use super::frame::{Place, frame_bytes};
use super::head::Head;
use crate::types::{LogId, NodeId};

/// Set in [`Slot::place`] while the entry is in memory only; the other bits are its sequence then.
const UNSYNCED: u64 = 1 << 63;

/// Where one live entry is.
#[derive(Clone, Copy, Debug)]
struct Slot {
    term: u64,
    node: NodeId,
    /// The segment, or [`UNSYNCED`] and the number of the append.
    place: u64,
    offset: u32,
    payload_bytes: u32,
}

/// A stored entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub id: LogId,
    pub place: Place,
    pub bytes: u32,
}

/// The log as appended, which may be ahead of the disk.
#[derive(Default)]
pub(super) struct Live {
    head: Head,
    /// One per index of `head.first..=head.last`.
    slots: VecDeque<Slot>,
    /// The last entries, without a hole. Every unsynced one is here.
    tail: VecDeque<Record>,
    tail_bytes: u64,
    bytes: u64,
}

impl Live {
    /// The log as recovered: `slots` in order, from `head.first`.
    pub fn recovered(head: Head, stored: Vec<Stored>) -> Self {
        let mut live = Self::default();
        for Stored { id, place, bytes } in stored {
            live.bytes += u64::from(bytes);
            // The payload's length is not kept exactly; the frame's bytes bound it, and the frame itself has it.
            let payload_bytes = bytes - frame_bytes(0);
            live.slots.push_back(Slot { term: id.term, node: id.node, place: place.segment, offset: place.offset, payload_bytes });
        }
        let count = head.last.map_or(0, |last| last.index - head.first + 1);
        assert!(count == live.slots.len() as u64, "a slot per live entry: head={head:?} slots={}", live.slots.len());
        live.head = head;
        live
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Bytes of the live entries as stored.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn set_vote(&mut self, vote: Bytes) {
        self.head.vote = Some(vote);
    }

    /// Adds an entry that is in memory only, under a number that no other append has.
    pub fn append(&mut self, record: Record, sequence: u64) {
        let Record { log_id: id, payload } = &record;
        self.head.append(*id);
        let payload_bytes = payload.len() as u32;
        self.bytes += u64::from(frame_bytes(payload.len()));
        self.tail_bytes += payload.len() as u64;
        self.slots.push_back(Slot { term: id.term, node: id.node, place: UNSYNCED | sequence, offset: 0, payload_bytes });
        self.tail.push_back(record);
    }

    /// Drops the entries above `keep`. The id of the entry that becomes the last is the stored one.
    pub fn truncate(&mut self, keep: Option<LogId>) {
        let known = keep.and_then(|keep| self.log_id(keep.index)).or(keep);
        self.head.truncate(known);
        let kept = self.head.last.map_or(0, |last| last.index - self.head.first + 1);
        while self.slots.len() as u64 > kept {
            if let Some(slot) = self.slots.pop_back() {
                self.bytes -= slot.bytes();
            }
            if let Some(record) = self.tail.pop_back() {
                self.tail_bytes -= record.payload.len() as u64;
            }
        }
    }

    /// Takes the entries up to `upto` out of the log.
    pub fn purge(&mut self, upto: LogId) {
        self.head.purge(upto);
        let kept = self.head.last.map_or(0, |last| last.index - self.head.first + 1);
        while self.slots.len() as u64 > kept {
            if let Some(slot) = self.slots.pop_front() {
                self.bytes -= slot.bytes();
            }
        }
        while self.tail.len() > self.slots.len() {
            self.pop_tail();
        }
    }

    /// Notes that the append numbered `sequence` is synced at `place`. False: it was truncated or purged meanwhile.
    pub fn set_place(&mut self, index: u64, sequence: u64, place: Place) -> bool {
        let Some(slot) = self.position(index).and_then(|at| self.slots.get_mut(at)) else { return false };
        if slot.place != UNSYNCED | sequence {
            return false;
        }
        slot.place = place.segment;
        slot.offset = place.offset;
        true
    }

    /// Forgets the oldest synced payloads above `bytes_max`; the unsynced ones stay whatever they take.
    pub fn evict(&mut self, bytes_max: u64) {
        while self.tail_bytes > bytes_max {
            let oldest = self.slots.len() - self.tail.len();
            if self.slots.get(oldest).is_none_or(|slot| slot.place & UNSYNCED != 0) {
                return;
            }
            self.pop_tail();
        }
    }

    fn pop_tail(&mut self) {
        if let Some(record) = self.tail.pop_front() {
            self.tail_bytes -= record.payload.len() as u64;
        }
    }

    fn position(&self, index: u64) -> Option<usize> {
        self.head.holds(index).then(|| (index - self.head.first) as usize)
    }

    /// The log id of a live entry, or of the last purged one.
    pub fn log_id(&self, index: u64) -> Option<LogId> {
        let live = self.position(index).and_then(|at| self.slots.get(at));
        live.map(|slot| LogId { term: slot.term, node: slot.node, index })
            .or_else(|| self.head.purged.filter(|purged| purged.index == index))
    }

    /// The entry itself, if it is in memory.
    pub fn in_memory(&self, index: u64) -> Option<&Record> {
        let from_tail = self.position(index)?.checked_sub(self.slots.len() - self.tail.len())?;
        self.tail.get(from_tail)
    }

    /// Where a synced live entry lies.
    pub fn stored(&self, index: u64) -> Option<Stored> {
        let slot = self.slots.get(self.position(index)?)?;
        (slot.place & UNSYNCED == 0).then(|| Stored {
            id: LogId { term: slot.term, node: slot.node, index },
            place: Place { segment: slot.place, offset: slot.offset },
            bytes: frame_bytes(slot.payload_bytes as usize),
        })
    }

    /// The oldest entry after which at most `bytes_kept` remain; `None` if that is so already.
    pub fn purge_point(&self, bytes_kept: u64) -> Option<LogId> {
        let mut rest = self.bytes;
        let mut point = None;
        for (slot, index) in self.slots.iter().zip(self.head.first..) {
            if rest <= bytes_kept {
                break;
            }
            rest -= slot.bytes();
            point = Some(LogId { term: slot.term, node: slot.node, index });
        }
        point
    }
}

impl Slot {
    fn bytes(&self) -> u64 {
        u64::from(frame_bytes(self.payload_bytes as usize))
    }
}
