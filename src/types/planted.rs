//! The refusals that planted bugs turn into lies, made in one place.

use super::{Applied, Refusal, RefusalKind};

impl Refusal {
    /// A refusal after which the write may have happened; with a bug planted, one that denies it.
    pub(crate) fn unknown_unless(is_planted: bool, kind: RefusalKind, message: impl Into<String>) -> Self {
        let applied = if is_planted { Applied::No } else { Applied::Unknown };
        Self { kind, applied, message: message.into() }
    }
}
