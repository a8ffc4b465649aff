//! One question to one endpoint after the other, until an answer is good enough.

use std::future::Future;
use std::time::Duration;

use tonic::{Response, Status};

use super::Error;
use super::config::Config;
use super::credentials::Link;
use super::driver::connection::Broken;
use super::failures::Failures;
use crate::types::{Refusal, RefusalKind};

/// Asks one endpoint after the other, each for at most `within`, until one answers; gives also which one did. Errors: the failure that
/// [`note`] keeps.
pub(super) async fn first_answer<T, F: Future<Output = Result<Response<T>, Status>>>(
    config: &Config,
    within: Duration,
    ask: impl Fn(Link) -> F,
) -> Result<(T, String), Error> {
    best_answer(config, within, ask, |_| Worth { is_all: true, ..Worth::default() }).await
}

/// The worth of an answer. The greatest is taken, of equal ones the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Worth {
    /// No other could be worth more: nobody else is asked.
    pub is_all: bool,
    /// The node is in a cluster.
    pub has_cluster: bool,
    /// Its node reaches a majority.
    pub has_majority: bool,
    /// How new it is.
    pub newest: u64,
}

impl Worth {
    /// Of an answer about a cluster: one with a majority behind it is as good as it gets.
    pub fn of(has_cluster: bool, has_majority: bool, newest: u64) -> Self {
        Self { is_all: has_cluster && has_majority, has_cluster, has_majority, newest }
    }
}

/// Asks one endpoint after the other, each for at most `within`, until an answer is worth all there can be; else gives the one that is
/// worth the most, and which endpoint gave it. Errors: nobody answers; the failure that [`note`] keeps.
pub(super) async fn best_answer<T, F: Future<Output = Result<Response<T>, Status>>>(
    config: &Config,
    within: Duration,
    ask: impl Fn(Link) -> F,
    worth: impl Fn(&T) -> Worth,
) -> Result<(T, String), Error> {
    let mut best: Option<(Worth, T, String)> = None;
    let mut kept = Refusal::not_applied(RefusalKind::Unavailable, "no endpoint answered");
    let mut failures = Failures::default();
    for endpoint in &config.endpoints {
        let attempt = async {
            let link = config.dial(endpoint).within(within).connect().await?;
            ask(link).await.map_err(|status| Broken::of_status(endpoint, &status))
        };
        let late = |_| Err(Broken::unavailable(endpoint, &format!("no answer for {within:?}")));
        match tokio::time::timeout(within, attempt).await.unwrap_or_else(late) {
            Ok(response) => {
                let answer = response.into_inner();
                let worth = worth(&answer);
                if worth.is_all {
                    return Ok((answer, endpoint.clone()));
                }
                if best.as_ref().is_none_or(|(before, ..)| *before < worth) {
                    best = Some((worth, answer, endpoint.clone()));
                }
            }
            Err(Broken { refusal, failure }) => {
                failures.note(failure);
                note(&mut kept, refusal);
            }
        }
    }
    best.map(|(_, answer, endpoint)| (answer, endpoint)).ok_or_else(|| Error::from_refusal(kept).with_endpoints(&failures))
}

/// Keeps, of the failures of one question to several nodes, the one to tell: a node that refuses the credentials is there, whatever the
/// others are; else the last.
fn note(kept: &mut Refusal, next: Refusal) {
    let of_credentials = |refusal: &Refusal| matches!(refusal.kind, RefusalKind::Unauthenticated | RefusalKind::Denied);
    if !of_credentials(kept) || of_credentials(&next) {
        *kept = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_down_does_not_hide_one_that_refuses_the_credentials() {
        let of = |kind, what: &str| Refusal::not_applied(kind, what.to_owned());
        let mut kept = of(RefusalKind::Unavailable, "first");
        for (kind, what, text) in [
            (RefusalKind::Unavailable, "second", "second"),
            (RefusalKind::Denied, "denied", "denied"),
            (RefusalKind::Unavailable, "fourth", "denied"),
            (RefusalKind::Unauthenticated, "unknown", "unknown"),
        ] {
            note(&mut kept, of(kind, what));
            assert_eq!(kept.message, text);
        }
    }
}
