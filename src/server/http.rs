//! Serving HTTP/1.1 to operators: every request's headers come in time, and a probe's connection ends with its answer.

use axum::Router;
use futures_util::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::limits::GREETING_PATIENCE;
use crate::net::{Accepted, Incoming};

/// Serves until `stop`; then ends its connections once their requests are answered.
pub async fn serve(mut incoming: Incoming, router: Router, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            next = incoming.next() => match next {
                Some(Ok(accepted)) => {
                    connections.spawn(one(accepted, router.clone(), stop.clone()));
                }
                Some(Err(_)) => {}
                None => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(incoming);
    while connections.join_next().await.is_some() {}
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn one(accepted: Accepted, router: Router, mut stop: watch::Receiver<bool>) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    // The timer also ends a connection on which no further request comes.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(GREETING_PATIENCE).keep_alive(!accepted.is_probe());
    let connection = builder.serve_connection(TokioIo::new(accepted), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the admin port ended");
    }
}
