//! `quorate session import`: what `export` wrote, and the directory of Bob's `FileSessionStore`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate::client::{Client, Content, Error, ErrorKind, WriteOptions, Written};
use quorate::limits::SESSION_RAW_BYTES_MAX;
use quorate::types::{Expected, Expiry, Label};
use serde_json::json;
use tokio::sync::mpsc;

use super::exact::{Document, from_base16};
use super::many::{Ended, Interrupted, Many};
use super::{close, connect, print, read_bounded, stdin, write_failure};
use crate::args;
use crate::failure::{Code, Failure};
use crate::output;
use crate::progress::Progress;

/// JSON needs up to six bytes for one of the content (`\u0001`), and a transcript may be there twice; some more for the id and the numbers.
const LINE_BYTES_MAX: u64 = 8 * SESSION_RAW_BYTES_MAX + (64 << 10);

/// A session to be stored.
#[derive(Debug)]
struct Item {
    id: String,
    content: Content,
    /// Milliseconds it has left to live; `None`: it never expires.
    left_ms: Option<u64>,
    /// Milliseconds that each write gives it, if it is idle.
    idle_ms: Option<u64>,
    /// Milliseconds that its tombstone stands, if that was said.
    tombstone_ms: Option<u64>,
    /// Its label, if it has one.
    label: Option<Label>,
}

/// The records read so far: the place, and the records.
struct Found {
    place: String,
    done: u64,
    item: Result<Item, String>,
}

/// The results of all writes.
#[derive(Debug, Default)]
struct Count {
    imported: u64,
    existed: u64,
    expired: u64,
    refused: u64,
}

/// Stores every session of a file or a directory. Errors: some were refused, each named on stderr; the others are stored.
pub async fn run(args: args::Import) -> Result<(), Failure> {
    let unreadable = |error| Failure::usage(format!("can't read it: {error}; nothing changed path={}", args.path.display()));
    let is_stdin = args.path.as_os_str() == "-";
    let (found, progress) = if is_stdin {
        // Taken by the thread that reads; here it only says what it waits for.
        drop(stdin());
        (spawn(|found| lines(std::io::stdin().lock(), "stdin", found))?, Progress::count("importing", 0))
    } else if fs::metadata(&args.path).map_err(unreadable)?.is_dir() {
        let names = names(&args.path).map_err(unreadable)?;
        let progress = Progress::count("importing", names.len() as u64);
        (spawn(|found| files(names, found))?, progress)
    } else {
        let file = File::open(&args.path).map_err(unreadable)?;
        let progress = Progress::bytes("importing", file.metadata().map_err(unreadable)?.len());
        let name = args.path.display().to_string();
        (spawn(move |found| lines(file, &name, found))?, progress)
    };
    let client = connect(&args.ask.cluster)?;
    let many = Many::new(None)?;
    let mut import =
        Import { client: client.clone(), if_absent: args.if_absent, count: Count::default(), many, failure: None, progress };
    let result = import.all(found).await;
    close(&client, matches!(result, Err(Stop::Interrupted))).await;
    let Import { count: Count { imported, existed, expired, refused }, many, progress, .. } = import;
    drop(progress);
    let done = format!("imported={imported} existed={existed} expired={expired} refused={refused}");
    output::changed(
        args.ask.output,
        &done,
        || json!({ "imported": imported, "existed": existed, "expired": expired, "refused": refused }),
    )?;
    match result {
        Err(Stop::Interrupted) => {
            let text = "interrupted: not all is imported; typing it again is safe, and with --if-absent continues with the rest";
            let message = format!("{text} imported={imported} unknown={}", many.open());
            return Err(Failure { code: Code::Interrupted, message });
        }
        Err(Stop::Failed(failure)) => {
            let again = "; typing it again is safe, and with --if-absent continues with the rest";
            return Err(Failure { message: format!("{}{again} imported={imported}", failure.message), ..failure });
        }
        Ok(()) => {}
    }
    match refused {
        0 => Ok(()),
        _ => Err(Failure::failed(format!("some were not imported, each is named above refused={refused}"))),
    }
}

enum Stop {
    Interrupted,
    Failed(Failure),
}

impl From<Interrupted> for Stop {
    fn from(_: Interrupted) -> Self {
        Self::Interrupted
    }
}

type Next = Result<Found, Failure>;

/// Reads in a separate thread: a read can't be cancelled, and an interrupted process must not wait for it. One item is read ahead.
fn spawn(read: impl FnOnce(&mpsc::Sender<Next>) -> Result<(), Failure> + Send + 'static) -> Result<mpsc::Receiver<Next>, Failure> {
    let (sender, receiver) = mpsc::channel(1);
    let body = move || {
        if let Err(failure) = read(&sender) {
            // Nobody waits for it any more.
            let _ = sender.blocking_send(Err(failure));
        }
    };
    let spawned = std::thread::Builder::new().name("reader".into()).spawn(body);
    spawned.map(|_| receiver).map_err(|error| Failure::failed(format!("can't start a thread: {error}")))
}

