//! How a cluster begins (L33): once, by one node, only when every configured member is there, empty and of one mind.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tonic::Status;

use crate::env::Stop;
use crate::machine::newest_version;
use crate::mutant::{self, Mutant};
use crate::raft::CLUSTER_VERSION_MIN;
use crate::raft::adapter::types::PeerNode;
use crate::raft::context::NodeContext;
use crate::raft::peer::peers::Purpose;
use crate::types::{ClusterId, InstanceId, Member, NodeId};
use crate::wire::peer::v1 as peer;

/// Pause between two rounds of asking.
const ROUND: Duration = Duration::from_millis(100);
/// Bound of one question.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// How often what is missing is logged.
const ROUNDS_PER_LOG: u32 = 50;

/// Whether log and vote are empty: nothing was ever promised to anyone.
fn is_pristine(context: &NodeContext) -> bool {
    let position = context.log.position();
    let ever = context.identity.lock().unwrap_or_else(PoisonError::into_inner).was_initialized();
    position.vote.is_none() && position.last.is_none() && !ever
}

/// This node's answer to anyone who asks who it is.
pub fn hello(context: &NodeContext) -> peer::HelloResponse {
    let initialized = !is_pristine(context);
    let identity = context.identity.lock().unwrap_or_else(PoisonError::into_inner);
    peer::HelloResponse {
        name: context.facts.name.clone(),
        configuration_hash: context.facts.configuration_hash,
        node: context.me().0,
        instance: Bytes::copy_from_slice(identity.instance().as_bytes()),
        cluster_id: identity.cluster().map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes())),
        initialized,
        boot_id: context.facts.boot_id,
        cluster_version_min: CLUSTER_VERSION_MIN.into(),
        cluster_version_max: newest_version().into(),
    }
}

/// Takes a cluster id, durably, only while log and vote are empty (L34). Blocks on the disk.
pub fn adopt(context: &NodeContext, request: &peer::AdoptRequest) -> Result<(), Status> {
    let offered =
        ClusterId::from_slice(&request.cluster_id).ok_or_else(|| Status::invalid_argument("cluster_id must have 16 bytes"))?;
    if request.name != context.facts.name || request.configuration_hash != context.facts.configuration_hash {
        return Err(Status::failed_precondition("name or configuration differ"));
    }
    let pristine = is_pristine(context);
    let mut identity = context.identity.lock().unwrap_or_else(PoisonError::into_inner);
    let is_ours = InstanceId::from_slice(&request.to_instance) == Some(identity.instance()) || mutant::is(Mutant::AdoptUnchecked);
    if request.to != context.me().0 || !is_ours {
        return Err(Status::failed_precondition("the offer is for another node or data directory"));
    }
    if identity.cluster() == Some(offered) {
        context.peers.set_cluster_id(offered);
        return Ok(());
    }
    if !pristine {
        return Err(Status::failed_precondition("this node belongs to a cluster already"));
    }
    identity.adopt(offered).map_err(|error| Status::internal(error.to_string()))?;
    context.peers.set_cluster_id(offered);
    tracing::info!(cluster_id = %offered, "adopted a cluster id");
    Ok(())
}

/// The result of one round of questions.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    /// Every member is there, empty and of one mind.
    Ready(BTreeMap<NodeId, InstanceId>),
    /// Some member is missing or differs: named, with the reason.
    Blocked(String),
    /// Some member has data: this cluster exists.
    Exists(NodeId),
}

