//! Who may call what: every call of every service of the client port, as every kind of caller, at a leader and at a follower.
//!
//! The calls come from the services' own descriptors: one without a row here fails.

use std::collections::BTreeSet;

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use protox::prost_reflect::DescriptorPool;
use quorate::limits::LEASE_TTL_MIN;
use quorate::types::{
    Blob, Change, ClientId, Consistency, Expected, Expiry, Fence, Holder, LeaseTtl, List, Load, LoadMany, Nonce, OnConflict, Part,
    Renewals, Request as Identity, Selector, Sequence, SessionId, Watch, Write,
};
use quorate::wire::v1::{self, RefusalReason, SubmitRequest, SubmitResponse, submit_request::Operation, submit_response::Answer};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status, client::Grpc, transport::Channel};

use crate::security::nodes::{Nodes, PATIENCE};
use crate::security::pki::Good;
use crate::security::wire;

/// A caller: its header, and what its token's file says. `None`: no token in force is shown.
struct Caller {
    name: &'static str,
    headers: &'static [&'static str],
    grant: Option<(&'static [&'static str], &'static str)>,
}

const fn caller(
    name: &'static str,
    headers: &'static [&'static str],
    grant: Option<(&'static [&'static str], &'static str)>,
) -> Caller {
    Caller { name, headers, grant }
}

const CALLERS: [Caller; 12] = [
    caller("nobody", &[], None),
    caller("one without a scheme", &["tokensecret-operator"], None),
    caller("one with another scheme", &["Basic tokensecret-operator"], None),
    caller("one with an empty token", &["Bearer "], None),
    caller("one with two tokens", &["Bearer tokensecret-operator", "Bearer tokensecret-operator"], None),
    caller("a stranger", &["Bearer tokensecret-unheard-of"], None),
    caller("one whose token has expired", &["Bearer tokensecret-expired"], None),
    caller("writer", &["Bearer tokensecret-writer"], Some((&["read", "write", "list"], "a/"))),
    caller("reader", &["Bearer tokensecret-reader"], Some((&["read"], ""))),
    caller("lister", &["Bearer tokensecret-lister"], Some((&["list"], "a/"))),
    caller("admin", &["Bearer tokensecret-admin"], Some((&["admin"], ""))),
    caller("operator", &["Bearer tokensecret-operator"], Some((&["read", "write", "list", "admin"], ""))),
];

/// What a call needs of who calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    AnyToken,
    Scope(&'static str),
    ScopeFor(&'static str, &'static str),
    ScopeForBoth(&'static str, [&'static str; 2]),
    /// This scope beside `admin`.
    AdminWho(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Served,
    Unauthenticated,
    Denied,
}

fn expected(caller: &Caller, need: Need) -> Fate {
    let Some((scopes, prefix)) = caller.grant else {
        return if need == Need::Nothing { Fate::Served } else { Fate::Unauthenticated };
    };
    // Who may take a backup may see every id.
    let has = |scope| scopes.contains(&scope) || scope == "list" && scopes.contains(&"admin");
    let allowed = match need {
        Need::Nothing | Need::AnyToken => true,
        Need::Scope(scope) => has(scope),
        Need::ScopeFor(scope, id) => has(scope) && id.starts_with(prefix),
        Need::ScopeForBoth(scope, ids) => has(scope) && ids.iter().all(|id| id.starts_with(prefix)),
        Need::AdminWho(scope) => has("admin") && has(scope),
    };
    if allowed { Fate::Served } else { Fate::Denied }
}

/// A call: its path, what it needs, its only message.
struct Row {
    path: &'static str,
    what: &'static str,
    need: Need,
    message: Vec<u8>,
}

fn row(path: &'static str, what: &'static str, need: Need, message: &impl prost::Message) -> Row {
    Row { path, what, need, message: message.encode_to_vec() }
}

