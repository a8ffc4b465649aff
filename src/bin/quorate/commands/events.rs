//! `quorate events`: what the asked nodes remember of their past.

use quorate::client::NodeEvents;
use serde_json::json;

use crate::args::{self, Output};
use crate::commands::session::{ask_failure, connect};
use crate::failure::Failure;
use crate::output;

/// Asks every endpoint and prints what they say, oldest first. Errors: none of them answers.
pub async fn run(args: args::Events) -> Result<(), Failure> {
    let mut all = Vec::new();
    let mut last = None;
    for endpoint in &args.ask.cluster.endpoints {
        let one = args::Cluster { endpoints: vec![endpoint.clone()], ..args.ask.cluster.clone() };
        let client = connect(&one)?;
        let result = client.events().await;
        client.close().await;
        match result {
            Ok(NodeEvents { node, events, .. }) => all.extend(events.into_iter().map(|event| (event.at_ms, node.0, event))),
            Err(error) => last = Some(ask_failure(error)),
        }
    }
    if let (true, Some(failure)) = (all.is_empty(), last) {
        return Err(failure);
    }
    all.sort_by_key(|(at_ms, node, _)| (*at_ms, *node));
    match args.ask.output {
        Output::Json => output::json(&json!({
            "events": all.iter().map(|(at_ms, node, event)| json!({
                "at_ms": at_ms, "node": node, "kind": event.kind, "detail": event.detail,
            })).collect::<Vec<_>>(),
        }))?,
        Output::Table => {
            let mut table = output::table(["AT", "NODE", "EVENT", "DETAIL"]);
            for (at_ms, node, event) in &all {
                let (kind, detail) = (output::printable(&event.kind), output::printable(&event.detail));
                table.add_row([output::time(*at_ms), node.to_string(), kind, detail]);
            }
            output::line(&table.trim_fmt())?;
        }
    }
    Ok(())
}
