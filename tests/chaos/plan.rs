//! Which faults, in which order, for how long: decided from the seed before anything happens.

use std::time::Duration;

use quorate::testing::inline::SeededRandom;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// -9 to a follower.
    KillOne,
    /// -9 to the leader.
    KillLeader,
    /// -9 to a majority at once, the leader among them.
    KillMajority,
    /// -9 to all at once.
    KillAll,
    /// A follower stands still for longer than an election takes, calls in its queues.
    PauseOne,
    /// The same to the leader.
    PauseLeader,
    /// No packet between the leader and the others.
    CutLeader,
    /// No packet between a minority with followers only and the others.
    CutMinority,
    /// The leader's packets arrive nowhere; it hears all.
    CutOneWay,
    /// Two halves that only one node reaches both of.
    CutBridge,
    /// Packets between all get lost, some of them.
    Loss,
    /// Packets between all take long.
    Delay,
    /// One node's clock is more than a year ahead.
    Clock,
    /// One node's disk takes no more bytes.
    DiskFull,
    /// Every sync of one node takes long.
    DiskSlow,
    /// The next syncs of the leader's threads take longer than it waits before it hands over.
    DiskHung,
    /// Every node stops in good order and starts again, one after the other.
    Rolling,
    /// A follower is away until the log it would need is purged.
    Snapshot,
    /// The machines of all nodes lose power.
    PowerLoss,
    /// Syncs of one node fail.
    SyncError,
}

const ALL: [(Kind, &str, usize); 20] = [
    (Kind::KillOne, "kill-one", 2),
    (Kind::KillLeader, "kill-leader", 3),
    (Kind::KillMajority, "kill-majority", 1),
    (Kind::KillAll, "kill-all", 1),
    (Kind::PauseOne, "pause-one", 1),
    (Kind::PauseLeader, "pause-leader", 2),
    (Kind::CutLeader, "cut-leader", 2),
    (Kind::CutMinority, "cut-minority", 1),
    (Kind::CutOneWay, "cut-one-way", 1),
    (Kind::CutBridge, "cut-bridge", 1),
    (Kind::Loss, "loss", 1),
    (Kind::Delay, "delay", 1),
    (Kind::Clock, "clock", 1),
    (Kind::DiskFull, "disk-full", 1),
    (Kind::DiskSlow, "disk-slow", 1),
    (Kind::DiskHung, "disk-hung", 1),
    (Kind::Rolling, "rolling", 1),
    (Kind::Snapshot, "snapshot", 1),
    (Kind::PowerLoss, "power-loss", 2),
    (Kind::SyncError, "sync-error", 1),
];

impl Kind {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(kind, ..)| *kind == self).map_or("?", |(_, name, _)| name)
    }

    /// Errors: lists the names there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        let known = || ALL.iter().map(|(_, name, _)| *name).collect::<Vec<_>>().join(",");
        ALL.iter()
            .find(|(_, known, _)| *known == name)
            .map(|(kind, ..)| *kind)
            .ok_or_else(|| format!("no such nemesis: {name}; there are {}", known()))
    }

    /// Whether nobody else may do it.
    pub fn needs_root(self) -> bool {
        self == Self::PowerLoss
    }

    /// How long it stays, from and up to.
    pub fn hold(self) -> (Duration, Duration) {
        let (least, most) = match self {
            Self::KillOne | Self::KillLeader | Self::KillMajority => (300, 1500),
            Self::KillAll | Self::PowerLoss | Self::Rolling | Self::Snapshot => (0, 200),
            // An election takes two seconds at most.
            Self::PauseOne | Self::PauseLeader => (2200, 3500),
            Self::CutLeader | Self::CutMinority | Self::CutOneWay | Self::CutBridge => (2200, 4000),
            Self::Loss | Self::Delay => (2000, 4000),
            Self::Clock | Self::DiskFull | Self::DiskSlow | Self::DiskHung | Self::SyncError => (1000, 2500),
        };
        (Duration::from_millis(least), Duration::from_millis(most))
    }
}

/// Deals kinds: every kind comes as often as it weighs before the deck is shuffled again.
pub struct Deck {
    kinds: Vec<Kind>,
    left: Vec<Kind>,
}

impl Deck {
    /// Of these kinds, each once; of all that fit, by weight, where none is named.
    pub fn new(named: &[Kind], root: bool) -> Self {
        let chosen = |kind: &Kind| if named.is_empty() { root || !kind.needs_root() } else { named.contains(kind) };
        let weight = |weight: usize| if named.is_empty() { weight } else { 1 };
        let of = |(kind, _, some): &(Kind, &str, usize)| vec![*kind; weight(*some)];
        let kinds = ALL.iter().filter(|(kind, ..)| chosen(kind)).flat_map(of).collect();
        Self { kinds, left: Vec::new() }
    }

    /// The next one; none if all were withdrawn.
    pub fn deal(&mut self, random: &SeededRandom) -> Option<Kind> {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
        }
        if self.left.is_empty() {
            return None;
        }
        let at = random.below(self.left.len() as u64) as usize;
        Some(self.left.swap_remove(at))
    }

    /// It can't be done here: deal it no more.
    pub fn withdraw(&mut self, kind: Kind) {
        self.kinds.retain(|other| *other != kind);
        self.left.retain(|other| *other != kind);
    }
}

/// Some duration between the two.
pub fn between(random: &SeededRandom, (least, most): (Duration, Duration)) -> Duration {
    least + Duration::from_millis(random.below((most - least).as_millis() as u64 + 1))
}

#[test]
fn every_kind_comes_before_any_comes_too_often_and_one_withdrawn_never_again() {
    let random = SeededRandom::new(3);
    let mut deck = Deck::new(&[], false);
    let total: usize = ALL.iter().filter(|(kind, ..)| !kind.needs_root()).map(|(_, _, weight)| weight).sum();
    let mut dealt: Vec<Kind> = (0..total).filter_map(|_| deck.deal(&random)).collect();
    dealt.sort_unstable();
    let mut expected = deck.kinds.clone();
    expected.sort_unstable();
    assert_eq!(dealt, expected);
    assert!(!dealt.contains(&Kind::PowerLoss));
    let mut deck = Deck::new(&[Kind::Loss, Kind::Delay], false);
    deck.withdraw(Kind::Loss);
    assert!((0..9).all(|_| deck.deal(&random) == Some(Kind::Delay)));
    deck.withdraw(Kind::Delay);
    assert_eq!(deck.deal(&random), None);
}

#[test]
fn every_kind_has_a_name_of_its_own() {
    for (kind, name, _) in ALL {
        assert_eq!((kind.name(), Kind::parse(name)), (name, Ok(kind)));
    }
    assert!(Kind::parse("x").expect_err("none").contains("kill-leader"));
}
