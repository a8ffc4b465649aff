//! `quorate session`: what an application does, by hand.

mod exact;
mod explain;
mod import;
mod many;
mod pages;
mod print;
mod prune;
mod remove;
pub mod stale;
mod transfer;
mod watch;

use std::io::{IsTerminal as _, Read};
use std::path::Path;
use std::time::Duration;

use quorate::client::{Builder, Client, Content, CopyOptions, PartOf, PartOptions, PartRead, Tls, WriteOptions};
use quorate::limits::{LIST_PAGE_MAX, MIB, SESSION_ID_BYTES_MAX, SESSION_RAW_BYTES_MAX};
use quorate::types::{Expected, Expiry, List, ListPage, Order, SessionId, Version};
use serde_json::json;

use crate::args::{self, GetOutput};
use crate::failure::{Code, Failure};
use crate::output;

pub use self::exact::session_json;
pub use self::explain::{ask_failure, read_failure, write_failure};
pub use self::transfer::{refuse, unless_refused};

/// Runs one of them. The client is closed in any case, so that its row does not stay behind for an hour.
pub async fn run(command: args::Session) -> Result<(), Failure> {
    match command {
        args::Session::Put(args) => put(args).await,
        args::Session::Cas(args) => cas(args).await,
        args::Session::Get(args) => get(args).await,
        args::Session::Rm(args) => remove::run(args).await,
        args::Session::Prune(args) => prune::run(args).await,
        args::Session::Ls(args) => ls(args).await,
        args::Session::Watch(args) => watch::run(args).await,
        args::Session::Copy(args) => copy(args).await,
        args::Session::Export(args) => transfer::export(args).await,
        args::Session::Import(args) => import::run(args).await,
    }
}

async fn put(args: args::Put) -> Result<(), Failure> {
    let (id, content) = read_id_and_content(&args.id, &args.content)?;
    let options = WriteOptions { expiry: expiry(args.ttl), ..WriteOptions::default() };
    let client = connect(&args.ask.cluster)?;
    let result = client.save(&id, content, options).await;
    client.close().await;
    print::written(&id, &result.map_err(write_failure)?, args.ask.output)
}

async fn cas(args: args::Cas) -> Result<(), Failure> {
    let (id, content) = read_id_and_content(&args.id, &args.content)?;
    let options = WriteOptions { expiry: expiry(args.ttl), ..WriteOptions::default() };
    let client = connect(&args.ask.cluster)?;
    let result = client.save_if_version(&id, content, expected(args.expect), options).await;
    client.close().await;
    print::written(&id, &result.map_err(write_failure)?, args.ask.output)
}

async fn copy(args: args::Copy) -> Result<(), Failure> {
    let options = CopyOptions { first_items: args.first, with_counters: args.with_counters, expiry: expiry(args.ttl) };
    let client = connect(&args.cluster)?;
    let result = client.copy(&args.from, &args.to, options).await;
    client.close().await;
    let written = result.map_err(write_failure)?.ok_or_else(|| missing(&args.from))?;
    print::written(&args.to, &written, args.output)
}

async fn get(args: args::Get) -> Result<(), Failure> {
    let ids = args.ids.iter().map(|id| read_id(id)).chain(args.named.clone().map(Ok)).collect::<Result<Vec<_>, _>>()?;
    if ids.len() > 1 && args.output != GetOutput::Json {
        return Err(Failure::usage("several sessions are printed as lines of JSON: pass `-o json`"));
    }
    let client = connect(&args.cluster)?;
    let result = match &ids[..] {
        [id] => get_from(&client, id, &args).await,
        ids => get_many(&client, ids, &args).await,
    };
    client.close().await;
    result
}

async fn get_many(client: &Client, ids: &[String], args: &args::Get) -> Result<(), Failure> {
    let asked = args.part.asked();
    let wanted: Vec<_> = ids.iter().map(|id| PartOf::new(id, asked)).collect();
    let reads = client.load_parts(&wanted, stale::consistency(args.stale)).await.map_err(read_failure)?;
    if args.stale {
        stale::tell(reads.first().and_then(|read| read.age));
    }
    let mut absent = Vec::new();
    for (id, PartRead { part, revision, .. }) in ids.iter().zip(reads) {
        match part {
            Some(part) => output::bytes(&print::part(id, asked, &part, args.output)?)?,
            None => {
                output::json(&json!({ "found": false, "id": id, "revision": revision.0 }))?;
                absent.push(id);
            }
        }
    }
    match &absent[..] {
        [] => Ok(()),
        [id] => Err(missing(id)),
        [id, ..] => Err(Failure {
            code: Code::NotFound,
            message: format!(
                "of the sessions asked for some are not there absent={} first={}",
                absent.len(),
                output::printable(id)
            ),
        }),
    }
}

