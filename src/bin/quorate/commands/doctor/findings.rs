//! The findings in a cluster's status. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate::client::{ClusterStatus, NodeEvent, NodeStatus, Role};
use quorate::types::NodeId;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something does not work, or what was acknowledged is in danger.
    Error,
    /// The cluster works, but not for long, or not as well as it could.
    Warning,
    /// Good to know; nothing to fix.
    Note,
}

impl Severity {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// `None`: the cluster as a whole.
    pub node: Option<u64>,
    pub what: String,
    pub fix: &'static str,
}

/// A clock so far off is worth a word; the node itself complains at ten times as much.
const CLOCK_OFFSET_MS: u64 = 1000;
/// A disk whose syncs take so long on average slows every write.
const SYNC_MEAN: Duration = Duration::from_millis(20);
/// One sync that took so long held up all writes of its node.
const SYNC_SLOWEST: Duration = Duration::from_secs(1);
/// Syncs from which a mean says something.
const SYNCS_MIN: u64 = 100;
/// Room below this share is soon none.
const DISK_FREE_SHARE: f64 = 0.1;
/// A node that is so many entries behind is far from taking over.
const LAG_ENTRIES: u64 = 10_000;
/// Everything should have been read once by then.
const SCRUB_WITHIN: Duration = Duration::from_secs(8 * 24 * 3600);

const FIX_DOWN: &str = "look at the process and its log on that host, and whether the peer port can be reached; a node whose disk is \
                         lost is replaced under a new id (operations.md, \"Replace a node\")";
const FIX_QUORUM: &str = "bring nodes back until a majority answers; nothing is lost meanwhile. If their disks are gone for good: \
                           operations.md, \"Lost majority\"";
const FIX_CLOCK: &str =
    "run chrony or ntpd on that host; expiry follows the median of the voters' clocks, so one wrong clock does no harm yet";
const FIX_TIME: &str = "the clocks of a majority were ahead once, and the time that sessions expire by never goes back: it continues at half speed until they \
                         catch up, and sessions with a time to live live up to twice as long. Nothing is lost. If that is too long: `session export`, a new \
                         cluster, `session import` (operations.md, \"Troubleshooting\")";
const FIX_SYNC: &str = "give the data directory a separate disk with a fast sync (local NVMe); look for other writers and for a \
                         write cache that is off";
const FIX_DISK: &str = "free room or grow the file system of the data directory; below the smaller of 1 GiB and 5 % that node takes no \
                         content and lags, and catches up by itself once there is room; saves are refused once no majority has room";
const FIX_DIFFER: &str = "the wrong node stops by itself once a majority agrees, and is rebuilt at its next start. If none does, take \
                           a backup of each node (`snapshot save --stale`) and report it: no node can tell which one is right";
const FIX_DAMAGE: &str = "nothing if a later event says `rebuild done`: the state came from the leader. Else start the node again. If it \
                           happens again on that host, replace the disk, and check its memory";
const FIX_FAILED: &str = "read the reason; a node that stops by itself does not serve what it can't trust. Start it again; if it stops \
                           again, replace it (operations.md, \"Replace a node\")";
const FIX_RELEASES: &str =
    "finish the rolling upgrade: one node after the other, each until it follows again (operations.md, \"Upgrade\")";
const FIX_CONFIG: &str = "give every node the same cluster.toml: name, members and addresses decide";
const FIX_CONFIG_LATER: &str = "nothing, if members were added, removed or moved since that file was written: those in the cluster's log \
                                 count (`quorate member ls`), and other hosts' files need not change";
const FIX_LAG: &str = "nothing if it shrinks (`quorate status --watch`); else look at that node's disk and network";
const FIX_SCRUB: &str =
    "raise storage.scrub_rate, or lower storage.scrub_interval if it is off: corruption is found only by reading";
const FIX_EVEN: &str = "three or five voters: an even number tolerates no more failures than one less";
const FIX_CREDENTIALS: &str = "put a good file in place, by renaming: a certificate that is renewed with its key, or the tokens; the node takes it \
                                within seconds (security.md, \"Renewal\")";
const FIX_ADDRESSES: &str = "nothing if it goes by itself: a node tells the cluster where it is. Else write the new addresses into every cluster.toml, \
                              and make the members say so, one after the other: `quorate member update ID`";
const FIX_SHARES: &str = "the token that fills it is named, or `quorate_token_used` in /metrics shows it: let that tenant close clients and delete sessions, or set \
                           `shares` in the tokens file (security.md, \"Shares\"); beyond it only that token is refused";
