//! Members that are not where the membership has them, found where this node's configuration has them.
//!
//! A node that moved tells the others, if it finds them. Where all have moved at once, or two have swapped their addresses, nobody is
//! where the membership says. So the configured address is tried too. The node that answers there is believed only if it is that member by
//! its data, as everywhere: an address is a claim.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::bootstrap;
use crate::env::Stop;
use crate::raft::adapter::types::PeerNode;
use crate::raft::context::NodeContext;
use crate::raft::peer::peer_table::PeerTable;
use crate::types::{ClusterId, InstanceId, Member, NodeId};

/// Pause between two rounds of looking.
const ROUND: Duration = Duration::from_millis(500);

/// Looks for members that this node has no stream to.
pub async fn run(context: Arc<NodeContext>, table: Arc<PeerTable>, stop: Stop) {
    stop.or(async {
        let mut found: BTreeMap<InstanceId, String> = BTreeMap::new();
        loop {
            tokio::time::sleep(ROUND).await;
            let membership = context.membership();
            let moved: Vec<(NodeId, PeerNode, Member)> = membership
                .nodes()
                .filter(|(id, _)| **id != context.me())
                .filter_map(|(id, node)| Some((*id, node.clone(), configured_elsewhere(&context, *id, node)?)))
                .collect();
            let mut now = BTreeMap::new();
            for (id, node, configured) in moved {
                let known = found.get(&node.instance).cloned();
                let at = if table.is_connected(id) { known } else { look(&context, id, &node, configured, known).await };
                if let Some(at) = at {
                    now.insert(node.instance, at);
                }
            }
            if now != found {
                for at in now.values().filter(|at| !found.values().any(|known| known == *at)) {
                    tracing::warn!(%at, "a member is reached at its configured address, not at the one the members have");
                    context.events.note("address", format!("a member is reached at its configured address at={at}"));
                }
                found = now;
                context.peers.set_found(found.clone());
            }
        }
    })
    .await;
}

/// A member as this node is configured, where its peer port is another than in the membership.
fn configured_elsewhere(context: &NodeContext, id: NodeId, node: &PeerNode) -> Option<Member> {
    context.facts.configured.iter().find(|member| member.id == id && member.peer_address != node.peer_address).cloned()
}

/// Where a member is, if not where the membership has it; what was known, if it is nowhere.
async fn look(context: &NodeContext, id: NodeId, node: &PeerNode, configured: Member, known: Option<String>) -> Option<String> {
    let old = Member { peer_address: node.peer_address.clone(), ..configured.clone() };
    if is_at(context, id, node, &old).await {
        return None;
    }
    if is_at(context, id, node, &configured).await { Some(configured.peer_address) } else { known }
}

/// Whether the node that answers there is that member, by its data.
async fn is_at(context: &NodeContext, id: NodeId, node: &PeerNode, member: &Member) -> bool {
    let Ok(hello) = bootstrap::ask(context, member).await else { return false };
    hello.node == id.0
        && InstanceId::from_slice(&hello.instance) == Some(node.instance)
        && ClusterId::from_slice(&hello.cluster_id) == context.peers.cluster_id()
}
