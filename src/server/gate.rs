//! The gate of the client port, above all services: what a call is, and who makes it, is judged by its headers, before a byte of its body is
//! read. See [`super::receiving`] for the body of those that pass.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};

use super::auth::{Caller, Guard, Need};
use super::receiving::{Admits, From, Receiving, Takes};
use crate::limits::{ASK_MESSAGE_BYTES_MAX, READ_MESSAGE_BYTES_MAX, WRITE_MESSAGE_BYTES_MAX};
use crate::net::Connection;
use crate::types::Refusal;
use crate::wire;

/// The right to make a call, as far as its headers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Everyone who can connect.
    Anyone,
    /// The holder of a token; its service asks for more once it knows what is wanted.
    Holder,
    /// An operator.
    Admin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    who: Who,
    takes: Takes,
}

/// The right that each call needs. A method without a row needs the least, and a token.
fn rule(path: &str) -> Rule {
    row(path).unwrap_or(Rule { who: Who::Holder, takes: Takes { message_bytes: ASK_MESSAGE_BYTES_MAX, one: true } })
}

fn row(path: &str) -> Option<Rule> {
    let one = |who, message_bytes| Rule { who, takes: Takes { message_bytes, one: true } };
    let some = |who, message_bytes| Rule { who, takes: Takes { message_bytes, one: false } };
    Some(match path {
        "/quorate.v1.Sessions/Submit" => some(Who::Holder, WRITE_MESSAGE_BYTES_MAX),
        "/quorate.v1.Sessions/Write" => one(Who::Holder, WRITE_MESSAGE_BYTES_MAX),
        "/quorate.v1.Sessions/Load" | "/quorate.v1.Sessions/List" | "/quorate.v1.Sessions/Watch" => {
            one(Who::Holder, READ_MESSAGE_BYTES_MAX)
        }
        "/quorate.v1.Sessions/Status"
        | "/quorate.v1.Operations/Backup"
        | "/quorate.v1.Operations/Purge"
        | "/quorate.v1.Operations/Events"
        | "/quorate.v1.Operations/ChangeMembers"
        | "/quorate.v1.Operations/HandOver"
        | "/quorate.v1.Operations/FinishUpgrade"
        | "/quorate.v1.Operations/Clients"
        | "/quorate.v1.Operations/DropClients" => one(Who::Admin, ASK_MESSAGE_BYTES_MAX),
        "/quorate.v1.Operations/Members" => one(Who::Holder, ASK_MESSAGE_BYTES_MAX),
        "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/Watch" => one(Who::Anyone, ASK_MESSAGE_BYTES_MAX),
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => some(Who::Anyone, ASK_MESSAGE_BYTES_MAX),
        _ => return None,
    })
}

/// Services behind the gate. Those find who calls in the request's extensions, as a [`Caller`].
#[derive(Clone)]
pub struct Gate<S> {
    services: S,
    guard: Guard,
    receiving: Receiving,
    /// Bytes of all operations between admission and answer.
    in_flight: Arc<AtomicU64>,
}

impl<S> Gate<S> {
    pub fn new(services: S, guard: Guard, receiving: Receiving, in_flight: Arc<AtomicU64>) -> Self {
        Self { services, guard, receiving, in_flight }
    }

    /// Errors: `Unauthenticated` or `Denied`; nothing changed, and nothing of the body was read.
    fn judge(&self, mut request: Request<Body>) -> Result<Request<Body>, Refusal> {
        let Rule { who, takes } = rule(request.uri().path());
        let mut admits: Option<Admits> = None;
        let token = if who == Who::Anyone {
            // All of them share what one token may take.
            Some(Arc::from(""))
        } else {
            let caller = self.guard.caller_of(request.headers())?;
            if who == Who::Admin {
                self.guard.authorize(&caller, Need::Admin)?;
            }
            if takes.one
                && takes.message_bytes > READ_MESSAGE_BYTES_MAX
                && let Some(share) = self.guard.share(&caller)
            {
                let in_flight = self.in_flight.clone();
                admits = Some(Box::new(move |bytes| share.expect_room(&in_flight, bytes)));
            }
            let token = caller.token();
            request.extensions_mut().insert::<Caller>(caller);
            token
        };
        let connection = request.extensions().get::<Connection>().map(|connection| connection.receiving.clone());
        let from = From { connection: connection.unwrap_or_default(), token, admits };
        Ok(request.map(|body| Body::new(self.receiving.of(body, takes, from))))
    }
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.services.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.judge(request) {
            Ok(request) => Either::Left(self.services.call(request)),
            Err(refusal) => Either::Right(ready(Ok(wire::status_from_refusal(&refusal).into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use protox::prost_reflect::DescriptorPool;

    use super::*;

    /// A new call must be given a row before it can be shipped.
    #[test]
    fn every_call_of_the_client_port_has_a_row_that_fits_it() {
        let mut seen = 0;
        for described in [
            wire::DESCRIPTOR,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            let pool = DescriptorPool::decode(described).expect("a description");
            let services = pool.services().filter(|service| service.package_name() != "quorate.peer.v1");
            for method in services.flat_map(|service| service.methods().collect::<Vec<_>>()) {
                let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
                let rule = row(&path).unwrap_or_else(|| panic!("{path} has no row"));
                assert_eq!(rule.takes.one, !method.is_client_streaming(), "{path}");
                assert_eq!(rule.who == Who::Anyone, path.starts_with("/grpc."), "{path}");
                seen += 1;
            }
        }
        assert_eq!(seen, 19);
    }
}
