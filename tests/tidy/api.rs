//! The interface of the library as text: every item that a dependent can name, one a line, with its signature.
//!
//! What is in `api.txt` is what was agreed on; a change of it is a change of the interface. What is `#[doc(hidden)]` is no part of it, an
//! item, a module or a re-export, nor are the modules that are for us alone. Types in signatures stand as the source writes them. An item
//! has the path it is declared at, or the one it is made public by; other public paths follow as `pub use`. What `#[derive]` implements
//! counts, as do implementations by hand, of whatever type is listed. Not seen: generated code that is included, bounds that a compiler
//! infers, values of constants.

mod listing;
mod paths;
mod written;

use crate::Violations;
use crate::source::Source;

/// Lines that only one of the two has.
pub fn violations(sources: &[Source], committed: &str) -> Violations {
    let listing = listing::of(sources);
    let has = |text: &str, line: &str| text.lines().any(|other| other == line);
    let added = listing.lines().filter(|line| !has(committed, line)).map(|line| format!("+ {line}"));
    let removed = committed.lines().filter(|line| !has(&listing, line)).map(|line| format!("- {line}"));
    let mut violations: Violations = removed.chain(added).collect();
    if violations.is_empty() && listing != committed {
        violations.push("the lines are in another order".to_owned());
    }
    violations
}

pub use listing::of as listing;

#[cfg(test)]
mod tests;
