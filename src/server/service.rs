//! The `Sessions` service on the client port: messages in, messages out, all else in [`super::dispatch`].

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::answers::{Answers, response};
use super::auth::{Caller, Need};
use super::call::{IncomingRequest, Origin};
use super::context::ServerContext;
use super::dispatch::Dispatcher;
use super::edge;
use super::frames::Frames;
use super::status::Reporter;
use super::watch::Frames as Watched;
use crate::limits::WATCH_WITHOUT_LEADER_MAX;
use crate::machine::{Begin, Cursor};
use crate::net::Connection;
use crate::types::{Position, Refusal, RefusalKind};
use crate::wire::v1::sessions_server::Sessions;
use crate::wire::{self, v1};

/// The service of one node.
pub struct SessionsService {
    context: ServerContext,
    dispatcher: Dispatcher,
    reporter: Reporter,
    stop: watch::Receiver<bool>,
}

impl SessionsService {
    pub fn new(context: ServerContext, dispatcher: Dispatcher, reporter: Reporter, stop: watch::Receiver<bool>) -> Self {
        Self { context, dispatcher, reporter, stop }
    }

    /// The caller, as the gate found. Errors: `Unauthenticated`, as a status.
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        match request.extensions().get::<Caller>() {
            Some(caller) => Ok(caller.clone()),
            None => self.context.guard().caller(request.metadata()),
        }
    }

    /// The frames of one answer, with its tag. Errors: the refusal, as a status.
    async fn ask(&self, incoming: IncomingRequest) -> Result<(u64, Frames), Status> {
        let answer = self.dispatcher.ask(incoming).await;
        match answer.result {
            Ok(done) => Ok((answer.tag, Frames::new(Ok(done)))),
            Err(refusal) => Err(wire::status_from_refusal(&refusal)),
        }
    }

    /// Begins a watch, once this node has applied what its caller has seen. Errors: it is none, may not be, there are too many, or this node
    /// lags behind.
    async fn begin_watch(
        &self,
        caller: Caller,
        connection: Option<Arc<AtomicU64>>,
        request: v1::WatchRequest,
    ) -> Result<Watched, Refusal> {
        let watch = wire::watch_from(request)?;
        super::watch::authorize(self.context.guard(), &caller, &watch.selector)?;
        let node = self.context.node();
        if let Some(refusal) = node.outside() {
            return Err(refusal);
        }
        let place = self.context.watches().reserve(&caller, connection)?;
        let cluster = node.cluster_id();
        let known = |position: &&Position| Some(position.cluster_id) == cluster;
        let from = watch.from.as_ref().filter(known);
        let needed = [from, watch.seen.as_ref().filter(known)].into_iter().flatten().map(|position| position.revision.0).max();
        if let Some(needed) = needed
            && !node.applied_within(needed, WATCH_WITHOUT_LEADER_MAX).await
        {
            let message = format!("this node has not applied what this client has seen: watch at another node revision={needed}");
            return Err(Refusal::not_applied(RefusalKind::Unavailable, message));
        }
        let begin = match (from, watch.from) {
            (Some(from), _) => Begin::From(from.revision),
            (None, Some(_)) => Begin::Foreign,
            (None, None) if watch.initial => Begin::Initial,
            (None, None) => Begin::Now,
        };
        let cursor = node.look(|machine, _| Cursor::begin(begin, machine));
        Ok(self.context.watches().begin(place, caller, watch.selector, cursor))
    }

    async fn ask_one(&self, incoming: IncomingRequest) -> Result<Response<v1::SubmitResponse>, Status> {
        let (tag, frames) = self.ask(incoming).await?;
        let missing = || wire::status_from_refusal(&Refusal::unknown(RefusalKind::Unavailable, "no answer came"));
        let answer = frames.only().ok_or_else(missing)?;
        Ok(Response::new(response(&self.dispatcher, tag, answer)))
    }
}

/// The requests of one caller on a stream.
pub struct Requests {
    requests: Streaming<v1::SubmitRequest>,
    caller: Caller,
    /// Bytes that wait for the readers of the connection.
    loaded: Option<Arc<AtomicU64>>,
    context: ServerContext,
    /// When the caller ends the stream, if it says so, less a margin; by the node's monotonic clock.
    until: Option<Duration>,
}

