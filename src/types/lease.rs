//! The lease of a turn: who may write one session for a while, and under which number.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Fence, SessionId};
use crate::limits::{HOLDER_BYTES_MAX, LEASE_TTL_MAX, LEASE_TTL_MIN, LEASES_RENEWED_MAX};

/// The holder of a lease, as it names itself for others to read: any UTF-8 of at most [`HOLDER_BYTES_MAX`] bytes. It decides nothing: the
/// [`Fence`] does. It is data of the user: `Debug` prints its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Holder(Arc<str>);

/// Why a string is no [`Holder`]. Nothing changed; use a shorter one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidHolder {
    /// Bytes of the holder that was given.
    pub bytes: usize,
}

impl fmt::Display for InvalidHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "holder is too long bytes={} limit={HOLDER_BYTES_MAX}", self.bytes)
    }
}

impl std::error::Error for InvalidHolder {}

impl Holder {
    /// Checks the length. Errors: [`InvalidHolder`], above [`HOLDER_BYTES_MAX`].
    pub fn new(holder: &str) -> Result<Self, InvalidHolder> {
        let bytes = holder.len();
        if bytes > HOLDER_BYTES_MAX { Err(InvalidHolder { bytes }) } else { Ok(Self(holder.into())) }
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Holder({} bytes)", self.0.len())
    }
}

/// How long a lease is to live: [`LEASE_TTL_MIN`] to [`LEASE_TTL_MAX`], in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTtl(Duration);

/// Why a time is none for a lease. Nothing changed; use one within the bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidLeaseTtl {
    /// The time that was given.
    pub ttl: Duration,
}

impl fmt::Display for InvalidLeaseTtl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ttl, min, max] = [self.ttl, LEASE_TTL_MIN, LEASE_TTL_MAX].map(|ttl| ttl.as_millis());
        write!(f, "time of a lease is out of range ms={ttl} min={min} max={max}")
    }
}

impl std::error::Error for InvalidLeaseTtl {}

impl LeaseTtl {
    /// Checks the bounds, and leaves out what is beyond whole milliseconds. Errors: [`InvalidLeaseTtl`].
    pub fn new(ttl: Duration) -> Result<Self, InvalidLeaseTtl> {
        let is_within = (LEASE_TTL_MIN..=LEASE_TTL_MAX).contains(&ttl);
        let millis = Duration::from_millis(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        if is_within { Ok(Self(millis)) } else { Err(InvalidLeaseTtl { ttl }) }
    }

    /// The time.
    pub fn get(self) -> Duration {
        self.0
    }

    /// The time, in milliseconds.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).expect("bounded above")
    }
}

/// The lease of one session, which need not exist. It lives while its deadline is beyond machine time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The number that every write to the session must carry while the lease lives.
    pub fence: Fence,
    /// The holder that has it.
    pub holder: Holder,
    /// Machine time it ends at, in milliseconds since the Unix epoch.
    pub deadline_ms: u64,
}

/// The leases that one command renews: 1 to [`LEASES_RENEWED_MAX`], each of another session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewals(Box<[(SessionId, Fence)]>);

/// Why a list is none of leases to renew. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidRenewals {
    /// The list is empty, or longer than [`LEASES_RENEWED_MAX`].
    Count {
        /// Its length.
        count: usize,
    },
    /// One session is named twice.
    Twice,
}

impl fmt::Display for InvalidRenewals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { count } => write!(f, "leases are none or too many count={count} min=1 limit={LEASES_RENEWED_MAX}"),
            Self::Twice => f.write_str("leases name one session twice"),
        }
    }
}

impl std::error::Error for InvalidRenewals {}

