//! Whether a node is alive, whether it may be sent traffic, and why not.

use std::time::Duration;

use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::context::ServerContext;
use super::security::{EXPIRES_SOON, Report};
use super::shares;
use crate::raft::AHEAD_MS_MAX;
use crate::types::{NodeCheck, NodeId};

/// A clock this far off the voters' median is reported.
const CLOCK_OFFSET_MS_MAX: u64 = 10_000;
/// The services a health check may name besides the empty one.
const SERVICE: &str = "quorate.v1.Sessions";

/// How often readiness is checked, besides every change of the leadership.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The facts that the checks are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub failed: Option<String>,
    pub stopping: bool,
    pub bootstrapped: bool,
    /// Why it is in no cluster, though one has it as a member.
    pub estranged: Option<String>,
    pub leader: Option<u64>,
    /// The node leads by its term, and no majority answers it.
    pub lacks_quorum: bool,
    /// Nodes in another state than this one.
    pub differing: Vec<u64>,
    pub clock_offset_ms: Option<i64>,
    /// Members that are reached elsewhere than the membership has them.
    pub elsewhere: Vec<String>,
    /// How far machine time is ahead of the voters' median.
    pub machine_ahead_ms: u64,
    pub disk_low: bool,
    pub disk_free_bytes: u64,
    pub credentials: Report,
    /// Tables, and shares of tokens, that are nearly used up.
    pub used_up: Option<String>,
    /// The node's own clock, in seconds since the Unix epoch.
    pub now_s: u64,
}

impl Facts {
    pub fn of(context: &ServerContext) -> Self {
        let node = context.node();
        let status = node.status();
        let leadership = node.leadership().borrow().clone();
        Self {
            failed: node.failed(),
            stopping: context.calls().is_stopping(),
            bootstrapped: node.cluster_id().is_some(),
            estranged: node.estranged(),
            leader: leadership.leader.map(|leader| leader.node.0),
            lacks_quorum: leadership.lacks_quorum,
            differing: node.differing().iter().map(|node| node.0).collect(),
            clock_offset_ms: status.clock_offset_ms,
            elsewhere: node.found_elsewhere(),
            machine_ahead_ms: node.machine_ahead_ms(),
            disk_low: node.disk_low(),
            disk_free_bytes: status.disk_free_bytes,
            credentials: context.credentials().report(),
            used_up: shares::nearly_used_up(&context.tables(), &shares::tokens(node, context.guard())),
            now_s: context.wall_ms() / 1000,
        }
    }

    /// Whether it may be sent traffic.
    pub fn is_ready(&self) -> bool {
        self.checks().iter().all(|check| check.ok || !check.required)
    }

    /// All checks, in a fixed order.
    pub fn checks(&self) -> Vec<NodeCheck> {
        let check = |name: &str, ok, required, detail| NodeCheck { name: name.to_owned(), ok, required, detail };
        let offset = self.clock_offset_ms.map_or_else(|| "unknown".to_owned(), |ms| format!("offset_ms={ms}"));
        let clock_ok = self.clock_offset_ms.is_none_or(|ms| ms.unsigned_abs() <= CLOCK_OFFSET_MS_MAX);
        let leader = match self.leader {
            Some(id) => format!("leader={id}"),
            None if self.lacks_quorum => "no quorum: this node led, and no majority of the voters answers it".to_owned(),
            None => "no quorum: no leader is known".to_owned(),
        };
        let low = || format!("little room is left: no content is taken while others have room free_bytes={}", self.disk_free_bytes);
        let disk = if self.disk_low { low() } else { String::new() };
        let differing = match &self.differing[..] {
            [] => String::new(),
            nodes => format!("another state than this node's nodes={}", NodeId::listed(nodes)),
        };
        vec![
            check("storage", self.failed.is_none(), true, self.failed.clone().unwrap_or_default()),
            check("running", !self.stopping, true, String::new()),
            check("bootstrapped", self.bootstrapped, true, self.estranged.clone().unwrap_or_default()),
            check("leader", self.leader.is_some(), true, leader),
            // A node that is wrong by a majority stops by itself; where it is unknown which one is wrong, none may take itself out.
            check("digest", self.differing.is_empty(), false, differing),
            check("clock", clock_ok, false, offset),
            check(
                "time",
                self.machine_ahead_ms <= AHEAD_MS_MAX,
                false,
                format!("machine_ahead_s={}", self.machine_ahead_ms / 1000),
            ),
            check("disk", !self.disk_low, false, disk),
            self.check_credentials(),
            check("shares", self.used_up.is_none(), false, self.used_up.clone().unwrap_or_default()),
            check("addresses", self.elsewhere.is_empty(), false, self.elsewhere.join(", ")),
        ]
    }

