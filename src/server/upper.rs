//! What the peer port asks of the server: operations that a peer forwards, and this node's own status.

use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, future, stream};
use tokio::sync::watch;
use tonic::{Status, Streaming};

use super::answers::Answers;
use super::call::Origin;
use super::dispatch::Dispatcher;
use super::status::Reporter;
use crate::raft::Upper;
use crate::types::{NodeId, Refusal, RefusalKind};
use crate::wire::peer::v1::ForwardRequest;
use crate::wire::{self, v1};

/// The server above the peer port. The port listens before the server is there: until [`Above::set`], it refuses.
#[derive(Default)]
pub struct Above(OnceLock<Parts>);

struct Parts {
    dispatcher: Dispatcher,
    reporter: Reporter,
    stop: watch::Receiver<bool>,
}

impl Above {
    /// The server is there. Only the first call counts.
    pub fn set(&self, dispatcher: Dispatcher, reporter: Reporter, stop: watch::Receiver<bool>) {
        let _ = self.0.set(Parts { dispatcher, reporter, stop });
    }
}

#[tonic::async_trait]
impl Upper for Above {
    fn forward(
        &self,
        from: NodeId,
        requests: Streaming<ForwardRequest>,
        first: ForwardRequest,
    ) -> Pin<Box<dyn Stream<Item = Result<v1::SubmitResponse, Status>> + Send>> {
        let Some(parts) = self.0.get() else {
            let refusal = Refusal::not_applied(RefusalKind::Unavailable, "the node is starting");
            return Box::pin(stream::once(future::ready(Err(wire::status_from_refusal(&refusal)))));
        };
        tracing::debug!(%from, "a peer forwards");
        let rest = requests.filter_map(|message| future::ready(message.map(|message| message.request).transpose()));
        let all = stream::iter(first.request.map(Ok)).chain(rest);
        Box::pin(Answers::new(parts.dispatcher.clone(), Origin::Peer, all, parts.stop.clone()))
    }

    async fn status(&self, digest_at: u64, timeout: Duration) -> v1::NodeStatus {
        match self.0.get() {
            Some(parts) => parts.reporter.local(digest_at, timeout).await,
            None => v1::NodeStatus { reachable: true, error: "the node is starting".to_owned(), ..v1::NodeStatus::default() },
        }
    }
}
