//! The bound of every number that counts: terms, indexes, revisions, versions, node ids, times.
//!
//! Each decoder asks [`bounded`] where bytes come in, of a peer's message, a row, a backup, an identity or a record of the log, before
//! anything computes with the number: below the bound no sum of two overflows, and no count reaches it.

use std::fmt;
use std::io;

use super::LogId;
use crate::limits::NUMBER_MAX;

/// A number that none of ours can be. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// The field that was to hold it.
    pub field: &'static str,
    /// The number.
    pub value: u64,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number is out of range field={} value={} limit={NUMBER_MAX}", self.field, self.value)
    }
}

impl std::error::Error for OutOfRange {}

impl From<OutOfRange> for io::Error {
    fn from(error: OutOfRange) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The number, if it is within [`NUMBER_MAX`].
pub fn bounded(field: &'static str, value: u64) -> Result<u64, OutOfRange> {
    if value <= NUMBER_MAX { Ok(value) } else { Err(OutOfRange { field, value }) }
}

impl LogId {
    /// The log id, if term, node and index are within [`NUMBER_MAX`].
    pub fn bounded(self) -> Result<Self, OutOfRange> {
        bounded("log_id.term", self.term)?;
        bounded("log_id.node", self.node.0)?;
        bounded("log_id.index", self.index)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;

    #[test]
    fn a_number_above_the_bound_is_refused_by_its_field_and_both_sides() {
        assert_eq!(bounded("term", NUMBER_MAX), Ok(NUMBER_MAX));
        let above = bounded("term", NUMBER_MAX + 1).expect_err("one above");
        assert_eq!(above.to_string(), "a number is out of range field=term value=4611686018427387905 limit=4611686018427387904");
        for (field, id) in [
            ("log_id.term", LogId { term: u64::MAX, ..LogId::default() }),
            ("log_id.node", LogId { node: NodeId(u64::MAX), ..LogId::default() }),
            ("log_id.index", LogId { index: u64::MAX, ..LogId::default() }),
        ] {
            assert_eq!(id.bounded(), Err(OutOfRange { field, value: u64::MAX }));
        }
    }
}
