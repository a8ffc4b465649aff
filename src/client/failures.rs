//! Which endpoint failed how, and why last: one line for each, for people.

use crate::limits::NODES_MAX;

/// Endpoints remembered: those the user named and those learned.
const FAILURES_MAX: usize = 4 * NODES_MAX;
/// Longest reason kept, in bytes.
const REASON_BYTES_MAX: usize = 512;
/// Endpoints listed in the text of an error.
const LISTED_MAX: usize = 8;

/// Why one endpoint did not do what was asked, the last time it was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointFailure {
    /// The endpoint, `host:port`.
    pub address: String,
    /// Why, for people: one line without control characters. Not API.
    pub reason: String,
    /// Whether a node answered there, and refused.
    pub answered: bool,
    /// Whether trying again does not help: this client and the node do not fit, by how they were set up.
    pub settings: bool,
}

impl EndpointFailure {
    pub(super) fn new(address: &str, reason: &str) -> Self {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = reason[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { address: address.to_owned(), reason, answered: false, settings: false }
    }
}

/// The last failure of each endpoint, in the order in which they failed first.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures(Vec<EndpointFailure>);

impl Failures {
    pub fn note(&mut self, failure: EndpointFailure) {
        match self.0.iter().position(|known| known.address == failure.address) {
            Some(known) => self.0[known] = failure,
            None if self.0.len() < FAILURES_MAX => self.0.push(failure),
            None => {}
        }
    }

    /// The time ended while nothing had come from there; what it answered before says more.
    pub fn note_silence(&mut self, address: &str) {
        if !self.0.iter().any(|known| known.address == address && known.answered) {
            self.note(EndpointFailure::new(address, "no answer within the deadline"));
        }
    }

    /// Something went well: what failed before explains nothing that comes.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn all(&self) -> &[EndpointFailure] {
        &self.0
    }

    /// Whether all of these endpoints do not fit this client.
    pub fn are_settings_of_all<'a>(&self, mut addresses: impl Iterator<Item = &'a str>) -> bool {
        addresses.all(|address| self.0.iter().any(|failure| failure.settings && failure.address == address))
    }
}

/// All of them in one line, as far as they fit.
pub(super) fn listed(failures: &[EndpointFailure]) -> String {
    let shown: Vec<String> =
        failures.iter().take(LISTED_MAX).map(|failure| format!("{}: {}", failure.address, failure.reason)).collect();
    let more = failures.len().saturating_sub(LISTED_MAX);
    let tail = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{tail}", shown.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failure_of_each_endpoint_is_kept_within_bounds() {
        let mut failures = Failures::default();
        for round in 0..3 {
            for at in 0..2 * FAILURES_MAX {
                failures
                    .note(EndpointFailure::new(&format!("a:{at}"), &format!("round {round}\n{}", "é".repeat(REASON_BYTES_MAX))));
            }
        }
        assert_eq!(failures.all().len(), FAILURES_MAX);
        assert!(
            failures
                .all()
                .iter()
                .all(|failure| failure.reason.starts_with("round 2 é") && failure.reason.len() <= REASON_BYTES_MAX)
        );
        let text = listed(failures.all());
        assert!(text.ends_with(&format!("; and {} more", FAILURES_MAX - LISTED_MAX)) && !text.contains('\n'), "{text}");
    }

    #[test]
    fn only_what_holds_for_every_endpoint_is_the_settings_fault() {
        let mut failures = Failures::default();
        failures.note(EndpointFailure { settings: true, ..EndpointFailure::new("a:1", "it speaks TLS") });
        assert!(failures.are_settings_of_all(["a:1"].into_iter()));
        assert!(!failures.are_settings_of_all(["a:1", "b:1"].into_iter()));
        failures.note(EndpointFailure::new("a:1", "Connection refused"));
        assert!(!failures.are_settings_of_all(["a:1"].into_iter()));
    }

    #[test]
    fn silence_at_the_deadline_does_not_hide_what_a_node_answered_before() {
        let mut failures = Failures::default();
        failures.note(EndpointFailure { answered: true, ..EndpointFailure::new("a:1", "no leader is known") });
        failures.note(EndpointFailure::new("b:1", "Connection refused"));
        for address in ["a:1", "b:1", "c:1"] {
            failures.note_silence(address);
        }
        let reasons: Vec<&str> = failures.all().iter().map(|failure| failure.reason.as_str()).collect();
        assert_eq!(reasons, ["no leader is known", "no answer within the deadline", "no answer within the deadline"]);
    }
}
