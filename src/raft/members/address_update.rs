//! A node whose configuration names other addresses than the membership tells the leader, once per start.
//!
//! The leader believes it only after it has asked the node that answers there for its instance.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use super::MemberChanges;
use crate::env::Stop;
use crate::raft::adapter::types::PeerNode;
use crate::raft::context::NodeContext;
use crate::raft::peer::peers::Purpose;
use crate::types::{Member, MemberChange, NodeId};
use crate::wire::peer::v1 as peer;

/// Pause between two rounds of telling.
const ROUND: Duration = Duration::from_millis(500);
/// How long the leader may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until the membership has this node's addresses, or the leader was notified.
pub async fn run(members: Arc<MemberChanges>, stop: Stop) {
    stop.or(async {
    let context = &members.context;
    let Some(own) = context.facts.configured.iter().find(|member| member.id == context.me()).cloned() else { return };
    loop {
        let membership = context.membership();
        if let Some(known) = membership.get_node(&context.me()) {
            if is_at(known, &own) {
                return;
            }
            if context.leadership.is_self() {
                // No other node can be notified: all nodes may have moved at once.
                if let Err(refusal) = members.change(&MemberChange::Update(own.clone()), false, TIMEOUT).await {
                    tracing::debug!(%refusal, "the members can't have this node's new addresses yet");
                }
            }
            let others: Vec<_> =
                membership.nodes().filter(|(id, _)| **id != context.me()).map(|(id, node)| (*id, node.clone())).collect();
            for (id, node) in others {
                match tell(context, id, &node, &own).await {
                    Ok(()) => {
                        return tracing::info!(peer = %own.peer_address, "the cluster was notified of this node's new addresses");
                    }
                    Err(status) => tracing::debug!(%status, to = %id, "not notified of new addresses"),
                }
            }
        }
        tokio::time::sleep(ROUND).await;
    }
})
.await;
}

fn is_at(known: &PeerNode, own: &Member) -> bool {
    // A member of before they were kept has none for HTTP: that alone is no move.
    let admin = known.admin_address.is_empty() || known.admin_address == own.admin_address;
    known.peer_address == own.peer_address && known.client_address == own.client_address && admin
}

async fn tell(context: &NodeContext, id: NodeId, node: &PeerNode, own: &Member) -> Result<(), Status> {
    let request = peer::MovedRequest {
        route: Some(context.peers.route(id, node.instance)),
        peer_address: own.peer_address.clone(),
        client_address: own.client_address.clone(),
        admin_address: own.admin_address.clone(),
    };
    let unreachable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    let mut client = context.peers.client(node, Purpose::Control).map_err(unreachable)?;
    let answer = tokio::time::timeout(TIMEOUT, client.moved(request)).await;
    answer.map_err(|_| Status::deadline_exceeded("no answer in time"))?.map(drop)
}

/// A member says it has moved. Errors: not the leader, or nobody with that member's data answers there.
pub async fn receive(members: &MemberChanges, from: NodeId, request: peer::MovedRequest) -> Result<peer::MovedResponse, Status> {
    let longest = request.peer_address.len().max(request.client_address.len()).max(request.admin_address.len());
    if longest > crate::limits::ADDRESS_BYTES_MAX {
        return Err(Status::invalid_argument(format!("address is too long bytes={longest}")));
    }
    let member = Member {
        id: from,
        peer_address: request.peer_address,
        client_address: request.client_address,
        admin_address: request.admin_address,
        voter: false,
    };
    match members.change(&MemberChange::Update(member), false, TIMEOUT).await {
        Ok(_) => Ok(peer::MovedResponse {}),
        Err(refusal) => Err(Status::failed_precondition(refusal.message)),
    }
}
