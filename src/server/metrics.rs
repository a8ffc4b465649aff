//! The metrics of a node. One registry per node, so several nodes in one process stay apart. No session id ever becomes a label.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, SharedString};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::call::{KINDS, Kind, Operation, Response};
use super::security::Report;
use super::shares::Usage;
use super::slow::{CAUSES, Cause};
use super::watch;
use crate::env::OwnUsage;
use crate::net::Traffic;
use crate::types::{Change, Loaded, NodeStatus, Refusal, RefusalKind, Role, Verdict};

/// Upper bounds of the buckets of durations, in seconds.
const SECONDS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];
/// Upper bounds of the buckets of batch sizes, in operations.
const OPERATIONS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Counters of seconds. The recorder's own counters are whole numbers, so these are gauges to it, and are called what they are in the text.
const COUNTED_SECONDS: [&str; 2] = ["quorate_log_sync_seconds_total", "process_cpu_seconds_total"];

/// Something of each bucket of durations; the last one is of those above every bound.
pub type Spread<T> = [T; SECONDS.len() + 1];

/// The duration that the share `q` of them did not exceed, in microseconds, by a straight line within its bucket. Of those above every
/// bound the last bound is all that is known. `None` of none.
pub fn quantile_us(spread: &Spread<u64>, q: f64) -> Option<u64> {
    let wanted = spread.iter().sum::<u64>() as f64 * q;
    let (mut under, mut low) = (0.0, 0.0);
    for (count, bound) in spread.iter().zip(SECONDS) {
        let count = *count as f64;
        if count > 0.0 && under + count >= wanted {
            return Some(((low + (bound - low) * (wanted - under) / count) * 1e6) as u64);
        }
        under += count;
        low = *bound;
    }
    (spread[SECONDS.len()] > 0).then_some((low * 1e6) as u64)
}

/// Values read when metrics are asked for, not counted as they happen.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    pub status: NodeStatus,
    pub in_flight_bytes: u64,
    pub loaded_bytes: u64,
    pub open_operations: u64,
    pub receiving_bytes: u64,
    /// Because they took too long, and because there was no room.
    pub requests_ended: [u64; 2],
    pub watches: watch::Counts,
    pub log_written_bytes: u64,
    pub disk_low: bool,
    /// Peers in another state.
    pub differing: u64,
    pub machine_ahead_ms: u64,
    /// As unauthenticated, and as denied.
    pub refused_credentials: [u64; 2],
    pub uptime: Duration,
    /// The node's own clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// `None` where the system does not say.
    pub process: Option<OwnUsage>,
    pub credentials: Report,
    /// Leases of turns.
    pub leases: u64,
    /// How full the tables are.
    pub tables: Vec<Usage>,
    /// The usage of each token, by its name.
    pub tokens: Vec<(String, Vec<Usage>)>,
}

/// The usage of this process, if the system reports it.
pub fn own_usage() -> Option<OwnUsage> {
    OwnUsage::read().ok()
}

/// The traffic of a node's ports. Each connection is counted where it was accepted, so all nodes together count every
/// byte between two of them once in and once out of one node.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    pub client: Arc<Traffic>,
    pub peer: Arc<Traffic>,
    pub admin: Arc<Traffic>,
}