async fn get_from(client: &Client, id: &str, args: &args::Get) -> Result<(), Failure> {
    let options = PartOptions { consistency: stale::consistency(args.stale), have: None };
    let PartRead { part, age, .. } = client.load_part_with(id, args.part.asked(), options).await.map_err(read_failure)?;
    let found = part.map(|part| print::part(id, args.part.asked(), &part, args.output));
    if args.stale {
        stale::tell(age);
    }
    let Some(found) = found else {
        if args.output == GetOutput::Json {
            output::json(&json!({ "found": false, "id": id }))?;
        }
        return Err(missing(id));
    };
    let text = found?;
    if !args.raw && std::io::stdout().is_terminal() && print::is_obeyed(&text) {
        let why = "the content holds control characters, which the terminal would obey";
        return Err(Failure::usage(format!("{why}; send the output to a file, or pass --raw to print it as it is")));
    }
    Ok(output::bytes(&text)?)
}

/// There is no such session: of a read that asked for it.
fn missing(id: &str) -> Failure {
    Failure { code: Code::NotFound, message: format!("there is no such session id={}", output::printable(id)) }
}

/// Pages through the listing; each page is of one instant, the whole of several.
async fn ls(args: args::Ls) -> Result<(), Failure> {
    let client = connect(&args.cluster)?;
    let result = print_listing(&client, &args).await;
    client.close().await;
    result
}

async fn print_listing(client: &Client, args: &args::Ls) -> Result<(), Failure> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut after: Option<SessionId> = args.after.as_deref().map(session_id).transpose()?;
    let mut order = if args.recent { Order::Recent { after: None } } else { Order::Ids };
    let mut printer = print::ListPrinter::new(args.output, args.count);
    while left > 0 {
        let limit = left.min(u64::from(LIST_PAGE_MAX)) as u32;
        let consistency = stale::consistency(args.stale);
        let list = List { prefix: args.prefix.clone(), after: after.take(), limit, consistency, order };
        let page = client.list(list).await.map_err(read_failure)?;
        if args.stale && !printer.has_begun() {
            stale::tell(page.age_ms.map(Duration::from_millis));
        }
        printer.page(&page.sessions)?;
        left -= (page.sessions.len() as u64).min(left);
        after = page.sessions.last().map(|listed| listed.id.clone());
        if args.recent {
            order = Order::Recent { after: page.sessions.last().map(|listed| listed.info.mod_revision) };
        }
        if !page.more || after.is_none() {
            print_end(&page);
            break;
        }
    }
    Ok(printer.end()?)
}

/// Says where a listing of recent sessions ends, unless that is with the first session of all.
fn print_end(page: &ListPage) {
    if let Some(since) = page.since.filter(|since| since.0 > 0) {
        print::note(&format!(
            "sessions that were written last at revision {since} or before are not listed by --recent; `session ls` has all"
        ));
    }
}

/// A client for one command.
pub fn connect(cluster: &args::Cluster) -> Result<Client, Failure> {
    let mut builder = Client::builder().endpoints(&cluster.endpoints);
    if let Some(timeout) = cluster.timeout {
        builder = builder.write_deadline(timeout).read_deadline(timeout).connect_timeout(timeout.min(Duration::from_secs(2)));
    }
    let builder = with_credentials(builder, &cluster.credentials)?;
    builder.build().map_err(|error| Failure::usage(format!("--endpoints, --ca, --cert, --key, --token-file: {error}")))
}

/// With what the command line says to believe and to show. Errors: that does not fit together.
pub fn with_credentials(mut builder: Builder, credentials: &args::Credentials) -> Result<Builder, Failure> {
    let args::Credentials { ca, cert, key, token_file, token } = credentials;
    match (ca, cert.as_ref().zip(key.as_ref())) {
        (Some(ca), None) => builder = builder.tls(Tls::ca_file(ca)),
        (Some(ca), Some((cert, key))) => builder = builder.tls(Tls::ca_file(ca).identity_files(cert, key)),
        (None, Some(_)) => return Err(Failure::usage("--cert needs --ca: a certificate is shown by TLS only")),
        (None, None) => {}
    }
    match (token_file, token) {
        (Some(file), _) => builder = builder.token_file(file),
        (None, Some(token)) => builder = builder.token(&token.0),
        (None, None) => {}
    }
    Ok(builder)
}