const FIX_CHECK: &str = "see operations.md, \"Troubleshooting\"";

/// All that is worth a word, the worst first.
pub fn diagnose(status: &ClusterStatus, events: &[(u64, Vec<NodeEvent>)]) -> Vec<Finding> {
    let mut found = Vec::new();
    quorum(status, &mut found);
    for node in &status.nodes {
        if node.reachable {
            checks(node, &mut found);
            clock(node, &mut found);
            syncs(node, &mut found);
            disk(node, &mut found);
            scrub(node, &mut found);
        }
    }
    digests(status, &mut found);
    lag(status, &mut found);
    agreement(status, &mut found);
    past(events, &mut found);
    found.sort_by_key(|finding| finding.severity);
    found
}

fn up(status: &ClusterStatus) -> impl Iterator<Item = &NodeStatus> {
    status.nodes.iter().filter(|node| node.reachable)
}

fn quorum(status: &ClusterStatus, found: &mut Vec<Finding>) {
    // Only voters make a majority. A release that does not say who is one names its learners all the same, where they answer.
    let is_voter = |node: &&NodeStatus| node.voter.unwrap_or(node.role != Role::Learner);
    let all = status.nodes.iter().filter(is_voter).count();
    let there = up(status).filter(is_voter).count();
    for node in status.nodes.iter().filter(|node| !node.reachable) {
        let what = format!("does not answer: {}", node.error);
        found.push(Finding { severity: Severity::Warning, node: Some(node.id.0), what, fix: FIX_DOWN });
    }
    if there * 2 <= all {
        let what = format!("a majority is missing answering={there} voters={all}: no writes, and no reads but stale ones");
        found.push(Finding { severity: Severity::Error, node: None, what, fix: FIX_QUORUM });
    } else if !up(status).any(|node| node.role == Role::Leader) {
        let what = "no node leads, though a majority answers".to_owned();
        found.push(Finding { severity: Severity::Error, node: None, what, fix: FIX_DOWN });
    }
    let has_room = |node: &&NodeStatus| node.checks.iter().all(|check| check.name != "disk" || check.ok);
    let with_room = up(status).filter(is_voter).filter(has_room).count();
    if there * 2 > all && with_room * 2 <= all {
        let what = format!("too few voters have room on their disks with_room={with_room} voters={all}: saves are refused");
        found.push(Finding { severity: Severity::Error, node: None, what, fix: FIX_DISK });
    }
    if all % 2 == 0 && all > 0 {
        let what = format!("an even number of voters voters={all}");
        found.push(Finding { severity: Severity::Note, node: None, what, fix: FIX_EVEN });
    }
}

fn checks(node: &NodeStatus, found: &mut Vec<Finding>) {
    for check in node.checks.iter().filter(|check| !check.ok) {
        let severity = if check.required { Severity::Error } else { Severity::Warning };
        let fix = match &check.name[..] {
            "storage" => FIX_FAILED,
            "leader" | "bootstrapped" => FIX_QUORUM,
            "digest" => FIX_DIFFER,
            "clock" => FIX_CLOCK,
            "time" => FIX_TIME,
            "disk" => FIX_DISK,
            "credentials" => FIX_CREDENTIALS,
            "addresses" => FIX_ADDRESSES,
            "shares" => FIX_SHARES,
            _ => FIX_CHECK,
        };
        found.push(Finding { severity, node: Some(node.id.0), what: format!("check {} fails {}", check.name, check.detail), fix });
    }
}

fn clock(node: &NodeStatus, found: &mut Vec<Finding>) {
    let complains = node.checks.iter().any(|check| check.name == "clock" && !check.ok);
    if let Some(ms) = node.clock_offset_ms.filter(|ms| ms.unsigned_abs() > CLOCK_OFFSET_MS && !complains) {
        let what = format!("its clock is off the median of the voters' offset_ms={ms}");
        found.push(Finding { severity: Severity::Warning, node: Some(node.id.0), what, fix: FIX_CLOCK });
    }
}

fn syncs(node: &NodeStatus, found: &mut Vec<Finding>) {
    let mean = node.sync_total.checked_div(u32::try_from(node.syncs).unwrap_or(u32::MAX)).unwrap_or_default();
    let what = if node.syncs >= SYNCS_MIN && mean > SYNC_MEAN {
        format!("syncs of its log take long mean={mean:.1?} count={}", node.syncs)
    } else if node.sync_slowest > SYNC_SLOWEST {
        format!("a sync of its log took long within the last two minutes slowest={:.1?}", node.sync_slowest)
    } else {
        return;
    };
    found.push(Finding { severity: Severity::Warning, node: Some(node.id.0), what, fix: FIX_SYNC });
}

