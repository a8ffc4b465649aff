//! The `Sessions` service on the client port: messages in, messages out, all else in [`super::dispatch`].

use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::answers::{Answers, Frames, response};
use super::call::Origin;
use super::dispatch::Dispatcher;
use super::status::Reporter;
use crate::types::Refusal;
use crate::wire::v1::sessions_server::Sessions;
use crate::wire::{self, v1};

/// The service of one node.
pub struct SessionsService {
    dispatcher: Dispatcher,
    reporter: Reporter,
    stop: watch::Receiver<bool>,
}

impl SessionsService {
    pub fn new(dispatcher: Dispatcher, reporter: Reporter, stop: watch::Receiver<bool>) -> Self {
        Self { dispatcher, reporter, stop }
    }

    /// The frames of one answer, with its tag. Errors: the refusal, as a status.
    async fn ask(&self, request: v1::SubmitRequest) -> Result<(u64, Frames), Status> {
        let answer = self.dispatcher.ask(request).await;
        match answer.result {
            Ok(done) => Ok((answer.tag, Frames::new(Ok(done)))),
            Err(refusal) => Err(wire::status_from_refusal(&refusal)),
        }
    }

    async fn ask_one(&self, request: v1::SubmitRequest) -> Result<Response<v1::SubmitResponse>, Status> {
        let (tag, frames) = self.ask(request).await?;
        let missing = || wire::status_from_refusal(&Refusal::unknown(crate::types::RefusalKind::Unavailable, "no answer came"));
        let answer = frames.only().ok_or_else(missing)?;
        Ok(Response::new(response(&self.dispatcher, tag, answer)))
    }
}

fn not_a(what: &str) -> Status {
    wire::status_from_refusal(&Refusal::invalid(format!("this call takes another operation expected={what}")))
}

#[tonic::async_trait]
impl Sessions for SessionsService {
    type SubmitStream = Answers<Streaming<v1::SubmitRequest>>;
    type LoadStream = Answers<Streaming<v1::SubmitRequest>>;

    async fn submit(&self, request: Request<Streaming<v1::SubmitRequest>>) -> Result<Response<Self::SubmitStream>, Status> {
        let answers = Answers::new(self.dispatcher.clone(), Origin::Client, request.into_inner(), self.stop.clone());
        Ok(Response::new(answers))
    }

    async fn write(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let request = request.into_inner();
        match &request.operation {
            Some(v1::submit_request::Operation::Write(_)) => self.ask_one(request).await,
            _ => Err(not_a("write")),
        }
    }

    async fn load(&self, request: Request<v1::SubmitRequest>) -> Result<Response<Self::LoadStream>, Status> {
        let request = request.into_inner();
        if !matches!(request.operation, Some(v1::submit_request::Operation::Load(_))) {
            return Err(not_a("load"));
        }
        let (tag, frames) = self.ask(request).await?;
        Ok(Response::new(Answers::of_one(self.dispatcher.clone(), tag, frames, self.stop.clone())))
    }

    async fn list(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let request = request.into_inner();
        match &request.operation {
            Some(v1::submit_request::Operation::List(_)) => self.ask_one(request).await,
            _ => Err(not_a("list")),
        }
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(self.reporter.cluster(&request.into_inner()).await))
    }
}
