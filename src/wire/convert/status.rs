//! The status of a node.

use std::time::Duration;

use super::super::v1;
use crate::types::{NodeCheck, NodeId, NodeStatus, Role};

/// Both directions. Fields of one name and one type are named once, so none can go to another's place.
macro_rules! conversions {
    ($($same:ident)*) => {
        /// The message of a status, without samples of the node's past.
        pub fn node_status_to(node: NodeStatus) -> v1::NodeStatus {
            let check = |NodeCheck { name, ok, required, detail }| v1::Check { name, ok, required, detail };
            v1::NodeStatus {
                id: node.id.0,
                role: role_to(node.role).into(),
                leader: node.leader.map(|leader| leader.0),
                uptime_ms: node.uptime.as_millis() as u64,
                checks: node.checks.into_iter().map(check).collect(),
                sync_us_total: node.sync_total.as_micros() as u64,
                sync_us_max: node.sync_slowest.as_micros() as u64,
                samples: Vec::new(),
                $($same: node.$same,)*
            }
        }

        /// The status in a message: for people, so nothing of it is refused.
        pub fn node_status_from(node: v1::NodeStatus) -> NodeStatus {
            let check = |v1::Check { name, ok, required, detail }| NodeCheck { name, ok, required, detail };
            NodeStatus {
                id: NodeId(node.id),
                role: role_from(node.role()),
                leader: node.leader.map(NodeId),
                uptime: Duration::from_millis(node.uptime_ms),
                checks: node.checks.into_iter().map(check).collect(),
                sync_total: Duration::from_micros(node.sync_us_total),
                sync_slowest: Duration::from_micros(node.sync_us_max),
                $($same: node.$same,)*
            }
        }
    };
}

conversions! {
    client_address peer_address reachable error term last_log committed applied flushed purged digest digest_index sessions clients
    log_bytes state_bytes machine_time_ms wall_ms version cluster_version pid clock_offset_ms disk_free_bytes disk_total_bytes
    configuration_hash cluster_version_min cluster_version_max cluster_version_held syncs writes reads scrub_passes scrub_bytes scrubbed_ms voter
}

fn role_to(role: Role) -> v1::Role {
    match role {
        Role::Unknown => v1::Role::Unspecified,
        Role::Leader => v1::Role::Leader,
        Role::Follower => v1::Role::Follower,
        Role::Learner => v1::Role::Learner,
        Role::Candidate => v1::Role::Candidate,
    }
}

fn role_from(role: v1::Role) -> Role {
    match role {
        v1::Role::Unspecified => Role::Unknown,
        v1::Role::Leader => Role::Leader,
        v1::Role::Follower => Role::Follower,
        v1::Role::Learner => Role::Learner,
        v1::Role::Candidate => Role::Candidate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_the_wire() {
        let status = NodeStatus {
            leader: Some(NodeId(2)),
            uptime: Duration::from_millis(3),
            checks: vec![NodeCheck { detail: "full".into(), required: true, ..NodeCheck::new("disk", true) }, NodeCheck::default()],
            sync_total: Duration::from_micros(4),
            sync_slowest: Duration::from_micros(5),
            clock_offset_ms: Some(-6),
            digest: Some(7),
            ..NodeStatus::new(1)
        };
        for role in [Role::Unknown, Role::Leader, Role::Follower, Role::Learner, Role::Candidate] {
            let status = NodeStatus { role, ..status.clone() };
            assert_eq!(node_status_from(node_status_to(status.clone())), status);
        }
    }
}