fn disk(node: &NodeStatus, found: &mut Vec<Finding>) {
    let complains = node.checks.iter().any(|check| check.name == "disk" && !check.ok);
    let share = node.disk_free_bytes as f64 / node.disk_total_bytes.max(1) as f64;
    if node.disk_total_bytes > 0 && share < DISK_FREE_SHARE && !complains {
        let what = format!("little room is left on its disk free={:.1}% free_bytes={}", share * 100.0, node.disk_free_bytes);
        found.push(Finding { severity: Severity::Warning, node: Some(node.id.0), what, fix: FIX_DISK });
    }
}

fn scrub(node: &NodeStatus, found: &mut Vec<Finding>) {
    if node.uptime > SCRUB_WITHIN && node.scrub_passes == 0 {
        let what = format!("the scrubber has not read the whole disk since the start uptime_s={}", node.uptime.as_secs());
        found.push(Finding { severity: Severity::Warning, node: Some(node.id.0), what, fix: FIX_SCRUB });
    }
}

/// Nodes that reported digests of one index, and not the same one.
fn digests(status: &ClusterStatus, found: &mut Vec<Finding>) {
    let mut digests_at: BTreeMap<u64, BTreeMap<u64, Vec<u64>>> = BTreeMap::new();
    for node in up(status) {
        if let (Some(index), Some(digest)) = (node.digest_index, node.digest) {
            digests_at.entry(index).or_default().entry(digest).or_default().push(node.id.0);
        }
    }
    for (index, digests) in digests_at.into_iter().filter(|(_, digests)| digests.len() > 1) {
        let groups: Vec<String> = digests.values().map(NodeId::listed).collect();
        let what = format!("nodes are in different states after one entry index={index} groups={}", groups.join("|"));
        found.push(Finding { severity: Severity::Error, node: None, what, fix: FIX_DIFFER });
    }
}

fn lag(status: &ClusterStatus, found: &mut Vec<Finding>) {
    let newest = up(status).filter_map(|node| node.committed).max().unwrap_or(0);
    for node in up(status) {
        let behind = newest.saturating_sub(node.applied.unwrap_or(0));
        if behind > LAG_ENTRIES {
            let what = format!("far behind entries={behind}");
            found.push(Finding { severity: Severity::Warning, node: Some(node.id.0), what, fix: FIX_LAG });
        }
    }
}

fn agreement(status: &ClusterStatus, found: &mut Vec<Finding>) {
    let releases: BTreeSet<&str> = up(status).map(|node| &node.version[..]).collect();
    if releases.len() > 1 {
        let releases: Vec<&str> = releases.into_iter().collect();
        let what = format!("nodes run different releases releases={}", releases.join(","));
        found.push(Finding { severity: Severity::Warning, node: None, what, fix: FIX_RELEASES });
    }
    configurations(status, found);
}

/// Nodes that were started by other files than most. Once there is a cluster, the members are those of its log: a file that was left as it
/// was when members were added, removed or moved is of no consequence. Without a cluster, files that differ keep it from being formed.
fn configurations(status: &ClusterStatus, found: &mut Vec<Finding>) {
    let mut groups: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for node in up(status).filter(|node| node.configuration_hash != 0) {
        groups.entry(node.configuration_hash).or_default().push(node.id.0);
    }
    let mut groups: Vec<Vec<u64>> = groups.into_values().collect();
    groups.sort_by_key(|nodes| std::cmp::Reverse(nodes.len()));
    let Some((most, others)) = groups.split_first().filter(|(_, others)| !others.is_empty()) else { return };
    let (severity, fix) = match status.cluster_id {
        Some(_) => (Severity::Note, FIX_CONFIG_LATER),
        None => (Severity::Warning, FIX_CONFIG),
    };
    for nodes in others {
        let what = format!(
            "started by another cluster.toml than nodes {}: name, members or addresses differ nodes={}",
            NodeId::listed(most),
            NodeId::listed(nodes)
        );
        let node = if let [node] = nodes[..] { Some(node) } else { None };
        found.push(Finding { severity, node, what, fix });
    }
}

