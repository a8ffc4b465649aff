//! A stock Bob agent that is the only one to write its conversation while it works: each of its turns runs under a lease.
//!
//! It needs cluster version 2. Several of it on one conversation wait for each other; one that stands still for longer than its lease lives
//! is followed by another, and what it saves then is refused.
//!
//! ```text
//! cargo run --example bob_turns -- support-42 "hello"
//! ```
//!
//! The model is that of `bob_agent`: scripted, so no network is needed.

use std::sync::Arc;
use std::time::Duration;

use bob_runtime::AgentRuntime;
use quorate::client::{Client, TurnOptions, Wait};

#[path = "bob_agent.rs"]
#[allow(dead_code, reason = "its own main")]
pub mod bob_agent;

/// How long a lease lives without its holder.
pub const TTL: Duration = Duration::from_secs(5);
/// How long to wait for the turn of another.
const PATIENCE: Duration = Duration::from_secs(60);

/// The runtime as it is, on a store that finds the turn of a session by its id.
pub fn runtime(client: &Client) -> Arc<dyn AgentRuntime> {
    bob_agent::runtime(Arc::new(client.session_store().under_turns()))
}

/// One turn of a conversation under its lease; gives the answer. Errors: another has the turn, or had it before this one ended; then nothing
/// of it is stored.
pub async fn turn(
    client: &Client,
    runtime: &dyn AgentRuntime,
    session: &str,
    input: &str,
) -> Result<String, Box<dyn std::error::Error>> {
    let options = TurnOptions { holder: format!("process {}", std::process::id()), ttl: TTL, wait: Wait::Enqueue(PATIENCE) };
    let lease = client.turn(session, options).await?;
    let answer = tokio::select! {
        answer = bob_agent::turn(runtime, session, input) => answer?,
        () = lease.lost() => return Err("the turn was lost: what it would save is refused".into()),
    };
    lease.release().await?;
    Ok(answer)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let session = arguments.next().unwrap_or_else(|| "example".to_owned());
    let input = arguments.next().unwrap_or_else(|| "hello".to_owned());
    let endpoints =
        std::env::var("QUORATE_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7460,127.0.0.1:7470,127.0.0.1:7480".to_owned());

    let client = Client::builder().endpoints(endpoints.split(',')).build()?;
    println!("{}", turn(&client, &*runtime(&client), &session, &input).await?);
    client.close().await;
    Ok(())
}
