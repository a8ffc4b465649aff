//! The test build: one bug, by name.

use std::sync::OnceLock;

use super::{ALL, Mutant};

/// Whether this bug is planted. Panics if `QUORATE_MUTANT` names none: a run must not pass for want of its bug.
pub(crate) fn is(mutant: Mutant) -> bool {
    static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("QUORATE_MUTANT").ok()?;
        let found = ALL.iter().find(|(_, known)| *known == name);
        Some(found.unwrap_or_else(|| panic!("no such mutant name={name}")).0)
    });
    *chosen == Some(mutant)
}
