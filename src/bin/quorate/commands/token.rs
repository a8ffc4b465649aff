//! `quorate token`: draws a token and writes what a node needs to know of it, shows what a file holds, and takes one out.

mod revoke;
mod show;
mod test;

use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;

use quorate::env::{Prepared, Random, Replacing, SystemRandom};
use quorate::server::auth::{Tokens, hash_of};

use crate::args;
use crate::failure::Failure;
use crate::files;
use crate::output;

/// Makes a token easy to find in a text that should hold none.
const TOKEN_PREFIX: &str = "qrt_";
/// Of a file of tokens: a node takes no larger one.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Runs one of them.
///
/// `new` prints the token once. Errors: the name or the scopes are wrong, or the file can't be written; then nothing changed.
pub async fn run(command: args::Token) -> Result<(), Failure> {
    match command {
        args::Token::New(args) => new(&args),
        args::Token::Ls(args) => show::list(&args),
        args::Token::Test(args) => test::run(args).await,
        args::Token::Revoke(args) => revoke::run(&args),
    }
}

fn new(args: &args::TokenNew) -> Result<(), Failure> {
    let (token, entry) = draw(args)?;
    match &args.file {
        None => {
            Tokens::parse(&entry).map_err(Failure::usage)?;
            Ok(output::line(&format!("{token}\n\nFor the file of tokens, on every node:\n\n{}", entry.trim_end()))?)
        }
        Some(path) => append(path, &token, &entry),
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

/// The file as a whole must stay one that a node takes. It is put in place only once the token was shown: nobody can read it again.
fn append(path: &Path, token: &str, entry: &str) -> Result<(), Failure> {
    let file = open(path)?;
    let before = text_of(&file, path)?;
    let gap = if before.is_empty() || before.ends_with("\n\n") { "" } else { "\n" };
    let prepared = prepare(&file, path, &format!("{before}{gap}{entry}"))?;
    output::line(token).map_err(|error| {
        Failure::failed(format!("can't write the output, so nothing was changed: {error} file={}", path.display()))
    })?;
    let is_new = file.before().is_none();
    file.replace(prepared).map_err(|error| {
        Failure::failed(format!("the token that was shown is worth nothing, the file was not changed: {error}"))
    })?;
    if is_new {
        note_owner(path);
    }
    Ok(())
}

/// A new file belongs to whom typed this, and only that user may read it: nodes run as another one, often the directory's.
fn note_owner(path: &Path) {
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;
    let owner = |path: &Path| path.metadata().map(|found| found.uid());
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let (Ok(own), Ok(dirs)) = (owner(path), owner(dir))
        && own != dirs
    {
        let text = "only its owner can read the new file, and its directory is another user's: give it to the user that the nodes run as (chown)";
        // With stderr gone nobody is left to tell.
        let _ = writeln!(std::io::stderr(), "note: {text} file={} owner={own} directory_owner={dirs}", path.display());
    }
}

fn open(path: &Path) -> Result<Replacing, Failure> {
    // Dealt with before the lock is taken: the name is the old one, before a link is followed.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    files::sweep(&real);
    Replacing::open(path, FILE_BYTES_MAX).map_err(|error| unusable(&error))
}

fn text_of<'f>(file: &'f Replacing, path: &Path) -> Result<&'f str, Failure> {
    std::str::from_utf8(file.before().unwrap_or_default())
        .map_err(|_| Failure::usage(format!("the file of tokens is no text; nothing was changed file={}", path.display())))
}

/// Errors: a node would not take this text, or it can't be written; nothing was changed.
fn prepare(file: &Replacing, path: &Path, text: &str) -> Result<Prepared, Failure> {
    Tokens::parse(text).map_err(|error| Failure::usage(format!("{}: {error}; nothing was changed", path.display())))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let text = format!("the file of tokens would be larger than a node takes; nothing was changed limit={FILE_BYTES_MAX}");
        return Err(Failure::usage(format!("{text} file={}", path.display())));
    }
    file.prepare(text.as_bytes(), files::PRIVATE).map_err(|error| unusable(&error))
}

fn unusable(error: &std::io::Error) -> Failure {
    Failure::usage(format!("can't use the file of tokens, nothing was changed: {error}"))
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
