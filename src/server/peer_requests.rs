//! The server's side of the peer port: operations that a peer forwards, and this node's own status.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, future, stream};
use tokio::sync::watch;
use tonic::Status;

use super::answers::Answers;
use super::auth::Guard;
use super::call::{IncomingRequest, Origin};
use super::context::ServerContext;
use super::dispatch::Dispatcher;
use super::status::Reporter;
use crate::env::Locked as _;
use crate::raft::{Forwarder, PeerRequests};
use crate::types::{Refusal, RefusalKind};
use crate::wire::peer::v1::ForwardRequest;
use crate::wire::{self, v1};

/// The server behind the peer port. The port listens before the server is built: until [`LateServer::set`], requests are refused.
#[derive(Default)]
pub struct LateServer(Mutex<Option<Parts>>);

#[derive(Clone)]
struct Parts {
    context: ServerContext,
    dispatcher: Dispatcher,
    reporter: Reporter,
    stop: watch::Receiver<bool>,
}

impl LateServer {
    /// Requests reach this server from now on, until the guard is dropped.
    pub fn set(
        self: &Arc<Self>,
        context: ServerContext,
        dispatcher: Dispatcher,
        reporter: Reporter,
        stop: watch::Receiver<bool>,
    ) -> ServerGuard {
        *self.0.locked() = Some(Parts { context, dispatcher, reporter, stop });
        ServerGuard(self.clone())
    }
}

/// Breaks the cycle of references `Node` → peer service → dispatcher → `Node` when it is dropped. Without it the node's files and threads
/// would stay for as long as the process lives.
pub struct ServerGuard(Arc<LateServer>);

impl Drop for ServerGuard {
    fn drop(&mut self) {
        let parts = self.0.0.locked().take();
        drop(parts);
    }
}

fn incoming(guard: &Guard, may_lack_hash: bool, message: ForwardRequest) -> Option<IncomingRequest> {
    let ForwardRequest { request, principal, token_sha256, .. } = message;
    let with_caller =
        |request| IncomingRequest { request, caller: guard.forwarded(principal, &token_sha256, may_lack_hash), connection: None };
    request.map(with_caller)
}

#[tonic::async_trait]
impl PeerRequests for LateServer {
    fn forward(
        &self,
        from: Forwarder,
        requests: Pin<Box<dyn Stream<Item = Result<ForwardRequest, Status>> + Send>>,
        first: ForwardRequest,
    ) -> Pin<Box<dyn Stream<Item = Result<v1::SubmitResponse, Status>> + Send>> {
        let Some(parts) = self.0.locked().clone() else {
            let refusal = Refusal::not_applied(RefusalKind::Unavailable, "the node is starting");
            return Box::pin(stream::once(future::ready(Err(wire::status_from_refusal(&refusal)))));
        };
        let guard = parts.context.guard().clone();
        if let Err(refusal) = guard.admit_forwards(from.authenticated) {
            tracing::warn!(from = %from.node, reason = %refusal, "a forward stream was refused");
            return Box::pin(stream::once(future::ready(Err(wire::status_from_refusal(&refusal)))));
        }
        // L43.
        let (reads, in_force) = (wire::version_from(first.cluster_version_max), parts.context.node().cluster_version());
        if reads < in_force {
            let message = format!(
                "the node that forwards does not read the cluster version in force, install the release that was there before \
                 reads={reads} in_force={in_force}"
            );
            tracing::warn!(from = %from.node, %message, "a forward stream was refused");
            let refusal = Refusal::not_applied(RefusalKind::Unsupported, message);
            return Box::pin(stream::once(future::ready(Err(wire::status_from_refusal(&refusal)))));
        }
        tracing::debug!(from = %from.node, "a peer forwards");
        let all = stream::once(future::ready(Ok(first))).chain(requests);
        // A node that has sent one hash sends them always.
        let mut may_lack_hash = !from.sends_hashes;
        let all = all.filter_map(move |message| {
            let incoming = message.map(|message| {
                may_lack_hash &= message.token_sha256.is_empty();
                incoming(&guard, may_lack_hash, message)
            });
            future::ready(incoming.transpose())
        });
        Box::pin(Answers::new(parts.dispatcher, Origin::Peer, all, parts.stop))
    }

    async fn status(&self, digest_at: u64, timeout: Duration, samples: u32) -> v1::NodeStatus {
        let parts = self.0.locked().clone();
        match parts {
            Some(parts) => parts.reporter.local(digest_at, timeout, samples).await,
            None => v1::NodeStatus { reachable: true, error: "the node is starting".to_owned(), ..v1::NodeStatus::default() },
        }
    }
}
