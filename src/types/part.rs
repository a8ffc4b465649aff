//! The part of a session that a load asks for, and which items that is.

use std::ops::Range;

use crate::limits::SESSION_ITEMS_MAX;

/// The part of a session that a load asks for. Items are counted from 0, the oldest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Everything.
    #[default]
    Whole,
    /// The metadata alone.
    Info,
    /// The metadata and the head, without items.
    Head,
    /// The head and the last so many items, 1 to [`SESSION_ITEMS_MAX`]; all there are, if there are fewer.
    Last(u64),
    /// The head and at most `limit` items, 1 to [`SESSION_ITEMS_MAX`], from number `item` on; none, if there are not so many.
    From {
        /// The number of the first.
        item: u64,
        /// Most items.
        limit: u64,
    },
}

impl Part {
    /// Whether it holds the head.
    pub fn has_head(self) -> bool {
        self != Self::Info
    }

    /// The items it holds of a session that has so many; half-open, and empty at the end where it holds none.
    pub fn items(self, count: u64) -> Range<u64> {
        let from = match self {
            Self::Whole => 0,
            Self::Info | Self::Head => count,
            Self::Last(last) => count.saturating_sub(last),
            Self::From { item, .. } => item.min(count),
        };
        let limit = if let Self::From { limit, .. } = self { limit } else { u64::MAX };
        from..from.saturating_add(limit).min(count)
    }

    /// Itself, if its numbers are within their bounds. Error: the field, the value and the bounds.
    pub fn bounded(self) -> Result<Self, String> {
        let (field, value) = match self {
            Self::Last(last) => ("last", last),
            Self::From { limit, .. } => ("from.limit", limit),
            Self::Whole | Self::Info | Self::Head => return Ok(self),
        };
        match value {
            1..=SESSION_ITEMS_MAX => Ok(self),
            _ => Err(format!("field is out of range field=part.{field} value={value} min=1 max={SESSION_ITEMS_MAX}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_holds_the_items_it_names_and_none_that_are_not_there() {
        let from = |item, limit| Part::From { item, limit };
        for (part, of, items) in [
            (Part::Whole, 7, 0..7),
            (Part::Info, 7, 7..7),
            (Part::Head, 7, 7..7),
            (Part::Last(1), 7, 6..7),
            (Part::Last(7), 7, 0..7),
            (Part::Last(8), 7, 0..7),
            (Part::Last(u64::MAX), 7, 0..7),
            (Part::Last(3), 0, 0..0),
            (from(0, 3), 7, 0..3),
            (from(5, 2), 7, 5..7),
            (from(5, 3), 7, 5..7),
            (from(6, u64::MAX), 7, 6..7),
            (from(7, 1), 7, 7..7),
            (from(u64::MAX, u64::MAX), 7, 7..7),
            (from(0, 1), 0, 0..0),
        ] {
            assert_eq!(part.items(of), items, "{part:?} of {of}");
        }
    }

    #[test]
    fn a_part_of_no_items_or_of_more_than_a_session_has_is_refused_with_both_sides() {
        for (part, field) in [
            (Part::Last(0), "field=part.last value=0 min=1 max=100000"),
            (Part::Last(100_001), "field=part.last value=100001 min=1 max=100000"),
            (Part::From { item: 0, limit: 0 }, "field=part.from.limit value=0 min=1 max=100000"),
            (Part::From { item: 0, limit: u64::MAX }, "field=part.from.limit value=18446744073709551615 min=1 max=100000"),
        ] {
            assert!(part.bounded().expect_err("out of range").contains(field), "{part:?}");
        }
        for part in [Part::Whole, Part::Info, Part::Head, Part::Last(1), Part::From { item: u64::MAX, limit: 100_000 }] {
            assert_eq!(part.bounded(), Ok(part));
        }
    }
}
