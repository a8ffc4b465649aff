//! What a leader believes of a node that forwards: only that it is a member, never what a caller may do.

use quorate::server::auth::hash_of;
use quorate::types::{Load, NodeId, SessionId};
use quorate::wire::peer::v1::{ForwardRequest, Route};
use quorate::wire::v1::{RefusalReason, SubmitRequest, submit_request::Operation, submit_response::Answer};
use tokio_stream::StreamExt as _;

use crate::security::nodes::{Nodes, PATIENCE, TOKENS};
use crate::security::pki::{Good, HOST};
use crate::security::wire;

fn load(tag: u64, id: &str, principal: &str) -> ForwardRequest {
    let load = Load::whole(SessionId::new(id).expect("short"));
    let operation = Some(Operation::Load(quorate::wire::load_to(&load)));
    let request = SubmitRequest { tag, timeout_ms: 60_000, operation, ..Default::default() };
    ForwardRequest { route: None, request: Some(request), principal: principal.to_owned(), ..Default::default() }
}

/// The same, with the hash of a token.
fn hashed(tag: u64, principal: &str, token: &str) -> ForwardRequest {
    ForwardRequest { token_sha256: hash_of(token).to_vec().into(), ..load(tag, "a/1", principal) }
}

/// Node 1 leads, or it would answer who does.
async fn lead_first(nodes: &Nodes) {
    let admin = nodes.client("admin");
    let leads = async || admin.transfer_leadership(Some(NodeId(1)), PATIENCE).await.is_ok_and(|leader| leader == NodeId(1));
    nodes.until("node 1 leads", leads).await;
    admin.close().await;
}

/// What node 1 answers to calls that node 2 forwards, in the order of their tags: the reason of a refusal.
async fn answers(nodes: &Nodes, calls: Vec<ForwardRequest>) -> Vec<Option<RefusalReason>> {
    let (address, ca) = (nodes.peer_address(1), &nodes.ca);
    let member = ca.node(HOST, Good::Now);
    let hello = wire::hello(&address, ca, Some(&member)).await.expect("a member's certificate");
    let route = Route { cluster_id: hello.cluster_id, from: 2, to: 1, to_instance: hello.instance };
    let first = ForwardRequest { route: Some(route), ..Default::default() };
    let calls: Vec<_> = std::iter::once(first).chain(calls).collect();
    let mut client = wire::peer(&address, ca, Some(&member)).await.expect("a member's certificate");
    let answers = client.forward(tokio_stream::iter(calls)).await.expect("a route of this cluster").into_inner();
    let mut answers: Vec<_> = answers.map(|answer| answer.expect("an answer to each")).collect().await;
    answers.sort_by_key(|answer| answer.tag);
    let reason = |answer| match answer {
        Some(Answer::Refusal(refusal)) => {
            let refusal: quorate::wire::v1::Refusal = refusal;
            assert!(refusal.not_applied, "{refusal:?}");
            Some(refusal.reason())
        }
        _ => None,
    };
    answers.into_iter().map(|answer| reason(answer.answer)).collect()
}

/// A thief of a node's certificate can forward, in the name of a token that the leader knows, and gets what that token allows.
#[tokio::test]
async fn a_forged_principal_gets_no_more_than_the_leaders_own_tokens_allow() {
    let nodes = Nodes::start(2, "info").await;
    lead_first(&nodes).await;
    let token = |tag, id: &str, name: &str| {
        let (_, token, _) = TOKENS.iter().find(|(known, ..)| *known == name).unwrap_or(&TOKENS[0]);
        ForwardRequest { token_sha256: hash_of(token).to_vec().into(), ..load(tag, id, name) }
    };
    let calls = vec![
        token(1, "a/1", "writer"),
        token(2, "b/1", "writer"),
        token(3, "a/1", "root"),
        token(4, "a/1", ""),
        token(5, "a/1", "admin"),
        token(6, "a/1", "expired"),
    ];
    let (denied, unknown) = (Some(RefusalReason::Denied), Some(RefusalReason::Unauthenticated));
    assert_eq!(answers(&nodes, calls).await, [None, denied, unknown, unknown, denied, unknown]);
}

/// A token was replaced under its name, and the node that forwards has the old file: its value is no token any more. A call without a
/// hash is one of an earlier release, and is judged by its name, as that release did; not on a stream on which one came already.
#[tokio::test]
async fn a_token_that_was_replaced_under_its_name_is_not_good_through_a_node_with_the_old_file() {
    let nodes = Nodes::start(2, "info").await;
    lead_first(&nodes).await;
    let unknown = Some(RefusalReason::Unauthenticated);
    let replaced =
        vec![hashed(1, "writer", "tokensecret-before"), hashed(2, "writer", "tokensecret-writer"), load(3, "a/1", "writer")];
    assert_eq!(answers(&nodes, replaced).await, [unknown, None, unknown]);
    assert_eq!(answers(&nodes, vec![load(1, "a/1", "writer")]).await, [unknown], "node 2 is known to send them");
}