/// One document per line, as `export` writes them.
fn lines(from: impl Read, name: &str, to: &mpsc::Sender<Next>) -> Result<(), Failure> {
    let unreadable = |error: std::io::Error| Failure::failed(format!("can't read it: {error} file={name}"));
    let mut reader = BufReader::new(from);
    let (mut number, mut done) = (0u64, 0u64);
    loop {
        let mut line = Vec::new();
        let bytes = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(unreadable)?;
        if bytes == 0 {
            return Ok(());
        }
        (number, done) = (number + 1, done + bytes as u64);
        if bytes as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            return Err(Failure::failed(format!("a line is too long limit={LINE_BYTES_MAX} line={number}")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if to.blocking_send(Ok(Found { place: format!("line={number}"), done, item: item_of_line(&line) })).is_err() {
            return Ok(());
        }
    }
}

fn names(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut names = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    names.sort();
    Ok(names)
}

/// Every file of a `FileSessionStore`, in order of names.
fn files(names: Vec<PathBuf>, to: &mpsc::Sender<Next>) -> Result<(), Failure> {
    for (done, path) in names.iter().enumerate() {
        let name = output::printable(&path.file_name().unwrap_or_default().to_string_lossy());
        let found = Found { place: format!("file={name}"), done: done as u64, item: item_of_file(path) };
        if to.blocking_send(Ok(found)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Where a write came from, and what became of it.
type Stored = (String, Result<Written, Error>);

struct Import {
    client: Client,
    if_absent: bool,
    count: Count,
    many: Many<Stored>,
    /// The first that means that the cluster can't be written to: the rest need not be tried.
    failure: Option<Failure>,
    progress: Progress,
}

impl Import {
    /// Errors: interrupted, or the cluster can't be written to, or the rest can't be read. Writes that were begun are awaited.
    async fn all(&mut self, mut found: mpsc::Receiver<Next>) -> Result<(), Stop> {
        let begun = self.begin_all(&mut found).await;
        while let Some(ended) = self.many.next().await? {
            self.add(ended);
        }
        match self.failure.take() {
            Some(failure) => Err(Stop::Failed(failure)),
            None => begun,
        }
    }

    async fn begin_all(&mut self, found: &mut mpsc::Receiver<Next>) -> Result<(), Stop> {
        while let Some(found) = self.many.unless_interrupted(found.recv()).await? {
            let Found { place, done, item } = found.map_err(Stop::Failed)?;
            self.progress.set(done);
            match item {
                Ok(item) => self.item(place, item).await?,
                Err(why) => self.refuse(&place, &why),
            }
            if self.failure.is_some() {
                break;
            }
        }
        Ok(())
    }

    async fn item(&mut self, place: String, item: Item) -> Result<(), Interrupted> {
        let Item { id, content, left_ms, idle_ms, tombstone_ms, label } = item;
        let tombstone_ttl = tombstone_ms.map(Duration::from_millis);
        let expiry = match left_ms {
            None => Expiry::Never,
            Some(0) => {
                self.count.expired += 1;
                return Ok(());
            }
            Some(left_ms) => {
                idle_ms.map_or(Expiry::After(Duration::from_millis(left_ms)), |ms| Expiry::Idle(Duration::from_millis(ms)))
            }
        };
        let bytes = bytes_of(&content);
        while let Some(ended) = self.many.room(&id, bytes).await? {
            self.add(ended);
        }
        let (client, if_absent, options, to) =
            (self.client.clone(), self.if_absent, WriteOptions { expiry, tombstone_ttl, label }, id.clone());
        self.many.begin(&id, bytes, async move {
            let written = match if_absent {
                true => client.save_if_version(&to, content, Expected::Absent, options).await,
                false => client.save(&to, content, options).await,
            };
            (place, written)
        });
        Ok(())
    }

    fn add(&mut self, ended: Ended<Stored>) {
        let (place, written) = ended.result;
        match written {
            Ok(_) => self.count.imported += 1,
            Err(error) if matches!(error.kind(), ErrorKind::Conflict { .. }) => self.count.existed += 1,
            Err(error) if error.kind() == ErrorKind::Invalid => self.refuse(&place, &write_failure(error).message),
            Err(error) => {
                let failure = write_failure(error);
                let message = format!("{} {place}", failure.message);
                self.failure.get_or_insert(Failure { message, ..failure });
            }
        }
    }

    fn refuse(&mut self, place: &str, why: &str) {
        self.count.refused += 1;
        print::note(&format!("not imported: {why} {place}"));
    }
}

fn bytes_of(content: &Content) -> u64 {
    match content {
        Content::Value(bytes) => bytes.len() as u64,
        Content::Transcript { messages, head, .. } => {
            messages.iter().map(|message| message.len() as u64).sum::<u64>() + head.len() as u64
        }
    }
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn item_of_line(line: &[u8]) -> Result<Item, String> {
    let document = Document::of(line)?;
    let (left_ms, idle_ms) = (document.left_ms(now_ms())?, document.idle_ms()?);
    let (tombstone_ms, label) = (document.tombstone_ms()?, document.label()?);
    Ok(Item { id: document.id()?, left_ms, idle_ms, tombstone_ms, label, content: document.content()? })
}

/// A file whose name is the id in hex digits, or `session` for the empty id.
fn item_of_file(path: &Path) -> Result<Item, String> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("its name is not UTF-8")?;
    let stem = name.strip_suffix(".json").ok_or("its name does not end in .json")?;
    let id = match stem {
        "session" => String::new(),
        hex => from_base16(hex).and_then(|id| String::from_utf8(id).ok()).ok_or("its name is no session id in hex digits")?,
    };
    let unreadable = |error: std::io::Error| format!("it can't be read: {error}");
    // A link, a pipe or a device could lead anywhere, or never end.
    if !fs::symlink_metadata(path).map_err(unreadable)?.is_file() {
        return Err("it is no regular file".into());
    }
    let bytes = read_bounded(File::open(path).map_err(unreadable)?, SESSION_RAW_BYTES_MAX).map_err(unreadable)?;
    Ok(Item { id, content: Document::of(&bytes)?.state()?, left_ms: None, idle_ms: None, tombstone_ms: None, label: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_to_live_counts_and_not_the_deadline_of_a_cluster_whose_time_ran_ahead() {
        let left = |line: &str| item_of_line(line.as_bytes()).expect("a session").left_ms;
        assert_eq!(left(r#"{"id":"a","value":"x","deadline_ms":1,"ttl_ms":5000}"#), Some(5000));
        assert_eq!(left(r#"{"id":"a","value":"x","deadline_ms":1}"#), Some(0), "of an earlier release");
        assert_eq!(left(r#"{"id":"a","value":"x","deadline_ms":null,"ttl_ms":null}"#), None);
        let idle = |line: &str| item_of_line(line.as_bytes()).expect("a session").idle_ms;
        assert_eq!(idle(r#"{"id":"a","value":"x","ttl_ms":5000,"idle_ttl_ms":9000}"#), Some(9000));
        assert_eq!(idle(r#"{"id":"a","value":"x","ttl_ms":5000}"#), None, "of an earlier release");
        let label = |line: &str| item_of_line(line.as_bytes()).map(|item| item.label.map(|label| label.as_str().to_owned()));
        assert_eq!(label(r#"{"id":"a","value":"x","label":"a title"}"#), Ok(Some("a title".into())));
        assert_eq!(label(r#"{"id":"a","value":"x","label":null}"#), Ok(None));
        let long = format!(r#"{{"id":"a","value":"x","label":"{}"}}"#, "x".repeat(257));
        assert_eq!(label(&long), Err("label is too long bytes=257 limit=256".into()));
        let tombstone = |line: &str| item_of_line(line.as_bytes()).expect("a session").tombstone_ms;
        assert_eq!(tombstone(r#"{"id":"a","value":"x","tombstone_ttl_ms":0}"#), Some(0));
        assert_eq!(tombstone(r#"{"id":"a","value":"x"}"#), None, "of an earlier release");
    }

    #[test]
    fn a_line_that_is_no_session_is_refused_by_what_it_lacks() {
        let refused = |line: &str| item_of_line(line.as_bytes()).expect_err("no session");
        assert!(refused("{").contains("no JSON"));
        assert!(refused("[]").contains("no JSON object"));
        assert!(refused(r#"{"id":7,"value":"x"}"#).contains("no id"));
        assert!(refused(r#"{"id":"a"}"#).contains("none of"));
        assert!(refused(r#"{"id":"a","value":"x","deadline_ms":"soon"}"#).contains("deadline_ms"));
        assert!(refused(r#"{"id":"a","value":"x","deadline_ms":-1}"#).contains("deadline_ms"));
        assert!(refused(r#"{"id":"a","value":"x","ttl_ms":1.5}"#).contains("ttl_ms"));
        assert!(refused(r#"{"id":"a","value_base16":"0"}"#).contains("hex"));
        assert!(refused(r#"{"id":"a","value_base16":"0\u00e9x"}"#).contains("hex"));
        assert!(refused(r#"{"id":"a","state":{"messages":1}}"#).contains("messages"));
        assert!(refused(r#"{"id":"a","state":{"messages":[]},"transcript":{"messages":[1]}}"#).contains("transcript"));
    }

    /// Whatever a file holds is sessions or refusals.
    #[test]
    fn spoiled_lines_never_panic() {
        let lines = [
            r#"{"id":"a","version":3,"value":"text","deadline_ms":1700000000000}"#,
            r#"{"id":"a","value_base16":"00ff"}"#,
            r#"{"id":"b","state":{"messages":[{"role":"user","content":"x"}],"total_usage":{"prompt_tokens":1,"completion_tokens":2}}}"#,
            r#"{"id":"c","transcript":{"messages":["{",{"base16":"ff"}],"head":"{}","counters":[1,2]}}"#,
        ];
        for line in lines {
            assert!(item_of_line(line.as_bytes()).is_ok(), "{line}");
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
}
