//! Intervals that are longer than most runs of tests, in one place, so that some runs see them pass many times.
//!
//! Nobody chooses them: they are what this build has. Tests shorten all of a process at once, before anything of it starts; all nodes of
//! a cluster must have the same ones, as part of them shapes what every replica does with an entry.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// The intervals of a node and a client; a test may shorten them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// How often a client in use says so. A write says it too, but not to a cluster that waits for an older one.
    pub keep_alive: Duration,
    /// A client idle for so long, by machine time, is dropped. Part of cluster version 1.
    pub client_idle_ttl: Duration,
    /// How long a tombstone keeps counting versions. Part of cluster version 1.
    pub tombstone_ttl: Duration,
    /// Rows of metadata are made, and digests are kept and compared, after every so many entries.
    pub digest_entries: u64,
    /// From the start of a node, which has enough to do, until it begins to read its disk.
    pub scrub_delay: Duration,
    /// Its disk is read once in this, or in what the operator chose, if that is less.
    pub scrub_at_least: Duration,
    /// Log entries are purged by age at this age, or at the operator's if that is less.
    pub log_kept_at_most: Duration,
    /// Refusals of one kind are noted at once and then so often, with how many there were.
    pub refusals: Duration,
}

impl Intervals {
    /// The intervals of every release.
    pub const PRODUCTION: Self = Self {
        keep_alive: Duration::from_secs(300),
        client_idle_ttl: Duration::from_secs(3600),
        tombstone_ttl: Duration::from_secs(7 * 24 * 3600),
        digest_entries: 1024,
        scrub_delay: Duration::from_secs(300),
        scrub_at_least: Duration::MAX,
        log_kept_at_most: Duration::MAX,
        refusals: Duration::from_secs(60),
    };
    /// All pass several times within half a minute.
    const SHORT: Self = Self {
        keep_alive: Duration::from_secs(1),
        client_idle_ttl: Duration::from_secs(6),
        tombstone_ttl: Duration::from_secs(2),
        digest_entries: 4,
        scrub_delay: Duration::from_secs(1),
        scrub_at_least: Duration::from_secs(2),
        log_kept_at_most: Duration::from_secs(16),
        refusals: Duration::from_secs(2),
    };
    const LONG_TOMBSTONES: Self = Self { tombstone_ttl: Self::PRODUCTION.tombstone_ttl, ..Self::SHORT };
    /// Everything that can be in force, in the order of [`Shortened`].
    pub(crate) const ALL: [Self; 3] = [Self::PRODUCTION, Self::SHORT, Self::LONG_TOMBSTONES];
}

// A client in use is kept although some of what it says is lost.
const _: () = assert!(Intervals::PRODUCTION.client_idle_ttl.as_secs() >= 6 * Intervals::PRODUCTION.keep_alive.as_secs());
const _: () = assert!(Intervals::SHORT.client_idle_ttl.as_secs() >= 6 * Intervals::SHORT.keep_alive.as_secs());

/// An interval that a test shortens.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortened {
    /// All.
    All = 1,
    /// All but the life of tombstones: versions never start again within a run.
    ButTombstones = 2,
}

static IN_FORCE: AtomicU8 = AtomicU8::new(0);

/// Shortens them in this process, for good: before anything else in it starts. Never where data matters: a node of a cluster that has
/// others would come to another state than its peers.
#[doc(hidden)]
pub fn shorten(what: Shortened) {
    IN_FORCE.store(what as u8, Ordering::Relaxed);
}

/// Which of [`Intervals::ALL`] is in force.
pub(crate) fn in_force() -> usize {
    IN_FORCE.load(Ordering::Relaxed).into()
}

/// Those of this process.
#[must_use]
pub fn intervals() -> &'static Intervals {
    static ALL: [Intervals; 3] = Intervals::ALL;
    &ALL[in_force()]
}