/// Closes a client. Calls of an interrupted command are not awaited.
async fn close(client: &Client, is_interrupted: bool) {
    let within = if is_interrupted { Duration::from_millis(500) } else { Duration::MAX };
    // Not closed, its row goes after an hour.
    let _ = tokio::time::timeout(within, client.close()).await;
}

fn is_interrupted<T>(result: &Result<T, Failure>) -> bool {
    result.as_ref().is_err_and(|failure| failure.code == Code::Interrupted)
}

fn expected(version: u64) -> Expected {
    match version {
        0 => Expected::Absent,
        version => Expected::At { version: Version(version), create_revision: None },
    }
}

fn expiry(ttl: Option<Duration>) -> Expiry {
    ttl.map_or(Expiry::Keep, Expiry::After)
}

/// An id as the cluster takes it. Errors: it is too long.
pub fn session_id(id: &str) -> Result<SessionId, Failure> {
    SessionId::new(id).map_err(Failure::usage)
}

fn read_id_and_content(id: &args::Id, content: &args::ContentArgs) -> Result<(String, Content), Failure> {
    if !content.typed.is_empty() {
        return Err(Failure::usage("the content comes from stdin or --file FILE, not from the command line; nothing changed"));
    }
    let file = &content.file;
    let content_is_stdin = file == Path::new("-");
    if id.id.as_deref() == Some("-") && content_is_stdin {
        return Err(Failure::usage("the id and the content can't both come from stdin; pass --file FILE"));
    }
    let id = typed_id(id)?;
    let bytes = if content_is_stdin {
        read_bounded(stdin(), SESSION_RAW_BYTES_MAX).map_err(|error| Failure::usage(format!("stdin: {error}; nothing changed")))?
    } else {
        std::fs::File::open(file)
            .and_then(|file| read_bounded(file, SESSION_RAW_BYTES_MAX))
            .map_err(|error| Failure::usage(format!("can't read the content: {error}; nothing changed file={}", file.display())))?
    };
    Ok((id, Content::from_json(&bytes)))
}

/// Standard input; a terminal is prompted, since its user would wait for us.
fn stdin() -> std::io::StdinLock<'static> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        print::note("reading from the terminal; Ctrl-D ends");
    }
    stdin.lock()
}

/// The one id that was typed, or read from stdin.
pub fn typed_id(id: &args::Id) -> Result<String, Failure> {
    match (&id.named, &id.id) {
        (Some(named), _) => Ok(named.clone()),
        (None, id) => read_id(id.as_deref().unwrap_or_default()),
    }
}

/// The id as typed, or for `-` all of stdin without its last line end.
fn read_id(id: &str) -> Result<String, Failure> {
    if id != "-" {
        return Ok(id.to_owned());
    }
    let bytes = read_bounded(stdin(), SESSION_ID_BYTES_MAX as u64 + 1)
        .map_err(|error| Failure::usage(format!("can't read the id from stdin: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage("the id on stdin is not UTF-8"))?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

fn read_bounded(from: impl Read, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, too_long(limit)));
    }
    Ok(bytes)
}

fn too_long(limit: u64) -> String {
    match limit / MIB {
        0 => format!("it is longer than {limit} bytes"),
        mib => format!("it is larger than {mib} MiB, the most a session may have before compression limit={limit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    #[test]
    fn what_is_longer_than_its_bound_is_refused_and_not_cut() {
        assert_eq!(read_bounded(&b"1234"[..], 4).expect("fits"), b"1234");
        assert!(read_bounded(&b"12345"[..], 4).is_err());
    }

    #[test]
    fn id_and_content_from_one_stdin_are_refused_before_anything_is_read() {
        let id = args::Id { id: Some("-".into()), named: None };
        let content = args::ContentArgs { file: "-".into(), typed: Vec::new() };
        let failure = read_id_and_content(&id, &content).expect_err("both");
        assert_eq!(failure.code, Code::Usage);
    }

    #[test]
    fn version_zero_expects_no_session() {
        assert_eq!(expected(0), Expected::Absent);
        assert_eq!(expected(3), Expected::At { version: Version(3), create_revision: None });
    }
}
