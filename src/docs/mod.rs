//! How quorate works and why, beside the code it speaks of.
//!
//! Start with [`architecture`]; [`consistency`] and [`failure_model`] say what holds when, [`not_promised`] what does not, and
//! [`invariants`] what the code keeps so that it holds. [`sessions`], [`membership`], [`disk_format`], [`protocol`] and [`limits`] are the parts.

/// Modules that are pages.
macro_rules! pages {
    ($($name:ident: $file:literal,)*) => {
        $(#[doc = include_str!($file)] pub mod $name {})*
    };
}

pages! {
    architecture: "architecture.md",
    consistency: "consistency.md",
    sessions: "sessions.md",
    verbs: "verbs.md",
    membership: "membership.md",
    limits: "limits.md",
    invariants: "invariants.md",
    failure_model: "failure_model.md",
    not_promised: "not_promised.md",
    protocol: "protocol.md",
    disk_format: "disk_format.md",
    threading: "threading.md",
    testing: "testing.md",
    performance: "performance.md",
    operations: "operations.md",
    security: "security.md",
    metrics: "metrics.md",
    glossary: "glossary.md",
}

/// The lab book: measurements, attempts and runs, by build. The current figures are in [`performance`] and [`testing`].
pub mod notes {
    pages! {
        performance_history: "notes/performance-history.md",
        testing_history: "notes/testing-history.md",
    }
}

/// The decisions: what else was considered, and why. A decision is changed by a new record, not by editing an old one. Numbers are
/// given out in blocks, so some are not there.
pub mod decisions {
    pages! {
        d0001_own_log: "decisions/0001-own-log.md",
        d0002_reads_by_read_index: "decisions/0002-reads-by-read-index.md",
        d0003_exactly_once_by_a_client_table: "decisions/0003-exactly-once-by-a-client-table.md",
        d0004_time_is_in_the_log: "decisions/0004-time-is-in-the-log.md",
        d0005_a_restarted_leader_does_not_resume: "decisions/0005-a-restarted-leader-does-not-resume.md",
        d0006_the_server_never_looks_inside: "decisions/0006-the-server-never-looks-inside.md",
        d0007_bootstrap_by_everyone: "decisions/0007-bootstrap-by-everyone.md",
        d0008_one_stream_of_operations: "decisions/0008-one-stream-of-operations.md",
        d0009_dev_runs_processes: "decisions/0009-dev-runs-processes.md",
        d0010_an_equal_head_is_unchanged: "decisions/0010-an-equal-head-is-unchanged.md",
        d0011_a_full_disk_is_survived_not_foreseen: "decisions/0011-a-full-disk-is-survived-not-foreseen.md",
        d0012_the_clients_task_owns_its_table: "decisions/0012-the-clients-task-owns-its-table.md",
        d0013_one_operation_in_a_message: "decisions/0013-one-operation-in-a-message.md",
        d0021_a_read_index_of_our_own: "decisions/0021-a-read-index-of-our-own.md",
        d0022_a_stand_in_for_a_histogram: "decisions/0022-a-stand-in-for-a-histogram.md",
        d0023_pack_from_one_and_a_half_kib: "decisions/0023-pack-from-one-and-a-half-kib.md",
        d0024_one_async_worker_for_two_processors: "decisions/0024-one-async-worker-for-two-processors.md",
        d0025_a_first_look_and_production_are_two_builds: "decisions/0025-a-first-look-and-production-are-two-builds.md",
        d0040_a_state_that_is_wrong_is_replaced_before_the_start: "decisions/0040-a-state-that-is-wrong-is-replaced-before-the-start.md",
        d0041_a_new_node_has_a_greater_id: "decisions/0041-a-new-node-has-a-greater-id.md",
        d0042_addresses_live_in_the_membership: "decisions/0042-addresses-live-in-the-membership.md",
        d0043_a_disk_that_hangs_hands_over: "decisions/0043-a-disk-that-hangs-hands-over.md",
        d0044_one_sha256_for_a_token: "decisions/0044-one-sha256-for-a-token.md",
        d0045_credentials_are_looked_at: "decisions/0045-credentials-are-looked-at.md",
        d0051_the_log_writes_zeros_ahead_of_itself: "decisions/0051-the-log-writes-zeros-ahead-of-itself.md",
        d0052_a_flush_fills_pages_and_fits_the_cache: "decisions/0052-a-flush-fills-pages-and-fits-the-cache.md",
        d0053_little_is_packed_at_level_1: "decisions/0053-little-is-packed-at-level-1.md",
        d0054_one_full_disk_is_one_members_matter: "decisions/0054-one-full-disk-is-one-members-matter.md",
        d0061_a_leader_without_a_majority_is_none: "decisions/0061-a-leader-without-a-majority-is-none.md",
        d0071_bincode_is_frozen: "decisions/0071-bincode-is-frozen.md",
        d0073_a_token_has_a_share: "decisions/0073-a-token-has-a-share.md",
        d0074_content_is_read_whole: "decisions/0074-content-is-read-whole.md",
        d0081_rows_of_what_changes_often_are_made_once: "decisions/0081-rows-of-what-changes-often-are-made-once.md",
        d0082_a_row_has_the_first_format_that_carries_it: "decisions/0082-a-row-has-the-first-format-that-carries-it.md",
        d0083_reads_of_parts_need_no_cluster_version: "decisions/0083-reads-of-parts-need-no-cluster-version.md",
    }
}

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