impl Requests {
    fn incoming(&self, mut request: v1::SubmitRequest) -> IncomingRequest {
        if let Some(until) = self.until {
            request.timeout_ms = edge::timeout_ms(request.timeout_ms, Some(until.saturating_sub(self.context.now())));
        }
        incoming(request, self.caller.clone(), self.loaded.as_ref())
    }
}

impl Stream for Requests {
    type Item = Result<IncomingRequest, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut self.requests).poll_next(cx);
        polled.map(|next| next.map(|request| request.map(|request| self.incoming(request))))
    }
}

/// The counter of bytes that wait for the readers of a request's connection.
fn loaded<T>(request: &Request<T>) -> Option<Arc<AtomicU64>> {
    request.extensions().get::<Connection>().map(|connection| connection.loaded.clone())
}

/// A request with its caller. Only reads are counted for their connection: the answer to a write is no content that could wait.
fn incoming(request: v1::SubmitRequest, caller: Caller, loaded: Option<&Arc<AtomicU64>>) -> IncomingRequest {
    let is_write = matches!(request.operation, Some(v1::submit_request::Operation::Write(_)));
    IncomingRequest { request, caller, connection: loaded.filter(|_| !is_write).cloned() }
}

/// The operation, with a deadline no later than the caller's.
fn operation(request: Request<v1::SubmitRequest>) -> v1::SubmitRequest {
    let given = edge::given(request.metadata());
    let mut request = request.into_inner();
    request.timeout_ms = edge::timeout_ms(request.timeout_ms, given);
    request
}

fn not_a(what: &str) -> Status {
    wire::status_from_refusal(&Refusal::invalid(format!("this call takes another operation expected={what}")))
}

#[tonic::async_trait]
impl Sessions for SessionsService {
    type SubmitStream = Answers<Requests>;
    type LoadStream = Answers<Requests>;
    type WatchStream = Watched;

    async fn submit(&self, request: Request<Streaming<v1::SubmitRequest>>) -> Result<Response<Self::SubmitStream>, Status> {
        let caller = self.caller(&request)?;
        let context = self.context.clone();
        let until = edge::given(request.metadata()).map(|given| context.now().saturating_add(given));
        let loaded = loaded(&request);
        let requests = Requests { requests: request.into_inner(), caller, loaded, context, until };
        Ok(Response::new(Answers::new(self.dispatcher.clone(), Origin::Client, requests, self.stop.clone())))
    }

    async fn write(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = operation(request);
        match &request.operation {
            Some(v1::submit_request::Operation::Write(_)) => self.ask_one(incoming(request, caller, None)).await,
            _ => Err(not_a("write")),
        }
    }

    async fn load(&self, request: Request<v1::SubmitRequest>) -> Result<Response<Self::LoadStream>, Status> {
        let caller = self.caller(&request)?;
        let loaded = loaded(&request);
        let request = operation(request);
        use v1::submit_request::Operation;
        if !matches!(request.operation, Some(Operation::Load(_) | Operation::LoadMany(_))) {
            return Err(not_a("load"));
        }
        let (tag, frames) = self.ask(incoming(request, caller, loaded.as_ref())).await?;
        Ok(Response::new(Answers::of_one(self.dispatcher.clone(), tag, frames, self.stop.clone())))
    }

    async fn list(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let caller = self.caller(&request)?;
        let loaded = loaded(&request);
        let request = operation(request);
        match &request.operation {
            Some(v1::submit_request::Operation::List(_)) => self.ask_one(incoming(request, caller, loaded.as_ref())).await,
            _ => Err(not_a("list")),
        }
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.caller(&request)?;
        let connection = loaded(&request);
        let begun = self.begin_watch(caller, connection, request.into_inner()).await;
        begun.map(Response::new).map_err(|refusal| wire::status_from_refusal(&refusal))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        self.context.guard().require(request.metadata(), Need::Admin)?;
        let given = edge::given(request.metadata());
        let mut request = request.into_inner();
        request.timeout_ms = edge::timeout_ms(request.timeout_ms, given);
        Ok(Response::new(self.reporter.cluster(&request).await))
    }
}
