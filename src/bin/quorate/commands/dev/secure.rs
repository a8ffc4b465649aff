//! `quorate dev --secure`: certificates and a token for a cluster on this machine, made once and kept beside its data.

use std::path::{Path, PathBuf};

use quorate::env::new_directory_beside;
use quorate::server::auth::Scope;

use super::plan::Plan;
use crate::args;
use crate::commands::{cert, token};
use crate::failure::Failure;
use crate::files::PRIVATE;

/// The certificates' validity: longer than any trial.
const DAYS: u32 = 365;

/// The directory with all of it, made if it is missing. Errors: it can't be written.
pub fn make(plan: &Plan, data_dir: &Path) -> Result<PathBuf, Failure> {
    let unusable = |error: std::io::Error| {
        Failure::usage(format!(
            "can't make certificates: {error}; name another directory with --data-dir path={}",
            data_dir.display()
        ))
    };
    // The path is shown to readers in other directories.
    let data_dir = data_dir.canonicalize().map_err(unusable)?;
    let certs = data_dir.join("certs");
    if certs.exists() {
        return Ok(certs);
    }
    let partial = new_directory_beside(&certs).map_err(unusable)?;
    let made = fill(plan, &partial).and_then(|()| std::fs::rename(&partial, &certs).map_err(unusable));
    if made.is_err() {
        // Best effort: it has a name of its own, and is in nobody's way.
        let _ = std::fs::remove_dir_all(&partial);
    }
    made.map(|()| certs)
}

fn fill(plan: &Plan, dir: &Path) -> Result<(), Failure> {
    let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    cert::make(&args::CertDev { dir: dir.to_owned(), nodes: (1..=plan.nodes).collect(), hosts, days: DAYS })?;
    let scopes = vec![Scope::Read, Scope::Write, Scope::List, Scope::Admin];
    let (token, entry) = token::draw(&args::TokenNew { name: "me".into(), scopes, prefixes: Vec::new(), ttl: None, file: None })?;
    cert::create(&dir.join("tokens.toml"), &entry, PRIVATE)?;
    cert::create(&dir.join("me.token"), &format!("{token}\n"), PRIVATE)
}

/// The client's certificate and token, as arguments.
pub fn credentials(certs: &Path) -> args::Credentials {
    let file = |name| Some(certs.join(name));
    args::Credentials {
        ca: file("ca.pem"),
        cert: file("client.pem"),
        key: file("client-key.pem"),
        token_file: file("me.token"),
        token: None,
    }
}
