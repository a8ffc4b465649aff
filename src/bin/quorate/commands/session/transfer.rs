//! `quorate session export` and `import`: sessions as JSON, one per line, and the directory of Bob's `FileSessionStore`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate::client::{Client, Content, ErrorKind, LoadOptions, Session, WriteOptions};
use quorate::limits::{LIST_PAGE_MAX, SESSION_RAW_BYTES_MAX};
use quorate::types::{Expected, Expiry, List, SessionId};
use serde_json::{Value, json};

use super::print::session_json;
use super::{connect, read_failure, stale, write_failure};
use crate::args::{self, Output};
use crate::failure::Failure;
use crate::files::Sink;
use crate::output;
use crate::progress::Progress;

/// JSON needs up to six bytes for one of the content (`\u0001`); some more for the id and the numbers.
const LINE_BYTES_MAX: u64 = 6 * SESSION_RAW_BYTES_MAX + (64 << 10);

/// Writes sessions, one JSON document per line. Errors: what was written so far is whole lines.
pub async fn export(args: args::Export) -> Result<(), Failure> {
    let client = connect(&args.cluster)?;
    let result = export_to(&client, &args).await;
    client.close().await;
    let (sessions, age) = result?;
    if args.stale {
        stale::tell(age);
    }
    if args.file.as_os_str() != "-" {
        eprintln_line(&format!("exported sessions={sessions} file={}", args.file.display()));
    }
    Ok(())
}

/// A line for people where stdout may be the export itself; with stderr gone nobody is left to tell.
fn eprintln_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

async fn export_to(client: &Client, args: &args::Export) -> Result<(u64, Option<Duration>), Failure> {
    let mut out = Sink::open(&args.file)?;
    let options = LoadOptions { consistency: stale::consistency(args.stale) };
    let progress = Progress::count("exporting", 0);
    let mut exported = 0;
    let mut oldest = None;
    let mut one = async |id: &str, must_exist: bool| -> Result<(), Failure> {
        let read = client.load_with(id, options).await.map_err(read_failure)?;
        oldest = oldest.max(read.age);
        let Some(session) = read.session else {
            // One that was listed may be gone by now.
            let missing = || Failure::failed(format!("there is no such session id={}", output::printable(id)));
            return if must_exist { Err(missing()) } else { Ok(()) };
        };
        write_line(&mut out, id, &session)?;
        exported += 1;
        progress.set_of(exported, exported);
        Ok(())
    };
    for id in &args.ids {
        one(id, true).await?;
    }
    let mut after: Option<SessionId> = None;
    while args.ids.is_empty() {
        let consistency = options.consistency;
        let list = List { prefix: args.prefix.clone(), after: after.take(), limit: LIST_PAGE_MAX, consistency };
        let page = client.list(list).await.map_err(read_failure)?;
        for listed in &page.sessions {
            one(listed.id.as_str(), false).await?;
        }
        after = page.sessions.last().map(|listed| listed.id.clone());
        if !page.more || after.is_none() {
            break;
        }
    }
    out.finish()?;
    Ok((exported, oldest))
}

fn write_line(out: &mut dyn Write, id: &str, session: &Session) -> Result<(), Failure> {
    let mut line = session_json(id, session)?.to_string();
    line.push('\n');
    Ok(out.write_all(line.as_bytes())?)
}

/// A session to be stored.
#[derive(Debug)]
struct Item {
    id: String,
    content: Content,
    /// Milliseconds since the Unix epoch.
    deadline_ms: Option<u64>,
}

/// What became of all of them.
#[derive(Debug, Default)]
struct Count {
    imported: u64,
    existed: u64,
    expired: u64,
    refused: u64,
}

/// Stores every session of a file or a directory. Errors: some were refused, each named on stderr; the others are stored.
pub async fn import(args: args::Import) -> Result<(), Failure> {
    let unreadable = |error| Failure::usage(format!("can't read it: {error}; nothing changed path={}", args.path.display()));
    let is_dir = fs::metadata(&args.path).map_err(unreadable)?.is_dir();
    let client = connect(&args.cluster)?;
    let mut import = Import { client: &client, if_absent: args.if_absent, count: Count::default() };
    let result = match is_dir {
        true => import.directory(&args.path).await,
        false => import.lines(&args.path).await,
    };
    let count = import.count;
    client.close().await;
    let Count { imported, existed, expired, refused } = count;
    match args.output {
        Output::Json => {
            output::json(&json!({ "imported": imported, "existed": existed, "expired": expired, "refused": refused }))?;
        }
        Output::Table => {
            output::line(&format!("imported={imported} existed={existed} expired={expired} refused={refused}"))?;
        }
    }
    result?;
    match refused {
        0 => Ok(()),
        _ => Err(Failure::failed(format!("some were not imported, each is named above refused={refused}"))),
    }
}

