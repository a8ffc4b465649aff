//! `quorate token ls`, and how a token looks to people.

use std::path::Path;

use quorate::env::{Env, read_file};
use quorate::server::auth::{Grant, Tokens};
use serde_json::{Value, json};

use super::FILE_BYTES_MAX;
use crate::args::{self, Output};
use crate::failure::Failure;
use crate::output;

/// All but the tokens, which no file holds.
pub fn list(args: &args::TokenLs) -> Result<(), Failure> {
    let tokens = read(&args.file)?;
    let now_ms = now_ms();
    match args.output {
        Output::Json => {
            let tokens: Vec<Value> = tokens.iter().map(|grant| document(grant, now_ms)).collect();
            output::json(&json!({ "tokens": tokens }))?;
        }
        Output::Table => {
            let mut table = output::table(["NAME", "SCOPES", "PREFIXES", "ENDS"]);
            for grant in tokens.iter() {
                table.add_row([grant.name.to_string(), scopes(grant), prefixes(grant), end(grant, now_ms)]);
            }
            output::line(&table.trim_fmt())?;
        }
    }
    Ok(())
}

/// Errors: it can't be read, or a node would not take it.
pub fn read(path: &Path) -> Result<Tokens, Failure> {
    let unreadable = |what: String| Failure::usage(format!("can't read the file of tokens: {what} file={}", path.display()));
    let bytes = read_file(path, FILE_BYTES_MAX).map_err(|error| unreadable(error.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unreadable("it is no text".into()))?;
    Tokens::parse(text).map_err(|error| unreadable(error.to_string()))
}

/// This machine's time, since the Unix epoch.
pub fn now_ms() -> u64 {
    Env::real().clock.wall_ms()
}

/// Of one token.
pub fn document(grant: &Grant, now_ms: u64) -> Value {
    json!({
        "name": &*grant.name,
        "scopes": grant.scopes().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "prefixes": grant.prefixes(),
        "expires_ms": grant.expires_ms,
        "expired": grant.is_expired(now_ms),
    })
}

pub fn scopes(grant: &Grant) -> String {
    grant.scopes().iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

pub fn prefixes(grant: &Grant) -> String {
    match grant.prefixes() {
        [] => "all ids".to_owned(),
        prefixes => output::printable(&prefixes.join(" ")),
    }
}

pub fn end(grant: &Grant, now_ms: u64) -> String {
    match grant.expires_ms {
        None => "never".to_owned(),
        Some(end) if grant.is_expired(now_ms) => format!("{}, expired", output::time(end)),
        Some(end) => output::time(end),
    }
}