/// The counters of one node.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// By how they ended.
    operations: [Mutex<BTreeMap<&'static str, Counter>>; KINDS.len()],
    seconds: [Histogram; KINDS.len()],
    proposals: Counter,
    proposal_operations: Histogram,
    read_operations: Histogram,
    /// Sent as what is new, and as a whole.
    saves: [Counter; 2],
    wire: Wire,
    forwarded: Counter,
    forward_breaks: Counter,
    leader_changes: Counter,
    parked: Gauge,
    cut_off: Counter,
    slow: [Counter; CAUSES.len()],
    /// Answers to writes and to reads.
    answered: [AtomicU64; 2],
    /// When the process started, in seconds since the Unix epoch, as it looked when that was first asked.
    started_s: OnceLock<f64>,
    /// How many operations took how long.
    took: Spread<AtomicU64>,
    /// Tokens and shares that were shown once: their lines stay.
    shown: Mutex<BTreeSet<(String, &'static str)>>,
}

impl Metrics {
    pub fn new(wire: Wire) -> Self {
        let builder = PrometheusBuilder::new();
        let builder = builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_operations".into()), OPERATIONS))
            .expect("the buckets are constants and not empty");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let mut metrics = metrics::with_local_recorder(&recorder, || {
            describe();
            let seconds = KINDS.map(|kind| metrics::histogram!("quorate_operation_duration_seconds", "operation" => kind));
            Self {
                operations: Default::default(),
                seconds,
                proposals: metrics::counter!("quorate_proposals_total"),
                proposal_operations: metrics::histogram!("quorate_proposal_batch_operations"),
                read_operations: metrics::histogram!("quorate_read_batch_operations"),
                saves: ["delta", "full"].map(|form| metrics::counter!("quorate_saves_total", "form" => form)),
                wire,
                forwarded: metrics::counter!("quorate_forwards_total"),
                forward_breaks: metrics::counter!("quorate_forward_streams_broken_total"),
                leader_changes: metrics::counter!("quorate_leader_changes_seen_total"),
                parked: metrics::gauge!("quorate_parked_calls"),
                cut_off: metrics::counter!("quorate_readers_cut_off_total"),
                slow: CAUSES.map(|cause| metrics::counter!("quorate_slow_operations_total", "cause" => cause.name())),
                answered: Default::default(),
                started_s: OnceLock::new(),
                took: Default::default(),
                shown: Mutex::default(),
                handle,
                recorder: PrometheusBuilder::new().build_recorder(),
            }
        });
        metrics.recorder = recorder;
        metrics
    }

    /// An operation ended.
    pub fn ended(&self, kind: Kind, result: &Result<Response, Refusal>, took: Duration) {
        let result = result_name(result);
        let counter = || metrics::counter!("quorate_operations_total", "operation" => KINDS[kind as usize], "result" => result);
        let mut operations = self.operations[kind as usize].lock().unwrap_or_else(PoisonError::into_inner);
        operations.entry(result).or_insert_with(|| metrics::with_local_recorder(&self.recorder, counter)).increment(1);
        drop(operations);
        self.seconds[kind as usize].record(took.as_secs_f64());
        self.took[SECONDS.partition_point(|bound| *bound < took.as_secs_f64())].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a save that this node's machine applied, by how it was sent.
    pub fn saved(&self, operation: &Operation, result: &Result<Response, Refusal>) {
        let Ok(Response::Outcome(outcome)) = result else { return };
        let (Operation::Write(write), Verdict::Saved(_) | Verdict::Transacted(_)) = (operation, &outcome.verdict) else { return };
        for change in write.changes() {
            match change {
                Change::Delta { .. } => self.saves[0].increment(1),
                Change::Full { .. } => self.saves[1].increment(1),
            }
        }
    }

    /// A client's operation was answered. One that a peer forwarded is the peer's to count.
    pub fn answered_one(&self, kind: Kind) {
        self.answered[usize::from(!kind.is_write())].fetch_add(1, Ordering::Relaxed);
    }

    /// Answers given to clients since the start: to writes, and to reads.
    pub fn answered(&self) -> [u64; 2] {
        self.answered.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// How many of all operations since the start took how long.
    pub fn spread(&self) -> Spread<u64> {
        self.took.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// A slow operation was answered.
    pub fn slow(&self, cause: Cause) {
        self.slow[cause as usize].increment(1);
    }

    /// So many operations went into one proposal.
    pub fn proposed(&self, operations: usize) {
        self.proposals.increment(1);
        self.proposal_operations.record(operations as f64);
    }

    /// So many reads share one read index.
    pub fn read(&self, operations: usize) {
        self.read_operations.record(operations as f64);
    }

    /// One operation went to the leader.
    pub fn forwarded(&self) {
        self.forwarded.increment(1);
    }

    /// A stream to the leader ended while operations were open.
    pub fn forward_broke(&self) {
        self.forward_breaks.increment(1);
    }

    /// This node heard of another leader, or of none.
    pub fn leader_changed(&self) {
        self.leader_changes.increment(1);
    }

    /// So many calls wait for a leader now.
    pub fn parked(&self, calls: usize) {
        self.parked.set(calls as f64);
    }

    /// So many streams were ended because their readers took nothing.
    pub fn cut_off(&self, streams: usize) {
        self.cut_off.increment(streams as u64);
    }

    /// Folds what was recorded since, so that it stays bounded though nobody may ever ask.
    pub fn keep_up(&self) {
        self.handle.run_upkeep();
    }

    /// All of it, as Prometheus reads it.
    pub fn render(&self, levels: &Levels) -> String {
        let status = &levels.status;
        metrics::with_local_recorder(&self.recorder, || {
            let gauge = |name: &'static str, value: u64| metrics::gauge!(name).set(value as f64);
            gauge("quorate_in_flight_bytes", levels.in_flight_bytes);
            gauge("quorate_loaded_bytes", levels.loaded_bytes);
            gauge("quorate_open_operations", levels.open_operations);
            gauge("quorate_receiving_bytes", levels.receiving_bytes);
            for (reason, requests) in ["late", "no_room"].into_iter().zip(levels.requests_ended) {
                metrics::counter!("quorate_requests_ended_total", "reason" => reason).absolute(requests);
            }
            gauge("quorate_watches", levels.watches.open);
            metrics::counter!("quorate_watch_frames_total").absolute(levels.watches.frames);
            metrics::counter!("quorate_watch_resyncs_total").absolute(levels.watches.resyncs);
            gauge("quorate_is_leader", (status.role == Role::Leader).into());
            gauge("quorate_has_leader", status.leader.is_some().into());
            gauge("quorate_term", status.term);
            gauge("quorate_last_log_index", status.last_log.unwrap_or(0));
            gauge("quorate_committed_index", status.committed.unwrap_or(0));
            gauge("quorate_applied_index", status.applied.unwrap_or(0));
            gauge("quorate_flushed_index", status.flushed.unwrap_or(0));
            gauge("quorate_log_bytes", status.log_bytes);
            metrics::counter!("quorate_log_written_bytes_total").absolute(levels.log_written_bytes);
            for (port, traffic) in [("client", &self.wire.client), ("peer", &self.wire.peer)] {
                for (direction, bytes) in ["in", "out"].into_iter().zip(traffic.bytes()) {
                    metrics::counter!("quorate_wire_bytes_total", "port" => port, "direction" => direction).absolute(bytes);
                }
            }
            for (port, traffic) in [("client", &self.wire.client), ("peer", &self.wire.peer), ("admin", &self.wire.admin)] {
                metrics::gauge!("quorate_connections", "port" => port).set(traffic.connections() as f64);
                metrics::counter!("quorate_connections_refused_total", "port" => port).absolute(traffic.refused());
                let [under_way, dropped] = traffic.greetings();
                metrics::gauge!("quorate_greetings", "port" => port).set(under_way as f64);
                metrics::counter!("quorate_greetings_dropped_total", "port" => port).absolute(dropped);
            }
            for (reason, calls) in ["unauthenticated", "denied"].into_iter().zip(levels.refused_credentials) {
                metrics::counter!("quorate_refused_credentials_total", "reason" => reason).absolute(calls);
            }
            if let Some(end) = levels.credentials.not_after {
                gauge("quorate_certificate_not_after_seconds", end);
            }
            gauge("quorate_credentials_problem", levels.credentials.problem.is_some().into());
            metrics::counter!("quorate_credentials_reloads_total").absolute(levels.credentials.reloads);
            for (port, refused) in ["client", "peer", "admin"].into_iter().zip(levels.credentials.refused) {
                metrics::counter!("quorate_tls_refused_total", "port" => port).absolute(refused);
            }
            gauge("quorate_state_bytes", status.state_bytes);
            gauge("quorate_sessions", status.sessions);
            gauge("quorate_clients", status.clients);
            gauge("quorate_disk_low", levels.disk_low.into());
            gauge("quorate_diverged", levels.differing);
            gauge("quorate_disk_free_bytes", status.disk_free_bytes);
            gauge("quorate_disk_total_bytes", status.disk_total_bytes);
            gauge("quorate_cluster_version", status.cluster_version.into());
            metrics::counter!("quorate_log_syncs_total").absolute(status.syncs);
            metrics::gauge!("quorate_log_sync_seconds_total").set(status.sync_total.as_secs_f64());
            metrics::gauge!("quorate_log_sync_seconds_max").set(status.sync_slowest.as_secs_f64());
            metrics::counter!("quorate_scrub_passes_total").absolute(status.scrub_passes);
            metrics::counter!("quorate_scrub_bytes_total").absolute(status.scrub_bytes);
            metrics::gauge!("quorate_scrub_ended_timestamp_seconds").set(status.scrubbed_ms as f64 / 1000.0);
            metrics::gauge!("quorate_uptime_seconds").set(levels.uptime.as_secs_f64());
            metrics::gauge!("quorate_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            let offset = status.clock_offset_ms.map_or(f64::NAN, |ms| ms as f64 / 1000.0);
            metrics::gauge!("quorate_clock_offset_seconds").set(offset);
            self.process(levels);
            self.shares(levels);
            metrics::gauge!("quorate_machine_time_ahead_seconds").set(levels.machine_ahead_ms as f64 / 1000.0);
        });
        COUNTED_SECONDS.iter().fold(self.handle.render(), |text, name| {
            text.replace(&format!("# TYPE {name} gauge\n"), &format!("# TYPE {name} counter\n"))
        })
    }

    /// Tables, and the shares of tokens. A token that is gone holds nothing any more.
    fn shares(&self, levels: &Levels) {
        metrics::gauge!("quorate_leases").set(levels.leases as f64);
        for Usage { what, used, limit, .. } in &levels.tables {
            metrics::gauge!("quorate_table_used", "table" => *what).set(*used as f64);
            metrics::gauge!("quorate_table_limit", "table" => *what).set(*limit as f64);
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = shown.iter().filter(|(token, _)| !levels.tokens.iter().any(|(name, _)| name == token));
        for (token, what) in gone {
            for metric in ["quorate_token_used", "quorate_token_limit"] {
                metrics::gauge!(metric, "token" => token.clone(), "share" => *what).set(0.0);
            }
        }
        for (token, shares) in &levels.tokens {
            for Usage { what, used, limit, refused } in shares {
                let labels = || vec![Label::new("token", token.clone()), Label::from_static_parts("share", what)];
                metrics::gauge!("quorate_token_used", labels()).set(*used as f64);
                metrics::gauge!("quorate_token_limit", labels()).set(*limit as f64);
                metrics::counter!("quorate_token_refused_total", labels()).absolute(*refused);
                shown.insert((token.clone(), what));
            }
        }
    }

    /// The usage of the process, under the names that dashboards for Prometheus expect.
    fn process(&self, levels: &Levels) {
        let since = || levels.wall_ms as f64 / 1000.0 - levels.uptime.as_secs_f64();
        metrics::gauge!("process_start_time_seconds").set(*self.started_s.get_or_init(since));
        let Some(process) = &levels.process else { return };
        metrics::gauge!("process_cpu_seconds_total").set(process.cpu.as_secs_f64());
        metrics::gauge!("process_resident_memory_bytes").set(process.memory_bytes as f64);
        metrics::gauge!("process_open_fds").set(process.open_files as f64);
        metrics::gauge!("process_max_fds").set(process.open_files_max.map_or(f64::INFINITY, |files| files as f64));
    }
}

/// Sets `# HELP` from the documentation, so that no metric is without.
fn describe() {
    for (name, kind, text) in documented() {
        let text = SharedString::from_owned(text.replace('`', ""));
        match kind {
            "counter" => metrics::describe_counter!(name, text),
            "histogram" => metrics::describe_histogram!(name, text),
            _ => metrics::describe_gauge!(name, text),
        }
    }
}

/// Name, type and meaning of each row of the table in `src/docs/metrics.md`.
fn documented() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    include_str!("../docs/metrics.md").lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.strip_suffix(" |")?.splitn(3, " | ");
        let name = cells.next()?.split(['{', '`']).next()?;
        Some((name, cells.next()?, cells.next()?))
    })
}

/// A word for how an operation ended.
pub fn result_name(result: &Result<Response, Refusal>) -> &'static str {
    match result {
        Ok(Response::Outcome(outcome)) => verdict_name(&outcome.verdict),
        Ok(Response::Loaded { loaded, .. }) => match loaded {
            Loaded::NotFound { .. } => "not_found",
            Loaded::NotModified => "not_modified",
            Loaded::Tail(_) => "tail",
            Loaded::Full(_) => "full",
            Loaded::Suffix { .. } => "suffix",
        },
        Ok(Response::LoadedMany { .. }) => "loaded",
        Ok(Response::Listed { .. }) => "page",
        Ok(Response::Relayed { .. }) => "relayed",
        Err(refusal) => refusal_name(&refusal.kind),
    }
}

fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Saved(_) => "saved",
        Verdict::Appended(_) => "appended",
        Verdict::WrongForm { .. } => "wrong_form",
        Verdict::Touched { .. } => "touched",
        Verdict::LeaseGranted { .. } => "lease_granted",
        Verdict::LeaseHeld { .. } => "lease_held",
        Verdict::LeasesRenewed { .. } => "leases_renewed",
        Verdict::LeaseReleased => "lease_released",
        Verdict::LeaseLost => "lease_lost",
        Verdict::TooManyLeases => "too_many_leases",
        Verdict::Leased { .. } => "leased",
        Verdict::Fenced { .. } => "fenced",
        Verdict::Conflict { .. } => "conflict",
        Verdict::Repacked { .. } => "repacked",
        Verdict::NotRepacked => "not_repacked",
        Verdict::Transacted(_) => "transacted",
        Verdict::Aborted(_) => "aborted",
        Verdict::BaseMismatch | Verdict::BaseMismatchAt { .. } => "base_mismatch",
        Verdict::TooLarge(_) => "too_large",
        Verdict::TooManySessions => "too_many_sessions",
        Verdict::Deleted { .. } => "deleted",
        Verdict::NotFound { .. } => "not_found",
        Verdict::ClientOpened { .. } => "client_opened",
        Verdict::ClientKept => "client_kept",
        Verdict::ClientClosed => "client_closed",
        Verdict::TooManyClients => "too_many_clients",
        Verdict::ClientUnknown => "client_unknown",
        Verdict::Stale => "stale",
        Verdict::WindowExceeded => "window_exceeded",
        Verdict::Busy => "busy",
        Verdict::Met | Verdict::Swept(_) | Verdict::ClusterVersion { .. } => "other",
    }
}