/// Writes that change nothing: the client they come from is not known.
fn writes() -> Vec<(&'static str, Need, Write)> {
    let (client, nonce) = (ClientId(1 << 40), Nonce([7; 16]));
    let request = Identity { client, nonce, sequence: Sequence(1), acknowledged_below: Sequence(1) };
    let change =
        || Change::Full { chunks: Vec::new(), head: Blob::plain(Bytes::from_static(b"\0x")), counters: Default::default() };
    let ttl = LeaseTtl::new(LEASE_TTL_MIN).expect("within");
    let mut writes = Vec::new();
    for prefix in ["a/", "b/"] {
        let id = SessionId::new(&format!("{prefix}matrix")).expect("short");
        let (expected, on_conflict, expiry) = (Expected::Absent, OnConflict::Reject, Expiry::Keep);
        let need = Need::ScopeFor("write", prefix);
        writes.push((
            "save",
            need,
            Write::Save { request, id: id.clone(), change: change(), attributes: expiry.into(), fence: None },
        ));
        let conditional = Write::SaveIfVersion {
            request,
            id: id.clone(),
            expected,
            change: change(),
            on_conflict,
            attributes: expiry.into(),
            fence: None,
        };
        writes.push(("save_if_version", need, conditional));
        writes.push(("touch", need, Write::Touch { request, id: id.clone(), expiry, fence: None }));
        writes.push(("delete", need, Write::Delete { request, id: id.clone(), expected: None, fence: None }));
        let chunk = quorate::types::Chunk { item_count: 1, blob: quorate::types::Blob::plain(Bytes::from_static(b"x")) };
        let repack = quorate::types::Repack {
            id: id.clone(),
            create_revision: quorate::types::Revision(1),
            first_chunk: 0,
            until_chunk: 1,
            old: quorate::types::ChunkSum::of([&chunk]),
            chunks: vec![chunk],
        };
        writes.push(("repack", need, Write::Repack { request, repack }));
        let (holder, fence) = (Holder::new("h").expect("short"), Fence(1));
        writes.push(("acquire_lease", need, Write::AcquireLease { request, id: id.clone(), holder, ttl, steal: true }));
        writes.push(("release_lease", need, Write::ReleaseLease { request, id, fence }));
    }
    // Each of several is judged, wherever it stands.
    for (what, first, second, need) in [
        ("renew_leases of one prefix", "a/1", "a/2", Need::ScopeFor("write", "a/")),
        ("renew_leases, the second is foreign", "a/1", "b/2", Need::ScopeFor("write", "b/")),
        ("renew_leases, the first is foreign", "b/1", "a/2", Need::ScopeFor("write", "b/")),
    ] {
        let leases = [first, second].map(|id| (SessionId::new(id).expect("short"), Fence(1)));
        let leases = Renewals::new(leases.to_vec()).expect("two");
        writes.push((what, need, Write::RenewLeases { request, leases, ttl }));
    }
    // The second operation is of another prefix: judged by the first alone it would be served.
    let transaction = |what, operations: Vec<quorate::types::Operation>| {
        let operations = quorate::types::Operations::new(operations).expect("few");
        (what, Need::ScopeForBoth("write", ["a/", "b/"]), Write::Transaction { request, operations })
    };
    let ids = ["a/matrix", "b/matrix"].map(|id| SessionId::new(id).expect("short"));
    let deletes = ids.clone().map(|id| quorate::types::Operation::Delete { id, expected: None, fence: None });
    writes.push(transaction("transaction of two prefixes", deletes.to_vec()));
    let reads = ids.clone().map(|id| quorate::types::Operation::Require { id, expected: Some(Expected::Absent), fence: None });
    let (_, _, required) = transaction("", reads.to_vec());
    writes.push(("transaction that only requires", Need::ScopeForBoth("read", ["a/", "b/"]), required));
    let need = Need::Scope("write");
    writes.push(("open_client", need, Write::OpenClient { nonce }));
    writes.push(("keep_alive", need, Write::KeepAlive { client, nonce, acknowledged_below: Sequence(1) }));
    writes.push(("close_client", need, Write::CloseClient { client, nonce }));
    writes
}

fn submitted(cluster_id: &Bytes, operation: Operation) -> SubmitRequest {
    SubmitRequest {
        tag: 1,
        timeout_ms: 60_000,
        cluster_id: cluster_id.clone(),
        cluster_version: quorate::wire::VERSION_KNOWN.into(),
        operation: Some(operation),
    }
}