/// Judges the answers of all members. Pure.
fn judge(name: &str, configuration_hash: u64, answers: &BTreeMap<NodeId, Result<peer::HelloResponse, String>>) -> Round {
    if let Some((id, _)) = answers.iter().find(|(_, answer)| answer.as_ref().is_ok_and(|hello| hello.initialized)) {
        return Round::Exists(*id);
    }
    let mut instances = BTreeMap::new();
    for (id, answer) in answers {
        let hello = match answer {
            Ok(hello) => hello,
            Err(_) if mutant::is(Mutant::BootstrapByMajority) => continue,
            Err(reason) => return Round::Blocked(format!("node {id} does not answer: {reason}")),
        };
        let problem = if hello.node != id.0 {
            Some(format!("says it is node {}", hello.node))
        } else if hello.name != name {
            Some(format!("belongs to a cluster named {:?}, not {name:?}", hello.name))
        } else if hello.configuration_hash != configuration_hash {
            Some("has another configuration (name, members or addresses differ)".to_owned())
        } else {
            None
        };
        if let Some(problem) = problem {
            return Round::Blocked(format!("node {id} {problem}"));
        }
        match InstanceId::from_slice(&hello.instance) {
            Some(instance) => instances.insert(*id, instance),
            None => return Round::Blocked(format!("node {id} sent no instance")),
        };
    }
    Round::Ready(instances)
}

