//! Bugs planted on purpose, to prove that the tests catch them. `scripts/mutants.sh` runs each of them.
//!
//! A seam asks [`is`]. Without the feature `mutants`, which is never a default and which no release has, that is a constant `false`: no
//! bug is in what is shipped. With it, the environment variable `QUORATE_MUTANT` names at most one.

#[cfg(not(feature = "mutants"))]
mod none;
#[cfg(feature = "mutants")]
mod planted;

#[cfg(not(feature = "mutants"))]
pub(crate) use none::is;
#[cfg(feature = "mutants")]
pub(crate) use planted::is;

macro_rules! mutants {
    ($($variant:ident = $name:literal,)*) => {
        /// A bug, by its name in `QUORATE_MUTANT`.
        #[allow(dead_code, reason = "each is planted in a module that not every feature has")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutant {
            $(
                #[doc = $name]
                $variant,
            )*
        }

        /// Every bug.
        #[allow(dead_code, reason = "without the feature nobody looks for one")]
        const ALL: &[(Mutant, &str)] = &[$((Mutant::$variant, $name),)*];
    };
}

mutants! {
    NoDedup = "no-dedup",
    DedupNotInSnapshot = "dedup-not-in-snapshot",
    AcknowledgeBeforeSync = "acknowledge-before-sync",
    VoteNotSynced = "vote-not-synced",
    ReadWithoutReadIndex = "read-without-read-index",
    StateAheadOfLog = "state-ahead-of-log",
    AppliedNotAtomic = "applied-not-atomic",
    LeaderRestore = "leader-restore",
    VersionRestarts = "version-restarts",
    ExpiryByLocalClock = "expiry-by-local-clock",
    LeadersOwnStamp = "leaders-own-stamp",
    SnapshotWithoutMembership = "snapshot-without-membership",
    DeltaUnchecked = "delta-unchecked",
    BaseMismatchRecorded = "base-mismatch-recorded",
    RebaseAcrossRewrite = "rebase-across-rewrite",
    CacheAfterRebase = "cache-after-rebase",
    RetryWithNewRequest = "retry-with-new-request",
    ClosedExecuted = "closed-executed",
    ViewNotOneInstant = "view-not-one-instant",
    InstallWithoutLogSync = "install-without-log-sync",
    CutSyncedFrame = "cut-synced-frame",
    NoChecksum = "no-checksum",
    BootstrapByMajority = "bootstrap-by-majority",
    MachineNotSwapped = "machine-not-swapped",
    WrongNonce = "wrong-nonce",
    WindowExceededRecorded = "window-exceeded-recorded",
    FirstFrameNotAlone = "first-frame-not-alone",
    RevisionsRestart = "revisions-restart",
    LimitWithoutVersion = "limit-without-version",
    ForwardUnchecked = "forward-unchecked",
    PeerNameUnchecked = "peer-name-unchecked",
    TokenExpiryIgnored = "token-expiry-ignored",
    NodeIdReused = "node-id-reused",
    QuorumLossAccepted = "quorum-loss-accepted",
    AdoptUnchecked = "adopt-unchecked",
    JoinWithData = "join-with-data",
    FinishedServerPolled = "finished-server-polled",
    SnapshotDamageForgiven = "snapshot-damage-forgiven",
    ForeignSchemeAccepted = "foreign-scheme-accepted",
    NoReserve = "no-reserve",
    TestVersionKnown = "test-version-known",
    RowChecksumUnchecked = "row-checksum-unchecked",
    DigestNotCompared = "digest-not-compared",
    MarkClearedEarly = "mark-cleared-early",
    OneFullDiskRefusesAll = "one-full-disk-refuses-all",
    FullMemberAcknowledges = "full-member-acknowledges",
    CutLeaderKeepsOpenWrites = "cut-leader-keeps-open-writes",
    CutLeaderSaysNotApplied = "open-write-of-a-cut-leader-is-said-not-applied",
    LeaderWithoutQuorum = "leader-without-quorum-reports-itself",
    EndedStreamRefused = "ended-stream-is-refused",
    LostFramesKept = "lost-frames-kept",
    KeepAliveCloses = "keep-alive-closes-open",
    InstallInTwoSteps = "install-in-two-steps",
    FlushInTwoSteps = "flush-in-two-steps",
    LargestNodeForgotten = "largest-node-forgotten",
    ForwardBrokenRefused = "forward-broken-is-refused",
    LateRefused = "late-is-refused",
    StoppedRefused = "stopped-is-refused",
    ListWithoutReadIndex = "list-without-read-index",
    ListSkips = "list-skips-a-session",
    TombstoneSweptEarly = "tombstone-swept-early",
    KeptClientExpires = "kept-client-expires",
    WakeBetweenTwoSteps = "wake-between-two-steps",
    RowWithoutLastChange = "row-without-last-change",
    OpenOutcomeForgotten = "open-outcome-forgotten",
    ClosedOutcomeKeepsItsRow = "closed-outcome-keeps-its-row",
    MarksUncounted = "marks-uncounted",
    RowsMadeLate = "rows-made-late",
    HalfARoundIsSeen = "half-a-round-is-seen",
    RoundAtOneVersion = "round-at-one-version",
    WatchSkipsADelete = "watch-skips-a-delete",
    CutRevisionSaid = "cut-revision-is-said",
    DeletionsBeginForgotten = "deletions-begin-forgotten",
    WalkSaysItsRevision = "walk-says-its-revision",
    AppendReplacesHead = "append-replaces-head",
    AppendToAValue = "append-to-a-value",
    RequireUnchecked = "require-unchecked",
    RebaseOntoAnother = "rebase-onto-another-session",
    LeasedToAnOldClient = "leased-to-an-old-client",
    SentBeforeItIsInForce = "sent-before-it-is-in-force",
    TouchBumpsTheVersion = "touch-bumps-the-version",
    IdleMovedByAConflict = "idle-moved-by-a-conflict",
    LabelUncounted = "label-not-counted",
    TombstoneTtlIgnored = "tombstone-ttl-ignored-by-expiry",
    FenceNotCompared = "fence-not-compared",
    UnfencedWriteUnderALease = "unfenced-write-under-a-lease",
    FenceWithoutALease = "fence-without-a-lease",
    LeasedNotRecorded = "leased-not-recorded",
    RenewalShortens = "renewal-shortens-a-lease",
    LeaseLivesUntilSwept = "lease-lives-until-swept",
    FenceAgainAfterARestore = "fence-again-after-a-restore",
    LeasesUncounted = "leases-not-counted",
    LostTurnUnfenced = "lost-turn-writes-unfenced",
    GrantedWithoutClocks = "granted-without-clocks",
    TransactionStoresWhatCameBefore = "transaction-stores-what-came-before",
    AbortMovesADeadline = "abort-moves-a-deadline",
    TransactionAuthorizedByFirstId = "transaction-authorized-by-first-id",
    CreationsShareARow = "creations-share-a-row",
    RepackWithOtherItems = "repack-with-other-items",
    RepackNotCompared = "repack-not-compared-with-rows",
    RepackMovesTheVersion = "repack-moves-the-version",
    TailBelowFirstChunk = "tail-by-number-below-first-chunk",
    PackedRowsLeft = "packed-rows-left-over",
    LaterVerbProposed = "later-verb-proposed",
    SuffixBeginsLate = "suffix-begins-one-chunk-late",
    ManyViews = "many-from-a-view-each",
    PartInCache = "part-enters-the-cache",
}