fn rows(cluster_id: &Bytes) -> Vec<Row> {
    let submit = |operation| submitted(cluster_id, operation);
    let mut rows = Vec::new();
    for (what, need, write) in writes() {
        for path in ["/quorate.v1.Sessions/Submit", "/quorate.v1.Sessions/Write"] {
            rows.push(row(path, what, need, &submit(Operation::Write(quorate::wire::write_to(&write)))));
        }
    }
    for prefix in ["a/", "b/"] {
        let id = SessionId::new(&format!("{prefix}matrix")).expect("short");
        let parts = [("load", Part::Whole), ("info", Part::Info), ("head", Part::Head), ("last", Part::Last(20))];
        for (what, part) in parts {
            let load = submit(Operation::Load(quorate::wire::load_to(&Load { part, ..Load::whole(id.clone()) })));
            for path in ["/quorate.v1.Sessions/Submit", "/quorate.v1.Sessions/Load"] {
                rows.push(row(path, what, Need::ScopeFor("read", prefix), &load));
            }
        }
    }
    // Each of several is judged, wherever it stands.
    let both = ["a/", "b/"].map(|prefix| SessionId::new(&format!("{prefix}matrix")).expect("short"));
    for (what, first, second, need) in [
        ("of one prefix", 0, 0, Need::ScopeFor("read", "a/")),
        ("the second is foreign", 0, 1, Need::ScopeFor("read", "b/")),
        ("the first is foreign", 1, 0, Need::ScopeFor("read", "b/")),
    ] {
        let loads = [first, second].map(|at: usize| (both[at].clone(), None, Part::Info));
        let many = LoadMany::new(loads, Consistency::Linearizable).expect("two");
        let message = submit(Operation::LoadMany(quorate::wire::load_many_to(&many)));
        for path in ["/quorate.v1.Sessions/Submit", "/quorate.v1.Sessions/Load"] {
            rows.push(row(path, what, need, &message));
        }
    }
    for prefix in ["a/", "b/", ""] {
        let list = submit(Operation::List(quorate::wire::list_to(&List { prefix: prefix.to_owned(), ..List::default() })));
        for path in ["/quorate.v1.Sessions/Submit", "/quorate.v1.Sessions/List"] {
            rows.push(row(path, "list", Need::ScopeFor("list", prefix), &list));
        }
    }
    let watch = |selector| quorate::wire::watch_to(&Watch { selector, from: None, initial: true, seen: None });
    for prefix in ["a/", "b/", ""] {
        let message = watch(Selector::Prefix(prefix.to_owned()));
        rows.push(row("/quorate.v1.Sessions/Watch", "a prefix", Need::ScopeFor("list", prefix), &message));
    }
    for prefix in ["a/", "b/"] {
        let id = SessionId::new(&format!("{prefix}matrix")).expect("short");
        let message = watch(Selector::of_ids(vec![id]));
        rows.push(row("/quorate.v1.Sessions/Watch", "an id", Need::ScopeFor("read", prefix), &message));
    }
    let operates = Need::Scope("admin");
    rows.push(row("/quorate.v1.Sessions/Status", "", operates, &v1::StatusRequest::default()));
    rows.push(row("/quorate.v1.Operations/Backup", "", operates, &v1::BackupRequest { timeout_ms: 60_000, ..Default::default() }));
    rows.push(row("/quorate.v1.Operations/Purge", "", operates, &v1::PurgeRequest::default()));
    rows.push(row("/quorate.v1.Operations/Events", "", operates, &v1::EventsRequest::default()));
    rows.push(row("/quorate.v1.Operations/Members", "", Need::AnyToken, &v1::MembersRequest::default()));
    // Neither says what to do.
    rows.push(row("/quorate.v1.Operations/ChangeMembers", "", operates, &v1::ChangeMembersRequest::default()));
    let nowhere = v1::HandOverRequest { to: 77, timeout_ms: 1_000 };
    rows.push(row("/quorate.v1.Operations/HandOver", "to no member", operates, &nowhere));
    // No later version is known.
    rows.push(row("/quorate.v1.Operations/FinishUpgrade", "", operates, &v1::FinishUpgradeRequest::default()));
    rows.push(row("/quorate.v1.Operations/Clients", "", operates, &v1::ClientsRequest::default()));
    // Nobody in particular.
    rows.push(row("/quorate.v1.Operations/DropClients", "none", operates, &v1::DropClientsRequest::default()));
    for path in ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"] {
        rows.push(row(path, "", Need::Nothing, &tonic_health::pb::HealthCheckRequest::default()));
    }
    let question = tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let question = tonic_reflection::pb::v1::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    for path in [
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        rows.push(row(path, "", Need::Nothing, &question));
    }
    rows
}

/// Every call of these descriptors, but for the services that the client port does not have.
fn calls_of_the_client_port() -> BTreeSet<String> {
    let described = [
        quorate::wire::DESCRIPTOR,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let mut calls = BTreeSet::new();
    for set in described {
        let pool = DescriptorPool::decode(set).expect("a set of descriptors");
        for service in pool.services().filter(|service| service.package_name() != "quorate.peer.v1") {
            calls.extend(service.methods().map(|call| format!("/{}/{}", service.full_name(), call.name())));
        }
    }
    calls
}

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// The first answer to a call, whatever kind of call it is.
async fn call(channel: &Channel, path: &str, caller: &Caller, message: &[u8]) -> Result<Bytes, Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("the connection stands");
    let mut request = Request::new(tokio_stream::once(Bytes::copy_from_slice(message)));
    for header in caller.headers {
        request.metadata_mut().append("authorization", header.parse().expect("visible"));
    }
    let path = PathAndQuery::try_from(path).expect("a path");
    let mut answers = client.streaming(request, path, Raw).await?.into_inner();
    answers.message().await.map(Option::unwrap_or_default)
}