impl Renewals {
    /// Checks how many there are, and that no session is named twice. Errors: [`InvalidRenewals`].
    pub fn new(leases: Vec<(SessionId, Fence)>) -> Result<Self, InvalidRenewals> {
        let count = leases.len();
        if count == 0 || count > LEASES_RENEWED_MAX {
            return Err(InvalidRenewals::Count { count });
        }
        let mut ids: Vec<&SessionId> = leases.iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(InvalidRenewals::Twice);
        }
        Ok(Self(leases.into()))
    }

    /// Sessions and fences, as they were given.
    pub fn as_slice(&self) -> &[(SessionId, Fence)] {
        &self.0
    }
}

/// Which of the leases that a command was to renew are lost, by their positions in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost(u64);

const _: () = assert!(LEASES_RENEWED_MAX <= u64::BITS as usize);

impl Lost {
    /// None, to begin with.
    pub fn none() -> Self {
        Self::default()
    }

    /// Those at these positions; positions beyond [`LEASES_RENEWED_MAX`] are none.
    pub fn at(positions: impl IntoIterator<Item = usize>) -> Self {
        let within = positions.into_iter().filter(|position| *position < LEASES_RENEWED_MAX);
        Self(within.fold(0, |lost, position| lost | 1 << position))
    }

    /// Whether the one at this position is.
    pub fn has(self, position: usize) -> bool {
        position < LEASES_RENEWED_MAX && self.0 >> position & 1 == 1
    }

    /// Their positions, ascending.
    pub fn positions(self) -> impl Iterator<Item = usize> {
        (0..LEASES_RENEWED_MAX).filter(move |position| self.has(*position))
    }

    /// As one number: bit n stands for position n.
    #[doc(hidden)]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Of one number.
    #[doc(hidden)]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> SessionId {
        SessionId::new(&n.to_string()).expect("short")
    }

    #[test]
    fn renewals_are_some_and_not_too_many_and_each_of_another_session() {
        let of = |count: usize| Renewals::new((0..count).map(|n| (id(n), Fence(1))).collect());
        assert_eq!(of(0), Err(InvalidRenewals::Count { count: 0 }));
        assert_eq!(of(LEASES_RENEWED_MAX).expect("within").as_slice().len(), LEASES_RENEWED_MAX);
        assert_eq!(of(LEASES_RENEWED_MAX + 1), Err(InvalidRenewals::Count { count: LEASES_RENEWED_MAX + 1 }));
        assert_eq!(Renewals::new(vec![(id(1), Fence(1)), (id(2), Fence(1)), (id(1), Fence(2))]), Err(InvalidRenewals::Twice));
    }

    #[test]
    fn the_lost_are_found_by_their_positions() {
        let lost = Lost::at([0, 63, 64]);
        assert_eq!(lost.positions().collect::<Vec<_>>(), [0, 63]);
        assert_eq!([0, 1, 63, 64].map(|position| lost.has(position)), [true, false, true, false]);
        assert_eq!(Lost::from_bits(lost.bits()), lost);
    }

    #[test]
    fn the_time_of_a_lease_is_bounded_on_both_sides() {
        for ttl in [LEASE_TTL_MIN, LEASE_TTL_MAX] {
            assert_eq!(LeaseTtl::new(ttl).expect("within").get(), ttl);
        }
        for ttl in [Duration::ZERO, LEASE_TTL_MIN - Duration::from_nanos(1), LEASE_TTL_MAX + Duration::from_nanos(1), Duration::MAX]
        {
            assert_eq!(LeaseTtl::new(ttl), Err(InvalidLeaseTtl { ttl }));
        }
        assert_eq!(LeaseTtl::new(Duration::from_micros(5_000_900)).expect("within").millis(), 5000);
    }

    #[test]
    fn a_holder_is_bounded_and_not_printed() {
        let longest = "h".repeat(HOLDER_BYTES_MAX);
        assert_eq!(format!("{:?}", Holder::new(&longest).expect("within")), "Holder(256 bytes)");
        assert_eq!(Holder::new(&(longest + "h")), Err(InvalidHolder { bytes: HOLDER_BYTES_MAX + 1 }));
    }
}
