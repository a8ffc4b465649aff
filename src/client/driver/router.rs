//! Which endpoint next: pure. Follows hints, moves on from failures, leaves alone for a while what just failed.

use std::time::Duration;

use crate::limits::NODES_MAX;

/// After a first failure an endpoint is left alone for so long; doubled with each further one.
const PENALTY_MIN: Duration = Duration::from_millis(50);
/// Longest penalty of an endpoint the user named.
const PENALTY_MAX: Duration = Duration::from_secs(1);
/// Longest penalty of one we only know from hints: its address may mean nothing here.
const PENALTY_MAX_HINTED: Duration = Duration::from_secs(30);
/// Endpoints kept, named and hinted.
const ENDPOINTS_MAX: usize = 4 * NODES_MAX;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Endpoint {
    address: String,
    named: bool,
    failures: u32,
    blocked_until: Duration,
}

/// Where to go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// To this endpoint.
    Use(usize),
    /// Every endpoint just failed: not before this time.
    Wait(Duration),
}

/// The endpoints, and which of them is preferred.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Router {
    endpoints: Vec<Endpoint>,
    preferred: usize,
}

impl Router {
    /// Starts with the endpoint at `first` (modulo their number), so that many clients spread.
    pub fn new(addresses: &[String], first: u64) -> Self {
        assert!(!addresses.is_empty(), "a client without endpoints cannot be built");
        let endpoint = |address: &String| Endpoint::new(address.clone(), true);
        let preferred = (first % addresses.len() as u64) as usize;
        Self { endpoints: addresses.iter().map(endpoint).collect(), preferred }
    }

    /// The address of an endpoint.
    pub fn address(&self, at: usize) -> &str {
        &self.endpoints[at].address
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.endpoints.len()
    }

    /// The preferred endpoint, or the next one that did not just fail.
    pub fn choose(&mut self, now: Duration) -> Choice {
        let count = self.endpoints.len();
        let next = (0..count).map(|step| (self.preferred + step) % count).find(|at| self.endpoints[*at].blocked_until <= now);
        match next {
            Some(at) => {
                self.preferred = at;
                Choice::Use(at)
            }
            None => Choice::Wait(self.endpoints.iter().map(|endpoint| endpoint.blocked_until).min().unwrap_or(now)),
        }
    }

    /// Goes to the leader a node named; `false` where that just failed, so that a stale hint is not followed in circles.
    pub fn follow(&mut self, address: &str, now: Duration) -> bool {
        let Some(at) = self.enter(address) else { return false };
        let usable = self.endpoints[at].blocked_until <= now;
        if usable {
            self.preferred = at;
        }
        usable
    }

    /// Takes note of a member, to be tried when those before it fail.
    pub fn learn(&mut self, address: &str) {
        // One more than there is room for is one fewer to try.
        let _ = self.enter(address);
    }

    /// Where this endpoint is, now at the latest; `None`: there is no room.
    fn enter(&mut self, address: &str) -> Option<usize> {
        let known = self.endpoints.iter().position(|endpoint| endpoint.address == address);
        if known.is_none() && self.endpoints.len() < ENDPOINTS_MAX {
            self.endpoints.push(Endpoint::new(address.to_owned(), false));
            return Some(self.endpoints.len() - 1);
        }
        known
    }

    /// The endpoint could not be reached, its connection ended, or it is stopping. All that fails together counts once.
    pub fn on_failure(&mut self, at: usize, now: Duration) {
        self.leave(at);
        let endpoint = &mut self.endpoints[at];
        if endpoint.blocked_until > now {
            return;
        }
        let max = if endpoint.named { PENALTY_MAX } else { PENALTY_MAX_HINTED };
        endpoint.blocked_until = now + (PENALTY_MIN * (1 << endpoint.failures.min(16))).min(max);
        endpoint.failures = endpoint.failures.saturating_add(1);
    }

    /// The endpoint answered.
    pub fn on_answer(&mut self, at: usize) {
        self.endpoints[at].failures = 0;
    }

    /// Another endpoint may know more: without a penalty for this one.
    pub fn leave(&mut self, at: usize) {
        if self.preferred == at {
            self.preferred = (at + 1) % self.endpoints.len();
        }
    }
}

impl Endpoint {
    fn new(address: String, named: bool) -> Self {
        Self { address, named, failures: 0, blocked_until: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(9);

    fn router() -> Router {
        Router::new(&["a:1".into(), "b:1".into(), "c:1".into()], 0)
    }

    #[test]
    fn a_failed_endpoint_is_left_at_once_and_tried_again_after_its_penalty() {
        let mut router = router();
        assert_eq!(router.choose(NOW), Choice::Use(0));
        router.on_failure(0, NOW);
        assert_eq!(router.choose(NOW), Choice::Use(1));
        router.on_failure(1, NOW);
        router.on_failure(2, NOW);
        assert_eq!(router.choose(NOW), Choice::Wait(NOW + PENALTY_MIN));
        assert_eq!(router.choose(NOW + PENALTY_MIN), Choice::Use(0));
    }

    #[test]
    fn penalties_double_up_to_their_bound_and_an_answer_ends_them() {
        let mut router = Router::new(&["a:1".into()], 7);
        router.on_failure(0, NOW);
        router.on_failure(0, NOW);
        assert_eq!(router.choose(NOW), Choice::Wait(NOW + PENALTY_MIN), "what fails together counts once");
        for second in 1..40 {
            router.on_failure(0, NOW + Duration::from_secs(second));
        }
        let later = NOW + Duration::from_secs(39);
        assert_eq!(router.choose(later), Choice::Wait(later + PENALTY_MAX));
        router.on_answer(0);
        let later = later + PENALTY_MAX;
        router.on_failure(0, later);
        assert_eq!(router.choose(later), Choice::Wait(later + PENALTY_MIN));
    }

    #[test]
    fn a_hint_is_followed_even_to_an_unknown_address_but_not_to_one_that_just_failed() {
        let mut router = router();
        assert!(router.follow("z:9", NOW));
        assert_eq!(router.choose(NOW), Choice::Use(3));
        router.on_failure(3, NOW);
        assert!(!router.follow("z:9", NOW));
        assert_eq!(router.choose(NOW), Choice::Use(0));
        assert!(router.follow("z:9", NOW + PENALTY_MIN));
    }

    #[test]
    fn hints_do_not_grow_the_list_without_bound() {
        let mut router = router();
        for port in 0..10 * ENDPOINTS_MAX {
            router.follow(&format!("x:{port}"), NOW);
        }
        assert_eq!(router.count(), ENDPOINTS_MAX);
    }
}
