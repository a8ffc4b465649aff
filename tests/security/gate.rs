//! What is judged by a call's headers alone.

use std::sync::Arc;

use quorate::env::SystemClock;
use quorate::tls::{Identity, Roots, Starts, TcpDial, TlsConnector};
use quorate::types::Applied;
use quorate::wire;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::security::nodes::{Nodes, PATIENCE};
use crate::security::pki::Good;
use crate::security::wire as http;
use crate::support::raw::{body, call, message};

/// All but health and the protocol's description, which need no token.
const CALLS: [&str; 11] = [
    "/quorate.v1.Sessions/Submit",
    "/quorate.v1.Sessions/Write",
    "/quorate.v1.Sessions/Load",
    "/quorate.v1.Sessions/List",
    "/quorate.v1.Sessions/Status",
    "/quorate.v1.Operations/Backup",
    "/quorate.v1.Operations/Events",
    "/quorate.v1.Operations/Members",
    "/quorate.v1.Operations/ChangeMembers",
    "/quorate.v1.Operations/HandOver",
    "/quorate.v1.Operations/FinishUpgrade",
];
/// Those of them that only an operator may make.
fn is_operators(path: &str) -> bool {
    path.ends_with("/Status") || path.contains(".Operations/") && !path.ends_with("/Members")
}

async fn channel(nodes: &Nodes) -> Channel {
    let roots = Roots::from_pem(nodes.ca.pem().as_bytes()).expect("a CA");
    let pair = nodes.ca.client(Good::Now);
    let identity = Identity::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes()).expect("both fit");
    let connecting = TlsConnector::new(&roots, Some(&identity), Arc::new(SystemClock::new())).expect("usable");
    let endpoint = Endpoint::from_shared(format!("http://{}", nodes.client_address(1))).expect("an address");
    let dial = TcpDial::new(Some(connecting), PATIENCE, Starts::default());
    endpoint.connect_with_connector(dial).await.expect("the port listens")
}

/// A body that never becomes whole would be waited for, and what is there of it held.
#[tokio::test]
async fn a_call_without_a_good_token_is_answered_before_its_body_is_read() {
    let nodes = Nodes::start(1, "info").await;
    let channel = channel(&nodes).await;
    for path in CALLS {
        for (token, code) in [
            (None, Code::Unauthenticated),
            (Some("tokensecret-nobody"), Code::Unauthenticated),
            (Some("tokensecret-expired"), Code::Unauthenticated),
            (
                is_operators(path).then_some("tokensecret-writer"),
                if is_operators(path) { Code::PermissionDenied } else { Code::Unauthenticated },
            ),
        ] {
            let (open, body) = body(message(4000, 1));
            let answered = tokio::time::timeout(PATIENCE, call(&channel, path, token, body)).await;
            let status = answered.unwrap_or_else(|_| panic!("{path} waits for the body of a call that may not be made"));
            drop(open);
            assert_eq!(status.code(), code, "{path}: {status:?}");
            assert!(wire::is_ours(&status), "{path}: {status:?}");
            assert_eq!(wire::refusal_from_status(&status).applied, Applied::No, "{path}: {status:?}");
        }
    }
    // The connection serves on.
    let (open, body) = body(message(0, 0));
    drop(open);
    let status = call(&channel, "/quorate.v1.Operations/Members", Some("tokensecret-writer"), body).await;
    assert_eq!(status.code(), Code::Ok, "{status:?}");
}

/// The same on the admin port.
#[tokio::test]
async fn a_request_to_the_admin_port_without_a_good_token_is_answered_before_its_body_is_read() {
    let nodes = Nodes::start(1, "info").await;
    let (address, ca) = (nodes.admin_address(1), nodes.ca.pem());
    for what in ["POST /api/sessions", "POST /api/session", "PUT /log-level"] {
        for (token, code) in [(None, 401), (Some("tokensecret-nobody"), 401), (Some("tokensecret-writer"), 403)] {
            let asked = http::ask_saying(&address, &ca, what, token, (1000, "{"));
            let answered = tokio::time::timeout(PATIENCE, asked).await;
            let (answered, text) =
                answered.unwrap_or_else(|_| panic!("{what} waits for the body of a request that may not be made"));
            assert_eq!(answered, code, "{what}: {text}");
        }
    }
}