struct Import<'c> {
    client: &'c Client,
    if_absent: bool,
    count: Count,
}

impl Import<'_> {
    /// One document per line, as `export` writes them.
    async fn lines(&mut self, path: &Path) -> Result<(), Failure> {
        let unreadable = |error: std::io::Error| Failure::failed(format!("can't read it: {error} file={}", path.display()));
        let file = File::open(path).map_err(unreadable)?;
        let progress = Progress::bytes("importing", file.metadata().map_err(unreadable)?.len());
        let mut reader = BufReader::new(file);
        let (mut number, mut read) = (0u64, 0u64);
        loop {
            let mut line = Vec::new();
            let bytes = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(unreadable)?;
            if bytes == 0 {
                return Ok(());
            }
            (number, read) = (number + 1, read + bytes as u64);
            if bytes as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
                return Err(Failure::failed(format!("a line is too long limit={LINE_BYTES_MAX} line={number}")));
            }
            if !line.trim_ascii().is_empty() {
                self.item(&format!("line={number}"), item_of_line(&line)).await?;
            }
            progress.set(read);
        }
    }

    /// Every file of a `FileSessionStore`, in order of names.
    async fn directory(&mut self, dir: &Path) -> Result<(), Failure> {
        let unreadable = |error: std::io::Error| Failure::failed(format!("can't read it: {error} path={}", dir.display()));
        let mut names: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(dir).map_err(unreadable)? {
            names.push(entry.map_err(unreadable)?.path());
        }
        names.sort();
        let progress = Progress::count("importing", names.len() as u64);
        for (done, path) in names.iter().enumerate() {
            progress.set(done as u64);
            let name = output::printable(&path.file_name().unwrap_or_default().to_string_lossy());
            self.item(&format!("file={name}"), item_of_file(path)).await?;
        }
        Ok(())
    }

    /// Errors: the cluster can't be written to, so the rest need not be tried.
    async fn item(&mut self, place: &str, item: Result<Item, String>) -> Result<(), Failure> {
        let Item { id, content, deadline_ms } = match item {
            Ok(item) => item,
            Err(why) => {
                self.refuse(place, &why);
                return Ok(());
            }
        };
        let expiry = match deadline_ms.map(|deadline_ms| deadline_ms.saturating_sub(now_ms())) {
            None => Expiry::Never,
            Some(0) => {
                self.count.expired += 1;
                return Ok(());
            }
            Some(left_ms) => Expiry::After(Duration::from_millis(left_ms)),
        };
        let options = WriteOptions { expiry };
        let written = match self.if_absent {
            true => self.client.save_if_version(&id, content, Expected::Absent, options).await,
            false => self.client.save(&id, content, options).await,
        };
        match written {
            Ok(_) => self.count.imported += 1,
            Err(error) if matches!(error.kind(), ErrorKind::Conflict { .. }) => self.count.existed += 1,
            Err(error) if error.kind() == ErrorKind::Invalid => self.refuse(place, &write_failure(error).message),
            Err(error) => {
                let failure = write_failure(error);
                return Err(Failure {
                    message: format!("{}; import again from here on, or all of it {place}", failure.message),
                    ..failure
                });
            }
        }
        Ok(())
    }

    fn refuse(&mut self, place: &str, why: &str) {
        self.count.refused += 1;
        eprintln_line(&format!("not imported: {why} {place}"));
    }
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn item_of_line(line: &[u8]) -> Result<Item, String> {
    let mut document: Value = serde_json::from_slice(line).map_err(|error| format!("it is no JSON: {error}"))?;
    let id = document.get("id").and_then(Value::as_str).ok_or("it has no id")?.to_owned();
    let deadline_ms = match document.get("deadline_ms") {
        None | Some(Value::Null) => None,
        // Not taken for one that never ends.
        Some(deadline) => Some(deadline.as_u64().ok_or("its deadline_ms is no number of milliseconds")?),
    };
    let content = if let Some(state) = document.get_mut("state") {
        transcript(state.take())?
    } else if let Some(text) = document.get("value").and_then(Value::as_str) {
        Content::Value(text.as_bytes().to_vec().into())
    } else if let Some(hex) = document.get("value_base16").and_then(Value::as_str) {
        Content::Value(from_hex(hex).ok_or("its value_base16 is not hex digits")?.into())
    } else {
        return Err("it has none of state, value, value_base16".into());
    };
    Ok(Item { id, content, deadline_ms })
}