fn fate(path: &str, answer: Result<Bytes, Status>) -> (Fate, String) {
    let text = format!("{answer:?}");
    let fate = match answer {
        Ok(answer) if path.starts_with("/quorate.v1.Sessions/") && !path.ends_with("/Status") && !path.ends_with("/Watch") => {
            let answer = SubmitResponse::decode(answer).expect("an answer").answer;
            match answer {
                Some(Answer::Refusal(refusal)) if refusal.reason() == RefusalReason::Unauthenticated => Fate::Unauthenticated,
                Some(Answer::Refusal(refusal)) if refusal.reason() == RefusalReason::Denied => Fate::Denied,
                _ => Fate::Served,
            }
        }
        Ok(_) => Fate::Served,
        Err(status) => match status.code() {
            Code::Unauthenticated => Fate::Unauthenticated,
            Code::PermissionDenied => Fate::Denied,
            // It was looked at further: the caller may ask, if not this.
            _ => Fate::Served,
        },
    };
    (fate, text)
}

#[test]
fn every_call_that_a_descriptor_names_has_a_row() {
    let rows: BTreeSet<String> = rows(&Bytes::new()).into_iter().map(|row| row.path.to_owned()).collect();
    assert_eq!(rows, calls_of_the_client_port());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_judged_alike_for_every_kind_of_caller_on_leader_and_follower() {
    let nodes = Nodes::start(2, "info").await;
    let operator = nodes.client("operator");
    let cluster_id = operator.members().await.expect("they serve").cluster_id.expect("it was formed");
    let cluster_id = Bytes::copy_from_slice(cluster_id.as_bytes());
    let mut wrong = Vec::new();
    let mut judged = 0;
    for node in 1..=2 {
        let shown = nodes.ca.client(Good::Now);
        let channel = wire::channel(&nodes.client_address(node), &nodes.ca, Some(&shown)).await.expect("a good certificate");
        for row in rows(&cluster_id) {
            for caller in &CALLERS {
                let answer = tokio::time::timeout(PATIENCE, call(&channel, row.path, caller, &row.message)).await;
                let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
                let (found, text) = fate(row.path, answer);
                let expected = expected(caller, row.need);
                judged += 1;
                if found != expected {
                    wrong.push(format!(
                        "node {node} {} {} as {}: {found:?}, not {expected:?}: {text}",
                        row.path, row.what, caller.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {judged}:\n{}\n{}", wrong.len(), wrong.join("\n"), nodes.logs());
    assert_eq!(judged, 2 * rows(&cluster_id).len() * CALLERS.len());
    operator.close().await;
}

/// What the paths of the admin port need, and what a request carries.
const PATHS: [(&str, Need, &str); 14] = [
    ("GET /livez", Need::Nothing, ""),
    ("GET /readyz", Need::Nothing, ""),
    ("GET /version", Need::Scope("admin"), ""),
    ("GET /metrics", Need::Scope("admin"), ""),
    ("GET /log-level", Need::Scope("admin"), ""),
    ("PUT /log-level", Need::Scope("admin"), "info"),
    ("GET /", Need::Nothing, ""),
    ("GET /page.css", Need::Nothing, ""),
    ("GET /page.js", Need::Nothing, ""),
    ("GET /conversation.js", Need::Nothing, ""),
    ("GET /icon.svg", Need::Nothing, ""),
    ("GET /api/status", Need::Scope("admin"), ""),
    ("POST /api/sessions", Need::Scope("admin"), "{}"),
    ("POST /api/session", Need::AdminWho("read"), r#"{"id":"a/matrix"}"#),
];

/// The methods and paths that the routers name.
fn routes() -> BTreeSet<String> {
    let sources = [include_str!("../../src/server/admin.rs"), include_str!("../../src/server/admin/page.rs")];
    let mut routes = BTreeSet::new();
    for route in sources.iter().flat_map(|source| source.split(".route(\"").skip(1)) {
        let (path, rest) = route.split_once("\", ").expect("a path and what serves it");
        let served = rest.lines().next().unwrap_or_default();
        for method in ["get", "put", "post", "delete", "patch"] {
            if served.starts_with(&format!("{method}(")) || served.contains(&format!(".{method}(")) {
                routes.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    routes
}

#[tokio::test]
async fn every_path_of_the_admin_port_is_judged_for_every_kind_of_caller() {
    let rows: BTreeSet<String> = PATHS.iter().map(|(what, ..)| (*what).to_owned()).collect();
    assert_eq!(rows, routes(), "a path was added or taken away");
    let nodes = Nodes::start(1, "info").await;
    let mut wrong = Vec::new();
    for (what, need, body) in PATHS {
        for caller in &CALLERS {
            let (code, text) = wire::ask_with(&nodes.admin_address(1), &nodes.ca.pem(), what, caller.headers, body).await;
            let found = match code {
                401 => Fate::Unauthenticated,
                403 => Fate::Denied,
                _ => Fate::Served,
            };
            let expected = expected(caller, need);
            if found != expected || code == 0 {
                wrong.push(format!("{what} as {}: {code}, not {expected:?}: {text}", caller.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
