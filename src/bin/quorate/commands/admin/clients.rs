//! `quorate admin clients`: who fills the table of clients, and ending some of them.

use std::time::Duration;

use quorate::client::{ClientFilter, Clients, Dropped};
use quorate::types::ClientId;
use serde_json::json;

use crate::args;
use crate::commands::session::{ask_failure, connect};
use crate::failure::Failure;
use crate::output;

/// How long one call may take, where nobody says.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The name for clients whose holder no node knows.
const UNKNOWN: &str = "(unknown)";

/// Runs one of them. Errors: `drop` without a word about which.
pub async fn run(command: args::Clients) -> Result<(), Failure> {
    match command {
        args::Clients::Ls(args) => list(args).await,
        args::Clients::Drop(args) => drop_some(args).await,
    }
}

fn filter(which: args::Which) -> ClientFilter {
    let args::Which { of, unknown, idle, clients } = which;
    ClientFilter { token: of, unknown, idle: idle.unwrap_or_default(), clients: clients.into_iter().map(ClientId).collect() }
}

async fn list(args: args::ClientsLs) -> Result<(), Failure> {
    let client = connect(&args.ask.cluster)?;
    let listed = client.clients(&filter(args.which), args.limit, args.ask.cluster.timeout.unwrap_or(TIMEOUT)).await;
    client.close().await;
    let clients = listed.map_err(ask_failure)?;
    output::print(args.ask.output, || as_json(&clients), || as_table(&clients))?;
    Ok(())
}

fn as_json(clients: &Clients) -> serde_json::Value {
    let tokens = clients.tokens.iter();
    let tokens = tokens.map(|of| json!({ "token": of.token, "clients": of.clients, "outcomes": of.outcomes }));
    let listed = clients.clients.iter().map(|client| {
        json!({ "id": client.id.0, "token": client.token, "outcomes": client.outcomes, "idle_ms": client.idle.as_millis() as u64 })
    });
    json!({
        "tokens": tokens.collect::<Vec<_>>(),
        "clients": listed.collect::<Vec<_>>(),
        "clients_total": clients.total.0,
        "clients_limit": clients.total.1,
        "outcomes_total": clients.outcomes.0,
        "outcomes_limit": clients.outcomes.1,
    })
}

fn as_table(clients: &Clients) -> String {
    let name = |token: &Option<String>| token.as_deref().map_or_else(|| UNKNOWN.to_owned(), output::printable);
    let mut table = output::table(["TOKEN", "CLIENTS", "OUTCOMES"]);
    for of in &clients.tokens {
        table.add_row([name(&of.token), of.clients.to_string(), of.outcomes.to_string()]);
    }
    let mut text = format!("{}\n", table.trim_fmt());
    if !clients.clients.is_empty() {
        let mut table = output::table(["CLIENT", "TOKEN", "OUTCOMES", "IDLE"]);
        for client in &clients.clients {
            let idle = humantime::format_duration(Duration::from_secs(client.idle.as_secs())).to_string();
            table.add_row([client.id.0.to_string(), name(&client.token), client.outcomes.to_string(), idle]);
        }
        text += &format!("{}\n", table.trim_fmt());
    }
    let ((clients, most), (outcomes, outcomes_most)) = (clients.total, clients.outcomes);
    text + &format!("in all: clients={clients} limit={most} outcomes={outcomes} limit={outcomes_most}")
}

/// One call ends a bounded number: it is repeated until none is left.
async fn drop_some(args: args::ClientsDrop) -> Result<(), Failure> {
    let filter = filter(args.which);
    if filter == ClientFilter::default() {
        return Err(Failure::usage("say which clients: --of, --unknown, --idle or --client; nothing was changed"));
    }
    let client = connect(&args.ask.cluster)?;
    let mut all = Dropped::default();
    let ended = loop {
        match client.drop_clients(&filter, args.ask.cluster.timeout.unwrap_or(TIMEOUT)).await {
            Err(error) => break Err(error),
            Ok(some) => {
                all.clients += some.clients;
                all.outcomes += some.outcomes;
                if !some.more || some.clients == 0 {
                    break Ok(());
                }
            }
        }
    };
    client.close().await;
    let done = format!("ended clients={} outcomes={}", all.clients, all.outcomes);
    if let Err(error) = ended {
        let failure = ask_failure(error);
        return Err(Failure { message: format!("{}; before that it {done}", failure.message), ..failure });
    }
    output::changed(args.ask.output, &done, || json!({ "clients": all.clients, "outcomes": all.outcomes }))
}