/// A file whose name is the id in hex digits, or `session` for the empty id.
fn item_of_file(path: &Path) -> Result<Item, String> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("its name is not UTF-8")?;
    let stem = name.strip_suffix(".json").ok_or("its name does not end in .json")?;
    let id = match stem {
        "session" => String::new(),
        hex => from_hex(hex).and_then(|id| String::from_utf8(id).ok()).ok_or("its name is no session id in hex digits")?,
    };
    let unreadable = |error: std::io::Error| format!("it can't be read: {error}");
    // A link, a pipe or a device could lead anywhere, or never end.
    if !fs::symlink_metadata(path).map_err(unreadable)?.is_file() {
        return Err("it is no regular file".into());
    }
    let bytes = super::read_bounded(File::open(path).map_err(unreadable)?, SESSION_RAW_BYTES_MAX).map_err(unreadable)?;
    let mut state: Value = serde_json::from_slice(&bytes).map_err(|error| format!("it is no JSON: {error}"))?;
    // The other store's count; this one counts for itself.
    if let Some(object) = state.as_object_mut() {
        object.remove("version");
    }
    Ok(Item { id, content: transcript(state)?, deadline_ms: None })
}

fn transcript(state: Value) -> Result<Content, String> {
    match Content::from_json(state.to_string().as_bytes()) {
        content @ Content::Transcript { .. } => Ok(content),
        Content::Value(_) => Err("it is no session: an object with an array `messages` is expected".into()),
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_session_is_refused_by_what_it_lacks() {
        let refused = |line: &str| item_of_line(line.as_bytes()).expect_err("no session");
        assert!(refused("{").contains("no JSON"));
        assert!(refused("[]").contains("no id"));
        assert!(refused(r#"{"id":7,"value":"x"}"#).contains("no id"));
        assert!(refused(r#"{"id":"a"}"#).contains("none of"));
        assert!(refused(r#"{"id":"a","value":"x","deadline_ms":"soon"}"#).contains("deadline_ms"));
        assert!(refused(r#"{"id":"a","value":"x","deadline_ms":-1}"#).contains("deadline_ms"));
        assert!(refused(r#"{"id":"a","value_base16":"0"}"#).contains("hex"));
        assert!(refused(r#"{"id":"a","value_base16":"0\u00e9x"}"#).contains("hex"));
        assert!(refused(r#"{"id":"a","state":{"messages":1}}"#).contains("messages"));
    }

    /// Whatever a file holds is sessions or refusals.
    #[test]
    fn spoiled_lines_never_panic() {
        let lines = [
            r#"{"id":"a","version":3,"value":"text","deadline_ms":1700000000000}"#,
            r#"{"id":"a","value_base16":"00ff"}"#,
            r#"{"id":"b","state":{"messages":[{"role":"user","content":"x"}],"total_usage":{"prompt_tokens":1,"completion_tokens":2}}}"#,
        ];
        for line in lines {
            for at in 0..line.len() {
                let _ = item_of_line(&line.as_bytes()[..at]);
                for byte in [0, b'"', b'{', b'}', b'[', b'9', b'-', b'\\', 0x80, 0xff] {
                    let mut spoiled = line.as_bytes().to_vec();
                    spoiled[at] = byte;
                    let _ = item_of_line(&spoiled);
                    spoiled.insert(at, byte);
                    let _ = item_of_line(&spoiled);
                }
            }
        }
    }

    #[test]
    fn hex_is_bytes_or_nothing() {
        assert_eq!(from_hex("00fF"), Some(vec![0, 255]));
        assert_eq!(from_hex(""), Some(vec![]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("+1"), None);
    }
}