    /// A warning only: a node that took no traffic for it could take all nodes away at once.
    fn check_credentials(&self) -> NodeCheck {
        let left = self.credentials.not_after.map(|end| end.saturating_sub(self.now_s));
        let soon = left.is_some_and(|left| left < EXPIRES_SOON.as_secs());
        let detail = match (&self.credentials.problem, left) {
            (Some(problem), _) => format!("the last good ones stay in force: {problem}"),
            (None, Some(left)) => format!("certificate_left_hours={}", left / 3600),
            (None, None) => String::new(),
        };
        NodeCheck { name: "credentials".to_owned(), ok: self.credentials.problem.is_none() && !soon, required: false, detail }
    }
}

/// Keeps the gRPC health service current until `stop`; its spawner joins it.
pub async fn run(context: ServerContext, reporter: HealthReporter, mut stop: watch::Receiver<bool>) {
    let mut leadership = context.node().leadership();
    while !*stop.borrow() {
        let status = if Facts::of(&context).is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status("", status).await;
        reporter.set_service_status(SERVICE, status).await;
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { break },
            _ = stop.changed() => {}
            // What else readiness is made of tells nobody when it changes.
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
    }
    reporter.set_service_status("", ServingStatus::NotServing).await;
    reporter.set_service_status(SERVICE, ServingStatus::NotServing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts { bootstrapped: true, leader: Some(1), ..Facts::default() }
    }

    #[test]
    fn a_node_is_ready_only_while_all_that_is_required_holds() {
        assert!(good().is_ready());
        for bad in [
            Facts { failed: Some("sync failed".into()), ..good() },
            Facts { stopping: true, ..good() },
            Facts { bootstrapped: false, ..good() },
            Facts { leader: None, ..good() },
            Facts { leader: None, lacks_quorum: true, ..good() },
        ] {
            assert!(!bad.is_ready(), "{bad:?}");
        }
    }

    #[test]
    fn a_wrong_clock_a_low_disk_a_full_table_and_a_state_that_differs_are_shown_and_take_no_traffic_away() {
        let odd = Facts { clock_offset_ms: Some(-10_001), machine_ahead_ms: 10_001, disk_low: true, differing: vec![3], ..good() };
        let odd = Facts { used_up: Some("table=clients used=90 limit=100".into()), ..odd };
        assert!(odd.is_ready());
        let shown: Vec<_> = odd.checks().into_iter().filter(|check| !check.ok).map(|check| check.name).collect();
        assert_eq!(shown, ["digest", "clock", "time", "disk", "shares"]);
    }

    #[test]
    fn credentials_that_fail_or_end_soon_are_shown_and_take_no_traffic_away() {
        let of = |problem: Option<&str>, not_after| {
            let credentials = Report { problem: problem.map(str::to_owned), not_after, ..Report::default() };
            let facts = Facts { credentials, now_s: 1_000_000, ..good() };
            assert!(facts.is_ready());
            facts.check_credentials()
        };
        assert!(of(None, None).ok && of(None, Some(1_000_000 + EXPIRES_SOON.as_secs())).ok);
        assert!(!of(None, Some(1_000_000 + 3600)).ok);
        let broken = of(Some("can't read it"), Some(u64::MAX));
        assert!(!broken.ok && broken.detail.contains("can't read it"), "{broken:?}");
    }
}
