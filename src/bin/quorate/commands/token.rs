//! `quorate token new`: draws a token and writes what a node needs to know of it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;

use quorate::env::{Random, SystemRandom};
use quorate::server::auth::{Tokens, hash_of};

use crate::args;
use crate::failure::Failure;
use crate::output;

/// Makes a token easy to find in a text that should hold none.
const TOKEN_PREFIX: &str = "qrt_";

/// Prints the token once. Errors: the name or the scopes are wrong, or the file can't be written; then nothing changed.
pub fn run(args: &args::Token) -> Result<(), Failure> {
    let args::Token::New(args) = args;
    let (token, entry) = draw(args)?;
    match &args.file {
        None => {
            Tokens::parse(&entry).map_err(Failure::usage)?;
            Ok(output::line(&format!("{token}\n\nFor the file of tokens, on every node:\n\n{}", entry.trim_end()))?)
        }
        Some(path) => {
            append(path, &entry)?;
            Ok(output::line(&token)?)
        }
    }
}

/// A token, and its lines for the file of tokens. Errors: it would last too long.
pub fn draw(args: &args::TokenNew) -> Result<(String, String), Failure> {
    let mut secret = [0; 32];
    SystemRandom.fill(&mut secret);
    let token = format!("{TOKEN_PREFIX}{}", hex(&secret));
    let entry = entry(args, &token)?;
    Ok((token, entry))
}

fn entry(args: &args::TokenNew, token: &str) -> Result<String, Failure> {
    let list = |items: Vec<String>| items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", ");
    let scopes = list(args.scopes.iter().map(ToString::to_string).collect());
    let hash = hex(&hash_of(token));
    let mut text = format!("[[token]]\nname = {}\nsha256 = \"{hash}\"\nscopes = [{scopes}]\n", quoted(&args.name));
    if !args.prefixes.is_empty() {
        let _ = writeln!(text, "prefixes = [{}]", list(args.prefixes.clone()));
    }
    if let Some(ttl) = args.ttl {
        let end = SystemTime::now().checked_add(ttl).filter(|_| ttl < std::time::Duration::from_secs(100 * 366 * 24 * 3600));
        let end = end.ok_or_else(|| Failure::usage("--ttl is too long: at most 100 years"))?;
        let _ = writeln!(text, "expires = \"{}\"", humantime::format_rfc3339_seconds(end));
    }
    Ok(text)
}

/// The file as a whole must stay one that a node takes. Written beside it and renamed: a node never reads half of it.
fn append(path: &Path, entry: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let unusable =
        |error: std::io::Error| Failure::usage(format!("can't write the file of tokens: {error} path={}", path.display()));
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(unusable(error)),
    };
    let gap = if before.is_empty() || before.ends_with("\n\n") { "" } else { "\n" };
    let text = format!("{before}{gap}{entry}");
    Tokens::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(unusable)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        // Best effort: the next call says so if it is still there.
        let _ = std::fs::remove_file(&beside);
        unusable(error)
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A TOML string. Debug's escapes of control characters are TOML's but for the form of those that have no short one.
fn quoted(text: &str) -> String {
    text.chars().fold(String::from("\""), |mut quoted, c| {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
        quoted
    }) + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_prefix_holds_the_file_can_be_read() {
        for prefix in ["a/", "\"", "\\", "\n\t\u{1}\u{7f}", "ü"] {
            let args = args::TokenNew {
                name: "a".into(),
                scopes: vec![quorate::server::auth::Scope::Read],
                prefixes: vec![prefix.into()],
                ttl: Some(std::time::Duration::from_secs(60)),
                file: None,
            };
            let text = entry(&args, "token").expect("a token");
            let tokens = Tokens::parse(&text).expect(&text);
            let grant = tokens.named("a").expect("it was given");
            assert!(grant.covers(&format!("{prefix}x")) && !grant.covers("x"), "{text}");
            assert!(!text.contains("\"token\""), "{text}");
        }
    }
}
