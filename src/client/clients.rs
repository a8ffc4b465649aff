//! The client table, for operators: its holders, and how to end clients.

use std::time::Duration;

use super::Error;
use super::config::Config;
use super::members::at_the_leader;
use crate::types::ClientId;
use crate::wire::v1;

/// Which clients are meant: all that every part holds for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFilter {
    /// Of the token of this name.
    pub token: Option<String>,
    /// Only those of which the leader does not know whose they are: they have not called since it leads.
    pub unknown: bool,
    /// Without a call for at least so long.
    pub idle: Duration,
    /// Only these; none: any.
    pub clients: Vec<ClientId>,
}

/// How many clients one token has, as the leader knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenClients {
    /// Its name; `None`: they have not called since the leader leads, or there are no tokens.
    pub token: Option<String>,
    /// Clients.
    pub clients: u64,
    /// Their recorded outcomes.
    pub outcomes: u64,
}

/// One client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedClient {
    /// Its id.
    pub id: ClientId,
    /// The holder's token, as in [`TokenClients`].
    pub token: Option<String>,
    /// Its recorded outcomes.
    pub outcomes: u64,
    /// Without a call for so long.
    pub idle: Duration,
}

/// The table of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// Of those that are meant, the most clients first.
    pub tokens: Vec<TokenClients>,
    /// Some of them, the most outcomes first.
    pub clients: Vec<OpenedClient>,
    /// All clients there are, and may be.
    pub total: (u64, u64),
    /// All recorded outcomes there are, and may be.
    pub outcomes: (u64, u64),
}

/// The result of [`crate::client::Client::drop_clients`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Clients that were ended.
    pub clients: u64,
    /// Recorded outcomes that went with them.
    pub outcomes: u64,
    /// Whether there may be more that are meant: ask again.
    pub more: bool,
}

pub(super) async fn list(config: &Config, filter: &ClientFilter, limit: u32, within: Duration) -> Result<Clients, Error> {
    let response = at_the_leader(config, within, async |mut client, _| {
        let request = v1::ClientsRequest { filter: Some(filter_to(filter)), limit };
        client.clients(request).await.map(tonic::Response::into_inner)
    });
    let response = response.await?;
    let named = |token: String| (!token.is_empty()).then_some(token);
    let of_token = |v1::TokenClients { token, clients, outcomes }| TokenClients { token: named(token), clients, outcomes };
    let client = |v1::OpenedClient { id, token, outcomes, idle_ms }| OpenedClient {
        id: ClientId(id),
        token: named(token),
        outcomes,
        idle: Duration::from_millis(idle_ms),
    };
    Ok(Clients {
        tokens: response.tokens.into_iter().map(of_token).collect(),
        clients: response.clients.into_iter().map(client).collect(),
        total: (response.clients_total, response.clients_limit),
        outcomes: (response.outcomes_total, response.outcomes_limit),
    })
}

pub(super) async fn drop_some(config: &Config, filter: &ClientFilter, within: Duration) -> Result<Dropped, Error> {
    let response = at_the_leader(config, within, async |mut client, _| {
        let request = v1::DropClientsRequest { filter: Some(filter_to(filter)) };
        client.drop_clients(request).await.map(tonic::Response::into_inner)
    });
    let v1::DropClientsResponse { dropped, outcomes, more } = response.await?;
    Ok(Dropped { clients: dropped, outcomes, more })
}

fn filter_to(filter: &ClientFilter) -> v1::ClientFilter {
    v1::ClientFilter {
        token: filter.token.clone().unwrap_or_default(),
        unknown: filter.unknown,
        idle_ms: u64::try_from(filter.idle.as_millis()).unwrap_or(u64::MAX),
        clients: filter.clients.iter().map(|client| client.0).collect(),
    }
}
