//! The table of clients, for operators: who has how many, and ending some of them.
//!
//! A client is ended by the command that it would end itself with, which needs its nonce: the leader has it. So no other command is needed,
//! and a node of any release applies it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::auth::{Guard, Shares};
use crate::limits::BATCH_OPERATIONS_MAX;
use crate::machine::{Command, OpenedClient};
use crate::raft::Node;
use crate::types::{Applied, ClientId, Outcome, Refusal, Verdict, Write};
use crate::wire::v1;

/// Clients read in one instant: nothing is applied meanwhile.
const CLIENTS_AT_ONCE: usize = 2048;
/// Clients that one answer lists.
pub const LISTED_MAX: usize = 10_000;
/// Clients that one call ends; who asks for more asks again.
const DROPPED_MAX: usize = 10_000;
/// Clients that one call names: its message is a small one.
const NAMED_MAX: usize = 400;

/// Which clients are meant: all that every part holds for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this token; empty: of any.
    token: String,
    /// Only those of which this leader does not know whose they are.
    unknown: bool,
    /// Without a call for at least so long.
    idle_ms: u64,
    /// Only these; empty: any.
    clients: Vec<ClientId>,
}

impl Filter {
    /// Errors: `Invalid`: more clients are named than may be.
    pub fn from_message(message: Option<v1::ClientFilter>) -> Result<Self, Refusal> {
        let v1::ClientFilter { token, unknown, idle_ms, clients } = message.unwrap_or_default();
        if clients.len() > NAMED_MAX {
            return Err(Refusal::invalid(format!("too many clients are named found={} limit={NAMED_MAX}", clients.len())));
        }
        Ok(Self { token, unknown, idle_ms, clients: clients.into_iter().map(ClientId).collect() })
    }

    /// Whether it means every client there is.
    fn is_all(&self) -> bool {
        self.token.is_empty() && !self.unknown && self.idle_ms == 0 && self.clients.is_empty()
    }

    fn means(&self, client: &OpenedClient, token: Option<&str>) -> bool {
        (self.token.is_empty() || token == Some(&*self.token))
            && (!self.unknown || token.is_none())
            && client.idle_ms >= self.idle_ms
            && (self.clients.is_empty() || self.clients.contains(&client.id))
    }
}

/// The holders of clients, and at most `limit` clients, those with the most outcomes first. Cancel safe.
///
/// Errors: this node does not lead.
pub async fn list(node: &Node, guard: &Guard, filter: &Filter, limit: usize) -> Result<v1::ClientsResponse, Refusal> {
    node.require_lead()?;
    let shares = guard.shares().map(|(_, shares)| shares).unwrap_or_default();
    let mut by_token: BTreeMap<String, v1::TokenClients> = BTreeMap::new();
    let mut clients = Vec::new();
    each(node, &shares, |client, token| {
        if filter.means(client, token) {
            let name = token.unwrap_or_default();
            let of_token = by_token.entry(name.to_owned()).or_default();
            of_token.token = name.to_owned();
            of_token.clients += 1;
            of_token.outcomes += client.outcomes;
            let id = client.id.0;
            clients.push(v1::OpenedClient { id, token: name.to_owned(), outcomes: client.outcomes, idle_ms: client.idle_ms });
        }
    })
    .await;
    clients.sort_by_key(|client| (std::cmp::Reverse(client.outcomes), client.id));
    clients.truncate(limit.min(LISTED_MAX));
    let (counts, rules) = node.counts();
    let mut tokens: Vec<v1::TokenClients> = by_token.into_values().collect();
    tokens.sort_by_key(|token| std::cmp::Reverse(token.clients));
    Ok(v1::ClientsResponse {
        tokens,
        clients,
        clients_total: counts.clients,
        clients_limit: rules.clients_max,
        outcomes_total: counts.outcomes,
        outcomes_limit: rules.outcomes_max,
    })
}

/// Ends a bounded number of the named clients; gives their number, and whether there may be more. Open requests of an ended client are
/// answered as those of an unknown one. Dropping the future leaves a proposed change to happen.
///
/// Errors: this node does not lead, or the filter names no client: nothing changed. A failure midway is an unknown: asking again is safe.
pub async fn drop_clients(node: &Node, guard: &Guard, filter: &Filter) -> Result<v1::DropClientsResponse, Refusal> {
    if filter.is_all() {
        return Err(Refusal::invalid("say which clients: nothing was changed; some of token, unknown, idle_ms, clients"));
    }
    node.require_lead()?;
    let shares = guard.shares().map(|(_, shares)| shares).unwrap_or_default();
    let mut meant = Vec::new();
    let mut more = false;
    each(node, &shares, |client, token| {
        if filter.means(client, token) {
            more |= meant.len() >= DROPPED_MAX;
            if !more {
                meant.push((Write::CloseClient { client: client.id, nonce: client.nonce }, client.outcomes));
            }
        }
    })
    .await;
    let (mut dropped, mut outcomes) = (0, 0);
    for batch in meant.chunks(BATCH_OPERATIONS_MAX) {
        for ((_, freed), closed) in batch.iter().zip(close(node, batch).await?) {
            dropped += u64::from(closed);
            outcomes += if closed { *freed } else { 0 };
        }
    }
    node.events().note("clients", format!("an operator ended some clients={dropped} outcomes={outcomes}"));
    tracing::warn!(dropped, outcomes, "an operator ended clients");
    Ok(v1::DropClientsResponse { dropped, outcomes, more })
}

/// Proposes one batch, and waits for all of it; whether each was ended by it.
async fn close(node: &Node, batch: &[(Write, u64)]) -> Result<Vec<bool>, Refusal> {
    let (sender, mut results) = mpsc::channel::<(usize, Result<Outcome, Refusal>)>(batch.len());
    let commands = batch.iter().enumerate().map(|(at, (write, _))| {
        let sender = sender.clone();
        let reply: crate::raft::Reply = Box::new(move |result| {
            // There is room for all of them.
            let _ = sender.try_send((at, result));
        });
        (Command::Client(write.clone()), reply)
    });
    node.propose(commands.collect());
    drop(sender);
    let mut closed = vec![false; batch.len()];
    while let Some((at, result)) = results.recv().await {
        // What went before may have happened already, so the whole is unknown.
        let outcome = result.map_err(|refusal| Refusal { applied: Applied::Unknown, ..refusal })?;
        closed[at] = outcome.verdict == Verdict::ClientClosed;
    }
    Ok(closed)
}

/// Shows `f` every client, with the name of its token where that is known, a bounded number in one instant.
async fn each(node: &Node, shares: &Shares, mut f: impl FnMut(&OpenedClient, Option<&str>)) {
    let names: BTreeMap<usize, &str> = shares.values().map(|share| (share.held_at(), share.name())).collect();
    let mut after = None;
    loop {
        let clients = node.clients_after(after, CLIENTS_AT_ONCE);
        let Some(last) = clients.last().map(|client| client.id) else { return };
        for client in &clients {
            let token = client.held.as_ref().and_then(|held| names.get(&Arc::as_ptr(held).addr()));
            f(client, token.copied());
        }
        after = Some(last);
        tokio::task::yield_now().await;
    }
}
