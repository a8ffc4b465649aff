//! The constants `apply` looks at, by cluster version.
//!
//! All replicas must use the same ones at the same log index, so they belong to the cluster version in force there, never to
//! configuration, and a released version's values never change (L16).

use std::sync::atomic::{AtomicBool, Ordering};

use crate::limits::{self, Intervals};
use crate::mutant::{self, Mutant};

/// The newest cluster version this release supports.
pub const VERSION_MAX: u16 = 1;
/// The cluster version above, which only tests use until all of it is there: format 2 of entries, the verbs that need it, and twice as
/// many items per session.
#[doc(hidden)]
pub const TEST_VERSION: u16 = VERSION_MAX + 1;

/// The constants of one cluster version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Format byte a proposer writes.
    pub entry_format: u8,
    /// Most stored bytes of one write.
    pub write_bytes_max: u64,
    /// Most stored bytes of one session.
    pub session_stored_bytes_max: u64,
    /// Most raw bytes of one session.
    pub session_raw_bytes_max: u64,
    /// Most items of one session.
    pub session_items_max: u64,
    /// Most chunks of one session.
    pub session_chunks_max: u64,
    /// Most sessions and tombstones together.
    pub sessions_max: u64,
    /// Most bytes of metadata, by the fixed formula.
    pub metadata_bytes_max: u64,
    /// The bytes a session or tombstone counts for besides its id.
    pub session_metadata_bytes: u64,
    /// Most bytes of leases, by the fixed formula.
    pub leases_bytes_max: u64,
    /// The bytes a lease counts for besides its id and its holder.
    pub lease_bytes: u64,
    /// Most clients.
    pub clients_max: u64,
    /// Most recorded outcomes.
    pub outcomes_max: u64,
    /// Sequences a client may have open.
    pub open_writes_max: u64,
    /// Milliseconds a tombstone lives.
    pub tombstone_ttl_ms: u64,
    /// Milliseconds a client may be idle.
    pub client_idle_ttl_ms: u64,
    /// Longest time a lease is asked for, in milliseconds.
    pub lease_ttl_ms_max: u64,
    /// Longest time to live of a session, in milliseconds.
    pub session_ttl_ms_max: u64,
    /// Records one sweep may drop.
    pub sweep_count_max: u32,
    /// Rows one sweep may touch.
    pub sweep_rows_max: u64,
}

const RULES_1: Rules = Rules {
    entry_format: 1,
    write_bytes_max: limits::WRITE_BYTES_MAX,
    session_stored_bytes_max: limits::SESSION_STORED_BYTES_MAX,
    session_raw_bytes_max: limits::SESSION_RAW_BYTES_MAX,
    session_items_max: limits::SESSION_ITEMS_MAX,
    session_chunks_max: limits::SESSION_CHUNKS_MAX,
    sessions_max: limits::SESSIONS_MAX as u64,
    metadata_bytes_max: limits::METADATA_BYTES_MAX,
    session_metadata_bytes: limits::SESSION_METADATA_BYTES,
    leases_bytes_max: limits::LEASES_BYTES_MAX,
    lease_bytes: limits::LEASE_BYTES,
    clients_max: limits::CLIENTS_MAX as u64,
    outcomes_max: limits::OUTCOMES_MAX as u64,
    open_writes_max: limits::OPEN_WRITES_MAX,
    tombstone_ttl_ms: Intervals::PRODUCTION.tombstone_ttl.as_secs() * 1000,
    client_idle_ttl_ms: Intervals::PRODUCTION.client_idle_ttl.as_secs() * 1000,
    lease_ttl_ms_max: limits::LEASE_TTL_MAX.as_secs() * 1000,
    session_ttl_ms_max: limits::SESSION_TTL_MAX.as_secs() * 1000,
    sweep_count_max: limits::SWEEP_COUNT_MAX,
    sweep_rows_max: limits::SWEEP_ROWS_MAX as u64,
};

const RULES_2: Rules = Rules { entry_format: 2, session_items_max: 2 * limits::SESSION_ITEMS_MAX, ..RULES_1 };

/// Version 1 as a careless release would change it.
const RULES_OTHER: Rules = Rules { session_chunks_max: RULES_1.session_chunks_max / 2, ..RULES_1 };

/// Rules with each of the intervals that may be in force: a test shortens them in all nodes of its cluster.
const fn by_intervals(rules: Rules) -> [Rules; 3] {
    let mut all = [rules; 3];
    let mut at = 0;
    while at < all.len() {
        all[at].tombstone_ttl_ms = Intervals::ALL[at].tombstone_ttl.as_secs() * 1000;
        all[at].client_idle_ttl_ms = Intervals::ALL[at].client_idle_ttl.as_secs() * 1000;
        at += 1;
    }
    all
}

static ALL_1: [Rules; 3] = by_intervals(RULES_1);
static ALL_2: [Rules; 3] = by_intervals(RULES_2);

// A sweep must always be able to drop the largest single record: a session's chunks, head, metadata and tombstone rows; or a client's
// outcomes and header.
const _: () = assert!(RULES_1.session_chunks_max + 3 <= RULES_1.sweep_rows_max);
const _: () = assert!(RULES_1.open_writes_max < RULES_1.sweep_rows_max);

/// Whether this process knows [`TEST_VERSION`]. A released node must not take a later release's version 2 for it.
static TEST_VERSION_KNOWN: AtomicBool = AtomicBool::new(false);

/// Makes [`TEST_VERSION`] known to this process, for good: tests of upgrades call it before they start anything.
#[doc(hidden)]
pub fn allow_test_version() {
    TEST_VERSION_KNOWN.store(true, Ordering::Relaxed);
}

/// The newest cluster version this process can apply; a node reports `1..=newest_version()` in every peer handshake.
pub fn newest_version() -> u16 {
    if TEST_VERSION_KNOWN.load(Ordering::Relaxed) || mutant::is(Mutant::TestVersionKnown) { TEST_VERSION } else { VERSION_MAX }
}

/// The rules of a cluster version; `None` if this process does not know it.
pub fn rules(version: u16) -> Option<&'static Rules> {
    match version {
        1 if mutant::is(Mutant::LimitWithoutVersion) => Some(&RULES_OTHER),
        1 => Some(&ALL_1[limits::in_force()]),
        TEST_VERSION if newest_version() == TEST_VERSION => Some(&ALL_2[limits::in_force()]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Command, Effects, Entry, Machine};
    use crate::types::LogId;

    #[test]
    fn a_version_of_a_later_release_is_unknown() {
        assert_eq!(newest_version(), VERSION_MAX);
        assert_eq!(rules(0), None);
        assert_eq!(rules(VERSION_MAX + 1), None);
        assert!(rules(VERSION_MAX).is_some());
    }

    #[test]
    #[should_panic(expected = "cluster version in force is not known")]
    fn a_node_stops_rather_than_apply_a_version_it_does_not_know() {
        let entry = Entry { stamp_ms: 1, command: Command::SetClusterVersion { version: VERSION_MAX + 1 } };
        let log_id = LogId { index: 1, ..LogId::default() };
        Machine::new().apply(log_id, &entry, &mut Effects::default());
    }
}