/// A word for each kind of refusal.
pub fn refusal_name(kind: &RefusalKind) -> &'static str {
    match kind {
        RefusalKind::Invalid => "invalid",
        RefusalKind::WrongCluster => "wrong_cluster",
        RefusalKind::NotLeader(_) => "not_leader",
        RefusalKind::NoLeader => "no_leader",
        RefusalKind::Overloaded { .. } => "overloaded",
        RefusalKind::DiskLow { .. } => "disk_low",
        RefusalKind::DeadlineExceeded => "deadline_exceeded",
        RefusalKind::Unavailable => "unavailable",
        RefusalKind::Corrupt => "corrupt",
        RefusalKind::Unauthenticated | RefusalKind::Denied => "denied",
        RefusalKind::Unsupported => "unsupported",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Outcome, Revision};

    #[test]
    fn a_quantile_lies_within_its_bucket_and_of_nothing_there_is_none() {
        let mut spread = Spread::default();
        assert_eq!(quantile_us(&spread, 0.5), None);
        // A hundred between 1 and 2.5 ms, and one far above.
        spread[4] = 100;
        assert_eq!(quantile_us(&spread, 0.5), Some(1750));
        spread[SECONDS.len()] = 1;
        assert!(quantile_us(&spread, 0.99).is_some_and(|us| us <= 2500));
        assert_eq!(quantile_us(&spread, 1.0), Some(15_000_000));
        let metrics = Metrics::new(Wire::default());
        metrics.ended(Kind::Load, &Err(Refusal::invalid("no")), Duration::from_millis(2));
        metrics.ended(Kind::Save, &Err(Refusal::invalid("no")), Duration::from_secs(60));
        assert_eq!((metrics.spread()[4], metrics.spread()[SECONDS.len()]), (1, 1));
    }

    #[test]
    fn operations_are_counted_by_kind_and_result_and_two_nodes_are_counted_apart() {
        let (one, two) = (Metrics::new(Wire::default()), Metrics::new(Wire::default()));
        let kept = || Ok(Response::Outcome(Outcome { revision: Revision(1), verdict: Verdict::ClientKept }));
        one.ended(Kind::Client, &kept(), Duration::from_millis(1));
        one.ended(Kind::Load, &Err(Refusal::invalid("no")), Duration::ZERO);
        let text = one.render(&Levels {
            status: NodeStatus { applied: Some(17), ..NodeStatus::default() },
            log_written_bytes: 5,
            ..Levels::default()
        });
        for line in [
            "quorate_operations_total{operation=\"client\",result=\"client_kept\"} 1",
            "quorate_operations_total{operation=\"load\",result=\"invalid\"} 1",
            "quorate_operation_duration_seconds_bucket{operation=\"client\",le=\"0.001\"} 1",
            "quorate_applied_index 17",
            "quorate_log_written_bytes_total 5",
            "quorate_wire_bytes_total{port=\"peer\",direction=\"out\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!two.render(&Levels::default()).contains("client_kept"));
    }

    /// A metric nobody explains is of no use, and one that is explained and not there misleads.
    #[test]
    fn every_metric_is_explained_and_what_is_explained_is_there() {
        let metrics = Metrics::new(Wire::default());
        metrics.ended(Kind::Load, &Err(Refusal::invalid("no")), Duration::from_millis(1));
        metrics.proposed(1);
        metrics.read(1);
        metrics.slow(Cause::Sync);
        let mut levels = Levels::default();
        levels.credentials.not_after = Some(1);
        levels.process = Some(OwnUsage::default());
        let usage = Usage { what: "clients", used: 3, limit: 5, refused: 7 };
        levels.tables = vec![usage.clone()];
        levels.tokens = vec![("agents".to_owned(), vec![usage])];
        let text = metrics.render(&levels);
        let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
        let without = |name: String| {
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end).map(str::to_owned)).unwrap_or(name)
        };
        let shown: std::collections::BTreeSet<String> =
            text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| without(name(line))).collect();
        let explained: Vec<String> = documented().map(|(name, ..)| name.to_owned()).collect();
        assert_eq!(shown.len(), explained.len(), "each is explained once");
        assert_eq!(shown, explained.into_iter().collect());
        for (name, kind, meaning) in documented() {
            assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} is no {kind}");
            assert!(text.contains(&format!("# HELP {name} {}\n", meaning.replace('`', ""))), "{name} has no help");
        }
        assert!(text.contains("quorate_slow_operations_total{cause=\"sync\"} 1"), "{text}");
        assert!(text.contains("quorate_token_refused_total{token=\"agents\",share=\"clients\"} 7"), "{text}");
        let later = metrics.render(&Levels::default());
        assert!(later.contains("quorate_token_used{token=\"agents\",share=\"clients\"} 0"), "it is gone\n{later}");
    }

    #[test]
    fn every_result_has_a_name_of_its_own() {
        let metrics = Metrics::new(Wire::default());
        let kinds = [RefusalKind::Invalid, RefusalKind::NoLeader, RefusalKind::Corrupt, RefusalKind::Denied];
        for kind in &kinds {
            metrics.ended(Kind::Load, &Err(Refusal::not_applied(kind.clone(), "")), Duration::ZERO);
        }
        let text = metrics.render(&Levels::default());
        for name in kinds.iter().map(refusal_name) {
            let line = format!("quorate_operations_total{{operation=\"load\",result=\"{name}\"}} 1\n");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}
