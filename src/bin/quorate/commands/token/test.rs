//! `quorate token test`: what a token is good for.

use std::path::Path;

use quorate::client::{Client, Content, Error, ErrorKind, WriteOptions};
use quorate::env::{Random, SystemRandom, read_file};
use quorate::server::auth::{Grant, hash_of};
use quorate::types::{Expected, List, Version};
use serde_json::{Value, json};

use super::{hex, show};
use crate::args::{self, Output};
use crate::commands::session::{connect, read_failure};
use crate::failure::Failure;
use crate::output;

/// Of a file that holds one token.
const TOKEN_BYTES_MAX: u64 = 1 << 16;

/// Errors: there is no token to be tested; it is unknown, or no longer valid; no node answers.
pub async fn run(args: args::TokenTest) -> Result<(), Failure> {
    let credentials = &args.ask.cluster.credentials;
    if credentials.token.is_none() && credentials.token_file.is_none() {
        return Err(Failure::usage("there is no token to be tested: pass --token-file FILE, or set QUORATE_TOKEN"));
    }
    match &args.file {
        Some(file) => by_file(file, &args),
        None => by_cluster(&args).await,
    }
}

fn token(credentials: &args::Credentials) -> Result<String, Failure> {
    match (&credentials.token_file, &credentials.token) {
        (Some(path), _) => {
            let bytes = read_file(path, TOKEN_BYTES_MAX)
                .map_err(|error| Failure::usage(format!("can't read the token: {error} file={}", path.display())))?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        }
        (None, token) => Ok(token.as_ref().map(|secret| secret.0.trim().to_owned()).unwrap_or_default()),
    }
}

fn by_file(file: &Path, args: &args::TokenTest) -> Result<(), Failure> {
    let tokens = show::read(file)?;
    let token = token(&args.ask.cluster.credentials)?;
    let unknown = || Failure::failed(format!("the file does not know this token file={}", file.display()));
    let grant = tokens.with_hash(&hash_of(&token)).ok_or_else(unknown)?;
    let now_ms = show::now_ms();
    let covers = args.id.as_deref().map(|id| grant.covers(id));
    match args.ask.output {
        Output::Json => {
            let mut document = show::document(grant, now_ms);
            document["covers_id"] = json!(covers);
            output::json(&document)?;
        }
        Output::Table => output::line(&lines(grant, covers, now_ms))?,
    }
    match grant.is_expired(now_ms) {
        true => Err(Failure::failed(format!("the token is no longer valid name={:?}", grant.name))),
        false => Ok(()),
    }
}

fn lines(grant: &Grant, covers: Option<bool>, now_ms: u64) -> String {
    let mut lines = vec![
        ("name", grant.name.to_string()),
        ("scopes", show::scopes(grant)),
        ("prefixes", show::prefixes(grant)),
        ("ends", show::end(grant, now_ms)),
    ];
    lines.extend(covers.map(|covers| ("that id", if covers { "yes" } else { "no: it has none of the prefixes" }.to_owned())));
    lines.iter().map(|(name, value)| format!("{name:<9} {value}")).collect::<Vec<_>>().join("\n")
}

async fn by_cluster(args: &args::TokenTest) -> Result<(), Failure> {
    let client = connect(&args.ask.cluster)?;
    let tried = tries(&client, args.id.as_deref()).await;
    client.close().await;
    let tried = tried?;
    match args.ask.output {
        Output::Json => {
            output::json(&tried.iter().map(|(scope, allowed)| ((*scope).to_owned(), json!(allowed))).collect::<Value>())?;
        }
        Output::Table => {
            let line = |(scope, allowed): &(&str, bool)| format!("{scope:<9} {}", if *allowed { "yes" } else { "no" });
            output::line(&tried.iter().map(line).collect::<Vec<_>>().join("\n"))?;
        }
    }
    Ok(())
}

/// Tries one call of each scope, of which none changes anything. Errors: the cluster does not take the token, or can't be asked.
async fn tries(client: &Client, id: Option<&str>) -> Result<Vec<(&'static str, bool)>, Failure> {
    let mut drawn = [0; 16];
    SystemRandom.fill(&mut drawn);
    let id = id.map_or_else(|| format!("quorate-token-test/{}", hex(&drawn)), ToOwned::to_owned);
    let read = is_allowed(client.load(&id).await.map(drop))?;
    let list = List { prefix: id.clone(), limit: 1, ..List::default() };
    let list = is_allowed(client.list(list).await.map(drop))?;
    let admin = is_allowed(client.events().await.map(drop))?;
    // No session was ever written so often.
    let never = Expected::At { version: Version(u64::MAX), create_revision: None };
    let save = client.save_if_version(&id, Content::Value(Vec::new().into()), never, WriteOptions::default()).await;
    let write = match save {
        Err(error) if matches!(error.kind(), ErrorKind::Conflict { .. }) => true,
        other => is_allowed(other.map(drop))?,
    };
    Ok(vec![("read", read), ("write", write), ("list", list), ("admin", admin)])
}

fn is_allowed(tried: Result<(), Error>) -> Result<bool, Failure> {
    match tried {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Denied => Ok(false),
        Err(error) => Err(read_failure(error)),
    }
}
