//! What clients without our library are answered: their own deadlines are kept, and every refusal says whether anything changed.

use std::time::Duration;

use bytes::Bytes;
use quorate::types::{Applied, Load, RefusalKind};
use quorate::wire::{self, v1};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};
use tonic_reflection::pb;

use super::rig::{Cluster, PATIENCE, session, submit};
use crate::support::raw;

/// A page of another site, whose name was made to lead here, asks in a visitor's browser. No token stands in its way.
#[tokio::test]
async fn the_admin_port_answers_no_foreign_name_while_no_tokens_are_in_force() {
    let cluster = Cluster::start(1).await;
    for path in ["/", "/api/status", "/metrics", "/version", "/log-level", "/page.js", "/nothing"] {
        let answer = cluster.get_as(1, path, "another.example:7462").await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("host=\"another.example:7462\""), "{path}: {answer}");
        let answer = cluster.get_as(1, path, "127.0.0.1:7462").await;
        assert!(!answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
    }
    for path in ["/livez", "/readyz"] {
        let answer = cluster.get_as(1, path, "another.example").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "probes are answered under any name: {answer}");
    }
}

/// Long enough for a refusal to arrive first on a machine that is busy with other things.
const CALLERS_DEADLINE: Duration = Duration::from_secs(5);

#[track_caller]
fn assert_changed_nothing(status: &Status, code: Code) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(wire::is_ours(status), "{status:?}");
    assert_eq!(wire::refusal_from_status(status).applied, Applied::No, "{status:?}");
}

