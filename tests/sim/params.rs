//! What a seed stands for: the cluster, its load, and which faults it is to see.

use std::time::Duration;

use quorate::testing::inline::SeededRandom;

/// Largest values; with what a client adds to the last, a session may have no more.
const LARGE_BYTES: [usize; 3] = [1 << 20, 4 << 20, 15 << 20];
/// How far one clock may be ahead, a year: that must not let anything expire.
pub const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;

macro_rules! kinds {
    ($($(#[$doc:meta])* $list:ident: $($kind:ident)*;)*) => {
        /// What can be done to a cluster.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($($kind,)*)*
        }

        $($(#[$doc])* const $list: [Kind; [$(Kind::$kind),*].len()] = [$(Kind::$kind),*];)*
    };
}

kinds! {
    KINDS: Kill PowerCut PowerCutWithinWork LongOutage FailedSync FailedWrite OrderlyStop PowerCutOfAll
        Partition Bridge OneWay Pause Loss Latency FullDisk SlowDisk WipedDisks Jump;
    /// Drawn apart from the others, which they came after: what a seed meant before, it still means.
    LATER_KINDS: Members HungDisk PowerCutAfterVote;
    /// The same once more.
    LATEST_KINDS: SlowLink PowerCutWithinChange Corruption;
    /// And once more.
    NEWEST_KINDS: FullMinority;
}

/// In [`Params::faults`]'s variable: intervals are short, whichever the seed is.
const SHORT_INTERVALS: &str = "ShortIntervals";
/// What lives short then, as the model has it: tombstones, and clients that say nothing.
pub const SHORT_TOMBSTONE_MS: u64 = 2000;
pub const SHORT_IDLE_MS: u64 = 6000;
/// Hosts that are no members at first.
const SPARES: u64 = 2;

/// A kind by its name here. Panics if there is none: a run must not pass for want of its fault.
fn named(name: &str) -> Kind {
    let found =
        KINDS.into_iter().chain(LATER_KINDS).chain(LATEST_KINDS).chain(NEWEST_KINDS).find(|kind| format!("{kind:?}") == name);
    found.unwrap_or_else(|| panic!("no such fault name={name} known={KINDS:?} {LATER_KINDS:?} {LATEST_KINDS:?} {NEWEST_KINDS:?}"))
}

/// Everything about a run that is not drawn on its way.
#[derive(Clone, Debug)]
pub struct Params {
    pub seed: u64,
    pub nodes: u64,
    /// Hosts that run and may become members.
    pub spares: u64,
    /// Clients of single values.
    pub callers: usize,
    /// Sessions they share.
    pub keys: usize,
    /// Clients that take turns as Bob does.
    pub turners: usize,
    pub think_ms: u64,
    pub latency_max: Duration,
    /// Faults come about so far apart.
    pub pace_ms: u64,
    pub faults: Vec<Kind>,
    /// The node whose clock is a year ahead; 0: none.
    pub skewed: u64,
    pub log_bytes_kept: u64,
    pub segment_bytes: u64,
    /// Bytes of the largest values.
    pub large_bytes: usize,
    /// Bytes that a connection buffers before the network takes them.
    pub buffer_bytes: usize,
    /// When every node comes to know the cluster version that only tests use, so that the cluster moves up to it under load.
    pub upgrades: Option<Duration>,
    /// A third of the seeds see every interval pass many times, see `limits::Intervals`.
    pub short_intervals: bool,
}

impl Params {
    /// Of this seed; `SIM_NODES` says otherwise for the number of nodes, `SIM_FAULTS` for the kinds of faults.
    pub fn new(seed: u64) -> Self {
        let random = SeededRandom::new(seed);
        let one_of = |choices: &[u64]| choices[random.below(choices.len() as u64) as usize];
        let drawn = one_of(&[3, 3, 3, 5]);
        let nodes = super::number("SIM_NODES").unwrap_or(drawn);
        // Few kinds at a time find what all at once would hide.
        let keep = one_of(&[3, 6, 9]);
        let mut faults: Vec<Kind> = KINDS.into_iter().filter(|_| random.below(10) < keep).collect();
        if faults.is_empty() {
            faults.push(Kind::PowerCut);
        }
        if std::env::var_os("SIM_LYING_DISK").is_some() {
            // What shows that disks lie, and nothing else.
            faults = vec![Kind::PowerCutOfAll, Kind::PowerCut];
        }
        let later = SeededRandom::new(seed ^ 0x006c_6174_6572);
        let lies = std::env::var_os("SIM_LYING_DISK").is_some();
        faults.extend(LATER_KINDS.into_iter().filter(|_| !lies && later.below(10) < keep));
        let latest = SeededRandom::new(seed ^ 0x006c_6174_6573_7400);
        faults.extend(LATEST_KINDS.into_iter().filter(|_| !lies && latest.below(10) < keep));
        let newest = SeededRandom::new(seed ^ 0x6e65_7765_7374);
        faults.extend(NEWEST_KINDS.into_iter().filter(|_| !lies && newest.below(10) < keep));
        let mut short_intervals = seed.is_multiple_of(3);
        if let Ok(names) = std::env::var("SIM_FAULTS") {
            let (short, names): (Vec<_>, Vec<_>) = names.split(',').partition(|name| *name == SHORT_INTERVALS);
            short_intervals |= !short.is_empty();
            if !names.is_empty() {
                faults = names.into_iter().map(named).collect();
            }
        }
        let is_large = random.below(8) == 0;
        Self {
            seed,
            nodes,
            spares: if faults.iter().any(|kind| matches!(kind, Kind::Members | Kind::PowerCutWithinChange | Kind::FullMinority)) {
                SPARES
            } else {
                0
            },
            callers: 1 + random.below(3) as usize,
            keys: 1 + random.below(4) as usize,
            turners: random.below(4) as usize,
            think_ms: one_of(&[5, 30, 100]),
            latency_max: Duration::from_millis(2 + random.below(20)),
            pace_ms: one_of(&[300, 1000, 3000]),
            faults,
            skewed: random.below(2) * random.below(nodes + 1),
            log_bytes_kept: one_of(&[16, 64, 1024]) << 10,
            segment_bytes: if is_large { 20 << 20 } else { 64 << 10 },
            large_bytes: if is_large { LARGE_BYTES[latest.below(3) as usize] } else { 20_000 },
            buffer_bytes: [16 << 10, 256 << 10, 4 << 20][latest.below(3) as usize],
            short_intervals,
            upgrades: (random.below(4) == 0).then(|| Duration::from_millis(random.below(20_000))),
        }
    }

    /// Whether the largest values are megabytes.
    pub fn is_large(&self) -> bool {
        self.large_bytes >= LARGE_BYTES[0]
    }

    /// The one node that a client reaches, by the client's name; half of them reach one only, but for the first: somebody must be able to
    /// save wherever that is possible. That makes a third of all.
    pub fn pinned(&self, client: &str) -> Option<u64> {
        let name =
            client.bytes().fold(self.seed ^ 0x7069_6e6e_6564, |seed, byte| seed.wrapping_mul(131).wrapping_add(u64::from(byte)));
        let random = SeededRandom::new(name);
        (client != "c0" && random.below(2) == 0).then(|| 1 + random.below(self.nodes))
    }

    /// How far a node's clock is ahead.
    pub fn skew_ms(&self, id: u64) -> u64 {
        if id == self.skewed { YEAR_MS } else { id * 50 }
    }
}
