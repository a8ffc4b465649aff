//! The log without its payloads: vote, purged, first and last. Pure; shared by the writer, recovery and readers.

use bytes::Bytes;

use crate::types::LogId;

/// The log after some prefix of its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The latest vote.
    pub vote: Option<Bytes>,
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// Index of the first live entry; meaningless without `last`.
    pub first: u64,
    /// The last live entry; `None`: no entry is live.
    pub last: Option<LogId>,
}

impl Head {
    /// Whether an entry of this index may come next: no holes, nothing below the purged.
    pub fn takes(&self, index: u64) -> bool {
        match (self.last, self.purged) {
            (Some(last), _) => last.index.checked_add(1) == Some(index),
            (None, Some(purged)) => purged.index.checked_add(1) == Some(index),
            (None, None) => true,
        }
    }

    /// Adds an entry. The caller asked [`Head::takes`].
    pub fn append(&mut self, id: LogId) {
        assert!(self.takes(id.index), "log entry out of order: {id} after {:?}, purged {:?}", self.last, self.purged);
        if self.last.is_none() {
            self.first = id.index;
        }
        self.last = Some(id);
    }

    /// Drops everything after `keep`; all live entries, without one or if it is below the first.
    pub fn truncate(&mut self, keep: Option<LogId>) {
        let Some(last) = self.last else { return };
        match keep {
            Some(keep) if keep.index >= last.index => {}
            Some(keep) if keep.index >= self.first => self.last = Some(keep),
            _ => self.last = None,
        }
    }

    /// Drops everything up to and including `upto`, which may lie ahead of the last entry.
    pub fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        self.purged = Some(upto);
        match self.last {
            Some(last) if last.index > upto.index => self.first = self.first.max(upto.index + 1),
            _ => self.last = None,
        }
    }

    /// The last entry, live or purged.
    pub fn last_or_purged(&self) -> Option<LogId> {
        self.last.or(self.purged)
    }

    /// Whether an entry of this index is live.
    pub fn holds(&self, index: u64) -> bool {
        self.last.is_some_and(|last| self.first <= index && index <= last.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;

    fn id(index: u64) -> LogId {
        LogId { term: 1, node: NodeId(1), index }
    }

    #[test]
    fn a_purge_ahead_of_the_last_entry_leaves_a_log_that_goes_on_behind_it() {
        let mut head = Head::default();
        (0..5).for_each(|index| head.append(id(index)));
        head.purge(id(9));
        assert_eq!((head.last, head.last_or_purged()), (None, Some(id(9))));
        assert!(head.takes(10) && !head.takes(5) && !head.takes(11));
    }

    #[test]
    fn truncating_to_the_purged_entry_leaves_nothing_live() {
        let mut head = Head::default();
        (0..5).for_each(|index| head.append(id(index)));
        head.purge(id(2));
        head.truncate(Some(id(3)));
        assert_eq!((head.first, head.last), (3, Some(id(3))));
        head.truncate(Some(id(2)));
        assert_eq!(head.last_or_purged(), Some(id(2)));
        assert!(head.takes(3));
    }
}
