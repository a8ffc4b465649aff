//! How quorate works and why, beside the code it speaks of.
//!
//! Start with [`architecture`]; [`consistency`] and [`failure_model`] say what holds when, [`not_promised`] what does not, and
//! [`invariants`] what the code keeps so that it holds. [`sessions`], [`membership`], [`disk_format`], [`protocol`] and [`limits`] are the parts.

#[doc = include_str!("architecture.md")]
pub mod architecture {}
#[doc = include_str!("consistency.md")]
pub mod consistency {}
#[doc = include_str!("sessions.md")]
pub mod sessions {}
#[doc = include_str!("membership.md")]
pub mod membership {}
#[doc = include_str!("limits.md")]
pub mod limits {}
#[doc = include_str!("invariants.md")]
pub mod invariants {}
#[doc = include_str!("failure_model.md")]
pub mod failure_model {}
#[doc = include_str!("not_promised.md")]
pub mod not_promised {}
#[doc = include_str!("protocol.md")]
pub mod protocol {}
#[doc = include_str!("disk_format.md")]
pub mod disk_format {}
#[doc = include_str!("threading.md")]
pub mod threading {}
#[doc = include_str!("testing.md")]
pub mod testing {}
#[doc = include_str!("performance.md")]
pub mod performance {}
#[doc = include_str!("operations.md")]
pub mod operations {}
#[doc = include_str!("security.md")]
pub mod security {}
#[doc = include_str!("metrics.md")]
pub mod metrics {}
#[doc = include_str!("glossary.md")]
pub mod glossary {}

/// The lab book: measurements, attempts and runs, by build. The current figures are in [`performance`] and [`testing`].
pub mod notes {
    #[doc = include_str!("notes/performance-history.md")]
    pub mod performance_history {}
    #[doc = include_str!("notes/testing-history.md")]
    pub mod testing_history {}
}

/// The decisions: what else was considered, and why. A decision is changed by a new record, not by editing an old one. Numbers are
/// given out in blocks, so some are not there.
pub mod decisions {
    #[doc = include_str!("decisions/0001-own-log.md")]
    pub mod d0001_own_log {}
    #[doc = include_str!("decisions/0002-reads-by-read-index.md")]
    pub mod d0002_reads_by_read_index {}
    #[doc = include_str!("decisions/0003-exactly-once-by-a-client-table.md")]
    pub mod d0003_exactly_once_by_a_client_table {}
    #[doc = include_str!("decisions/0004-time-is-in-the-log.md")]
    pub mod d0004_time_is_in_the_log {}
    #[doc = include_str!("decisions/0005-a-restarted-leader-does-not-resume.md")]
    pub mod d0005_a_restarted_leader_does_not_resume {}
    #[doc = include_str!("decisions/0006-the-server-never-looks-inside.md")]
    pub mod d0006_the_server_never_looks_inside {}
    #[doc = include_str!("decisions/0007-bootstrap-by-everyone.md")]
    pub mod d0007_bootstrap_by_everyone {}
    #[doc = include_str!("decisions/0008-one-stream-of-operations.md")]
    pub mod d0008_one_stream_of_operations {}
    #[doc = include_str!("decisions/0009-dev-runs-processes.md")]
    pub mod d0009_dev_runs_processes {}
    #[doc = include_str!("decisions/0010-an-equal-head-is-unchanged.md")]
    pub mod d0010_an_equal_head_is_unchanged {}
    #[doc = include_str!("decisions/0011-a-full-disk-is-survived-not-foreseen.md")]
    pub mod d0011_a_full_disk_is_survived_not_foreseen {}
    #[doc = include_str!("decisions/0012-the-clients-task-owns-its-table.md")]
    pub mod d0012_the_clients_task_owns_its_table {}
    #[doc = include_str!("decisions/0013-one-operation-in-a-message.md")]
    pub mod d0013_one_operation_in_a_message {}
    #[doc = include_str!("decisions/0021-a-read-index-of-our-own.md")]
    pub mod d0021_a_read_index_of_our_own {}
    #[doc = include_str!("decisions/0022-a-stand-in-for-a-histogram.md")]
    pub mod d0022_a_stand_in_for_a_histogram {}
    #[doc = include_str!("decisions/0023-pack-from-one-and-a-half-kib.md")]
    pub mod d0023_pack_from_one_and_a_half_kib {}
    #[doc = include_str!("decisions/0024-one-async-worker-for-two-processors.md")]
    pub mod d0024_one_async_worker_for_two_processors {}
    #[doc = include_str!("decisions/0025-a-first-look-and-production-are-two-builds.md")]
    pub mod d0025_a_first_look_and_production_are_two_builds {}
    #[doc = include_str!("decisions/0040-a-state-that-is-wrong-is-replaced-before-the-start.md")]
    pub mod d0040_a_state_that_is_wrong_is_replaced_before_the_start {}
    #[doc = include_str!("decisions/0041-a-new-node-has-a-greater-id.md")]
    pub mod d0041_a_new_node_has_a_greater_id {}
    #[doc = include_str!("decisions/0042-addresses-live-in-the-membership.md")]
    pub mod d0042_addresses_live_in_the_membership {}
    #[doc = include_str!("decisions/0043-a-disk-that-hangs-hands-over.md")]
    pub mod d0043_a_disk_that_hangs_hands_over {}
    #[doc = include_str!("decisions/0044-one-sha256-for-a-token.md")]
    pub mod d0044_one_sha256_for_a_token {}
    #[doc = include_str!("decisions/0045-credentials-are-looked-at.md")]
    pub mod d0045_credentials_are_looked_at {}
    #[doc = include_str!("decisions/0051-the-log-writes-zeros-ahead-of-itself.md")]
    pub mod d0051_the_log_writes_zeros_ahead_of_itself {}
    #[doc = include_str!("decisions/0052-a-flush-fills-pages-and-fits-the-cache.md")]
    pub mod d0052_a_flush_fills_pages_and_fits_the_cache {}
    #[doc = include_str!("decisions/0053-little-is-packed-at-level-1.md")]
    pub mod d0053_little_is_packed_at_level_1 {}
    #[doc = include_str!("decisions/0054-one-full-disk-is-one-members-matter.md")]
    pub mod d0054_one_full_disk_is_one_members_matter {}
    #[doc = include_str!("decisions/0061-a-leader-without-a-majority-is-none.md")]
    pub mod d0061_a_leader_without_a_majority_is_none {}
    #[doc = include_str!("decisions/0071-bincode-is-frozen.md")]
    pub mod d0071_bincode_is_frozen {}
    #[doc = include_str!("decisions/0073-a-token-has-a-share.md")]
    pub mod d0073_a_token_has_a_share {}
    #[doc = include_str!("decisions/0074-content-is-read-whole.md")]
    pub mod d0074_content_is_read_whole {}
    #[doc = include_str!("decisions/0081-rows-of-what-changes-often-are-made-once.md")]
    pub mod d0081_rows_of_what_changes_often_are_made_once {}
}

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
