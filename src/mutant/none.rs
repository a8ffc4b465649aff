//! The shipped side: no bug is planted.

use super::Mutant;

/// Whether this bug is planted: never.
#[inline(always)]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}