/// Asks the node at a member's address who it is. Errors: why there is no answer.
pub async fn ask(context: &NodeContext, member: &Member) -> Result<peer::HelloResponse, String> {
    if member.id == context.me() {
        return Ok(hello(context));
    }
    let mut client = context.peers.client_at(&member.peer_address, Purpose::Control).map_err(|error| error.to_string())?;
    let request = peer::HelloRequest {
        name: context.facts.name.clone(),
        configuration_hash: context.facts.configuration_hash,
        from: context.me().0,
    };
    match tokio::time::timeout(ASK_TIMEOUT, client.hello(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(reason(&status)),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// A status in words, with its cause: the transport's own text names none.
pub fn reason(status: &Status) -> String {
    let mut innermost: &dyn std::error::Error = status;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if std::error::Error::source(status).is_some() { innermost.to_string() } else { status.message().to_owned() }
}

/// Offers a node a cluster's id. Errors: it refuses, or does not answer.
pub async fn offer(
    context: &Arc<NodeContext>,
    member: &Member,
    instance: InstanceId,
    id: ClusterId,
    configuration_hash: u64,
) -> Result<(), Status> {
    let request = peer::AdoptRequest {
        name: context.facts.name.clone(),
        configuration_hash,
        to: member.id.0,
        to_instance: Bytes::copy_from_slice(instance.as_bytes()),
        cluster_id: Bytes::copy_from_slice(id.as_bytes()),
    };
    if member.id == context.me() {
        let own = context.clone();
        return context.blocking.call(move || adopt(&own, &request)).await;
    }
    let unreachable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    let mut client = context.peers.client_at(&member.peer_address, Purpose::Control).map_err(unreachable)?;
    let answer = tokio::time::timeout(ASK_TIMEOUT, client.adopt(request)).await;
    answer.map_err(|_| Status::deadline_exceeded("no answer in time"))?.map(drop)
}

/// The id this node drew, now or before a crash; adopted by itself, durably, before anyone else is offered it.
async fn drawn_id(context: &Arc<NodeContext>, instance: InstanceId) -> Result<ClusterId, Status> {
    let known = context.identity.lock().unwrap_or_else(PoisonError::into_inner).cluster();
    let id = known.unwrap_or_else(|| {
        let mut bytes = [0; 16];
        context.env.random.fill(&mut bytes);
        ClusterId(bytes)
    });
    let own = context.facts.configured.iter().find(|member| member.id == context.me()).cloned();
    let own = own.ok_or_else(|| Status::internal("this node is not configured"))?;
    offer(context, &own, instance, id, context.facts.configuration_hash).await?;
    Ok(id)
}

async fn initialize(context: &Arc<NodeContext>, instances: &BTreeMap<NodeId, InstanceId>) -> Result<(), Status> {
    let instance = |id: NodeId| instances.get(&id).copied().unwrap_or_default();
    let id = drawn_id(context, instance(context.me())).await?;
    let is_asked = |member: &&Member| !mutant::is(Mutant::BootstrapByMajority) || instances.contains_key(&member.id);
    for member in context.facts.configured.iter().filter(is_asked).filter(|member| member.id != context.me()) {
        let named = |status: Status| Status::unavailable(format!("node {} did not adopt: {}", member.id, status.message()));
        offer(context, member, instance(member.id), id, context.facts.configuration_hash).await.map_err(named)?;
    }
    let node = |member: &Member| (member.id, PeerNode::new(member, instance(member.id)));
    let members: BTreeMap<NodeId, PeerNode> = context.facts.configured.iter().map(node).collect();
    context.raft.initialize(members).await.map_err(|error| Status::internal(error.to_string()))?;
    tracing::info!(cluster_id = %id, members = context.facts.configured.len(), "initialized a new cluster");
    Ok(())
}

/// Runs until the cluster exists. Only the node with the lowest configured id does anything.
///
/// Cancel safe: every step is repeated from what is on disk.
pub async fn run(context: Arc<NodeContext>, stop: Stop) {
    stop.or(async {
        if context.facts.configured.iter().map(|member| member.id).min() != Some(context.me()) {
            return;
        }
        let mut rounds = 0u32;
        loop {
            let asked = context.facts.configured.iter().map(|member| async { (member.id, ask(&context, member).await) });
            let answers: BTreeMap<_, _> = futures_util::future::join_all(asked).await.into_iter().collect();
            let blocked = match judge(&context.facts.name, context.facts.configuration_hash, &answers) {
                Round::Exists(node) => {
                    tracing::debug!(%node, "the cluster exists: nothing to bootstrap");
                    return;
                }
                Round::Ready(instances) => match initialize(&context, &instances).await {
                    Ok(()) => return,
                    Err(status) => status.message().to_owned(),
                },
                Round::Blocked(reason) => reason,
            };
            if rounds.is_multiple_of(ROUNDS_PER_LOG) && rounds > 0 {
                tracing::warn!(reason = %blocked, "bootstrap waits: every configured member must be there and empty");
            }
            rounds = rounds.wrapping_add(1);
            tokio::time::sleep(ROUND).await;
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(node: u64) -> peer::HelloResponse {
        peer::HelloResponse {
            name: "q".into(),
            configuration_hash: 7,
            node,
            instance: Bytes::copy_from_slice(&[node as u8; 16]),
            ..Default::default()
        }
    }

    fn answers(
        changed: impl Fn(u64, peer::HelloResponse) -> Result<peer::HelloResponse, String>,
    ) -> BTreeMap<NodeId, Result<peer::HelloResponse, String>> {
        (1..=3).map(|id| (NodeId(id), changed(id, hello(id)))).collect()
    }

    #[test]
    fn all_there_and_empty_is_ready() {
        let Round::Ready(instances) = judge("q", 7, &answers(|_, hello| Ok(hello))) else { panic!("ready") };
        assert_eq!(instances.len(), 3);
        assert_eq!(instances[&NodeId(2)], InstanceId([2; 16]));
    }

    #[test]
    fn one_member_with_data_ends_it_even_if_another_is_missing() {
        let answers = answers(|id, hello| match id {
            1 => Err("refused".into()),
            2 => Ok(peer::HelloResponse { initialized: true, ..hello }),
            _ => Ok(hello),
        });
        assert_eq!(judge("q", 7, &answers), Round::Exists(NodeId(2)));
    }

    #[test]
    fn a_missing_or_differing_member_blocks_by_name() {
        let blocked = |change: fn(peer::HelloResponse) -> Result<peer::HelloResponse, String>| match judge(
            "q",
            7,
            &answers(|id, hello| if id == 3 { change(hello) } else { Ok(hello) }),
        ) {
            Round::Blocked(reason) => reason,
            other => panic!("{other:?}"),
        };
        for reason in [
            blocked(|_| Err("refused".into())),
            blocked(|hello| Ok(peer::HelloResponse { name: "other".into(), ..hello })),
            blocked(|hello| Ok(peer::HelloResponse { configuration_hash: 8, ..hello })),
            blocked(|hello| Ok(peer::HelloResponse { node: 2, ..hello })),
            blocked(|hello| Ok(peer::HelloResponse { instance: Bytes::new(), ..hello })),
        ] {
            assert!(reason.starts_with("node 3 "), "{reason}");
        }
    }
}
