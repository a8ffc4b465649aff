//! What a leader believes of a node that forwards: only that it is a member, never what a caller may do.

use quorate::types::{Consistency, Load, SessionId};
use quorate::wire::peer::v1::{ForwardRequest, Route};
use quorate::wire::v1::{RefusalReason, SubmitRequest, submit_request::Operation, submit_response::Answer};
use tokio_stream::StreamExt as _;

use crate::nodes::Nodes;
use crate::pki::{Good, HOST};
use crate::wire;

fn load(tag: u64, id: &str, principal: &str) -> ForwardRequest {
    let load = Load { id: SessionId::new(id).expect("short"), have: None, consistency: Consistency::Linearizable };
    let operation = Some(Operation::Load(quorate::wire::load_to(&load)));
    let request = SubmitRequest { tag, timeout_ms: 60_000, cluster_id: Default::default(), operation };
    ForwardRequest { route: None, request: Some(request), principal: principal.to_owned() }
}

/// A thief of a node's certificate can forward, in the name of a token that the leader knows, and gets what that token allows.
#[tokio::test]
async fn a_forged_principal_gets_no_more_than_the_leaders_own_tokens_allow() {
    let nodes = Nodes::start(1, "info").await;
    let (address, ca) = (nodes.peer_address(1), &nodes.ca);
    let member = ca.node(HOST, Good::Now);
    let hello = wire::hello(&address, ca, Some(&member)).await.expect("a member's certificate");
    let route = Route { cluster_id: hello.cluster_id, from: 2, to: 1, to_instance: hello.instance };
    let first = ForwardRequest { route: Some(route), request: None, principal: String::new() };
    let calls = vec![
        first,
        load(1, "a/1", "writer"),
        load(2, "b/1", "writer"),
        load(3, "a/1", "root"),
        load(4, "a/1", ""),
        load(5, "a/1", "admin"),
        load(6, "a/1", "expired"),
    ];
    let mut client = wire::peer(&address, ca, Some(&member)).await.expect("a member's certificate");
    let answers = client.forward(tokio_stream::iter(calls)).await.expect("a route of this cluster").into_inner();
    let mut answers: Vec<_> = answers.map(|answer| answer.expect("an answer to each")).collect().await;
    answers.sort_by_key(|answer| answer.tag);
    let reasons: Vec<_> = answers
        .into_iter()
        .map(|answer| match answer.answer {
            Some(Answer::Refusal(refusal)) => {
                assert!(refusal.not_applied, "{refusal:?}");
                Some(refusal.reason())
            }
            _ => None,
        })
        .collect();
    let (denied, unknown) = (Some(RefusalReason::Denied), Some(RefusalReason::Unauthenticated));
    assert_eq!(reasons, [None, denied, unknown, unknown, denied, unknown]);
}