/// The last of each kind of bad event on each node, with how many there were.
fn past(events: &[(u64, Vec<NodeEvent>)], found: &mut Vec<Finding>) {
    for (node, events) in events {
        for (kind, fix) in [("damaged", FIX_DAMAGE), ("diverged", FIX_DIFFER), ("failed", FIX_FAILED)] {
            let of_kind = events.iter().filter(|event| event.kind == kind && !event.detail.starts_with("healed"));
            let Some(last) = of_kind.clone().next_back() else { continue };
            let after = events.iter().skip_while(|event| *event != last);
            let is_over = after.clone().any(|event| event.kind == "rebuild" && event.detail.starts_with("done"))
                || after.clone().any(|event| event.kind == kind && event.detail.starts_with("healed"));
            let restarted = kind == "failed" && after.clone().any(|event| event.kind == "started");
            let severity = if is_over || restarted { Severity::Note } else { Severity::Warning };
            let what = format!(
                "{kind} of late count={} last: {}{}",
                of_kind.count(),
                last.detail,
                if is_over { " (fixed since)" } else { "" }
            );
            found.push(Finding { severity, node: Some(*node), what, fix });
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate::client::NodeCheck;

    use super::*;

    fn node(id: u64) -> NodeStatus {
        let mut node = NodeStatus::new(id);
        node.reachable = true;
        node.role = if id == 1 { Role::Leader } else { Role::Follower };
        node.committed = Some(100_000);
        node.applied = Some(100_000);
        node.digest = Some(7);
        node.digest_index = Some(100_000);
        node.disk_free_bytes = 50;
        node.disk_total_bytes = 100;
        node.clock_offset_ms = Some(3);
        node.version = "0.1.0".into();
        node.configuration_hash = 5;
        node.uptime = Duration::from_secs(60);
        node
    }

    fn down(id: u64) -> NodeStatus {
        let mut node = node(id);
        (node.reachable, node.error) = (false, "refused".into());
        node
    }

    fn of(change: impl Fn(&mut Vec<NodeStatus>)) -> Vec<Finding> {
        let mut nodes = vec![node(1), node(2), node(3)];
        change(&mut nodes);
        diagnose(&ClusterStatus::new(nodes), &[])
    }

    fn only(findings: &[Finding]) -> (Severity, Option<u64>, &str) {
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(!findings[0].fix.is_empty());
        (findings[0].severity, findings[0].node, &findings[0].what)
    }

    #[test]
    fn a_healthy_cluster_has_no_findings() {
        assert_eq!(of(|_| {}), []);
    }

    #[test]
    fn saves_are_refused_where_too_few_voters_have_room() {
        let full = |nodes: &mut Vec<NodeStatus>, count: usize| {
            for node in &mut nodes[..count] {
                node.voter = Some(true);
                node.checks = vec![NodeCheck::new("disk", false)];
            }
        };
        let errors =
            |findings: Vec<Finding>| findings.into_iter().filter(|finding| finding.severity == Severity::Error).collect::<Vec<_>>();
        assert_eq!(errors(of(|nodes| full(nodes, 1))), []);
        let two = errors(of(|nodes| full(nodes, 2)));
        assert_eq!(only(&two).2, "too few voters have room on their disks with_room=1 voters=3: saves are refused");
    }

    #[test]
    fn each_trouble_is_one_finding_with_a_fix() {
        type Case = (fn(&mut Vec<NodeStatus>), Severity, Option<u64>, &'static str);
        let cases: [Case; 10] = [
            (|nodes| nodes[1] = down(2), Severity::Warning, Some(2), "does not answer"),
            (|nodes| nodes[0].role = Role::Candidate, Severity::Error, None, "no node leads"),
            (|nodes| nodes[2].clock_offset_ms = Some(-1500), Severity::Warning, Some(3), "offset_ms=-1500"),
            (|nodes| nodes[2].disk_free_bytes = 9, Severity::Warning, Some(3), "little room"),
            (
                |nodes| (nodes[1].syncs, nodes[1].sync_total) = (200, Duration::from_secs(6)),
                Severity::Warning,
                Some(2),
                "mean=30.0ms",
            ),
            (|nodes| nodes[1].sync_slowest = Duration::from_secs(3), Severity::Warning, Some(2), "slowest=3.0s"),
            (|nodes| nodes[2].applied = Some(1), Severity::Warning, Some(3), "far behind entries=99999"),
            (|nodes| nodes[2].version = "0.2.0".into(), Severity::Warning, None, "different releases"),
            (|nodes| nodes[2].configuration_hash = 6, Severity::Warning, Some(3), "another cluster.toml than nodes 1,2"),
            (|nodes| nodes[2].digest = Some(8), Severity::Error, None, "different states"),
        ];
        for (change, severity, place, part) in cases {
            let findings = of(change);
            let (is, at, what) = only(&findings);
            assert_eq!((is, at), (severity, place), "{findings:?}");
            assert!(what.contains(part), "{part} is not in {what}");
        }
        let findings = of(|nodes| {
            nodes[2].checks = vec![NodeCheck::new("disk", false)];
            nodes[2].disk_free_bytes = 1;
        });
        assert_eq!(only(&findings), (Severity::Warning, Some(3), "check disk fails "), "found once");
        let mut ends = NodeCheck::new("credentials", false);
        ends.detail = "certificate_left_hours=9".into();
        let findings = of(|nodes| nodes[2].checks = vec![ends.clone()]);
        assert_eq!(only(&findings), (Severity::Warning, Some(3), "check credentials fails certificate_left_hours=9"));
        assert!(findings[0].fix.contains("renewed"), "{findings:?}");
        let slow = of(|nodes| (nodes[2].uptime, nodes[2].scrub_passes) = (SCRUB_WITHIN * 2, 0));
        assert!(only(&slow).2.contains("not read the whole disk"));
    }

    /// After `member replace` the other hosts' files need not change, and nobody is to be paged for it.
    #[test]
    fn a_file_that_is_older_than_a_change_of_the_members_is_a_note_that_names_the_node() {
        let mut nodes = vec![node(1), node(2), node(4)];
        nodes[2].configuration_hash = 6;
        let mut status = ClusterStatus::new(nodes);
        status.cluster_id = quorate::types::ClusterId::from_slice(&[7; 16]);
        let findings = diagnose(&status, &[]);
        let (severity, place, what) = only(&findings);
        assert_eq!((severity, place), (Severity::Note, Some(4)));
        assert!(what.contains("another cluster.toml than nodes 1,2"), "{what}");
        assert!(findings[0].fix.contains("need not change"));
    }

    #[test]
    fn without_a_majority_that_is_the_first_thing_said() {
        let findings = of(|nodes| (nodes[1], nodes[2]) = (down(2), down(3)));
        assert_eq!((findings[0].severity, findings[0].node), (Severity::Error, None));
        assert!(findings[0].what.contains("a majority is missing answering=1 voters=3"), "{findings:?}");
        assert_eq!(findings.len(), 3);
    }

    #[test]
    fn learners_make_no_majority_and_no_even_number() {
        let voter = |id, voter| {
            let mut node = node(id);
            node.voter = Some(voter);
            node.role = if voter { node.role } else { Role::Learner };
            node
        };
        let down = |id| {
            let mut node = down(id);
            (node.voter, node.role) = (Some(true), Role::Unknown);
            node
        };
        let findings = of(|nodes| *nodes = vec![voter(1, true), down(2), down(3), voter(4, false), voter(5, false)]);
        assert_eq!((findings[0].severity, findings[0].node), (Severity::Error, None), "{findings:?}");
        assert!(findings[0].what.contains("a majority is missing answering=1 voters=3"), "{findings:?}");
        assert_eq!(of(|nodes| nodes.push(voter(4, false))), [], "three voters are no even number");
        let four = of(|nodes| nodes.push(voter(4, true)));
        assert!(only(&four).2.contains("an even number of voters voters=4"), "{four:?}");
        // Of a release that does not say who votes, the learners that answer are known by their role.
        let mut old = voter(4, false);
        old.voter = None;
        assert_eq!(of(|nodes| nodes.push(old.clone())), []);
    }

    #[test]
    fn what_is_past_is_shown_and_what_is_over_is_a_note() {
        let event = |kind: &str, detail: &str| NodeEvent::new(1, kind, detail);
        let damaged = event("damaged", "the checksum does not match name=chunks");
        let status = ClusterStatus::new(vec![node(1), node(2), node(3)]);
        let findings = diagnose(&status, &[(2, vec![damaged.clone()])]);
        assert_eq!((only(&findings).0, only(&findings).1), (Severity::Warning, Some(2)));
        let findings = diagnose(&status, &[(2, vec![damaged, event("rebuild", "done applied=7")])]);
        assert_eq!(only(&findings).0, Severity::Note);
        assert!(findings[0].what.contains("fixed since"));
    }
}