/// Without a majority a call can't be done. A caller that says only when it will end it gets that answer before then, with the details.
#[tokio::test]
async fn a_callers_own_deadline_is_answered_by_a_refusal_with_its_details() {
    let mut cluster = Cluster::start(3).await;
    let caller = cluster.caller(1).await;
    cluster.kill(2).await;
    cluster.kill(3).await;
    let load = Load::whole(session("a"));
    let load = submit(1, &[], v1::submit_request::Operation::Load(wire::load_to(&load)));
    // A timeout of its own that is longer does not count.
    for timeout_ms in [0, 0, 0, 60_000] {
        let mut request = Request::new(v1::SubmitRequest { timeout_ms, ..load.clone() });
        request.set_timeout(CALLERS_DEADLINE);
        let status = caller.raw.clone().load(request).await.expect_err("no majority");
        assert!(wire::is_ours(&status), "{status:?}");
        let refusal = wire::refusal_from_status(&status);
        assert_eq!(refusal.applied, Applied::No, "a read changes nothing: {refusal:?}");
        assert!(
            matches!(refusal.kind, RefusalKind::NoLeader | RefusalKind::DeadlineExceeded | RefusalKind::Unavailable),
            "{refusal:?}"
        );
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_and_a_method_that_is_not_there_prove_that_they_changed_nothing() {
    let cluster = Cluster::start(1).await;
    let mut caller = cluster.caller(1).await;
    let large = caller.save_of("a", vec![7; 21 << 20]);
    let large = submit(1, &caller.cluster_id, v1::submit_request::Operation::Write(wire::write_to(&large)));
    let status = caller.raw.write(large.clone()).await.expect_err("too large");
    assert_changed_nothing(&status, Code::OutOfRange);
    let mut answers = caller.raw.submit(futures_util::stream::iter([large])).await.expect("a stream").into_inner();
    assert_changed_nothing(&answers.message().await.expect_err("too large"), Code::OutOfRange);

    let address = &cluster.config().member(1.into()).expect("a member").client;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    let call = async |path: &'static str, bytes: Vec<u8>| {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.expect("connected");
        let codec = tonic_prost::ProstCodec::<v1::Leader, v1::SubmitResponse>::default();
        // What is sent has the wrong types of fields for what is asked.
        let message = v1::Leader { node: 1, address: String::from_utf8(bytes).expect("text") };
        grpc.unary(Request::new(message), PathAndQuery::from_static(path), codec).await.expect_err("no such call")
    };
    assert_changed_nothing(&call("/quorate.v1.Sessions/Nothing", Vec::new()).await, Code::Unimplemented);
    assert_changed_nothing(&call("/quorate.v1.Operations/Nothing", Vec::new()).await, Code::Unimplemented);
    assert_changed_nothing(&call("/quorate.v1.Sessions/Write", b"x".to_vec()).await, Code::Internal);

    // A text of the caller's in a refusal does not make that longer than clients take.
    let id = "\u{1}é\n".repeat(100_000);
    let expiry = Some(v1::Expiry { expiry: Some(v1::expiry::Expiry::Never(v1::Empty {})) });
    let save = v1::write_operation::Save { id, expiry, ..Default::default() };
    let write = v1::WriteOperation { write: Some(v1::write_operation::Write::Save(save)) };
    let status = caller.raw.write(submit(1, &caller.cluster_id, v1::submit_request::Operation::Write(write))).await;
    let status = status.expect_err("the id is too long");
    assert_changed_nothing(&status, Code::InvalidArgument);
    assert!(status.message().len() <= 512 && status.details().len() < 2048, "{status:?}");
    let save = caller.save_of("a", "x");
    caller.attempt(&save).await.expect("the connection still serves");
}

/// Clients of other languages ask for one or the other version of it.
#[tokio::test]
async fn the_protocol_is_described_by_both_versions_of_reflection() {
    let cluster = Cluster::start(1).await;
    let address = &cluster.config().member(1.into()).expect("a member").client;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    macro_rules! services {
        ($version:ident) => {{
            use pb::$version::server_reflection_request::MessageRequest;
            let list = pb::$version::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut client = pb::$version::server_reflection_client::ServerReflectionClient::new(channel.clone());
            let answers = client.server_reflection_info(futures_util::stream::iter([list])).await.expect("it is there");
            format!("{:?}", answers.into_inner().message().await.expect("an answer").expect("one"))
        }};
    }
    for services in [services!(v1), services!(v1alpha)] {
        for name in ["quorate.v1.Sessions", "quorate.v1.Operations"] {
            assert!(services.contains(name), "{name} is not in {services}");
        }
    }
}

/// What asks for little is given little: a request that says to be larger is refused before it has arrived.
#[tokio::test]
async fn a_request_takes_no_more_room_than_its_call_needs() {
    let cluster = Cluster::start(1).await;
    let channel = cluster.channel(1);
    let (small, medium, large) = (4 << 10, 96 << 10, 20 << 20);
    for (path, limit) in [
        ("/grpc.health.v1.Health/Check", small),
        ("/grpc.health.v1.Health/Watch", small),
        ("/quorate.v1.Operations/Members", small),
        ("/quorate.v1.Operations/Events", small),
        ("/quorate.v1.Operations/ChangeMembers", small),
        ("/quorate.v1.Operations/HandOver", small),
        ("/quorate.v1.Operations/FinishUpgrade", small),
        ("/quorate.v1.Operations/Backup", small),
        ("/quorate.v1.Sessions/Status", small),
        ("/quorate.v1.Sessions/Load", medium),
        ("/quorate.v1.Sessions/List", medium),
        ("/quorate.v1.Sessions/Write", large),
    ] {
        let (open, body) = raw::body(raw::message(limit + 1, 1));
        let answered = tokio::time::timeout(PATIENCE, raw::call(&channel, path, None, body)).await;
        let status = answered.unwrap_or_else(|_| panic!("{path} waits for a request above its limit"));
        assert_changed_nothing(&status, Code::OutOfRange);
        assert!(status.message().contains(&format!("limit={limit}")), "{path}: {status:?}");
        drop(open);
    }
    // A stream ends by it.
    for (path, limit) in [
        ("/quorate.v1.Sessions/Submit", large),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", small),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", small),
    ] {
        let (open, body) = raw::body(raw::message(limit + 1, 1));
        let ended = async { while open.send(Ok(Bytes::from_static(&[0; 1024]))).await.is_ok() {} };
        let calls = async { (raw::call(&channel, path, None, body).await, ended.await) };
        tokio::time::timeout(PATIENCE, calls).await.unwrap_or_else(|_| panic!("{path} waits for a request above its limit"));
    }
    // One message is one: what follows it is no part of the call.
    let twice = [raw::message(0, 0), raw::message(0, 0)].concat();
    let (open, body) = raw::body(twice.into());
    assert_changed_nothing(&raw::call(&channel, "/quorate.v1.Operations/Members", None, body).await, Code::InvalidArgument);
    drop(open);
}
